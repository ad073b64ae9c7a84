//! Messages on their way between shards: they are copied one behind the other, and read where they arrive.

use crate::arena::{Claim, Message, Meta};
use crate::routing::groups::{GroupKey, MemberOptions};
use crate::routing::retained::Setter;
use crate::session::SessionKey;
use crate::time::Instant;

/// Messages, one behind the other, in one allocation.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    pub count: usize,
    /// For a batch in the outbox: batches with a higher number were opened later.
    pub(super) number: u64,
}

/// The receiver of a message in a member batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub session: SessionKey,
    pub options: MemberOptions,
    pub group: GroupKey,
}

/// Sizes of topic, properties and payload, expiry, flags.
pub(crate) const HEADER_SIZE: usize = 4 + 4 + 4 + 8 + 1;
const NEVER: u64 = u64::MAX;
/// Set if the message repeats the one before it in all but its payload.
pub(crate) const REPEAT: u8 = 1 << 4;
/// The first of two bits that encode the message's claim.
const CLAIM_BIT: u8 = 5;
/// Set if the message's setter follows it, for the owner of its topic.
const HAS_SETTER: u8 = 1 << 7;

fn claim_of(flags: u8) -> Claim {
    match flags >> CLAIM_BIT & 3 {
        0 => Claim::None,
        1 => Claim::Leased,
        _ => Claim::Promised,
    }
}

impl Batch {
    #[inline]
    pub(crate) fn push(&mut self, message: &Message<'_>) {
        self.push_flagged(message, 0);
    }

    #[inline]
    pub(crate) fn push_flagged(&mut self, message: &Message<'_>, flags: u8) {
        let Message { bytes, topic, payload, meta, .. } = message;
        self.bytes.reserve(HEADER_SIZE + bytes.len());
        // The properties' size includes the trail.
        let properties_size = bytes.len() - topic.len() - payload.len();
        self.push_header([topic.len(), properties_size, payload.len()], meta, flags);
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a message whose topic, properties and payload are not in one piece.
    pub(crate) fn push_parts(&mut self, parts: [&[u8]; 3], meta: &Meta) {
        self.push_header(parts.map(<[u8]>::len), meta, 0);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    #[inline]
    pub(crate) fn push_header(&mut self, sizes: [usize; 3], meta: &Meta, flags: u8) {
        let mut header = [0; HEADER_SIZE];
        let (chunks, rest) = header.as_chunks_mut::<4>();
        for (chunk, size) in chunks.iter_mut().zip(sizes) {
            *chunk = (size as u32).to_le_bytes();
        }
        let expires_at = meta.expires_at.map_or(NEVER, |at| at.0).to_le_bytes();
        chunks[3].copy_from_slice(&expires_at[..4]);
        chunks[4].copy_from_slice(&expires_at[4..]);
        let claim = (meta.claim as u8) << CLAIM_BIT;
        let own = meta.qos | u8::from(meta.retain) << 2 | u8::from(meta.from_bridge) << 3;
        rest[0] = own | claim | flags;
        self.bytes.extend_from_slice(&header);
        self.count += 1;
    }

    pub(crate) fn push_to(&mut self, address: &Address, message: &Message<'_>) {
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&address.session.index.to_le_bytes());
        bytes.extend_from_slice(&address.session.generation.to_le_bytes());
        bytes.extend_from_slice(&address.group.index.to_le_bytes());
        bytes.extend_from_slice(&address.group.number.to_le_bytes());
        bytes.extend_from_slice(&address.options.to_bytes());
        self.push(message);
    }

    pub(crate) fn reader(&self) -> BatchReader<'_> {
        BatchReader { rest: &self.bytes, is_repeat: false, setter: None }
    }

    /// Appends the setter of the message that was pushed last.
    pub(crate) fn push_setter(&mut self, message: &Message<'_>, setter: Setter) {
        let flags_at = self.bytes.len() - message.bytes.len() - 1;
        self.bytes[flags_at] |= HAS_SETTER;
        self.bytes.extend_from_slice(&setter.to_bytes());
    }
}

/// Reads a batch that a shard of this process wrote.
#[derive(Clone, Debug)]
pub(crate) struct BatchReader<'a> {
    rest: &'a [u8],
    /// Whether the last message that was read repeats the one before it in all but its payload.
    pub is_repeat: bool,
    /// The setter of the last message, if that is to be retained.
    pub setter: Option<Setter>,
}

impl<'a> BatchReader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(size);
        self.rest = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<Message<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (header, rest) = self.rest.split_first_chunk::<HEADER_SIZE>().expect("a header");
        self.rest = rest;
        let (chunks, rest) = header.as_chunks::<4>();
        let size = |at: usize| u32::from_le_bytes(chunks[at]) as usize;
        let [topic_size, properties_size, payload_size] = [size(0), size(1), size(2)];
        let expires_at = size(3) as u64 | (size(4) as u64) << 32;
        let flags = rest[0];
        self.is_repeat = flags & REPEAT != 0;
        let meta = Meta {
            qos: flags & 3,
            retain: flags & 4 != 0,
            is_origin: false,
            expires_at: (expires_at != NEVER).then_some(Instant(expires_at)),
            publisher: 0,
            from_bridge: flags & 8 != 0,
            claim: claim_of(flags),
        };
        let bytes = self.take(topic_size + properties_size + payload_size);
        let has_setter = flags & HAS_SETTER != 0;
        self.setter = has_setter.then(|| Setter::from_bytes(self.take(Setter::SIZE)));
        let message = Message::of(bytes, topic_size, properties_size, meta, None);
        Some(if meta.from_bridge { Message::with_trail(message) } else { message })
    }

    pub(crate) fn next_addressed(&mut self) -> Option<(Address, Message<'a>)> {
        if self.rest.is_empty() {
            return None;
        }
        let session = SessionKey { index: self.u32(), generation: self.u32() };
        let group = GroupKey { index: self.u32(), number: self.u32() };
        let options = MemberOptions::from_bytes(self.take(MemberOptions::SIZE));
        Some((Address { session, options, group }, self.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let meta = Meta {
            qos: 2,
            retain: true,
            is_origin: false,
            expires_at: Some(Instant(77)),
            publisher: 0,
            from_bridge: false,
            claim: Claim::None,
        };
        let options = MemberOptions {
            qos: QoS::AtLeastOnce,
            retain_as_published: true,
            id: 268_435_455,
            membership: 70_000,
        };
        let address = Address {
            session: SessionKey { index: 3, generation: 8 },
            options,
            group: GroupKey { index: 1, number: 2 },
        };
        let mut batch = Batch::default();
        for size in [0usize, 1, 300] {
            let bytes = [&b"a/bxyz"[..], &vec![size as u8; size]].concat();
            batch.push_to(&address, &Message::of(&bytes, 3, 3, meta, None));
        }
        let mut reader = batch.reader();
        for size in [0usize, 1, 300] {
            let (to, message) = reader.next_addressed().unwrap();
            assert_eq!(to, address);
            assert_eq!(message.topic, b"a/b");
            assert_eq!(message.properties, b"xyz");
            assert_eq!(message.payload, vec![size as u8; size]);
            assert_eq!(message.meta, meta);
        }
        assert!(reader.next_addressed().is_none());
        assert_eq!(batch.count, 3);
    }
}
