//! Time as a number that the caller brings: milliseconds since the process began.

/// How far the turns of two shards may lie apart and still count as one time, ms.
const TURN_LAG_MS: u64 = 50;

/// A point in time, in milliseconds since an epoch that all shards of a process share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);

    /// Whole seconds until then, rounded up; 0 when it has passed. The turn of the shard that calculated `self` may
    /// have begun some milliseconds later than this shard's turn, so such a small rest is not rounded up to a second.
    pub fn seconds_left(self, now: Instant) -> u32 {
        let left_ms = self.ms_since(now);
        let rounded = left_ms.saturating_sub(TURN_LAG_MS).div_ceil(1000).max(left_ms.min(1));
        rounded.min(u64::from(u32::MAX)) as u32
    }

    pub fn plus_ms(self, ms: u64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }

    pub fn plus_s(self, s: u64) -> Instant {
        self.plus_ms(s.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    pub fn ms_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An instant or none, in the size of an instant: clients have several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(u64);

impl Deadline {
    /// No clock reaches this time.
    pub const NONE: Deadline = Deadline(u64::MAX);

    pub fn get(self) -> Option<Instant> {
        (self != Deadline::NONE).then_some(Instant(self.0))
    }
}

impl From<Option<Instant>> for Deadline {
    fn from(instant: Option<Instant>) -> Deadline {
        instant.map_or(Deadline::NONE, |instant| Deadline(instant.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_but_not_for_what_turns_lie_apart() {
        let cases =
            [(0, 0), (1, 1), (50, 1), (1_000, 1), (1_050, 1), (1_051, 2), (5_003, 5), (5_500, 6)];
        for (left_ms, left_s) in cases {
            assert_eq!(Instant(7 + left_ms).seconds_left(Instant(7)), left_s, "{left_ms} ms");
        }
        assert_eq!(Instant(7).seconds_left(Instant(8)), 0);
        assert_eq!(Instant(u64::MAX).seconds_left(Instant(0)), u32::MAX);
    }
}
