//! One client's session: what it subscribed to, what waits for it, what is in flight, its will.
//!
//! A message offered to a session is encoded into the connection's output when nothing is in front of it and there
//! is room; else it waits in the session's queue, as a stored copy. Everything for one session leaves in the order
//! in which it was offered.

pub mod absent;
pub mod bounds;
pub mod clients;
pub mod connection;
pub mod deferred_acks;
mod delivery;
pub mod dropped;
pub mod fetch;
pub mod holders;
pub mod inflight;
pub mod input;
mod key;
pub mod membership;
pub mod output;
pub mod overlaps;
pub mod packet_id;
mod parcel;
mod presence;
pub mod profile;
pub mod queue;
pub mod runs;
pub mod seen;
pub mod shares;
pub mod will;

pub mod encode;

pub use absent::Absent;
pub use bounds::SessionLimits;
pub use clients::{Clients, Totals};
pub use connection::{Connection, ConnectionId, ConnectionState, ListenerId, Park, ReadMode};
pub use deferred_acks::{DeferredAck, DeferredAcks, Ticket};
pub use delivery::Delivery;
pub use dropped::{DropLog, DropReason, Dropped};
pub use encode::EncodedOnce;
pub use fetch::{Fetch, Pull};
pub use holders::Holders;
pub use input::InputBuffer;
pub use key::SessionKey;
pub use membership::{Membership, Memberships, Returned};
pub use output::{
    BufferPool, OUTPUT_SLACK, Output, OutputBuffer, OutputTotal, Part, SMALL_CAPACITY,
};
pub use overlaps::Overlaps;
pub use profile::Profile;
pub use seen::Seen;
pub use shares::{HolderName, ShareId, Shares};
pub use will::Will;

use crate::arena::{Budget, Gauge, Message, allocated, stored_size};
use crate::codec::{PacketId, QoS};
use crate::counters::Counters;
use crate::limits::Limits;
use crate::time::{Deadline, Instant};
use inflight::{Flow, FlowState, Inflight};
use packet_id::PacketIdSet;
use parcel::Parcel;
use queue::{ENTRY_SIZE, Queue, QueueLimits, Queued};
use std::rc::Rc;

/// How one session's subscriptions want a message.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub qos: QoS,
    pub retain: bool,
    /// Subscription identifiers of all matching subscriptions.
    pub ids: Option<Rc<[u32]>>,
    /// The shared subscription through which the message came, as `Membership::number`; 0: none.
    pub membership: u32,
}

impl Default for Envelope {
    fn default() -> Envelope {
        Envelope { qos: QoS::AtMostOnce, retain: false, ids: None, membership: 0 }
    }
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The message is encoded into the connection's output, or treated as if it were.
    Sent,
    Queued,
    Dropped,
}

/// The parts of its shard that a session needs for the moment of a call.
pub struct Context<'a> {
    pub now: Instant,
    pub limits: &'a Limits,
    pub counters: &'a mut Counters,
    /// Counts queued and in-flight copies.
    pub stored: &'a Gauge,
    pub pool: &'a mut BufferPool,
    pub encoded: &'a mut EncodedOnce,
    pub drops: &'a mut DropLog,
}

impl Context<'_> {
    /// Whether the shard may keep this message in one more queue or flow.
    pub fn may_store(&self, message: &Message<'_>) -> bool {
        self.may_store_behind(0, message)
    }

    /// As `may_store`, when so many messages are stored already that are not in their queue yet.
    pub fn may_store_behind(&self, message_count: usize, message: &Message<'_>) -> bool {
        self.stored_with(message_count, message) <= self.limits.shard_stored_bytes_max
    }

    /// As `may_store`, for a session whose client is away or does not read: a part of the store is closed to such
    /// sessions.
    pub fn may_store_for_absent(&self, message: &Message<'_>) -> bool {
        self.stored_with(0, message) <= self.limits.absent_bytes_ceiling()
    }

    fn stored_with(&self, message_count: usize, message: &Message<'_>) -> usize {
        let entries_size = (message_count + 1) * ENTRY_SIZE;
        // A message that has an allocation is counted already.
        let is_counted = message.stored.is_some() || self.encoded.has_copy();
        let size = if is_counted { 0 } else { stored_size(message.size()) };
        self.stored.bytes() + size + entries_size
    }
}

/// One client, connected or not.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    client_id: Box<str>,
    connection: Option<ConnectionId>,
    /// How many seconds the session outlives its connection; 0: not at all; `u32::MAX`: for ever.
    expiry_s: u32,
    /// The filters that the client has subscribed to, sorted; shared ones as `$share/...`.
    filters: Vec<Box<str>>,
    /// Bytes that the texts of the filters take.
    filters_size: usize,
    /// Patterns of the filters that are not shared; `None`: the client has never had enough filters to need them.
    overlaps: Option<Box<Overlaps>>,
    /// `None`: the client has never subscribed to a group.
    memberships: Option<Box<Memberships>>,
    inflight: Inflight,
    queue: Queue,
    received_qos2: PacketIdSet,
    /// Answers to the client's publishes that wait for a bridge's log. The shard lists the session while this is
    /// `Some`.
    deferred_acks: Option<Box<DeferredAcks>>,
    will: Option<Box<Will>>,
    /// When the session ends, if no client is connected.
    ends_at: Deadline,
    /// When the will is published, if no client is connected.
    will_at: Deadline,
    /// The timer that is set for the earlier of `ends_at` and `will_at`; not a `Deadline`, for the reason that
    /// `Connection::timer` names.
    timer: Option<Instant>,
    /// Retained messages that still have to be fetched; `None`: there are none.
    fetch: Option<Box<Fetch>>,
    /// Whether some membership may have places to give to its group's owner.
    is_credit_due: bool,
    /// Whether the client's window leaves some membership fewer places than the limits do.
    is_short_of_places: bool,
    /// Whether the client does not read what it is sent. Until its queue is empty, the session may not use the part of
    /// the store that is reserved for clients that read.
    is_slow: bool,
    /// Whether the shard lists the session among those whose pulls go on.
    is_pull_listed: bool,
    /// How many bytes `Absent` counts for this session; 0: it holds nothing, or its client is connected.
    absent_bytes: usize,
    /// How many bytes `recount` counted last, without the windows of packet ids.
    counted: usize,
    /// The address from which the client connected last.
    address: ShareId,
    /// When the client left, in seconds: the session is listed among the absent under this time. 0: the client is
    /// connected.
    left_s: u32,
    /// Messages dropped because a limit of this session was met.
    dropped: u64,
    /// `None`: no hook asks for it.
    profile: Option<Box<Profile>>,
}

impl Session {
    /// `stored` counts the messages that wait for all sessions of the shard, `metadata` the other memory of these
    /// sessions.
    pub fn new(key: SessionKey, client_id: &str, stored: &Gauge, metadata: &Budget) -> Session {
        Session {
            key,
            client_id: client_id.into(),
            connection: None,
            expiry_s: 0,
            filters: Vec::new(),
            filters_size: 0,
            overlaps: None,
            memberships: None,
            inflight: Inflight::new(metadata.clone()),
            queue: Queue::new(stored.clone()),
            received_qos2: PacketIdSet::default(),
            deferred_acks: None,
            will: None,
            ends_at: Deadline::NONE,
            will_at: Deadline::NONE,
            timer: None,
            fetch: None,
            is_credit_due: false,
            is_short_of_places: false,
            is_slow: false,
            is_pull_listed: false,
            absent_bytes: 0,
            counted: 0,
            address: ShareId::ALL,
            left_s: 0,
            dropped: 0,
            profile: None,
        }
    }

    #[inline]
    pub fn key(&self) -> SessionKey {
        self.key
    }

    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The client as it connected last; `None`: no hook asks for it.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    pub fn inflight(&self) -> &Inflight {
        &self.inflight
    }

    /// The window, for acknowledgements.
    #[inline]
    pub fn inflight_mut(&mut self) -> &mut Inflight {
        &mut self.inflight
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Takes the queue of a session that ends.
    pub fn take_queue(&mut self) -> Queue {
        std::mem::take(&mut self.queue)
    }

    /// Messages dropped because a limit of this session was met.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes that the client does not read what it is sent.
    pub fn mark_slow(&mut self) {
        self.is_slow = true;
    }

    /// Whether some membership may have places to give to its group's owner.
    pub fn is_credit_due(&self) -> bool {
        self.is_credit_due
    }

    /// Notes whether the session is listed among those whose pulls go on; returns whether it was listed before.
    pub fn set_pull_listed(&mut self, is_listed: bool) -> bool {
        std::mem::replace(&mut self.is_pull_listed, is_listed)
    }

    /// The pulls of the session; `None`: there are none.
    pub fn fetch_mut(&mut self) -> Option<&mut Fetch> {
        self.fetch.as_deref_mut()
    }

    /// Adds the pull of one more subscription.
    pub fn begin_pull(&mut self, pull: Pull) {
        self.fetch.get_or_insert_default().push(pull);
    }

    /// Ends the pull of the first subscription, whose retained messages have all arrived.
    pub fn end_first_pull(&mut self) {
        if let Some(fetch) = &mut self.fetch {
            fetch.pop();
            self.fetch.take_if(|fetch| fetch.pulls.is_empty());
        }
        self.recount();
    }

    /// The bounds that a hook has set for this session.
    pub fn bounds(&self) -> SessionLimits {
        self.profile.as_ref().map_or_else(SessionLimits::default, |profile| profile.limits)
    }

    pub fn queue_limits(&self, limits: &Limits) -> QueueLimits {
        let bounds = self.bounds();
        QueueLimits {
            messages_max: bounds.queue_messages_max.unwrap_or(limits.queue_messages_max),
            bytes_max: bounds.queue_bytes_max.unwrap_or(limits.queue_bytes_max),
            policy: limits.queue_policy,
        }
    }

    /// Adds a filter that is not shared to the patterns; `false`: one topic would match too many subscriptions.
    pub fn overlap(&mut self, filter: &str, overlapping_max: usize) -> bool {
        if self.overlaps.is_none() && self.filters.len() < overlapping_max {
            return true;
        }
        let filters = &self.filters;
        let overlaps = self.overlaps.get_or_insert_with(|| {
            let others = filters.iter().map(|filter| &**filter);
            Box::new(Overlaps::of(others.filter(|filter| !filter.starts_with("$share/"))))
        });
        let may_add = overlaps.may_add(filter, overlapping_max);
        if may_add {
            overlaps.add(filter);
        }
        may_add
    }

    /// Removes a filter that is not shared from the patterns.
    pub fn end_overlap(&mut self, filter: &str) {
        if let Some(overlaps) = &mut self.overlaps {
            overlaps.remove(filter);
        }
    }

    pub fn filters(&self) -> &[Box<str>] {
        &self.filters
    }

    /// The index of a filter, or the index at which it is to be inserted.
    pub fn find_filter(&self, text: &str) -> Result<usize, usize> {
        self.filters.binary_search_by(|filter| (**filter).cmp(text))
    }

    pub fn insert_filter(&mut self, place: usize, text: &str) {
        if self.filters.is_empty() {
            // Most clients have one filter.
            self.filters.reserve_exact(1);
        }
        self.filters.insert(place, text.into());
        self.filters_size += allocated(text.len());
    }

    pub fn remove_filter(&mut self, place: usize) {
        let text = self.filters.remove(place);
        self.filters_size -= allocated(text.len());
        if self.filters.capacity() > 4 * self.filters.len().max(1) {
            self.filters.shrink_to(2 * self.filters.len());
        }
    }

    pub fn take_filters(&mut self) -> Vec<Box<str>> {
        self.filters_size = 0;
        std::mem::take(&mut self.filters)
    }

    /// Counts the session's present memory in the budget of metadata.
    pub fn recount(&mut self) {
        let bytes = self.bytes();
        self.inflight.budget().change(self.counted, bytes);
        self.counted = bytes;
    }

    /// The counted size of the client id, and the size that `recount` counted last.
    pub fn counted_sizes(&self) -> [usize; 2] {
        [allocated(self.client_id.len()), self.counted]
    }

    /// Takes the session, which ends, out of the budget.
    fn end_count(&mut self) {
        let budget = self.inflight.budget().clone();
        budget.change(self.counted, 0);
        self.counted = 0;
        self.received_qos2.clear(&budget);
    }

    /// The memory that the session holds beside its messages and its windows of packet ids. The cost of this call does
    /// not depend on how many filters there are.
    fn bytes(&self) -> usize {
        let filters = allocated(self.filters.capacity() * size_of::<Box<str>>());
        let overlaps = self.overlaps.as_ref().map_or(0, |overlaps| overlaps.bytes());
        let memberships = self.memberships.as_ref().map_or(0, |memberships| memberships.bytes());
        let fetch = self.fetch.as_ref().map_or(0, |fetch| fetch.bytes());
        let profile = self.profile.as_ref().map_or(0, |profile| profile.bytes());
        let id = allocated(self.client_id.len());
        id + filters + self.filters_size + overlaps + memberships + fetch + profile
    }

    /// Whether there is memory to remember one more QoS 2 message of the client.
    #[inline]
    pub fn may_receive_qos2(&mut self) -> bool {
        !self.received_qos2.is_full() || self.received_qos2.grow(self.inflight.budget())
    }

    /// Sends the message if nothing is in front of it and there is room, else queues it.
    #[inline]
    pub fn offer(
        &mut self,
        connection: Option<&mut Connection>,
        context: &mut Context<'_>,
        message: &Message<'_>,
        envelope: Envelope,
    ) -> Offer {
        let Some(connection) = connection else {
            if envelope.qos == QoS::AtMostOnce && !context.limits.queue_qos0_offline {
                context.counters.dropped_offline_qos0 += 1;
                self.tell_drop(context, message, DropReason::OfflineQos0);
                return Offer::Dropped;
            }
            return self.enqueue(context, message, envelope);
        };
        if !self.has_waiting() && self.may_send(connection, context.limits, envelope.qos) {
            if self.keeps(&envelope) && !context.may_store(message) {
                context.counters.dropped_stored_full += 1;
                self.tell_drop(context, message, DropReason::StoreFull);
                self.dropped += 1;
                return Offer::Dropped;
            }
            return self.send(connection, context, message, envelope);
        }
        self.enqueue(context, message, envelope)
    }

    /// Sends a message that is plain, if nothing else has to be done for it: what `offer` does for most messages at QoS
    /// 0.
    #[inline(always)]
    pub fn send_plain(
        &self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        message: &Message<'_>,
        retain: bool,
    ) -> bool {
        let is_sent = !self.has_waiting() && message.is_taken(connection, context.limits);
        if is_sent {
            encode::plain(connection, context, message, retain);
        }
        is_sent
    }

    /// As `send_plain`, at QoS 1 or 2.
    #[inline(always)]
    pub fn send_plain_acked(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        message: &Message<'_>,
        (qos, retain): (QoS, bool),
    ) -> bool {
        let may_send = self.queue.is_empty()
            && self.inflight.has_room(connection.quota)
            && message.is_taken(connection, context.limits);
        if !may_send {
            return false;
        }
        let mut stored = None;
        if self.is_resumable() {
            if !context.may_store(message) {
                return false;
            }
            stored = Some(context.encoded.store(message, context.stored));
        }
        let envelope = Envelope { qos, retain, ids: None, membership: 0 };
        let id = self.inflight.send(envelope, stored);
        encode::plain_acked(connection, context, message, (qos, retain), id);
        true
    }

    /// Whether anything is in front of the next message.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.inflight.has_unsent()
    }

    /// Sends what waits, as far as there is room: first the flows to be sent again, then the queue.
    pub fn pump(&mut self, connection: &mut Connection, context: &mut Context<'_>) {
        if self.inflight.has_unsent() && !self.resend(connection, context) {
            return;
        }
        while let Some(qos) = self.queue.front().map(|queued| queued.envelope.qos) {
            if !self.may_send(connection, context.limits, qos) {
                break;
            }
            let Some(queued) = self.queue.pop() else { break };
            context.counters.add_steps(1);
            self.use_place(queued.envelope.membership);
            let message = queued.stored.message();
            self.send(connection, context, &message, queued.envelope);
        }
    }

    /// Whether retained messages are to be fetched and nothing is in front of them.
    pub fn wants_pull(&self) -> bool {
        !self.has_waiting() && self.fetch.as_ref().is_some_and(|fetch| fetch.is_ready())
    }

    /// Queues a message, whatever room the connection has.
    pub fn enqueue(
        &mut self,
        context: &mut Context<'_>,
        message: &Message<'_>,
        envelope: Envelope,
    ) -> Offer {
        if message.meta.expires_at.is_some_and(|at| at <= context.now) {
            context.counters.expired += 1;
            self.tell_drop(context, message, DropReason::Expired);
            return Offer::Dropped;
        }
        let is_absent = self.connection.is_none() || (self.is_slow && !self.queue.is_empty());
        let may_store = match is_absent {
            true => context.may_store_for_absent(message),
            false => context.may_store(message),
        };
        if !may_store {
            context.counters.dropped_stored_full += 1;
            self.tell_drop(context, message, DropReason::StoreFull);
            self.dropped += 1;
            return Offer::Dropped;
        }
        context.counters.add_steps(1);
        self.is_slow &= is_absent;
        let limits = self.queue_limits(context.limits);
        let queued = Queued { stored: context.encoded.store(message, context.stored), envelope };
        match self.queue.push_if_room(queued, limits) {
            Ok(()) => Offer::Queued,
            Err(queued) => self.enqueue_in_full(context, queued, limits),
        }
    }

    /// Queues a message into a full queue or store, if the policy lets other messages make room for it.
    #[inline(never)]
    fn enqueue_in_full(
        &mut self,
        context: &mut Context<'_>,
        queued: Queued,
        limits: QueueLimits,
    ) -> Offer {
        let mut victims: Vec<u32> = Vec::new();
        let mut expired_count = 0;
        let (client_id, drops) = (&*self.client_id, &mut *context.drops);
        self.queue.expire_if_full(context.now, queued.stored.size(), limits, |expired| {
            expired_count += 1;
            drops.push(Some(client_id), expired.stored.message().topic, DropReason::Expired);
            victims.push(expired.envelope.membership);
        });
        context.counters.expired += expired_count;
        let mut victim_count = 0;
        let pushed = self.queue.push(queued, limits, |victim| {
            victim_count += 1;
            drops.push(Some(client_id), victim.stored.message().topic, DropReason::QueueFull);
            if victim.envelope.membership != 0 {
                victims.push(victim.envelope.membership);
            }
        });
        if let Err(queued) = &pushed {
            drops.push(Some(client_id), queued.stored.message().topic, DropReason::QueueFull);
        }
        victims.into_iter().for_each(|membership| self.use_place(membership));
        let offer = if pushed.is_ok() { Offer::Queued } else { Offer::Dropped };
        victim_count += u64::from(pushed.is_err());
        context.counters.dropped_queue_full += victim_count;
        self.dropped += victim_count;
        offer
    }

    fn tell_drop(&self, context: &mut Context<'_>, message: &Message<'_>, why: DropReason) {
        context.drops.push(Some(&self.client_id), message.topic, why);
    }

    /// Notes that a message with the retain flag reached the session, because answers with retained messages may still
    /// be on their way.
    pub fn saw_retained(&mut self, topic_hash: u64) {
        if let Some(fetch) = &mut self.fetch {
            let budget = self.inflight.budget();
            fetch.seen.get_or_insert_with(|| Box::new(Seen::new(budget.clone()))).push(topic_hash);
        }
    }

    /// Ends the pull of a subscription.
    pub fn end_pull(&mut self, filter: &str) {
        let Some(fetch) = &mut self.fetch else { return };
        fetch.retain(|pull| *pull.filter != *filter);
        if fetch.pulls.is_empty() {
            self.fetch = None;
        }
        self.recount();
    }

    #[inline]
    fn may_send(&mut self, connection: &Connection, limits: &Limits, qos: QoS) -> bool {
        let has_place = qos == QoS::AtMostOnce || self.inflight.has_room(connection.quota);
        has_place && connection.has_room(limits)
    }

    /// Whether a message is kept until it is acknowledged. A session that ends with its connection never sends again,
    /// so it needs no copy; a shared subscription's QoS 1 message may go to another member.
    fn keeps(&self, envelope: &Envelope) -> bool {
        match envelope.qos {
            QoS::AtMostOnce => false,
            QoS::AtLeastOnce => self.is_resumable() || envelope.membership != 0,
            QoS::ExactlyOnce => self.is_resumable(),
        }
    }

    #[inline]
    fn send(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        message: &Message<'_>,
        envelope: Envelope,
    ) -> Offer {
        if message.meta.expires_at.is_some_and(|at| at <= context.now) {
            // [MQTT-3.3.2-5]
            context.counters.expired += 1;
            self.tell_drop(context, message, DropReason::Expired);
            return Offer::Sent;
        }
        let qos = envelope.qos;
        if !encode::fits(connection, context.now, message, &envelope) {
            // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
            context.counters.dropped_too_large += 1;
            self.tell_drop(context, message, DropReason::TooLarge);
            self.dropped += 1;
            return Offer::Sent;
        }
        if qos == QoS::AtMostOnce {
            encode::publish(connection, context, message, &envelope, None, false);
            return Offer::Sent;
        }
        let stored = self.keeps(&envelope).then(|| context.encoded.store(message, context.stored));
        let id = self.inflight.send(envelope.clone(), stored);
        encode::publish(connection, context, message, &envelope, Some(id), false);
        Offer::Sent
    }

    /// Sends flows of an earlier connection again; returns whether none is left. [MQTT-4.4.0-1]
    fn resend(&mut self, connection: &mut Connection, context: &mut Context<'_>) -> bool {
        loop {
            if !connection.has_room(context.limits) {
                return !self.inflight.has_unsent();
            }
            let Some((id, flow)) = self.inflight.resend(connection.quota) else {
                return !self.inflight.has_unsent();
            };
            self.resend_flow(connection, context, id, &flow);
        }
    }

    fn resend_flow(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        id: PacketId,
        flow: &Flow,
    ) {
        if flow.state == FlowState::AwaitPubcomp {
            encode::pubrel(connection, context, id);
            return;
        }
        let fits = flow.stored.as_ref().is_some_and(|stored| {
            encode::fits(connection, context.now, &stored.message(), &flow.envelope)
        });
        match &flow.stored {
            Some(stored) if fits => {
                // [MQTT-3.3.1-1] DUP is set; expiry no longer applies [MQTT-4.3.3-7].
                let message = stored.message();
                encode::publish(connection, context, &message, &flow.envelope, Some(id), true);
            }
            _ => {
                // A message that was dropped was counted then.
                if let Some(stored) = &flow.stored {
                    context.counters.dropped_too_large += 1;
                    self.tell_drop(context, &stored.message(), DropReason::TooLarge);
                }
                self.inflight.finish(id, flow.state);
            }
        }
    }
}
