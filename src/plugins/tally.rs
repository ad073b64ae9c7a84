//! The account of one plugin's calls of one hook, and lines of the log that must not repeat.

use crate::plugin::{HookFigures, HookSet};

/// Counts one hook's calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub calls: u64,
    /// Requests and messages refused, and subscribers skipped.
    pub denials: u64,
    pub errors: u64,
    pub panics: u64,
    /// Calls that took longer than the plugin's `slow_ms`.
    pub slow: u64,
    /// How many calls were timed exactly, how many nanoseconds they took together, and the longest known call.
    pub timed: u64,
    pub timed_ns: u64,
    pub longest_ns: u64,
}

impl Tally {
    pub(super) fn time(&mut self, took_ns: u64) {
        self.timed += 1;
        self.timed_ns += took_ns;
        self.longest_ns = self.longest_ns.max(took_ns);
    }

    pub(super) fn figures(&self, plugin: &str, hook: &'static str) -> HookFigures {
        HookFigures {
            plugin: plugin.into(),
            hook,
            calls: self.calls,
            denials: self.denials,
            errors: self.errors,
            panics: self.panics,
            slow: self.slow,
            timed: self.timed,
            timed_ns: self.timed_ns,
            longest_ns: self.longest_ns,
        }
    }
}

/// The shortest time between two lines about the same thing.
const SILENCE_MS: u64 = 10_000;

/// Lets a line through now and then, and counts the lines that it holds back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    until_ms: u64,
    held_back: u64,
}

impl Silence {
    /// How many lines were held back since the last one; `None`: this one is held back, too.
    pub(super) fn ask(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.until_ms {
            self.held_back += 1;
            return None;
        }
        self.until_ms = now_ms + SILENCE_MS;
        Some(std::mem::take(&mut self.held_back))
    }
}

/// The index of a hook's tally.
#[inline]
pub(super) fn index(hook: HookSet) -> usize {
    hook.bits().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_told_with_the_next_line() {
        let mut silence = Silence::default();
        let said: Vec<_> =
            [5_000, 5_001, 14_999, 15_000, 15_001, 40_000].map(|at| silence.ask(at)).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn every_hook_has_a_tally_of_its_own() {
        let indexes: Vec<_> = HookSet::NAMED.iter().map(|(_, hook)| index(*hook)).collect();
        assert_eq!(indexes, (0..HookSet::NAMED.len()).collect::<Vec<_>>());
    }
}
