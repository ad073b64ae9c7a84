//! Bytes from a connection into packets, and input that must wait.

use super::{ConnectionId, ReadMode, Shard};
use crate::codec::{self, Frame, Packet, PacketType, ProtocolVersion, ReasonCode};
use crate::limits::LINGER_BYTES_MAX;
use crate::session::connection::{Closing, ConnectionState};
use crate::session::{Park, SessionKey};
use crate::time::Instant;

/// Input a parked connection may hold before it is not read any more; less than a receive buffer or two.
const PARKED_INPUT_MAX: usize = 16 << 10;

/// Packets that cost no more are not held against their connection one by one.
const CHEAP_STEPS: u64 = 8;

/// So many packets of one read, which are tiny, are held against their connection.
const PACKETS_CHARGED: u64 = 4_096;

/// Messages of so many bytes are worked on before more are read, while the processor's cache has them.
pub(super) const PIPELINE_BYTES: usize = 256 << 10;

/// What a broker that shuts down still listens to: clients get what waits for them, and who says goodbye has no will.
fn is_heard_at_the_end(packet_type: PacketType) -> bool {
    use PacketType::{Disconnect, Pingreq, Puback, Pubcomp, Pubrec};
    matches!(packet_type, Puback | Pubrec | Pubcomp | Pingreq | Disconnect)
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Not used yet: plain acknowledgements begin, to be used together.
    PlainAcks,
    /// Not used yet: the connection is parked.
    Wait,
    /// The connection is closing or gone; nothing more of it is used.
    Stop,
}

impl Shard {
    /// Bytes that the socket of a connection has brought, in order. The shard takes all, keeps what it cannot use yet, and may
    /// change `bytes`: a transport opens them in place.
    pub fn handle_bytes(&mut self, now: Instant, id: ConnectionId, bytes: &mut [u8]) {
        self.counters.bytes_received += bytes.len() as u64;
        if self.connections.links.has(id) {
            return self.open_bytes(now, id, bytes);
        }
        self.handle_plain(now, id, bytes);
    }

    /// As `handle_bytes`, for bytes that the transport of the connection has opened already: those that came with a connection
    /// from another shard.
    pub fn handle_opened(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        self.counters.bytes_received += bytes.len() as u64;
        self.use_plain(now, id, bytes);
        if self.connections.links.has(id) {
            self.end_if_over(now, id);
            self.list_own_bytes(id);
        }
    }

    /// Bytes of MQTT.
    #[inline(always)]
    pub(super) fn handle_plain(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.clients.connection(id) else { return };
        if let ConnectionState::Closing(Closing { ignored }) = &mut connection.state {
            *ignored = ignored.saturating_add(bytes.len().min(LINGER_BYTES_MAX) as u32);
            if *ignored as usize >= LINGER_BYTES_MAX {
                self.update_read_mode(id);
            }
            return;
        }
        if connection.park.is_some() || connection.is_connecting() {
            if connection.has_ended {
                // What comes behind the end of its socket is nobody's.
                return;
            }
            // What is passed over is no input, whatever its connection waits for.
            let passed = match connection.begun {
                Some(_) => self.pass_over(now, id, bytes).unwrap_or(0),
                None => 0,
            };
            // All of it: what stands behind a CONNECT goes with it to its shard, or is its client's.
            self.append_input(now, id, &bytes[passed..]);
            self.read_input(now, id);
            return self.check_input(now);
        }
        debug_assert!(connection.begun.is_some() || connection.input.is_empty());
        let head_size = match connection.begun {
            None => 0,
            Some(_) => self.complete_frame(now, id, bytes),
        };
        if head_size < bytes.len() {
            let used = head_size + self.read_packets(now, id, &bytes[head_size..]);
            self.keep_input(now, id, &bytes[used..]);
        }
        if self.flow.arena.used() >= self.work.turns.held_bytes_max {
            self.run_for(now, id);
        }
        if self.shutdown.has_begun {
            self.update_read_mode(id);
        }
    }

    /// Completes the frame whose first part is kept, and uses it, or passes over more of one; returns how many of `bytes` that
    /// took.
    #[inline(never)]
    fn complete_frame(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> usize {
        if let Some(taken) = self.pass_over(now, id, bytes) {
            return taken;
        }
        let Some(connection) = self.clients.connection(id) else { return bytes.len() };
        let mut taken = 0;
        let (input, pool) = (&mut connection.input, &mut self.connections.input_pool);
        // The size is known after at most five bytes; an error is met again when the frame is read.
        let size = loop {
            match codec::frame_size(input.bytes()) {
                Ok(None) if taken < bytes.len() => {
                    input.append(&bytes[taken..=taken], pool);
                    taken += 1;
                }
                Ok(None) => return taken,
                Ok(Some(size)) => break size,
                Err(_) => break input.len(),
            }
        };
        let missing = size.saturating_sub(input.len()).min(bytes.len() - taken);
        input.append(&bytes[taken..taken + missing], pool);
        taken += missing;
        self.read_input(now, id);
        match self.clients.connection(id) {
            // Parked on that frame: the rest waits behind it.
            Some(connection) if !connection.input.is_empty() => {
                self.keep_input(now, id, &bytes[taken..]);
                bytes.len()
            }
            Some(connection) if !connection.is_closing() => taken,
            _ => bytes.len(),
        }
    }

    /// Uses what is kept of a connection's input, as far as it goes.
    pub(super) fn read_input(&mut self, now: Instant, id: ConnectionId) {
        self.end_turn_if_used(id);
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.park.is_some() || connection.input.is_empty() {
            return;
        }
        let is_first = connection.is_connecting();
        let mut input = connection.input.take();
        let used = match is_first {
            true => self.read_first(now, id, input.bytes()),
            false => self.read_packets(now, id, input.bytes()),
        };
        if let Some(connection) = self.clients.connection(id)
            && used < input.len()
        {
            debug_assert!(connection.input.is_empty());
            input.consume(used);
            if is_first && connection.session().is_some() {
                input.count_in(&self.memory.frame_bytes);
            }
            connection.input = input;
            // More of an unfinished frame makes it no younger.
            self.note_input(now, id, used > 0);
        } else {
            if let Some(connection) = self.clients.connection(id) {
                self.connections.begun.end_kept(&mut connection.begun);
            }
            input.recycle(&mut self.connections.input_pool);
        }
        self.check_input(now);
    }

    /// Uses whole packets; returns how many bytes they had.
    pub(super) fn read_packets(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> usize {
        let mut used = 0;
        let mut previous = codec::PreviousPublish::default();
        let has_rates = self.guards.rates.is_on;
        let packet_size_max = self.packet_size_max_of(id);
        self.pause_hooks();
        let began = if cfg!(debug_assertions) { self.steps() } else { 0 };
        let received_before = self.counters.packets_received;
        while used < bytes.len() {
            let rest = &bytes[used..];
            if has_rates && !self.is_within_rate(now, id, rest) {
                break;
            }
            let outcome = match codec::next_frame(rest, packet_size_max) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let before = self.flow.arena.admitted();
                    let outcome = self.read_packet(now, id, &frame, rest, &mut previous);
                    if outcome == Outcome::Done {
                        used += frame.size;
                        if has_rates {
                            self.charge_rate(id, &frame);
                            continue;
                        }
                        // Only what was admitted is repeated.
                        if self.flow.arena.admitted() != before && used < bytes.len() {
                            if frame.is_plain_publish() {
                                used += self.read_repeats(id, &frame, &previous, &bytes[used..]);
                            } else if frame.is_plain_acked_publish() {
                                used +=
                                    self.read_acked_repeats(id, &frame, &previous, &bytes[used..]);
                            }
                        }
                        continue;
                    }
                    outcome
                }
                Err(error) => match self.refuse_frame(now, id, rest, &error) {
                    Ok(passed) => {
                        used += passed;
                        continue;
                    }
                    Err(outcome) => outcome,
                },
            };
            match outcome {
                Outcome::Done => {}
                Outcome::PlainAcks => used += self.read_plain_acks(now, id, rest),
                Outcome::Wait => break,
                Outcome::Stop => {
                    self.end_pledge();
                    self.measure_turn(id, began);
                    return bytes.len();
                }
            }
        }
        self.measure_turn(id, began);
        self.end_pledge();
        let packet_count = self.counters.packets_received - received_before;
        if packet_count >= PACKETS_CHARGED {
            self.charge(id, packet_count);
        }
        // Whole packets count, not their parts. [MQTT-3.1.2-22]
        if used > 0
            && let Some(connection) = self.clients.connection(id)
        {
            connection.last_received = now;
        }
        used
    }

    /// Runs the stages over what is held, much of which came on this connection.
    #[cold]
    #[inline(never)]
    pub(super) fn run_for(&mut self, now: Instant, id: ConnectionId) {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        self.run_charged(now, key.map_or(0, SessionKey::as_u64));
    }

    #[inline(always)]
    fn read_packet<'a>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        frame: &Frame<'a>,
        rest: &[u8],
        previous: &mut codec::PreviousPublish<'a>,
    ) -> Outcome {
        let above_mark = self.is_mail_above_mark();
        let is_blocking = self.bridges.is_blocking();
        let output_size_max = self.limits.output_size_max;
        let is_shutting_down = self.shutdown.has_begun;
        let Some(connection) = self.clients.connection(id) else { return Outcome::Stop };
        let version = connection.version;
        let (key, is_blocked_by_bridge) = match &connection.state {
            ConnectionState::Open(open) => (open.key, open.is_blocked_by_bridge),
            ConnectionState::Connecting(_) | ConnectionState::Closing(_) => return Outcome::Stop,
        };
        if connection.park.is_some() {
            return Outcome::Wait;
        }
        let above_mark = above_mark && !connection.is_peer_gone;
        let is_blocked = is_blocking && is_blocked_by_bridge && !connection.is_peer_gone;
        // A client that sends without reading answers waits for itself.
        if !connection.is_peer_gone && connection.output.size() >= output_size_max.saturating_mul(2)
        {
            return self.park(id, Park::Output);
        }
        let packet_type = frame.packet_type();
        if is_shutting_down && !packet_type.is_some_and(is_heard_at_the_end) {
            // Not acknowledged, so that it is sent again to whoever comes next.
            return Outcome::Done;
        }
        if packet_type == Some(PacketType::Publish) {
            if is_blocked {
                return self.park(id, Park::Bridge);
            }
            if above_mark && self.must_wait(key, frame.size) {
                return self.park(id, Park::Mail);
            }
            self.counters.packets_received += 1;
            let mut publish = codec::Publish::default();
            return match publish.read(frame, version, previous) {
                Ok(()) => self.on_publish(now, id, key, version, &publish),
                Err(error) => self.fail(now, id, &error),
            };
        }
        if !is_shutting_down && codec::next_plain_ack(rest).is_some() {
            return Outcome::PlainAcks;
        }
        self.read_other(now, id, key, version, frame)
    }

    /// Any packet but PUBLISH.
    #[inline(never)]
    fn read_other(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        frame: &Frame<'_>,
    ) -> Outcome {
        let began = self.steps();
        self.counters.packets_received += 1;
        if frame.packet_type() == Some(PacketType::Connect) {
            // Whatever it says. [MQTT-3.1.0-2]
            return self.refuse(now, id, ReasonCode::ProtocolError, "a second CONNECT");
        }
        self.pause_hooks();
        let outcome = match Packet::decode(frame, version) {
            Ok(packet) => self.counted(|shard| shard.on_packet(now, id, key, version, packet)),
            Err(error) => return self.fail(now, id, &error),
        };
        let steps = self.steps() - began;
        if steps > CHEAP_STEPS {
            self.charge(id, steps);
        }
        outcome
    }

    fn on_packet(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        packet: Packet<'_>,
    ) -> Outcome {
        match packet {
            Packet::Puback(ack) => self.on_puback(now, key, &ack),
            Packet::Pubrec(ack) => self.on_pubrec(now, id, key, &ack),
            Packet::Pubrel(ack) => self.on_pubrel(id, key, &ack),
            Packet::Pubcomp(ack) => self.on_pubcomp(now, key, &ack),
            Packet::Pingreq => self.on_pingreq(id),
            Packet::Subscribe(subscribe) => {
                self.run_pipeline(now);
                self.on_subscribe(now, id, key, &subscribe)
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.run_pipeline(now);
                self.on_unsubscribe(now, id, key, &unsubscribe)
            }
            Packet::Disconnect(disconnect) => {
                self.run_pipeline(now);
                self.on_disconnect(now, id, key, &disconnect)
            }
            // [MQTT-4.12.0-7]: no connection has an authentication method.
            Packet::Auth(_) if version == ProtocolVersion::V5 => self.refuse(
                now,
                id,
                ReasonCode::ProtocolError,
                "AUTH without authentication method",
            ),
            _ => {
                self.refuse(now, id, ReasonCode::ProtocolError, "a packet that only a server sends")
            }
        }
    }

    /// Lets a connection's input wait.
    pub(super) fn park(&mut self, id: ConnectionId, park: Park) -> Outcome {
        if let Some(connection) = self.clients.connection(id)
            && (!connection.is_peer_gone || park == Park::Turn)
        {
            connection.park = Some(park);
            match park {
                Park::Mail => {
                    self.counters.parked_on_mail += 1;
                    self.connections.parked_on_mail.push(connection);
                }
                Park::Output => self.counters.parked_on_output += 1,
                Park::Bridge => {
                    self.counters.parked_on_bridges += 1;
                    self.connections.parked_on_bridges.push(connection);
                }
                Park::Rate => self.counters.parked_on_rate += 1,
                Park::Turn => {
                    self.counters.parked_on_turns += 1;
                    self.list_for_turn(id);
                }
                Park::Subscribe | Park::Acks | Park::TakeOver | Park::Answer | Park::Retained => {}
            }
            self.update_read_mode(id);
        }
        Outcome::Wait
    }

    /// As `unpark`, but the input goes on with the chores of the turn: for calls in the midst of other work.
    pub(super) fn postpone(&mut self, id: ConnectionId, park: Park) {
        if self.clients.connection(id).is_some_and(|connection| connection.park == Some(park)) {
            self.park(id, Park::Turn);
        }
    }

    /// Goes on with a connection whose input waited.
    pub(super) fn unpark(&mut self, now: Instant, id: ConnectionId, park: Park) {
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.park != Some(park) {
            return;
        }
        connection.park = None;
        // Time in which the client was not heard does not count against it.
        connection.last_received = now;
        self.read_input(now, id);
        self.update_read_mode(id);
    }

    /// Uses what a closed connection left waiting, above all marks: its client sent it in time, a DISCONNECT perhaps.
    pub(super) fn use_last_input(&mut self, now: Instant, id: ConnectionId) {
        self.give_up_claim(now, id);
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.park == Some(Park::Turn) && !self.shutdown.has_begun {
            // It goes on in the next turn.
            connection.is_peer_gone = true;
            return;
        }
        if connection.park.take().is_none() || self.shutdown.has_begun {
            return;
        }
        if let Some(open) = connection.open_mut() {
            open.pending = None;
        }
        connection.is_peer_gone = true;
        self.read_input(now, id);
    }

    /// Goes on with publishers as far as mail stays below its mark, each once a turn.
    pub(super) fn unpark_mail(&mut self, now: Instant) {
        if self.flow.outbox.is_blocked() {
            self.unpark_readers(now);
        }
        for _ in 0..self.connections.parked_on_mail.len() {
            if self.is_mail_above_mark() {
                return;
            }
            if let Some(id) = self.connections.parked_on_mail.pop(&mut self.clients) {
                self.unpark(now, id, Park::Mail);
                self.run_pipeline(now);
            }
        }
    }

    fn keep_input(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.append_input(now, id, bytes);
            self.check_input(now);
        }
    }

    fn append_input(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.is_closing() || bytes.is_empty() {
            return;
        }
        connection.input.append(bytes, &mut self.connections.input_pool);
        if connection.is_connecting() {
            self.connections.connecting.begin(id);
            return;
        }
        let is_parked = connection.park.is_some();
        self.note_input(now, id, false);
        if is_parked {
            self.update_read_mode(id);
        }
    }

    /// Over the budget of unfinished frames the connection with the slowest one goes.
    pub(super) fn check_input(&mut self, now: Instant) {
        self.check_connect_bytes(now);
        while self.memory.frame_bytes.bytes() > self.limits.shard_frames_bytes_max {
            let Some(id) = self.slowest_begun() else { return };
            self.counters.frames_evicted += 1;
            let why = "unfinished packets of all clients exceed their budget";
            self.refuse_at(now, id, ReasonCode::QuotaExceeded, why, "shard_frames_bytes_max");
        }
    }

    /// Whether a broker that shuts down hears the client: it has something to acknowledge, or may get what others leave.
    fn is_waited_for(&mut self, id: ConnectionId) -> bool {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        let session = key.and_then(|key| self.clients.session(key));
        session.is_some_and(|session| !session.has_all() || session.membership_count() > 0)
    }

    pub(super) fn update_read_mode(&mut self, id: ConnectionId) {
        let is_shutting_down = self.shutdown.has_begun;
        let is_waited_for = is_shutting_down && self.is_waited_for(id);
        let is_input_scarce =
            self.memory.frame_bytes.bytes() > self.limits.shard_frames_bytes_max / 2;
        let Some(connection) = self.clients.connection(id) else { return };
        connection.read_mode = match (&connection.state, connection.park) {
            // Behind a DISCONNECT nothing may follow. [MQTT-3.14.4-2]
            (ConnectionState::Closing(_), _) if connection.has_said_all => ReadMode::Stopped,
            // A client that is blocked by what it sends does not read.
            (ConnectionState::Closing(closing), _)
                if (closing.ignored as usize) < LINGER_BYTES_MAX =>
            {
                ReadMode::Many
            }
            (ConnectionState::Closing(_), _) => ReadMode::Stopped,
            _ if is_shutting_down && !is_waited_for => ReadMode::Stopped,
            (ConnectionState::Connecting(_), Some(_))
                if connection.input.len() >= PARKED_INPUT_MAX =>
            {
                ReadMode::Stopped
            }
            (ConnectionState::Connecting(_), _) => ReadMode::Once,
            // Its socket is read to its end, or as far as may be, before it ends.
            _ if connection.is_peer_gone => ReadMode::Stopped,
            (_, None) => ReadMode::Many,
            (_, Some(Park::Subscribe | Park::Turn))
                if connection.input.len() < PARKED_INPUT_MAX && !is_input_scarce =>
            {
                ReadMode::Many
            }
            (_, Some(_)) => ReadMode::Stopped,
        };
        if connection.read_mode != connection.read_mode_told {
            self.connections.read_changes.push_back(id);
        }
    }

    /// Connections to read differently from now on.
    pub fn poll_read_mode(&mut self) -> Option<(ConnectionId, ReadMode)> {
        while let Some(id) = self.connections.read_changes.pop_front() {
            let Some(connection) = self.clients.connection(id) else { continue };
            if connection.read_mode != connection.read_mode_told && !connection.has_ended {
                connection.read_mode_told = connection.read_mode;
                return Some((id, connection.read_mode));
            }
        }
        None
    }

    /// Frees a place of a session's output or window and sends what waited for it.
    pub(super) fn pump(&mut self, now: Instant, key: SessionKey) {
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        if self.clients.pump(key, &mut context) {
            self.list_pull(key);
        }
    }
}
