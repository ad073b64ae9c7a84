//! Budgets under attack: what strangers may make a shard hold, and who loses when it is too much.

use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{self, Connect, Packet, PacketId, Publish, QoS, ReasonCode};
use ringmq::limits::{Limits, QueuePolicy, Sizes};

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
    world.now = world.now.plus_ms(1_000);
    let others = ["other", "third"].map(|name| world.connect(name, |_| ()));
    assert_eq!(others.map(|other| world.is_open(other)), [true, true]);
    assert_eq!(silent.map(|silent| world.is_open(silent)), [false, false]);
    assert_eq!(world.shards[0].counters().connects_displaced, 2);
    // Now all are clients, and none of them has to go.
    let fourth = world.dial(V5);
    world.settle();
    assert_eq!([client, others[0], fourth].map(|c| world.is_open(c)), [true, true, false]);
}

/// On a network a CONNECT comes a while behind its connection, and others come in between.
#[test]
fn newcomers_of_several_addresses_do_not_displace_each_other_before_their_connects_can_arrive() {
    let mut world = World::new(1, Limits { connections_max: 3, ..quiet() });
    let client = world.connect("client", |_| ());
    let waiting = ["10.0.0.1:1", "10.0.0.2:1"].map(|peer| world.dial_from(peer));
    world.settle();
    for number in 3..10 {
        world.now = world.now.plus_ms(100);
        let late = world.dial_from(&format!("10.0.0.{number}:1"));
        world.settle();
        assert_eq!(
            [client, waiting[0], waiting[1], late].map(|c| world.is_open(c)),
            [true, true, true, false]
        );
    }
    // Now they have had time.
    world.now = world.now.plus_ms(1_000);
    let late = world.dial_from("10.0.0.99:1");
    world.settle();
    assert_eq!([waiting[0], waiting[1], late].map(|c| world.is_open(c)), [false, true, true]);
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

#[test]
fn who_reads_gets_its_messages_though_the_absent_fill_the_store() {
    let mut world = World::sized(1, small_sizes(), small_store());
    let publisher = world.connect("p", |_| ());
    fill_with_the_absent(&mut world, publisher);
    let reader = world.connect("reader", |c| c.session_expiry_s = Some(600));
    world.subscribe(reader, "news", QoS::AtLeastOnce);
    world.settle();
    world.received(reader);
    for number in 0..300 {
        world.publish(publisher, "news", &[b'n'; 100], QoS::AtLeastOnce, 1 + number);
        world.settle();
    }
    assert_eq!(world.messages(reader).len(), 300);
}

pub(crate) fn small_sizes() -> Sizes {
    Sizes { arena_size: 64 << 10, ..Sizes::default() }
}

pub(crate) fn small_store() -> Limits {
    Limits {
        packet_size_max: 16 << 10,
        large_message_size: 16 << 10,
        queue_bytes_max: 128 << 10,
        group_bytes_max: 128 << 10,
        shard_stored_bytes_max: 1 << 20,
        ..quiet()
    }
}

/// 20 lasting sessions whose clients are away, and for each 70 KB of messages of its own.
fn fill_with_the_absent(world: &mut World, publisher: usize) {
    for number in 0..20 {
        let away = world.connect(&format!("away{number}"), |c| c.session_expiry_s = Some(600));
        world.subscribe(away, &format!("bulk/{number}"), QoS::AtLeastOnce);
        world.lose(away);
    }
    for round in 0..7u16 {
        for number in 0..20u16 {
            let topic = format!("bulk/{number}");
            let id = 1000 + round * 20 + number;
            world.publish(publisher, &topic, &[b'b'; 10_000], QoS::AtLeastOnce, id);
            world.settle();
        }
    }
    assert_eq!(world.received(publisher).len(), 141);
}

/// Reads what has come and acknowledges it; the payloads.
pub(crate) fn take_all(world: &mut World, client: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut acks = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Publish(publish) = packet {
            payloads.push(publish.payload.to_vec());
            let id = publish.packet_id.expect("it is of QoS 1");
            codec::encode_puback(V5, id, ReasonCode::Success, &mut acks);
        }
    });
    if !acks.is_empty() {
        world.send_bytes(client, &acks);
    }
    world.settle();
    payloads
}

pub(crate) fn numbered(number: u16) -> Vec<u8> {
    let mut payload = vec![b'x'; 10_000];
    payload[..2].copy_from_slice(&number.to_be_bytes());
    payload
}

fn number_of(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}

#[test]
fn of_the_absent_those_that_hold_most_lose_first_and_by_the_policy() {
    for policy in [QueuePolicy::DropNewest, QueuePolicy::DropOldest] {
        let mut world =
            World::sized(1, small_sizes(), Limits { queue_policy: policy, ..small_store() });
        let publisher = world.connect("p", |_| ());
        let names: Vec<String> = (0..18).map(|number| format!("small{number}")).collect();
        for name in names.iter().map(String::as_str).chain(["hoarder"]) {
            let away = world.connect(name, |c| c.session_expiry_s = Some(600));
            world.subscribe(away, name, QoS::AtLeastOnce);
            world.lose(away);
        }
        let mut id = 0;
        let mut publish = |world: &mut World, topic: &str, count: u16| {
            for number in 0..count {
                id += 1;
                world.publish(publisher, topic, &numbered(number), QoS::AtLeastOnce, id);
                world.settle();
            }
        };
        publish(&mut world, "hoarder", 12);
        names.iter().for_each(|name| publish(&mut world, name, 4));
        // 120 KB and 18 times 40 KB: that is more than three quarters of 1 MiB.
        let limits = small_store();
        let gauges = world.shards[0].gauges();
        assert!(gauges.stored_bytes <= limits.shard_stored_bytes_max * 3 / 4, "{gauges:?}");
        let lost = world.shards[0].counters().dropped_stored_full;
        let loser = world.shards[0].take_loser().expect("somebody lost");
        assert_eq!(&*loser.client_id, "hoarder");
        for name in &names {
            let back = world.connect(name, |c| {
                c.session_expiry_s = Some(600);
                c.clean_start = false;
            });
            assert_eq!(take_all(&mut world, back).len(), 4, "{name} held little");
        }
        let back = world.connect("hoarder", |c| {
            c.session_expiry_s = Some(600);
            c.clean_start = false;
        });
        let kept: Vec<u16> =
            take_all(&mut world, back).iter().map(|payload| number_of(payload)).collect();
        assert!(lost > 0 && kept.len() as u64 + lost == 12, "{lost} lost, {kept:?} kept");
        let expected: Vec<u16> = match policy {
            QueuePolicy::DropNewest => (0..kept.len() as u16).collect(),
            QueuePolicy::DropOldest => (lost as u16..12).collect(),
        };
        assert_eq!(kept, expected);
        assert_eq!(world.shards[0].gauges().absent_bytes, 0);
    }
}

/// A reader whose network stands still, and a publisher; their shards are one or two.
pub(crate) fn reader_and_publisher(shard_count: u16, limits: Limits) -> (World, usize, usize) {
    let limits = Limits { queue_bytes_max: 1 << 20, ..limits };
    let sizes = Sizes { mail_bytes_mark: 64 << 10, ..small_sizes() };
    let mut world = World::sized(shard_count, sizes, limits);
    let reader = world.client_with(0, "r", |c| c.session_expiry_s = Some(600));
    let publisher = world.client_on(usize::from(shard_count) - 1, "p");
    world.subscribe(reader, "t", QoS::AtLeastOnce);
    world.settle();
    world.received(reader);
    world.received(publisher);
    world.set_stuck(reader, true);
    (world, reader, publisher)
}

#[test]
fn publishers_wait_while_clients_that_read_fill_what_is_theirs() {
    for shard_count in [1, 2] {
        let (mut world, reader, publisher) = reader_and_publisher(shard_count, small_store());
        for number in 0..200 {
            world.publish(publisher, "t", &numbered(number), QoS::AtLeastOnce, number + 1);
            world.settle();
        }
        let gauges = world.shards[0].gauges();
        assert!(gauges.store_is_blocking && gauges.stored_bytes <= 1 << 20, "{gauges:?}");
        let mut answered = world.received(publisher).len();
        assert!((80..110).contains(&answered), "{answered} were taken");
        world.set_stuck(reader, false);
        world.settle();
        let mut got = Vec::new();
        for _ in 0..20 {
            got.extend(take_all(&mut world, reader).iter().map(|payload| number_of(payload)));
        }
        answered += world.received(publisher).len();
        assert_eq!((answered, got), (200, (0..200).collect()), "on {shard_count} shards");
        assert_eq!(world.shards[0].counters().dropped_stored_full, 0);
        assert!(world.shards.iter().all(|shard| !shard.gauges().store_is_blocking));
    }
}

#[test]
fn who_takes_nothing_does_not_hold_publishers_for_long() {
    for (is_stuck, shard_count) in [(false, 1), (true, 1), (true, 2)] {
        let (mut world, slow, publisher) = reader_and_publisher(shard_count, small_store());
        // Either what it got is never acknowledged, or its network stands still.
        world.set_stuck(slow, is_stuck);
        let other = world.client_with(0, "o", |c| c.session_expiry_s = Some(600));
        world.subscribe(other, "t", QoS::AtLeastOnce);
        world.settle();
        world.received(other);
        let mut got = Vec::new();
        for number in 0..200 {
            world.publish(publisher, "t", &numbered(number), QoS::AtLeastOnce, number + 1);
            world.settle();
            got.extend(take_all(&mut world, other).iter().map(|payload| number_of(payload)));
        }
        assert!(got.len() < 150, "publishers wait at first");
        for _ in 0..20 {
            world.now = world.now.plus_ms(1_000);
            world.settle();
            got.extend(take_all(&mut world, other).iter().map(|payload| number_of(payload)));
        }
        assert_eq!(got, (0..200).collect::<Vec<_>>(), "who reads loses nothing");
        assert_eq!(world.received(publisher).len(), 200);
        assert_eq!(world.is_open(slow), is_stuck);
        assert!(world.shards[0].counters().dropped_stored_full > 0);
    }
}

#[test]
fn who_takes_nothing_and_goes_on_publishing_does_not_hold_the_others() {
    let limits = Limits { queue_bytes_max: 1 << 20, ..small_store() };
    let sizes = Sizes { mail_bytes_mark: 64 << 10, ..small_sizes() };
    let mut world = World::sized(1, sizes, limits);
    let slow = world.client_with(0, "s", |_| ());
    let other = world.client_with(0, "o", |c| c.session_expiry_s = Some(600));
    let publisher = world.client_on(0, "p");
    world.subscribe(slow, "t", QoS::AtMostOnce);
    world.subscribe(other, "t", QoS::AtLeastOnce);
    world.settle();
    for client in [slow, other, publisher] {
        world.received(client);
    }
    world.set_stuck(slow, true);
    let mut got = Vec::new();
    for number in 0..200 {
        world.publish(publisher, "t", &numbered(number), QoS::AtLeastOnce, number + 1);
        world.publish(slow, "elsewhere", b"still here", QoS::AtLeastOnce, number + 1);
        world.settle();
        got.extend(take_all(&mut world, other).iter().map(|payload| number_of(payload)));
    }
    assert!(got.len() < 150, "publishers wait at first");
    for _ in 0..20 {
        world.now = world.now.plus_ms(1_000);
        world.settle();
        got.extend(take_all(&mut world, other).iter().map(|payload| number_of(payload)));
    }
    assert_eq!(got, (0..200).collect::<Vec<_>>(), "who reads loses nothing");
    assert_eq!(world.received(publisher).len(), 200);
}
