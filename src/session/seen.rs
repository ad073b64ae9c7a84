//! Topics that a session saw go by with the retain flag while it fetches retained messages.

use std::collections::VecDeque;

/// The last of them, by hash, each with a number: one list serves all fetches, however early each began.
#[derive(Debug, Default)]
pub struct Seen {
    hashes: VecDeque<u64>,
    /// The number of the first that is remembered.
    first: u64,
}

/// Topics remembered.
const SEEN_MAX: usize = 4096;

impl Seen {
    pub fn push(&mut self, hash: u64) {
        if self.hashes.len() >= SEEN_MAX {
            self.hashes.pop_front();
            self.first += 1;
        }
        self.hashes.push_back(hash);
    }

    /// The number of the first topic that is remembered: what is older was forgotten.
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
        let mut seen = Seen::default();
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
