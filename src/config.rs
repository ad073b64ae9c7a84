//! What an operator may set: the settings of the whole process, their defaults and the table of keys that describes them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::limits::Limits;

/// Everything that `ringmq serve` runs with. Sizes are in bytes, times as named.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect. Port 0: one free port for all shards.
    pub listen: Vec<SocketAddr>,
    /// The cores that workers are pinned to. Empty: every core of the process's affinity; the shell fills it in before it
    /// launches anything.
    pub cores: Vec<usize>,
    /// 0: one shard a core. More shards than cores share them, round robin.
    pub shards: u16,
    pub wait: WaitMode,
    /// With `WaitMode::Adaptive`: how long a worker looks for work before it sleeps.
    pub spin_us: u32,
    /// Provided receive buffers of each shard, a power of two.
    pub receive_buffers: u16,
    pub receive_buffer_size: u32,
    /// Submission queue entries of each shard's ring, a power of two.
    pub ring_entries: u32,
    /// Connections of the whole process. `limits.connections_max` has the same value: one shard may happen to hold
    /// them all, so the total is the launcher's to count.
    pub connections_max: usize,
    /// The bounds of one shard.
    pub limits: Limits,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
}

/// How a worker waits for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// In the kernel: costs nothing while idle.
    Sleep,
    /// Never sleeps: for a core that belongs to the broker alone.
    Spin,
    /// Spins for `spin_us`, then sleeps.
    Adaptive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line to read.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            // Loopback only: a broker that lets anyone in must not face a network unless told to.
            listen: vec![SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1883))],
            cores: Vec::new(),
            shards: 0,
            wait: WaitMode::Sleep,
            spin_us: 50,
            receive_buffers: 512,
            receive_buffer_size: 8 << 10,
            ring_entries: 1024,
            connections_max: Limits::DEFAULT.connections_max,
            limits: Limits { connections_max: Limits::DEFAULT.connections_max, ..Limits::default() },
            log_level: LogLevel::Info,
            log_format: LogFormat::Human,
        }
    }
}

impl Settings {
    /// How many shards run: as configured, or one for each core.
    pub fn shard_count(&self) -> u16 {
        if self.shards > 0 { self.shards } else { self.cores.len().max(1) as u16 }
    }

    /// The core that a shard's worker is pinned to.
    pub fn core_of(&self, shard: u16) -> Option<usize> {
        if self.cores.is_empty() {
            return None;
        }
        Some(self.cores[shard as usize % self.cores.len()])
    }
}
