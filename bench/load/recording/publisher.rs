//! A publisher of a replay: sends what is due on its topics, in their order, as the broker's window lets it.

use std::collections::{HashSet, VecDeque};

use super::messages::{self, Proof};
use super::source::Cue;
use super::verifier::{Sent, Verifier};
use crate::engine::wire::{Wire, body_range, unexpected};
use crate::machine;
use crate::message::Stamp;

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;

/// What goes in one write.
const WRITE_SIZE: usize = 64 << 10;

/// Messages of a publisher after which the others, and what has come, have their turn.
const PUMP_COUNT_MAX: u64 = 64;

/// Packet ids go round: far fewer are in flight.
const IN_FLIGHT_MAX: usize = 20_000;

/// How a replay goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub mqtt: u8,
    /// Flat out: deliveries of a publisher that may be outstanding.
    pub window: Option<u64>,
    /// Work of the generator for each message besides, nanoseconds.
    pub burden_ns: u64,
}

#[derive(Debug)]
pub(super) struct Publisher {
    pub wire: Wire,
    /// What is due, and when it was.
    pub waiting: VecDeque<(Cue, u64)>,
    receive_max: usize,
    next_id: u16,
    in_flight: HashSet<u16>,
    /// QoS 2 messages that the broker has received, and not released.
    received: HashSet<u16>,
    batch: Vec<u8>,
    properties: Vec<u8>,
    /// Writes of publishes.
    pub write_count: u64,
    /// The longest that a message was sent after it was due.
    pub late_ns_max: u64,
}

impl Publisher {
    pub(super) fn new(wire: Wire, receive_max: u16) -> Publisher {
        Publisher {
            wire,
            waiting: VecDeque::new(),
            receive_max: usize::from(receive_max).min(IN_FLIGHT_MAX),
            next_id: 1,
            in_flight: HashSet::new(),
            received: HashSet::new(),
            batch: Vec::new(),
            properties: Vec::new(),
            write_count: 0,
            late_ns_max: 0,
        }
    }

    /// QoS 1 and 2 messages that the broker has not acknowledged to the end.
    pub(super) fn unacked(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends what waits. Returns how many messages that was.
    pub(super) fn pump(
        &mut self,
        index: usize,
        manner: Manner,
        verifier: &mut Verifier,
    ) -> Result<u64, String> {
        let mut count = 0;
        while count < PUMP_COUNT_MAX
            && let Some((cue, _)) = self.waiting.front()
        {
            let is_full = cue.message.qos > 0 && self.in_flight.len() >= self.receive_max;
            let is_ahead = manner.window.is_some_and(|most| verifier.outstanding[index] >= most);
            if is_full || is_ahead || self.wire.is_blocked() {
                break;
            }
            let Some((cue, due_ns)) = self.waiting.pop_front() else { break };
            let now_ns = machine::now_ns();
            // Flat out a message is due when it can be sent.
            let due_ns = if manner.window.is_some() { now_ns } else { due_ns };
            self.late_ns_max = self.late_ns_max.max(now_ns.saturating_sub(due_ns));
            self.encode(&cue, due_ns, manner, verifier);
            count += 1;
            if self.batch.len() >= WRITE_SIZE {
                self.write()?;
            }
        }
        self.write()?;
        Ok(count)
    }

    fn encode(&mut self, cue: &Cue, due_ns: u64, manner: Manner, verifier: &mut Verifier) {
        if manner.burden_ns > 0 {
            machine::work(manner.burden_ns);
        }
        let message = &cue.message;
        let packet_id = (message.qos > 0).then(|| self.take_id());
        self.properties.clear();
        messages::write_properties(message, manner.mqtt, &mut self.properties);
        let sequence = verifier.sequence(cue.stream);
        let stamp = Stamp { publisher: cue.stream, sequence, due_ns };
        let from = self.batch.len();
        let at =
            messages::write_publish(message, stamp, packet_id, &self.properties, &mut self.batch);
        debug_assert_eq!(self.batch.len() - from, messages::packet_size(message, manner.mqtt));
        let is_stamped = Proof::of(message) == Proof::Stamp;
        let sent = Sent {
            payload_size: message.payload_size as u32,
            is_stamped,
            retain: message.retain,
            digest: if is_stamped { 0 } else { messages::digest(&self.batch[at..]) },
            properties: messages::digest(&self.properties),
            due_ns,
        };
        verifier.note_sent(cue.stream, sent);
    }

    fn take_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(id) {
                return id;
            }
        }
    }

    fn write(&mut self) -> Result<(), String> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let before = self.wire.write_count;
        self.wire.write(&self.batch)?;
        self.write_count += self.wire.write_count - before;
        self.batch.clear();
        Ok(())
    }

    /// Writes what the socket did not take before.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let before = self.wire.write_count;
        self.wire.flush()?;
        self.write_count += self.wire.write_count - before;
        Ok(())
    }

    /// Takes what the broker says. Returns how many messages it has acknowledged to the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<u64, String> {
        let (in_flight, received) = (&mut self.in_flight, &mut self.received);
        let mut acked = 0;
        self.wire.read(buffer, |bytes, out| {
            let mut at = 0;
            while let Some((from, to)) = body_range(&bytes[at..])? {
                let (kind, body) = (bytes[at] >> 4, &bytes[at + from..at + to]);
                if ![PUBACK, PUBREC, PUBCOMP].contains(&kind) || body.len() < 2 {
                    return Err(unexpected("publisher", kind, body));
                }
                let id = u16::from_be_bytes([body[0], body[1]]);
                let reason = body.get(2).copied().unwrap_or(0);
                let is_known = in_flight.contains(&id) && received.contains(&id) == (kind == PUBCOMP);
                if reason >= 0x80 || !is_known {
                    return Err(format!(
                        "the broker sent acknowledgement {kind} of packet id {id} with reason 0x{reason:02x}"
                    ));
                }
                if kind == PUBREC {
                    received.insert(id);
                    out.extend_from_slice(&[0x62, 2, body[0], body[1]]);
                } else {
                    in_flight.remove(&id);
                    received.remove(&id);
                    acked += 1;
                }
                at += to;
            }
            Ok(at)
        })?;
        Ok(acked)
    }
}
