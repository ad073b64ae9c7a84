//! When a busy time has passed: then the allocator keeps what only that time needed, and is asked to give it back.
//!
//! glibc gives memory back by itself only from the end of a heap, and the larger the pieces were that it freed before,
//! the more it keeps. So the thread that watches the shards calls `malloc_trim`, when there is little that could have
//! to wait for it: after three calm looks, a second apart, and about a minute after that. The one call is for the whole
//! process, and a shard that allocates meanwhile may wait for it.
//!
//! Memory stays at its peak under a load that never falls to a sixteenth of the peak. Other C libraries than glibc are
//! not asked.

use crate::time::Instant;

/// Bytes received and sent since the last look that make a time busy, and bytes of waiting messages that have gone.
const BUSY_MIN: u64 = 1 << 20;
const GONE_MIN: u64 = 8 << 20;
/// It is calm when this part of the busiest look moves, or less.
const CALM_PART: u64 = 16;
/// So many calm looks in a row: what was under way, shards and bridges have let go of it.
const CALM_LOOKS: u32 = 3;
/// What is freed later, as by timers, is given back so long after.
const AGAIN_MS: u64 = 65_000;

#[derive(Debug, Default)]
pub(super) struct Calm {
    moved: u64,
    /// The most that moved between two looks, and the most that waited, since memory was given back.
    moved_most: u64,
    waiting_most: u64,
    /// Calm looks in a row.
    calm_looks: u32,
    /// When memory is given back again, and how much may move then.
    again: Option<(Instant, u64)>,
}

impl Calm {
    /// Whether memory shall be given back now. `moved`: bytes that were received and sent since the process began;
    /// `waiting`: bytes of messages that shards hold. Asked about once a second.
    pub(super) fn look(&mut self, now: Instant, moved: u64, waiting: u64) -> bool {
        let step = moved.saturating_sub(self.moved);
        self.moved = moved;
        self.moved_most = self.moved_most.max(step);
        self.waiting_most = self.waiting_most.max(waiting);
        let calm_max = self.moved_most.max(BUSY_MIN) / CALM_PART;
        self.calm_looks = if step <= calm_max { self.calm_looks + 1 } else { 0 };
        let was_busy = self.moved_most >= BUSY_MIN || self.waiting_most - waiting >= GONE_MIN;
        let is_again = self.again.is_some_and(|(at, step_max)| at <= now && step <= step_max);
        if was_busy && self.calm_looks >= CALM_LOOKS {
            self.again = Some((now.plus_ms(AGAIN_MS), calm_max));
        } else if is_again {
            self.again = None;
        } else {
            return false;
        }
        self.moved_most = step;
        self.waiting_most = waiting;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_it_gets_calm_and_once_a_minute_later() {
        let mut calm = Calm::default();
        let (mut now, mut moved) = (Instant(0), 0);
        let mut look = |step: u64, waiting: u64| {
            now = now.plus_ms(1_000);
            moved += step;
            calm.look(now, moved, waiting)
        };
        // A time that is never busy.
        assert!((0..100).all(|_| !look(1_000, 5)));
        for _ in 0..10 {
            assert!(!look(50 << 20, 1 << 20));
        }
        assert!(!look(10 << 20, 0), "it is still busy");
        // A small steady rest is calm, too.
        let given_back: Vec<usize> = (0..200).filter(|_| look(100_000, 0)).collect();
        assert_eq!(given_back, [2, 67]);
        // A queue that fills slowly and goes at once.
        assert!((0..20).all(|count| !look(60_000, count << 20)));
        assert!(look(0, 0), "it was calm all the time");
        assert!((0..50).all(|_| !look(0, 0)));
    }
}
