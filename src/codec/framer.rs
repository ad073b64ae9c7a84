//! Packets out of a stream of bytes.

use super::error::{DecodeError, Result};
use super::header::PacketType;
use super::var_int;

/// One whole packet, not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first_byte: u8,
    /// All bytes behind the fixed header.
    pub body: &'a [u8],
    /// The size of the whole packet, fixed header included: the next packet begins behind it.
    pub size: usize,
}

impl Frame<'_> {
    #[inline]
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::of(self.first_byte)
    }

    /// Whether the packet is a PUBLISH at QoS 0 without flags.
    #[inline]
    pub fn is_plain_publish(&self) -> bool {
        self.first_byte == PacketType::Publish.first_byte()
    }

    /// Whether the packet is a PUBLISH at QoS 1 or 2 without other flags.
    #[inline]
    pub fn is_plain_acked_publish(&self) -> bool {
        self.first_byte == PacketType::Publish.first_byte() | 0b010 || self.is_qos2_publish()
    }

    /// Whether the packet is a PUBLISH at QoS 2 without other flags.
    #[inline]
    pub fn is_qos2_publish(&self) -> bool {
        self.first_byte == PacketType::Publish.first_byte() | 0b100
    }
}

/// The packet at the start of `bytes`; `None` while it is not complete. An error in the fixed header is returned as
/// soon as that has arrived.
#[inline]
pub fn next_frame(bytes: &[u8], packet_size_max: usize) -> Result<Option<Frame<'_>>> {
    let Some((header_size, size)) = sizes(bytes)? else { return Ok(None) };
    if size > packet_size_max {
        return Err(DecodeError::PacketTooLarge);
    }
    let (Some(first_byte), Some(body)) = (bytes.first(), bytes.get(header_size..size)) else {
        return Ok(None);
    };
    Ok(Some(Frame { first_byte: *first_byte, body, size }))
}

/// The size of the whole packet at the start of `bytes`; `None` while its fixed header is not complete.
#[inline]
pub fn frame_size(bytes: &[u8]) -> Result<Option<usize>> {
    Ok(sizes(bytes)?.map(|(_, size)| size))
}

/// The sizes of the fixed header and of the whole packet.
#[inline]
pub(super) fn sizes(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let [first_byte, after @ ..] = bytes else { return Ok(None) };
    if *first_byte < 0x10 {
        return Err(DecodeError::PacketType);
    }
    let Some((remaining_size, var_int_size)) = var_int::read(after)? else { return Ok(None) };
    let header_size = 1 + var_int_size;
    Ok(Some((header_size, header_size + remaining_size as usize)))
}
