//! The admission of a message to the arena: its publisher, and its outcome.

use super::Shard;
use super::incoming::Incoming;
use crate::arena::{Draft, Generation};
use crate::codec::ReasonCode;
use crate::routing::bridge_mail::BridgeId;
use crate::session::{Session, SessionKey};
use crate::time::Instant;

/// The publisher of a message.
#[derive(Clone, Copy)]
pub(super) enum Publisher<'a> {
    /// A connected client, with the topic of the message as text.
    Client(SessionKey, &'a str),
    /// A session whose will this is.
    Session(SessionKey),
    /// A session that has ended, whose will this is.
    Ended(&'a Session),
    /// A bridge that brought the message in.
    Bridge(BridgeId),
}

/// The outcome of a message at its origin. A denied message stays unread in its slot until the stages have acked it. A
/// refused message has no slot, and its generation is `NONE`.
#[derive(Clone, Copy)]
pub(super) struct Published {
    pub generation: Generation,
    pub denied: Option<ReasonCode>,
}

impl Published {
    pub(super) const REFUSED: Published = Published {
        generation: Generation::NONE,
        denied: Some(ReasonCode::ImplementationSpecificError),
    };

    #[inline]
    pub(super) fn of(admitted: Option<Generation>) -> Published {
        admitted.map_or(Published::REFUSED, |generation| Published { generation, denied: None })
    }

    pub(super) fn is_refused(&self) -> bool {
        self.generation == Generation::NONE
    }
}

impl Shard {
    /// Copies a message into the arena. `None`: the message is larger than the arena; it is counted and goes nowhere.
    #[inline(always)]
    pub(super) fn admit(&mut self, now: Instant, draft: &Draft<'_>) -> Option<Generation> {
        match self.flow.admit(Incoming::Whole(draft)) {
            Some(generation) => Some(generation),
            None => self.admit_after_stages(now, *draft),
        }
    }
}
