//! The world in memory: shards in one thread, time as a number, sockets and lanes as queues.

use std::collections::{HashMap, VecDeque};

use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::Value;
use ringmq::shard::{ConnectionId, LANES, Lane, Mail, ReadMode, Shard, ShardId, ShardSettings};
use ringmq::time::Instant;

use crate::runner::{Patience, Received, World};

/// Items that a lane has room for: few, so that shards meet full lanes.
const LANE_ROOM: usize = 2;
/// Reads from one socket in a turn.
const READS_MAX: usize = 100;
/// Turns after which a world that finds no rest is wrong.
const TURNS_MAX: usize = 1_000_000;

pub struct Memory {
    now: Instant,
    shards: Vec<Shard>,
    /// `(from, to, lane)`
    lanes: HashMap<(ShardId, ShardId, usize), VecDeque<Mail>>,
    sockets: HashMap<String, Socket>,
    opened: usize,
    /// A read brings at most this many bytes.
    read_size: usize,
}

struct Socket {
    shard: usize,
    /// `None` once it is closed.
    id: Option<ConnectionId>,
    read_mode: ReadMode,
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    /// The client has closed: told to the shard once it has read everything.
    is_closing: bool,
}

impl Memory {
    pub fn new(
        shard_count: u16,
        read_size: usize,
        limits: &[(String, u64)],
    ) -> Result<Memory, String> {
        let mut settings = Settings::default();
        for (name, value) in limits {
            let key = Key::find(name).ok_or_else(|| format!("there is no limit {name}"))?;
            key.set(&mut settings, Value::Number(*value));
        }
        if let Some(contradiction) = settings.limits.contradiction() {
            return Err(contradiction);
        }
        let now = Instant(1_000_000);
        let shard = |id| {
            let limits = settings.limits.clone();
            Shard::new(ShardSettings { id, shard_count, limits, seed: 7 }, now)
        };
        Ok(Memory {
            now,
            shards: (0..shard_count).map(shard).collect(),
            lanes: HashMap::new(),
            sockets: HashMap::new(),
            opened: 0,
            read_size,
        })
    }

    /// What must hold when all is said.
    pub fn finish(mut self) -> Result<(), String> {
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if !shard.is_idle() {
                return Err(format!("shard {index} is not idle at rest"));
            }
            let stale = shard.counters().stale_reads;
            if stale > 0 {
                return Err(format!("shard {index} read {stale} stale handles"));
            }
        }
        Ok(())
    }

    /// Turns until nothing is left to do at this point in time.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut has_moved = false;
            for index in 0..self.shards.len() {
                has_moved |= self.turn(index);
            }
            if !has_moved && self.shards.iter().all(Shard::is_idle) {
                return;
            }
        }
        panic!("the shards find no rest");
    }

    /// One turn of one shard; whether anything came or went.
    fn turn(&mut self, index: usize) -> bool {
        let now = self.now;
        let mut has_moved = self.feed(index);
        // Control mail of all shards first, as the worker takes it.
        for lane in (0..LANES.len()).rev() {
            for from in 0..self.shards.len() as ShardId {
                let mail = self.lanes.remove(&(from, index as ShardId, lane)).unwrap_or_default();
                has_moved |= !mail.is_empty();
                mail.into_iter().for_each(|mail| self.shards[index].handle_mail(now, from, mail));
            }
        }
        let shard = &mut self.shards[index];
        if shard.poll_timeout().is_some_and(|deadline| deadline <= now) {
            shard.handle_timeout(now);
            has_moved = true;
        }
        shard.run_stages(now);
        self.drain(index) | has_moved
    }

    /// Hands in what the sockets of a shard bring: some reads for each.
    fn feed(&mut self, index: usize) -> bool {
        let mut has_moved = false;
        let mut names: Vec<String> = self.sockets.keys().cloned().collect();
        names.sort();
        for name in names {
            for _ in 0..READS_MAX {
                let moved = self.read(index, &name);
                has_moved |= moved;
                if !moved {
                    break;
                }
            }
        }
        has_moved
    }

    /// One read from a socket of a shard, or the news that it was closed.
    fn read(&mut self, index: usize, name: &str) -> bool {
        let socket = self.sockets.get_mut(name).unwrap();
        let Some(id) = socket.id.filter(|_| socket.shard == index) else { return false };
        if socket.read_mode != ReadMode::Stopped && !socket.to_server.is_empty() {
            let size = socket.to_server.len().min(self.read_size);
            let bytes: Vec<u8> = socket.to_server.drain(..size).collect();
            self.shards[index].handle_bytes(self.now, id, &bytes);
            // A hand-over must be looked for before the next read.
            self.move_connections(index);
            return true;
        }
        if !socket.is_closing {
            return false;
        }
        socket.id = None;
        self.shards[index].handle_close(self.now, id);
        true
    }

    /// Does all that a shard says.
    fn drain(&mut self, index: usize) -> bool {
        let now = self.now;
        let mut has_moved = self.move_connections(index);
        while let Some((id, mode)) = self.shards[index].poll_read_mode() {
            if let Some(socket) = self.socket(index, id) {
                socket.read_mode = mode;
            }
            has_moved = true;
        }
        for to in 0..self.shards.len() as ShardId {
            for (number, lane) in LANES.into_iter().enumerate() {
                has_moved |= self.post(index, to, number, lane);
            }
        }
        while let Some((id, output)) = self.shards[index].poll_flush() {
            if let Some(socket) = self.socket(index, id) {
                output.slices().for_each(|slice| socket.to_client.extend_from_slice(slice));
            }
            self.shards[index].handle_sent(now, id, output);
            has_moved = true;
        }
        while let Some(id) = self.shards[index].poll_close().map(|close| close.connection) {
            if let Some(socket) = self.socket(index, id) {
                socket.id = None;
            }
            has_moved = true;
        }
        has_moved
    }

    fn post(&mut self, from: usize, to: ShardId, number: usize, lane: Lane) -> bool {
        let queue = self.lanes.entry((from as ShardId, to, number)).or_default();
        let mut has_moved = false;
        while queue.len() < LANE_ROOM
            && let Some(mail) = self.shards[from].poll_mail(to, lane)
        {
            queue.push_back(mail);
            has_moved = true;
        }
        has_moved
    }

    /// Moves connections to the shards of their clients, with the bytes that were read.
    fn move_connections(&mut self, index: usize) -> bool {
        let mut has_moved = false;
        while let Some(handover) = self.shards[index].poll_handover() {
            let to = usize::from(handover.shard);
            let id = self.shards[to].handle_open(self.now, None, Some(handover.deadline));
            let socket =
                self.socket(index, handover.connection).expect("a connection that is known");
            socket.shard = to;
            socket.id = id;
            socket.read_mode = ReadMode::Once;
            if let Some(id) = id {
                self.shards[to].handle_bytes(self.now, id, &handover.bytes);
            }
            has_moved = true;
        }
        has_moved
    }

    fn socket(&mut self, shard: usize, id: ConnectionId) -> Option<&mut Socket> {
        self.sockets.values_mut().find(|socket| socket.shard == shard && socket.id == Some(id))
    }
}

impl World for Memory {
    fn open(&mut self, client: &str) -> Result<(), String> {
        // The kernel spreads connections over the shards.
        let shard = self.opened % self.shards.len();
        self.opened += 1;
        let id = self.shards[shard].handle_open(self.now, None, None);
        let socket = Socket {
            shard,
            id,
            read_mode: ReadMode::Once,
            to_server: VecDeque::new(),
            to_client: Vec::new(),
            is_closing: false,
        };
        self.sockets.insert(client.to_owned(), socket);
        self.settle();
        Ok(())
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        self.sockets.get_mut(client).unwrap().to_server.extend(bytes);
        self.settle();
    }

    fn receive(&mut self, client: &str, _patience: Patience) -> Received {
        let socket = self.sockets.get_mut(client).unwrap();
        if !socket.to_client.is_empty() {
            return Received::Bytes(std::mem::take(&mut socket.to_client));
        }
        if socket.id.is_none() { Received::Closed } else { Received::Nothing }
    }

    fn close(&mut self, client: &str) {
        self.sockets.get_mut(client).unwrap().is_closing = true;
        self.settle();
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let deadline = self.shards.iter().filter_map(Shard::poll_timeout).min();
            match deadline {
                Some(deadline) if deadline <= end => self.now = self.now.max(deadline),
                _ => break,
            }
            self.settle();
        }
        self.now = end;
        self.settle();
    }
}
