//! A stand-in for TLS: records of the same shape and failures, a keystream from a seed, and no security at all.
//!
//! ```text
//!  kind (1 byte) | 0x03 0x03 | size of the body (2 bytes) | body, changed by a keystream | tag (16 bytes)
//! ```
//! The body of a record may be empty. A record of kind `Update` makes its receiver send one of kind `Updated`.

use ringmq::session::{BufferPool, Output};
use ringmq::transport::{End, Opened, Transport};
use std::ops::Range;

const HEADER: usize = 5;
const TAG: usize = 16;
/// A client asks for an update once in so many records.
const UPDATE_RECORDS: u64 = 5;
/// The largest body of a record that is received, in bytes.
const BODY_MAX: usize = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Updated = 20,
    Goodbye = 21,
    Update = 22,
    Data = 23,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Records {
    sealing: Keystream,
    opening: Keystream,
    /// The first part of a record, in a buffer of the record's size.
    kept: Vec<u8>,
    /// The record that was completed last; what it said is lent from here.
    whole: Vec<u8>,
    /// Records that the end itself has to send, sealed.
    own: Vec<u8>,
    says_goodbye: bool,
    /// How the other end has ended what it sends.
    end: Option<End>,
    /// The largest body of a record that is sent, in bytes.
    body_max: usize,
    /// Updates that the peer has made when asked.
    pub updated_count: u64,
}

#[derive(Debug)]
struct Keystream {
    seed: u64,
    /// Records so far.
    count: u64,
}

impl Keystream {
    /// Changes a body and returns its tag; `is_sealed`: the body that came in was sealed.
    fn apply(&mut self, kind: u8, body: &mut [u8], is_sealed: bool) -> [u8; TAG] {
        let mut state = (self.seed ^ self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        self.count += 1;
        let mut sum = u64::from(kind) ^ state;
        for byte in body.iter_mut() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let before = *byte;
            *byte ^= state as u8;
            let plain = if is_sealed { *byte } else { before };
            sum = (sum ^ u64::from(plain)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut tag = [0; TAG];
        tag[..8].copy_from_slice(&sum.to_le_bytes());
        tag
    }
}

impl Records {
    /// The ends of the broker and of its client; both send bodies of at most `body_max` bytes.
    pub(crate) fn pair(seed: u64, body_max: usize) -> (Records, Records) {
        let end = |own: u64, other: u64| Records {
            sealing: Keystream { seed: seed ^ own, count: 0 },
            opening: Keystream { seed: seed ^ other, count: 0 },
            kept: Vec::new(),
            whole: Vec::new(),
            own: Vec::new(),
            says_goodbye: false,
            end: None,
            body_max,
            updated_count: 0,
        };
        (end(2, 4), end(4, 2))
    }

    /// Bytes of a client in records.
    pub(crate) fn seal_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.sealing.count % UPDATE_RECORDS == UPDATE_RECORDS - 1 {
            self.add_own(Kind::Update);
        }
        let sealed = self.seal(Output::from(bytes.to_vec()), &mut BufferPool::default());
        sealed.slices().collect::<Vec<_>>().concat()
    }

    /// What a client reads in `bytes`; the broker sends only what is right.
    pub(crate) fn open_bytes(&mut self, bytes: &mut [u8]) -> Vec<u8> {
        let (mut used, mut plain) = (0, Vec::new());
        while used < bytes.len() {
            let opened = self.open(&mut bytes[used..]);
            used += opened.used;
            plain.extend_from_slice(opened.plain);
            let is_right = match self.end {
                None => true,
                Some(End::Goodbye) => used == bytes.len(),
                Some(End::Broken(_)) => false,
            };
            assert!(is_right, "the broker seals what its client opens: {:?}", self.end);
        }
        plain
    }

    fn add_own(&mut self, kind: Kind) {
        let at = self.own.len();
        begin_record(&mut self.own, kind, 0);
        let tag = self.sealing.apply(kind as u8, &mut self.own[at + HEADER..], false);
        self.own.extend_from_slice(&tag);
    }

    /// Opens a whole record; returns the place of its body.
    fn open_record(&mut self, record: &mut [u8]) -> Range<usize> {
        let end = record.len() - TAG;
        let (head, rest) = record.split_at_mut(HEADER);
        let (body, tag) = rest.split_at_mut(end - HEADER);
        if self.opening.apply(head[0], body, true) != *tag {
            self.end = Some(End::Broken("a record was changed on its way"));
            return 0..0;
        }
        match head[0] {
            kind if kind == Kind::Data as u8 => return HEADER..end,
            kind if kind == Kind::Update as u8 => self.add_own(Kind::Updated),
            kind if kind == Kind::Updated as u8 => self.updated_count += 1,
            _ => self.end = Some(End::Goodbye),
        }
        0..0
    }

    /// The size of the record that begins here; `None`: its header is not whole, or no record begins here.
    fn record_size(&mut self, bytes: &[u8]) -> Option<usize> {
        let head = bytes.get(..HEADER)?;
        let body = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let is_known = matches!(head[0], 20..=23) && head[1..3] == [3, 3];
        if !is_known || body > BODY_MAX {
            self.end = Some(End::Broken("what arrived is no record"));
            return None;
        }
        Some(HEADER + body + TAG)
    }

    /// Keeps the next part of a record whose first part may be kept already; returns how many bytes that took.
    fn keep(&mut self, bytes: &[u8]) -> usize {
        let head = HEADER.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..head]);
        let kept = std::mem::take(&mut self.kept);
        let size = self.record_size(&kept);
        self.kept = kept;
        let Some(size) = size else { return head };
        let left = size - self.kept.len();
        self.kept.reserve_exact(left);
        let more = left.min(bytes.len() - head);
        self.kept.extend_from_slice(&bytes[head..head + more]);
        if self.kept.len() == size {
            self.whole = std::mem::take(&mut self.kept);
        }
        head + more
    }
}

fn begin_record(out: &mut Vec<u8>, kind: Kind, body_size: usize) {
    out.extend_from_slice(&[kind as u8, 3, 3]);
    out.extend_from_slice(&(body_size as u16).to_be_bytes());
}

impl Transport for Records {
    fn room(&self) -> u32 {
        HEADER as u32
    }

    fn open<'a>(&'a mut self, bytes: &'a mut [u8]) -> Opened<'a> {
        self.whole = Vec::new();
        if self.kept.is_empty()
            && let Some(size) = self.record_size(bytes)
            && size <= bytes.len()
        {
            let place = self.open_record(&mut bytes[..size]);
            return Opened { used: size, plain: &mut bytes[place] };
        }
        let used = self.keep(bytes);
        let mut whole = std::mem::take(&mut self.whole);
        let place = if whole.is_empty() { 0..0 } else { self.open_record(&mut whole) };
        self.whole = whole;
        Opened { used, plain: &mut self.whole[place] }
    }

    fn end(&self) -> Option<End> {
        self.end
    }

    fn has_own_bytes(&self) -> bool {
        self.says_goodbye || !self.own.is_empty()
    }

    fn seal(&mut self, mut output: Output, pool: &mut BufferPool) -> Output {
        let size = output.size();
        let is_small = output.parts.is_empty() && size <= self.body_max && size > 0;
        if is_small && !self.has_own_bytes() && output.begin as usize >= HEADER {
            let begin = output.begin as usize;
            let tag = self.sealing.apply(Kind::Data as u8, &mut output.bytes[begin..], false);
            let mut head = Vec::new();
            begin_record(&mut head, Kind::Data, size);
            output.begin -= HEADER as u32;
            output.bytes[begin - HEADER..begin].copy_from_slice(&head);
            output.bytes.extend_from_slice(&tag);
            return output;
        }
        let mut sealed = pool.take();
        sealed.append(&mut self.own);
        self.own = Vec::new();
        let plain = output.slices().collect::<Vec<_>>().concat();
        for body in plain.chunks(self.body_max) {
            begin_record(&mut sealed, Kind::Data, body.len());
            let at = sealed.len();
            sealed.extend_from_slice(body);
            let tag = self.sealing.apply(Kind::Data as u8, &mut sealed[at..], false);
            sealed.extend_from_slice(&tag);
        }
        if std::mem::take(&mut self.says_goodbye) {
            self.add_own(Kind::Goodbye);
            sealed.append(&mut self.own);
            self.own = Vec::new();
        }
        pool.give(output.bytes);
        Output::from(sealed)
    }

    fn say_goodbye(&mut self) {
        self.says_goodbye = true;
    }

    fn bytes(&self) -> usize {
        size_of::<Records>() + self.kept.capacity() + self.whole.capacity() + self.own.capacity()
    }
}
