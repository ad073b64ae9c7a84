//! The aliases that we define towards a client: for its busiest topics.

use crate::hash::KeyedHash;

/// Chooses aliases. At first every topic gets one; when all are given away, a topic gets the alias of another only when
/// it is seen more often than that one, so that topics that come once cost neither memory nor bytes on the wire.
#[derive(Clone, Debug)]
pub struct OutboundAliases {
    max: u16,
    table: Option<Box<Table>>,
}

/// How to name a topic in a PUBLISH. The connection must send what it was told, or close: from `New` on, the alias counts
/// as known to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundAlias {
    /// The topic alone.
    None,
    /// The topic and the alias.
    New(u16),
    /// The alias alone.
    Known(u16),
}

/// The most aliases we define, whatever a client allows: they are searched one by one, and more of them save little.
const ALIASES_MAX: u16 = 256;

/// Topics without an alias whose messages are counted at a time.
const RIVALS: usize = 32;

/// Counts are halved after so many messages for each alias, and for each rival, so that old fame fades.
const MESSAGES_PER_HALVING: u32 = 32;

/// Parallel arrays: the search reads nothing but the fingerprints.
#[derive(Clone, Debug)]
struct Table {
    /// Of alias `index + 1`, as in the next two.
    fingerprints: Vec<u32>,
    hits: Vec<u32>,
    topics: Vec<Box<str>>,
    rivals: [Rival; RIVALS],
    messages_to_halving: u32,
    hash: KeyedHash,
}

/// The most frequent of the topics that share a place, by majority vote: another topic's message takes a hit away, and
/// the place when no hit is left.
#[derive(Clone, Copy, Debug, Default)]
struct Rival {
    fingerprint: u32,
    hits: u32,
}

impl OutboundAliases {
    /// `max` is what the client allows, or less.
    pub fn new(max: u16) -> OutboundAliases {
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
        OutboundAliases { max: max.min(ALIASES_MAX), table: None }
    }

    /// Counts a message with `topic`, and says how to name the topic in it.
    pub fn alias(&mut self, topic: &str) -> OutboundAlias {
        if self.max == 0 {
            return OutboundAlias::None;
        }
        self.table.get_or_insert_with(|| Box::new(Table::new(self.max))).alias(topic, self.max)
    }
}

impl Table {
    fn new(max: u16) -> Table {
        Table {
            fingerprints: Vec::new(),
            hits: Vec::new(),
            topics: Vec::new(),
            rivals: [Rival::default(); RIVALS],
            messages_to_halving: halving_period(max),
            // Equal fingerprints cost a comparison and blur a count, no more: the key need not be secret.
            hash: KeyedHash::new(0),
        }
    }

    fn alias(&mut self, topic: &str, max: u16) -> OutboundAlias {
        self.fade(max);
        let fingerprint = self.hash.bytes(topic.as_bytes()) as u32;
        if let Some(index) = self.find(fingerprint, topic) {
            self.hits[index] += 1;
            return OutboundAlias::Known(alias_at(index));
        }
        if self.topics.len() < usize::from(max) {
            self.fingerprints.push(fingerprint);
            self.hits.push(1);
            self.topics.push(topic.into());
            return OutboundAlias::New(alias_at(self.topics.len() - 1));
        }
        match self.displace(fingerprint) {
            Some(index) => {
                self.topics[index] = topic.into();
                OutboundAlias::New(alias_at(index))
            }
            None => OutboundAlias::None,
        }
    }

    fn find(&self, fingerprint: u32, topic: &str) -> Option<usize> {
        let mut start = 0;
        while let Some(at) =
            self.fingerprints[start..].iter().position(|&other| other == fingerprint)
        {
            if *self.topics[start + at] == *topic {
                return Some(start + at);
            }
            start += at + 1;
        }
        None
    }

    /// Counts a topic that has no alias. If it has become busier than one that has, takes that one's place, at the index
    /// returned.
    fn displace(&mut self, fingerprint: u32) -> Option<usize> {
        let rival = &mut self.rivals[fingerprint as usize % RIVALS];
        if rival.hits == 0 {
            *rival = Rival { fingerprint, hits: 1 };
            return None;
        }
        if rival.fingerprint != fingerprint {
            rival.hits -= 1;
            return None;
        }
        rival.hits += 1;
        let (index, &least) = self.hits.iter().enumerate().min_by_key(|&(_, hits)| *hits)?;
        if rival.hits <= least + 1 {
            return None;
        }
        self.hits[index] = std::mem::take(&mut rival.hits);
        self.fingerprints[index] = fingerprint;
        Some(index)
    }

    fn fade(&mut self, max: u16) {
        self.messages_to_halving -= 1;
        if self.messages_to_halving == 0 {
            self.messages_to_halving = halving_period(max);
            self.hits.iter_mut().for_each(|hits| *hits /= 2);
            self.rivals.iter_mut().for_each(|rival| rival.hits /= 2);
        }
    }
}

fn alias_at(index: usize) -> u16 {
    index as u16 + 1
}

fn halving_period(max: u16) -> u32 {
    MESSAGES_PER_HALVING * (u32::from(max) + RIVALS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn topics_with_the_same_fingerprint_are_not_confused() {
        let hash = KeyedHash::new(0);
        let mut seen = HashMap::new();
        let (first, second) = (0..1_000_000_u32)
            .find_map(|n| {
                let topic = format!("t{n}");
                let other = seen.insert(hash.bytes(topic.as_bytes()) as u32, topic.clone())?;
                Some((other, topic))
            })
            .unwrap();
        let mut aliases = OutboundAliases::new(3);
        assert_eq!(aliases.alias("x"), OutboundAlias::New(1));
        assert_eq!(aliases.alias(&first), OutboundAlias::New(2));
        assert_eq!(aliases.alias(&second), OutboundAlias::New(3));
        assert_eq!(aliases.alias(&first), OutboundAlias::Known(2));
        assert_eq!(aliases.alias(&second), OutboundAlias::Known(3));
    }

    #[test]
    fn more_aliases_than_are_searched_are_not_defined() {
        let mut aliases = OutboundAliases::new(u16::MAX);
        let new = (0..1000).filter(|n| aliases.alias(&n.to_string()) == OutboundAlias::New(n + 1));
        assert_eq!(new.count(), usize::from(ALIASES_MAX));
    }
}
