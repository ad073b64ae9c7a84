//! A shared group keeps no message from its other members for a client that cannot take it.

use super::*;
use ringmq::codec::{Ack, Packet, PacketId, ReasonCode};

/// Publishes so many messages, each in a turn of its own; `good` acknowledges what it gets. How many each got.
fn spread(world: &mut World, publisher: usize, members: [usize; 2], count: u16) -> [usize; 2] {
    let [slow, good] = members;
    let mut got = [0, 0];
    for number in 1..=count {
        world.publish(publisher, "t", b"x", QoS::AtLeastOnce, number);
        world.settle();
        got[0] += world.messages(slow).len();
        let ids = ids_of(world, good);
        got[1] += ids.len();
        ids.iter().for_each(|id| acknowledge(world, good, *id));
    }
    world.settle();
    got
}

/// The packet identifiers of the messages that a client was sent.
fn ids_of(world: &mut World, client: usize) -> Vec<PacketId> {
    let mut ids = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Publish(publish) = packet {
            ids.extend(publish.packet_id);
        }
    });
    ids
}

fn acknowledge(world: &mut World, client: usize, id: PacketId) {
    world.send(client, &Packet::Puback(Ack::new(id, ReasonCode::Success)));
}

fn backlog(world: &World) -> usize {
    world.shards.iter().map(|shard| shard.gauges().group_backlog).sum()
}

fn stored(world: &World) -> usize {
    world.shards.iter().map(|shard| shard.gauges().stored_bytes).sum()
}

#[test]
fn a_member_that_never_acknowledges_keeps_what_fills_its_window_and_no_more() {
    for shard_count in [1, 2, 3] {
        for receive_max in [1, 2, 10, 100] {
            let mut world = World::new(shard_count, quiet());
            let publisher = world.connect("p", |_| ());
            let slow = world.connect("slow", |c| c.receive_max = Some(receive_max));
            let good = world.connect("good", |_| ());
            for member in [slow, good] {
                world.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
            }
            world.settle();
            world.received(slow);
            world.received(good);
            let got = spread(&mut world, publisher, [slow, good], 600);
            let max = usize::from(receive_max);
            assert_eq!(got, [max, 600 - max], "{shard_count} shards, receive maximum {max}");
            assert_eq!(backlog(&world), 0, "nothing waits");
            // One more place makes room for one more message.
            acknowledge(&mut world, slow, PacketId::new(1).expect("an id"));
            world.settle();
            let got = spread(&mut world, publisher, [slow, good], 10);
            assert_eq!(got, [1, 9], "{shard_count} shards, receive maximum {max}");
        }
    }
}

#[test]
fn messages_wait_in_the_group_for_its_only_member_and_arrive_in_order() {
    for shard_count in [1, 2, 3] {
        let mut world = World::new(shard_count, quiet());
        let publisher = world.connect("p", |_| ());
        let lasting = |c: &mut ringmq::codec::Connect<'_>| {
            c.clean_start = false;
            c.session_expiry_s = Some(60);
            c.receive_max = Some(3);
        };
        let mut member = world.connect("member", lasting);
        world.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
        world.settle();
        for number in 1..=200u16 {
            world.publish(publisher, "t", number.to_string().as_bytes(), QoS::AtLeastOnce, number);
        }
        world.settle();
        assert_eq!(backlog(&world), 200 - 3);
        let mut seen: Vec<u16> = Vec::new();
        for round in 0..400 {
            let mut ids = Vec::new();
            world.packets(member, |packet| {
                if let Packet::Publish(publish) = packet {
                    let number = std::str::from_utf8(publish.payload).expect("a number");
                    let number: u16 = number.parse().expect("a number");
                    assert!(publish.dup || !seen.contains(&number));
                    if !seen.contains(&number) {
                        seen.push(number);
                    }
                    ids.extend(publish.packet_id);
                }
            });
            if round % 20 == 19 {
                // What is in flight stays with the session; the places begin anew.
                world.lose(member);
                world.settle();
                member = world.connect("member", lasting);
                continue;
            }
            ids.iter().for_each(|id| acknowledge(&mut world, member, *id));
            world.settle();
        }
        assert_eq!(seen, (1..=200).collect::<Vec<_>>());
        assert_eq!((backlog(&world), stored(&world)), (0, 0));
    }
}

#[test]
fn a_member_at_qos_0_needs_no_place_of_its_window() {
    let mut world = World::new(2, quiet());
    let publisher = world.connect("p", |_| ());
    let member = world.connect("member", |c| c.receive_max = Some(1));
    world.subscribe(member, "own", QoS::AtLeastOnce);
    world.subscribe(member, "$share/g/t", QoS::AtMostOnce);
    world.settle();
    world.publish(publisher, "own", b"fills the window", QoS::AtLeastOnce, 1);
    for number in 2..=50 {
        world.publish(publisher, "t", b"x", QoS::AtLeastOnce, number);
    }
    world.settle();
    assert_eq!(world.messages(member).len(), 50);
}
