//! What the index costs: bytes for each filter, and no allocation for a search.

use ringmq::hash::KeyedHash;
use ringmq::topic::Index;

/// As wide as what a shard keeps for a subscription.
type Options = [u32; 2];

fn index_of(filters: &[String]) -> (Index<u64, Options>, usize) {
    let mut index = Index::new(KeyedHash::new(1));
    let allocated = allocation_counter::measure(|| {
        for (key, filter) in filters.iter().enumerate() {
            index.insert(filter, key as u64, [1, 2]);
        }
    });
    (index, usize::try_from(allocated.bytes_current).unwrap())
}

/// The largest cost of a filter over some counts, tables that have just grown among them.
fn check(filter: impl Fn(usize) -> String, size_max: usize) {
    for count in [10_000, 14_400, 28_800, 100_000] {
        let filters: Vec<String> = (0..count).map(&filter).collect();
        let (index, held) = index_of(&filters);
        let size = held / count;
        println!("{:?}: {size} bytes each of {count}", filters[0]);
        assert!(size < size_max, "{size} bytes each of {count}");
        let told = index.bytes();
        assert!(told.abs_diff(held) < held / 5, "{told} told, {held} held");
    }
}

#[test]
fn an_exact_filter_with_one_subscriber_is_small() {
    check(|n| format!("clients/{n:07}/in/x"), 130);
}

#[test]
fn a_wildcard_filter_with_a_name_of_its_own_is_small() {
    check(|n| format!("clients/{n:08}/+"), 220);
    check(|n| format!("client/{n:010}/#"), 130);
}

#[test]
fn the_memory_of_many_subscribers_is_told() {
    let mut index = Index::new(KeyedHash::new(1));
    let allocated = allocation_counter::measure(|| {
        for key in 0..100_000_u64 {
            index.insert("a/b", key.wrapping_mul(0x9e37_79b9_7f4a_7c15), [1, 2]);
        }
    });
    // With two words that the C library needs for an allocation.
    let held = (allocated.bytes_current + 16 * allocated.count_current) as usize;
    let told = index.bytes();
    assert!(told.abs_diff(held) < held / 5, "{told} told, {held} held");
}

#[test]
fn a_search_allocates_nothing() {
    let levels: Vec<String> = (0..128).map(|n| format!("l{n}")).collect();
    let mut filters = vec!["#".to_owned(), levels.join("/")];
    for depth in 0..128 {
        let mut some = levels.clone();
        some[depth] = "+".to_owned();
        filters.push(some.join("/"));
        some.truncate(depth + 1);
        filters.push(format!("{}/#", some.join("/")));
    }
    filters.push(vec!["+"; 128].join("/"));
    let (index, _) = index_of(&filters);
    let topics = [levels.join("/"), levels[..64].join("/"), "other/topic".to_owned()];
    for topic in &topics {
        let mut found_count = 0;
        let allocated = allocation_counter::measure(|| {
            index.matches(topic, |_, _| found_count += 1);
        });
        assert_eq!(allocated.count_total, 0, "{topic}");
        let want = filters.iter().filter(|filter| ringmq::topic::matches(filter, topic)).count();
        assert_eq!(found_count, want, "{topic}");
    }
}
