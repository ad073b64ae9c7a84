//! How many subscriptions of a session one topic may match: `overlapping_subscriptions_max`, counted as patterns of
//! wildcards.

use crate::arena::{allocated, tree_size};
use crate::topic::{has_wildcards, pattern};
use std::collections::BTreeMap;

/// The patterns of a session's filters. Filters of one pattern have their wildcards at the same levels, and differ in a
/// name if they differ at all: no topic matches two of them. So a topic matches at most as many subscriptions as there
/// are patterns.
#[derive(Debug, Default)]
pub struct Overlaps {
    /// How many filters have each pattern.
    patterns: BTreeMap<Box<str>, u32>,
    /// Bytes that the texts of the patterns take.
    texts_size: usize,
}

impl Overlaps {
    pub fn of<'a>(filters: impl Iterator<Item = &'a str>) -> Overlaps {
        let mut overlaps = Overlaps::default();
        filters.for_each(|filter| overlaps.add(filter));
        overlaps
    }

    /// Whether there are at most `pattern_count_max` patterns with one more filter.
    pub fn may_add(&self, filter: &str, pattern_count_max: usize) -> bool {
        self.patterns.len() < pattern_count_max || self.patterns.contains_key(&*pattern_of(filter))
    }

    pub fn add(&mut self, filter: &str) {
        let pattern = pattern_of(filter);
        let size = allocated(pattern.len());
        let count = self.patterns.entry(pattern).or_default();
        if *count == 0 {
            self.texts_size += size;
        }
        *count += 1;
    }

    /// The memory in use, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        let entry_size = size_of::<(Box<str>, u32)>();
        allocated(size_of::<Overlaps>())
            + tree_size(self.patterns.len(), entry_size)
            + self.texts_size
    }

    /// Takes back one `add`.
    pub fn remove(&mut self, filter: &str) {
        let pattern = pattern_of(filter);
        let count = self.patterns.get_mut(&pattern).expect("the filter was added");
        *count -= 1;
        if *count == 0 {
            self.patterns.remove(&pattern);
            self.texts_size -= allocated(pattern.len());
        }
    }
}

/// The pattern of a filter. All filters without wildcards have one pattern, as a topic matches one of them.
fn pattern_of(filter: &str) -> Box<str> {
    if !has_wildcards(filter) {
        return "".into();
    }
    pattern(filter).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyedHash;
    use crate::random::Random;
    use crate::topic::Index;

    #[test]
    fn no_topic_matches_more_filters_than_there_are_patterns() {
        let mut random = Random::new(4);
        let mut index = Index::new(KeyedHash::new(1));
        let mut overlaps = Overlaps::default();
        let mut filters: Vec<String> = Vec::new();
        let mut most = 0;
        for _ in 0..4_000 {
            let level_count = 1 + random.below(4);
            let mut levels: Vec<&str> = (0..level_count)
                .map(|_| ["a", "b", "", "+", "+"][random.below(5) as usize])
                .collect();
            if random.below(3) == 0 {
                levels.push("#");
            }
            let filter = levels.join("/");
            match filters.iter().position(|other| *other == filter) {
                Some(at) => {
                    filters.swap_remove(at);
                    overlaps.remove(&filter);
                    index.remove(&filter, 0u32);
                }
                None if filter.is_empty() => {}
                None => {
                    overlaps.add(&filter);
                    index.insert(&filter, 0u32, ());
                    filters.push(filter);
                }
            }
            for topic in ["a", "a/b", "b/a/", "/a/b/a", "a/b/a/b/b"] {
                let mut count = 0;
                index.matches(topic, |_, ()| count += 1);
                assert!(count <= overlaps.patterns.len(), "{topic}: {filters:?}");
                most = most.max(count);
            }
        }
        assert!(most > 8, "filters overlap");
        filters.iter().for_each(|filter| overlaps.remove(filter));
        assert!(overlaps.patterns.is_empty());
    }
}
