//! Connections that wait to take their client over while what the old one has sent takes many turns.

use super::*;
use ringmq::codec::Connect;
use ringmq::routing::bridge_mail::{FromBridges, InboundBatch, InboundMessage};
use ringmq::shard::ListenerId;

/// A turn gives one connection little.
fn slow() -> Limits {
    Limits { turn_steps_max: 1_000, ..quiet() }
}

fn dial_as(world: &mut World, client_id: &str, change: impl FnOnce(&mut Connect<'_>)) -> usize {
    let client = world.dial(ProtocolVersion::V5);
    let mut connect = Connect::new(ProtocolVersion::V5, client_id);
    change(&mut connect);
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    world.send_bytes(client, &bytes);
    client
}

fn publishes(topic: &str, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        let payload = number.to_string();
        let publish = Publish { topic, payload: payload.as_bytes(), ..Publish::default() };
        publish.encode(ProtocolVersion::V5, &mut bytes);
    }
    bytes
}

/// Somebody who gets what is published to `t`, and a client `c` that has sent 3,000 messages to it, a few of which were used.
fn flooded() -> (World, usize, usize) {
    flooded_with(slow())
}

fn flooded_with(limits: Limits) -> (World, usize, usize) {
    let mut world = World::new(1, limits);
    let watcher = world.connect("watcher", |_| ());
    world.subscribe(watcher, "t", QoS::AtMostOnce);
    let old = world.connect("c", |_| ());
    world.received(watcher);
    world.received(old);
    world.send_bytes(old, &publishes("t", 3_000));
    world.turn(0);
    (world, watcher, old)
}

fn expected() -> Vec<String> {
    (0..3_000).map(|number| format!("t={number}")).collect()
}

#[test]
fn a_connect_never_wins_over_one_that_came_after_it() {
    let (nobody, old_ends, first_ends) = (0, 1, 2);
    for who_ends in [nobody, old_ends, first_ends] {
        let (mut world, watcher, old) = flooded();
        let first = dial_as(&mut world, "c", |_| ());
        world.send_bytes(first, &publishes("t", 1));
        world.turn(0);
        match who_ends {
            1 => world.lose_later(old),
            2 => world.lose_later(first),
            _ => {}
        }
        world.turn(0);
        assert!(world.messages(watcher).len() < 2_500, "the old connection is still worked on");
        let second = dial_as(&mut world, "c", |_| ());
        let third = dial_as(&mut world, "c", |_| ());
        world.send_bytes(third, &publishes("t", 2));
        world.turn(0);
        assert_eq!(world.received(second), [""; 0], "it waits for what was sent before");
        world.settle();
        let taken_over = ["CONNACK Success", "DISCONNECT SessionTakenOver"];
        if who_ends != first_ends {
            assert_eq!(world.received(first), taken_over);
        }
        assert_eq!(world.received(second), taken_over);
        assert_eq!(world.received(third), ["CONNACK Success"]);
        assert!(world.is_open(third) && !world.is_open(second));
        if who_ends == nobody {
            assert_eq!(world.received(old), ["DISCONNECT SessionTakenOver"]);
        }
    }
}

#[test]
fn what_waiting_connects_bring_is_worked_on_in_the_order_in_which_they_came() {
    let (mut world, watcher, _) = flooded();
    let mut all = world.messages(watcher);
    for number in 0..5 {
        let client = dial_as(&mut world, "c", |_| ());
        world.publish(client, "t", format!("of {number}").as_bytes(), QoS::AtMostOnce, 0);
        world.turn(0);
        all.extend(world.messages(watcher));
    }
    world.settle();
    all.extend(world.messages(watcher));
    let behind = (0..5).map(|number| format!("t=of {number}"));
    assert_eq!(all, expected().into_iter().chain(behind).collect::<Vec<_>>());
    assert_eq!(world.shards[0].gauges().connections, 2);
}

#[test]
fn a_connection_whose_bytes_wait_for_their_turn_is_not_silent() {
    let (mut world, watcher, old) = flooded();
    let late = dial_as(&mut world, "late", |c| c.keep_alive_s = 1);
    world.send_bytes(late, &publishes("t", 3_000));
    for _ in 0..3 {
        world.now = world.now.plus_s(10);
        world.turn(0);
    }
    assert!(world.is_open(late) && world.is_open(old));
    world.settle();
    assert_eq!(world.messages(watcher).len(), 6_000);
}

#[test]
fn a_broker_that_ends_waits_for_nobody_whose_bytes_wait_for_their_turn() {
    for is_lost in [false, true] {
        let (mut world, _, old) = flooded();
        let successor = dial_as(&mut world, "c", |_| ());
        world.turn(0);
        if is_lost {
            world.lose_later(old);
            world.turn(0);
        }
        let now = world.now;
        world.shards[0].begin_shutdown(now);
        world.settle();
        assert!(world.part());
        world.shards[0].disconnect_all(now);
        world.settle();
        assert_eq!(world.shards[0].connection_count(), 0);
        assert!(!world.is_open(successor));
    }
}

#[test]
fn a_connection_lives_on_as_before_when_who_would_take_it_over_is_refused() {
    let limits = Limits { shard_wills_bytes_max: 0, ..quiet() };
    let mut world = World::new(2, limits);
    let watcher = world.client_on(1, "watcher");
    world.subscribe(watcher, "t", QoS::AtMostOnce);
    // The first of these names whose shard is 0.
    let client_id = (0..1_000)
        .map(|number| format!("c{number}"))
        .find(|name| {
            let client = world.connect(name, |_| ());
            let is_there = world.shard_of(client) == 0;
            world.lose(client);
            is_there
        })
        .expect("a name");
    let old = world.connect(&client_id, |_| ());
    world.settle();
    world.received(watcher);
    world.received(old);
    // The other shard is slow, so nothing is confirmed before the new connection comes.
    for filter in ["a", "b", "gone"] {
        world.subscribe(old, filter, QoS::AtMostOnce);
    }
    world.unsubscribe(old, "gone");
    world.publish(old, "t", b"behind", QoS::AtMostOnce, 0);
    world.turn(0);
    assert_eq!(world.received(old), [""; 0]);
    let will = Will { topic: "w", payload: b"x", ..Will::default() };
    let refused = dial_as(&mut world, &client_id, |c| c.will = Some(will));
    // The new connection may arrive on any shard.
    world.turn(0);
    world.settle();
    assert_eq!(world.received(refused), ["CONNACK QuotaExceeded"]);
    let mut received = world.received(old);
    received.sort();
    assert_eq!(received, ["SUBACK", "SUBACK", "SUBACK", "UNSUBACK"]);
    assert_eq!(world.messages(watcher), ["t=behind"]);
    world.publish(watcher, "b", b"x", QoS::AtMostOnce, 0);
    world.settle();
    assert_eq!(world.messages(old), ["b=x"], "it is read and written as before");
    world.publish(old, "t", b"again", QoS::AtMostOnce, 0);
    world.settle();
    assert_eq!(world.messages(watcher), ["t=again"]);
}

#[test]
fn the_end_of_one_connection_uses_no_input_of_another() {
    let limits = Limits { shard_wills_bytes_max: 0, ..quiet() };
    let mut world = World::new(2, limits);
    let watcher = world.client_on(0, "watcher");
    world.subscribe(watcher, "t", QoS::AtMostOnce);
    let leaving = world.client_on(0, "leaving");
    world.settle();
    world.received(watcher);
    // The other shard is slow, so nothing is confirmed before the new connection comes.
    let names = (0..1_000).map(|number| format!("c{number}"));
    let client_id = { names }
        .find(|name| {
            let client = world.connect(name, |_| ());
            let is_there = world.shard_of(client) == 0;
            world.lose(client);
            is_there
        })
        .expect("a name");
    let waiting = world.connect(&client_id, |_| ());
    world.settle();
    world.received(waiting);
    world.subscribe(leaving, "gone", QoS::AtMostOnce);
    world.subscribe(waiting, "gone", QoS::AtMostOnce);
    world.unsubscribe(waiting, "gone");
    world.turn(0);
    // A CONNECT that is refused has the UNSUBSCRIBE read before the SUBACK has left.
    let refused = world.dial_to(ListenerId(0));
    let will = Will { topic: "w", payload: b"x", ..Will::default() };
    let mut connect = Connect::new(ProtocolVersion::V5, &client_id);
    connect.will = Some(will);
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    world.send_bytes(refused, &bytes);
    for _ in 0..4 {
        world.turn(0);
    }
    assert_eq!(world.received(refused), ["CONNACK QuotaExceeded"]);
    world.publish(waiting, "t", b"behind", QoS::AtMostOnce, 0);
    world.turn(0);
    assert_eq!(world.messages(watcher), [""; 0], "it waits for the SUBACK");
    let received = world.shards[0].counters().publishes_received;
    world.lose_later(leaving);
    world.advance(0, &STEPS[..1]);
    assert_eq!(world.shards[0].counters().publishes_received, received);
    world.settle();
    assert_eq!(world.messages(watcher), ["t=behind"]);
    let mut received = world.received(waiting);
    received.sort();
    assert_eq!(received, ["SUBACK", "UNSUBACK"]);
}

#[test]
fn what_a_bridge_brings_leaves_others_their_turn() {
    let mut world = World::new(1, slow());
    let clients: Vec<usize> = (0..100).map(|n| world.connect(&format!("r{n}"), |_| ())).collect();
    clients.iter().for_each(|client| world.subscribe(*client, "+/t", QoS::AtMostOnce));
    world.settle();
    let mut messages = InboundBatch::default();
    for number in 0..200 {
        let topic = format!("{number}/t");
        messages.push(&InboundMessage {
            number: 0,
            topic: &topic,
            properties: &[],
            payload: b"x",
            qos: 0,
            retain: false,
            expires_at: None,
        });
    }
    clients.iter().for_each(|client| drop(world.received(*client)));
    world.send_from_bridges(0, FromBridges::Publish { bridge: 0, messages });
    let (mut turn_count, mut most, mut got) = (0, 0, Vec::new());
    while got.len() < 200 && turn_count < 1_000 {
        let before = world.shards[0].steps();
        world.turn(0);
        most = most.max(world.shards[0].steps() - before);
        turn_count += 1;
        got.extend(world.messages(clients[0]));
    }
    let expected: Vec<String> = (0..200).map(|number| format!("{number}/t=x")).collect();
    assert_eq!(got, expected, "all arrive, in their order");
    assert!(most < 2_000 && turn_count > 20, "{most} steps, {turn_count} turns");
}

#[test]
fn a_packet_that_is_passed_over_is_no_input_though_its_connection_waits_for_its_turn() {
    // What it has used is charged to it at once, or when somebody else's message comes.
    for is_charged_by_another in [false, true] {
        let limits = Limits { packet_size_max: 2_000, turn_steps_max: 100, ..quiet() };
        let mut world = World::new(1, limits);
        let watchers: Vec<usize> =
            (0..60).map(|n| world.connect(&format!("w{n}"), |_| ())).collect();
        watchers.iter().for_each(|watcher| world.subscribe(*watcher, "#", QoS::AtMostOnce));
        let sender = world.connect("c", |c| c.version = ProtocolVersion::V311);
        let other = world.connect("other", |_| ());
        world.settle();
        watchers.iter().for_each(|watcher| drop(world.messages(*watcher)));
        let publish = |topic: &str, payload: &[u8]| {
            let mut bytes = Vec::new();
            let publish = Publish { topic, payload, ..Publish::default() };
            publish.encode(ProtocolVersion::V311, &mut bytes);
            bytes
        };
        // Each part of the large one's payload would be packets, if anybody took it for some.
        let hidden = publish("hidden", b"x").repeat(1_000);
        let large = publish("large", &hidden);
        let (begin, rest) = large.split_at(100);
        world.send_bytes(sender, &[&publish("before", b"x"), begin].concat());
        if is_charged_by_another {
            world.publish(other, "of another", b"x", QoS::AtMostOnce, 0);
        }
        world.turn(0);
        for part in rest.chunks(500) {
            world.send_bytes(sender, part);
            world.publish(other, "of another", b"x", QoS::AtMostOnce, 0);
            world.turn(0);
        }
        world.send_bytes(sender, &publish("behind", b"x"));
        world.settle();
        assert!(world.is_open(sender));
        let got = world.messages(watchers[0]);
        let of_sender: Vec<&String> = got.iter().filter(|m| !m.starts_with("of")).collect();
        assert_eq!(of_sender, ["before=x", "behind=x"]);
    }
}

#[test]
fn who_sends_for_ever_does_not_keep_its_client_id() {
    let limits = Limits { takeover_bytes_max: 20_000, ..slow() };
    let (mut world, watcher, old) = flooded_with(limits);
    let successor = dial_as(&mut world, "c", |_| ());
    let mut turn_count = 0;
    while world.received(successor).is_empty() {
        world.send_bytes(old, &publishes("t", 500));
        world.turn(0);
        turn_count += 1;
        assert!(turn_count < 100, "the new connection still waits");
    }
    world.settle();
    assert!(world.messages(watcher).len() >= 3_000, "what was there before was used");
}

#[test]
fn a_broker_that_ends_uses_what_was_sent_before_and_waits_for_its_turn() {
    let (mut world, watcher, old) = flooded();
    world.lose_later(old);
    world.turn(0);
    let now = world.now;
    world.shards[0].begin_shutdown(now);
    world.settle();
    assert_eq!(world.messages(watcher), expected());
}
