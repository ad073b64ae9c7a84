//! The aliases that a client defined.

use crate::arena::{Budget, allocated};

/// Topics by alias, from 1 to a maximum. The memory is counted in a budget: 16 bytes for each alias up to the largest in use,
/// and the topics.
#[derive(Debug)]
pub struct InboundAliases {
    max: u16,
    /// The topic of each alias at index `alias - 1`. An alias that is not defined has an empty text, which no topic
    /// name is.
    topics: Vec<Box<str>>,
    /// Bytes that the topics take.
    topics_size: usize,
    budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// Alias 0, which MQTT does not have.
    Zero,
    AboveMax,
    /// The budget has no room for the topic.
    NoMemory,
}

impl Drop for InboundAliases {
    fn drop(&mut self) {
        self.budget.change(self.bytes(), 0);
    }
}

impl InboundAliases {
    /// Aliases without a bound of memory beside the maximum.
    pub fn new(max: u16) -> InboundAliases {
        InboundAliases::within(Budget::default(), max)
    }

    pub fn within(budget: Budget, max: u16) -> InboundAliases {
        let aliases = InboundAliases { max, topics: Vec::new(), topics_size: 0, budget };
        aliases.budget.change(0, aliases.bytes());
        aliases
    }

    pub fn max(&self) -> u16 {
        self.max
    }

    fn bytes(&self) -> usize {
        // The aliases of a connection have an allocation of their own.
        allocated(size_of::<InboundAliases>())
            + places_size(self.topics.capacity())
            + self.topics_size
    }

    /// Defines an alias, or gives it another topic.
    pub fn set(&mut self, alias: u16, topic: &str) -> Result<(), AliasError> {
        // [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.3.2-12]
        let index = usize::from(alias).checked_sub(1).ok_or(AliasError::Zero)?;
        if alias > self.max {
            return Err(AliasError::AboveMax);
        }
        // Some clients send the same definition with every message.
        match self.topics.get(index) {
            Some(known) if **known == *topic => Ok(()),
            known => {
                let known_size = known.map_or(0, |known| allocated(known.len()));
                self.define(index, topic, known_size)
            }
        }
    }

    fn define(&mut self, index: usize, topic: &str, known_size: usize) -> Result<(), AliasError> {
        let (before, capacity) = (self.bytes(), self.topics.capacity());
        let places = match index < capacity {
            true => capacity,
            false => (index + 1).max(2 * capacity).min(usize::from(self.max)),
        };
        let grown = places_size(places) - places_size(capacity) + allocated(topic.len());
        if grown > known_size && !self.budget.has_room(grown - known_size) {
            return Err(AliasError::NoMemory);
        }
        if places > capacity {
            self.topics.reserve_exact(places - self.topics.len());
        }
        if index >= self.topics.len() {
            self.topics.resize_with(index + 1, Box::default);
        }
        self.topics[index] = topic.into();
        self.topics_size = self.topics_size - known_size + allocated(topic.len());
        self.budget.change(before, self.bytes());
        Ok(())
    }

    pub fn get(&self, alias: u16) -> Option<&str> {
        let topic = self.topics.get(usize::from(alias).checked_sub(1)?)?;
        (!topic.is_empty()).then_some(topic)
    }
}

fn places_size(count: usize) -> usize {
    allocated(count * size_of::<Box<str>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_defined_within_bounds_and_redefined() {
        let mut aliases = InboundAliases::new(10);
        assert_eq!(aliases.set(0, "a"), Err(AliasError::Zero));
        assert_eq!(aliases.set(11, "a"), Err(AliasError::AboveMax));
        assert_eq!(aliases.set(u16::MAX, "a"), Err(AliasError::AboveMax));
        assert_eq!(aliases.topics.capacity(), 0);
        assert_eq!(aliases.set(10, "a"), Ok(()));
        assert_eq!(aliases.set(3, "b"), Ok(()));
        let defined = |aliases: &InboundAliases| -> Vec<(u16, String)> {
            (0..=u16::MAX).filter_map(|n| Some((n, aliases.get(n)?.to_owned()))).collect()
        };
        assert_eq!(defined(&aliases), [(3, "b".into()), (10, "a".into())]);
        assert_eq!(aliases.set(3, "a"), Ok(()));
        assert_eq!(aliases.set(10, "c/d"), Ok(()));
        assert_eq!(defined(&aliases), [(3, "a".into()), (10, "c/d".into())]);
    }

    #[test]
    fn aliases_take_no_more_than_the_budget_has_and_give_it_back() {
        let budget = Budget::new(10_000);
        let used = allocation_counter::measure(|| {
            let mut all: Vec<_> =
                (0..3).map(|_| InboundAliases::within(budget.clone(), 100)).collect();
            let topic = "t".repeat(1_000);
            let count =
                (0..300).filter(|n| all[n % 3].set(1 + *n as u16 / 3, &topic).is_ok()).count();
            assert_eq!((count, budget.has_room(1_100)), (9, false), "{budget:?}");
            // A topic that an alias has may be defined again, and a shorter one may take its place.
            assert_eq!(all[0].set(1, &topic), Ok(()));
            assert_eq!(all[0].set(2, "short"), Ok(()));
            assert_eq!(all[1].set(50, &topic), Err(AliasError::NoMemory));
            assert_eq!(all[1].get(50), None);
            std::mem::forget(all);
        });
        let used = used.bytes_current as usize;
        assert!(budget.bytes() > used && budget.bytes() < used * 6 / 5, "{budget:?} of {used}");
    }

    #[test]
    fn without_a_maximum_there_are_no_aliases() {
        let mut aliases = InboundAliases::new(0);
        assert_eq!(aliases.set(1, "a"), Err(AliasError::AboveMax));
        assert_eq!((aliases.get(0), aliases.get(1)), (None, None));
    }
}
