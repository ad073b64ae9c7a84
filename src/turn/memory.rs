//! The world in memory: lanes as queues, and sockets as bytes that stand still until a test moves them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::{Addresses, Adoption, Event, Step, World, advance, turn};
use crate::routing::bridge_mail::{FromBridges, ToBridges};
use crate::shard::{ConnectionId, LANES, Lane, ListenerId, Mail, Output, ReadMode, Shard, ShardId};
use crate::time::Instant;

/// The lanes between all pairs of shards; connections move on the control lanes.
pub struct Lanes<S> {
    /// By receiver, sender and lane.
    queues: Vec<VecDeque<Item<S>>>,
    /// Connections that came with control mail, by receiver.
    arriving: Vec<VecDeque<Adoption<S>>>,
    /// Connections for lanes without room, by sender.
    departing: Vec<VecDeque<(ShardId, Adoption<S>)>>,
    /// By receiver: the sender whose lane is looked at next.
    next_from: Vec<ShardId>,
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
            next_from: vec![0; shard_count],
            shard_count,
            capacity,
        }
    }

    /// As [`World::next_mail`], sender by sender.
    pub fn next_mail(&mut self, to: ShardId, lane: Lane) -> Option<(ShardId, Mail)> {
        let first = std::mem::take(&mut self.next_from[usize::from(to)]);
        for from in first..self.shard_count as ShardId {
            while let Some(item) = self.queue(from, to, lane).pop_front() {
                match item {
                    Item::Mail(mail) => {
                        assert_eq!(mail.lane(), lane);
                        self.next_from[usize::from(to)] = from;
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

    /// What is on its way, about.
    pub fn bytes(&self) -> usize {
        let size = |item: &Item<S>| match item {
            Item::Mail(mail) => mail.size(),
            Item::Adopt(adoption) => adoption.bytes.len(),
        };
        let adoptions = self.arriving.iter().flatten();
        let departing = self.departing.iter().flatten().map(|(_, adoption)| adoption);
        let adopted: usize = adoptions.chain(departing).map(|one| one.bytes.len()).sum();
        adopted + self.queues.iter().flatten().map(size).sum::<usize>()
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

/// Reads that a socket brings in a turn.
const READS_MAX: usize = 10_000;

/// One connection between a client and the shards.
pub struct Socket {
    /// Where the client is.
    peer: Option<SocketAddr>,
    /// What the client has written and no shard has read, write by write.
    to_shard: VecDeque<Vec<u8>>,
    /// How much of the first write was read.
    read_count: usize,
    /// What has arrived at the client.
    pub to_client: Vec<u8>,
    /// What shards send stays on its way.
    pub is_stuck: bool,
    /// A shard has it; where, and what it is called there.
    place: Option<(ShardId, ConnectionId)>,
    read_mode: ReadMode,
    on_the_way: Option<Output>,
    client: ClientEnd,
    /// The shards have closed it.
    is_closed: bool,
}

/// The client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientEnd {
    Open,
    /// Closed: told to who reads it to its end.
    Closed,
    /// Broken: told also where it is not read.
    Broken,
}

impl Socket {
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The shard that has it, unless it is between shards.
    pub fn shard(&self) -> Option<ShardId> {
        self.place.map(|(shard, _)| shard)
    }

    /// The shard that has it, and what that calls it.
    pub fn place(&self) -> Option<(ShardId, ConnectionId)> {
        self.place
    }

    pub fn is_sending(&self) -> bool {
        self.on_the_way.is_some()
    }

    /// Something is to be read.
    fn is_readable(&self) -> bool {
        self.read_mode != ReadMode::Stopped && !self.to_shard.is_empty()
    }

    /// The client's end is to be told.
    fn is_at_end(&self) -> bool {
        match self.client {
            ClientEnd::Open => false,
            ClientEnd::Closed => self.read_mode != ReadMode::Stopped && self.to_shard.is_empty(),
            ClientEnd::Broken => self.read_mode == ReadMode::Stopped || self.to_shard.is_empty(),
        }
    }

    fn has_sent(&self) -> bool {
        self.on_the_way.is_some() && !self.is_stuck
    }

    /// One read: of one write of the client, as much as `size_max`.
    fn read(&mut self, size_max: usize) -> Vec<u8> {
        let write = self.to_shard.front().expect("something is to be read");
        let left = &write[self.read_count..];
        let bytes = left[..left.len().min(size_max)].to_vec();
        self.read_count += bytes.len();
        if self.read_count == write.len() {
            self.to_shard.pop_front();
            self.read_count = 0;
        }
        bytes
    }

    /// What is on its way arrives.
    fn arrive(&mut self) -> Output {
        let output = self.on_the_way.take().expect("something is on its way");
        output.slices().for_each(|slice| self.to_client.extend_from_slice(slice));
        output
    }
}

/// Sockets and lanes of a whole broker.
pub struct Memory {
    pub sockets: Vec<Socket>,
    /// What shards sent to the bridges, and which shards did.
    pub to_bridges: Vec<(ShardId, ToBridges)>,
    /// Where clients come from.
    pub peer: Option<SocketAddr>,
    /// By shard.
    from_bridges: Vec<VecDeque<FromBridges>>,
    lanes: Lanes<SocketId>,
    /// By shard, in the order of their ids.
    tables: Vec<BTreeMap<ConnectionId, SocketId>>,
    accepts: Vec<VecDeque<(SocketId, ListenerId)>>,
    /// A read brings at most so many bytes.
    read_size: usize,
}

impl Memory {
    pub fn new(shard_count: usize, lane_capacity: usize, read_size: usize) -> Memory {
        Memory {
            sockets: Vec::new(),
            to_bridges: Vec::new(),
            peer: None,
            from_bridges: empty(shard_count),
            lanes: Lanes::new(shard_count, lane_capacity),
            tables: vec![BTreeMap::new(); shard_count],
            accepts: empty(shard_count),
            read_size,
        }
    }

    /// A client connects to the listener of `shard`.
    pub fn connect(&mut self, shard: usize) -> SocketId {
        self.connect_from(shard, None)
    }

    /// The same for a client that is there.
    pub fn connect_from(&mut self, shard: usize, peer: Option<SocketAddr>) -> SocketId {
        self.connect_to(shard, ListenerId::default(), peer)
    }

    /// The same through a listener of many.
    pub fn connect_to(
        &mut self,
        shard: usize,
        listener: ListenerId,
        peer: Option<SocketAddr>,
    ) -> SocketId {
        self.sockets.push(Socket {
            peer,
            to_shard: VecDeque::new(),
            read_count: 0,
            to_client: Vec::new(),
            is_stuck: false,
            place: None,
            read_mode: ReadMode::Stopped,
            on_the_way: None,
            client: ClientEnd::Open,
            is_closed: false,
        });
        let id = self.sockets.len() - 1;
        self.accepts[shard].push_back((id, listener));
        id
    }

    /// The client writes.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = &mut self.sockets[id];
        if !socket.is_closed && socket.client == ClientEnd::Open && !bytes.is_empty() {
            socket.to_shard.push_back(bytes.to_vec());
        }
    }

    /// The client closes. What it wrote before is read first.
    pub fn leave(&mut self, id: SocketId) {
        self.sockets[id].client = ClientEnd::Closed;
    }

    /// The connection breaks. What the client wrote before is read first.
    pub fn lose(&mut self, id: SocketId) {
        self.sockets[id].client = ClientEnd::Broken;
    }

    /// The bridges send to a shard.
    pub fn send_from_bridges(&mut self, shard: usize, mail: FromBridges) {
        self.from_bridges[shard].push_back(mail);
    }

    /// One turn of one shard; whether anything came or went.
    pub fn turn(&mut self, shards: &mut [Shard], index: usize, now: Instant) -> bool {
        let mut world = self.world(index);
        turn(&mut shards[index], &mut world, now);
        world.has_moved
    }

    /// One step of a turn of one shard; others may run before the next one.
    pub fn advance(&mut self, step: Step, shards: &mut [Shard], index: usize, now: Instant) {
        advance(step, &mut shards[index], &mut self.world(index), now);
    }

    /// Turns of all shards at one time, until nothing moves by itself. `false`: that is not so after `rounds_max`.
    pub fn settle(&mut self, shards: &mut [Shard], now: Instant, rounds_max: usize) -> bool {
        (0..rounds_max).any(|_| {
            let mut has_moved = false;
            for index in 0..shards.len() {
                has_moved |= self.turn(shards, index, now);
            }
            !has_moved && self.is_at_rest() && shards.iter().all(Shard::is_idle)
        })
    }

    /// Nothing moves by itself any more, as far as it is not the shards' own.
    pub fn is_at_rest(&self) -> bool {
        let moves = |socket: &Socket| {
            let may_move = socket.has_sent() || socket.is_readable() || socket.is_at_end();
            may_move && !socket.is_closed
        };
        self.lanes.is_empty()
            && self.accepts.iter().all(VecDeque::is_empty)
            && !self.sockets.iter().any(moves)
    }

    /// The world of one shard, for a turn or a step of it.
    fn world(&mut self, index: usize) -> MemoryWorld<'_> {
        let sockets = self.tables[index].iter().map(|(connection, id)| (*connection, *id));
        let due = sockets.map(|(connection, id)| Due { connection, id, reads: 0 }).collect();
        let shard = index as ShardId;
        MemoryWorld { memory: self, shard, due, lent: Vec::new(), has_moved: false }
    }
}

/// A socket that is still to be looked at in a turn.
struct Due {
    connection: ConnectionId,
    id: SocketId,
    /// What it has brought.
    reads: usize,
}

/// One shard's view of a [`Memory`] in one turn.
struct MemoryWorld<'a> {
    memory: &'a mut Memory,
    shard: ShardId,
    due: VecDeque<Due>,
    lent: Vec<u8>,
    /// Something came or went.
    has_moved: bool,
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
}

impl World for MemoryWorld<'_> {
    type Socket = SocketId;

    fn next_event(&mut self) -> Option<Event<'_, SocketId>> {
        let accept = self.memory.accepts[usize::from(self.shard)].pop_front();
        if let Some((socket, listener)) = accept {
            self.has_moved = true;
            return Some(Event::Accepted { socket, listener });
        }
        loop {
            let Due { connection, id, reads } = *self.due.front()?;
            let socket = &mut self.memory.sockets[id];
            // Its shard may have closed it meanwhile.
            let is_here = socket.place == Some((self.shard, connection));
            let reads_max = if socket.read_mode == ReadMode::Once { 1 } else { READS_MAX };
            if is_here && socket.has_sent() {
                self.has_moved = true;
                return Some(Event::Sent { connection, output: socket.arrive() });
            }
            if is_here && socket.is_readable() && reads < reads_max {
                self.has_moved = true;
                self.lent = socket.read(self.memory.read_size);
                self.due[0].reads += 1;
                return Some(Event::Received { connection, bytes: &mut self.lent });
            }
            self.due.pop_front();
            // A single read brings bytes or the end, not both.
            if is_here && socket.is_at_end() && reads < reads_max {
                self.has_moved = true;
                let is_read_out = socket.to_shard.is_empty();
                return Some(Event::Ended { connection, is_read_out });
            }
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

    fn next_bridge_mail(&mut self, takes_messages: bool) -> Option<FromBridges> {
        let lane = &mut self.memory.from_bridges[usize::from(self.shard)];
        let may_come =
            |mail: &FromBridges| takes_messages || !matches!(mail, FromBridges::Publish { .. });
        let place = lane.iter().position(may_come)?;
        self.has_moved = true;
        lane.remove(place)
    }

    fn addresses(&self, id: &SocketId, _: bool) -> Addresses {
        let peer = self.memory.sockets[*id].peer.or(self.memory.peer);
        Addresses { peer, listener: None }
    }

    fn peer(&mut self, _connection: ConnectionId) -> Option<SocketAddr> {
        self.memory.peer
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
        let socket = &self.memory.sockets[id];
        assert!(socket.on_the_way.is_none() && socket.read_mode == ReadMode::Once);
        id
    }

    fn hand_over(&mut self, to: ShardId, adoption: Adoption<SocketId>) {
        self.has_moved = true;
        self.memory.lanes.hand_over(self.shard, to, adoption);
    }

    fn read_rest(&mut self, connection: ConnectionId, size_max: usize) -> Option<&mut [u8]> {
        let id = *self.memory.tables[usize::from(self.shard)].get(&connection)?;
        let socket = &mut self.memory.sockets[id];
        if socket.to_shard.is_empty() || size_max == 0 {
            return None;
        }
        self.has_moved = true;
        self.lent = socket.read(self.memory.read_size.min(size_max));
        Some(&mut self.lent)
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
        if socket.has_sent() {
            socket.arrive();
        }
    }
}
