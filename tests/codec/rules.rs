//! The tables of the specification: which property and which reason code may stand in which packet.

use ringmq::codec::{
    Ack, AckType, Auth, Connack, Connect, DecodeError, Disconnect, Packet, PacketType, PropertyId,
    ProtocolVersion, Publish, ReasonCode, Suback, Subscribe, Unsuback, Unsubscribe, next_frame,
};

use crate::vectors::{bytes, rows};
use crate::{VERSIONS, decode};

/// A packet that only lacks its properties, `P`, and its reason code, `R`.
const TEMPLATES: [(&str, &str); 15] = [
    ("connect", "10 ~ 'MQTT' 05 02 00 0a [ P ] 'c'"),
    ("will", "10 ~ 'MQTT' 05 06 00 0a [ ] 'c' [ P ] 'w' ''"),
    ("connack", "20 ~ 00 R [ P ]"),
    ("publish", "30 ~ 'a/b' [ P ] \"hello\""),
    ("puback", "40 ~ 00 0a R [ P ]"),
    ("pubrec", "50 ~ 00 0a R [ P ]"),
    ("pubrel", "62 ~ 00 0a R [ P ]"),
    ("pubcomp", "70 ~ 00 0a R [ P ]"),
    ("subscribe", "82 ~ 00 0a [ P ] 'a/b' 00"),
    ("suback", "90 ~ 00 0a [ P ] R"),
    ("unsubscribe", "a2 ~ 00 0a [ P ] 'a/b'"),
    ("unsuback", "b0 ~ 00 0a [ P ] R"),
    ("disconnect", "e0 ~ R [ P ]"),
    // An AUTH needs its method.
    ("auth", "f0 ~ R [ P 15 'SCRAM' ]"),
    ("auth without method", "f0 ~ R [ P ]"),
];

fn template(packet: &str) -> &'static str {
    TEMPLATES.iter().find(|(name, _)| *name == packet).expect(packet).1
}

fn filled(template: &str, properties: &str, reason: &str) -> Vec<u8> {
    bytes(&template.replace('P', properties).replace('R', reason))
}

fn check_v5(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    decode(bytes, ProtocolVersion::V5)
}

#[test]
fn a_property_stands_where_the_table_allows_it_and_nowhere_else() {
    let mut seen = Vec::new();
    for columns in rows(include_str!("../vectors/properties.txt")) {
        let [id, value, out_of_range, packets] = columns[..] else { panic!("{columns:?}") };
        let property = format!("{id} {value}");
        let data_alone = id == "16";
        for (packet, template) in TEMPLATES {
            let method = id == "15" && packet == "auth";
            if packet == "auth without method" || method {
                continue;
            }
            let result = filled(template, &property, "00");
            let result = check_v5(&result);
            if !packets.split(' ').any(|allowed| allowed == packet) {
                let error = result.expect_err(&property);
                assert!(matches!(error, DecodeError::PropertyNotAllowed(_)), "{packet} {property}");
                assert_eq!(error.reason(), ReasonCode::MalformedPacket);
            } else if data_alone && packet == "connect" {
                assert_eq!(result, Err(DecodeError::AuthDataWithoutMethod));
            } else {
                assert!(result.is_ok(), "{packet} {property}: {result:?}");
            }
            if out_of_range != "-" && packets.split(' ').any(|allowed| allowed == packet) {
                let property = format!("{id} {out_of_range}");
                let error = check_v5(&filled(template, &property, "00")).expect_err(&property);
                assert!(matches!(error, DecodeError::PropertyValue(_)), "{packet} {property}");
                assert_eq!(error.reason(), ReasonCode::ProtocolError);
            }
        }
        seen.push(u8::from_str_radix(id, 16).expect("hex"));
    }
    assert_eq!(seen, PropertyId::ALL.map(|id| id as u8));
}

#[test]
fn a_property_stands_once_unless_it_may_be_repeated() {
    for columns in rows(include_str!("../vectors/properties.txt")) {
        let [id, value, _, packets] = columns[..] else { panic!("{columns:?}") };
        for packet in packets.split(' ') {
            let twice = format!("{id} {value} {id} {value}");
            let whole = if id == "15" && packet == "auth" { "auth without method" } else { packet };
            let bytes = filled(template(whole), &twice, "00");
            let result = check_v5(&bytes);
            let may = id == "26" || (id == "0b" && packet == "publish");
            match result {
                Ok(_) => assert!(may, "{packet} {id}"),
                Err(error) => {
                    assert!(!may, "{packet} {id}: {error}");
                    assert!(matches!(error, DecodeError::PropertyDuplicate(_)), "{packet} {id}");
                    assert_eq!(error.reason(), ReasonCode::ProtocolError);
                }
            }
        }
    }
}

#[test]
fn an_identifier_that_the_table_lacks_is_malformed_everywhere() {
    let known = PropertyId::ALL.map(|id| id as u8);
    for id in (0..=255).filter(|id| !known.contains(id)) {
        for (_, template) in TEMPLATES {
            let bytes = filled(template, &format!("{id:02x} 00 00 00 00"), "00");
            let error = check_v5(&bytes).expect_err("unknown");
            assert_eq!(error, DecodeError::PropertyUnknown(id));
            assert_eq!(error.reason(), ReasonCode::MalformedPacket);
        }
    }
}

#[test]
fn a_property_that_is_cut_is_malformed() {
    for columns in rows(include_str!("../vectors/properties.txt")) {
        let [id, value, _, packets] = columns[..] else { panic!("{columns:?}") };
        let packet = packets.split(' ').next().expect("a packet");
        let whole = bytes(&format!("{id} {value}"));
        for end in 1..whole.len() {
            let cut: Vec<String> = whole[..end].iter().map(|byte| format!("{byte:02x}")).collect();
            let bytes = filled(template(packet), &cut.join(" "), "00");
            let error = check_v5(&bytes).expect_err("cut");
            assert_eq!(error, DecodeError::Truncated, "{id} up to {end}");
        }
    }
}

#[test]
fn a_reason_code_stands_where_the_table_allows_it_and_nowhere_else() {
    let table: Vec<(u8, Vec<&str>)> = rows(include_str!("../vectors/reasons.txt"))
        .map(|columns| {
            let code = u8::from_str_radix(columns[0], 16).expect("hex");
            (code, columns[1].split(' ').collect())
        })
        .collect();
    let known: Vec<u8> = table.iter().map(|(code, _)| *code).collect();
    assert_eq!(known, ReasonCode::ALL.map(ReasonCode::as_u8));

    for code in 0..=255 {
        let packets = table.iter().find(|(known, _)| *known == code).map(|(_, packets)| packets);
        assert_eq!(ReasonCode::from_u8(code).map(ReasonCode::as_u8), packets.map(|_| code));
        for (packet, template) in TEMPLATES {
            if !template.contains('R') || packet == "auth without method" {
                continue;
            }
            let bytes = filled(template, "", &format!("{code:02x}"));
            let result = check_v5(&bytes);
            if packets.is_some_and(|packets| packets.contains(&packet)) {
                assert!(result.is_ok(), "{packet} {code:#04x}: {result:?}");
            } else {
                let error = result.expect_err(packet);
                assert_eq!(error, DecodeError::ReasonInvalid(code), "{packet}");
                assert_eq!(error.reason(), ReasonCode::ProtocolError);
            }
        }
    }
}

/// Table 2-2: every other value of the four flags is refused; PUBLISH alone uses them.
#[test]
fn header_flags_are_those_of_the_packet_type() {
    let bodies: [(u8, &str); 14] = [
        (0x10, "~ 'MQTT' 05 02 00 0a [ ] 'c'"),
        (0x20, "~ 00 00 [ ]"),
        (0x40, "~ 00 0a"),
        (0x50, "~ 00 0a"),
        (0x62, "~ 00 0a"),
        (0x70, "~ 00 0a"),
        (0x82, "~ 00 0a [ ] 'a' 00"),
        (0x90, "~ 00 0a [ ] 00"),
        (0xA2, "~ 00 0a [ ] 'a'"),
        (0xB0, "~ 00 0a [ ] 00"),
        (0xC0, "00"),
        (0xD0, "00"),
        (0xE0, "00"),
        (0xF0, "00"),
    ];
    for (right, body) in bodies {
        for first_byte in (0..16).map(|flags| right & 0xF0 | flags) {
            let bytes = bytes(&format!("{first_byte:02x} {body}"));
            let result = check_v5(&bytes);
            if first_byte == right {
                assert!(result.is_ok(), "{first_byte:#04x}: {result:?}");
            } else {
                assert_eq!(result, Err(DecodeError::HeaderFlags), "{first_byte:#04x}");
            }
        }
    }
}

/// All 256 values of the CONNECT flags, with a payload that has what they announce.
#[test]
fn connect_flags_are_taken_exactly_when_they_make_sense() {
    for version in VERSIONS {
        let mut taken = 0;
        for flags in 0..=255_u8 {
            let bit = |bit: u8| flags >> bit & 1 == 1;
            let (user_name, password, will) = (bit(7), bit(6), bit(2));
            let v5 = version == ProtocolVersion::V5;
            let name = if version == ProtocolVersion::V31 { "'MQIsdp'" } else { "'MQTT'" };
            let section = if v5 { "[ ]" } else { "" };
            let will_fields = if will { format!("{section} 'w' 'bye'") } else { String::new() };
            let bytes = bytes(&format!(
                "10 ~ {name} {:02x} {flags:02x} 00 0a {section} 'c' {will_fields} {} {}",
                version as u8,
                if user_name { "'user'" } else { "" },
                if password { "'pass'" } else { "" },
            ));
            let sensible = !bit(0)
                && (will || flags & 0x38 == 0)
                && flags & 0x18 != 0x18
                && (v5 || user_name || !password);
            let result = decode(&bytes, version);
            assert_eq!(result.is_ok(), sensible, "{version:?} {flags:#010b}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.reason(), ReasonCode::MalformedPacket);
                continue;
            }
            taken += 1;
            let Ok(Packet::Connect(connect)) = result else { panic!("not a CONNECT") };
            assert_eq!(connect.clean_start, bit(1));
            assert_eq!(connect.user_name, user_name.then_some("user"));
            assert_eq!(connect.password, password.then_some(&b"pass"[..]));
            assert_eq!(connect.will.map(|will| will.retain), will.then_some(bit(5)));
            let qos = connect.will.map(|will| will.qos as u8);
            assert_eq!(qos, will.then_some(flags >> 3 & 3));
        }
        assert_eq!(taken, if version == ProtocolVersion::V5 { 56 } else { 42 });
    }
}

/// All 256 values of the subscription options.
#[test]
fn subscription_options_are_taken_exactly_when_they_make_sense() {
    for version in VERSIONS {
        for byte in 0..=255_u8 {
            let section = if version == ProtocolVersion::V5 { "[ ]" } else { "" };
            let bytes = bytes(&format!("82 ~ 00 0a {section} 'a' {byte:02x}"));
            let reserved = if version == ProtocolVersion::V5 { 0xC0 } else { 0xFC };
            let expected = match byte {
                _ if byte & reserved != 0 => Some(ReasonCode::MalformedPacket),
                _ if byte & 0x03 == 0x03 => Some(ReasonCode::ProtocolError),
                _ if byte & 0x30 == 0x30 => Some(ReasonCode::ProtocolError),
                _ => None,
            };
            let reason = decode(&bytes, version).err().map(|error| error.reason());
            assert_eq!(reason, expected, "{version:?} {byte:#010b}");
        }
    }
}

/// Each decoder of one packet refuses every other packet.
#[test]
fn a_decoder_takes_only_its_own_packet() {
    let version = ProtocolVersion::V5;
    let mut refused = 0;
    for (_, template) in TEMPLATES {
        let bytes = filled(template, "", "00");
        let frame = next_frame(&bytes, bytes.len()).expect("a frame").expect("a whole frame");
        let own = frame.packet_type().expect("a packet type");
        let others = [
            (PacketType::Connect, Connect::decode(&frame).err()),
            (PacketType::Connack, Connack::decode(&frame, version).err()),
            (PacketType::Publish, Publish::decode(&frame, version).err()),
            (PacketType::Puback, Ack::decode(&frame, version, AckType::Puback).err()),
            (PacketType::Pubrec, Ack::decode(&frame, version, AckType::Pubrec).err()),
            (PacketType::Pubrel, Ack::decode(&frame, version, AckType::Pubrel).err()),
            (PacketType::Pubcomp, Ack::decode(&frame, version, AckType::Pubcomp).err()),
            (PacketType::Subscribe, Subscribe::decode(&frame, version).err()),
            (PacketType::Suback, Suback::decode(&frame, version).err()),
            (PacketType::Unsubscribe, Unsubscribe::decode(&frame, version).err()),
            (PacketType::Unsuback, Unsuback::decode(&frame, version).err()),
            (PacketType::Disconnect, Disconnect::decode(&frame, version).err()),
            (PacketType::Auth, Auth::decode(&frame, version).err()),
        ];
        for (packet_type, error) in others {
            if packet_type != own {
                assert_eq!(error, Some(DecodeError::OtherPacket), "{own:?} as {packet_type:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, TEMPLATES.len() * 12);
}

#[test]
fn every_error_says_what_is_wrong_in_one_line() {
    for vector in crate::vectors::all() {
        let Ok(Some(frame)) = next_frame(&vector.bytes, usize::MAX) else {
            continue;
        };
        let Err(error) = Packet::decode(&frame, vector.version) else { continue };
        let text = error.to_string();
        assert!((10..=80).contains(&text.len()) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn the_size_of_an_answer_follows_from_the_number_of_filters() {
    for count in [1, 2, 123, 124, 125, 16_379, 16_380, 16_381] {
        let reasons = vec![ringmq::codec::ReasonCode::Success; count];
        let suback = ringmq::codec::Suback {
            packet_id: ringmq::codec::PacketId::new(1).expect("an identifier"),
            reasons: ringmq::codec::ReasonCodes::from_list(&reasons),
            reason_string: None,
            user_properties: Default::default(),
        };
        let mut bytes = Vec::new();
        suback.encode(ringmq::codec::ProtocolVersion::V5, usize::MAX, &mut bytes);
        let size = ringmq::codec::filters_answer_size(count);
        assert_eq!(bytes.len(), size, "{count} filters");
    }
}
