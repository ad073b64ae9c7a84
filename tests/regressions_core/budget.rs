//! Budgets under attack: what strangers may make a shard hold, and who loses when it is too much.

use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{Connect, Packet, PacketId, Publish, QoS};
use ringmq::limits::Limits;

/// A QoS 1 publish of so many bytes of payload.
fn large_publish(topic: &str, payload_size: usize) -> Vec<u8> {
    let payload = vec![7; payload_size];
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        topic,
        packet_id: PacketId::new(5),
        payload: &payload,
        ..Publish::default()
    };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(V5, &mut bytes);
    bytes
}

/// The first part of a CONNECT that says it has `size` bytes behind its fixed header.
fn half_connect(size: usize, sent: usize) -> Vec<u8> {
    let mut bytes = vec![0x10];
    let mut left = size;
    while left >= 128 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    // The password goes on and on.
    bytes.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 5, 0x42, 0, 0, 0, 0, 1, b'x', 255, 0]);
    bytes.resize(sent, b'p');
    bytes
}

#[test]
fn who_has_not_said_connect_evicts_nobody_who_has() {
    let mut world = World::new(1, Limits { shard_frames_bytes_max: 4 << 20, ..quiet() });
    let honest = world.connect("honest", |_| ());
    world.received(honest);
    let publish = large_publish("t", 900_000);
    let (first, second) = publish.split_at(500_000);
    world.send_bytes(honest, first);
    world.settle();
    for _ in 0..70 {
        let hostile = world.dial(V5);
        world.send_bytes(hostile, &half_connect(1_000_000, 900_000));
        world.settle();
    }
    assert!(world.is_open(honest), "an honest client pays for strangers");
    world.send_bytes(honest, second);
    world.settle();
    assert_eq!(world.received(honest), ["PUBACK Success"]);
}

#[test]
fn unfinished_connects_stay_within_their_own_budget() {
    let limits = Limits { shard_connects_bytes_max: 1 << 20, ..quiet() };
    let mut world = World::new(1, limits.clone());
    let honest = world.connect("honest", |_| ());
    let publish = large_publish("t", 900_000);
    world.send_bytes(honest, &publish[..500_000]);
    let hostile: Vec<usize> = (0..70).map(|_| world.dial(V5)).collect();
    for &client in &hostile {
        world.send_bytes(client, &half_connect(120_000, 100_000));
        world.settle();
        let gauges = world.shards[0].gauges();
        assert!(gauges.connect_bytes <= limits.shard_connects_bytes_max, "{gauges:?}");
        // Memory grows with what has arrived.
        assert!((500_000..=900_020).contains(&gauges.frame_bytes), "{gauges:?}");
    }
    let open_count = hostile.iter().filter(|client| world.is_open(**client)).count();
    assert_eq!(open_count, (1 << 20) / 100_000, "the oldest have gone");
    assert_eq!(world.shards[0].counters().connects_evicted as usize, 70 - open_count);
    let late = world.connect("late", |_| ());
    assert_eq!(world.received(late), ["CONNACK Success"]);
    assert!(world.is_open(honest));
}

#[test]
fn a_connect_that_is_too_large_is_refused_when_its_version_is_known() {
    for (level, expected) in [(5, &["CONNACK PacketTooLarge"][..]), (4, &[]), (9, &[])] {
        let mut world = World::new(1, quiet());
        let client = world.dial(V5);
        let mut bytes = half_connect(200_000, 20);
        bytes[10] = level;
        let (first, second) = bytes.split_at(10);
        world.send_bytes(client, first);
        world.settle();
        assert!(world.is_open(client));
        world.send_bytes(client, second);
        world.settle();
        assert_eq!(world.received(client), expected, "level {level}");
        assert!(!world.is_open(client));
        assert_eq!(world.shards[0].counters().connects_too_large, 1);
    }
    // It is the first byte that says that it is none.
    let mut world = World::new(1, quiet());
    let client = world.dial(V5);
    world.send_bytes(client, &[0x30]);
    world.settle();
    assert!(!world.is_open(client));
}

#[test]
fn what_stands_behind_connect_counts_to_its_client() {
    for shard_count in [1, 2] {
        let limits = Limits { shard_connects_bytes_max: 128 << 10, ..quiet() };
        let mut world = World::new(shard_count, limits);
        for name in ["a", "b", "c"] {
            let client = world.dial(V5);
            let mut bytes = Vec::new();
            Connect::new(V5, name).encode(&mut bytes);
            bytes.extend_from_slice(&large_publish("t", 900_000)[..500_000]);
            world.send_bytes(client, &bytes);
            world.settle();
            assert_eq!(world.received(client), ["CONNACK Success"]);
            let shard = world.shard_of(client);
            let gauges = world.shards[shard].gauges();
            assert!(gauges.connect_bytes == 0 && gauges.frame_bytes >= 500_000, "{gauges:?}");
        }
    }
}

#[test]
fn who_says_nothing_makes_room_for_who_says_connect() {
    let mut world = World::new(1, Limits { connections_max: 3, ..quiet() });
    let client = world.connect("client", |_| ());
    let silent = [world.dial(V5), world.dial(V5)];
    world.settle();
    let others = ["other", "third"].map(|name| world.connect(name, |_| ()));
    assert_eq!(others.map(|other| world.is_open(other)), [true, true]);
    assert_eq!(silent.map(|silent| world.is_open(silent)), [false, false]);
    assert_eq!(world.shards[0].counters().connects_displaced, 2);
    // Now all are clients, and none of them has to go.
    let fourth = world.dial(V5);
    world.settle();
    assert_eq!([client, others[0], fourth].map(|c| world.is_open(c)), [true, true, false]);
}

#[test]
fn a_byte_behind_a_large_packet_holds_no_more_than_it_needs() {
    let mut world = World::new(1, quiet());
    let clients: Vec<usize> = (0..60).map(|n| world.connect(&format!("c{n}"), |_| ())).collect();
    let mut publish = large_publish("t", 1_000_000);
    publish.push(0x30);
    let (first, second) = publish.split_at(600_000);
    let held = allocation_counter::measure(|| {
        for &client in &clients {
            for part in [first, second] {
                world.send_bytes(client, part);
                world.settle();
            }
            world.received(client);
        }
    });
    let told = world.shards[0].gauges().frame_bytes;
    // Empty buffers that go round take their share, up to their own bound.
    let most = told as i64 + (20 << 20);
    assert!(held.bytes_current < most, "{} bytes are held, {told} are told", held.bytes_current);
}
