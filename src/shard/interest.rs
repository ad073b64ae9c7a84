//! Interest: every shard knows which shards have a subscriber for a filter.
//!
//! The first subscription to a filter and the end of the last one are announced to all; interest lives as long as the
//! subscription. A SUBACK waits until every shard has acked, so a message published after it is never missed. An ack
//! leaves a shard only after all its earlier publishes are in their lanes. Acks carry the announcement's version: an
//! ack for an older one of the same filter counts for nothing.

use super::{ConnectionId, Shard, ShardId};
use crate::arena::{allocated, map_size};
use crate::hash::KeyedHash;
use crate::peers::ShardSet;
use crate::routing::mail::Control;
use crate::session::Park;
use crate::time::Instant;
use std::collections::HashMap;

/// An announcement that not every shard has acked.
#[derive(Debug)]
pub(super) struct Announcement {
    version: u64,
    /// The shards that have not acked.
    missing: ShardSet,
    /// Connections whose SUBACK waits for the announcement.
    waiting: Vec<ConnectionId>,
    /// Members whose join waits for the announcement.
    joins: Vec<Join>,
}

/// A member whose join is confirmed once its group's filter is known everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    pub shard: ShardId,
    pub connection: ConnectionId,
}

/// An empty table keeps room for so many entries.
const ANNOUNCEMENTS_KEPT: usize = 1_024;

/// Filters of this shard's clients that are being announced to other shards.
pub(super) struct Interest {
    announcements: HashMap<Box<str>, Announcement, ahash::RandomState>,
    /// The version of the last announcement.
    version: u64,
}

impl Interest {
    pub(super) fn new(hash: &KeyedHash) -> Interest {
        Interest { announcements: HashMap::with_hasher(hash.state()), version: 0 }
    }

    /// The memory that the table takes, in bytes: an estimate.
    pub(super) fn table_bytes(&self) -> usize {
        map_size(self.announcements.capacity(), size_of::<(Box<str>, Announcement)>())
    }
}

impl Shard {
    /// Notes a subscription that is in the index: announces the filter if the subscription is new and the first one.
    /// Returns whether `waiting` must wait for the other shards.
    pub(super) fn announce(
        &mut self,
        filter: &str,
        is_new: bool,
        waiting: Option<ConnectionId>,
    ) -> bool {
        if self.peers.is_alone() {
            return false;
        }
        if is_new && self.flow.router.subscriptions().subscriber_count(filter) == 1 {
            self.interest.version += 1;
            let version = self.interest.version;
            let mut missing = ShardSet::EMPTY;
            for shard in self.peers.others() {
                missing.insert(shard);
                self.flow.outbox.control(
                    shard,
                    Control::Interest { filter: filter.into(), version, is_added: true },
                );
            }
            let announcement =
                Announcement { version, missing, waiting: Vec::new(), joins: Vec::new() };
            self.memory.metadata.announced += allocated(filter.len());
            self.interest.announcements.insert(filter.into(), announcement);
        }
        match self.interest.announcements.get_mut(filter) {
            Some(announcement) => {
                announcement.waiting.extend(waiting);
                true
            }
            None => false,
        }
    }

    /// Lets a member's join wait for the announcement of its group's filter; `false`: there is nothing to wait for.
    pub(super) fn wait_for_announcement(&mut self, filter: &str, join: Join) -> bool {
        match self.interest.announcements.get_mut(filter) {
            Some(announcement) => {
                announcement.joins.push(join);
                true
            }
            None => false,
        }
    }

    /// Notes a subscription that was removed from the index: withdraws the filter if it was the last one.
    ///
    /// Connections that wait for the announcement have it confirmed: a client may go on after the end of its own subscription. Their
    /// input goes on behind this call, which may be in the midst of the end of another connection or session.
    pub(super) fn withdraw(&mut self, now: Instant, filter: &str) {
        self.bound_held();
        if self.peers.is_alone() || self.flow.router.subscriptions().subscriber_count(filter) > 0 {
            return;
        }
        let announcement = self.end_announcement(filter);
        self.interest.version += 1;
        let version = self.interest.version;
        for shard in self.peers.others() {
            self.flow.outbox.control(
                shard,
                Control::Interest { filter: filter.into(), version, is_added: false },
            );
        }
        let Some(Announcement { waiting, joins, .. }) = announcement else { return };
        let own = self.peers.own();
        let own_joins = joins.iter().filter(|join| join.shard == own);
        for id in waiting.into_iter().chain(own_joins.map(|join| join.connection)) {
            if self.confirm_filter(now, id) {
                self.postpone(id, Park::Subscribe);
            }
        }
        for join in joins.iter().filter(|join| join.shard != own) {
            self.confirm_join(now, *join);
        }
    }

    fn end_announcement(&mut self, filter: &str) -> Option<Announcement> {
        let announcement = self.interest.announcements.remove(filter)?;
        self.memory.metadata.announced -= allocated(filter.len());
        if self.interest.announcements.is_empty()
            && self.interest.announcements.capacity() > ANNOUNCEMENTS_KEPT
        {
            self.interest.announcements.shrink_to(0);
        }
        Some(announcement)
    }

    pub(super) fn on_interest(
        &mut self,
        from: ShardId,
        filter: Box<str>,
        version: u64,
        is_added: bool,
    ) {
        if !is_added {
            self.flow.router.remove_interest(&filter, from);
            return self.bound_held();
        }
        self.flow.router.add_interest(&filter, from);
        self.bound_held();
        self.flow.outbox.control_behind(from, Control::InterestAck { filter, version });
    }

    pub(super) fn on_interest_ack(
        &mut self,
        now: Instant,
        from: ShardId,
        filter: &str,
        version: u64,
    ) {
        let Some(announcement) = self.interest.announcements.get_mut(filter) else { return };
        if announcement.version != version {
            return;
        }
        announcement.missing.remove(from);
        if !announcement.missing.is_empty() {
            return;
        }
        if let Some(announcement) = self.end_announcement(filter) {
            self.confirm(now, announcement);
        }
    }

    fn confirm(&mut self, now: Instant, announcement: Announcement) {
        for id in announcement.waiting {
            self.confirm_subscribe(now, id);
        }
        for join in announcement.joins {
            self.confirm_join(now, join);
        }
    }
}
