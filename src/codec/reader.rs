//! A cursor over received bytes: every read is checked, a read past the end is a malformed packet.

use super::PacketId;
use super::error::{DecodeError, Result};
use super::var_int;
use ascii::AsciiStr;

#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes that have not been read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that the packet ends here.
    #[inline]
    pub(super) fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*chunk)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8> {
        self.chunk().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId> {
        // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    #[inline]
    pub(super) fn var_int(&mut self) -> Result<u32> {
        let (value, size) = var_int::read(self.rest)?.ok_or(DecodeError::Truncated)?;
        self.take(size)?;
        Ok(value)
    }

    #[inline]
    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(size).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads binary data: a size of two bytes and that many bytes.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8]> {
        let size = self.u16()?;
        self.take(usize::from(size))
    }

    /// Reads a UTF-8 encoded string.
    #[inline]
    pub(super) fn str(&mut self) -> Result<&'a str> {
        let bytes = self.binary()?;
        let text = utf8(bytes)?;
        // [MQTT-1.5.4-2]
        if holds_any(bytes, [0]) { Err(DecodeError::NullCharacter) } else { Ok(text) }
    }

    /// Passes over a string that is plain. `false`: the string is not plain, and nothing was read.
    #[inline]
    pub(super) fn skip_plain(&mut self) -> bool {
        let mut after = *self;
        let is_plain = after.binary().is_ok_and(is_plain);
        if is_plain {
            *self = after;
        }
        is_plain
    }

    /// Reads a topic name: a string without wildcards, which may be empty. `previous` is a valid one that need not be
    /// checked again.
    #[inline(always)]
    pub(super) fn topic_name(&mut self, previous: &'a str) -> Result<&'a str> {
        let bytes = self.binary()?;
        if bytes == previous.as_bytes() { Ok(previous) } else { topic_name(bytes) }
    }
}

/// Whether a text has U+0000, which no text may have. [MQTT-1.5.4-2]
#[inline]
pub fn has_null(text: &str) -> bool {
    holds_any(text.as_bytes(), [0])
}

#[inline(never)]
fn topic_name(bytes: &[u8]) -> Result<&str> {
    let text = utf8(bytes)?;
    if !holds_any(bytes, [0, b'#', b'+']) {
        return Ok(text);
    }
    // [MQTT-4.7.3-2], [MQTT-3.3.2-2] [MQTT-4.7.0-1]
    let null = holds_any(bytes, [0]);
    Err(if null { DecodeError::NullCharacter } else { DecodeError::TopicWildcard })
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str> {
    // Most strings are short and ASCII, and a validator of UTF-8 takes such strings byte by byte.
    if let Ok(text) = AsciiStr::from_ascii(bytes) {
        return Ok(text.as_str());
    }
    // [MQTT-1.5.4-1] U+FEFF is a character like any other. [MQTT-1.5.4-3]
    simdutf8::basic::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
}

/// Whether one of `wanted` is among `bytes`.
#[inline]
fn holds_any<const N: usize>(bytes: &[u8], wanted: [u8; N]) -> bool {
    any_word(bytes, |word| holds_in_word(word, wanted))
}

/// Whether the bytes are ASCII without U+0000: such text needs no other check.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    // A zero byte borrows from the next byte, so a wrong bit can follow only where a zero byte was found.
    !any_word(bytes, |word| (word | word.wrapping_sub(ONES)) & HIGH)
}

/// Whether `found` is not 0 for some of `bytes`. Strings are short, so eight bytes a step, some of them twice, cost
/// less than a call. Letters fill the word of a string that has fewer than eight bytes.
#[inline]
fn any_word(bytes: &[u8], found: impl Fn(u64) -> u64) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        let found = |word: &[u8; 8]| found(u64::from_le_bytes(*word));
        return words.iter().fold(found(last), |before, word| before | found(word)) != 0;
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [first, last] = [*first, *last].map(u32::from_le_bytes);
        return found(u64::from(first) | u64::from(last) << 32) != 0;
    }
    let [Some(first), Some(middle), Some(last)] =
        [bytes.first(), bytes.get(bytes.len() / 2), bytes.last()]
    else {
        return false;
    };
    found(u64::from_le_bytes([*first, *middle, *last, b'a', b'a', b'a', b'a', b'a'])) != 0
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = ONES << 7;

/// This is not 0 exactly if a byte of `word` is one of `wanted`.
#[inline]
fn holds_in_word<const N: usize>(word: u64, wanted: [u8; N]) -> u64 {
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
    wanted.iter().fold(0, |found, byte| found | zero(word ^ (ONES * u64::from(*byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_text_counts_wherever_it_is() {
        for size in 0..40 {
            let plain = vec![b'x'; size];
            assert!(is_plain(&plain) && !holds_any(&plain, [0, b'#', b'+']), "{size}");
            for place in 0..size {
                for byte in 0..=u8::MAX {
                    let mut bytes = plain.clone();
                    bytes.splice(place..=place, [byte]);
                    assert_eq!(is_plain(&bytes), byte != 0 && byte < 0x80, "{size} {place} {byte}");
                    let is_wanted = [0, b'#', b'+'].contains(&byte);
                    assert_eq!(
                        holds_any(&bytes, [0, b'#', b'+']),
                        is_wanted,
                        "{size} {place} {byte}"
                    );
                }
            }
        }
    }
}
