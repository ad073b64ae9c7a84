//! A run: messages one behind the other in the arena that have all but their payloads in common.
//!
//! ```text
//!  one read of a socket:   PUBLISH a/b "1"   PUBLISH a/b "2"   PUBLISH a/b "3"   PUBLISH c "4"
//!                                |                 |                 |                |
//!  codec, shard::repeats    decoded whole       compared          compared      decoded whole
//!                                v                 v                 v                v
//!  slots of the arena      | is_repeat: no |      yes       |       yes      |       no       |
//!                            '------------------ one run ------------------'
//!                                                 |
//!  encode stage             one route, one question to each receiver: is there room for all of it?
//!                             yes |                                    | no
//!                      the whole run in one append           its messages, one by one
//!                      (packet ids in a row)                 (sent, or queued)
//! ```
//! A run ends where the next message differs in topic, properties or meta, at the end of the batch, or at a bound of
//! its size (`session::runs`).

use super::{Arena, Generation, Message};

/// A run that is copied ends at this size, bytes, or just above. Each receiver gets the whole run or is served message
/// by message, and copies of this size, from the cache, are cheapest (`scripts/instructions fan-out-qos0`).
pub const COPIED_RUN_SIZE_MAX: usize = 3 << 10;

/// Messages that differ in their payloads alone. A publisher mostly sends to one topic in one go, and what is found out
/// about the first message holds for all.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    arena: &'a Arena,
    first: Generation,
    last: Generation,
    size: usize,
    largest: usize,
}

impl Arena {
    /// The run that begins with `first`, which is held and not large. It ends with `last` at the latest, or where it
    /// has `size_max` bytes. `None`: the next message does not repeat the first.
    #[inline]
    pub fn run(&self, first: Generation, last: Generation, size_max: usize) -> Option<Run<'_>> {
        let is_one = first < last && self.slot(first.next()).is_repeat;
        is_one.then(|| self.find_run(first, last, size_max))
    }

    #[inline(never)]
    fn find_run(&self, first: Generation, last: Generation, size_max: usize) -> Run<'_> {
        // The messages of a batch that is not held are read, and counted as stale, one by one.
        let is_held = first > self.released && last <= self.admitted;
        let slot = self.slot(first);
        // Its bytes would be looked for in the ring. A later one of a run is a repeat, and a large message is none.
        assert!(slot.large.is_none(), "a large message begins no run");
        let size = slot.size();
        let mut run = Run { arena: self, first, last: first, size, largest: size };
        while is_held && run.last < last && run.size < size_max {
            let slot = self.slot(run.last.next());
            if !slot.is_repeat {
                break;
            }
            let size = slot.size();
            run.size += size;
            run.largest = run.largest.max(size);
            run.last = run.last.next();
        }
        run
    }
}

impl<'a> Run<'a> {
    pub fn last(&self) -> Generation {
        self.last
    }

    /// At least 1.
    pub fn count(&self) -> usize {
        self.last.count_since(self.first) as usize + 1
    }

    /// Bytes of topics, properties and payloads of all messages.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of topic, properties and payload of the largest message.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Sizes of the topic and of the properties, which all messages have in common.
    pub fn front_sizes(&self) -> (usize, usize) {
        let slot = self.arena.slot(self.first);
        (slot.topic_size as usize, slot.properties_size as usize)
    }

    /// Topic, properties and payload of each message, one behind the other.
    #[inline]
    pub fn bytes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let arena = self.arena;
        (self.first.0..=self.last.0).map(|number| {
            let slot = arena.slot(Generation(number));
            &arena.bytes[slot.position..][..slot.size()]
        })
    }

    /// Calls `call` for each message. The call is inlined, so no iterator copies the message.
    #[inline(always)]
    pub fn for_each(&self, mut call: impl FnMut(&Message<'a>)) {
        for number in self.first.0..=self.last.0 {
            if let Some(message) = self.arena.get(Generation(number)) {
                call(&message);
            }
        }
    }

    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + use<'a> {
        let arena = self.arena;
        (self.first.0..=self.last.0).filter_map(|number| arena.get(Generation(number)))
    }
}
