//! The aliases that a client defined.

/// Topics by alias, from 1 to a maximum. The maximum bounds the memory: some 16 bytes for each alias up to the largest in
/// use, and the topics.
#[derive(Clone, Debug)]
pub struct InboundAliases {
    max: u16,
    /// At index `alias - 1`; empty, which no topic name is, for aliases not defined.
    topics: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// 0 is no alias.
    Zero,
    AboveMax,
}

impl InboundAliases {
    pub fn new(max: u16) -> InboundAliases {
        InboundAliases { max, topics: Vec::new() }
    }

    /// Defines an alias, or gives it another topic.
    pub fn set(&mut self, alias: u16, topic: &str) -> Result<(), AliasError> {
        // [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.3.2-12]
        let index = usize::from(alias).checked_sub(1).ok_or(AliasError::Zero)?;
        if alias > self.max {
            return Err(AliasError::AboveMax);
        }
        if index >= self.topics.len() {
            self.topics.resize_with(index + 1, Box::default);
        }
        // Some clients send the same definition with every message.
        if *self.topics[index] != *topic {
            self.topics[index] = topic.into();
        }
        Ok(())
    }

    pub fn get(&self, alias: u16) -> Option<&str> {
        let topic = self.topics.get(usize::from(alias).checked_sub(1)?)?;
        (!topic.is_empty()).then_some(topic)
    }
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
    fn without_a_maximum_there_are_no_aliases() {
        let mut aliases = InboundAliases::new(0);
        assert_eq!(aliases.set(1, "a"), Err(AliasError::AboveMax));
        assert_eq!((aliases.get(0), aliases.get(1)), (None, None));
    }
}
