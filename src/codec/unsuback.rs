//! UNSUBACK: in MQTT 5 a reason code for each filter of the UNSUBSCRIBE, before that only the packet identifier.

use super::error::Result;
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::suback::{ReasonCodes, decode_diagnostics, encode_front};
use super::{PacketId, ProtocolVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    pub packet_id: PacketId,
    /// Empty in 3.1 and 3.1.1.
    pub reasons: ReasonCodes<'a>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

impl<'a> Unsuback<'a> {
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Unsuback<'a>> {
        PacketType::Unsuback.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let (mut diagnostics, mut reasons) = (Diagnostics::default(), ReasonCodes::default());
        if version == ProtocolVersion::V5 {
            diagnostics = decode_diagnostics(&mut reader)?;
            reasons = ReasonCodes::decode(&mut reader, ReasonSet::UNSUBACK)?;
        }
        reader.finish()?;
        let Diagnostics { reason_string, user_properties } = diagnostics;
        Ok(Unsuback { packet_id, reasons, reason_string, user_properties })
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`.
    pub fn encode(&self, version: ProtocolVersion, packet_size_max: usize, out: &mut Vec<u8>) {
        let Unsuback { packet_id, mut reasons, reason_string, user_properties } = *self;
        if version != ProtocolVersion::V5 {
            reasons = ReasonCodes::default();
        }
        let diagnostics = Diagnostics { reason_string, user_properties };
        let packet_type = PacketType::Unsuback;
        encode_front(packet_type, version, packet_id, diagnostics, reasons, packet_size_max, out);
        out.extend(reasons.iter().map(ReasonCode::as_u8));
    }
}
