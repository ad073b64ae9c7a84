//! Room for a retained message before it is taken: a 5.0 publisher of QoS 1 or 2 is told when there is none, and then
//! its message goes nowhere.
//!
//! Each shard holds leases of the room of every owner, spends them without a question, and asks for more in time. Where
//! a lease does not suffice, the connection waits for its owner's answer, which then holds for that topic. An owner that
//! would have to refuse, or runs short, calls all leases back first, so no message is refused while room lies idle.
//! The broker's own messages below `$SYS` need no claim.
//!
//! A retained message at QoS 0, or of a client before 5.0, makes no claim: if its owner has no room, the message is
//! counted and logged, and its publisher is not told.

use crate::arena::{Claim, Generation, Message, Stored, stored_size};
use crate::codec::{PacketId, ReasonCode};
use crate::hash::KeyedHash;
use crate::routing::mail::Control;
use crate::routing::retained::{Ask, Room, Setter, Word, kept_size};
use crate::session::{ConnectionId, DropReason, Park, SessionKey};
use crate::shard::input::Outcome;
use crate::shard::{Shard, ShardId};
use crate::time::Instant;
use std::collections::{HashMap, VecDeque};

/// The most that a lease has. It has at most one in `LEASE_PART` of the free room, divided by the number of shards.
const LEASE_MAX: Room = Room { messages: 1024, bytes: 4 << 20 };
const LEASE_PART: usize = 16;

/// The room of one owner that this shard may spend.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    left: Room,
    /// The size of the lease when it was given.
    given: Room,
    is_asked: bool,
}

impl Lease {
    fn is_low(&self) -> bool {
        self.left.messages <= self.given.messages / 2 || self.left.bytes <= self.given.bytes / 2
    }
}

/// A message that waits for its owner's answer. It has no slot.
#[derive(Debug)]
struct Waiting {
    request: u64,
    message: Stored,
    packet_id: PacketId,
    is_qos2: bool,
}

pub(in crate::shard) struct Claims {
    /// Whether some shard has asked: before that there are no leases either.
    has_begun: bool,
    /// The lease of each owner.
    leases: Vec<Lease>,
    waiting: HashMap<ConnectionId, Waiting, ahash::RandomState>,
    last_request: u64,
    /// Questions, and leases that came back, to be handled when the messages before them are in.
    asks: VecDeque<Ask>,
    returned: Room,
    /// Questions to be answered when all leases are back.
    delayed: Vec<Ask>,
    /// How many shards have yet to give back the leases that were called back.
    recalled: usize,
}

impl Claims {
    pub(crate) fn new(shard_count: u16, hash: &KeyedHash) -> Claims {
        Claims {
            leases: vec![Lease::default(); shard_count.into()],
            waiting: HashMap::with_hasher(hash.state()),
            last_request: 0,
            has_begun: false,
            asks: VecDeque::new(),
            returned: Room::default(),
            delayed: Vec::new(),
            recalled: 0,
        }
    }

    /// Whether there is nothing to do before mail comes.
    pub(crate) fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.returned.is_none()
    }

    /// Whether there may be anything to do, because some shard has asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(crate) fn push(&mut self, ask: Ask) {
        self.has_begun = true;
        self.asks.push_back(ask);
    }
}

impl Shard {
    /// Finds room for the message of a 5.0 client that was admitted last and is to be acknowledged, if it is to be
    /// retained. Returns its generation, or the outcome of its packet.
    pub(in crate::shard) fn claim_room(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        (packet_id, is_qos2): (PacketId, bool),
        generation: Generation,
    ) -> Result<Generation, Outcome> {
        let message = self.flow.arena.last().expect("the message was just admitted");
        if !message.meta.retain || message.payload.is_empty() {
            return Ok(generation);
        }
        let (size, waiting_size) = (kept_size_of(&message), stored_size(message.size()));
        let owner = self.peers.owner(message.topic);
        let room = Room::of_one(size);
        let is_crowded = owner == self.peers.own() && self.retained.kept.is_crowded(&self.limits);
        let has_room = match owner == self.peers.own() {
            true => !is_crowded && self.retained.kept.lease(&self.limits, room),
            false => self.spend_lease(owner, room),
        };
        if has_room {
            self.flow.arena.claim_for_last(Claim::Leased);
            return Ok(generation);
        }
        let is_storable =
            self.delivery.stored.bytes() + waiting_size <= self.limits.shard_stored_bytes_max;
        let message = self.flow.arena.last().expect("the message is held");
        let message = Stored::from_message(&message, &self.delivery.stored);
        self.flow.arena.deny_last();
        // The owner decides after all earlier publishes of this shard.
        self.run_pipeline(now);
        self.pause_hooks();
        if self.clients.live_connection(id).is_peer_gone {
            // There is no client to be told.
            return self.admit_again(now, &message, Claim::None).ok_or(Outcome::Done);
        }
        let waiting = Waiting { request: 0, message, packet_id, is_qos2 };
        let setter = Setter::of(&mut self.clients, self.peers.hash(), key);
        let topic = text(waiting.message.message().topic);
        if is_crowded && !self.retained.kept.may_set(&self.limits, topic, size, setter) {
            self.refuse_unkept(id, key, &waiting);
            return Err(Outcome::Done);
        }
        if owner == self.peers.own()
            && self.retained.kept.promise(&self.limits, text(waiting.message.message().topic), size)
        {
            return self.admit_again(now, &waiting.message, Claim::Promised).ok_or(Outcome::Done);
        }
        // Another owner knows its own bound, which is lower while it is short of memory.
        let may_ever = owner != self.peers.own() || size <= self.limits.retained_bytes_max;
        let is_recall_needed = owner != self.peers.own() || !self.retained.kept.leased().is_none();
        if !may_ever || !is_recall_needed || !is_storable {
            self.refuse_unkept(id, key, &waiting);
            return Err(Outcome::Done);
        }
        self.ask_owner(owner, id, waiting, setter);
        self.park(id, Park::Retained);
        Err(Outcome::Done)
    }

    fn spend_lease(&mut self, owner: ShardId, room: Room) -> bool {
        let lease = &mut self.retained.claims.leases[usize::from(owner)];
        if !lease.left.holds(room) {
            return false;
        }
        lease.left.subtract(room);
        if lease.is_low() && !lease.is_asked {
            lease.is_asked = true;
            self.flow.outbox.control(owner, Control::LeaseAsk);
        }
        true
    }

    fn ask_owner(
        &mut self,
        owner: ShardId,
        connection: ConnectionId,
        mut waiting: Waiting,
        setter: Option<Setter>,
    ) {
        self.retained.claims.last_request += 1;
        let request = self.retained.claims.last_request;
        waiting.request = request;
        let message = waiting.message.message();
        let (topic, size) = (text(message.topic).into(), kept_size_of(&message));
        let wants_lease = self.retained.claims.leases[usize::from(owner)].is_low();
        let ask =
            Ask { from: self.peers.own(), connection, request, topic, size, setter, wants_lease };
        self.retained.claims.waiting.insert(connection, waiting);
        match owner == self.peers.own() {
            true => self.retained.claims.push(ask),
            false => self.flow.outbox.control_behind(owner, Control::RoomAsk(ask)),
        }
    }

    /// Admits a message that waited once more. The arena had room for it before.
    fn admit_again(&mut self, now: Instant, message: &Stored, claim: Claim) -> Option<Generation> {
        let mut draft = message.message().draft();
        draft.meta.claim = claim;
        let admitted = self.admit(now, &draft);
        debug_assert!(admitted.is_some(), "the arena had room for it before");
        admitted
    }

    fn refuse_unkept(&mut self, id: ConnectionId, key: SessionKey, waiting: &Waiting) {
        self.counters.retained_refused += 1;
        let client_id =
            self.clients.session(key).map(|session| Box::<str>::from(session.client_id()));
        let topic = waiting.message.message().topic;
        self.delivery.drops.push(client_id.as_deref(), topic, DropReason::RetainedFull);
        let ack = (waiting.packet_id, waiting.is_qos2);
        self.deny_publish(id, key, true, ack, ReasonCode::QuotaExceeded);
    }

    /// Handles the answer of an owner about the room for a message that waits.
    pub(in crate::shard) fn on_word(&mut self, now: Instant, owner: ShardId, word: Word) {
        let Word { connection: id, request, topic, is_promised, lease } = word;
        self.take_lease(owner, lease);
        let asked =
            self.retained.claims.waiting.get(&id).is_some_and(|waiting| waiting.request == request);
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        let waiting = if asked { self.retained.claims.waiting.remove(&id) } else { None };
        let (Some(waiting), Some(key)) = (waiting, key) else {
            // The publisher went, and the message was published without a claim.
            if is_promised {
                self.return_promise(owner, topic);
            }
            return;
        };
        if is_promised {
            let ack = (waiting.packet_id, waiting.is_qos2);
            if let Some(generation) = self.admit_again(now, &waiting.message, Claim::Promised) {
                self.acknowledge_publish(id, key, ack, generation);
            }
        } else {
            self.refuse_unkept(id, key, &waiting);
        }
        self.unpark(now, id, Park::Retained);
    }

    fn return_promise(&mut self, owner: ShardId, topic: Box<str>) {
        match owner == self.peers.own() {
            true => self.retained.kept.end_promise(&topic),
            false => self.flow.outbox.control(owner, Control::PromiseBack { topic }),
        }
    }

    /// Handles the end of a connection whose message waits: the message was sent in time, so it is delivered, and kept
    /// if there is room.
    pub(in crate::shard) fn give_up_claim(&mut self, now: Instant, id: ConnectionId) {
        if self.retained.claims.waiting.is_empty() {
            return;
        }
        // Most connections that go have no claim.
        let Some(waiting) = self.retained.claims.waiting.remove(&id) else { return };
        let admitted = self.admit_again(now, &waiting.message, Claim::None);
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        if let (Some(key), Some(generation)) = (key, admitted) {
            let ack = (waiting.packet_id, waiting.is_qos2);
            self.acknowledge_publish(id, key, ack, generation);
        }
    }

    /// Forgets the message that waits, for a broker that shuts down: the client sends the message again to the next
    /// broker.
    pub(in crate::shard) fn forget_claim(&mut self, id: ConnectionId) {
        self.retained.claims.waiting.remove(&id);
    }

    pub(in crate::shard) fn take_lease(&mut self, owner: ShardId, room: Room) {
        let lease = &mut self.retained.claims.leases[usize::from(owner)];
        if room.is_none() {
            // The owner is not asked again before it has answered.
            return;
        }
        lease.left.add(room);
        (lease.given, lease.is_asked) = (lease.left, false);
    }

    /// Gives back the part of a lease that is not spent, because the owner needs it.
    pub(in crate::shard) fn on_lease_recall(&mut self, now: Instant, owner: ShardId) {
        self.run_pipeline(now);
        let lease = &mut self.retained.claims.leases[usize::from(owner)];
        let room = std::mem::take(&mut lease.left);
        (lease.given, lease.is_asked) = (Room::default(), false);
        // The owner is to have the messages that spent the lease before.
        self.flow.outbox.control_behind(owner, Control::LeaseBack(room));
    }

    pub(in crate::shard) fn on_lease_back(&mut self, room: Room) {
        self.retained.claims.returned.add(room);
        self.retained.claims.recalled -= 1;
    }

    pub(in crate::shard) fn on_lease_ask(&mut self, from: ShardId) {
        let room = self.grant_lease();
        self.flow.outbox.control(from, Control::Lease(room));
    }

    /// Sets a lease aside for another shard; the lease is empty if little is free.
    fn grant_lease(&mut self) -> Room {
        let free = self.retained.kept.free(&self.limits);
        let part = LEASE_PART * usize::from(self.peers.count());
        let room = Room {
            messages: LEASE_MAX.messages.min(free.messages / part),
            bytes: LEASE_MAX.bytes.min(free.bytes / part),
        };
        // Where little is left, the owner checks each message, because a setter may have enough.
        let is_given = self.retained.claims.recalled == 0
            && !self.retained.kept.is_crowded(&self.limits)
            && room.messages > 0
            && room.bytes > 0
            && self.retained.kept.lease(&self.limits, room);
        if is_given { room } else { Room::default() }
    }

    /// Answers the questions for room, after all messages that were sent before them were taken in.
    #[inline(always)]
    pub(in crate::shard) fn answer_asks(&mut self, now: Instant) {
        if !self.retained.claims.has_begun {
            return;
        }
        if !self.retained.claims.returned.is_none() {
            let returned = std::mem::take(&mut self.retained.claims.returned);
            self.retained.kept.end_lease(returned);
        }
        if self.retained.claims.recalled == 0 && !self.retained.claims.delayed.is_empty() {
            for ask in std::mem::take(&mut self.retained.claims.delayed) {
                self.answer_ask(now, ask, true);
            }
        }
        let leased = self.retained.kept.leased();
        if !leased.is_none() && self.is_room_short(leased) {
            // Leases are called back, so that their room is not missing for messages that do not ask: at QoS 0, and
            // before 5.0.
            self.recall_leases();
        }
        while let Some(ask) = self.retained.claims.asks.pop_front() {
            self.answer_ask(now, ask, false);
        }
    }

    fn answer_ask(&mut self, now: Instant, ask: Ask, is_final: bool) {
        let may_set = self.retained.kept.may_set(&self.limits, &ask.topic, ask.size, ask.setter);
        let is_promised = may_set && self.retained.kept.promise(&self.limits, &ask.topic, ask.size);
        let may_ever = may_set && ask.size <= self.limits.retained_bytes_max;
        if !is_promised && !is_final && may_ever && !self.retained.kept.leased().is_none() {
            self.retained.claims.delayed.push(ask);
            return self.recall_leases();
        }
        let Ask { from, connection, request, topic, wants_lease, .. } = ask;
        if from == self.peers.own() {
            let lease = Room::default();
            let word = Word { connection, request, topic, is_promised, lease };
            self.on_word(now, from, word);
            return self.run_pipeline(now);
        }
        let lease = if wants_lease { self.grant_lease() } else { Room::default() };
        let word = Word { connection, request, topic, is_promised, lease };
        self.flow.outbox.control(from, Control::RoomWord(Box::new(word)));
    }

    fn is_room_short(&self, leased: Room) -> bool {
        let free = self.retained.kept.free(&self.limits);
        free.messages < leased.messages || free.bytes < leased.bytes
    }

    fn recall_leases(&mut self) {
        if self.retained.claims.recalled > 0 {
            return;
        }
        for shard in (0..self.peers.count()).filter(|shard| *shard != self.peers.own()) {
            self.retained.claims.recalled += 1;
            self.flow.outbox.control(shard, Control::LeaseRecall);
        }
    }
}

/// The size of a message once it is retained.
fn kept_size_of(message: &Message<'_>) -> usize {
    kept_size(message.topic.len(), message.size())
}

fn text(topic: &[u8]) -> &str {
    std::str::from_utf8(topic).expect("a topic was validated when it was decoded")
}
