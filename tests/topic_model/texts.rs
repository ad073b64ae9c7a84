//! Random topics and filters over few level names, so that they meet often.

use proptest::prelude::*;
use proptest::sample::select;

/// Empty, Unicode, `$`, and names with a common beginning: a byte less than `/` and one greater follow it.
const NAMES: [&str; 10] = ["", "a", "b", "a-", "a b", "a0", "ü", "日本", "$", "$a"];

const LEVELS_MAX: usize = 5;

pub(crate) fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..=LEVELS_MAX).prop_map(|levels| not_empty(levels.join("/")))
}

pub(crate) fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => name(), 2 => Just("+")];
    let last = prop_oneof![3 => name(), 1 => Just("+"), 2 => Just("#")];
    (prop::collection::vec(level, 0..LEVELS_MAX), last).prop_map(|(mut levels, last)| {
        levels.push(last);
        not_empty(levels.join("/"))
    })
}

/// Texts that are filters or nearly so.
pub(crate) fn filter_or_not() -> impl Strategy<Value = String> {
    let piece = select(vec!["a", "/", "+", "#", "$share/", "$share", "ü", "\0", "g"]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

// Small names more often: deep topics should match too.
fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => select(&NAMES[..3]), 1 => select(&NAMES[..])]
}

fn not_empty(text: String) -> String {
    if text.is_empty() { "/".to_owned() } else { text }
}
