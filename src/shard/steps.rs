//! How much work a shard does, in steps: a session offered; a filter inserted, removed or compared; a message queued,
//! moved or freed; a timer fired; 4 KiB copied; a packet read.
//!
//! # A turn's part for each connection
//!
//! A turn gives a connection `turn_steps_max`. Bytes beyond that stay in the connection's input and nothing overtakes
//! them: they are used in the next turn, after the events of other connections. If the socket ends or the client comes
//! back meanwhile, the input is used all the same, and the end or the CONNACK waits for it. The publishes of each other
//! shard, the messages of bridges and timers have the same bound.
//!
//! The cost of a message is known when the stages have had it. So the arena holds only as many messages as cost half of
//! a turn together, whatever their topics (`Arena::bound_held`, by the most that a topic can match:
//! `topic::index::patterns`). At that bound the arena refuses the next message as if it was full, the stages run, and
//! the publisher is charged. A message that meets no bound needs no further check. Where that bound would be so low
//! that the runs of the stages cost more than they save, the shard weighs each message by its remembered route; a
//! message without one goes to the stages alone.
//!
//! # The bound of one call
//!
//! No packet, timer, end of a connection or piece of control mail costs more than `CALL_STEPS_MAX` steps with the
//! limits' defaults and few shards. Only the delivery of a message is linear in its receivers. The tests and the
//! simulation read how many steps a call took. These bounds keep the calls short:
//!
//! - A SUBSCRIBE or UNSUBSCRIBE has at most `PACKET_FILTERS_MAX` filters.
//! - A topic matches at most `overlapping_subscriptions_max` subscriptions of one client (`session::overlaps`).
//! - A session leaves all its groups in one way through its queue; an unneeded queue is freed in parts
//!   (`shard::discards`).
//! - A session that fetches looks at no more than `turn_steps_max` retained topics of its own shard in a turn.

use super::flow::Flow;
use super::incoming::Incoming;
use super::input::PIPELINE_BYTES;
use super::{ConnectionId, Shard};
use crate::arena::{Arena, Draft, Generation};
use crate::counters::Counters;
use crate::limits::Limits;
use crate::routing::router::Router;
use crate::session::{Park, SessionKey};
use crate::time::Instant;
use crate::work::{COPY_SIZE, steps_of_bytes};
use std::collections::{BTreeMap, VecDeque};

/// Messages that the stages do not have yet may cost one part in so many of a turn. The rest is for earlier work.
const HELD_PART: u64 = 2;

/// If fewer messages than this may be held whatever their topics, each message is weighed.
const HELD_MIN: u64 = 32;

/// How many turns a broker that ends gives to input that was read before.
const LAST_ROUNDS: usize = 8;

/// All connections that go on get so many parts of a turn together.
const GO_ON_TURNS: u64 = 8;

/// The cost of the held messages, where each message is weighed.
#[derive(Debug, Default)]
struct Weighed {
    steps: u64,
    /// For the last message: the cost of each message that repeats it, the generation behind which the repeats stand,
    /// and its publisher.
    each: u64,
    through: Generation,
    publisher: u64,
    /// Whether the message stands alone, because its cost is not known or is large.
    is_alone: bool,
}

/// The connections that have used much of this turn, and those that go on in the next one.
#[derive(Debug)]
pub(super) struct Turns {
    /// Whether the end of the turn has work: one flag instead of a look at all lists.
    pub is_pending: bool,
    /// Connections that have been charged in this turn.
    charged: Vec<ConnectionId>,
    /// Connections that were parked in this turn, and (`due`) in turns before.
    parked: Vec<ConnectionId>,
    due: VecDeque<ConnectionId>,
    /// Whether each message is weighed before it is held with others.
    is_strict: bool,
    weighed: Weighed,
    /// How many bytes of messages are held before the stages run.
    pub held_bytes_max: usize,
    /// Steps that the messages of bridges have cost in this turn.
    pub bridge_steps: u64,
    /// Steps that the reads of each connection have taken in this turn, for tests.
    measured: BTreeMap<ConnectionId, u64>,
}

/// The work of a shard, and the connections to which it is charged.
#[derive(Debug)]
pub(super) struct Work {
    pub turns: Turns,
    call_steps_most: u64,
    turn_steps_most: u64,
}

impl Work {
    pub(super) fn new() -> Work {
        Work { turns: Turns::new(), call_steps_most: 0, turn_steps_most: 0 }
    }
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            is_pending: false,
            charged: Vec::new(),
            parked: Vec::new(),
            due: VecDeque::new(),
            is_strict: false,
            weighed: Weighed::default(),
            held_bytes_max: PIPELINE_BYTES,
            bridge_steps: 0,
            measured: BTreeMap::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.parked.is_empty() && self.due.is_empty()
    }

    /// Admits a message above the bound, for which the stages have emptied the arena. `None`: it is larger than the
    /// arena, and is counted. Where messages are weighed, repeats may follow if the number of its receivers is known.
    #[cold]
    #[inline(never)]
    pub(super) fn admit_alone(
        &mut self,
        draft: &Draft<'_>,
        limits: &Limits,
        flow: &mut Flow,
        counters: &mut Counters,
    ) -> Option<Generation> {
        let Some(generation) = flow.admit(Incoming::Above(draft)) else {
            counters.refused_by_arena += 1;
            return None;
        };
        if self.is_strict {
            let part = part_of_turn(limits);
            let each = weight(draft, &flow.router).unwrap_or(part).min(part);
            let publisher = draft.meta.publisher;
            let is_alone = each == part;
            let weighed = Weighed { steps: each, each, through: generation, publisher, is_alone };
            self.note_weighed(weighed, part, &mut flow.arena);
        }
        Some(generation)
    }

    /// Notes the cost of the held messages, and lets as many repeats of the last message follow as cost the rest of
    /// `part`.
    fn note_weighed(&mut self, weighed: Weighed, part: u64, arena: &mut Arena) {
        let more = (part - weighed.steps) / weighed.each;
        arena.bound_repeats(usize::try_from(arena.held() + more).unwrap_or(usize::MAX));
        self.weighed = weighed;
    }

    /// Admits a message beside held ones, if all of them together cost little enough. `None`: the stages run first.
    fn admit_weighed(
        &mut self,
        draft: &Draft<'_>,
        limits: &Limits,
        flow: &mut Flow,
    ) -> Option<Generation> {
        if !self.is_strict {
            return None;
        }
        let part = part_of_turn(limits);
        let repeats = flow.arena.admitted().count_since(self.weighed.through);
        let each = weight(draft, &flow.router)?;
        let steps = self.weighed.steps + repeats * self.weighed.each + each;
        if steps > part || flow.arena.used() + draft.size() >= self.held_bytes_max {
            return None;
        }
        let generation = flow.admit(Incoming::Above(draft))?;
        let publisher = draft.meta.publisher;
        let weighed = Weighed { steps, each, through: generation, publisher, is_alone: false };
        self.note_weighed(weighed, part, &mut flow.arena);
        Some(generation)
    }
}

/// The cost of a message; `None`: the number of its receivers is not known.
fn weight(draft: &Draft<'_>, router: &Router) -> Option<u64> {
    let count = router.weight(draft.topic)?;
    Some(count.max(1) * (1 + steps_of_bytes(draft.size())))
}

/// A connection's part of a turn: at least one step, so that every connection makes progress.
fn part_of_turn(limits: &Limits) -> u64 {
    (limits.turn_steps_max / HELD_PART).max(1)
}

impl Shard {
    /// Steps since the shard began.
    #[inline(always)]
    pub fn steps(&self) -> u64 {
        self.counters.delivery_steps + self.work()
    }

    /// The steps without those of messages that went to their receivers.
    #[inline(always)]
    fn work(&self) -> u64 {
        self.counters.steps + self.counters.packets_received
    }

    /// Runs a call whose work has a bound, and notes how many steps it took.
    #[inline(always)]
    pub(super) fn counted<T>(&mut self, call: impl FnOnce(&mut Shard) -> T) -> T {
        if !cfg!(debug_assertions) {
            return call(self);
        }
        let before = self.work();
        let result = call(self);
        // A CONNECT that waits is counted again when it is read again.
        let steps = self.work().saturating_sub(before);
        self.work.call_steps_most = self.work.call_steps_most.max(steps);
        result
    }

    /// The most steps that a packet, a timer, a piece of mail or the end of a connection has taken since the last call
    /// of this, without deliveries: at most `CALL_STEPS_MAX`.
    pub fn take_call_steps_most(&mut self) -> u64 {
        std::mem::take(&mut self.work.call_steps_most)
    }

    /// The most steps that the reads of one connection have taken in a turn since the last call of this:
    /// `turn_steps_max`, the steps of its last packet, and those of messages that were held before. Only builds with
    /// debug assertions know it.
    pub fn take_turn_steps_most(&mut self) -> u64 {
        std::mem::take(&mut self.work.turn_steps_most)
    }

    /// Notes the steps that a read of a connection has taken since the shard's steps were `began`.
    #[inline(always)]
    pub(super) fn measure_turn(&mut self, id: ConnectionId, began: u64) {
        if cfg!(debug_assertions) {
            let taken = self.steps().saturating_sub(began);
            let sum = self.work.turns.measured.entry(id).or_default();
            *sum += taken;
            self.work.turn_steps_most = self.work.turn_steps_most.max(*sum);
        }
    }

    /// How many steps a connection may use of a turn, and how many held messages may cost.
    pub(super) fn turn_part(&self) -> u64 {
        part_of_turn(&self.limits)
    }

    /// Sets how many messages may be held, because the subscriptions that topics match have changed.
    pub(super) fn bound_held(&mut self) {
        let held_max = self.turn_part() / self.flow.router.weight_max().max(1);
        self.work.turns.is_strict = held_max < HELD_MIN;
        self.work.turns.weighed = Weighed::default();
        let bytes_max = usize::try_from(held_max.max(1) * COPY_SIZE as u64).unwrap_or(usize::MAX);
        self.work.turns.held_bytes_max = bytes_max.min(PIPELINE_BYTES);
        let held_max = if self.work.turns.is_strict { 0 } else { held_max };
        self.flow.arena.bound_held(usize::try_from(held_max).unwrap_or(usize::MAX));
    }

    /// Admits a message when as many are held as may be, or when they fill the arena, so that the stages empty it
    /// first. A message that finds no room then never finds any. The draft is a value: a reference would keep the
    /// drafts of all messages in memory, where most need registers alone.
    #[cold]
    #[inline(never)]
    pub(super) fn admit_after_stages(
        &mut self,
        now: Instant,
        draft: Draft<'_>,
    ) -> Option<Generation> {
        let (turns, flow) = (&mut self.work.turns, &mut self.flow);
        // Where the arena is empty, running the stages makes no room.
        if flow.arena.held() > 0 {
            if let Some(generation) = turns.admit_weighed(&draft, &self.limits, flow) {
                return Some(generation);
            }
            self.run_charged(now, draft.meta.publisher);
        }
        self.work.turns.admit_alone(&draft, &self.limits, &mut self.flow, &mut self.counters)
    }

    /// Runs the stages over the held messages, and charges `publisher`, or the publisher of a message that is held
    /// alone.
    #[cold]
    #[inline(never)]
    pub(super) fn run_charged(&mut self, now: Instant, publisher: u64) {
        let (held, began) = (self.flow.arena.held(), self.steps());
        self.run_pipeline(now);
        let taken = self.steps() - began + held;
        let weighed = std::mem::take(&mut self.work.turns.weighed);
        let payer = if weighed.is_alone { weighed.publisher } else { publisher };
        if let Some(key) = SessionKey::from_u64(payer)
            && let Some(id) = self.clients.session(key).and_then(|session| session.connection())
        {
            self.charge(id, taken);
        }
    }

    /// Charges steps to a connection. A connection that has used its part of the turn goes on in the next one.
    #[inline(never)]
    pub(super) fn charge(&mut self, id: ConnectionId, steps: u64) {
        let connection = self.clients.live_connection(id);
        if connection.turn_steps == 0 {
            self.work.turns.charged.push(id);
            self.work.turns.is_pending = true;
        }
        let steps = steps.clamp(1, u64::from(u32::MAX)) as u32;
        connection.turn_steps = connection.turn_steps.saturating_add(steps);
        self.end_turn_if_used(id);
    }

    /// Parks a connection that has used its part of the turn, unless it is parked already.
    pub(super) fn end_turn_if_used(&mut self, id: ConnectionId) {
        let part = self.turn_part();
        let Some(connection) = self.clients.connection(id) else { return };
        let is_used = connection.turn_steps > 0 && u64::from(connection.turn_steps) >= part;
        let is_open = connection.is_open();
        if is_used && is_open && connection.park.is_none() && !self.shutdown.has_begun {
            self.park(id, Park::Turn);
        }
    }

    /// Whether a connection's input goes on in the next turn.
    pub fn is_waiting_for_turn(&mut self, id: ConnectionId) -> bool {
        self.clients.connection(id).is_some_and(|connection| connection.park == Some(Park::Turn))
    }

    /// Whether the next turn has input of earlier turns to use.
    #[inline]
    pub fn has_postponed(&self) -> bool {
        self.work.turns.is_pending && self.has_left()
    }

    #[inline(never)]
    fn has_left(&self) -> bool {
        !self.work.turns.is_idle()
            || !self.flow.inbox.is_idle()
            || self.has_inbound_left()
            || !self.connections.postponed_reads.is_empty()
    }

    pub(super) fn list_for_turn(&mut self, id: ConnectionId) {
        if let Some(connection) = self.clients.connection(id)
            && !connection.is_turn_listed
        {
            connection.is_turn_listed = true;
            self.work.turns.parked.push(id);
            self.work.turns.is_pending = true;
        }
    }

    /// Uses the input that was read before, as much as a few turns allow. It is called for a broker that ends.
    pub(super) fn use_postponed(&mut self, now: Instant) {
        for _ in 0..LAST_ROUNDS {
            if !self.has_postponed() {
                return;
            }
            self.go_on(now);
            self.run_pipeline(now);
        }
    }

    /// Forgets what the reads of a turn have taken.
    #[inline(always)]
    pub(super) fn end_measure(&mut self) {
        if cfg!(debug_assertions) {
            self.work.turns.measured.clear();
        }
    }

    /// Uses input that was postponed in earlier turns, as far as this turn's account allows, and closes the account.
    #[inline(always)]
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.work.turns.is_pending {
            self.go_on_with_postponed(now);
        }
    }

    #[inline(never)]
    fn go_on_with_postponed(&mut self, now: Instant) {
        self.admit_mail(now);
        self.tell_busy();
        self.admit_inbound(now);
        let began = self.steps();
        let all = GO_ON_TURNS.saturating_mul(self.limits.turn_steps_max);
        while self.steps() - began < all
            && let Some(id) = self.work.turns.due.pop_front()
        {
            // The connection may be gone since it was parked.
            let Some(connection) = self.clients.connection(id) else { continue };
            connection.is_turn_listed = false;
            self.unpark(now, id, Park::Turn);
            if self.flow.arena.used() >= self.work.turns.held_bytes_max {
                self.run_for(now, id);
            }
            self.end_if_used(now, id);
        }
        // Connections that were parked in this turn stand behind those that are left.
        self.work.turns.due.extend(self.work.turns.parked.drain(..));
        self.connections.postponed_reads.append(&mut self.connections.last_reads);
        std::mem::swap(&mut self.connections.postponed_reads, &mut self.connections.last_reads);
        self.end_mail_account();
        self.work.turns.bridge_steps = 0;
        let mut charged = std::mem::take(&mut self.work.turns.charged);
        for id in charged.drain(..) {
            if let Some(connection) = self.clients.connection(id) {
                connection.turn_steps = 0;
            }
        }
        self.work.turns.charged = charged;
        self.work.turns.is_pending = self.has_postponed();
    }

    /// Ends a connection whose socket has ended before, after its input was used.
    fn end_if_used(&mut self, now: Instant, id: ConnectionId) {
        // A CONNECT that went on may have been handed over.
        let Some(connection) = self.clients.connection(id) else { return };
        let is_open = connection.is_open();
        if connection.has_ended && is_open && connection.park.is_none() {
            return self.handle_close(now, id);
        }
        self.end_if_over(now, id);
    }
}
