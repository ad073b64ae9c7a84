//! The subscribers of a replay: they read, acknowledge, and hand what came to the verifier.

use super::verifier::{Arrival, Verifier};
use crate::engine::wire::{Wire, body_range, unexpected};
use crate::machine::now_ns;

const PUBLISH: u8 = 3;
const PUBREL: u8 = 6;

#[derive(Debug)]
pub struct Subscriber {
    pub wire: Wire,
    pub index: u32,
    pub mqtt: u8,
    /// What the broker had retained may still come (3.1.1): it is no traffic.
    pub passes_over_retained: bool,
}

/// What came at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch {
    /// Reads that brought publishes, or parts of one.
    pub reads: u64,
    /// Bytes of publishes, whole packets.
    pub size: u64,
}

impl Subscriber {
    /// Takes all that has arrived.
    pub fn read(&mut self, buffer: &mut [u8], verifier: &mut Verifier) -> Result<Batch, String> {
        let mut batch = Batch::default();
        let (index, mqtt, passes_over) = (self.index, self.mqtt, self.passes_over_retained);
        self.wire.flush()?;
        self.wire.read(buffer, |bytes, out| {
            let now_ns = now_ns();
            let (mut at, mut has_publish) = (0, false);
            while let Some((from, to)) = body_range(&bytes[at..])? {
                let (first, body) = (bytes[at], &bytes[at + from..at + to]);
                match first >> 4 {
                    PUBLISH => {
                        has_publish = true;
                        batch.size += to as u64;
                        match arrival(first, body, mqtt, out) {
                            Some(arrival) if arrival.retain && passes_over => {}
                            Some(arrival) => verifier.take(index, &Arrival { now_ns, ..arrival }),
                            None => verifier.faults.corrupt += 1,
                        }
                    }
                    PUBREL if body.len() >= 2 => {
                        out.extend_from_slice(&[0x70, 2, body[0], body[1]]);
                    }
                    kind => return Err(unexpected("subscriber", kind, body)),
                }
                at += to;
            }
            batch.reads += u64::from(has_publish || at < bytes.len());
            Ok(at)
        })?;
        Ok(batch)
    }
}

/// Takes a PUBLISH apart, and acknowledges it. `None`: it is none.
fn arrival<'a>(first: u8, body: &'a [u8], mqtt: u8, out: &mut Vec<u8>) -> Option<Arrival<'a>> {
    let topic_size = usize::from(u16::from_be_bytes(*body.first_chunk()?));
    let topic = body.get(2..2 + topic_size)?;
    let mut rest = &body[2 + topic_size..];
    let qos = first >> 1 & 3;
    if qos > 0 {
        let id = rest.first_chunk::<2>()?;
        let answer = if qos == 1 { 0x40 } else { 0x50 };
        out.extend_from_slice(&[answer, 2, id[0], id[1]]);
        rest = &rest[2..];
    }
    let properties_size = if mqtt == 5 { section_size(rest)? } else { 0 };
    let (properties, payload) = rest.split_at_checked(properties_size)?;
    Some(Arrival { topic, qos, retain: first & 1 != 0, properties, payload, now_ns: 0 })
}

/// Of the property section at the start, its length included.
fn section_size(bytes: &[u8]) -> Option<usize> {
    let last = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let length = bytes[..=last].iter().rev();
    Some(last + 1 + length.fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_taken_apart_however_it_is_cut() {
        let mut body = vec![0, 1, b't', 0, 9, 0x81, 0x01];
        body.resize(body.len() + 129, 7);
        body.extend_from_slice(b"payload");
        let mut out = Vec::new();
        let found = arrival(0x35, &body, 5, &mut out).expect("whole");
        assert_eq!((found.topic, found.qos, found.retain), (&b"t"[..], 2, true));
        assert_eq!((found.properties.len(), found.payload), (131, &b"payload"[..]));
        assert_eq!(out, [0x50, 2, 0, 9]);
        for size in 0..body.len() {
            let cut = arrival(0x35, &body[..size], 5, &mut out);
            assert_eq!(cut.is_some(), size >= 5 + 131, "{size}");
        }
    }
}
