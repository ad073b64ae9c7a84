//! Packets made at random: all that MQTT 5 allows in them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringmq::codec::{
    Ack, Auth, Connack, Connect, Disconnect, ForwardedProperties, Packet, PacketId, Property,
    ProtocolVersion, Publish, QoS, ReasonCode, ReasonCodes, ReasonSet, RetainHandling, Suback,
    Subscribe, SubscribeFilters, SubscriptionIds, SubscriptionOptions, TopicFilters, Unsuback,
    Unsubscribe, UserProperties, VAR_INT_MAX, Will, put_user_property,
};

use crate::VERSIONS;

// Packets borrow; what they borrow here is leaked, a few kilobytes a run.

pub(crate) fn version() -> impl Strategy<Value = ProtocolVersion> {
    (0..VERSIONS.len()).prop_map(|index| VERSIONS[index])
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => "[a-z/+#$ ]{0,12}",
        2 => "[a-zäß水🌊\u{FEFF}\u{1}]{0,80}",
        1 => "[a-z]{120,140}",
    ]
    .prop_map(|text| &*text.leak())
}

fn topic_name() -> impl Strategy<Value = &'static str> {
    prop_oneof!["[a-z/$ ]{1,40}", "[a-zäß水🌊/]{1,80}"].prop_map(|text: String| &*text.leak())
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 16_370..16_390)]
        .prop_map(|bytes| &*bytes.leak())
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut raw = Vec::new();
        pairs.into_iter().for_each(|(name, value)| put_user_property(&mut raw, name, value));
        UserProperties::from_raw(raw.leak())
    })
}

/// What travels with a message, in any order.
fn forwarded_properties() -> impl Strategy<Value = Vec<Property<'static>>> {
    let single = (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic_name()),
        option::of(binary()),
        vec((text(), text()), 0..3),
    );
    single.prop_flat_map(|(utf8, content_type, response, correlation, pairs)| {
        let mut all: Vec<Property<'static>> = Vec::new();
        all.extend(utf8.map(Property::PayloadFormat));
        all.extend(content_type.map(Property::ContentType));
        all.extend(response.map(Property::ResponseTopic));
        all.extend(correlation.map(Property::CorrelationData));
        all.extend(pairs.into_iter().map(|(name, value)| Property::UserProperty(name, value)));
        Just(all).prop_shuffle()
    })
}

/// All that a PUBLISH may carry, in any order.
pub(crate) fn publish_properties() -> impl Strategy<Value = Vec<Property<'static>>> {
    let own = (option::of(1..=u16::MAX), option::of(any::<u32>()), vec(subscription_id(), 0..3));
    (forwarded_properties(), own).prop_flat_map(|(mut all, (alias, expiry, ids))| {
        all.extend(alias.map(Property::TopicAlias));
        all.extend(expiry.map(Property::MessageExpiry));
        all.extend(ids.into_iter().map(Property::SubscriptionId));
        Just(all).prop_shuffle()
    })
}

/// What travels with a message, and whether it says that the payload is UTF-8.
fn forwarded() -> impl Strategy<Value = (ForwardedProperties<'static>, bool)> {
    forwarded_properties().prop_map(|all| {
        let mut raw = Vec::new();
        all.iter().for_each(|property| property.encode(&mut raw));
        let size: usize = all.iter().map(Property::size).sum();
        assert_eq!(raw.len(), size);
        let utf8 = all.contains(&Property::PayloadFormat(true));
        (ForwardedProperties::from_raw(raw.leak()), utf8)
    })
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).expect("below 3"))
}

fn reason(set: ReasonSet) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<_> = ReasonCode::ALL.into_iter().filter(|code| set.contains(*code)).collect();
    proptest::sample::select(codes)
}

fn subscription_id() -> impl Strategy<Value = u32> {
    prop_oneof![1..200_u32, 1..=VAR_INT_MAX]
}

fn will() -> impl Strategy<Value = Will<'static>> {
    let of_message = (topic_name(), binary(), qos(), any::<bool>());
    (of_message, any::<u32>(), option::of(any::<u32>()), forwarded()).prop_map(
        |((topic, payload, qos, retain), delay_s, message_expiry_s, forwarded)| {
            let (properties, payload_format_utf8) = forwarded;
            Will {
                topic,
                payload,
                qos,
                retain,
                delay_s,
                message_expiry_s,
                payload_format_utf8,
                properties,
            }
        },
    )
}

fn connect() -> impl Strategy<Value = Packet<'static>> {
    let names = (text(), option::of(will()), option::of(text()), option::of(binary()));
    let numbers = (
        any::<u16>(),
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(1..=u32::MAX),
        any::<u16>(),
    );
    let flags = any::<(bool, bool, bool)>();
    let auth = option::of((text(), option::of(binary())));
    (version(), names, numbers, flags, user_properties(), auth).prop_map(
        |(version, names, numbers, flags, user_properties, auth)| {
            let (client_id, will, user_name, password) = names;
            let (keep_alive_s, session_expiry_s, receive_max, packet_size_max, aliases) = numbers;
            let (clean_start, response, problem) = flags;
            Packet::Connect(Connect {
                version,
                bridge_bit: version != ProtocolVersion::V5 && keep_alive_s % 2 == 1,
                clean_start,
                keep_alive_s,
                client_id,
                will,
                user_name,
                password,
                session_expiry_s,
                receive_max,
                packet_size_max,
                topic_alias_max: aliases,
                request_response_information: response,
                request_problem_information: problem,
                user_properties,
                auth_method: auth.map(|(method, _)| method),
                auth_data: auth.and_then(|(_, data)| data),
            })
        },
    )
}

fn connack() -> impl Strategy<Value = Packet<'static>> {
    let first = (any::<bool>(), reason(ReasonSet::CONNACK));
    let numbers = (
        option::of(any::<u32>()),
        option::of(1..=u16::MAX),
        option::of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]),
        option::of(1..=u32::MAX),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
    );
    let available = any::<[Option<bool>; 4]>();
    let texts = [(); 5].map(|()| option::of(text()));
    let rest = (texts, option::of(binary()), user_properties());
    (first, numbers, available, rest).prop_map(|(first, numbers, available, rest)| {
        let (session_present, reason) = first;
        let (session_expiry_s, receive_max, qos_max, packet_size_max, aliases, keep_alive) =
            numbers;
        let [retain_available, wildcard_available, subscription_ids_available, shared_available] =
            available;
        let (texts, auth_data, user_properties) = rest;
        let [assigned_client_id, reason_string, response_information, server_reference, method] =
            texts;
        Packet::Connack(Connack {
            session_present: session_present && reason == ReasonCode::Success,
            reason,
            session_expiry_s,
            receive_max,
            qos_max,
            retain_available,
            packet_size_max,
            assigned_client_id,
            topic_alias_max: aliases,
            reason_string,
            user_properties,
            wildcard_available,
            subscription_ids_available,
            shared_available,
            server_keep_alive_s: keep_alive,
            response_information,
            server_reference,
            auth_method: method,
            auth_data,
        })
    })
}

pub(crate) fn publish() -> impl Strategy<Value = Packet<'static>> {
    let flags = (any::<bool>(), qos(), any::<bool>(), packet_id());
    let numbers = (
        option::of(1..=u16::MAX),
        option::of(any::<u32>()),
        vec(subscription_id(), 0..4).prop_map(|ids| SubscriptionIds::from_list(ids.leak())),
    );
    let topic = (topic_name(), any::<bool>());
    (flags, topic, numbers, forwarded(), binary()).prop_map(
        |(flags, (topic, aliased), numbers, forwarded, payload)| {
            let (dup, qos, retain, packet_id) = flags;
            let (topic_alias, message_expiry_s, subscription_ids) = numbers;
            let (properties, payload_format_utf8) = forwarded;
            let above_0 = qos != QoS::AtMostOnce;
            Packet::Publish(Publish {
                dup: dup && above_0,
                qos,
                retain,
                topic: if aliased && topic_alias.is_some() { "" } else { topic },
                packet_id: above_0.then_some(packet_id),
                topic_alias,
                message_expiry_s,
                payload_format_utf8,
                subscription_ids,
                properties,
                payload,
            })
        },
    )
}

fn ack() -> impl Strategy<Value = Packet<'static>> {
    let received = (0..2_usize, reason(ReasonSet::RECEIVED));
    let released = (2..4_usize, reason(ReasonSet::RELEASED));
    let parts = (prop_oneof![received, released], packet_id(), option::of(text()));
    (parts, user_properties()).prop_map(|(parts, user_properties)| {
        let ((ack_type, reason), packet_id, reason_string) = parts;
        let of = [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp][ack_type];
        of(Ack { packet_id, reason, reason_string, user_properties })
    })
}

fn subscribe() -> impl Strategy<Value = Packet<'static>> {
    let handling = proptest::sample::select(vec![
        RetainHandling::SendAtSubscribe,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    let options = (qos(), any::<bool>(), any::<bool>(), handling);
    let filter = (text(), options).prop_map(|(filter, options)| {
        let (qos, no_local, retain_as_published, retain_handling) = options;
        let no_local = no_local && !filter.starts_with("$share/");
        (filter, SubscriptionOptions { qos, no_local, retain_as_published, retain_handling })
    });
    (packet_id(), option::of(subscription_id()), user_properties(), vec(filter, 1..5)).prop_map(
        |(packet_id, subscription_id, user_properties, filters)| {
            let filters = SubscribeFilters::from_list(filters.leak());
            Packet::Subscribe(Subscribe { packet_id, subscription_id, user_properties, filters })
        },
    )
}

fn unsubscribe() -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), user_properties(), vec(text(), 1..5)).prop_map(
        |(packet_id, user_properties, filters)| {
            let filters = TopicFilters::from_list(filters.leak());
            Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters })
        },
    )
}

fn suback() -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(ReasonSet::SUBACK), 1..5);
    (packet_id(), reasons, option::of(text()), user_properties()).prop_map(
        |(packet_id, reasons, reason_string, user_properties)| {
            let reasons = ReasonCodes::from_list(reasons.leak());
            Packet::Suback(Suback { packet_id, reasons, reason_string, user_properties })
        },
    )
}

fn unsuback() -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(ReasonSet::UNSUBACK), 1..5);
    (packet_id(), reasons, option::of(text()), user_properties()).prop_map(
        |(packet_id, reasons, reason_string, user_properties)| {
            let reasons = ReasonCodes::from_list(reasons.leak());
            Packet::Unsuback(Unsuback { packet_id, reasons, reason_string, user_properties })
        },
    )
}

fn disconnect() -> impl Strategy<Value = Packet<'static>> {
    let texts = [(); 2].map(|()| option::of(text()));
    (reason(ReasonSet::DISCONNECT), option::of(any::<u32>()), texts, user_properties()).prop_map(
        |(reason, session_expiry_s, [reason_string, server_reference], user_properties)| {
            Packet::Disconnect(Disconnect {
                reason,
                session_expiry_s,
                reason_string,
                user_properties,
                server_reference,
            })
        },
    )
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    let texts = (text(), option::of(text()));
    (reason(ReasonSet::AUTH), texts, option::of(binary()), user_properties()).prop_map(
        |(reason, (method, reason_string), data, user_properties)| {
            let method = Some(method);
            Packet::Auth(Auth { reason, method, data, reason_string, user_properties })
        },
    )
}

/// A packet as MQTT 5 knows it.
pub(crate) fn packet() -> impl Strategy<Value = Packet<'static>> {
    prop_oneof![
        2 => connect(),
        2 => connack(),
        4 => publish(),
        2 => ack(),
        1 => subscribe(),
        1 => suback(),
        1 => unsubscribe(),
        1 => unsuback(),
        1 => Just(Packet::Pingreq),
        1 => Just(Packet::Pingresp),
        1 => disconnect(),
        1 => auth(),
    ]
}
