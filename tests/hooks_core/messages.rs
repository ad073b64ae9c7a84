//! Messages at their origin and on their way to receivers.

use super::{Got, Scripted, check_released, got, hooked, hooked_sized, quiet, world};
use ringmq::bridge::ForwardIndex;
use ringmq::codec::{
    Ack, ForwardedProperties, Packet, PacketId, Property, ProtocolVersion, Publish, QoS,
    ReasonCode, Will,
};
use ringmq::config::bridge::BridgeSettings;
use ringmq::limits::{Limits, Sizes};
use ringmq::random::Random;
use ringmq::routing::bridge_mail::{FromBridges, InboundBatch, InboundMessage};
use std::sync::Arc;

fn encoded(properties: &[Property<'_>]) -> Vec<u8> {
    let mut raw = Vec::new();
    properties.iter().for_each(|property| property.encode(&mut raw));
    raw
}

const V311: ProtocolVersion = ProtocolVersion::V311;

/// Properties that travel, with one that does not among them.
const CAME_IN: [Property<'static>; 6] = [
    Property::UserProperty("first", "1"),
    Property::UserProperty("same", "a"),
    Property::ContentType("text/plain"),
    Property::UserProperty("same", "b"),
    Property::CorrelationData(&[0, 255]),
    Property::UserProperty("last", ""),
];

fn make_other(message: &mut ringmq::plugin::MessageEdit<'_>) {
    let was: Vec<String> = message.user_properties().map(|(name, _)| name.to_string()).collect();
    let (topic, size) = (format!("out/{}", message.topic()), message.payload().len());
    message.set_topic(&topic).unwrap();
    message.set_payload(format!("{size} bytes").as_bytes()).unwrap();
    message.set_qos(QoS::AtLeastOnce);
    message.set_retain(true);
    message.set_message_expiry_s(Some(60));
    message.replace_user_property("same", "one").unwrap();
    assert_eq!(message.remove_user_property("first"), was.iter().filter(|n| *n == "first").count());
    message.set_content_type(Some("text/html")).unwrap();
    message.add_user_property("seen", &was.join(",")).unwrap();
}

#[test]
fn everybody_gets_what_the_hook_made_and_so_does_the_retained_store() {
    let hooks = Scripted {
        publish: Some(|_, message| {
            make_other(message);
            Ok(())
        }),
        ..Scripted::default()
    };
    let mut world = hooked(3, quiet(), &hooks);
    let made = Got {
        qos: QoS::AtLeastOnce,
        retain: true,
        message_expiry_s: Some(60),
        properties: encoded(&[
            Property::UserProperty("same", "one"),
            Property::ContentType("text/html"),
            Property::CorrelationData(&[0, 255]),
            Property::UserProperty("last", ""),
            Property::UserProperty("seen", "first,same,same,last"),
        ]),
        ..Got::new("out/in", b"5 bytes")
    };
    let old = Got { properties: Vec::new(), message_expiry_s: None, ..made.clone() };
    let mut receivers = Vec::new();
    for shard in 0..3 {
        let new = world.client_on(shard, &format!("new{shard}-"));
        receivers.push((new, made.clone()));
        let three = world.connect(&format!("three{shard}"), |c| c.version = V311);
        // A 3.1.1 client cannot ask for the retain flag as it was published.
        receivers.push((three, Got { retain: false, ..old.clone() }));
    }
    for (client, _) in &receivers {
        world.subscribe(*client, "#", QoS::ExactlyOnce);
        world.settle();
        world.received(*client);
    }
    let publisher = world.client_on(1, "p");
    let raw = encoded(&CAME_IN);
    let publish = Publish {
        qos: QoS::ExactlyOnce,
        packet_id: PacketId::new(4),
        topic: "in",
        payload: b"12345",
        message_expiry_s: Some(9),
        properties: ForwardedProperties::from_raw(&raw),
        ..Publish::default()
    };
    world.received(publisher);
    world.send(publisher, &Packet::Publish(publish));
    world.settle();
    assert_eq!(world.received(publisher), ["PUBREC 4 Success"], "answered as it published");
    for (client, expected) in &receivers {
        assert_eq!(got(&mut world, *client), std::slice::from_ref(expected));
    }
    // Sent again, it is the same message: the hook does not run again.
    world.send(publisher, &Packet::Publish(Publish { dup: true, ..publish }));
    world.settle();
    assert_eq!(hooks.log.borrow().len(), 1, "once for a message, at its origin");
    let late = world.client_on(2, "late");
    world.received(late);
    world.subscribe(late, "out/+", QoS::AtMostOnce);
    world.settle();
    assert_eq!(got(&mut world, late), [Got { qos: QoS::AtMostOnce, ..made }]);
    check_released(&mut world);
}

#[test]
fn what_is_denied_reaches_nobody_and_its_publisher_hears_what_its_version_can_say() {
    let hooks = Scripted {
        publish: Some(|_, message| {
            // What is denied was changed before.
            message.add_user_property("k", "v").unwrap();
            match message.topic() {
                "free" => Ok(()),
                "odd" => Err(ReasonCode::ServerMoved),
                _ => Err(ReasonCode::QuotaExceeded),
            }
        }),
        ..Scripted::default()
    };
    for version in [V311, ProtocolVersion::V5] {
        let mut world = hooked(2, quiet(), &hooks);
        let subscriber = world.client_on(1, "s");
        world.subscribe(subscriber, "#", QoS::ExactlyOnce);
        let publisher = world.connect("p", |c| c.version = version);
        world.settle();
        world.received(subscriber);
        world.received(publisher);
        hooks.log.borrow_mut().clear();
        world.retain(publisher, "no/retained", b"x");
        for (topic, qos, id) in [
            ("no/0", QoS::AtMostOnce, 0),
            ("no/1", QoS::AtLeastOnce, 1),
            ("odd", QoS::AtLeastOnce, 2),
            ("no/2", QoS::ExactlyOnce, 3),
        ] {
            world.publish(publisher, topic, b"x", qos, id);
        }
        let is_told = version == ProtocolVersion::V5;
        let reason = |told: &'static str| if is_told { told } else { "Success" };
        world.settle();
        let expected = [
            format!("PUBACK {}", reason("QuotaExceeded")),
            // What PUBACK cannot carry.
            format!("PUBACK {}", reason("NotAuthorized")),
            format!("PUBREC 3 {}", reason("QuotaExceeded")),
        ];
        assert_eq!(world.received(publisher), expected, "{version:?}");
        assert!(world.is_open(publisher), "QoS 0 is dropped in silence");
        // A 5.0 client may use the packet id for something else, a 3.1.1 client sends the same again and then PUBREL.
        let topic = if is_told { "free" } else { "no/2" };
        world.publish(publisher, topic, b"y", QoS::ExactlyOnce, 3);
        world.settle();
        assert_eq!(world.received(publisher), ["PUBREC 3 Success"]);
        let ack = Ack::new(PacketId::new(3).unwrap(), ReasonCode::Success);
        world.send(publisher, &Packet::Pubrel(ack));
        world.settle();
        assert_eq!(world.received(publisher).len(), 1);
        let calls = hooks.log.borrow().len();
        assert_eq!(calls, if is_told { 6 } else { 5 }, "{version:?}");
        let messages = world.messages(subscriber);
        assert_eq!(messages, if is_told { vec!["free=y"] } else { vec![] });
        assert!(world.shards.iter().all(|shard| shard.gauges().retained_messages == 0));
        let denied: u64 =
            world.shards.iter_mut().map(|shard| shard.counters().publishes_denied).sum();
        assert_eq!(denied, 5);
        check_released(&mut world);
    }
}

#[test]
fn authorization_sees_what_the_hook_made_and_refuses_like_it() {
    let hooks = Scripted {
        publish: Some(|_, message| {
            let topic = format!("made/{}", message.topic());
            message.set_topic(&topic).unwrap();
            Ok(())
        }),
        authorize: Some(|client, message| {
            assert_eq!(client.user_name, Some("user"));
            assert_eq!(client.version, Some(ProtocolVersion::V5));
            match message.topic {
                "made/good" => Ok(()),
                _ => Err(ReasonCode::NotAuthorized),
            }
        }),
        ..Scripted::default()
    };
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("p", |c| c.user_name = Some("user"));
    world.subscribe(client, "#", QoS::AtMostOnce);
    world.settle();
    world.received(client);
    world.publish(client, "good", b"1", QoS::AtLeastOnce, 1);
    world.publish(client, "bad", b"2", QoS::AtLeastOnce, 2);
    world.settle();
    assert_eq!(world.received(client), ["PUBACK Success", "PUBACK NotAuthorized", "made/good=1"]);
    let log = hooks.log.borrow().clone();
    let expected =
        ["publish p good", "authorize p made/good", "publish p bad", "authorize p made/bad"];
    assert_eq!(log, expected);
    check_released(&mut world);
}

#[test]
fn a_payload_that_is_not_what_the_hook_declares_is_denied() {
    let hooks = Scripted {
        publish: Some(|_, message| {
            message.set_payload_format_utf8(Some(true)).unwrap();
            Ok(())
        }),
        ..Scripted::default()
    };
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("p", |_| ());
    world.subscribe(client, "#", QoS::AtMostOnce);
    world.settle();
    world.received(client);
    world.publish(client, "t", b"\xff", QoS::AtLeastOnce, 1);
    world.publish(client, "t", b"ok", QoS::AtLeastOnce, 2);
    world.settle();
    assert_eq!(world.received(client), ["PUBACK PayloadFormatInvalid", "PUBACK Success", "t=ok"]);
    check_released(&mut world);
}

#[test]
fn the_deliver_hook_decides_for_each_receiver_live_retained_and_shared() {
    let hooks = Scripted {
        deliver: Some(|receiver, message| {
            !(receiver.client_id.starts_with("skip") && message.topic.starts_with("secret"))
        }),
        ..Scripted::default()
    };
    for shard_count in [1, 2] {
        let mut world = hooked(shard_count, quiet(), &hooks);
        let last = usize::from(shard_count) - 1;
        let (skipped, other) = (world.client_on(last, "skip"), world.client_on(0, "other"));
        let publisher = world.client_on(last, "p");
        for client in [skipped, other] {
            world.subscribe(client, "#", QoS::AtLeastOnce);
            world.settle();
            world.received(client);
        }
        world.retain(publisher, "secret/1", b"x");
        world.publish(publisher, "plain", b"y", QoS::AtMostOnce, 0);
        world.settle();
        assert_eq!(world.messages(skipped), ["plain=y"]);
        assert_eq!(world.messages(other), ["secret/1=x retained", "plain=y"]);
        // Retained, from whatever shard.
        for number in 0..20 {
            world.retain(publisher, &format!("secret/r{number}"), b"x");
            world.retain(publisher, &format!("plain/r{number}"), b"x");
        }
        world.settle();
        world.received(other);
        world.received(skipped);
        for (client, count) in [(skipped, 20), (other, 41)] {
            world.subscribe(client, "#", QoS::AtMostOnce);
            world.settle();
            let messages = world.messages(client);
            assert_eq!(messages.len(), count, "{messages:?}");
            assert!(client == other || messages.iter().all(|m| m.starts_with("plain")));
            world.unsubscribe(client, "#");
            world.settle();
            world.received(client);
        }
        // A group's message is lost to a member that may not have it; its place is free again.
        for filter in ["$share/a/secret/#", "$share/bb/secret/#", "$share/ccc/secret/#"] {
            world.subscribe(skipped, filter, QoS::AtMostOnce);
        }
        world.settle();
        world.received(skipped);
        for _ in 0..300 {
            world.publish(publisher, "secret/s", b"x", QoS::AtMostOnce, 0);
            world.settle();
        }
        assert!(world.messages(skipped).is_empty());
        assert!(world.shards.iter().all(|shard| shard.gauges().group_backlog == 0));
        let skips: u64 =
            world.shards.iter_mut().map(|shard| shard.counters().deliveries_skipped).sum();
        assert_eq!(skips, 1 + 20 + 20 + 1 + 900);
        check_released(&mut world);
    }
}

#[test]
fn a_will_meets_the_hooks_with_all_that_is_known_of_its_client() {
    let hooks = Scripted {
        publish: Some(|client, message| {
            assert_eq!(client.user_name, Some("user"));
            message.add_user_property("of", client.client_id).unwrap();
            message.set_payload(b"changed").unwrap();
            if client.client_id == "denied" { Err(ReasonCode::NotAuthorized) } else { Ok(()) }
        }),
        ..Scripted::default()
    };
    let mut world = hooked(2, quiet(), &hooks);
    let subscriber = world.connect("s", |_| ());
    world.subscribe(subscriber, "will/#", QoS::ExactlyOnce);
    world.settle();
    world.received(subscriber);
    let raw: &'static [u8] = encoded(&CAME_IN).leak();
    // At the end of a session, behind one that stays, after a delay, and denied.
    let cases = [("ended", 0, 0), ("stays", 100, 0), ("later", 100, 5), ("denied", 0, 0)];
    for (client_id, expiry_s, delay_s) in cases {
        let client = world.connect(client_id, |c| {
            c.user_name = Some("user");
            c.session_expiry_s = Some(expiry_s);
            c.will = Some(Will {
                topic: "will/t",
                payload: b"gone",
                qos: QoS::AtLeastOnce,
                delay_s,
                properties: ForwardedProperties::from_raw(raw),
                ..Will::default()
            });
        });
        world.lose(client);
        world.settle();
        if delay_s > 0 {
            assert!(got(&mut world, subscriber).is_empty());
            world.now = world.now.plus_s(delay_s.into());
            world.settle();
        }
        let messages = got(&mut world, subscriber);
        if client_id == "denied" {
            assert!(messages.is_empty());
            continue;
        }
        let mut properties = raw.to_vec();
        properties.extend(encoded(&[Property::UserProperty("of", client_id)]));
        let expected = Got { qos: QoS::AtLeastOnce, properties, ..Got::new("will/t", b"changed") };
        assert_eq!(messages, [expected], "{client_id}");
    }
    check_released(&mut world);
}

/// What the hook of the next test makes of the `n`th message is a function of its payload: two bytes of number, one
/// that says what to do, one that says how much.
fn by_payload(
    message: &mut ringmq::plugin::MessageEdit<'_>,
    room: usize,
) -> Result<(), ReasonCode> {
    let (what, amount) = (message.payload()[2], usize::from(message.payload()[3]));
    match what % 6 {
        0 => return Err(ReasonCode::NotAuthorized),
        1 => {}
        2 => {
            let mut payload = message.payload().to_vec();
            payload.resize(4 + amount * room / 256, what);
            message.set_payload(&payload).unwrap();
        }
        // Refused where the message would be too large; the message then stays as it is.
        3 => drop(message.add_user_property("k", &"v".repeat(amount * room / 512))),
        4 => {
            let topic = format!("t/{}", "x".repeat(amount / 4));
            message.set_topic(&topic).unwrap();
        }
        _ => {
            let payload = message.payload()[..4].to_vec();
            message.set_payload(&payload).unwrap();
            message.set_payload_format_utf8(Some(false)).unwrap();
        }
    }
    Ok(())
}

const ROOM: usize = 380;

#[test]
fn in_a_tiny_arena_every_message_meets_its_hook_once_and_arrives_whole_in_order() {
    let sizes = Sizes { arena_size: 2048, arena_slots: 16, ..Sizes::default() };
    let limits =
        Limits { packet_size_max: 512, large_message_size: 200, filter_size_max: 100, ..quiet() };
    let hooks =
        Scripted { publish: Some(|_, message| by_payload(message, ROOM)), ..Scripted::default() };
    let mut random = Random::new(5);
    for shard_count in [1, 2] {
        let mut world = hooked_sized(shard_count, sizes.clone(), limits.clone(), &hooks);
        hooks.log.borrow_mut().clear();
        let subscriber = world.client_on(usize::from(shard_count) - 1, "s");
        world.subscribe(subscriber, "t/#", QoS::ExactlyOnce);
        world.settle();
        world.received(subscriber);
        let publisher = world.client_on(0, "p");
        let (mut expected, mut seen, mut sent_count) = (Vec::new(), Vec::new(), 0);
        let mut denied_count = 0;
        for _ in 0..300 {
            let mut bytes = Vec::new();
            // Many in one read: the ring fills, wraps and is emptied by the hook's need for room.
            for _ in 0..1 + random.below(12) {
                let (what, amount) = (random.number() as u8, random.number() as u8);
                let mut payload = vec![(sent_count >> 8) as u8, sent_count as u8, what, amount];
                payload.resize(4 + random.below(ROOM as u64) as usize, 9);
                let publish = Publish { topic: "t/a", payload: &payload, ..Publish::default() };
                Packet::Publish(publish).encode(world::V5, &mut bytes);
                sent_count += 1;
                match model(&payload) {
                    Some(got) => expected.push(got),
                    None => denied_count += 1,
                }
            }
            world.send_bytes(publisher, &bytes);
            world.settle();
            seen.extend(got(&mut world, subscriber));
        }
        assert_eq!(hooks.log.borrow().len(), sent_count);
        assert_eq!(seen.len(), expected.len());
        for (seen, expected) in seen.iter().zip(&expected) {
            assert_eq!(seen, expected);
        }
        assert!(denied_count > 100 && expected.iter().any(|got| got.payload.len() > 350));
        check_released(&mut world);
        assert_eq!(world.shards[0].counters().publishes_denied, denied_count);
    }
}

/// What `by_payload` should make of a message with this payload.
fn model(payload: &[u8]) -> Option<Got> {
    let (what, amount) = (payload[2], usize::from(payload[3]));
    let mut made = Got::new("t/a", payload);
    match what % 6 {
        0 => return None,
        1 => {}
        2 => made.payload.resize(4 + amount * ROOM / 256, what),
        3 => {
            let value = "v".repeat(amount * ROOM / 512);
            let properties = encoded(&[Property::UserProperty("k", &value)]);
            // Header, sizes, packet identifier and expiry are reserved.
            if made.topic.len() + properties.len() + payload.len() + 18 <= 512 {
                made.properties = properties;
            }
        }
        4 => made.topic = format!("t/{}", "x".repeat(amount / 4)),
        _ => {
            made.payload.truncate(4);
            made.properties = encoded(&[Property::PayloadFormat(false)]);
        }
    }
    Some(made)
}

#[test]
fn what_a_bridge_brings_in_meets_the_hooks_and_bridges_get_what_they_made() {
    let hooks = Scripted {
        publish: Some(|client, message| {
            assert!(client.version.is_none() && client.client_id == "second");
            message.add_user_property("k", "v").unwrap();
            match message.topic() {
                "bad" => Err(ReasonCode::NotAuthorized),
                _ => Ok(()),
            }
        }),
        ..Scripted::default()
    };
    let mut world = hooked(2, quiet(), &hooks);
    let subscriber = world.client_on(1, "s");
    world.subscribe(subscriber, "#", QoS::ExactlyOnce);
    world.settle();
    world.received(subscriber);
    let bridges = ["first", "second"].map(BridgeSettings::new);
    let rules = Arc::new(ForwardIndex::compile(&bridges).expect("good rules"));
    world.shards.iter_mut().for_each(|shard| shard.set_bridges(rules.clone()));
    let mut messages = InboundBatch::default();
    for (number, topic) in [(1, "good"), (2, "bad"), (3, "good")] {
        messages.push(&InboundMessage {
            number,
            topic,
            properties: &[],
            payload: b"in",
            qos: 1,
            retain: false,
            expires_at: None,
        });
    }
    world.send_from_bridges(0, FromBridges::Publish { bridge: 1, messages });
    world.settle();
    let made = Got {
        qos: QoS::AtLeastOnce,
        properties: encoded(&[Property::UserProperty("k", "v")]),
        ..Got::new("good", b"in")
    };
    assert_eq!(got(&mut world, subscriber), [made.clone(), made]);
    // What was denied is acknowledged to the remote like the others.
    let taken = format!("{:?}", world.take_to_bridges());
    assert!(taken.contains("numbers: [1, 2, 3]"), "{taken}");
    check_released(&mut world);
}

#[test]
fn hooks_hear_when_more_than_a_message_stands_between_two_calls() {
    let hooks = Scripted { publish: Some(|_, _| Ok(())), says_pauses: true, ..Scripted::default() };
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("p", |_| {});
    let large = vec![0; 65 << 10];
    let send = |world: &mut world::World, topics: &[&str]| {
        let mut bytes = Vec::new();
        for topic in topics {
            let publish =
                |payload| Packet::Publish(Publish { topic, payload, ..Publish::default() });
            match *topic {
                "" => Packet::Pingreq.encode(world::V5, &mut bytes),
                "large" => publish(&large[..]).encode(world::V5, &mut bytes),
                _ => publish(b"").encode(world::V5, &mut bytes),
            }
        }
        hooks.log.borrow_mut().clear();
        world.send_bytes(client, &bytes);
        world.settle();
        hooks.log.borrow().join(", ")
    };
    let said = send(&mut world, &["a", "b", "", "c"]);
    assert_eq!(said, "pause, publish p a, publish p b, pause, publish p c");
    let said = send(&mut world, &["a", "large", "b"]);
    assert_eq!(said, "pause, publish p a, pause, publish p large, pause, publish p b");
    world.settle();
    check_released(&mut world);
}

#[test]
fn what_a_hook_holds_is_done_to_the_next_messages_of_the_client_on_the_topic() {
    let hooks = Scripted {
        publish: Some(|client, message| {
            let topic = message.topic().to_owned();
            message.pledge();
            match topic.as_str() {
                "none" => {}
                // More than properties are appended: to be asked for each.
                "other" => message.set_qos(QoS::AtLeastOnce),
                _ => {
                    let by = format!("{}-{topic}", client.client_id);
                    let added = message.add_user_property("by", &by);
                    return added.map_err(|_| ReasonCode::QuotaExceeded);
                }
            }
            Ok(())
        }),
        ..Scripted::default()
    };
    let mut world = hooked(2, quiet(), &hooks);
    let subscriber = world.client_on(1, "s");
    world.subscribe(subscriber, "#", QoS::ExactlyOnce);
    let clients = ["p", "q"].map(|id| world.connect(id, |_| {}));
    world.settle();
    world.received(subscriber);
    let raw = encoded(&[Property::UserProperty("own", "1")]);
    let large = vec![b'x'; Limits::default().packet_size_max - 25];
    let mut expected = Vec::new();
    let mut send = |world: &mut world::World, number: usize, sent: &[(&str, bool, &[u8])]| {
        let mut bytes = Vec::new();
        for &(topic, has_own, payload) in sent {
            let own = if has_own { &raw[..] } else { &[] };
            let properties = ForwardedProperties::from_raw(own);
            let publish = Publish { topic, payload, properties, ..Publish::default() };
            Packet::Publish(publish).encode(world::V5, &mut bytes);
            let by = format!("{}-{topic}", ["p", "q"][number]);
            let added = encoded(&[Property::UserProperty("by", &by)]);
            let added = if matches!(topic, "none" | "other") { &[] } else { &added[..] };
            // One with which the message would be too large is not taken.
            if payload.len() < large.len() {
                let properties = [own, added].concat();
                let qos = if topic == "other" { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                expected.push(Got { properties, qos, ..Got::new(topic, payload) });
            }
        }
        hooks.log.borrow_mut().clear();
        world.send_bytes(clients[number], &bytes);
        world.settle();
        hooks.log.borrow().join(", ")
    };
    let (a, none, other) = ("a", "none", "other");
    let said = send(&mut world, 0, &[(a, true, b"1"), (a, false, b"2"), (a, true, b"3")]);
    assert_eq!(said, "publish p a, 2 more");
    let said = send(&mut world, 0, &[(a, true, b"4"), ("b", false, b"5"), ("b", true, b"6")]);
    assert_eq!(said, "publish p a, publish p b, 1 more", "a new receive, a new topic");
    for has_own in [true, false] {
        let said =
            send(&mut world, 0, &[(a, has_own, b"r1"), (a, has_own, b"r2"), (a, has_own, b"")]);
        assert_eq!(said, "publish p a, 2 more", "nothing but the payload differs");
    }
    let said = send(&mut world, 1, &[("b", true, b"7"), (none, false, b"8"), (none, true, b"9")]);
    assert_eq!(said, "publish q b, publish q none, 1 more", "another client");
    let said = send(&mut world, 1, &[(other, false, b"10"), (other, true, b"11")]);
    assert_eq!(said, "publish q other, publish q other");
    let said = send(&mut world, 1, &[(a, false, b"12"), (a, false, &large), (a, false, b"13")]);
    assert_eq!(said, "publish q a, publish q a, publish q a", "it may fail for a larger one");
    world.settle();
    assert_eq!(got(&mut world, subscriber), expected);
    check_released(&mut world);
}
