//! A hash table in parts, so that no insertion moves more than a part.

use hashbrown::HashTable;

/// Entries by a hash that the caller computes. It is never iterated: the order of entries has no meaning.
///
/// A table of a million entries takes 200 ms to grow; its parts take less than one each, at different times.
#[derive(Debug)]
pub struct PartedTable<T> {
    parts: Box<[HashTable<T>]>,
    /// Bytes that the parts have allocated.
    allocated: usize,
}

const PART_COUNT: usize = 256;

/// A part gives memory back below one eighth of its capacity, but is not made smaller than this.
const CAPACITY_KEPT: usize = 7;

/// The bytes that a part allocates beside its buckets, and its alignment, at most.
const GROUP_SIZE: usize = 32;

impl<T> Default for PartedTable<T> {
    fn default() -> PartedTable<T> {
        PartedTable::with_parts(PART_COUNT)
    }
}

impl<T> PartedTable<T> {
    /// A table of `part_count` parts, a power of two. It is for tables whose size is known to stay small.
    pub fn with_parts(part_count: usize) -> PartedTable<T> {
        assert!(part_count.is_power_of_two());
        let parts = (0..part_count).map(|_| HashTable::new()).collect();
        PartedTable { parts, allocated: 0 }
    }

    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.parts[self.part(hash)].find(hash, is_it)
    }

    #[inline]
    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let part = self.part(hash);
        self.parts[part].find_mut(hash, is_it)
    }

    /// Adds an entry that is not there. `hash_of` computes the hash of any entry again.
    pub fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        let index = self.part(hash);
        let part = &mut self.parts[index];
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
        let index = self.part(hash);
        let (entry, _) = self.parts[index].find_entry(hash, is_it).ok()?.remove();
        self.shrink(index, hash_of);
        Some(entry)
    }

    /// Takes out an entry that `random`, any number, chooses, so that every entry is about as likely; `None` if the
    /// table is empty. The search looks at each part once, and at the buckets of one part.
    pub fn take_any(&mut self, random: u64, hash_of: impl Fn(&T) -> u64) -> Option<T> {
        let first = self.part(random);
        let mask = self.parts.len() - 1;
        let mut parts = (first..=first + mask).map(|index| index & mask);
        let index = parts.find(|&index| !self.parts[index].is_empty())?;
        let part = &mut self.parts[index];
        let (start, mask) = (random as usize, part.num_buckets() - 1);
        let mut places = (0..=mask).map(|step| start.wrapping_add(step) & mask);
        let place = places.find(|&place| part.get_bucket(place).is_some())?;
        let (entry, _) = part.get_bucket_entry(place).ok()?.remove();
        self.shrink(index, hash_of);
        Some(entry)
    }

    /// The most bytes by which the table grows if an entry with this hash is inserted.
    pub fn growth(&self, hash: u64) -> usize {
        let part = &self.parts[self.part(hash)];
        match part.capacity() - part.len() {
            0 => part.allocation_size().max(4 * (size_of::<T>() + 1)) + GROUP_SIZE,
            _ => 0,
        }
    }

    fn shrink(&mut self, index: usize, hash_of: impl Fn(&T) -> u64) {
        let part = &mut self.parts[index];
        if part.capacity() > CAPACITY_KEPT.max(8 * part.len()) {
            self.allocated -= part.allocation_size();
            part.shrink_to(CAPACITY_KEPT.max(2 * part.len()), hash_of);
            self.allocated += part.allocation_size();
        }
    }

    /// Within a part, entries are placed by the lowest bits of the hash and told apart by the highest.
    #[inline]
    fn part(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.parts.len() - 1)
    }

    /// The memory in use, without what entries hold elsewhere.
    pub fn bytes(&self) -> usize {
        self.allocated + size_of_val(&*self.parts)
    }
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

    #[test]
    fn any_entry_is_taken_about_as_likely_and_growth_is_foreseen() {
        const COUNT: u32 = 200;
        let hash = KeyedHash::new(3);
        let hash_of = |n: &u32| hash.bytes(&n.to_le_bytes());
        let mut asked = 0u32;
        let mut random = || {
            asked += 1;
            hash.bytes(&asked.to_be_bytes())
        };
        for part_count in [1, 4, 256] {
            let mut taken = vec![0u32; COUNT as usize];
            for _ in 0..2_000 {
                let mut table = PartedTable::with_parts(part_count);
                assert_eq!(table.take_any(random(), hash_of), None);
                for n in 0..COUNT {
                    let most = table.bytes() + table.growth(hash_of(&n));
                    table.insert(hash_of(&n), n, hash_of);
                    assert!(table.bytes() <= most);
                }
                let first = table.take_any(random(), hash_of).expect("it is full");
                taken[first as usize] += 1;
                if taken[first as usize] == 1 {
                    let mut rest: Vec<u32> =
                        std::iter::from_fn(|| table.take_any(random(), hash_of)).collect();
                    rest.push(first);
                    rest.sort_unstable();
                    assert!(rest.into_iter().eq(0..COUNT), "each entry is taken once");
                }
            }
            let most = taken.iter().max().copied().unwrap_or_default();
            assert!(most <= 100, "one of {COUNT} was taken {most} times of 2,000");
        }
    }
}
