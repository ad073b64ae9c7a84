//! Publishers that wait while clients fill a store, and what a shard does to find out who may go on.

use crate::budget::{numbered, reader_and_publisher, small_store, take_all};
use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{PacketId, QoS, ReasonCode, Will, encode_puback};
use ringmq::limits::{Limits, PUBLISHED_AHEAD_MAX};

/// A world whose publishers wait for a reader whose network stands still.
fn held_world() -> (World, usize, usize) {
    held_world_with(small_store())
}

fn held_world_with(limits: Limits) -> (World, usize, usize) {
    let (mut world, reader, publisher) = reader_and_publisher(1, limits);
    for number in 0..120 {
        world.publish(publisher, "t", &numbered(number), QoS::AtLeastOnce, number + 1);
        world.settle();
    }
    assert!(world.shards[0].gauges().store_is_blocking);
    world.received(publisher);
    (world, reader, publisher)
}

/// What the reader was sent is taken, and publishers wait no more.
fn release(world: &mut World, reader: usize) {
    world.set_stuck(reader, false);
    for _ in 0..20 {
        world.settle();
        take_all(world, reader);
    }
    assert!(!world.shards[0].gauges().store_is_blocking);
}

#[test]
fn who_acknowledges_nothing_publishes_only_so_much_ahead_of_others() {
    let (mut world, reader, publisher) = reader_and_publisher(1, small_store());
    let hoarders = ["silent", "slow"].map(|name| {
        let client = world.connect(name, |c| c.session_expiry_s = Some(600));
        world.subscribe(client, name, QoS::AtLeastOnce);
        world.settle();
        for id in [1, 2] {
            world.publish(publisher, name, b"mine", QoS::AtLeastOnce, id);
        }
        world.settle();
        world.received(client);
        client
    });
    world.received(publisher);
    for number in 0..120 {
        world.publish(publisher, "t", &numbered(number), QoS::AtLeastOnce, number + 1);
        world.settle();
    }
    assert!(world.shards[0].gauges().store_is_blocking);
    const COUNT: u16 = 1_300;
    let payload = [b'x'; 15_000];
    let mut answered = [0, 0];
    for number in 0..COUNT {
        for (hoarder, answered) in hoarders.into_iter().zip(&mut answered) {
            world.publish(hoarder, "nowhere", &payload, QoS::AtLeastOnce, number + 1);
            if hoarder == hoarders[1] && number == COUNT / 2 {
                // It has come so far at last.
                let mut ack = Vec::new();
                let id = PacketId::new(1).expect("an id");
                encode_puback(V5, id, ReasonCode::Success, &mut ack);
                world.send_bytes(hoarder, &ack);
            }
            world.settle();
            *answered += world.received(hoarder).len();
        }
    }
    // The last one may pass the bound.
    let bytes = answered[0] * payload.len();
    let most = PUBLISHED_AHEAD_MAX;
    assert!((most - 40_000..most + 20_000).contains(&bytes), "{bytes} of {most}");
    assert_eq!(answered[1], usize::from(COUNT), "who acknowledges goes on");
    release(&mut world, reader);
    for (hoarder, answered) in hoarders.into_iter().zip(answered) {
        let rest = world.received(hoarder).len();
        assert_eq!(answered + rest, usize::from(COUNT), "what waited is taken in the end");
    }
}

#[test]
fn those_that_wait_are_listed_once_and_not_when_they_are_gone() {
    let (mut world, reader, _) = held_world();
    for number in 0..1_000 {
        let client = world.connect(&format!("passing-{number}"), |_| ());
        world.publish(client, "nowhere", b"x", QoS::AtMostOnce, 0);
        world.settle();
        world.lose(client);
    }
    let listed = world.shards[0].gauges().parked_on_mail;
    assert!(listed < 150, "{listed} are listed, two are there");
    release(&mut world, reader);
    assert_eq!(world.shards[0].gauges().parked_on_mail, 0);
}

#[test]
fn who_waits_after_a_takeover_that_was_refused_is_listed_once() {
    let (mut world, _, _) =
        held_world_with(Limits { shard_wills_bytes_max: 4 << 10, ..small_store() });
    let client = world.connect("x", |_| ());
    for _ in 0..50 {
        world.publish(client, "nowhere", b"x", QoS::AtMostOnce, 0);
        world.settle();
        let will = Will { topic: "w", payload: &[b'w'; 14_000], ..Will::default() };
        let successor = world.connect("x", |c| c.will = Some(will));
        assert_eq!(world.received(successor), ["CONNACK QuotaExceeded"]);
        assert!(world.is_open(client));
    }
    let listed = world.shards[0].gauges().parked_on_mail;
    assert!(listed <= 2, "{listed} entries for two connections");
}

#[test]
fn those_that_wait_cost_nothing_while_nothing_is_sent() {
    let (mut world, _, _) = held_world();
    let mortal = world.connect("mortal", |c| {
        let (qos, topic) = (QoS::AtLeastOnce, "to/1990");
        c.will = Some(Will { topic, payload: b"m", qos, ..Will::default() });
    });
    let waiting: Vec<usize> = (0..2_000)
        .map(|number| {
            let client = world.connect(&format!("w{number}"), |c| c.session_expiry_s = Some(60));
            world.subscribe(client, &format!("to/{number}"), QoS::AtLeastOnce);
            world.publish(client, "nowhere", b"x", QoS::AtLeastOnce, 1);
            world.settle();
            world.received(client);
            client
        })
        .collect();
    assert!(world.shards[0].gauges().parked_on_mail >= 2_000);
    let before = world.shards[0].counters().steps;
    for _ in 0..100 {
        world.turn(0);
    }
    let steps = world.shards[0].counters().steps - before;
    assert!(steps < 5_000, "{steps} steps for nothing");
    // Who is sent something may go on, wherever it stands among the others, though some have to be passed a turn.
    let before = world.shards[0].counters().steps;
    world.lose(mortal);
    let reader = waiting[1_990];
    world.settle();
    assert!(world.received(reader).iter().any(|line| line.starts_with("PUBACK")));
    let steps = world.shards[0].counters().steps - before;
    assert!(steps < 20_000, "{steps} steps to find one");
}

#[test]
fn the_oldest_unfinished_frames_are_found_without_a_look_at_all_for_each() {
    let limits = Limits {
        packet_size_max: 16 << 10,
        large_message_size: 16 << 10,
        shard_frames_bytes_max: 1 << 20,
        ..quiet()
    };
    let mut world = World::new(1, limits);
    let mut clients: Vec<usize> =
        (0..3_000).map(|number| world.connect(&format!("c{number}"), |_| ())).collect();
    let before = world.shards[0].counters().steps;
    let mut frame = vec![0x30, 0xb0, 0x27];
    frame.resize(4_000, 0);
    for (number, &client) in clients.iter().enumerate() {
        world.now = world.now.plus_ms(1);
        world.send_bytes(client, &frame);
        world.settle();
        let gone = number.saturating_sub(300);
        assert!(number < 300 || !world.is_open(clients[gone]), "the oldest go: {gone}");
    }
    let steps = world.shards[0].counters().steps - before;
    clients.retain(|&client| world.is_open(client));
    assert!((150..=300).contains(&clients.len()), "{} are left", clients.len());
    assert!(steps < 200_000, "{steps} steps");
}
