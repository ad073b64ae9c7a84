//! Messages that come in one read, worked on in runs, against the same ones that come one by one.

use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{
    ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, put_user_property,
};
use ringmq::limits::{Limits, Sizes};
use ringmq::random::Random;
use ringmq::shard::Counters;

const TOPICS: [&str; 4] = ["a/b", "a/longer-than-eight", "$SYS/mine", "z"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const SIZES: [usize; 7] = [0, 1, 20, 110, 140, 700, 5_000];

/// Frames of one publisher that mostly repeat the one before, and how many do.
fn frames(random: &mut Random, version: ProtocolVersion) -> (Vec<Vec<u8>>, usize) {
    let mut sections = [Vec::new(), Vec::new(), Vec::new()];
    put_user_property(&mut sections[1], "name", "value");
    put_user_property(&mut sections[2], "name", &"v".repeat(150));
    let (mut topic, mut section, mut size, mut repeat_count) = (0, 0, 1, 0);
    let mut qos = QOS[random.below(3) as usize];
    let mut frames = Vec::new();
    for number in 0..random.below(120) {
        let mut is_repeat = number > 0;
        let mut changes = |random: &mut Random, below| {
            let is_changed = random.below(below) == 0;
            is_repeat &= !is_changed;
            is_changed
        };
        if changes(random, 10) {
            topic = random.below(4) as usize;
        }
        if changes(random, 12) {
            section = random.below(3) as usize;
        }
        if changes(random, 20) {
            qos = QOS[random.below(3) as usize];
        }
        let dup = qos != QoS::AtMostOnce && changes(random, 20);
        // Some ids come twice, which at QoS 2 means the same message.
        let packet_id =
            number as u16 + 1 - if random.below(15) == 0 { number as u16 / 2 } else { 0 };
        let retain = changes(random, 20);
        let has_expiry = version == V5 && changes(random, 20);
        let alias = (version == V5 && changes(random, 20)).then_some(random.below(3) as u16);
        if random.below(3) == 0 {
            size = SIZES[random.below(7) as usize];
        }
        repeat_count += usize::from(is_repeat);
        let mut payload = vec![b'.'; size];
        payload.iter_mut().zip(number.to_string().bytes()).for_each(|(to, from)| *to = from);
        let publish = Publish {
            dup,
            qos,
            retain,
            topic: TOPICS[topic],
            packet_id: PacketId::new(packet_id).filter(|_| qos != QoS::AtMostOnce),
            topic_alias: alias,
            message_expiry_s: has_expiry.then_some(9),
            properties: ForwardedProperties::from_raw(&sections[section]),
            payload: &payload,
            ..Publish::default()
        };
        let mut frame = Vec::new();
        Packet::Publish(publish).encode(version, &mut frame);
        frames.push(frame);
    }
    if random.below(8) == 0
        && let Some(frame) = frames.last_mut()
    {
        // DUP at QoS 0, a reserved QoS, no packet id, a topic or properties that cannot be, a size that is not there.
        let place = random.below(frame.len().min(12) as u64) as usize;
        frame[place] ^= 1 << random.below(8);
    }
    (frames, repeat_count)
}

fn subscribe(
    world: &mut World,
    client: usize,
    filter: &str,
    qos: QoS,
    (no_local, subscription_id): (bool, Option<u32>),
) {
    let options = SubscriptionOptions {
        qos,
        no_local,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    let list = [(filter, options)];
    let subscribe = Subscribe {
        packet_id: PacketId::new(77).unwrap(),
        subscription_id,
        user_properties: Default::default(),
        filters: SubscribeFilters::from_list(&list),
    };
    world.send(client, &Packet::Subscribe(subscribe));
}

/// What all clients and the counters have after the frames came in reads of so many.
fn outcome(seed: u64, in_a_read: usize) -> (Vec<String>, usize) {
    let mut random = Random::new(seed);
    let limits = Limits {
        packet_size_max: 6_000,
        large_message_size: 4_000,
        output_size_max: [700, 6_000, 64 << 10][random.below(3) as usize],
        shard_output_bytes_max: [70 << 10, 1 << 20][random.below(2) as usize],
        queue_messages_max: 40,
        receive_max: [10, 65_535][random.below(2) as usize],
        inflight_max: [30, 1_024][random.below(2) as usize],
        topic_alias_max: 2,
        ..quiet()
    };
    // Where its answers fill its output, what it gets of its own depends on the order of both.
    let hears_itself = random.below(3) == 0 && limits.output_size_max > 6_000;
    let shard_count = 1 + random.below(2) as u16;
    let sizes = Sizes { arena_size: 32 << 10, arena_slots: 64, ..Sizes::default() };
    let mut world = World::sized(shard_count, sizes, limits);
    let version = [ProtocolVersion::V311, V5][random.below(2) as usize];
    let publisher = world.connect("publisher", |connect| connect.version = version);
    for number in 0..random.below(6) {
        let size_max = [None, Some(64), Some(3_000)][random.below(3) as usize];
        let alias_max = [0, 0, 0, 2][random.below(4) as usize];
        let version = [ProtocolVersion::V311, V5][random.below(2) as usize];
        let client = world.connect(&format!("s{number}"), |connect| {
            connect.version = version;
            if version == V5 {
                connect.packet_size_max = size_max;
                connect.topic_alias_max = alias_max;
                connect.session_expiry_s = (random.below(2) == 0).then_some(60);
            }
            connect.clean_start &= random.below(3) > 0;
        });
        let filter = ["#", "a/+", "a/b", "$share/g/#"][random.below(4) as usize];
        let qos = QOS[random.below(3) as usize];
        let id = (version == V5 && random.below(4) == 0).then_some(300);
        subscribe(&mut world, client, filter, qos, (false, id));
        world.set_stuck(client, random.below(5) == 0);
    }
    if hears_itself {
        let no_local = version == V5 && random.below(2) == 0;
        subscribe(&mut world, publisher, "#", QoS::AtMostOnce, (no_local, None));
    }
    world.settle();
    let (frames, repeat_count) = frames(&mut random, version);
    let mut rest = frames.as_slice();
    while !rest.is_empty() && world.is_open(publisher) {
        let (read, later) = rest.split_at(in_a_read.min(rest.len()));
        world.send_bytes(publisher, &read.concat());
        rest = later;
    }
    world.settle();
    for client in 0..world.client_count() {
        world.set_stuck(client, false);
    }
    world.settle();
    let mut outcome = Vec::new();
    for client in 0..world.client_count() {
        world.packets(client, |packet| outcome.push(format!("{client}: {packet:?}")));
    }
    for shard in &mut world.shards {
        // What comes at once costs less.
        let counters = Counters { steps: 0, delivery_steps: 0, ..shard.counters().clone() };
        outcome.push(format!("{counters:?}"));
    }
    (outcome, repeat_count)
}

#[test]
fn what_comes_at_once_is_what_comes_one_by_one() {
    let mut repeats = 0;
    for seed in 0..600 {
        let (expected, repeat_count) = outcome(seed, 1);
        let found = outcome(seed, usize::MAX).0;
        let differs = expected.iter().zip(&found).position(|(one, other)| one != other);
        let at = |lines: &[String]| differs.and_then(|place| lines.get(place).cloned());
        assert!(
            differs.is_none() && found.len() == expected.len(),
            "seed {seed}: one by one {} lines, {:?}; at once {} lines, {:?}",
            expected.len(),
            at(&expected),
            found.len(),
            at(&found)
        );
        repeats += repeat_count;
    }
    assert!(repeats > 10_000, "{repeats}");
}

#[test]
fn a_long_run_is_encoded_once_for_all_of_a_version_and_gone_when_it_was_sent() {
    const COUNT: usize = 200;
    let mut world = World::new(1, quiet());
    let publisher = world.connect("publisher", |_| ());
    let versions = [ProtocolVersion::V311, V5, ProtocolVersion::V311, V5, V5];
    let readers = versions.map(|version| {
        let name = format!("s{}", world.client_count());
        let client = world.connect(&name, |connect| {
            connect.version = version;
            // The last one takes no packet as large as a run, and each message of it.
            let is_last = name == "s5";
            connect.packet_size_max = is_last.then_some(150);
        });
        subscribe(&mut world, client, "t", QoS::AtMostOnce, (false, None));
        client
    });
    world.settle();
    let mut bytes = Vec::new();
    let payloads: Vec<String> = (0..COUNT).map(|number| format!("{number:0100}")).collect();
    for payload in &payloads {
        let publish = Publish { topic: "t", payload: payload.as_bytes(), ..Publish::default() };
        Packet::Publish(publish).encode(V5, &mut bytes);
    }
    readers.iter().for_each(|&client| world.set_stuck(client, true));
    world.send_bytes(publisher, &bytes);
    world.settle();
    // One copy for each version.
    let stored = world.shards[0].gauges().stored_bytes;
    assert!(
        (bytes.len() * 19 / 10..bytes.len() * 21 / 10).contains(&stored),
        "{stored} bytes are stored"
    );
    readers.iter().for_each(|&client| world.set_stuck(client, false));
    world.settle();
    let expected: Vec<String> = payloads.iter().map(|payload| format!("t={payload}")).collect();
    for client in readers {
        assert_eq!(world.messages(client), expected, "{client}");
    }
    assert_eq!(world.shards[0].gauges().stored_bytes, 0);
}
