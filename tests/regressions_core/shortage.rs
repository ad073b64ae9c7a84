//! While the process is short of memory nothing grows, and those who read what they get go on.

use super::*;
use ringmq::codec::{Ack, Packet, ReasonCode};

/// Hands every shard the word.
fn set_short(world: &mut World, is_short: bool) {
    let now = world.now;
    world.shards.iter_mut().for_each(|shard| shard.set_memory_short(now, is_short));
}

fn gauge(world: &World, of: fn(&ringmq::gauges::Gauges) -> usize) -> usize {
    world.shards.iter().map(|shard| of(&shard.gauges())).sum()
}

fn small() -> Limits {
    Limits {
        packet_size_max: 4096,
        queue_bytes_max: 1 << 20,
        group_bytes_max: 1 << 20,
        shard_stored_bytes_max: 1 << 20,
        ..quiet()
    }
}

#[test]
fn queues_and_retained_messages_grow_no_more_and_again_when_there_is_memory() {
    let mut world = World::new(1, small());
    let publisher = world.connect("p", |_| ());
    let absent = world.connect("absent", |c| c.session_expiry_s = Some(600));
    world.subscribe(absent, "t/#", QoS::AtLeastOnce);
    world.settle();
    world.lose(absent);
    let flood = |world: &mut World, from: u16| {
        for number in from..from + 100 {
            let topic = format!("t/{number}");
            world.publish(publisher, &topic, &[b'm'; 2_000], QoS::AtLeastOnce, number);
            let topic = format!("r/{number}");
            world.retain(publisher, &topic, &[b'm'; 2_000]);
            world.settle();
        }
    };
    flood(&mut world, 1);
    let held =
        |world: &World| (gauge(world, |g| g.stored_bytes), gauge(world, |g| g.retained_bytes));
    let before = held(&world);
    assert!(before.0 > 200_000 && before.1 > 200_000, "{before:?}");
    set_short(&mut world, true);
    flood(&mut world, 101);
    let during = held(&world);
    // The absent session loses an eighth of its queue when it is above what it had.
    assert!(during.0 <= before.0 + 4_000 && during.0 > before.0 * 3 / 4, "{during:?}, {before:?}");
    assert_eq!(during.1, before.1);
    assert_eq!(world.shards[0].counters().memory_shortages, 1);
    assert!(world.shards[0].counters().dropped_stored_full >= 100);
    assert!(world.shards[0].counters().retained_refused >= 100);
    set_short(&mut world, false);
    flood(&mut world, 201);
    let after = held(&world);
    assert!(after.0 > before.0 + 200_000 && after.1 > before.1 + 200_000, "{after:?}");
}

#[test]
fn nobody_new_is_let_in_and_who_was_there_may_come_back() {
    let mut world = World::new(1, small());
    let lasting = |c: &mut ringmq::codec::Connect<'_>| c.session_expiry_s = Some(600);
    let known = world.connect("known", lasting);
    world.settle();
    world.lose(known);
    set_short(&mut world, true);
    let new = world.connect("new", |_| ());
    world.settle();
    let mut reasons = Vec::new();
    world.packets(new, |packet| {
        if let Packet::Connack(connack) = packet {
            reasons.push(connack.reason);
        }
    });
    assert_eq!(reasons, [ReasonCode::QuotaExceeded]);
    assert_eq!(world.shards[0].counters().refused_by_memory, 1);
    world.connect("known", |c| {
        c.clean_start = false;
        lasting(c);
    });
    set_short(&mut world, false);
    world.connect("new", |_| ());
}

#[test]
fn a_client_that_reads_gets_every_message_while_memory_is_short() {
    let mut world = World::new(1, small());
    let publisher = world.connect("p", |_| ());
    let reader = world.connect("reader", |_| ());
    world.subscribe(reader, "t", QoS::AtLeastOnce);
    world.settle();
    world.received(reader);
    set_short(&mut world, true);
    for number in 1..=200 {
        world.publish(publisher, "t", &[b'm'; 2_000], QoS::AtLeastOnce, number);
        world.settle();
        let mut ids = Vec::new();
        world.packets(reader, |packet| {
            if let Packet::Publish(publish) = packet {
                ids.extend(publish.packet_id);
            }
        });
        assert_eq!(ids.len(), 1, "message {number}");
        world.send(reader, &Packet::Puback(Ack::new(ids[0], ReasonCode::Success)));
    }
}
