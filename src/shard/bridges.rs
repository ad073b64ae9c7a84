//! A shard's part of the bridges: messages that rules want, acknowledgements that wait for the log, messages of remote
//! brokers.
//!
//! The bridge stage of the origin copies the messages that forward rules want (`bridge::ForwardIndex`, remembered by
//! topic) into a batch and acks: no slot waits for a bridge. A PUBACK or PUBREC of a message that a rule stores waits
//! in its session until the bridge says `Written` through the message's generation (`session::deferred_acks`).
//!
//! A message that a bridge brings in is published by the shard to which its topic hashes, under the bridge's number,
//! and does not leave by the same bridge. The bridge answers the remote when the shard has the message.

use super::admission::Publisher;
use super::hops::Hops;
use super::input::Outcome;
use super::{ConnectionId, Shard};
use crate::arena::{Draft, Generation, Message, Meta};
use crate::bridge::ForwardIndex;
use crate::codec::{self, PacketId, ProtocolVersion, ReasonCode};
use crate::counters::Counters;
use crate::hash::KeyedHash;
use crate::routing::bridge_mail::{
    BRIDGE_COUNT_MAX, BridgeBatch, BridgeId, FromBridges, InboundBatch, ToBridges, publisher_of,
};
use crate::session::{Connection, DeferredAck, Park, SessionKey, Ticket};
use crate::stages::bridge::BridgeStage;
use crate::time::Instant;
use crate::topic::ScanEnd;
use std::collections::VecDeque;
use std::sync::Arc;

/// The bounds on one answer: retained messages, bytes, and topics that are looked at for it.
const RETAINED_COUNT_MAX: usize = 256;
const RETAINED_BYTES_MAX: usize = 256 << 10;
const RETAINED_VISIT_MAX: usize = 4096;

/// The shard's state about the bridges.
pub(super) struct Bridges {
    pub hops: Hops,
    /// Whether a client that is a bridge has connected since the shard began.
    pub has_clients: bool,
    pub stage: BridgeStage,
    /// How far each bridge's log has come.
    written: [Generation; BRIDGE_COUNT_MAX],
    /// Sessions with acknowledgements that wait.
    waiting: Vec<SessionKey>,
    /// Messages of bridges that must be in other bridges' logs before they are answered, in order.
    inbound: VecDeque<(BridgeId, u64, Ticket)>,
    /// Messages of remote brokers that are not published yet, and how many of each batch have been.
    pub inbound_left: VecDeque<(BridgeId, InboundBatch, usize)>,
    /// Numbers of messages of bridges that may be answered, by bridge and reason code.
    taken: Vec<(BridgeId, ReasonCode, Vec<u64>)>,
    /// A bit for each bridge that cannot take more messages.
    full: u64,
    queries: VecDeque<(u64, Box<str>, Option<Box<str>>)>,
}

impl Bridges {
    pub(super) fn new(hash: &KeyedHash) -> Bridges {
        Bridges {
            hops: Hops::default(),
            has_clients: false,
            stage: BridgeStage::new(hash),
            written: [Generation::NONE; BRIDGE_COUNT_MAX],
            waiting: Vec::new(),
            inbound: VecDeque::new(),
            inbound_left: VecDeque::new(),
            taken: Vec::new(),
            full: 0,
            queries: VecDeque::new(),
        }
    }

    /// Whether some bridge makes publishers wait.
    pub(super) fn is_blocking(&self) -> bool {
        self.full != 0
    }

    /// Whether some rule may want a message.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.stage.is_any()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stage.is_empty() && self.taken.is_empty()
    }

    /// Whether there is nothing to do before the bridges send something.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.queries.is_empty()
    }

    /// Where messages for clients that are bridges are noted; `None`: such messages cannot come back over a bridge of
    /// ours.
    #[inline]
    pub(super) fn returns(&mut self) -> Option<&mut BridgeStage> {
        (self.has_clients && self.stage.has_returns()).then_some(&mut self.stage)
    }

    /// How many questions for retained messages wait.
    pub(super) fn query_count(&self) -> usize {
        self.queries.len()
    }

    fn is_written(&self, ticket: Ticket) -> bool {
        bits(ticket.bridges).all(|bridge| self.written[bridge] >= ticket.generation)
    }

    fn poll(&mut self, counters: &mut Counters) -> Option<ToBridges> {
        if let Some((bridge, reason, numbers)) = self.taken.pop() {
            return Some(ToBridges::Taken { bridge, reason, numbers });
        }
        self.stage.poll(counters)
    }

    fn take_number(&mut self, bridge: BridgeId, number: u64, reason: ReasonCode) {
        let place = self.taken.iter_mut().find(|(of, with, _)| (*of, *with) == (bridge, reason));
        match place {
            Some((_, _, numbers)) => numbers.push(number),
            None => self.taken.push((bridge, reason, vec![number])),
        }
    }
}

/// The numbers of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros() as usize;
        (set != 0).then(|| {
            set &= set - 1;
            place
        })
    })
}

impl Shard {
    /// Sets the rules: messages that they want go to the bridges' lane from now on.
    pub fn set_bridges(&mut self, rules: Arc<ForwardIndex>) {
        self.bridges.stage.set_rules(rules);
    }

    /// The next item for the lane to the bridges.
    pub fn poll_bridge_mail(&mut self) -> Option<ToBridges> {
        self.bridges.poll(&mut self.counters)
    }

    /// Whether the shard can take messages of remote brokers now; else they stay in their lane.
    pub fn takes_bridge_mail(&self) -> bool {
        !self.flow.outbox.is_above_mark() && !self.bridges_above_mark() && !self.has_inbound_left()
    }

    /// Bytes of messages of remote brokers that wait for the next turn.
    pub(super) fn inbound_bytes(&self) -> usize {
        self.bridges.inbound_left.iter().map(|(_, messages, _)| messages.size()).sum()
    }

    /// Whether messages of remote brokers have used their part of this turn and others of them wait.
    pub fn has_inbound_left(&self) -> bool {
        !self.bridges.inbound_left.is_empty()
    }

    /// Whether more waits for the bridges than their lane should hold, so that publishers are not read.
    #[inline]
    pub(super) fn bridges_above_mark(&self) -> bool {
        self.bridges.stage.bytes() > self.flow.outbox.mark()
    }

    pub fn handle_bridge_mail(&mut self, now: Instant, mail: FromBridges) {
        match mail {
            FromBridges::Publish { bridge, messages } => {
                self.bridges.inbound_left.push_back((bridge, messages, 0));
                self.admit_inbound(now);
            }
            FromBridges::Written { bridge, through } => self.on_written(now, bridge, through),
            FromBridges::Block { bridge, is_on } => self.on_block(now, bridge, is_on),
            FromBridges::RetainedQuery { request, filter, after } => {
                self.bridges.queries.push_back((request, filter, after));
            }
            FromBridges::Status(lines) => self.publish_status(now, lines),
        }
    }

    /// Tells the bridges of a retained message that goes to a client that is a bridge.
    pub(super) fn note_retained(&mut self, key: SessionKey, message: &Message<'_>) {
        if self.bridges.has_clients
            && self.bridges.stage.has_returns()
            && self.clients.is_bridge(key)
        {
            self.bridges.stage.note_given(message);
        }
    }

    /// Checks how many messages a client has unacknowledged, including those that wait for a log.
    pub(super) fn check_deferred_acks(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
    ) -> Option<Outcome> {
        let deferred = self.clients.live_session(key).deferred_ack_count();
        if deferred < self.receive_max_of(id) {
            return None;
        }
        if version == ProtocolVersion::V5 {
            // [MQTT-3.3.4-7]
            let why = "more messages are unacknowledged than the receive maximum";
            return Some(self.refuse_at_receive_max(now, id, why));
        }
        if self.clients.live_connection(id).is_peer_gone {
            // Packets that the client sent before its end are used above all marks.
            return None;
        }
        // A 3.x client was told no maximum: it is not read until some messages are answered.
        Some(self.park(id, Park::Acks))
    }

    /// The ticket of a message: what must be written before it is acknowledged; `None`: nothing.
    fn ticket(&mut self, generation: Generation) -> Option<Ticket> {
        let message = self.flow.arena.get(generation)?;
        let targets = self.bridges.stage.targets(&message);
        let stored = targets.iter().filter(|target| target.is_stored);
        let bridges = stored.fold(0, |set, target| set | 1 << target.bridge);
        (bridges != 0).then_some(Ticket { generation, bridges })
    }

    /// Answers a QoS 1 or 2 publish now, or when the log has the message and all earlier publishes are answered.
    #[cold]
    pub(super) fn acknowledge_when_written(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        (packet_id, is_qos2): (PacketId, bool),
        generation: Generation,
    ) {
        let ticket = self.ticket(generation);
        let full = self.bridges.full;
        let session = self.clients.live_session(key);
        let is_behind = session.has_deferred_acks();
        if ticket.is_none() && !is_behind {
            return self.send_publish_ack(id, packet_id, is_qos2, ReasonCode::Success);
        }
        let ticket = ticket.unwrap_or(Ticket::NOW);
        let ack =
            DeferredAck { packet_id, reason: ReasonCode::Success, is_qos2, connection: id, ticket };
        if session.defer_ack(ack) {
            self.bridges.waiting.push(key);
        }
        self.counters.acks_withheld += 1;
        if ticket.bridges & full != 0 {
            let open = self.clients.live_connection(id).open_mut();
            open.expect("a publish comes on an open connection").is_blocked_by_bridge = true;
        }
    }

    /// Answers a refused publish behind all earlier ones.
    pub(super) fn acknowledge_in_turn(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        (packet_id, is_qos2): (PacketId, bool),
        reason: ReasonCode,
    ) {
        let session = self.clients.live_session(key);
        if session.has_deferred_acks() {
            let ticket = Ticket::NOW;
            session.defer_ack(DeferredAck { packet_id, reason, is_qos2, connection: id, ticket });
            return;
        }
        self.send_publish_ack(id, packet_id, is_qos2, reason);
    }

    fn send_publish_ack(
        &mut self,
        id: ConnectionId,
        packet_id: PacketId,
        is_qos2: bool,
        reason: ReasonCode,
    ) {
        self.answer(id, |version, _, out| match is_qos2 {
            // [MQTT-4.3.2-4]
            false => codec::encode_puback(version, packet_id, reason, out),
            // [MQTT-4.3.3-8]
            true => codec::encode_pubrec(version, packet_id, reason, out),
        });
    }

    fn on_written(&mut self, now: Instant, bridge: BridgeId, through: Generation) {
        let Some(written) = self.bridges.written.get_mut(usize::from(bridge)) else { return };
        *written = (*written).max(through);
        let mut waiting = std::mem::take(&mut self.bridges.waiting);
        waiting.retain(|&key| self.give_acks(now, key));
        // Some sessions that were answered have published again.
        waiting.append(&mut self.bridges.waiting);
        self.bridges.waiting = waiting;
        while let Some(&(bridge, number, ticket)) = self.bridges.inbound.front() {
            if !self.bridges.is_written(ticket) {
                break;
            }
            self.bridges.inbound.pop_front();
            self.bridges.take_number(bridge, number, ReasonCode::Success);
        }
    }

    /// Gives the answers of a session whose tickets are written; returns whether others must still wait.
    fn give_acks(&mut self, now: Instant, key: SessionKey) -> bool {
        let mut has_given = false;
        loop {
            // The session may have ended since its message came.
            let Some(session) = self.clients.session(key) else { return false };
            let Some(ack) = session.next_deferred_ack(|ticket| self.bridges.is_written(ticket))
            else {
                break;
            };
            has_given = true;
            if ack.is_qos2 && ack.reason.is_error() {
                session.end_received(ack.packet_id);
            }
            let id = session.connection().filter(|id| ack.is_qos2 || *id == ack.connection);
            if let Some(id) = id {
                self.send_publish_ack(id, ack.packet_id, ack.is_qos2, ack.reason);
            }
        }
        let session = self.clients.live_session(key);
        let is_waiting = session.is_ack_listed();
        if has_given && let Some(id) = session.connection() {
            self.unpark(now, id, Park::Acks);
        }
        is_waiting
    }

    fn on_block(&mut self, now: Instant, bridge: BridgeId, is_on: bool) {
        let bit = 1u64.checked_shl(bridge.into()).unwrap_or(0);
        if is_on {
            self.bridges.full |= bit;
            return;
        }
        self.bridges.full &= !bit;
        // Each connection finds out with its next publish whether it must still wait.
        for _ in 0..self.connections.parked_on_bridges.len() {
            // The list loses connections that are gone, some while others go on.
            let Some(id) = self.connections.parked_on_bridges.pop(&mut self.clients) else {
                return;
            };
            if let Some(open) = self.clients.connection(id).and_then(Connection::open_mut) {
                open.is_blocked_by_bridge = false;
            }
            self.unpark(now, id, Park::Bridge);
        }
    }

    /// Publishes messages of remote brokers, as many as a turn allows. The others wait, in their order.
    pub(super) fn admit_inbound(&mut self, now: Instant) {
        self.work.turns.is_pending |= self.has_inbound_left();
        while self.work.turns.bridge_steps < self.turn_part()
            && let Some((bridge, messages, used)) = self.bridges.inbound_left.pop_front()
        {
            if let Some(used) = self.admit_inbound_batch(now, bridge, &messages, used) {
                self.bridges.inbound_left.push_front((bridge, messages, used));
            }
        }
    }

    /// Publishes the messages of a batch, without the first `used`. `Some`: so many are used, and the others wait for
    /// the next turn.
    fn admit_inbound_batch(
        &mut self,
        now: Instant,
        bridge: BridgeId,
        messages: &InboundBatch,
        used: usize,
    ) -> Option<usize> {
        for (place, (number, message)) in messages.messages().enumerate().skip(used) {
            if self.work.turns.bridge_steps >= self.turn_part() {
                return Some(place);
            }
            let began = self.steps();
            self.counters.bridge_messages_received += 1;
            let meta = Meta {
                is_origin: true,
                publisher: publisher_of(bridge),
                from_bridge: true,
                ..message.meta
            };
            let draft = Draft { meta, ..message.draft() };
            let admitted = self.publish(now, &draft, Publisher::Bridge(bridge));
            self.work.turns.bridge_steps += 1 + self.steps() - began;
            if number == 0 {
                continue;
            }
            if admitted.is_refused() {
                let reason = admitted.denied.unwrap_or(ReasonCode::UnspecifiedError);
                self.bridges.take_number(bridge, number, reason);
                continue;
            }
            // A denied message waits for no log.
            match self.ticket(admitted.generation) {
                Some(ticket) => self.bridges.inbound.push_back((bridge, number, ticket)),
                // Messages are answered in the order in which they came. [MQTT-4.6.0-2]
                None if !self.bridges.inbound.is_empty() => {
                    self.bridges.inbound.push_back((bridge, number, Ticket::NOW));
                }
                None => self.bridges.take_number(bridge, number, ReasonCode::Success),
            }
        }
        None
    }

    /// Answers the bridges with retained messages of this shard, a chunk a turn.
    pub(super) fn answer_bridges(&mut self, now: Instant) {
        while !self.bridges_above_mark() {
            let Some((request, filter, after)) = self.bridges.queries.pop_front() else { return };
            let mut messages = BridgeBatch::default();
            let after = after.as_deref();
            let mut left = RETAINED_VISIT_MAX;
            let end = self.retained.kept.scan_while(&filter, after, &mut left, |_, stored| {
                let message = stored.message();
                if message.meta.expires_at.is_none_or(|at| at > now) {
                    messages.push(&[], Generation::NONE, false, &message);
                }
                messages.message_count() < RETAINED_COUNT_MAX
                    && messages.size() < RETAINED_BYTES_MAX
            });
            let more = match end {
                ScanEnd::Done => None,
                ScanEnd::More(topic) => Some(topic),
            };
            // The answer goes behind every message that was published before.
            self.bridges.stage.push_item(ToBridges::Retained { request, messages, more });
        }
    }
}
