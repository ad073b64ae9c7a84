//! A message and its handle.

use super::Stored;
use crate::time::Instant;

/// The handle of an admitted message. Generations count up from 1 and are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// The generation before the first message.
    pub const NONE: Generation = Generation(0);

    pub fn number(self) -> u64 {
        self.0
    }

    /// The generation with a number that `number` gave.
    pub fn from_number(number: u64) -> Generation {
        Generation(number)
    }

    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }

    /// How many messages were admitted after `earlier`, up to this one.
    pub fn count_since(self, earlier: Generation) -> u64 {
        debug_assert!(earlier <= self);
        self.0 - earlier.0
    }
}

/// What travels with a message beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// 0, 1 or 2, as published.
    pub qos: u8,
    /// The retain flag as published.
    pub retain: bool,
    /// Whether the publisher is connected to this shard: only there hooks run, a retained message is handed to its
    /// owner, and bridges store it.
    pub is_origin: bool,
    /// When the message expires; `None`: never.
    pub expires_at: Option<Instant>,
    /// The publishing session on this shard; 0 for a message from elsewhere.
    pub publisher: u64,
    /// Whether a bridge brought the message here, a bridge of ours or a client that is a bridge. Such a message has a
    /// trail behind its properties.
    pub from_bridge: bool,
    /// For a message with the retain flag: the room that the owner of its topic has set aside for it.
    pub claim: Claim,
}

/// Whether room among the retained messages was set aside for a message before it was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    #[default]
    None,
    /// The room was taken from the lease of the origin.
    Leased,
    /// The owner has promised room for this topic.
    Promised,
}

/// A message to admit: borrowed pieces, copied into the arena once.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub topic: &'a [u8],
    /// Properties that travel on, as received, in order, in up to two pieces: usually one, or none.
    pub properties: [&'a [u8]; 2],
    pub payload: &'a [u8],
    pub meta: Meta,
}

impl Draft<'_> {
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties_size() + self.payload.len()
    }

    #[inline]
    pub(super) fn properties_size(&self) -> usize {
        let [first, second] = self.properties;
        first.len() + second.len()
    }
}

/// A message in place, in the ring or in an allocation of its own.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Topic, properties and payload, one behind the other.
    pub bytes: &'a [u8],
    /// Validated UTF-8 without wildcards.
    pub topic: &'a [u8],
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub meta: Meta,
    /// The message's own allocation, when it has one.
    pub stored: Option<&'a Stored>,
}

impl<'a> Message<'a> {
    /// A message whose topic, properties and payload are `bytes`, one behind the other.
    #[inline]
    pub fn of(
        bytes: &'a [u8],
        topic_size: usize,
        properties_size: usize,
        meta: Meta,
        stored: Option<&'a Stored>,
    ) -> Message<'a> {
        let (topic, rest) = bytes.split_at(topic_size);
        let (properties, payload) = rest.split_at(properties_size);
        Message { bytes, topic, properties, payload, meta, stored }
    }

    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// A draft with which the message is admitted or stored.
    pub fn draft(&self) -> Draft<'a> {
        let properties = &self.bytes[self.topic.len()..self.bytes.len() - self.payload.len()];
        Draft {
            topic: self.topic,
            properties: [properties, &[]],
            payload: self.payload,
            meta: self.meta,
        }
    }
}
