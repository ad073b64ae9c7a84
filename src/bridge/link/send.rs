//! Packets that leave over a link: messages, and the packets that end their exchanges.

use super::postponed::Place;
use super::window::{FlightState, Window};
use super::{Link, LinkEvent, OUTPUT_MARK, Phase, UNLOGGED};
use crate::bridge::message::OutMessage;
use crate::codec::{PacketId, ProtocolVersion, PublishHead, QoS, ReasonCode, encode_pubrel};
use crate::time::Instant;
use crate::topic::OutboundAlias;

/// The size of the topic alias property.
const ALIAS_SIZE: usize = 3;

/// What became of a message that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The message is under way. Above QoS 0, `Done`, `Refused` or the like follows while the link is up.
    Taken,
    /// Nothing happened. The owner offers the message again when there is room.
    NoRoom,
    /// The remote takes no packet of this size, so the message is never sent.
    TooLarge,
    /// The remote refuses the message, or an earlier message of its topic, for now. The owner goes on with the next
    /// message. `LinkEvent::Due` or `LinkEvent::Again` says when to offer this one again.
    Waits,
}

impl Link {
    /// How many messages the link takes now.
    pub fn room(&self) -> usize {
        let is_shut =
            self.postponed.is_full() || self.room_is_for.is_some() || self.again_count > 0;
        if is_shut || !self.is_up() || self.output.len() >= OUTPUT_MARK {
            return 0;
        }
        self.window_room()
    }

    fn window_room(&self) -> usize {
        let quota = usize::from(self.suspicion.quota(self.quota()));
        quota.saturating_sub(self.logged.count() + self.unlogged.count())
    }

    /// The largest number of messages in flight.
    pub(super) fn quota(&self) -> u16 {
        self.settings.inflight_max.min(self.remote.receive_max)
    }

    /// Whether a message that is `Due` may find room.
    pub fn has_room_again(&self) -> bool {
        self.is_up() && self.output.len() < OUTPUT_MARK && self.window_room() > 0
    }

    /// Sends a message. `sequence` is its place in the log, or counts up from `UNLOGGED + 1`; at QoS 0 it is not used.
    /// Messages of each of the two kinds come in rising order since `LinkEvent::Up`, except those that waited.
    pub fn send(&mut self, now: Instant, sequence: u64, message: &OutMessage<'_>) -> Sent {
        let qos = message.qos.min(self.remote.qos_max);
        let is_tracked = qos != QoS::AtMostOnce;
        if !self.is_up() || self.output.len() >= OUTPUT_MARK {
            return Sent::NoRoom;
        }
        let topic = match is_tracked || !self.postponed.is_empty() {
            true => self.hash.bytes(message.topic.as_bytes()),
            false => 0,
        };
        if is_tracked && self.is_under_way(sequence) {
            return Sent::Taken;
        }
        let place = self.postponed.place(now, sequence, topic);
        match place {
            Place::Waits => return Sent::Waits,
            // Messages that waited may have the same topic, and go first.
            Place::Free if self.again_count > 0 => return Sent::NoRoom,
            Place::Free | Place::Front { .. } => {}
        }
        if !self.suspicion.lets(is_tracked) || is_tracked && !self.has_room_for(sequence, place) {
            return Sent::NoRoom;
        }
        let packet_id = is_tracked.then(|| self.window(sequence).id_of(sequence));
        // A message that the remote has refused is a new one to the remote. [MQTT-3.3.1-1]
        let is_new = place == Place::Front { is_in_doubt: false };
        let dup = is_tracked && !is_new && sequence <= *self.through(sequence);
        if !self.encode(message, qos, packet_id, dup) {
            return Sent::TooLarge;
        }
        self.touch(now);
        if is_tracked {
            let state = if qos == QoS::AtLeastOnce {
                FlightState::AtLeastOnce
            } else {
                FlightState::ExactlyOnce
            };
            self.window(sequence).push(sequence, state, topic);
            self.suspicion.sent(now, sequence);
            self.postponed.sent(sequence);
            self.room_is_for = self.room_is_for.filter(|one| *one != sequence);
            let through = self.through(sequence);
            *through = sequence.max(*through);
        } else if message.qos != QoS::AtMostOnce {
            // The remote has answered this message before.
            self.events.push_back(LinkEvent::Done { sequence });
            self.forget(sequence);
        }
        Sent::Taken
    }

    /// Whether a message above QoS 0 can be in flight now.
    fn has_room_for(&mut self, sequence: u64, place: Place) -> bool {
        let is_front = matches!(place, Place::Front { .. });
        let has_room = if is_front { self.window_room() > 0 } else { self.room() > 0 };
        let takes = self.window(sequence).takes(sequence);
        if is_front && !takes {
            // The message's identifier is too far from those in flight. No other message is sent until these are done.
            self.room_is_for = Some(sequence);
        }
        has_room && takes
    }

    /// Whether the message is in flight.
    pub fn is_under_way(&self, sequence: u64) -> bool {
        let window = if sequence > UNLOGGED { &self.unlogged } else { &self.logged };
        window.state(sequence).is_some()
    }

    /// The messages that a full log may drop: those from the returned sequence on, but for the returned ones in flight
    /// (in order). `floor` is the log's; `unsent` is the first message that was not offered yet, or is to be offered
    /// again.
    pub fn droppable(&self, floor: u64, unsent: u64) -> (u64, Vec<u64>) {
        let from = if self.postponed.is_empty() { unsent } else { floor };
        (from, self.logged.unfinished_from(from))
    }

    /// Notes that a message that was to be sent, and is not in flight, is over: set aside, dropped, or gone from the
    /// log.
    pub fn forget(&mut self, sequence: u64) {
        self.suspicion.finished(sequence, self.quota());
        self.room_is_for = self.room_is_for.filter(|one| *one != sequence);
        if self.postponed.finish(sequence) {
            self.again_count += 1;
            self.events.push_back(LinkEvent::Again { from: sequence + 1 });
        }
    }

    /// Notes that a message could not be set aside. It is sent again after a pause.
    pub fn keep(&mut self, now: Instant, sequence: u64) {
        self.postponed.keep(now, sequence);
    }

    /// Is called after `LinkEvent::Up`, before any message is sent, with the messages whose PUBREC is recorded, in
    /// order. The owner then sends all others that are not done, from the oldest on. The call does nothing if the link
    /// was lost since.
    pub fn resume(&mut self, received: impl IntoIterator<Item = u64>) {
        if !self.is_up() {
            return;
        }
        for sequence in received {
            if !self.session_present || !self.window(sequence).takes(sequence) {
                // The remote had the message, and its session is gone, so there is no exchange to release.
                self.events.push_back(LinkEvent::Done { sequence });
                self.forget(sequence);
                continue;
            }
            self.window(sequence).push(sequence, FlightState::Released, 0);
            self.send_pubrel(sequence);
        }
    }

    /// Notes that the PUBREC of this message is recorded: PUBREL may leave. The call does nothing if the link was lost
    /// since.
    pub fn release(&mut self, now: Instant, sequence: u64) {
        if self.is_up() && self.window(sequence).state(sequence) == Some(FlightState::Received) {
            self.window(sequence).set(sequence, FlightState::Released);
            self.send_pubrel(sequence);
            self.touch(now);
        }
    }

    /// Notes that bytes leave: the keep alive counts from here.
    pub(super) fn touch(&mut self, now: Instant) {
        if let Phase::Up(alive) = &mut self.phase {
            alive.sent_at = now;
        }
    }

    pub(super) fn send_pubrel(&mut self, sequence: u64) {
        let packet_id = self.window(sequence).id_of(sequence);
        encode_pubrel(self.version, packet_id, ReasonCode::Success, &mut self.output);
    }

    pub(super) fn window(&mut self, sequence: u64) -> &mut Window {
        if sequence > UNLOGGED { &mut self.unlogged } else { &mut self.logged }
    }

    fn through(&mut self, sequence: u64) -> &mut u64 {
        if sequence > UNLOGGED { &mut self.unlogged_through } else { &mut self.logged_through }
    }

    /// Appends the PUBLISH; `false`: the remote would not take it.
    fn encode(
        &mut self,
        message: &OutMessage<'_>,
        qos: QoS,
        packet_id: Option<PacketId>,
        dup: bool,
    ) -> bool {
        let version = self.version;
        let mut properties = message.properties;
        if version != ProtocolVersion::V5 {
            properties = &[];
        } else if !self.message_properties.is_empty() {
            self.scratch.clear();
            self.scratch.extend_from_slice(message.properties);
            self.scratch.extend_from_slice(&self.message_properties);
            properties = &self.scratch;
        }
        let mut head = PublishHead {
            dup,
            qos,
            retain: message.retain && self.remote.takes_retain,
            topic: message.topic.as_bytes(),
            packet_id,
            message_expiry_s: message.message_expiry_s,
            topic_alias: None,
            subscription_ids: &[],
            properties,
            payload_size: message.payload.len(),
        };
        let size = head.size(version);
        // [MQTT-3.2.2-15]
        if size > self.remote.packet_size_max {
            return false;
        }
        // The alias adds three bytes, which may make each of two lengths a byte longer.
        if size + ALIAS_SIZE + 2 <= self.remote.packet_size_max {
            match self.aliases_out.alias(message.topic) {
                OutboundAlias::None => {}
                OutboundAlias::New(alias) => head.topic_alias = Some(alias),
                OutboundAlias::Known(alias) => {
                    head.topic_alias = Some(alias);
                    head.topic = b"";
                }
            }
        }
        head.encode(version, &mut self.output);
        self.output.extend_from_slice(message.payload);
        true
    }
}
