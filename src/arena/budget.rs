//! Memory that many holders share up to a bound, counted as the C library sets it aside.
//!
//! Aliases and windows of packet ids count themselves in the budget when they grow. Tables are counted at each CONNECT
//! and SUBSCRIBE (`shard::metadata`).

use std::cell::Cell;
use std::rc::Rc;

/// What an allocation of `size` bytes takes with glibc: a word in front of it, in steps of 16.
pub const fn allocated(size: usize) -> usize {
    if size == 0 {
        return 0;
    }
    let chunk = (size + size_of::<usize>()).next_multiple_of(16);
    if chunk < 32 { 32 } else { chunk }
}

/// What a `BTreeMap` takes for `count` entries of `size` bytes that came one by one: an estimate. A leaf then holds
/// seven to eight entries, and one inner node links eight leaves.
pub const fn tree_size(count: usize, size: usize) -> usize {
    let leaf_size = allocated(11 * size + 16);
    let linking_size = leaf_size + 12 * size_of::<usize>();
    (2 * count).div_ceil(15) * (leaf_size + linking_size / 8)
}

/// What a `HashMap` with room for `capacity` entries of `size` bytes takes: it fills at most seven of eight buckets.
pub const fn map_size(capacity: usize, size: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    allocated((capacity * 8).div_ceil(7) * (size + 1) + 16)
}

/// The bytes that all holders of a budget have together, and how many they may have.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: Cell<usize>,
    max: Cell<usize>,
}

impl Default for Budget {
    /// A budget without a bound.
    fn default() -> Budget {
        Budget::new(usize::MAX)
    }
}

impl Budget {
    pub fn new(max: usize) -> Budget {
        Budget(Rc::new(Shared { bytes: Cell::new(0), max: Cell::new(max) }))
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    pub fn max(&self) -> usize {
        self.0.max.get()
    }

    pub fn set_max(&self, max: usize) {
        self.0.max.set(max);
    }

    /// Whether the bound leaves room for so many more bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(bytes) <= self.max()
    }

    /// Whether half of the bound leaves room for so many more bytes. Uses that can do with less memory ask this.
    pub fn has_ample_room(&self, bytes: usize) -> bool {
        self.bytes().saturating_add(bytes) <= self.max() / 2
    }

    /// Counts that a holder has `now` bytes instead of `before`, whatever the bound.
    pub fn change(&self, before: usize, now: usize) {
        debug_assert!(before <= self.bytes(), "a holder gives back what it has");
        self.0.bytes.set(self.bytes() - before + now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashMap};

    /// Bytes in use after `make`, as the C library counts them: an allocation costs 16 bytes on average beside
    /// its bytes.
    fn measured<T>(make: impl FnOnce() -> T) -> usize {
        let mut made = None;
        let used = allocation_counter::measure(|| made = Some(make()));
        drop(made);
        (used.bytes_current + 16 * used.count_current) as usize
    }

    fn assert_near(told: usize, used: usize) {
        assert!(told * 10 >= used * 8 && told * 8 <= used * 10, "{told} are told, {used} are used");
    }

    #[test]
    fn what_collections_take_is_told_within_a_fifth() {
        for count in [200, 3_000, 70_000] {
            for factor in [1, 0x9e37_79b9_7f4a_7c15_u64] {
                let used = measured(|| {
                    let mut tree = BTreeMap::new();
                    (0..count as u64).for_each(|n| _ = tree.insert(n.wrapping_mul(factor), [n; 2]));
                    tree
                });
                assert_near(tree_size(count, 24), used);
            }
            let mut capacity = 0;
            let used = measured(|| {
                let map: HashMap<_, _> = (0..count as u64).map(|n| (n, [n; 2])).collect();
                capacity = map.capacity();
                map
            });
            assert_near(map_size(capacity, 24), used);
        }
        for size in [1, 24, 25, 100, 4_000] {
            let used = measured(|| vec![7u8; size].into_boxed_slice());
            assert!(allocated(size) + 16 >= used && allocated(size) <= used + 16, "{size}");
        }
    }

    #[test]
    fn a_budget_has_room_up_to_its_bound_and_counts_beyond_it() {
        let budget = Budget::new(100);
        budget.change(0, 60);
        assert!(budget.has_room(40) && !budget.has_room(41) && !budget.has_room(usize::MAX));
        budget.clone().change(0, 90);
        assert_eq!((budget.bytes(), budget.has_room(0)), (150, false));
        budget.change(90, 0);
        assert!(budget.has_room(40));
    }
}
