//! Packets of clients of which a part has arrived: how fast they must arrive, how long they may take, which of them
//! goes first when memory runs out, and packets that are too large and passed over.
//!
//! An unfinished packet brings `PACKET_PROGRESS_MIN` bytes, or its end, in each period of one and a half keep alives;
//! such progress counts as a packet. It arrives within `packet_time_max_ms`, unless its connection is parked. Above the
//! budget of unfinished packets, the packet goes whose last progress lies back furthest.
//!
//! A PUBLISH above `packet_size_max` of a client before 5.0 is thrown away as it arrives, holds no memory, and is
//! acknowledged behind its last byte.
//!
//! Whole packets never come here: the orders by age and by progress hold unfinished packets alone, and one timer stands
//! for the oldest. Input that waits because its connection is parked is listed, too: it owes no progress, and goes last.

use super::input::Outcome;
use super::timers::Timer;
use super::{About, ConnectionId, Shard};
use crate::codec::{self, DecodeError, PacketId, ProtocolVersion, QoS, ReasonCode};
use crate::limits::PACKET_PROGRESS_MIN;
use crate::session::Park;
use crate::time::Instant;
use slab::Slab;
use std::collections::BTreeSet;

/// The time between two looks at a packet that takes too long.
const LOOK_MS: u64 = 1_000;
/// So many packets that take too long end in one look.
const LATE_MAX: usize = 1_000;

/// No clock reaches this time.
const NEVER: Instant = Instant(u64::MAX);

#[derive(Debug)]
struct BegunPacket {
    connection: ConnectionId,
    /// When the packet's first byte came; `NEVER`: its connection is parked.
    since: Instant,
    /// When the packet last made progress; `NEVER`: its connection is parked.
    progress_at: Instant,
    /// How many bytes of the packet were there at that time.
    counted: usize,
    passing: Option<Passing>,
}

/// A PUBLISH that is too large: its bytes are thrown away as they arrive.
#[derive(Clone, Copy, Debug)]
struct Passing {
    size: usize,
    left: usize,
    /// The packet identifier, and whether the packet is of QoS 2.
    ack: Option<(PacketId, bool)>,
}

/// All unfinished packets. An entry of an order is an instant and the index of a packet.
#[derive(Debug, Default)]
pub(super) struct Begun {
    packets: Slab<BegunPacket>,
    by_age: BTreeSet<(Instant, u32)>,
    by_progress: BTreeSet<(Instant, u32)>,
    timer: Option<Instant>,
}

impl Begun {
    /// Notes that `brought` bytes of the packet at index `place` are there; the entry is made if there is none. Returns
    /// whether the packet has made progress. `is_new`: it is another packet than the last time.
    fn note(
        &mut self,
        now: Instant,
        id: ConnectionId,
        place: &mut Option<u32>,
        (brought, is_new, is_parked): (usize, bool, bool),
    ) -> bool {
        let at = if is_parked { NEVER } else { now };
        let index = match *place {
            Some(index) => {
                let was_parked = self.packets[index as usize].since == NEVER;
                if is_new || is_parked || was_parked {
                    self.set_since(index, at);
                    self.set_progress(index, at, 0);
                }
                index
            }
            None => {
                let packet = BegunPacket {
                    connection: id,
                    since: at,
                    progress_at: at,
                    counted: 0,
                    passing: None,
                };
                let index = self.packets.insert(packet) as u32;
                self.by_age.insert((at, index));
                self.by_progress.insert((at, index));
                *place = Some(index);
                index
            }
        };
        let counted = self.packets[index as usize].counted;
        let has_progress = !is_parked && brought.saturating_sub(counted) >= PACKET_PROGRESS_MIN;
        if has_progress {
            self.set_progress(index, now, brought);
        }
        has_progress
    }

    fn set_since(&mut self, index: u32, since: Instant) {
        let packet = &mut self.packets[index as usize];
        if packet.since != since {
            self.by_age.remove(&(packet.since, index));
            self.by_age.insert((since, index));
            packet.since = since;
        }
    }

    fn set_progress(&mut self, index: u32, at: Instant, counted: usize) {
        let packet = &mut self.packets[index as usize];
        // A packet that is passed over holds no memory, so it stands behind all others.
        let at = if packet.passing.is_some() { NEVER } else { at };
        packet.counted = counted;
        if packet.progress_at != at {
            self.by_progress.remove(&(packet.progress_at, index));
            self.by_progress.insert((at, index));
            packet.progress_at = at;
        }
    }

    /// Removes the unfinished packet at `place`, if there is one.
    #[inline]
    pub(super) fn end(&mut self, place: &mut Option<u32>) {
        if let Some(index) = place.take() {
            self.remove(index);
        }
    }

    /// As `end`, for a connection that goes on. A packet that is passed over does not end with the kept input.
    #[inline]
    pub(super) fn end_kept(&mut self, place: &mut Option<u32>) {
        if place.is_some_and(|index| self.packets[index as usize].passing.is_none()) {
            self.end(place);
        }
    }

    fn remove(&mut self, index: u32) {
        let packet = self.packets.remove(index as usize);
        self.by_age.remove(&(packet.since, index));
        self.by_progress.remove(&(packet.progress_at, index));
    }

    /// The connections of the packets that began so long ago.
    fn late(&self, now: Instant, time_max_ms: u64) -> impl Iterator<Item = ConnectionId> {
        let is_late = move |(since, _): &&(Instant, u32)| {
            *since != NEVER && since.plus_ms(time_max_ms) <= now
        };
        let late = self.by_age.iter().take_while(is_late);
        late.map(|(_, index)| self.packets[*index as usize].connection)
    }

    fn is_late(&self, place: Option<u32>, now: Instant, time_max_ms: u64) -> bool {
        let packet = place.map(|index| &self.packets[index as usize]);
        packet
            .is_some_and(|packet| packet.since != NEVER && packet.since.plus_ms(time_max_ms) <= now)
    }

    /// When the first packet will have taken too long.
    fn deadline(&self, time_max_ms: u64) -> Option<Instant> {
        let (since, _) = self.by_age.first()?;
        (*since != NEVER).then(|| since.plus_ms(time_max_ms))
    }
}

impl Shard {
    /// Notes that an open connection keeps input. `is_new`: the input begins with another byte than before.
    #[inline(never)]
    pub(super) fn note_input(&mut self, now: Instant, id: ConnectionId, is_new: bool) {
        let connection = self.clients.live_connection(id);
        if !connection.is_open() {
            return;
        }
        let state = (connection.input.len(), is_new, connection.park.is_some());
        if self.connections.begun.note(now, id, &mut connection.begun, state) {
            // Progress counts as a packet. [MQTT-3.1.2-22]
            connection.last_received = now;
        }
        self.start_packet_timer();
    }

    /// Starts the timer, which is not moved as packets come and go: it is set anew when it has passed.
    fn start_packet_timer(&mut self) {
        if self.connections.begun.timer.is_none()
            && let Some(deadline) = self.connections.begun.deadline(self.limits.packet_time_max_ms)
        {
            self.timers.set(Timer::Packets, &mut self.connections.begun.timer, Some(deadline));
        }
    }

    /// Sets the timer of packets anew: packets may take another time from now on.
    pub(super) fn restart_packet_timer(&mut self) {
        self.timers.set(Timer::Packets, &mut self.connections.begun.timer, None);
        self.start_packet_timer();
    }

    /// Ends packets that take too long, unless their rest has arrived already.
    pub(super) fn on_packet_timer(&mut self, now: Instant) {
        self.connections.begun.timer = None;
        let late = self.connections.begun.late(now, self.limits.packet_time_max_ms).take(LATE_MAX);
        let late: Vec<ConnectionId> = late.collect();
        self.counters.add_steps(late.len() as u64);
        late.iter().for_each(|id| self.read_before_late(*id));
        match late.is_empty() {
            true => self.start_packet_timer(),
            false => {
                let again = Some(now.plus_ms(LOOK_MS));
                self.timers.set(Timer::Packets, &mut self.connections.begun.timer, again);
            }
        }
    }

    /// Ends a packet that takes too long, after all bytes from its client were used.
    pub(super) fn end_if_late(&mut self, now: Instant, id: ConnectionId) {
        // The connection may have ended since it was listed.
        let Some(connection) = self.clients.connection(id) else { return };
        if !self.connections.begun.is_late(connection.begun, now, self.limits.packet_time_max_ms) {
            return;
        }
        self.counters.packets_timed_out += 1;
        let why = "a packet took too long to arrive";
        self.refuse_at(now, id, ReasonCode::QuotaExceeded, why, "packet_time_max_ms");
    }

    /// The connection of the packet that goes when unfinished packets exceed their budget: its last progress lies back
    /// furthest. So packets that keep their rate are spared, and so are whole packets that were told to wait.
    pub(super) fn slowest_begun(&mut self) -> Option<ConnectionId> {
        let (begun, clients) = (&self.connections.begun, &mut self.clients);
        let by_progress = begun.by_progress.iter();
        // A packet that is being read, or is passed over, holds no memory that could be freed.
        by_progress.map(|(_, index)| begun.packets[*index as usize].connection).find(|id| {
            clients.connection(*id).is_some_and(|connection| !connection.input.is_empty())
        })
    }

    /// Handles a packet at the start of `rest` that cannot be read. A PUBLISH of a client that cannot be told why is
    /// passed over, and the bytes of it that have arrived are counted; else the connection ends.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse_frame(
        &mut self,
        now: Instant,
        id: ConnectionId,
        rest: &[u8],
        error: &DecodeError,
    ) -> Result<usize, Outcome> {
        let output_size_max = self.limits.output_size_max;
        let connection = self.clients.live_connection(id);
        let Some(key) = connection.session() else { return Err(Outcome::Stop) };
        let version = connection.version;
        if *error != DecodeError::PacketTooLarge || version == ProtocolVersion::V5 {
            return Err(self.fail_at(now, id, rest, error));
        }
        if connection.park.is_some() {
            return Err(Outcome::Wait);
        }
        if self.guards.rates.is_on && !self.has_tokens(now, id) {
            return Err(Outcome::Wait);
        }
        let connection = self.clients.live_connection(id);
        let has_room = connection.output.size() < output_size_max.saturating_mul(2);
        if !has_room && !connection.is_peer_gone {
            return Err(self.park(id, Park::Output));
        }
        let start = match codec::publish_start(rest) {
            Ok(Some(start)) => start,
            // The packet identifier has not arrived yet.
            Ok(None) => return Err(Outcome::Wait),
            Err(DecodeError::OtherPacket) => return Err(self.fail_at(now, id, rest, error)),
            Err(error) => return Err(self.fail_at(now, id, rest, &error)),
        };
        if start.packet_id.is_some()
            && let Some(outcome) = self.check_deferred_acks(now, id, key, version)
        {
            return Err(outcome);
        }
        self.counters.refused_by_size += 1;
        let what = format!("a packet of {} bytes", start.size);
        self.notice_client(now, About::Message, id, &what, "packet_size_max");
        let ack = start.packet_id.map(|id| (id, start.qos == QoS::ExactlyOnce));
        let here = start.size.min(rest.len());
        let passing = Passing { size: start.size, left: start.size - here, ack };
        if passing.left == 0 {
            self.end_passing(now, id, passing);
            return Ok(here);
        }
        let connection = self.clients.live_connection(id);
        self.connections.begun.note(now, id, &mut connection.begun, (here, false, false));
        if let Some(index) = connection.begun {
            self.connections.begun.packets[index as usize].passing = Some(passing);
            self.connections.begun.set_progress(index, now, here);
        }
        self.start_packet_timer();
        Ok(here)
    }

    /// Passes over more bytes of a packet; returns how many of `bytes` are the packet's. `None`: no packet is passed
    /// over.
    #[inline(never)]
    pub(super) fn pass_over(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
    ) -> Option<usize> {
        let connection = self.clients.connection(id)?;
        let index = connection.begun?;
        let passing = self.connections.begun.packets[index as usize].passing.as_mut()?;
        let taken = passing.left.min(bytes.len());
        passing.left -= taken;
        let passing = *passing;
        if passing.left == 0 {
            self.connections.begun.end(&mut connection.begun);
            connection.last_received = now;
            self.end_passing(now, id, passing);
            return Some(taken);
        }
        let brought = passing.size - passing.left;
        if self.connections.begun.note(now, id, &mut connection.begun, (brought, false, false)) {
            connection.last_received = now;
        }
        Some(taken)
    }

    /// Ends a packet that was passed over. The client gets the answer that it would have got for any message, so that
    /// it does not send the message again.
    fn end_passing(&mut self, now: Instant, id: ConnectionId, passing: Passing) {
        self.counters.packets_received += 1;
        self.counters.publishes_received += 1;
        self.charge_passed(now, id, passing.size);
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        if let (Some(key), Some(ack), false) = (key, passing.ack, self.shutdown.has_begun) {
            self.acknowledge_in_turn(id, key, ack, ReasonCode::Success);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The orders must contain what a plain list of the packets says.
    #[test]
    fn the_orders_hold_what_the_packets_say() {
        let mut random = Random::new(9);
        let mut begun = Begun::default();
        let mut places = [None; 20];
        let mut brought = [0; 20];
        for outcome in 0..20_000 {
            let now = Instant(1_000 + outcome / 3);
            let at = (random.number() % 20) as usize;
            let id = ConnectionId { index: at as u32, generation: 1 };
            match random.number() % 6 {
                0 => begun.end_kept(&mut places[at]),
                kind => {
                    let is_new = kind == 1 || places[at].is_none();
                    brought[at] =
                        if is_new { 0 } else { brought[at] } + (random.number() % 900) as usize;
                    begun.note(now, id, &mut places[at], (brought[at], is_new, kind == 2));
                }
            }
            let count = places.iter().flatten().count();
            assert_eq!(
                [begun.packets.len(), begun.by_age.len(), begun.by_progress.len()],
                [count; 3]
            );
            for (index, packet) in &begun.packets {
                assert!(begun.by_age.contains(&(packet.since, index as u32)));
                assert!(begun.by_progress.contains(&(packet.progress_at, index as u32)));
                assert!(packet.progress_at >= packet.since);
                assert_eq!(places[packet.connection.index as usize], Some(index as u32));
            }
            let late = begun.late(now, 500).count();
            let is_late = |place: &&Option<u32>| begun.is_late(**place, now, 500);
            assert_eq!(late, places.iter().filter(is_late).count());
        }
        places.iter_mut().for_each(|place| begun.end(place));
        assert!(begun.by_age.is_empty() && begun.by_progress.is_empty());
    }
}
