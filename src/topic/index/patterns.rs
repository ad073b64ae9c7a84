//! The most that any one topic may find among filters with wildcards.

use crate::hash::{KeyedHash, PartedTable};
use crate::topic::filter::pattern;

/// The patterns of filters, by their hash. Filters of one pattern have their wildcards at the same levels, and differ in a
/// name where they differ at all: a topic matches one of them at most, and passes one beginning of them a level.
pub(super) struct Patterns {
    table: PartedTable<Pattern>,
    /// Subscriptions that a topic finds at most, and nodes that its search looks at.
    found_max: usize,
    visits_max: usize,
}

struct Pattern {
    hash: u64,
    filter_count: u32,
    /// Subscribers that one of its filters has had at most since there were none at all.
    subscribers_most: u32,
    level_count: u32,
}

impl Patterns {
    pub(super) fn new() -> Patterns {
        Patterns { table: PartedTable::default(), found_max: 0, visits_max: 0 }
    }

    /// A filter has so many subscribers now; `is_first`: it had none before.
    pub(super) fn add(
        &mut self,
        hash: &KeyedHash,
        filter: &str,
        is_first: bool,
        subscriber_count: usize,
    ) {
        let hash = hash.bytes(pattern(filter).as_bytes());
        if self.table.find(hash, |pattern| pattern.hash == hash).is_none() {
            let level_count = filter.split('/').count() as u32;
            let new = Pattern { hash, filter_count: 0, subscribers_most: 0, level_count };
            self.table.insert(hash, new, |pattern| pattern.hash);
            self.visits_max += level_count as usize;
        }
        let found = self.table.find_mut(hash, |pattern| pattern.hash == hash);
        let pattern = found.expect("it was just found or added");
        pattern.filter_count += u32::from(is_first);
        let count = subscriber_count as u32;
        if count > pattern.subscribers_most {
            self.found_max += (count - pattern.subscribers_most) as usize;
            pattern.subscribers_most = count;
        }
    }

    /// A filter has lost its last subscriber.
    pub(super) fn remove(&mut self, hash: &KeyedHash, filter: &str) {
        let hash = hash.bytes(pattern(filter).as_bytes());
        let found = self.table.find_mut(hash, |pattern| pattern.hash == hash);
        let pattern = found.expect("the filter was added");
        pattern.filter_count -= 1;
        if pattern.filter_count > 0 {
            return;
        }
        self.found_max -= pattern.subscribers_most as usize;
        self.visits_max -= pattern.level_count as usize;
        self.table.remove(hash, |pattern| pattern.hash == hash, |pattern| pattern.hash);
    }

    pub(super) fn found_max(&self) -> usize {
        self.found_max
    }

    pub(super) fn visits_max(&self) -> usize {
        self.visits_max
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes()
    }
}
