//! Deadlines of a shard, each removed exactly: no stale entry outlives what it was set for.

use crate::session::{ConnectionId, SessionKey};
use crate::time::Instant;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// CONNECT is due, the keep alive has passed, or a closing connection has lingered.
    Connection(ConnectionId),
    /// The session ends or its will is due.
    Session(SessionKey),
    /// Counters are published.
    Sys,
    /// Hooks are told that a second has passed.
    Tick,
}

#[derive(Debug, Default)]
pub struct Timers {
    set: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Moves a timer from the deadline it had to a new one.
    pub fn set(&mut self, timer: Timer, slot: &mut Option<Instant>, deadline: Option<Instant>) {
        if *slot == deadline {
            return;
        }
        if let Some(old) = slot.take() {
            self.set.remove(&(old, timer));
        }
        if let Some(new) = deadline {
            self.set.insert((new, timer));
            *slot = Some(new);
        }
    }

    /// The next timer that is due; its owner must forget the deadline it had.
    pub fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(deadline, timer) = self.set.first()?;
        if deadline > now {
            return None;
        }
        self.set.pop_first();
        Some(timer)
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.set.first().map(|(deadline, _)| *deadline)
    }
}
