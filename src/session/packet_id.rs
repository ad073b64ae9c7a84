//! The QoS 2 packet ids that a client has sent and not yet released.

use crate::arena::{Budget, allocated};
use crate::codec::PacketId;
use std::collections::VecDeque;

/// A small sorted set. Ids come and go in nearly ascending order, so a search begins at the ends.
#[derive(Debug, Default)]
pub struct PacketIdSet {
    ids: VecDeque<u16>,
}

/// A set has memory for so many ids in any case.
const IDS_MIN: usize = 16;

impl PacketIdSet {
    /// The memory in use, in bytes.
    pub fn bytes(&self) -> usize {
        memory_of(self.ids.capacity())
    }

    /// Whether one more id needs more memory.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.ids.len() == self.ids.capacity()
    }

    /// Takes memory for more ids if `budget` has it, and counts it there; returns whether it did.
    #[cold]
    #[inline(never)]
    pub fn grow(&mut self, budget: &Budget) -> bool {
        let before = self.ids.capacity();
        let target = (2 * before).max(IDS_MIN);
        if before >= IDS_MIN && !budget.has_room(memory_of(target) - memory_of(before)) {
            return false;
        }
        self.ids.reserve_exact(target - self.ids.len());
        budget.change(memory_of(before), self.bytes());
        true
    }

    /// Forgets all ids, and gives their memory back.
    pub fn clear(&mut self, budget: &Budget) {
        budget.change(self.bytes(), 0);
        self.ids = VecDeque::new();
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    #[inline]
    pub fn contains(&self, id: PacketId) -> bool {
        !self.is_above_all(id) && self.ids.binary_search(&id.get()).is_ok()
    }

    /// Inserts an id, for which there is memory; returns whether it was new.
    #[inline]
    pub fn insert(&mut self, id: PacketId) -> bool {
        debug_assert!(!self.is_full());
        if self.is_above_all(id) {
            self.ids.push_back(id.get());
            return true;
        }
        match self.ids.binary_search(&id.get()) {
            Ok(_) => false,
            Err(index) => {
                self.ids.insert(index, id.get());
                true
            }
        }
    }

    /// Removes an id; returns whether it was there.
    #[inline]
    pub fn remove(&mut self, id: PacketId) -> bool {
        if self.ids.front() == Some(&id.get()) {
            self.ids.pop_front();
            return true;
        }
        match self.ids.binary_search(&id.get()) {
            Ok(index) => self.ids.remove(index).is_some(),
            Err(_) => false,
        }
    }

    #[inline]
    fn is_above_all(&self, id: PacketId) -> bool {
        self.ids.back().is_none_or(|last| *last < id.get())
    }
}

fn memory_of(id_count: usize) -> usize {
    allocated(id_count * size_of::<u16>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeSet;

    #[test]
    fn the_set_does_what_a_tree_would_do() {
        let mut random = Random::new(2);
        let budget = Budget::default();
        let mut set = PacketIdSet::default();
        let mut model = BTreeSet::new();
        for _ in 0..20_000 {
            let id = PacketId::new(1 + random.below(40) as u16).unwrap();
            if random.below(2) == 0 {
                assert!(!set.is_full() || set.grow(&budget));
                assert_eq!(set.insert(id), model.insert(id));
            } else {
                assert_eq!(set.remove(id), model.remove(&id));
            }
            assert_eq!(set.contains(id), model.contains(&id));
            assert_eq!(set.len(), model.len());
        }
    }

    #[test]
    fn a_set_grows_as_far_as_the_budget_goes() {
        let budget = Budget::new(1_000);
        let mut set = PacketIdSet::default();
        let mut count = 0;
        while !set.is_full() || set.grow(&budget) {
            count += 1;
            set.insert(PacketId::new(count).unwrap());
            assert_eq!(budget.bytes(), set.bytes());
        }
        assert!((200..500).contains(&count), "{count}");
        let mut other = PacketIdSet::default();
        assert!(other.grow(&budget) && !other.is_full());
        set.clear(&budget);
        assert_eq!(budget.bytes(), other.bytes());
    }
}
