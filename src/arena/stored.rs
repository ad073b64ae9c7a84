//! A message in one shared allocation of its own, for what must live on after its slot is released.
//!
//! Bytes are counted where they are in use: a `Gauge` counts each allocation once, however many queues and windows have
//! it, while each session that has it counts the whole of it.

use super::Meta;
use std::cell::Cell;
use std::rc::Rc;
use triomphe::ThinArc;

/// The bytes of a group of allocations. Each counts once, however many holders it has.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    bytes: Cell<usize>,
    message_count: Cell<usize>,
}

impl Gauge {
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// How many of the counted allocations are messages.
    pub fn message_count(&self) -> usize {
        self.0.message_count.get()
    }

    pub fn add(&self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes);
    }

    pub fn subtract(&self, bytes: usize) {
        debug_assert!(bytes <= self.0.bytes.get());
        self.0.bytes.set(self.0.bytes.get() - bytes);
    }

    fn add_message(&self, bytes: usize) {
        self.add(bytes);
        self.0.message_count.set(self.0.message_count.get() + 1);
    }

    fn subtract_message(&self, bytes: usize) {
        self.subtract(bytes);
        self.0.message_count.set(self.0.message_count.get() - 1);
    }
}

#[derive(Debug)]
struct Head {
    meta: Meta,
    topic_size: u32,
    properties_size: u32,
    /// The size is counted in the gauge until the last holder is gone.
    size: usize,
    gauge: Gauge,
}

impl Drop for Head {
    fn drop(&mut self) {
        self.gauge.subtract_message(self.size);
    }
}

/// A shared, shard-local copy of a message. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Stored(ThinArc<Head, u8>);

/// The size of a message of `size` bytes when it is stored.
pub fn stored_size(size: usize) -> usize {
    size + OVERHEAD
}

/// What an allocation costs beside the message's bytes.
const OVERHEAD: usize = size_of::<Head>() + 2 * size_of::<usize>();

impl Stored {
    /// Encoded packets that leave by reference: they take the place of a payload.
    pub fn of_packets(bytes: &[u8], gauge: &Gauge) -> Stored {
        Stored::copied(bytes, 0, 0, Meta::default(), gauge)
    }

    pub(super) fn copied(
        bytes: &[u8],
        topic_size: usize,
        properties_size: usize,
        meta: Meta,
        gauge: &Gauge,
    ) -> Stored {
        let size = stored_size(bytes.len());
        gauge.add_message(size);
        let head = Head {
            meta,
            topic_size: topic_size as u32,
            properties_size: properties_size as u32,
            size,
            gauge: gauge.clone(),
        };
        Stored(ThinArc::from_header_and_slice(head, bytes))
    }

    pub fn meta(&self) -> &Meta {
        &self.0.header.header.meta
    }

    /// Topic, properties and payload, one behind the other, and the sizes of topic and properties.
    #[inline]
    pub(super) fn pieces(&self) -> (&[u8], usize, usize) {
        let head = &self.0.header.header;
        (&self.0.slice, head.topic_size as usize, head.properties_size as usize)
    }

    /// Whether there is another holder of the same allocation.
    pub fn is_shared(&self) -> bool {
        ThinArc::strong_count(&self.0) > 1
    }

    /// Bytes of topic, properties and payload, plus the cost of the allocation.
    pub fn size(&self) -> usize {
        self.0.header.header.size
    }
}
