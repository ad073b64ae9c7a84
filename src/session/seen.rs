//! Topics of messages with the retain flag that reached a session while it fetches retained messages.

use crate::arena::{Budget, allocated};
use std::collections::VecDeque;

/// The latest of these topics, by hash, each with a number: one list serves all pulls, however early each began.
#[derive(Debug)]
pub struct Seen {
    hashes: VecDeque<u64>,
    /// The number of the oldest topic that is remembered.
    first: u64,
    /// Counts the memory of all such lists, and other memory of sessions.
    budget: Budget,
}

/// How many topics are remembered at most.
const SEEN_MAX: usize = 4096;

/// So many topics are remembered even if the budget has no room for them.
const SEEN_MIN: usize = 64;

impl Drop for Seen {
    fn drop(&mut self) {
        self.budget.change(memory_of(self.hashes.capacity()), 0);
    }
}

fn memory_of(topic_count: usize) -> usize {
    allocated(topic_count * size_of::<u64>())
}

impl Seen {
    pub fn new(budget: Budget) -> Seen {
        Seen { hashes: VecDeque::new(), first: 0, budget }
    }

    pub fn push(&mut self, hash: u64) {
        if self.hashes.len() == self.hashes.capacity() && !self.grow() {
            self.hashes.pop_front();
            self.first += 1;
        }
        self.hashes.push_back(hash);
    }

    /// Takes memory for more topics, up to `SEEN_MAX`, if the budget has it.
    fn grow(&mut self) -> bool {
        let before = self.hashes.capacity();
        let target = (2 * before).max(SEEN_MIN);
        let has_room =
            target == SEEN_MIN || self.budget.has_room(memory_of(target) - memory_of(before));
        if target > SEEN_MAX || !has_room {
            return false;
        }
        self.hashes.reserve_exact(target - self.hashes.len());
        self.budget.change(memory_of(before), memory_of(self.hashes.capacity()));
        true
    }

    /// The number of the oldest topic that is remembered; older ones were forgotten.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next topic gets.
    pub fn next(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    /// Whether a topic was seen under the number `from` or a later one.
    pub fn contains(&self, from: u64, hash: u64) -> bool {
        let skipped = from.saturating_sub(self.first).min(self.hashes.len() as u64) as usize;
        self.hashes.range(skipped..).any(|seen| *seen == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_before_a_number_does_not_count_and_the_oldest_is_forgotten() {
        let mut seen = Seen::new(Budget::default());
        for hash in 0..5_000u64 {
            assert_eq!(seen.next(), hash);
            seen.push(hash);
        }
        assert_eq!(seen.first(), 5_000 - SEEN_MAX as u64);
        assert!(seen.contains(0, 4_999) && seen.contains(0, seen.first()));
        assert!(!seen.contains(0, seen.first() - 1));
        assert!(seen.contains(4_000, 4_000) && !seen.contains(4_001, 4_000));
        assert!(!seen.contains(5_000, 4_999) && !seen.contains(9_000, 4_999));
    }
}
