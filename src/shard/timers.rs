//! Deadlines of a shard. Each is removed exactly: no entry outlives its purpose.

use crate::session::{ConnectionId, SessionKey};
use crate::time::Instant;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The time for CONNECT or the keep alive has passed, or a closing connection has lingered.
    Connection(ConnectionId),
    /// The session ends or its will is due.
    Session(SessionKey),
    /// Counters are published.
    Sys,
    /// Hooks are told that a second has passed.
    Tick,
    /// The progress of clients that fill the store is looked at.
    Store,
    /// A packet of which a part has arrived takes too long.
    Packets,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<Entry>,
}

/// A timer and its deadline, in two words: there is one for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The deadline in milliseconds, and the kind of the timer in the lowest bits.
    due: u64,
    /// Index and generation of the connection or session.
    of: u64,
}

const KIND_BITS: u32 = 3;

impl Entry {
    fn new(deadline: Instant, timer: Timer) -> Entry {
        let (kind, index, generation) = match timer {
            Timer::Connection(id) => (0, id.index, id.generation),
            Timer::Session(key) => (1, key.index, key.generation),
            Timer::Sys => (2, 0, 0),
            Timer::Tick => (3, 0, 0),
            Timer::Store => (4, 0, 0),
            Timer::Packets => (5, 0, 0),
        };
        let due = deadline.0.min(u64::MAX >> KIND_BITS) << KIND_BITS | kind;
        Entry { due, of: u64::from(index) << 32 | u64::from(generation) }
    }

    fn deadline(self) -> Instant {
        Instant(self.due >> KIND_BITS)
    }

    fn timer(self) -> Timer {
        let (index, generation) = ((self.of >> 32) as u32, self.of as u32);
        match self.due & ((1 << KIND_BITS) - 1) {
            0 => Timer::Connection(ConnectionId { index, generation }),
            1 => Timer::Session(SessionKey { index, generation }),
            2 => Timer::Sys,
            3 => Timer::Tick,
            4 => Timer::Store,
            _ => Timer::Packets,
        }
    }
}

impl Timers {
    /// Moves a timer from its deadline to a new one.
    pub(super) fn set(
        &mut self,
        timer: Timer,
        slot: &mut Option<Instant>,
        deadline: Option<Instant>,
    ) {
        if *slot == deadline {
            return;
        }
        if let Some(old) = slot.take() {
            self.set.remove(&Entry::new(old, timer));
        }
        if let Some(new) = deadline {
            self.set.insert(Entry::new(new, timer));
            *slot = Some(new);
        }
    }

    /// The next timer that is due. Its owner must forget the deadline that it had.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let entry = *self.set.first()?;
        if entry.deadline() > now {
            return None;
        }
        self.set.pop_first();
        Some(entry.timer())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.set.first().map(|entry| entry.deadline())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_back_as_they_were_set_and_in_their_order() {
        let connection = ConnectionId { index: u32::MAX, generation: 7 };
        let session = SessionKey { index: 3, generation: u32::MAX };
        let all = [
            (Instant(0), Timer::Sys),
            (Instant(5), Timer::Connection(connection)),
            (Instant(5), Timer::Session(session)),
            (Instant(5), Timer::Tick),
            (Instant(1 << 50), Timer::Session(session)),
        ];
        let mut timers = Timers::default();
        let mut slots = [None; 5];
        for ((deadline, timer), slot) in all.iter().zip(&mut slots).rev() {
            timers.set(*timer, slot, Some(*deadline));
            assert_eq!(*slot, Some(*deadline));
        }
        timers.set(Timer::Tick, &mut slots[3], None);
        assert_eq!(slots[3], None);
        assert_eq!(timers.next_deadline(), Some(Instant(0)));
        assert_eq!(timers.pop_due(Instant(5)), Some(Timer::Sys));
        assert_eq!(timers.pop_due(Instant(4)), None);
        assert_eq!(timers.pop_due(Instant(5)), Some(Timer::Connection(connection)));
        assert_eq!(timers.pop_due(Instant(5)), Some(Timer::Session(session)));
        assert_eq!(timers.next_deadline(), Some(Instant(1 << 50)));
        timers.set(Timer::Session(session), &mut slots[4], Some(Instant(u64::MAX - 1)));
        assert!(timers.next_deadline() > Some(Instant(1 << 60)));
        timers.set(Timer::Session(session), &mut slots[4], None);
        assert_eq!(timers.next_deadline(), None);
    }
}
