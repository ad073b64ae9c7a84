//! Retained messages by topic, on the shard that owns the topic: what is kept, for whom, and room for more.

mod room;
mod setters;

pub(crate) use room::{Kept, Room, kept_size};
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
