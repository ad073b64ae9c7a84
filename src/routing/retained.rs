//! Retained messages by topic, on the shard that owns the topic: what is kept, for whom, and room for more.

mod room;
mod setters;

pub(crate) use room::{Kept, kept_size};
pub(crate) use setters::{Setter, SlotSetters};

use crate::peers::ShardId;
use crate::session::ConnectionId;

/// The question for one message's room.
#[derive(Debug)]
pub(crate) struct Ask {
    pub from: ShardId,
    pub connection: ConnectionId,
    pub request: u64,
    pub topic: Box<str>,
    pub size: usize,
    pub setter: Option<Setter>,
    /// The asker's lease runs low.
    pub wants_lease: bool,
}

/// The owner's word.
#[derive(Debug)]
pub(crate) struct Word {
    pub connection: ConnectionId,
    pub request: u64,
    pub topic: Box<str>,
    /// Room for the message is promised.
    pub is_promised: bool,
    /// What the asker may spend from now on.
    pub lease: Room,
}

/// Places of retained messages, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub messages: usize,
    pub bytes: usize,
}

impl Room {
    /// What one message takes; `size` is that of its allocation.
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
