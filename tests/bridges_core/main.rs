//! The shards' side of the bridges: which messages they are handed, which acknowledgements wait, what is held back.

#[path = "../regressions_core/world.rs"]
#[allow(dead_code)] // other tests use the rest
mod world;

mod hops;

use ringmq::arena::Generation;
use ringmq::bridge::ForwardIndex;
use ringmq::codec::{Packet, PacketId, ProtocolVersion, Publish, QoS};
use ringmq::config::bridge::{BridgeSettings, QosRule, RuleSettings};
use ringmq::limits::Limits;
use ringmq::routing::bridge_mail::{
    BridgeId, FromBridges, InboundBatch, InboundMessage, Target, ToBridges,
};
use std::sync::Arc;
use world::World;

fn quiet() -> Limits {
    Limits { sys_interval_ms: 0, ..Limits::default() }
}

/// A world whose first bridge stores `a/#`, and whose second takes `a/b` and `c` as QoS 0 and stores `s/#`.
fn bridged(shard_count: u16, limits: Limits) -> World {
    let most_once = |filter| RuleSettings { qos: QosRule::Max(0), ..RuleSettings::new(filter) };
    let bridges = [
        BridgeSettings { forward: vec![RuleSettings::new("a/#")], ..BridgeSettings::new("first") },
        BridgeSettings {
            forward: vec![most_once("a/b"), most_once("c"), RuleSettings::new("s/#")],
            ..BridgeSettings::new("second")
        },
    ];
    let index = Arc::new(ForwardIndex::compile(&bridges).expect("good rules"));
    let mut world = World::new(shard_count, limits);
    world.shards.iter_mut().for_each(|shard| shard.set_bridges(index.clone()));
    world
}

/// Shard, topic and targets of a message.
type Handed = (usize, String, Vec<Target>);

/// What the bridges were handed since the last call, and the last generation of each shard.
fn handed(world: &mut World) -> (Vec<Handed>, Vec<Generation>) {
    let mut all = Vec::new();
    let mut last = vec![Generation::NONE; world.shards.len()];
    for (shard, mail) in world.take_to_bridges() {
        let ToBridges::Messages(batch) = mail else { panic!("{mail:?}") };
        for one in batch.messages() {
            assert!(one.generation > last[shard], "in the order of generations");
            last[shard] = one.generation;
            let topic = String::from_utf8(one.message.topic.to_vec()).expect("a topic");
            all.push((shard, topic, one.targets.collect()));
        }
    }
    (all, last)
}

fn written(world: &mut World, shard: usize, bridge: BridgeId, through: Generation) {
    world.send_from_bridges(shard, FromBridges::Written { bridge, through });
    world.settle();
}

fn target(bridge: BridgeId, rule: u16, is_stored: bool) -> Target {
    Target { bridge, rule, is_stored }
}

#[test]
fn each_bridge_gets_each_message_once_from_its_origin() {
    let mut world = bridged(3, quiet());
    let subscriber = world.client_on(2, "s");
    world.subscribe(subscriber, "#", QoS::ExactlyOnce);
    world.settle();
    let publisher = world.client_on(1, "p");
    for topic in ["a/b", "c", "x", "a"] {
        world.publish(publisher, topic, b"1", QoS::AtMostOnce, 0);
    }
    world.settle();
    let (all, _) = handed(&mut world);
    let expected = [
        (1, "a/b".to_string(), vec![target(0, 0, false), target(1, 0, false)]),
        (1, "c".to_string(), vec![target(1, 1, false)]),
        (1, "a".to_string(), vec![target(0, 0, false)]),
    ];
    assert_eq!(all, expected);
    assert_eq!(world.messages(subscriber).len(), 4, "subscribers get theirs all the same");
    assert!(world.shards.iter().all(|shard| shard.gauges().arena_held == 0));
}

#[test]
fn an_acknowledgement_waits_for_the_log_and_those_behind_it_for_their_turn() {
    let mut world = bridged(1, quiet());
    let client = world.connect("p", |_| ());
    world.received(client);
    world.publish(client, "x", b"", QoS::AtLeastOnce, 1);
    world.publish(client, "a/1", b"", QoS::AtLeastOnce, 2);
    world.publish(client, "x", b"", QoS::AtLeastOnce, 3);
    world.publish(client, "$SYS/x", b"", QoS::AtLeastOnce, 4);
    world.publish(client, "a/2", b"", QoS::ExactlyOnce, 5);
    world.settle();
    assert_eq!(world.received(client), ["PUBACK Success"], "only what no log must have");
    let (all, last) = handed(&mut world);
    assert_eq!(all.len(), 2);
    // Its own log counts, no other's; and the second message is not the first.
    written(&mut world, 0, 1, last[0]);
    assert!(world.received(client).is_empty());
    written(&mut world, 0, 0, Generation::from_number(2));
    assert_eq!(
        world.received(client),
        ["PUBACK Success", "PUBACK Success", "PUBACK NotAuthorized"]
    );
    written(&mut world, 0, 0, last[0]);
    assert_eq!(world.received(client), ["PUBREC 5 Success"]);
    world.publish(client, "x", b"", QoS::AtLeastOnce, 6);
    world.settle();
    assert_eq!(world.received(client), ["PUBACK Success"], "nothing waits any more");
}

#[test]
fn a_client_that_comes_back_hears_of_its_qos_2_messages_and_sends_the_others_again() {
    let mut world = bridged(1, quiet());
    let lasting = |c: &mut ringmq::codec::Connect<'_>| {
        c.clean_start = false;
        c.session_expiry_s = Some(100);
    };
    let client = world.connect("p", lasting);
    world.publish(client, "a/1", b"", QoS::ExactlyOnce, 1);
    world.publish(client, "a/2", b"", QoS::AtLeastOnce, 2);
    world.settle();
    let (_, last) = handed(&mut world);
    world.lose(client);
    let client = world.connect("p", lasting);
    world.received(client);
    let again = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        topic: "a/1",
        packet_id: PacketId::new(1),
        ..Publish::default()
    };
    world.send(client, &Packet::Publish(again));
    world.settle();
    assert!(world.received(client).is_empty(), "the log does not have it yet");
    assert!(handed(&mut world).0.is_empty(), "and gets it once");
    written(&mut world, 0, 0, last[0]);
    assert_eq!(world.received(client), ["PUBREC 1 Success"]);
    world.send(client, &Packet::Publish(again));
    world.settle();
    assert_eq!(world.received(client), ["PUBREC 1 Success"]);
}

#[test]
fn nobody_has_more_unacknowledged_than_the_receive_maximum() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut world = bridged(1, Limits { receive_max: 3, ..quiet() });
        let client = world.connect("p", |c| c.version = version);
        let mut bytes = Vec::new();
        for id in 1..=5 {
            let publish = Publish {
                qos: QoS::AtLeastOnce,
                topic: "a",
                packet_id: PacketId::new(id),
                ..Publish::default()
            };
            Packet::Publish(publish).encode(version, &mut bytes);
        }
        world.send_bytes(client, &bytes);
        world.settle();
        let (all, last) = handed(&mut world);
        assert_eq!(all.len(), 3);
        let is_told = version == ProtocolVersion::V5;
        assert_eq!(world.is_open(client), !is_told, "{version:?}");
        if is_told {
            continue;
        }
        written(&mut world, 0, 0, last[0]);
        let (all, last) = handed(&mut world);
        assert_eq!(all.len(), 2, "read on as soon as some are answered");
        written(&mut world, 0, 0, last[0]);
        let bytes_of_acks = 5 * 4 + 4;
        assert_eq!(world.shards[0].counters().bytes_sent, bytes_of_acks);
    }
}

#[test]
fn publishers_of_a_bridge_without_room_are_held_back_and_no_others() {
    let mut world = bridged(1, quiet());
    let (full, other) = (world.connect("full", |_| ()), world.connect("other", |_| ()));
    world.send_from_bridges(0, FromBridges::Block { bridge: 1, is_on: true });
    world.settle();
    for number in 1..=4 {
        world.publish(full, "s/1", b"", QoS::AtLeastOnce, number);
        world.publish(other, "a/1", b"", QoS::AtLeastOnce, number);
    }
    world.settle();
    let topics = |world: &mut World| -> Vec<String> {
        handed(world).0.into_iter().map(|(_, topic, _)| topic).collect()
    };
    let count = |topics: &[String], topic: &str| topics.iter().filter(|t| *t == topic).count();
    let first = topics(&mut world);
    assert_eq!((count(&first, "s/1"), count(&first, "a/1")), (1, 4));
    // Who leaves is not looked for later.
    let gone = world.connect("gone", |_| ());
    world.publish(gone, "s/2", b"", QoS::AtLeastOnce, 1);
    world.publish(gone, "s/2", b"", QoS::AtLeastOnce, 2);
    world.settle();
    world.lose(gone);
    // However often clients come and go while a bridge has no room.
    for _ in 0..500 {
        let client = world.connect("again", |_| ());
        for id in 1..=2 {
            world.publish(client, "s/2", b"", QoS::AtLeastOnce, id);
        }
        world.settle();
    }
    let listed = world.shards[0].gauges().parked_on_bridges;
    assert!(listed < 150, "{listed} are listed, two are there");
    world.send_from_bridges(0, FromBridges::Block { bridge: 1, is_on: false });
    world.settle();
    let rest = topics(&mut world);
    assert_eq!(count(&rest, "s/1"), 3, "{rest:?}");
    assert_eq!(world.shards[0].gauges().parked_on_bridges, 0);
}

#[test]
fn what_a_bridge_brings_in_goes_to_others_and_is_acknowledged_in_order() {
    let mut world = bridged(2, quiet());
    let subscriber = world.client_on(1, "s");
    world.subscribe(subscriber, "a/#", QoS::ExactlyOnce);
    world.settle();
    world.received(subscriber);
    let inbound = |number, topic| InboundMessage {
        number,
        topic,
        properties: &[],
        payload: b"in",
        qos: 1,
        retain: true,
        expires_at: None,
    };
    // The second bridge brings what the first one stores, and something that nobody does.
    let mut messages = InboundBatch::default();
    messages.push(&inbound(7, "a/b"));
    messages.push(&inbound(8, "x"));
    messages.push(&inbound(0, "x"));
    world.send_from_bridges(0, FromBridges::Publish { bridge: 1, messages });
    world.settle();
    assert_eq!(world.messages(subscriber), ["a/b=in retained"]);
    let (all, last) = handed(&mut world);
    assert_eq!(all, [(0, "a/b".to_string(), vec![target(0, 0, true)])], "not back where it came");
    written(&mut world, 0, 0, last[0]);
    match &world.take_to_bridges()[..] {
        [(0, ToBridges::Taken { bridge: 1, numbers, .. })] => assert_eq!(numbers, &[7, 8]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn retained_messages_are_told_in_chunks_by_the_shards_that_own_them() {
    let mut world = bridged(2, quiet());
    let publisher = world.client_on(0, "p");
    for number in 0..600 {
        world.retain(publisher, &format!("r/{number}"), b"kept");
    }
    world.retain(publisher, "other", b"kept");
    world.settle();
    world.take_to_bridges();
    let mut topics = Vec::new();
    let mut chunk_count = 0;
    for shard in 0..2 {
        let mut after = None;
        loop {
            let query = FromBridges::RetainedQuery { request: 5, filter: "r/#".into(), after };
            world.send_from_bridges(shard, query);
            world.settle();
            let (from, mail) = world.take_to_bridges().remove(0);
            let ToBridges::Retained { request: 5, messages, more } = mail else {
                panic!("{mail:?}")
            };
            assert_eq!(from, shard);
            for one in messages.messages() {
                assert!(one.message.meta.retain && one.generation == Generation::NONE);
                topics.push(String::from_utf8(one.message.topic.to_vec()).expect("a topic"));
            }
            chunk_count += 1;
            after = more;
            if after.is_none() {
                break;
            }
        }
    }
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 600);
    assert!(chunk_count > 2, "{chunk_count}");
}
