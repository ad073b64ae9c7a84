//! What the vectors that decode stand for.

use ringmq::codec::{
    Ack, Auth, Connack, Connect, Disconnect, ForwardedProperties, Packet, PacketId,
    ProtocolVersion, Publish, QoS, ReasonCode, ReasonCodes, RetainHandling, Suback, Subscribe,
    SubscribeFilters, SubscriptionIds, SubscriptionOptions, TopicFilters, Unsuback, Unsubscribe,
    UserProperties, Will,
};

const A_B: &[u8] = b"\x26\0\x01a\0\x01b";
/// The properties of "publish 5 with all" and "connect 5 with all" that travel with the message.
const FORWARDED: &[u8] =
    b"\x01\x01\x03\0\x04text\x08\0\x06re/ply\x09\0\x04corr\x26\0\x01a\0\x01b\x26\0\x01a\0\x01b";

pub(crate) fn named(name: &str) -> Packet<'static> {
    match name.split(' ').next().unwrap_or_default() {
        "connect" => Packet::Connect(connect(name)),
        "connack" => Packet::Connack(connack(name)),
        "publish" => Packet::Publish(publish(name)),
        "puback" => Packet::Puback(ack(name)),
        "pubrec" => Packet::Pubrec(ack(name)),
        "pubrel" => Packet::Pubrel(ack(name)),
        "pubcomp" => Packet::Pubcomp(ack(name)),
        "subscribe" => Packet::Subscribe(subscribe(name)),
        "suback" => Packet::Suback(suback(name)),
        "unsubscribe" => Packet::Unsubscribe(unsubscribe(name)),
        "unsuback" => Packet::Unsuback(unsuback(name)),
        "pingreq" => Packet::Pingreq,
        "pingresp" => Packet::Pingresp,
        "disconnect" => Packet::Disconnect(disconnect(name)),
        "auth" => Packet::Auth(auth(name)),
        _ => unknown(name),
    }
}

fn unknown(name: &str) -> ! {
    panic!("no packet is named {name:?}")
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

fn connect(name: &str) -> Connect<'static> {
    use ProtocolVersion::*;
    let ten_s = |version| Connect { keep_alive_s: 10, ..Connect::new(version, "c") };
    let v3_with_all = |version, clean_start, qos| Connect {
        clean_start,
        keep_alive_s: 1,
        will: Some(Will { topic: "will/t", payload: b"bye", qos, retain: true, ..Will::default() }),
        user_name: Some("user"),
        password: Some(b"pass"),
        ..Connect::new(version, "c")
    };
    match name {
        "connect 3.1" | "connect 3.1 with the user name missing" => ten_s(V31),
        "connect 3.1 with the password missing" => {
            Connect { user_name: Some("user"), ..ten_s(V31) }
        }
        "connect 3.1 with all" => v3_with_all(V31, false, QoS::ExactlyOnce),
        "connect 3.1.1" => ten_s(V311),
        "connect 3.1.1 that resumes" => {
            Connect { clean_start: false, keep_alive_s: 65_535, ..ten_s(V311) }
        }
        "connect 3.1.1 without client id" => {
            Connect { keep_alive_s: 0, client_id: "", ..ten_s(V311) }
        }
        "connect 3.1.1 with all" => v3_with_all(V311, true, QoS::AtLeastOnce),
        "connect 5"
        | "connect 5 whatever the connection's version"
        | "connect 5 with defaults spelled out" => ten_s(V5),
        "connect 5 with a password alone" => Connect { password: Some(b"pass"), ..ten_s(V5) },
        "connect 5 with an empty user name" => Connect { user_name: Some(""), ..ten_s(V5) },
        "connect with a binary password" => {
            Connect { user_name: Some("u"), password: Some(b"\0\xff"), ..ten_s(V5) }
        }
        "connect 5 with a byte order mark in the client id" => {
            Connect { client_id: "\u{FEFF}c", ..ten_s(V5) }
        }
        "connect 5 with will properties in between" => Connect {
            will: Some(Will {
                topic: "w",
                delay_s: 2,
                message_expiry_s: Some(1),
                properties: ForwardedProperties::from_raw(b"\x01\0\x26\0\x01a\0\x01b\x03\0\x01t"),
                ..Will::default()
            }),
            ..ten_s(V5)
        },
        "connect 3.1 of a bridge" => Connect { bridge_bit: true, ..ten_s(V31) },
        "connect 3.1.1 of a bridge" => Connect { bridge_bit: true, ..ten_s(V311) },
        "connect 5 with all" => Connect {
            version: V5,
            bridge_bit: false,
            clean_start: true,
            keep_alive_s: 60,
            client_id: "c",
            will: Some(Will {
                topic: "will/t",
                payload: b"bye",
                qos: QoS::AtLeastOnce,
                retain: true,
                delay_s: 5,
                message_expiry_s: Some(60),
                payload_format_utf8: true,
                properties: ForwardedProperties::from_raw(
                    b"\x01\x01\x03\0\x04text\x08\0\x06re/ply\x09\0\x04corr\x26\0\x01k\0\x01v",
                ),
            }),
            user_name: Some("user"),
            password: Some(b"pass"),
            session_expiry_s: Some(3600),
            receive_max: Some(20),
            packet_size_max: Some(65_536),
            topic_alias_max: 10,
            request_response_information: true,
            request_problem_information: false,
            user_properties: UserProperties::from_raw(b"\x26\0\x01a\0\x01b\x26\0\x01a\0\x01c"),
            auth_method: Some("SCRAM"),
            auth_data: Some(b"123"),
        },
        _ => unknown(name),
    }
}

fn connack(name: &str) -> Connack<'static> {
    match name {
        "connack 3.x" | "connack 5" | "connack 3.1 with something in its first byte" => {
            Connack::default()
        }
        "connack 3.1.1 with session" | "connack 5 with session" => {
            Connack { session_present: true, ..Connack::default() }
        }
        "connack 3.x bad version" | "connack 5 refusal" => {
            Connack::refusal(ReasonCode::UnsupportedProtocolVersion)
        }
        "connack 3.x bad client id" => Connack::refusal(ReasonCode::ClientIdentifierNotValid),
        "connack 3.x unavailable" => Connack::refusal(ReasonCode::ServerUnavailable),
        "connack 3.x bad password" => Connack::refusal(ReasonCode::BadUserNameOrPassword),
        "connack 3.x not authorized" => Connack::refusal(ReasonCode::NotAuthorized),
        "connack 5 with all" => Connack {
            session_present: false,
            reason: ReasonCode::Success,
            session_expiry_s: Some(10),
            receive_max: Some(20),
            qos_max: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            packet_size_max: Some(4096),
            assigned_client_id: Some("made"),
            topic_alias_max: Some(5),
            reason_string: Some("why"),
            user_properties: UserProperties::from_raw(A_B),
            wildcard_available: Some(false),
            subscription_ids_available: Some(true),
            shared_available: Some(false),
            server_keep_alive_s: Some(30),
            response_information: Some("resp"),
            server_reference: Some("other"),
            auth_method: Some("SCRAM"),
            auth_data: Some(b"123"),
        },
        _ => unknown(name),
    }
}

fn publish(name: &str) -> Publish<'static> {
    let hello = Publish { topic: "a/b", payload: b"hello", ..Publish::default() };
    let (_, case) = name.split_once(' ').unwrap_or_default();
    let case = case.trim_start_matches("3.x").trim_start_matches('5').trim_start();
    match case {
        "" => hello,
        "at QoS 1" => Publish { qos: QoS::AtLeastOnce, packet_id: Some(packet_id(10)), ..hello },
        "at QoS 2, retained, again" => Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: true,
            packet_id: Some(packet_id(65_535)),
            ..hello
        },
        "without payload" => Publish { retain: true, payload: b"", ..hello },
        "with an alias" => Publish { topic_alias: Some(1), ..hello },
        "with an alias alone" => Publish { topic: "", topic_alias: Some(65_535), ..hello },
        "with all" => Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(packet_id(10)),
            topic_alias: Some(5),
            message_expiry_s: Some(60),
            payload_format_utf8: true,
            subscription_ids: SubscriptionIds::from_list(&[1, 268_435_455]),
            properties: ForwardedProperties::from_raw(FORWARDED),
            ..hello
        },
        "with properties in between" => Publish {
            topic_alias: Some(5),
            message_expiry_s: Some(60),
            subscription_ids: SubscriptionIds::from_list(&[7, 128, 9]),
            properties: ForwardedProperties::from_raw(
                b"\x01\0\x26\0\x01a\0\x01b\x03\0\x01t\x09\0\x04corr",
            ),
            ..hello
        },
        "to a long topic" => Publish {
            topic: "a".repeat(140).leak(),
            payload: "x".repeat(20_000).leak().as_bytes(),
            ..hello
        },
        "to a topic in other letters" => Publish { topic: "\u{e4}/\u{6c34}/\u{1f30a}", ..hello },
        "to a topic with a byte order mark" => {
            Publish { topic: "\u{FEFF}a", payload: b"", ..hello }
        }
        "to a system topic" => Publish { topic: "$SYS/x", payload: b"", ..hello },
        "to a slash" => Publish { topic: "/", payload: b"", ..hello },
        _ => unknown(name),
    }
}

fn ack(name: &str) -> Ack<'static> {
    let of = |reason| Ack::new(packet_id(10), reason);
    let with_all = |reason, reason_string| Ack {
        reason_string: Some(reason_string),
        user_properties: UserProperties::from_raw(A_B),
        ..of(reason)
    };
    match name {
        "puback" | "pubrec" | "pubrel" | "pubcomp" => of(ReasonCode::Success),
        "pubrel 3.1 again"
        | "puback 5 with success spelled out"
        | "puback 5 with success and no properties" => of(ReasonCode::Success),
        "puback 5 without takers" => of(ReasonCode::NoMatchingSubscribers),
        "puback 5 refusal" | "puback 5 refusal and no properties" => of(ReasonCode::NotAuthorized),
        "puback 5 with all" => Ack {
            user_properties: UserProperties::from_raw(b"\x26\0\x01a\0\x01b\x26\0\x01c\0\x01d"),
            ..with_all(ReasonCode::QuotaExceeded, "full")
        },
        "puback 5 with success and a word" => {
            Ack { reason_string: Some("fine"), ..of(ReasonCode::Success) }
        }
        "pubrec 5 refusal" => of(ReasonCode::PacketIdentifierInUse),
        "pubrec 5 with all" => with_all(ReasonCode::PayloadFormatInvalid, "utf"),
        "pubrel 5 unknown" | "pubcomp 5 unknown" => of(ReasonCode::PacketIdentifierNotFound),
        "pubrel 5 with all" | "pubcomp 5 with all" => {
            with_all(ReasonCode::PacketIdentifierNotFound, "what")
        }
        _ => unknown(name),
    }
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

fn subscribe(name: &str) -> Subscribe<'static> {
    const AT_MOST_ONCE: SubscriptionOptions = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let to = |filters: Vec<(&'static str, SubscriptionOptions)>| Subscribe {
        packet_id: packet_id(10),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::from_list(filters.leak()),
    };
    match name {
        "subscribe 3.x" | "subscribe 3.1 again" | "subscribe 5" => to(vec![("a/b", AT_MOST_ONCE)]),
        "subscribe 3.x to three" => to(vec![
            ("a/b", AT_MOST_ONCE),
            ("c/#", options(QoS::AtLeastOnce)),
            ("+", options(QoS::ExactlyOnce)),
        ]),
        "subscribe 5 with all" => Subscribe {
            subscription_id: Some(268_435_455),
            user_properties: UserProperties::from_raw(A_B),
            ..to(vec![
                (
                    "a/b",
                    SubscriptionOptions {
                        qos: QoS::AtLeastOnce,
                        no_local: true,
                        retain_as_published: true,
                        retain_handling: RetainHandling::DoNotSend,
                    },
                ),
                (
                    "c/#",
                    SubscriptionOptions {
                        qos: QoS::ExactlyOnce,
                        no_local: false,
                        retain_as_published: true,
                        retain_handling: RetainHandling::SendIfNew,
                    },
                ),
                ("$share/g/+", AT_MOST_ONCE),
            ])
        },
        "subscribe 5 to what no filter looks like" => {
            to(vec![("", AT_MOST_ONCE), ("a#b", options(QoS::AtLeastOnce))])
        }
        _ => unknown(name),
    }
}

fn suback(name: &str) -> Suback<'static> {
    use ReasonCode::*;
    let (reasons, with_all): (&[ReasonCode], bool) = match name {
        "suback 3.x" => (&[Success, GrantedQoS1, GrantedQoS2, UnspecifiedError], false),
        "suback 5" => (&[Success, GrantedQoS1, GrantedQoS2, NotAuthorized], false),
        "suback 5 with all" => (&[WildcardSubscriptionsNotSupported], true),
        _ => unknown(name),
    };
    Suback {
        packet_id: packet_id(10),
        reasons: ReasonCodes::from_list(reasons),
        reason_string: with_all.then_some("why"),
        user_properties: UserProperties::from_raw(if with_all { A_B } else { b"" }),
    }
}

fn unsubscribe(name: &str) -> Unsubscribe<'static> {
    let (filters, with_all): (&[&str], bool) = match name {
        "unsubscribe 3.x" => (&["a/b", "c/#"], false),
        "unsubscribe 3.1 again" | "unsubscribe 5" => (&["a/b"], false),
        "unsubscribe 5 with all" => (&["a/b", "$share/g/+"], true),
        _ => unknown(name),
    };
    Unsubscribe {
        packet_id: packet_id(10),
        user_properties: UserProperties::from_raw(if with_all { A_B } else { b"" }),
        filters: TopicFilters::from_list(filters),
    }
}

fn unsuback(name: &str) -> Unsuback<'static> {
    use ReasonCode::*;
    let (reasons, with_all): (&[ReasonCode], bool) = match name {
        "unsuback 3.x" => (&[], false),
        "unsuback 5" => (&[Success, NoSubscriptionExisted], false),
        "unsuback 5 with all" => (&[TopicFilterInvalid], true),
        _ => unknown(name),
    };
    Unsuback {
        packet_id: packet_id(10),
        reasons: ReasonCodes::from_list(reasons),
        reason_string: with_all.then_some("why"),
        user_properties: UserProperties::from_raw(if with_all { A_B } else { b"" }),
    }
}

fn disconnect(name: &str) -> Disconnect<'static> {
    match name {
        "disconnect"
        | "disconnect 5 with success spelled out"
        | "disconnect 5 with success and no properties" => Disconnect::default(),
        "disconnect 5 with will" => Disconnect::new(ReasonCode::DisconnectWithWill),
        "disconnect 5 taken over" => Disconnect::new(ReasonCode::SessionTakenOver),
        "disconnect 5 from a client with all" => Disconnect {
            reason: ReasonCode::Success,
            session_expiry_s: Some(60),
            reason_string: Some("bye"),
            user_properties: UserProperties::from_raw(A_B),
            server_reference: None,
        },
        "disconnect 5 from a server with all" => Disconnect {
            reason: ReasonCode::ServerMoved,
            session_expiry_s: None,
            reason_string: Some("moved"),
            user_properties: UserProperties::from_raw(A_B),
            server_reference: Some("other"),
        },
        _ => unknown(name),
    }
}

fn auth(name: &str) -> Auth<'static> {
    match name {
        "auth 5" => Auth::default(),
        "auth 5 with all" => Auth {
            reason: ReasonCode::ContinueAuthentication,
            method: Some("SCRAM"),
            data: Some(b"123"),
            reason_string: Some("more"),
            user_properties: UserProperties::from_raw(A_B),
        },
        "auth 5 again" => {
            Auth { reason: ReasonCode::ReAuthenticate, method: Some("SCRAM"), ..Auth::default() }
        }
        _ => unknown(name),
    }
}
