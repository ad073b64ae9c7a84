//! Packets that arrive over a link.

use super::attempts::Failure;
use super::handshake::failure_of;
use super::postponed::Refusal;
use super::window::FlightState;
use super::{Link, LinkEvent, Phase, TAKEN_OVER_WITHIN_MS, Unwanted};
use crate::bridge::message::InMessage;
use crate::codec::{
    Ack, DecodeError, Frame, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    encode_pubcomp, encode_pubrel, next_frame,
};
use crate::printable::Quoted;
use crate::time::Instant;

impl Link {
    /// Handles bytes from the socket, in pieces of any size.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        // Before CONNACK is complete, the arrival of bytes does not give the remote more time.
        if let Phase::Up(alive) = &mut self.phase {
            self.late = None;
            alive.received_at = now;
            alive.ping_at = None;
        }
        if self.input.is_empty() {
            let used = self.take_frames(now, bytes);
            if self.is_listening() {
                self.input.extend_from_slice(&bytes[used..]);
            }
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let used = self.take_frames(now, &input);
        if self.is_listening() {
            input.drain(..used);
            self.input = input;
        }
    }

    fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. } | Phase::Up(_))
    }

    /// Takes whole frames from the front; returns how many bytes they have.
    fn take_frames(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.is_listening() {
            used += self.skip(&bytes[used..]);
            match next_frame(&bytes[used..], self.settings.packet_size_max) {
                Ok(Some(frame)) => {
                    used += frame.size;
                    self.on_frame(now, &frame);
                }
                Ok(None) => break,
                Err(error @ DecodeError::PacketTooLarge) => {
                    match self.pass_over_oversized(now, &bytes[used..]) {
                        None => self.on_malformed(now, &error),
                        Some(0) => break,
                        Some(size) => used += size,
                    }
                }
                Err(error) => self.on_malformed(now, &error),
            }
        }
        used
    }

    fn on_malformed(&mut self, now: Instant, error: &DecodeError) {
        self.fail(now, error.reason(), &format!("it sent a wrong packet: {error}"));
    }

    fn on_frame(&mut self, now: Instant, frame: &Frame<'_>) {
        if matches!(self.phase, Phase::Greeting { .. }) {
            return self.on_greeting(now, frame);
        }
        match Packet::decode(frame, self.version) {
            Err(error) => self.on_malformed(now, &error),
            Ok(Packet::Publish(publish)) => self.on_publish(now, &publish),
            Ok(Packet::Puback(ack)) => self.on_ack(now, &ack, FlightState::AtLeastOnce),
            Ok(Packet::Pubrec(ack)) => self.on_ack(now, &ack, FlightState::ExactlyOnce),
            Ok(Packet::Pubrel(ack)) => self.on_pubrel(&ack),
            Ok(Packet::Pubcomp(ack)) => self.on_pubcomp(&ack),
            Ok(Packet::Suback(suback)) => self.on_suback(&suback),
            Ok(Packet::Pingresp) => self.suspicion.answered(now),
            Ok(Packet::Unsuback(_)) => {}
            Ok(Packet::Disconnect(disconnect)) if self.version == ProtocolVersion::V5 => {
                let mut why = format!("it closes the connection: {:?}", disconnect.reason);
                for text in
                    [disconnect.reason_string, disconnect.server_reference].into_iter().flatten()
                {
                    why = format!("{why}, {}", Quoted(text));
                }
                if disconnect.reason == ReasonCode::SessionTakenOver {
                    why.push_str(&self.on_taken_over(now));
                }
                let failure = match may_mean_message(disconnect.reason) && self.suspect(now) {
                    // The remote may well go on without the message.
                    true => Failure::Passing,
                    false => failure_of(disconnect.reason),
                };
                self.go_down(now, failure, why);
            }
            Ok(packet) => {
                let what = format!("it sent {:?}, which only clients do", packet.packet_type());
                self.fail(now, ReasonCode::ProtocolError, &what);
            }
        }
    }

    /// The words that tell an operator that another client has taken the session over at the remote. The first time,
    /// the other client may be a process that has just ended.
    fn on_taken_over(&mut self, now: Instant) -> String {
        if let Phase::Up(alive) = self.phase
            && now.ms_since(alive.since) >= TAKEN_OVER_WITHIN_MS
        {
            self.taken_over_count = 0;
        }
        self.taken_over_count += 1;
        match self.taken_over_count {
            1 => String::new(),
            count => format!(
                ", {count} times now: another client has the client id '{}', too: a second site with the same configuration, \
                 or a copy of this bridge's folder. Give each a client_id of its own, or remove the file client_id from the copy",
                self.client_id
            ),
        }
    }

    fn on_publish(&mut self, now: Instant, publish: &Publish<'_>) {
        let mut topic = std::mem::take(&mut self.topic_scratch);
        topic.clear();
        let is_known = match publish.topic_alias {
            None => {
                topic.push_str(publish.topic);
                true
            }
            Some(alias) if publish.topic.is_empty() => match self.aliases_in.get(alias) {
                Some(known) => {
                    topic.push_str(known);
                    true
                }
                None => false,
            },
            Some(alias) => {
                topic.push_str(publish.topic);
                self.aliases_in.set(alias, publish.topic).is_ok()
            }
        };
        if is_known {
            self.on_message(now, publish, &topic);
        } else {
            let why = "it uses a topic alias that it has not defined, or that is above the maximum";
            self.fail(now, ReasonCode::TopicAliasInvalid, why);
        }
        self.topic_scratch = topic;
    }

    fn on_message(&mut self, now: Instant, publish: &Publish<'_>, topic: &str) {
        let mut number = 0;
        if let Some(packet_id) = publish.packet_id {
            match self.number_of(now, packet_id, publish.qos) {
                Some(new) => number = new,
                None => return,
            }
        }
        let Some(message) = self.map_inbound(publish, topic) else {
            self.unmatched_count += 1;
            self.inflow.take(number, ReasonCode::Success);
            return self.send_answers(now);
        };
        self.event_bytes += message.size();
        self.events.push_back(LinkEvent::Inbound { number, message });
    }

    /// The number of a message that asks for an answer. `None`: the message arrived before and gets the answer that it
    /// got then, or the remote sends more messages than it may and the link is down.
    pub(super) fn number_of(&mut self, now: Instant, packet_id: PacketId, qos: QoS) -> Option<u64> {
        // The bound is twice the receive maximum, because messages that an earlier connection left unfinished are not
        // in the remote's count.
        let open_max = 2 * usize::from(self.settings.receive_max);
        if self.version == ProtocolVersion::V5 && self.inflow.open_count() >= open_max {
            // [MQTT-3.3.4-9]
            let why = "it has more messages unacknowledged than the receive maximum";
            self.fail(now, ReasonCode::ReceiveMaximumExceeded, why);
            return None;
        }
        let number = self.inflow.arrive(packet_id, qos);
        if number.is_none() {
            self.send_answers(now);
        }
        number
    }

    /// The message with its topic on this broker, by the first rule that means the topic.
    fn map_inbound(&mut self, publish: &Publish<'_>, topic: &str) -> Option<InMessage> {
        let rule = self.subscribe_rules.iter().find(|rule| rule.matches(topic))?;
        let mapped = rule.map_topic(topic)?;
        let (qos, retain) = (rule.map_qos(publish.qos), rule.map_retain(publish.retain));
        Some(InMessage::new(&mapped, topic, publish, qos, retain))
    }

    fn on_pubrel(&mut self, ack: &Ack<'_>) {
        let reason = match self.inflow.release(ack.packet_id) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        encode_pubcomp(self.version, ack.packet_id, reason, &mut self.output);
    }

    /// The sequence that a packet identifier stands for.
    fn sequence_of(&self, packet_id: PacketId) -> Option<u64> {
        let unlogged = || self.unlogged.sequence_of(packet_id);
        self.logged.sequence_of(packet_id).or_else(unlogged)
    }

    /// Handles PUBACK or PUBREC, which answer a message at `expected`.
    fn on_ack(&mut self, now: Instant, ack: &Ack<'_>, expected: FlightState) {
        let sequence = self.sequence_of(ack.packet_id);
        let state = sequence.and_then(|sequence| self.window(sequence).state(sequence));
        let (Some(sequence), Some(state)) = (sequence, state) else {
            if expected == FlightState::ExactlyOnce {
                // No message of ours has this identifier, so the remote shall forget it. [MQTT-4.3.3-4]
                let reason = ReasonCode::PacketIdentifierNotFound;
                encode_pubrel(self.version, ack.packet_id, reason, &mut self.output);
            }
            return;
        };
        match state {
            FlightState::Released if expected == FlightState::ExactlyOnce => {
                self.send_pubrel(sequence)
            }
            _ if state != expected => {}
            _ if ack.reason.is_error() => self.on_refused(now, sequence, ack.reason),
            FlightState::ExactlyOnce => {
                self.window(sequence).set(sequence, FlightState::Received);
                self.events.push_back(LinkEvent::Received { sequence });
            }
            _ => self.finish(sequence),
        }
        if state == expected {
            self.suspicion.acknowledged();
        }
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>) {
        if let Some(sequence) = self.sequence_of(ack.packet_id)
            && self.window(sequence).state(sequence) == Some(FlightState::Released)
        {
            // "Not found" counts as success: the message was released before.
            self.finish(sequence);
        }
    }

    fn finish(&mut self, sequence: u64) {
        if let Phase::Up(alive) = &mut self.phase {
            alive.was_of_use = true;
        }
        self.window(sequence).set(sequence, FlightState::Finished);
        self.events.push_back(LinkEvent::Done { sequence });
        self.forget(sequence);
    }

    /// Notes that the remote has closed, perhaps because of a message. Returns whether a message was in flight.
    fn suspect(&mut self, now: Instant) -> bool {
        if !self.is_up() {
            return false;
        }
        let (logged, logged_count) = self.logged.unacknowledged();
        let (unlogged, unlogged_count) = self.unlogged.unacknowledged();
        let oldest = logged.or(unlogged);
        if let (Some(sequence), Some(times)) =
            (oldest, self.suspicion.closed(now, oldest, logged_count + unlogged_count))
        {
            let why = Unwanted::Closed { times };
            self.events.push_back(LinkEvent::SetAside { sequence, why });
        }
        oldest.is_some()
    }

    /// The remote has closed the connection. Like `handle_disconnected`, but a message may be the reason.
    pub fn handle_closed(&mut self, now: Instant, why: &str) {
        self.suspect(now);
        self.handle_disconnected(now, why);
    }

    fn on_refused(&mut self, now: Instant, sequence: u64, reason: ReasonCode) {
        let topic = self.window(sequence).topic_of(sequence);
        self.window(sequence).set(sequence, FlightState::Finished);
        if !matches!(reason, ReasonCode::QuotaExceeded | ReasonCode::PacketIdentifierInUse) {
            self.events.push_back(LinkEvent::Refused { sequence, reason });
            return self.forget(sequence);
        }
        self.suspicion.finished(sequence, self.quota());
        match self.postponed.refuse(now, sequence, topic) {
            Refusal::First => self.events.push_back(LinkEvent::Postponed { sequence, reason }),
            Refusal::Again | Refusal::Behind => {}
            Refusal::GivenUp { for_ms } => {
                let why = Unwanted::Refused { reason, for_ms };
                self.events.push_back(LinkEvent::SetAside { sequence, why });
            }
        }
    }
}

/// Whether a remote that closes for this reason may mean a message. Other reasons are about the client or the remote
/// itself.
fn may_mean_message(reason: ReasonCode) -> bool {
    use ReasonCode::*;
    !matches!(
        reason,
        ServerUnavailable
            | ServerBusy
            | ServerShuttingDown
            | KeepAliveTimeout
            | SessionTakenOver
            | AdministrativeAction
            | Banned
            | UseAnotherServer
            | ServerMoved
            | ConnectionRateExceeded
            | MaximumConnectTime
            | MessageRateTooHigh
            | QuotaExceeded
            | SharedSubscriptionsNotSupported
            | SubscriptionIdentifiersNotSupported
            | WildcardSubscriptionsNotSupported
    )
}
