//! The bytes of a segment: its head, and records with a checksum each; encoding and decoding, without I/O.
//!
//! ```text
//! segment  head record*
//! head     magic 8 | version 4 | crc32 4 (of both) | segment 8 | first sequence 8 | floor 8 | boot id 16
//!          | span count 4 | span*  | crc32 4 (of all before)
//! record   crc32 4 (of all behind) | body size 4 | kind 1 | body
//! message  sequence 8 | time, ms since 1970, 8 | bytes          kind 1
//! states   segment 8 | span*                                    kind 2
//! span     first sequence 8 | count 8 | mark 1
//! ```
//! All numbers are little-endian. The head carries every state that is not to be had from the messages themselves, so a
//! segment never needs what an older one says about states. Decoding takes any bytes: it cannot panic.

use crc32fast::hash as crc32;

use super::states::{Mark, Span};

pub const MAGIC: [u8; 8] = *b"RQ-SPOOL";
pub const VERSION: u32 = 1;

/// A head without spans.
pub const HEAD_SIZE_MIN: usize = 64;
const HEAD_FIXED: usize = HEAD_SIZE_MIN - CRC_SIZE;
pub const RECORD_HEAD_SIZE: usize = 9;
/// What a message takes beside its own bytes.
pub const MESSAGE_OVERHEAD: usize = RECORD_HEAD_SIZE + 16;
/// The largest record: a body that claims more is torn.
pub const RECORD_SIZE_MAX: usize = 1 << 29;
const SPAN_SIZE: usize = 17;
const CRC_SIZE: usize = 4;

const KIND_MESSAGE: u8 = 1;
const KIND_STATES: u8 = 2;

/// What stands at the front of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub segment: u64,
    /// The first message of this segment has it, and no earlier segment holds one that counts from here on.
    pub first_sequence: u64,
    /// All sequences below are done.
    pub floor: u64,
    /// The boot of the machine in which this was written.
    pub boot: [u8; 16],
    /// Sequences from `floor` that are received or done.
    pub spans: Vec<Span>,
}

/// One record, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Message { sequence: u64, time_ms: u64, bytes: &'a [u8] },
    States { segment: u64, spans: Spans<'a> },
}

/// What some bytes begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    Whole {
        value: T,
        size: usize,
    },
    /// At least `size` bytes are needed to say more.
    Incomplete {
        size: usize,
    },
    Torn,
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
        let size = HEAD_SIZE_MIN + self.spans.len() * SPAN_SIZE;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&crc32(&out).to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.first_sequence.to_le_bytes());
        out.extend_from_slice(&self.floor.to_le_bytes());
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&(self.spans.len() as u32).to_le_bytes());
        self.spans.iter().for_each(|span| encode_span(&mut out, span));
        out.extend_from_slice(&crc32(&out).to_le_bytes());
        debug_assert_eq!(out.len(), size);
        out
    }

    pub fn decode(bytes: &[u8]) -> Decoded<Head> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Decoded::Torn;
        }
        let Some(fixed) = bytes.get(..HEAD_FIXED) else {
            return Decoded::Incomplete { size: HEAD_SIZE_MIN };
        };
        // A newer version may have another head, but it has this much.
        if crc32(&fixed[..12]) != u32_at(fixed, 12) {
            return Decoded::Torn;
        }
        let version = u32_at(fixed, 8);
        if version != VERSION {
            return Decoded::Version(version);
        }
        let size = (u32_at(fixed, 56) as usize)
            .checked_mul(SPAN_SIZE)
            .and_then(|spans| spans.checked_add(HEAD_SIZE_MIN))
            .filter(|&size| size <= RECORD_SIZE_MAX);
        let Some(size) = size else { return Decoded::Torn };
        let Some(whole) = bytes.get(..size) else { return Decoded::Incomplete { size } };
        let (covered, crc) = whole.split_at(size - CRC_SIZE);
        if crc32(covered) != u32_at(crc, 0) {
            return Decoded::Torn;
        }
        let Some(spans) = checked_spans(&covered[HEAD_FIXED..]) else { return Decoded::Torn };
        let mut boot = [0; 16];
        boot.copy_from_slice(&fixed[40..56]);
        let value = Head {
            segment: u64_at(fixed, 16),
            first_sequence: u64_at(fixed, 24),
            floor: u64_at(fixed, 32),
            boot,
            spans: spans.collect(),
        };
        Decoded::Whole { value, size }
    }
}

impl<'a> Record<'a> {
    pub fn decode(bytes: &'a [u8]) -> Decoded<Record<'a>> {
        let Some(head) = bytes.get(..RECORD_HEAD_SIZE) else {
            return Decoded::Incomplete { size: RECORD_HEAD_SIZE };
        };
        let size = RECORD_HEAD_SIZE + u32_at(head, 4) as usize;
        if size > RECORD_SIZE_MAX || !matches!(head[8], KIND_MESSAGE | KIND_STATES) {
            return Decoded::Torn;
        }
        let Some(whole) = bytes.get(..size) else { return Decoded::Incomplete { size } };
        if crc32(&whole[CRC_SIZE..]) != u32_at(whole, 0) {
            return Decoded::Torn;
        }
        let body = &whole[RECORD_HEAD_SIZE..];
        let value = match head[8] {
            KIND_MESSAGE if body.len() >= 16 => Record::Message {
                sequence: u64_at(body, 0),
                time_ms: u64_at(body, 8),
                bytes: &body[16..],
            },
            KIND_STATES if body.len() >= 8 => match checked_spans(&body[8..]) {
                Some(spans) => Record::States { segment: u64_at(body, 0), spans },
                None => return Decoded::Torn,
            },
            _ => return Decoded::Torn,
        };
        Decoded::Whole { value, size }
    }
}

/// Begins a message record, whose bytes are to be appended behind it; [`close_message`] ends it. Says where it begins.
pub fn open_message(out: &mut Vec<u8>, sequence: u64, time_ms: u64) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEAD_SIZE]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&time_ms.to_le_bytes());
    start
}

/// Fills in size and checksum of the message record that began at `start` and ends where `out` does.
pub fn close_message(out: &mut [u8], start: usize) {
    close_record(out, start, KIND_MESSAGE);
}

/// Size of a record of `count` states.
pub fn states_size(count: usize) -> usize {
    RECORD_HEAD_SIZE + 8 + count * SPAN_SIZE
}

/// Appends a record of states.
pub fn encode_states<'s>(
    out: &mut Vec<u8>,
    segment: u64,
    spans: impl IntoIterator<Item = &'s Span>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEAD_SIZE]);
    out.extend_from_slice(&segment.to_le_bytes());
    spans.into_iter().for_each(|span| encode_span(out, span));
    close_record(out, start, KIND_STATES);
}

fn close_record(out: &mut [u8], start: usize, kind: u8) {
    let body_size = out.len() - start - RECORD_HEAD_SIZE;
    assert!(body_size + RECORD_HEAD_SIZE <= RECORD_SIZE_MAX);
    out[start + 4..start + 8].copy_from_slice(&(body_size as u32).to_le_bytes());
    out[start + 8] = kind;
    let crc = crc32(&out[start + CRC_SIZE..]);
    out[start..start + CRC_SIZE].copy_from_slice(&crc.to_le_bytes());
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
        Head { segment: 3, first_sequence: 40, floor: 7, boot: [9; 16], spans }
    }

    fn records() -> Vec<u8> {
        let mut out = Vec::new();
        let start = open_message(&mut out, 40, 1_700_000_000_000);
        out.extend_from_slice(b"payload");
        close_message(&mut out, start);
        encode_states(&mut out, 3, &head().spans);
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
        assert_eq!(Record::decode(&bytes), Decoded::Whole { value: message, size });
        let Decoded::Whole { value: Record::States { segment: 3, spans }, size: rest } =
            Record::decode(&bytes[size..])
        else {
            panic!("no states");
        };
        assert_eq!(spans.collect::<Vec<_>>(), head().spans);
        assert_eq!(size + rest, bytes.len());
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
            assert!(!matches!(Record::decode(&bytes), Decoded::Whole { .. }), "bit {bit}");
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
            let Decoded::Incomplete { size: wanted } = Record::decode(&whole[..size]) else {
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
            match (Head::decode(&bytes), Record::decode(&bytes)) {
                (Decoded::Whole { .. }, _) | (_, Decoded::Whole { .. }) => whole += 1,
                _ => torn += 1,
            }
        }
        assert!(whole > 1000 && torn > 1000, "{whole} {torn}");
    }
}
