//! Publishes for a crowd: one client that sends the messages it is given, and waits until the broker has taken all of
//! them.

use std::time::{Duration, Instant};

use crate::client::{Client, Target};
use crate::engine::wire::{Wire, body_range, unexpected};
use crate::interrupt;
use crate::message::{Layout, Stamp, packet_id};
use crate::mix;

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;

/// How many publishes may be unacknowledged: few enough for every broker.
const WINDOW: u64 = 200;

/// A broker that acknowledges nothing for this long has stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// Publishes with QoS 1 or 2.
#[derive(Debug)]
pub(crate) struct Feeder {
    wire: Wire,
    layout: Layout,
    retains: bool,
    window: u64,
    sent: u64,
    received: u64,
    acked: u64,
    buffer: Vec<u8>,
}

impl Feeder {
    pub(crate) fn connect(
        target: &Target,
        client_id: &str,
        mqtt: u8,
        layout: Layout,
        retains: bool,
    ) -> Result<Feeder, String> {
        let (stream, receive_max) =
            Client::connect(target, client_id, mqtt, 0, None)?.into_stream()?;
        Ok(Feeder {
            wire: Wire::new(stream),
            layout,
            retains,
            window: WINDOW.min(receive_max.into()),
            sent: 0,
            received: 0,
            acked: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Sends messages, as topic and stamp, and returns when all are acknowledged. Without a stamp the payload is empty.
    pub(crate) fn feed<'a>(
        &mut self,
        messages: impl Iterator<Item = (&'a [u8], Option<Stamp>)>,
    ) -> Result<(), String> {
        let (mut messages, mut packet) = (messages.peekable(), Vec::new());
        let mut last = (self.acked, Instant::now());
        loop {
            while self.sent - self.acked < self.window && !self.wire.is_blocked() {
                let Some((topic, stamp)) = messages.next() else { break };
                packet.clear();
                let id = Some(packet_id(self.sent));
                let stamped = stamp.map(|stamp| (self.layout.payload_size, stamp));
                mix::encode(&mut packet, &self.layout, (topic, self.retains), id, stamped);
                self.wire.write(&packet)?;
                self.sent += 1;
            }
            self.wire.flush()?;
            self.read()?;
            if self.acked == self.sent && messages.peek().is_none() {
                return Ok(());
            }
            interrupt::check()?;
            if self.acked > last.0 {
                last = (self.acked, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Err(format!("the broker has acknowledged no publish for {PATIENCE:?}"));
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let Feeder { wire, received, acked, buffer, layout, .. } = self;
        wire.read(buffer, |bytes, out| {
            let mut at = 0;
            while let Some((from, to)) = body_range(&bytes[at..])? {
                let (kind, body) = (bytes[at] >> 4, &bytes[at + from..at + to]);
                let next = match (kind, layout.qos) {
                    (PUBACK, 1) | (PUBCOMP, 2) => &mut *acked,
                    (PUBREC, 2) => &mut *received,
                    _ => return Err(unexpected("publisher", kind, body)),
                };
                // The broker acknowledges in the order of the publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
                let expected = packet_id(*next).to_be_bytes();
                if body.get(..2) != Some(&expected[..]) {
                    return Err(format!(
                        "the broker sent acknowledgement {kind} {body:02x?}, not {expected:02x?}"
                    ));
                }
                if let Some(reason) = body.get(2).filter(|reason| **reason >= 0x80) {
                    return Err(format!("the broker refused a publish: 0x{reason:02x}"));
                }
                *next += 1;
                if kind == PUBREC {
                    out.extend_from_slice(&[0x62, 2, body[0], body[1]]);
                }
                at += to;
            }
            Ok(at)
        })
    }
}
