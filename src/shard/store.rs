//! The losers when the store of waiting messages is full: first the absent clients that hold most, then clients that do
//! not read.
//!
//! ```text
//!  shard_stored_bytes_max  +-------------------------------------------+
//!                          |  messages that are on their way already   |
//!             7/8  mark    +-------------------------------------------+  above: publishers wait, on all shards
//!                          |  connected clients                        |
//!            13/16 ceiling +-------------------------------------------+  below: publishers go on
//!                          |  what a batch may bring too much          |
//!             3/4          +-------------------------------------------+  above: the absent and groups lose
//!                          |  everybody                                |
//!                          +-------------------------------------------+
//! ```
//! A quarter of the store is for sessions whose client is connected. Above three quarters messages of the absent and of
//! shared groups are dropped by `queue_policy`: of the address that holds most its largest session loses, or of all
//! groups the largest.
//!
//! While publishers wait, a publisher that itself is sent messages goes on, because its acknowledgements stand behind
//! its publishes; it may publish at most 16 MiB (`PUBLISHED_AHEAD_MAX`) while it acknowledges nothing new, which is
//! more than sockets hold. Once a second the shard looks for clients that stand still. A client that would need longer
//! than eight seconds for its queue in four looks in a row loses half of the queue and counts as absent until the queue
//! is empty. A client that acknowledges nothing is closed. So neither the absent nor a slow client stops a publisher
//! for long.

use super::timers::Timer;
use super::{About, Shard, ShardId};
use crate::codec::{PacketId, ReasonCode};
use crate::limits::PUBLISHED_AHEAD_MAX;
use crate::routing::mail::Control;
use crate::session::queue::QueueLimits;
use crate::session::{DropReason, Park, Session, SessionKey};
use crate::time::Instant;
use std::collections::BTreeMap;

/// So many messages are dropped in one go at most; more are dropped in the next.
const SHED_COUNT_MAX: u64 = 10_000;
/// The time between two looks at the progress of clients, while publishers wait for them.
const LOOK_MS: u64 = 1_000;
/// A client hardly reads if it would need more than so many looks for its queue, or has acknowledged nothing.
const QUEUE_LOOKS_MAX: u64 = 8;
/// After so many such looks in a row the client counts as absent.
const STALLED_LOOKS: u32 = 4;
/// How many publishers that wait are checked in a turn: one that is sent messages by now goes on.
const READERS_LOOKED_AT_MAX: usize = 256;

/// The progress of a client.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// How many messages were taken from its queue.
    taken: u64,
    /// The first message that the client has not acknowledged.
    front: Option<PacketId>,
    /// How many looks in a row the client has hardly read.
    stalled_count: u32,
}

impl Progress {
    /// `before` is the progress at the last look; `None`: the client was not there.
    fn new(session: &Session, before: Option<&Progress>) -> Progress {
        let (taken, front) = session.progress();
        let is_stalled = before.is_some_and(|before| match session.queue().len() as u64 {
            0 => front.is_some() && front == before.front,
            waiting => taken.saturating_sub(before.taken) * QUEUE_LOOKS_MAX < waiting,
        });
        let stalled_before = before.map_or(0, |before| before.stalled_count);
        Progress { taken, front, stalled_count: if is_stalled { stalled_before + 1 } else { 0 } }
    }
}

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Whether publishers wait for this shard's clients.
    is_blocking: bool,
    timer: Option<Instant>,
    /// The progress at the last look; empty while no publisher waits.
    progress: BTreeMap<SessionKey, Progress>,
    /// Publishers that go on while others wait; empty while none waits.
    ahead: BTreeMap<SessionKey, Ahead>,
    /// The number of messages sent when a check of all waiting publishers was begun; `None`: the next check begins when
    /// they may go on.
    looked_at_sent: Option<u64>,
    /// How many of these publishers are still to be checked.
    looks_left: usize,
    loser: Option<Loser>,
}

/// How much a client has published since it last acknowledged something, while others wait.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// The first message that the client has not acknowledged.
    front: Option<PacketId>,
    bytes: usize,
}

/// The client that lost most since the last call of `take_loser`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    pub client_id: Box<str>,
    pub message_count: u64,
}

impl Store {
    fn note(&mut self, client_id: &str, message_count: u64) {
        match &mut self.loser {
            Some(loser) if *loser.client_id == *client_id => loser.message_count += message_count,
            Some(loser) if loser.message_count >= message_count => {}
            loser => *loser = Some(Loser { client_id: client_id.into(), message_count }),
        }
    }
}

impl Shard {
    /// The client that lost most messages to a full store since the last call.
    pub fn take_loser(&mut self) -> Option<Loser> {
        self.memory.store.loser.take()
    }

    /// Checks the bounds of the store: absent clients may fill all of it but the reserve. Above that the holders of
    /// most lose first.
    #[inline]
    pub(super) fn check_store(&mut self, now: Instant) {
        if self.wants_store_look() {
            self.check_full_store(now);
        }
    }

    /// Whether more is stored than absent clients may have; all marks lie above that.
    #[inline]
    pub(super) fn wants_store_look(&self) -> bool {
        self.delivery.stored.bytes() > self.limits.absent_bytes_max()
            || self.memory.store.is_blocking
    }

    #[cold]
    #[inline(never)]
    fn check_full_store(&mut self, now: Instant) {
        if self.delivery.stored.bytes() > self.limits.absent_bytes_max() {
            self.shed_absent(now);
        }
        let mark = match self.memory.store.is_blocking {
            false => self.limits.stored_bytes_mark(),
            true => self.limits.stored_bytes_low(),
        };
        if (self.delivery.stored.bytes() > mark) != self.memory.store.is_blocking {
            self.change_hold(now);
        }
    }

    fn shed_absent(&mut self, now: Instant) {
        let bytes_max = self.limits.absent_bytes_max();
        let mut left = SHED_COUNT_MAX;
        // A holder is an address with all its sessions, of which the largest loses, or all shared groups. A message of
        // many sessions counts once for each, so both sums must be above the bound.
        while left > 0
            && self.delivery.stored.bytes() > bytes_max
            && self.clients.absent().bytes() + self.groups.backlog_bytes() > bytes_max
        {
            let count = match (self.clients.absent().largest(), self.groups.largest_backlog()) {
                (Some((key, bytes)), group)
                    if group.is_none() || bytes >= self.groups.backlog_bytes() =>
                {
                    self.shed_session(now, key)
                }
                (_, Some(group)) => self.shed_group(now, group),
                (_, None) => 0,
            };
            if count == 0 {
                return;
            }
            left = left.saturating_sub(count);
        }
    }

    /// Drops an eighth of a session's waiting messages, by its policy, or its unacknowledged ones if none waits;
    /// returns how many.
    fn shed_session(&mut self, now: Instant, key: SessionKey) -> u64 {
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        let count = self.clients.shed(key, &mut context);
        self.memory.store.note(self.clients.live_session(key).client_id(), count);
        count
    }

    fn shed_group(&mut self, now: Instant, index: u32) -> u64 {
        let context = self.delivery.context(now, &self.limits, &mut self.counters);
        let group = self.groups.live(index);
        let bytes = group.backlog.bytes();
        let limits = QueueLimits {
            messages_max: usize::MAX,
            bytes_max: bytes - bytes.div_ceil(8),
            policy: context.limits.queue_policy,
        };
        let mut count = 0;
        group.backlog.shed(limits, |victim| {
            count += 1;
            context.drops.push(None, victim.stored.message().topic, DropReason::StoreFull);
        });
        context.counters.dropped_stored_full += count;
        self.groups.list_backlog(index);
        count
    }

    #[cold]
    #[inline(never)]
    fn change_hold(&mut self, now: Instant) {
        let is_on = !self.memory.store.is_blocking;
        self.memory.store.is_blocking = is_on;
        self.counters.store_holds += u64::from(is_on);
        self.flow.outbox.block(self.peers.own(), is_on);
        for to in (0..self.peers.count()).filter(|to| *to != self.peers.own()) {
            self.flow.outbox.control(to, Control::Block { is_on });
        }
        self.memory.store.progress = BTreeMap::new();
        self.begin_looks();
        if is_on {
            self.look_at_progress();
        }
        let look_at = is_on.then(|| now.plus_ms(LOOK_MS));
        self.timers.set(Timer::Store, &mut self.memory.store.timer, look_at);
    }

    /// Notes the progress of all connected clients; returns those that stand still, the ones that hold most last.
    fn look_at_progress(&mut self) -> Vec<(usize, SessionKey)> {
        let before = std::mem::take(&mut self.memory.store.progress);
        let mut slow = Vec::new();
        for session in self.clients.sessions().filter(|session| session.connection().is_some()) {
            let progress = Progress::new(session, before.get(&session.key()));
            self.memory.store.progress.insert(session.key(), progress);
            if progress.stalled_count >= STALLED_LOOKS {
                slow.push((session.stored_bytes(), session.key()));
            }
        }
        slow.sort_unstable();
        slow
    }

    /// Handles the timer while publishers wait: clients that stand still count as absent from now on.
    pub(super) fn on_store_timer(&mut self, now: Instant) {
        self.memory.store.timer = None;
        for (held, key) in self.look_at_progress().into_iter().rev() {
            if held == 0 || self.delivery.stored.bytes() <= self.limits.stored_bytes_low() {
                break;
            }
            self.end_slow(now, key);
        }
        self.check_store(now);
        if self.memory.store.is_blocking {
            let look_at = Some(now.plus_ms(LOOK_MS));
            self.timers.set(Timer::Store, &mut self.memory.store.timer, look_at);
        }
    }

    /// Handles a client that does not read: its waiting messages are dropped, or the client is closed if its
    /// messages are unacknowledged.
    fn end_slow(&mut self, now: Instant, key: SessionKey) {
        let (session, connection) = self.clients.live_pair(key);
        let id = connection.id;
        let waits_for_us = match connection.park {
            // None of the client's packets would empty its queue.
            None | Some(Park::Output | Park::Bridge | Park::Acks) => false,
            // The client's acknowledgements stand behind its publishes, unless it has published more than can stand in
            // front of them.
            Some(_) => {
                let ahead = self.memory.store.ahead.get(&key).map_or(0, |ahead| ahead.bytes);
                !session.inflight().is_empty() && ahead < PUBLISHED_AHEAD_MAX
            }
        };
        if waits_for_us {
            return;
        }
        if session.queue().is_empty() {
            let why = "it takes nothing of what the store holds for it";
            self.counters.slow_clients_closed += 1;
            self.notice_client(now, About::Client, id, why, "shard_stored_bytes_max");
            self.give_up_claim(now, id);
            self.send_disconnect(id, ReasonCode::QuotaExceeded, why);
            return self.close(now, id, why);
        }
        session.mark_slow();
        let target = session.queue().bytes() / 2;
        while self.clients.live_session(key).queue().bytes() > target {
            if self.shed_session(now, key) == 0 {
                return;
            }
        }
    }

    /// Lets publishers that are sent messages themselves go on: their acknowledgements stand behind their publishes.
    /// The publishers that wait are checked again when messages were sent since the last check.
    pub(super) fn unpark_readers(&mut self, now: Instant) {
        if self.flow.outbox.is_mail_above_mark() || self.bridges_above_mark() {
            (self.memory.store.looked_at_sent, self.memory.store.looks_left) = (None, 0);
            return;
        }
        let sent = Some(self.counters.publishes_sent);
        if self.memory.store.looked_at_sent != sent {
            self.memory.store.looked_at_sent = sent;
            self.memory.store.looks_left = self.connections.parked_on_mail.len();
        }
        let left = self.memory.store.looks_left.min(self.connections.parked_on_mail.len());
        let count = left.min(READERS_LOOKED_AT_MAX);
        self.memory.store.looks_left = left - count;
        self.counters.add_steps(count as u64);
        for _ in 0..count {
            // The list loses connections that are gone, some while others go on.
            let Some(id) = self.connections.parked_on_mail.pop(&mut self.clients) else { return };
            let Some(connection) = self.clients.connection(id) else { continue };
            if connection.park != Some(Park::Mail) {
                continue;
            }
            let must_wait = match connection.session() {
                Some(key) => self.must_wait(key, 0),
                None => false,
            };
            if !must_wait {
                self.unpark(now, id, Park::Mail);
            } else {
                self.connections.parked_on_mail.push(self.clients.live_connection(id));
            }
        }
    }

    /// Whether publishers that wait are still to be checked.
    pub(super) fn has_readers_to_look_at(&self) -> bool {
        self.memory.store.looks_left > 0
    }

    /// Begins or ends the looks, as a store makes publishers wait or does so no more.
    fn begin_looks(&mut self) {
        (self.memory.store.looked_at_sent, self.memory.store.looks_left) = (None, 0);
        if !self.flow.outbox.is_blocked() {
            self.memory.store.ahead = BTreeMap::new();
        }
    }

    /// Notes whether another shard's clients fill the part of the store that is reserved for them.
    pub(super) fn on_block_of(&mut self, from: ShardId, is_on: bool) {
        self.flow.outbox.block(from, is_on);
        self.begin_looks();
    }

    /// Forgets a session that has ended.
    pub(super) fn forget_ahead(&mut self, key: SessionKey) {
        if !self.memory.store.ahead.is_empty() {
            self.memory.store.ahead.remove(&key);
        }
    }

    /// Whether a publisher has to wait with `size` more bytes: for mail in any case; for a store unless it is sent
    /// messages that it may be about to acknowledge.
    #[cold]
    #[inline(never)]
    pub(super) fn must_wait(&mut self, key: SessionKey, size: usize) -> bool {
        if self.flow.outbox.is_mail_above_mark() || self.bridges_above_mark() {
            return true;
        }
        let session = self.clients.live_session(key);
        let (_, front) = session.progress();
        if front.is_none() {
            return true;
        }
        let ahead = self.memory.store.ahead.entry(key).or_insert(Ahead { front, bytes: 0 });
        if ahead.front != front {
            *ahead = Ahead { front, bytes: 0 };
        }
        let must_wait = ahead.bytes >= PUBLISHED_AHEAD_MAX;
        if !must_wait {
            ahead.bytes += size;
        }
        must_wait
    }
}
