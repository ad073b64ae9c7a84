//! Which address is tried next, and when: in the order of the configuration, after pauses that grow, with jitter.

use crate::random::Random;
use crate::time::Instant;

/// A pause is doubled at most this often. The longest pause is reached earlier.
const DOUBLINGS_MAX: u32 = 20;

#[derive(Clone, Debug)]
pub(super) struct Attempts {
    address_count: usize,
    pause_min_ms: u64,
    pause_max_ms: u64,
    /// The address to try next, and the time from which on it may be tried.
    address: usize,
    at: Instant,
    /// Rounds over all addresses since the link last was of use.
    rounds: u32,
    /// Whether every address of this round so far has refused us for a reason that waiting does not heal.
    is_round_refused: bool,
    random: Random,
}

/// Why an attempt, or a link, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The next attempt may succeed a little later.
    Passing,
    /// An operator has to change something first. Attempts go on, but rarely.
    Refused,
}

impl Attempts {
    /// Attempts of which the first is due at once.
    pub(super) fn new(address_count: usize, pause_ms: (u64, u64), seed: u64) -> Attempts {
        Attempts {
            address_count,
            pause_min_ms: pause_ms.0.max(1),
            pause_max_ms: pause_ms.1.max(pause_ms.0).max(1),
            address: 0,
            at: Instant::ZERO,
            rounds: 0,
            is_round_refused: true,
            random: Random::new(seed),
        }
    }

    /// The index of the next address, and when to try it.
    pub(super) fn next(&self) -> (usize, Instant) {
        (self.address, self.at)
    }

    /// Notes that the address was tried and the link did not come up. The next address follows, at the end of a round
    /// after a pause.
    pub(super) fn failed(&mut self, now: Instant, failure: Failure) {
        self.is_round_refused &= failure == Failure::Refused;
        self.address += 1;
        self.at = now;
        if self.address >= self.address_count {
            self.pause(now, self.is_round_refused);
        }
    }

    /// Tries the same address again at once.
    pub(super) fn retry(&mut self, now: Instant) {
        self.at = now;
    }

    /// Notes that the link was up. `was_of_use`: the pauses begin anew.
    pub(super) fn lost(&mut self, now: Instant, failure: Failure, was_of_use: bool) {
        if was_of_use {
            self.rounds = 0;
        }
        self.pause(now, failure == Failure::Refused);
    }

    fn pause(&mut self, now: Instant, is_longest: bool) {
        let doubled = self.pause_min_ms.saturating_mul(1 << self.rounds.min(DOUBLINGS_MAX));
        let pause_ms = if is_longest { self.pause_max_ms } else { doubled.min(self.pause_max_ms) };
        // Half of the pause is random, so that bridges that lost the same remote do not come back in the same moment.
        let jitter_ms = self.random.below(pause_ms / 2 + 1);
        self.at = now.plus_ms(pause_ms - jitter_ms);
        self.address = 0;
        self.rounds = self.rounds.saturating_add(1);
        self.is_round_refused = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause_ms(attempts: &Attempts, now: Instant) -> u64 {
        attempts.next().1.ms_since(now)
    }

    #[test]
    fn all_addresses_are_tried_before_a_pause_that_grows_to_its_bound() {
        let mut attempts = Attempts::new(3, (1000, 60_000), 1);
        assert_eq!(attempts.next(), (0, Instant::ZERO));
        let now = Instant(5);
        for round in 0..40 {
            attempts.failed(now, Failure::Passing);
            assert_eq!(attempts.next(), (1, now));
            attempts.failed(now, Failure::Passing);
            assert_eq!(attempts.next(), (2, now));
            attempts.failed(now, Failure::Passing);
            assert_eq!(attempts.next().0, 0);
            let longest = (1000_u64 << round.min(20)).min(60_000);
            let pause = pause_ms(&attempts, now);
            assert!((longest / 2..=longest).contains(&pause), "{round}: {pause}");
        }
        attempts.lost(now, Failure::Passing, false);
        assert!(pause_ms(&attempts, now) >= 30_000);
        attempts.lost(now, Failure::Passing, true);
        assert!(pause_ms(&attempts, now) <= 1000);
    }

    #[test]
    fn a_refusal_by_all_is_tried_again_rarely() {
        let now = Instant(5);
        let mut attempts = Attempts::new(2, (10, 60_000), 1);
        attempts.failed(now, Failure::Refused);
        attempts.failed(now, Failure::Refused);
        assert!(pause_ms(&attempts, now) >= 30_000);
        attempts.failed(now, Failure::Refused);
        attempts.failed(now, Failure::Passing);
        assert!(pause_ms(&attempts, now) <= 20);
        attempts.lost(now, Failure::Refused, true);
        assert!(pause_ms(&attempts, now) >= 30_000);
    }

    #[test]
    fn pauses_differ_from_bridge_to_bridge() {
        let pause = |seed| {
            let mut attempts = Attempts::new(1, (60_000, 60_000), seed);
            attempts.failed(Instant(0), Failure::Passing);
            pause_ms(&attempts, Instant(0))
        };
        let mut pauses: Vec<_> = (0..20).map(pause).collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 15, "{pauses:?}");
    }
}
