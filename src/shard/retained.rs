//! Retained messages: kept by the shard that owns the topic, fetched in chunks by the shards of new subscribers.
//!
//! A subscription's pull asks one owner after the other, and only while nothing else waits for its session. A retained
//! message is left out if a newer one of its topic reached the subscription meanwhile. An owner answers when the
//! mail of the same turn was taken in (`session::fetch` draws the way of a pull).
//!
//! One order is not strict: when the publisher's shard is preempted between two lanes, a retained message may arrive
//! live and once more as retained.

mod claims;

pub(super) use claims::Claims;

use super::{Shard, ShardId};
use crate::arena::Stored;
use crate::codec::QoS;
use crate::limits::Limits;
use crate::peers::Peers;
use crate::routing::mail::{Batch, Control};
use crate::routing::retained::{Kept, SlotSetters};
use crate::session::{Envelope, Pull, Session, SessionKey, SessionLimits};
use crate::time::Instant;
use crate::topic::{ScanEnd, has_wildcards};
use std::collections::VecDeque;

/// How many retained messages a chunk has, and the bytes after which it ends.
const CHUNK_COUNT_MAX: usize = 64;
const CHUNK_BYTES: usize = 64 << 10;
/// How many topics are looked at for one chunk.
const VISIT_MAX: usize = 4096;
/// How many chunks one session fetches of its own shard in a turn.
const CHUNKS_PER_TURN: usize = 64;

/// A question of another shard.
#[derive(Debug)]
pub(super) struct Query {
    pub from: ShardId,
    pub session: SessionKey,
    pub request: u64,
    pub filter: Box<str>,
    pub after: Option<Box<str>>,
    pub count_max: usize,
}

/// An answer of another shard.
#[derive(Debug)]
pub(super) struct Answer {
    pub session: SessionKey,
    pub request: u64,
    pub messages: Batch,
    /// The topic after which the next question goes on; `None`: there is no more.
    pub more: Option<Box<str>>,
}

/// Retained messages that this shard keeps, room for those that other shards keep, and sessions that fetch some.
pub(super) struct Retained {
    pub kept: Kept,
    pub claims: Claims,
    pub setters: SlotSetters,
    /// Questions of other shards, which are answered when the mail of the turn is in.
    pub queries: VecDeque<Query>,
    /// Answers of other shards, which are used when the mail of the turn is in; at most one for each session that
    /// asked.
    pub answers: VecDeque<Answer>,
    /// Sessions whose pull goes on.
    pub pulls: VecDeque<SessionKey>,
    /// The number of the last question to another shard.
    pull_request: u64,
    /// The topic at which the search for expired messages goes on.
    sweep: Option<Box<str>>,
}

impl Retained {
    pub(super) fn new(peers: &Peers) -> Retained {
        Retained {
            kept: Kept::new(peers.hash()),
            claims: Claims::new(peers.count(), peers.hash()),
            setters: SlotSetters::default(),
            queries: VecDeque::new(),
            answers: VecDeque::new(),
            pulls: VecDeque::new(),
            pull_request: 0,
            sweep: None,
        }
    }

    /// Whether nothing waits for this shard.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.queries.len() | self.answers.len() | self.pulls.len();
        waiting == 0 && self.claims.is_idle()
    }

    /// Whether there is work at the end of a turn, whether or not it waits for that.
    #[inline]
    pub(super) fn has_chores(&self) -> bool {
        self.queries.len() | self.answers.len() | self.pulls.len() != 0 || self.claims.has_begun()
    }
}

impl Shard {
    /// The pull of a subscription that was made now. `None`: nothing is retained for it here, no other shard is to be
    /// asked, and later messages reach it as they come.
    pub(super) fn new_pull(
        &self,
        filter: &str,
        envelope: impl FnOnce() -> Envelope,
    ) -> Option<Pull> {
        let shards: VecDeque<ShardId> = match has_wildcards(filter) {
            true if self.peers.is_alone() && self.retained.kept.is_empty() => return None,
            true => (0..self.peers.count()).collect(),
            false => {
                let owner = self.peers.owner(filter.as_bytes());
                if owner == self.peers.own() && self.retained.kept.get(filter).is_none() {
                    return None;
                }
                VecDeque::from([owner])
            }
        };
        Some(Pull {
            request: 0,
            filter: filter.into(),
            envelope: envelope(),
            shards,
            after: None,
            is_asked: false,
            seen_from: 0,
        })
    }

    /// Lists a session whose pull may go on. Each session gets one part of a turn, however often it is listed.
    pub(super) fn list_pull(&mut self, key: SessionKey) {
        if let Some(session) = self.clients.session(key)
            && !session.set_pull_listed(true)
        {
            self.retained.pulls.push_back(key);
        }
    }

    /// Lets each session whose pull can go on fetch, until it has no room or has used its part of the turn.
    pub(super) fn continue_pulls(&mut self, now: Instant) {
        for _ in 0..self.retained.pulls.len() {
            let Some(key) = self.retained.pulls.pop_front() else { return };
            if let Some(session) = self.clients.session(key) {
                session.set_pull_listed(false);
            }
            let (mut chunk_count, mut left) = (0, self.limits.turn_steps_max as usize);
            while self.pull(now, key, &mut left) {
                chunk_count += 1;
                if chunk_count == CHUNKS_PER_TURN || left == 0 {
                    self.list_pull(key);
                    break;
                }
            }
        }
    }

    /// Fetches one chunk; returns whether there may be another at once. The topics that it looks at are subtracted from
    /// `steps_left`.
    fn pull(&mut self, now: Instant, key: SessionKey, steps_left: &mut usize) -> bool {
        let own = self.peers.own();
        // The session may have ended since it was listed, or its client left.
        let Some((session, Some(connection))) = self.clients.pair(key) else { return false };
        let count_max = chunk_count(&self.limits, &session.bounds());
        let has_room = connection.has_room(&self.limits)
            && connection.open().is_some_and(|open| open.pending.is_none());
        if !session.wants_pull() || !has_room {
            return false;
        }
        let fetch = session.fetch_mut().expect("a session that wants to pull fetches");
        let pull = fetch.pulls.front_mut().expect("what is fetched is not empty");
        let Some(&shard) = pull.shards.front() else {
            session.end_first_pull();
            return true;
        };
        if shard != own {
            self.retained.pull_request += 1;
            pull.request = self.retained.pull_request;
            pull.is_asked = true;
            // Topics that were forgotten were seen before the question.
            pull.seen_from = pull.seen_from.max(fetch.seen.as_ref().map_or(0, |s| s.first()));
            let query = Control::RetainedQuery {
                session: key,
                request: pull.request,
                filter: pull.filter.clone(),
                after: pull.after.clone(),
                count_max,
            };
            // The owner is to have all earlier publishes of this shard.
            self.flow.outbox.control_behind(shard, query);
            return false;
        }
        let envelope = pull.envelope.clone();
        let (seen, seen_from) = (fetch.seen.as_deref(), pull.seen_from);
        let is_seen = |hash| seen.is_some_and(|seen| seen.contains(seen_from, hash));
        let bytes_max = chunk_bytes(&self.limits);
        let hash = self.peers.hash();
        let mut found: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        let visit_max = VISIT_MAX.min(*steps_left);
        let mut visits_left = visit_max;
        let end = self.retained.kept.scan_while(
            &pull.filter,
            pull.after.as_deref(),
            &mut visits_left,
            |topic, stored| {
                let is_expired = stored.message().meta.expires_at.is_some_and(|at| at <= now);
                if !is_expired && !is_seen(hash.bytes(topic.as_bytes())) {
                    bytes += stored.size();
                    // A message that is about to be replaced is copied, not shared.
                    found.push(match self.retained.kept.is_promised(topic) {
                        true => Stored::copy_of(&stored.message(), &self.delivery.stored),
                        false => stored.clone(),
                    });
                }
                found.len() < count_max && bytes < bytes_max
            },
        );
        let visit_count = visit_max - visits_left;
        *steps_left -= visit_count;
        self.counters.add_steps(visit_count as u64);
        let is_done = matches!(end, ScanEnd::Done);
        pull.advance(end);
        let is_empty = found.is_empty();
        for stored in &found {
            let published = QoS::from_bits(stored.message().meta.qos).unwrap_or_default();
            let envelope = Envelope { qos: published.min(envelope.qos), ..envelope.clone() };
            if self.is_delivered(now, key, &stored.message()) {
                self.note_retained(key, &stored.message());
                self.offer_stored(now, key, stored, envelope);
            }
        }
        if is_empty && !is_done {
            // No message among many matched: other sessions go first.
            self.list_pull(key);
            return false;
        }
        true
    }

    /// Answers the questions of other shards, after all mail of the turn was taken in.
    pub(super) fn answer_queries(&mut self, now: Instant) {
        while let Some(query) = self.retained.queries.pop_front() {
            let Query { from, session, request, filter, after, count_max } = query;
            let mut messages = Batch::default();
            let bytes_max = chunk_bytes(&self.limits);
            let mut left = VISIT_MAX;
            let end =
                self.retained.kept.scan_while(&filter, after.as_deref(), &mut left, |_, stored| {
                    let message = stored.message();
                    if message.meta.expires_at.is_none_or(|at| at > now) {
                        messages.push(&message);
                    }
                    messages.count < count_max && messages.bytes.len() < bytes_max
                });
            self.counters.add_steps((VISIT_MAX - left) as u64);
            let more = match end {
                ScanEnd::Done => None,
                ScanEnd::More(topic) => Some(topic),
            };
            self.flow
                .outbox
                .control(from, Control::RetainedAnswer { session, request, messages, more });
        }
    }

    /// Hands on the answers of other shards, behind the messages that came with the same mail: a newer message tells
    /// that an answer is old.
    pub(super) fn take_answers(&mut self, now: Instant) {
        while let Some(answer) = self.retained.answers.pop_front() {
            self.take_answer(now, answer);
        }
    }

    fn take_answer(&mut self, now: Instant, answer: Answer) {
        let Answer { session: key, request, messages, more } = answer;
        // The session may have ended since it asked, or the subscription.
        let Some(session) = self.clients.session(key) else { return };
        let Some(fetch) = session.fetch_mut() else { return };
        let Some(pull) = fetch.pulls.front_mut() else { return };
        if !pull.is_asked || pull.request != request {
            return;
        }
        pull.is_asked = false;
        let seen_from = pull.seen_from;
        if fetch.seen.as_ref().is_some_and(|seen| seen_from < seen.first()) {
            // Topics that were seen have been forgotten, so the same chunk is asked for again.
            return self.list_pull(key);
        }
        let envelope = pull.envelope.clone();
        pull.advance(more.map_or(ScanEnd::Done, ScanEnd::More));
        let seen = fetch.seen.take();
        let mut reader = messages.reader();
        while let Some(message) = reader.next() {
            let hash = self.peers.hash().bytes(message.topic);
            if seen.as_ref().is_some_and(|seen| seen.contains(seen_from, hash)) {
                continue;
            }
            let published = QoS::from_bits(message.meta.qos).unwrap_or_default();
            let envelope = Envelope { qos: published.min(envelope.qos), ..envelope.clone() };
            if self.is_delivered(now, key, &message) {
                self.note_retained(key, &message);
                let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
                self.clients.offer(key, &mut context, &message, envelope);
            }
        }
        if let Some(fetch) = self.clients.session(key).and_then(Session::fetch_mut) {
            fetch.seen = seen;
        }
        self.list_pull(key);
    }

    /// Removes expired retained messages, some at a time.
    pub(super) fn sweep_retained(&mut self, now: Instant) {
        let mut expired: Vec<Box<str>> = Vec::new();
        let after = self.retained.sweep.take();
        let end = self.retained.kept.scan("#", after.as_deref(), VISIT_MAX, |topic, stored| {
            if stored.message().meta.expires_at.is_some_and(|at| at <= now) {
                expired.push(topic.into());
            }
        });
        if let ScanEnd::More(topic) = end {
            self.retained.sweep = Some(topic);
        }
        for topic in expired {
            self.retained.kept.remove(&topic);
        }
    }
}

impl Pull {
    /// Goes on behind the fetched topics, or with the next shard.
    fn advance(&mut self, end: ScanEnd) {
        match end {
            ScanEnd::More(topic) => self.after = Some(topic),
            ScanEnd::Done => {
                self.after = None;
                self.shards.pop_front();
            }
        }
    }
}

/// How many messages a chunk may have, so that an empty queue takes them all.
fn chunk_count(limits: &Limits, bounds: &SessionLimits) -> usize {
    if bounds.queue_bytes_max.is_some_and(|bytes_max| bytes_max / 4 < CHUNK_BYTES) {
        return 1;
    }
    let messages_max = bounds.queue_messages_max.unwrap_or(limits.queue_messages_max);
    CHUNK_COUNT_MAX.min(messages_max).max(1)
}

/// How many bytes of an empty queue a chunk may take.
fn chunk_bytes(limits: &Limits) -> usize {
    CHUNK_BYTES.min(limits.queue_bytes_max / 4)
}
