//! The flow of messages through a shard: in by clients and by mail, through the stages, out by mail.

use super::inbox::Inbox;
use super::incoming::Incoming;
use crate::arena::{Arena, Gauge, Generation};
use crate::limits::{Limits, Sizes};
use crate::peers::Peers;
use crate::pipeline::Pipeline;
use crate::routing::mail::Outbox;
use crate::routing::router::Router;
use crate::session::SessionKey;

/// Where messages live, how far the stages have come with them, where they go, and what goes to and came from other shards.
pub(super) struct Flow {
    pub arena: Arena,
    pub pipeline: Pipeline,
    pub router: Router,
    pub inbox: Inbox,
    pub outbox: Outbox,
    /// Sessions that did not get a run in one go.
    pub left_of_run: Vec<SessionKey>,
}

impl Flow {
    pub(super) fn new(peers: &Peers, sizes: &Sizes, limits: &Limits, stored: &Gauge) -> Flow {
        Flow {
            arena: Arena::new(
                sizes.arena_size,
                sizes.arena_slots,
                limits.large_message_size,
                stored.clone(),
            ),
            pipeline: Pipeline::default(),
            router: Router::new(peers.hash(), sizes.route_cache_max, limits.metadata_routes_max()),
            inbox: Inbox::new(peers.count()),
            outbox: Outbox::new(peers.count(), sizes.mail_bytes_mark),
            left_of_run: Vec::new(),
        }
    }

    /// The one way into the arena: gives a message its slot and the next generation, which also counts it, and marks the
    /// trail of a message that a bridge brought. `None`: the message finds no room as it is; the caller has another
    /// way for it (`Shard::admit`), or none.
    ///
    /// The pipeline hears of all messages at once when the stages begin (`Shard::run_all_held`): telling it of each
    /// costs instructions (bench/CHOICES.md).
    #[inline(always)]
    pub(super) fn admit(&mut self, incoming: Incoming<'_>) -> Option<Generation> {
        let arena = &mut self.arena;
        let (generation, from_bridge) = match incoming {
            Incoming::Whole(draft) => (arena.admit(draft).ok()?, draft.meta.from_bridge),
            Incoming::Above(draft) => (arena.admit_above(draft).ok()?, draft.meta.from_bridge),
            Incoming::Piece(message) => {
                (arena.admit_piece(message).ok()?, message.meta.from_bridge)
            }
            Incoming::Repeat { pieces, payload_size } => {
                return arena.admit_repeat(pieces, payload_size).then(|| arena.admitted());
            }
            Incoming::RepeatOfLast { payload, size_max } => {
                let is_admitted = arena.last_front_size() + payload.len() <= size_max
                    && arena.admit_repeat_of_last(payload);
                return is_admitted.then(|| arena.admitted());
            }
        };
        if from_bridge {
            arena.trail_last();
        }
        Some(generation)
    }

    /// The stages have had every message, and every piece of mail is in its lane.
    pub(super) fn is_idle(&self) -> bool {
        self.arena.held() == 0 && self.outbox.is_empty()
    }
}
