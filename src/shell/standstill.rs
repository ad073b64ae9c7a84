//! When a shard stands still for good: its turns are counted by the thread that watches, in time that thread was awake.
//!
//! The thread adds up how long a shard has not turned while its own sleeps came on time, so a paused machine is no
//! stall. After a stall the process ends without destructors, because the lost thread may be using what they would
//! destroy.

use std::sync::atomic::{AtomicU64, Ordering};

/// A turn's mark, written by the shard with a plain store; worth a look from another thread.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    /// The shard has turned once more. Only its own thread calls this.
    #[inline]
    pub fn tick(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The number of the shard's turns.
    pub fn look(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The watching thread may wake up this much late; a later look says nothing of the other threads.
const LATE_MS: u64 = 500;

/// Looks in a row that were on time before a shard is said to stand still: a machine that was paused wakes all threads
/// at once, and this one may be the first of them.
const LOOKS_MIN: u32 = 2;

/// Judges the shards' beats.
#[derive(Debug)]
pub(super) struct Standstills {
    max_ms: u64,
    shards: Vec<Stillness>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stillness {
    beat: u64,
    /// The time for which the shard has not turned while this thread was awake.
    awake_ms: u64,
    /// The number of looks on time in a row.
    looks: u32,
    is_told: bool,
}

/// The finding of a look at one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// The shard has not turned for this long; reported once.
    Begun { shard: usize, still_ms: u64 },
    /// A shard that was reported turns again.
    Over { shard: usize, still_ms: u64 },
}

impl Standstills {
    /// `max_ms` is the longest that a shard may need for a turn; 0: however long.
    pub(super) fn new(shard_count: usize, max_ms: u64) -> Standstills {
        Standstills { max_ms, shards: vec![Stillness::default(); shard_count] }
    }

    /// Looks once more: `slept_ms` after the look before, when `wanted_ms` was asked for.
    pub(super) fn look<'b>(
        &mut self,
        beats: impl Iterator<Item = &'b Beat>,
        wanted_ms: u64,
        slept_ms: u64,
    ) -> Vec<Stall> {
        if self.max_ms == 0 {
            return Vec::new();
        }
        let is_on_time = slept_ms <= wanted_ms + LATE_MS;
        let mut found = Vec::new();
        for (shard, (beat, state)) in beats.zip(&mut self.shards).enumerate() {
            let beat = beat.look();
            if beat != state.beat {
                if state.is_told {
                    found.push(Stall::Over { shard, still_ms: state.awake_ms });
                }
                *state = Stillness { beat, ..Stillness::default() };
            } else if is_on_time {
                state.awake_ms += slept_ms;
                state.looks += 1;
            } else {
                state.looks = 0;
            }
            if !state.is_told && state.looks >= LOOKS_MIN && state.awake_ms >= self.max_ms {
                state.is_told = true;
                found.push(Stall::Begun { shard, still_ms: state.awake_ms });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    /// Looks of so many milliseconds' sleep, of which 1,000 were asked for; what was found at the last one.
    fn looks(standstills: &mut Standstills, beats: &[Beat], sleeps: &[u64]) -> Vec<Stall> {
        let mut found = Vec::new();
        for (index, slept) in sleeps.iter().enumerate() {
            assert!(found.is_empty(), "found before look {index}: {found:?}");
            found = standstills.look(beats.iter(), SECOND, *slept);
        }
        found
    }

    #[test]
    fn a_shard_that_does_not_turn_is_told_once_and_when_it_turns_again() {
        let beats = [Beat::default(), Beat::default()];
        let mut standstills = Standstills::new(2, 30_000);
        for _ in 0..29 {
            beats[0].tick();
            assert_eq!(looks(&mut standstills, &beats, &[SECOND]), []);
        }
        beats[0].tick();
        let begun = Stall::Begun { shard: 1, still_ms: 30_000 };
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), [begun]);
        beats[0].tick();
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), []);
        beats[0].tick();
        beats[1].tick();
        let over = Stall::Over { shard: 1, still_ms: 31_000 };
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), [over]);
        beats[0].tick();
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), []);
    }

    #[test]
    fn a_machine_that_was_paused_is_no_stall() {
        let beats = [Beat::default()];
        let mut standstills = Standstills::new(1, 5_000);
        // Pauses are no stall, however many there are and whichever thread wakes first.
        assert_eq!(
            looks(&mut standstills, &beats, &[60_000, SECOND, 60_000, 3_600_000, SECOND]),
            []
        );
        beats[0].tick();
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), []);
    }

    #[test]
    fn pauses_do_not_hide_a_shard_that_stands_still() {
        let beats = [Beat::default()];
        let mut standstills = Standstills::new(1, 5_000);
        let mut sleeps = [SECOND; 4].to_vec();
        // The sum is there, but not twice in a row after the pause.
        sleeps.extend([60_000, SECOND]);
        assert_eq!(looks(&mut standstills, &beats, &sleeps), []);
        let begun = Stall::Begun { shard: 0, still_ms: 6_000 };
        assert_eq!(looks(&mut standstills, &beats, &[SECOND]), [begun]);
    }

    #[test]
    fn nothing_is_told_where_a_turn_may_take_however_long() {
        let mut standstills = Standstills::new(1, 0);
        assert_eq!(looks(&mut standstills, &[Beat::default()], &[SECOND; 100]), []);
    }
}
