//! Every source of messages against the arena: what has no room is refused, counted and answered, and nothing else happens.

#[path = "../regressions_core/world.rs"]
#[allow(dead_code)] // other tests use the rest
mod world;

use ringmq::arena::EMPTY_TRAIL;
use ringmq::bridge::{ForwardIndex, Link, LinkEvent};
use ringmq::codec::{
    Ack, Connack, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, Will, next_frame,
};
use ringmq::config::bridge::{BridgeProtocol, BridgeSettings, RemoteAddress, RuleSettings};
use ringmq::limits::{Limits, Sizes, TEXT_SIZE_CEILING};
use ringmq::plugin::{ClientView, HookSet, Hooks, MessageEdit, Verdict};
use ringmq::routing::bridge_mail::{FromBridges, InboundBatch, InboundMessage, ToBridges};
use ringmq::time::Instant;
use std::sync::Arc;
use world::World;

/// Sizes and limits that just hold together.
fn narrow_sizes() -> Sizes {
    Sizes { arena_size: 4 << 10, arena_slots: 4, ..Sizes::default() }
}

fn narrow() -> Limits {
    Limits {
        packet_size_max: 1 << 10,
        large_message_size: 512,
        sys_interval_ms: 0,
        ..Limits::default()
    }
}

/// A world with one bridge, which forwards `out/#`.
fn bridged(shard_count: u16, limits: Limits) -> World {
    let forward = vec![RuleSettings::new("out/#")];
    let bridges = [BridgeSettings { forward, ..BridgeSettings::new("north") }];
    let index = Arc::new(ForwardIndex::compile(&bridges).expect("good rules"));
    let mut world = World::sized(shard_count, narrow_sizes(), limits);
    world.shards.iter_mut().for_each(|shard| shard.set_bridges(index.clone()));
    world
}

/// A bridge brings messages of these payload sizes in, numbered from 1.
fn bring_in(world: &mut World, topic: &str, sizes: &[usize]) {
    let mut messages = InboundBatch::default();
    for (number, size) in (1..).zip(sizes) {
        messages.push(&InboundMessage {
            number,
            topic,
            properties: &[],
            payload: &vec![b'x'; *size],
            qos: 1,
            retain: false,
            expires_at: None,
        });
    }
    let now = world.now;
    world.shards[0].handle_bridge_mail(now, FromBridges::Publish { bridge: 0, messages });
    world.settle();
}

/// The answers to a bridge's messages, by number.
fn answers(world: &mut World) -> Vec<(u64, ReasonCode)> {
    let mut found = Vec::new();
    for (_, mail) in world.take_to_bridges() {
        if let ToBridges::Taken { reason, numbers, .. } = mail {
            found.extend(numbers.into_iter().map(|number| (number, reason)));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    found
}

fn refused(world: &mut World) -> u64 {
    world.shards.iter_mut().map(|shard| shard.counters().refused_by_arena).sum()
}

fn assert_at_rest(world: &mut World) {
    for shard in &mut world.shards {
        assert_eq!(shard.gauges().arena_held, 0);
        assert_eq!(shard.counters().stale_reads, 0);
    }
}

#[test]
fn a_message_of_a_remote_that_is_larger_than_the_arena_is_refused_and_answered() {
    let mut world = bridged(2, narrow());
    let subscriber = world.client_on(1, "s");
    world.subscribe(subscriber, "#", QoS::AtLeastOnce);
    world.settle();
    // A bridge's message has a trail, too.
    let room = narrow_sizes().arena_size - "t".len() - EMPTY_TRAIL.len();
    bring_in(&mut world, "t", &[room, room + 1, 1 << 20, 5]);
    let sizes: Vec<_> = world.messages(subscriber).iter().map(String::len).collect();
    assert_eq!(sizes, [room + 2, 5 + 2], "what has room arrives");
    let no = ReasonCode::ImplementationSpecificError;
    let yes = ReasonCode::Success;
    assert_eq!(answers(&mut world), [(1, yes), (2, no), (3, no), (4, yes)]);
    assert_eq!(refused(&mut world), 2);
    assert_at_rest(&mut world);
}

/// Makes of each message the largest that a hook may make, and allows it.
struct Largest(Limits);

impl Hooks for Largest {
    fn hooks(&self) -> HookSet {
        HookSet::PUBLISH | HookSet::AUTHORIZE_PUBLISH
    }

    fn publish(&mut self, _: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        let mut size = self.0.packet_size_max;
        while message.set_payload(&vec![b'h'; size]).is_err() {
            size -= 1;
        }
        Verdict::Allow
    }
}

#[test]
fn what_hooks_make_has_room_and_what_has_none_meets_no_hook() {
    let limits = narrow();
    let mut world = bridged(1, limits.clone());
    let now = world.now;
    world.shards[0].set_hooks(now, Box::new(Largest(limits.clone())));
    let subscriber = world.client_on(0, "s");
    world.subscribe(subscriber, "#", QoS::AtMostOnce);
    world.settle();
    bring_in(&mut world, "t", &[1, 2_000, narrow_sizes().arena_size, 1]);
    let (yes, no) = (ReasonCode::Success, ReasonCode::ImplementationSpecificError);
    assert_eq!(answers(&mut world), [(1, yes), (2, yes), (3, no), (4, yes)]);
    let messages = world.messages(subscriber);
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.contains("hhhh")));
    assert_eq!(refused(&mut world), 1);
    assert_at_rest(&mut world);
}

#[test]
fn a_message_that_a_client_may_send_has_room_from_every_source() {
    let limits = narrow();
    let mut world = bridged(2, limits.clone());
    let subscriber = world.client_on(1, "s");
    world.subscribe(subscriber, "#", QoS::AtMostOnce);
    let publisher = world.client_on(0, "p");
    world.settle();
    let topic = "t".repeat(400);
    let payload: &'static [u8] = vec![b'x'; limits.packet_size_max - topic.len() - 20].leak();
    // A packet that defines an alias, then the largest packet that uses it: the message is larger than any packet.
    let define = Publish { topic: &topic, topic_alias: Some(1), payload, ..Publish::default() };
    world.send(publisher, &Packet::Publish(define));
    let all = vec![b'y'; limits.packet_size_max - 10];
    let aliased = Publish { topic_alias: Some(1), payload: &all, ..Publish::default() };
    for _ in 0..10 {
        world.send(publisher, &Packet::Publish(aliased));
    }
    world.retain(publisher, "kept", payload);
    let lost = world.connect("lost", |connect| {
        connect.will = Some(Will { topic: "will", payload, ..Will::default() });
    });
    world.lose(lost);
    world.settle();
    assert_eq!(world.messages(subscriber).len(), 13);
    assert_eq!(refused(&mut world), 0);
    assert_at_rest(&mut world);
}

/// A link that is up.
fn link_up(settings: &BridgeSettings) -> Link {
    let mut link = Link::new(settings, 0, 1).expect("good rules");
    assert!(link.poll_attempt(Instant(1)).is_some());
    link.handle_connected();
    let bytes = link.poll_transmit().expect("CONNECT");
    let frame = next_frame(&bytes, usize::MAX).expect("a frame").expect("whole");
    let Ok(Packet::Connect(connect)) = Packet::decode(&frame, ProtocolVersion::V5) else {
        panic!()
    };
    if settings.protocol == BridgeProtocol::V5 {
        assert_eq!(connect.packet_size_max, Some(settings.packet_size_max as u32));
    }
    let mut connack = Vec::new();
    Packet::Connack(Connack::default()).encode(version(settings), &mut connack);
    link.handle_bytes(Instant(1), &connack);
    assert_eq!(link.poll_event(), Some(LinkEvent::Up { session_present: false }));
    link.poll_transmit();
    link
}

fn version(settings: &BridgeSettings) -> ProtocolVersion {
    match settings.protocol {
        BridgeProtocol::V5 => ProtocolVersion::V5,
        BridgeProtocol::V311 => ProtocolVersion::V311,
    }
}

#[test]
fn a_link_answers_what_is_too_large_and_goes_on() {
    for protocol in [BridgeProtocol::V311, BridgeProtocol::V5] {
        for piece in [1, 7, 500, usize::MAX] {
            let settings = BridgeSettings {
                addresses: vec![RemoteAddress::parse("remote").expect("an address")],
                protocol,
                packet_size_max: 300,
                subscribe: vec![RuleSettings::new("#")],
                ..BridgeSettings::new("north")
            };
            let mut link = link_up(&settings);
            let mut bytes = Vec::new();
            for (id, qos, size) in
                [(1, 1, 10), (2, 1, 2_000), (0, 0, 2_000), (3, 2, 100_000), (4, 2, 10), (5, 1, 301)]
            {
                let publish = Publish {
                    qos: QoS::from_bits(qos).expect("a QoS"),
                    topic: "a",
                    packet_id: PacketId::new(id),
                    payload: &vec![b'x'; size],
                    ..Publish::default()
                };
                Packet::Publish(publish).encode(version(&settings), &mut bytes);
            }
            // The remote gives up the refused QoS 2 message.
            let release = Ack::new(PacketId::new(3).expect("an id"), ReasonCode::Success);
            Packet::Pubrel(release).encode(version(&settings), &mut bytes);
            for piece in bytes.chunks(piece.min(bytes.len())) {
                link.handle_bytes(Instant(2), piece);
            }
            let mut arrived = 0;
            while let Some(event) = link.poll_event() {
                let LinkEvent::Inbound { number, message } = event else { panic!("{event:?}") };
                assert_eq!(message.payload().len(), 10);
                arrived += 1;
                link.acked_inbound(Instant(2), number, ReasonCode::Success);
            }
            assert_eq!((arrived, link.oversized_count()), (2, 4));
            assert!(link.is_up());
            let says = |reason| match protocol {
                BridgeProtocol::V5 => reason,
                BridgeProtocol::V311 => ReasonCode::Success,
            };
            let no = says(ReasonCode::ImplementationSpecificError);
            let yes = ReasonCode::Success;
            let mut answers = answers_of(&mut link, version(&settings));
            let completed: Vec<_> =
                answers.extract_if(.., |answer| answer.0 == "PUBCOMP").collect();
            assert_eq!(completed.len(), 1);
            let want =
                [("PUBACK", 1, yes), ("PUBACK", 2, no), ("PUBREC", 3, no), ("PUBREC", 4, yes)];
            assert_eq!(answers[..4], want);
            assert_eq!(answers[4..], [("PUBACK", 5, no)]);
        }
    }
}

fn answers_of(link: &mut Link, version: ProtocolVersion) -> Vec<(&'static str, u16, ReasonCode)> {
    let bytes = link.poll_transmit().unwrap_or_default();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let Some(frame) = next_frame(rest, usize::MAX).expect("the link sends frames") {
        rest = &rest[frame.size..];
        found.push(match Packet::decode(&frame, version).expect("the link sends packets") {
            Packet::Puback(ack) => ("PUBACK", ack.packet_id.get(), ack.reason),
            Packet::Pubrec(ack) => ("PUBREC", ack.packet_id.get(), ack.reason),
            Packet::Pubcomp(ack) => ("PUBCOMP", ack.packet_id.get(), ack.reason),
            other => panic!("{other:?}"),
        });
    }
    found
}

#[test]
fn what_a_bridge_announces_has_room_whatever_its_topic_becomes() {
    for arena_size in [4 << 10, 64 << 10, 100 << 10, 16 << 20, 1 << 30] {
        let sizes = Sizes { arena_size, ..Sizes::default() };
        let room = sizes.bridge_packet_size_max();
        assert!(room >= arena_size / 4 && room <= arena_size);
        let has_room_for_topics = arena_size > 2 * TEXT_SIZE_CEILING;
        assert!(!has_room_for_topics || room + TEXT_SIZE_CEILING <= arena_size);
    }
}
