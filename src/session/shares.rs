//! How much each holder has, told apart by name: a table of bounded size, because clients choose ids and addresses
//! freely.
//!
//! The table has 65,536 entries. Holders beyond it count together with their neighbours (the same IPv4 /24 or IPv6
//! /48), in 256 crowds.

use crate::arena::{allocated, map_size};
use slab::Slab;
use std::collections::HashMap;

/// How many holders are told apart. Further holders of one crowd count together.
const SHARES_MAX: usize = 65_536;
const CROWD_COUNT: u64 = 256;
/// Names of single holders have this bit, names of crowds do not.
const SINGLE: u64 = 1 << 63;

/// An index in the table. The first entry is for all holders that are not told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(u32);

impl ShareId {
    pub const ALL: ShareId = ShareId(0);

    pub fn next(self) -> ShareId {
        ShareId(self.0 + 1)
    }
}

/// The name of a holder: a hash of its own, and a hash that it has in common with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderName {
    own: u64,
    crowd: u64,
}

impl HolderName {
    pub fn new(own: u64, crowd: u64) -> HolderName {
        HolderName { own: own | SINGLE, crowd }
    }

    pub fn to_words(self) -> [u64; 2] {
        [self.own, self.crowd]
    }

    /// The name that gave these words.
    pub fn from_words([own, crowd]: [u64; 2]) -> HolderName {
        HolderName { own, crowd }
    }
}

#[derive(Debug)]
struct Share<T> {
    name: HolderName,
    /// How many things count to the holder, which is forgotten with the last of them.
    part_count: usize,
    holding: T,
}

/// The table of holders.
#[derive(Debug)]
pub struct Shares<T> {
    shares: Slab<Share<T>>,
    by_name: HashMap<u64, u32, ahash::RandomState>,
}

impl<T: Default> Shares<T> {
    pub fn new(state: ahash::RandomState) -> Shares<T> {
        let mut shares = Slab::new();
        let name = HolderName { own: 0, crowd: 0 };
        let all = shares.insert(Share { name, part_count: 0, holding: T::default() });
        debug_assert_eq!(all, 0);
        Shares { shares, by_name: HashMap::with_hasher(state) }
    }

    /// Counts one more thing to a holder; `None`: to the holder that stands for all.
    pub fn enter(&mut self, name: Option<HolderName>) -> ShareId {
        let Some(name) = name else { return ShareId::ALL };
        let is_known = self.by_name.contains_key(&name.own);
        let name = match is_known || self.by_name.len() < SHARES_MAX {
            true => name,
            false => HolderName { own: name.crowd % CROWD_COUNT, ..name },
        };
        let shares = &mut self.shares;
        let make = || shares.insert(Share { name, part_count: 0, holding: T::default() }) as u32;
        let index = *self.by_name.entry(name.own).or_insert_with(make);
        self.shares[index as usize].part_count += 1;
        ShareId(index)
    }

    /// Counts one thing less to a holder. The caller has taken back what the holder had for it.
    pub fn leave(&mut self, id: ShareId) {
        if id == ShareId::ALL {
            return;
        }
        let share = &mut self.shares[id.0 as usize];
        share.part_count -= 1;
        if share.part_count == 0 {
            let share = self.shares.remove(id.0 as usize);
            self.by_name.remove(&share.name.own);
        }
    }

    /// The entry of a holder; `None`: there is none.
    pub fn find(&self, name: HolderName) -> Option<ShareId> {
        let of = |own: u64| self.by_name.get(&own).map(|index| ShareId(*index));
        match of(name.own) {
            None if self.by_name.len() >= SHARES_MAX => of(name.crowd % CROWD_COUNT),
            found => found,
        }
    }

    pub fn name(&self, id: ShareId) -> Option<HolderName> {
        (id != ShareId::ALL).then(|| self.shares[id.0 as usize].name)
    }

    #[inline]
    pub fn get(&self, id: ShareId) -> &T {
        &self.shares[id.0 as usize].holding
    }

    #[inline]
    pub fn get_mut(&mut self, id: ShareId) -> &mut T {
        &mut self.shares[id.0 as usize].holding
    }

    /// Bytes that the table takes, without what holders have.
    pub fn bytes(&self) -> usize {
        allocated(self.shares.capacity() * size_of::<Share<T>>())
            + map_size(self.by_name.capacity(), size_of::<(u64, u32)>())
    }

    /// How many holders are told apart, counting crowds.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyedHash;
    use crate::random::Random;
    use std::collections::BTreeMap;

    fn shares() -> Shares<usize> {
        Shares::new(KeyedHash::new(1).state())
    }

    #[test]
    fn a_share_is_what_its_parts_come_to_and_goes_with_the_last() {
        let mut random = Random::new(4);
        let mut shares = shares();
        let mut model: BTreeMap<u64, Vec<(ShareId, usize)>> = BTreeMap::new();
        for _ in 0..20_000 {
            let number = random.below(50);
            let name = HolderName::new(number, 0);
            let parts = model.entry(number).or_default();
            if random.below(2) == 0 {
                let id = shares.enter(Some(name));
                let size = random.below(1_000) as usize;
                *shares.get_mut(id) += size;
                parts.push((id, size));
            } else if let Some((id, size)) = parts.pop() {
                *shares.get_mut(id) -= size;
                shares.leave(id);
            }
            let sum: usize = parts.iter().map(|(_, size)| size).sum();
            match shares.find(name) {
                Some(id) => assert_eq!(*shares.get(id), sum),
                None => assert!(parts.is_empty()),
            }
            model.retain(|_, parts| !parts.is_empty());
            assert_eq!(shares.count(), model.len());
        }
    }

    #[test]
    fn the_table_is_bounded_and_beyond_it_crowds_count_together() {
        let mut shares = shares();
        let count = SHARES_MAX as u64 + 5_000;
        // All holders that come too late are in two crowds.
        let name = |number: u64| HolderName::new(number, 7 + number % 2);
        let ids: Vec<ShareId> = (0..count).map(|number| shares.enter(Some(name(number)))).collect();
        assert_eq!(shares.count(), SHARES_MAX + 2);
        assert_eq!(ids[SHARES_MAX], ids[SHARES_MAX + 2]);
        assert_ne!(ids[SHARES_MAX], ids[SHARES_MAX + 1]);
        assert_eq!(shares.find(name(count - 1)), ids.last().copied());
        assert_eq!(shares.find(name(3)), Some(ids[3]));
        // A name that was told to another shard is the same there.
        let told = shares.name(ids[SHARES_MAX]).expect("it is a crowd");
        assert_eq!(shares.find(HolderName::from_words(told.to_words())), Some(ids[SHARES_MAX]));
        ids.into_iter().for_each(|id| shares.leave(id));
        assert_eq!(shares.count(), 0);
        assert_eq!(shares.enter(None), ShareId::ALL);
    }
}
