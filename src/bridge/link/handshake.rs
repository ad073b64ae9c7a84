//! CONNECT, CONNACK and SUBSCRIBE: how a link comes up.

use super::super::hops::Keeping;
use super::attempts::Failure;
use super::timeouts::Alive;
use super::{Link, LinkEvent, Phase, Remote, SUBSCRIBE_ID_FIRST};
use crate::codec::{
    BRIDGE_PROPERTY, Connack, Connect, Frame, PacketId, PacketType, ProtocolVersion, QoS,
    ReasonCode, RetainHandling, Suback, Subscribe, SubscribeFilters, SubscriptionOptions,
    UserProperties, encode_pingreq, put_user_property,
};
use crate::limits::PACKET_SIZE_CEILING;
use crate::printable::Quoted;
use crate::time::Instant;
use crate::topic::{InboundAliases, OutboundAliases};

/// How many filters one SUBSCRIBE has.
const FILTERS_PER_PACKET: usize = 16;

impl Link {
    pub(super) fn send_connect(&mut self) {
        let settings = &self.settings;
        let mut properties = Vec::new();
        put_user_property(&mut properties, BRIDGE_PROPERTY, &settings.name);
        for (name, value) in &settings.connect_properties {
            put_user_property(&mut properties, name, value);
        }
        let is_bridge_bit_taken = self.is_bridge_bit_taken != Some(false);
        let connect = Connect {
            bridge_bit: self.version != ProtocolVersion::V5 && is_bridge_bit_taken,
            clean_start: settings.clean_start,
            keep_alive_s: settings.keep_alive_s,
            user_name: settings.user_name.as_deref(),
            password: settings.password.as_ref().map(|password| password.0.as_bytes()),
            session_expiry_s: Some(settings.session_expiry_s),
            receive_max: Some(settings.receive_max),
            packet_size_max: u32::try_from(settings.packet_size_max).ok(),
            topic_alias_max: settings.topic_alias_max,
            user_properties: UserProperties::from_raw(&properties),
            ..Connect::new(self.version, &self.client_id)
        };
        connect.encode(&mut self.output);
    }

    /// Whether the bit that only bridges send may be the reason for which the remote has closed.
    pub(super) fn is_bridge_bit_open(&self) -> bool {
        self.version != ProtocolVersion::V5 && self.is_bridge_bit_taken.is_none()
    }

    /// Handles the first packet of the remote.
    pub(super) fn on_greeting(&mut self, now: Instant, frame: &Frame<'_>) {
        if frame.packet_type() != Some(PacketType::Connack) {
            return self.go_down(now, Failure::Refused, "it does not answer as MQTT does".into());
        }
        if self.version == ProtocolVersion::V5 && frame.body.len() == 2 {
            let why = "it does not speak MQTT 5.0: set protocol = \"3.1.1\"";
            return self.go_down(now, Failure::Refused, why.to_owned());
        }
        match Connack::decode(frame, self.version) {
            Err(error) => self.go_down(now, Failure::Refused, format!("its CONNACK: {error}")),
            Ok(connack) if connack.reason == ReasonCode::Success => self.come_up(now, &connack),
            Ok(connack) => self.on_refusal(now, &connack),
        }
    }

    fn on_refusal(&mut self, now: Instant, connack: &Connack<'_>) {
        let reason = connack.reason;
        if reason != ReasonCode::UnsupportedProtocolVersion && self.is_bridge_bit_open() {
            // The remote has accepted the level with the bridge bit.
            self.is_bridge_bit_taken = Some(true);
        }
        let mut why = format!("it refuses the connection: {reason:?}");
        for text in [connack.reason_string, connack.server_reference].into_iter().flatten() {
            why = format!("{why}, {}", Quoted(text));
        }
        self.go_down(now, failure_of(reason), why);
    }

    fn come_up(&mut self, now: Instant, connack: &Connack<'_>) {
        if self.is_bridge_bit_open() {
            self.is_bridge_bit_taken = Some(true);
        }
        self.silent_closings = 0;
        self.late = None;
        if self.version == ProtocolVersion::V5 {
            self.keeping = Keeping::of(&connack.user_properties);
        }
        let settings = &self.settings;
        let remote_size_max =
            connack.packet_size_max.map_or(PACKET_SIZE_CEILING, |max| max as usize);
        self.remote = Remote {
            receive_max: connack.receive_max.unwrap_or(u16::MAX),
            packet_size_max: remote_size_max.min(settings.packet_size_max),
            qos_max: connack.qos_max.unwrap_or(QoS::ExactlyOnce),
            takes_retain: connack.retain_available != Some(false),
        };
        let aliases_out = connack.topic_alias_max.unwrap_or(0).min(settings.topic_alias_out_max);
        self.aliases_out = OutboundAliases::new(aliases_out);
        self.aliases_in = InboundAliases::new(settings.topic_alias_max);
        // [MQTT-3.1.2-21]
        let keep_alive_s = connack.server_keep_alive_s.unwrap_or(settings.keep_alive_s);
        self.phase = Phase::Up(Alive {
            since: now,
            keep_alive_ms: u64::from(keep_alive_s) * 1000,
            sent_at: now,
            received_at: now,
            ping_at: None,
            was_of_use: false,
        });
        let session_present = connack.session_present;
        if !session_present {
            self.logged_through = 0;
            self.unlogged_through = 0;
        }
        self.session_present = session_present;
        self.inflow.begin(session_present);
        self.postponed.begin(now);
        self.events.push_back(LinkEvent::Up { session_present });
        self.subscribe();
        if self.suspicion.begin(now) {
            encode_pingreq(&mut self.output);
        }
    }

    /// Subscribes to all filters, each once, with the highest QoS that its rules want.
    fn subscribe(&mut self) {
        let is_known = self.session_present && self.has_subscribed;
        if is_known && self.version != ProtocolVersion::V5 {
            // The session has the subscriptions. Another SUBSCRIBE would bring all retained messages again.
            return;
        }
        let rules = std::mem::take(&mut self.subscribe_rules);
        let mut filters: Vec<(&str, SubscriptionOptions)> = Vec::new();
        for rule in &rules {
            let qos = rule.subscribe_qos();
            if let Some((_, options)) =
                filters.iter_mut().find(|(filter, _)| *filter == rule.filter())
            {
                options.qos = options.qos.max(qos);
                continue;
            }
            let retain_handling = match is_known {
                true => RetainHandling::SendIfNew,
                false => RetainHandling::SendAtSubscribe,
            };
            let options = SubscriptionOptions {
                qos,
                // [MQTT-3.8.3-4]
                no_local: !rule.is_shared(),
                retain_as_published: true,
                retain_handling,
            };
            filters.push((rule.filter(), options));
        }
        for (index, list) in filters.chunks(FILTERS_PER_PACKET).enumerate() {
            let subscribe = Subscribe {
                packet_id: subscribe_id(index),
                subscription_id: None,
                user_properties: UserProperties::default(),
                filters: SubscribeFilters::from_list(list),
            };
            subscribe.encode(self.version, &mut self.output);
        }
        self.subscribe_rules = rules;
    }

    pub(super) fn on_suback(&mut self, suback: &Suback<'_>) {
        self.has_subscribed = true;
        let mut filters: Vec<&str> = Vec::new();
        for rule in &self.subscribe_rules {
            if !filters.contains(&rule.filter()) {
                filters.push(rule.filter());
            }
        }
        let index = usize::from(suback.packet_id.get().saturating_sub(SUBSCRIBE_ID_FIRST));
        let asked = filters.iter().skip(index * FILTERS_PER_PACKET).take(FILTERS_PER_PACKET);
        for (filter, reason) in asked.zip(suback.reasons.iter()) {
            if reason.is_error() {
                let filter = (*filter).to_owned();
                self.events.push_back(LinkEvent::SubscribeRefused { filter, reason });
            }
        }
    }
}

fn subscribe_id(index: usize) -> PacketId {
    let id = usize::from(SUBSCRIBE_ID_FIRST) + index;
    let id = u16::try_from(id).expect("the configuration bounds the rules of a bridge");
    PacketId::new(id).expect("the first identifier is above 0")
}

/// Whether the link tries again soon, or rarely.
pub(super) fn failure_of(reason: ReasonCode) -> Failure {
    use ReasonCode::*;
    match reason {
        MalformedPacket
        | ProtocolError
        | UnsupportedProtocolVersion
        | ClientIdentifierNotValid
        | BadUserNameOrPassword
        | NotAuthorized
        | Banned
        | BadAuthenticationMethod
        | SessionTakenOver
        | TopicFilterInvalid
        | TopicNameInvalid
        | PacketTooLarge
        | PayloadFormatInvalid
        | AdministrativeAction
        | UseAnotherServer
        | ServerMoved => Failure::Refused,
        _ => Failure::Passing,
    }
}
