//! A publisher: keeps its window full, or its schedule, and follows the broker's acknowledgements.

use std::sync::atomic::Ordering::Relaxed;

use super::control::{Pace, Shared};
use super::drawn::Drawn;
use super::ramp::Ramp;
use super::wire::{Wire, body_range, unexpected};
use crate::machine;
use crate::message::{Block, Stamp, packet_id};

const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBCOMP: u8 = 7;
const PINGRESP: u8 = 13;

#[derive(Debug)]
pub(super) struct Publisher {
    pub wire: Wire,
    /// The publisher's number in the plan.
    pub index: usize,
    pub flow: usize,
    qos: u8,
    /// The sequence of the next message.
    sequence: u64,
    /// How many messages were acknowledged to the end, and how many were received (QoS 2).
    acked: u64,
    received: u64,
    /// How many QoS 1 and 2 messages the broker lets us have unacknowledged.
    receive_max: u64,
    next_due_ns: f64,
    /// While the rate rises: the number of the next message since that began.
    ramp_number: f64,
    /// There if the messages differ in topic or size.
    drawn: Option<Box<Drawn>>,
    /// How many writes of publishes were made.
    write_count: u64,
}

impl Publisher {
    pub(super) fn new(wire: Wire, index: usize, shared: &Shared, receive_max: u16) -> Publisher {
        let flow = shared.plan.publishers[index].flow;
        let qos = shared.plan.flows[flow].layout.qos;
        let receive_max = u64::from(receive_max);
        let mix = shared.plan.flows[flow].mix.as_ref();
        Publisher {
            wire,
            index,
            flow,
            qos,
            sequence: 0,
            acked: 0,
            received: 0,
            receive_max,
            next_due_ns: 0.0,
            ramp_number: 0.0,
            drawn: mix.map(|mix| Box::new(Drawn::new(index, mix))),
            write_count: 0,
        }
    }

    /// Sets a new pace. The publishers of a flow take turns within an interval.
    pub(super) fn set_pace(&mut self, pace: Pace, shared: &Shared) {
        let turn = shared.plan.turn(self.index);
        match pace {
            Pace::Still | Pace::Window => {}
            Pace::Rate { from_ns, interval_ns } => {
                self.next_due_ns = from_ns as f64 + interval_ns * turn;
            }
            Pace::Ramp(ramp) => {
                self.ramp_number = turn;
                self.next_due_ns = ramp.due_ns(turn);
            }
        }
    }

    /// Until when the publisher has nothing to send, unless bytes arrive.
    pub(super) fn rests_until_ns(&self) -> f64 {
        if self.wire.is_blocked() { f64::INFINITY } else { self.next_due_ns }
    }

    /// How many messages may be sent now, and the most that may ever be outstanding.
    #[inline]
    fn credit(&mut self, shared: &Shared) -> (u64, u64) {
        let window = shared.plan.flows[self.flow].window;
        let under_way = match &mut self.drawn {
            None => self.sequence - shared.delivered_to_all(self.index).min(self.sequence),
            Some(drawn) => drawn.under_way(shared),
        };
        let credit = window.saturating_sub(under_way);
        if self.qos == 0 {
            return (credit, window);
        }
        let unacked = self.sequence - self.acked;
        (credit.min(self.receive_max.saturating_sub(unacked)), window.min(self.receive_max))
    }

    /// Sends the messages that the pace allows. Returns how many.
    pub(super) fn pump(
        &mut self,
        pace: Pace,
        block: &mut Block,
        shared: &Shared,
        now_ns: u64,
    ) -> Result<u64, String> {
        let first = self.sequence;
        match pace {
            _ if self.wire.is_blocked() => {}
            Pace::Still => {}
            Pace::Window => {
                let (credit, window) = self.credit(shared);
                // A write takes just one batch, however much of the window is free. The cost of a message depends on
                // how many go together, so a scenario sets that number.
                let batch = shared.plan.flows[self.flow].batch.min(window.div_ceil(2));
                let mut credit = credit - credit % batch;
                while credit > 0 && !self.wire.is_blocked() {
                    let count = credit.min(batch);
                    self.send(block, shared, now_ns, 0, count)?;
                    credit -= count;
                }
            }
            Pace::Rate { interval_ns, .. } => {
                while self.next_due_ns <= now_ns as f64 && !self.wire.is_blocked() {
                    let due = ((now_ns as f64 - self.next_due_ns) / interval_ns) as u64 + 1;
                    let count = due.min(block.capacity() as u64).min(self.credit(shared).0);
                    if count == 0 {
                        break;
                    }
                    self.send(block, shared, self.next_due_ns as u64, interval_ns as u64, count)?;
                    self.next_due_ns += interval_ns * count as f64;
                }
            }
            Pace::Ramp(ramp) => self.follow(ramp, block, shared, now_ns)?,
        }
        Ok(self.sequence - first)
    }

    /// Sends the due messages of a rate that rises, one by one: no two intervals are the same.
    fn follow(
        &mut self,
        ramp: Ramp,
        block: &mut Block,
        shared: &Shared,
        now_ns: u64,
    ) -> Result<(), String> {
        while self.next_due_ns <= now_ns as f64
            && !self.wire.is_blocked()
            && self.credit(shared).0 > 0
        {
            self.send(block, shared, self.next_due_ns as u64, 0, 1)?;
            self.ramp_number += 1.0;
            self.next_due_ns = ramp.due_ns(self.ramp_number);
        }
        Ok(())
    }

    fn send(
        &mut self,
        block: &mut Block,
        shared: &Shared,
        due_ns: u64,
        step_ns: u64,
        count: u64,
    ) -> Result<(), String> {
        let flow = &shared.plan.flows[self.flow];
        let bytes = match (&mut self.drawn, &flow.mix) {
            (Some(drawn), Some(mix)) => {
                let (number, kind) = (self.sequence, (mix, &flow.layout));
                drawn.fill(kind, shared, (number, count), (due_ns, step_ns))
            }
            _ => {
                let first = Stamp { publisher: self.index as u32, sequence: self.sequence, due_ns };
                let topic = &shared.plan.publishers[self.index].topic;
                let (sent, acked) = (&shared.sent[self.index], &shared.acked[self.index]);
                sent.store(self.sequence + count, Relaxed);
                if self.qos == 0 {
                    acked.store(self.sequence + count, Relaxed);
                }
                block.fill(topic, first, step_ns, count as usize)
            }
        };
        if flow.burden_ns > 0 {
            machine::work(flow.burden_ns * count);
        }
        self.sequence += count;
        let write_count_before = self.wire.write_count;
        self.wire.write(bytes)?;
        self.count_writes(write_count_before, shared);
        Ok(())
    }

    /// Writes the bytes that the socket did not take before.
    pub(super) fn flush(&mut self, shared: &Shared) -> Result<(), String> {
        let write_count_before = self.wire.write_count;
        self.wire.flush()?;
        self.count_writes(write_count_before, shared);
        Ok(())
    }

    /// Answers to the broker (`Publisher::read`) are no writes of publishes, so that QoS 2 compares with QoS 0.
    fn count_writes(&mut self, before: u64, shared: &Shared) {
        self.write_count += self.wire.write_count - before;
        shared.writes[self.index].store(self.write_count, Relaxed);
    }

    /// Takes the broker's packets.
    pub(super) fn read(&mut self, buffer: &mut [u8], shared: &Shared) -> Result<(), String> {
        let (mut acked, mut received) = (self.acked, self.received);
        let qos = self.qos;
        self.wire.read(buffer, |bytes, out| {
            let mut at = 0;
            while let Some((from, to)) = body_range(&bytes[at..])? {
                let (kind, body) = (bytes[at] >> 4, &bytes[at + from..at + to]);
                let next = match (kind, qos) {
                    (PUBACK, 1) | (PUBCOMP, 2) => &mut acked,
                    (PUBREC, 2) => &mut received,
                    (PINGRESP, _) => {
                        at += to;
                        continue;
                    }
                    _ => {
                        return Err(unexpected("publisher", kind, body));
                    }
                };
                // The broker acknowledges in the order of the publishes [MQTT-4.6.0-2] [MQTT-4.6.0-3].
                let expected = packet_id(*next).to_be_bytes();
                if body.len() < 2
                    || body[..2] != expected
                    || body.get(2).is_some_and(|reason| *reason >= 0x80)
                {
                    return Err(format!(
                        "the broker sent acknowledgement {kind} {body:02x?}, not {expected:02x?}"
                    ));
                }
                *next += 1;
                if kind == PUBREC {
                    out.extend_from_slice(&[0x62, 2, body[0], body[1]]);
                }
                at += to;
            }
            Ok(at)
        })?;
        match &mut self.drawn {
            Some(drawn) if qos > 0 => drawn.acknowledge(acked - self.acked, shared),
            None if qos > 0 => shared.acked[self.index].store(acked, Relaxed),
            _ => {}
        }
        (self.acked, self.received) = (acked, received);
        Ok(())
    }
}
