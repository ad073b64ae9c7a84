//! Messages whose every byte follows from who sends them and their number: a receiver can tell what each should have been.

use std::collections::HashMap;

use crate::client::Delivery;
use crate::fields::Type;
use crate::wire::{self, Version};

/// The publisher and the number, in front of each payload.
const HEAD_SIZE: usize = 16;
/// Of one to four bytes each.
const LETTERS: [char; 5] = ['a', '/', ' ', '\u{e9}', '\u{1f980}'];

/// A publisher of messages 0, 1, 2 and so on; message `n` goes to topic `n % topics.len()`.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub id: u64,
    pub version: Version,
    pub topics: Vec<String>,
    /// Payloads have up to this many bytes behind their head.
    pub size_max: usize,
}

pub(crate) struct Message {
    pub topic: String,
    /// As on the wire, without the length; empty before MQTT 5.
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Source {
    pub(crate) fn message(&self, number: u64) -> Message {
        let mut random = fastrand::Rng::with_seed(self.id << 32 ^ number);
        let size = random.usize(..=self.size_max);
        let mut payload = Vec::with_capacity(HEAD_SIZE + size);
        payload.extend(self.id.to_be_bytes());
        payload.extend(number.to_be_bytes());
        payload.resize(HEAD_SIZE + size, 0);
        random.fill(&mut payload[HEAD_SIZE..]);
        let mut properties = Vec::new();
        if self.version == Version::V5 {
            random_properties(&mut random, &mut properties);
        }
        let topic = self.topics[number as usize % self.topics.len()].clone();
        Message { topic, properties, payload }
    }
}

/// Those that a broker must pass on as they are, in any order, user properties among and between them.
fn random_properties(random: &mut fastrand::Rng, out: &mut Vec<u8>) {
    let mut places: Vec<(u8, Type)> = vec![(0x26, Type::Pair); random.usize(..5)];
    for place in [(0x01, Type::Byte), (0x03, Type::Text), (0x08, Type::Text), (0x09, Type::Binary)]
    {
        if random.bool() {
            places.push(place);
        }
    }
    random.shuffle(&mut places);
    for (id, kind) in places {
        out.push(id);
        match kind {
            Type::Byte => out.push(0),
            Type::Binary => {
                let bytes: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
                wire::prefixed(&bytes, out).unwrap();
            }
            _ => {
                // A response topic has at least one character, and no wildcard.
                let count = if kind == Type::Pair { 2 } else { 1 };
                for _ in 0..count {
                    let size = random.usize(usize::from(id == 0x08)..24);
                    let text: String =
                        (0..size).map(|_| LETTERS[random.usize(..LETTERS.len())]).collect();
                    wire::prefixed(text.as_bytes(), out).unwrap();
                }
            }
        }
    }
}

impl Message {
    /// The PUBLISH that carries it; `id` is written for QoS 1 and 2.
    pub(crate) fn publish(&self, version: Version, flags: u8, id: u16) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.payload.len() + self.properties.len() + 64);
        wire::prefixed(self.topic.as_bytes(), &mut body).unwrap();
        if flags & 0b0110 != 0 {
            body.extend(id.to_be_bytes());
        }
        if version == Version::V5 {
            wire::var_int(self.properties.len(), &mut body);
            body.extend(&self.properties);
        }
        body.extend(&self.payload);
        let mut packet = vec![0x30 | flags];
        wire::var_int(body.len(), &mut packet);
        packet.extend(body);
        packet
    }
}

/// What one receiver has got, held against what was sent.
pub(crate) struct Ledger<'a> {
    sources: &'a [Source],
    /// The last number by source and topic.
    last: HashMap<(u64, Vec<u8>), u64>,
    pub got_count: u64,
}

/// How the numbers of one source on one topic may follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Each the next one, from the first to be seen.
    Gapless,
    /// The next one, or one that was seen: sent again by a publisher or a broker whose link was cut.
    Repeating,
}

impl<'a> Ledger<'a> {
    /// `sources`: by their ids.
    pub(crate) fn new(sources: &'a [Source]) -> Ledger<'a> {
        Ledger { sources, last: HashMap::new(), got_count: 0 }
    }

    /// Checks every byte of a message and its place; who sent it and its number.
    pub(crate) fn take(
        &mut self,
        delivery: &Delivery<'_>,
        version: Version,
        follow: Follow,
    ) -> (u64, u64) {
        let (id, number) = self.check(delivery, version);
        let step = self.sources[id as usize].topics.len() as u64;
        let key = (id, delivery.topic.to_vec());
        let last = self.last.get(&key).copied();
        let follows = match (follow, last) {
            (_, None) => true,
            (Follow::Gapless, Some(last)) => number == last + step,
            (Follow::Repeating, Some(last)) => number <= last + step,
        };
        assert!(follows, "source {id}: {number} came after {last:?}, wanted {follow:?}");
        let highest = last.map_or(number, |last| last.max(number));
        self.last.insert(key, highest);
        self.got_count += 1;
        (id, number)
    }

    /// Checks every byte of a message; who sent it and its number.
    pub(crate) fn check(&self, delivery: &Delivery<'_>, version: Version) -> (u64, u64) {
        let word = |at: usize| {
            let bytes = delivery.payload.get(at..at + 8).expect("a payload with its head");
            u64::from_be_bytes(bytes.try_into().unwrap())
        };
        let (id, number) = (word(0), word(8));
        let source = self.sources.get(id as usize).unwrap_or_else(|| panic!("source {id}?"));
        let message = source.message(number);
        assert_eq!(delivery.topic, message.topic.as_bytes(), "topic of {id}/{number}");
        assert!(delivery.payload == message.payload, "payload of {id}/{number}");
        let wanted: &[u8] = if version == Version::V5 { &message.properties } else { &[] };
        assert_eq!(delivery.properties, wanted, "properties of {id}/{number}");
        (id, number)
    }
}
