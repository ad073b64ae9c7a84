//! What one client sends costs its shard a bounded number of steps before others get theirs.

use super::*;
use ringmq::codec::{
    RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions, TopicFilters, Unsubscribe,
};
use ringmq::limits::{CALL_STEPS_MAX, PACKET_FILTERS_MAX};

/// Subscribes to all filters, some hundred a packet.
fn subscribe_all(world: &mut World, client: usize, filters: &[String], qos: QoS, id: Option<u32>) {
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    for some in filters.chunks(500) {
        let list: Vec<_> = some.iter().map(|filter| (filter.as_str(), options)).collect();
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).expect("an id"),
            subscription_id: id,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        world.send(client, &Packet::Subscribe(subscribe));
        world.settle();
    }
}

fn most_steps(world: &mut World) -> u64 {
    world.shards.iter_mut().map(|shard| shard.take_call_steps_most()).max().unwrap_or(0)
}

/// A client with 10,000 shared subscriptions and 9,000 messages that wait for it, some of each of many groups; another
/// member of one group.
fn member_of_many(expiry_s: u32) -> (World, usize, Vec<String>) {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    let filters: Vec<String> = (0..10_000).map(|n| format!("$share/g/{n}")).collect();
    let member = world.connect("member", |c| c.session_expiry_s = Some(expiry_s));
    subscribe_all(&mut world, member, &filters, QoS::AtMostOnce, None);
    world.set_stuck(member, true);
    // Fills its output, so that what follows waits for it.
    for _ in 0..8 {
        world.publish(publisher, "0", &[b'x'; 60_000], QoS::AtMostOnce, 0);
        world.settle();
    }
    for number in 0..9_000u16 {
        let topic = number.to_string();
        world.publish(publisher, &topic, b"m", QoS::AtMostOnce, 0);
    }
    world.settle();
    assert!(world.shards[0].gauges().stored_bytes > 9_000 * 32, "the messages wait");
    (world, member, filters)
}

#[test]
fn who_leaves_ten_thousand_groups_costs_its_shard_no_more_than_their_number() {
    for expiry_s in [0, 60] {
        let (mut world, member, _) = member_of_many(expiry_s);
        most_steps(&mut world);
        world.lose(member);
        let most = most_steps(&mut world);
        assert!((9_000..CALL_STEPS_MAX).contains(&most), "the end took {most} steps");
        let gauges = world.shards[0].gauges();
        let expected = if expiry_s == 0 { (0, 0) } else { (10_000, 9_000) };
        assert_eq!((gauges.shared_groups, gauges.group_backlog.min(9_000)), expected);
        // It takes all of its places back.
        world.now = world.now.plus_s(1);
        world.connect("member", |c| c.clean_start = false);
        let most = most_steps(&mut world);
        assert!(most < CALL_STEPS_MAX, "the return took {most} steps");
    }
}

#[test]
fn one_unsubscribe_of_ten_thousand_groups_goes_through_the_queue_a_few_times() {
    let (mut world, member, filters) = member_of_many(60);
    let other = world.connect("other", |_| ());
    world.subscribe(other, &filters[5], QoS::AtMostOnce);
    world.settle();
    world.received(other);
    let list: Vec<&str> = filters.iter().map(String::as_str).collect();
    most_steps(&mut world);
    world.send(
        member,
        &Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::new(2).expect("an id"),
            user_properties: Default::default(),
            filters: TopicFilters::from_list(&list),
        }),
    );
    world.settle();
    let most = most_steps(&mut world);
    assert!((10_000..CALL_STEPS_MAX).contains(&most), "the packet took {most} steps");
    assert_eq!(world.messages(other), ["5=m"], "what waits goes to the other member");
    assert_eq!(world.shards[0].gauges().shared_groups, 1);
    world.set_stuck(member, false);
    world.settle();
    let received = world.received(member);
    assert_eq!(received.last().map(String::as_str), Some("UNSUBACK"));
}

/// All filters of 13 levels that mean one topic, and that topic.
fn overlapping_filters() -> (Vec<String>, String) {
    let levels = 13;
    let filters = (0..1u32 << levels).map(|bits| {
        let level = |n: u32| if bits >> n & 1 == 1 { "+" } else { "a" };
        (0..levels).map(level).collect::<Vec<_>>().join("/")
    });
    (filters.collect(), vec!["a"; levels as usize].join("/"))
}

#[test]
fn a_small_message_does_not_become_a_large_one_by_identifiers() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    let client = world.connect("c", |_| ());
    let (filters, topic) = overlapping_filters();
    let mut reasons: Vec<ReasonCode> = Vec::new();
    for some in filters.chunks(500) {
        subscribe_all(&mut world, client, some, QoS::AtMostOnce, Some(2_097_152));
        world.packets(client, |packet| {
            if let Packet::Suback(suback) = packet {
                reasons.extend(suback.reasons.iter());
            }
        });
    }
    world.publish(publisher, &topic, b"m", QoS::AtMostOnce, 0);
    world.settle();
    let mut id_count = 0;
    world.packets(client, |packet| {
        if let Packet::Publish(publish) = packet {
            id_count += publish.subscription_ids.iter().count();
        }
    });
    assert_eq!(id_count, 256, "the message comes with the identifiers of all subscriptions");
    let granted = reasons.iter().filter(|reason| **reason == ReasonCode::Success).count();
    let refused = reasons.iter().filter(|reason| **reason == ReasonCode::QuotaExceeded).count();
    assert_eq!((granted, refused), (256, filters.len() - 256));
    // Filters of a pattern that is there are no more load, however many they are.
    let devices: Vec<String> = (0..2_000).map(|n| format!("+/{n}/a/a/a/a/a/a/a/a/a/a/a")).collect();
    subscribe_all(&mut world, client, &devices, QoS::AtMostOnce, None);
    assert_eq!(world.shards[0].gauges().subscriptions, 256 + 2_000);
    // What is given up makes room.
    world.unsubscribe(client, &filters[0]);
    world.settle();
    subscribe_all(&mut world, client, &filters[8_000..8_001], QoS::AtMostOnce, None);
    assert_eq!(world.shards[0].gauges().subscriptions, 256 + 2_000);
}

/// SUBSCRIBE of so many filters, each of which comes before all that were given first.
fn subscribe_of(count: usize) -> Vec<u8> {
    let filters: Vec<String> = (0..count).map(|n| format!("{:06}", 199_999 - n)).collect();
    let options = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    let list: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
    let mut bytes = Vec::new();
    let subscribe = Subscribe {
        packet_id: PacketId::new(1).expect("an id"),
        subscription_id: None,
        user_properties: Default::default(),
        filters: SubscribeFilters::from_list(&list),
    };
    subscribe.encode(ProtocolVersion::V5, &mut bytes);
    bytes
}

fn unsubscribe_of(count: usize) -> Vec<u8> {
    let filters: Vec<String> = (0..count).map(|n| format!("{:06}", 199_999 - n)).collect();
    let list: Vec<&str> = filters.iter().map(String::as_str).collect();
    let mut bytes = Vec::new();
    let unsubscribe = Unsubscribe {
        packet_id: PacketId::new(2).expect("an id"),
        user_properties: Default::default(),
        filters: TopicFilters::from_list(&list),
    };
    unsubscribe.encode(ProtocolVersion::V5, &mut bytes);
    bytes
}

/// A client's publishes of so many topics, each of which `receiver_count` others want by all of their overlapping filters.
fn flood(shard_count: u16, receiver_count: usize) -> (World, usize, Vec<usize>, Vec<u8>) {
    let limits = Limits { overlapping_subscriptions_max: 4096, ..quiet() };
    let mut world = World::new(shard_count, limits);
    let filters: Vec<String> = (0..1u32 << 11)
        .map(|bits| {
            let level = |n: u32| if bits >> n & 1 == 1 { "+" } else { "a" };
            format!("{}/+", (0..11).map(level).collect::<Vec<_>>().join("/"))
        })
        .collect();
    let receivers: Vec<usize> = (0..receiver_count)
        .map(|n| {
            let client = world.client_on(usize::from(shard_count) - 1, &format!("r{n}-"));
            subscribe_all(&mut world, client, &filters, QoS::AtMostOnce, None);
            client
        })
        .collect();
    let flooder = world.client_on(0, "flooder");
    world.settle();
    receivers.iter().for_each(|receiver| drop(world.received(*receiver)));
    let mut bytes = Vec::new();
    for number in 0..300 {
        let topic = format!("{}/{number}", ["a"; 11].join("/"));
        let publish = Publish { topic: &topic, payload: b"m", ..Publish::default() };
        publish.encode(ProtocolVersion::V5, &mut bytes);
    }
    (world, flooder, receivers, bytes)
}

#[test]
fn others_get_their_turn_while_one_client_sends_what_costs_much() {
    for shard_count in [1, 2] {
        let (mut world, flooder, receivers, bytes) = flood(shard_count, 40);
        let last = usize::from(shard_count) - 1;
        let asker = world.client_on(last, "asker");
        world.subscribe(asker, "answer", QoS::AtMostOnce);
        world.settle();
        world.received(asker);
        world.send_bytes(flooder, &bytes);
        let (mut most, mut turn_count) = (0, 0);
        let mut got = 0;
        while got < 300 {
            world.publish(asker, "answer", b"x", QoS::AtMostOnce, 0);
            for shard in 0..usize::from(shard_count) {
                let before = world.shards[shard].steps();
                world.turn(shard);
                most = most.max(world.shards[shard].steps() - before);
            }
            turn_count += 1;
            assert!(turn_count < 2_000, "{got} messages in so many turns");
            got += world.messages(receivers[0]).len();
            world.turn(last);
            assert!(!world.messages(asker).is_empty(), "it is answered in each turn");
        }
        // A message to 40 receivers with 2,048 filters each costs some 86,000.
        assert!(most < 2 * 90_000, "a turn took {most} steps on {shard_count} shards");
        assert!(turn_count > 70, "{turn_count} turns");
        world.settle();
        for receiver in &receivers[1..] {
            let expected: Vec<String> =
                (0..300).map(|n| format!("{}/{n}=m", ["a"; 11].join("/"))).collect();
            assert_eq!(world.messages(*receiver), expected, "all arrive, in order");
        }
    }
}

#[test]
fn what_waits_for_its_turn_is_used_though_its_connection_ends_or_is_taken_over() {
    for is_taken_over in [false, true] {
        let (mut world, flooder, receivers, bytes) = flood(1, 25);
        world.send_bytes(flooder, &bytes);
        world.turn(0);
        world.turn(0);
        let first_count = world.messages(receivers[0]).len();
        assert!(first_count < 10, "{first_count} messages in two turns");
        if is_taken_over {
            world.connect("flooder0", |_| ());
        } else {
            world.lose(flooder);
        }
        // One receiver is lost in the middle, one unsubscribes.
        world.lose(receivers[3]);
        world.settle();
        let count = first_count + world.messages(receivers[0]).len();
        assert_eq!(count, 300, "all were used");
        assert_eq!(world.shards[0].gauges().frame_bytes, 0);
    }
}

#[test]
fn a_packet_of_very_many_filters_ends_its_connection_before_any_takes_effect() {
    for count in [PACKET_FILTERS_MAX, PACKET_FILTERS_MAX + 1, 100_000] {
        let is_taken = count <= PACKET_FILTERS_MAX;
        let mut world = World::new(1, quiet());
        let client = world.connect("c", |_| ());
        world.received(client);
        most_steps(&mut world);
        world.send_bytes(client, &subscribe_of(count));
        world.settle();
        let most = most_steps(&mut world);
        assert!(most < CALL_STEPS_MAX, "a SUBSCRIBE of {count} filters took {most} steps");
        let answer = if is_taken { "SUBACK" } else { "DISCONNECT QuotaExceeded" };
        assert_eq!(world.received(client), [answer]);
        assert_eq!(world.shards[0].gauges().subscriptions > 0, is_taken);
        let client = world.connect("d", |c| c.session_expiry_s = Some(60));
        world.send_bytes(client, &subscribe_of(10_000));
        world.settle();
        world.received(client);
        let held = world.shards[0].gauges().subscriptions;
        most_steps(&mut world);
        world.send_bytes(client, &unsubscribe_of(count));
        world.settle();
        let most = most_steps(&mut world);
        assert!(most < CALL_STEPS_MAX, "an UNSUBSCRIBE of {count} filters took {most} steps");
        let answer = if is_taken { "UNSUBACK" } else { "DISCONNECT QuotaExceeded" };
        assert_eq!(world.received(client), [answer]);
        let given_up = held - world.shards[0].gauges().subscriptions;
        assert_eq!(given_up, if is_taken { 10_000 } else { 0 });
    }
}

#[test]
fn who_fetches_few_of_many_retained_messages_takes_no_more_than_a_part_of_a_turn() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    let count = 150_000;
    for number in 0..count {
        // One in each 3,000 is meant: each chunk finds some, and looks at thousands.
        let last = if number % 3_000 == 0 { "x" } else { "y" };
        world.retain(publisher, &format!("{number:06}/{last}"), b"m");
        if number % 1_000 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(world.shards[0].gauges().retained_messages, count);
    let client = world.connect("c", |_| ());
    world.received(client);
    world.subscribe(client, "+/x", QoS::AtMostOnce);
    let (mut most, mut turn_count, mut got) = (0, 0, 0);
    while got < count / 3_000 {
        let before = world.shards[0].steps();
        world.turn(0);
        most = most.max(world.shards[0].steps() - before);
        got += world.messages(client).len();
        turn_count += 1;
        assert!(turn_count < 100, "{got} messages in so many turns");
    }
    assert!(most <= quiet().turn_steps_max + 1_000, "a turn took {most} steps");
    assert!(turn_count >= 3, "{turn_count} turns");
}

#[test]
fn mail_of_one_message_each_leaves_others_their_turn_and_its_senders_wait() {
    let (mut world, flooder, receivers, bytes) = flood(2, 25);
    let mut frames: Vec<&[u8]> = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let size = 2 + usize::from(rest[1]);
        frames.push(&rest[..size]);
        rest = &rest[size..];
    }
    assert_eq!(frames.len(), 300);
    // The first shard has many turns for one of the second.
    for frame in &frames[..60] {
        world.send_bytes(flooder, frame);
        world.turn(0);
    }
    let mut most = 0;
    for _ in 0..10 {
        let before = world.shards[1].steps();
        world.turn(1);
        most = most.max(world.shards[1].steps() - before);
    }
    // A message to 25 receivers with 2,048 filters each costs some 54,000.
    assert!((50_000..2 * 60_000).contains(&most), "a turn took {most} steps");
    assert!(world.shards[1].counters().mail_holds > 0, "the first shard was told to wait");
    world.turn(0);
    frames[60..].iter().for_each(|frame| world.send_bytes(flooder, frame));
    world.turn(0);
    assert_eq!(world.shards[0].counters().parked_on_mail, 1);
    world.settle();
    let expected: Vec<String> =
        (0..300).map(|n| format!("{}/{n}=m", ["a"; 11].join("/"))).collect();
    receivers.iter().for_each(|receiver| assert_eq!(world.messages(*receiver), expected));
}
