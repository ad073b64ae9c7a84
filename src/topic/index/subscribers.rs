//! The subscribers of one filter: most filters have one, some have a hundred thousand.

use std::collections::BTreeMap;

use crate::arena::{allocated, tree_size};

/// A map that is small when it has few entries. Entries are reported in the order of their keys.
pub(super) enum Subscribers<K, V> {
    None,
    One(K, V),
    /// At least two entries, sorted by key.
    Few(Vec<(K, V)>),
    #[expect(
        clippy::box_collection,
        reason = "keeps the enum, of which every filter has one, small"
    )]
    Many(Box<BTreeMap<K, V>>),
}

/// Above this count, moving the entries of a sorted vector costs more than a tree.
const FEW_MAX: usize = 64;
/// A tree that shrinks to this count becomes a vector. The count is far enough from `FEW_MAX` that one subscriber that
/// comes and goes does not convert it each time.
const MANY_MIN: usize = FEW_MAX / 2;

impl<K: Copy + Ord, V: Copy> Subscribers<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Subscribers::None => {
                *self = Subscribers::One(key, value);
                None
            }
            Subscribers::One(only, present) if *only == key => {
                Some(std::mem::replace(present, value))
            }
            &mut Subscribers::One(only, present) => {
                let mut few = Vec::with_capacity(2);
                few.push((only.min(key), if only < key { present } else { value }));
                few.push((only.max(key), if only < key { value } else { present }));
                *self = Subscribers::Few(few);
                None
            }
            Subscribers::Few(few) => match few.binary_search_by_key(&key, |entry| entry.0) {
                Ok(at) => Some(std::mem::replace(&mut few[at].1, value)),
                Err(_) if few.len() == FEW_MAX => {
                    let mut many: BTreeMap<K, V> = few.drain(..).collect();
                    many.insert(key, value);
                    *self = Subscribers::Many(Box::new(many));
                    None
                }
                Err(at) => {
                    few.insert(at, (key, value));
                    None
                }
            },
            Subscribers::Many(many) => many.insert(key, value),
        }
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            Subscribers::None => None,
            Subscribers::One(only, _) if *only != key => None,
            &mut Subscribers::One(_, present) => {
                *self = Subscribers::None;
                Some(present)
            }
            Subscribers::Few(few) => {
                let at = few.binary_search_by_key(&key, |entry| entry.0).ok()?;
                let (_, value) = few.remove(at);
                if let [(only, present)] = few[..] {
                    *self = Subscribers::One(only, present);
                } else if few.len() <= few.capacity() / 4 {
                    few.shrink_to(few.len() * 2);
                }
                Some(value)
            }
            Subscribers::Many(many) => {
                let value = many.remove(&key)?;
                if many.len() <= MANY_MIN {
                    *self =
                        Subscribers::Few(many.iter().map(|(&key, &value)| (key, value)).collect());
                }
                Some(value)
            }
        }
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        match self {
            Subscribers::None => None,
            Subscribers::One(only, present) => (*only == key).then_some(*present),
            Subscribers::Few(few) => {
                let at = few.binary_search_by_key(&key, |entry| entry.0).ok()?;
                Some(few[at].1)
            }
            Subscribers::Many(many) => many.get(&key).copied(),
        }
    }

    pub(super) fn each(&self, found: &mut impl FnMut(&K, &V)) {
        match self {
            Subscribers::None => {}
            Subscribers::One(only, present) => found(only, present),
            Subscribers::Few(few) => few.iter().for_each(|(key, value)| found(key, value)),
            Subscribers::Many(many) => many.iter().for_each(|(key, value)| found(key, value)),
        }
    }
}

impl<K, V> Subscribers<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Subscribers::None => 0,
            Subscribers::One(..) => 1,
            Subscribers::Few(few) => few.len(),
            Subscribers::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    /// Bytes outside the value itself: an estimate for a tree.
    pub(super) fn heap_size(&self) -> usize {
        match self {
            Subscribers::None | Subscribers::One(..) => 0,
            Subscribers::Few(few) => allocated(few.capacity() * size_of::<(K, V)>()),
            Subscribers::Many(many) => {
                allocated(size_of::<BTreeMap<K, V>>()) + tree_size(many.len(), size_of::<(K, V)>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn it_behaves_as_a_sorted_map_at_every_size() {
        let mut random = Random::new(1);
        let mut subscribers = Subscribers::None;
        let mut model = BTreeMap::new();
        let mut forms = [0; 4];
        for round in 0..40_000_u64 {
            // The map grows past the bound between vector and tree and shrinks to nothing, again and again.
            let grow = if (round / 2000) % 2 == 0 { 3 } else { 1 };
            let key = random.below(3 * FEW_MAX as u64) as u32;
            if random.below(4) < grow {
                assert_eq!(subscribers.insert(key, round), model.insert(key, round));
            } else {
                assert_eq!(subscribers.remove(key), model.remove(&key));
                if round % 2000 > 1500 && grow == 1 {
                    for key in 0..3 * FEW_MAX as u32 {
                        assert_eq!(subscribers.remove(key), model.remove(&key));
                    }
                }
            }
            assert_eq!(subscribers.len(), model.len());
            assert_eq!(subscribers.is_empty(), model.is_empty());
            assert_eq!(subscribers.get(key), model.get(&key).copied());
            let mut entries = Vec::new();
            subscribers.each(&mut |&key, &value| entries.push((key, value)));
            assert!(entries.iter().copied().eq(model.iter().map(|(&key, &value)| (key, value))));
            forms[match subscribers {
                Subscribers::None => 0,
                Subscribers::One(..) => 1,
                Subscribers::Few(_) => 2,
                Subscribers::Many(_) => 3,
            }] += 1;
        }
        assert!(forms.iter().all(|&count| count > 50), "{forms:?}");
    }
}
