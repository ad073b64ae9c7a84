//! How much work a shard does, in steps: a session offered; a filter inserted, removed or compared; a message queued, moved
//! or freed; a timer fired; 4 KiB copied; a packet read.
//!
//! A turn gives a connection `turn_steps_max`. What it sent beyond that stays in its input, and nothing of it overtakes the
//! rest; it goes on in the next turn, after the events of others. A message costs what it costs when the stages have it, so
//! messages whose cost is not known to be small are given to them at once.

use super::{ConnectionId, Shard};
use crate::session::Park;
use crate::session::connection::ConnectionState;
use crate::time::Instant;

/// Bytes whose copy is a step, as a power of two.
const COPY_SHIFT: u32 = 12;

/// The part of a turn that messages may cost together of which nobody has looked whether they are cheap.
const UNWEIGHED_PART: u64 = 5;

/// Reads that cost fewer steps are not held against their connection: its socket has few of them for a turn.
const LISTED_STEPS_MIN: u64 = 512;

/// Who has used much of this turn, and who goes on in the next one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Connections that have cost something in this turn.
    heavy: Vec<ConnectionId>,
    /// Those that were parked in this turn, and in turns before.
    parked: Vec<ConnectionId>,
    due: Vec<ConnectionId>,
    /// Messages that the stages do not have yet and that were looked at, and what they will cost.
    weighed_count: u64,
    weighed_steps: u64,
}

impl Turns {
    pub fn is_idle(&self) -> bool {
        self.parked.is_empty() && self.due.is_empty()
    }

    /// The stages have run.
    #[inline]
    pub fn forget_weighed(&mut self) {
        self.weighed_count = 0;
        self.weighed_steps = 0;
    }
}

/// The steps of copying so many bytes.
#[inline(always)]
pub(super) fn of_bytes(bytes: usize) -> u64 {
    (bytes >> COPY_SHIFT) as u64
}

impl Shard {
    /// Steps since the shard began. They are counted in whole loops, so that a message costs an addition or two.
    #[inline(always)]
    pub fn steps(&self) -> u64 {
        self.counters.delivery_steps + self.work()
    }

    /// The same without what messages cost that went to their receivers.
    #[inline(always)]
    fn work(&self) -> u64 {
        self.counters.steps + self.counters.packets_received
    }

    /// Runs a call whose work has a bound, and notes how much it was.
    pub(super) fn counted<T>(&mut self, call: impl FnOnce(&mut Shard) -> T) -> T {
        let before = self.work();
        let result = call(self);
        // A CONNECT that waits is counted again when it is read again.
        let steps = self.work().saturating_sub(before);
        self.call_steps_most = self.call_steps_most.max(steps);
        result
    }

    /// The most steps that a packet, a timer, a piece of mail or the end of a connection has taken since this was asked
    /// last, deliveries apart: at most `CALL_STEPS_MAX`.
    pub fn take_call_steps_most(&mut self) -> u64 {
        std::mem::take(&mut self.call_steps_most)
    }

    /// The most steps that one connection has cost in a turn since this was asked last: `turn_steps_max`, what its last
    /// packet took, and a little that it found waiting.
    pub fn take_turn_steps_most(&mut self) -> u64 {
        std::mem::take(&mut self.turn_steps_most)
    }

    /// The count of steps at which a connection has used its turn.
    #[inline]
    pub(super) fn turn_end(&mut self, id: ConnectionId) -> u64 {
        let used = match self.turns.heavy.is_empty() {
            true => 0,
            false => self.clients.connection(id).map_or(0, |connection| connection.turn_steps),
        };
        self.steps() + self.limits.turn_steps_max.saturating_sub(u64::from(used))
    }

    /// Holds a read that has cost so many steps against its connection.
    #[inline]
    pub(super) fn note_turn(&mut self, id: ConnectionId, steps: u64) {
        if steps >= LISTED_STEPS_MIN {
            self.list_heavy(id, steps);
        }
    }

    #[cold]
    fn list_heavy(&mut self, id: ConnectionId, steps: u64) {
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.turn_steps == 0 {
            self.turns.heavy.push(id);
        }
        let steps = steps.min(u64::from(u32::MAX)) as u32;
        connection.turn_steps = connection.turn_steps.saturating_add(steps);
        self.turn_steps_most = self.turn_steps_most.max(u64::from(connection.turn_steps));
    }

    /// So many messages cost little together, whatever their topics.
    #[inline]
    pub(super) fn unweighed_max(&self) -> u64 {
        self.limits.turn_steps_max / UNWEIGHED_PART / self.router.weight_max()
    }

    /// Looks at what the messages cost that were admitted since the last look, all of the last one's topic or of topics that
    /// were looked at, and gives them to the stages if that is not little.
    #[cold]
    #[inline(never)]
    pub(super) fn weigh(&mut self, now: Instant) {
        let last = self.arena.get(self.arena.admitted());
        let weight = last.and_then(|message| self.router.weight(message.topic));
        let held = self.arena.held();
        let new = held.saturating_sub(self.turns.weighed_count);
        self.turns.weighed_count = held;
        self.turns.weighed_steps += new * weight.unwrap_or(0);
        if weight.is_none()
            || self.turns.weighed_steps > self.limits.turn_steps_max / UNWEIGHED_PART
        {
            self.run_pipeline(now);
        }
    }

    /// How many messages of a topic may be admitted before their cost is looked at.
    #[inline]
    pub(super) fn repeats_max(&self, topic: &[u8], unweighed_max: u64) -> u64 {
        match self.router.weight(topic) {
            Some(weight) => (self.limits.turn_steps_max / weight.max(1)).max(1),
            None => unweighed_max.max(1),
        }
    }

    /// A connection has used its turn: the rest of its input waits, if it does not already. `false`: it is not open.
    #[cold]
    pub(super) fn end_turn(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.clients.connection(id) else { return false };
        if !matches!(connection.state, ConnectionState::Open(_)) {
            return false;
        }
        if connection.park.is_none() {
            self.park(id, Park::Turn);
        }
        true
    }

    /// Whether a connection's input goes on in the next turn.
    pub fn is_waiting_for_turn(&mut self, id: ConnectionId) -> bool {
        self.clients.connection(id).is_some_and(|connection| connection.park == Some(Park::Turn))
    }

    pub(super) fn list_for_turn(&mut self, id: ConnectionId) {
        if let Some(connection) = self.clients.connection(id)
            && !connection.is_turn_listed
        {
            connection.is_turn_listed = true;
            self.turns.parked.push(id);
        }
    }

    /// Begins the next turn's account, and goes on with the connections that used theirs in a turn before this one.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.mail_steps = 0;
        self.admit_mail(now);
        for id in std::mem::take(&mut self.turns.heavy) {
            if let Some(connection) = self.clients.connection(id) {
                connection.turn_steps = 0;
            }
        }
        for id in std::mem::take(&mut self.turns.due) {
            let Some(connection) = self.clients.connection(id) else { continue };
            connection.is_turn_listed = false;
            self.unpark(now, id, Park::Turn);
            self.end_if_used(now, id);
        }
        let parked = std::mem::take(&mut self.turns.parked);
        self.turns.due.extend(parked);
        self.last_reads.append(&mut self.postponed_reads);
    }

    /// Ends a connection whose socket has ended before and whose input was used now.
    fn end_if_used(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.clients.connection(id) else { return };
        let is_open = matches!(connection.state, ConnectionState::Open(_));
        if connection.has_ended && is_open && connection.park.is_none() {
            self.handle_close(now, id);
        }
    }
}
