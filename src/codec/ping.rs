//! PINGREQ and PINGRESP: two bytes each.

use super::ProtocolVersion;
use super::error::Result;
use super::framer::Frame;
use super::header::PacketType;
use super::reader::Reader;

pub(super) fn decode(
    frame: &Frame<'_>,
    version: ProtocolVersion,
    packet_type: PacketType,
) -> Result<()> {
    packet_type.check(frame.first_byte, version)?;
    Reader::new(frame.body).finish()
}

pub fn encode_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::Pingreq.first_byte(), 0]);
}

// [MQTT-3.12.4-1]
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::Pingresp.first_byte(), 0]);
}
