//! The subscription index: topic filter to subscribers, and topic to the subscribers of every filter that means it.

mod nodes;
mod patterns;
mod subscribers;
mod trie;

use std::hash::Hash;

use crate::arena::allocated;
use crate::hash::{KeyedHash, PartedTable};
use crate::topic::filter::has_wildcards;

use patterns::Patterns;
use subscribers::Subscribers;
use trie::Trie;

/// Which subscriber has subscribed to which filter. Filters without wildcards are found by their hash, the others in a
/// trie of levels.
///
/// Invariants worth naming:
/// - What `matches` reports, and in which order, depends on nothing but the calls made before: no address, no random
///   state.
/// - A filter without subscribers holds no memory of its own.
/// - No call visits more than a small part of the filters: a growing table does not stop the shard.
pub struct Index<K, V> {
    exact: PartedTable<Exact<K, V>>,
    wild: Trie<K, V>,
    patterns: Patterns,
    hash: KeyedHash,
    filter_count: usize,
    subscription_count: usize,
    /// Subscriptions to filters with wildcards.
    wild_count: usize,
    /// The most subscribers that one filter without wildcards has had since the index was last empty of such filters.
    exact_most: usize,
    /// Filters without wildcards that have a subscriber.
    exact_count: usize,
    /// Bytes that exact filters and their subscribers hold outside the table.
    exact_size: usize,
}

/// A filter without wildcards.
struct Exact<K, V> {
    filter: Box<str>,
    subscribers: Subscribers<K, V>,
}

impl<K: Copy + Ord + Hash, V: Copy> Index<K, V> {
    pub fn new(hash: KeyedHash) -> Index<K, V> {
        Index {
            exact: PartedTable::default(),
            wild: Trie::new(hash.clone()),
            patterns: Patterns::new(),
            hash,
            filter_count: 0,
            subscription_count: 0,
            wild_count: 0,
            exact_most: 0,
            exact_count: 0,
            exact_size: 0,
        }
    }

    /// Adds the subscription of `key` to a valid filter, or replaces it: then the previous value is returned.
    pub fn insert(&mut self, filter: &str, key: K, value: V) -> Option<V> {
        let (previous, first) = if has_wildcards(filter) {
            let change = self.wild.insert(filter, key, value);
            self.wild_count += usize::from(change.previous.is_none());
            self.patterns.add(&self.hash, filter, change.first, change.count);
            (change.previous, change.first)
        } else {
            self.insert_exact(filter, key, value)
        };
        self.filter_count += usize::from(first);
        self.subscription_count += usize::from(previous.is_none());
        previous
    }

    pub fn remove(&mut self, filter: &str, key: K) -> Option<V> {
        let (value, last) = if has_wildcards(filter) {
            let change = self.wild.remove(filter, key)?;
            self.wild_count -= 1;
            if change.last {
                self.patterns.remove(&self.hash, filter);
            }
            (change.value, change.last)
        } else {
            self.remove_exact(filter, key)?
        };
        self.filter_count -= usize::from(last);
        self.subscription_count -= 1;
        if self.subscription_count == self.wild_count {
            self.exact_most = 0;
        }
        Some(value)
    }

    pub fn get(&self, filter: &str, key: K) -> Option<V> {
        self.subscribers(filter)?.get(key)
    }

    pub fn subscriber_count(&self, filter: &str) -> usize {
        self.subscribers(filter).map_or(0, Subscribers::len)
    }

    /// Calls `found` for every subscription whose filter means `topic`: a key once for each such filter. It allocates
    /// nothing as long as no filter has more than some 128 levels. Returns how many filters, or beginnings that filters
    /// share, the search visited.
    pub fn matches(&self, topic: &str, mut found: impl FnMut(&K, &V)) -> usize {
        if let Some(subscribers) = self.exact(topic) {
            subscribers.each(&mut found);
        }
        1 + self.wild.matches(topic, &mut found)
    }

    /// Filters that have a subscriber.
    pub fn filter_count(&self) -> usize {
        self.filter_count
    }

    pub fn subscription_count(&self) -> usize {
        self.subscription_count
    }

    /// The most filters, or beginnings that filters share, that the search for one topic visits.
    pub fn visits_max(&self) -> usize {
        2 + self.patterns.visits_max()
    }

    /// The most subscriptions that the search for one topic finds.
    pub fn found_max(&self) -> usize {
        self.exact_most + self.patterns.found_max()
    }

    /// Bytes that an index with keys of type `Other` takes for the filters with wildcards, if it only knows that a
    /// filter has a subscriber: an estimate.
    pub fn wild_bytes_as<Other>(&self) -> usize {
        let node_size = size_of::<nodes::Node<Other, ()>>() + size_of::<nodes::NodeIndex>() * 2;
        self.wild.node_count() * node_size + self.wild.names_size()
    }

    /// Filters without wildcards that have a subscriber.
    pub fn exact_count(&self) -> usize {
        self.exact_count
    }

    /// The memory in use, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        self.exact.bytes() + self.exact_size + self.wild.bytes() + self.patterns.bytes()
    }

    fn subscribers(&self, filter: &str) -> Option<&Subscribers<K, V>> {
        if has_wildcards(filter) { self.wild.get(filter) } else { self.exact(filter) }
    }

    fn exact(&self, filter: &str) -> Option<&Subscribers<K, V>> {
        let hash = self.hash.bytes(filter.as_bytes());
        Some(&self.exact.find(hash, |exact| *exact.filter == *filter)?.subscribers)
    }

    fn insert_exact(&mut self, filter: &str, key: K, value: V) -> (Option<V>, bool) {
        let hash = self.hash.bytes(filter.as_bytes());
        let Some(exact) = self.exact.find_mut(hash, |exact| *exact.filter == *filter) else {
            let subscribers = Subscribers::One(key, value);
            let exact = Exact { filter: filter.into(), subscribers };
            self.exact.insert(hash, exact, |exact| self.hash.bytes(exact.filter.as_bytes()));
            self.exact_count += 1;
            self.exact_size += allocated(filter.len());
            self.exact_most = self.exact_most.max(1);
            return (None, true);
        };
        self.exact_size -= exact.subscribers.heap_size();
        let previous = exact.subscribers.insert(key, value);
        self.exact_most = self.exact_most.max(exact.subscribers.len());
        self.exact_size += exact.subscribers.heap_size();
        (previous, false)
    }

    fn remove_exact(&mut self, filter: &str, key: K) -> Option<(V, bool)> {
        let hash = self.hash.bytes(filter.as_bytes());
        let exact = self.exact.find_mut(hash, |exact| *exact.filter == *filter)?;
        self.exact_size -= exact.subscribers.heap_size();
        let value = exact.subscribers.remove(key);
        self.exact_size += exact.subscribers.heap_size();
        let value = value?;
        let last = exact.subscribers.is_empty();
        if last {
            let is_it = |exact: &Exact<K, V>| *exact.filter == *filter;
            self.exact.remove(hash, is_it, |exact| self.hash.bytes(exact.filter.as_bytes()));
            self.exact_count -= 1;
            self.exact_size -= allocated(filter.len());
        }
        Some((value, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn index() -> Index<u32, u8> {
        Index::new(KeyedHash::new(7))
    }

    fn found(index: &Index<u32, u8>, topic: &str) -> Vec<(u32, u8)> {
        let mut found = Vec::new();
        index.matches(topic, |&key, &value| found.push((key, value)));
        found
    }

    #[test]
    fn a_replaced_subscription_is_returned_and_counted_once() {
        for filter in ["a/b", "a/+", "a/b/#", "#"] {
            let mut index = index();
            assert_eq!(index.insert(filter, 1, 10), None);
            assert_eq!(index.insert(filter, 1, 11), Some(10));
            assert_eq!(index.insert(filter, 2, 20), None);
            assert_eq!((index.filter_count(), index.subscription_count()), (1, 2));
            assert_eq!(index.subscriber_count(filter), 2);
            assert_eq!(found(&index, "a/b"), [(1, 11), (2, 20)]);
            assert_eq!((index.get(filter, 1), index.get(filter, 3)), (Some(11), None));
        }
    }

    #[test]
    fn the_memory_that_is_told_is_the_memory_in_use() {
        for (count, subscriber_count, prefix, size) in [
            (5_000, 1, "a", 10),
            (5_000, 1, "a/+/c", 10),
            (300, 1, "+", 4_000),
            (300, 1, "x", 4_000),
            (50, 40, "few/+", 5),
            (50, 40, "few", 5),
            (3, 9_000, "many/#", 0),
            (3, 9_000, "many", 0),
            (2_000, 1, "a/b/c/d/e/f/g/h/i/j/+", 100),
        ] {
            let mut index: Index<(u32, u32, u32), u64> = Index::new(KeyedHash::new(7));
            let empty = index.bytes();
            let used = allocation_counter::measure(|| {
                for n in 0..count {
                    let filter = format!("{n}{:x<size$}/{prefix}", "");
                    (0..subscriber_count).for_each(|key| _ = index.insert(&filter, (key, 1, 1), 7));
                }
            });
            let used = used.bytes_current + 16 * used.count_current;
            let told = (index.bytes() - empty) as i64;
            assert!(
                told * 10 >= used * 8 && told * 8 <= used * 10,
                "{count} of {prefix}: {told} are told, {used} are in use"
            );
        }
    }

    #[test]
    fn a_key_is_reported_once_for_each_filter() {
        let mut index = index();
        for (value, filter) in
            ["a/b", "a/+", "+/b", "a/#", "a/b/#", "#", "a/b/+"].iter().enumerate()
        {
            index.insert(filter, 1, value as u8);
        }
        let mut values: Vec<u8> = found(&index, "a/b").iter().map(|&(_, value)| value).collect();
        values.sort_unstable();
        assert_eq!(values, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn no_topic_finds_or_looks_at_more_than_is_said() {
        let levels = ["a", "b", "+"];
        let mut random = Random::new(5);
        let mut below = |count: u64| random.below(count);
        let mut index = index();
        let mut kept: Vec<(String, u32)> = Vec::new();
        for _ in 0..20_000 {
            if below(3) == 0 && !kept.is_empty() {
                let (filter, key) = kept.swap_remove(below(kept.len() as u64) as usize);
                index.remove(&filter, key);
            } else {
                let depth = 1 + below(4);
                let mut filter: Vec<&str> = (0..depth).map(|_| levels[below(3) as usize]).collect();
                if below(4) == 0 {
                    filter.push("#");
                }
                let (filter, key) = (filter.join("/"), below(6) as u32);
                if index.insert(&filter, key, 0).is_none() {
                    kept.push((filter, key));
                }
            }
            let topic: Vec<&str> = (0..1 + below(5)).map(|_| levels[below(2) as usize]).collect();
            let mut found_count = 0;
            let visit_count = index.matches(&topic.join("/"), |_, _| found_count += 1);
            assert!(found_count <= index.found_max() && visit_count <= index.visits_max());
        }
        for (filter, key) in kept {
            index.remove(&filter, key);
        }
        assert_eq!((index.found_max(), index.visits_max()), (0, 2));
    }

    #[test]
    fn an_emptied_index_holds_no_nodes_and_little_memory() {
        let mut index = index();
        let filters: Vec<String> = (0..20_000)
            .map(|n| format!("a{n}/+/c{n}/#"))
            .chain((0..20_000).map(|n| n.to_string()))
            .collect();
        for filter in &filters {
            index.insert(filter, 1, 1);
        }
        assert!(index.bytes() > 1 << 20);
        for filter in &filters {
            assert_eq!(index.remove(filter, 1), Some(1));
        }
        assert_eq!((index.filter_count(), index.subscription_count()), (0, 0));
        assert_eq!(index.wild.node_count(), 0);
        assert!(index.bytes() < 256 << 10, "{}", index.bytes());
    }
}
