//! Protections against clients that want too much: each off by default, and no harm to others.

use super::quiet;
use super::world::World;
use ringmq::codec::{Connect, Packet, ProtocolVersion, QoS, ReasonCode, next_frame};
use ringmq::limits::Limits;
use ringmq::shard::{Arrival, ConnectionId, Shard, ShardSettings};
use ringmq::time::Instant;

#[test]
fn a_client_over_its_rate_is_not_read_and_loses_nothing() {
    for (message_rate_max, byte_rate_max) in [(10, 0), (0, 1_000), (10, 1_000_000)] {
        let mut world = World::new(2, Limits { message_rate_max, byte_rate_max, ..quiet() });
        let reader = world.client_on(0, "r");
        world.subscribe(reader, "t", QoS::AtLeastOnce);
        let calm = world.client_on(1, "calm");
        let fast = world.connect("fast", |connect| {
            connect.version = ProtocolVersion::V311;
            connect.keep_alive_s = 1;
        });
        world.settle();
        world.received(reader);
        // Each takes 100 bytes of the wire.
        let payload = [b'x'; 93];
        for number in 1..=50 {
            world.publish(fast, "t", &payload, QoS::AtLeastOnce, number);
        }
        world.settle();
        assert_eq!(world.received(fast)[1..].len(), 10, "what a second holds");
        // Others are served at once.
        world.publish(calm, "t", b"calm", QoS::AtLeastOnce, 1);
        world.settle();
        assert!(world.messages(reader).contains(&"t=calm".to_owned()));
        let mut answered = 10;
        for second in 1..=5 {
            for _ in 0..1_000 {
                world.now = world.now.plus_ms(1);
                world.settle();
            }
            answered += world.received(fast).len();
            let expected = (10 * (second + 1)).min(50);
            assert!(answered.abs_diff(expected) <= 1, "{answered} after {second} s");
        }
        assert_eq!(answered, 50);
        assert!(world.is_open(fast), "its keep alive did not count meanwhile");
        let parked: u64 =
            world.shards.iter_mut().map(|shard| shard.counters().parked_on_rate).sum();
        assert!(parked > 0);
        // Without keep alive no timer ends it either.
        let timeless = world.connect("timeless", |_| ());
        for number in 1..=11 {
            world.publish(timeless, "t", &payload, QoS::AtLeastOnce, number);
        }
        world.settle();
        for _ in 0..10 {
            world.now = world.now.plus_s(1);
            world.settle();
        }
        assert_eq!(world.received(timeless)[1..].len(), 11);
        assert!(world.is_open(timeless));
    }
}

#[test]
fn a_message_above_the_size_costs_what_the_largest_does_and_waits_for_its_turn() {
    let limits = Limits { byte_rate_max: 1_000, packet_size_max: 2_000, ..quiet() };
    let mut world = World::new(1, limits);
    let client = world.connect("c", |connect| {
        connect.version = ProtocolVersion::V311;
        connect.keep_alive_s = 60;
    });
    world.settle();
    world.received(client);
    let pubacks_after = |world: &mut World, seconds: u64| {
        for _ in 0..10 * seconds {
            world.now = world.now.plus_ms(100);
            world.settle();
        }
        world.received(client).iter().filter(|packet| packet.starts_with("PUBACK")).count()
    };
    for round in 0..3 {
        // 90,000 bytes in parts: a debt of all of them would be a minute and a half.
        for id in [1, 2] {
            world.publish(client, "t", &[b'x'; 45_000], QoS::AtLeastOnce, id);
        }
        world.publish(client, "t", b"x", QoS::AtLeastOnce, 3);
        world.settle();
        assert_eq!(pubacks_after(&mut world, 0), 1, "round {round}: the second has to wait");
        assert_eq!(pubacks_after(&mut world, 1), 0, "round {round}");
        assert_eq!(pubacks_after(&mut world, 5), 2, "round {round}: they have paid by now");
        assert!(world.is_open(client));
    }
}

#[test]
fn a_client_gets_no_new_rate_by_connecting_again() {
    let mut world = World::new(1, Limits { message_rate_max: 5, ..quiet() });
    let mut answered = 0;
    for _ in 0..10 {
        let client = world.connect("c", |connect| {
            connect.session_expiry_s = Some(60);
            connect.clean_start = false;
        });
        for number in 1..=5 {
            world.publish(client, "t", b"x", QoS::AtLeastOnce, number);
        }
        world.settle();
        answered += world.received(client).iter().filter(|line| line.starts_with("PUBACK")).count();
    }
    // What its old connections had sent is used when it takes over.
    assert_eq!(answered, 5);
}

/// Connects a client from an address; what it is told, and its connection.
fn connect_from(shard: &mut Shard, now: Instant, peer: &str) -> (ReasonCode, ConnectionId) {
    connect_as(shard, now, peer, "c")
}

fn connect_as(
    shard: &mut Shard,
    now: Instant,
    peer: &str,
    client_id: &str,
) -> (ReasonCode, ConnectionId) {
    let peer = Some(peer.parse().expect("an address"));
    let arrival = Arrival { peer, ..Arrival::default() };
    let id = shard.handle_open(now, arrival).expect("there is room");
    let mut bytes = Vec::new();
    let connect =
        Connect { session_expiry_s: Some(60), ..Connect::new(ProtocolVersion::V5, client_id) };
    connect.encode(&mut bytes);
    shard.handle_bytes(now, id, &mut bytes);
    while shard.poll_last_read().is_some() {
        shard.begin_last_read(now);
        shard.handle_last_read(now, 1);
    }
    shard.run_stages(now);
    let mut told = None;
    while let Some((of, output)) = shard.poll_flush() {
        let sent: Vec<u8> = output.slices().flatten().copied().collect();
        if of == id {
            let frame = next_frame(&sent, usize::MAX).expect("a frame").expect("whole");
            let packet = Packet::decode(&frame, ProtocolVersion::V5).expect("a packet");
            let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
            told = Some(connack.reason);
        }
        shard.handle_sent(now, of, output);
    }
    while let Some(close) = shard.poll_close() {
        assert!(told.is_some(), "{close:?}");
    }
    (told.expect("CONNACK"), id)
}

#[test]
fn a_client_that_connects_too_often_is_banned_and_its_session_stays() {
    let limits =
        Limits { flapping_connects_max: 5, flapping_window_s: 10, flapping_ban_s: 60, ..quiet() };
    let now = Instant(1_000);
    let mut shard = Shard::new(ShardSettings { id: 0, shard_count: 1, limits, seed: 7 }, now);
    assert!(shard.wants_addresses());
    let mut told = Vec::new();
    for _ in 0..10 {
        told.push(connect_from(&mut shard, now, "192.0.2.1:1").0);
    }
    assert!(told[..5].iter().all(|reason| *reason == ReasonCode::Success), "{told:?}");
    assert!(told[5..].iter().all(|reason| *reason == ReasonCode::Banned), "{told:?}");
    assert_eq!(shard.counters().refused_as_flapping, 5);
    let line = shard.poll_event().expect("it is told").to_string();
    assert!(line.starts_with("refused client 'c' from 192.0.2.1:1: "), "{line}");
    let keys = "; see flapping_connects_max, flapping_window_s and flapping_ban_s";
    assert!(line.ends_with(keys), "{line}");
    // Who is banned has taken nothing over.
    let gauges = shard.gauges();
    assert_eq!((gauges.sessions, gauges.connected_sessions, gauges.connections), (1, 1, 1));
    assert_eq!(connect_from(&mut shard, now, "192.0.2.2:1").0, ReasonCode::Success);
    let later = now.plus_s(61);
    assert_eq!(connect_from(&mut shard, later, "192.0.2.1:1").0, ReasonCode::Success);
}

#[test]
fn new_clients_are_turned_away_while_turns_lag_and_others_come_back() {
    let limits = Limits { turn_time_max_ms: 50, ..quiet() };
    let now = Instant(1_000);
    let mut shard = Shard::new(ShardSettings { id: 0, shard_count: 1, limits, seed: 7 }, now);
    let ask = |shard: &mut Shard, client_id| connect_as(shard, now, "192.0.2.1:1", client_id).0;
    assert_eq!(ask(&mut shard, "old"), ReasonCode::Success);
    (0..100).for_each(|_| shard.note_turn_time(100));
    assert_eq!(ask(&mut shard, "new"), ReasonCode::ServerBusy);
    assert_eq!(ask(&mut shard, "old"), ReasonCode::Success);
    assert_eq!(shard.counters().refused_by_lag, 1);
    (0..100).for_each(|_| shard.note_turn_time(1));
    assert_eq!(ask(&mut shard, "new"), ReasonCode::Success);
}
