//! The subscribers of a replay: they read, acknowledge, and hand what came to the verifier.

use super::verifier::{Arrival, Verifier};
use crate::engine::wire::{Opened, Wire, body_range, open_publish, unexpected};
use crate::machine::now_ns;
use crate::mix;

const PUBLISH: u8 = 3;
const PUBREL: u8 = 6;

#[derive(Debug)]
pub(super) struct Subscriber {
    pub wire: Wire,
    pub index: u32,
    pub mqtt: u8,
    /// What the broker had retained may still come (3.1.1): it is no traffic.
    pub passes_over_retained: bool,
}

/// What came at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batch {
    /// Reads that brought publishes, or parts of one.
    pub reads: u64,
    /// Bytes of publishes, whole packets.
    pub size: u64,
}

impl Subscriber {
    /// Takes all that has arrived.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        verifier: &mut Verifier,
    ) -> Result<Batch, String> {
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
    let Opened { qos, topic, rest } = open_publish(first, body, out)?;
    let properties_size = if mqtt == 5 { mix::property_section(rest)?.end } else { 0 };
    let (properties, payload) = rest.split_at_checked(properties_size)?;
    Some(Arrival { topic, qos, retain: first & 1 != 0, properties, payload, now_ns: 0 })
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
