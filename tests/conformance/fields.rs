//! The words of the script language: packet kinds, the fields of each and their types, and values as text.

use std::collections::BTreeMap;

/// A packet as its named fields. Values are bytes: numbers in decimal, strings and binary data as they are, user
/// properties as `name:value`. Fields with their default value are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub kind: Kind,
    pub fields: BTreeMap<&'static str, Vec<Vec<u8>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

pub(crate) const KINDS: [(Kind, &str); 15] = [
    (Kind::Connect, "CONNECT"),
    (Kind::Connack, "CONNACK"),
    (Kind::Publish, "PUBLISH"),
    (Kind::Puback, "PUBACK"),
    (Kind::Pubrec, "PUBREC"),
    (Kind::Pubrel, "PUBREL"),
    (Kind::Pubcomp, "PUBCOMP"),
    (Kind::Subscribe, "SUBSCRIBE"),
    (Kind::Suback, "SUBACK"),
    (Kind::Unsubscribe, "UNSUBSCRIBE"),
    (Kind::Unsuback, "UNSUBACK"),
    (Kind::Pingreq, "PINGREQ"),
    (Kind::Pingresp, "PINGRESP"),
    (Kind::Disconnect, "DISCONNECT"),
    (Kind::Auth, "AUTH"),
];

impl Kind {
    pub(crate) fn from_name(name: &str) -> Option<Kind> {
        KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    pub(crate) fn from_number(number: u8) -> Option<Kind> {
        KINDS.iter().map(|(kind, _)| *kind).find(|kind| *kind as u8 == number)
    }

    pub(crate) fn name(self) -> &'static str {
        KINDS[self as usize - 1].1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Byte,
    Two,
    Four,
    VarInt,
    Text,
    Binary,
    Pair,
}

impl Type {
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Type::Byte | Type::Two | Type::Four | Type::VarInt)
    }
}

/// Property identifiers, MQTT 5.0 section 2.2.2.2, with the packets that a server may send them in.
pub(crate) const PROPERTIES: [(u8, &str, Type, &[Kind]); 27] = {
    use Kind::*;
    use Type::*;
    const ACKS: &[Kind] =
        &[Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth];
    const ANY: &[Kind] =
        &[Connack, Publish, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth];
    [
        (0x01, "payload_format", Byte, &[Publish]),
        (0x02, "expiry", Four, &[Publish]),
        (0x03, "content_type", Text, &[Publish]),
        (0x08, "response_topic", Text, &[Publish]),
        (0x09, "correlation", Binary, &[Publish]),
        (0x0B, "sub_id", VarInt, &[Publish]),
        (0x11, "session_expiry", Four, &[Connack]),
        (0x12, "assigned_id", Text, &[Connack]),
        (0x13, "server_keep_alive", Two, &[Connack]),
        (0x15, "auth_method", Text, &[Connack, Auth]),
        (0x16, "auth_data", Binary, &[Connack, Auth]),
        (0x17, "request_problem", Byte, &[]),
        (0x18, "will_delay", Four, &[]),
        (0x19, "request_response", Byte, &[]),
        (0x1A, "response_information", Text, &[Connack]),
        (0x1C, "server_reference", Text, &[Connack, Disconnect]),
        (0x1F, "reason_string", Text, ACKS),
        (0x21, "receive_max", Two, &[Connack]),
        (0x22, "alias_max", Two, &[Connack]),
        (0x23, "alias", Two, &[Publish]),
        (0x24, "maximum_qos", Byte, &[Connack]),
        (0x25, "retain_available", Byte, &[Connack]),
        (0x26, "user", Pair, ANY),
        (0x27, "packet_max", Four, &[Connack]),
        (0x28, "wildcards_available", Byte, &[Connack]),
        (0x29, "sub_ids_available", Byte, &[Connack]),
        (0x2A, "shared_available", Byte, &[Connack]),
    ]
};

/// Fields that are not properties.
const PLAIN: [(&str, Type); 21] = [
    ("id", Type::Two),
    ("client_id", Type::Text),
    ("clean", Type::Byte),
    ("keep", Type::Four),
    ("keep_alive", Type::Two),
    ("user_name", Type::Text),
    ("password", Type::Binary),
    ("topic", Type::Text),
    ("payload", Type::Binary),
    ("qos", Type::Byte),
    ("retain", Type::Byte),
    ("dup", Type::Byte),
    ("reason", Type::Byte),
    ("reasons", Type::Byte),
    ("session", Type::Byte),
    ("filter", Type::Text),
    ("will", Type::Text),
    ("will_payload", Type::Binary),
    ("will_qos", Type::Byte),
    ("will_retain", Type::Byte),
    ("will_user", Type::Pair),
];

/// Properties of a will in a CONNECT, and the names they have there.
pub(crate) const WILL_PROPERTIES: [(&str, &str); 7] = [
    ("will_delay", "will_delay"),
    ("will_expiry", "expiry"),
    ("will_payload_format", "payload_format"),
    ("will_content_type", "content_type"),
    ("will_response_topic", "response_topic"),
    ("will_correlation", "correlation"),
    ("will_user", "user"),
];

/// The canonical spelling and the type of a field.
pub(crate) fn field(name: &str) -> Option<(&'static str, Type)> {
    let plain = PLAIN.iter().find(|(known, _)| *known == name).copied();
    let property = || PROPERTIES.iter().find(|p| p.1 == name).map(|p| (p.1, p.2));
    let will = || {
        let (known, property) = WILL_PROPERTIES.iter().find(|(known, _)| *known == name)?;
        Some((*known, PROPERTIES.iter().find(|p| p.1 == *property)?.2))
    };
    plain.or_else(property).or_else(will)
}

/// A value as it is written in a script: `0x8e`, `"with blanks\n"`, `x*1000`, `plain`.
pub(crate) fn value(text: &str, kind: Type) -> Result<Vec<u8>, String> {
    if kind.is_number() {
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        return number.map(|n| n.to_string().into_bytes()).map_err(|e| format!("{text}: {e}"));
    }
    if let Some((unit, count)) = text.rsplit_once('*')
        && let Ok(count) = count.parse()
    {
        return Ok(unescape(unit)?.repeat(count));
    }
    unescape(text)
}

/// Text in which `\n`, `\\`, `\"` and `\xHH` stand for a byte; other quotes are dropped.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.extend((byte != b'"').then_some(byte));
            continue;
        }
        match rest.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b'x') => {
                let digits = [rest.next().unwrap_or(b'?'), rest.next().unwrap_or(b'?')];
                let digits = std::str::from_utf8(&digits).map_err(|e| e.to_string())?;
                out.push(u8::from_str_radix(digits, 16).map_err(|e| format!("{text}: {e}"))?);
            }
            Some(other) => out.push(other),
            None => return Err(format!("{text} ends in a backslash")),
        }
    }
    Ok(out)
}

impl Packet {
    pub(crate) fn new(kind: Kind) -> Packet {
        Packet { kind, fields: BTreeMap::new() }
    }

    pub(crate) fn push(&mut self, name: &'static str, value: impl Into<Vec<u8>>) {
        self.fields.entry(name).or_default().push(value.into());
    }

    pub(crate) fn push_number(&mut self, name: &'static str, number: u64) {
        self.push(name, number.to_string());
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name).map(|values| values[0].as_slice())
    }

    pub(crate) fn all(&self, name: &str) -> &[Vec<u8>] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        std::str::from_utf8(self.bytes(name)?).ok()?.parse().ok()
    }
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind.name())?;
        for (name, values) in &self.fields {
            for value in values {
                let shown: String =
                    value.iter().take(60).flat_map(|b| b.escape_ascii()).map(char::from).collect();
                write!(f, " {name}={shown}")?;
                if value.len() > 60 {
                    write!(f, "..({})", value.len())?;
                }
            }
        }
        Ok(())
    }
}
