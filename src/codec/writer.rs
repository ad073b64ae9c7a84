//! Fields of packets, written to the end of a buffer.

use super::var_int;

/// The longest string or binary field: a longer one is cut, as MQTT cannot express it.
pub(super) const FIELD_SIZE_MAX: usize = u16::MAX as usize;

/// The fixed header.
#[inline]
pub(super) fn put_header(out: &mut Vec<u8>, first_byte: u8, remaining_size: usize) {
    put_header_of(out, first_byte, remaining_size, remaining_size);
}

/// Writes the fixed header of a packet of which `follows_size` bytes are written here and the rest elsewhere.
#[inline]
pub(super) fn put_header_of(
    out: &mut Vec<u8>,
    first_byte: u8,
    remaining_size: usize,
    follows_size: usize,
) {
    out.reserve(5 + follows_size);
    let ([a, b, c, d], size) = var_int::bytes(remaining_size);
    put_some(out, [first_byte, a, b, c, d], 1 + size);
}

#[inline]
pub(super) fn put_var_int(out: &mut Vec<u8>, value: usize) {
    let (bytes, size) = var_int::bytes(value);
    put_some(out, bytes, size);
}

/// Writes the first `size` of `bytes`. One write of a constant size is cheaper than one of `size`.
#[inline]
fn put_some<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N], size: usize) {
    let end = out.len() + size;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= FIELD_SIZE_MAX);
    let bytes = bytes.get(..FIELD_SIZE_MAX).unwrap_or(bytes);
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

#[inline]
pub(super) fn put_str(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= FIELD_SIZE_MAX);
    let text = cut(text).as_bytes();
    put_u16(out, text.len() as u16);
    out.extend_from_slice(text);
}

#[inline]
pub(super) const fn binary_size(bytes: &[u8]) -> usize {
    2 + if bytes.len() < FIELD_SIZE_MAX { bytes.len() } else { FIELD_SIZE_MAX }
}

#[inline]
pub(super) fn str_size(text: &str) -> usize {
    2 + cut(text).len()
}

/// As much of `text` as a field can take, in whole characters.
#[inline]
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= FIELD_SIZE_MAX {
        return text;
    }
    // A character has at most four bytes.
    (FIELD_SIZE_MAX - 3..=FIELD_SIZE_MAX).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}
