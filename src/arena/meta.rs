//! The handle of a message, and what travels with the message beside its bytes.

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
