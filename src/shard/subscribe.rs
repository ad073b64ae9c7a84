//! SUBSCRIBE and UNSUBSCRIBE: a reason code per filter, SUBACK when every shard knows of the interest.
//!
//! A packet that changes what messages match (SUBSCRIBE, UNSUBSCRIBE, CONNECT, DISCONNECT, interest) runs the stages
//! first, so a message is routed by the subscriptions of the moment at which it was admitted.

use super::input::Outcome;
use super::new_limits::Announced;
use super::publish::TOPIC_KEYS;
use super::{About, ConnectionId, Shard};
use crate::codec::{
    self, PacketId, ProtocolVersion, QoS, ReasonCode, ReasonCodes, RetainHandling, Suback,
    Subscribe, SubscriptionOptions, Unsuback, Unsubscribe,
};
use crate::limits::PACKET_FILTERS_MAX;
use crate::printable::Quoted;
use crate::routing::router::{Options, Subscriber};
use crate::session::connection::{PendingSuback, PendingSubscribe};
use crate::session::{Connection, Envelope, Park, Returned, SessionKey};
use crate::time::Instant;
use crate::topic::{Subscribed, has_wildcards, parse_filter};
use crate::work::steps_of_bytes;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The outcome of one filter of a SUBSCRIBE.
enum FilterOutcome {
    /// The filter was refused at the limit that these keys set; empty: there was no limit.
    Refused(ReasonCode, &'static str),
    /// A plugin has denied the filter.
    Denied(ReasonCode),
    /// `is_waiting`: other shards must confirm the filter first.
    Granted { qos: QoS, is_waiting: bool },
}

/// A feature that the broker does not have, as CONNACK says.
struct Unavailable {
    reason: ReasonCode,
    why: &'static str,
    key: &'static str,
}

impl Shard {
    pub(super) fn on_subscribe(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        subscribe: &Subscribe<'_>,
    ) -> Outcome {
        let filters = subscribe.filters.iter().map(|(filter, _)| filter);
        if let Some(outcome) = self.check_filters(now, id, filters) {
            return outcome;
        }
        let version = self.clients.connection(id).map(|connection| connection.version);
        let is_v5 = version == Some(ProtocolVersion::V5);
        if is_v5
            && let Some(Unavailable { reason, why, key }) =
                unavailable_of(self.announced_to(id), subscribe)
        {
            self.counters.subscriptions_refused += 1;
            return self.refuse_at(now, id, reason, why, key);
        }
        let is_no_local_shared = |(filter, options): (&str, SubscriptionOptions)| {
            filter.starts_with("$share/") && options.no_local
        };
        if subscribe.filters.iter().any(is_no_local_shared) {
            // [MQTT-3.8.3-4]
            let why = "No Local on a shared subscription";
            return self.refuse(now, id, ReasonCode::ProtocolError, why);
        }
        let is_v3_bridge = self
            .clients
            .connection(id)
            .is_some_and(|c| c.is_bridge() && c.version != ProtocolVersion::V5);
        let subscription_id = subscribe.subscription_id.unwrap_or(0);
        let mut reasons = Vec::new();
        let mut waiting = 0;
        for (filter, mut options) in subscribe.filters.iter() {
            if is_v3_bridge {
                // 5.0 has options for this, and a bridge cannot do without it.
                options.no_local = !filter.starts_with("$share/");
                options.retain_as_published = true;
            }
            let reason = match self.subscribe(now, id, key, filter, options, subscription_id) {
                FilterOutcome::Refused(reason, keys) => {
                    self.counters.subscriptions_refused += 1;
                    self.notice_refused(now, id, filter, &format!("{reason:?}"), keys);
                    reason
                }
                FilterOutcome::Denied(reason) => {
                    let plugin = self.denier().unwrap_or_default();
                    let by = format!("plugin '{plugin}' denied it ({reason:?})");
                    self.notice_refused(now, id, filter, &by, "");
                    reason
                }
                FilterOutcome::Granted { qos, is_waiting } => {
                    waiting += usize::from(is_waiting);
                    granted(qos)
                }
            };
            reasons.push(reason);
        }
        if waiting == 0 {
            self.send_suback(id, subscribe.packet_id, &reasons);
            self.pump(now, key);
            return Outcome::Done;
        }
        let joins = self.joins_of(subscribe, &reasons);
        let answer = PendingSuback { packet_id: subscribe.packet_id, reasons, joins };
        let open = self.clients.live_connection(id).open_mut();
        let open = open.expect("SUBSCRIBE came on an open connection");
        let pending = open.pending.get_or_insert_default();
        pending.answers.push(answer);
        pending.waiting += waiting;
        self.park(id, Park::Subscribe);
        Outcome::Done
    }

    /// The granted filters whose groups other shards own: their owners may still refuse them.
    fn joins_of(
        &self,
        subscribe: &Subscribe<'_>,
        reasons: &[ReasonCode],
    ) -> Vec<(Box<str>, usize)> {
        let filters = subscribe.filters.iter().zip(reasons).enumerate();
        filters
            .filter(|(_, ((filter, _), reason))| {
                filter.starts_with("$share/") && !reason.is_error()
            })
            .map(|(place, ((filter, _), _))| (filter.into(), place))
            .collect()
    }

    pub(super) fn notice_refused(
        &mut self,
        now: Instant,
        id: ConnectionId,
        filter: &str,
        why: &str,
        keys: &'static str,
    ) {
        let what = format!("{}, {why}", Quoted(filter));
        self.notice_client(now, About::Subscription, id, &what, keys);
    }

    /// Checks a packet's filters before any of them takes effect. The connection ends if one is ill-formed, which makes
    /// the packet malformed, or if the client does not take an answer to so many filters.
    fn check_filters<'a>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        filters: impl Iterator<Item = &'a str>,
    ) -> Option<Outcome> {
        let mut count = 0;
        for filter in filters {
            count += 1;
            // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-4.13.1-1]
            if let Err(error) = parse_filter(filter, usize::MAX, usize::MAX) {
                return Some(self.refuse(now, id, ReasonCode::MalformedPacket, &error.to_string()));
            }
        }
        if count > PACKET_FILTERS_MAX {
            self.counters.subscriptions_refused += count as u64;
            let why = "a packet has more filters than the 32,768 that one may have";
            return Some(self.refuse(now, id, ReasonCode::QuotaExceeded, why));
        }
        // Only a 5.0 client names a maximum. [MQTT-3.1.2-24]
        if codec::filters_answer_size(count)
            <= self.clients.live_connection(id).packet_size_max as usize
        {
            return None;
        }
        let why = "the answer to so many filters is larger than the client's maximum packet size";
        Some(self.refuse(now, id, ReasonCode::PacketTooLarge, why))
    }

    /// Notes that one of the filters for which a SUBACK waits is known everywhere. If it was the last one, the connection goes on.
    pub(super) fn confirm_subscribe(&mut self, now: Instant, id: ConnectionId) {
        if self.confirm_filter(now, id) {
            self.unpark(now, id, Park::Subscribe);
        }
    }

    /// As `confirm_subscribe`, but leaves the connection parked; returns whether its SUBACKs have left.
    pub(super) fn confirm_filter(&mut self, now: Instant, id: ConnectionId) -> bool {
        // The connection may have ended since it asked, or be about to.
        let connection = self.clients.connection(id);
        let Some(open) = connection.and_then(Connection::open_mut) else { return false };
        let key = open.key;
        let is_confirmed = |pending: &mut Box<PendingSubscribe>| {
            pending.waiting -= 1;
            pending.waiting == 0
        };
        let Some(pending) = open.pending.take_if(is_confirmed) else { return false };
        for answer in &pending.answers {
            self.send_suback(id, answer.packet_id, &answer.reasons);
        }
        self.pump(now, key);
        true
    }

    fn send_suback(&mut self, id: ConnectionId, packet_id: PacketId, reasons: &[ReasonCode]) {
        self.answer(id, |version, size_max, out| {
            let suback = Suback {
                packet_id,
                reasons: ReasonCodes::from_list(reasons),
                reason_string: None,
                user_properties: Default::default(),
            };
            suback.encode(version, size_max, out);
        });
    }

    fn subscribe(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        text: &str,
        options: SubscriptionOptions,
        subscription_id: u32,
    ) -> FilterOutcome {
        self.counters.add_steps(1);
        let parsed =
            match parse_filter(text, self.limits.filter_size_max, self.limits.filter_levels_max) {
                Ok(parsed) => parsed,
                // The filter is well formed, but too long or too deep.
                Err(_) => return FilterOutcome::Refused(ReasonCode::QuotaExceeded, TOPIC_KEYS),
            };
        if let Some(Unavailable { reason, key, .. }) = unavailable(self.announced_to(id), text) {
            return FilterOutcome::Refused(reason, key);
        }
        let depth_min = self.limits.wildcard_depth_min;
        if depth_min > 0 && wildcard_depth(parsed.filter).is_some_and(|depth| depth < depth_min) {
            return FilterOutcome::Refused(ReasonCode::TopicFilterInvalid, "wildcard_depth_min");
        }
        // [MQTT-3.2.2-10]
        let qos_max = QoS::from_bits(self.limits.qos_max).unwrap_or_default();
        let options = match self.ask_subscribe(key, text, options.qos.min(qos_max)) {
            Ok(qos) => SubscriptionOptions { qos, ..options },
            Err(reason) => return FilterOutcome::Denied(reason),
        };
        let subscriptions_max = self.limits.subscriptions_per_client_max;
        let Some(session) = self.clients.session(key) else {
            return FilterOutcome::Refused(ReasonCode::UnspecifiedError, "");
        };
        let subscriptions_max = session.bounds().subscriptions_max.unwrap_or(subscriptions_max);
        let place = session.find_filter(text);
        if let Err(place) = place {
            if session.filters().len() >= subscriptions_max {
                let key = "subscriptions_per_client_max";
                return FilterOutcome::Refused(ReasonCode::QuotaExceeded, key);
            }
            if !self.has_room_for_subscription(text) {
                self.counters.refused_by_metadata += 1;
                return FilterOutcome::Refused(
                    ReasonCode::QuotaExceeded,
                    "shard_metadata_bytes_max",
                );
            }
            let Some(session) = self.clients.session(key) else {
                return FilterOutcome::Refused(ReasonCode::UnspecifiedError, "");
            };
            let overlapping_max = self.limits.overlapping_subscriptions_max;
            if parsed.share.is_none() && !session.overlap(text, overlapping_max) {
                let key = "overlapping_subscriptions_max";
                return FilterOutcome::Refused(ReasonCode::QuotaExceeded, key);
            }
            let moved = session.filters().len() - place;
            self.counters.add_steps(steps_of_bytes(moved * size_of::<Box<str>>()));
            session.insert_filter(place, text);
            session.recount();
            self.clients.subscription_count += 1;
        }
        if parsed.share.is_some() {
            let is_waiting = self.join(now, id, key, text, options, subscription_id);
            self.recount(key);
            return FilterOutcome::Granted { qos: options.qos, is_waiting };
        }
        let entry = Options {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id: subscription_id,
        };
        // [MQTT-3.8.4-3]
        let previous = self.flow.router.subscribe(text, Subscriber::Session(key), entry);
        self.bound_held();
        let is_waiting = self.announce(text, previous.is_none(), Some(id));
        let wants_retained = match options.retain_handling {
            // [MQTT-3.3.1-9] [MQTT-3.8.4-4]
            RetainHandling::SendAtSubscribe => true,
            // [MQTT-3.3.1-10]
            RetainHandling::SendIfNew => place.is_err(),
            // [MQTT-3.3.1-11]
            RetainHandling::DoNotSend => false,
        };
        if wants_retained {
            self.begin_pull(key, &parsed, options.qos, subscription_id);
        }
        self.recount(key);
        FilterOutcome::Granted { qos: options.qos, is_waiting }
    }

    /// Counts a session and the tables as they are now.
    fn recount(&mut self, key: SessionKey) {
        self.clients.live_session(key).recount();
        self.count_tables();
    }

    fn begin_pull(
        &mut self,
        key: SessionKey,
        parsed: &Subscribed<'_>,
        qos: QoS,
        subscription_id: u32,
    ) {
        let envelope = || Envelope {
            qos,
            retain: true,
            ids: (subscription_id != 0).then(|| Rc::from([subscription_id])),
            membership: 0,
        };
        let pull = self.new_pull(parsed.filter, envelope);
        let session = self.clients.live_session(key);
        // A subscription that is made again fetches again, once.
        session.end_pull(parsed.filter);
        if let Some(pull) = pull {
            session.begin_pull(pull);
        }
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Outcome {
        if let Some(outcome) = self.check_filters(now, id, unsubscribe.filters.iter()) {
            return outcome;
        }
        // Waiting messages of all groups that are left are found in one pass through the queue.
        let session = self.clients.live_session(key);
        let left = unsubscribe.filters.iter().filter_map(|f| session.membership_number(f));
        let numbers: BTreeSet<u32> = left.collect();
        let mut unsent = match numbers.is_empty() {
            true => Returned::new(),
            false => self.take_unsent(key, |number| numbers.contains(&number)),
        };
        let mut reasons = Vec::new();
        for text in unsubscribe.filters.iter() {
            reasons.push(self.unsubscribe(now, key, text, &mut unsent));
        }
        let packet_id = unsubscribe.packet_id;
        // [MQTT-3.10.4-5]
        self.answer(id, |version, size_max, out| {
            let unsuback = Unsuback {
                packet_id,
                reasons: ReasonCodes::from_list(&reasons),
                reason_string: None,
                user_properties: Default::default(),
            };
            unsuback.encode(version, size_max, out);
        });
        self.pump(now, key);
        Outcome::Done
    }

    pub(super) fn unsubscribe(
        &mut self,
        now: Instant,
        key: SessionKey,
        text: &str,
        unsent: &mut Returned,
    ) -> ReasonCode {
        self.counters.add_steps(1);
        // The session may have ended when a group's owner refuses it.
        let Some(session) = self.clients.session(key) else { return ReasonCode::UnspecifiedError };
        // [MQTT-3.10.4-1]
        match session.find_filter(text) {
            Err(_) => ReasonCode::NoSubscriptionExisted,
            Ok(place) => {
                session.remove_filter(place);
                let moved = session.filters().len() - place;
                session.end_pull(text);
                if !text.starts_with("$share/") {
                    session.end_overlap(text);
                }
                self.clients.subscription_count -= 1;
                self.counters.add_steps(steps_of_bytes(moved * size_of::<Box<str>>()));
                match text.starts_with("$share/") {
                    true => self.leave_group(now, key, text, unsent),
                    false => self.remove_subscription(now, key, text),
                }
                self.tell_unsubscribed(key, text);
                self.recount(key);
                ReasonCode::Success
            }
        }
    }

    /// Takes a subscription that is not shared out of the index.
    pub(super) fn remove_subscription(&mut self, now: Instant, key: SessionKey, text: &str) {
        self.flow.router.unsubscribe(text, Subscriber::Session(key));
        self.withdraw(now, text);
    }
}

/// How many levels stand in front of the first wildcard.
fn wildcard_depth(filter: &str) -> Option<usize> {
    filter.split('/').position(|level| matches!(level, "+" | "#"))
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// What a SUBSCRIBE asks for and CONNACK said is not to be had.
fn unavailable_of(announced: Announced, subscribe: &Subscribe<'_>) -> Option<Unavailable> {
    if !announced.subscription_ids_available && subscribe.subscription_id.is_some() {
        return Some(Unavailable {
            reason: ReasonCode::SubscriptionIdentifiersNotSupported,
            why: "subscription identifiers are not available",
            key: "subscription_ids_available",
        });
    }
    subscribe.filters.iter().find_map(|(filter, _)| unavailable(announced, filter))
}

fn unavailable(announced: Announced, filter: &str) -> Option<Unavailable> {
    if !announced.shared_available && filter.starts_with("$share/") {
        return Some(Unavailable {
            reason: ReasonCode::SharedSubscriptionsNotSupported,
            why: "shared subscriptions are not available",
            key: "shared_available",
        });
    }
    if !announced.wildcard_available && has_wildcards(filter) {
        return Some(Unavailable {
            reason: ReasonCode::WildcardSubscriptionsNotSupported,
            why: "wildcard subscriptions are not available",
            key: "wildcard_available",
        });
    }
    None
}
