//! The interest of other shards, as they announced it.
//!
//! Filters without wildcards are known by a 64-bit hash: a collision costs a needless mail, never a miss, since every
//! announcement of a hash is counted.

use crate::arena::{allocated, map_size};
use crate::hash::KeyedHash;
use crate::peers::{ShardId, ShardSet};
use crate::topic::{Index, has_wildcards};
use std::collections::HashMap;

/// A set of shards in two words.
type Words = [u64; 2];

const EXACT_SIZE: usize = size_of::<(u64, Words)>();

pub(crate) struct KnownInterest {
    wildcards: Index<ShardId, ()>,
    exact: HashMap<u64, Words, ahash::RandomState>,
    /// How many filters beyond the first a shard has announced under one hash.
    collisions: HashMap<(u64, ShardId), u32, ahash::RandomState>,
    hash: KeyedHash,
}

impl KnownInterest {
    pub(crate) fn new(hash: &KeyedHash) -> KnownInterest {
        KnownInterest {
            wildcards: Index::new(hash.clone()),
            exact: HashMap::with_hasher(hash.state()),
            collisions: HashMap::with_hasher(hash.state()),
            hash: hash.clone(),
        }
    }

    /// A shard has announced a filter.
    pub(crate) fn add(&mut self, filter: &str, shard: ShardId) {
        if has_wildcards(filter) {
            self.wildcards.insert(filter, shard, ());
            return;
        }
        let hash = self.hash.bytes(filter.as_bytes());
        self.add_hash(hash, shard);
    }

    /// A shard has withdrawn a filter that it announced.
    pub(crate) fn remove(&mut self, filter: &str, shard: ShardId) {
        if has_wildcards(filter) {
            self.wildcards.remove(filter, shard);
            return;
        }
        let hash = self.hash.bytes(filter.as_bytes());
        self.remove_hash(hash, shard);
    }

    /// The shards that may have a subscriber for a topic, and how many filters the search visited.
    pub(crate) fn shards(&self, topic: &str) -> (ShardSet, usize) {
        let mut shards = ShardSet::EMPTY;
        let mut found_count = 0;
        let visit_count = self.wildcards.matches(topic, |shard, ()| {
            shards.insert(*shard);
            found_count += 1;
        });
        if let Some(words) = self.exact.get(&self.hash.bytes(topic.as_bytes())) {
            shards |= ShardSet::of_words(*words);
        }
        (shards, visit_count + found_count)
    }

    /// The most filters that the search for one topic visits.
    pub(crate) fn visits_max(&self) -> usize {
        self.wildcards.visits_max()
    }

    /// The most entries that the search for one topic finds.
    pub(crate) fn found_max(&self) -> usize {
        self.wildcards.found_max()
    }

    /// The memory in use, in bytes: an estimate.
    pub(crate) fn bytes(&self) -> usize {
        self.wildcards.bytes()
            + map_size(self.exact.capacity(), EXACT_SIZE)
            + map_size(self.collisions.capacity(), size_of::<((u64, ShardId), u32)>())
    }

    /// The most bytes that another shard holds for a shard's subscriptions: an estimate.
    pub(crate) fn bytes_of<K: Copy + Ord + std::hash::Hash, V: Copy>(
        subscriptions: &Index<K, V>,
    ) -> usize {
        let wild_count = subscriptions.filter_count() - subscriptions.exact_count();
        subscriptions.wild_bytes_as::<ShardId>()
            // A filter that several shards have announced has a list of these.
            + wild_count * allocated(1)
            // Half of a table may be empty.
            + subscriptions.exact_count() * 2 * (EXACT_SIZE + 1)
    }

    pub(crate) fn filter_count(&self) -> usize {
        self.wildcards.filter_count() + self.exact.len()
    }

    fn add_hash(&mut self, hash: u64, shard: ShardId) {
        let (word, bit) = place(shard);
        let set = self.exact.entry(hash).or_default();
        if set[word] & bit != 0 {
            *self.collisions.entry((hash, shard)).or_default() += 1;
        }
        set[word] |= bit;
    }

    fn remove_hash(&mut self, hash: u64, shard: ShardId) {
        if let Some(count) = self.collisions.get_mut(&(hash, shard)) {
            *count -= 1;
            if *count == 0 {
                self.collisions.remove(&(hash, shard));
            }
            return;
        }
        let (word, bit) = place(shard);
        if let Some(set) = self.exact.get_mut(&hash) {
            set[word] &= !bit;
            if *set == [0, 0] {
                self.exact.remove(&hash);
            }
        }
    }
}

fn place(shard: ShardId) -> (usize, u64) {
    (usize::from(shard / 64), 1 << (shard % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_finds_every_shard_that_announced_a_matching_filter() {
        let mut known = KnownInterest::new(&KeyedHash::new(3));
        known.add("a/b", 0);
        known.add("a/+", 65);
        known.add("a/b", 127);
        assert_eq!(known.shards("a/b").0, [0, 65, 127].into_iter().collect());
        assert_eq!(known.shards("a/c").0, ShardSet::of(65));
        known.remove("a/b", 0);
        assert_eq!(known.shards("a/b").0, [65, 127].into_iter().collect());
        known.remove("a/b", 127);
        known.remove("a/+", 65);
        assert_eq!((known.shards("a/b").0, known.filter_count()), (ShardSet::EMPTY, 0));
    }

    #[test]
    fn a_collision_never_becomes_a_miss() {
        let mut known = KnownInterest::new(&KeyedHash::new(3));
        let hash = known.hash.bytes(b"x");
        for _ in 0..3 {
            known.add_hash(hash, 5);
        }
        for _ in 0..2 {
            known.remove_hash(hash, 5);
            assert_eq!(known.shards("x").0, ShardSet::of(5));
        }
        known.remove_hash(hash, 5);
        assert_eq!((known.shards("x").0, known.collisions.len()), (ShardSet::EMPTY, 0));
    }
}
