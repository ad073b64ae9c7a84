//! PUBACK, PUBREC, PUBREL and PUBCOMP: one layout, four bytes when all went well.

use super::error::Result;
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::var_int;
use super::writer::{put_header, put_u16, put_var_int};
use super::{PacketId, ProtocolVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckType {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

impl AckType {
    #[inline]
    pub const fn packet_type(self) -> PacketType {
        match self {
            AckType::Puback => PacketType::Puback,
            AckType::Pubrec => PacketType::Pubrec,
            AckType::Pubrel => PacketType::Pubrel,
            AckType::Pubcomp => PacketType::Pubcomp,
        }
    }

    /// The reason codes that this packet may carry.
    pub const fn reasons(self) -> ReasonSet {
        match self {
            AckType::Puback | AckType::Pubrec => ReasonSet::RECEIVED,
            AckType::Pubrel | AckType::Pubcomp => ReasonSet::RELEASED,
        }
    }
}

/// An acknowledgement. In 3.1 and 3.1.1 it has the packet identifier alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    #[inline]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Ack<'a> {
        Ack { packet_id, reason, reason_string: None, user_properties: UserProperties::default() }
    }

    #[inline]
    pub fn decode(
        frame: &Frame<'a>,
        version: ProtocolVersion,
        ack_type: AckType,
    ) -> Result<Ack<'a>> {
        ack_type.packet_type().check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let ack = Ack::new(packet_id, ReasonCode::Success);
        if reader.is_empty() {
            return Ok(ack);
        }
        if version != ProtocolVersion::V5 {
            reader.finish()?;
        }
        ack.decode_reason(reader, ack_type)
    }

    /// Decodes what MQTT 5 has behind the packet identifier when there is more to say than success.
    fn decode_reason(mut self, mut reader: Reader<'a>, ack_type: AckType) -> Result<Ack<'a>> {
        self.reason = ack_type.reasons().read(reader.u8()?)?;
        if reader.is_empty() {
            return Ok(self);
        }
        let mut section = Section::read(&mut reader, PropertySet::ACK)?;
        while let Some(property) = section.next()? {
            if let Property::ReasonString(text) = property {
                self.reason_string = Some(text);
            }
        }
        self.user_properties = section.user_properties();
        reader.finish()?;
        Ok(self)
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`.
    pub fn encode(
        &self,
        ack_type: AckType,
        version: ProtocolVersion,
        packet_size_max: usize,
        out: &mut Vec<u8>,
    ) {
        let Ack { packet_id, reason, reason_string, user_properties } = *self;
        let diagnostics = Diagnostics { reason_string, user_properties }.fit(0, 3, packet_size_max);
        if version != ProtocolVersion::V5 || diagnostics.is_empty() {
            return encode(ack_type, version, packet_id, reason, out);
        }
        let size = diagnostics.size();
        put_header(out, ack_type.packet_type().first_byte(), 3 + var_int::size(size) + size);
        put_u16(out, packet_id.get());
        out.push(reason.as_u8());
        put_var_int(out, size);
        diagnostics.encode(out);
    }
}

/// Encodes the packet without properties: four bytes, or five with a reason code other than success.
#[inline]
fn encode(
    ack_type: AckType,
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    debug_assert!(ack_type.reasons().contains(reason) || version != ProtocolVersion::V5);
    let first_byte = ack_type.packet_type().first_byte();
    let [high, low] = packet_id.get().to_be_bytes();
    if version == ProtocolVersion::V5 && reason != ReasonCode::Success {
        out.extend_from_slice(&[first_byte, 3, high, low, reason.as_u8()]);
    } else {
        out.extend_from_slice(&[first_byte, 2, high, low]);
    }
}

/// The acknowledgement at the start of `bytes`, if it has the usual four bytes, which say success in every version; no
/// other packet has these.
#[inline]
pub fn next_plain_ack(bytes: &[u8]) -> Option<(AckType, PacketId)> {
    let [first_byte, 2, high, low, ..] = *bytes else { return None };
    let ack_type = match first_byte {
        0x40 => AckType::Puback,
        0x50 => AckType::Pubrec,
        0x62 => AckType::Pubrel,
        0x70 => AckType::Pubcomp,
        _ => return None,
    };
    Some((ack_type, PacketId::new(u16::from_be_bytes([high, low]))?))
}

#[inline]
pub fn encode_puback(
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    encode(AckType::Puback, version, packet_id, reason, out);
}

#[inline]
pub fn encode_pubrec(
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    encode(AckType::Pubrec, version, packet_id, reason, out);
}

#[inline]
pub fn encode_pubrel(
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    encode(AckType::Pubrel, version, packet_id, reason, out);
}

#[inline]
pub fn encode_pubcomp(
    version: ProtocolVersion,
    packet_id: PacketId,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    encode(AckType::Pubcomp, version, packet_id, reason, out);
}
