//! CONNECT: which shard, whether at all, and the session it begins or resumes.

use super::hooks::Asked;
use super::hops::Belief;
use super::input::Outcome;
use super::publish::{RETAINED_KEYS, TOPIC_KEYS};
use super::shares::Losers;
use super::{About, ConnectionId, Event, Notice, Shard, ShardId};
use crate::arena::{Claim, Draft, Meta, Stored, stored_size};
use crate::bridge::hops::{MARKS_ARE_KEPT, MARKS_ARE_NOT_KEPT};
use crate::codec::{
    self, Connack, Connect, DecodeError, ProtocolVersion, QoS, ReasonCode, UserProperties,
};
use crate::plugin::HookEvent;
use crate::session::connection::{ConnectionState, Open};
use crate::session::{SessionKey, SessionLimits, Will};
use crate::time::Instant;
use crate::topic::{InboundAliases, OutboundAliases, check_name, is_system};

/// No CONNACK without strings but the assigned client identifier is larger.
const CONNACK_SIZE_MAX: usize = 64;

/// What a client is given of what it asks for.
struct Granted {
    expiry_s: u32,
    keep_alive_s: u16,
    inflight_max: u16,
    belief: Belief,
    /// Aliases that the client may define.
    topic_alias_max: u16,
}

/// Why a CONNECT is refused.
struct Refused {
    reason: ReasonCode,
    why: &'static str,
    /// The keys that set the limit which was met; empty: none was.
    keys: &'static str,
    /// The plugin that denied it.
    denier: Option<String>,
}

impl Refused {
    fn new(reason: ReasonCode, why: &'static str) -> Refused {
        Refused::at_limit(reason, why, "")
    }

    fn at_limit(reason: ReasonCode, why: &'static str, keys: &'static str) -> Refused {
        Refused { reason, why, keys, denier: None }
    }
}

impl Shard {
    /// The other shard that owns the client's session; `None`: this one, or the client leaves its id to us.
    pub(super) fn owner_of(&self, connect: &Connect<'_>) -> Option<ShardId> {
        if connect.client_id.is_empty() {
            return None;
        }
        let owner = self.peers.owner(connect.client_id.as_bytes());
        (owner != self.peers.own()).then_some(owner)
    }

    /// Answers a CONNECT that cannot be decoded, as far as its version is known. [MQTT-3.1.4-1]
    pub(super) fn refuse_connect_error(
        &mut self,
        now: Instant,
        id: ConnectionId,
        (body, rest): (&[u8], &[u8]),
        error: &DecodeError,
    ) -> Outcome {
        self.counters.protocol_errors += 1;
        // That it is too large was told with its size.
        if *error != DecodeError::PacketTooLarge {
            self.notice_stranger(now, id, rest, &error.to_string());
        }
        // Behind the name comes the level.
        let name_size = match body {
            [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        let level = body.get(2 + name_size).copied();
        let reason = error.reason();
        let version = match level {
            Some(3 | 0x83) => ProtocolVersion::V31,
            Some(4 | 0x84) => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        let is_level_refused = reason == ReasonCode::UnsupportedProtocolVersion;
        if is_level_refused || level == Some(5) {
            // A level below 5 is answered in the form that such a client reads. [MQTT-3.1.2-2]
            let version = if is_level_refused && level.is_some_and(|level| level < 5) {
                ProtocolVersion::V311
            } else {
                version
            };
            self.clients.live_connection(id).version = version;
            self.send_connack(id, &Connack::refusal(reason));
        }
        self.close(now, id, &error.to_string());
        Outcome::Stop
    }

    pub(super) fn on_connect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        connect: &Connect<'_>,
    ) -> Outcome {
        let connection = self.clients.live_connection(id);
        connection.version = connect.version;
        connection.wants_problem_information = connect.request_problem_information;
        connection.packet_size_max = connect.packet_size_max.unwrap_or(u32::MAX);
        if self.connections.questions.is_expired(id) {
            self.counters.questions_expired += 1;
            let why = "no answer to its CONNECT came in time";
            let reason = ReasonCode::ServerUnavailable;
            let refusal = Refused::at_limit(reason, why, "connect_timeout_ms");
            return self.refuse_connect(now, id, connect, refusal);
        }
        if let Err(refusal) = self.check_connect(connect) {
            return self.refuse_connect(now, id, connect, refusal);
        }
        let assigned = connect.client_id.is_empty().then(|| self.id_for(id));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let Some(belief) = self.believe(id, connect) else {
            // This CONNECT is read again.
            self.counters.packets_received -= 1;
            return Outcome::Wait;
        };
        let existing = self.clients.find(client_id);
        if assigned.is_none() && self.waits_for_take_over(id, client_id, existing) {
            // This CONNECT is read again.
            self.counters.packets_received -= 1;
            return Outcome::Wait;
        }
        // The session and the connection that the client has stay as they are.
        let was_asked = self.connections.questions.has(id);
        if assigned.is_none() && !was_asked && self.is_flapping(now, id, client_id) {
            self.counters.refused_as_flapping += 1;
            let why = "the client connects too often";
            let keys = "flapping_connects_max, flapping_window_s and flapping_ban_s";
            let refusal = Refused::at_limit(ReasonCode::Banned, why, keys);
            return self.refuse_connect(now, id, connect, refusal);
        }
        let losers = match existing {
            Some(_) => Ok(Losers::new()),
            None => self.may_have_session(id, client_id),
        };
        let losers = match losers {
            Ok(losers) => losers,
            Err(refusal) => return self.refuse_connect(now, id, connect, refusal),
        };
        let will = match self.will_of(id, existing, connect) {
            Ok(will) => will,
            Err(refusal) => return self.refuse_connect(now, id, connect, refusal),
        };
        let bounds = match self.ask_connect(now, id, client_id, connect, will.as_deref()) {
            Asked::Allowed(bounds) => bounds,
            Asked::Denied(reason) => {
                let denier = self.denier();
                let why = "a plugin denied the connection";
                let refusal = Refused { denier, ..Refused::new(reason, why) };
                return self.refuse_connect(now, id, connect, refusal);
            }
            Asked::Waits => {
                // This CONNECT is read again.
                self.counters.packets_received -= 1;
                return Outcome::Wait;
            }
            Asked::TooMany => {
                let why = "too many clients wait for an answer";
                let refusal = Refused::at_limit(ReasonCode::ServerBusy, why, "questions_max");
                return self.refuse_connect(now, id, connect, refusal);
            }
        };
        let granted = Granted { belief, ..self.granted(connect, &bounds) };
        if !self.connack_fits(connect, assigned.as_deref(), &granted) {
            let why = "the maximum packet size is too small for CONNACK";
            let refusal = Refused::new(ReasonCode::PacketTooLarge, why);
            return self.refuse_connect(now, id, connect, refusal);
        }
        let addresses = self.clients.live_connection(id).addresses();
        self.displace_sessions(now, &losers);
        let (key, is_resumed) = self.session_for(now, client_id, connect.clean_start);
        self.open_connection(now, id, key, connect, &granted);
        let profile = self.profile(addresses, connect, bounds);
        self.clients.live_session(key).connect(id, granted.expiry_s, will, profile);
        self.clients.list_absent(key, now);
        self.count_address(addresses.peer, key);
        self.clients.connected_count += 1;
        self.count_tables();
        self.counters.connections_opened += 1;
        self.update_session_timer(key);
        let connack = self.connack(connect, is_resumed, assigned.as_deref(), &granted);
        self.send_connack(id, &connack);
        self.notice_unbelieved(now, id, client_id, belief);
        self.update_read_mode(id);
        let version = connect.version as u8;
        self.events.push(|| Event::Connected {
            client_id: client_id.into(),
            peer: addresses.peer,
            version,
            is_resumed,
        });
        if let Some((hooks, client)) = self.hooks.listener(&mut self.clients, self.peers.own(), key)
        {
            hooks.event(&HookEvent::Connected { client, is_resumed });
        }
        self.return_to_groups(now, key);
        self.pump(now, key);
        Outcome::Done
    }

    /// Whether a client that has no session may have one, and the sessions that end for it.
    fn may_have_session(&mut self, id: ConnectionId, client_id: &str) -> Result<Losers, Refused> {
        let quota = ReasonCode::QuotaExceeded;
        if self.is_lagging() {
            self.counters.refused_by_lag += 1;
            let why = "the server is busy";
            return Err(Refused::at_limit(ReasonCode::ServerBusy, why, "turn_time_max_ms"));
        }
        if self.is_memory_short() {
            self.counters.refused_by_memory += 1;
            let why = "the process is short of memory";
            return Err(Refused::at_limit(quota, why, "memory_max"));
        }
        let is_full = self.clients.session_count() >= self.limits.sessions_max;
        if !is_full && self.has_room_for_session(client_id) {
            return Ok(Losers::new());
        }
        let losers = self.sessions_to_displace(id, client_id);
        if !losers.is_empty() {
            return Ok(losers);
        }
        if is_full {
            self.counters.sessions_refused += 1;
            return Err(Refused::at_limit(quota, "too many sessions", "sessions_max"));
        }
        self.counters.refused_by_metadata += 1;
        let why = "what clients hold beside messages exceeds its budget";
        Err(Refused::at_limit(quota, why, "shard_metadata_bytes_max"))
    }

    fn check_connect(&mut self, connect: &Connect<'_>) -> Result<(), Refused> {
        if connect.auth_method.is_some() {
            // [MQTT-4.12.0-1]
            let why = "no authentication method is supported";
            return Err(Refused::new(ReasonCode::BadAuthenticationMethod, why));
        }
        let is_id_needed = match connect.version {
            ProtocolVersion::V31 => true,
            ProtocolVersion::V311 => !connect.clean_start,
            ProtocolVersion::V5 => false,
        };
        if connect.client_id.is_empty() && is_id_needed {
            // [MQTT-3.1.3-8]
            let why = "a client identifier is needed";
            return Err(Refused::new(ReasonCode::ClientIdentifierNotValid, why));
        }
        if let Some(will) = &connect.will {
            if connect.version == ProtocolVersion::V5 {
                self.check_will(will)?;
            }
            let (size_max, levels_max) =
                (self.limits.filter_size_max, self.limits.filter_levels_max);
            if check_name(will.topic, size_max, levels_max).is_err() {
                self.counters.refused_by_topic += 1;
                let (reason, why) =
                    (ReasonCode::TopicNameInvalid, "the will topic is too long or too deep");
                return Err(Refused::at_limit(reason, why, TOPIC_KEYS));
            }
            if is_system(will.topic) {
                self.counters.refused_by_topic += 1;
                let why = "the will topic is not allowed";
                return Err(Refused::new(ReasonCode::TopicNameInvalid, why));
            }
            let is_format_wrong = self.limits.payload_format_checked
                && will.payload_format_utf8
                && simdutf8::basic::from_utf8(will.payload).is_err();
            if is_format_wrong {
                self.counters.refused_by_payload_format += 1;
                let why = "the will payload is not UTF-8";
                let reason = ReasonCode::PayloadFormatInvalid;
                return Err(Refused::at_limit(reason, why, "payload_format_checked"));
            }
        }
        Ok(())
    }

    /// Whether the will asks for what the broker does not have. Who is not 5.0 cannot be told, and gets what there is.
    fn check_will(&mut self, will: &codec::Will<'_>) -> Result<(), Refused> {
        // [MQTT-3.2.2-12]
        if will.qos as u8 > self.limits.qos_max {
            self.counters.refused_by_qos += 1;
            let why = "the will's QoS is above the maximum";
            return Err(Refused::at_limit(ReasonCode::QosNotSupported, why, "qos_max"));
        }
        // [MQTT-3.2.2-13]
        if will.retain && !self.limits.retain_available() {
            self.counters.retained_refused += 1;
            let why = "no message is retained, nor a will";
            return Err(Refused::at_limit(ReasonCode::RetainNotSupported, why, RETAINED_KEYS));
        }
        Ok(())
    }

    /// The client hears why; the log hears the plugin, too.
    fn refuse_connect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        connect: &Connect<'_>,
        refusal: Refused,
    ) -> Outcome {
        let Refused { reason, why, keys, denier } = refusal;
        self.counters.connections_refused += 1;
        let peer = self.clients.live_connection(id).addresses().peer;
        self.events.notice(now, (About::Login, keys), || {
            let told = denier.map(|plugin| format!("plugin '{plugin}' denied it ({reason:?})"));
            Notice {
                user_name: connect.user_name.map(Box::from),
                peer,
                ..Notice::new(About::Login, id, connect.client_id, told.as_deref().unwrap_or(why))
            }
        });
        let wants_text = self.clients.live_connection(id).wants_problem_information;
        let connack =
            Connack { reason_string: wants_text.then_some(why), ..Connack::refusal(reason) };
        self.send_connack(id, &connack);
        self.close(now, id, why);
        Outcome::Stop
    }

    /// The id that a client without one gets: the one that hooks were asked about, if nobody has it meanwhile.
    fn id_for(&mut self, id: ConnectionId) -> Box<str> {
        match self.connections.questions.drawn(id) {
            Some(drawn) if self.clients.find(&drawn).is_none() => drawn,
            _ => self.draw_client_id(),
        }
    }

    /// An id that no session has and that this shard owns. [MQTT-3.2.2-16]
    fn draw_client_id(&mut self) -> Box<str> {
        loop {
            let client_id = format!("auto-{:016x}", self.random.number());
            let owner = self.peers.owner(client_id.as_bytes());
            if owner == self.peers.own() && self.clients.find(&client_id).is_none() {
                return client_id.into();
            }
        }
    }

    fn will_of(
        &mut self,
        id: ConnectionId,
        existing: Option<SessionKey>,
        connect: &Connect<'_>,
    ) -> Result<Option<Box<Will>>, Refused> {
        let Some(will) = &connect.will else { return Ok(None) };
        let mut joined = Vec::new();
        let meta = Meta {
            qos: will.qos as u8,
            retain: will.retain,
            is_origin: true,
            expires_at: None,
            publisher: 0,
            // This broker publishes it, and is the first that does.
            from_bridge: false,
            claim: Claim::None,
        };
        let draft = Draft {
            topic: will.topic.as_bytes(),
            properties: will.properties.halves(&mut joined),
            payload: will.payload,
            meta,
        };
        if !self.may_keep_will(id, existing, stored_size(draft.size())) {
            self.counters.wills_refused += 1;
            let why = "the wills of all clients exceed their budget";
            let reason = ReasonCode::QuotaExceeded;
            return Err(Refused::at_limit(reason, why, "shard_wills_bytes_max"));
        }
        Ok(Some(Box::new(Will {
            stored: Stored::from_draft(&draft, &self.memory.will_bytes),
            delay_s: will.delay_s,
            message_expiry_s: will.message_expiry_s,
            charge: None,
        })))
    }

    /// Takes over, resumes, discards or makes the session; whether it is resumed.
    fn session_for(
        &mut self,
        now: Instant,
        client_id: &str,
        clean_start: bool,
    ) -> (SessionKey, bool) {
        if let Some(key) = self.clients.find(client_id) {
            if let Some(id) = self.clients.live_session(key).connection() {
                // [MQTT-3.1.4-3]
                self.counters.connections_taken_over += 1;
                if let Some((hooks, client)) =
                    self.hooks.listener(&mut self.clients, self.peers.own(), key)
                {
                    hooks.event(&HookEvent::TakenOver { client });
                }
                self.send_disconnect(
                    id,
                    ReasonCode::SessionTakenOver,
                    "the client connected again",
                );
                self.close(now, id, "its client connected again");
            }
            // Its end may have been the end of the session.
            if let Some(key) = self.clients.find(client_id) {
                if !clean_start {
                    // [MQTT-3.1.2-5]
                    return (key, true);
                }
                // [MQTT-3.1.2-4]
                self.end_session(now, key);
            }
        }
        // [MQTT-3.1.2-6]
        (self.clients.create(client_id), false)
    }

    fn open_connection(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        connect: &Connect<'_>,
        granted: &Granted,
    ) {
        let keep_alive_s = granted.keep_alive_s;
        // One and a half times. [MQTT-3.1.2-22]
        let keep_alive_ms = u32::from(keep_alive_s) * 1500;
        let is_v5 = connect.version == ProtocolVersion::V5;
        let alias_in_max = granted.topic_alias_max;
        let alias_out_max = connect.topic_alias_max.min(self.limits.topic_alias_out_max);
        let budget = self.memory.metadata.budget();
        let connection = self.clients.live_connection(id);
        connection.state = ConnectionState::Open(Open {
            keep_alive_ms,
            is_bridge: connect.is_bridge(),
            aliases_in: (alias_in_max > 0)
                .then(|| Box::new(InboundAliases::within(budget.clone(), alias_in_max))),
            ..Open::new(key)
        });
        connection.quota = connect.receive_max.unwrap_or(u16::MAX).min(granted.inflight_max);
        connection.last_received = now;
        connection.aliases_out = (is_v5 && alias_out_max > 0)
            .then(|| Box::new(OutboundAliases::within(budget, alias_out_max)));
        self.bridges.has_clients |= connect.is_bridge();
        self.mark_for(id, granted.belief);
        let deadline = (keep_alive_s > 0).then(|| now.plus_ms(u64::from(keep_alive_ms)));
        self.count_as_client(id);
        self.set_connection_timer(id, deadline);
    }

    fn granted(&self, connect: &Connect<'_>, bounds: &SessionLimits) -> Granted {
        let limits = &self.limits;
        let keep_alive_max_s = bounds.keep_alive_max_s.unwrap_or(limits.keep_alive_max_s);
        let expiry_max_s = bounds.session_expiry_max_s.unwrap_or(limits.session_expiry_max_s);
        Granted {
            expiry_s: self.granted_expiry_s(connect, expiry_max_s),
            keep_alive_s: granted_keep_alive_s(connect, keep_alive_max_s),
            inflight_max: bounds.inflight_max.unwrap_or(limits.inflight_max).max(1),
            belief: Belief::NotAsked,
            topic_alias_max: match connect.version {
                ProtocolVersion::V5 if self.has_room_for_aliases() => limits.topic_alias_max,
                _ => 0,
            },
        }
    }

    fn granted_expiry_s(&self, connect: &Connect<'_>, max_s: u32) -> u32 {
        let asked = match connect.version {
            ProtocolVersion::V5 => connect.session_expiry_s.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => self.limits.session_expiry_v3_s,
        };
        asked.min(max_s)
    }

    fn connack<'a>(
        &self,
        connect: &Connect<'_>,
        session_present: bool,
        assigned: Option<&'a str>,
        granted: &Granted,
    ) -> Connack<'a> {
        let limits = &self.limits;
        let Granted { expiry_s, keep_alive_s, topic_alias_max, belief, .. } = *granted;
        let asked_expiry_s = connect.session_expiry_s.unwrap_or(0);
        Connack {
            session_present,
            reason: ReasonCode::Success,
            session_expiry_s: (expiry_s != asked_expiry_s).then_some(expiry_s),
            receive_max: (limits.receive_max < u16::MAX).then_some(limits.receive_max),
            packet_size_max: (limits.packet_size_max < crate::limits::PACKET_SIZE_CEILING)
                .then_some(limits.packet_size_max as u32),
            assigned_client_id: assigned,
            topic_alias_max: (topic_alias_max > 0).then_some(topic_alias_max),
            // [MQTT-3.2.2-9]
            qos_max: QoS::from_bits(limits.qos_max),
            retain_available: (!limits.retain_available()).then_some(false),
            wildcard_available: (!limits.wildcard_available).then_some(false),
            subscription_ids_available: (!limits.subscription_ids_available).then_some(false),
            shared_available: (!limits.shared_available).then_some(false),
            // [MQTT-3.1.2-21]
            server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
            user_properties: UserProperties::from_raw(match belief {
                Belief::NotAsked => &[],
                Belief::Believed => MARKS_ARE_KEPT,
                Belief::Refused => MARKS_ARE_NOT_KEPT,
            }),
            ..Connack::default()
        }
    }

    /// Whether the client takes a packet as large as the CONNACK that accepts it. [MQTT-3.1.2-24]
    fn connack_fits(
        &self,
        connect: &Connect<'_>,
        assigned: Option<&str>,
        granted: &Granted,
    ) -> bool {
        let size_max = connect.packet_size_max.map_or(usize::MAX, |max| max as usize);
        if size_max >= CONNACK_SIZE_MAX {
            return true;
        }
        let mut bytes = Vec::with_capacity(CONNACK_SIZE_MAX);
        self.connack(connect, false, assigned, granted).encode(
            connect.version,
            size_max,
            &mut bytes,
        );
        bytes.len() <= size_max
    }

    fn send_connack(&mut self, id: ConnectionId, connack: &Connack<'_>) {
        self.answer(id, |version, size_max, out| connack.encode(version, size_max, out));
    }
}

fn granted_keep_alive_s(connect: &Connect<'_>, max: u16) -> u16 {
    let asked = connect.keep_alive_s;
    // Only a 5.0 client can be told. [MQTT-3.2.2-22]
    if connect.version == ProtocolVersion::V5 && max > 0 && (asked == 0 || asked > max) {
        max
    } else {
        asked
    }
}

const _: () = assert!(codec::VAR_INT_MAX as usize + 5 == crate::limits::PACKET_SIZE_CEILING);
