//! The bytes of a segment: its head, and records with checksums; encoding and decoding, without I/O.
//!
//! ```text
//! segment  head record*
//! head     magic 8 | version 4 | crc32 4 (of both) | segment 8 | first sequence 8 | floor 8 | boot id 16
//!          | key 8 | span count 4 | span*  | crc32 4 (of all before)
//! record   check 4 (of the 25 behind) | check of the body 4 | body size 4 | kind 1 | sequence 8 | time 8 | body
//! message  bytes; time: ms since 1970                                      kind 1
//! states   span*; sequence: that of the next message; time: 0              kind 2
//! span     first sequence 8 | count 8 | mark 1
//! ```
//! All numbers are little-endian. The head carries every state that does not follow from the messages themselves, so a
//! segment never needs the states of an older one. Decoding takes any bytes: it cannot panic.
//!
//! The first check is the lower half of XXH3-64 seeded with the key. The check of the body is a crc32 that begins with the
//! key's upper half. The key is a random number that leaves the machine in no packet: a message whose bytes look like a
//! record has the right checks with a probability of 2^-64. So behind damage the next record can be searched for byte by
//! byte. A record's first 29 bytes are checked before its body is read, so the search costs the same whatever the bytes
//! claim.
//!
//! Version 1 is read: no key, crc32, other records.
//! ```text
//! record   crc32 4 (of all behind) | body size 4 | kind 1 | body
//! message  sequence 8 | time 8 | bytes          kind 1
//! states   segment 8 | span*                    kind 2
//! ```

use crc32fast::{Hasher, hash as crc32};
use twox_hash::XxHash3_64;

use super::states::{Mark, Span};

pub const MAGIC: [u8; 8] = *b"RQ-SPOOL";
pub const VERSION: u32 = 2;

/// The smallest head of any version.
pub const HEAD_SIZE_MIN: usize = 64;
/// The end of the part of the head that both versions have: magic to boot id.
const HEAD_COMMON: usize = 56;
pub const RECORD_HEAD_SIZE: usize = 29;
/// The bytes of a message's record beside the message.
pub const MESSAGE_OVERHEAD: usize = RECORD_HEAD_SIZE;
/// The offset in a record from which on the first check counts.
const CHECKED_FROM: usize = 4;
const V1_RECORD_HEAD_SIZE: usize = 9;
const V1_MESSAGE_OVERHEAD: usize = V1_RECORD_HEAD_SIZE + 16;
/// The largest record: a body that claims more is damaged.
pub const RECORD_SIZE_MAX: usize = 1 << 29;
const SPAN_SIZE: usize = 17;
const CRC_SIZE: usize = 4;

const KIND_MESSAGE: u8 = 1;
const KIND_STATES: u8 = 2;

/// The format of a segment's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    V1,
    /// Version 2, with the key of its checks.
    V2(u64),
}

impl Format {
    /// The bytes of a message's record beside the message.
    pub fn message_overhead(self) -> usize {
        match self {
            Format::V1 => V1_MESSAGE_OVERHEAD,
            Format::V2(_) => MESSAGE_OVERHEAD,
        }
    }
}

/// The head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub segment: u64,
    /// The first message of this segment has this sequence. Messages from here on in earlier segments do not count.
    pub first_sequence: u64,
    /// All sequences below this one are done.
    pub floor: u64,
    /// The boot of the machine in which the head was written.
    pub boot: [u8; 16],
    pub format: Format,
    /// The marks of sequences from `floor` on that are received or done.
    pub spans: Vec<Span>,
}

/// One record, borrowed from the bytes of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Message {
        sequence: u64,
        time_ms: u64,
        bytes: &'a [u8],
    },
    /// `place` is the sequence of the message behind the record; in version 1, the segment.
    States {
        place: u64,
        spans: Spans<'a>,
    },
}

/// The decoded beginning of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    Whole {
        value: T,
        size: usize,
    },
    /// At least `size` bytes are needed to decode more.
    Incomplete {
        size: usize,
    },
    /// No head or record begins here.
    Torn,
    /// A record of this size begins here, but its body was changed.
    Damaged {
        size: usize,
    },
    /// A head of a version that this program does not know.
    Version(u32),
}

/// The spans of a states record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans<'a>(&'a [u8]);

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let (span, rest) = self.0.split_at_checked(SPAN_SIZE)?;
        self.0 = rest;
        decode_span(span)
    }
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_SIZE_MIN + 8 + self.spans.len() * SPAN_SIZE);
        out.extend_from_slice(&MAGIC);
        let version: u32 = if self.format == Format::V1 { 1 } else { VERSION };
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&crc32(&out).to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        out.extend_from_slice(&self.boot);
        if let Format::V2(key) = self.format {
            out.extend_from_slice(&key.to_le_bytes());
        }
        out.extend_from_slice(&(self.spans.len() as u32).to_le_bytes());
        self.spans.iter().for_each(|span| encode_span(&mut out, span));
        out.extend_from_slice(&crc32(&out).to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Decoded<Head> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Decoded::Torn;
        }
        let Some(common) = bytes.get(..HEAD_SIZE_MIN) else {
            return Decoded::Incomplete { size: HEAD_SIZE_MIN };
        };
        // A newer version may have another head, but its head begins like this.
        if crc32(&common[..12]) != u32_at(common, 12) {
            return Decoded::Torn;
        }
        let (format, count_at) = match u32_at(common, 8) {
            1 => (Format::V1, HEAD_COMMON),
            VERSION => (Format::V2(u64_at(common, HEAD_COMMON)), HEAD_COMMON + 8),
            version => return Decoded::Version(version),
        };
        let Some(fixed) = bytes.get(..count_at + 4) else {
            return Decoded::Incomplete { size: count_at + 4 + CRC_SIZE };
        };
        let size = (u32_at(fixed, count_at) as usize)
            .checked_mul(SPAN_SIZE)
            .and_then(|spans| spans.checked_add(fixed.len() + CRC_SIZE))
            .filter(|&size| size <= RECORD_SIZE_MAX);
        let Some(size) = size else { return Decoded::Torn };
        let Some(whole) = bytes.get(..size) else { return Decoded::Incomplete { size } };
        let (covered, crc) = whole.split_at(size - CRC_SIZE);
        if crc32(covered) != u32_at(crc, 0) {
            return Decoded::Torn;
        }
        let Some(spans) = checked_spans(&covered[fixed.len()..]) else { return Decoded::Torn };
        let mut boot = [0; 16];
        boot.copy_from_slice(&fixed[40..HEAD_COMMON]);
        let value = Head {
            segment: u64_at(fixed, 16),
            first_sequence: u64_at(fixed, 24),
            floor: u64_at(fixed, 32),
            boot,
            format,
            spans: spans.collect(),
        };
        Decoded::Whole { value, size }
    }
}

impl<'a> Record<'a> {
    pub fn decode(bytes: &'a [u8], format: Format) -> Decoded<Record<'a>> {
        match format {
            Format::V1 => Record::decode_v1(bytes),
            Format::V2(key) => Record::decode_v2(bytes, key),
        }
    }

    fn decode_v2(bytes: &'a [u8], key: u64) -> Decoded<Record<'a>> {
        let Some(head) = bytes.get(..RECORD_HEAD_SIZE) else {
            return Decoded::Incomplete { size: RECORD_HEAD_SIZE };
        };
        let size = RECORD_HEAD_SIZE + u32_at(head, 8) as usize;
        // The cheap check comes first: a search for a record asks it at every byte.
        let is_record = matches!(head[12], KIND_MESSAGE | KIND_STATES) && size <= RECORD_SIZE_MAX;
        if !is_record || head_check(&head[CHECKED_FROM..], key) != u32_at(head, 0) {
            return Decoded::Torn;
        }
        let Some(body) = bytes.get(RECORD_HEAD_SIZE..size) else {
            return Decoded::Incomplete { size };
        };
        if body_check(body, key) != u32_at(head, 4) {
            return Decoded::Damaged { size };
        }
        let (sequence, time_ms) = (u64_at(head, 13), u64_at(head, 21));
        let value = match head[12] {
            KIND_MESSAGE => Record::Message { sequence, time_ms, bytes: body },
            _ => match checked_spans(body) {
                Some(spans) => Record::States { place: sequence, spans },
                None => return Decoded::Damaged { size },
            },
        };
        Decoded::Whole { value, size }
    }

    fn decode_v1(bytes: &'a [u8]) -> Decoded<Record<'a>> {
        let Some(head) = bytes.get(..V1_RECORD_HEAD_SIZE) else {
            return Decoded::Incomplete { size: V1_RECORD_HEAD_SIZE };
        };
        let size = V1_RECORD_HEAD_SIZE + u32_at(head, 4) as usize;
        if size > RECORD_SIZE_MAX || !matches!(head[8], KIND_MESSAGE | KIND_STATES) {
            return Decoded::Torn;
        }
        let Some(whole) = bytes.get(..size) else { return Decoded::Incomplete { size } };
        if crc32(&whole[CRC_SIZE..]) != u32_at(whole, 0) {
            return Decoded::Torn;
        }
        let body = &whole[V1_RECORD_HEAD_SIZE..];
        let value = match head[8] {
            KIND_MESSAGE if body.len() >= 16 => Record::Message {
                sequence: u64_at(body, 0),
                time_ms: u64_at(body, 8),
                bytes: &body[16..],
            },
            KIND_STATES if body.len() >= 8 => match checked_spans(&body[8..]) {
                Some(spans) => Record::States { place: u64_at(body, 0), spans },
                None => return Decoded::Torn,
            },
            _ => return Decoded::Torn,
        };
        Decoded::Whole { value, size }
    }
}

/// Begins a message record and returns where it begins. The caller appends the message's bytes; [`close_message`] ends
/// the record.
pub fn open_message(out: &mut Vec<u8>, sequence: u64, time_ms: u64) -> usize {
    open_record(out, KIND_MESSAGE, sequence, time_ms)
}

/// Fills in size and checks of the message record that began at `start` and ends at the end of `out`.
pub fn close_message(out: &mut [u8], start: usize, key: u64) {
    close_record(out, start, key);
}

/// The size of a record of `count` states.
pub fn states_size(count: usize) -> usize {
    RECORD_HEAD_SIZE + count * SPAN_SIZE
}

/// Appends a record of states; `place` is the sequence of the message behind it.
pub fn encode_states<'s>(
    out: &mut Vec<u8>,
    place: u64,
    spans: impl IntoIterator<Item = &'s Span>,
    key: u64,
) {
    let start = open_record(out, KIND_STATES, place, 0);
    spans.into_iter().for_each(|span| encode_span(out, span));
    close_record(out, start, key);
}

fn open_record(out: &mut Vec<u8>, kind: u8, sequence: u64, time_ms: u64) -> usize {
    let start = out.len();
    let mut head = [0; RECORD_HEAD_SIZE];
    head[12] = kind;
    head[13..21].copy_from_slice(&sequence.to_le_bytes());
    head[21..].copy_from_slice(&time_ms.to_le_bytes());
    out.extend_from_slice(&head);
    start
}

fn close_record(out: &mut [u8], start: usize, key: u64) {
    let (head, body) = out[start..].split_at_mut(RECORD_HEAD_SIZE);
    assert!(body.len() + RECORD_HEAD_SIZE <= RECORD_SIZE_MAX);
    head[4..8].copy_from_slice(&body_check(body, key).to_le_bytes());
    head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let check = head_check(&head[CHECKED_FROM..], key);
    head[..4].copy_from_slice(&check.to_le_bytes());
}

/// XXH3 is quicker than crc32 for the few bytes of a head.
fn head_check(bytes: &[u8], key: u64) -> u32 {
    XxHash3_64::oneshot_with_seed(key, bytes) as u32
}

/// crc32 is quicker than XXH3 from some 200 bytes on. Each key gives another sum, whatever the bytes.
fn body_check(bytes: &[u8], key: u64) -> u32 {
    let mut hasher = Hasher::new_with_initial((key >> 32) as u32);
    hasher.update(bytes);
    hasher.finalize()
}

fn encode_span(out: &mut Vec<u8>, span: &Span) {
    out.extend_from_slice(&span.first.to_le_bytes());
    out.extend_from_slice(&(span.end - span.first).to_le_bytes());
    out.push(match span.mark {
        Mark::Received => 1,
        Mark::Done => 2,
    });
}

fn decode_span(bytes: &[u8]) -> Option<Span> {
    let first = u64_at(bytes, 0);
    let end = first.checked_add(u64_at(bytes, 8)).filter(|&end| end > first)?;
    let mark = match bytes[16] {
        1 => Mark::Received,
        2 => Mark::Done,
        _ => return None,
    };
    Some(Span { first, end, mark })
}

fn checked_spans(bytes: &[u8]) -> Option<Spans<'_>> {
    let whole = bytes.len().is_multiple_of(SPAN_SIZE);
    let good = whole && bytes.chunks_exact(SPAN_SIZE).all(|span| decode_span(span).is_some());
    good.then_some(Spans(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn head() -> Head {
        let spans = vec![
            Span { first: 8, end: 9, mark: Mark::Received },
            Span { first: 12, end: 20, mark: Mark::Done },
        ];
        Head { segment: 3, first_sequence: 40, floor: 7, boot: [9; 16], format: V2, spans }
    }

    const KEY: u64 = 0x1234_5678_9abc_def0;
    const V2: Format = Format::V2(KEY);

    /// A record of version 1, as the first program wrote it.
    fn v1_record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut covered = (body.len() as u32).to_le_bytes().to_vec();
        covered.push(kind);
        covered.extend_from_slice(body);
        [&crc32(&covered).to_le_bytes()[..], &covered].concat()
    }

    fn records() -> Vec<u8> {
        let mut out = Vec::new();
        let start = open_message(&mut out, 40, 1_700_000_000_000);
        out.extend_from_slice(b"payload");
        close_message(&mut out, start, KEY);
        encode_states(&mut out, 41, &head().spans, KEY);
        out
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = head().encode();
        assert_eq!(Head::decode(&bytes), Decoded::Whole { value: head(), size: bytes.len() });

        let bytes = records();
        let message =
            Record::Message { sequence: 40, time_ms: 1_700_000_000_000, bytes: b"payload" };
        let size = MESSAGE_OVERHEAD + 7;
        assert_eq!(Record::decode(&bytes, V2), Decoded::Whole { value: message, size });
        let Decoded::Whole { value: Record::States { place: 41, spans }, size: rest } =
            Record::decode(&bytes[size..], V2)
        else {
            panic!("no states");
        };
        assert_eq!(spans.collect::<Vec<_>>(), head().spans);
        assert_eq!(size + rest, bytes.len());
    }

    #[test]
    fn version_1_is_read() {
        let head = Head { format: Format::V1, ..head() };
        let bytes = head.encode();
        assert_eq!(bytes.len(), 64 + 2 * SPAN_SIZE);
        assert_eq!(Head::decode(&bytes), Decoded::Whole { value: head, size: bytes.len() });
        let body = [&40u64.to_le_bytes()[..], &5u64.to_le_bytes(), b"payload"].concat();
        let bytes = v1_record(KIND_MESSAGE, &body);
        let message = Record::Message { sequence: 40, time_ms: 5, bytes: b"payload" };
        let whole = Decoded::Whole { value: message, size: V1_MESSAGE_OVERHEAD + 7 };
        assert_eq!(Record::decode(&bytes, Format::V1), whole);
        assert_eq!(Record::decode(&bytes, V2), Decoded::Torn);
    }

    #[test]
    fn a_record_of_another_key_is_none() {
        let bytes = records();
        for bit in 0..64 {
            assert_eq!(Record::decode(&bytes, Format::V2(KEY ^ 1 << bit)), Decoded::Torn);
        }
    }

    #[test]
    fn a_damaged_body_does_not_hide_where_the_next_record_begins() {
        let mut bytes = records();
        bytes[MESSAGE_OVERHEAD + 3] ^= 4;
        let size = MESSAGE_OVERHEAD + 7;
        assert_eq!(Record::decode(&bytes, V2), Decoded::Damaged { size });
    }

    #[test]
    fn a_flipped_bit_is_torn_wherever_it_is() {
        let whole = head().encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Head::decode(&bytes), Decoded::Whole { .. }), "bit {bit}");
        }
        let whole = &records()[..MESSAGE_OVERHEAD + 7];
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Record::decode(&bytes, V2), Decoded::Whole { .. }), "bit {bit}");
        }
    }

    #[test]
    fn a_prefix_is_incomplete_and_says_how_much_is_missing() {
        let whole = head().encode();
        for size in 0..whole.len() {
            let Decoded::Incomplete { size: wanted } = Head::decode(&whole[..size]) else {
                panic!("{size}");
            };
            assert!(wanted > size && wanted <= whole.len());
        }
        let whole = &records()[..MESSAGE_OVERHEAD + 7];
        for size in 0..whole.len() {
            let Decoded::Incomplete { size: wanted } = Record::decode(&whole[..size], V2) else {
                panic!("{size}");
            };
            assert!(wanted > size && wanted <= whole.len());
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic() {
        let mut random = Random::new(11);
        let (mut whole, mut torn) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = if random.below(2) == 0 { head().encode() } else { records() };
            for _ in 0..random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.number() as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            match (Head::decode(&bytes), Record::decode(&bytes, V2)) {
                (Decoded::Whole { .. }, _) | (_, Decoded::Whole { .. }) => whole += 1,
                _ => torn += 1,
            }
        }
        assert!(whole > 1000 && torn > 1000, "{whole} {torn}");
    }
}
