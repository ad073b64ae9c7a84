//! SUBACK: a reason code for each filter of the SUBSCRIBE.

use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::var_int;
use super::writer::{put_header, put_u16, put_var_int};
use super::{PacketId, ProtocolVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    pub packet_id: PacketId,
    pub reasons: ReasonCodes<'a>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

/// Reason codes in the order of the filters that they answer.
#[derive(Clone, Copy, Default)]
pub struct ReasonCodes<'a> {
    raw: &'a [u8],
    list: &'a [ReasonCode],
}

impl<'a> ReasonCodes<'a> {
    pub fn from_list(list: &'a [ReasonCode]) -> ReasonCodes<'a> {
        ReasonCodes { raw: &[], list }
    }

    /// Reads all that is left in `reader`: at least one code, each of them in `set`.
    pub(super) fn decode(reader: &mut Reader<'a>, set: ReasonSet) -> Result<ReasonCodes<'a>> {
        let raw = reader.rest();
        if raw.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        for byte in raw {
            set.read(*byte)?;
        }
        reader.take(raw.len())?;
        Ok(ReasonCodes { raw, list: &[] })
    }

    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + Clone + use<'a> {
        let encoded = self.raw.iter().filter_map(|byte| ReasonCode::from_u8(*byte));
        self.list.iter().copied().chain(encoded)
    }

    pub fn len(&self) -> usize {
        self.list.len() + self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl core::fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Suback<'a> {
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Suback<'a>> {
        PacketType::Suback.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let (mut diagnostics, mut set) = (Diagnostics::default(), ReasonSet::SUBACK_V3);
        if version == ProtocolVersion::V5 {
            diagnostics = decode_diagnostics(&mut reader)?;
            set = ReasonSet::SUBACK;
        }
        let reasons = ReasonCodes::decode(&mut reader, set)?;
        let Diagnostics { reason_string, user_properties } = diagnostics;
        Ok(Suback { packet_id, reasons, reason_string, user_properties })
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`. In 3.1 and 3.1.1 all errors become 0x80.
    pub fn encode(&self, version: ProtocolVersion, packet_size_max: usize, out: &mut Vec<u8>) {
        let Suback { packet_id, reasons, reason_string, user_properties } = *self;
        let diagnostics = Diagnostics { reason_string, user_properties };
        let packet_type = PacketType::Suback;
        encode_front(packet_type, version, packet_id, diagnostics, reasons, packet_size_max, out);
        if version == ProtocolVersion::V5 {
            out.extend(reasons.iter().map(ReasonCode::as_u8));
        } else {
            let v3 = |reason: ReasonCode| if reason.is_error() { 0x80 } else { reason.as_u8() };
            out.extend(reasons.iter().map(v3));
        }
    }
}

/// The size of a 5.0 SUBACK or UNSUBACK with so many reason codes and without properties.
pub fn filters_answer_size(filter_count: usize) -> usize {
    let remaining = 2 + var_int::size(0) + filter_count;
    1 + var_int::size(remaining) + remaining
}

/// The properties of a SUBACK or UNSUBACK.
pub(super) fn decode_diagnostics<'a>(reader: &mut Reader<'a>) -> Result<Diagnostics<'a>> {
    let mut diagnostics = Diagnostics::default();
    let mut section = Section::read(reader, PropertySet::ACK)?;
    while let Some(property) = section.next()? {
        if let Property::ReasonString(text) = property {
            diagnostics.reason_string = Some(text);
        }
    }
    diagnostics.user_properties = section.user_properties();
    Ok(diagnostics)
}

/// Writes a SUBACK or UNSUBACK up to its reason codes.
pub(super) fn encode_front(
    packet_type: PacketType,
    version: ProtocolVersion,
    packet_id: PacketId,
    diagnostics: Diagnostics<'_>,
    reasons: ReasonCodes<'_>,
    packet_size_max: usize,
    out: &mut Vec<u8>,
) {
    let fields_size = 2 + reasons.len();
    if version != ProtocolVersion::V5 {
        put_header(out, packet_type.first_byte(), fields_size);
        return put_u16(out, packet_id.get());
    }
    let diagnostics = diagnostics.fit(0, fields_size, packet_size_max);
    let size = diagnostics.size();
    put_header(out, packet_type.first_byte(), fields_size + var_int::size(size) + size);
    put_u16(out, packet_id.get());
    put_var_int(out, size);
    diagnostics.encode(out);
}
