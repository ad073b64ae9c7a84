//! The time that turns take. While they take too long, clients without a session here are turned away before their
//! CONNECT changes anything.

use super::Shard;

/// About so many turns are averaged.
const TURNS: u64 = 16;

/// The time of a turn, averaged over the last ones.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// The average times `TURNS`.
    scaled_ms: u64,
}

impl Lag {
    fn note(&mut self, ms: u64) {
        self.scaled_ms = (self.scaled_ms - self.scaled_ms.div_ceil(TURNS)).saturating_add(ms);
    }

    fn is_above(&self, ms_max: u64) -> bool {
        self.scaled_ms > ms_max.saturating_mul(TURNS)
    }
}

impl Shard {
    /// Whether a limit depends on the time that turns take.
    pub fn wants_turn_times(&self) -> bool {
        self.limits.turn_time_max_ms > 0
    }

    /// Notes how long a turn took.
    pub fn note_turn_time(&mut self, ms: u64) {
        // A machine that stood still once is no lag, so one turn counts at most four times the limit.
        self.guards.lag.note(ms.min(self.limits.turn_time_max_ms.saturating_mul(4)));
    }

    /// Whether turns take too long, so that a client without a session here should not get one now.
    pub(super) fn is_lagging(&self) -> bool {
        self.limits.turn_time_max_ms > 0 && self.guards.lag.is_above(self.limits.turn_time_max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_lag_when_they_are_long_for_a_while_and_no_longer() {
        let mut lag = Lag::default();
        lag.note(500);
        assert!(!lag.is_above(50), "one long turn is no lag");
        let mut count = 0;
        while !lag.is_above(50) {
            lag.note(100);
            count += 1;
        }
        assert!((2..32).contains(&count), "{count}");
        count = 0;
        while lag.is_above(50) {
            lag.note(1);
            count += 1;
        }
        assert!((1..32).contains(&count), "{count}");
        (0..10_000).for_each(|_| lag.note(0));
        assert_eq!(lag.scaled_ms, 0);
        (0..1_000).for_each(|_| lag.note(u64::MAX / 2));
    }
}
