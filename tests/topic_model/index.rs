//! The subscription index against the naive matcher over all subscriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringmq::hash::KeyedHash;
use ringmq::random::Random;
use ringmq::topic::{Index, matches};

use crate::texts;

#[derive(Clone, Debug)]
enum Change {
    Insert(String, u16, u8),
    Remove(String, u16),
    /// Removes one of the subscriptions that exist.
    RemoveHeld(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let key = 0..4_u16;
    prop_oneof![
        6 => (texts::filter(), key.clone(), any::<u8>()).prop_map(|(f, k, v)| Change::Insert(f, k, v)),
        1 => (texts::filter(), key).prop_map(|(f, k)| Change::Remove(f, k)),
        4 => any::<usize>().prop_map(Change::RemoveHeld),
    ]
}

type Model = BTreeMap<(String, u16), u8>;

fn found(index: &Index<u16, u8>, topic: &str) -> Vec<(u16, u8)> {
    let mut found = Vec::new();
    index.matches(topic, |&key, &value| found.push((key, value)));
    found
}

/// Applies a change to both, and compares what they return.
fn apply(index: &mut Index<u16, u8>, model: &mut Model, change: &Change) {
    match change {
        Change::Insert(filter, key, value) => {
            let previous = model.insert((filter.clone(), *key), *value);
            assert_eq!(index.insert(filter, *key, *value), previous);
        }
        Change::Remove(filter, key) => {
            let held = model.remove(&(filter.clone(), *key));
            assert_eq!(index.remove(filter, *key), held);
        }
        Change::RemoveHeld(nth) => {
            let Some((filter, key)) = model.keys().nth(nth % model.len().max(1)).cloned() else {
                return;
            };
            assert_eq!(index.remove(&filter, key), model.remove(&(filter, key)));
        }
    }
}

fn check(index: &Index<u16, u8>, model: &Model, topics: &[String]) {
    let filters: BTreeSet<&String> = model.keys().map(|(filter, _)| filter).collect();
    assert_eq!(index.filter_count(), filters.len());
    assert_eq!(index.subscription_count(), model.len());
    for filter in filters {
        let of_filter = model.keys().filter(|(other, _)| other == filter);
        assert_eq!(index.subscriber_count(filter), of_filter.count(), "{filter:?}");
    }
    for ((filter, key), &value) in model {
        assert_eq!(index.get(filter, *key), Some(value), "{filter:?}");
    }
    for topic in topics {
        let held = model.iter().filter(|((filter, _), _)| matches(filter, topic));
        let mut want: Vec<(u16, u8)> = held.map(|((_, key), &value)| (*key, value)).collect();
        let mut got = found(index, topic);
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want, "{topic:?}");
    }
}

proptest! {
    #[test]
    fn the_index_finds_what_the_naive_matcher_finds(
        changes in prop::collection::vec(change(), 1..120),
        topics in prop::collection::vec(texts::topic(), 1..12),
    ) {
        let mut index = Index::new(KeyedHash::new(1));
        let mut model = Model::new();
        for (round, change) in changes.iter().enumerate() {
            apply(&mut index, &mut model, change);
            if round % 16 == 0 {
                check(&index, &model, &topics);
            }
        }
        check(&index, &model, &topics);
        while !model.is_empty() {
            apply(&mut index, &mut model, &Change::RemoveHeld(usize::MAX / 3));
        }
        check(&index, &model, &topics);
    }

    #[test]
    fn the_order_found_does_not_depend_on_the_hash(
        changes in prop::collection::vec(change(), 1..120),
        topics in prop::collection::vec(texts::topic(), 1..12),
    ) {
        let mut indices = [1, 2].map(|seed| Index::new(KeyedHash::new(seed)));
        for index in &mut indices {
            let mut model = Model::new();
            changes.iter().for_each(|change| apply(index, &mut model, change));
        }
        for topic in topics {
            prop_assert_eq!(found(&indices[0], &topic), found(&indices[1], &topic));
        }
    }
}

#[test]
fn a_hundred_thousand_subscribers_come_and_go_in_any_order() {
    const COUNT: u32 = 100_000;
    for filter in ["sensors/all", "sensors/+/#"] {
        let mut random = Random::new(3);
        let mut keys: Vec<u32> = (0..COUNT).collect();
        shuffle(&mut keys, &mut random);
        let began = Instant::now();
        let mut index = Index::new(KeyedHash::new(1));
        for &key in &keys {
            assert_eq!(index.insert(filter, key, 1_u8), None);
        }
        assert_eq!(index.subscriber_count(filter), COUNT as usize);
        let mut next = 0;
        index.matches("sensors/all", |&key, _| {
            assert_eq!(key, next);
            next += 1;
        });
        assert_eq!(next, COUNT);
        shuffle(&mut keys, &mut random);
        for &key in &keys {
            assert_eq!(index.remove(filter, key), Some(1));
        }
        assert_eq!(index.filter_count(), 0);
        // Some 30 ms with a tree; 10 s where each change moves half of the others.
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn many_filters_with_the_same_names_are_told_apart() {
    for (first_count, second_count) in [(150, 150), (40_000, 1), (1, 40_000)] {
        let mut index = Index::new(KeyedHash::new(1));
        let pairs: Vec<(u32, String)> = (0..first_count)
            .flat_map(|first| (0..second_count).map(move |second| format!("{first}/{second}")))
            .zip(0..)
            .map(|(pair, key)| (key, pair))
            .collect();
        for (key, pair) in &pairs {
            index.insert(&format!("{pair}/+"), *key, ());
            index.insert(pair, *key, ());
        }
        let check = |index: &Index<u32, ()>, gone_below: u32| {
            for (key, pair) in &pairs {
                for topic in [&format!("{pair}/x"), pair] {
                    let mut found = Vec::new();
                    index.matches(topic, |&key, _| found.push(key));
                    let want = (*key >= gone_below).then_some(*key);
                    assert!(found.iter().eq(want.iter()), "{topic}: {found:?}");
                }
            }
        };
        check(&index, 0);
        for (key, pair) in &pairs[..10_000] {
            assert_eq!(index.remove(&format!("{pair}/+"), *key), Some(()));
            assert_eq!(index.remove(pair, *key), Some(()));
        }
        check(&index, 10_000);
    }
}

#[test]
fn filters_and_topics_of_any_depth_are_no_danger() {
    let deep = "a/".repeat(32_000);
    let plus = "+/".repeat(32_000);
    let below = format!("{plus}#");
    let mut index = Index::new(KeyedHash::new(1));
    for (key, filter) in [&deep, &plus, &below].into_iter().enumerate() {
        index.insert(filter, key as u16, 0);
    }
    index.insert("+/+", 9, 0);
    let mut all = found(&index, &deep);
    all.sort_unstable();
    assert_eq!(all, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(found(&index, &format!("{deep}a")), [(2, 0)]);
    assert_eq!(found(&index, "a/"), [(9, 0)]);
    for (key, filter) in [&deep, &plus, &below].into_iter().enumerate() {
        assert_eq!(index.remove(filter, key as u16), Some(0));
    }
    assert_eq!(found(&index, "/"), [(9, 0)]);
}

fn shuffle(keys: &mut [u32], random: &mut Random) {
    for at in (1..keys.len()).rev() {
        keys.swap(at, random.below(at as u64 + 1) as usize);
    }
}
