//! Any bytes decode without a panic, in each version; what decodes is encoded to what decodes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::codec::{AckType, Packet, ProtocolVersion, Publish, PublishHead, next_frame};

/// The largest packet, as the broker's default.
const PACKET_SIZE_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Ok(Some(frame)) = next_frame(input, PACKET_SIZE_MAX) else { return };
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        match Packet::decode(&frame, version) {
            Ok(packet) => check(&packet, version),
            Err(error) => {
                assert!(error.reason().is_error());
                assert!(!error.to_string().is_empty());
            }
        }
    }
});

fn check(packet: &Packet<'_>, version: ProtocolVersion) {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    let frame = next_frame(&bytes, usize::MAX).expect("a frame").expect("a whole frame");
    assert_eq!(frame.size, bytes.len());
    assert_eq!(Packet::decode(&frame, version).as_ref(), Ok(packet));

    // Whatever the size allowed, what is left out leaves a packet.
    let mut small = Vec::new();
    match packet {
        Packet::Publish(publish) => check_head(publish, version),
        Packet::Connack(connack) => connack.encode(version, 32, &mut small),
        Packet::Puback(ack) => ack.encode(AckType::Puback, version, 32, &mut small),
        Packet::Pubrec(ack) => ack.encode(AckType::Pubrec, version, 32, &mut small),
        Packet::Pubrel(ack) => ack.encode(AckType::Pubrel, version, 32, &mut small),
        Packet::Pubcomp(ack) => ack.encode(AckType::Pubcomp, version, 32, &mut small),
        Packet::Suback(suback) => suback.encode(version, 32, &mut small),
        Packet::Unsuback(unsuback) => unsuback.encode(version, 32, &mut small),
        Packet::Disconnect(disconnect) => disconnect.encode(version, 32, &mut small),
        Packet::Auth(auth) => auth.encode(32, &mut small),
        _ => {}
    }
    if !small.is_empty() {
        let frame = next_frame(&small, usize::MAX).expect("a frame").expect("a whole frame");
        assert!(small.len() <= 32 || small.len() <= bytes.len());
        Packet::decode(&frame, version).expect("a packet");
    }
}

/// The two encoders of PUBLISH write the same.
fn check_head(publish: &Publish<'_>, version: ProtocolVersion) {
    let ids: Vec<u32> = publish.subscription_ids.iter().collect();
    let properties: Vec<u8> = publish.properties.pieces().flatten().copied().collect();
    assert_eq!(properties.len(), publish.properties.size());
    let head = PublishHead {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic.as_bytes(),
        packet_id: publish.packet_id,
        message_expiry_s: publish.message_expiry_s,
        topic_alias: publish.topic_alias,
        subscription_ids: &ids,
        properties: &properties,
        payload_size: publish.payload.len(),
    };
    let mut bytes = Vec::new();
    let packet_id_index = head.encode(version, &mut bytes);
    if let (Some(index), Some(packet_id)) = (packet_id_index, publish.packet_id) {
        assert_eq!(bytes[index..index + 2], packet_id.get().to_be_bytes());
    }
    bytes.extend_from_slice(publish.payload);
    assert_eq!(bytes.len(), head.size(version));
    let mut whole = Vec::new();
    publish.encode(version, &mut whole);
    assert_eq!(bytes, whole);
}
