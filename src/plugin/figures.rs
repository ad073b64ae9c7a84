//! The account of calls of hooks, for operators.

/// The calls of one hook of one plugin: totals since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookFigures {
    pub plugin: Box<str>,
    /// The name in `HookSet::NAMED`.
    pub hook: &'static str,
    pub calls: u64,
    /// Requests and messages refused, and subscribers skipped, including those of failed calls.
    pub denials: u64,
    pub errors: u64,
    pub panics: u64,
    /// Calls that took longer than they should.
    pub slow: u64,
    /// How many calls were timed, and how many nanoseconds they took together.
    pub timed: u64,
    pub timed_ns: u64,
    /// The longest timed call, nanoseconds.
    pub longest_ns: u64,
}

impl HookFigures {
    /// Adds the figures of the same hook on another shard.
    pub fn add(&mut self, other: &HookFigures) {
        self.calls += other.calls;
        self.denials += other.denials;
        self.errors += other.errors;
        self.panics += other.panics;
        self.slow += other.slow;
        self.timed += other.timed;
        self.timed_ns += other.timed_ns;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }

    /// The mean time of the timed calls, nanoseconds.
    pub fn mean_ns(&self) -> u64 {
        self.timed_ns.checked_div(self.timed).unwrap_or(0)
    }
}
