//! The retained messages of the topics that a shard owns, and the room that is left for more.
//!
//! Clients share the room that the limits give. The broker's own messages (`$SYS`) are kept beside it. Room may be set aside
//! before a message arrives: by a lease, which its holder spends on any topic, or by a promise for one topic. Messages and
//! room set aside never exceed the limits together, so a message that claims its room is never refused.

use super::Room;
use super::setters::{Charged, Setter, Setters, is_crowded};
use crate::arena::{Claim, Gauge, Message, Meta, Stored, allocated, stored_size, tree_size};
use crate::counters::Counters;
use crate::hash::KeyedHash;
use crate::limits::Limits;
use crate::session::{DropLog, DropReason};
use crate::time::Instant;
use crate::topic::{RetainedStore, ScanEnd, is_system};
use std::collections::HashMap;

/// The size of a retained message. It counts `size` bytes, and its topic once more in the order of topics.
pub(crate) fn kept_size(topic_size: usize, size: usize) -> usize {
    stored_size(size) + entry_size(topic_size)
}

/// The bytes of a topic in the order of topics, without its message.
fn entry_size(topic_size: usize) -> usize {
    allocated(topic_size) + ENTRY_SIZE
}

/// The bytes of one entry in the tree of topics.
const ENTRY_SIZE: usize = tree_size(600, size_of::<(Box<str>, KeptMessage)>()) / 600;

/// The room that is promised for the messages of one topic.
#[derive(Debug)]
struct Promise {
    /// How many messages may still come.
    count: u32,
    size_max: usize,
    /// The room set aside beyond the message that the topic has.
    aside: Room,
    /// Whether sessions hold the message that the topic has, so that its bytes stay when it is replaced.
    is_shared: bool,
}

/// A retained message, and the holders to which it counts.
#[derive(Debug)]
struct KeptMessage {
    stored: Stored,
    charged: Charged,
}

/// All retained messages of a shard.
pub(crate) struct Kept {
    store: RetainedStore<KeptMessage>,
    setters: Setters,
    /// Bytes of clients' messages, including replaced ones while sessions hold them.
    bytes: Gauge,
    system_bytes: Gauge,
    system_count: usize,
    /// Bytes that topics take in the order of topics: topics of clients, and topics of the broker.
    entries_size: usize,
    system_entries_size: usize,
    leased: Room,
    promises: HashMap<Box<str>, Promise, ahash::RandomState>,
    /// The sum of the room that all promises set aside.
    promised: Room,
}

/// Whether the broker itself publishes this message. A remote's bridge may bring topics of the same form.
fn is_own(topic: &str, meta: &Meta) -> bool {
    topic.starts_with('$') && is_system(topic) && !meta.from_bridge
}

impl Kept {
    pub(crate) fn new(hash: &KeyedHash) -> Kept {
        Kept {
            store: RetainedStore::new(),
            setters: Setters::new(hash),
            bytes: Gauge::default(),
            system_bytes: Gauge::default(),
            system_count: 0,
            entries_size: 0,
            system_entries_size: 0,
            leased: Room::default(),
            promises: HashMap::with_hasher(hash.state()),
            promised: Room::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&Stored> {
        self.store.get(topic).map(|kept| &kept.stored)
    }

    /// The room that clients' messages take, without room set aside.
    pub(crate) fn used(&self) -> Room {
        let bytes = self.bytes.bytes() + self.entries_size;
        Room { messages: self.store.len() - self.system_count, bytes }
    }

    /// The room that the broker's own messages take.
    pub(crate) fn system(&self) -> Room {
        let bytes = self.system_bytes.bytes() + self.system_entries_size;
        Room { messages: self.system_count, bytes }
    }

    pub(crate) fn leased(&self) -> Room {
        self.leased
    }

    /// The room that is neither taken nor set aside.
    pub(crate) fn free(&self, limits: &Limits) -> Room {
        let used = self.used();
        let messages = used.messages + self.leased.messages + self.promised.messages;
        let bytes = used.bytes + self.leased.bytes + self.promised.bytes;
        Room {
            messages: limits.retained_messages_max.saturating_sub(messages),
            bytes: limits.retained_bytes_max.saturating_sub(bytes),
        }
    }

    /// Sets room aside for its holder to spend on any topic; returns whether there was so much.
    pub(crate) fn lease(&mut self, limits: &Limits, room: Room) -> bool {
        let is_free = self.free(limits).holds(room);
        if is_free {
            self.leased.add(room);
        }
        is_free
    }

    /// Takes back the room that the holder has not spent.
    pub(crate) fn end_lease(&mut self, room: Room) {
        self.leased.subtract(room);
    }

    /// Sets aside the room that a message of a topic needs beyond the one that it replaces; returns whether there was
    /// so much.
    pub(crate) fn promise(&mut self, limits: &Limits, topic: &str, size: usize) -> bool {
        let mut free = self.free(limits);
        let (mut promise, before) = match self.promises.get(topic) {
            Some(Promise { count, size_max, aside, is_shared }) => {
                let (count, size_max) = (count + 1, size.max(*size_max));
                (Promise { count, size_max, aside: *aside, is_shared: *is_shared }, *aside)
            }
            None => {
                let is_shared = self.get(topic).is_some_and(Stored::is_shared);
                let none = Room::default();
                (Promise { count: 1, size_max: size, aside: none, is_shared }, none)
            }
        };
        promise.aside = self.needed(topic, promise.size_max, promise.is_shared);
        free.add(before);
        if !free.holds(promise.aside) {
            return false;
        }
        self.promised.subtract(before);
        self.promised.add(promise.aside);
        self.promises.insert(topic.into(), promise);
        true
    }

    /// Ends one promise: its message has come, or will not come.
    pub(crate) fn end_promise(&mut self, topic: &str) {
        let promise = self.promises.get_mut(topic).expect("a promise ends once");
        promise.count -= 1;
        if promise.count == 0 {
            let aside = promise.aside;
            self.promises.remove(topic);
            self.promised.subtract(aside);
        }
    }

    /// Whether room is promised for the topic. Its message is then not to be shared, as it may be replaced.
    pub(crate) fn is_promised(&self, topic: &str) -> bool {
        !self.promises.is_empty() && self.promises.contains_key(topic)
    }

    /// The room that a message needs beyond the one that its topic has.
    fn needed(&self, topic: &str, size: usize, is_shared: bool) -> Room {
        match self.get(topic) {
            Some(old) if !is_own(topic, old.meta()) => {
                let freed = entry_size(topic.len()) + if is_shared { 0 } else { old.size() };
                Room { messages: 0, bytes: size.saturating_sub(freed) }
            }
            _ => Room::of_one(size),
        }
    }

    /// Adjusts the room that promises for a topic set aside, after its message has changed.
    fn update_promise(&mut self, topic: &str) {
        let Some(promise) = self.promises.get(topic) else { return };
        let (before, size_max) = (promise.aside, promise.size_max);
        // The message was put there just now, so no session holds it.
        let aside = self.needed(topic, size_max, false);
        self.promised.subtract(before);
        self.promised.add(aside);
        if let Some(promise) = self.promises.get_mut(topic) {
            (promise.aside, promise.is_shared) = (aside, false);
        }
    }

    pub(crate) fn remove(&mut self, topic: &str) {
        let Some(KeptMessage { stored: old, charged }) = self.store.remove(topic) else { return };
        let is_own = is_own(topic, old.meta());
        self.system_count -= usize::from(is_own);
        *self.entries_of(is_own) -= entry_size(topic.len());
        self.setters.discharge(charged, entry_size(topic.len()) + old.size());
        drop(old);
        if !self.promises.is_empty() {
            self.update_promise(topic);
        }
    }

    fn entries_of(&mut self, is_own: bool) -> &mut usize {
        if is_own { &mut self.system_entries_size } else { &mut self.entries_size }
    }

    /// Inserts a message of a topic that has none.
    fn insert(&mut self, topic: &str, message: &Message<'_>, setter: Option<Setter>) {
        let is_own = is_own(topic, &message.meta);
        let gauge = if is_own { &self.system_bytes } else { &self.bytes };
        let meta = Meta { claim: Claim::None, ..message.meta };
        let stored = Stored::copy_of(&Message { meta, ..*message }, gauge);
        self.system_count += usize::from(is_own);
        *self.entries_of(is_own) += entry_size(topic.len());
        let setter = setter.filter(|_| !is_own);
        let size = entry_size(topic.len()) + stored.size();
        let charged = self.setters.charge(setter, size);
        let before = self.store.insert(topic, KeptMessage { stored, charged });
        debug_assert!(before.is_none(), "what a topic had was taken back");
        if !self.promises.is_empty() {
            self.update_promise(topic);
        }
    }

    /// Keeps, replaces or removes the message of a topic. [MQTT-3.3.1-5] to [MQTT-3.3.1-7]
    pub(crate) fn store(
        &mut self,
        limits: &Limits,
        counters: &mut Counters,
        drops: &mut DropLog,
        now: Instant,
        message: &Message<'_>,
        setter: Option<Setter>,
    ) -> bool {
        let topic =
            std::str::from_utf8(message.topic).expect("a topic was validated when it was decoded");
        let size = kept_size(topic.len(), message.size());
        let has_room = match message.meta.claim {
            Claim::None => is_own(topic, &message.meta),
            Claim::Leased => {
                self.leased.subtract(Room::of_one(size));
                true
            }
            Claim::Promised => {
                self.end_promise(topic);
                true
            }
        };
        let is_expired = message.meta.expires_at.is_some_and(|at| at <= now);
        if message.payload.is_empty() || is_expired {
            self.remove(topic);
            return true;
        }
        // A message that is refused changes nothing: the topic keeps its message, as it does where the publisher is
        // told of the refusal.
        let may_set = has_room
            || (self.may_replace(limits, topic, size) && self.may_set(limits, topic, size, setter));
        if !may_set {
            counters.retained_refused += 1;
            drops.push(None, message.topic, DropReason::RetainedFull);
            return false;
        }
        self.remove(topic);
        self.insert(topic, message, setter);
        true
    }

    /// The memory of the table of setters.
    pub(crate) fn setters_bytes(&self) -> usize {
        self.setters.bytes()
    }

    /// Whether so little room is left that the setter with most of it may get no more.
    pub(crate) fn is_crowded(&self, limits: &Limits) -> bool {
        is_crowded(self.free(limits), limits)
    }

    /// Whether the message leaves enough room for other setters.
    pub(crate) fn may_set(
        &self,
        limits: &Limits,
        topic: &str,
        size: usize,
        setter: Option<Setter>,
    ) -> bool {
        let free = self.free(limits);
        if !is_crowded(free, limits) {
            return true;
        }
        let entry_size = entry_size(topic.len());
        let old = self.store.get(topic).map(|kept| (kept.charged, entry_size + kept.stored.size()));
        self.setters.may_set(setter, size, old, free)
    }

    /// Whether a message without a claim has room in the place of the one that its topic has.
    fn may_replace(&self, limits: &Limits, topic: &str, size: usize) -> bool {
        let mut free = self.free(limits);
        let old = self.get(topic);
        if let Some(old) = old.filter(|old| !is_own(topic, old.meta())) {
            // The bytes of a message that sessions hold are not freed.
            let bytes = if old.is_shared() { 0 } else { old.size() };
            free.add(Room { messages: 1, bytes: entry_size(topic.len()) + bytes });
        }
        // A message of this topic uses the room that is promised for it. The promise needs more room only if its
        // message is larger.
        match self.promises.get(topic) {
            Some(promise) => {
                free.add(promise.aside);
                free.holds(Room::of_one(size.max(promise.size_max)))
            }
            None => free.holds(Room::of_one(size)),
        }
    }

    /// As `RetainedStore::scan_while`.
    pub(crate) fn scan_while(
        &self,
        filter: &str,
        after: Option<&str>,
        visits_left: &mut usize,
        mut found: impl FnMut(&str, &Stored) -> bool,
    ) -> ScanEnd {
        self.store.scan_while(filter, after, visits_left, |topic, kept| found(topic, &kept.stored))
    }

    /// As `RetainedStore::scan`.
    pub(crate) fn scan(
        &self,
        filter: &str,
        after: Option<&str>,
        visit_max: usize,
        mut found: impl FnMut(&str, &Stored),
    ) -> ScanEnd {
        self.store.scan(filter, after, visit_max, |topic, kept| found(topic, &kept.stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Room that was set aside and not used yet.
    enum Aside {
        Lease(Room),
        Promise(&'static str, usize),
    }

    struct World {
        kept: Kept,
        limits: Limits,
        counters: Counters,
        drops: DropLog,
        model: HashMap<&'static str, usize>,
        /// Messages that sessions hold.
        borrowed: Vec<Stored>,
    }

    impl World {
        /// Stores a message whose allocation has `size` bytes; returns whether it is kept.
        fn store(&mut self, topic: &'static str, size: usize, claim: Claim) -> bool {
            let bytes = [topic.as_bytes(), &vec![b'x'; size - kept_size(topic.len(), topic.len())]]
                .concat();
            let meta = Meta {
                qos: 1,
                retain: true,
                is_origin: true,
                expires_at: None,
                publisher: 0,
                from_bridge: false,
                claim,
            };
            let message = Message::of(&bytes, topic.len(), 0, meta, None);
            let before = self.counters.retained_refused;
            let (limits, counters) = (&self.limits, &mut self.counters);
            self.kept.store(limits, counters, &mut self.drops, Instant(1), &message, None);
            let is_kept = self.counters.retained_refused == before;
            if is_kept {
                self.model.insert(topic, size);
            }
            is_kept
        }

        fn check(&self) {
            let used = self.kept.used();
            let sum: usize = self.model.values().sum();
            assert_eq!(used.messages, self.model.len());
            assert!(used.bytes >= sum);
            let mut all = used;
            all.add(self.kept.leased);
            all.add(self.kept.promised);
            let (messages, bytes) =
                (self.limits.retained_messages_max, self.limits.retained_bytes_max);
            assert!(Room { messages, bytes }.holds(all), "{all:?} of {messages} and {bytes}");
        }
    }

    #[test]
    fn a_message_that_claims_nothing_takes_the_place_of_one_that_is_as_large() {
        let mut world = World {
            kept: Kept::new(&KeyedHash::new(1)),
            limits: Limits { retained_messages_max: 1, ..Limits::default() },
            counters: Counters::default(),
            drops: DropLog::default(),
            model: HashMap::new(),
            borrowed: Vec::new(),
        };
        let size = kept_size(1, 1) + 100;
        assert!(world.store("a", size, Claim::None));
        // The limit falls as in a shortage of memory: there is no room beyond what is used.
        world.limits.retained_bytes_max = world.kept.used().bytes;
        for claimless in [size, size - 50, size] {
            assert!(world.store("a", claimless, Claim::None), "{claimless}");
            world.check();
        }
        assert!(!world.store("a", size + 100, Claim::None) && !world.store("b", size, Claim::None));
    }

    #[test]
    fn what_is_kept_and_set_aside_never_passes_the_limits_and_claims_are_never_refused() {
        const TOPICS: [&str; 6] = ["a", "b", "c", "d", "e", "$SYSTEM"];
        let (mut promised_count, mut refused_count) = (0, 0);
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut below = move |count: u64| (random.number() % count) as usize;
            let limits = Limits {
                retained_messages_max: 1 + below(6),
                retained_bytes_max: 500 + below(2_000),
                ..Limits::default()
            };
            let mut world = World {
                kept: Kept::new(&KeyedHash::new(seed)),
                limits,
                counters: Counters::default(),
                drops: DropLog::default(),
                model: HashMap::new(),
                borrowed: Vec::new(),
            };
            let mut aside = Vec::new();
            for _ in 0..400 {
                let topic = TOPICS[below(TOPICS.len() as u64)];
                let size = kept_size(topic.len(), topic.len()) + 1 + below(400);
                match below(8) {
                    0 | 1 => refused_count += usize::from(!world.store(topic, size, Claim::None)),
                    2 => {
                        world.kept.remove(topic);
                        world.model.remove(topic);
                    }
                    3 if world.kept.lease(&world.limits, Room::of_one(size)) => {
                        aside.push(Aside::Lease(Room::of_one(size)));
                    }
                    4 if world.kept.promise(&world.limits, topic, size) => {
                        promised_count += 1;
                        aside.push(Aside::Promise(topic, size));
                    }
                    5 if !world.kept.is_promised(topic) => {
                        world.borrowed.extend(world.kept.get(topic).cloned());
                    }
                    6 => world.borrowed.clear(),
                    _ if !aside.is_empty() => {
                        let place = below(aside.len() as u64);
                        let is_used = below(4) > 0;
                        match aside.swap_remove(place) {
                            Aside::Lease(room) if is_used => {
                                assert!(world.store(
                                    topic_of(room.bytes),
                                    room.bytes,
                                    Claim::Leased
                                ));
                            }
                            Aside::Lease(room) => world.kept.end_lease(room),
                            Aside::Promise(topic, size) if is_used => {
                                assert!(world.store(topic, size, Claim::Promised));
                            }
                            Aside::Promise(topic, _) => world.kept.end_promise(topic),
                        }
                    }
                    _ => {}
                }
                world.check();
            }
        }
        assert!(
            promised_count > 1_000 && refused_count > 1_000,
            "{promised_count} {refused_count}"
        );
    }

    /// A topic for a message of so many bytes that spends a lease.
    fn topic_of(size: usize) -> &'static str {
        ["a", "b", "c", "d", "e"][size % 5]
    }

    #[test]
    fn only_what_the_broker_says_of_itself_is_kept_beside_the_room() {
        let limits = Limits { retained_messages_max: 0, ..Limits::default() };
        let mut kept = Kept::new(&KeyedHash::new(1));
        let (mut counters, mut drops) = (Counters::default(), DropLog::default());
        for (topic, from_bridge) in
            [("$SYS/a", false), ("$SYS/b", true), ("$SYSTEM", false), ("a", false)]
        {
            let bytes = [topic.as_bytes(), b"x"].concat();
            let meta = Meta {
                qos: 0,
                retain: true,
                is_origin: false,
                expires_at: None,
                publisher: 0,
                from_bridge,
                claim: Claim::None,
            };
            let message = Message::of(&bytes, topic.len(), 0, meta, None);
            kept.store(&limits, &mut counters, &mut drops, Instant(1), &message, None);
        }
        assert_eq!((kept.system().messages, kept.used().messages), (1, 0));
        assert_eq!(counters.retained_refused, 3);
        kept.remove("$SYS/a");
        assert_eq!(kept.system(), Room::default());
    }
}
