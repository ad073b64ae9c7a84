//! Limits that fall and rise while a shard runs: who was told the old ones keeps them, nothing is lost that the lower limit
//! does not say, and what waited goes on.

use super::*;
use ringmq::codec::Publish;
use ringmq::gauges::Gauges;

/// Every shard takes the limits, as at a reload.
fn set_limits(world: &mut World, limits: &Limits) {
    let now = world.now;
    world.shards.iter_mut().for_each(|shard| shard.set_limits(now, limits.clone()));
}

fn gauge(world: &World, of: fn(&Gauges) -> usize) -> usize {
    world.shards.iter().map(|shard| of(&shard.gauges())).sum()
}

/// What is held, by name.
type Held = (&'static str, fn(&Gauges) -> usize);

/// A class of limits, made as low as they can be for a pair of clients.
type Lower = fn(&mut Limits);

const CLASSES: &[(&str, Lower)] = &[
    ("packets", |limits| {
        limits.packet_size_max = 256;
        limits.connect_size_max = 256;
        limits.filter_size_max = 8;
        limits.filter_levels_max = 3;
    }),
    ("windows", |limits| (limits.receive_max, limits.inflight_max) = (1, 1)),
    ("rates", |limits| (limits.message_rate_max, limits.byte_rate_max) = (20, 10_000)),
    ("abilities", |limits| {
        limits.qos_max = 0;
        limits.wildcard_available = false;
        limits.shared_available = false;
        limits.subscription_ids_available = false;
        (limits.retained_messages_max, limits.retained_bytes_max) = (0, 0);
    }),
    ("aliases", |limits| (limits.topic_alias_max, limits.topic_alias_out_max) = (0, 0)),
    ("times", |limits| {
        limits.keep_alive_max_s = 5;
        limits.session_expiry_max_s = 1;
        limits.session_expiry_v3_s = 1;
        limits.connect_timeout_ms = 100;
        limits.packet_time_max_ms = 1_000;
        limits.linger_ms = 0;
        limits.shutdown_stall_ms = 0;
        limits.turn_time_max_ms = 1;
        limits.sys_interval_ms = 1_000;
    }),
    ("queues", |limits| {
        limits.queue_messages_max = 60;
        limits.queue_policy = ringmq::limits::QueuePolicy::DropOldest;
        limits.queue_qos0_offline = true;
        limits.group_messages_max = 60;
        limits.group_credit_max = 1;
    }),
    ("output", |limits| limits.output_size_max = 64),
    ("counts", |limits| {
        limits.sessions_max = 1;
        limits.connections_max = 1;
        limits.subscriptions_per_client_max = 1;
        limits.overlapping_subscriptions_max = 1;
        limits.wildcard_depth_min = 3;
        limits.flapping_connects_max = 1;
        limits.shares_by_address = false;
    }),
    ("budgets", |limits| {
        limits.packet_size_max = 2_048;
        limits.queue_bytes_max = 64 << 10;
        limits.group_bytes_max = 64 << 10;
        limits.shard_stored_bytes_max = 64 << 10;
        limits.output_size_max = 2_048;
        limits.shard_output_bytes_max = 4_096;
        limits.shard_frames_bytes_max = 2_048;
        limits.shard_connects_bytes_max = 2_048;
        limits.shard_wills_bytes_max = 1;
        limits.shard_metadata_bytes_max = 4_096;
    }),
    ("work", |limits| {
        limits.turn_steps_max = 1;
        limits.takeover_bytes_max = 1;
        limits.large_message_size = 1;
    }),
];

#[test]
fn each_class_of_limits_falls_and_rises_under_traffic_and_nothing_is_lost() {
    for (name, lower) in CLASSES {
        for shard_count in [1, 2] {
            let usual = Limits { shutdown_stall_ms: 1_000, ..quiet() };
            let mut low = usual.clone();
            lower(&mut low);
            let mut world = World::new(shard_count, usual.clone());
            let last = usize::from(shard_count) - 1;
            let reader = world.client_with(0, "r", |c| c.session_expiry_s = Some(600));
            let member = world.client_on(last, "m");
            let publisher = world.client_on(last, "p");
            world.subscribe(reader, "a/b/+", QoS::ExactlyOnce);
            world.subscribe(member, "$share/g/a/#", QoS::AtLeastOnce);
            world.retain(publisher, "a/r", b"kept");
            world.settle();
            world.received(reader);
            world.received(member);
            let (mut got, mut shared) = (Vec::new(), Vec::new());
            let mut sent = 0;
            for round in 0..6 {
                // Some of it is under way when the limits change.
                for _ in 0..30 {
                    sent += 1;
                    world.publish(publisher, "a/b/c", &numbered(sent, 50), QoS::AtLeastOnce, sent);
                }
                if round % 2 == 1 {
                    world.turn(last);
                }
                set_limits(&mut world, if round % 2 == 0 { &low } else { &usual });
                for _ in 0..40 {
                    got.extend(take_all(&mut world, reader));
                    shared.extend(take_all(&mut world, member));
                    world.now = world.now.plus_ms(100);
                }
            }
            let expected: Vec<u16> = (1..=sent).collect();
            assert_eq!(got, expected, "{name} on {shard_count} shards");
            assert_eq!(shared, expected, "{name} on {shard_count} shards, shared");
            for client in [reader, member, publisher] {
                assert!(world.is_open(client), "{name}: {:?}", world.received(client));
                world.lose(client);
            }
            // The session of the lasting one ends, and nothing is left but what is retained.
            world.now = world.now.plus_s(601);
            world.settle();
            let left: [Held; 8] = [
                ("stored", |g| g.stored_bytes),
                ("output", |g| g.output_bytes),
                ("frames", |g| g.frame_bytes),
                ("wills", |g| g.will_bytes),
                ("sessions", |g| g.sessions),
                ("connections", |g| g.connections),
                ("interest", |g| g.interest_filters),
                ("arena", |g| g.arena_used),
            ];
            for (what, of) in left {
                assert_eq!(gauge(&world, of), 0, "{name}: {what}");
            }
            assert_eq!(gauge(&world, |g| g.retained_messages), 1, "{name}");
        }
    }
}

fn numbered(number: u16, size: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(2 + size, b'x');
    payload
}

/// The numbers that a client gets until nothing more comes, all of which it acknowledges.
fn take_all(world: &mut World, client: usize) -> Vec<u16> {
    let mut numbers = Vec::new();
    world.settle();
    loop {
        let payloads = super::budget::take_all(world, client);
        if payloads.is_empty() {
            return numbers;
        }
        numbers.extend(payloads.iter().map(|one| u16::from_be_bytes([one[0], one[1]])));
    }
}

#[test]
fn a_client_keeps_what_its_connack_said_and_the_next_one_is_told_the_new_limits() {
    let mut world = World::new(1, quiet());
    let old = world.client_on(0, "old");
    world.subscribe(old, "a/#", QoS::ExactlyOnce);
    world.settle();
    world.received(old);
    let low = Limits {
        packet_size_max: 300,
        receive_max: 1,
        qos_max: 1,
        retained_messages_max: 0,
        wildcard_available: false,
        shared_available: false,
        subscription_ids_available: false,
        ..quiet()
    };
    set_limits(&mut world, &low);
    let new = world.client_on(0, "new");
    let mut told = None;
    world.packets(new, |packet| {
        if let Packet::Connack(connack) = packet {
            told = Some((connack.packet_size_max, connack.receive_max, connack.retain_available));
        }
    });
    assert_eq!(told, Some((Some(300), Some(1), Some(false))));
    let breaches: [fn(&mut World, usize); 5] = [
        |world, client| {
            // Two that are not released.
            for id in [1, 2] {
                world.publish(client, "q", b"", QoS::ExactlyOnce, id);
            }
        },
        |world, client| world.publish(client, "a/large", &[b'x'; 400], QoS::AtLeastOnce, 3),
        |world, client| world.retain(client, "a/kept", b"r"),
        |world, client| world.subscribe(client, "b/#", QoS::AtLeastOnce),
        |world, client| world.subscribe(client, "$share/g/c", QoS::AtLeastOnce),
    ];
    for (number, breach) in breaches.iter().enumerate() {
        breach(&mut world, old);
        world.settle();
        assert!(world.is_open(old), "{number}: {:?}", world.received(old));
        let new = world.connect(&format!("new{number}"), |_| ());
        world.settle();
        breach(&mut world, new);
        world.settle();
        assert!(!world.is_open(new), "{number}: {:?}", world.received(new));
    }
    let lines = world.received(old);
    assert!(lines.iter().any(|line| line.starts_with("a/large=")), "{lines:?}");
    // On its next connection the old client is told the new limits, and is held to them.
    world.lose(old);
    let back = world.connect("old", |_| ());
    world.settle();
    breaches[1](&mut world, back);
    world.settle();
    assert!(!world.is_open(back));
}

#[test]
fn what_a_client_was_told_is_forgotten_with_the_last_who_was_told_it() {
    let with = |packet_size_max| Limits { packet_size_max, ..quiet() };
    let mut world = World::new(1, with(2_000));
    let first = world.connect("first", |_| ());
    set_limits(&mut world, &with(1_000));
    let second = world.connect("second", |_| ());
    world.lose(first);
    set_limits(&mut world, &with(500));
    world.publish(second, "t", &[b'x'; 900], QoS::AtMostOnce, 0);
    world.settle();
    assert!(world.is_open(second), "it was told 1,000");
    world.publish(second, "t", &[b'x'; 1_900], QoS::AtMostOnce, 0);
    world.settle();
    assert!(!world.is_open(second), "it was never told 2,000");
}

#[test]
fn who_waits_for_its_rate_goes_on_when_the_rate_rises_or_is_none() {
    for later in [0, 1_000] {
        let mut world = World::new(1, Limits { message_rate_max: 2, ..quiet() });
        let client = world.connect("p", |c| c.keep_alive_s = 60);
        for number in 1..=20 {
            world.publish(client, "t", b"x", QoS::AtLeastOnce, number);
        }
        world.settle();
        assert_eq!(world.received(client).len(), 1 + 2);
        set_limits(&mut world, &Limits { message_rate_max: later, ..quiet() });
        world.settle();
        assert_eq!(world.received(client).len(), 18, "in no time");
        // Its keep alive counts again.
        world.now = world.now.plus_s(91);
        world.settle();
        assert!(!world.is_open(client));
    }
}

#[test]
fn who_waits_for_its_own_output_is_read_again_when_there_may_be_more_of_it() {
    let small = Limits { output_size_max: 64, ..quiet() };
    let mut world = World::new(1, small);
    let client = world.client_on(0, "p");
    world.settle();
    world.set_stuck(client, true);
    for number in 1..=500 {
        world.publish(client, "t", b"x", QoS::AtLeastOnce, number);
        world.settle();
    }
    let before = world.shards[0].counters().publishes_received;
    assert!(before < 100, "{before}");
    set_limits(&mut world, &quiet());
    world.settle();
    assert_eq!(world.shards[0].counters().publishes_received, 500);
    world.set_stuck(client, false);
    world.settle();
    assert_eq!(world.received(client).len(), 1 + 500);
}

#[test]
fn a_store_that_shrinks_sheds_the_absent_and_one_that_grows_lets_publishers_go_on() {
    let ample = Limits { shard_stored_bytes_max: 4 << 20, ..super::budget::small_store() };
    let (mut world, reader, publisher) = super::budget::reader_and_publisher(1, ample.clone());
    let absent = world.connect("absent", |c| c.session_expiry_s = Some(600));
    world.subscribe(absent, "bulk", QoS::AtLeastOnce);
    world.settle();
    world.lose(absent);
    for number in 1..=100 {
        world.publish(publisher, "bulk", &[b'x'; 4_000], QoS::AtLeastOnce, number);
    }
    world.settle();
    assert!(gauge(&world, |g| g.stored_bytes) > 400_000);
    let small = Limits { shard_stored_bytes_max: 256 << 10, ..ample.clone() };
    set_limits(&mut world, &small);
    world.settle();
    let held = gauge(&world, |g| g.stored_bytes);
    assert!(held <= small.absent_bytes_max(), "{held}");
    assert!(world.shards[0].counters().dropped_stored_full > 20);
    // A reader that takes nothing fills the rest, and its publisher waits.
    world.received(publisher);
    for number in 1..=50 {
        world.publish(publisher, "t", &[b'x'; 4_000], QoS::AtLeastOnce, number);
        world.settle();
    }
    let answered = world.received(publisher).len();
    assert!((1..50).contains(&answered), "{answered}");
    set_limits(&mut world, &ample);
    world.settle();
    assert_eq!(answered + world.received(publisher).len(), 50);
    world.set_stuck(reader, false);
    world.settle();
}

#[test]
fn what_is_above_a_lower_limit_stays_and_only_grows_no_more() {
    let mut world = World::new(1, quiet());
    let away = world.connect("away", |c| c.session_expiry_s = Some(600));
    for filter in ["q", "r", "s"] {
        world.subscribe(away, filter, QoS::AtLeastOnce);
    }
    let publisher = world.connect("p", |_| ());
    world.settle();
    world.lose(away);
    for number in 1..=10 {
        world.publish(publisher, "q", &numbered(number, 0), QoS::AtLeastOnce, number);
        world.retain(publisher, &format!("kept/{number}"), b"k");
    }
    world.settle();
    let low = Limits {
        queue_messages_max: 3,
        retained_messages_max: 4,
        subscriptions_per_client_max: 1,
        sessions_max: 1,
        ..quiet()
    };
    set_limits(&mut world, &low);
    for number in 11..=13 {
        world.publish(publisher, "q", &numbered(number, 0), QoS::AtLeastOnce, number);
        world.retain(publisher, &format!("kept/{number}"), b"k");
    }
    world.settle();
    assert_eq!(world.shards[0].counters().dropped_queue_full, 3, "the newest");
    assert_eq!(world.shards[0].counters().retained_refused, 3);
    let stranger = world.connect("stranger", |_| ());
    world.settle();
    assert_eq!(world.received(stranger), ["CONNACK QuotaExceeded"]);
    let [kept, sessions]: [fn(&Gauges) -> usize; 2] = [|g| g.retained_messages, |g| g.sessions];
    assert_eq!((gauge(&world, kept), gauge(&world, sessions)), (10, 2));
    let back = world.connect("away", |c| {
        c.clean_start = false;
        c.session_expiry_s = Some(600);
    });
    assert_eq!(take_all(&mut world, back), (1..=10).collect::<Vec<u16>>());
    // All three filters are subscribed still.
    world.publish(publisher, "s", &numbered(14, 0), QoS::AtLeastOnce, 14);
    assert_eq!(take_all(&mut world, back), [14]);
    set_limits(&mut world, &quiet());
    world.retain(publisher, "kept/14", b"k");
    let stranger = world.connect("stranger", |_| ());
    world.settle();
    assert!(world.is_open(stranger));
    assert_eq!(gauge(&world, kept), 11);
}

#[test]
fn packets_in_pieces_lose_the_slowest_at_once_and_meet_a_shorter_time() {
    let mut world = World::new(1, quiet());
    let publish = Publish { topic: "t", payload: &[b'x'; 60_000], ..Publish::default() };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(ProtocolVersion::V5, &mut bytes);
    let clients: Vec<usize> =
        (0..4).map(|number| world.connect(&format!("c{number}"), |_| ())).collect();
    world.settle();
    for client in &clients {
        world.send_bytes(*client, &bytes[..40_000]);
        world.settle();
        world.now = world.now.plus_ms(10);
    }
    let held = gauge(&world, |g| g.frame_bytes);
    assert!(held >= 160_000, "{held}");
    let low = Limits { packet_size_max: 64 << 10, shard_frames_bytes_max: 128 << 10, ..quiet() };
    set_limits(&mut world, &low);
    world.settle();
    assert!(gauge(&world, |g| g.frame_bytes) <= 128 << 10);
    let open: Vec<bool> = clients.iter().map(|client| world.is_open(*client)).collect();
    assert!(!open[0] && open[3], "{open:?}");
    assert!(world.shards[0].counters().frames_evicted > 0);
    set_limits(&mut world, &Limits { packet_time_max_ms: 1_000, ..low });
    world.now = world.now.plus_ms(2_000);
    world.settle();
    assert!(!world.is_open(clients[3]), "{:?}", world.received(clients[3]));
    assert!(world.shards[0].counters().packets_timed_out > 0);
    assert_eq!(gauge(&world, |g| g.frame_bytes), 0);
}

#[test]
fn limits_that_come_while_memory_is_short_hold_when_it_no_longer_is() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    world.settle();
    let set_short = |world: &mut World, is_short| {
        let now = world.now;
        world.shards[0].set_memory_short(now, is_short);
    };
    set_short(&mut world, true);
    set_limits(&mut world, &Limits { retained_messages_max: 2, ..quiet() });
    world.retain(publisher, "a", &[b'x'; 1_000]);
    world.settle();
    assert_eq!(gauge(&world, |g| g.retained_messages), 0, "memory is short still");
    set_short(&mut world, false);
    for topic in ["a", "b", "c"] {
        world.retain(publisher, topic, b"k");
    }
    world.settle();
    assert_eq!(gauge(&world, |g| g.retained_messages), 2);
}

#[test]
fn remembered_routes_and_figures_follow_their_limits() {
    let mut world = World::new(1, quiet());
    let reader = world.connect("r", |_| ());
    world.subscribe(reader, "#", QoS::AtMostOnce);
    for number in 0..2_000 {
        world.publish(reader, &format!("some/topic/{number}"), b"", QoS::AtMostOnce, 0);
    }
    world.settle();
    let before = gauge(&world, |g| g.route_bytes);
    let low = Limits { shard_metadata_bytes_max: 256 << 10, sys_interval_ms: 1_000, ..quiet() };
    assert!(before > low.metadata_routes_max(), "{before}");
    world.subscribe(reader, "$SYS/#", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    set_limits(&mut world, &low);
    world.publish(reader, "some/topic/1", b"again", QoS::AtMostOnce, 0);
    world.now = world.now.plus_ms(1_000);
    world.settle();
    assert!(gauge(&world, |g| g.route_bytes) <= low.metadata_routes_max());
    let lines = world.messages(reader);
    assert!(lines.contains(&"some/topic/1=again".to_owned()));
    assert!(lines.iter().any(|line| line.starts_with("$SYS/broker/")), "{}", lines.len());
}
