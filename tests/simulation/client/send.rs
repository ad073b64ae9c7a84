//! What a client sends.

use super::{Client, Env, FlowState, Goodbye, Outbound, PendingSubscribe, Session, Will, Wire};
use crate::ledger::{Fate, Publication, Sent, payload_of};
use ringmq::codec::{
    self, Connect, Disconnect, ForwardedProperties, Packet, PacketId, Property, ProtocolVersion,
    Publish, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions,
    TopicFilters, Unsubscribe, UserProperties, next_frame,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const FILTERS: [&str; 18] = [
    "#", "t/#", "t/+", "+/1", "t/1", "t/2", "t/1/+", "t/+/2", "+/+/+", "r/#", "r/+/1", "r/1/0",
    "r/#", "d/#", "w/#", "s/1", "$x/#", "$x/+",
];
const SHARED: [&str; 6] = [
    "$share/g1/s/+",
    "$share/g2/s/1",
    "$share/g1/s/2",
    "$share/g3/t/#",
    "$share/a/r/#",
    "$share/b/s/#",
];

impl Client {
    pub(super) fn write(&mut self, env: &mut Env, bytes: &[u8]) {
        let Some(wire) = &mut self.wire else { return };
        if env.is_traced
            && let Ok(Some(frame)) = next_frame(bytes, usize::MAX)
        {
            let packet = Packet::decode(&frame, self.version);
            println!("{} client {} on {} sends {packet:?}", env.step, self.index, wire.socket);
        }
        if !wire.is_hung {
            wire.last_sent = env.now;
            env.network.write(wire.socket, bytes);
        }
    }

    pub(super) fn connect(&mut self, env: &mut Env) {
        if let Some(socket) = self.after
            && !env.network.sockets[socket].is_released()
        {
            return;
        }
        self.after = None;
        if let Some(socket) = self.goodbye.take() {
            let socket = &mut env.network.sockets[socket];
            socket.is_overlapped = !socket.is_released();
        }
        if env.is_calm && !self.wants_back(env) {
            // Nothing to come back for.
            return;
        }
        let is_v5 = self.version == ProtocolVersion::V5;
        let is_resumption = self.session.is_some() && !self.is_clean_needed;
        let wants_clean = !env.is_calm && env.dice.chance(15);
        let mut is_clean = self.is_clean_needed || wants_clean;
        if !is_resumption || is_clean {
            let expiry_s = *env.dice.pick(&[0, 0, 3, 30, 10_000, 10_000, 10_000]);
            self.expiry_s = if is_v5 {
                expiry_s
            } else if is_clean || expiry_s == 0 {
                is_clean = true;
                0
            } else {
                env.scenario.limits.session_expiry_v3_s
            };
        }
        let socket = env.network.connect(&mut env.dice);
        let (alias_in_max, receive_max) = if is_v5 {
            (*env.dice.pick(&[0, 2, 10]), *env.dice.pick(&[1, 3, 20, u16::MAX]))
        } else {
            (0, u16::MAX)
        };
        let keep_alive_s = *env.dice.pick(&[0, 0, 5, 20]);
        self.wire = Some(Wire {
            socket,
            is_open: false,
            is_clean,
            received: Vec::new(),
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            alias_in_max,
            alias_out_max: 0,
            receive_max: receive_max.min(env.scenario.inflight_max_most()),
            // So that what it sends again on its next connection is never too much there.
            send_max: env.scenario.receive_max_least(),
            keep_alive_s,
            asked_time: env.now,
            last_sent: env.now,
            answers: VecDeque::new(),
            unanswered: BTreeSet::new(),
            subscribe: None,
            unsubscribe: None,
            qos0: Vec::new(),
            will: None,
            is_hung: false,
            is_told: false,
            is_over: false,
        });
        self.send_connect(env, is_clean, keep_alive_s, receive_max, alias_in_max);
        if !env.is_calm && !self.client_id.is_empty() && env.dice.chance(20) {
            // Behind CONNECT, without waiting for the answer.
            let topic = format!("t/{}", env.dice.below(4));
            let id = self.register(env, topic, QoS::AtMostOnce, false, false);
            self.send_publication(env, id);
            env.coverage.pipelined += 1;
        }
    }

    fn send_connect(
        &mut self,
        env: &mut Env,
        is_clean: bool,
        keep_alive_s: u16,
        receive_max: u16,
        alias_in_max: u16,
    ) {
        let is_v5 = self.version == ProtocolVersion::V5;
        let client_id = self.client_id.clone();
        let mut connect = Connect::new(self.version, &client_id);
        connect.clean_start = is_clean;
        connect.keep_alive_s = keep_alive_s;
        if is_v5 {
            connect.session_expiry_s = (self.expiry_s > 0).then_some(self.expiry_s);
            connect.receive_max = (receive_max < u16::MAX).then_some(receive_max);
            connect.topic_alias_max = alias_in_max;
            connect.packet_size_max = self.packet_size_max;
        }
        let publication;
        if env.dice.chance(30) && !env.is_calm {
            let qos = *env.dice.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
            let topic = format!("w/{}", self.index);
            let id = self.register(env, topic, qos, false, true);
            publication = env.ledger.publications[id as usize].clone();
            let delay_s = if is_v5 { *env.dice.pick(&[0, 0, 1, 10]) } else { 0 };
            let sent = &publication.sent;
            connect.will = Some(codec::Will {
                topic: &sent.topic,
                payload: &sent.payload,
                qos,
                delay_s,
                message_expiry_s: sent.expiry_s,
                properties: ForwardedProperties::from_raw(&sent.properties),
                ..codec::Will::default()
            });
            if let Some(wire) = &mut self.wire {
                wire.will = Some(Will { publication: id, delay_s });
            }
        }
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(self.version, &mut bytes);
        self.write(env, &bytes);
    }

    /// Enters a publication of this client in the ledger.
    fn register(&self, env: &mut Env, topic: String, qos: QoS, retain: bool, is_will: bool) -> u32 {
        let id = env.ledger.next_publication();
        let is_v5 = self.version == ProtocolVersion::V5;
        let size = match env.dice.below(10) {
            0 => env.scenario.payload_size_max,
            1..=3 => env.dice.below(env.scenario.payload_size_max),
            _ => 12,
        };
        let size = if is_will { size.min(300) } else { size };
        let may_delete = retain && topic.starts_with("d/") && env.dice.chance(40);
        let payload = if may_delete { Vec::new() } else { payload_of(id, size) };
        let mut properties = Vec::new();
        if is_v5 && env.dice.chance(30) {
            let word = format!("{id}");
            let choices = [
                Property::PayloadFormat(true),
                Property::ContentType("text"),
                Property::ResponseTopic("answer/here"),
                Property::CorrelationData(&[7, 0, 255]),
                Property::UserProperty("n", &word),
                Property::UserProperty("", ""),
                Property::UserProperty("n", "again"),
            ];
            for choice in choices {
                if env.dice.chance(40) {
                    choice.encode(&mut properties);
                }
            }
        }
        let incarnation = self.session.as_ref().map_or(usize::MAX, |s| s.incarnation);
        let expiry_s = (is_v5 && env.dice.chance(5)).then(|| *env.dice.pick(&[1, 5, 1000]));
        env.ledger.publish(Publication {
            publisher: self.index,
            incarnation,
            sent: Sent {
                topic: topic.clone(),
                qos,
                retain,
                payload: payload.clone(),
                properties: properties.clone(),
                expiry_s,
            },
            is_denied: false,
            topic,
            qos,
            retain,
            payload,
            properties,
            expiry_s,
            is_will,
            sent_at: env.step,
            sent_time: env.now,
            accepted_time: None,
            send_count: 0,
            fate: Fate::Unknown,
        })
    }

    pub(super) fn publish(&mut self, env: &mut Env) {
        let count = *env.dice.pick(&[1, 1, 2, 8]);
        for _ in 0..count {
            let mut qos = *env.dice.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
            let small = env.dice.below(3);
            let number = env.dice.below(env.scenario.retained_count);
            let (topic, retain) = match env.dice.below(16) {
                0..=4 => (format!("t/{}", env.dice.below(4)), false),
                5..=7 => (format!("t/{}/{small}", env.dice.below(3)), false),
                8..=10 => (format!("s/{small}"), false),
                11..=13 => (format!("r/{}/{number}", self.index), true),
                14 => (format!("d/{small}"), true),
                _ => ("$x/1".to_string(), false),
            };
            let (topic, retain) = match env.scenario.is_sharing {
                true => (format!("s/{small}"), false),
                false => (topic, retain),
            };
            if env.scenario.is_sharing {
                qos = qos.max(QoS::AtLeastOnce);
            }
            if retain {
                // The last one sent is the one that stays only if they are never sent again out of turn.
                qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][(self.index
                    + topic.len()
                    + usize::from(topic.as_bytes()[topic.len() - 1]))
                    % 3];
            }
            let Some(wire) = &self.wire else { return };
            let Some(session) = &self.session else { return };
            let is_full = session.outbound.len() >= usize::from(wire.send_max);
            if wire.is_hung || (is_full && qos != QoS::AtMostOnce) {
                continue;
            }
            let id = self.register(env, topic, qos, retain, false);
            self.send_publication(env, id);
        }
    }

    fn send_publication(&mut self, env: &mut Env, id: u32) {
        let qos = env.ledger.publications[id as usize].sent.qos;
        let mut packet_id = None;
        if qos == QoS::AtMostOnce {
            if let Some(wire) = &mut self.wire {
                wire.qos0.push(id);
            }
        } else {
            let number = self.next_packet_id();
            packet_id = Some(number);
            if let Some(session) = &mut self.session {
                let state = FlowState::Publish;
                session.outbound.push_back(Outbound { packet_id: number, publication: id, state });
            }
        }
        self.send_publish(env, id, packet_id, false);
    }

    fn send_publish(&mut self, env: &mut Env, id: u32, packet_id: Option<u16>, dup: bool) {
        let publication = &mut env.ledger.publications[id as usize];
        publication.send_count += 1;
        let publication = &publication.sent;
        let Some(wire) = &mut self.wire else { return };
        let mut topic = publication.topic.as_str();
        let mut topic_alias = None;
        if wire.alias_out_max > 0 && env.dice.chance(60) {
            if let Some(alias) = wire.aliases_out.get(topic) {
                topic_alias = Some(*alias);
                if env.dice.chance(80) {
                    topic = "";
                    env.coverage.aliases_in += 1;
                }
            } else {
                let alias = 1 + env.dice.below(usize::from(wire.alias_out_max)) as u16;
                wire.aliases_out.retain(|_, known| *known != alias);
                wire.aliases_out.insert(topic.to_string(), alias);
                topic_alias = Some(alias);
            }
        }
        let publish = Publish {
            dup,
            qos: publication.qos,
            retain: publication.retain,
            topic,
            packet_id: packet_id.and_then(PacketId::new),
            topic_alias,
            message_expiry_s: publication.expiry_s,
            properties: ForwardedProperties::from_raw(&publication.properties),
            payload: &publication.payload,
            ..Publish::default()
        };
        let mut bytes = Vec::new();
        publish.encode(self.version, &mut bytes);
        self.write(env, &bytes);
    }

    /// All unfinished flows of a resumed session, in order. [MQTT-4.4.0-1]
    pub(super) fn resend(&mut self, env: &mut Env) {
        let Some(session) = &self.session else { return };
        for flow in session.outbound.clone() {
            env.coverage.client_resends += 1;
            match flow.state {
                FlowState::Publish => {
                    self.send_publish(env, flow.publication, Some(flow.packet_id), true);
                }
                FlowState::Release => {
                    let mut bytes = Vec::new();
                    let id = PacketId::new(flow.packet_id).expect("never 0");
                    codec::encode_pubrel(self.version, id, ReasonCode::Success, &mut bytes);
                    self.write(env, &bytes);
                }
            }
        }
    }

    pub(super) fn subscribe(&mut self, env: &mut Env) {
        let Some(Session { incarnation, .. }) = self.session else { return };
        if self
            .wire
            .as_ref()
            .is_none_or(|w| w.is_hung || w.subscribe.is_some() || w.unsubscribe.is_some())
        {
            return;
        }
        let is_v5 = self.version == ProtocolVersion::V5;
        let id = if is_v5 { *env.dice.pick(&[0, 0, 1, 2, 300, 268_435_455]) } else { 0 };
        let mut chosen: Vec<(&str, SubscriptionOptions)> = Vec::new();
        for _ in 0..env.dice.between(1, 3) {
            let is_sharing = env.scenario.is_sharing;
            let is_shared = is_sharing || (self.is_member && env.dice.chance(75));
            let text = match is_shared {
                true if is_sharing => ["$share/g1/s/#", "$share/g2/s/#"][self.index % 2],
                true => *env.dice.pick(&SHARED),
                false => *env.dice.pick(&FILTERS),
            };
            let handling = [
                RetainHandling::SendAtSubscribe,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ];
            let mut options = SubscriptionOptions {
                qos: *env.dice.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
                ..SubscriptionOptions::default()
            };
            if is_sharing {
                options.qos = options.qos.max(QoS::AtLeastOnce);
            }
            if is_v5 {
                options.no_local = !is_shared && env.dice.chance(20);
                options.retain_as_published = env.dice.chance(40);
                options.retain_handling = handling[env.dice.below(5).min(2) % 3];
            }
            if chosen.iter().all(|(other, _)| *other != text) {
                chosen.push((text, options));
            }
        }
        self.send_subscribe(env, incarnation, id, &chosen);
    }

    pub(super) fn subscribe_to_all(&mut self, env: &mut Env) {
        let Some(Session { incarnation, .. }) = self.session else { return };
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        self.send_subscribe(env, incarnation, 0, &[("#", options)]);
    }

    fn send_subscribe(
        &mut self,
        env: &mut Env,
        incarnation: usize,
        id: u32,
        chosen: &[(&str, SubscriptionOptions)],
    ) {
        let packet_id = self.next_packet_id();
        let places = chosen
            .iter()
            .map(|(text, options)| env.ledger.subscribe(incarnation, text, *options, id, env.step))
            .collect();
        let subscribe = Subscribe {
            packet_id: PacketId::new(packet_id).expect("never 0"),
            subscription_id: (id != 0).then_some(id),
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(chosen),
        };
        let mut bytes = Vec::new();
        subscribe.encode(self.version, &mut bytes);
        if let Some(wire) = &mut self.wire {
            wire.subscribe = Some(PendingSubscribe { packet_id, places });
        }
        self.write(env, &bytes);
    }

    pub(super) fn unsubscribe(&mut self, env: &mut Env) {
        let Some(Session { incarnation, .. }) = self.session else { return };
        if self
            .wire
            .as_ref()
            .is_none_or(|w| w.is_hung || w.subscribe.is_some() || w.unsubscribe.is_some())
        {
            return;
        }
        let known: Vec<String> = env.ledger.incarnations[incarnation]
            .subscriptions
            .iter()
            .filter(|s| s.ended_at.is_none())
            .map(|s| s.text.clone())
            .collect();
        if known.is_empty() || env.scenario.is_sharing {
            return;
        }
        let text = env.dice.pick(&known).clone();
        env.ledger.unsubscribe(incarnation, &text, env.step);
        let packet_id = self.next_packet_id();
        let filters = [text.as_str()];
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::new(packet_id).expect("never 0"),
            user_properties: UserProperties::default(),
            filters: TopicFilters::from_list(&filters),
        };
        let mut bytes = Vec::new();
        unsubscribe.encode(self.version, &mut bytes);
        if let Some(wire) = &mut self.wire {
            wire.unsubscribe = Some((packet_id, env.step, vec![text]));
        }
        self.write(env, &bytes);
    }

    pub(super) fn ping(&mut self, env: &mut Env) {
        self.write(env, &[0xc0, 0]);
    }

    pub(super) fn keep_alive(&mut self, env: &mut Env) {
        let Some(wire) = &self.wire else { return };
        let silent_ms = env.now.ms_since(wire.last_sent);
        if wire.keep_alive_s > 0 && silent_ms >= u64::from(wire.keep_alive_s) * 500 {
            self.ping(env);
        }
    }

    /// Sends some of the acknowledgements that are due.
    pub(super) fn answer(&mut self, env: &mut Env) {
        while env.is_calm || env.dice.chance(75) {
            let Some(wire) = &mut self.wire else { return };
            if wire.is_hung {
                return;
            }
            let Some(answer) = wire.answers.pop_front() else { return };
            if let Some(id) = answer.frees {
                wire.unanswered.remove(&id);
            }
            self.write(env, &answer.bytes);
        }
    }

    pub(super) fn say_goodbye(&mut self, env: &mut Env) {
        let is_v5 = self.version == ProtocolVersion::V5;
        let Some(wire) = &self.wire else { return };
        if wire.is_hung {
            return;
        }
        let with_will = is_v5 && env.dice.chance(30);
        let ends = is_v5 && env.dice.chance(30);
        let reason = match with_will {
            true => ReasonCode::DisconnectWithWill,
            false => ReasonCode::Success,
        };
        let disconnect =
            Disconnect { session_expiry_s: ends.then_some(0), ..Disconnect::new(reason) };
        let mut bytes = Vec::new();
        disconnect.encode(self.version, usize::MAX, &mut bytes);
        self.write(env, &bytes);
        env.coverage.goodbyes += 1;
        if ends && self.expiry_s > 0 {
            self.expiry_s = 0;
            self.is_clean_needed = true;
            self.may_be_present = true;
        }
        let Some(wire) = self.wire.take() else { return };
        env.network.close(&mut env.dice, wire.socket);
        self.left_at = env.now;
        self.goodbye = Some(wire.socket);
        env.goodbyes.push(Goodbye {
            socket: wire.socket,
            will: wire.will.filter(|_| !with_will).map(|will| will.publication),
            qos0: wire.qos0,
        });
        self.leave_session(env);
    }

    /// Says something, says goodbye and is back at once, through any shard.
    pub(super) fn leave_for_a_moment(&mut self, env: &mut Env) {
        self.publish(env);
        self.say_goodbye(env);
        if self.wire.is_none() {
            self.connect(env);
        }
    }

    /// Everything of a connection that stays open has arrived by now.
    pub(crate) fn confirm_qos0(&mut self, env: &mut Env) {
        let Some(wire) = &mut self.wire else { return };
        for id in wire.qos0.drain(..) {
            env.ledger.confirm(id);
        }
    }
}
