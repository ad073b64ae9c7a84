//! The start of a PUBLISH that is too large to be read.

use super::error::{DecodeError, Result};
use super::framer::sizes;
use super::header::PacketType;
use super::reader::Reader;
use super::{PacketId, QoS};

/// The facts with which a PUBLISH is answered and its end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishStart {
    pub qos: QoS,
    /// `Some` exactly when the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The size of the whole packet, fixed header included.
    pub size: usize,
}

/// Reads the PUBLISH at the start of `bytes` up to its packet identifier; `None` while that has not arrived. It needs
/// at most 65,544 bytes.
pub fn publish_start(bytes: &[u8]) -> Result<Option<PublishStart>> {
    let Some((header_size, size)) = sizes(bytes)? else { return Ok(None) };
    let (Some(first_byte), Some(body)) = (bytes.first(), bytes.get(header_size..)) else {
        return Ok(None);
    };
    if PacketType::of(*first_byte) != Some(PacketType::Publish) {
        return Err(DecodeError::OtherPacket);
    }
    let qos = QoS::from_bits(first_byte >> 1 & 3).ok_or(DecodeError::QosInvalid)?;
    let whole = size - header_size;
    let Some(topic_size) = body.first_chunk().map(|size| u16::from_be_bytes(*size)) else {
        return if whole < 2 { Err(DecodeError::Truncated) } else { Ok(None) };
    };
    let id_at = 2 + usize::from(topic_size);
    if whole < id_at + if qos == QoS::AtMostOnce { 0 } else { 2 } {
        return Err(DecodeError::Truncated);
    }
    if qos == QoS::AtMostOnce {
        return Ok(Some(PublishStart { qos, packet_id: None, size }));
    }
    let Some(id) = body.get(id_at..id_at + 2) else { return Ok(None) };
    let packet_id = Some(Reader::new(id).packet_id()?);
    Ok(Some(PublishStart { qos, packet_id, size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_known_as_soon_as_its_packet_identifier_is_there() {
        let start = |qos, id| {
            let packet_id = PacketId::new(id);
            Ok(Some(PublishStart { qos, packet_id, size: 103 }))
        };
        for (bytes, want) in [
            (&[][..], Ok(None)),
            (&[0x32, 0xe4], Ok(None)),
            (&[0x32, 0x65, 0], Ok(None)),
            (&[0x32, 0xe5, 0], Err(DecodeError::VarIntNotMinimal)),
            (b"\x32\x65\0\x01", Ok(None)),
            (b"\x32\x65\0\x01a\x01", Ok(None)),
            (b"\x32\x65\0\x01a\x01\x02", start(QoS::AtLeastOnce, 258)),
            (b"\x3d\x65\0\x01a\x01\x02payload", start(QoS::ExactlyOnce, 258)),
            (b"\x30\x65\0\x01", start(QoS::AtMostOnce, 0)),
            (b"\x36\x65\0\x01a\x01\x02", Err(DecodeError::QosInvalid)),
            (b"\x32\x65\0\x01a\0\0", Err(DecodeError::PacketIdZero)),
            (b"\x32\x04\0\x01a\0\0", Err(DecodeError::Truncated)),
            (b"\x32\x01\0", Err(DecodeError::Truncated)),
            (b"\x40\x02\0\x01", Err(DecodeError::OtherPacket)),
        ] {
            assert_eq!(publish_start(bytes), want, "{bytes:x?}");
        }
    }
}
