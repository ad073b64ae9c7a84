//! How long turns take: while they take too long, clients without a session here are turned away before their CONNECT
//! changes anything.

use super::Shard;

/// Turns over which times are averaged, about.
const TURNS: u64 = 16;

/// The time of a turn, averaged over the last ones.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// `TURNS` times as long.
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
    /// Somebody asks how long turns take.
    pub fn wants_turn_times(&self) -> bool {
        self.limits.turn_time_max_ms > 0
    }

    /// A turn took so long.
    pub fn note_turn_time(&mut self, ms: u64) {
        // A machine that stood still once is no lag.
        self.guards.lag.note(ms.min(self.limits.turn_time_max_ms.saturating_mul(4)));
    }

    /// Whoever has no session here should not get one now.
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
