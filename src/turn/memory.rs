//! The world in memory: lanes as queues, and sockets as bytes that stand still until somebody moves them.

use std::collections::{BTreeMap, VecDeque};

use super::{Adoption, Event, World};
use crate::shard::bridge_mail::ToBridges;
use crate::shard::{ConnectionId, LANES, Lane, Mail, Output, ReadMode, ShardId};

/// The lanes between all pairs of shards; connections move on the control lanes.
pub struct Lanes<S> {
    /// By receiver, sender and lane.
    queues: Vec<VecDeque<Item<S>>>,
    /// Connections that came with control mail, by receiver.
    arriving: Vec<VecDeque<Adoption<S>>>,
    /// Connections for lanes without room, by sender.
    departing: Vec<VecDeque<(ShardId, Adoption<S>)>>,
    shard_count: usize,
    /// Items that a lane has room for.
    capacity: usize,
}

enum Item<S> {
    Mail(Mail),
    Adopt(Adoption<S>),
}

fn empty<T>(count: usize) -> Vec<VecDeque<T>> {
    (0..count).map(|_| VecDeque::new()).collect()
}

impl<S> Lanes<S> {
    pub fn new(shard_count: usize, capacity: usize) -> Lanes<S> {
        Lanes {
            queues: empty(shard_count * shard_count * LANES.len()),
            arriving: empty(shard_count),
            departing: empty(shard_count),
            shard_count,
            capacity,
        }
    }

    /// As [`World::next_mail`].
    pub fn next_mail(&mut self, to: ShardId, lane: Lane) -> Option<(ShardId, Mail)> {
        for from in 0..self.shard_count as ShardId {
            while let Some(item) = self.queue(from, to, lane).pop_front() {
                match item {
                    Item::Mail(mail) => {
                        assert_eq!(mail.lane(), lane);
                        return Some((from, mail));
                    }
                    Item::Adopt(adoption) => self.arriving[usize::from(to)].push_back(adoption),
                }
            }
        }
        None
    }

    /// As [`World::next_adoption`].
    pub fn next_adoption(&mut self, to: ShardId) -> Option<Adoption<S>> {
        self.arriving[usize::from(to)].pop_front()
    }

    /// Items that a lane still has room for.
    pub fn room(&mut self, from: ShardId, to: ShardId, lane: Lane) -> usize {
        self.capacity.saturating_sub(self.queue(from, to, lane).len())
    }

    pub fn post(&mut self, from: ShardId, to: ShardId, lane: Lane, mail: Mail) {
        assert_ne!(from, to, "a shard sends itself no mail");
        self.queue(from, to, lane).push_back(Item::Mail(mail));
    }

    /// As [`World::hand_over`].
    pub fn hand_over(&mut self, from: ShardId, to: ShardId, adoption: Adoption<S>) {
        self.departing[usize::from(from)].push_back((to, adoption));
        self.depart(from);
    }

    /// Tries hand-overs that found no room again.
    pub fn depart(&mut self, from: ShardId) {
        for (to, adoption) in std::mem::take(&mut self.departing[usize::from(from)]) {
            if self.room(from, to, Lane::Control) > 0 {
                self.queue(from, to, Lane::Control).push_back(Item::Adopt(adoption));
            } else {
                self.departing[usize::from(from)].push_back((to, adoption));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
            && self.arriving.iter().all(VecDeque::is_empty)
            && self.departing.iter().all(VecDeque::is_empty)
    }

    fn queue(&mut self, from: ShardId, to: ShardId, lane: Lane) -> &mut VecDeque<Item<S>> {
        let pair = usize::from(to) * self.shard_count + usize::from(from);
        &mut self.queues[pair * LANES.len() + lane as usize]
    }
}

/// A socket's number; it is not used again.
pub type SocketId = usize;

/// One connection between a client and the shards.
pub struct Socket {
    /// What the client has written and no shard has read.
    pub to_shard: VecDeque<u8>,
    /// What has arrived at the client.
    pub to_client: Vec<u8>,
    /// What shards send stays on its way.
    pub is_stuck: bool,
    /// A shard has it; where, and what it is called there.
    place: Option<(ShardId, ConnectionId)>,
    read_mode: ReadMode,
    on_the_way: Option<Output>,
    /// The client has closed it.
    has_left: bool,
    /// The shards have closed it.
    is_closed: bool,
}

impl Socket {
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The shard that has it, unless it is between shards.
    pub fn shard(&self) -> Option<ShardId> {
        self.place.map(|(shard, _)| shard)
    }

    pub fn is_sending(&self) -> bool {
        self.on_the_way.is_some()
    }
}

/// Sockets and lanes of a whole broker.
pub struct Memory {
    pub sockets: Vec<Socket>,
    pub lanes: Lanes<SocketId>,
    /// What shards sent to the bridges, and which shards did.
    pub to_bridges: Vec<(ShardId, ToBridges)>,
    /// By shard, in the order of their ids.
    tables: Vec<BTreeMap<ConnectionId, SocketId>>,
    accepts: Vec<VecDeque<SocketId>>,
    /// A read brings at most so many bytes.
    read_size: usize,
}

impl Memory {
    pub fn new(shard_count: usize, lane_capacity: usize, read_size: usize) -> Memory {
        Memory {
            sockets: Vec::new(),
            lanes: Lanes::new(shard_count, lane_capacity),
            to_bridges: Vec::new(),
            tables: vec![BTreeMap::new(); shard_count],
            accepts: vec![VecDeque::new(); shard_count],
            read_size,
        }
    }

    /// A client connects to the listener of `shard`.
    pub fn connect(&mut self, shard: ShardId) -> SocketId {
        self.sockets.push(Socket {
            to_shard: VecDeque::new(),
            to_client: Vec::new(),
            is_stuck: false,
            place: None,
            read_mode: ReadMode::Stopped,
            on_the_way: None,
            has_left: false,
            is_closed: false,
        });
        let id = self.sockets.len() - 1;
        self.accepts[usize::from(shard)].push_back(id);
        id
    }

    /// The client writes.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = &mut self.sockets[id];
        if !socket.is_closed && !socket.has_left {
            socket.to_shard.extend(bytes);
        }
    }

    /// The client closes. What it wrote before is read first.
    pub fn leave(&mut self, id: SocketId) {
        self.sockets[id].has_left = true;
    }

    /// Nothing moves by itself any more.
    pub fn is_at_rest(&self) -> bool {
        let rests = |socket: &Socket| {
            socket.is_closed
                || (socket.on_the_way.is_none() || socket.is_stuck)
                    && (socket.read_mode == ReadMode::Stopped
                        || socket.to_shard.is_empty() && !socket.has_left)
        };
        self.lanes.is_empty()
            && self.accepts.iter().all(VecDeque::is_empty)
            && self.sockets.iter().all(rests)
    }

    /// The world of one shard, for one turn.
    pub fn at(&mut self, shard: ShardId) -> MemoryWorld<'_> {
        let index = usize::from(shard);
        let accepts = std::mem::take(&mut self.accepts[index]);
        let sockets = self.tables[index].iter().map(|(connection, id)| (*connection, *id));
        let due = sockets.flat_map(|(connection, id)| {
            [Due::Sent, Due::Read, Due::End].map(|due| (due, connection, id))
        });
        let due = due.collect();
        MemoryWorld { memory: self, shard, accepts, due, lent: Vec::new(), has_moved: false }
    }
}

/// What may have happened to a socket.
#[derive(Clone, Copy)]
enum Due {
    Sent,
    Read,
    End,
}

/// See [`Memory::at`].
pub struct MemoryWorld<'a> {
    memory: &'a mut Memory,
    shard: ShardId,
    accepts: VecDeque<SocketId>,
    /// What is still to be looked at, one read a socket.
    due: VecDeque<(Due, ConnectionId, SocketId)>,
    lent: Vec<u8>,
    /// Something came or went.
    pub has_moved: bool,
}

impl MemoryWorld<'_> {
    fn socket(&mut self, connection: ConnectionId) -> &mut Socket {
        let id = self.memory.tables[usize::from(self.shard)].get(&connection);
        let id = *id.expect("a shard speaks of connections that it has");
        &mut self.memory.sockets[id]
    }

    fn remove(&mut self, connection: ConnectionId) -> SocketId {
        let id = self.memory.tables[usize::from(self.shard)].remove(&connection);
        let id = id.expect("a shard speaks of connections that it has");
        self.memory.sockets[id].place = None;
        id
    }

    /// Whether that has happened; bytes are in `lent` then.
    fn happens(&mut self, due: Due, id: SocketId) -> bool {
        let read_size = self.memory.read_size;
        let socket = &mut self.memory.sockets[id];
        match due {
            Due::Sent => socket.on_the_way.is_some() && !socket.is_stuck,
            Due::Read => {
                self.lent.clear();
                if socket.read_mode != ReadMode::Stopped {
                    let size = socket.to_shard.len().min(read_size);
                    self.lent.extend(socket.to_shard.drain(..size));
                }
                !self.lent.is_empty()
            }
            Due::End => {
                socket.has_left
                    && socket.read_mode != ReadMode::Stopped
                    && socket.to_shard.is_empty()
            }
        }
    }
}

impl World for MemoryWorld<'_> {
    type Socket = SocketId;

    fn next_event(&mut self) -> Option<Event<'_, SocketId>> {
        if let Some(id) = self.accepts.pop_front() {
            self.has_moved = true;
            return Some(Event::Accepted(id));
        }
        loop {
            let (due, connection, id) = self.due.pop_front()?;
            // It may be closed, or on its way to another shard.
            let is_here = self.memory.sockets[id].place == Some((self.shard, connection));
            if !is_here || !self.happens(due, id) {
                continue;
            }
            self.has_moved = true;
            return Some(match due {
                Due::Sent => {
                    let socket = &mut self.memory.sockets[id];
                    let output = socket.on_the_way.take().expect("it was looked at");
                    output.slices().for_each(|slice| socket.to_client.extend_from_slice(slice));
                    Event::Sent { connection, output }
                }
                Due::Read => Event::Received { connection, bytes: &self.lent },
                Due::End => Event::Ended { connection },
            });
        }
    }

    fn next_mail(&mut self, lane: Lane) -> Option<(ShardId, Mail)> {
        let mail = self.memory.lanes.next_mail(self.shard, lane);
        self.has_moved |= mail.is_some();
        mail
    }

    fn next_adoption(&mut self) -> Option<Adoption<SocketId>> {
        self.memory.lanes.next_adoption(self.shard)
    }

    fn adopt(&mut self, connection: ConnectionId, id: SocketId, mode: ReadMode) {
        let before = self.memory.tables[usize::from(self.shard)].insert(connection, id);
        assert_eq!(before, None, "an id is one connection's");
        let socket = &mut self.memory.sockets[id];
        (socket.place, socket.read_mode) = (Some((self.shard, connection)), mode);
    }

    fn refuse(&mut self, id: SocketId) {
        self.memory.sockets[id].is_closed = true;
    }

    fn release(&mut self, connection: ConnectionId) -> SocketId {
        let id = self.remove(connection);
        let socket = &mut self.memory.sockets[id];
        assert!(socket.on_the_way.is_none() && socket.read_mode == ReadMode::Once);
        id
    }

    fn hand_over(&mut self, to: ShardId, adoption: Adoption<SocketId>) {
        self.has_moved = true;
        self.memory.lanes.hand_over(self.shard, to, adoption);
    }

    fn read(&mut self, connection: ConnectionId, mode: ReadMode) {
        self.has_moved = true;
        self.socket(connection).read_mode = mode;
    }

    fn has_room(&mut self, to: ShardId, lane: Lane) -> bool {
        self.memory.lanes.room(self.shard, to, lane) > 0
    }

    fn post(&mut self, to: ShardId, lane: Lane, mail: Mail) {
        self.has_moved = true;
        self.memory.lanes.post(self.shard, to, lane, mail);
    }

    fn post_to_bridges(&mut self, mail: ToBridges) {
        self.has_moved = true;
        self.memory.to_bridges.push((self.shard, mail));
    }

    fn deliver(&mut self) {
        self.memory.lanes.depart(self.shard);
    }

    fn send(&mut self, connection: ConnectionId, output: Output, _: bool) -> Option<Output> {
        self.has_moved = true;
        let socket = self.socket(connection);
        assert!(output.size() > 0, "an output has bytes");
        assert!(socket.on_the_way.replace(output).is_none(), "one output at a time");
        None
    }

    fn close(&mut self, connection: ConnectionId, _: bool) {
        self.has_moved = true;
        let id = self.remove(connection);
        let socket = &mut self.memory.sockets[id];
        socket.is_closed = true;
        // What was sent arrives.
        if let Some(output) = socket.on_the_way.take() {
            output.slices().for_each(|slice| socket.to_client.extend_from_slice(slice));
        }
    }
}
