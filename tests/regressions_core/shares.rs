//! Who loses at a limit of all: the address that holds most, and nobody who holds little.

use crate::budget::{numbered, small_sizes, small_store, take_all};
use crate::quiet;
use crate::world::World;
use ringmq::codec::{Packet, PacketId, ProtocolVersion, Publish, QoS, Will};
use ringmq::limits::Limits;

/// One IPv6 network, which is one address, however many a stranger takes of it.
fn stranger(number: usize) -> String {
    format!("[2001:db8:0:9::{number:x}]:1000")
}

/// A client with a lasting session connects and leaves; what it was told, and whether it had a session.
fn visit(world: &mut World, peer: &str, client_id: &str) -> (String, bool) {
    let client = world.connect_from(peer, client_id, |c| {
        c.session_expiry_s = Some(600);
        c.clean_start = false;
    });
    let mut told = None;
    world.packets(client, |packet| {
        if let Packet::Connack(connack) = packet {
            told = Some((format!("{:?}", connack.reason), connack.session_present));
        }
    });
    if world.is_open(client) {
        world.lose(client);
    }
    told.expect("a CONNACK")
}

fn success(had_session: bool) -> (String, bool) {
    ("Success".to_owned(), had_session)
}

fn full() -> (String, bool) {
    ("QuotaExceeded".to_owned(), false)
}

#[test]
fn the_address_that_left_most_sessions_behind_makes_room_for_others_and_not_for_itself() {
    let mut world = World::new(1, Limits { sessions_max: 20, ..quiet() });
    for name in ["a", "b"] {
        assert_eq!(visit(&mut world, "10.0.0.1:1", name), success(false));
    }
    for number in 0..30 {
        world.now = world.now.plus_ms(1_000);
        let told = visit(&mut world, &stranger(number), &format!("stranger-{number}"));
        assert_eq!(told, if number < 18 { success(false) } else { full() });
    }
    // Others take its places, those of the oldest first, until it has no more than a share.
    for number in 0..16 {
        let peer = format!("10.0.{number}.2:1");
        assert_eq!(visit(&mut world, &peer, &format!("honest-{number}")), success(false));
    }
    assert_eq!(visit(&mut world, "10.9.0.2:1", "late"), full());
    let counters = world.shards[0].counters();
    assert_eq!((counters.sessions_displaced, counters.sessions_refused), (16, 13));
    let mut told = Vec::new();
    while let Some(event) = world.shards[0].poll_event() {
        told.push(event.to_string());
    }
    assert!(told.iter().any(|line| line.contains("ended the session of client 'stranger-0'")));
    for name in ["a", "b", "honest-0", "honest-15", "stranger-16", "stranger-17"] {
        assert_eq!(visit(&mut world, "10.0.0.1:1", name), success(true), "{name}");
    }
}

/// Absent sessions of one address fill the part of the metadata that sessions may fill.
#[test]
fn where_metadata_is_full_the_address_that_left_most_sessions_loses_some() {
    for by_address in [true, false] {
        let limits =
            Limits { shard_metadata_bytes_max: 1 << 20, shares_by_address: by_address, ..quiet() };
        let mut world = World::new(1, limits);
        assert_eq!(visit(&mut world, "10.0.0.1:1", "a"), success(false));
        let long = "x".repeat(3_000);
        let name = |number: u32| format!("{number}-{long}");
        let left =
            (0..400).find(|number| visit(&mut world, "10.0.0.9:1", &name(*number)) == full());
        let left = left.expect("the budget is full before sessions_max");
        assert!(left > 50, "{left}");
        // An address takes nothing from itself.
        assert_eq!(visit(&mut world, "10.0.0.9:1", &name(400)), full());
        assert_eq!(world.shards[0].counters().sessions_displaced, 0);
        let told = visit(&mut world, "10.0.0.1:1", &format!("b-{long}"));
        assert_eq!(told, if by_address { success(false) } else { full() });
        let displaced = world.shards[0].counters().sessions_displaced;
        assert_eq!((1..=4).contains(&displaced), by_address, "{displaced}");
        assert_eq!(visit(&mut world, "10.0.0.1:1", "a"), success(true));
        assert_eq!(visit(&mut world, "10.0.0.9:1", &name(0)) == success(true), !by_address);
        // For one that needs more than they would leave behind none of them ends.
        let before = world.shards[0].counters().sessions_displaced;
        assert_eq!(visit(&mut world, "10.0.0.1:1", &"y".repeat(60_000)), full());
        let after = world.shards[0].counters().sessions_displaced;
        assert_eq!(after, before);
        let gauges = world.shards[0].gauges();
        assert!(gauges.metadata_bytes <= 1 << 20, "{}", gauges.metadata_bytes);
    }
}

#[test]
fn where_addresses_say_nothing_nobody_loses_a_session_to_others() {
    for (by_address, peer) in [(false, "10.0.0.9:1"), (true, "10.0.0.1:1")] {
        let limits = Limits { sessions_max: 20, shares_by_address: by_address, ..quiet() };
        let mut world = World::new(1, limits);
        for number in 0..20 {
            let told = visit(&mut world, "10.0.0.1:1", &format!("client-{number}"));
            assert_eq!(told, success(false));
        }
        assert_eq!(visit(&mut world, peer, "late"), full());
        for number in 0..20 {
            let told = visit(&mut world, peer, &format!("client-{number}"));
            assert_eq!(told, success(true));
        }
        assert_eq!(world.shards[0].counters().sessions_displaced, 0);
    }
}

#[test]
fn a_session_that_was_refused_for_another_reason_takes_no_place() {
    let limits = Limits { sessions_max: 10, shard_wills_bytes_max: 4 << 10, ..quiet() };
    let mut world = World::new(1, limits);
    for number in 0..10 {
        visit(&mut world, &stranger(0), &format!("stranger-{number}"));
    }
    let client = world.connect_from("10.0.0.1:1", "honest", |c| {
        c.will = Some(Will { topic: "w", payload: &[b'w'; 8_000], ..Will::default() });
    });
    assert_eq!(world.received(client), ["CONNACK QuotaExceeded"]);
    assert_eq!(world.shards[0].counters().sessions_displaced, 0);
    // One more is not there, as its client is connected.
    let client = world.connect_from("10.0.0.1:1", "honest", |_| ());
    assert_eq!(world.received(client), ["CONNACK Success"]);
    assert_eq!(world.shards[0].gauges().sessions, 10);
}

#[test]
fn of_a_full_store_the_address_that_holds_most_loses_first() {
    for by_address in [true, false] {
        let mut world = World::sized(
            1,
            small_sizes(),
            Limits { shares_by_address: by_address, ..small_store() },
        );
        let publisher = world.connect_from("10.0.0.2:1", "p", |_| ());
        let mut names = vec!["honest".to_owned()];
        names.extend((0..18).map(|number| format!("stranger-{number}")));
        for (number, name) in names.iter().enumerate() {
            let peer = if number == 0 { "10.0.0.1:1".to_owned() } else { stranger(number) };
            let away = world.connect_from(&peer, name, |c| c.session_expiry_s = Some(600));
            world.subscribe(away, name, QoS::AtLeastOnce);
            world.lose(away);
        }
        let mut id = 0;
        for (name, count) in names.iter().zip([11].into_iter().chain([4; 18])) {
            for number in 0..count {
                id += 1;
                world.publish(publisher, name, &numbered(number), QoS::AtLeastOnce, id);
                world.settle();
            }
        }
        // 110 KB and 18 times 40 KB: that is more than three quarters of 1 MiB.
        let lost = world.shards[0].counters().dropped_stored_full;
        assert!(lost > 0);
        let back = world.connect_from("10.0.0.7:1", "honest", |c| {
            c.session_expiry_s = Some(600);
            c.clean_start = false;
        });
        let kept = take_all(&mut world, back).len();
        match by_address {
            true => assert_eq!(kept, 11, "whose address holds little loses nothing"),
            false => assert!(kept < 11, "of clients it held most: {kept}"),
        }
    }
}

#[test]
fn an_address_leaves_room_for_the_wills_of_others() {
    let mut world = World::new(1, Limits { shard_wills_bytes_max: 100_000, ..quiet() });
    let connect = |world: &mut World, peer: &str, name: &str| {
        let client = world.connect_from(peer, name, |c| {
            c.will = Some(Will { topic: "w", payload: &[b'w'; 800], ..Will::default() });
        });
        world.is_open(client).then_some(client)
    };
    for _ in 0..2 {
        let strangers: Vec<usize> = (0..150)
            .filter_map(|number| connect(&mut world, &stranger(number), &format!("s{number}")))
            .collect();
        let held = world.shards[0].gauges().will_bytes;
        assert!((80_000..90_000).contains(&held), "{} wills, {held} bytes", strangers.len());
        let honest: Vec<usize> = (0..5)
            .filter_map(|number| connect(&mut world, "10.0.0.1:1", &format!("h{number}")))
            .collect();
        assert_eq!(honest.len(), 5);
        // What is gone counts no more.
        for client in strangers.into_iter().chain(honest) {
            world.lose(client);
        }
        assert_eq!(world.shards[0].gauges().will_bytes, 0);
    }
    assert!(world.shards[0].counters().wills_refused > 50);
}

/// Sets retained messages of 100 bytes below `prefix`, one a client, as client ids are free; then what is retained there.
fn set(
    world: &mut World,
    (peer, prefix, qos): (&str, &str, QoS),
    version: ProtocolVersion,
    count: u16,
) -> usize {
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let client = world.connect_from(peer, &name, |c| c.version = version);
        let topic = format!("{prefix}/{number}");
        let packet_id = PacketId::new(1).filter(|_| qos != QoS::AtMostOnce);
        let payload = &[b'r'; 100];
        let publish =
            Publish { topic: &topic, payload, qos, packet_id, retain: true, ..Publish::default() };
        world.send(client, &Packet::Publish(publish));
        world.settle();
        world.received(client);
        world.lose(client);
    }
    kept(world, prefix)
}

fn kept(world: &mut World, prefix: &str) -> usize {
    let client = world.connect(&format!("{prefix}-reader"), |_| ());
    world.subscribe(client, &format!("{prefix}/#"), QoS::AtMostOnce);
    world.settle();
    let count = world.messages(client).len();
    world.lose(client);
    count
}

#[test]
fn an_address_leaves_room_for_what_others_retain() {
    let ways = [
        (ProtocolVersion::V311, QoS::AtMostOnce),
        (ProtocolVersion::V311, QoS::AtLeastOnce),
        (ProtocolVersion::V5, QoS::ExactlyOnce),
    ];
    for (shard_count, (version, qos)) in [1, 2].into_iter().flat_map(|n| ways.map(|way| (n, way))) {
        for bounds in [(90, 1 << 20), (1_000_000, 26_000)] {
            let (retained_messages_max, retained_bytes_max) = bounds;
            let limits = Limits { retained_messages_max, retained_bytes_max, ..quiet() };
            let mut world = World::new(shard_count, limits);
            let strange = set(&mut world, ("10.0.0.9:1", "strange", qos), version, 300);
            let others = set(&mut world, ("10.0.0.1:1", "mine", qos), version, 5);
            let told = format!("{shard_count} shards, {version:?}, {qos:?}, {bounds:?}: {strange}");
            assert_eq!(others, 5, "{told}");
            assert!(strange > 70 * usize::from(shard_count), "{told}");
            // What needs no more room may always be set, and counts to who did.
            let again = set(&mut world, ("10.0.0.1:1", "strange", qos), version, 20);
            assert_eq!(again, strange, "{told}");
            let more = set(&mut world, ("10.0.0.1:1", "more", qos), version, 2);
            assert_eq!(more, 2, "{told}");
        }
    }
}

#[test]
fn a_client_leaves_room_for_what_others_retain_where_addresses_are_not_told_apart() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let limits = Limits { retained_messages_max: 90, shares_by_address: false, ..quiet() };
        let mut world = World::new(1, limits);
        let greedy = world.connect("greedy", |c| c.version = version);
        for number in 0..120u16 {
            let topic = format!("g/{number}");
            let packet_id = PacketId::new(number + 1);
            let qos = QoS::AtLeastOnce;
            let publish =
                Publish { topic: &topic, payload: b"g", qos, packet_id, ..Publish::default() };
            world.send(greedy, &Packet::Publish(Publish { retain: true, ..publish }));
        }
        world.settle();
        assert_eq!(kept(&mut world, "g"), 80, "of 90, eight times what is free");
        let way = ("10.0.0.1:1", "mine", QoS::AtLeastOnce);
        assert_eq!(set(&mut world, way, version, 9), 9);
    }
}

#[test]
fn a_retained_will_counts_to_its_client_though_its_session_ends_with_it() {
    for shard_count in [1, 2] {
        let limits = Limits { retained_messages_max: 90, ..quiet() };
        let mut world = World::new(shard_count, limits);
        for number in 0..300 {
            let topic: &'static str = Box::leak(format!("w/{number}").into_boxed_str());
            let client = world.connect_from("10.0.0.9:1", &format!("mortal-{number}"), |c| {
                c.will = Some(Will { topic, payload: b"w", retain: true, ..Will::default() });
            });
            world.lose(client);
        }
        let wills = kept(&mut world, "w");
        assert!((60 * usize::from(shard_count)..90 * usize::from(shard_count)).contains(&wills));
        let way = ("10.0.0.1:1", "mine", QoS::AtLeastOnce);
        assert_eq!(set(&mut world, way, ProtocolVersion::V5, 5), 5, "{wills} wills");
    }
}
