//! A message: the pieces of a draft, the bytes in place, and the way into an allocation of its own and back.

use super::{Gauge, Meta, Stored};

/// A message to admit: borrowed pieces, copied into the arena once.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub topic: &'a [u8],
    /// Properties that travel on, as received, in order, in up to two pieces: usually one, or none.
    pub properties: [&'a [u8]; 2],
    pub payload: &'a [u8],
    pub meta: Meta,
}

impl Draft<'_> {
    pub fn size(&self) -> usize {
        self.topic.len() + self.properties_size() + self.payload.len()
    }

    #[inline]
    pub(super) fn properties_size(&self) -> usize {
        let [first, second] = self.properties;
        first.len() + second.len()
    }
}

/// A message in place, in the ring or in an allocation of its own.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Topic, properties and payload, one behind the other.
    pub bytes: &'a [u8],
    /// Validated UTF-8 without wildcards.
    pub topic: &'a [u8],
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub meta: Meta,
    /// The message's own allocation, when it has one.
    pub stored: Option<&'a Stored>,
}

impl<'a> Message<'a> {
    /// A message whose topic, properties and payload are `bytes`, one behind the other.
    #[inline]
    pub fn of(
        bytes: &'a [u8],
        topic_size: usize,
        properties_size: usize,
        meta: Meta,
        stored: Option<&'a Stored>,
    ) -> Message<'a> {
        let (topic, rest) = bytes.split_at(topic_size);
        let (properties, payload) = rest.split_at(properties_size);
        Message { bytes, topic, properties, payload, meta, stored }
    }

    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// A draft with which the message is admitted or stored.
    pub fn draft(&self) -> Draft<'a> {
        let properties = &self.bytes[self.topic.len()..self.bytes.len() - self.payload.len()];
        Draft {
            topic: self.topic,
            properties: [properties, &[]],
            payload: self.payload,
            meta: self.meta,
        }
    }
}

impl Stored {
    /// A copy of `message`; shares the bytes when the message already has an allocation of its own.
    pub fn from_message(message: &Message<'_>, gauge: &Gauge) -> Stored {
        if let Some(stored) = message.stored {
            return stored.clone();
        }
        Stored::copy_of(message, gauge)
    }

    /// A copy with an allocation of its own, even if the message has one.
    pub fn copy_of(message: &Message<'_>, gauge: &Gauge) -> Stored {
        let Message { bytes, topic, payload, meta, .. } = *message;
        // The properties' size includes the trail.
        let properties_size = bytes.len() - topic.len() - payload.len();
        Stored::copied(bytes, topic.len(), properties_size, meta, gauge)
    }

    pub fn from_draft(draft: &Draft<'_>, gauge: &Gauge) -> Stored {
        let mut bytes = Vec::with_capacity(draft.size());
        bytes.extend_from_slice(draft.topic);
        for piece in draft.properties {
            bytes.extend_from_slice(piece);
        }
        let properties_size = bytes.len() - draft.topic.len();
        bytes.extend_from_slice(draft.payload);
        Stored::copied(&bytes, draft.topic.len(), properties_size, draft.meta, gauge)
    }

    pub fn message(&self) -> Message<'_> {
        self.message_with(*self.meta())
    }

    pub(super) fn message_with(&self, meta: Meta) -> Message<'_> {
        if meta.from_bridge {
            // The message is taken apart, so that the usual message need not be in memory where this one is returned.
            let Message { bytes, topic, properties, payload, meta, stored } =
                self.trailed_message_with(meta);
            return Message { bytes, topic, properties, payload, meta, stored };
        }
        let (bytes, topic_size, properties_size) = self.pieces();
        Message::of(bytes, topic_size, properties_size, meta, Some(self))
    }

    #[cold]
    #[inline(never)]
    fn trailed_message_with(&self, meta: Meta) -> Message<'_> {
        let (bytes, topic_size, properties_size) = self.pieces();
        Message::with_trail(Message::of(bytes, topic_size, properties_size, meta, Some(self)))
    }
}
