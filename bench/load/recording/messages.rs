//! The messages of a replay: payloads of the recorded sizes, each as verifiable as its size allows.

use twox_hash::XxHash3_64;

use super::format::Message;
use crate::message::{self, LONG_HEAD_SIZE, Stamp, USER_PROPERTY};

/// The identifier of the content type [MQTT-3.3.2.3.9].
const CONTENT_TYPE: u8 = 0x03;

/// How it is known that a message is the one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Stamp and checksum are in the payload.
    Stamp,
    /// The payload was recorded: its digest is in a table.
    Digest,
    /// Too short for a stamp: filled with bytes that follow from its place in the stream, whose digest is in the table.
    Filling,
    /// There are no bytes: only that it came, and in its order.
    Nothing,
}

impl Proof {
    pub(super) const COUNT: usize = 4;
    /// What each is called in the report.
    pub(super) const NAMES: [&str; Proof::COUNT] = [
        "verified by stamp and checksum",
        "verified by digest of the recorded payload",
        "verified by up to 23 bytes of filling",
        "without a payload: verified by count and order",
    ];

    pub(super) fn of(message: &Message) -> Proof {
        match (&message.payload, message.payload_size) {
            (_, 0) => Proof::Nothing,
            (Some(_), _) => Proof::Digest,
            (None, size) if size >= LONG_HEAD_SIZE => Proof::Stamp,
            (None, _) => Proof::Filling,
        }
    }
}

pub(super) fn digest(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Appends the payload of a message of a stream. `stamp.publisher` is the stream.
fn write_payload(message: &Message, stamp: Stamp, out: &mut Vec<u8>) {
    let from = out.len();
    match &message.payload {
        Some(payload) => out.extend_from_slice(payload),
        None => out.resize(from + message.payload_size, 0),
    }
    match Proof::of(message) {
        Proof::Stamp => message::seal(&mut out[from..], stamp),
        Proof::Filling => {
            let place = [stamp.sequence.to_le_bytes(), u64::from(stamp.publisher).to_le_bytes()];
            let filling = digest(&place.concat()).to_le_bytes();
            out[from..].iter_mut().zip(filling.iter().cycle()).for_each(|(to, from)| *to = *from);
        }
        Proof::Digest | Proof::Nothing => {}
    }
}

/// The property section, with its length, as MQTT 5 has it; nothing for 3.1.1. Names and values have the recorded
/// sizes.
pub(super) fn write_properties(message: &Message, mqtt: u8, out: &mut Vec<u8>) {
    if mqtt < 5 {
        return;
    }
    message::write_size(out, message.properties_size());
    if let Some(content_type) = &message.content_type {
        out.push(CONTENT_TYPE);
        out.extend_from_slice(&(content_type.len() as u16).to_be_bytes());
        out.extend_from_slice(content_type.as_bytes());
    }
    for (name_size, value_size) in &message.user_properties {
        out.push(USER_PROPERTY);
        for (size, letter) in [(name_size, b'n'), (value_size, b'v')] {
            out.extend_from_slice(&size.to_be_bytes());
            out.resize(out.len() + usize::from(*size), letter);
        }
    }
}

/// Appends the whole PUBLISH. Returns where its payload begins. `properties` is the property section.
pub(super) fn write_publish(
    message: &Message,
    stamp: Stamp,
    packet_id: Option<u16>,
    properties: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let id_size = if packet_id.is_some() { 2 } else { 0 };
    let topic = message.topic.as_bytes();
    let body_size = 2 + topic.len() + id_size + properties.len() + message.payload_size;
    let is_retain = message.retain || message.is_retained;
    out.push(0x30 | message.qos << 1 | u8::from(is_retain));
    message::write_size(out, body_size);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic);
    out.extend(packet_id.iter().flat_map(|id| id.to_be_bytes()));
    out.extend_from_slice(properties);
    let payload_index = out.len();
    write_payload(message, stamp, out);
    payload_index
}

/// Of the whole packet.
pub(super) fn packet_size(message: &Message, mqtt: u8) -> usize {
    let packet_id = if message.qos > 0 { 2 } else { 0 };
    let mut sizes = Vec::with_capacity(8);
    let properties = if mqtt == 5 {
        let size = message.properties_size();
        message::write_size(&mut sizes, size);
        sizes.len() + size
    } else {
        0
    };
    let body_size = 2 + message.topic.len() + packet_id + properties + message.payload_size;
    sizes.clear();
    message::write_size(&mut sizes, body_size);
    1 + sizes.len() + body_size
}

#[cfg(test)]
mod tests {
    use ringmq::codec::{Packet, ProtocolVersion, next_frame};

    use super::*;

    #[test]
    fn a_packet_has_the_sizes_that_were_recorded() {
        let sizes = [0, 1, 23, 24, 200, 70_000];
        for (payload_size, mqtt) in sizes.into_iter().flat_map(|size| [(size, 3), (size, 5)]) {
            let message = Message {
                topic: "a/b".to_string(),
                payload_size,
                qos: (payload_size % 3) as u8,
                user_properties: vec![(4, 10), (0, 300)],
                content_type: Some("text/plain".to_string()),
                ..Message::default()
            };
            let (mut properties, mut out) = (Vec::new(), Vec::new());
            write_properties(&message, mqtt, &mut properties);
            let stamp = Stamp { publisher: 3, sequence: 9, due_ns: 5 };
            let id = (message.qos > 0).then_some(7);
            let at = write_publish(&message, stamp, id, &properties, &mut out);
            assert_eq!(out.len(), packet_size(&message, mqtt));
            let version = if mqtt == 5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            let frame = next_frame(&out, usize::MAX).expect("sound").expect("whole");
            let Ok(Packet::Publish(publish)) = Packet::decode(&frame, version) else {
                panic!("{payload_size} bytes at {mqtt}");
            };
            assert_eq!((publish.topic, publish.payload), ("a/b", &out[at..]));
            let forwarded = if mqtt == 5 { message.properties_size() } else { 0 };
            assert_eq!(publish.properties.size(), forwarded);
            match Proof::of(&message) {
                Proof::Stamp => assert_eq!(message::open(publish.payload), Some(stamp)),
                Proof::Nothing => assert!(publish.payload.is_empty()),
                proof => assert_eq!(proof, Proof::Filling),
            }
        }
    }

    #[test]
    fn short_payloads_differ_from_place_to_place() {
        let message = Message { payload_size: 8, ..Message::default() };
        let payload = |publisher, sequence| {
            let mut out = Vec::new();
            write_payload(&message, Stamp { publisher, sequence, due_ns: 0 }, &mut out);
            out
        };
        assert_ne!(payload(1, 1), payload(1, 2));
        assert_ne!(payload(1, 1), payload(2, 1));
    }
}
