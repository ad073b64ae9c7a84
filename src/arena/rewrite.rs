//! The last message made into another one, before any stage but the first has taken it.

use super::{AdmitError, Arena, Draft, Meta, NOWHERE, Stored};

/// What the last message becomes.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// `None`: as it is.
    pub topic: Option<&'a [u8]>,
    pub properties: RewriteProperties<'a>,
    /// `None`: as it is.
    pub payload: Option<&'a [u8]>,
    pub meta: Meta,
}

#[derive(Clone, Copy, Debug)]
pub enum RewriteProperties<'a> {
    Keep,
    /// Behind those that are there.
    Append(&'a [u8]),
    Replace(&'a [u8]),
}

/// How long the parts of a message are, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    topic: usize,
    properties: usize,
    payload: usize,
}

impl Sizes {
    fn sum(self) -> usize {
        self.topic + self.properties + self.payload
    }
}

impl Rewrite<'_> {
    fn sizes(&self, old: Sizes) -> Sizes {
        Sizes {
            topic: self.topic.map_or(old.topic, <[u8]>::len),
            properties: match self.properties {
                RewriteProperties::Keep => old.properties,
                RewriteProperties::Append(added) => old.properties + added.len(),
                RewriteProperties::Replace(properties) => properties.len(),
            },
            payload: self.payload.map_or(old.payload, <[u8]>::len),
        }
    }

    /// Changes a message of sizes `old` that begins at `start`; what is kept moves, and overwrites nothing else that
    /// is kept.
    fn write(&self, bytes: &mut [u8], start: usize, old: Sizes, new: Sizes) {
        let properties_at = start + old.topic;
        let payload_at = properties_at + old.properties;
        if let (None, RewriteProperties::Append(added), None) =
            (self.topic, self.properties, self.payload)
        {
            // What most hooks do.
            let end = payload_at + old.payload;
            bytes.copy_within(payload_at..end, payload_at + added.len());
            return bytes[payload_at..payload_at + added.len()].copy_from_slice(added);
        }
        let new_properties_at = start + new.topic;
        let new_payload_at = new_properties_at + new.properties;
        let move_payload = |bytes: &mut [u8]| {
            if self.payload.is_none() && payload_at != new_payload_at {
                bytes.copy_within(payload_at..payload_at + old.payload, new_payload_at);
            }
        };
        let move_properties = |bytes: &mut [u8]| {
            let is_kept = !matches!(self.properties, RewriteProperties::Replace(_));
            if is_kept && properties_at != new_properties_at {
                bytes.copy_within(properties_at..payload_at, new_properties_at);
            }
        };
        // Kept properties move no further to the right than the payload behind them.
        if new_payload_at >= payload_at {
            move_payload(bytes);
            move_properties(bytes);
        } else {
            move_properties(bytes);
            move_payload(bytes);
        }
        let mut put = |at: usize, piece: &[u8]| {
            bytes[at..at + piece.len()].copy_from_slice(piece);
        };
        if let Some(topic) = self.topic {
            put(start, topic);
        }
        match self.properties {
            RewriteProperties::Keep => {}
            RewriteProperties::Append(added) => put(new_properties_at + old.properties, added),
            RewriteProperties::Replace(properties) => put(new_properties_at, properties),
        }
        if let Some(payload) = self.payload {
            put(new_payload_at, payload);
        }
    }
}

impl Arena {
    /// Makes the last message what `rewrite` says: in place if it fits there, else in an allocation of its own. When
    /// there is no room for either, it stays as it was.
    pub fn rewrite_last(&mut self, rewrite: &Rewrite<'_>) -> Result<(), AdmitError> {
        assert!(self.held() > 0, "a message is rewritten while it is held");
        let index = self.index(self.admitted);
        let slot = &self.slots[index];
        assert!(slot.position != NOWHERE, "a message that was denied is not rewritten");
        let old = Sizes {
            topic: slot.topic_size as usize,
            properties: slot.properties_size as usize,
            payload: slot.payload_size as usize,
        };
        let new = rewrite.sizes(old);
        let capacity = self.bytes.len();
        let used_after = self.used() - old.sum() + new.sum();
        if used_after > capacity {
            return Err(AdmitError::Full);
        }
        let (position, is_large) = (slot.position, slot.large.is_some());
        if is_large || new.sum() >= self.large_message_size || position + new.sum() > capacity {
            self.rewrite_large(index, rewrite, old, new);
        } else {
            rewrite.write(&mut self.bytes, position, old, new);
            self.position = position + new.sum();
            self.head = self.head - old.sum() as u64 + new.sum() as u64;
        }
        let slot = &mut self.slots[index];
        slot.end = self.head;
        slot.topic_size = new.topic as u32;
        slot.properties_size = new.properties as u32;
        slot.payload_size = new.payload as u32;
        slot.meta = rewrite.meta;
        Ok(())
    }

    /// The last message gets an allocation, another one if it has one already: others may hold that.
    #[cold]
    fn rewrite_large(&mut self, index: usize, rewrite: &Rewrite<'_>, old: Sizes, new: Sizes) {
        let message = self.message_in(&self.slots[index]).expect("it was not denied");
        let pieces = match rewrite.properties {
            RewriteProperties::Keep => [message.properties, &[]],
            RewriteProperties::Append(added) => [message.properties, added],
            RewriteProperties::Replace(properties) => [properties, &[]],
        };
        let draft = Draft {
            topic: rewrite.topic.unwrap_or(message.topic),
            properties: &pieces,
            payload: rewrite.payload.unwrap_or(message.payload),
            meta: rewrite.meta,
        };
        let stored = Stored::from_draft(&draft, &self.stored_gauge);
        let slot = &mut self.slots[index];
        if slot.large.replace(stored).is_some() {
            self.large_bytes -= old.sum();
        } else {
            // Its place in the ring is free again.
            self.large_count += 1;
            self.head -= old.sum() as u64;
            self.position = slot.position;
        }
        self.large_bytes += new.sum();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gauge, Generation};
    use super::*;
    use crate::random::Random;
    use std::collections::VecDeque;

    fn meta(number: u64) -> Meta {
        let qos = (number % 3) as u8;
        Meta {
            qos,
            retain: number.is_multiple_of(2),
            is_origin: true,
            expires_at: None,
            publisher: number,
            from_bridge: number.is_multiple_of(5),
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Owned {
        topic: Vec<u8>,
        properties: Vec<u8>,
        payload: Vec<u8>,
        meta: Meta,
    }

    impl Owned {
        fn draw(random: &mut Random, size_max: u64) -> Owned {
            Owned {
                topic: piece(random, 1 + size_max / 4),
                properties: piece(random, size_max),
                payload: piece(random, size_max),
                meta: meta(random.number()),
            }
        }

        fn size(&self) -> usize {
            self.topic.len() + self.properties.len() + self.payload.len()
        }
    }

    fn piece(random: &mut Random, size_max: u64) -> Vec<u8> {
        (0..random.below(size_max)).map(|_| random.number() as u8).collect()
    }

    fn read(arena: &mut Arena, generation: Generation) -> Owned {
        let message = arena.get(generation).unwrap();
        let owned = Owned {
            topic: message.topic.to_vec(),
            properties: message.properties.to_vec(),
            payload: message.payload.to_vec(),
            meta: message.meta,
        };
        if let Some(stored) = message.stored {
            // What outlives the slot says the same.
            assert_eq!(stored.message().meta, owned.meta);
            assert_eq!(stored.message().properties, owned.properties);
        }
        owned
    }

    /// One of the ways to make `was` into something else, and what it should come to.
    fn change(random: &mut Random, was: &Owned, drawn: &Owned) -> (bool, u8, bool, Owned) {
        let (topic, properties, payload) =
            (random.below(2) == 0, random.below(3) as u8, random.below(2) == 0);
        let mut made = was.clone();
        if topic {
            made.topic.clone_from(&drawn.topic);
        }
        match properties {
            0 => {}
            1 => made.properties.extend_from_slice(&drawn.properties),
            _ => made.properties.clone_from(&drawn.properties),
        }
        if payload {
            made.payload.clone_from(&drawn.payload);
        }
        made.meta = drawn.meta;
        (topic, properties, payload, made)
    }

    #[test]
    fn a_rewritten_message_is_what_was_asked_for_and_no_other_is_touched() {
        let mut random = Random::new(7);
        let (mut in_place, mut large, mut full) = (0, 0, 0);
        for _ in 0..300 {
            let size = 200 + random.below(400) as usize;
            let gauge = Gauge::default();
            let mut arena = Arena::new(size, 16, 60 + random.below(80) as usize, gauge.clone());
            let mut model: VecDeque<(Generation, Owned)> = VecDeque::new();
            for _ in 0..200 {
                let drawn = Owned::draw(&mut random, 24);
                let draft = Draft {
                    topic: &drawn.topic,
                    properties: &[&drawn.properties],
                    payload: &drawn.payload,
                    meta: drawn.meta,
                };
                if let Ok(generation) = arena.admit(&draft) {
                    model.push_back((generation, drawn));
                }
                for _ in 0..random.below(3) {
                    let Some((generation, last)) = model.back_mut() else { break };
                    let drawn = Owned::draw(&mut random, 60);
                    let (topic, properties, payload, made) = change(&mut random, last, &drawn);
                    let rewrite = Rewrite {
                        topic: topic.then_some(&drawn.topic[..]),
                        properties: match properties {
                            0 => RewriteProperties::Keep,
                            1 => RewriteProperties::Append(&drawn.properties),
                            _ => RewriteProperties::Replace(&drawn.properties),
                        },
                        payload: payload.then_some(&drawn.payload[..]),
                        meta: drawn.meta,
                    };
                    let used_after = arena.used() - last.size() + made.size();
                    match arena.rewrite_last(&rewrite) {
                        Ok(()) => *last = made,
                        Err(AdmitError::Full) => full += 1,
                    }
                    assert_eq!(used_after <= size, arena.used() == used_after, "refused when full");
                    let is_large = arena.get(*generation).unwrap().stored.is_some();
                    in_place += u64::from(!is_large);
                    large += u64::from(is_large);
                }
                if random.below(3) == 0 && !model.is_empty() {
                    let count = 1 + random.below(model.len() as u64) as usize;
                    let (last, _) = model.drain(..count).next_back().unwrap();
                    arena.release_to(last);
                }
                for (generation, owned) in &model {
                    assert_eq!(read(&mut arena, *generation), *owned);
                }
                assert!(arena.used() <= size);
            }
            arena.release_to(arena.admitted());
            assert_eq!((arena.used(), arena.held(), arena.stale_reads()), (0, 0, 0));
            assert_eq!(gauge.bytes(), 0, "no allocation outlives its slot");
        }
        assert!(in_place > 1000 && large > 1000 && full > 1000, "{in_place} {large} {full}");
    }

    #[test]
    fn a_denied_message_is_nobodys_to_read_and_no_stale_read() {
        let mut arena = Arena::new(1000, 2, 100, Gauge::default());
        for number in 0..10u64 {
            let payload = vec![number as u8; 10 + 20 * number as usize];
            let draft =
                Draft { topic: b"t", properties: &[], payload: &payload, meta: meta(number) };
            let generation = arena.admit(&draft).unwrap();
            assert_eq!(arena.last().unwrap().payload, payload);
            if number % 3 != 0 {
                arena.deny_last();
            }
            assert_eq!(arena.get(generation).is_some(), number % 3 == 0);
            assert_eq!((arena.stale_reads(), arena.held()), (0, 1));
            arena.release_to(generation);
            assert_eq!(arena.used(), 0);
        }
    }
}
