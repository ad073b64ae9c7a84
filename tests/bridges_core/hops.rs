//! Hop marks of clients that are bridges of other brokers: who reads them, who sees them, and where they end.

use crate::world::{V5, World};
use crate::{bridged, quiet, written};
use ringmq::bridge::hops::{BrokerId, MARK_PROPERTY, Trail};
use ringmq::codec::{
    BRIDGE_PROPERTY, ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS,
    UserProperties, put_user_property,
};
use ringmq::limits::Limits;
use ringmq::routing::bridge_mail::{FromBridges, InboundBatch, InboundMessage, ToBridges};

const OWN: u64 = 0x0B;
const LOOPBACK: &str = "127.0.0.1:4711";
const ELSEWHERE: &str = "192.0.2.1:4711";

fn named(mut world: World) -> World {
    let id = BrokerId::from_number(OWN);
    world.shards.iter_mut().for_each(|shard| shard.set_broker_id(id));
    world
}

/// A client that says that it is a bridge, from an address.
fn bridge_on(world: &mut World, shard: usize, name: &str, peer: &str) -> usize {
    world.set_peer(peer.parse().expect("an address"));
    let mut says = Vec::new();
    put_user_property(&mut says, BRIDGE_PROPERTY, name);
    let leaked: &'static [u8] = says.leak();
    world.client_with(shard, name, |connect| {
        connect.user_properties = UserProperties::from_raw(leaked);
    })
}

fn property(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_user_property(&mut bytes, name, value);
    bytes
}

fn path(value: &str) -> Vec<u8> {
    property(MARK_PROPERTY, value)
}

/// With a packet identifier that a QoS 2 message of the client's has not used before.
fn publish(world: &mut World, client: usize, topic: &str, properties: &[u8], qos: QoS) {
    let bytes = [topic.as_bytes(), properties].concat();
    let id = 1 + bytes
        .iter()
        .fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(*byte)))
        % 60_000;
    let publish = Publish {
        qos,
        retain: true,
        topic,
        packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
        properties: ForwardedProperties::from_raw(properties),
        payload: b"on",
        ..Publish::default()
    };
    world.send(client, &Packet::Publish(publish));
    world.settle();
}

/// Topics and properties of what a client was sent.
fn got(world: &mut World, client: usize) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Publish(publish) = packet {
            let properties = publish.properties.pieces().collect::<Vec<_>>().concat();
            assert_eq!(publish.payload, b"on");
            all.push((publish.topic.to_owned(), properties));
        }
    });
    all
}

#[test]
fn bridges_are_told_where_a_message_has_been_and_clients_are_not() {
    for shard_count in [1, 3] {
        let mut world = named(bridged(shard_count, quiet()));
        let last = usize::from(shard_count) - 1;
        let north = bridge_on(&mut world, last, "north", LOOPBACK);
        let south = bridge_on(&mut world, 0, "south", LOOPBACK);
        let foreign = bridge_on(&mut world, 0, "foreign", ELSEWHERE);
        let plain = world.client_on(0, "plain");
        for client in [south, foreign, plain] {
            world.subscribe(client, "#", QoS::ExactlyOnce);
        }
        world.settle();
        let others = [property("k", "v"), path("a client's")].concat();
        let mut expected: Vec<(usize, Vec<u8>, Vec<u8>)> = Vec::new();
        for (topic, mark, seen) in [
            ("a/1", "000000000000000a", "000000000000000a,000000000000000b"),
            ("a/2", "?000000000000000a", "?000000000000000a,000000000000000b"),
            // One that does not mark its messages.
            ("a/3", "", "?000000000000000b"),
        ] {
            let mark = if mark.is_empty() { Vec::new() } else { path(mark) };
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                publish(&mut world, north, topic, &[&others[..], &mark].concat(), qos);
                let to_bridges = [&others[..], &path(seen)].concat();
                assert_eq!(got(&mut world, south), [(topic.to_owned(), to_bridges)]);
                assert_eq!(got(&mut world, plain), [(topic.to_owned(), others.clone())]);
                assert_eq!(got(&mut world, foreign), [(topic.to_owned(), others.clone())]);
            }
            expected.push((0, others.clone(), path(seen)));
        }
        // What is retained knows its way, too, wherever it is kept.
        let late = bridge_on(&mut world, last, "late", LOOPBACK);
        let late_plain = world.client_on(last, "late-plain");
        for client in [late, late_plain] {
            world.subscribe(client, "a/#", QoS::AtMostOnce);
        }
        world.settle();
        let (mut marked, mut bare) = (got(&mut world, late), got(&mut world, late_plain));
        marked.sort();
        bare.sort();
        let topics = ["a/1", "a/2", "a/3"];
        assert_eq!(bare, topics.map(|topic| (topic.to_owned(), others.clone())));
        for ((topic, properties), (name, (_, own, mark))) in
            marked.iter().zip(topics.iter().zip(&expected))
        {
            assert_eq!((topic.as_str(), properties), (*name, &[&own[..], mark].concat()));
        }
        assert_eq!(marked.len(), 3);
        // A message of this broker's own has been nowhere but here.
        publish(&mut world, plain, "own", &others, QoS::AtMostOnce);
        let to_bridges = [&others[..], &path("000000000000000b")].concat();
        assert_eq!(got(&mut world, south), [("own".to_owned(), to_bridges)]);
        assert_eq!(got(&mut world, plain), [("own".to_owned(), others.clone())]);
        assert!(world.shards.iter().all(|shard| shard.gauges().arena_held == 0));
        assert_eq!(world.shards[0].counters().stale_reads, 0);
    }
}

#[test]
fn a_message_that_was_here_ends_here_and_a_clients_word_proves_nothing() {
    let mut world = named(bridged(2, quiet()));
    let north = bridge_on(&mut world, 1, "north", LOOPBACK);
    let foreign = bridge_on(&mut world, 1, "foreign", ELSEWHERE);
    let plain = world.client_on(1, "plain");
    let subscriber = world.client_on(0, "subscriber");
    world.subscribe(subscriber, "#", QoS::ExactlyOnce);
    world.settle();
    let own = path("000000000000000a,000000000000000b");
    let long = path(&vec!["000000000000000a"; 24].join(","));
    world.received(north);
    for (mark, count) in [(&own, "loops"), (&long, "hops")] {
        for (qos, answer) in [
            (QoS::AtMostOnce, None),
            (QoS::AtLeastOnce, Some("PUBACK Success")),
            (QoS::ExactlyOnce, Some("PUBREC")),
        ] {
            publish(&mut world, north, "t", mark, qos);
            assert!(got(&mut world, subscriber).is_empty(), "{count}");
            let answers = world.received(north);
            let is_right = |line: &String| answer.is_some_and(|answer| line.starts_with(answer));
            assert!(answers.len() == answer.iter().count() && answers.iter().all(is_right));
        }
    }
    let counters = world.shards[1].counters();
    assert_eq!((counters.bridge_loops_ended, counters.bridge_paths_too_long), (3, 3));
    assert_eq!(counters.bridges_unbelieved, 1);
    for client in [plain, foreign] {
        publish(&mut world, client, "t", &own, QoS::AtLeastOnce);
        assert_eq!(got(&mut world, subscriber), [("t".to_owned(), own.clone())], "as it was");
    }
}

#[test]
fn messages_that_differ_in_payload_alone_each_have_their_mark_taken_off() {
    let mut world = named(bridged(1, quiet()));
    let north = bridge_on(&mut world, 0, "north", LOOPBACK);
    let old = world.connect("old", |connect| {
        connect.version = ProtocolVersion::V311;
        connect.bridge_bit = true;
    });
    let south = bridge_on(&mut world, 0, "south", LOOPBACK);
    world.subscribe(south, "#", QoS::AtMostOnce);
    world.settle();
    got(&mut world, south);
    let mark = path("000000000000000a");
    for (client, version, properties, seen) in [
        (north, V5, &mark[..], "000000000000000a,000000000000000b"),
        (old, ProtocolVersion::V311, &[][..], "?000000000000000b"),
    ] {
        let mut bytes = Vec::new();
        for _ in 0..5 {
            let properties = ForwardedProperties::from_raw(properties);
            let publish = Publish { topic: "t", properties, payload: b"on", ..Publish::default() };
            Packet::Publish(publish).encode(version, &mut bytes);
        }
        world.send_bytes(client, &bytes);
        world.settle();
        let expected = ("t".to_owned(), path(seen));
        assert_eq!(got(&mut world, south), vec![expected; 5]);
    }
}

#[test]
fn a_bridge_with_a_small_packet_gets_its_message_without_a_mark() {
    let mut world = named(bridged(1, quiet()));
    world.set_peer(LOOPBACK.parse().expect("an address"));
    let says: &'static [u8] = property(BRIDGE_PROPERTY, "small").leak();
    let small = world.connect("small", |connect| {
        connect.user_properties = UserProperties::from_raw(says);
        connect.packet_size_max = Some(38);
    });
    world.subscribe(small, "#", QoS::AtMostOnce);
    let plain = world.connect("plain", |_| ());
    world.settle();
    for properties in [&[][..], &property("k", "v")[..]] {
        publish(&mut world, plain, "t", properties, QoS::AtMostOnce);
        let expected = vec![("t".to_owned(), properties.to_vec())];
        assert_eq!(got(&mut world, small), expected);
    }
}

#[test]
fn what_our_bridge_brings_in_keeps_its_trail_on_its_way_out() {
    let mut world = named(bridged(3, quiet()));
    let south = bridge_on(&mut world, 2, "south", LOOPBACK);
    world.subscribe(south, "#", QoS::AtMostOnce);
    world.settle();
    got(&mut world, south);
    let mut raw = 0xA_u64.to_le_bytes().to_vec();
    raw.extend_from_slice(&[0, 10]);
    let trail = Trail::of(&raw);
    let own = property("k", "v");
    let mut messages = InboundBatch::default();
    let inbound = InboundMessage {
        number: 1,
        topic: "a/b",
        properties: &own,
        payload: b"on",
        qos: 1,
        retain: true,
        expires_at: None,
    };
    messages.push_with(&inbound, &trail);
    world.send_from_bridges(1, FromBridges::Publish { bridge: 1, messages });
    world.settle();
    let seen = [&own[..], &path("000000000000000a,000000000000000b")].concat();
    assert_eq!(got(&mut world, south), [("a/b".to_owned(), seen)]);
    let mut last = None;
    for (shard, mail) in world.take_to_bridges() {
        let ToBridges::Messages(batch) = mail else { continue };
        for one in batch.messages().filter(|one| one.targets.clone().next().is_some()) {
            assert_eq!((one.message.properties, one.message.trail()), (&own[..], &raw[..]));
            assert!(one.from_bridge);
            last = Some((shard, one.generation));
        }
    }
    let (shard, generation) = last.expect("the first bridge forwards it");
    written(&mut world, shard, 0, generation);
}

#[test]
fn a_take_over_and_a_goodbye_find_a_bridge_that_waits_for_its_address() {
    let mut world = named(bridged(2, Limits { sys_interval_ms: 0, ..Limits::default() }));
    let subscriber = world.client_on(0, "s");
    world.subscribe(subscriber, "#", QoS::AtLeastOnce);
    world.settle();
    let says: &'static [u8] = property(BRIDGE_PROPERTY, "north").leak();
    world.set_peer(LOOPBACK.parse().expect("an address"));
    for round in 0..3 {
        // CONNECT, a message and the end in one go, while the client is connected already.
        let client = world.dial(V5);
        let mut bytes = Vec::new();
        let mut connect = ringmq::codec::Connect::new(V5, "north");
        connect.user_properties = UserProperties::from_raw(says);
        connect.encode(&mut bytes);
        let mark = path("000000000000000a");
        let publish = Publish {
            topic: "t",
            properties: ForwardedProperties::from_raw(&mark),
            payload: b"on",
            ..Publish::default()
        };
        Packet::Publish(publish).encode(V5, &mut bytes);
        world.send_bytes(client, &bytes);
        if round == 1 {
            world.lose(client);
        }
        world.settle();
        assert_eq!(got(&mut world, subscriber), [("t".to_owned(), Vec::new())], "round {round}");
    }
}
