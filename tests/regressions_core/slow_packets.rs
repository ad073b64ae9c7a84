//! Packets that take their time: what keeps a rate arrives, what only pretends to come is ended, and no packet comes for ever.

use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{Packet, PacketId, ProtocolVersion, Publish, QoS};
use ringmq::limits::Limits;

const V311: ProtocolVersion = ProtocolVersion::V311;

/// A QoS 1 publish of so many bytes of payload, as bytes.
fn publish(version: ProtocolVersion, payload_size: usize) -> Vec<u8> {
    let payload = vec![7; payload_size];
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        topic: "t",
        packet_id: PacketId::new(5),
        payload: &payload,
        ..Publish::default()
    };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(version, &mut bytes);
    bytes
}

fn connect(world: &mut World, name: &str, version: ProtocolVersion, keep_alive_s: u16) -> usize {
    let client = world.connect(name, |connect| {
        connect.version = version;
        connect.keep_alive_s = keep_alive_s;
    });
    world.received(client);
    client
}

fn pass_ms(world: &mut World, ms: u64) {
    world.now = world.now.plus_ms(ms);
    world.settle();
}

/// Writes `bytes` in pieces of so many, `piece_ms` apart, while the connection is open; how long it took, ms.
fn trickle(
    world: &mut World,
    client: usize,
    bytes: &[u8],
    piece_size: usize,
    piece_ms: u64,
) -> u64 {
    let began = world.now;
    for piece in bytes.chunks(piece_size) {
        pass_ms(world, piece_ms);
        if !world.is_open(client) {
            break;
        }
        world.send_bytes(client, piece);
        world.settle();
    }
    world.now.ms_since(began)
}

#[test]
fn a_packet_that_takes_longer_than_its_keep_alive_arrives() {
    for (size, per_second, keep_alive_s) in
        [(600_000, 130_000, 1), (256_000, 2_000, 60), (1_000_000, 2_000, 60), (300_000, 1_000, 10)]
    {
        for version in [V311, V5] {
            let mut world = World::new(1, quiet());
            let client = connect(&mut world, "c", version, keep_alive_s);
            let bytes = publish(version, size);
            let took_ms = trickle(&mut world, client, &bytes, per_second / 10, 100);
            assert!(took_ms > u64::from(keep_alive_s) * 1500, "{took_ms} ms");
            assert_eq!(world.received(client), ["PUBACK Success"], "{size} at {per_second} B/s");
            // From here its keep alive counts as ever.
            pass_ms(&mut world, u64::from(keep_alive_s) * 1500 - 1);
            assert!(world.is_open(client));
            pass_ms(&mut world, 1);
            assert!(!world.is_open(client));
        }
    }
}

#[test]
fn a_packet_that_brings_less_in_a_period_is_ended() {
    for (piece_size, piece_ms, is_ended) in
        [(1, 1_000, true), (999, 15_000, true), (1_000, 14_999, false), (66, 1_000, true)]
    {
        for version in [V311, V5] {
            let mut world = World::new(1, quiet());
            let client = connect(&mut world, "c", version, 10);
            let bytes = publish(version, 20_000);
            let took_ms = trickle(&mut world, client, &bytes, piece_size, piece_ms);
            assert_eq!(!world.is_open(client), is_ended, "{piece_size} each {piece_ms} ms");
            let count = world.shards[0].counters().keep_alives_expired;
            assert_eq!(count, u64::from(is_ended));
            assert!(!is_ended || (15_000..=30_000).contains(&took_ms), "{took_ms} ms");
            let expected: &[&str] = match (is_ended, version) {
                (true, V5) => &["DISCONNECT KeepAliveTimeout"],
                (true, _) => &[],
                (false, _) => &["PUBACK Success"],
            };
            assert_eq!(world.received(client), expected);
        }
    }
}

#[test]
fn no_packet_takes_longer_than_it_may() {
    // Without keep alive, with a long one, and with one that ends nobody who keeps the rate.
    for (keep_alive_s, piece_size) in [(0, 1), (0, 2_000), (60, 2_000), (65_535, 1)] {
        for version in [V311, V5] {
            let mut world = World::new(1, Limits { packet_time_max_ms: 20_000, ..quiet() });
            let other = connect(&mut world, "other", version, 0);
            let client = connect(&mut world, "c", version, keep_alive_s);
            let bytes = publish(version, 200_000);
            let took_ms = trickle(&mut world, client, &bytes, piece_size, 1_000);
            assert!(
                (20_000..=22_000).contains(&took_ms),
                "{took_ms} ms, keep alive {keep_alive_s}"
            );
            assert_eq!(world.shards[0].counters().packets_timed_out, 1);
            let is_v5 = version == V5;
            assert_eq!(
                world.received(client),
                if is_v5 { &["DISCONNECT QuotaExceeded"][..] } else { &[] }
            );
            assert!(world.is_open(other));
            assert_eq!(world.shards[0].gauges().frame_bytes, 0);
            // Each packet has its own time.
            let bytes = publish(version, 10_000);
            for _ in 0..5 {
                trickle(&mut world, other, &bytes, 1_000, 1_500);
                assert_eq!(world.received(other), ["PUBACK Success"]);
            }
        }
    }
}

#[test]
fn a_packet_whose_rest_is_there_is_not_too_late() {
    let mut world = World::new(1, Limits { packet_time_max_ms: 20_000, ..quiet() });
    let client = connect(&mut world, "c", V5, 10);
    let bytes = publish(V5, 100_000);
    world.send_bytes(client, &bytes[..50_000]);
    world.settle();
    // The process stands still.
    world.now = world.now.plus_ms(3_600_000);
    world.send_bytes(client, &bytes[50_000..]);
    world.settle();
    assert_eq!(world.received(client), ["PUBACK Success"]);
}

#[test]
fn a_client_that_is_told_to_wait_is_not_late() {
    let limits = Limits { message_rate_max: 1, packet_time_max_ms: 2_000, ..quiet() };
    let mut world = World::new(1, limits);
    let client = connect(&mut world, "c", V311, 1);
    let bytes = publish(V311, 2_000);
    let (first, second) = bytes.split_at(1_500);
    let several = [bytes.repeat(10), first.to_vec()].concat();
    world.send_bytes(client, &several);
    for _ in 0..90 {
        pass_ms(&mut world, 100);
    }
    assert_eq!(world.received(client).len(), 10);
    assert!(world.is_open(client), "eight seconds of waiting were the broker's");
    world.send_bytes(client, second);
    for _ in 0..20 {
        pass_ms(&mut world, 100);
    }
    assert_eq!(world.received(client), ["PUBACK Success"]);
}

#[test]
fn what_keeps_its_rate_is_spared_when_room_lacks() {
    for version in [V311, V5] {
        let mut world = World::new(1, Limits { shard_frames_bytes_max: 4 << 20, ..quiet() });
        let honest = connect(&mut world, "honest", version, 10);
        let bytes = publish(version, 600_000);
        let hostile_bytes = publish(version, 1_000_000);
        let mut hostile = Vec::new();
        // Each brings a lot and then nothing, or a byte now and then.
        for (number, piece) in bytes.chunks(13_000).enumerate() {
            world.send_bytes(honest, piece);
            pass_ms(&mut world, 100);
            let client = connect(&mut world, &format!("h{number}"), version, 0);
            world.send_bytes(client, &hostile_bytes[..900_000]);
            hostile.push(client);
            for client in &hostile {
                if world.is_open(*client) {
                    world.send_bytes(*client, b"x");
                }
            }
            world.settle();
        }
        assert_eq!(world.received(honest), ["PUBACK Success"]);
        let evicted = world.shards[0].counters().frames_evicted;
        assert!(evicted >= 40, "{evicted}");
        // Of those the oldest have gone.
        let open: Vec<bool> = hostile.iter().map(|client| world.is_open(*client)).collect();
        assert!(open.is_sorted(), "{open:?}");
    }
}

#[test]
fn a_message_that_is_too_large_is_passed_over_at_its_rate() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let limits = Limits { packet_size_max: 10_000, packet_time_max_ms: 20_000, ..quiet() };
        let mut world = World::new(1, limits);
        let client = connect(&mut world, "c", V311, 1);
        let payload = vec![7; 600_000];
        let packet_id = PacketId::new(5).filter(|_| qos != QoS::AtMostOnce);
        let large = Publish { qos, topic: "t", packet_id, payload: &payload, ..Publish::default() };
        let mut bytes = Vec::new();
        Packet::Publish(large).encode(V311, &mut bytes);
        let (start, rest) = bytes.split_at(590_000);
        trickle(&mut world, client, start, 13_000, 100);
        assert_eq!(world.received(client), [""; 0], "not before all of it was sent");
        assert_eq!(world.shards[0].gauges().frame_bytes, 0);
        // What stands behind it is read as ever.
        let behind = [rest, &publish(V311, 100)].concat();
        trickle(&mut world, client, &behind, 13_000, 100);
        let expected: &[&str] = match qos {
            QoS::AtMostOnce => &["PUBACK Success"],
            QoS::AtLeastOnce => &["PUBACK Success", "PUBACK Success"],
            QoS::ExactlyOnce => &["PUBREC 5 Success", "PUBACK Success"],
        };
        assert_eq!(world.received(client), expected, "{qos:?}");
        assert_eq!(world.shards[0].counters().refused_by_size, 1);
        // Byte by byte, to the last of its start, and in one go.
        for piece_size in [1, 5, 600_007] {
            let large = &bytes[..20_000];
            let mut one = vec![large[0], 0xb0, 0x6d];
            one.extend_from_slice(&large[4..]);
            one.truncate(3 + (0x6d << 7 | 0x30));
            trickle(&mut world, client, &one, piece_size, 0);
            world.settle();
            let count = usize::from(qos != QoS::AtMostOnce);
            assert_eq!(world.received(client).len(), count, "{qos:?}, {piece_size}");
        }
        assert_eq!(world.shards[0].counters().refused_by_size, 4);
        assert!(world.is_open(client));
        // A trickle of one is ended by its keep alive, and one that takes too long as any other.
        world.send_bytes(client, start);
        world.settle();
        pass_ms(&mut world, 1_500);
        assert!(!world.is_open(client));
        let client = connect(&mut world, "c", V311, 10);
        let took_ms = trickle(&mut world, client, start, 2_000, 1_000);
        assert!((20_000..=22_000).contains(&took_ms), "{took_ms} ms");
        assert_eq!(world.shards[0].counters().packets_timed_out, 1);
    }
}

#[test]
fn who_reads_no_answers_gets_so_many_and_is_not_read_any_more() {
    let limits = Limits { packet_size_max: 256, output_size_max: 1_000, ..quiet() };
    let mut world = World::new(1, limits);
    let client = connect(&mut world, "c", V311, 0);
    world.set_stuck(client, true);
    let large = publish(V311, 300);
    for _ in 0..20 {
        world.send_bytes(client, &large.repeat(100));
        world.settle();
    }
    let gauges = world.shards[0].gauges();
    assert!((1_000..3_000).contains(&gauges.output_bytes), "{gauges:?}");
    assert_eq!(world.shards[0].counters().parked_on_output, 1);
    world.set_stuck(client, false);
    world.settle();
    assert_eq!(world.received(client).len(), 2_000, "and goes on when it reads");
}
