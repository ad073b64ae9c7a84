//! Packets to bytes and back, written against the specification and not with the broker's own codec: a fault that both
//! shared would go unseen.

use crate::fields::{Kind, PROPERTIES, Packet, Type, WILL_PROPERTIES};

/// A version of the protocol, by its level on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

impl Version {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        }
    }
}

/// The bytes of a packet that a client sends.
pub(crate) fn encode(packet: &Packet, version: Version) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let number = |name| packet.number(name).unwrap_or(0);
    let id = |body: &mut Vec<u8>| body.extend((number("id") as u16).to_be_bytes());
    let mut flags = 0;
    match packet.kind {
        Kind::Connect => connect(packet, version, &mut body)?,
        Kind::Publish => {
            flags = (number("dup") << 3 | number("qos") << 1 | number("retain")) as u8;
            prefixed(packet.bytes("topic").unwrap_or(b""), &mut body)?;
            if number("qos") > 0 {
                id(&mut body);
            }
            properties(packet, version, &[], &mut body)?;
            body.extend_from_slice(packet.bytes("payload").unwrap_or(b""));
        }
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => {
            flags = if packet.kind == Kind::Pubrel { 2 } else { 0 };
            id(&mut body);
            reason_and_properties(packet, version, &mut body)?;
        }
        Kind::Subscribe => {
            flags = 2;
            id(&mut body);
            properties(packet, version, &["filter"], &mut body)?;
            for filter in packet.all("filter") {
                let text = String::from_utf8_lossy(filter).into_owned();
                let (name, options) = subscription_options(&text)?;
                prefixed(&filter[..name.len()], &mut body)?;
                body.push(options);
            }
        }
        Kind::Unsubscribe => {
            flags = 2;
            id(&mut body);
            properties(packet, version, &["filter"], &mut body)?;
            for filter in packet.all("filter") {
                prefixed(filter, &mut body)?;
            }
        }
        Kind::Pingreq => {}
        Kind::Disconnect | Kind::Auth => reason_and_properties(packet, version, &mut body)?,
        other => return Err(format!("{} is not a client's packet", other.name())),
    }
    let mut out = vec![(packet.kind as u8) << 4 | flags];
    var_int(body.len(), &mut out);
    out.extend(body);
    Ok(out)
}

fn connect(packet: &Packet, version: Version, body: &mut Vec<u8>) -> Result<(), String> {
    let number = |name| packet.number(name).unwrap_or(0);
    let name: &[u8] = if version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
    prefixed(name, body)?;
    body.push(version as u8);
    // `keep` is what all versions can say: go on with the session, and keep it.
    let clean = packet.number("clean").unwrap_or(u64::from(packet.bytes("keep").is_none()));
    let mut flags = (clean << 1) as u8;
    if packet.bytes("will").is_some() {
        flags |= (1 << 2 | number("will_qos") << 3 | number("will_retain") << 5) as u8;
    }
    flags |= u8::from(packet.bytes("password").is_some()) << 6;
    flags |= u8::from(packet.bytes("user_name").is_some()) << 7;
    body.push(flags);
    body.extend((number("keep_alive") as u16).to_be_bytes());
    let mut own = packet.clone();
    own.fields.retain(|name, _| !name.starts_with("will"));
    if let Some(keep) = own.fields.remove("keep") {
        own.fields.insert("session_expiry", keep);
    }
    if version != Version::V5 && packet.bytes("keep").is_some() {
        own.fields.remove("session_expiry");
    }
    properties(&own, version, &[], body)?;
    prefixed(packet.bytes("client_id").unwrap_or(b""), body)?;
    if let Some(topic) = packet.bytes("will") {
        let mut will = Packet::new(Kind::Connect);
        for (name, property) in WILL_PROPERTIES {
            if let Some(values) = packet.fields.get(name) {
                will.fields.insert(property, values.clone());
            }
        }
        properties(&will, version, &[], body)?;
        prefixed(topic, body)?;
        prefixed(packet.bytes("will_payload").unwrap_or(b""), body)?;
    }
    for name in ["user_name", "password"] {
        if let Some(value) = packet.bytes(name) {
            prefixed(value, body)?;
        }
    }
    Ok(())
}

/// `FILTER@QOS`, and behind it `,nl` (no local), `,rap` (retain as published), `,rh=N` (retain handling).
fn subscription_options(text: &str) -> Result<(&str, u8), String> {
    let wrong = || format!("{text}: a subscription is FILTER@QOS[,nl][,rap][,rh=N]");
    let (name, options) = text.rsplit_once('@').ok_or_else(wrong)?;
    let mut parts = options.split(',');
    let mut byte: u8 = parts.next().and_then(|qos| qos.parse().ok()).ok_or_else(wrong)?;
    for part in parts {
        byte |= match part {
            "nl" => 1 << 2,
            "rap" => 1 << 3,
            "rh=0" => 0,
            "rh=1" => 1 << 4,
            "rh=2" => 2 << 4,
            _ => return Err(wrong()),
        };
    }
    Ok((name, byte))
}

fn reason_and_properties(
    packet: &Packet,
    version: Version,
    body: &mut Vec<u8>,
) -> Result<(), String> {
    let has_properties = packet.fields.keys().any(|name| property(name).is_some());
    if version != Version::V5 {
        let plain = packet.bytes("reason").is_none() && !has_properties;
        return if plain { Ok(()) } else { Err("a reason or property needs MQTT 5".to_owned()) };
    }
    if packet.bytes("reason").is_some() || has_properties {
        body.push(packet.number("reason").unwrap_or(0) as u8);
    }
    if has_properties {
        properties(packet, version, &[], body)?;
    }
    Ok(())
}

fn property(name: &str) -> Option<(u8, Type)> {
    PROPERTIES.iter().find(|p| p.1 == name).map(|p| (p.0, p.2))
}

fn properties(
    packet: &Packet,
    version: Version,
    apart: &[&str],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut section = Vec::new();
    for (name, values) in &packet.fields {
        let Some((id, kind)) = property(name).filter(|_| !apart.contains(name)) else { continue };
        if version != Version::V5 {
            return Err(format!("{name} needs MQTT 5"));
        }
        for value in values {
            section.push(id);
            let number = || String::from_utf8_lossy(value).parse::<u64>().unwrap_or(0);
            match kind {
                Type::Byte => section.push(number() as u8),
                Type::Two => section.extend((number() as u16).to_be_bytes()),
                Type::Four => section.extend((number() as u32).to_be_bytes()),
                Type::VarInt => var_int(number() as usize, &mut section),
                Type::Text | Type::Binary => prefixed(value, &mut section)?,
                Type::Pair => {
                    let colon = value.iter().position(|&b| b == b':').ok_or("user=NAME:VALUE")?;
                    prefixed(&value[..colon], &mut section)?;
                    prefixed(&value[colon + 1..], &mut section)?;
                }
            }
        }
    }
    if version == Version::V5 {
        var_int(section.len(), out);
        out.extend(section);
    }
    Ok(())
}

pub(crate) fn prefixed(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let size = u16::try_from(bytes.len()).map_err(|_| "longer than 65,535 bytes".to_owned())?;
    out.extend(size.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

pub(crate) fn var_int(mut number: usize, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The size of the packet at the head of `bytes`, once its header is there. An error when a server may not send it.
pub(crate) fn packet_size(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().skip(1).take(4).enumerate() {
        number |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                // [MQTT-1.5.5-1]
                return Err("a remaining length longer than it need be".to_owned());
            }
            return Ok(Some(2 + index + number));
        }
    }
    if bytes.len() >= 5 {
        Err("a remaining length of more than 4 bytes".to_owned())
    } else {
        Ok(None)
    }
}

/// A packet from the server. What a server may not send is an error: reserved bits, unknown or misplaced properties,
/// reason codes of other packets, strings that are not UTF-8, bytes left over.
pub(crate) fn decode(bytes: &[u8], version: Version) -> Result<Packet, String> {
    let kind = Kind::from_number(bytes[0] >> 4).ok_or("packet type 0")?;
    let header = 1 + bytes[1..].iter().take_while(|&&b| b & 0x80 != 0).count() + 1;
    let mut reader = Reader(&bytes[header..]);
    let mut packet = Packet::new(kind);
    let flags = bytes[0] & 0x0F;
    // [MQTT-2.1.3-1]
    if kind != Kind::Publish && flags != if kind == Kind::Pubrel { 2 } else { 0 } {
        return Err(format!("{} with flags {flags:04b}", kind.name()));
    }
    let v5 = version == Version::V5;
    match kind {
        Kind::Connack => connack(&mut reader, &mut packet, v5)?,
        Kind::Publish => publish(flags, &mut reader, &mut packet, v5)?,
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => {
            reader.packet_id(&mut packet)?;
            reader.reason_and_properties(&mut packet, v5)?;
        }
        Kind::Suback | Kind::Unsuback => {
            reader.packet_id(&mut packet)?;
            if v5 {
                reader.properties(&mut packet)?;
            }
            while let Some((&reason, rest)) = reader.0.split_first() {
                check_reason(kind, reason, v5)?;
                packet.push_number("reasons", reason.into());
                reader.0 = rest;
            }
        }
        Kind::Pingresp => {}
        Kind::Disconnect | Kind::Auth if v5 => reader.reason_and_properties(&mut packet, v5)?,
        other => return Err(format!("{} from a server in MQTT {}", other.name(), version.name())),
    }
    if reader.0.is_empty() {
        Ok(packet)
    } else {
        Err(format!("{packet}: {} bytes left over", reader.0.len()))
    }
}

fn connack(reader: &mut Reader, packet: &mut Packet, v5: bool) -> Result<(), String> {
    let flags = reader.byte()?;
    let reason = reader.byte()?;
    // [MQTT-3.2.2-1]
    if flags > 1 {
        return Err(format!("CONNACK flags {flags:08b}"));
    }
    // [MQTT-3.2.2-6]
    if flags == 1 && reason != 0 {
        return Err(format!("CONNACK refuses with {reason:#04x} and says that there is a session"));
    }
    check_reason(Kind::Connack, reason, v5)?;
    for (name, value) in [("session", flags), ("reason", reason)] {
        if value != 0 {
            packet.push_number(name, value.into());
        }
    }
    if v5 { reader.properties(packet) } else { Ok(()) }
}

fn publish(flags: u8, reader: &mut Reader, packet: &mut Packet, v5: bool) -> Result<(), String> {
    let qos = flags >> 1 & 3;
    for (name, value) in [("retain", flags & 1), ("qos", qos), ("dup", flags >> 3)] {
        if value != 0 {
            packet.push_number(name, value.into());
        }
    }
    // [MQTT-3.3.1-4] [MQTT-3.3.1-2]
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(format!("PUBLISH with flags {flags:04b}"));
    }
    let topic = reader.prefixed()?;
    text(topic)?;
    // [MQTT-3.3.2-2]
    if topic.iter().any(|b| b"+#".contains(b)) {
        return Err("PUBLISH with a wildcard in its topic".to_owned());
    }
    if !topic.is_empty() {
        packet.push("topic", topic);
    }
    if qos > 0 {
        reader.packet_id(packet)?;
    }
    if v5 {
        reader.properties(packet)?;
    }
    if topic.is_empty() && packet.bytes("alias").is_none() {
        return Err("PUBLISH without topic and without alias".to_owned());
    }
    if !reader.0.is_empty() {
        packet.push("payload", reader.0);
    }
    reader.0 = &[];
    Ok(())
}

/// Reason codes that a server may use, MQTT 5.0 table 2-6; for MQTT 3, the return codes.
fn check_reason(kind: Kind, reason: u8, v5: bool) -> Result<(), String> {
    let allowed: &[u8] = match (kind, v5) {
        (Kind::Connack, true) => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        (Kind::Connack, false) => &[0, 1, 2, 3, 4, 5],
        (Kind::Puback | Kind::Pubrec, true) => {
            &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
        }
        (Kind::Pubrel | Kind::Pubcomp, true) => &[0x00, 0x92],
        (Kind::Suback, true) => {
            &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]
        }
        (Kind::Suback, false) => &[0x00, 0x01, 0x02, 0x80],
        (Kind::Unsuback, true) => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        (Kind::Disconnect, true) => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
            0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        (Kind::Auth, true) => &[0x00, 0x18],
        _ => &[],
    };
    let known = allowed.contains(&reason);
    if known { Ok(()) } else { Err(format!("{} with reason {reason:#04x}", kind.name())) }
}

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2]
fn text(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    if text.contains('\0') { Err("a string with a null character".to_owned()) } else { Ok(()) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(size).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self, size: usize) -> Result<u64, String> {
        Ok(self.take(size)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn prefixed(&mut self) -> Result<&'a [u8], String> {
        let size = self.number(2)? as usize;
        self.take(size)
    }

    fn var_int(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let short = byte != 0 || index == 0;
                return if short {
                    Ok(number)
                } else {
                    Err("a long variable byte integer".to_owned())
                };
            }
        }
        Err("a variable byte integer of more than 4 bytes".to_owned())
    }

    fn packet_id(&mut self, packet: &mut Packet) -> Result<(), String> {
        let id = self.number(2)?;
        packet.push_number("id", id);
        if id == 0 { Err("packet identifier 0".to_owned()) } else { Ok(()) }
    }

    fn reason_and_properties(&mut self, packet: &mut Packet, v5: bool) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let reason = self.byte()?;
        check_reason(packet.kind, reason, v5)?;
        if reason != 0 {
            packet.push_number("reason", reason.into());
        }
        if self.0.is_empty() { Ok(()) } else { self.properties(packet) }
    }

    fn properties(&mut self, packet: &mut Packet) -> Result<(), String> {
        let size = self.var_int()? as usize;
        let mut section = Reader(self.take(size)?);
        while !section.0.is_empty() {
            let id = section.byte()?;
            let known =
                PROPERTIES.iter().find(|p| p.0 == id).ok_or(format!("property {id:#04x}"))?;
            let &(_, name, kind, places) = known;
            if !places.contains(&packet.kind) {
                return Err(format!("{} with {name} from a server", packet.kind.name()));
            }
            if packet.bytes(name).is_some() && !matches!(name, "user" | "sub_id") {
                return Err(format!("{name} twice"));
            }
            let value = match kind {
                Type::Byte => section.number(1)?.to_string().into_bytes(),
                Type::Two => section.number(2)?.to_string().into_bytes(),
                Type::Four => section.number(4)?.to_string().into_bytes(),
                Type::VarInt => section.var_int()?.to_string().into_bytes(),
                Type::Binary => section.prefixed()?.to_vec(),
                Type::Text => {
                    let bytes = section.prefixed()?;
                    text(bytes)?;
                    bytes.to_vec()
                }
                Type::Pair => {
                    let (key, value) = (section.prefixed()?, section.prefixed()?);
                    text(key)?;
                    text(value)?;
                    [key, b":", value].concat()
                }
            };
            // [MQTT-3.3.2-8], and the zeros that table 2-4 makes a protocol error.
            if value == b"0" && matches!(name, "alias" | "sub_id" | "receive_max" | "packet_max") {
                return Err(format!("{name} 0"));
            }
            packet.push(name, value);
        }
        Ok(())
    }
}

/// `tokens` as bytes: hex digits, `s"text"` with its length, `"text"` without, `[ .. ]` and `{ .. }` with the count of the
/// bytes in them in front, as a variable byte integer. `00*70000` repeats.
pub(crate) fn assemble(tokens: &[String]) -> Result<Vec<u8>, String> {
    let mut open: Vec<Vec<u8>> = vec![Vec::new()];
    for token in tokens {
        match token.as_str() {
            "[" | "{" => open.push(Vec::new()),
            "]" | "}" => {
                let inner = open.pop().filter(|_| !open.is_empty()).ok_or("a bracket too many")?;
                let out = open.last_mut().unwrap();
                var_int(inner.len(), out);
                out.extend(inner);
            }
            "[]" => open.last_mut().unwrap().push(0),
            token => {
                let out = open.last_mut().unwrap();
                if let Some(quoted) = token.strip_prefix('s').filter(|rest| rest.starts_with('"')) {
                    prefixed(&crate::fields::value(quoted, Type::Text)?, out)?;
                } else if token.starts_with('"') {
                    out.extend(crate::fields::value(token, Type::Text)?);
                } else {
                    let (digits, count) = match token.split_once('*') {
                        Some((digits, count)) => (digits, count.parse().map_err(|_| token)?),
                        None => (token, 1),
                    };
                    out.extend(hex(digits)?.repeat(count));
                }
            }
        }
    }
    if open.len() == 1 { Ok(open.remove(0)) } else { Err("a bracket is not closed".to_owned()) }
}

fn hex(digits: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("{digits} is not hexadecimal");
    if digits.is_empty() || digits.len() % 2 == 1 || !digits.is_ascii() {
        return Err(wrong());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

/// Whether the first word of a line says that raw bytes follow.
pub(crate) fn is_raw(token: &str) -> bool {
    token.len() == 2 && hex(token).is_ok()
}
