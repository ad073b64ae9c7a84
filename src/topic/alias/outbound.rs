//! The aliases that we define towards a client: for its busiest topics.

use crate::arena::{Budget, allocated};
use crate::hash::KeyedHash;

/// Chooses aliases. At first every topic gets one. When all are given away, a topic gets the alias of another only when
/// it is seen more often than that one, so that topics that come once cost neither memory nor bytes on the wire. A
/// topic gets no alias if the budget has no room for its text.
#[derive(Debug)]
pub struct OutboundAliases {
    max: u16,
    table: Option<Box<Table>>,
    budget: Budget,
}

/// How to name a topic in a PUBLISH. The connection must send what it was told, or close: from `New` on, the alias
/// counts as known to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundAlias {
    /// The topic without an alias.
    None,
    /// The topic with an alias.
    New(u16),
    /// The alias without the topic.
    Known(u16),
}

/// The most aliases that we define, whatever a client allows: they are searched one by one, and more of them save
/// little.
const ALIASES_MAX: u16 = 256;

/// How many topics without an alias are counted at a time.
const RIVALS: usize = 32;

/// Counts are halved after so many messages for each alias and for each rival, so that a topic that was busy once loses
/// its alias.
const MESSAGES_PER_HALVING: u32 = 32;

/// The aliases in parallel arrays: the search reads nothing but the fingerprints.
#[derive(Debug)]
struct Table {
    /// Alias `index + 1` stands at `index` here and in the next two arrays.
    fingerprints: Vec<u32>,
    hits: Vec<u32>,
    topics: Vec<Box<str>>,
    /// Bytes that the topics take.
    topics_size: usize,
    rivals: [Rival; RIVALS],
    messages_to_halving: u32,
    hash: KeyedHash,
}

/// The most frequent of the topics that share an entry, by majority vote: a message of another topic takes a hit away,
/// and the entry when no hit is left.
#[derive(Clone, Copy, Debug, Default)]
struct Rival {
    fingerprint: u32,
    hits: u32,
}

impl Drop for OutboundAliases {
    fn drop(&mut self) {
        self.budget.change(self.bytes(), 0);
    }
}

impl OutboundAliases {
    /// Aliases without a bound of memory beside the maximum. `max` is what the client allows, or less.
    pub fn new(max: u16) -> OutboundAliases {
        OutboundAliases::within(Budget::default(), max)
    }

    pub fn within(budget: Budget, max: u16) -> OutboundAliases {
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
        let aliases = OutboundAliases { max: max.min(ALIASES_MAX), table: None, budget };
        aliases.budget.change(0, aliases.bytes());
        aliases
    }

    fn bytes(&self) -> usize {
        // The table of a connection's aliases has an allocation of its own.
        let table = self.table.as_ref().map_or(0, |table| table.bytes());
        allocated(size_of::<OutboundAliases>()) + table
    }

    /// Counts a message with `topic`, and says how to name the topic in it.
    pub fn alias(&mut self, topic: &str) -> OutboundAlias {
        if self.max == 0 {
            return OutboundAlias::None;
        }
        let before = self.bytes();
        if self.table.is_none() {
            if !self.budget.has_room(allocated(size_of::<Table>())) {
                return OutboundAlias::None;
            }
            self.table = Some(Box::new(Table::new(self.max)));
        }
        let Some(table) = &mut self.table else { return OutboundAlias::None };
        let alias = table.alias(topic, self.max, &self.budget);
        if matches!(alias, OutboundAlias::New(_)) || before < allocated(size_of::<Table>()) {
            self.budget.change(before, self.bytes());
        }
        alias
    }
}

impl Table {
    fn new(max: u16) -> Table {
        Table {
            fingerprints: Vec::new(),
            hits: Vec::new(),
            topics: Vec::new(),
            topics_size: 0,
            rivals: [Rival::default(); RIVALS],
            messages_to_halving: halving_period(max),
            // Topics with equal fingerprints cost one comparison and blur a count. The key need not be secret for that.
            hash: KeyedHash::new(0),
        }
    }

    fn bytes(&self) -> usize {
        allocated(size_of::<Table>()) + places_size(self.topics.capacity()) + self.topics_size
    }

    fn alias(&mut self, topic: &str, max: u16, budget: &Budget) -> OutboundAlias {
        self.fade(max);
        let fingerprint = self.hash.bytes(topic.as_bytes()) as u32;
        if let Some(index) = self.find(fingerprint, topic) {
            self.hits[index] += 1;
            return OutboundAlias::Known(alias_at(index));
        }
        let (count, capacity) = (self.topics.len(), self.topics.capacity());
        let size = allocated(topic.len());
        if count < usize::from(max) {
            let places = if count < capacity { capacity } else { (2 * capacity).max(4) };
            let places = places.min(usize::from(max).max(capacity));
            let grown = places_size(places) - places_size(capacity);
            if !budget.has_room(size + grown) {
                return OutboundAlias::None;
            }
            self.reserve(places - count);
            self.fingerprints.push(fingerprint);
            self.hits.push(1);
            self.topics.push(topic.into());
            self.topics_size += size;
            return OutboundAlias::New(alias_at(self.topics.len() - 1));
        }
        if !budget.has_room(size) {
            return OutboundAlias::None;
        }
        match self.displace(fingerprint) {
            Some(index) => {
                self.topics_size = self.topics_size - allocated(self.topics[index].len()) + size;
                self.topics[index] = topic.into();
                OutboundAlias::New(alias_at(index))
            }
            None => OutboundAlias::None,
        }
    }

    fn reserve(&mut self, count: usize) {
        self.fingerprints.reserve_exact(count);
        self.hits.reserve_exact(count);
        self.topics.reserve_exact(count);
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

    /// Counts a topic that has no alias. A topic that has become busier than the least busy one with an alias takes
    /// that one's place; its index is returned.
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

fn places_size(count: usize) -> usize {
    2 * allocated(count * size_of::<u32>()) + allocated(count * size_of::<Box<str>>())
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
    fn a_topic_without_room_in_the_budget_gets_no_alias() {
        let budget = Budget::new(5_000);
        let mut counts = [0; 3];
        let used = allocation_counter::measure(|| {
            let mut all: Vec<_> =
                (0..3).map(|_| OutboundAliases::within(budget.clone(), 16)).collect();
            for n in 0..90 {
                let topic = format!("{}/{}", n / 3 % 10, "t".repeat(500));
                counts[match all[n % 3].alias(&topic) {
                    OutboundAlias::None => 0,
                    OutboundAlias::New(_) => 1,
                    OutboundAlias::Known(_) => 2,
                }] += 1;
            }
            std::mem::forget(all);
        });
        assert!(counts.iter().all(|count| *count > 5) && budget.bytes() <= 5_000, "{counts:?}");
        let used = used.bytes_current as usize;
        assert!(budget.bytes() > used && budget.bytes() < used * 6 / 5, "{budget:?} of {used}");
    }

    #[test]
    fn more_aliases_than_are_searched_are_not_defined() {
        let mut aliases = OutboundAliases::new(u16::MAX);
        let new = (0..1000).filter(|n| aliases.alias(&n.to_string()) == OutboundAlias::New(n + 1));
        assert_eq!(new.count(), usize::from(ALIASES_MAX));
    }
}
