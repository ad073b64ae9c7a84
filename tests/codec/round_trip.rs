//! What is encoded decodes to the same, however it arrives; what is not a packet never panics.

use proptest::collection::vec;
use proptest::prelude::*;
use ringmq::codec::{
    Ack, Connack, Connect, Disconnect, ForwardedProperties, Packet, Property, ProtocolVersion,
    Publish, PublishHead, ReasonCode, ReasonCodes, Suback, Subscribe, SubscribeFilters,
    SubscriptionIds, SubscriptionOptions, Unsuback, Unsubscribe, UserProperties, Will, frame_size,
    next_frame,
};

use crate::random_packets::{packet, publish, publish_properties, version};
use crate::{PACKET_SIZE_MAX, VERSIONS, decode, encode, vectors};

/// What is left of `packet` in `version`; `None` if nothing is.
fn in_version(packet: Packet<'static>, version: ProtocolVersion) -> Option<Packet<'static>> {
    let packet = match packet {
        Packet::Connect(connect) => return Some(Packet::Connect(connect_in_its_version(connect))),
        packet if version == ProtocolVersion::V5 => return Some(packet),
        packet => packet,
    };
    let no_user_properties = UserProperties::default();
    Some(match packet {
        Packet::Connack(connack) => {
            let reason = match connack.v3_code()? {
                0 => ReasonCode::Success,
                1 => ReasonCode::UnsupportedProtocolVersion,
                2 => ReasonCode::ClientIdentifierNotValid,
                3 => ReasonCode::ServerUnavailable,
                4 => ReasonCode::BadUserNameOrPassword,
                _ => ReasonCode::NotAuthorized,
            };
            let session_present = connack.session_present && version == ProtocolVersion::V311;
            Packet::Connack(Connack { session_present, ..Connack::refusal(reason) })
        }
        Packet::Publish(publish) => Packet::Publish(Publish {
            topic: if publish.topic.is_empty() { return None } else { publish.topic },
            topic_alias: None,
            message_expiry_s: None,
            payload_format_utf8: false,
            subscription_ids: SubscriptionIds::default(),
            properties: ForwardedProperties::default(),
            ..publish
        }),
        Packet::Puback(ack) => Packet::Puback(Ack::new(ack.packet_id, ReasonCode::Success)),
        Packet::Pubrec(ack) => Packet::Pubrec(Ack::new(ack.packet_id, ReasonCode::Success)),
        Packet::Pubrel(ack) => Packet::Pubrel(Ack::new(ack.packet_id, ReasonCode::Success)),
        Packet::Pubcomp(ack) => Packet::Pubcomp(Ack::new(ack.packet_id, ReasonCode::Success)),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe
                .filters
                .iter()
                .map(|(filter, SubscriptionOptions { qos, .. })| {
                    (filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() })
                })
                .collect();
            Packet::Subscribe(Subscribe {
                packet_id: subscribe.packet_id,
                subscription_id: None,
                user_properties: no_user_properties,
                filters: SubscribeFilters::from_list(filters.leak()),
            })
        }
        Packet::Suback(suback) => {
            let failed = ReasonCode::UnspecifiedError;
            let reasons: Vec<_> = suback
                .reasons
                .iter()
                .map(|reason| if reason.is_error() { failed } else { reason })
                .collect();
            Packet::Suback(Suback {
                packet_id: suback.packet_id,
                reasons: ReasonCodes::from_list(reasons.leak()),
                reason_string: None,
                user_properties: no_user_properties,
            })
        }
        Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe(Unsubscribe { user_properties: no_user_properties, ..unsubscribe })
        }
        Packet::Unsuback(unsuback) => Packet::Unsuback(Unsuback {
            packet_id: unsuback.packet_id,
            reasons: ReasonCodes::default(),
            reason_string: None,
            user_properties: no_user_properties,
        }),
        Packet::Disconnect(_) => Packet::Disconnect(Disconnect::default()),
        Packet::Auth(_) => return None,
        packet => packet,
    })
}

fn connect_in_its_version(connect: Connect<'static>) -> Connect<'static> {
    if connect.version == ProtocolVersion::V5 {
        return connect;
    }
    Connect {
        clean_start: connect.clean_start,
        keep_alive_s: connect.keep_alive_s,
        will: connect.will.map(|will| Will {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            ..Will::default()
        }),
        user_name: connect.user_name,
        password: connect.password.filter(|_| connect.user_name.is_some()),
        ..Connect::new(connect.version, connect.client_id)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_decodes_to_what_was_encoded(packet in packet(), version in version()) {
        if let Some(packet) = in_version(packet, version) {
            let bytes = encode(&packet, version);
            prop_assert_eq!(decode(&bytes, version), Ok(packet.clone()));
            // What was decoded, borrowed from the bytes, encodes to them again.
            prop_assert_eq!(encode(&decode(&bytes, version).expect("as above"), version), bytes);
        }
    }

    #[test]
    fn a_stream_is_the_same_packets_wherever_it_is_cut(
        packets in vec(packet(), 1..4),
        version in version(),
    ) {
        let packets: Vec<_> =
            packets.into_iter().filter_map(|packet| in_version(packet, version)).collect();
        let mut stream = Vec::new();
        packets.iter().for_each(|packet| packet.encode(version, &mut stream));
        // Each byte of the small, some of the large.
        let step = 1 + stream.len() / 500;
        for cut in (0..=stream.len()).step_by(step) {
            let mut pending = Vec::new();
            let mut found = 0;
            for part in [&stream[..cut], &stream[cut..]] {
                pending.extend_from_slice(part);
                let mut taken = 0;
                while let Some(frame) = next_frame(&pending[taken..], PACKET_SIZE_MAX).unwrap() {
                    let decoded = Packet::decode(&frame, version);
                    prop_assert_eq!(decoded.as_ref(), Ok(&packets[found]));
                    taken += frame.size;
                    found += 1;
                }
                pending.drain(..taken);
            }
            prop_assert_eq!((found, pending.len()), (packets.len(), 0));
        }
    }

    #[test]
    fn what_travels_with_a_message_is_found_wherever_it_stands(all in publish_properties()) {
        let mut section = Vec::new();
        all.iter().for_each(|property| property.encode(&mut section));
        // Written as it is, whatever it holds.
        let properties = ForwardedProperties::from_raw(&section);
        let whole = Publish { topic: "a/b", payload: b"hello", properties, ..Publish::default() };
        let bytes = encode(&Packet::Publish(whole), ProtocolVersion::V5);
        let Ok(Packet::Publish(publish)) = decode(&bytes, ProtocolVersion::V5) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };

        let (mut forwarded, mut ids) = (Vec::new(), Vec::new());
        let (mut alias, mut expiry, mut utf8) = (None, None, false);
        for property in all {
            match property {
                Property::TopicAlias(value) => alias = Some(value),
                Property::MessageExpiry(value) => expiry = Some(value),
                Property::SubscriptionId(value) => ids.push(value),
                property => {
                    utf8 |= property == Property::PayloadFormat(true);
                    forwarded.push(property);
                }
            }
        }
        prop_assert_eq!(publish.topic_alias, alias);
        prop_assert_eq!(publish.message_expiry_s, expiry);
        prop_assert_eq!(publish.payload_format_utf8, utf8);
        prop_assert_eq!(publish.subscription_ids.iter().collect::<Vec<_>>(), ids);
        prop_assert_eq!(publish.properties.iter().collect::<Vec<_>>(), forwarded.clone());
        let mut raw = Vec::new();
        forwarded.iter().for_each(|property| property.encode(&mut raw));
        prop_assert_eq!(publish.properties.pieces().flatten().copied().collect::<Vec<_>>(), raw.clone());
        prop_assert_eq!(publish.properties.size(), raw.len());
        prop_assert_eq!(publish.properties.is_empty(), raw.is_empty());
        prop_assert!(publish.properties.pieces().all(|piece| !piece.is_empty()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_bytes(&bytes);
    }

    #[test]
    fn a_packet_with_a_changed_byte_never_panics(
        index in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let vectors = vectors::all();
        let mut bytes = index.get(&vectors).bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_bytes(&bytes);
    }

    #[test]
    fn diagnostics_are_left_out_rather_than_exceed_the_packet_size(
        packet in packet(),
        packet_size_max in 0..300_usize,
    ) {
        let version = ProtocolVersion::V5;
        let mut bytes = Vec::new();
        use ringmq::codec::AckType::*;
        let out = &mut bytes;
        match packet {
            Packet::Connack(connack) => connack.encode(version, packet_size_max, out),
            Packet::Puback(ack) => ack.encode(Puback, version, packet_size_max, out),
            Packet::Pubrec(ack) => ack.encode(Pubrec, version, packet_size_max, out),
            Packet::Pubrel(ack) => ack.encode(Pubrel, version, packet_size_max, out),
            Packet::Pubcomp(ack) => ack.encode(Pubcomp, version, packet_size_max, out),
            Packet::Suback(suback) => suback.encode(version, packet_size_max, out),
            Packet::Unsuback(unsuback) => unsuback.encode(version, packet_size_max, out),
            Packet::Disconnect(disconnect) => disconnect.encode(version, packet_size_max, out),
            Packet::Auth(auth) => auth.encode(packet_size_max, out),
            _ => return Ok(()),
        }
        let sent = decode(&bytes, version).expect("a packet");
        let (reason_string, user_properties) = diagnostics(&sent);
        let left_out = (reason_string, user_properties) != diagnostics(&packet);
        if bytes.len() > packet_size_max {
            prop_assert_eq!((reason_string, user_properties), (None, UserProperties::default()));
        }
        if left_out {
            prop_assert!(encode(&packet, version).len() > packet_size_max);
        } else {
            prop_assert_eq!(&bytes, &encode(&packet, version));
        }
        // Nothing else is lost.
        prop_assert_eq!(without_diagnostics(&sent), without_diagnostics(&packet));
    }

    #[test]
    fn a_publish_head_is_all_but_the_payload(packet in publish(), version in version()) {
        let Some(Packet::Publish(publish)) = in_version(packet, version) else { return Ok(()) };
        let ids: Vec<u32> = publish.subscription_ids.iter().collect();
        let properties: Vec<u8> = publish.properties.pieces().flatten().copied().collect();
        let head = PublishHead {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic.as_bytes(),
            packet_id: None,
            message_expiry_s: publish.message_expiry_s,
            topic_alias: publish.topic_alias,
            subscription_ids: &ids,
            properties: &properties,
            payload_size: publish.payload.len(),
        };
        let before = b"before".to_vec();
        let mut bytes = before.clone();
        let packet_id_index = head.encode(version, &mut bytes);
        prop_assert!(bytes.starts_with(&before));
        bytes.drain(..before.len());
        prop_assert_eq!(head.size(version), bytes.len() + publish.payload.len());

        prop_assert_eq!(packet_id_index.is_some(), publish.packet_id.is_some());
        if let (Some(index), Some(packet_id)) = (packet_id_index, publish.packet_id) {
            bytes[index..index + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
        bytes.extend_from_slice(publish.payload);
        prop_assert_eq!(decode(&bytes, version), Ok(Packet::Publish(publish)));
    }
}

/// Whatever `bytes` are, what decodes encodes to something that decodes to the same.
fn check_bytes(bytes: &[u8]) {
    let Ok(Some(frame)) = next_frame(bytes, PACKET_SIZE_MAX) else { return };
    for version in VERSIONS {
        match Packet::decode(&frame, version) {
            Ok(packet) => {
                let encoded = encode(&packet, version);
                assert_eq!(decode(&encoded, version), Ok(packet));
            }
            Err(error) => assert!(error.reason().is_error()),
        }
    }
}

fn diagnostics<'a>(packet: &Packet<'a>) -> (Option<&'a str>, UserProperties<'a>) {
    match packet {
        Packet::Connack(connack) => (connack.reason_string, connack.user_properties),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            (ack.reason_string, ack.user_properties)
        }
        Packet::Suback(suback) => (suback.reason_string, suback.user_properties),
        Packet::Unsuback(unsuback) => (unsuback.reason_string, unsuback.user_properties),
        Packet::Disconnect(disconnect) => (disconnect.reason_string, disconnect.user_properties),
        Packet::Auth(auth) => (auth.reason_string, auth.user_properties),
        _ => (None, UserProperties::default()),
    }
}

fn without_diagnostics<'a>(packet: &Packet<'a>) -> Packet<'a> {
    let mut packet = packet.clone();
    let (reason_string, user_properties) = match &mut packet {
        Packet::Connack(connack) => (&mut connack.reason_string, &mut connack.user_properties),
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            (&mut ack.reason_string, &mut ack.user_properties)
        }
        Packet::Suback(suback) => (&mut suback.reason_string, &mut suback.user_properties),
        Packet::Unsuback(unsuback) => (&mut unsuback.reason_string, &mut unsuback.user_properties),
        Packet::Disconnect(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Auth(auth) => (&mut auth.reason_string, &mut auth.user_properties),
        _ => return packet,
    };
    *reason_string = None;
    *user_properties = UserProperties::default();
    packet
}

#[test]
fn a_remaining_length_takes_as_many_bytes_as_it_needs() {
    // MQTT 5, table 1-1.
    let table: [(usize, &[u8]); 8] = [
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_454, &[0xFE, 0xFF, 0xFF, 0x7F]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ];
    for (remaining, expected) in table {
        let head =
            PublishHead { topic: b"a/b", payload_size: remaining - 5, ..PublishHead::default() };
        let mut bytes = Vec::new();
        head.encode(ProtocolVersion::V311, &mut bytes);
        assert_eq!(bytes[1..bytes.len() - 5], *expected, "{remaining}");
        let size = 1 + expected.len() + remaining;
        assert_eq!(head.size(ProtocolVersion::V311), size);
        assert_eq!(frame_size(&bytes), Ok(Some(size)));
        assert_eq!(next_frame(&bytes, size), Ok(None), "the payload is not there yet");
    }
}
