//! The world of a shard's turn: the network, the lanes to other shards and to the bridges.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::SockRef;
use tracing::{debug, error};

use crate::mesh::gate::{Entry, Gate};
use crate::mesh::{Admitted, Adoption, ControlItem, Port};
use crate::net::socket::{SocketTable, from_owner, to_owner};
use crate::net::stalls::Stalls;
use crate::net::{self, Lingering, Network, SocketKey};
use crate::plugin::Answer;
use crate::routing::bridge_mail::{FromBridges, ToBridges};
use crate::shard::{ConnectionId, Lane, Mail, Origin, Output, ReadMode, ShardId};
use crate::time::Instant;
use crate::turn::{Addresses, Event, World};

/// At the end of the process, how often it is asked whether the last bytes of closed connections have arrived, and for how
/// many sockets at most.
const LINGER_LOOK_MS: u64 = 10;
const LINGER_LOOKS_MAX: usize = 256;

/// Bytes of one read of what a socket still holds.
const REST_SIZE: usize = 64 << 10;

pub(super) struct NetWorld<N> {
    pub net: N,
    pub port: Port<Mail>,
    sockets: SocketTable,
    gate: Arc<Gate>,
    /// What the gate was told last.
    connecting_told: usize,
    /// The addresses that sockets are counted under, where addresses are counted.
    origins: HashMap<SocketKey, Origin>,
    /// Connections that came with control mail.
    arriving: VecDeque<Box<Adoption>>,
    /// Connections for shards whose control lane is full.
    departing: VecDeque<(ShardId, Box<Adoption>)>,
    /// Sockets of closed connections.
    pub lingering: Lingering,
    /// The process ends, and with it what lingers: it is not waited until clients close, too, but until they have everything.
    is_ending: bool,
    /// When they are asked for that next.
    linger_look_at: Instant,
    stalls: Stalls,
    /// What `read_rest` has read last; empty until it is called.
    rest: Vec<u8>,
    /// A lane was full in this turn, or something could not be taken from one.
    is_held_up: bool,
    /// Something was received or sent since this was last asked.
    pub has_moved: bool,
    /// The same of mail and of what goes with it.
    pub has_mailed: bool,
    /// When this turn began.
    now: Instant,
}

impl<N: Network> NetWorld<N> {
    pub(super) fn new(
        net: N,
        port: Port<Mail>,
        gate: Arc<Gate>,
        linger_bounds: (u64, usize),
        tcp_rto_max_ms: u32,
        now: Instant,
    ) -> NetWorld<N> {
        NetWorld {
            net,
            port,
            sockets: SocketTable::default(),
            gate,
            connecting_told: 0,
            origins: HashMap::new(),
            arriving: VecDeque::new(),
            departing: VecDeque::new(),
            lingering: Lingering::new(linger_bounds),
            is_ending: false,
            linger_look_at: now,
            stalls: Stalls::new(tcp_rto_max_ms, now),
            rest: Vec::new(),
            is_held_up: false,
            has_moved: true,
            has_mailed: true,
            now,
        }
    }

    /// What has happened until `now` is the next turn's.
    pub(super) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.is_held_up = false;
    }

    /// Nobody rings when what held the last turn up is over.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// When something is to be done that nothing announces.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let looks = self.is_ending && !self.lingering.is_empty();
        let linger_look = looks.then_some(self.linger_look_at);
        let deadlines =
            [self.net.deadline(), linger_look, self.lingering.deadline(), self.stalls.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Closes sockets that have lingered.
    pub(super) fn look_at_lingering(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        if self.is_ending && self.linger_look_at <= self.now {
            self.linger_look_at = self.now.plus_ms(LINGER_LOOK_MS);
            self.lingering.look(self.now, LINGER_LOOKS_MAX, |key| !self.net.is_unconfirmed(key));
        }
        while let Some(key) = self.lingering.poll(self.now) {
            self.drop_socket(key);
        }
    }

    /// The process ends: nobody connects, and nobody is waited for who has all that was sent.
    pub(super) fn begin_ending(&mut self) {
        self.is_ending = true;
        self.lingering.lift_max();
        self.net.stop_accepting();
    }

    /// Looks at connections whose peers may have closed their windows.
    pub(super) fn look_at_stalls(&mut self) {
        self.stalls.look(self.now, &mut self.sockets, &mut self.net);
    }

    /// Bytes that the other side of a connection has confirmed.
    pub(super) fn confirmed(&mut self, connection: ConnectionId) -> u64 {
        self.sockets.get(connection).map_or(0, |key| self.net.confirmed(key))
    }

    /// How many connections of the shard have not said CONNECT, for shards that have none to give a place to another.
    pub(super) fn note_connecting(&mut self, count: usize) {
        if count != self.connecting_told {
            self.connecting_told = count;
            self.gate.note_connecting(self.port.own(), count);
        }
    }

    fn note_mail(&mut self) {
        self.has_moved = true;
        self.has_mailed = true;
    }

    fn drop_socket(&mut self, key: SocketKey) {
        if self.net.close(key) {
            let origin = self.take_origin(key);
            self.gate.leave(origin);
        }
    }

    fn take_origin(&mut self, key: SocketKey) -> Option<Origin> {
        if self.origins.is_empty() { None } else { self.origins.remove(&key) }
    }

    /// Hand-overs whose lane had no room.
    fn depart(&mut self) {
        for _ in 0..self.departing.len() {
            let Some((to, adoption)) = self.departing.pop_front() else { break };
            self.note_mail();
            if let Err(adoption) = self.port.hand_over(to, adoption) {
                self.is_held_up = true;
                self.departing.push_back((to, adoption));
            }
        }
    }
}

impl<N: Network> World for NetWorld<N> {
    type Socket = Admitted;

    fn next_event(&mut self) -> Option<Event<'_, Admitted>> {
        let event = self.net.next_event(self.now)?;
        self.has_moved = true;
        Some(match event {
            net::Event::Received { owner, bytes } => {
                if !self.lingering.is_empty() && !self.is_ending {
                    self.lingering.received(owner, bytes.len());
                }
                Event::Received { connection: from_owner(owner), bytes }
            }
            net::Event::Sent { owner, output } => {
                Event::Sent { connection: from_owner(owner), output }
            }
            net::Event::Accepted { socket, listener } => {
                match self.gate.enter(self.now, || peer_address(&socket).ok()) {
                    Ok(entry) => Event::Accepted { socket: Admitted { socket, entry }, listener },
                    Err(refusal) => {
                        Event::AcceptRefused { refusal, peer: peer_address(&socket).ok() }
                    }
                }
            }
            net::Event::AcceptFailed { error } => {
                debug!("accepting pauses: {error}");
                Event::AcceptFailed
            }
            net::Event::Ended { owner, is_read_out, error } => {
                if let Some(error) = error {
                    debug!("a connection broke: {error}");
                }
                Event::Ended { connection: from_owner(owner), is_read_out }
            }
        })
    }

    fn next_mail(&mut self, lane: Lane) -> Option<(ShardId, Mail)> {
        loop {
            let (from, item) = self.port.next(lane)?;
            self.note_mail();
            match item {
                ControlItem::Mail(mail) => return Some((from, mail)),
                ControlItem::Adopt(adoption) => self.arriving.push_back(adoption),
            }
        }
    }

    fn next_adoption(&mut self) -> Option<Adoption> {
        self.arriving.pop_front().map(|adoption| *adoption)
    }

    fn next_bridge_mail(&mut self, takes_messages: bool) -> Option<FromBridges> {
        let bridges = self.port.bridges()?;
        self.is_held_up |= !takes_messages;
        let mail = bridges.next(takes_messages);
        if mail.is_some() {
            self.note_mail();
        }
        mail
    }

    fn next_answer(&mut self) -> Option<Answer> {
        let answer = self.port.next_answer();
        self.has_moved |= answer.is_some();
        answer
    }

    fn addresses(&self, admitted: &Admitted, with_listener: bool) -> Addresses {
        let socket = &admitted.socket;
        // A peer that is gone already has no address; the first receive will say so.
        let listener = if with_listener { local_address(socket).ok() } else { None };
        Addresses { peer: peer_address(socket).ok(), listener }
    }

    fn peer(&mut self, connection: ConnectionId) -> Option<SocketAddr> {
        let socket = self.net.descriptor(self.sockets.get(connection)?)?;
        SockRef::from(&socket).peer_addr().ok()?.as_socket()
    }

    fn adopt(&mut self, connection: ConnectionId, admitted: Admitted, mode: ReadMode) {
        let Admitted { socket, entry } = admitted;
        let key = self.net.adopt(socket, to_owner(connection));
        if let Some(origin) = entry.origin {
            self.origins.insert(key, origin);
        }
        self.net.read(key, mode);
        self.sockets.insert(connection, key);
    }

    fn refuse(&mut self, admitted: Admitted) {
        drop(admitted.socket);
        self.gate.leave(admitted.entry.origin);
    }

    fn is_over(&self, admitted: &Admitted) -> bool {
        admitted.entry.is_over
    }

    fn cut_lingering(&mut self) -> bool {
        let Some(key) = self.lingering.cut() else { return false };
        self.drop_socket(key);
        true
    }

    fn crowded_shard(&self) -> Option<ShardId> {
        self.gate.most_connecting(self.port.own())
    }

    fn release(&mut self, connection: ConnectionId) -> Admitted {
        let key = self.sockets.remove(connection).expect("it is handed over once");
        let origin = self.take_origin(key);
        let socket = self.net.release(key);
        let socket = socket.expect("a connection in single shot has nothing in flight");
        Admitted { socket, entry: Entry { origin, is_over: false } }
    }

    fn hand_over(&mut self, to: ShardId, adoption: Adoption) {
        self.departing.push_back((to, Box::new(adoption)));
        self.depart();
    }

    fn can_read_rest(&self) -> bool {
        self.net.can_read_rest()
    }

    fn read_rest(&mut self, connection: ConnectionId, size_max: usize) -> Option<&mut [u8]> {
        let key = self.sockets.get(connection)?;
        self.rest.resize(REST_SIZE, 0);
        let wanted = size_max.min(REST_SIZE);
        let size = self.net.read_rest(key, &mut self.rest[..wanted]);
        self.has_moved |= size > 0;
        (size > 0).then(|| &mut self.rest[..size])
    }

    fn read(&mut self, connection: ConnectionId, mode: ReadMode) {
        if let Some(key) = self.sockets.get(connection) {
            self.net.read(key, mode);
        }
    }

    fn has_room(&mut self, to: ShardId, lane: Lane) -> bool {
        let has_room = self.port.has_room(to, lane);
        self.is_held_up |= !has_room;
        has_room
    }

    fn post(&mut self, to: ShardId, lane: Lane, mail: Mail) {
        self.note_mail();
        self.port.send(to, lane, mail);
    }

    fn has_bridge_room(&mut self) -> bool {
        let Some(bridges) = self.port.bridges() else { return false };
        let has_room = bridges.has_room();
        self.is_held_up |= !has_room;
        has_room
    }

    fn post_to_bridges(&mut self, mail: ToBridges) {
        self.note_mail();
        self.port.bridges().expect("they had room").send(mail);
    }

    fn deliver(&mut self) {
        self.depart();
        self.port.ring_bells();
        if let Some(bridges) = self.port.bridges() {
            bridges.wake();
            if bridges.hear_end() && !self.is_ending {
                error!("the bridges have ended before the broker");
            }
        }
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        output: Output,
        may_leave_now: bool,
    ) -> Option<Output> {
        self.has_moved = true;
        let (key, watch) =
            self.sockets.get_watched(connection).expect("the shard flushes what is open");
        self.stalls.note(connection, watch);
        self.net.send(key, output, may_leave_now)
    }

    fn close(&mut self, connection: ConnectionId, may_linger: bool) {
        self.has_moved = true;
        let owner = to_owner(connection);
        let Some(key) = self.sockets.remove(connection) else {
            // It lingered, and its client has closed now, too.
            if let Some(key) = self.lingering.remove(owner) {
                self.drop_socket(key);
            }
            return;
        };
        let lingers = may_linger
            && self.lingering.is_allowed()
            && (!self.is_ending || self.net.is_unconfirmed(key))
            && self.net.end_sending(key);
        if lingers {
            self.net.read(key, ReadMode::Many);
            self.lingering.insert(owner, key, self.now);
        } else {
            self.drop_socket(key);
        }
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
