//! Retained messages by topic, on the shard that owns the topic: the messages, their setters, and the room for more.

mod room;
mod setters;

pub(crate) use room::{Kept, kept_size};
pub(crate) use setters::{Setter, SlotSetters};

use crate::peers::ShardId;
use crate::session::ConnectionId;

/// Asks for room for one message.
#[derive(Debug)]
pub(crate) struct Ask {
    pub from: ShardId,
    pub connection: ConnectionId,
    pub request: u64,
    pub topic: Box<str>,
    pub size: usize,
    pub setter: Option<Setter>,
    /// Whether the asker's lease runs low.
    pub wants_lease: bool,
}

/// The answer of the owner.
#[derive(Debug)]
pub(crate) struct Word {
    pub connection: ConnectionId,
    pub request: u64,
    pub topic: Box<str>,
    /// Whether room for the message is promised.
    pub is_promised: bool,
    /// The lease: room that the asker may spend from now on.
    pub lease: Room,
}

/// Room for retained messages: how many, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub messages: usize,
    pub bytes: usize,
}

impl Room {
    /// The room that one message takes; `size` is the size of its allocation.
    pub(crate) fn of_one(size: usize) -> Room {
        Room { messages: 1, bytes: size }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Room::default()
    }

    pub(crate) fn holds(self, other: Room) -> bool {
        self.messages >= other.messages && self.bytes >= other.bytes
    }

    pub(crate) fn add(&mut self, other: Room) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    pub(crate) fn subtract(&mut self, other: Room) {
        assert!(self.holds(other), "room is given back by whoever has it: {other:?} of {self:?}");
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}
