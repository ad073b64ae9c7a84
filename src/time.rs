//! Time as a number that the caller brings: milliseconds since the process began.

/// A point in time, in milliseconds since an epoch that all shards of a process share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);

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

/// An instant or none, in the size of the former: clients have several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(u64);

impl Deadline {
    /// No clock comes there.
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
