//! Clients that connect, subscribe and leave, and what hooks hear of it.

use super::{Scripted, check_released, hooked, quiet};
use ringmq::codec::{Packet, ProtocolVersion, Publish, QoS, ReasonCode};
use ringmq::limits::Limits;
use ringmq::plugin::{HookSet, SessionLimits};

#[test]
fn a_hook_refuses_a_connection_and_sets_the_bounds_of_a_session() {
    let hooks = Scripted {
        connect: Some(|client, connect, limits| {
            assert_eq!(client.version, Some(ProtocolVersion::V5));
            if connect.password != Some(b"secret") {
                return Err(ReasonCode::BadUserNameOrPassword);
            }
            if client.user_name == Some("banned") {
                return Err(ReasonCode::PacketIdentifierInUse);
            }
            assert_eq!((connect.keep_alive_s, connect.session_expiry_s), (0, Some(500)));
            *limits = SessionLimits {
                session_expiry_max_s: Some(50),
                keep_alive_max_s: Some(30),
                inflight_max: Some(1),
                queue_messages_max: Some(2),
                queue_bytes_max: None,
                subscriptions_max: Some(1),
            };
            Ok(())
        }),
        ..Scripted::default()
    };
    let mut world = hooked(2, quiet(), &hooks);
    let client = world.connect("c", |c| c.password = Some(b"wrong"));
    assert_eq!(world.received(client), ["CONNACK BadUserNameOrPassword"]);
    assert!(!world.is_open(client));
    let client = world.connect("c", |c| {
        c.password = Some(b"secret");
        c.user_name = Some("banned");
    });
    assert_eq!(world.received(client), ["CONNACK NotAuthorized"], "not what CONNACK can carry");
    assert_eq!(world.shards.iter().map(|shard| shard.gauges().sessions).sum::<usize>(), 0);

    let client = world.connect("c", |c| {
        c.password = Some(b"secret");
        c.user_name = Some("good");
        c.session_expiry_s = Some(500);
    });
    let mut told = None;
    world.packets(client, |packet| {
        if let Packet::Connack(connack) = packet {
            told = Some((connack.session_expiry_s, connack.server_keep_alive_s));
        }
    });
    assert_eq!(told, Some((Some(50), Some(30))));
    world.subscribe(client, "a", QoS::AtLeastOnce);
    world.subscribe(client, "b", QoS::AtLeastOnce);
    world.settle();
    let mut reasons = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Suback(suback) = packet {
            reasons.extend(suback.reasons.iter());
        }
    });
    assert_eq!(reasons, [ReasonCode::GrantedQoS1, ReasonCode::QuotaExceeded]);
    // One in flight, two in the queue, the rest is dropped.
    let shard = world.shard_of(client);
    for number in 0..5u8 {
        let payload = [b'0' + number];
        world.publish(client, "a", &payload, QoS::AtMostOnce, 0);
        world.publish(client, "a", &payload, QoS::AtLeastOnce, 1 + u16::from(number));
    }
    world.settle();
    // QoS 0 passes while nothing waits.
    assert_eq!(world.messages(client), ["a=0", "a=0", "a=1"]);
    assert!(world.shards[shard].counters().dropped_queue_full > 0);
    world.lose(client);
    world.now = world.now.plus_s(51);
    world.settle();
    assert_eq!(world.shards[shard].gauges().sessions, 0, "ended as the hook said");
    let denied: u64 = world.shards.iter_mut().map(|shard| shard.counters().connects_denied).sum();
    assert_eq!(denied, 2);
    check_released(&mut world);
}

#[test]
fn a_subscription_is_refused_lowered_and_never_raised() {
    let hooks = Scripted {
        subscribe: Some(|_, filter, qos| {
            match filter {
                "low" => *qos = QoS::AtMostOnce,
                "high" => *qos = QoS::ExactlyOnce,
                "no" => return Err(ReasonCode::QuotaExceeded),
                "odd" => return Err(ReasonCode::Success),
                _ => {}
            }
            Ok(())
        }),
        more: HookSet::UNSUBSCRIBE,
        ..Scripted::default()
    };
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("c", |_| ());
    for filter in ["low", "high", "no", "odd", "$share/g/x"] {
        world.subscribe(client, filter, QoS::AtLeastOnce);
    }
    world.settle();
    let mut reasons = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Suback(suback) = packet {
            reasons.extend(suback.reasons.iter());
        }
    });
    let expected = [
        ReasonCode::Success,
        ReasonCode::GrantedQoS1,
        ReasonCode::QuotaExceeded,
        ReasonCode::NotAuthorized,
        ReasonCode::GrantedQoS1,
    ];
    assert_eq!(reasons, expected);
    for topic in ["low", "high", "no", "odd"] {
        world.publish(client, topic, b"x", QoS::AtLeastOnce, 9);
    }
    world.settle();
    assert_eq!(world.messages(client), ["low=x", "high=x"]);
    world.unsubscribe(client, "low");
    world.unsubscribe(client, "no");
    world.settle();
    let log = hooks.log.borrow();
    assert_eq!(log.last().unwrap(), "unsubscribed c low");
    assert_eq!(log.len(), 6);
    assert_eq!(world.shards[0].counters().subscribes_denied, 2);
}

#[test]
fn beginnings_and_ends_are_told_in_their_order() {
    let hooks = Scripted { more: HookSet::EVENTS, ..Scripted::default() };
    let mut world = hooked(1, quiet(), &hooks);
    let lasting = |c: &mut ringmq::codec::Connect<'_>| {
        c.clean_start = false;
        c.session_expiry_s = Some(10);
    };
    world.connect("c", lasting);
    let second = world.connect("c", lasting);
    world.lose(second);
    world.now = world.now.plus_s(11);
    world.settle();
    let expected = [
        "connected c false",
        "taken over c",
        "disconnected c: its client connected again",
        "connected c true",
        "disconnected c: the network connection was closed",
        "ended c",
    ];
    assert_eq!(*hooks.log.borrow(), expected);
}

#[test]
fn dropped_messages_are_told_with_who_what_and_why() {
    let limits =
        Limits { queue_messages_max: 1, inflight_max: 1, retained_messages_max: 1, ..quiet() };
    let hooks = Scripted {
        publish: Some(|_, message| match message.topic() {
            "denied" => Err(ReasonCode::NotAuthorized),
            _ => Ok(()),
        }),
        more: HookSet::DROPS,
        ..Scripted::default()
    };
    let mut world = hooked(1, limits, &hooks);
    let receiver = world.connect("r", |c| {
        c.session_expiry_s = Some(100);
        c.packet_size_max = Some(100);
    });
    world.subscribe(receiver, "in/#", QoS::AtLeastOnce);
    let publisher = world.connect("p", |_| ());
    world.publish(publisher, "denied", b"x", QoS::AtMostOnce, 0);
    world.publish(publisher, "in/large", &[b'x'; 200], QoS::AtMostOnce, 0);
    for topic in ["in/flight", "in/queue", "in/full"] {
        world.publish(publisher, topic, b"x", QoS::AtLeastOnce, 1);
    }
    world.retain(publisher, "kept", b"x");
    world.retain(publisher, "not/kept", b"x");
    world.settle();
    world.lose(receiver);
    world.publish(publisher, "in/away", b"x", QoS::AtMostOnce, 0);
    let expired = Publish {
        topic: "in/expired",
        qos: QoS::AtLeastOnce,
        packet_id: ringmq::codec::PacketId::new(9),
        message_expiry_s: Some(0),
        ..Publish::default()
    };
    world.send(publisher, &Packet::Publish(expired));
    world.settle();
    let told: Vec<String> =
        hooks.log.borrow().iter().filter(|line| line.starts_with("dropped")).cloned().collect();
    let expected = [
        "dropped p denied denied",
        "dropped r in/large too_large",
        "dropped r in/full queue_full",
        "dropped - not/kept retained_full",
        "dropped r in/away offline_qos0",
        "dropped r in/expired expired",
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_tick_comes_once_a_second_and_only_if_somebody_wants_it() {
    for wanted in [HookSet::TICK, HookSet::EMPTY] {
        let hooks = Scripted { more: wanted, ..Scripted::default() };
        let mut world = hooked(1, quiet(), &hooks);
        for _ in 0..100 {
            world.now = world.now.plus_ms(100);
            world.settle();
        }
        assert_eq!(hooks.log.borrow().len(), if wanted == HookSet::TICK { 10 } else { 0 });
    }
}

#[test]
fn hooks_that_nobody_asked_for_are_not_called() {
    let hooks = Scripted::default();
    let mut world = hooked(2, quiet(), &hooks);
    let client = world.connect("c", |c| c.user_name = Some("user"));
    world.subscribe(client, "#", QoS::AtLeastOnce);
    world.settle();
    world.publish(client, "t", b"x", QoS::AtLeastOnce, 1);
    world.unsubscribe(client, "#");
    world.settle();
    world.lose(client);
    world.settle();
    assert!(hooks.log.borrow().is_empty());
    check_released(&mut world);
}
