//! The book-keeping of delivery: lost, duplicate, reordered and damaged messages.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::figures::grouped;

/// Errors of delivery, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Faults {
    /// Messages that were sent and not delivered when the run had come to rest.
    pub lost: u64,
    /// Lost messages that the broker's own count says it dropped at a limit.
    pub dropped: u64,
    pub duplicated: u64,
    /// Messages delivered behind a later message of the same publisher.
    pub reordered: u64,
    /// Messages whose bytes were changed: payload, topic or properties.
    pub corrupt: u64,
    /// Messages delivered to a subscriber that did not ask for them.
    pub astray: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, other: &Faults) {
        self.lost = self.lost.saturating_add(other.lost);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.duplicated = self.duplicated.saturating_add(other.duplicated);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.corrupt = self.corrupt.saturating_add(other.corrupt);
        self.astray = self.astray.saturating_add(other.astray);
    }

    pub(crate) fn any(&self) -> bool {
        *self != Faults::default()
    }

    pub(crate) fn count(&self) -> u64 {
        self.kinds().iter().fold(0, |sum, (count, _)| sum.saturating_add(*count))
    }

    /// The number of each kind.
    pub(crate) fn words(&self) -> String {
        let found = self.kinds().into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> =
            found.map(|(count, kind)| format!("{} {kind}", grouped(count as f64))).collect();
        words.join(", ")
    }

    fn kinds(&self) -> [(u64, &'static str); 6] {
        [
            (self.lost, "lost"),
            (self.dropped, "dropped at a limit"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.corrupt, "corrupt"),
            (self.astray, "delivered to someone who did not ask for it"),
        ]
    }
}

/// How many messages in a row may be missing in front of one that arrives: a larger sequence is not of this bench.
const SKIPPED_MAX: u64 = 1 << 24;

/// Whether a message with this sequence can have been sent where `next` is expected. It bounds what is remembered of
/// the messages in between, whatever a broker sends.
#[inline(always)]
pub(crate) fn is_near(sequence: u64, next: u64) -> bool {
    sequence.saturating_sub(next) < SKIPPED_MAX
}

/// Sequences of one subscriber below the next expected one that have not arrived, by publisher, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Gaps(BTreeMap<u32, Vec<Range<u64>>>);

impl Gaps {
    pub(crate) fn count(&self) -> u64 {
        self.0.values().flatten().map(|gap| gap.end - gap.start).sum()
    }

    /// The gaps of one publisher.
    pub(crate) fn of(&self, publisher: u32) -> &[Range<u64>] {
        self.0.get(&publisher).map_or(&[], Vec::as_slice)
    }

    /// Notes a message that is not the next one. Returns whether it is delivered for the first time.
    #[cold]
    pub(crate) fn note(
        &mut self,
        publisher: u32,
        next: &AtomicU64,
        sequence: u64,
        faults: &mut Faults,
    ) -> bool {
        let expected = next.load(Relaxed);
        if sequence > expected {
            self.0.entry(publisher).or_default().push(expected..sequence);
            next.store(sequence + 1, Relaxed);
            return true;
        }
        if self.fill(publisher, sequence) {
            faults.reordered += 1;
            return true;
        }
        faults.duplicated += 1;
        false
    }

    fn fill(&mut self, publisher: u32, sequence: u64) -> bool {
        let Some(gaps) = self.0.get_mut(&publisher) else { return false };
        let Some(at) = gaps.iter().position(|gap| gap.contains(&sequence)) else { return false };
        let parts = [gaps[at].start..sequence, sequence + 1..gaps[at].end];
        gaps.splice(at..=at, parts.into_iter().filter(|part| !part.is_empty()));
        true
    }
}

/// One publisher's messages to a shared subscription: each must come once, to any member, and in order to each.
#[derive(Debug)]
pub(crate) struct Seen {
    /// All sequences below this have arrived.
    base: u64,
    /// Whether each sequence from `base` on has arrived.
    ahead: VecDeque<bool>,
    /// The next sequence that each member may get.
    next_of: Vec<u64>,
}

impl Seen {
    pub(crate) fn new(member_count: usize) -> Seen {
        Seen { base: 0, ahead: VecDeque::new(), next_of: vec![0; member_count] }
    }

    /// Notes a message. Returns whether it is delivered for the first time; `count` says how many were.
    pub(crate) fn note(
        &mut self,
        count: &AtomicU64,
        member: usize,
        sequence: u64,
        faults: &mut Faults,
    ) -> bool {
        if sequence < self.base {
            faults.duplicated += 1;
            return false;
        }
        let index = (sequence - self.base) as usize;
        if index >= self.ahead.len() {
            self.ahead.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.ahead[index], true) {
            faults.duplicated += 1;
            return false;
        }
        while self.ahead.front() == Some(&true) {
            self.ahead.pop_front();
            self.base += 1;
        }
        if sequence < self.next_of[member] {
            faults.reordered += 1;
        } else {
            self.next_of[member] = sequence + 1;
        }
        count.store(count.load(Relaxed) + 1, Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_messages_are_reordered_and_repeated_ones_duplicated() {
        let next = AtomicU64::new(3);
        let (mut gaps, mut faults) = (Gaps::default(), Faults::default());
        assert!(gaps.note(2, &next, 8, &mut faults));
        assert_eq!((next.load(Relaxed), gaps.count()), (9, 5));
        assert!(gaps.note(2, &next, 5, &mut faults));
        assert!(!gaps.note(2, &next, 5, &mut faults));
        assert!(gaps.note(2, &next, 3, &mut faults));
        assert!(!gaps.note(2, &next, 2, &mut faults));
        assert!(gaps.note(2, &next, 7, &mut faults));
        assert_eq!(gaps.0[&2], [4..5, 6..7]);
        assert_eq!(faults, Faults { reordered: 3, duplicated: 2, ..Faults::default() });
    }

    #[test]
    fn a_sequence_that_nobody_can_have_sent_is_not_near() {
        for (sequence, next, expected) in [
            (0, 0, true),
            (5, 900, true),
            (SKIPPED_MAX + 8, 9, true),
            (SKIPPED_MAX + 9, 9, false),
            (1 << 40, 9, false),
            (u64::MAX, 9, false),
            (u64::MAX, 1 << 40, false),
        ] {
            assert_eq!(is_near(sequence, next), expected, "{sequence} where {next} is expected");
        }
    }

    #[test]
    fn a_shared_subscription_is_counted_over_its_members() {
        let count = AtomicU64::new(0);
        let (mut seen, mut faults) = (Seen::new(2), Faults::default());
        for (member, sequence) in [(0, 1), (1, 0), (0, 2), (1, 2), (1, 4), (1, 3), (0, 0)] {
            seen.note(&count, member, sequence, &mut faults);
        }
        assert_eq!(count.load(Relaxed), 5);
        assert_eq!(seen.base, 5);
        assert_eq!(faults, Faults { reordered: 1, duplicated: 2, ..Faults::default() });
    }
}
