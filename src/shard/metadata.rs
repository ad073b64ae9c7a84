//! Metadata: the memory of a shard beside messages, input and output. Sessions and connections, their filters, aliases
//! and windows, the index of subscriptions, groups, interest of other shards, and remembered routes have a budget
//! together, counted as the C library sets it aside (`arena::Budget`).
//!
//! ```text
//!  own clients 1/2                                     interest of other shards 3/8     routes 1/8
//!  sessions and connections: at most 3/4 of the own    with one shard these are
//!  all that clients ask for: at most 3/4 of the own    the clients', too
//!  (the last eighth: clients that come back, and
//!  the few flows that each window has in any case)
//! ```
//! Aliases and windows of packet ids grow by themselves and count themselves; tables are counted at each CONNECT and
//! SUBSCRIBE. A window takes memory for more flows when it is full, never for a message, and has memory for four flows in
//! any case, so a client that acknowledges goes on.
//!
//! Each other shard may have the shard remember its share of interest. A shard knows its share, because the other shards
//! hold as much for its filters as it holds itself. It refuses a filter that would exceed the share before anything changes.
//! A group's owner refuses a member (`Control::JoinRefused`), and SUBACK says so.

use super::{ConnectionId, Shard};
use crate::arena::{Budget, allocated};
use crate::codec::ReasonCode;
use crate::limits::Limits;
use crate::routing::groups::Member;
use crate::routing::known::KnownInterest;
use crate::routing::mail::Control;
use crate::session::connection::PendingSuback;
use crate::session::{Returned, SessionKey};
use crate::time::Instant;
use crate::topic::{filter_of, has_wildcards};

/// The most bytes that a level of a filter takes in an index: its node, and the node's entry in a table.
const LEVEL_SIZE: usize = 192;
/// The most bytes that an entry of an index, a list of filters or a map of groups takes beside its text.
const ENTRY_SIZE: usize = 128;
/// The bytes that a group takes beside its texts and its members.
const GROUP_SIZE: usize = 512;

#[derive(Debug)]
pub(super) struct Metadata {
    /// Counts the memory that the shard's own clients cause.
    budget: Budget,
    /// The own clients' part of the whole budget.
    own_max: usize,
    /// The counted part that sessions and connections take without all that they ask for.
    clients: usize,
    /// The last count of tables, which do not count themselves.
    tables: usize,
    /// The bytes of empty tables, which are not counted.
    tables_empty: usize,
    /// How many bytes each other shard may hold for this shard's subscriptions.
    interest_share: usize,
    /// Bytes that unacknowledged announcements hold outside their table.
    pub announced: usize,
}

impl Metadata {
    pub(super) fn new(budget: Budget) -> Metadata {
        Metadata {
            budget,
            own_max: 0,
            clients: 0,
            tables: 0,
            tables_empty: 0,
            interest_share: 0,
            announced: 0,
        }
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Sets the bounds of `limits` for one of so many shards.
    pub(super) fn set_bounds(&mut self, limits: &Limits, shard_count: u16) {
        self.own_max = limits.metadata_own_max(shard_count);
        self.interest_share = limits.metadata_interest_max(shard_count)
            / usize::from(shard_count.saturating_sub(1).max(1));
        self.bound_growth();
    }

    /// The bytes that clients may fill in all.
    fn filled_max(&self) -> usize {
        self.own_max - self.own_max / 8
    }

    /// The bytes that sessions may have, and that all they ask for may have.
    fn part_max(&self) -> usize {
        self.own_max - self.own_max / 4
    }

    fn bound_growth(&mut self) {
        self.budget.set_max(self.filled_max().min(self.part_max().saturating_add(self.clients)));
    }
}

impl Shard {
    /// Notes the present bytes of tables: a shard has these in any case.
    pub(super) fn begin_metadata(&mut self) {
        self.memory.metadata.set_bounds(&self.limits, self.peers.count());
        self.memory.metadata.tables_empty = self.table_bytes();
    }

    /// Counts tables as they are now. It is called before and after a client is let in or subscribes.
    pub(super) fn count_tables(&mut self) {
        let tables = self.counted_tables();
        self.memory.metadata.budget.change(self.memory.metadata.tables, tables);
        self.memory.metadata.tables = tables;
        self.memory.metadata.clients = self.clients.bytes();
        self.memory.metadata.bound_growth();
    }

    /// The bytes that the shard's own clients cause.
    pub(super) fn metadata_bytes(&self) -> usize {
        self.memory.metadata.budget.bytes() - self.memory.metadata.tables + self.counted_tables()
    }

    fn counted_tables(&self) -> usize {
        self.table_bytes().saturating_sub(self.memory.metadata.tables_empty)
    }

    fn table_bytes(&self) -> usize {
        self.clients.table_bytes()
            + self.flow.router.subscriptions().bytes()
            + self.groups.bytes()
            + self.connections.connecting.bytes()
            + self.connections.questions.bytes()
            + self.retained.kept.setters_bytes()
            + self.interest.table_bytes()
            + self.memory.metadata.announced
    }

    /// The budget whose clients' part, seven eighths of it, equals what is held.
    pub(super) fn metadata_bound_for_held(&self) -> usize {
        let (whole, own) = (
            self.limits.shard_metadata_bytes_max,
            self.limits.metadata_own_max(self.peers.count()),
        );
        let bound = self.memory.metadata.budget.bytes() as u128 * 8 / 7 * whole as u128
            / own.max(1) as u128;
        usize::try_from(bound).unwrap_or(usize::MAX)
    }

    /// Whether there is room for one more session.
    pub(super) fn has_room_for_session(&mut self, client_id: &str) -> bool {
        self.lacks_for_session(client_id) == [0, 0]
    }

    /// How many bytes the part of sessions, and the budget, lack for one more session.
    pub(super) fn lacks_for_session(&mut self, client_id: &str) -> [usize; 2] {
        self.count_tables();
        let needed = self.clients.session_growth() + allocated(client_id.len()) + ENTRY_SIZE;
        [
            (self.memory.metadata.clients + needed).saturating_sub(self.memory.metadata.part_max()),
            (self.memory.metadata.budget.bytes() + needed)
                .saturating_sub(self.memory.metadata.filled_max()),
        ]
    }

    /// Whether new clients may define aliases.
    pub(super) fn has_room_for_aliases(&self) -> bool {
        self.memory.metadata.budget.bytes() < self.memory.metadata.own_max / 2
    }

    /// Whether a session may have one more subscription: here, and on other shards if these are told of it.
    pub(super) fn has_room_for_subscription(&mut self, text: &str) -> bool {
        self.count_tables();
        let listed = 2 * allocated(text.len()) + 2 * ENTRY_SIZE;
        if !text.starts_with("$share/") {
            return self.has_room_for_filter(text, listed);
        }
        match self.peers.is_owner(text.as_bytes()) {
            true => self.has_room_for_member(text, listed),
            false => self.memory.metadata.budget.has_room(listed),
        }
    }

    /// Whether a group of this shard may have one more member. The member is a session of another shard, or needs
    /// `listed` bytes here.
    pub(super) fn has_room_for_member(&mut self, text: &str, listed: usize) -> bool {
        let needed = listed + ENTRY_SIZE;
        match self.groups.find(text) {
            Some(_) => self.memory.metadata.budget.has_room(needed),
            None => {
                let needed = needed + GROUP_SIZE + 2 * allocated(text.len());
                self.has_room_for_filter(filter_of(text), needed)
            }
        }
    }

    fn has_room_for_filter(&self, filter: &str, listed: usize) -> bool {
        let index = self.flow.router.subscriptions();
        if index.subscriber_count(filter) > 0 {
            return self.memory.metadata.budget.has_room(listed + ENTRY_SIZE);
        }
        let needed = match has_wildcards(filter) {
            true => size_in_tree(filter),
            false => ENTRY_SIZE + allocated(filter.len()),
        };
        // The announcement has a text, too.
        let announced =
            if !self.peers.is_alone() { allocated(filter.len()) + ENTRY_SIZE } else { 0 };
        let has_share = self.peers.is_alone()
            || KnownInterest::bytes_of(index) + needed <= self.memory.metadata.interest_share;
        has_share && self.memory.metadata.budget.has_room(listed + needed + announced)
    }

    /// Handles a join that the group's owner has refused for lack of room: the subscription ends before its client
    /// hears of it.
    pub(super) fn on_join_refused(
        &mut self,
        now: Instant,
        key: SessionKey,
        connection: ConnectionId,
        text: &str,
    ) {
        self.unsubscribe(now, key, text, &mut Returned::new());
        // If the client came back meanwhile and asked again, that subscription is refused, too.
        let current = self.clients.session(key).and_then(|session| session.connection());
        let pending = current
            .and_then(|id| self.clients.connection(id))
            .and_then(|connection| connection.open_mut()?.pending.as_deref_mut());
        if let Some(pending) = pending {
            for PendingSuback { joins, reasons, .. } in &mut pending.answers {
                for (_, place) in joins.iter().filter(|(joined, _)| **joined == *text) {
                    reasons[*place] = ReasonCode::QuotaExceeded;
                }
            }
        }
        self.counters.refused_by_metadata += 1;
        self.counters.subscriptions_refused += 1;
        let why = "QuotaExceeded";
        self.notice_refused(now, connection, text, why, "shard_metadata_bytes_max");
        self.confirm_subscribe(now, connection);
    }

    /// As `confirm_join`, if there is no room for the member of another shard.
    pub(super) fn refuse_join(&mut self, member: Member, connection: ConnectionId, filter: &str) {
        let (shard, session) = member;
        let filter = filter.into();
        self.flow.outbox.control(shard, Control::JoinRefused { filter, session, connection });
    }
}

/// The most bytes that a filter takes in a tree of levels.
fn size_in_tree(filter: &str) -> usize {
    let levels = filter.split('/');
    levels.map(|level| LEVEL_SIZE + if level.len() > 16 { allocated(level.len()) } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyedHash;
    use crate::topic::Index;

    #[test]
    fn what_a_filter_may_take_is_never_less_than_what_it_takes() {
        let levels = "+/".repeat(127);
        let long = format!("+/{}", "x".repeat(4_000));
        for filter in ["#", "a/+", "a/b/c/#", &levels, &long] {
            let mut index: Index<[u32; 3], u64> = Index::new(KeyedHash::new(1));
            // The first filter allocates a chunk of nodes.
            index.insert("other/+", [0; 3], 0);
            let (before, there) = (index.bytes(), KnownInterest::bytes_of(&index));
            index.insert(filter, [1; 3], 0);
            assert!(index.bytes() - before <= size_in_tree(filter), "{filter}");
            assert!(KnownInterest::bytes_of(&index) - there <= size_in_tree(filter), "{filter}");
        }
    }
}
