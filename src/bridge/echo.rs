//! Recognises messages that come back over a bridge by their contents: nothing is added to them.
//!
//! A sent message leaves an entry: a fingerprint of its payload and last topic level, and the topic. A message from a bridge
//! uses up an entry with the same payload if the topics are equal, or if one topic is the other's end from a level boundary
//! on. So a prefix that another broker adds does not hide an echo. Properties do not count: 3.1.1 loses them, and plugins and
//! bridges add to them. Entries live a minute, and their number is bounded: at the bound the oldest entries go.
//!
//! A neighbour that hands on the same reading twice is no loop. A message that came from a bridge and comes from a bridge
//! again counts as an echo only while this broker's own messages come back, too.
//!
//! The price: if a neighbour publishes the same payload to the same topic as this broker within the minute, the neighbour's
//! message is not sent on. An operator without loops can turn the recognition off.
//!
//! The entries of 57,344 messages take some 5 MiB, and their topics up to 8 MiB more. Where a bridge of ours subscribes, the
//! shard reports each message for a client that is a bridge to the executor before the message leaves the shard. The
//! executor takes all reports before it asks for echoes. While a lane has no room for all reports, possible echoes wait.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::hash::KeyedHash;
use crate::time::Instant;

const LIFETIME_MS: u64 = 60_000;
/// Half of the entries that fit into a table of 2^17 buckets: so the table drops removed entries in place and never
/// grows for them.
const ENTRY_COUNT_MAX: usize = 7 << 13;
/// The bound on the bytes of all topics.
const BYTES_MAX: usize = 8 << 20;
/// A search looks at this many entries of one fingerprint at most.
const SCAN_MAX: usize = 1024;

/// There is a loop while at least one message in this many comes back.
const RETURNS_ONE_IN: u32 = 16;
/// Counts are halved at this many, so that old evidence fades.
const EVIDENCE_MAX: u32 = 512;

/// Entries have numbers that rise and wrap. No entry is an allocation of its own: entries come and go as fast as messages,
/// and would leave holes in the heap.
pub struct Echo {
    hash: KeyedHash,
    /// The chain of each fingerprint that has entries.
    chains: HashTable<Chain>,
    /// All entries, the oldest first.
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u32,
    /// The topics of all entries, one behind the other.
    topics: VecDeque<u8>,
    /// Messages of this broker's own that were sent, and how many of them came back around.
    own_count: u32,
    returned_count: u32,
}

/// The oldest and the newest entry of one fingerprint; each entry knows the next newer one.
#[derive(Clone, Copy)]
struct Chain {
    oldest: u32,
    newest: u32,
}

struct Entry {
    print: u64,
    ends_at: Instant,
    /// The number of the fingerprint's next newer entry, unless this entry is the newest.
    next: u32,
    /// Where the topic begins, in bytes ever put into `topics`, wrapping.
    topic_at: u32,
    topic_size: u16,
    origin: Origin,
    /// Whether the entry was taken out of its chain.
    is_used_up: bool,
}

const _: () = assert!(size_of::<Entry>() == 32 && size_of::<Chain>() == 8);
// Numbers and positions are told apart by their lowest 32 bits.
const _: () = assert!(ENTRY_COUNT_MAX < 1 << 31 && BYTES_MAX < 1 << 31);

/// The source of a message that is sent over a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this broker published the message.
    Here,
    /// Another bridge brought the message: a bridge of ours, or a client that is a bridge.
    Bridge,
}

/// The way on which a possible echo came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// The message came over the connection that it was sent over: a remote without no-local returns every message so.
    Same,
    /// The message came over any other bridge.
    Around,
}

impl Echo {
    pub fn new(seed: u64) -> Echo {
        Echo {
            hash: KeyedHash::new(seed),
            chains: HashTable::new(),
            entries: VecDeque::new(),
            first: 0,
            topics: VecDeque::new(),
            own_count: 0,
            returned_count: 0,
        }
    }

    /// Notes that a message was sent with this topic.
    pub fn note(&mut self, now: Instant, origin: Origin, topic: &str, payload: &[u8]) {
        self.expire(now);
        let Ok(topic_size) = u16::try_from(topic.len()) else { return };
        while self.entries.len() >= ENTRY_COUNT_MAX || self.topics.len() + topic.len() > BYTES_MAX {
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
        let number = self.first.wrapping_add(self.entries.len() as u32);
        let print = self.print(topic, payload);
        let ends_at = now.plus_ms(LIFETIME_MS);
        let topic_at = self.topics_begin().wrapping_add(self.topics.len() as u32);
        self.topics.extend(topic.as_bytes());
        self.entries.push_back(Entry {
            print,
            ends_at,
            next: number,
            topic_at,
            topic_size,
            origin,
            is_used_up: false,
        });
        let Echo { chains, entries, first, .. } = self;
        let index_of = |number: u32| number.wrapping_sub(*first) as usize;
        match chains.find_mut(print, |chain| entries[index_of(chain.oldest)].print == print) {
            Some(chain) => {
                entries[index_of(chain.newest)].next = number;
                chain.newest = number;
            }
            None => {
                let chain = Chain { oldest: number, newest: number };
                let hash_of = |chain: &Chain| entries[index_of(chain.oldest)].print;
                chains.insert_unique(print, chain, hash_of);
            }
        }
    }

    /// Whether a message from a bridge, which would leave with `topic`, was sent before. If so, its entry is used up.
    pub fn is_echo(&mut self, now: Instant, way: Return, topic: &str, payload: &[u8]) -> bool {
        self.expire(now);
        let print = self.print(topic, payload);
        let Some((number, before)) = self.find(print, way, topic) else { return false };
        self.unchain(print, number, before);
        let index = self.index_of(number);
        self.entries[index].is_used_up = true;
        if way == Return::Around && self.entries[index].origin == Origin::Here {
            self.returned_count += 1;
        }
        self.expire(now);
        true
    }

    /// Gives back memory that the entries of a busier minute needed.
    pub fn trim(&mut self, now: Instant) {
        self.expire(now);
        let Echo { chains, entries, topics, first, .. } = self;
        let index_of = |number: u32| number.wrapping_sub(*first) as usize;
        // A table grows to twice its content, and once more for removed entries.
        if chains.capacity() > 8 * chains.len() {
            chains.shrink_to(2 * chains.len(), |chain| entries[index_of(chain.oldest)].print);
        }
        if entries.capacity() > 4 * entries.len() {
            entries.shrink_to(2 * entries.len());
        }
        if topics.capacity() > 4 * topics.len() {
            topics.shrink_to(2 * topics.len());
        }
    }

    /// The oldest corresponding entry of this broker's own messages, or, where messages of bridges count, of a
    /// bridge's; and the entry before it in its chain.
    fn find(&self, print: u64, way: Return, topic: &str) -> Option<(u32, Option<u32>)> {
        let takes_bridge = way == Return::Same || self.is_loop();
        let chain = self.chains.find(print, |chain| self.entry(chain.oldest).print == print)?;
        let mut found = None;
        let (mut number, mut before) = (chain.oldest, None);
        for _ in 0..SCAN_MAX {
            let entry = self.entry(number);
            if (entry.origin == Origin::Here || takes_bridge && found.is_none())
                && corresponds(self.topic_of(entry), topic.as_bytes())
            {
                found = Some((number, before));
                if entry.origin == Origin::Here {
                    break;
                }
            }
            if number == chain.newest {
                break;
            }
            before = Some(number);
            number = entry.next;
        }
        found
    }

    /// Takes an entry, the one behind `before`, out of its chain.
    fn unchain(&mut self, print: u64, number: u32, before: Option<u32>) {
        let Echo { chains, entries, first, .. } = self;
        let index_of = |number: u32| number.wrapping_sub(*first) as usize;
        let next = entries[index_of(number)].next;
        let is_it = |chain: &Chain| entries[index_of(chain.oldest)].print == print;
        let Ok(mut place) = chains.find_entry(print, is_it) else { return };
        let chain = place.get_mut();
        match before {
            None if chain.newest == number => {
                place.remove();
            }
            None => chain.oldest = next,
            Some(before) => {
                if chain.newest == number {
                    chain.newest = before;
                }
                entries[index_of(before)].next = next;
            }
        }
    }

    fn is_loop(&self) -> bool {
        self.returned_count > 0
            && self.returned_count.saturating_mul(RETURNS_ONE_IN) >= self.own_count
    }

    fn print(&self, topic: &str, payload: &[u8]) -> u64 {
        // Topics that correspond have their last level in common.
        let last = topic.rsplit('/').next().unwrap_or_default();
        // Payload and level are hashed apart, so that a byte cannot move from one to the other.
        self.hash.bytes(payload) ^ self.hash.bytes(last.as_bytes()).rotate_left(32)
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| entry.is_used_up || entry.ends_at <= now) {
            self.forget_oldest();
        }
    }

    /// Returns `false` if there is no entry.
    fn forget_oldest(&mut self) -> bool {
        let Some(&Entry { print, topic_size, is_used_up, .. }) = self.entries.front() else {
            return false;
        };
        if !is_used_up {
            // The numbers of a fingerprint rise: the oldest entry is the first of its chain.
            self.unchain(print, self.first, None);
        }
        self.entries.pop_front();
        self.first = self.first.wrapping_add(1);
        self.topics.drain(..usize::from(topic_size));
        true
    }

    fn index_of(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    fn entry(&self, number: u32) -> &Entry {
        &self.entries[self.index_of(number)]
    }

    /// Where `topics` begins, in bytes ever put into it, wrapping.
    fn topics_begin(&self) -> u32 {
        self.entries.front().map_or(0, |entry| entry.topic_at)
    }

    fn topic_of(&self, entry: &Entry) -> impl DoubleEndedIterator<Item = &u8> {
        let begin = entry.topic_at.wrapping_sub(self.topics_begin()) as usize;
        self.topics.range(begin..begin + usize::from(entry.topic_size))
    }
}

/// Whether the topics are equal, or one topic is the other's end from a level boundary on.
fn corresponds<'a>(one: impl DoubleEndedIterator<Item = &'a u8>, other: &'a [u8]) -> bool {
    let (mut one, mut other) = (one.rev(), other.iter().rev());
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            (Some(b'/'), None) | (None, Some(b'/')) => return true,
            _ => return false,
        }
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
        assert_eq!((echo.chains.len(), echo.entries.len(), echo.topics.len()), (0, 0, 0));
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
        let long = "l".repeat(usize::from(u16::MAX));
        let count = (BYTES_MAX / long.len()) as u64;
        for number in 0..=count {
            echo.note(Instant(2), Here, &long, &number.to_le_bytes());
        }
        assert!(echo.topics.len() <= BYTES_MAX);
        assert!(!echo.is_echo(Instant(2), Around, &long, &0u64.to_le_bytes()));
        assert!(echo.is_echo(Instant(2), Around, &long, &1u64.to_le_bytes()));
    }

    #[test]
    fn entries_leave_in_any_order_as_a_plain_list_of_them_would() {
        let mut random = Random::new(9);
        let (mut echo, mut model) = (Echo::new(1), VecDeque::new());
        // Numbers and positions wrap during the test.
        echo.first = u32::MAX - 1000;
        let mut now = Instant(0);
        let mut found_count = 0;
        for step in 0..20_000 {
            now = now.plus_ms(random.below(400));
            model.retain(|&(_, _, ends_at)| ends_at > now);
            let (topic, payload) = (format!("t/{}", random.below(3)), [random.below(40) as u8]);
            if random.below(3) > 0 {
                echo.note(now, Here, &topic, &payload);
                model.push_back((topic, payload, now.plus_ms(LIFETIME_MS)));
            } else {
                let place = model.iter().position(|entry| (&entry.0, entry.1) == (&topic, payload));
                let expected = place.and_then(|place| model.remove(place)).is_some();
                found_count += usize::from(expected);
                assert_eq!(echo.is_echo(now, Around, &topic, &payload), expected, "{step}");
            }
            if step % 1000 == 0 {
                echo.trim(now);
            }
        }
        assert!(found_count > 1000);
        echo.trim(now.plus_ms(LIFETIME_MS));
        let kept = (echo.chains.capacity(), echo.entries.capacity(), echo.topics.capacity());
        assert_eq!(kept, (0, 0, 0));
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

    /// Brokers, each with one bridge that forwards everything; the bridge of broker `n` leads to broker `next[n]`.
    struct Net {
        echoes: Vec<Echo>,
        next: Vec<Option<usize>>,
        prefix: &'static str,
        /// The messages on their way: destination, topic, payload.
        moving: VecDeque<(usize, String, Vec<u8>)>,
        /// The messages that the subscribers of each broker got.
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

        /// Lets every message on its way arrive, in any order, and returns their number.
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
        // The message is seen where it began, and at each broker on its way around, the first one included.
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
