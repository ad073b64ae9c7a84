//! One shard's worker: its broker, its ring and its end of the mesh, and the turn that drives them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tracing::debug;

use crate::shard::{Close, ConnectionId, LANES, Mail, ReadMode, Shard, ShardId};
use crate::shell::clock::Clock;
use crate::shell::gate::Gate;
use crate::shell::mesh::{Adoption, Control, Port};
use crate::shell::ring::{Event, Ring, SocketKey};
use crate::shell::socket::{SocketTable, from_owner, to_owner};
use crate::shell::waiter::Waiter;
use crate::shell::watch::{Report, Snapshot};
use crate::time::Instant;

/// The longest sleep: once a second a worker reports its counters.
const SLEEP_MAX_MS: u64 = 1_000;

/// When another shard's lane was full, it is tried again this soon, for nobody rings when there is room.
const RETRY_MS: u64 = 1;

/// How often it is asked whether the last bytes of closed connections have arrived, and for how many sockets at most.
const LINGER_LOOK_MS: u64 = 10;
const LINGER_LOOKS_MAX: usize = 256;

/// Up to so many outputs a turn leave at once, each in a call of its own.
const SENDS_NOW_MAX: usize = 3;

pub struct Worker {
    shard: Shard,
    ring: Ring,
    port: Port<Mail>,
    clock: Clock,
    waiter: Waiter,
    gate: Arc<Gate>,
    report: Arc<Report>,
    sockets: SocketTable,
    /// Connections accepted in this turn.
    accepted: Vec<OwnedFd>,
    /// Connections for shards whose control lane is full.
    departing: VecDeque<(ShardId, Box<Adoption>)>,
    report_due: Instant,
    /// Sockets of closed connections whose last bytes are on their way, and until when.
    lingering: VecDeque<(SocketKey, Instant)>,
    /// When they are looked at next.
    linger_look_at: Instant,
    /// A lane was full in this turn.
    is_held_up: bool,
    /// Something was received or sent since this was last asked.
    has_moved: bool,
    /// When a turn began in which something was received or sent.
    moved_at: Instant,
    /// When this turn began.
    now: Instant,
}

impl Worker {
    /// Takes what has happened, after waiting for it if `may_wait`, and does everything that follows from it.
    pub fn turn(&mut self, may_wait: bool) {
        if may_wait {
            self.wait();
        } else {
            self.ring.poll(self.now);
        }
        let now = self.clock.now();
        self.now = now;
        self.is_held_up = false;
        self.take_events(now);
        self.take_mail(now);
        if self.shard.poll_timeout().is_some_and(|due| due <= now) {
            self.shard.handle_timeout(now);
        }
        self.shard.run_stages(now);
        self.hand_over();
        self.change_read_modes();
        self.send_mail();
        self.flush();
        self.close();
        // None unless they are asked for.
        while let Some(event) = self.shard.poll_event() {
            debug!("{event}");
        }
        if self.has_moved {
            self.moved_at = now;
        }
        if self.report_due <= now {
            self.report(now);
        }
    }

    pub fn new(
        shard: Shard,
        ring: Ring,
        port: Port<Mail>,
        clock: Clock,
        waiter: Waiter,
        gate: Arc<Gate>,
        report: Arc<Report>,
    ) -> Worker {
        Worker {
            shard,
            ring,
            port,
            clock,
            waiter,
            gate,
            report,
            sockets: SocketTable::default(),
            accepted: Vec::new(),
            departing: VecDeque::new(),
            report_due: clock.now().plus_ms(SLEEP_MAX_MS),
            lingering: VecDeque::new(),
            linger_look_at: clock.now(),
            is_held_up: false,
            has_moved: true,
            moved_at: clock.now(),
            now: clock.now(),
        }
    }

    pub fn id(&self) -> ShardId {
        self.port.own()
    }

    /// From here on nothing is accepted or read; what was read takes its way.
    pub fn stop(&mut self) {
        self.ring.stop_accepting();
        self.shard.begin_shutdown(self.now);
    }

    pub fn disconnect_all(&mut self) {
        self.shard.disconnect_all(self.now);
    }

    /// No turn since the last question received or sent anything, and nothing waits for room in a lane.
    pub fn was_quiet(&mut self) -> bool {
        !std::mem::take(&mut self.has_moved) && !self.is_held_up
    }

    /// Every connected client has been sent what waits for it, or those that have not have taken nothing for `patience_ms`.
    pub fn is_drained(&self, patience_ms: u64) -> bool {
        self.shard.is_drained() || self.now.ms_since(self.moved_at) >= patience_ms
    }

    /// Every connection is closed, also for the kernel.
    pub fn is_empty(&self) -> bool {
        self.shard.connection_count() == 0 && self.ring.socket_count() == 0
    }

    fn wait(&mut self) {
        let now = self.now;
        let linger_look = (!self.lingering.is_empty()).then_some(self.linger_look_at);
        let deadline = [self.shard.poll_timeout(), self.ring.deadline(), linger_look]
            .into_iter()
            .flatten()
            .fold(self.report_due, Instant::min);
        // What a turn left for the next one does not wait for an event.
        let longest_ms = match (self.is_held_up, self.shard.is_idle()) {
            (true, _) => RETRY_MS,
            (false, true) => SLEEP_MAX_MS,
            (false, false) => 0,
        };
        let timeout = Duration::from_millis(deadline.ms_since(now).min(longest_ms));
        self.waiter.wait(&mut self.ring, &self.port, now, timeout);
    }

    fn take_events(&mut self, now: Instant) {
        let Worker { shard, ring, sockets, accepted, gate, .. } = self;
        let mut ended = None;
        loop {
            // The event borrows the ring, so what it asks of the ring is done when it is over.
            if let Some((connection, socket)) = ended.take() {
                sockets.remove(connection);
                if ring.close(socket) {
                    gate.leave();
                }
            }
            let Some(event) = ring.next_event(now) else { break };
            self.has_moved = true;
            match event {
                Event::Received { owner, bytes } => {
                    shard.handle_bytes(now, from_owner(owner), bytes);
                }
                Event::Sent { owner, output } => shard.handle_sent(now, from_owner(owner), output),
                Event::Accepted { socket } => accepted.push(socket),
                Event::AcceptFailed { error } => {
                    debug!("accepting pauses: {error}");
                    shard.counters().accept_backoffs += 1;
                }
                Event::Ended { owner, socket, error } => {
                    if let Some(error) = error {
                        debug!("a connection broke: {error}");
                    }
                    shard.handle_close(now, from_owner(owner));
                    ended = Some((from_owner(owner), socket));
                }
            }
        }
        // The shard gives the index of a connection that it hands over to the next one it opens.
        self.take_handovers();
        let mut accepted = std::mem::take(&mut self.accepted);
        for socket in accepted.drain(..) {
            self.open(now, socket);
        }
        self.accepted = accepted;
    }

    fn open(&mut self, now: Instant, socket: OwnedFd) {
        if !self.gate.enter() {
            self.shard.counters().accepts_refused += 1;
            return;
        }
        if self.adopt(now, socket, None).is_none() {
            self.shard.counters().accepts_refused += 1;
            self.gate.leave();
        }
    }

    fn adopt(
        &mut self,
        now: Instant,
        socket: OwnedFd,
        deadline: Option<Instant>,
    ) -> Option<ConnectionId> {
        let wants_addresses = self.shard.wants_addresses();
        // A peer that is gone already has no address; the first receive will say so.
        let peer = wants_addresses.then(|| peer_address(&socket).ok()).flatten();
        let listener = wants_addresses.then(|| local_address(&socket).ok()).flatten();
        let connection = self.shard.handle_open(now, peer, deadline)?;
        if let Some(listener) = listener {
            self.shard.set_listener(connection, listener);
        }
        let key = self.ring.adopt(socket, to_owner(connection));
        // A connection that may move to another shard has nothing in flight; another need not be asked twice.
        let mode = if self.shard.may_hand_over() { ReadMode::Once } else { ReadMode::Many };
        self.ring.read(key, mode);
        self.sockets.insert(connection, key);
        Some(connection)
    }

    fn take_mail(&mut self, now: Instant) {
        let mut arriving = Vec::new();
        let shard = &mut self.shard;
        self.has_moved |= self.port.receive(|from, item| match item {
            Control::Mail(mail) => shard.handle_mail(now, from, mail),
            Control::Adopt(adoption) => arriving.push(adoption),
        });
        if let Some(bridges) = self.port.bridges() {
            // What cannot be taken now stays in its lane.
            let takes_messages = self.shard.takes_bridge_mail();
            let shard = &mut self.shard;
            self.has_moved |=
                bridges.receive(takes_messages, |mail| shard.handle_bridge_mail(now, mail));
            self.is_held_up |= !takes_messages;
        }
        for adoption in arriving {
            let Adoption { socket, bytes, deadline } = *adoption;
            match self.adopt(now, socket, Some(deadline)) {
                Some(connection) => self.shard.handle_bytes(now, connection, &bytes),
                None => {
                    self.shard.counters().accepts_refused += 1;
                    self.gate.leave();
                }
            }
        }
    }

    fn take_handovers(&mut self) {
        while let Some(handover) = self.shard.poll_handover() {
            let key = self.sockets.remove(handover.connection).expect("it is handed over once");
            let socket =
                self.ring.release(key).expect("a connection in single shot has nothing in flight");
            let adoption = Adoption { socket, bytes: handover.bytes, deadline: handover.deadline };
            self.departing.push_back((handover.shard, Box::new(adoption)));
        }
    }

    fn hand_over(&mut self) {
        self.take_handovers();
        for _ in 0..self.departing.len() {
            let Some((to, adoption)) = self.departing.pop_front() else { break };
            self.has_moved = true;
            if let Err(adoption) = self.port.hand_over(to, adoption) {
                self.is_held_up = true;
                self.departing.push_back((to, adoption));
            }
        }
    }

    fn change_read_modes(&mut self) {
        while let Some((connection, mode)) = self.shard.poll_read_mode() {
            if let Some(key) = self.sockets.get(connection) {
                self.ring.read(key, mode);
            }
        }
    }

    fn send_mail(&mut self) {
        // Lane by lane: acks follow all earlier publishes, whomever those went to.
        for lane in LANES {
            for to in self.shard.mail_receivers() {
                loop {
                    if !self.port.has_room(to, lane) {
                        self.is_held_up = true;
                        break;
                    }
                    let Some(mail) = self.shard.poll_mail(to, lane) else { break };
                    self.has_moved = true;
                    self.port.send(to, lane, mail);
                }
            }
        }
        self.port.ring_bells();
        let Some(bridges) = self.port.bridges() else { return };
        loop {
            if !bridges.has_room() {
                self.is_held_up = true;
                break;
            }
            let Some(mail) = self.shard.poll_bridge_mail() else { break };
            self.has_moved = true;
            bridges.send(mail);
        }
        bridges.wake();
    }

    fn flush(&mut self) {
        // Where there is little to do, a worker sleeps after each message: what has been sent then should not wake it.
        let mut left_now = match self.shard.flush_count() {
            count if count <= SENDS_NOW_MAX => SENDS_NOW_MAX,
            _ => 0,
        };
        while let Some((connection, output)) = self.shard.poll_flush() {
            self.has_moved = true;
            let key = self.sockets.get(connection).expect("the shard flushes what is open");
            if left_now == 0 {
                self.ring.send(key, output);
                continue;
            }
            left_now -= 1;
            if let Some(output) = self.ring.send_now(key, output) {
                self.shard.handle_sent(self.now, connection, output);
            }
        }
    }

    fn close(&mut self) {
        let Worker { shard, ring, sockets, gate, lingering, now, .. } = self;
        while let Some(Close { connection, has_said_all }) = shard.poll_close() {
            self.has_moved = true;
            let Some(key) = sockets.remove(connection) else { continue };
            if !has_said_all && ring.is_unconfirmed(key) && ring.end_sending(key) {
                // A socket that is closed with bytes unread is reset, and what it had to send is thrown away.
                ring.read(key, ReadMode::Many);
                lingering.push_back((key, now.plus_ms(shard.linger_ms())));
            } else if ring.close(key) {
                gate.leave();
            }
        }
        if self.linger_look_at <= *now {
            self.linger_look_at = now.plus_ms(LINGER_LOOK_MS);
            for _ in 0..lingering.len().min(LINGER_LOOKS_MAX) {
                let Some((key, until)) = lingering.pop_front() else { break };
                if until > *now && ring.is_unconfirmed(key) {
                    lingering.push_back((key, until));
                } else if ring.close(key) {
                    gate.leave();
                }
            }
        }
    }

    fn report(&mut self, now: Instant) {
        self.report_due = now.plus_ms(SLEEP_MAX_MS);
        self.shard.counters().receive_rearms = self.ring.receive_rearms();
        let gauges = self.shard.gauges();
        self.report.set(Snapshot {
            counters: self.shard.counters().clone(),
            held_by_stage: gauges.held_by_stage,
            acked_by_stage: gauges.acked_by_stage,
            waiting_bytes: (gauges.stored_bytes + gauges.output_bytes + gauges.retained_bytes)
                as u64,
        });
    }
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn peer_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).peer_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}
