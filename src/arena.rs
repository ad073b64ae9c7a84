//! Where message bytes live: a ring of bytes, a ring of slots, and one generation per message.
//!
//! A message is admitted once and gets the shard's next `Generation`. Its slot's index follows from the distance to the
//! generation whose slot is the first, and its bytes are used again only after the generation was released. A handle is
//! a generation: reading a released one finds nothing, and is counted.
//!
//! A message may be larger than the arena only if a remote broker sent it or a bridge's rule lengthened its topic:
//! packets of clients are smaller (`limits::relation`), and bridges announce and take what
//! `Limits::bridge_packet_size_max` says. The shard then runs the stages, tries once more, refuses the message and
//! counts it (`Shard::admit_after_stages`).

mod budget;
mod message;
mod meta;
mod run;
mod stored;
mod trail;

pub use budget::{Budget, allocated, map_size, tree_size};
pub use message::{Draft, Message};
pub use meta::{Claim, Generation, Meta};
pub use run::{COPIED_RUN_SIZE_MAX, Run};
pub use stored::{Gauge, Stored, stored_size};
pub use trail::{EMPTY_TRAIL, split_trail};

use std::cell::Cell;

/// Why a message was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitError {
    /// Every slot is held, or all bytes are in use. An empty arena refuses only a message that is larger than the
    /// arena.
    Full,
}

/// The ring of slots starts over only after so many slots were used: the swap costs a turn with one message more than a
/// few more cache lines do.
const SLOTS_BEFORE_RESTART: usize = 16;
/// The position of a denied message: it lies outside of every ring.
const NOWHERE: usize = usize::MAX;
/// This is added to the position of a message with a trail, so that a read that does not expect a trail finds nothing.
const TRAILED: usize = 1 << (usize::BITS - 1);

#[derive(Debug)]
struct Slot {
    /// Where in the ring the message begins, plus `TRAILED` if it has a trail; `NOWHERE` if it was denied.
    position: usize,
    /// Where the next message may begin, in bytes ever reserved.
    end: u64,
    topic_size: u32,
    properties_size: u32,
    payload_size: u32,
    /// The message has topic, properties and meta in common with the message before.
    is_repeat: bool,
    meta: Meta,
    large: Option<Stored>,
}

impl Slot {
    fn size(&self) -> usize {
        (self.topic_size + self.properties_size + self.payload_size) as usize
    }
}

/// One shard's slab of messages over one ring of bytes, allocated at start and never grown.
#[derive(Debug)]
pub struct Arena {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    /// How many messages may be held when one more is admitted, and when one more repeat is admitted: as many as there
    /// are slots, or fewer.
    held_max: usize,
    repeats_max: usize,
    admitted: Generation,
    released: Generation,
    /// The generation whose slot is the first.
    first: Generation,
    /// Bytes that were ever reserved, and bytes that were ever freed, gaps at the wrap included.
    head: u64,
    tail: u64,
    /// The place of `head` in the ring.
    position: usize,
    large_message_size: usize,
    /// Bytes and slots of the messages that have an allocation of their own.
    large_bytes: usize,
    large_count: usize,
    stored_gauge: Gauge,
    stale_reads: Cell<u64>,
}

impl Arena {
    /// An arena of `size` bytes and `slot_count` slots (a power of two). The memory is not touched until it is used.
    /// Messages of at least `large_message_size` bytes are stored in allocations of their own, counted against `size`
    /// while their slot lives and in `stored_gauge` for as long as anything holds them.
    pub fn new(
        size: usize,
        slot_count: usize,
        large_message_size: usize,
        stored_gauge: Gauge,
    ) -> Arena {
        assert!(slot_count.is_power_of_two());
        let slots = (0..slot_count)
            .map(|_| Slot {
                position: 0,
                end: 0,
                topic_size: 0,
                properties_size: 0,
                payload_size: 0,
                is_repeat: false,
                meta: Meta::default(),
                large: None,
            })
            .collect();
        Arena {
            bytes: vec![0; size].into_boxed_slice(),
            slots,
            held_max: slot_count,
            repeats_max: slot_count,
            admitted: Generation::NONE,
            released: Generation::NONE,
            first: Generation::NONE,
            head: 0,
            tail: 0,
            position: 0,
            large_message_size,
            large_bytes: 0,
            large_count: 0,
            stored_gauge,
            stale_reads: Cell::new(0),
        }
    }

    /// Copies the message in and gives it the next generation.
    #[inline(always)]
    pub fn admit(&mut self, draft: &Draft<'_>) -> Result<Generation, AdmitError> {
        if !self.has_slot() {
            return Err(AdmitError::Full);
        }
        let sizes = [draft.topic.len(), draft.properties_size(), draft.payload.len()];
        let size = sizes.iter().sum();
        if size >= self.large_message_size {
            return self.admit_large(*draft, size);
        }
        let (position, end) = self.reserve(size)?;
        self.copy_in(position, size, draft);
        Ok(self.fill_next(position, end, sizes, draft.meta))
    }

    /// As `admit`, but above the bound of `bound_held`, too.
    #[cold]
    pub fn admit_above(&mut self, draft: &Draft<'_>) -> Result<Generation, AdmitError> {
        let bound = std::mem::replace(&mut self.held_max, self.slots.len());
        let admitted = self.admit(draft);
        self.held_max = bound;
        admitted
    }

    /// From now on messages of at least this size get allocations of their own.
    pub fn set_large_message_size(&mut self, size: usize) {
        self.large_message_size = size;
    }

    /// From now on a message is refused as `Full` where so many messages are held, even if slots are free.
    pub fn bound_held(&mut self, held_max: usize) {
        self.held_max = held_max.min(self.slots.len());
        self.repeats_max = self.held_max;
    }

    /// Bounds repeats of the last message in the same way, until `bound_held` is called again.
    pub fn bound_repeats(&mut self, held_max: usize) {
        self.repeats_max = held_max.min(self.slots.len());
    }

    /// As `admit`, for a message that is in one piece already.
    #[inline]
    pub fn admit_piece(&mut self, message: &Message<'_>) -> Result<Generation, AdmitError> {
        let size = message.bytes.len();
        if !self.has_slot() || size >= self.large_message_size {
            return self.admit(&message.draft());
        }
        let (position, end) = self.reserve(size)?;
        self.bytes[position..position + size].copy_from_slice(message.bytes);
        let Message { topic, payload, meta, .. } = *message;
        // The properties' size includes the trail.
        let properties_size = size - topic.len() - payload.len();
        Ok(self.fill_next(position, end, [topic.len(), properties_size, payload.len()], meta))
    }

    /// Fills the next slot with a message whose bytes are at `position`. `sizes` are the sizes of topic, properties and
    /// payload.
    #[inline(always)]
    fn fill_next(
        &mut self,
        position: usize,
        end: u64,
        sizes: [usize; 3],
        meta: Meta,
    ) -> Generation {
        let [topic_size, properties_size, payload_size] = sizes;
        self.position = position + topic_size + properties_size + payload_size;
        self.head = end;
        let generation = self.admitted.next();
        let index = self.index(generation);
        let slot = &mut self.slots[index];
        debug_assert!(slot.large.is_none());
        slot.position = position;
        slot.end = end;
        slot.topic_size = topic_size as u32;
        slot.properties_size = properties_size as u32;
        slot.payload_size = payload_size as u32;
        slot.is_repeat = false;
        slot.meta = meta;
        self.admitted = generation;
        generation
    }

    /// Admits a message that repeats the last one, held or not, in all but its payload. `pieces` are its topic,
    /// properties and payload, one behind the other. `false`: the message is to be admitted like any other.
    #[inline(always)]
    pub fn admit_repeat(&mut self, pieces: &[&[u8]; 2], payload_size: usize) -> bool {
        let [first, second] = *pieces;
        let size = first.len() + second.len();
        if !self.has_slot_for_repeat() || size >= self.large_message_size {
            return false;
        }
        let Ok((position, end)) = self.reserve(size) else { return false };
        let (here, behind) = self.bytes[position..position + size].split_at_mut(first.len());
        here.copy_from_slice(first);
        // Most messages are in one piece, and a copy of no bytes still costs a call.
        if !second.is_empty() {
            behind.copy_from_slice(second);
        }
        self.fill_repeat(position, end, payload_size);
        true
    }

    /// As `admit_repeat`, where topic and properties are not at hand. The last message is held.
    #[inline]
    pub fn admit_repeat_of_last(&mut self, payload: &[u8]) -> bool {
        let last = self.slot(self.admitted);
        let (from, front_size) = (last.position, (last.topic_size + last.properties_size) as usize);
        let size = front_size + payload.len();
        let is_large = last.large.is_some() || size >= self.large_message_size;
        if self.held() == 0 || !self.has_slot_for_repeat() || is_large || from >= TRAILED {
            return false;
        }
        let Ok((position, end)) = self.reserve(size) else { return false };
        self.bytes.copy_within(from..from + front_size, position);
        self.bytes[position + front_size..][..payload.len()].copy_from_slice(payload);
        self.fill_repeat(position, end, payload.len());
        true
    }

    /// The size in bytes of the last message's topic and properties.
    pub fn last_front_size(&self) -> usize {
        let last = self.slot(self.admitted);
        (last.topic_size + last.properties_size) as usize
    }

    /// Fills the next slot with a repeat of the last message, whose payload differs; its bytes are at `position`.
    #[inline(always)]
    fn fill_repeat(&mut self, position: usize, end: u64, payload_size: usize) {
        let last = self.slot(self.admitted);
        let (topic_size, properties_size) = (last.topic_size, last.properties_size);
        let meta = last.meta;
        self.position = position + (topic_size + properties_size) as usize + payload_size;
        self.head = end;
        self.admitted = self.admitted.next();
        let index = self.index(self.admitted);
        let slot = &mut self.slots[index];
        debug_assert!(slot.large.is_none());
        slot.position = position;
        slot.end = end;
        slot.topic_size = topic_size;
        slot.properties_size = properties_size;
        slot.payload_size = payload_size as u32;
        slot.is_repeat = true;
        slot.meta = meta;
    }

    /// Admits a message that gets an allocation of its own.
    #[cold]
    fn admit_large(&mut self, draft: Draft<'_>, size: usize) -> Result<Generation, AdmitError> {
        if self.used() + size > self.bytes.len() {
            return Err(AdmitError::Full);
        }
        let generation = self.admitted.next();
        let index = self.index(generation);
        let slot = &mut self.slots[index];
        slot.position = self.position;
        slot.end = self.head;
        slot.topic_size = draft.topic.len() as u32;
        slot.properties_size = draft.properties_size() as u32;
        slot.payload_size = draft.payload.len() as u32;
        slot.is_repeat = false;
        slot.meta = draft.meta;
        slot.large = Some(Stored::from_draft(&draft, &self.stored_gauge));
        self.large_bytes += size;
        self.large_count += 1;
        self.admitted = generation;
        Ok(generation)
    }

    /// The message of `generation`, while it is held. A released handle finds nothing and is counted; a message that
    /// was denied is not shown.
    #[inline(always)]
    pub fn get(&self, generation: Generation) -> Option<Message<'_>> {
        if generation <= self.released || generation > self.admitted {
            self.stale_reads.set(self.stale_reads.get() + 1);
            return None;
        }
        self.message_in(self.slot(generation))
    }

    /// The last message, while that is held and not denied.
    pub fn last(&self) -> Option<Message<'_>> {
        self.get(self.admitted)
    }

    /// Denies the last message: `get` does not find it any more, and stages ack it like any other.
    pub fn deny_last(&mut self) {
        assert!(self.held() > 0, "a message is denied while it is held");
        let index = self.index(self.admitted);
        let slot = &mut self.slots[index];
        if slot.large.take().is_some() {
            self.large_bytes -= slot.size();
            self.large_count -= 1;
        }
        slot.position = NOWHERE;
    }

    /// Marks the last message as one with a trail behind its properties, if a bridge brought it. It is called for each
    /// such message before any stage reads the message.
    pub fn trail_last(&mut self) {
        let index = self.index(self.admitted);
        let slot = &mut self.slots[index];
        if slot.meta.from_bridge {
            slot.position |= TRAILED;
        }
    }

    /// Notes which room among the retained messages the last message has.
    pub fn claim_for_last(&mut self, claim: Claim) {
        assert!(self.held() > 0, "a message claims room while it is held");
        let index = self.index(self.admitted);
        self.slots[index].meta.claim = claim;
    }

    /// Frees every message up to and including `generation`.
    pub fn release_to(&mut self, generation: Generation) {
        assert!(generation <= self.admitted);
        if generation <= self.released {
            return;
        }
        if self.large_count > 0 {
            self.release_large(generation);
        }
        self.tail = self.slot(generation).end;
        self.released = generation;
        if self.released == self.admitted {
            // An empty ring starts over, so that a shard that keeps up stays in the same few cache lines. The last
            // message's slot moves to the front, because a repeat of that message reads it.
            let last = self.index(generation);
            if last >= SLOTS_BEFORE_RESTART {
                self.slots.swap(0, last);
                self.first = generation;
            }
            self.head = 0;
            self.tail = 0;
            self.position = 0;
        }
    }

    pub fn admitted(&self) -> Generation {
        self.admitted
    }

    /// Messages admitted and not yet released.
    pub fn held(&self) -> u64 {
        self.admitted.count_since(self.released)
    }

    /// Whether any message of up to `size` bytes would be admitted, wherever in the ring it would begin. A message that
    /// does not fit at the ring's end leaves a gap smaller than itself there.
    #[inline]
    pub fn has_room(&self, size: usize) -> bool {
        self.used() + 2 * size <= self.bytes.len() && self.has_slot()
    }

    #[inline]
    fn has_slot(&self) -> bool {
        (self.held() as usize) < self.held_max
    }

    #[inline]
    fn has_slot_for_repeat(&self) -> bool {
        (self.held() as usize) < self.repeats_max
    }

    /// Bytes in use, allocations of large messages included.
    pub fn used(&self) -> usize {
        (self.head - self.tail) as usize + self.large_bytes
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Reads of released handles; must stay 0.
    pub fn stale_reads(&self) -> u64 {
        self.stale_reads.get()
    }

    #[inline(always)]
    fn message_in<'a>(&'a self, slot: &'a Slot) -> Option<Message<'a>> {
        if let Some(stored) = &slot.large {
            return Some(stored.message_with(slot.meta));
        }
        // One check of bounds finds out as well that the message was denied or has a trail.
        let Some(bytes) = self.bytes.get(slot.position..) else {
            // The message is taken apart, so that the usual message need not be in memory where this one is returned.
            let Message { bytes, topic, properties, payload, meta, stored } =
                self.trailed_message_in(slot)?;
            return Some(Message { bytes, topic, properties, payload, meta, stored });
        };
        let bytes = bytes.get(..slot.size())?;
        debug_assert!(!slot.meta.from_bridge, "a trail is nobody's properties");
        let (topic_size, properties_size) =
            (slot.topic_size as usize, slot.properties_size as usize);
        Some(Message::of(bytes, topic_size, properties_size, slot.meta, None))
    }

    #[cold]
    #[inline(never)]
    fn trailed_message_in<'a>(&'a self, slot: &'a Slot) -> Option<Message<'a>> {
        let bytes = self.bytes.get(slot.position & !TRAILED..)?.get(..slot.size())?;
        let (topic_size, properties_size) =
            (slot.topic_size as usize, slot.properties_size as usize);
        let message = Message::of(bytes, topic_size, properties_size, slot.meta, None);
        Some(Message::with_trail(message))
    }

    fn slot(&self, generation: Generation) -> &Slot {
        &self.slots[self.index(generation)]
    }

    fn index(&self, generation: Generation) -> usize {
        generation.0.wrapping_sub(self.first.0) as usize & (self.slots.len() - 1)
    }

    /// Where in the ring a piece of `size` bytes begins, and where it ends in bytes ever reserved.
    #[inline]
    fn reserve(&mut self, size: usize) -> Result<(usize, u64), AdmitError> {
        let capacity = self.bytes.len();
        let (position, gap) = match self.position + size <= capacity {
            true => (self.position, 0),
            false => (0, capacity - self.position),
        };
        let end = self.head + gap as u64 + size as u64;
        let used_after = (end - self.tail) as usize + self.large_bytes;
        if used_after > capacity { Err(AdmitError::Full) } else { Ok((position, end)) }
    }

    #[inline(always)]
    fn copy_in(&mut self, position: usize, size: usize, draft: &Draft<'_>) {
        let mut place = &mut self.bytes[position..position + size];
        let mut put = |piece: &[u8]| {
            let (here, rest) = std::mem::take(&mut place).split_at_mut(piece.len());
            here.copy_from_slice(piece);
            place = rest;
        };
        put(draft.topic);
        // Most messages have no properties, and a copy of no bytes still costs a call.
        for piece in draft.properties {
            if !piece.is_empty() {
                put(piece);
            }
        }
        put(draft.payload);
    }

    fn release_large(&mut self, generation: Generation) {
        let mut at = self.released;
        while at < generation {
            at = at.next();
            let index = self.index(at);
            let slot = &mut self.slots[index];
            if slot.large.take().is_some() {
                self.large_bytes -= slot.size();
                self.large_count -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::VecDeque;

    fn meta() -> Meta {
        Meta {
            qos: 1,
            retain: false,
            is_origin: true,
            expires_at: None,
            publisher: 7,
            from_bridge: false,
            claim: Claim::None,
        }
    }

    fn arena(size: usize, slots: usize, large: usize) -> Arena {
        Arena::new(size, slots, large, Gauge::default())
    }

    fn admit(arena: &mut Arena, topic: &[u8], payload: &[u8]) -> Result<Generation, AdmitError> {
        arena.admit(&Draft { topic, properties: [b"p", b"q"], payload, meta: meta() })
    }

    #[test]
    fn a_message_comes_back_as_it_went_in() {
        let mut arena = arena(4096, 8, 1024);
        let generation = admit(&mut arena, b"a/b", b"payload").unwrap();
        let message = arena.get(generation).unwrap();
        assert_eq!(message.topic, b"a/b");
        assert_eq!(message.properties, b"pq");
        assert_eq!(message.payload, b"payload");
        assert_eq!(message.meta, meta());
    }

    #[test]
    fn a_stale_generation_finds_nothing_and_is_counted() {
        let mut arena = arena(4096, 8, 1024);
        let first = admit(&mut arena, b"t", b"1").unwrap();
        arena.release_to(first);
        let second = admit(&mut arena, b"t", b"2").unwrap();
        assert!(arena.get(first).is_none());
        assert_eq!(arena.stale_reads(), 1);
        assert_eq!(arena.get(second).unwrap().payload, b"2");
        assert_eq!(arena.stale_reads(), 1);
    }

    #[test]
    fn a_large_message_outlives_its_slot_only_where_it_is_held() {
        let gauge = Gauge::default();
        let mut arena = Arena::new(4096, 8, 100, gauge.clone());
        let generation = admit(&mut arena, b"t", &[9; 200]).unwrap();
        assert_eq!(arena.used(), 203);
        let held = arena.get(generation).unwrap().stored.unwrap().clone();
        arena.release_to(generation);
        assert_eq!(arena.used(), 0);
        assert!(arena.get(generation).is_none());
        assert_eq!(held.message().payload, &[9; 200]);
        assert!(gauge.bytes() >= 203);
        drop(held);
        assert_eq!(gauge.bytes(), 0);
    }

    #[test]
    fn the_arena_holds_what_a_queue_would_hold_and_never_more_than_its_size() {
        let mut random = Random::new(3);
        let mut full_count = 0;
        let mut large_count = 0;
        for _ in 0..200 {
            let size = 96 + random.below(512) as usize;
            let mut arena = arena(size, 1 << random.below(6), 48 + random.below(64) as usize);
            let mut model: VecDeque<(Generation, Vec<u8>)> = VecDeque::new();
            for step in 0..400u64 {
                if random.below(3) < 2 {
                    let payload = vec![step as u8; random.below(80) as usize];
                    match admit(&mut arena, b"topic", &payload) {
                        Ok(generation) => model.push_back((generation, payload)),
                        Err(AdmitError::Full) => {
                            full_count += 1;
                            assert!(!model.is_empty(), "an empty arena takes any message");
                        }
                    }
                } else if !model.is_empty() {
                    let count = 1 + random.below(model.len() as u64) as usize;
                    let mut last = Generation::NONE;
                    for (generation, _) in model.drain(..count) {
                        last = generation;
                    }
                    arena.release_to(last);
                    assert!(arena.get(last).is_none());
                }
                assert!(arena.used() <= size);
                assert_eq!(arena.held(), model.len() as u64);
                for (generation, payload) in &model {
                    let message = arena.get(*generation).unwrap();
                    assert_eq!(message.payload, payload);
                    assert_eq!(message.topic, b"topic");
                    large_count += u64::from(message.stored.is_some());
                }
            }
        }
        assert!(full_count > 100 && large_count > 100);
    }

    /// Messages that repeat a large one make a run of their own behind it.
    #[test]
    fn a_run_begins_behind_a_large_message() {
        let mut arena = arena(4096, 8, 100);
        let large = admit(&mut arena, b"t", &[7; 200]).unwrap();
        for payload in [b"1", b"2", b"3"] {
            assert!(arena.admit_repeat(&[b"tpq".as_slice(), payload], 1));
        }
        let last = arena.admitted();
        let run = arena.run(large.next(), last, 1000).expect("three repeats");
        assert_eq!((run.count(), run.last()), (3, last));
        assert!(run.bytes().eq([b"tpq1", b"tpq2", b"tpq3"]));
    }

    #[test]
    #[should_panic(expected = "a large message begins no run")]
    fn a_large_message_begins_no_run() {
        let mut arena = arena(4096, 8, 100);
        let large = admit(&mut arena, b"t", &[7; 200]).unwrap();
        assert!(arena.admit_repeat(&[b"tpq".as_slice(), b"1"], 1));
        arena.run(large, arena.admitted(), 1000);
    }

    #[test]
    fn a_denied_message_is_nobodys_to_read_and_no_stale_read() {
        let mut arena = Arena::new(1000, 2, 100, Gauge::default());
        for number in 0..10u64 {
            let payload = vec![number as u8; 10 + 20 * number as usize];
            let draft = Draft {
                topic: b"t",
                properties: [&[], &[]],
                payload: &payload,
                meta: Meta { publisher: number, ..meta() },
            };
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
