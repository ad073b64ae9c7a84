//! The messages of the bench: a payload that can be checked to the last byte, and blocks of encoded publishes that are
//! patched in place.

use std::ops::Range;

/// Publisher (u32), checksum (u32), sequence (u64), due time (u64), little endian. The bytes behind are made from
/// publisher and sequence, so bytes of another message are noticed.
pub(crate) const LONG_HEAD_SIZE: usize = 24;

/// A payload without room for these has the lower halves of sequence and due time, the latter in microseconds (u32
/// each). The receiver knows the upper halves: `Stamp::widen`.
pub(crate) const PAYLOAD_SIZE_MIN: usize = 16;

/// The identifier of a user property [MQTT-2.2.2.2].
pub(crate) const USER_PROPERTY: u8 = 0x26;

const KEYS: [u64; 4] =
    [0x9e37_79b9_7f4a_7c15, 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// The publisher of a message, its sequence, and the time at which it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub publisher: u32,
    /// The sequence counts from 0, without gaps.
    pub sequence: u64,
    /// The time in nanoseconds of the bench's clock.
    pub due_ns: u64,
}

impl Stamp {
    /// The part of the stamp that a payload without room for all of it has.
    #[inline]
    fn narrow(self) -> Stamp {
        let (sequence, due_us) = (self.sequence as u32, (self.due_ns / 1000) as u32);
        Stamp { sequence: sequence.into(), due_ns: due_us.into(), ..self }
    }

    /// The whole of a stamp out of a payload of `payload_size`: of all possible sequences the one nearest to `next`,
    /// the expected sequence; of all possible times the one nearest to `now_ns`, rounded down to the microsecond.
    /// `None`: the sequence would lie before the first one.
    #[inline(always)]
    pub(crate) fn widen(self, payload_size: usize, next: u64, now_ns: u64) -> Option<Stamp> {
        if payload_size >= LONG_HEAD_SIZE {
            return Some(self);
        }
        let ahead = (self.sequence as u32).wrapping_sub(next as u32) as i32;
        let now_us = now_ns / 1000;
        let ago_us = (now_us as u32).wrapping_sub(self.due_ns as u32) as i32;
        let due_us = now_us.checked_sub_signed(ago_us.into()).unwrap_or(0);
        let sequence = next.checked_add_signed(ahead.into())?;
        Some(Stamp { sequence, due_ns: due_us * 1000, ..self })
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Fills a payload: stamp, filling and checksum.
#[inline]
pub(crate) fn seal(payload: &mut [u8], stamp: Stamp) {
    if payload.len() < LONG_HEAD_SIZE {
        return seal_short(payload, stamp.narrow());
    }
    let (head, filling) = payload.split_at_mut(LONG_HEAD_SIZE);
    let mut value = fold(stamp.sequence ^ KEYS[0], u64::from(stamp.publisher) ^ KEYS[1]);
    let mut words = filling.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&value.to_le_bytes());
        value = value.wrapping_add(KEYS[2]);
    }
    let tail = words.into_remainder();
    let tail_size = tail.len();
    tail.copy_from_slice(&value.to_le_bytes()[..tail_size]);
    let sum = checksum(stamp, filling);
    head[..4].copy_from_slice(&stamp.publisher.to_le_bytes());
    head[4..8].copy_from_slice(&sum.to_le_bytes());
    head[8..16].copy_from_slice(&stamp.sequence.to_le_bytes());
    head[16..24].copy_from_slice(&stamp.due_ns.to_le_bytes());
}

fn seal_short(payload: &mut [u8], stamp: Stamp) {
    let (head, filling) = payload.split_at_mut(PAYLOAD_SIZE_MIN);
    let value = fold(stamp.sequence ^ KEYS[0], u64::from(stamp.publisher) ^ KEYS[1]);
    let filling_size = filling.len();
    filling.copy_from_slice(&value.to_le_bytes()[..filling_size]);
    let sum = checksum(stamp, filling);
    let fields = [stamp.publisher, sum, stamp.sequence as u32, stamp.due_ns as u32];
    for (to, field) in head.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
}

/// The stamp of a payload whose bytes are those that were sent, to be widened; `None` for any other payload.
#[inline]
pub(crate) fn open(payload: &[u8]) -> Option<Stamp> {
    if payload.len() < LONG_HEAD_SIZE {
        return open_short(payload);
    }
    let (head, filling) = payload.split_at(LONG_HEAD_SIZE);
    let first = word(head, 0);
    let stamp = Stamp { publisher: first as u32, sequence: word(head, 8), due_ns: word(head, 16) };
    (checksum(stamp, filling) == (first >> 32) as u32).then_some(stamp)
}

fn open_short(payload: &[u8]) -> Option<Stamp> {
    let (head, filling) = payload.split_at_checked(PAYLOAD_SIZE_MIN)?;
    let (first, second) = (word(head, 0), word(head, 8));
    let (sequence, due_ns) = (second & u64::from(u32::MAX), second >> 32);
    let stamp = Stamp { publisher: first as u32, sequence, due_ns };
    (checksum(stamp, filling) == (first >> 32) as u32).then_some(stamp)
}

/// There are two sums, so that one multiplication does not wait for the other.
#[inline]
fn checksum(stamp: Stamp, filling: &[u8]) -> u32 {
    let mut lanes = [
        fold(stamp.sequence ^ KEYS[0], stamp.due_ns ^ KEYS[1]),
        fold(u64::from(stamp.publisher) ^ KEYS[2], filling.len() as u64 ^ KEYS[3]),
    ];
    let mut pairs = filling.chunks_exact(32);
    for pair in &mut pairs {
        lanes[0] = fold(word(pair, 0) ^ lanes[0], word(pair, 8) ^ KEYS[1]);
        lanes[1] = fold(word(pair, 16) ^ lanes[1], word(pair, 24) ^ KEYS[2]);
    }
    let mut words = pairs.remainder().chunks_exact(8);
    for single in &mut words {
        lanes[0] = fold(word(single, 0) ^ lanes[0], KEYS[3]);
    }
    for byte in words.remainder() {
        lanes[1] = fold(u64::from(*byte) ^ lanes[1], KEYS[3]);
    }
    let sum = fold(lanes[0] ^ KEYS[0], lanes[1] ^ KEYS[2]);
    (sum ^ (sum >> 32)) as u32
}

/// The form of the publishes of a flow, without the parts that differ from one message to the next.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// One topic per publisher, all of one size.
    pub topics: Vec<Box<[u8]>>,
    pub qos: u8,
    pub payload_size: usize,
    /// The property section with its length, as MQTT 5 has it; empty for 3.x.
    pub properties: Box<[u8]>,
}

/// Many publishes, one behind the other, encoded once. Before each write the topic's differing part, packet id and
/// payload are patched in.
pub(crate) struct Block {
    bytes: Vec<u8>,
    stride: usize,
    capacity: usize,
    /// The part of the topic in which the publishers differ, within a message.
    topic_part: Range<usize>,
    /// The same part, within the topic.
    topic_cut: Range<usize>,
    packet_id_index: Option<usize>,
    payload_index: usize,
}

/// The size is small enough to stay in the second-level cache beside the receive buffer, and large enough for a batch
/// of any built-in scenario.
pub(crate) const BLOCK_SIZE: usize = 128 << 10;

impl Block {
    pub(crate) fn new(layout: &Layout) -> Block {
        let topic = &layout.topics[0];
        let id_size = if layout.qos > 0 { 2 } else { 0 };
        let body_size = 2 + topic.len() + id_size + layout.properties.len() + layout.payload_size;
        let mut message = vec![0x30 | layout.qos << 1];
        write_size(&mut message, body_size);
        let topic_index = message.len() + 2;
        message.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        message.extend_from_slice(topic);
        let packet_id_index = (layout.qos > 0).then_some(message.len());
        message.resize(message.len() + id_size, 0);
        message.extend_from_slice(&layout.properties);
        let payload_index = message.len();
        message.resize(payload_index + layout.payload_size, 0);
        let stride = message.len();
        let capacity = (BLOCK_SIZE / stride).max(1);
        let topic_cut = differing(&layout.topics);
        Block {
            bytes: message.repeat(capacity),
            stride,
            capacity,
            topic_part: topic_index + topic_cut.start..topic_index + topic_cut.end,
            topic_cut,
            packet_id_index,
            payload_index,
        }
    }

    /// How many messages one fill can have.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The encoded messages of `publisher` from `sequence` on, as many as there are due times.
    pub(crate) fn fill(
        &mut self,
        topic: &[u8],
        first: Stamp,
        due_step_ns: u64,
        count: usize,
    ) -> &[u8] {
        let size = count * self.stride;
        let part = &topic[self.topic_cut.clone()];
        let mut stamp = first;
        for message in self.bytes[..size].chunks_exact_mut(self.stride) {
            for (to, from) in message[self.topic_part.clone()].iter_mut().zip(part) {
                *to = *from;
            }
            if let Some(at) = self.packet_id_index {
                message[at..at + 2].copy_from_slice(&packet_id(stamp.sequence).to_be_bytes());
            }
            seal(&mut message[self.payload_index..], stamp);
            stamp.sequence += 1;
            stamp.due_ns += due_step_ns;
        }
        &self.bytes[..size]
    }
}

/// Packet ids go round: far fewer messages are ever in flight.
pub(crate) fn packet_id(sequence: u64) -> u16 {
    (sequence % 65_535) as u16 + 1
}

pub(crate) fn write_size(out: &mut Vec<u8>, mut size: usize) {
    while size > 0x7f {
        out.push(size as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
}

/// Whether the property section `properties` is `sent`, byte for byte and in order, and behind it whole user properties.
pub(crate) fn only_adds_user_properties(sent: &[u8], properties: &[u8]) -> bool {
    let Some((sent, properties)) = section_body(sent).zip(section_body(properties)) else {
        return false;
    };
    let Some(mut added) = properties.strip_prefix(sent) else { return false };
    while let Some((id, mut rest)) = added.split_first() {
        for _ in 0..2 {
            let text = rest
                .split_first_chunk::<2>()
                .and_then(|(size, rest)| rest.get(usize::from(u16::from_be_bytes(*size))..));
            let Some(behind) = text else { return false };
            rest = behind;
        }
        if *id != USER_PROPERTY {
            return false;
        }
        added = rest;
    }
    true
}

/// The bytes behind the length of a property section, if there are as many as it says.
fn section_body(section: &[u8]) -> Option<&[u8]> {
    let last = section.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let (length, body) = section.split_at(last + 1);
    let size = length.iter().rev().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
    (body.len() == size).then_some(body)
}

/// The shortest range outside which all topics are equal.
fn differing(topics: &[Box<[u8]>]) -> Range<usize> {
    let first = &topics[0];
    let differs = |at: &usize| topics.iter().any(|topic| topic[*at] != first[*at]);
    match ((0..first.len()).find(differs), (0..first.len()).rfind(differs)) {
        (Some(start), Some(last)) => start..last + 1,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_payload_is_noticed() {
        for size in [16, 17, 20, 23, 24, 25, 31, 32, 64, 100, 256] {
            let stamp = Stamp { publisher: 7, sequence: 1 << 33, due_ns: 123_456_000 };
            let mut payload = vec![0; size];
            seal(&mut payload, stamp);
            let opened = open(&payload).expect("nothing was changed");
            assert_eq!(opened.widen(size, (1 << 33) - 5, 123_999_000), Some(stamp), "{size}");
            for bit in 0..size * 8 {
                payload[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&payload), None, "bit {bit} of {size} bytes");
                payload[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_payload_that_is_cut_or_longer_is_noticed() {
        for size in [16, 23, 24, 40] {
            let mut payload = vec![0; size];
            seal(&mut payload, Stamp { publisher: 7, sequence: 9, due_ns: 1_000 });
            for other in (0..size).chain(size + 1..size + 9) {
                let mut changed = payload.clone();
                changed.resize(other, 0);
                assert_eq!(open(&changed), None, "{size} bytes and then {other}");
            }
        }
    }

    #[test]
    fn a_short_payloads_numbers_go_round_and_are_still_told_apart() {
        let round = 1u64 << 32;
        let sent = |sequence: u64, due_us: u64| {
            let mut payload = [0; PAYLOAD_SIZE_MIN];
            seal(&mut payload, Stamp { publisher: 3, sequence, due_ns: due_us * 1000 + 999 });
            open(&payload).expect("nothing was changed")
        };
        for next in [0, 5, round - 1, round, round + 7, 3 * round - 2] {
            for sequence in [next.saturating_sub(1000), next, next + 1, next + 100_000] {
                for (due_us, now_us) in [(0, 1), (round - 3, round + 4), (5 * round, 5 * round)] {
                    let whole = sent(sequence, due_us).widen(16, next, now_us * 1000 + 5);
                    let expected = Stamp { publisher: 3, sequence, due_ns: due_us * 1000 };
                    assert_eq!(whole, Some(expected), "{next} {sequence} {due_us} {now_us}");
                }
            }
        }
        // There is no sequence before the first message.
        assert_eq!(sent(round - 1, 0).widen(16, 0, 0), None);
    }

    #[test]
    fn added_user_properties_stand_behind_those_that_were_sent() {
        let pair = |name: &str, value: &str| {
            let size = |text: &str| (text.len() as u16).to_be_bytes();
            let parts = [&[USER_PROPERTY], &size(name)[..], name.as_bytes()];
            [parts.concat(), [&size(value), value.as_bytes()].concat()].concat()
        };
        let section = |pairs: &[Vec<u8>]| {
            let body = pairs.concat();
            let mut section = Vec::new();
            write_size(&mut section, body.len());
            [section, body].concat()
        };
        let [own, other, long] = [pair("a", "1"), pair("b", ""), pair("c", &"x".repeat(200))];
        let sent = section(&[own.clone(), other.clone()]);
        let same = |pairs: &[Vec<u8>]| only_adds_user_properties(&sent, &section(pairs));
        assert!(same(&[own.clone(), other.clone()]));
        assert!(same(&[own.clone(), other.clone(), long.clone(), own.clone()]));
        assert!(only_adds_user_properties(&[0], &section(std::slice::from_ref(&long))));
        assert!(!same(std::slice::from_ref(&own)));
        assert!(!same(&[other.clone(), own.clone()]));
        assert!(!same(&[long.clone(), own.clone(), other.clone()]));
        assert!(!same(&[own.clone(), other.clone(), vec![1, 0]]));
        assert!(!same(&[own, other, long[..50].to_vec()]));
        let whole = section(&[long]);
        assert!(!only_adds_user_properties(&[0], &whole[..whole.len() - 1]));
        assert!(!only_adds_user_properties(&[0], &[]));
    }

    #[test]
    fn a_payload_with_another_messages_filling_is_refused() {
        let mut own = vec![0; 64];
        let mut other = vec![0; 64];
        seal(&mut own, Stamp { publisher: 1, sequence: 5, due_ns: 9 });
        seal(&mut other, Stamp { publisher: 1, sequence: 6, due_ns: 9 });
        assert_ne!(own[LONG_HEAD_SIZE..], other[LONG_HEAD_SIZE..]);
        own[LONG_HEAD_SIZE..].copy_from_slice(&other[LONG_HEAD_SIZE..]);
        assert_eq!(open(&own), None);
    }

    #[test]
    fn a_block_holds_each_publishers_messages_in_sequence() {
        let layout = Layout {
            topics: vec![b"a/01/x".as_slice().into(), b"a/17/x".as_slice().into()],
            qos: 1,
            payload_size: 40,
            properties: [0].into(),
        };
        let mut block = Block::new(&layout);
        for (publisher, topic) in layout.topics.iter().enumerate().rev() {
            let first = Stamp { publisher: publisher as u32, sequence: 65_534, due_ns: 10 };
            let bytes = block.fill(topic, first, 3, 2).to_vec();
            assert_eq!(bytes.len(), 2 * (2 + 2 + 6 + 2 + 1 + 40));
            for (index, message) in bytes.chunks_exact(bytes.len() / 2).enumerate() {
                assert_eq!(message[0], 0x32);
                assert_eq!(&message[4..10], &topic[..]);
                let id = [65_535, 1][index];
                assert_eq!(message[10..12], u16::to_be_bytes(id));
                let due_ns = 10 + 3 * index as u64;
                let sequence = first.sequence + index as u64;
                assert_eq!(open(&message[13..]), Some(Stamp { sequence, due_ns, ..first }));
            }
        }
    }
}
