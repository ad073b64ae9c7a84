//! The shards of a process: their numbers, sets of them, and the shard that owns a name.

use crate::hash::KeyedHash;
use crate::limits::SHARD_COUNT_MAX;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};
use std::sync::Arc;

/// A shard's number: 0 to `SHARD_COUNT_MAX - 1`.
pub type ShardId = u16;

/// The number of partitions of names. A shard owns whole partitions.
pub const PARTITION_COUNT: usize = 4_096;

const _: () = assert!(SHARD_COUNT_MAX <= ShardSet::MAX && SHARD_COUNT_MAX <= PARTITION_COUNT);

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u128);

impl ShardSet {
    pub const EMPTY: ShardSet = ShardSet(0);

    /// A set has room for shards with a smaller number than this.
    pub const MAX: usize = u128::BITS as usize;

    #[inline(always)]
    pub fn of(shard: ShardId) -> ShardSet {
        ShardSet(1 << shard)
    }

    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 >> shard & 1 != 0
    }

    #[inline(always)]
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard;
    }

    #[inline(always)]
    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard);
    }

    /// Adds or removes a shard.
    pub fn set(&mut self, shard: ShardId, is_member: bool) {
        match is_member {
            true => self.insert(shard),
            false => self.remove(shard),
        }
    }

    /// The number of shards in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The set as two words, the lower shards first. Two words have half the alignment of the set.
    pub fn words(self) -> [u64; 2] {
        [self.0 as u64, (self.0 >> 64) as u64]
    }

    /// The set that these words stand for.
    pub fn of_words([low, high]: [u64; 2]) -> ShardSet {
        ShardSet(u128::from(high) << 64 | u128::from(low))
    }
}

/// The members, the lowest number first.
impl IntoIterator for ShardSet {
    type Item = ShardId;
    type IntoIter = Members;

    fn into_iter(self) -> Members {
        Members(self.0)
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> ShardSet {
        shards.into_iter().fold(ShardSet::EMPTY, |set, shard| set | ShardSet::of(shard))
    }
}

impl BitOr for ShardSet {
    type Output = ShardSet;

    fn bitor(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 | other.0)
    }
}

impl BitOrAssign for ShardSet {
    fn bitor_assign(&mut self, other: ShardSet) {
        self.0 |= other.0;
    }
}

impl BitAnd for ShardSet {
    type Output = ShardSet;

    fn bitand(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 & other.0)
    }
}

impl Sub for ShardSet {
    type Output = ShardSet;

    fn sub(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 & !other.0)
    }
}

/// Iterates over a set.
#[derive(Clone, Debug)]
pub struct Members(u128);

impl Iterator for Members {
    type Item = ShardId;

    #[inline]
    fn next(&mut self) -> Option<ShardId> {
        if self.0 == 0 {
            return None;
        }
        let shard = self.0.trailing_zeros() as ShardId;
        self.0 &= self.0 - 1;
        Some(shard)
    }
}

/// The shard that owns each partition of the names: the same on all shards of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitions(Arc<[ShardId; PARTITION_COUNT]>);

impl Partitions {
    /// Gives the partitions in turn to `shard_count` shards.
    pub fn even(shard_count: u16) -> Partitions {
        assert!(shard_count >= 1, "somebody owns each partition");
        Partitions(Arc::new(std::array::from_fn(|partition| partition as ShardId % shard_count)))
    }

    /// The shard that owns a name: a client id, a topic, or a shared subscription.
    #[inline]
    pub fn owner(&self, hash: &KeyedHash, name: &[u8]) -> ShardId {
        // The upper half of the hash: hash tables use the lower half.
        self.0[(hash.bytes(name) >> 32) as usize % PARTITION_COUNT]
    }
}

/// A shard among those of its process.
#[derive(Clone, Debug)]
pub struct Peers {
    own: ShardId,
    count: u16,
    hash: KeyedHash,
    partitions: Partitions,
}

impl Peers {
    /// The peers of shard `own` of `count`; all shards have the same `hash`.
    pub fn new(own: ShardId, count: u16, hash: KeyedHash) -> Peers {
        assert!(count >= 1 && usize::from(count) <= SHARD_COUNT_MAX && own < count);
        Peers { own, count, hash, partitions: Partitions::even(count) }
    }

    #[inline(always)]
    pub fn own(&self) -> ShardId {
        self.own
    }

    /// The number of shards of the process.
    #[inline(always)]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether there is no other shard.
    #[inline(always)]
    pub fn is_alone(&self) -> bool {
        self.count == 1
    }

    pub fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.own;
        (0..self.count).filter(move |shard| *shard != own)
    }

    pub fn hash(&self) -> &KeyedHash {
        &self.hash
    }

    /// The shard that owns a name: a client id, a topic, or a shared subscription.
    #[inline]
    pub fn owner(&self, name: &[u8]) -> ShardId {
        self.partitions.owner(&self.hash, name)
    }

    /// Whether this shard owns a name.
    pub fn is_owner(&self, name: &[u8]) -> bool {
        self.owner(name) == self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        for shard in 0..SHARD_COUNT_MAX as ShardId {
            let mut set = ShardSet::EMPTY;
            assert!(set.is_empty() && !set.contains(shard));
            set.insert(shard);
            assert!(set.contains(shard) && set == ShardSet::of(shard));
            assert_eq!(set.into_iter().collect::<Vec<_>>(), [shard]);
            assert_eq!(ShardSet::of_words(set.words()), set);
            set.remove(shard);
            assert!(set.is_empty());
        }
        let members = [0, 3, 63, 64, 127];
        let set: ShardSet = members.into_iter().collect();
        assert_eq!(set.into_iter().collect::<Vec<_>>(), members);
        assert_eq!((set - ShardSet::of(3)) & ShardSet::of(3), ShardSet::EMPTY);
        assert_eq!(ShardSet::of_words(set.words()), set);
    }

    #[test]
    fn each_shard_owns_about_as_many_names_as_another() {
        const NAMES: usize = 64_000;
        for count in [1, 2, 3, 8, 127, SHARD_COUNT_MAX as u16] {
            let (hash, partitions) = (KeyedHash::new(7), Partitions::even(count));
            let mut owned = vec![0; usize::from(count)];
            for name in 0..NAMES {
                owned[usize::from(partitions.owner(&hash, &name.to_be_bytes()))] += 1;
            }
            let mean = NAMES / usize::from(count);
            assert!(owned.iter().all(|owned| (mean * 3 / 4..=mean * 4 / 3).contains(owned)));
        }
    }

    #[test]
    fn all_shards_find_the_same_owner() {
        let peers: Vec<Peers> = (0..5).map(|own| Peers::new(own, 5, KeyedHash::new(9))).collect();
        for name in 0..1_000u32 {
            let name = name.to_be_bytes();
            let owner = peers[0].owner(&name);
            assert!(peers.iter().all(|peers| peers.owner(&name) == owner));
            let owners = peers.iter().filter(|peers| peers.is_owner(&name));
            assert_eq!(owners.map(Peers::own).collect::<Vec<_>>(), [owner]);
        }
    }
}
