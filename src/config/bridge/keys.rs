//! The keys of a `[[bridge]]` table and of its rules.

use super::{BridgeProtocol, BridgeSettings, RULE_COUNT_MAX, SpoolSync, WhenFull};
use crate::config::duration::TimeUnit::{Milliseconds, Seconds};
use crate::config::kind::{Kind, Value};
use crate::config::table::{Field, Shape};
use crate::limits::PACKET_SIZE_CEILING;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

const ADDRESS_COUNT_MAX: usize = 16;
const PROPERTY_COUNT_MAX: usize = 64;
const EXCEPT_COUNT_MAX: usize = 64;
/// What MQTT can express in a string.
const TEXT_SIZE_MAX: usize = 65_535;
pub(super) const NAME_SIZE_MAX: usize = 64;
/// Packet identifiers that messages may have.
const INFLIGHT_MAX: u64 = 5000;

pub(super) const PROTOCOLS: &[&str] = &["5.0", "3.1.1"];
pub(super) const SYNCS: &[&str] = &["each-batch", "interval", "never"];
pub(super) const POLICIES: &[&str] = &["drop-oldest", "drop-newest", "hold"];
pub(super) const RETAINS: &[&str] = &["keep", "set", "clear"];

/// A key with one value, and where that value is.
pub(super) struct Scalar {
    pub name: &'static str,
    pub get: fn(&BridgeSettings) -> Value,
    pub set: fn(&mut BridgeSettings, Value),
}

const fn text(size_min: usize, size_max: usize) -> Shape {
    Shape::One(Kind::Text { size_min, size_max })
}

const fn count(min: u64, max: u64) -> Shape {
    Shape::One(Kind::Count { min, max })
}

const fn size(min: u64, max: u64) -> Shape {
    Shape::One(Kind::Size { min, max })
}

const fn milliseconds(min: u64, max: u64) -> Shape {
    Shape::One(Kind::Time { unit: Milliseconds, min, max })
}

const fn seconds(max: u64) -> Shape {
    Shape::One(Kind::Time { unit: Seconds, min: 0, max })
}

const fn properties() -> Shape {
    Shape::Tables { fields: PROPERTY_FIELDS, count_max: PROPERTY_COUNT_MAX }
}

const fn field(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    example: &'static str,
    explanation: &'static str,
) -> Field {
    Field { name, shape, explanation, default, example }
}

/// In the order in which they are printed.
pub(super) const FIELDS: &[Field] = &[
    field(
        "name",
        text(1, NAME_SIZE_MAX),
        "none, it must be given",
        "\"north\"",
        "Its own name, of letters, digits, - and _: in the log and in $SYS/bridges/NAME.",
    ),
    field(
        "addresses",
        Shape::One(Kind::Texts { count_max: ADDRESS_COUNT_MAX, size_max: 300 }),
        "none, they must be given",
        "[\"broker.example:1883\", \"10.0.0.2:1883\"]",
        "The remote broker, by name or address; the next one is tried when one fails. Without a port: 1883.",
    ),
    field(
        "protocol",
        Shape::One(Kind::Choice(PROTOCOLS)),
        "\"5.0\"",
        "\"5.0\"",
        "The version of MQTT that is spoken.",
    ),
    field(
        "client_id",
        text(0, 1024),
        "\"\", which means one of its own, made once and kept in spool_dir",
        "\"site-7\"",
        "The client identifier, which no other site may have; further connections put -1, -2 behind it.",
    ),
    field("user_name", text(0, TEXT_SIZE_MAX), "none", "\"bridge\"", "The user name."),
    field(
        "password",
        text(0, TEXT_SIZE_MAX),
        "none",
        "\"secret\"",
        "The password; it is never printed.",
    ),
    field(
        "clean_start",
        Shape::One(Kind::Flag),
        "false",
        "false",
        "The remote forgets the session at each connect; QoS 2 is then not exactly once over a lost link.",
    ),
    field(
        "session_expiry_s",
        seconds(u32::MAX as u64),
        "604800 (7d)",
        "\"7d\"",
        "How long the remote keeps the session while the link is down. 5.0 only.",
    ),
    field(
        "keep_alive_s",
        seconds(u16::MAX as u64),
        "60",
        "60",
        "A remote that is silent for about as long is asked, then given up. 0: never.",
    ),
    field(
        "receive_max",
        count(1, u16::MAX as u64),
        "1024",
        "1024",
        "QoS 1 and 2 messages that the remote may send before we acknowledge one. 5.0 only.",
    ),
    field(
        "inflight_max",
        count(1, INFLIGHT_MAX),
        "1024",
        "1024",
        "QoS 1 and 2 messages sent before the remote acknowledges one, if it allows so many.",
    ),
    field(
        "packet_size_max",
        size(KIB, PACKET_SIZE_CEILING as u64),
        "\"1MiB\"",
        "\"1MiB\"",
        "The largest packet in either direction; a larger message is refused and counted. arena_size bounds what comes in.",
    ),
    field(
        "topic_alias_max",
        count(0, u16::MAX as u64),
        "64",
        "64",
        "Topic aliases that the remote may use. 5.0 only.",
    ),
    field(
        "topic_alias_out_max",
        count(0, 256),
        "32",
        "32",
        "Topic aliases that we use, if the remote allows so many. 5.0 only.",
    ),
    field(
        "connect_timeout_ms",
        milliseconds(100, 600_000),
        "10000 (10s)",
        "\"10s\"",
        "An address that has not let us in by then is given up.",
    ),
    field(
        "reconnect_min_ms",
        milliseconds(10, 3_600_000),
        "1000 (1s)",
        "\"1s\"",
        "The pause before the first try to connect again; it doubles each time, and half of it is chance.",
    ),
    field(
        "reconnect_max_ms",
        milliseconds(10, 86_400_000),
        "60000 (1m)",
        "\"1m\"",
        "The longest pause; also after a refusal that waiting does not heal.",
    ),
    field(
        "refused_max_s",
        seconds(u32::MAX as u64),
        "3600 (1h)",
        "\"1h\"",
        "How long a message that the remote refuses for now is sent again before it is set aside. 0: for ever.",
    ),
    field(
        "poison_closes_max",
        count(0, 1000),
        "5",
        "5",
        "So often in a row the remote may close over one message before that is set aside. 0: for ever.",
    ),
    field(
        "aside_bytes_max",
        size(64 * KIB, 64 << 30),
        "\"16MiB\"",
        "\"16MiB\"",
        "Size of the file aside in spool_dir; `ringmq aside NAME` shows it. What does not fit is dropped; with hold, kept.",
    ),
    field(
        "connections",
        count(1, 64),
        "1",
        "1",
        "Connections side by side; all messages of a topic take the same one, in order.",
    ),
    field(
        "echo_detection",
        Shape::One(Kind::Flag),
        "true",
        "true",
        "Of links without hop marks, as 3.1.1. true: a genuine repeat within a minute is dropped, too. false: loops never end.",
    ),
    field(
        "connect_properties",
        properties(),
        "none",
        "[{ name = \"site\", value = \"7\" }]",
        "User properties of CONNECT. 5.0 only.",
    ),
    field(
        "message_properties",
        properties(),
        "none",
        "[{ name = \"via\", value = \"site-7\" }]",
        "User properties behind those of each forwarded message. 5.0 only.",
    ),
    field(
        "memory_messages_max",
        count(1, 100_000_000),
        "10000",
        "10000",
        "Messages of one connection that wait in memory.",
    ),
    field(
        "memory_bytes_max",
        size(64 * KIB, 64 << 30),
        "\"16MiB\"",
        "\"16MiB\"",
        "Bytes of one connection's messages that wait in memory.",
    ),
    field(
        "spool_dir",
        text(0, 4096),
        "\"\", which means bridges/NAME below data_dir",
        "\"/var/lib/ringmq/bridges/north\"",
        "The folder of the logs that hold what the remote has not acknowledged.",
    ),
    field(
        "spool_bytes_max",
        size(MIB, 256 * TIB),
        "\"1GiB\"",
        "\"1GiB\"",
        "Bytes of one connection's log.",
    ),
    field(
        "spool_messages_max",
        count(1, 1 << 40),
        "10000000",
        "10000000",
        "Messages in one connection's log.",
    ),
    field(
        "spool_segment_size",
        size(64 * KIB, 4 << 30),
        "\"16MiB\"",
        "\"16MiB\"",
        "Size of a file of the log; a file goes when all its messages are done.",
    ),
    field(
        "spool_sync",
        Shape::One(Kind::Choice(SYNCS)),
        "\"each-batch\"",
        "\"each-batch\"",
        "When the log is made safe against a power loss: before publishers are answered, at intervals, or never.",
    ),
    field(
        "spool_sync_ms",
        milliseconds(1, 3_600_000),
        "100 (100ms)",
        "\"100ms\"",
        "The interval of spool_sync = \"interval\".",
    ),
    field(
        "when_full",
        Shape::One(Kind::Choice(POLICIES)),
        "\"drop-oldest\"",
        "\"drop-oldest\"",
        "A full log, or disk, drops the oldest messages (of a disk whole files), the arriving one, or makes publishers wait.",
    ),
    field(
        "forward",
        Shape::Tables { fields: FORWARD_FIELDS, count_max: RULE_COUNT_MAX },
        "none",
        "[{ filter = \"sensors/+/temp/#\", to = \"site-7/$1/t/$2\", qos_max = 1 }]",
        "What goes to the remote; the first rule whose filter means a topic holds.",
    ),
    field(
        "subscribe",
        Shape::Tables { fields: SUBSCRIBE_FIELDS, count_max: RULE_COUNT_MAX },
        "none",
        "[{ filter = \"commands/#\", prefix = \"north/\", except = [\"commands/test/#\"] }]",
        "What comes from the remote; the first rule whose filter means a topic holds.",
    ),
];

const PROPERTY_FIELDS: &[Field] = &[
    field("name", text(1, TEXT_SIZE_MAX), "none, it must be given", "\"site\"", "The name."),
    field("value", text(0, TEXT_SIZE_MAX), "none, it must be given", "\"7\"", "The value."),
];

const FILTER: Field = field(
    "filter",
    text(1, TEXT_SIZE_MAX),
    "none, it must be given",
    "\"sensors/#\"",
    "The topics it is for.",
);
const TO: Field = field(
    "to",
    text(1, TEXT_SIZE_MAX),
    "the topic as it is",
    "\"site-7/$1\"",
    "The topic on the other side: $1 is what the first wildcard stands for, $# the last, $0 the topic.",
);
const PREFIX: Field = field(
    "prefix",
    text(0, TEXT_SIZE_MAX),
    "none",
    "\"site-7/\"",
    "Stands before the topic; instead of to.",
);
const QOS_MAX: Field = field("qos_max", count(0, 2), "2", "1", "A higher QoS becomes this one.");
const QOS: Field = field(
    "qos",
    count(0, 2),
    "as published",
    "1",
    "Every message has this QoS; instead of qos_max.",
);
const RETAIN: Field = field(
    "retain",
    Shape::One(Kind::Choice(RETAINS)),
    "\"keep\"",
    "\"keep\"",
    "What becomes of the retain flag.",
);
const EXCEPT: Field = field(
    "except",
    Shape::One(Kind::Texts { count_max: EXCEPT_COUNT_MAX, size_max: TEXT_SIZE_MAX }),
    "none",
    "[\"sensors/test/#\"]",
    "Topics that are left to the rules behind this one.",
);
const STORE: Field = field(
    "store",
    Shape::One(Kind::Flag),
    "true",
    "true",
    "QoS 1 and 2 messages are in the log before their publisher is answered.",
);

const FORWARD_FIELDS: &[Field] = &[FILTER, TO, PREFIX, QOS_MAX, QOS, RETAIN, EXCEPT, STORE];
const SUBSCRIBE_FIELDS: &[Field] = &[FILTER, TO, PREFIX, QOS_MAX, QOS, RETAIN, EXCEPT];

/// A key whose number is a field of the same name.
macro_rules! number {
    ($name:ident) => {
        Scalar {
            name: stringify!($name),
            get: |settings| Value::Number(settings.$name as u64),
            set: |settings, value| {
                let Value::Number(number) = value else { panic!("a number: {value:?}") };
                settings.$name = number.try_into().expect("the bounds fit the field");
            },
        }
    };
}

macro_rules! flag {
    ($name:ident) => {
        Scalar {
            name: stringify!($name),
            get: |settings| Value::Flag(settings.$name),
            set: |settings, value| {
                let Value::Flag(flag) = value else { panic!("a flag: {value:?}") };
                settings.$name = flag;
            },
        }
    };
}

/// A key whose words stand for values, in the same order.
macro_rules! choice {
    ($name:ident, $words:ident, $values:expr) => {
        Scalar {
            name: stringify!($name),
            get: |settings| {
                let place = $values.iter().position(|value| *value == settings.$name);
                Value::Word($words[place.expect("every value has a word")])
            },
            set: |settings, value| {
                let place = $words.iter().position(|word| value == Value::Word(word));
                settings.$name = $values[place.expect("the kind reads only these words")];
            },
        }
    };
}

pub(super) const SCALARS: &[Scalar] = &[
    choice!(protocol, PROTOCOLS, [BridgeProtocol::V5, BridgeProtocol::V311]),
    Scalar {
        name: "client_id",
        get: |settings| Value::Text(settings.client_id.clone()),
        set: |settings, value| settings.client_id = into_text(value),
    },
    flag!(clean_start),
    number!(session_expiry_s),
    number!(keep_alive_s),
    number!(receive_max),
    number!(inflight_max),
    number!(packet_size_max),
    number!(topic_alias_max),
    number!(topic_alias_out_max),
    number!(connect_timeout_ms),
    number!(reconnect_min_ms),
    number!(reconnect_max_ms),
    number!(refused_max_s),
    number!(poison_closes_max),
    number!(aside_bytes_max),
    number!(connections),
    flag!(echo_detection),
    number!(memory_messages_max),
    number!(memory_bytes_max),
    Scalar {
        name: "spool_dir",
        get: |settings| Value::Text(settings.spool_dir.display().to_string()),
        set: |settings, value| settings.spool_dir = into_text(value).into(),
    },
    number!(spool_bytes_max),
    number!(spool_messages_max),
    number!(spool_segment_size),
    choice!(spool_sync, SYNCS, [SpoolSync::EachBatch, SpoolSync::Interval, SpoolSync::Never]),
    number!(spool_sync_ms),
    choice!(when_full, POLICIES, [WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Hold]),
];

fn into_text(value: Value) -> String {
    let Value::Text(text) = value else { panic!("a text: {value:?}") };
    text
}

/// The kind of a scalar's value.
pub(super) fn kind_of(name: &str) -> Kind {
    let field = FIELDS.iter().find(|field| field.name == name).expect("every scalar is a field");
    let Shape::One(kind) = field.shape else { panic!("{name} has one value") };
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_those_that_hold() {
        let settings = BridgeSettings::new("x");
        for scalar in SCALARS {
            let field = FIELDS.iter().find(|field| field.name == scalar.name).unwrap();
            let kind = kind_of(scalar.name);
            let mut expected = kind.toml(&(scalar.get)(&settings));
            let text = kind.text(&(scalar.get)(&settings));
            if matches!(kind, Kind::Time { .. }) && field.default.contains(' ') {
                expected = format!("{expected} ({text})");
            }
            assert!(field.default.starts_with(&expected), "{}: {expected}", scalar.name);
        }
    }

    #[test]
    fn every_field_has_one_way_to_be_read() {
        let others = [
            "name",
            "addresses",
            "user_name",
            "password",
            "connect_properties",
            "message_properties",
            "forward",
            "subscribe",
        ];
        for field in FIELDS {
            let is_scalar = SCALARS.iter().any(|scalar| scalar.name == field.name);
            assert_ne!(is_scalar, others.contains(&field.name), "{}", field.name);
            assert!(field.explanation.len() <= 120 && field.explanation.ends_with('.'));
        }
    }
}
