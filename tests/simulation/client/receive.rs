//! What a client receives, and what it makes of it.

use super::{Answer, Client, Env, FlowState, Session};
use crate::ledger::{Fate, Publication};
use ringmq::codec::{
    self, Ack, Connack, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    Suback, Unsuback, next_frame,
};
use std::collections::{BTreeSet, VecDeque};

impl Client {
    /// Reads what has come; notices the end of the connection.
    pub(crate) fn read(&mut self, env: &mut Env) {
        let Some(wire) = &mut self.wire else { return };
        let socket = &mut env.network.sockets[wire.socket];
        let waiting = socket.to_client.len();
        if waiting > 0 {
            let count = match env.is_calm || env.dice.chance(50) {
                true => waiting,
                false => 1 + env.dice.below(waiting),
            };
            wire.received.extend(socket.read(count));
        }
        let is_over = socket.is_server_gone && socket.to_client.is_empty();
        let mut received = std::mem::take(&mut wire.received);
        let mut used = 0;
        while self.wire.is_some() {
            let size_max = self.packet_size_max.map_or(usize::MAX, |max| max as usize);
            let frame = match next_frame(&received[used..], usize::MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => panic!("client {}: {error}", self.index),
            };
            used += frame.size;
            let is_open = self.is_open();
            assert!(frame.size <= size_max || !is_open, "a packet of {} bytes", frame.size);
            let packet = Packet::decode(&frame, self.version)
                .unwrap_or_else(|error| panic!("client {}: {error}", self.index));
            self.on_packet(env, packet);
        }
        received.drain(..used);
        if let Some(wire) = &mut self.wire {
            wire.received = received;
        }
        if is_over {
            self.on_end(env);
        }
    }

    /// The broker closed the connection.
    fn on_end(&mut self, env: &mut Env) {
        let Some(mut wire) = self.wire.take() else { return };
        env.network.sockets[wire.socket].is_client_gone = true;
        if wire.is_open {
            let is_expected = wire.is_hung || !env.scenario.is_ample || env.is_shutting_down;
            assert!(is_expected, "client {} was disconnected", self.index);
            // A client that reads hears of it.
            let is_told = wire.is_told || self.version != ProtocolVersion::V5;
            assert!(is_told || !env.is_shutting_down, "client {} was not told why", self.index);
            wire.is_over = true;
            if !wire.is_hung {
                // Why is not known to a 3.x client; whether a will was published neither.
                wire.will = None;
            }
        }
        self.after_loss(env, &wire);
    }

    fn on_packet(&mut self, env: &mut Env, packet: Packet<'_>) {
        if env.is_traced {
            println!("{} client {} gets {packet:?}", env.step, self.index);
        }
        let is_open = self.is_open();
        match packet {
            Packet::Connack(connack) => {
                assert!(!is_open, "a second CONNACK");
                self.on_connack(env, &connack);
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(env, &disconnect),
            packet => {
                assert!(is_open, "before CONNACK: {packet:?}");
                match packet {
                    Packet::Publish(publish) => self.on_publish(env, &publish),
                    Packet::Pubrel(ack) => self.on_pubrel(&ack),
                    Packet::Puback(ack) => self.on_puback(env, &ack),
                    Packet::Pubrec(ack) => self.on_pubrec(env, &ack),
                    Packet::Pubcomp(ack) => self.on_pubcomp(&ack),
                    Packet::Suback(suback) => self.on_suback(env, &suback),
                    Packet::Unsuback(unsuback) => self.on_unsuback(env, &unsuback),
                    Packet::Pingresp => {}
                    other => panic!("the broker sent {other:?}"),
                }
            }
        }
    }

    fn on_disconnect(&mut self, env: &mut Env, disconnect: &Disconnect<'_>) {
        let Some(wire) = &self.wire else { return };
        let is_fine = match disconnect.reason {
            ReasonCode::KeepAliveTimeout => wire.is_hung,
            ReasonCode::QuotaExceeded => !env.scenario.is_ample,
            ReasonCode::ServerShuttingDown => env.is_shutting_down,
            _ => false,
        };
        assert!(is_fine, "client {} was told {disconnect:?}", self.index);
        if let Some(wire) = &mut self.wire {
            wire.is_told = true;
        }
    }

    fn on_connack(&mut self, env: &mut Env, connack: &Connack<'_>) {
        if connack.reason.is_error() {
            let is_quota = connack.reason == ReasonCode::QuotaExceeded;
            let is_fine =
                !env.scenario.is_ample && (is_quota || self.version != ProtocolVersion::V5);
            assert!(is_fine, "client {} was refused: {connack:?}", self.index);
            return;
        }
        let Some(wire) = &mut self.wire else { return };
        wire.is_open = true;
        let asked_time = wire.asked_time;
        wire.alias_out_max = connack.topic_alias_max.unwrap_or(0);
        wire.keep_alive_s = connack.server_keep_alive_s.unwrap_or(wire.keep_alive_s);
        if self.version == ProtocolVersion::V5 {
            let receive_max = connack.receive_max.unwrap_or(u16::MAX);
            assert!(receive_max >= env.scenario.receive_max_least());
        }
        if let Some(assigned) = connack.assigned_client_id {
            assert!(self.client_id.is_empty());
            self.client_id = assigned.to_string();
        }
        let is_clean = wire.is_clean;
        // CONNACK of 3.1 does not say it.
        let is_present = match self.version {
            ProtocolVersion::V31 => self.session.is_some() && !is_clean,
            _ => connack.session_present,
        };
        assert!(!(is_clean && is_present), "a clean start resumed a session");
        let gone_ms = env.now.ms_since(self.left_at);
        let is_kept = env.scenario.is_ample && gone_ms < u64::from(self.expiry_s) * 1000;
        if let Some(session) = &self.session
            && !is_present
        {
            assert!(
                is_clean || !is_kept,
                "client {} lost its session, {gone_ms} ms away of {} s",
                self.index,
                self.expiry_s
            );
            env.ledger.end(session.incarnation, env.step);
            self.session = None;
            env.coverage.sessions_gone += 1;
        }
        if let Some((will, until)) = self.delayed_will.take()
            && self.session.is_some()
            && env.now < until
        {
            // [MQTT-3.1.3-9]
            env.ledger.publications[will as usize].fate = Fate::Withdrawn;
            env.coverage.cancelled_wills += 1;
        }
        if self.session.is_some() {
            env.coverage.resumptions += 1;
        } else {
            assert!(!is_present || self.may_be_present, "a session out of nothing");
            let size_max = self.packet_size_max.map_or(usize::MAX, |max| max as usize);
            let incarnation =
                env.ledger.begin((self.index, &self.client_id), self.version, size_max);
            self.session = Some(Session {
                incarnation,
                outbound: VecDeque::new(),
                inbound_qos2: BTreeSet::new(),
                refused_qos2: BTreeSet::new(),
            });
        }
        self.is_clean_needed = false;
        self.may_be_present = false;
        let Some(session) = &self.session else { return };
        env.ledger.open_link(session.incarnation, asked_time, env.step);
        self.resend(env);
    }

    fn on_publish(&mut self, env: &mut Env, publish: &Publish<'_>) {
        let (Some(wire), Some(session)) = (&mut self.wire, &mut self.session) else { return };
        let mut topic = publish.topic.to_string();
        if let Some(alias) = publish.topic_alias {
            assert!((1..=wire.alias_in_max).contains(&alias), "alias {alias} is above our maximum");
            if topic.is_empty() {
                topic = wire.aliases_in.get(&alias).expect("a known alias").clone();
                env.coverage.aliases_out += 1;
            } else {
                wire.aliases_in.insert(alias, topic.clone());
            }
        }
        env.coverage.receipts += 1;
        env.coverage.redelivered += u64::from(publish.dup);
        let Some(packet_id) = publish.packet_id else {
            env.ledger.receive(session.incarnation, &topic, publish, (env.step, env.now));
            return;
        };
        wire.unanswered.insert(packet_id.get());
        assert!(
            wire.unanswered.len() <= usize::from(wire.receive_max),
            "more than {} messages unacknowledged",
            wire.receive_max
        );
        let mut bytes = Vec::new();
        if publish.qos == QoS::AtLeastOnce {
            env.ledger.receive(session.incarnation, &topic, publish, (env.step, env.now));
            let reason = self.verdict(env);
            let Some(wire) = &mut self.wire else { return };
            codec::encode_puback(self.version, packet_id, reason, &mut bytes);
            let frees = Some(packet_id.get());
            return wire.answers.push_back(Answer { bytes, frees });
        }
        let id = packet_id.get();
        let is_again = publish.dup && session.refused_qos2.contains(&id);
        session.refused_qos2.remove(&id);
        if is_again {
            // It was refused, and that got lost.
        } else if session.inbound_qos2.insert(id) {
            env.ledger.receive(session.incarnation, &topic, publish, (env.step, env.now));
        } else {
            assert!(publish.dup, "packet id {id} is in use");
            codec::encode_pubrec(self.version, packet_id, ReasonCode::Success, &mut bytes);
            return wire.answers.push_back(Answer { bytes, frees: None });
        }
        let reason = if is_again { ReasonCode::QuotaExceeded } else { self.verdict(env) };
        let (Some(wire), Some(session)) = (&mut self.wire, &mut self.session) else { return };
        codec::encode_pubrec(self.version, packet_id, reason, &mut bytes);
        let is_refused = reason.is_error();
        if is_refused {
            // [MQTT-4.3.3-7]: the exchange is over. What was received was received.
            session.inbound_qos2.remove(&id);
            session.refused_qos2.insert(id);
        }
        wire.answers.push_back(Answer { bytes, frees: is_refused.then_some(id) });
    }

    /// Whether the client is content with a message.
    fn verdict(&self, env: &mut Env) -> ReasonCode {
        if self.version != ProtocolVersion::V5 || env.is_calm || !env.dice.chance(3) {
            return ReasonCode::Success;
        }
        env.coverage.refused += 1;
        ReasonCode::QuotaExceeded
    }

    fn on_pubrel(&mut self, ack: &Ack<'_>) {
        let (Some(wire), Some(session)) = (&mut self.wire, &mut self.session) else { return };
        let reason = match session.inbound_qos2.remove(&ack.packet_id.get()) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let mut bytes = Vec::new();
        codec::encode_pubcomp(self.version, ack.packet_id, reason, &mut bytes);
        wire.answers.push_back(Answer { bytes, frees: Some(ack.packet_id.get()) });
    }

    fn flow(&mut self, packet_id: PacketId) -> Option<usize> {
        let session = self.session.as_ref()?;
        session.outbound.iter().position(|flow| flow.packet_id == packet_id.get())
    }

    fn on_puback(&mut self, env: &mut Env, ack: &Ack<'_>) {
        let place = self.flow(ack.packet_id).expect("PUBACK for a message in flight");
        let Some(session) = &mut self.session else { return };
        let flow = session.outbound.remove(place).expect("just found");
        let (publication, qos) = (flow.publication, QoS::AtLeastOnce);
        self.on_answer(env, publication, qos, ack.reason);
    }

    fn on_pubrec(&mut self, env: &mut Env, ack: &Ack<'_>) {
        let place = self.flow(ack.packet_id).expect("PUBREC for a message in flight");
        let Some(session) = &mut self.session else { return };
        let flow = &mut session.outbound[place];
        flow.state = FlowState::Release;
        let publication = flow.publication;
        if ack.reason.is_error() {
            // The exchange is over. [MQTT-4.3.3-9]
            session.outbound.remove(place);
        }
        self.on_answer(env, publication, QoS::ExactlyOnce, ack.reason);
        if ack.reason.is_error() {
            return;
        }
        let mut bytes = Vec::new();
        codec::encode_pubrel(self.version, ack.packet_id, ReasonCode::Success, &mut bytes);
        self.write(env, &bytes);
    }

    /// The broker has taken a message, or says why it has not.
    fn on_answer(&self, env: &mut Env, publication: u32, qos: QoS, reason: ReasonCode) {
        let now = env.now;
        let is_full = !env.scenario.is_ample && reason == ReasonCode::QuotaExceeded;
        let one = &env.ledger.publications[publication as usize];
        let is_kept = one.sent.retain && one.retain && !one.payload.is_empty();
        if is_full && is_kept && !one.is_denied && self.version == ProtocolVersion::V5 {
            env.coverage.unkept += 1;
            return env.ledger.refused_for_room(publication);
        }
        let publication = env.ledger.accepted(publication, now);
        let expected = answer_to(publication, self.version);
        assert_eq!((publication.sent.qos, reason), (qos, expected));
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>) {
        let place = self.flow(ack.packet_id).expect("PUBCOMP for a message in flight");
        if let Some(session) = &mut self.session {
            assert_eq!(session.outbound[place].state, FlowState::Release);
            session.outbound.remove(place);
        }
    }

    fn on_suback(&mut self, env: &mut Env, suback: &Suback<'_>) {
        let (Some(wire), Some(session)) = (&mut self.wire, &self.session) else { return };
        let pending = wire.subscribe.take().expect("SUBACK without SUBSCRIBE");
        assert_eq!(pending.packet_id, suback.packet_id.get());
        assert_eq!(pending.places.len(), suback.reasons.len());
        for (place, reason) in pending.places.into_iter().zip(suback.reasons.iter()) {
            if reason.is_error() {
                assert!(!env.scenario.is_ample, "a subscription was refused: {reason:?}");
                env.ledger.refused(session.incarnation, place);
                continue;
            }
            let subscriptions = &env.ledger.incarnations[session.incarnation].subscriptions;
            assert_eq!(reason.as_u8(), subscriptions[place].options.qos as u8, "granted QoS");
            env.ledger.granted(session.incarnation, place, env.step);
        }
    }

    fn on_unsuback(&mut self, env: &mut Env, unsuback: &Unsuback<'_>) {
        let (Some(wire), Some(session)) = (&mut self.wire, &self.session) else { return };
        let (packet_id, sent_at, texts) = wire.unsubscribe.take().expect("UNSUBACK");
        assert_eq!(packet_id, unsuback.packet_id.get());
        for text in texts {
            env.ledger.unsubscribed(session.incarnation, &text, sent_at, env.step);
        }
    }
}

/// What the broker says of a publication: only a 5.0 client hears that a hook denied it.
fn answer_to(publication: &Publication, version: ProtocolVersion) -> ReasonCode {
    match publication.is_denied && version == ProtocolVersion::V5 {
        true => ReasonCode::QuotaExceeded,
        false => ReasonCode::Success,
    }
}
