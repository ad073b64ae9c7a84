//! The link of a bridge against a broker in memory: cut at every point, restarted, and held to what it promises.

mod broker;
mod driver;
mod moody;
mod rules;

use broker::Broker;
use driver::{Driver, Plan};
use ringmq::bridge::{Link, LinkEvent, OutMessage, Sent, Unwanted};
use ringmq::codec::{Connack, Disconnect, Packet, ProtocolVersion, QoS, ReasonCode, next_frame};
use ringmq::config::bridge::{
    BridgeProtocol, BridgeSettings, RemoteAddress, RuleSettings, TopicRule,
};
use ringmq::limits::Limits;
use ringmq::random::Random;
use ringmq::time::Instant;

/// More with `LINK_SEEDS=N`; one with `LINK_SEED=N`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("LINK_SEED"), number("LINK_SEEDS")) {
        (Some(one), _) => one..one + 1,
        (None, count) => 0..count.unwrap_or(60),
    }
}

fn settings(protocol: BridgeProtocol) -> BridgeSettings {
    BridgeSettings {
        addresses: vec![RemoteAddress::parse("remote").unwrap()],
        protocol,
        reconnect_min_ms: 10,
        reconnect_max_ms: 200,
        connect_timeout_ms: 1000,
        ..BridgeSettings::new("test")
    }
}

fn random_protocol(random: &mut Random) -> BridgeProtocol {
    if random.below(2) == 0 { BridgeProtocol::V5 } else { BridgeProtocol::V311 }
}

#[test]
fn what_the_log_holds_arrives_in_order_whatever_is_cut_or_killed() {
    let mut totals = driver::Totals::default();
    for seed in seeds() {
        let mut random = Random::new(seed);
        let packet_size_max = 200 + random.below(300) as usize;
        let limits = Limits {
            receive_max: 1 + random.below(12) as u16,
            packet_size_max,
            topic_alias_max: random.below(3) as u16,
            ..Limits::default()
        };
        let mut settings = settings(random_protocol(&mut random));
        settings.inflight_max = 1 + random.below(20) as u16;
        settings.keep_alive_s = random.below(3) as u16;
        if settings.protocol == BridgeProtocol::V311 {
            settings.packet_size_max = packet_size_max;
        }
        let mut broker = Broker::new(limits);
        let subscriber = broker.connect("subscriber");
        broker.subscribe(subscriber, "#", QoS::ExactlyOnce);
        let plan = Plan { cut_in: 3 + random.below(60), crash_in: 5 + random.below(200) };
        let mut driver = Driver::new(settings, plan, seed);
        for number in 0..150 {
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2) as usize];
            driver.log(&format!("t/{}", random.below(4)), qos, number, packet_size_max);
        }
        driver.run(&mut broker, |driver| driver.is_done());
        let arrived = broker.take_messages(subscriber);
        driver.check(&arrived, seed);
        totals.add(&driver.totals);
    }
    println!("{totals:?}");
    assert!(totals.cuts > 200 && totals.crashes > 50, "{totals:?}");
    assert!(totals.resumed > 20 && totals.too_large > 20 && totals.again > 20, "{totals:?}");
}

#[test]
fn what_the_remote_sends_arrives_once_and_in_order_over_lost_connections() {
    let mut totals = driver::Totals::default();
    for seed in seeds() {
        let mut random = Random::new(seed);
        let mut settings = settings(random_protocol(&mut random));
        settings.receive_max = 1 + random.below(10) as u16;
        settings.subscribe = vec![RuleSettings {
            topic: TopicRule::Template("local/$1".to_owned()),
            except: vec!["in/not/#".to_owned()],
            ..RuleSettings::new("in/#")
        }];
        let mut broker = Broker::new(Limits::default());
        let publisher = broker.connect("publisher");
        let plan = Plan { cut_in: 1 + random.below(60), ..Plan::QUIET };
        let mut driver = Driver::new(settings, Plan::QUIET, seed);
        driver.run(&mut broker, |driver| driver.has_subscribed());
        driver.plan = plan;
        for number in 0..120_u64 {
            let qos =
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3) as usize];
            let topic = format!("in/{}", ["a", "b", "not/me"][random.below(3) as usize]);
            broker.publish(publisher, &topic, qos, number);
            let steps = random.below(4);
            driver.run_for(&mut broker, steps);
        }
        driver.run(&mut broker, |driver| driver.is_quiet());
        driver.check_inbound(&broker.published, seed);
        totals.add(&driver.totals);
    }
    println!("{totals:?}");
    assert!(totals.cuts > 200 && totals.inbound > 3000, "{totals:?}");
}

/// A link that is up, with what it has sent so far taken.
fn link_up(settings: &BridgeSettings, connack: Connack<'_>) -> Link {
    let mut link = Link::new(settings, 0, 1).unwrap();
    let now = Instant(1);
    assert!(link.poll_attempt(now).is_some());
    link.handle_connected();
    link.poll_transmit().unwrap();
    link.handle_bytes(now, &bytes(settings, &Packet::Connack(connack)));
    let session_present = connack.session_present;
    assert_eq!(link.poll_event(), Some(LinkEvent::Up { session_present }));
    link
}

fn version(settings: &BridgeSettings) -> ProtocolVersion {
    match settings.protocol {
        BridgeProtocol::V5 => ProtocolVersion::V5,
        BridgeProtocol::V311 => ProtocolVersion::V311,
    }
}

fn bytes(settings: &BridgeSettings, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version(settings), &mut out);
    out
}

/// What the link sends, packet by packet.
fn sent<T>(
    link: &mut Link,
    settings: &BridgeSettings,
    mut read: impl FnMut(Packet<'_>) -> T,
) -> Vec<T> {
    let bytes = link.poll_transmit().unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let Some(frame) = next_frame(rest, usize::MAX).unwrap() {
        rest = &rest[frame.size..];
        found.push(read(Packet::decode(&frame, version(settings)).unwrap()));
    }
    assert!(rest.is_empty());
    found
}

fn message(qos: QoS) -> OutMessage<'static> {
    OutMessage {
        topic: "a/b",
        properties: b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w",
        payload: b"x",
        qos,
        retain: true,
        message_expiry_s: Some(7),
    }
}

#[test]
fn properties_go_to_a_5_0_remote_to_the_byte_with_those_of_the_bridge_behind_them() {
    let mut settings = settings(BridgeProtocol::V5);
    settings.message_properties = vec![("via".to_owned(), "here".to_owned())];
    settings.topic_alias_out_max = 1;
    let connack = Connack { topic_alias_max: Some(5), ..Connack::default() };
    let mut link = link_up(&settings, connack);
    for sequence in 1..=2 {
        assert_eq!(link.send(Instant(1), sequence, &message(QoS::AtLeastOnce)), Sent::Taken);
    }
    let seen = sent(&mut link, &settings, |packet| {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        assert!(publish.retain && !publish.dup);
        assert_eq!(publish.message_expiry_s, Some(7));
        let properties: Vec<_> = publish.properties.pieces().flatten().copied().collect();
        assert_eq!(properties, b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w\x26\0\x03via\0\x04here");
        (publish.topic.to_owned(), publish.topic_alias)
    });
    assert_eq!(seen, [("a/b".to_owned(), Some(1)), (String::new(), Some(1))]);
}

#[test]
fn the_limits_of_the_remote_hold() {
    let settings = settings(BridgeProtocol::V5);
    let connack = Connack {
        receive_max: Some(2),
        packet_size_max: Some(60),
        qos_max: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        ..Connack::default()
    };
    let mut link = link_up(&settings, connack);
    assert_eq!(link.room(), 2);
    let now = Instant(1);
    let large = OutMessage { payload: &[0; 40], ..message(QoS::AtLeastOnce) };
    assert_eq!(link.send(now, 1, &large), Sent::TooLarge);
    assert_eq!(link.send(now, 2, &message(QoS::ExactlyOnce)), Sent::Taken);
    assert_eq!(link.send(now, 3, &message(QoS::AtLeastOnce)), Sent::Taken);
    assert_eq!(link.send(now, 4, &message(QoS::AtLeastOnce)), Sent::NoRoom);
    assert_eq!(link.send(now, 0, &message(QoS::AtMostOnce)), Sent::Taken);
    let seen = sent(&mut link, &settings, |packet| match packet {
        Packet::Publish(publish) => (publish.qos as u8, publish.retain),
        packet => panic!("{packet:?}"),
    });
    assert_eq!(seen, [(1, false), (1, false), (0, false)]);
}

#[test]
fn a_refused_message_is_over_and_one_that_cannot_be_taken_now_is_sent_again() {
    let mut settings = settings(BridgeProtocol::V5);
    settings.reconnect_max_ms = 100_000;
    let puback = |id, reason| {
        let ack = ringmq::codec::Ack::new(ringmq::codec::PacketId::new(id).unwrap(), reason);
        bytes(&settings, &Packet::Puback(ack))
    };
    let mut link = link_up(&settings, Connack::default());
    let now = Instant(1);
    link.send(now, 1, &message(QoS::AtLeastOnce));
    link.send(now, 2, &message(QoS::AtLeastOnce));
    link.handle_bytes(now, &puback(1, ReasonCode::NotAuthorized));
    let refused = LinkEvent::Refused { sequence: 1, reason: ReasonCode::NotAuthorized };
    assert_eq!(link.poll_event(), Some(refused));
    link.poll_transmit();
    // Over the same connection, as what it is to the remote: new. The pauses grow to their bound.
    let mut now = now;
    let mut pause_ms = 10;
    let began = now;
    let postponed = LinkEvent::Postponed { sequence: 2, reason: ReasonCode::QuotaExceeded };
    while now.ms_since(began) < 1_000_000 {
        let reason = [ReasonCode::QuotaExceeded, ReasonCode::PacketIdentifierInUse];
        link.handle_bytes(now, &puback(2, reason[usize::from(now != began)]));
        match link.poll_event() {
            event if now == began => assert_eq!(event.as_ref(), Some(&postponed)),
            event => assert_eq!(event, None),
        }
        assert!(link.is_up());
        // Its topic waits; others go on, at QoS 0, too.
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            assert_eq!(link.send(now, 3, &message(qos)), Sent::Waits);
        }
        let other = OutMessage { topic: "c", ..message(QoS::AtMostOnce) };
        assert_eq!(link.send(now, 0, &other), Sent::Taken);
        link.poll_transmit();
        assert_eq!(link.send(now, 2, &message(QoS::AtLeastOnce)), Sent::Waits);
        link.handle_timeout(now.plus_ms(pause_ms - 1));
        assert_eq!(link.poll_event(), None);
        now = now.plus_ms(pause_ms);
        pause_ms = (pause_ms * 2).min(100_000);
        link.handle_timeout(now);
        // PINGREQ leaves, too, in so long a time.
        link.handle_bytes(now, &[0xD0, 0]);
        link.poll_transmit();
        assert_eq!(link.poll_event(), Some(LinkEvent::Due { sequence: 2 }));
        assert_eq!(link.send(now, 2, &message(QoS::AtLeastOnce)), Sent::Taken);
        let dup = sent(&mut link, &settings, |packet| match packet {
            Packet::Publish(publish) => publish.dup,
            packet => panic!("{packet:?}"),
        });
        assert_eq!(dup, [false]);
    }
    // What waited goes before what comes.
    link.handle_bytes(now, &puback(2, ReasonCode::Success));
    assert_eq!(link.room(), 0);
    assert_eq!(link.send(now, 4, &message(QoS::AtLeastOnce)), Sent::NoRoom);
    assert_eq!(link.poll_event(), Some(LinkEvent::Done { sequence: 2 }));
    assert_eq!(link.poll_event(), Some(LinkEvent::Again { from: 3 }));
    assert_eq!(link.send(now, 3, &message(QoS::AtLeastOnce)), Sent::Taken);
    assert_eq!(link.send(now, 4, &message(QoS::AtLeastOnce)), Sent::Taken);
    // One that is there no more lets the others go, too.
    link.handle_bytes(now, &puback(3, ReasonCode::QuotaExceeded));
    assert!(matches!(link.poll_event(), Some(LinkEvent::Postponed { sequence: 3, .. })));
    assert_eq!(link.send(now, 5, &message(QoS::AtLeastOnce)), Sent::Waits);
    link.forget(3);
    assert_eq!(link.poll_event(), Some(LinkEvent::Again { from: 4 }));
    assert_eq!(link.send(now, 5, &message(QoS::AtLeastOnce)), Sent::Taken);
}

#[test]
fn without_the_session_a_message_that_was_received_counts_as_done() {
    for session_present in [true, false] {
        let settings = settings(BridgeProtocol::V5);
        let mut link = link_up(&settings, Connack { session_present, ..Connack::default() });
        link.resume([5, 7]);
        let now = Instant(1);
        link.send(now, 6, &message(QoS::ExactlyOnce));
        let names = sent(&mut link, &settings, |packet| packet.packet_type() as u8);
        if session_present {
            assert_eq!(names, [6, 6, 3], "two PUBRELs, then a PUBLISH");
            assert_eq!(link.poll_event(), None);
        } else {
            assert_eq!(names, [3]);
            assert_eq!(link.poll_event(), Some(LinkEvent::Done { sequence: 5 }));
            assert_eq!(link.poll_event(), Some(LinkEvent::Done { sequence: 7 }));
        }
    }
}

#[test]
fn a_3_1_1_remote_that_does_not_know_bridges_is_met_as_a_client() {
    let settings = settings(BridgeProtocol::V311);
    let mut link = Link::new(&settings, 0, 1).unwrap();
    let level = |link: &mut Link| link.poll_transmit().unwrap()[8];
    let refusal = [0x20, 2, 0, 1];
    let mut now = Instant(1);
    // Told so, or cut off again and again: a remote that restarts cuts off now and then.
    for (answer, tries) in [(&refusal[..], 1), (&[], 3)] {
        for number in 1..=tries {
            assert!(link.poll_attempt(now).is_some());
            link.handle_connected();
            assert_eq!(level(&mut link), 0x84);
            link.handle_bytes(now, answer);
            link.handle_disconnected(now, "closed");
            assert!(matches!(link.poll_event(), Some(LinkEvent::Down { .. })));
            if number < tries {
                assert!(link.poll_attempt(now).is_none(), "after a pause");
                now = now.plus_ms(60_000);
            }
        }
        assert!(link.poll_attempt(now).is_some(), "at once");
        link.handle_connected();
        assert_eq!(level(&mut link), 4);
        link.handle_bytes(now, &[0x20, 2, 0, 0]);
        assert_eq!(link.poll_event(), Some(LinkEvent::Up { session_present: false }));
        assert!(!link.has_no_local());
        link.handle_disconnected(now, "lost");
        assert!(matches!(link.poll_event(), Some(LinkEvent::Down { .. })));
        now = now.plus_ms(60_000);
    }
}

#[test]
fn a_5_0_bridge_meets_a_remote_of_3_1_1_with_words_that_help() {
    let settings = settings(BridgeProtocol::V5);
    let mut link = Link::new(&settings, 0, 1).unwrap();
    link.poll_attempt(Instant(1)).unwrap();
    link.handle_connected();
    link.handle_bytes(Instant(1), &[0x20, 2, 0, 1]);
    let Some(LinkEvent::Down { why }) = link.poll_event() else { panic!() };
    assert!(why.contains("protocol = \"3.1.1\""), "{why}");
}

#[test]
fn a_silent_remote_is_asked_and_then_given_up() {
    let mut settings = settings(BridgeProtocol::V5);
    settings.keep_alive_s = 60;
    // [MQTT-3.1.2-21]
    let mut link =
        link_up(&settings, Connack { server_keep_alive_s: Some(8), ..Connack::default() });
    let due = link.poll_timeout().unwrap();
    assert_eq!(due, Instant(6001));
    link.handle_timeout(due);
    assert_eq!(sent(&mut link, &settings, |packet| packet.packet_type() as u8), [12]);
    link.handle_bytes(due.plus_ms(10), &[0xD0, 0]);
    let due = link.poll_timeout().unwrap();
    link.handle_timeout(due);
    assert_eq!(sent(&mut link, &settings, |packet| packet.packet_type() as u8), [12]);
    let due = link.poll_timeout().unwrap();
    let Some(LinkEvent::Down { why }) = give_up(&mut link, due) else { panic!() };
    assert!(why.contains("ping"), "{why}");
}

/// Calls the link as its owner does whose socket brings nothing.
fn give_up(link: &mut Link, due: Instant) -> Option<LinkEvent> {
    (0..1_000).find_map(|ms| {
        link.handle_timeout(due.plus_ms(ms));
        link.poll_event()
    })
}

#[test]
fn a_link_that_is_late_is_read_once_more_before_it_is_given_up() {
    let mut settings = settings(BridgeProtocol::V5);
    settings.keep_alive_s = 2;
    let mut link = Link::new(&settings, 0, 1).unwrap();
    link.poll_attempt(Instant(1)).unwrap();
    link.handle_connected();
    // Its owner stood still, and the answer lies in the socket.
    let mut now = Instant(100_000);
    link.handle_timeout(now);
    assert_eq!(link.poll_event(), None);
    link.handle_bytes(now, &bytes(&settings, &Packet::Connack(Connack::default())));
    assert_eq!(link.poll_event(), Some(LinkEvent::Up { session_present: false }));
    for _ in 0..3 {
        now = link.poll_timeout().unwrap();
        link.handle_timeout(now);
        now = now.plus_ms(100_000);
        link.handle_timeout(now);
        assert_eq!(link.poll_event(), None);
        assert!(link.poll_timeout().unwrap() <= now, "it is called again soon");
        link.handle_bytes(now, &[0xD0, 0]);
    }
    // However long the answer to a ping lies in a socket that is not read.
    now = link.poll_timeout().unwrap();
    link.handle_timeout(now);
    for _ in 0..100 {
        now = now.plus_ms(1_000);
        link.handle_unread(now);
        link.handle_timeout(now);
    }
    assert_eq!(link.poll_event(), None);
    let due = link.poll_timeout().unwrap();
    assert!(matches!(give_up(&mut link, due), Some(LinkEvent::Down { .. })));
    // The same before CONNACK.
    let now = link.poll_timeout().unwrap();
    link.poll_attempt(now).unwrap();
    link.handle_connected();
    let due = link.poll_timeout().unwrap();
    assert!(matches!(give_up(&mut link, due), Some(LinkEvent::Down { .. })));
}

#[test]
fn a_client_id_that_two_sites_have_is_named_for_what_it_is() {
    let mut settings = settings(BridgeProtocol::V5);
    settings.client_id = "site-7".to_owned();
    let mut link = link_up(&settings, Connack::default());
    let mut now = Instant(1);
    let taken_over = Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver));
    // The last one is up for long before it is taken over.
    for (pause_ms, is_named) in [(10, false), (10, true), (10, true), (4_000_000, false)] {
        now = now.plus_ms(pause_ms);
        link.handle_bytes(now, &bytes(&settings, &taken_over));
        let Some(LinkEvent::Down { why }) = link.poll_event() else { panic!() };
        assert!(why.contains("SessionTakenOver"), "{why}");
        let names = |part: &str| why.contains(part);
        let has_named = names("'site-7'") && names("second site") && names("copy");
        assert_eq!(has_named, is_named, "{why}");
        now = now.plus_ms(60_000);
        link.poll_attempt(now).unwrap();
        link.handle_connected();
        link.poll_transmit().unwrap();
        link.handle_bytes(now, &bytes(&settings, &Packet::Connack(Connack::default())));
        assert!(matches!(link.poll_event(), Some(LinkEvent::Up { .. })));
    }
}

/// How often the remote ends a connection over which a message was sent before that is set aside.
fn ends_before_it_is_set_aside(end: impl Fn(&mut Link, &BridgeSettings, Instant)) -> Option<u32> {
    let settings = settings(BridgeProtocol::V5);
    let mut link = Link::new(&settings, 0, 1).unwrap();
    let mut now = Instant(1);
    for count in 1..=20 {
        now = now.plus_ms(60_000);
        link.poll_attempt(now).unwrap();
        link.handle_connected();
        link.handle_bytes(now, &bytes(&settings, &Packet::Connack(Connack::default())));
        link.handle_bytes(now, &[0xD0, 0]);
        for sequence in 1..=3 {
            link.send(now, sequence, &message(QoS::AtLeastOnce));
        }
        assert!(link.is_under_way(1));
        end(&mut link, &settings, now);
        assert!(!link.is_up());
        while let Some(event) = link.poll_event() {
            if let LinkEvent::SetAside { sequence, why } = event {
                assert_eq!((sequence, why), (1, Unwanted::Closed { times: count }));
                return Some(count);
            }
        }
    }
    None
}

#[test]
fn only_a_remote_that_may_mean_the_message_has_it_set_aside() {
    let says = |reason| {
        move |link: &mut Link, settings: &BridgeSettings, now| {
            link.handle_bytes(now, &bytes(settings, &Packet::Disconnect(Disconnect::new(reason))));
        }
    };
    let closed = |link: &mut Link, _: &BridgeSettings, now| link.handle_closed(now, "closed");
    let lost = |link: &mut Link, _: &BridgeSettings, now| link.handle_disconnected(now, "lost");
    assert_eq!(ends_before_it_is_set_aside(closed), Some(5));
    assert_eq!(ends_before_it_is_set_aside(lost), None);
    for reason in [ReasonCode::PayloadFormatInvalid, ReasonCode::NotAuthorized] {
        assert_eq!(ends_before_it_is_set_aside(says(reason)), Some(5));
    }
    for reason in [ReasonCode::ServerShuttingDown, ReasonCode::SessionTakenOver] {
        assert_eq!(ends_before_it_is_set_aside(says(reason)), None);
    }
}
