//! The one table of keys: each is a key of the TOML file and an option of the command line.

use super::duration::TimeUnit::{Microseconds, Milliseconds, Seconds};
use super::kind::{Kind, Value};
use super::{IoMode, LogFormat, LogLevel, Settings, StallAction, WaitMode};
use crate::limits::{PACKET_SIZE_CEILING, QueuePolicy, SHARD_COUNT_MAX};

/// One thing that an operator may set.
pub struct Key {
    /// As in the file; the option has dashes for underscores.
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    /// One line.
    pub explanation: &'static str,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, Value),
}

/// What a key is about: a heading in the help and in the printed configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Network,
    Workers,
    Packets,
    Sessions,
    Queues,
    Retained,
    Memory,
    Reports,
}

/// A closed set of words.
trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [&'static str];
    /// In the order of the words.
    const VALUES: &'static [Self];

    fn word(self) -> Value {
        let index = Self::VALUES.iter().position(|value| *value == self);
        Value::Word(Self::WORDS[index.expect("every value has a word")])
    }

    fn from_word(value: &Value) -> Self {
        let Value::Word(word) = value else { panic!("the kind reads words: {value:?}") };
        let index = Self::WORDS.iter().position(|known| known == word);
        Self::VALUES[index.expect("the kind reads only these words")]
    }
}

impl Choice for IoMode {
    const WORDS: &'static [&'static str] = &["auto", "uring", "epoll"];
    const VALUES: &'static [Self] = &[IoMode::Auto, IoMode::Uring, IoMode::Epoll];
}

impl Choice for WaitMode {
    const WORDS: &'static [&'static str] = &["sleep", "spin", "adaptive"];
    const VALUES: &'static [Self] = &[WaitMode::Sleep, WaitMode::Spin, WaitMode::Adaptive];
}

impl Choice for StallAction {
    const WORDS: &'static [&'static str] = &["end", "continue"];
    const VALUES: &'static [Self] = &[StallAction::End, StallAction::Continue];
}

impl Choice for QueuePolicy {
    const WORDS: &'static [&'static str] = &["drop-newest", "drop-oldest"];
    const VALUES: &'static [Self] = &[QueuePolicy::DropNewest, QueuePolicy::DropOldest];
}

impl Choice for LogLevel {
    const WORDS: &'static [&'static str] = &["error", "warn", "info", "debug", "trace"];
    const VALUES: &'static [Self] =
        &[LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
}

impl Choice for LogFormat {
    const WORDS: &'static [&'static str] = &["human", "json"];
    const VALUES: &'static [Self] = &[LogFormat::Human, LogFormat::Json];
}

impl Group {
    pub const ALL: [Group; 8] = [
        Group::Network,
        Group::Workers,
        Group::Packets,
        Group::Sessions,
        Group::Queues,
        Group::Retained,
        Group::Memory,
        Group::Reports,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Group::Network => "Network",
            Group::Workers => "Workers",
            Group::Packets => "Packets and topics",
            Group::Sessions => "Sessions",
            Group::Queues => "Queues",
            Group::Retained => "Retained messages",
            Group::Memory => "Memory of each shard, and disk",
            Group::Reports => "Logs and reports",
        }
    }
}

impl Key {
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    pub fn get(&self, settings: &Settings) -> Value {
        (self.get)(settings)
    }

    /// `value` is of this key's kind and within its bounds.
    pub fn set(&self, settings: &mut Settings, value: Value) {
        (self.set)(settings, value);
    }

    /// The option of the command line, without its dashes in front.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    let Value::Number(number) = value else { panic!("the kind reads numbers: {value:?}") };
    T::try_from(*number).ok().expect("the kind's bounds fit the field")
}

fn flag(value: &Value) -> bool {
    let Value::Flag(flag) = value else { panic!("the kind reads flags: {value:?}") };
    *flag
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

/// A number: `limit!` of the shards' limits, `setting!` of the process.
macro_rules! limit {
    ($group:ident, $name:ident, $kind:expr, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: $kind,
            explanation: $explanation,
            get: |settings| Value::Number(settings.limits.$name as u64),
            set: |settings, value| settings.limits.$name = number(&value),
        }
    };
}

macro_rules! limit_flag {
    ($group:ident, $name:ident, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: Kind::Flag,
            explanation: $explanation,
            get: |settings| Value::Flag(settings.limits.$name),
            set: |settings, value| settings.limits.$name = flag(&value),
        }
    };
}

macro_rules! setting {
    ($group:ident, $name:ident, $kind:expr, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: $kind,
            explanation: $explanation,
            get: |settings| Value::Number(settings.$name as u64),
            set: |settings, value| settings.$name = number(&value),
        }
    };
}

/// Every key, in the order in which they are printed: by group.
pub static KEYS: &[Key] = &[
    Key {
        name: "listen",
        group: Group::Network,
        kind: Kind::Addresses,
        explanation: "Where clients connect. Anyone who reaches it may publish and subscribe. [::] is IPv6 only; port 0: any free one.",
        get: |settings| Value::Addresses(settings.listen.clone()),
        set: |settings, value| {
            let Value::Addresses(list) = value else { panic!("the kind reads addresses") };
            settings.listen = list;
        },
    },
    Key {
        name: "connections_max",
        group: Group::Network,
        kind: count(1, 10_000_000),
        explanation: "Connections of the whole broker; each needs an open file.",
        get: |settings| Value::Number(settings.connections_max as u64),
        set: |settings, value| {
            settings.connections_max = number(&value);
            settings.limits.connections_max = number(&value);
        },
    },
    setting!(
        Network,
        connections_per_address_max,
        count(0, 10_000_000),
        "Connections at a time from one address (IPv6: one /64). 0: no limit, as behind a load balancer."
    ),
    setting!(
        Network,
        connect_rate_per_address_max,
        count(0, 1_000_000),
        "Connections that one address (IPv6: one /64) may open within a second. 0: no limit."
    ),
    Key {
        name: "bridges_from",
        group: Group::Network,
        kind: Kind::Networks,
        explanation: "Where brokers are whose bridges are believed where a message has been: by 5.0, loops with others end by content.",
        get: |settings| Value::Networks(settings.limits.bridges_from.clone()),
        set: |settings, value| {
            let Value::Networks(networks) = value else { panic!("the kind reads networks") };
            settings.limits.bridges_from = networks;
        },
    },
    limit_flag!(
        Network,
        shares_by_address,
        "At a limit the address (IPv6: /64) that holds most loses first, not only the client. false: behind several balancers."
    ),
    limit!(
        Network,
        connect_timeout_ms,
        Kind::Time { unit: Milliseconds, min: 100, max: 600_000 },
        "Time that a client has from connecting to the end of its CONNECT packet."
    ),
    limit!(
        Network,
        packet_time_max_ms,
        Kind::Time { unit: Milliseconds, min: 1_000, max: 604_800_000 },
        "Time that a packet may take to arrive while its client keeps sending. The default fits 1 MiB at 2 kB/s."
    ),
    limit!(
        Network,
        linger_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 60_000 },
        "Time that a connection being closed has for its last bytes, and its client to read them and close, too."
    ),
    limit!(
        Network,
        lingering_max,
        count(0, 1_000_000),
        "Closed connections on each shard that are read on until their clients close, too: then those learn why."
    ),
    Key {
        name: "shutdown_max_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 1_000, max: 3_600_000 },
        explanation: "Time that the broker takes at most to end: clients get what waits for them. Below what ends it by force.",
        get: |settings| Value::Number(settings.shutdown_max_ms),
        set: |settings, value| settings.shutdown_max_ms = number(&value),
    },
    limit!(
        Network,
        shutdown_stall_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 3_600_000 },
        "Time that a broker that ends waits for a client that acknowledges nothing and takes no bytes."
    ),
    limit!(
        Network,
        takeover_bytes_max,
        size(64 * KIB, GIB),
        "What a client has sent on its old connection and is still used when it connects again."
    ),
    limit!(
        Network,
        keep_alive_max_s,
        Kind::Time { unit: Seconds, min: 0, max: 65_535 },
        "Longest keep alive; a client that asks for more, or for none, is given this one. 0: no limit."
    ),
    Key {
        name: "tcp_rto_max_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 1_000, max: 120_000 },
        explanation: "Longest time between two retransmissions, so within which a client that reads again is noticed (Linux 6.15).",
        get: |settings| Value::Number(settings.tcp.rto_max_ms.into()),
        set: |settings, value| settings.tcp.rto_max_ms = number(&value),
    },
    Key {
        name: "tcp_user_timeout_ms",
        group: Group::Network,
        kind: Kind::Time { unit: Milliseconds, min: 10_000, max: 604_800_000 },
        explanation: "Time that a connection may take nothing of what was sent to it (some 15 minutes with a closed window).",
        get: |settings| Value::Number(settings.tcp.user_timeout_ms.into()),
        set: |settings, value| settings.tcp.user_timeout_ms = number(&value),
    },
    Key {
        name: "cores",
        group: Group::Workers,
        kind: Kind::Cores,
        explanation: "The cores that workers are pinned to. \"all\": every core that the process may use.",
        get: |settings| Value::Cores(settings.cores.clone()),
        set: |settings, value| {
            let Value::Cores(list) = value else { panic!("the kind reads cores") };
            settings.cores = list;
        },
    },
    setting!(
        Workers,
        shards,
        count(0, SHARD_COUNT_MAX as u64),
        "Independent parts of the broker, each with a worker. 0: one for each core; more share the cores."
    ),
    Key {
        name: "io",
        group: Group::Workers,
        kind: Kind::Choice(IoMode::WORDS),
        explanation: "How the kernel is asked for input and output. auto: io_uring, or epoll with a warning where that is refused.",
        get: |settings| settings.io.word(),
        set: |settings, value| settings.io = IoMode::from_word(&value),
    },
    Key {
        name: "wait",
        group: Group::Workers,
        kind: Kind::Choice(WaitMode::WORDS),
        explanation: "How an idle worker waits. spin never sleeps: only for cores that belong to the broker alone.",
        get: |settings| settings.wait.word(),
        set: |settings, value| settings.wait = WaitMode::from_word(&value),
    },
    setting!(
        Workers,
        spin_us,
        Kind::Time { unit: Microseconds, min: 0, max: 1_000_000 },
        "With wait = \"adaptive\": how long a worker looks for work before it sleeps."
    ),
    setting!(
        Workers,
        stall_max_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 86_400_000 },
        "Time after which a worker that does nothing, as in a plugin that never returns, is named in the log. 0: never."
    ),
    Key {
        name: "stall_action",
        group: Group::Workers,
        kind: Kind::Choice(StallAction::WORDS),
        explanation: "What follows: the process ends with exit code 3, for its supervisor to start it again, or the others go on.",
        get: |settings| settings.stall_action.word(),
        set: |settings, value| settings.stall_action = StallAction::from_word(&value),
    },
    setting!(
        Workers,
        ring_entries,
        // The kernel takes four times as many completions, and at most 65,536.
        Kind::PowerOfTwo { min: 64, max: 16_384 },
        "Submission queue entries of each shard's io_uring."
    ),
    setting!(
        Workers,
        receive_buffers,
        Kind::PowerOfTwo { min: 16, max: 32_768 },
        "Receive buffers of each shard, shared by its connections; before Linux 6.18 each receive takes a whole one."
    ),
    setting!(
        Workers,
        receive_buffer_size,
        size(512, MIB),
        "Size of a receive buffer: the most that is taken from one connection at once."
    ),
    limit!(
        Packets,
        packet_size_max,
        size(256, PACKET_SIZE_CEILING as u64),
        "Largest packet accepted from a client, its fixed header included."
    ),
    limit!(
        Packets,
        qos_max,
        count(0, 2),
        "Highest QoS: 5.0 clients that publish above it are refused (0x9B), others' messages are delivered at it."
    ),
    limit!(
        Packets,
        connect_size_max,
        size(256, PACKET_SIZE_CEILING as u64),
        "Largest CONNECT: a will and a token as password must fit. Never more than packet_size_max."
    ),
    limit!(
        Packets,
        receive_max,
        count(1, 65_535),
        "QoS 1 and 2 messages that a client may have unacknowledged towards the broker."
    ),
    limit!(
        Packets,
        inflight_max,
        count(1, 65_535),
        "QoS 1 and 2 messages that the broker has unacknowledged towards a client, whatever it allows."
    ),
    limit!(
        Packets,
        message_rate_max,
        count(0, 1_000_000_000),
        "Messages that a client may publish within a second; then it is not read for a while. 0: no limit."
    ),
    limit!(
        Packets,
        byte_rate_max,
        size(0, 2 * GIB),
        "Bytes that a client may publish within a second; then it is not read for a while. 0: no limit."
    ),
    limit!(
        Packets,
        topic_alias_max,
        count(0, 1_024),
        "Topic aliases that a client may define (MQTT 5); each may hold a topic of filter_size_max bytes. 0: none."
    ),
    limit!(
        Packets,
        topic_alias_out_max,
        count(0, 65_535),
        "Topic aliases that the broker defines towards a client, whatever it allows (MQTT 5). 0: none."
    ),
    limit!(Packets, filter_size_max, count(1, 65_535), "Bytes of a topic or topic filter."),
    limit!(Packets, filter_levels_max, count(1, 65_535), "Levels of a topic or topic filter."),
    limit_flag!(
        Packets,
        payload_format_checked,
        "Refuse a message that is marked as UTF-8 text and is not (MQTT 5)."
    ),
    limit!(
        Packets,
        turn_steps_max,
        count(1_000, 1_000_000_000),
        "Steps of work, such as a message to a subscriber or a filter looked at, that a turn gives one connection."
    ),
    limit!(
        Sessions,
        sessions_max,
        count(1, 100_000_000),
        "Sessions on each shard, their clients connected or not."
    ),
    limit!(
        Sessions,
        flapping_connects_max,
        count(0, 1_000_000),
        "Connects of a client id from one address within flapping_window_s; then both together are banned. 0: no limit."
    ),
    limit!(
        Sessions,
        flapping_window_s,
        Kind::Time { unit: Seconds, min: 1, max: 86_400 },
        "The time in which flapping_connects_max counts."
    ),
    limit!(
        Sessions,
        flapping_ban_s,
        Kind::Time { unit: Seconds, min: 1, max: 604_800 },
        "How long a client that connects too often is banned from its address (0x8A). Its session stays."
    ),
    limit!(
        Sessions,
        turn_time_max_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 60_000 },
        "Mean time of a shard's turns above which clients without a session are turned away (0x89). 0: none are."
    ),
    limit!(
        Sessions,
        session_expiry_max_s,
        Kind::Time { unit: Seconds, min: 0, max: u32::MAX as u64 },
        "Longest time that a session outlives its connection. 4294967295: for ever."
    ),
    limit!(
        Sessions,
        session_expiry_v3_s,
        Kind::Time { unit: Seconds, min: 0, max: u32::MAX as u64 },
        "The same for MQTT 3.1 and 3.1.1 clients that ask for a lasting session: they cannot say how long."
    ),
    limit!(
        Sessions,
        subscriptions_per_client_max,
        count(1, 10_000_000),
        "Subscriptions of a session."
    ),
    limit_flag!(
        Sessions,
        wildcard_available,
        "Subscriptions may have wildcards. If not, they are refused (0xA2; 0x80 before MQTT 5)."
    ),
    limit!(
        Sessions,
        wildcard_depth_min,
        count(0, 65_535),
        "Levels in front of a subscription's first wildcard, at least: 1 refuses # and +/a (0x8F). 0: none are needed."
    ),
    limit_flag!(
        Sessions,
        subscription_ids_available,
        "Subscriptions may have identifiers (MQTT 5). If not, they are refused (0xA1)."
    ),
    limit_flag!(
        Sessions,
        shared_available,
        "Subscriptions may be shared. If not, they are refused (0x9E; 0x80 before MQTT 5)."
    ),
    limit!(
        Sessions,
        overlapping_subscriptions_max,
        count(1, 10_000_000),
        "Subscriptions of a session that one topic may match. Filters whose wildcards stand at the same levels count as one."
    ),
    limit!(
        Queues,
        queue_messages_max,
        count(1, 100_000_000),
        "Messages that wait for a session's client."
    ),
    limit!(
        Queues,
        queue_bytes_max,
        size(KIB, TIB),
        "Bytes of messages that wait for a session's client."
    ),
    Key {
        name: "queue_policy",
        group: Group::Queues,
        kind: Kind::Choice(QueuePolicy::WORDS),
        explanation: "What a full queue does once it holds no QoS 0 message: refuse the new one, or drop the oldest.",
        get: |settings| settings.limits.queue_policy.word(),
        set: |settings, value| settings.limits.queue_policy = QueuePolicy::from_word(&value),
    },
    limit_flag!(
        Queues,
        queue_qos0_offline,
        "Queue QoS 0 messages, too, while a session's client is away."
    ),
    limit!(
        Queues,
        output_size_max,
        size(4 * KIB, GIB),
        "Output buffered for a connection; then its messages wait in the session's queue."
    ),
    limit!(
        Queues,
        group_messages_max,
        count(1, 100_000_000),
        "Messages that wait in a shared subscription for a member that can take one."
    ),
    limit!(
        Queues,
        group_bytes_max,
        size(KIB, TIB),
        "Bytes of messages that wait in a shared subscription."
    ),
    limit!(
        Queues,
        group_credit_max,
        count(1, 65_535),
        "Messages that a shared subscription hands to a member before that says it can take more."
    ),
    limit!(
        Retained,
        retained_messages_max,
        count(0, 1_000_000_000),
        "Retained messages of clients on each shard. 0: none are kept, and 5.0 clients that send one are refused (0x9A)."
    ),
    limit!(
        Retained,
        retained_bytes_max,
        size(0, 16 * TIB),
        "Bytes of clients' retained messages on each shard. What the broker says below $SYS has room of its own."
    ),
    Key {
        name: "data_dir",
        group: Group::Memory,
        kind: Kind::Text { size_min: 1, size_max: 4_096 },
        explanation: "Folder for what outlives the process: the logs and client ids of bridges, below bridges/NAME. Made when it is needed.",
        get: |settings| Value::Text(settings.data_dir.display().to_string()),
        set: |settings, value| {
            let Value::Text(text) = value else { panic!("the kind reads texts") };
            settings.data_dir = text.into();
        },
    },
    setting!(
        Memory,
        memory_max,
        size(0, 16 * TIB),
        "Memory of the whole process, sockets included; near it nothing grows, nobody new is let in. 0: 3/4 of what may be used."
    ),
    limit!(
        Memory,
        arena_size,
        size(64 * KIB, 64 * GIB),
        "Ring of the messages on their way; touched only as far as used."
    ),
    limit!(
        Memory,
        arena_slots,
        Kind::PowerOfTwo { min: 64, max: 1 << 24 },
        "Messages on their way at once."
    ),
    limit!(
        Memory,
        large_message_size,
        size(KIB, PACKET_SIZE_CEILING as u64),
        "From this size on, a message has an allocation of its own and is sent without a copy."
    ),
    limit!(
        Memory,
        route_cache_max,
        count(1, 16_777_216),
        "Topics whose subscribers are remembered."
    ),
    limit!(
        Memory,
        mail_bytes_mark,
        size(4 * KIB, GIB),
        "Bytes that wait for another shard before publishers are made to wait."
    ),
    limit!(
        Memory,
        shard_stored_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All messages that wait or are unacknowledged; one for many counts once. A quarter is for clients that read."
    ),
    limit!(
        Memory,
        shard_output_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All output buffers; above it each connection gets one message at a time."
    ),
    limit!(
        Memory,
        shard_frames_bytes_max,
        size(64 * KIB, 16 * TIB),
        "All packets of which only a part has arrived; above it the connection of the slowest is closed."
    ),
    limit!(
        Memory,
        shard_connects_bytes_max,
        size(4 * KIB, 16 * TIB),
        "All CONNECTs of which only a part has arrived; above it the oldest one's connection is closed."
    ),
    limit!(Memory, shard_wills_bytes_max, size(4 * KIB, 16 * TIB), "All wills."),
    limit!(
        Memory,
        shard_metadata_bytes_max,
        size(64 * KIB, 16 * TIB),
        "Sessions, subscriptions, aliases, packet ids, and what is known of other shards' subscriptions; above it, 0x97."
    ),
    Key {
        name: "log_level",
        group: Group::Reports,
        kind: Kind::Choice(LogLevel::WORDS),
        explanation: "What is written to stderr; debug has a line for each connection.",
        get: |settings| settings.log_level.word(),
        set: |settings, value| settings.log_level = LogLevel::from_word(&value),
    },
    Key {
        name: "log_format",
        group: Group::Reports,
        kind: Kind::Choice(LogFormat::WORDS),
        explanation: "human: lines to read; json: one object a line.",
        get: |settings| settings.log_format.word(),
        set: |settings, value| settings.log_format = LogFormat::from_word(&value),
    },
    limit!(
        Reports,
        sys_interval_ms,
        Kind::Time { unit: Milliseconds, min: 0, max: 86_400_000 },
        "How often the $SYS topics are published. 0: never."
    ),
];

#[cfg(test)]
mod tests {
    use super::super::kind::Written;
    use super::*;
    use crate::limits::Networks;

    /// A value that the key takes and that is not its default.
    fn other_value(key: &Key) -> Value {
        let default = key.get(&Settings::default());
        let candidates = match key.kind {
            Kind::Count { min, max } | Kind::Size { min, max } | Kind::Time { min, max, .. } => {
                [min, max].map(Value::Number).to_vec()
            }
            Kind::PowerOfTwo { min, max } => [min, max].map(Value::Number).to_vec(),
            Kind::Flag => vec![Value::Flag(false), Value::Flag(true)],
            Kind::Choice(words) => words.iter().map(|word| Value::Word(word)).collect(),
            Kind::Cores => vec![Value::Cores(vec![0, 1, 2, 6])],
            Kind::Addresses => vec![Value::Addresses(vec!["[::1]:5".parse().unwrap()])],
            Kind::Networks => vec![Value::Networks(Networks::of(Vec::new()))],
            Kind::Text { .. } => vec![Value::Text("a".to_owned())],
            Kind::Texts { .. } => vec![Value::Texts(vec!["a".to_owned()])],
        };
        candidates.into_iter().find(|value| *value != default).unwrap()
    }

    #[test]
    fn every_field_of_the_limits_has_a_key() {
        let source = include_str!("../limits.rs");
        let fields = source.split("pub struct Limits {").nth(1).unwrap().split("\n}").next();
        let mut count = 0;
        for line in fields.unwrap().lines() {
            if let Some(field) = line.trim().strip_prefix("pub ") {
                let name = field.split(':').next().unwrap();
                assert!(Key::find(name).is_some(), "no key sets Limits::{name}");
                count += 1;
            }
        }
        assert!(count > 30, "{count} fields were seen");
    }

    #[test]
    fn a_key_sets_its_own_field_and_no_other() {
        for key in KEYS {
            let mut settings = Settings::default();
            let value = other_value(key);
            key.set(&mut settings, value.clone());
            assert_eq!(key.get(&settings), value, "{}", key.name);
            for other in KEYS.iter().filter(|other| other.name != key.name) {
                let default = other.get(&Settings::default());
                assert_eq!(other.get(&settings), default, "{} sets {}", key.name, other.name);
            }
        }
    }

    #[test]
    fn a_number_is_taken_up_to_its_bounds_and_not_beyond() {
        let mut refused_count = 0;
        for key in KEYS {
            let (Kind::Count { min, max }
            | Kind::PowerOfTwo { min, max }
            | Kind::Size { min, max }
            | Kind::Time { min, max, .. }) = key.kind
            else {
                continue;
            };
            let mut settings = Settings::default();
            for bound in [min, max] {
                let value = key.kind.read(&Written::Number(bound as i64)).unwrap();
                key.set(&mut settings, value);
                assert_eq!(key.get(&settings), Value::Number(bound), "{}", key.name);
            }
            for beyond in [min as i64 - 1, max as i64 + 1] {
                let refusal = key.kind.read(&Written::Number(beyond)).unwrap_err();
                assert_eq!(refusal, format!("{beyond} is out of bounds"), "{}", key.name);
                refused_count += 1;
            }
        }
        assert!(refused_count > 60);
    }

    #[test]
    fn the_default_of_each_key_is_within_its_bounds_and_reads_back() {
        for key in KEYS {
            let default = key.get(&Settings::default());
            let text = key.kind.text(&default);
            assert_eq!(key.kind.read(&Written::Argument(&text)), Ok(default), "{}", key.name);
        }
    }

    #[test]
    fn whatever_a_key_reads_it_can_be_set_to() {
        use Written::{Argument, Flag, List, Number, Other, Text};
        let texts =
            ["", "0", "-1", "1", "64", "7d", "64KiB", "true", "all", "spin", "[::]:1", "\u{e9}"];
        let mut written = vec![Flag(true), List(vec![]), List(vec![Number(1)]), Other("float")];
        written.extend([i64::MIN, -1, 0, 1, 64, 4096, i64::MAX].map(Number));
        written.extend(texts.iter().flat_map(|text| [Argument(text), Text(text)]));
        let mut taken_count = 0;
        for key in KEYS {
            for value in written.iter().filter_map(|one| key.kind.read(one).ok()) {
                let mut settings = Settings::default();
                key.set(&mut settings, value.clone());
                assert_eq!(key.get(&settings), value, "{}", key.name);
                taken_count += 1;
            }
        }
        assert!(taken_count > KEYS.len(), "{taken_count}");
    }

    #[test]
    fn names_are_unique_and_explanations_are_one_sentence_line() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
            assert!(key.explanation.ends_with('.'), "{}", key.name);
            assert!(key.explanation.len() <= 120, "{}", key.name);
            assert!(key.name.bytes().all(|b| b.is_ascii_lowercase() || b"_03".contains(&b)));
        }
    }

    #[test]
    fn the_groups_stand_together_in_their_order() {
        let order: Vec<_> = KEYS.chunk_by(|a, b| a.group == b.group).map(|k| k[0].group).collect();
        assert_eq!(order, Group::ALL);
    }
}
