//! Every limit: provoked, with what its client gets in 5.0 and in 3.1.1, what counts it below `$SYS`, and the line of the log.
//!
//! A limit is a row of `ROWS`, or stands with a reason in one of the lists below it. Whoever adds a key adds it here.

mod scene;

use crate::world::V5;
use ringmq::codec::{Packet, ProtocolVersion, Publish, QoS, Will};
use ringmq::config::keys::KEYS;
use ringmq::limits::Limits;
use scene::Scene;
use std::path::Path;

const V311: ProtocolVersion = ProtocolVersion::V311;

struct Row {
    /// What the log names.
    keys: &'static [&'static str],
    set: fn(&mut Limits),
    provoke: fn(&mut Scene),
    /// Below `$SYS/broker/shards/0/`.
    counter: &'static str,
    /// `None`: that version has nothing that could meet the limit.
    v5: Option<Outcome>,
    v3: Option<Outcome>,
}

#[derive(Clone, Copy)]
struct Outcome {
    /// What the client got from the packet on that met the limit.
    answers: &'static [&'static str],
    is_open: bool,
    count: u64,
    /// How the line begins; empty: there is none.
    line: &'static str,
}

/// Told, and closed.
const fn closed(answers: &'static [&'static str], line: &'static str) -> Option<Outcome> {
    Some(Outcome { answers, is_open: false, count: 1, line })
}

/// Answered, and nothing else happens to the connection.
const fn goes_on(answers: &'static [&'static str], line: &'static str) -> Option<Outcome> {
    Some(Outcome { answers, is_open: true, count: 1, line })
}

/// No limit for this version.
const fn taken(answers: &'static [&'static str]) -> Option<Outcome> {
    Some(Outcome { answers, is_open: true, count: 0, line: "" })
}

const CLOSED: &str = "closed client 'culprit': ";
const REFUSED: &str = "refused client 'culprit': ";
const REFUSED_MESSAGE: &str = "refused a message of client 'culprit': ";
const REFUSED_FILTER: &str = "refused a subscription of client 'culprit': ";
const REFUSED_CONNECTION: &str = "refused a connection: ";
const DROPPED: &str = "dropped a message for client 'culprit': ";
const NOT_KEPT: &str = "did not keep a retained message of client 'culprit': ";

static ROWS: &[Row] = &[
    Row {
        keys: &["packet_size_max"],
        set: |limits| limits.packet_size_max = 1_000,
        provoke: |scene| scene.publish("t", &[7; 2_000], QoS::AtLeastOnce, 1),
        counter: "refused/packets_too_large",
        v5: closed(&["DISCONNECT PacketTooLarge"], CLOSED),
        v3: goes_on(&["PUBACK Success"], REFUSED_MESSAGE),
    },
    Row {
        // Of a packet that is no message nothing can be answered.
        keys: &["packet_size_max"],
        set: |limits| limits.packet_size_max = 1_000,
        provoke: |scene| scene.subscribe(&["x".repeat(2_000).as_str()], None),
        counter: "refused/packets_too_large",
        v5: closed(&["DISCONNECT PacketTooLarge"], CLOSED),
        v3: closed(&[], CLOSED),
    },
    Row {
        keys: &["connect_size_max"],
        set: |limits| limits.connect_size_max = 256,
        provoke: |scene| scene.connect_with(|connect| connect.user_name = Some(LONG)),
        counter: "refused/connects_too_large",
        v5: closed(&["CONNACK PacketTooLarge"], REFUSED_CONNECTION),
        v3: closed(&[], REFUSED_CONNECTION),
    },
    Row {
        keys: &["qos_max"],
        set: |limits| limits.qos_max = 0,
        provoke: |scene| scene.publish("t", b"x", QoS::AtLeastOnce, 1),
        counter: "refused/qos",
        v5: closed(&["DISCONNECT QosNotSupported"], CLOSED),
        // Delivered at QoS 0: nothing is lost.
        v3: taken(&["PUBACK Success"]),
    },
    Row {
        keys: &["receive_max"],
        set: |limits| limits.receive_max = 1,
        provoke: |scene| {
            scene.publish("t", b"x", QoS::ExactlyOnce, 1);
            scene.publish("t", b"x", QoS::ExactlyOnce, 2);
        },
        counter: "refused/receive_max",
        v5: closed(&["PUBREC 1 Success", "DISCONNECT ReceiveMaximumExceeded"], CLOSED),
        // It was told no maximum: its packet identifiers are one.
        v3: taken(&["PUBREC 1 Success", "PUBREC 2 Success"]),
    },
    Row {
        keys: &["message_rate_max", "byte_rate_max"],
        set: |limits| limits.message_rate_max = 1,
        provoke: |scene| scene.publish_some(2),
        counter: "parked/rates",
        v5: goes_on(&["PUBACK Success", "PUBACK Success"], "paused client 'culprit': "),
        v3: goes_on(&["PUBACK Success", "PUBACK Success"], "paused client 'culprit': "),
    },
    Row {
        keys: &["message_rate_max", "byte_rate_max"],
        set: |limits| limits.byte_rate_max = 5,
        provoke: |scene| scene.publish_some(2),
        counter: "parked/rates",
        v5: goes_on(&["PUBACK Success", "PUBACK Success"], "paused client 'culprit': "),
        v3: goes_on(&["PUBACK Success", "PUBACK Success"], "paused client 'culprit': "),
    },
    Row {
        keys: &["topic_alias_max"],
        set: |limits| limits.topic_alias_max = 1,
        provoke: |scene| {
            let topic_alias = Some(2);
            scene.send(&Packet::Publish(Publish { topic: "t", topic_alias, ..Publish::default() }));
        },
        counter: "refused/topic_aliases",
        v5: closed(&["DISCONNECT TopicAliasInvalid"], CLOSED),
        v3: None,
    },
    Row {
        keys: &["filter_size_max", "filter_levels_max"],
        set: |limits| limits.filter_size_max = 50,
        provoke: |scene| scene.publish(&LONG[..51], b"x", QoS::AtLeastOnce, 1),
        counter: "refused/topics",
        v5: goes_on(&["PUBACK TopicNameInvalid"], REFUSED_MESSAGE),
        v3: goes_on(&["PUBACK Success"], REFUSED_MESSAGE),
    },
    Row {
        keys: &["filter_size_max", "filter_levels_max"],
        set: |limits| limits.filter_levels_max = 6,
        provoke: |scene| scene.publish("1/2/3/4/5/6/7", b"x", QoS::AtMostOnce, 0),
        counter: "refused/topics",
        // QoS 0 has no other answer.
        v5: closed(&["DISCONNECT TopicNameInvalid"], CLOSED),
        v3: goes_on(&[], REFUSED_MESSAGE),
    },
    Row {
        keys: &["filter_size_max", "filter_levels_max"],
        set: |limits| limits.filter_levels_max = 6,
        provoke: |scene| {
            scene.connect_with(|connect| {
                connect.will = Some(Will { topic: "1/2/3/4/5/6/7", ..Will::default() });
            });
        },
        counter: "refused/topics",
        v5: closed(&["CONNACK TopicNameInvalid"], REFUSED),
        v3: closed(&["CONNACK NotAuthorized"], REFUSED),
    },
    Row {
        keys: &["filter_size_max", "filter_levels_max"],
        set: |limits| limits.filter_size_max = 50,
        provoke: |scene| scene.subscribe(&[&LONG[..51]], None),
        counter: "refused/subscriptions",
        v5: goes_on(&["SUBACK QuotaExceeded"], REFUSED_FILTER),
        v3: goes_on(&["SUBACK UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["payload_format_checked"],
        set: |_| (),
        provoke: |scene| scene.publish_ill_formed(QoS::AtLeastOnce),
        counter: "refused/payload_formats",
        v5: goes_on(&["PUBACK PayloadFormatInvalid"], REFUSED_MESSAGE),
        v3: None,
    },
    Row {
        keys: &["payload_format_checked"],
        set: |_| (),
        provoke: |scene| scene.publish_ill_formed(QoS::AtMostOnce),
        counter: "refused/payload_formats",
        v5: closed(&["DISCONNECT PayloadFormatInvalid"], CLOSED),
        v3: None,
    },
    Row {
        keys: &["connections_max"],
        set: |limits| limits.connections_max = 2,
        provoke: |scene| {
            scene.connect();
            // Its place is free again, and is taken.
            scene.dial();
        },
        counter: "refused/accepts",
        v5: closed(&[], REFUSED_CONNECTION),
        v3: closed(&[], REFUSED_CONNECTION),
    },
    Row {
        keys: &["connections_max"],
        set: |limits| limits.connections_max = 2,
        provoke: |scene| {
            let silent = scene.dial();
            scene.world.now = scene.world.now.plus_ms(1_000);
            scene.connect();
            scene.culprit = Some(silent);
        },
        counter: "connects/displaced",
        v5: closed(&[], REFUSED_CONNECTION),
        v3: closed(&[], REFUSED_CONNECTION),
    },
    Row {
        keys: &["connect_timeout_ms"],
        set: |limits| limits.connect_timeout_ms = 500,
        provoke: |scene| _ = scene.dial(),
        counter: "closed/connects_timed_out",
        v5: closed(&[], REFUSED_CONNECTION),
        v3: closed(&[], REFUSED_CONNECTION),
    },
    Row {
        keys: &["packet_time_max_ms"],
        set: |limits| limits.packet_time_max_ms = 1_000,
        provoke: |scene| scene.send_bytes(&[0x30, 10, 0]),
        counter: "closed/packets_timed_out",
        v5: closed(&["DISCONNECT QuotaExceeded"], CLOSED),
        v3: closed(&[], CLOSED),
    },
    Row {
        keys: &["takeover_bytes_max"],
        set: |limits| {
            limits.takeover_bytes_max = 100;
            limits.output_size_max = 1_000;
        },
        provoke: |scene| {
            scene.connect();
            scene.ping_without_reading();
            // Not read any more.
            scene.send_bytes(&[0xc0, 0].repeat(200));
            scene.connect();
        },
        counter: "closed/taken_over_cut",
        v5: goes_on(&["CONNACK Success"], "cut off client 'culprit': "),
        v3: goes_on(&["CONNACK Success"], "cut off client 'culprit': "),
    },
    Row {
        keys: &["sessions_max"],
        set: |limits| limits.sessions_max = 1,
        provoke: Scene::connect,
        counter: "refused/sessions",
        v5: closed(&["CONNACK QuotaExceeded"], REFUSED),
        v3: closed(&["CONNACK ServerUnavailable"], REFUSED),
    },
    Row {
        keys: &["turn_time_max_ms"],
        set: |limits| limits.turn_time_max_ms = 10,
        provoke: |scene| {
            (0..100).for_each(|_| scene.world.shards[0].note_turn_time(1_000));
            scene.connect();
        },
        counter: "refused/lag",
        v5: closed(&["CONNACK ServerBusy"], REFUSED),
        v3: closed(&["CONNACK ServerUnavailable"], REFUSED),
    },
    Row {
        keys: &["memory_max"],
        set: |_| (),
        provoke: |scene| {
            let now = scene.world.now;
            scene.world.shards[0].set_memory_short(now, true);
            scene.connect();
        },
        counter: "refused/memory",
        v5: closed(&["CONNACK QuotaExceeded"], REFUSED),
        v3: closed(&["CONNACK ServerUnavailable"], REFUSED),
    },
    Row {
        keys: &["shard_wills_bytes_max"],
        set: |limits| limits.shard_wills_bytes_max = 100,
        provoke: |scene| {
            scene.connect_with(|connect| {
                let payload = LONG.as_bytes();
                connect.will = Some(Will { topic: "t", payload, ..Will::default() });
            });
        },
        counter: "refused/wills",
        v5: closed(&["CONNACK QuotaExceeded"], REFUSED),
        v3: closed(&["CONNACK ServerUnavailable"], REFUSED),
    },
    Row {
        keys: &["subscriptions_per_client_max"],
        set: |limits| limits.subscriptions_per_client_max = 1,
        provoke: |scene| scene.subscribe(&["a", "b"], None),
        counter: "refused/subscriptions",
        v5: goes_on(&["SUBACK Success QuotaExceeded"], REFUSED_FILTER),
        v3: goes_on(&["SUBACK Success UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["overlapping_subscriptions_max"],
        set: |limits| limits.overlapping_subscriptions_max = 1,
        provoke: |scene| scene.subscribe(&["a/+", "+/a"], None),
        counter: "refused/subscriptions",
        v5: goes_on(&["SUBACK Success QuotaExceeded"], REFUSED_FILTER),
        v3: goes_on(&["SUBACK Success UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["wildcard_available"],
        set: |limits| limits.wildcard_available = false,
        provoke: |scene| scene.subscribe(&["a/+"], None),
        counter: "refused/subscriptions",
        v5: closed(&["DISCONNECT WildcardSubscriptionsNotSupported"], CLOSED),
        v3: goes_on(&["SUBACK UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["wildcard_depth_min"],
        set: |limits| limits.wildcard_depth_min = 1,
        provoke: |scene| scene.subscribe(&["#"], None),
        counter: "refused/subscriptions",
        v5: goes_on(&["SUBACK TopicFilterInvalid"], REFUSED_FILTER),
        v3: goes_on(&["SUBACK UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["subscription_ids_available"],
        set: |limits| limits.subscription_ids_available = false,
        provoke: |scene| scene.subscribe(&["a"], Some(1)),
        counter: "refused/subscriptions",
        v5: closed(&["DISCONNECT SubscriptionIdentifiersNotSupported"], CLOSED),
        v3: None,
    },
    Row {
        keys: &["shared_available"],
        set: |limits| limits.shared_available = false,
        provoke: |scene| scene.subscribe(&["$share/g/a"], None),
        counter: "refused/subscriptions",
        v5: closed(&["DISCONNECT SharedSubscriptionsNotSupported"], CLOSED),
        v3: goes_on(&["SUBACK UnspecifiedError"], REFUSED_FILTER),
    },
    Row {
        keys: &["queue_messages_max", "queue_bytes_max"],
        set: |limits| limits.queue_messages_max = 3,
        provoke: |scene| scene.queue_while_away(4, 10),
        counter: "dropped/queue_full",
        v5: goes_on(&[], DROPPED),
        v3: goes_on(&[], DROPPED),
    },
    Row {
        keys: &["queue_messages_max", "queue_bytes_max"],
        set: |limits| (limits.packet_size_max, limits.queue_bytes_max) = (1_000, 1_000),
        provoke: |scene| scene.queue_while_away(2, 700),
        counter: "dropped/queue_full",
        v5: goes_on(&[], DROPPED),
        v3: goes_on(&[], DROPPED),
    },
    Row {
        keys: &["queue_qos0_offline"],
        set: |_| (),
        provoke: |scene| {
            scene.leave_subscribed();
            let publisher = scene.other();
            scene.world.publish(publisher, "t", b"x", QoS::AtMostOnce, 0);
            scene.world.settle();
            scene.connect();
            scene.answers();
        },
        counter: "dropped/offline_qos0",
        // As it was asked for.
        v5: goes_on(&[], ""),
        v3: goes_on(&[], ""),
    },
    Row {
        keys: &["output_size_max"],
        set: |limits| limits.output_size_max = 1_000,
        provoke: |scene| {
            scene.connect();
            scene.ping_without_reading();
        },
        counter: "parked/output",
        // It waits for itself, and nothing is lost.
        v5: goes_on(&[], ""),
        v3: goes_on(&[], ""),
    },
    Row {
        keys: &["group_messages_max", "group_bytes_max"],
        set: |limits| (limits.group_messages_max, limits.inflight_max) = (1, 1),
        provoke: |scene| scene.fill_group(3, 10),
        counter: "dropped/group_full",
        v5: goes_on(&[], "dropped a message for some client: "),
        v3: goes_on(&[], "dropped a message for some client: "),
    },
    Row {
        keys: &["group_messages_max", "group_bytes_max"],
        set: |limits| {
            (limits.packet_size_max, limits.group_bytes_max) = (1_000, 1_000);
            limits.inflight_max = 1;
        },
        provoke: |scene| scene.fill_group(3, 700),
        counter: "dropped/group_full",
        v5: goes_on(&[], "dropped a message for some client: "),
        v3: goes_on(&[], "dropped a message for some client: "),
    },
    Row {
        keys: &["retained_messages_max", "retained_bytes_max"],
        set: |limits| limits.retained_messages_max = 1,
        provoke: |scene| {
            scene.retain("a", b"x", 1);
            scene.retain("b", b"x", 2);
        },
        counter: "refused/retained",
        v5: goes_on(&["PUBACK Success", "PUBACK QuotaExceeded"], NOT_KEPT),
        // Delivered and not kept.
        v3: goes_on(&["PUBACK Success", "PUBACK Success"], NOT_KEPT),
    },
    Row {
        keys: &["retained_messages_max", "retained_bytes_max"],
        set: |limits| limits.retained_bytes_max = 500,
        provoke: |scene| scene.retain("a", &[7; 1_000], 1),
        counter: "refused/retained",
        v5: goes_on(&["PUBACK QuotaExceeded"], NOT_KEPT),
        v3: goes_on(&["PUBACK Success"], NOT_KEPT),
    },
    Row {
        keys: &["retained_messages_max", "retained_bytes_max"],
        set: |limits| limits.retained_messages_max = 0,
        provoke: |scene| scene.retain("a", b"x", 1),
        counter: "refused/retained",
        v5: closed(&["DISCONNECT RetainNotSupported"], CLOSED),
        v3: goes_on(&["PUBACK Success"], NOT_KEPT),
    },
    Row {
        keys: &["shard_stored_bytes_max"],
        set: |limits| {
            (limits.packet_size_max, limits.queue_bytes_max) = (1_000, 10_000);
            (limits.group_bytes_max, limits.shard_stored_bytes_max) = (10_000, 10_000);
        },
        provoke: |scene| scene.queue_while_away(10, 900),
        counter: "dropped/stored_full",
        v5: goes_on(&[], DROPPED),
        v3: goes_on(&[], DROPPED),
    },
    Row {
        keys: &["shard_frames_bytes_max"],
        set: |limits| (limits.packet_size_max, limits.shard_frames_bytes_max) = (4_000, 6_000),
        provoke: |scene| {
            let start = [vec![0x30, 0x80, 0x1e], vec![0; 3_500]].concat();
            scene.send_bytes(&start);
            let other = scene.other();
            scene.world.now = scene.world.now.plus_ms(1);
            scene.world.send_bytes(other, &start);
        },
        counter: "frames/evicted",
        v5: closed(&["DISCONNECT QuotaExceeded"], CLOSED),
        v3: closed(&[], CLOSED),
    },
    Row {
        keys: &["shard_connects_bytes_max"],
        set: |limits| {
            (limits.connect_size_max, limits.shard_connects_bytes_max) = (4_000, 6_000);
        },
        provoke: |scene| {
            let start = [vec![0x10, 0x80, 0x1e], vec![0; 3_500]].concat();
            let first = scene.dial();
            scene.send_bytes(&start);
            scene.dial();
            scene.send_bytes(&start);
            scene.culprit = Some(first);
        },
        counter: "connects/evicted",
        v5: closed(&[], REFUSED_CONNECTION),
        v3: closed(&[], REFUSED_CONNECTION),
    },
];

/// Limits that need more than a shard in memory: the test that shows them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("connections_per_address_max", "tests/end_to_end/limits.rs"),
    ("connect_rate_per_address_max", "tests/end_to_end/limits.rs"),
    ("lingering_max", "tests/end_to_end/closing.rs"),
    ("shutdown_max_ms", "tests/end_to_end/signals.rs"),
    ("shutdown_stall_ms", "tests/end_to_end/signals.rs"),
    ("tcp_user_timeout_ms", "tests/regressions/zero_window.rs"),
    ("stall_max_ms", "tests/plugins/astray.rs"),
    ("shares_by_address", "tests/regressions_core/shares.rs"),
    ("flapping_connects_max", "tests/regressions_core/rates.rs"),
    ("flapping_window_s", "tests/regressions_core/rates.rs"),
    ("flapping_ban_s", "tests/regressions_core/rates.rs"),
    ("questions_max", "tests/hooks_core/later.rs"),
    ("arena_size", "tests/admission/main.rs"),
    ("shard_metadata_bytes_max", "tests/regressions_core/metadata.rs"),
];

/// Limits at which nobody is refused and nothing is lost, so that there is nothing to count and to tell, and why.
const SILENT: &[(&str, &str)] = &[
    (
        "linger_ms",
        "the end of a connection that has ended; what it cut short is seen by its client",
    ),
    ("keep_alive_max_s", "told in CONNACK; what it ends is counted as closed/keep_alives"),
    ("session_expiry_max_s", "told in CONNACK; what it ends is counted as clients/expired"),
    ("session_expiry_v3_s", "what it ends is counted as clients/expired"),
    ("inflight_max", "messages wait in the session's queue, which has limits of its own"),
    ("topic_alias_out_max", "topics are sent whole"),
    ("group_credit_max", "messages wait with the group, which has limits of its own"),
    ("shard_output_bytes_max", "each connection gets a message at a time"),
    ("mail_bytes_mark", "publishers wait; counted as parked/mail"),
    ("arena_slots", "the stages run sooner"),
    ("large_message_size", "a message has another place"),
    ("route_cache_max", "a route is looked up again"),
    ("tcp_rto_max_ms", "the kernel asks more often"),
    ("turn_steps_max", "a client goes on in the next turn; counted as parked/turns"),
];

/// Keys that limit nothing that somebody may want.
const NO_LIMITS: &[&str] = &[
    "listen",
    "bridges_from",
    "cores",
    "shards",
    "io",
    "wait",
    "spin_us",
    "stall_action",
    "ring_entries",
    "receive_buffers",
    "receive_buffer_size",
    "queue_policy",
    "data_dir",
    "log_level",
    "log_format",
    "sys_interval_ms",
];

const LONG: &str = "a-text-of-some-length/that-is-longer-than-some-limits/and-goes-on-and-on-and-on-for-a-while/because-it-has-to-be\
                    -longer-than-a-connect-may-be-in-this-test/so-it-has-some-three-hundred-bytes/which-are-hard-to-fill-with-words-that\
                    -say-anything/but-here-is-the-end-of-it-at-last-and-there-is-nothing-more-to-say-of-it";

fn check(row: &Row, version: ProtocolVersion, expected: Outcome) {
    let what = format!("{:?} of {}, {version:?}", row.keys, row.counter);
    let mut scene = Scene::new(row.set, row.counter, version);
    (row.provoke)(&mut scene);
    for _ in 0..4 {
        scene.world.now = scene.world.now.plus_ms(600);
        scene.world.settle();
    }
    assert_eq!(scene.answers(), expected.answers, "{what}");
    let culprit = scene.culprit.expect("somebody met it");
    assert_eq!(scene.world.is_open(culprit), expected.is_open, "{what}");
    let (count, lines) = (scene.count(), scene.lines());
    match expected.count {
        0 => assert_eq!(count, 0, "{what}"),
        _ => assert!(count >= expected.count, "{what}: {count}"),
    }
    if expected.line.is_empty() {
        assert!(lines.is_empty(), "{what}: {lines:?}");
        return;
    }
    let line = lines.iter().find(|line| line.starts_with(expected.line));
    let line = line.unwrap_or_else(|| panic!("{what}: {lines:?}"));
    let (_, told) = line.split_once("; see ").unwrap_or_else(|| panic!("{what}: {line}"));
    for key in row.keys {
        assert!(told.split([' ', ',']).any(|word| word == *key), "{what}: {line}");
    }
    for word in told.split([' ', ',']).filter(|word| word.contains('_')) {
        assert!(KEYS.iter().any(|key| key.name == word), "{word} is no key: {line}");
    }
}

#[test]
fn at_a_limit_the_client_is_answered_it_is_counted_and_the_log_names_client_and_key() {
    for row in ROWS {
        for (version, expected) in [(V5, row.v5), (V311, row.v3)] {
            if let Some(expected) = expected {
                check(row, version, expected);
            }
        }
    }
}

#[test]
fn every_key_is_in_the_table_of_limits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for key in KEYS {
        let name = key.name;
        let is_row = ROWS.iter().any(|row| row.keys.contains(&name));
        let elsewhere = ELSEWHERE.iter().find(|(key, _)| *key == name);
        let is_silent = SILENT.iter().any(|(key, _)| *key == name);
        let places = [is_row, elsewhere.is_some(), is_silent, NO_LIMITS.contains(&name)];
        let count = places.iter().filter(|is_here| **is_here).count();
        assert_eq!(count, 1, "{name} must be a row here, or stand in one of the lists");
        if let Some((_, file)) = elsewhere {
            let source = std::fs::read_to_string(folder.join(file)).expect(file);
            let has_it = source.contains(name) || source.contains(&key.option());
            assert!(has_it, "{file} does not show {name}");
        }
    }
    let named =
        ELSEWHERE.iter().chain(SILENT).map(|(key, _)| *key).chain(NO_LIMITS.iter().copied());
    for name in named.chain(ROWS.iter().flat_map(|row| row.keys.iter().copied())) {
        assert!(KEYS.iter().any(|key| key.name == name), "{name} is no key");
    }
}
