//! Variable byte integers: seven bits a byte, the lowest first, at most four bytes.

use super::error::{DecodeError, Result};

/// The largest value that can be expressed.
pub const VAR_INT_MAX: u32 = 268_435_455;

/// Reads the value at the start of `bytes`, and its size; `None` while it is not complete.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    match bytes {
        [] => Ok(None),
        [low, ..] if *low < 0x80 => Ok(Some((u32::from(*low), 1))),
        [low, high @ 1..0x80, ..] => Ok(Some((u32::from(*low & 0x7F) | u32::from(*high) << 7, 2))),
        _ => read_long(bytes),
    }
}

fn read_long(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if *byte < 0x80 {
            // [MQTT-1.5.5-1]
            if *byte == 0 {
                return Err(DecodeError::VarIntNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::VarIntTooLong) }
}

/// How many bytes `value` takes, 1..=4.
#[inline]
pub(super) const fn size(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// The encoded `value`, and how many of the four bytes count.
#[inline]
pub(super) fn bytes(value: usize) -> ([u8; 4], usize) {
    debug_assert!(value <= VAR_INT_MAX as usize);
    if value < 0x80 {
        return ([value as u8, 0, 0, 0], 1);
    }
    let size = size(value);
    let low = |shift: usize| (value >> shift) as u8 & 0x7F;
    let more = |index: usize| if index + 1 < size { 0x80 } else { 0 };
    ([low(0) | more(0), low(7) | more(1), low(14) | more(2), low(21)], size)
}
