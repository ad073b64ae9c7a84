//! The account of calls of hooks, for operators.

/// The calls of one hook of one plugin: totals since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookFigures {
    pub plugin: Box<str>,
    /// As in `HookSet::NAMED`.
    pub hook: &'static str,
    pub calls: u64,
    /// Requests and messages refused, subscribers skipped; those of failed calls too.
    pub denials: u64,
    pub errors: u64,
    pub panics: u64,
    /// Calls that took longer than they should.
    pub slow: u64,
    /// Calls that were timed, and what they took together, nanoseconds.
    pub timed: u64,
    pub timed_ns: u64,
    /// The longest that is known, nanoseconds.
    pub longest_ns: u64,
}

impl HookFigures {
    /// Takes in the same hook's figures on another shard.
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

    /// What a call takes, nanoseconds, as far as calls were timed.
    pub fn mean_ns(&self) -> u64 {
        self.timed_ns.checked_div(self.timed).unwrap_or(0)
    }
}
