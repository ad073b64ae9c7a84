//! Messages that come back over a bridge, recognised by what they are: nothing is added to them.
//!
//! What is sent leaves an entry: a fingerprint of its payload, and the topic that it was sent with. A message that comes from a
//! bridge uses up an entry with the same payload whose topic is the same, or the end of the other's from a level boundary
//! on, so that prefixes put in front of it on its way do not hide it. Properties are not looked at: 3.1.1 on the way loses
//! them, and plugins and bridges add to them. Entries live a minute, and their number is bounded: then the oldest go.
//!
//! A neighbour that hands on the same reading twice is no loop. What came from a bridge and is met again from a bridge counts
//! as an echo only while messages of this broker's own come back, too.
//!
//! The price: where a neighbour publishes to a topic what was published here to the same topic within the minute, its
//! message is not sent on. Whoever needs it and has no loops turns this off.

use std::collections::{HashMap, VecDeque};

use crate::hash::KeyedHash;
use crate::time::Instant;

const LIFETIME_MS: u64 = 60_000;
const ENTRY_COUNT_MAX: usize = 65_536;
/// Of topics.
const BYTES_MAX: usize = 8 << 20;
/// Entries of one fingerprint that are looked at.
const SCAN_MAX: usize = 1024;

/// There is a loop while at least one of so many messages comes back.
const RETURNS_ONE_IN: u32 = 16;
/// Counts are halved at this many, so that old evidence fades.
const EVIDENCE_MAX: u32 = 512;

pub struct Echo {
    hash: KeyedHash,
    /// By fingerprint: the numbers of entries.
    by_print: HashMap<u64, VecDeque<u64>, ahash::RandomState>,
    /// Oldest first, `None` where it was used up.
    entries: VecDeque<Option<Entry>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    /// Messages of this broker's own that were sent, and how many of them came back around.
    own_count: u32,
    returned_count: u32,
}

struct Entry {
    print: u64,
    topic: Box<str>,
    ends_at: Instant,
    origin: Origin,
}

/// Where a message was that is sent over a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Published by a client of this broker.
    Here,
    /// Another bridge brought it: one of ours, or a client that is one.
    Bridge,
}

/// How a message came that may be an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Over the very connection that it was sent over: a remote without no-local does that with all it gets.
    Same,
    /// Over any other bridge.
    Around,
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
            own_count: 0,
            returned_count: 0,
        }
    }

    /// A message was sent with this topic.
    pub fn note(&mut self, now: Instant, origin: Origin, topic: &str, payload: &[u8]) {
        self.expire(now);
        while self.entries.len() >= ENTRY_COUNT_MAX || self.bytes + topic.len() > BYTES_MAX {
            if !self.forget_oldest() {
                break;
            }
        }
        if origin == Origin::Here {
            self.own_count += 1;
            if self.own_count >= EVIDENCE_MAX {
                self.own_count /= 2;
                self.returned_count /= 2;
            }
        }
        let print = self.print(topic, payload);
        let number = self.first + self.entries.len() as u64;
        self.bytes += topic.len();
        let ends_at = now.plus_ms(LIFETIME_MS);
        self.entries.push_back(Some(Entry { print, topic: topic.into(), ends_at, origin }));
        self.by_print.entry(print).or_default().push_back(number);
    }

    /// Whether a message from a bridge, which would leave with `topic`, was sent before; the entry is used up.
    pub fn is_echo(&mut self, now: Instant, way: Return, topic: &str, payload: &[u8]) -> bool {
        self.expire(now);
        let print = self.print(topic, payload);
        let is_loop = self.is_loop();
        let Some(numbers) = self.by_print.get_mut(&print) else { return false };
        let (first, entries) = (self.first, &mut self.entries);
        let origin_of = |number: u64| {
            let entry = entries[(number - first) as usize].as_ref();
            entry.filter(|entry| corresponds(&entry.topic, topic)).map(|entry| entry.origin)
        };
        let mut found = None;
        for (place, number) in numbers.iter().enumerate().take(SCAN_MAX) {
            match origin_of(*number) {
                Some(Origin::Here) => {
                    found = Some((place, Origin::Here));
                    break;
                }
                Some(Origin::Bridge) if is_loop || way == Return::Same => {
                    found = found.or(Some((place, Origin::Bridge)));
                }
                _ => {}
            }
        }
        let Some((place, origin)) = found else { return false };
        let Some(number) = numbers.remove(place) else { return false };
        if numbers.is_empty() {
            self.by_print.remove(&print);
        }
        if let Some(entry) = self.entries[(number - first) as usize].take() {
            self.bytes -= entry.topic.len();
        }
        if way == Return::Around && origin == Origin::Here {
            self.returned_count += 1;
        }
        true
    }

    fn is_loop(&self) -> bool {
        self.returned_count > 0
            && self.returned_count.saturating_mul(RETURNS_ONE_IN) >= self.own_count
    }

    fn print(&self, topic: &str, payload: &[u8]) -> u64 {
        // Topics that correspond have their last level in common.
        let last = topic.rsplit('/').next().unwrap_or_default();
        // Each is hashed by itself: where one ends is part of what they are.
        self.hash.bytes(payload) ^ self.hash.bytes(last.as_bytes()).rotate_left(32)
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
                // The numbers of a fingerprint rise: the oldest entry's is the first.
                debug_assert_eq!(numbers.front(), Some(&number));
                numbers.pop_front();
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
    use crate::random::Random;
    use Origin::{Bridge, Here};
    use Return::{Around, Same};

    #[test]
    fn what_was_sent_comes_back_as_often_as_it_was_sent() {
        let mut echo = Echo::new(1);
        let now = Instant(10);
        for _ in 0..2 {
            echo.note(now, Here, "a/b", b"x");
        }
        for (topic, payload, expected) in [
            ("a/c", &b"x"[..], false),
            ("a/b", b"y", false),
            ("a/b", b"x", true),
            ("from-b/from-a/a/b", b"x", true),
            ("a/b", b"x", false),
        ] {
            assert_eq!(echo.is_echo(now, Around, topic, payload), expected, "{topic}");
        }
        assert_eq!((echo.by_print.len(), echo.bytes), (0, 0));
        for (topic, expected) in [("xa/b", false), ("b", true), ("a/b", false)] {
            echo.note(now, Here, "a/b", b"");
            assert_eq!(
                echo.is_echo(now, Around, topic, b""),
                expected || topic == "a/b",
                "{topic}"
            );
        }
    }

    #[test]
    fn entries_pass_with_time_and_at_their_bound() {
        let mut echo = Echo::new(1);
        echo.note(Instant(0), Here, "t", b"old");
        assert!(!echo.is_echo(Instant(LIFETIME_MS), Around, "t", b"old"));
        for number in 0..ENTRY_COUNT_MAX as u64 + 10 {
            echo.note(Instant(1), Here, "t", &number.to_le_bytes());
        }
        assert_eq!(echo.entries.len(), ENTRY_COUNT_MAX);
        assert!(!echo.is_echo(Instant(1), Around, "t", &9u64.to_le_bytes()));
        assert!(echo.is_echo(Instant(1), Around, "t", &10u64.to_le_bytes()));
        let long = "l".repeat(BYTES_MAX / 2 + 1);
        for payload in [b"1", b"2"] {
            echo.note(Instant(2), Here, &long, payload);
        }
        assert!(echo.bytes <= BYTES_MAX);
        assert!(echo.is_echo(Instant(2), Around, &long, b"2"));
        assert!(!echo.is_echo(Instant(2), Around, &long, b"1"));
    }

    #[test]
    fn a_neighbour_may_say_the_same_again_where_nothing_comes_back() {
        let mut echo = Echo::new(1);
        let now = Instant(1);
        for _ in 0..5 {
            assert!(!echo.is_echo(now, Around, "alive", b"1"));
            echo.note(now, Bridge, "alive", b"1");
        }
        assert!(echo.is_echo(now, Same, "alive", b"1"), "the same connection never brings news");
        echo.note(now, Here, "own", b"1");
        assert!(echo.is_echo(now, Around, "own", b"1"));
        assert!(echo.is_echo(now, Around, "alive", b"1"), "there is a loop");
        for number in 0..u64::from(RETURNS_ONE_IN) {
            echo.note(now, Here, "own", &number.to_le_bytes());
        }
        assert!(!echo.is_echo(now, Around, "alive", b"1"), "it was opened");
    }

    /// Brokers, each with one bridge that forwards everything; `next[n]`: where that of `n` leads.
    struct Net {
        echoes: Vec<Echo>,
        next: Vec<Option<usize>>,
        prefix: &'static str,
        /// On their way: where to, topic, payload.
        moving: VecDeque<(usize, String, Vec<u8>)>,
        /// By broker: what its subscribers got.
        seen: Vec<Vec<(String, Vec<u8>)>>,
    }

    impl Net {
        fn new(next: &[Option<usize>], prefix: &'static str) -> Net {
            let echoes = (0..next.len() as u64).map(Echo::new).collect();
            let seen = vec![Vec::new(); next.len()];
            Net { echoes, next: next.to_vec(), prefix, moving: VecDeque::new(), seen }
        }

        fn arrive(&mut self, now: Instant, at: usize, origin: Origin, topic: &str, payload: &[u8]) {
            self.seen[at].push((topic.to_owned(), payload.to_vec()));
            let Some(next) = self.next[at] else { return };
            let mapped = format!("{}{topic}", self.prefix);
            let echo = &mut self.echoes[at];
            if origin == Bridge && echo.is_echo(now, Around, &mapped, payload) {
                return;
            }
            echo.note(now, origin, &mapped, payload);
            self.moving.push_back((next, mapped, payload.to_vec()));
        }

        /// Everything on its way arrives, in any order; how many there were.
        fn settle(&mut self, now: Instant, random: &mut Random, count_max: usize) -> usize {
            let mut count = 0;
            while count < count_max && !self.moving.is_empty() {
                let place = random.below(self.moving.len() as u64) as usize;
                let Some((at, topic, payload)) = self.moving.remove(place) else { break };
                self.arrive(now, at, Bridge, &topic, &payload);
                count += 1;
            }
            count
        }
    }

    fn check_ring(next: &[Option<usize>], prefix: &'static str, payloads: u64) {
        let mut random = Random::new(3);
        let mut net = Net::new(next, prefix);
        let now = Instant(1);
        let message_count = 300;
        for number in 0..message_count {
            let at = random.below(next.len() as u64) as usize;
            let payload = (number % payloads).to_le_bytes();
            net.arrive(now, at, Here, &format!("t/{}", number % 3), &payload);
            net.settle(now, &mut random, 4);
        }
        net.settle(now, &mut random, 1_000_000);
        assert!(net.moving.is_empty(), "messages go round and round");
        // Where it began, and once around, back to where it began.
        let seen: usize = net.seen.iter().map(Vec::len).sum();
        assert_eq!(seen, message_count as usize * (1 + next.len()));
    }

    #[test]
    fn two_brokers_and_a_ring_of_three_pass_each_message_once_around() {
        let (two, three) = ([Some(1), Some(0)], [Some(1), Some(2), Some(0)]);
        for prefix in ["", "x/"] {
            check_ring(&two, prefix, u64::MAX);
            check_ring(&three, prefix, u64::MAX);
        }
    }

    #[test]
    fn what_repeats_itself_stops_in_a_ring_and_passes_a_chain() {
        let mut random = Random::new(5);
        let now = Instant(1);
        let mut ring = Net::new(&[Some(1), Some(2), Some(0)], "");
        for _ in 0..200 {
            ring.arrive(now, 0, Here, "alive", b"1");
            ring.settle(now, &mut random, 2);
        }
        ring.settle(now, &mut random, 1_000_000);
        assert!(ring.moving.is_empty());
        assert_eq!(ring.seen.iter().map(Vec::len).collect::<Vec<_>>(), [400, 200, 200]);
        let mut chain = Net::new(&[Some(1), Some(2), None], "");
        for _ in 0..200 {
            chain.arrive(now, 0, Here, "alive", b"1");
            chain.settle(now, &mut random, 2);
        }
        chain.settle(now, &mut random, 1_000_000);
        assert_eq!(chain.seen.iter().map(Vec::len).collect::<Vec<_>>(), [200, 200, 200]);
    }

    #[test]
    fn a_message_that_was_long_on_its_way_stops_the_next_time() {
        let mut random = Random::new(7);
        let mut ring = Net::new(&[Some(1), Some(2), Some(0)], "");
        let mut now = Instant(1);
        for number in 0..20_u64 {
            ring.arrive(now, 0, Here, "t", &number.to_le_bytes());
            ring.settle(now, &mut random, 1_000_000);
        }
        ring.arrive(now, 0, Here, "late", b"late");
        ring.settle(now, &mut random, 1);
        now = now.plus_ms(2 * LIFETIME_MS);
        let count = ring.settle(now, &mut random, 10_000);
        assert!(count < 10, "{count}");
    }
}
