//! How many subscriptions with wildcards any one topic can find at most.

use crate::hash::{KeyedHash, PartedTable};
use crate::topic::filter::pattern;

/// The patterns of filters, by their hash. Filters of one pattern have their wildcards at the same levels, and differ
/// in a name if they differ at all. So a topic matches at most one filter of a pattern, and its search passes one node
/// for each level of it.
pub(super) struct Patterns {
    table: PartedTable<Pattern>,
    /// The most subscriptions that a topic finds, and the most nodes that its search visits.
    found_max: usize,
    visits_max: usize,
}

struct Pattern {
    hash: u64,
    filter_count: u32,
    /// The most subscribers that one filter of the pattern has had since the pattern last had no filter.
    subscribers_most: u32,
    level_count: u32,
}

impl Patterns {
    pub(super) fn new() -> Patterns {
        Patterns { table: PartedTable::default(), found_max: 0, visits_max: 0 }
    }

    /// Notes that a filter has so many subscribers now; `is_first`: it had none before.
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

    /// Notes that a filter has lost its last subscriber.
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
