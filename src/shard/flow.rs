//! The flow of messages through a shard: in by clients and by mail, through the stages, out by mail.

use super::inbox::Inbox;
use crate::arena::{Arena, Gauge};
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

    /// The stages have had every message, and every piece of mail is in its lane.
    pub(super) fn is_idle(&self) -> bool {
        self.arena.held() == 0 && self.outbox.is_empty()
    }
}
