//! Messages that come back over a bridge, recognised by what they are: nothing is added to them.
//!
//! What is sent leaves an entry: a fingerprint of payload and properties, and the topic that it was sent with. A message that
//! comes from a bridge uses up an entry that is the same and whose topic is the same, or the end of the other's from a level
//! boundary on, so that prefixes put in front of it on its way do not hide it. Entries live a minute, and their number is
//! bounded: then the oldest go.
//!
//! The price: two messages that are the same to the byte, one sent here and one that a neighbour publishes within the
//! minute, cannot be told apart. The second one is then not sent on; whoever needs it and has no loops turns this off.

use std::collections::{HashMap, VecDeque};

use crate::hash::KeyedHash;
use crate::time::Instant;

const LIFETIME_MS: u64 = 60_000;
const ENTRY_COUNT_MAX: usize = 65_536;
/// Of topics.
const BYTES_MAX: usize = 8 << 20;

pub struct Echo {
    hash: KeyedHash,
    /// By fingerprint: the numbers of entries.
    by_print: HashMap<u64, VecDeque<u64>, ahash::RandomState>,
    /// Oldest first, `None` where it was used up.
    entries: VecDeque<Option<Entry>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
}

struct Entry {
    print: u64,
    topic: Box<str>,
    ends_at: Instant,
}

impl Echo {
    pub fn new(seed: u64) -> Echo {
        let hash = KeyedHash::new(seed);
        Echo {
            by_print: HashMap::with_hasher(hash.state()),
            hash,
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
        }
    }

    /// A message was sent with this topic.
    pub fn note(&mut self, now: Instant, topic: &str, properties: &[u8], payload: &[u8]) {
        self.expire(now);
        while self.entries.len() >= ENTRY_COUNT_MAX || self.bytes + topic.len() > BYTES_MAX {
            if !self.forget_oldest() {
                break;
            }
        }
        let print = self.print(properties, payload);
        let number = self.first + self.entries.len() as u64;
        self.bytes += topic.len();
        let ends_at = now.plus_ms(LIFETIME_MS);
        self.entries.push_back(Some(Entry { print, topic: topic.into(), ends_at }));
        self.by_print.entry(print).or_default().push_back(number);
    }

    /// Whether a message from a bridge, which would leave with `topic`, was sent before; the entry is used up.
    pub fn is_echo(
        &mut self,
        now: Instant,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> bool {
        self.expire(now);
        let print = self.print(properties, payload);
        let Some(numbers) = self.by_print.get_mut(&print) else { return false };
        let (first, entries) = (self.first, &mut self.entries);
        let is_same = |number: &u64| {
            let entry = &entries[(number - first) as usize];
            entry.as_ref().is_some_and(|entry| corresponds(&entry.topic, topic))
        };
        let Some(place) = numbers.iter().position(is_same) else { return false };
        let Some(number) = numbers.remove(place) else { return false };
        if numbers.is_empty() {
            self.by_print.remove(&print);
        }
        if let Some(entry) = self.entries[(number - first) as usize].take() {
            self.bytes -= entry.topic.len();
        }
        true
    }

    fn print(&self, properties: &[u8], payload: &[u8]) -> u64 {
        // Each is hashed by itself: where one ends is part of what they are.
        self.hash.bytes(payload) ^ self.hash.bytes(properties).rotate_left(32)
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|e| e.as_ref().is_none_or(|e| e.ends_at <= now)) {
            self.forget_oldest();
        }
    }

    /// `false`: there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        let number = self.first;
        self.first += 1;
        if let Some(entry) = entry {
            self.bytes -= entry.topic.len();
            if let Some(numbers) = self.by_print.get_mut(&entry.print) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    self.by_print.remove(&entry.print);
                }
            }
        }
        true
    }
}

/// The same topic, or one is the other's end from a level boundary on.
fn corresponds(one: &str, other: &str) -> bool {
    let (long, short) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    match long.strip_suffix(short) {
        Some(front) => front.is_empty() || front.ends_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_comes_back_as_often_as_it_was_sent() {
        let mut echo = Echo::new(1);
        let now = Instant(10);
        for _ in 0..2 {
            echo.note(now, "a/b", b"p", b"x");
        }
        for (topic, properties, payload, expected) in [
            ("a/c", &b"p"[..], &b"x"[..], false),
            ("a/b", b"", b"x", false),
            ("a/b", b"p", b"y", false),
            ("a/b", b"p", b"x", true),
            ("from-b/from-a/a/b", b"p", b"x", true),
            ("a/b", b"p", b"x", false),
        ] {
            let is_echo = echo.is_echo(now, topic, properties, payload);
            assert_eq!(is_echo, expected, "{topic}");
        }
        assert_eq!((echo.by_print.len(), echo.bytes), (0, 0));
        for (topic, expected) in [("xa/b", false), ("b", true), ("a/b", false)] {
            echo.note(now, "a/b", b"", b"");
            assert_eq!(echo.is_echo(now, topic, b"", b""), expected || topic == "a/b", "{topic}");
        }
    }

    #[test]
    fn entries_pass_with_time_and_at_their_bound() {
        let mut echo = Echo::new(1);
        echo.note(Instant(0), "t", b"", b"old");
        assert!(!echo.is_echo(Instant(LIFETIME_MS), "t", b"", b"old"));
        for number in 0..ENTRY_COUNT_MAX as u64 + 10 {
            echo.note(Instant(1), "t", b"", &number.to_le_bytes());
        }
        assert_eq!(echo.entries.len(), ENTRY_COUNT_MAX);
        assert!(!echo.is_echo(Instant(1), "t", b"", &9u64.to_le_bytes()));
        assert!(echo.is_echo(Instant(1), "t", b"", &10u64.to_le_bytes()));
        let long = "l".repeat(BYTES_MAX / 2 + 1);
        for payload in [b"1", b"2"] {
            echo.note(Instant(2), &long, b"", payload);
        }
        assert!(echo.bytes <= BYTES_MAX);
        assert!(echo.is_echo(Instant(2), &long, b"", b"2"));
        assert!(!echo.is_echo(Instant(2), &long, b"", b"1"));
    }
}
