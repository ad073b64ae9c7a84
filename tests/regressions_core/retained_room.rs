//! The room for retained messages: whose it is, and who is told when there is none.

use super::quiet;
use super::world::World;
use ringmq::codec::{Packet, PacketId, ProtocolVersion, Publish, QoS};
use ringmq::limits::Limits;
use std::collections::BTreeMap;

fn retain(world: &mut World, client: usize, topic: &str, payload: &[u8], qos: QoS, id: u16) {
    let packet_id = PacketId::new(id).filter(|_| qos != QoS::AtMostOnce);
    let publish = Publish { topic, payload, qos, packet_id, retain: true, ..Publish::default() };
    world.send(client, &Packet::Publish(publish));
}

/// The answers to QoS 1 and 2 messages, by packet identifier.
fn answers(world: &mut World, client: usize) -> BTreeMap<u16, String> {
    let mut found = BTreeMap::new();
    world.packets(client, |packet| {
        if let Packet::Puback(ack) | Packet::Pubrec(ack) = packet {
            found.insert(ack.packet_id.get(), format!("{:?}", ack.reason));
        }
    });
    found
}

/// What a new subscriber finds, as `topic=payload`, in the order of the topics.
fn kept(world: &mut World, name: &str) -> Vec<String> {
    let client = world.connect(name, |connect| connect.version = ProtocolVersion::V311);
    world.subscribe(client, "r/#", QoS::AtMostOnce);
    world.settle();
    let mut messages = world.messages(client);
    messages.sort();
    messages.iter().map(|line| line.replace(" retained", "")).collect()
}

fn refused(world: &mut World) -> u64 {
    world.shards.iter_mut().map(|shard| shard.counters().retained_refused).sum()
}

#[test]
fn what_the_broker_says_of_itself_takes_no_room_of_clients() {
    for shard_count in 1..=3 {
        let limits = Limits { retained_messages_max: 50, ..Limits::default() };
        let mut world = World::new(shard_count, limits);
        let publisher = world.connect("p", |_| ());
        for number in 1..=20 {
            retain(&mut world, publisher, &format!("r/{number}"), b"x", QoS::AtLeastOnce, number);
        }
        world.settle();
        let answers = answers(&mut world, publisher);
        assert!(answers.len() == 20 && answers.values().all(|reason| reason == "Success"));
        assert_eq!(kept(&mut world, "s").len(), 20, "{shard_count} shards");
        assert_eq!(refused(&mut world), 0);
        let says: usize = world.shards.iter().map(|shard| shard.gauges().system_messages).sum();
        assert!(says > 50, "the broker says {says} things of itself");
    }
}

#[test]
fn a_retained_message_without_room_is_refused_and_goes_nowhere() {
    const ROOM: usize = 5;
    for (shard_count, qos) in [1, 2, 3]
        .into_iter()
        .flat_map(|shards| [(shards, QoS::AtLeastOnce), (shards, QoS::ExactlyOnce)])
    {
        let limits = Limits { retained_messages_max: ROOM, ..quiet() };
        let mut world = World::new(shard_count, limits);
        let live = world.connect("live", |_| ());
        world.subscribe(live, "r/#", QoS::AtMostOnce);
        // Publishers on all shards, whose messages cross.
        let publishers: Vec<usize> = (0..shard_count.into())
            .map(|shard| world.client_on(shard, &format!("p{shard}-")))
            .collect();
        world.settle();
        world.received(live);
        for number in 1..=60 {
            let publisher = publishers[usize::from(number) % publishers.len()];
            let topic = format!("r/{number:02}");
            retain(&mut world, publisher, &topic, b"1", qos, number);
        }
        world.settle();
        let mut said = BTreeMap::new();
        for &publisher in &publishers {
            said.extend(answers(&mut world, publisher));
        }
        assert_eq!(said.len(), 60, "everybody is answered");
        let of = |reason: &str| -> Vec<u16> {
            said.iter().filter(|(_, said)| *said == reason).map(|(id, _)| *id).collect()
        };
        let (taken, full) = (of("Success"), of("QuotaExceeded"));
        let topics = |payload: &str| -> Vec<String> {
            taken.iter().map(|number| format!("r/{number:02}={payload}")).collect()
        };
        assert_eq!(taken.len(), ROOM * usize::from(shard_count), "all room is used");
        assert_eq!((full.len(), refused(&mut world)), (60 - taken.len(), full.len() as u64));
        assert_eq!(kept(&mut world, "s1"), topics("1"));
        let mut delivered = world.messages(live);
        delivered.iter_mut().for_each(|line| *line = line.replace(" retained", ""));
        delivered.sort();
        assert_eq!(delivered, topics("1"), "what is refused goes nowhere");
        // What is kept may be replaced without room for more, at any publisher.
        for (place, number) in taken.iter().enumerate() {
            let publisher = publishers[place % publishers.len()];
            retain(&mut world, publisher, &format!("r/{number:02}"), b"2", qos, 100 + number);
        }
        world.settle();
        for &publisher in &publishers {
            assert!(answers(&mut world, publisher).values().all(|reason| reason == "Success"));
        }
        assert_eq!(kept(&mut world, "s2"), topics("2"));
        // What goes makes room, seen by who sends both in one write.
        let gone = format!("r/{:02}", taken[0]);
        retain(&mut world, publishers[0], &gone, b"", qos, 200);
        retain(&mut world, publishers[0], &gone, b"3", qos, 201);
        world.settle();
        let answers = answers(&mut world, publishers[0]);
        assert_eq!(answers.values().filter(|reason| *reason == "Success").count(), 2);
    }
}

#[test]
fn a_message_of_3_1_1_without_room_is_acknowledged_and_delivered_and_not_kept() {
    for shard_count in 1..=2 {
        for version in [ProtocolVersion::V311, ProtocolVersion::V31] {
            let limits = Limits { retained_messages_max: 1, ..quiet() };
            let mut world = World::new(shard_count, limits);
            let live = world.connect("live", |_| ());
            world.subscribe(live, "r/#", QoS::AtMostOnce);
            let publisher = world.connect("p", |connect| connect.version = version);
            world.settle();
            for number in 1..=20 {
                let topic = format!("r/{number}");
                retain(&mut world, publisher, &topic, b"x", QoS::AtLeastOnce, number);
            }
            world.settle();
            assert_eq!(answers(&mut world, publisher).len(), 20);
            assert_eq!(world.messages(live).len(), 20);
            assert_eq!(kept(&mut world, "s").len(), usize::from(shard_count));
            assert_eq!(refused(&mut world), 20 - u64::from(shard_count));
        }
    }
}

#[test]
fn the_bytes_of_retained_messages_are_bounded_like_their_number() {
    for shard_count in 1..=3 {
        let limits = Limits { retained_bytes_max: 20_000, ..quiet() };
        let mut world = World::new(shard_count, limits.clone());
        let publishers: Vec<usize> = (0..shard_count.into())
            .map(|shard| world.client_on(shard, &format!("p{shard}-")))
            .collect();
        let mut taken = 0;
        for round in 0..4u16 {
            for number in 1..=40 {
                let publisher = publishers[usize::from(number + round) % publishers.len()];
                let payload = vec![b'x'; usize::from(1 + (number * 37 + round * 501) % 3_000)];
                let topic = format!("r/{number}");
                retain(&mut world, publisher, &topic, &payload, QoS::AtLeastOnce, number);
            }
            world.settle();
            for &publisher in &publishers {
                let answers = answers(&mut world, publisher);
                taken += answers.values().filter(|reason| *reason == "Success").count();
            }
            for shard in &world.shards {
                let gauges = shard.gauges();
                assert!(gauges.retained_bytes <= limits.retained_bytes_max, "{gauges:?}");
            }
        }
        let lost = refused(&mut world) as usize;
        assert_eq!(taken + lost, 160, "each is taken or refused");
        assert!(taken > 20 && lost > 10, "{taken} were taken, {lost} refused");
        // One that can never be kept is refused, and what was kept stays.
        retain(&mut world, publishers[0], "r/1", &[b'y'; 30_000], QoS::AtLeastOnce, 1);
        world.settle();
        assert_eq!(answers(&mut world, publishers[0])[&1], "QuotaExceeded");
        assert!(kept(&mut world, "s").iter().all(|line| !line.contains('y')));
    }
}

#[test]
fn a_publisher_that_waits_for_room_and_goes_is_still_heard() {
    let limits = Limits { retained_messages_max: 5, ..quiet() };
    let mut world = World::new(2, limits);
    let live = world.connect("live", |_| ());
    world.subscribe(live, "r/#", QoS::AtMostOnce);
    let publisher = world.client_on(0, "p");
    world.settle();
    world.received(live);
    // Whatever their owner says, it is gone by then.
    for number in 1..=20 {
        retain(&mut world, publisher, &format!("r/{number}"), b"x", QoS::AtLeastOnce, number);
    }
    world.turn(0);
    world.lose(publisher);
    world.settle();
    assert_eq!(world.messages(live).len(), 20, "what it sent in time is delivered");
    assert!(kept(&mut world, "s").len() <= 10);
    // Nothing stays promised to it.
    let other = world.client_on(0, "o");
    for number in 21..=60 {
        retain(&mut world, other, &format!("r/{number}"), b"x", QoS::AtLeastOnce, number);
    }
    world.settle();
    assert_eq!(kept(&mut world, "t").len(), 10);
}

#[test]
fn a_larger_message_that_is_refused_leaves_the_one_that_its_topic_has() {
    for shard_count in 1..=2 {
        for (version, qos) in
            [(ProtocolVersion::V311, QoS::AtLeastOnce), (ProtocolVersion::V5, QoS::AtMostOnce)]
        {
            let limits = Limits { retained_bytes_max: 20_000, ..quiet() };
            let mut world = World::new(shard_count, limits);
            let publisher = world.connect("p", |connect| connect.version = version);
            retain(&mut world, publisher, "r/1", b"old", qos, 1);
            retain(&mut world, publisher, "r/1", &[b'n'; 30_000], qos, 2);
            world.settle();
            assert_eq!(kept(&mut world, "s"), ["r/1=old"], "{shard_count} shards, {version:?}");
            assert_eq!(refused(&mut world), 1);
            // One that fits in its place replaces it.
            retain(&mut world, publisher, "r/1", &[b'n'; 15_000], qos, 3);
            retain(&mut world, publisher, "r/1", &[b'm'; 15_000], qos, 4);
            world.settle();
            assert!(kept(&mut world, "t")[0].starts_with("r/1=mmm"));
        }
    }
}
