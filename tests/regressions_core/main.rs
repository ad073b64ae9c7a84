//! What was wrong once, in small: shards in memory, a few packets, and what must come of them.

mod budget;
mod credit;
mod limits;
mod links;
mod listeners;
mod metadata;
mod new_limits;
mod parked;
mod rates;
mod repeats;
mod retained_room;
mod shares;
mod shortage;
mod slow_packets;
mod steps;
mod take_over;
mod world;

use ringmq::codec::{
    Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, Will,
};
use ringmq::limits::Limits;
use ringmq::shard::Remainder;
use ringmq::turn::STEPS;
use world::World;

/// Nothing but what the test does.
fn quiet() -> Limits {
    Limits { sys_interval_ms: 0, ..Limits::default() }
}

#[test]
fn interest_is_acknowledged_while_messages_keep_crossing() {
    let mut world = World::new(2, quiet());
    let subscriber = world.client_on(0, "s");
    let publisher = world.client_on(1, "p");
    world.subscribe(subscriber, "busy", QoS::AtMostOnce);
    world.settle();
    world.received(subscriber);
    world.subscribe(subscriber, "other", QoS::AtMostOnce);
    for _ in 0..20 {
        world.publish(publisher, "busy", b"x", QoS::AtMostOnce, 0);
        world.turn(1);
        world.turn(0);
    }
    assert!(world.received(subscriber).contains(&"SUBACK".to_string()));
}

#[test]
fn who_reads_is_served_though_others_fill_the_output_of_the_shard() {
    let limits = Limits {
        packet_size_max: 4096,
        output_size_max: 4096,
        shard_output_bytes_max: 8192,
        ..quiet()
    };
    let mut world = World::new(1, limits);
    let publisher = world.connect("p", |_| ());
    let stuck: Vec<usize> = (0..4).map(|n| world.connect(&format!("stuck{n}"), |_| ())).collect();
    let reader = world.connect("reader", |_| ());
    for &client in &stuck {
        world.subscribe(client, "bulk", QoS::AtMostOnce);
    }
    world.subscribe(reader, "news", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    stuck.iter().for_each(|&client| world.set_stuck(client, true));
    for _ in 0..20 {
        world.publish(publisher, "bulk", &[b'b'; 3000], QoS::AtMostOnce, 0);
        world.settle();
    }
    assert!(world.shards[0].gauges().output_bytes >= 8192, "the shard's bound is met");
    for number in 0..5 {
        world.publish(publisher, "news", format!("{number}").as_bytes(), QoS::AtMostOnce, 0);
    }
    world.settle();
    assert_eq!(world.messages(reader), ["news=0", "news=1", "news=2", "news=3", "news=4"]);
}

#[test]
fn sessions_that_wait_for_the_same_message_share_one_copy() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    for number in 0..100 {
        let client = world.connect(&format!("away{number}"), |c| c.session_expiry_s = Some(60));
        world.subscribe(client, "t", QoS::AtLeastOnce);
        world.lose(client);
    }
    world.publish(publisher, "t", &[b'm'; 10_000], QoS::AtLeastOnce, 1);
    world.settle();
    let stored = world.shards[0].gauges().stored_bytes;
    assert!((10_000..20_000).contains(&stored), "{stored} bytes are stored");
    world.now = world.now.plus_s(61);
    world.settle();
    assert_eq!(world.shards[0].gauges().stored_bytes, 0);
}

#[test]
fn what_a_member_leaves_goes_to_another_in_order() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    let first = world.connect("first", |c| c.receive_max = Some(3));
    world.subscribe(first, "own", QoS::AtLeastOnce);
    world.subscribe(first, "$share/g/t", QoS::AtLeastOnce);
    world.settle();
    // It takes a place that the group counts on, so that the last message waits with the session.
    world.publish(publisher, "own", b"0", QoS::AtLeastOnce, 9);
    for number in 1..=3u16 {
        let payload = number.to_string();
        world.publish(publisher, "t", payload.as_bytes(), QoS::AtLeastOnce, number);
    }
    world.settle();
    assert_eq!(world.messages(first), ["own=0", "t=1", "t=2"]);
    assert_eq!(world.shards[0].gauges().group_backlog, 0);
    let second = world.connect("second", |_| ());
    world.subscribe(second, "$share/g/t", QoS::AtLeastOnce);
    world.settle();
    assert_eq!(world.messages(second), Vec::<String>::new());
    world.lose(first);
    world.settle();
    assert_eq!(world.messages(second), ["t=1", "t=2", "t=3"]);
}

#[test]
fn what_one_group_left_unacknowledged_goes_to_no_other_group() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    let first = world.connect("first", |_| ());
    let second = world.connect("second", |_| ());
    world.subscribe(second, "$share/g/b", QoS::AtLeastOnce);
    world.subscribe(first, "$share/g/a", QoS::AtLeastOnce);
    world.settle();
    world.publish(publisher, "a", b"1", QoS::AtLeastOnce, 1);
    world.settle();
    assert_eq!(world.messages(first), ["a=1"]);
    world.unsubscribe(first, "$share/g/a");
    world.subscribe(first, "$share/g/b", QoS::AtLeastOnce);
    world.settle();
    world.lose(first);
    world.settle();
    assert_eq!(world.messages(second), Vec::<String>::new());
}

#[test]
fn subscribing_again_gives_a_member_no_more_than_its_credit() {
    let limits = Limits { group_credit_max: 2, ..quiet() };
    let mut world = World::new(1, limits);
    let publisher = world.connect("p", |_| ());
    let member = world.connect("member", |c| c.receive_max = Some(1));
    world.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
    world.settle();
    for number in 1..=10 {
        world.publish(publisher, "t", b"x", QoS::AtLeastOnce, number);
        world.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
        world.settle();
    }
    assert_eq!(world.messages(member), ["t=x"]);
    assert_eq!(world.shards[0].gauges().group_backlog, 10 - 1);
}

#[test]
fn a_new_member_gets_what_waits_for_those_who_are_away() {
    for shard_count in [1, 2] {
        let mut world = World::new(shard_count, quiet());
        let publisher = world.connect("p", |_| ());
        let away = world.connect("away", |c| c.session_expiry_s = Some(60));
        world.subscribe(away, "$share/g/t", QoS::AtLeastOnce);
        world.settle();
        world.lose(away);
        for number in 1..=3u16 {
            let payload = number.to_string();
            world.publish(publisher, "t", payload.as_bytes(), QoS::AtLeastOnce, number);
        }
        world.settle();
        for name in ["m1", "m2", "m3", "m4"] {
            let member = world.connect(name, |_| ());
            world.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
            world.settle();
            let expected: &[&str] = if name == "m1" { &["t=1", "t=2", "t=3"] } else { &[] };
            assert_eq!(world.messages(member), expected);
        }
    }
}

#[test]
fn the_frame_that_began_first_goes_first_though_more_of_it_drips_in() {
    let limits = Limits { packet_size_max: 4096, shard_frames_bytes_max: 4096, ..quiet() };
    let mut world = World::new(1, limits);
    let slow = world.connect("slow", |_| ());
    let other = world.connect("other", |_| ());
    let third = world.connect("third", |_| ());
    let mut bytes = Vec::new();
    let publish = Publish { topic: "t", payload: &[0; 4000], ..Publish::default() };
    Packet::Publish(publish).encode(world::V5, &mut bytes);
    let pieces = [(slow, 0..2000), (other, 0..2000), (slow, 2000..2010), (third, 0..200)];
    for (client, range) in pieces {
        world.now = world.now.plus_ms(1);
        world.send_bytes(client, &bytes[range]);
    }
    world.settle();
    assert_eq!([slow, other, third].map(|client| world.is_open(client)), [false, true, true]);
}

#[test]
fn the_receive_maximum_holds_for_those_who_were_told() {
    for (version, is_open) in [(ProtocolVersion::V311, true), (ProtocolVersion::V5, false)] {
        let mut world = World::new(1, Limits { receive_max: 2, ..quiet() });
        let client = world.connect("c", |c| c.version = version);
        let mut bytes = Vec::new();
        for number in 1..=3 {
            let publish = Publish {
                qos: QoS::ExactlyOnce,
                topic: "t",
                packet_id: PacketId::new(number),
                ..Publish::default()
            };
            Packet::Publish(publish).encode(version, &mut bytes);
        }
        world.send_bytes(client, &bytes);
        world.settle();
        assert_eq!(world.is_open(client), is_open, "{version:?}");
    }
}

#[test]
fn what_is_retained_is_found_though_the_lane_to_its_owner_was_full() {
    let mut world = World::with_lanes(1, 2, quiet());
    let publisher = world.client_on(0, "p");
    let subscriber = world.client_on(0, "s");
    let other = world.client_on(0, "o");
    world.subscribe(other, "r/#", QoS::AtMostOnce);
    world.settle();
    for round in 0..2 {
        for number in 0..10 {
            world.retain(publisher, &format!("r/{round}{number}"), b"x");
        }
        world.turn(0);
    }
    world.subscribe(subscriber, "r/#", QoS::AtMostOnce);
    world.turn(0);
    world.settle();
    assert_eq!(world.messages(subscriber).len(), 20);
}

#[test]
fn what_is_retained_is_found_wherever_its_owner_is_in_its_turn() {
    for place in 0..STEPS.len() {
        let mut world = World::new(2, quiet());
        let publisher = world.client_on(0, "p");
        let subscriber = world.client_on(0, "s");
        let other = world.client_on(0, "o");
        world.subscribe(other, "r/#", QoS::AtMostOnce);
        world.settle();
        let (before, behind) = STEPS.split_at(place);
        world.advance(1, before);
        for number in 0..10 {
            world.retain(publisher, &format!("r/{number}"), b"x");
        }
        world.turn(0);
        world.subscribe(subscriber, "r/#", QoS::AtMostOnce);
        world.turn(0);
        world.advance(1, behind);
        world.settle();
        assert_eq!(world.messages(subscriber).len(), 10, "before {behind:?}");
    }
}

#[test]
fn a_retained_message_that_went_by_is_not_fetched_as_well() {
    let mut world = World::new(2, quiet());
    let subscriber = world.client_on(0, "s");
    let publisher = world.client_on(1, "p");
    world.subscribe(subscriber, "r/#", QoS::AtMostOnce);
    for number in 0..10 {
        for letter in ["a", "b", "c", "d", "e", "f"] {
            world.retain(publisher, &format!("r/{number}{letter}"), b"x");
        }
        world.turn(1);
        world.turn(0);
    }
    world.settle();
    let mut messages = world.messages(subscriber);
    messages.iter_mut().for_each(|line| *line = line.replace(" retained", ""));
    messages.sort();
    let count = messages.len();
    messages.dedup();
    assert_eq!((count, messages.len()), (60, 60));
}

#[test]
fn a_chunk_of_retained_messages_fits_the_queue() {
    let limits =
        Limits { packet_size_max: 2048, queue_bytes_max: 4096, output_size_max: 4096, ..quiet() };
    for shard_count in [1, 2] {
        let mut world = World::new(shard_count, limits.clone());
        let publisher = world.connect("p", |_| ());
        for number in 0..40 {
            world.retain(publisher, &format!("r/{number}"), &[b'x'; 900]);
        }
        world.settle();
        let subscriber = world.connect("s", |_| ());
        world.subscribe(subscriber, "r/#", QoS::AtMostOnce);
        world.settle();
        assert_eq!(world.messages(subscriber).len(), 40);
    }
}

#[test]
fn what_is_dropped_or_refused_is_told_under_sys() {
    let mut world = World::new(1, Limits { sys_interval_ms: 1_000, ..Limits::default() });
    let away = world.connect("away", |c| c.session_expiry_s = Some(600));
    world.subscribe(away, "t", QoS::AtMostOnce);
    world.lose(away);
    let observer = world.connect("observer", |_| ());
    world.publish(observer, "t", b"x", QoS::AtMostOnce, 0);
    world.publish(observer, "$SYS/forged", b"x", QoS::AtLeastOnce, 1);
    world.settle();
    world.now = world.now.plus_ms(1_000);
    world.settle();
    world.subscribe(observer, "$SYS/broker/shards/0/+/+", QoS::AtMostOnce);
    world.settle();
    let told = world.messages(observer);
    for line in ["dropped/offline_qos0=1", "refused/topics=1", "closed/protocol_errors=0"] {
        let expected = format!("$SYS/broker/shards/0/{line} retained");
        assert!(told.contains(&expected), "{expected} of {told:?}");
    }
}

#[test]
fn what_a_waiting_client_said_before_it_closed_counts() {
    let mut world = World::new(2, quiet());
    let watcher = world.client_on(1, "w");
    world.subscribe(watcher, "#", QoS::AtMostOnce);
    world.settle();
    world.received(watcher);
    let client = world.client_on(0, "c");
    // Its SUBSCRIBE waits for the other shard, what follows waits behind it.
    world.subscribe(client, "news", QoS::AtMostOnce);
    world.publish(client, "last/words", b"x", QoS::AtMostOnce, 0);
    world.send(client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    world.lose(client);
    world.settle();
    assert_eq!(world.messages(watcher), ["last/words=x"]);
}

#[test]
fn a_second_connect_is_a_protocol_error_whatever_it_says() {
    let mut world = World::new(1, quiet());
    let client = world.connect("c", |_| ());
    world.received(client);
    // Level 9, which no CONNECT may have; DISCONNECT has no reason code for that.
    world.send_bytes(client, &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 9, 0, 0, 0, 0, 0]);
    world.settle();
    assert_eq!(world.received(client), ["DISCONNECT ProtocolError"]);
}

#[test]
fn what_is_stored_is_counted_with_its_allocation_before_it_is_made() {
    let limits = Limits { shard_wills_bytes_max: 100, retained_bytes_max: 100, ..quiet() };
    let mut world = World::new(1, limits);
    let client = world.connect("c", |connect| {
        connect.will = Some(Will { topic: "will", payload: &[7; 90], ..Will::default() });
    });
    assert_eq!(world.received(client), ["CONNACK QuotaExceeded"]);
    let client = world.connect("d", |_| ());
    let retained = Publish { topic: "t", retain: true, payload: &[7; 90], ..Publish::default() };
    world.send(client, &Packet::Publish(retained));
    world.settle();
    let gauges = world.shards[0].gauges();
    assert_eq!((gauges.will_bytes, gauges.retained_bytes), (0, 0));
}

#[test]
fn a_broker_that_ends_gives_its_clients_what_waits_for_them() {
    let mut world = World::new(2, Limits { inflight_max: 2, ..quiet() });
    let subscriber = world.client_on(0, "s");
    world.subscribe(subscriber, "t", QoS::AtLeastOnce);
    world.settle();
    let publisher = world.client_on(1, "p");
    for number in 1..=7u16 {
        world.publish(publisher, "t", format!("{number}").as_bytes(), QoS::AtLeastOnce, number);
    }
    world.settle();
    assert_eq!(world.messages(subscriber), ["t=1", "t=2"]);
    let now = world.now;
    world.shards.iter_mut().for_each(|shard| shard.begin_shutdown(now));
    world.settle();
    world.received(publisher);
    let mut got = 2;
    for _ in 0..3 {
        assert!(!world.part());
        for id in got - 1..=got {
            let mut ack = Vec::new();
            ringmq::codec::encode_puback(
                ProtocolVersion::V5,
                PacketId::new(id).unwrap(),
                ReasonCode::Success,
                &mut ack,
            );
            world.send_bytes(subscriber, &ack);
        }
        world.settle();
        got += world.messages(subscriber).len() as u16;
    }
    assert_eq!(got, 7);
    // The last one is not acknowledged yet; the publisher, for whom nothing waits, was told.
    assert!(!world.part());
    assert_eq!(world.received(publisher), ["DISCONNECT ServerShuttingDown"]);
    world.send_bytes(subscriber, &[0x40, 2, 0, 7]);
    world.settle();
    assert!(world.part());
    assert_eq!(world.received(subscriber), ["DISCONNECT ServerShuttingDown"]);
    assert_eq!(world.shards[0].remainder(), Remainder::default());
}

#[test]
fn a_broker_that_ends_takes_nothing_new() {
    let mut world = World::new(1, quiet());
    let subscriber = world.connect("s", |_| ());
    world.subscribe(subscriber, "t", QoS::AtLeastOnce);
    let publisher = world.connect("p", |_| ());
    world.settle();
    let now = world.now;
    world.shards[0].begin_shutdown(now);
    world.settle();
    world.received(subscriber);
    world.received(publisher);
    // What is not taken is not acknowledged.
    world.publish(publisher, "t", b"8", QoS::AtLeastOnce, 8);
    world.settle();
    assert!(world.messages(subscriber).is_empty() && world.received(publisher).is_empty());
}

#[test]
fn a_broker_that_ends_waits_for_clients_as_long_as_they_come_on() {
    let limits = Limits { inflight_max: 4, shutdown_stall_ms: 1_000, ..quiet() };
    let mut world = World::new(1, limits);
    let [deaf, busy] =
        ["deaf", "busy"].map(|id| world.connect(id, |connect| connect.session_expiry_s = Some(60)));
    let [member, other, publisher] = ["member", "other", "p"].map(|id| world.connect(id, |_| ()));
    for (client, filter) in [(deaf, "t"), (busy, "t"), (member, "$share/g/u")] {
        world.subscribe(client, filter, QoS::ExactlyOnce);
    }
    for number in 1..=6u16 {
        world.publish(publisher, "t", b"x", QoS::ExactlyOnce, number);
        world.publish(publisher, "u", b"y", QoS::AtLeastOnce, 100 + number);
    }
    world.settle();
    world.subscribe(other, "$share/g/u", QoS::AtLeastOnce);
    world.settle();
    let taken = [deaf, busy, member, other].map(|client| world.messages(client).len());
    assert_eq!(taken, [4, 4, 4, 2]);
    let acknowledge = |world: &mut World, ids: std::ops::RangeInclusive<u8>| {
        ids.for_each(|id| world.send_bytes(other, &[0x40, 2, 0, id]));
        world.settle();
    };
    acknowledge(&mut world, 1..=2);
    let now = world.now;
    world.shards[0].begin_shutdown(now);
    assert!(!world.part());
    // One says what it has got, packet for packet; one only pings.
    for step in 0u8..3 {
        world.now = world.now.plus_ms(600);
        world.send_bytes(busy, &[0x50, 2, 0, step + 1]);
        if step == 0 {
            world.send_bytes(deaf, &[0xc0, 0]);
        }
        world.settle();
        assert!(!world.part());
    }
    assert_eq!(world.received(deaf), ["Pingresp", "DISCONNECT ServerShuttingDown"]);
    // What the member had not acknowledged went to the other one.
    assert_eq!(world.received(member), ["DISCONNECT ServerShuttingDown"]);
    assert_eq!(world.messages(other).len(), 4);
    acknowledge(&mut world, 3..=6);
    // A slow way is no standstill.
    let confirmed = |world: &mut World, bytes| {
        world.now = world.now.plus_ms(300);
        let is_over = world.part();
        let now = world.now;
        while let Some(id) = world.shards[0].poll_confirmed() {
            world.shards[0].handle_confirmed(now, id, bytes);
        }
        is_over
    };
    for bytes in [1, 2, 3, 4, 5, 6, 6, 6, 6] {
        assert!(!confirmed(&mut world, bytes), "{bytes}");
    }
    assert!(world.is_open(busy));
    assert!(confirmed(&mut world, 6));
    assert!(!world.is_open(busy) && world.is_open(other));
    let remainder = world.shards[0].remainder();
    let names = ["deaf", "busy"].map(Into::into).to_vec();
    let expected = Remainder { unacknowledged: 6 + 6, clients: 2, names, ..Remainder::default() };
    assert_eq!(remainder, expected);
}

#[test]
fn nothing_that_came_behind_an_error_is_worked_on() {
    let publish = |topic: &str, qos, id| {
        let mut bytes = Vec::new();
        let packet_id = PacketId::new(id);
        let publish = Publish { topic, qos, packet_id, payload: b"x", ..Publish::default() };
        Packet::Publish(publish).encode(ProtocolVersion::V5, &mut bytes);
        bytes
    };
    let later = publish("later", QoS::AtMostOnce, 0);
    let mut second_connect = Vec::new();
    ringmq::codec::Connect::new(ProtocolVersion::V5, "c").encode(&mut second_connect);
    // One more than may be unacknowledged.
    let too_many: Vec<u8> = (1..=3).flat_map(|id| publish("other", QoS::ExactlyOnce, id)).collect();
    let errors: [(&str, Vec<u8>); 6] = [
        ("MalformedPacket", b"\x80\x07\x00\x01\x00\x00\x01w\x00".to_vec()),
        ("ProtocolError", second_connect),
        ("ProtocolError", b"\xf0\x00".to_vec()),
        ("ReceiveMaximumExceeded", too_many),
        ("PacketTooLarge", publish(&"l".repeat(600), QoS::AtMostOnce, 0)),
        ("TopicNameInvalid", publish("a/#", QoS::AtMostOnce, 0)),
    ];
    for (reason, error) in errors {
        for is_one_write in [true, false] {
            let limits = Limits { receive_max: 2, packet_size_max: 512, ..quiet() };
            let mut world = World::new(2, limits);
            let watcher = world.client_on(0, "w");
            world.subscribe(watcher, "later", QoS::AtMostOnce);
            let client = world.client_on(1, "c");
            world.settle();
            world.received(watcher);
            // What waits for the client does not let the rest through either.
            world.set_stuck(client, true);
            if is_one_write {
                world.send_bytes(client, &[&error[..], &later].concat());
            } else {
                world.send_bytes(client, &error);
            }
            world.settle();
            for _ in 0..3 {
                world.send_bytes(client, &later);
                world.settle();
            }
            world.set_stuck(client, false);
            world.settle();
            let told = world.received(client);
            assert_eq!(told.last(), Some(&format!("DISCONNECT {reason}")), "{told:?}");
            assert_eq!(world.received(watcher), [""; 0], "{reason}");
            assert!(!world.is_open(client));
        }
    }
}

#[test]
fn a_row_of_acknowledgements_is_what_each_is_alone() {
    let [puback, pubrec, pubrel, pubcomp] = [0x40, 0x50, 0x62, 0x70];
    let play = |is_row: bool| {
        let mut world = World::new(1, Limits { inflight_max: 2, ..quiet() });
        let subscriber = world.connect("s", |_| ());
        let publisher = world.connect("p", |_| ());
        world.subscribe(subscriber, "t", QoS::ExactlyOnce);
        for number in 1..=5u16 {
            world.publish(publisher, "t", format!("{number}").as_bytes(), QoS::ExactlyOnce, number);
        }
        world.settle();
        let mut seen = Vec::new();
        let steps: [(usize, &[(u8, u8)]); 5] = [
            (subscriber, &[(pubrec, 1), (pubrec, 9), (pubrec, 2), (pubrec, 1)]),
            (subscriber, &[(puback, 1), (pubcomp, 9), (pubcomp, 1), (pubcomp, 1), (pubcomp, 2)]),
            (publisher, &[(pubrel, 2), (pubrel, 1), (pubrel, 9), (pubrel, 3), (pubrel, 2)]),
            // The broker is about to end: what was not released yet stays so.
            (publisher, &[(puback, 1), (pubrel, 4)]),
            (subscriber, &[(pubrec, 3), (pubrel, 1), (pubcomp, 3), (pubcomp, 4), (pubrec, 4)]),
        ];
        for (index, (client, acks)) in steps.into_iter().enumerate() {
            seen.push(world.received(client));
            if index == 3 {
                let now = world.now;
                world.shards[0].begin_shutdown(now);
            }
            let bytes: Vec<u8> = acks.iter().flat_map(|(kind, id)| [*kind, 2, 0, *id]).collect();
            let size = if is_row { bytes.len() } else { 4 };
            bytes.chunks(size).for_each(|chunk| world.send_bytes(client, chunk));
            world.settle();
            let lines = world.received(client);
            // What was freed by a row is sent behind it.
            let (freed, answers) = lines.into_iter().partition(|line| line.contains("t="));
            seen.extend([answers, freed]);
        }
        let counters = world.shards[0].counters();
        let counts = [counters.packets_received, counters.packets_sent, counters.protocol_errors];
        (seen, counts)
    };
    let (seen, counts) = play(true);
    assert_eq!((&seen, counts), (&play(false).0, play(false).1));
    let sizes: Vec<[usize; 2]> = seen.chunks(3).map(|s| [s[1].len(), s[2].len()]).collect();
    assert_eq!(sizes, [[4, 0], [0, 2], [5, 0], [0, 0], [2, 1]]);
}

#[test]
fn the_figures_of_a_young_broker_are_those_of_all_its_shards() {
    let mut world = World::new(2, Limits::default());
    world.settle();
    let first = world.client_on(0, "a");
    world.client_on(1, "b");
    world.settle();
    world.now = world.now.plus_ms(1_000);
    world.settle();
    world.subscribe(first, "$SYS/broker/clients/connected", QoS::AtMostOnce);
    world.subscribe(first, "$SYS/broker/shards/1/clients/connected", QoS::AtMostOnce);
    world.settle();
    let told = world.messages(first);
    for line in ["clients/connected=2", "shards/1/clients/connected=1"] {
        assert!(told.contains(&format!("$SYS/broker/{line} retained")), "{line} of {told:?}");
    }
}

#[test]
fn messages_that_wait_stay_or_are_in_flight_are_counted_under_sys() {
    let mut world = World::new(1, Limits { sys_interval_ms: 1_000, ..Limits::default() });
    let away = world.connect("away", |c| c.session_expiry_s = Some(600));
    world.subscribe(away, "t", QoS::AtLeastOnce);
    world.lose(away);
    let silent = world.connect("silent", |_| ());
    world.subscribe(silent, "t", QoS::AtLeastOnce);
    let publisher = world.connect("p", |_| ());
    for id in 1..=3 {
        world.publish(publisher, "t", b"x", QoS::AtLeastOnce, id);
    }
    world.retain(publisher, "kept", b"x");
    world.settle();
    world.now = world.now.plus_ms(1_000);
    world.settle();
    let figure = |world: &mut World, name: &str| -> usize {
        world.subscribe(publisher, &format!("$SYS/broker/{name}"), QoS::AtMostOnce);
        world.settle();
        let told = world.messages(publisher);
        let told = told.iter().find(|one| one.contains(name)).expect(name);
        let value = told.split_once('=').unwrap().1.split(' ').next().unwrap();
        value.parse().expect(told)
    };
    let retained = figure(&mut world, "retained messages/count");
    assert_eq!(figure(&mut world, "messages/stored"), 3 + retained);
    assert_eq!(figure(&mut world, "store/messages/count"), 3 + retained);
    assert_eq!(figure(&mut world, "messages/inflight"), 3);
}
