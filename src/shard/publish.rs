//! PUBLISH from a client: checked, admitted, acknowledged.

use super::admission::{Published, Publisher};
use super::input::Outcome;
use super::{About, ConnectionId, Shard};
use crate::arena::{Claim, Draft, Generation, Meta};
use crate::codec::{self, PacketId, ProtocolVersion, Publish, QoS, ReasonCode};
use crate::session::SessionKey;
use crate::time::Instant;
use crate::topic::{AliasError, check_name, is_system};

/// The keys that set how long and deep a topic may be, and how much is retained.
pub(super) const TOPIC_KEYS: &str = "filter_size_max and filter_levels_max";
pub(super) const RETAINED_KEYS: &str = "retained_messages_max and retained_bytes_max";

impl Shard {
    #[inline(always)]
    pub(super) fn on_publish(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: &Publish<'_>,
    ) -> Outcome {
        self.counters.publishes_received += 1;
        self.counters.publish_bytes_received += publish.payload.len() as u64;
        if !publish.subscription_ids.is_empty() {
            // [MQTT-3.3.4-6]
            let why = "a client's PUBLISH carries a subscription identifier";
            return self.refuse(now, id, ReasonCode::ProtocolError, why);
        }
        if (publish.qos as u8 > self.limits.qos_max
            || publish.retain && !self.limits.retain_available())
            && let Some(outcome) = self.check_available(now, id, version, *publish)
        {
            return outcome;
        }
        if version == ProtocolVersion::V5 && publish.topic_alias.is_some() {
            return self.on_aliased(now, id, key, version, *publish);
        }
        self.accept(now, id, key, version, publish, publish.topic)
    }

    /// Ends a 5.0 connection for what its CONNACK said is not to be had. Others cannot be told: their message is delivered as
    /// far as that goes, as no subscription is granted more.
    #[inline(never)]
    fn check_available(
        &mut self,
        now: Instant,
        id: ConnectionId,
        version: ProtocolVersion,
        publish: Publish<'_>,
    ) -> Option<Outcome> {
        if version != ProtocolVersion::V5 {
            return None;
        }
        let announced = self.announced_to(id);
        // [MQTT-3.2.2-11]
        if publish.qos as u8 > announced.qos_max {
            self.counters.refused_by_qos += 1;
            let why = "the QoS is above the maximum";
            return Some(self.refuse_at(now, id, ReasonCode::QosNotSupported, why, "qos_max"));
        }
        // [MQTT-3.2.2-14]
        if publish.retain && !announced.retain_available {
            self.counters.retained_refused += 1;
            let why = "no message is retained";
            let reason = ReasonCode::RetainNotSupported;
            return Some(self.refuse_at(now, id, reason, why, RETAINED_KEYS));
        }
        None
    }

    /// Defines the alias or puts the topic it stands for.
    #[inline(never)]
    fn on_aliased(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: Publish<'_>,
    ) -> Outcome {
        let alias = publish.topic_alias.unwrap_or(0);
        let mut topic = std::mem::take(&mut self.connections.topic_scratch);
        topic.clear();
        let size_max = self.limits.filter_size_max;
        let open = self.clients.live_connection(id).open_mut();
        let aliases = open.and_then(|open| open.aliases_in.as_deref_mut());
        let alias_max = aliases.as_ref().map_or(0, |aliases| aliases.max());
        let found = match aliases {
            Some(aliases) if !publish.topic.is_empty() => {
                topic.extend_from_slice(publish.topic.as_bytes());
                aliases.set(alias, cut(publish.topic, size_max))
            }
            Some(aliases) => match aliases.get(alias) {
                Some(known) => {
                    topic.extend_from_slice(known.as_bytes());
                    Ok(())
                }
                None => Err(AliasError::AboveMax),
            },
            None => Err(AliasError::AboveMax),
        };
        let outcome = match (std::str::from_utf8(&topic), found) {
            (Ok(topic), Ok(())) => self.accept(now, id, key, version, &publish, topic),
            (_, Err(AliasError::NoMemory)) => {
                self.counters.refused_by_metadata += 1;
                let why = "the topic aliases of all clients exceed their budget";
                let key = "shard_metadata_bytes_max";
                self.refuse_at(now, id, ReasonCode::QuotaExceeded, why, key)
            }
            _ => {
                // [MQTT-3.3.2-9]
                if publish.topic.is_empty() && alias <= alias_max {
                    let why = "the topic alias is not defined";
                    self.refuse(now, id, ReasonCode::ProtocolError, why)
                } else {
                    self.counters.refused_by_alias += 1;
                    let why = "the topic alias is above the maximum";
                    let reason = ReasonCode::TopicAliasInvalid;
                    self.refuse_at(now, id, reason, why, "topic_alias_max")
                }
            }
        };
        self.connections.topic_scratch = topic;
        outcome
    }

    #[inline(always)]
    fn accept(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Outcome {
        // Refusals wait behind deferred acknowledgements, too.
        if publish.packet_id.is_some()
            && self.bridges.is_any()
            && let Some(outcome) = self.check_deferred_acks(now, id, key, version)
        {
            return outcome;
        }
        if let Err(reason) = self.check_publish(publish, topic) {
            return self.refuse_publish(now, id, key, version, *publish, reason);
        }
        if publish.qos == QoS::ExactlyOnce
            && let Some(packet_id) = publish.packet_id
            && let Some(outcome) = self.begin_qos2(now, id, key, version, packet_id)
        {
            return outcome;
        }
        if self.bridges.has_clients && self.is_bridge(id) {
            return self.accept_of_bridge(now, id, key, version, *publish, topic);
        }
        let mut joined = Vec::new();
        let properties = publish.properties.halves(&mut joined);
        let meta = meta_of(now, key, publish);
        let draft = Draft { topic: topic.as_bytes(), properties, payload: publish.payload, meta };
        let published = self.publish(now, &draft, Publisher::Client(key, topic));
        self.answer_published(now, id, key, version, publish, published)
    }

    /// Remembers a QoS 2 message; what becomes of one that was here before or is not to be taken.
    #[inline(never)]
    fn begin_qos2(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        packet_id: PacketId,
    ) -> Option<Outcome> {
        let receive_max = self.receive_max_of(id);
        let session = self.clients.live_session(key);
        if session.has_received(packet_id) {
            // [MQTT-4.3.3-10]
            if !session.defers_ack_of(packet_id) {
                self.send_pubrec(id, packet_id, ReasonCode::Success);
            }
            return Some(Outcome::Done);
        }
        // A 3.x client was told no maximum; its packet ids bound it.
        if version == ProtocolVersion::V5 && session.received_count() >= receive_max {
            // [MQTT-3.3.4-7]
            let why = "more QoS 2 messages are unfinished than the receive maximum";
            return Some(self.refuse_at_receive_max(now, id, why));
        }
        if !session.may_receive_qos2() {
            return Some(self.refuse_qos2(now, id, key, version, packet_id));
        }
        session.note_received(packet_id);
        None
    }

    /// What its publisher hears of a message that was admitted, or is not to be.
    #[inline(always)]
    pub(super) fn answer_published(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: &Publish<'_>,
        Published { generation, denied }: Published,
    ) -> Outcome {
        let Some(packet_id) = publish.packet_id else { return Outcome::Done };
        let ack = (packet_id, publish.qos == QoS::ExactlyOnce);
        let is_v5 = version == ProtocolVersion::V5;
        if let Some(reason) = denied {
            return self.deny_publish(id, key, is_v5, ack, reason);
        }
        let mut generation = generation;
        // Others cannot be told, so they are kept if there is room.
        if publish.retain && is_v5 {
            generation = match self.claim_room(now, id, key, ack, generation) {
                Ok(generation) => generation,
                Err(outcome) => return outcome,
            };
        }
        self.acknowledge_publish(id, key, ack, generation)
    }

    /// There is no memory to remember one more QoS 2 message. Only a 5.0 client can be told so without an end.
    #[cold]
    #[inline(never)]
    fn refuse_qos2(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        packet_id: PacketId,
    ) -> Outcome {
        self.counters.refused_by_metadata += 1;
        let reason = ReasonCode::QuotaExceeded;
        let why = "the unfinished QoS 2 messages exceed their budget";
        match version {
            ProtocolVersion::V5 => self.deny_publish(id, key, true, (packet_id, true), reason),
            _ => self.refuse_at(now, id, reason, why, "shard_metadata_bytes_max"),
        }
    }

    /// A message was taken: its publisher is answered now, or when the logs of bridges have it.
    #[inline(always)]
    pub(super) fn acknowledge_publish(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        (packet_id, is_qos2): (PacketId, bool),
        generation: Generation,
    ) -> Outcome {
        if self.bridges.is_any() {
            self.acknowledge_when_written(id, key, (packet_id, is_qos2), generation);
            return Outcome::Done;
        }
        match is_qos2 {
            // [MQTT-4.3.2-4]
            false => self.send_puback(id, packet_id, ReasonCode::Success),
            // [MQTT-4.3.3-8]
            true => self.send_pubrec(id, packet_id, ReasonCode::Success),
        }
        Outcome::Done
    }

    /// Whether the client bridges from another broker.
    pub(super) fn is_bridge(&mut self, id: ConnectionId) -> bool {
        self.clients.live_connection(id).is_bridge()
    }

    /// The message goes nowhere. A 5.0 client is told why, a 3.x client is answered as if it had been taken.
    #[cold]
    pub(super) fn deny_publish(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        is_v5: bool,
        (packet_id, is_qos2): (PacketId, bool),
        reason: ReasonCode,
    ) -> Outcome {
        if is_v5 && is_qos2 {
            let session = self.clients.live_session(key);
            // The flow ends with this PUBREC; if that has to wait, so does its end. [MQTT-4.3.3-9]
            if !session.has_deferred_acks() {
                session.end_received(packet_id);
            }
        }
        let reason = if is_v5 { reason } else { ReasonCode::Success };
        self.acknowledge_in_turn(id, key, (packet_id, is_qos2), reason);
        Outcome::Done
    }

    #[inline(always)]
    fn check_publish(&mut self, publish: &Publish<'_>, topic: &str) -> Result<(), ReasonCode> {
        let (size_max, levels_max) = (self.limits.filter_size_max, self.limits.filter_levels_max);
        // A topic this short is within any bound of levels that an operator may set, or nearly.
        let is_short = topic.len() < size_max && topic.len() < levels_max;
        if !is_short && check_name(topic, size_max, levels_max).is_err() {
            self.counters.refused_by_topic += 1;
            return Err(ReasonCode::TopicNameInvalid);
        }
        if topic.starts_with('$') && is_system(topic) {
            self.counters.refused_by_topic += 1;
            return Err(ReasonCode::NotAuthorized);
        }
        let is_format_wrong = publish.payload_format_utf8
            && self.limits.payload_format_checked
            && simdutf8::basic::from_utf8(publish.payload).is_err();
        if is_format_wrong {
            self.counters.refused_by_payload_format += 1;
            return Err(ReasonCode::PayloadFormatInvalid);
        }
        Ok(())
    }

    /// [MQTT-3.3.4-9]
    #[cold]
    pub(super) fn refuse_at_receive_max(
        &mut self,
        now: Instant,
        id: ConnectionId,
        why: &str,
    ) -> Outcome {
        self.counters.refused_by_receive_max += 1;
        self.refuse_at(now, id, ReasonCode::ReceiveMaximumExceeded, why, "receive_max")
    }

    /// The message is not taken. A 5.0 client is told, at QoS 0 by the end of its connection; another hears what it would have
    /// heard of any message, and the operator is told.
    #[cold]
    fn refuse_publish(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: Publish<'_>,
        reason: ReasonCode,
    ) -> Outcome {
        let (why, keys) = match reason {
            ReasonCode::TopicNameInvalid => ("its topic is too long or too deep", TOPIC_KEYS),
            ReasonCode::PayloadFormatInvalid => {
                ("its payload is marked as UTF-8 and is not", "payload_format_checked")
            }
            _ => ("its topic is the broker's own", ""),
        };
        if version == ProtocolVersion::V5 && publish.packet_id.is_none() {
            return self.refuse_at(now, id, reason, why, keys);
        }
        self.notice_client(now, About::Message, id, why, keys);
        match publish.packet_id {
            None => Outcome::Done,
            Some(packet_id) => {
                let ack = (packet_id, publish.qos == QoS::ExactlyOnce);
                self.acknowledge_in_turn(id, key, ack, reason);
                Outcome::Done
            }
        }
    }

    #[inline]
    fn send_puback(&mut self, id: ConnectionId, packet_id: PacketId, reason: ReasonCode) {
        self.answer(id, |version, _, out| codec::encode_puback(version, packet_id, reason, out));
    }

    #[inline]
    fn send_pubrec(&mut self, id: ConnectionId, packet_id: PacketId, reason: ReasonCode) {
        self.answer(id, |version, _, out| codec::encode_pubrec(version, packet_id, reason, out));
    }
}

/// What travels with a client's message.
#[inline(always)]
pub(super) fn meta_of(now: Instant, key: SessionKey, publish: &Publish<'_>) -> Meta {
    Meta {
        qos: publish.qos as u8,
        retain: publish.retain,
        is_origin: true,
        expires_at: publish.message_expiry_s.map(|s| now.plus_s(u64::from(s))),
        publisher: key.as_u64(),
        from_bridge: false,
        claim: Claim::None,
    }
}

/// As much of a topic as shows that it is too long, so that the aliases of a connection have a bound.
fn cut(topic: &str, size_max: usize) -> &str {
    let mut end = topic.len().min(size_max + 4);
    while !topic.is_char_boundary(end) {
        end -= 1;
    }
    &topic[..end]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_topic_is_cut_only_where_it_is_too_long() {
        for (topic, size_max) in [("abc", 3), ("abcdefgh", 3), ("ab\u{1f600}\u{1f600}", 3), ("", 1)]
        {
            let kept = cut(topic, size_max);
            assert!(topic.starts_with(kept) && kept.len() <= size_max + 4);
            assert_eq!(kept.len() > size_max, topic.len() > size_max);
            assert!(topic.len() > size_max || kept == topic);
        }
    }
}
