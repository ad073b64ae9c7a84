//! The world in memory: shards in one thread, time as a number, sockets and lanes as queues.

use std::collections::HashMap;

use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::{Kind, Value};
use ringmq::shard::{Shard, ShardSettings};
use ringmq::time::Instant;
use ringmq::turn::memory::{self, SocketId};

use crate::runner::{Patience, Received, World};

/// Items that a lane has room for: few, so that shards meet full lanes.
const LANE_ROOM: usize = 2;
/// Rounds of turns after which a world that finds no rest is wrong.
const ROUNDS_MAX: usize = 1_000_000;

pub(crate) struct Memory {
    now: Instant,
    shards: Vec<Shard>,
    memory: memory::Memory,
    sockets: HashMap<String, SocketId>,
    opened: usize,
}

impl Memory {
    pub(crate) fn new(
        shard_count: u16,
        read_size: usize,
        limits: &[(String, u64)],
    ) -> Result<Memory, String> {
        let mut settings = Settings::default();
        for (name, value) in limits {
            let key = Key::find(name).ok_or_else(|| format!("there is no limit {name}"))?;
            let value = match key.kind {
                Kind::Flag => Value::Flag(*value != 0),
                _ => Value::Number(*value),
            };
            key.set(&mut settings, value);
        }
        if let Some(contradiction) = settings.limits.contradiction(&settings.sizes) {
            return Err(contradiction);
        }
        let now = Instant(1_000_000);
        let shard = |id| {
            let (sizes, limits) = (settings.sizes.clone(), settings.limits.clone());
            Shard::new(ShardSettings { id, shard_count, sizes, limits, seed: 7 }, now)
        };
        Ok(Memory {
            now,
            shards: (0..shard_count).map(shard).collect(),
            memory: memory::Memory::new(usize::from(shard_count), LANE_ROOM, read_size),
            sockets: HashMap::new(),
            opened: 0,
        })
    }

    /// What must hold when all is said.
    pub(crate) fn finish(mut self) -> Result<(), String> {
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
        let has_settled = self.memory.settle(&mut self.shards, self.now, ROUNDS_MAX);
        assert!(has_settled, "the shards find no rest");
    }
}

impl World for Memory {
    fn open(&mut self, client: &str) -> Result<(), String> {
        // The kernel spreads connections over the shards.
        let socket = self.memory.connect(self.opened % self.shards.len());
        self.opened += 1;
        self.sockets.insert(client.to_owned(), socket);
        self.settle();
        Ok(())
    }

    fn send(&mut self, client: &str, bytes: &[u8]) {
        self.memory.write(self.sockets[client], bytes);
        self.settle();
    }

    fn receive(&mut self, client: &str, _patience: Patience) -> Received {
        let socket = &mut self.memory.sockets[self.sockets[client]];
        if !socket.to_client.is_empty() {
            return Received::Bytes(std::mem::take(&mut socket.to_client));
        }
        if socket.is_closed() { Received::Closed } else { Received::Nothing }
    }

    fn close(&mut self, client: &str) {
        self.memory.leave(self.sockets[client]);
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
