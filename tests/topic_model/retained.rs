//! Scans of the retained messages against the naive matcher, in pieces, while the store changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringmq::topic::{RetainedStore, ScanEnd, matches};

use crate::texts;

#[derive(Clone, Debug)]
enum Change {
    Insert(String),
    /// Removes one of the topics that exist.
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![texts::topic().prop_map(Change::Insert), any::<usize>().prop_map(Change::Remove),]
}

/// The store and its model; values are numbered, so that an old one is told from a new one.
#[derive(Default)]
struct Pair {
    store: RetainedStore<u32>,
    model: BTreeMap<String, u32>,
    value: u32,
}

impl Pair {
    fn apply(&mut self, change: &Change) -> Option<String> {
        match change {
            Change::Insert(topic) => {
                self.value += 1;
                let previous = self.model.insert(topic.clone(), self.value);
                assert_eq!(self.store.insert(topic, self.value), previous);
                None
            }
            Change::Remove(nth) => {
                let topic = self.model.keys().nth(nth % self.model.len().max(1))?.clone();
                assert_eq!(self.store.remove(&topic), self.model.remove(&topic));
                assert_eq!(self.store.remove(&topic), None);
                Some(topic)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_scan_finds_what_the_naive_matcher_finds(
        topics in prop::collection::vec(texts::topic(), 0..60),
        filters in prop::collection::vec(texts::filter(), 1..6),
    ) {
        let mut pair = Pair::default();
        topics.into_iter().for_each(|topic| { pair.apply(&Change::Insert(topic)); });
        prop_assert_eq!(pair.store.len(), pair.model.len());
        for filter in filters {
            let want: Vec<(&str, u32)> = pair.model.iter()
                .filter(|(topic, _)| matches(&filter, topic))
                .map(|(topic, &value)| (topic.as_str(), value))
                .collect();
            let mut got = Vec::new();
            let end = pair.store.scan(&filter, None, usize::MAX, |topic, &value| {
                got.push((topic.to_owned(), value));
            });
            prop_assert_eq!(end, ScanEnd::Done);
            let got: Vec<(&str, u32)> = got.iter().map(|(topic, value)| (topic.as_str(), *value)).collect();
            prop_assert_eq!(got, want, "{:?}", filter);
        }
    }

    #[test]
    fn a_scan_in_pieces_finds_each_message_that_stays_once(
        topics in prop::collection::vec(texts::topic(), 0..60),
        filter in texts::filter(),
        pieces in prop::collection::vec((0..5_usize, any::<bool>(), prop::collection::vec(change(), 0..4)), 1..20),
    ) {
        let mut pair = Pair::default();
        topics.into_iter().for_each(|topic| { pair.apply(&Change::Insert(topic)); });
        let mut staying: BTreeSet<String> =
            pair.model.keys().filter(|topic| matches(&filter, topic)).cloned().collect();
        let mut found: Vec<String> = Vec::new();
        let mut after: Option<Box<str>> = None;
        // Each piece looks at one message at least, and messages come in slower than that at the end.
        for (visit_max, stop, changes) in pieces.iter().cloned().chain(std::iter::repeat((1, false, vec![]))) {
            let mut found_count = 0;
            let mut left = visit_max;
            let end = pair.store.scan_while(&filter, after.as_deref(), &mut left, |topic, value| {
                assert!(matches(&filter, topic), "{topic:?}");
                assert_eq!(pair.model.get(topic), Some(value), "{topic:?}");
                assert!(after.as_deref().is_none_or(|after| after < topic), "{topic:?} after {after:?}");
                found.push(topic.to_owned());
                found_count += 1;
                !stop
            });
            let found_max = if stop { 1 } else { visit_max.max(1) };
            prop_assert!(found_count <= found_max);
            prop_assert!(found_count.min(visit_max) <= visit_max - left);
            match end {
                ScanEnd::Done => break,
                ScanEnd::More(topic) => after = Some(topic),
            }
            for change in &changes {
                if let Some(topic) = pair.apply(change) {
                    staying.remove(&topic);
                }
            }
        }
        prop_assert!(found.is_sorted_by(|a, b| a < b), "{:?}", found);
        staying.retain(|topic| found.binary_search(topic).is_err());
        prop_assert!(staying.is_empty(), "{:?} not found", staying);
    }
}

/// The pieces of a scan: how many, and what was found in all.
fn scan_all(store: &RetainedStore<u32>, filter: &str, visit_max: usize) -> (usize, usize) {
    let (mut piece_count, mut found_count) = (0, 0);
    let mut after: Option<Box<str>> = None;
    loop {
        piece_count += 1;
        match store.scan(filter, after.as_deref(), visit_max, |_, _| found_count += 1) {
            ScanEnd::Done => return (piece_count, found_count),
            ScanEnd::More(topic) => after = Some(topic),
        }
    }
}

fn quickest(mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    (0..7).map(once).min().unwrap()
}

#[test]
fn a_scan_of_a_million_topics_works_in_small_pieces() {
    const VISIT_MAX: usize = 100;
    let mut store = RetainedStore::new();
    // 1,000 x 998 topics, every tenth name of the middle level has what the first filter means; and a few shallow ones.
    for middle in 0..1000_u32 {
        for last in 0..998_u32 {
            store.insert(&format!("a/m{middle}/{last}"), last);
        }
        if middle % 10 == 0 {
            store.insert(&format!("a/m{middle}/c"), 1);
            store.insert(&format!("a/m{middle}/c/d"), 1);
            store.insert(&format!("a/m{middle}/c-/d"), 1);
        }
    }
    for first in 0..2000 {
        store.insert(&format!("f{first}/{}", if first % 2 == 0 { "x" } else { "y" }), 1);
        // Below the root, where a filter that begins with a wildcard does not go.
        store.insert(&format!("$SYS/{first}/5"), 1);
        store.insert(&format!("$SYS{first}/5"), 1);
    }
    assert!(store.len() > 1_000_000);
    let public_count = store.len() - 4000;

    let whole = quickest(|| assert_eq!(scan_all(&store, "#", usize::MAX), (1, public_count)));
    for (filter, want, visits_max) in [
        // One look at each name of the middle level, one more where something is found or comes near.
        ("a/+/c/#", 200, 3 * 1000),
        ("a/+/c", 100, 3 * 1000),
        ("+/x", 1000, 2 * 2000 + 10),
        ("+/nothing", 0, 2 * 2000 + 10),
        ("+/+/nothing", 0, 3 * 2000 + 2 * 1000),
        ("+", 0, 2000 + 10),
        ("a/+", 0, 1000 + 10),
        ("a/m77/#", 998, 1100),
        ("b/#", 0, 1),
        ("+/+", 2000, 2 * 2000 + 10),
        ("+/+/5", 1000, 3 * 2000 + 3 * 1000),
    ] {
        let (piece_count, found_count) = scan_all(&store, filter, VISIT_MAX);
        assert_eq!(found_count, want, "{filter}");
        assert!(piece_count <= 1 + visits_max / VISIT_MAX, "{filter}: {piece_count} pieces");

        // The bound is on work, not on what is found: a piece costs what its visits cost.
        let piece = quickest(|| {
            store.scan(filter, None, VISIT_MAX, |_, _| {});
        });
        assert!(piece < whole / 20, "{filter}: {piece:?} of {whole:?}");
    }
    let (piece_count, found_count) = scan_all(&store, "#", VISIT_MAX);
    assert_eq!((piece_count, found_count), (public_count / VISIT_MAX + 1, public_count));
}
