//! What a client publishes: its schedule, its payloads, and what is under way.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use ringmq::codec::{PacketId, Publish, QoS, ReasonCode, encode_pubrel};

use super::check::stamp;
use super::counts::add;
use super::hub::Hub;
use super::settings::{Publishing, Role, Settings, random};
use crate::message;

/// Messages that a client publishes before others have their turn.
const TURN_COUNT_MAX: usize = 64;
/// A socket with more to take takes no more messages.
const OUT_SIZE_MAX: usize = 64 << 10;

const PUBREC: u8 = 5;

#[derive(Debug)]
struct Flight {
    packet_id: PacketId,
    due_ns: u64,
    /// PUBREL was sent.
    is_released: bool,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    number: u64,
    /// Expanded, but for `%s`.
    topic: String,
    counts_messages: bool,
    payload: Vec<u8>,
    sequence: u64,
    /// Of the next message; `u64::MAX`: the schedule has not begun.
    due_ns: u64,
    interval_ns: u64,
    window: usize,
    flights: VecDeque<Flight>,
    last_packet_id: u16,
    /// Nothing more is published.
    is_finished: bool,
}

impl Outgoing {
    pub(super) fn new(
        publishing: &Publishing,
        settings: &Settings,
        number: u64,
    ) -> Result<Outgoing, String> {
        Ok(Outgoing {
            number,
            topic: settings.expand(&publishing.topic, number, None)?,
            counts_messages: publishing.topic.contains("%s"),
            payload: publishing.payload.clone(),
            sequence: 0,
            due_ns: u64::MAX,
            interval_ns: publishing.interval_ns,
            window: publishing.inflight_max,
            flights: VecDeque::new(),
            last_packet_id: 0,
            is_finished: false,
        })
    }

    /// The client was accepted: its schedule begins anew.
    pub(super) fn connected(&mut self, receive_max: Option<u16>, now_ns: u64) {
        let receive_max = receive_max.map_or(usize::MAX, usize::from);
        self.window = self.window.min(receive_max);
        if self.due_ns != u64::MAX {
            self.due_ns = now_ns;
        }
    }

    /// The connection is gone. Returns how many messages were not acknowledged.
    pub(super) fn disconnected(&mut self) -> u64 {
        let count = self.flights.len() as u64;
        self.flights.clear();
        count
    }

    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// All that was to be published is acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.is_finished && self.flights.is_empty()
    }

    pub(super) fn due_ns(&self) -> u64 {
        if self.is_finished { u64::MAX } else { self.due_ns }
    }

    /// When the first message is due, once all may publish. As emqtt-bench has it: an interval after the client was
    /// accepted.
    fn begin(&mut self, publishing: &Publishing, settings: &Settings, now_ns: u64) {
        let [least, most] = publishing.random_wait_ns;
        let wait_ns = least + random() % (most - least + 1);
        let turn_ns = match publishing.waits_for_all {
            // They begin together, and take turns within the interval.
            true => {
                let index = (self.number - settings.start_number) as f64;
                (self.interval_ns as f64 * index / settings.count as f64) as u64
            }
            false => self.interval_ns,
        };
        self.due_ns = now_ns + turn_ns + wait_ns;
    }

    /// Appends the messages that are due. True: more are due than a turn has.
    pub(super) fn publish(&mut self, out: &mut Vec<u8>, hub: &mut Hub<'_>) -> Result<bool, String> {
        let Role::Pub(publishing) = &hub.settings.role else { return Ok(false) };
        if self.is_finished || !hub.shared.go.load(Relaxed) {
            return Ok(false);
        }
        if self.due_ns == u64::MAX {
            self.begin(publishing, hub.settings, hub.now_ns);
        }
        for _ in 0..TURN_COUNT_MAX {
            let is_full = publishing.qos != QoS::AtMostOnce && self.flights.len() >= self.window;
            if self.due_ns > hub.now_ns || is_full {
                return Ok(false);
            }
            if out.len() > OUT_SIZE_MAX {
                break;
            }
            let ticket = match publishing.limit > 0 || self.counts_messages {
                true => hub.shared.tickets.fetch_add(1, Relaxed),
                false => 0,
            };
            if publishing.limit > 0 && ticket >= publishing.limit {
                self.is_finished = true;
                return Ok(false);
            }
            // Without a schedule a message is due when it can go.
            let due_ns = if self.interval_ns == 0 { hub.now_ns } else { self.due_ns };
            self.send(publishing, due_ns, ticket + 1, out, hub)?;
            if self.interval_ns > 0 {
                add(&hub.shared.counts.late, u64::from(hub.now_ns > due_ns + self.interval_ns));
                self.due_ns += self.interval_ns;
            }
        }
        Ok(true)
    }

    fn send(
        &mut self,
        publishing: &Publishing,
        due_ns: u64,
        message: u64,
        out: &mut Vec<u8>,
        hub: &mut Hub<'_>,
    ) -> Result<(), String> {
        let settings = hub.settings;
        if publishing.is_sealed {
            let due_ns = settings.wall_ns(due_ns);
            let is_ordered = !self.counts_messages;
            let publisher = self.number as u32;
            let stamp = stamp(publisher, settings.run, self.sequence, is_ordered, due_ns);
            message::seal(&mut self.payload, stamp);
        }
        let expanded;
        let topic = match self.counts_messages {
            true => {
                expanded = settings.expand(&publishing.topic, self.number, Some(message))?;
                &expanded
            }
            false => &self.topic,
        };
        let packet_id = (publishing.qos != QoS::AtMostOnce).then(|| {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            PacketId::new(self.last_packet_id).expect("not 0")
        });
        Publish {
            qos: publishing.qos,
            retain: publishing.retain,
            topic,
            packet_id,
            payload: &self.payload,
            ..Publish::default()
        }
        .encode(settings.version, out);
        self.sequence += 1;
        add(&hub.shared.counts.sent, 1);
        match packet_id {
            Some(packet_id) => {
                self.flights.push_back(Flight { packet_id, due_ns, is_released: false });
            }
            None => add(&hub.shared.counts.acked, 1),
        }
        Ok(())
    }

    /// The broker has acknowledged a message, or (PUBREC) received it.
    pub(super) fn acknowledged(
        &mut self,
        kind: u8,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
        hub: &mut Hub<'_>,
    ) -> Result<(), String> {
        let Role::Pub(publishing) = &hub.settings.role else { return Ok(()) };
        let is_released = match (publishing.qos, kind) {
            (QoS::AtLeastOnce, 4) | (QoS::ExactlyOnce, PUBREC) => false,
            (QoS::ExactlyOnce, 7) => true,
            _ => return Err("the broker acknowledged at another QoS".to_string()),
        };
        let is_meant =
            |flight: &Flight| flight.packet_id == packet_id && flight.is_released == is_released;
        // Mostly the oldest.
        let at = self.flights.iter().position(is_meant);
        let at = at.ok_or("the broker acknowledged what was not sent")?;
        let is_refused = reason as u8 >= 0x80;
        if is_refused {
            add(&hub.shared.counts.nacked, 1);
            hub.shared.blame(&format!("the broker refused a publish: {reason:?}"));
        }
        if kind == PUBREC && !is_refused {
            self.flights[at].is_released = true;
            encode_pubrel(hub.settings.version, packet_id, ReasonCode::Success, out);
            return Ok(());
        }
        let flight = self.flights.remove(at).expect("it was found");
        if !is_refused {
            add(&hub.shared.counts.acked, 1);
            hub.acknowledge.record(hub.now_ns.saturating_sub(flight.due_ns));
        }
        Ok(())
    }
}
