//! The QoS 2 packet ids a client has sent and not yet released.

use crate::codec::PacketId;
use std::collections::VecDeque;

/// A small sorted set: ids come and go in nearly ascending order, so that its ends are looked at first.
#[derive(Debug, Default)]
pub struct PacketIdSet {
    ids: VecDeque<u16>,
}

impl PacketIdSet {
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

    /// Whether the id was new.
    #[inline]
    pub fn insert(&mut self, id: PacketId) -> bool {
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

    /// Whether the id was there.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeSet;

    #[test]
    fn the_set_does_what_a_tree_would_do() {
        let mut random = Random::new(2);
        let mut set = PacketIdSet::default();
        let mut model = BTreeSet::new();
        for _ in 0..20_000 {
            let id = PacketId::new(1 + random.below(40) as u16).unwrap();
            if random.below(2) == 0 {
                assert_eq!(set.insert(id), model.insert(id));
            } else {
                assert_eq!(set.remove(id), model.remove(&id));
            }
            assert_eq!(set.contains(id), model.contains(&id));
            assert_eq!(set.len(), model.len());
        }
    }
}
