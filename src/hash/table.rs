//! A hash table in parts, so that no insertion moves more than a part.

use hashbrown::HashTable;

/// Entries by a hash that the caller computes. It is never iterated: the order of entries has no meaning.
///
/// A table of a million entries takes 200 ms to grow; its parts take less than one each, at different times.
#[derive(Debug)]
pub struct PartedTable<T> {
    parts: Box<[HashTable<T>]>,
    /// What the parts have allocated.
    allocated: usize,
}

const PART_COUNT: usize = 256;

/// A part gives memory back below one eighth of its capacity, but is not made smaller than this.
const CAPACITY_KEPT: usize = 7;

impl<T> Default for PartedTable<T> {
    fn default() -> PartedTable<T> {
        let parts = (0..PART_COUNT).map(|_| HashTable::new()).collect();
        PartedTable { parts, allocated: 0 }
    }
}

impl<T> PartedTable<T> {
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[part(hash)].find(hash, is_it)
    }

    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.parts[part(hash)].find_mut(hash, is_it)
    }

    /// Adds an entry that is not there. `hash_of` computes the hash of any entry again.
    pub fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        let part = &mut self.parts[part(hash)];
        let before = part.allocation_size();
        part.insert_unique(hash, entry, hash_of);
        self.allocated = self.allocated - before + part.allocation_size();
    }

    pub fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let part = &mut self.parts[part(hash)];
        let (entry, _) = part.find_entry(hash, is_it).ok()?.remove();
        if part.capacity() > CAPACITY_KEPT.max(8 * part.len()) {
            self.allocated -= part.allocation_size();
            part.shrink_to(CAPACITY_KEPT.max(2 * part.len()), hash_of);
            self.allocated += part.allocation_size();
        }
        Some(entry)
    }

    /// The memory held, without what entries hold elsewhere.
    pub fn bytes(&self) -> usize {
        self.allocated + size_of_val(&*self.parts)
    }
}

/// Within a part, entries are placed by the lowest bits of the hash and told apart by the highest.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PART_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyedHash;

    #[test]
    fn parts_fill_evenly_and_give_their_memory_back() {
        let hash = KeyedHash::new(3);
        let hash_of = |n: &u32| hash.bytes(&n.to_le_bytes());
        let mut table = PartedTable::default();
        let empty_size = table.bytes();
        for n in 0..100_000 {
            table.insert(hash_of(&n), n, hash_of);
        }
        assert!(table.parts.iter().all(|part| (290..500).contains(&part.len())));
        assert!((0..100_000).all(|n| table.find(hash_of(&n), |&other| other == n) == Some(&n)));
        let full_size = table.bytes();
        for n in 0..100_000 {
            assert_eq!(table.remove(hash_of(&n), |&other| other == n, hash_of), Some(n));
            assert_eq!(table.remove(hash_of(&n), |&other| other == n, hash_of), None);
        }
        assert!(full_size > 500_000 && table.bytes() < empty_size + 20_000, "{}", table.bytes());
    }
}
