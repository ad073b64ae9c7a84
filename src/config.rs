//! The settings of the whole process that an operator may change: defaults, and the table of keys that describes them.

pub mod bridge;
mod budgets;
pub mod duration;
pub mod keys;
pub mod kind;
pub mod plugin;
pub mod table;
mod url;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

pub use bridge::BridgeSettings;

use self::plugin::PluginSettings;
use crate::limits::{Contradiction, Limits, SHARD_COUNT_MAX, Sizes};

/// Everything that `ringmq serve` runs with. Sizes are in bytes, times as named.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect. Port 0: one free port for all shards.
    pub listen: Vec<SocketAddr>,
    pub tcp: TcpSettings,
    /// The cores that workers are pinned to. Empty: every core of the process's affinity; the shell fills it in before it
    /// launches anything.
    pub cores: Vec<usize>,
    /// 0: one shard a core. More shards than cores share them, round robin.
    pub shards: u16,
    pub io: IoMode,
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
    /// Connections at a time from one address, and within a second; 0: no limit.
    pub connections_per_address_max: usize,
    pub connect_rate_per_address_max: u64,
    /// Time that the process takes at most to end.
    pub shutdown_max_ms: u64,
    /// What one shard is made of.
    pub sizes: Sizes,
    /// The bounds of one shard.
    pub limits: Limits,
    /// What the process may take in all. 0: as the shell finds it, which fills it in before it launches anything; where it
    /// cannot, nothing is looked at.
    pub memory_max: u64,
    /// The longest that a shard may need for a turn; 0: however long.
    pub stall_max_ms: u64,
    pub stall_action: StallAction,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    /// In the order of the configuration.
    pub bridges: Vec<BridgeSettings>,
    /// Where what outlives the process is kept.
    pub data_dir: PathBuf,
    /// In the order in which they are called.
    pub plugins: Vec<PluginSettings>,
}

/// What the kernel is told of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// A client that reads again after a pause hears of it from the next retransmission: without a bound, that may be two
    /// minutes away.
    pub rto_max_ms: u32,
    /// With retransmissions so close together, their number no longer says that a peer is gone; this time does.
    pub user_timeout_ms: u32,
}

/// What shards, bridges and logs do their input and output with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// io_uring, or epoll where io_uring is refused.
    Auto,
    /// io_uring, or nothing.
    Uring,
    Epoll,
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

/// What happens when a shard stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallAction {
    /// The process ends, for its supervisor to start it again.
    End,
    /// The other shards go on.
    Continue,
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
            tcp: TcpSettings { rto_max_ms: 3_000, user_timeout_ms: 3_600_000 },
            cores: Vec::new(),
            shards: 0,
            io: IoMode::Auto,
            wait: WaitMode::Sleep,
            spin_us: 50,
            receive_buffers: 16,
            receive_buffer_size: 64 << 10,
            ring_entries: 1024,
            connections_max: Limits::DEFAULT.connections_max,
            connections_per_address_max: 0,
            connect_rate_per_address_max: 0,
            // systemd ends a service by force after 90 s.
            shutdown_max_ms: 60_000,
            sizes: Sizes::default(),
            limits: Limits::default(),
            memory_max: 0,
            stall_max_ms: 30_000,
            stall_action: StallAction::End,
            log_level: LogLevel::Info,
            log_format: LogFormat::Human,
            bridges: Vec::new(),
            data_dir: PathBuf::from("/var/lib/ringmq"),
            plugins: Vec::new(),
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

    /// Everything that cannot hold together, sizes and limits included. `cores` is filled in.
    pub fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = self.limits.contradictions(&self.sizes);
        let shards = if self.shards > 0 { self.shards as usize } else { self.cores.len() };
        if shards > SHARD_COUNT_MAX {
            found.push(Contradiction {
                keys: vec!["shards", "cores"],
                sentence: format!(
                    "shards (0: one for each of {shards} cores) must be at most {SHARD_COUNT_MAX}: set shards to \
                     {SHARD_COUNT_MAX} or name fewer cores"
                ),
            });
        }
        if self.connections_max > self.limits.sessions_max.saturating_mul(shards.max(1)) {
            found.push(Contradiction {
                keys: vec!["connections_max", "sessions_max"],
                sentence: format!(
                    "connections_max ({}) must be at most sessions_max ({}) on each of {shards} shards: lower the \
                     first or raise the second",
                    self.connections_max, self.limits.sessions_max
                ),
            });
        }
        for (index, one) in self.listen.iter().enumerate() {
            if let Some(other) = self.listen[..index].iter().find(|other| overlap(one, other)) {
                found.push(Contradiction {
                    keys: vec!["listen"],
                    sentence: format!(
                        "listen names {other} and {one}, which are the same place: leave one out"
                    ),
                });
            }
        }
        found
    }
}

/// Whether a connection could mean either.
pub(crate) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::Settings;

    fn check(change: impl FnOnce(&mut Settings), keys: &[&str]) {
        let mut settings = Settings { cores: vec![0, 1], ..Settings::default() };
        change(&mut settings);
        let found = settings.contradictions();
        let named: Vec<_> = found.iter().map(|one| one.keys.as_slice()).collect();
        let expected: &[&[&str]] = if keys.is_empty() { &[] } else { &[keys] };
        assert_eq!(named, expected, "{found:?}");
    }

    fn listen(settings: &mut Settings, addresses: &[&str]) {
        settings.listen = addresses.iter().map(|text| text.parse().unwrap()).collect();
    }

    #[test]
    fn settings_that_cannot_hold_together_are_named() {
        check(|_| {}, &[]);
        check(|s| s.limits.packet_size_max = 8 << 20, &["arena_size", "packet_size_max"]);
        check(|s| s.cores = (0..129).collect(), &["shards", "cores"]);
        check(
            |s| {
                s.cores = (0..129).collect();
                s.shards = 128;
            },
            &[],
        );
        check(|s| s.limits.sessions_max = 49_999, &["connections_max", "sessions_max"]);
        check(|s| s.limits.sessions_max = 50_000, &[]);
    }

    #[test]
    fn addresses_that_overlap_are_a_contradiction() {
        check(|s| listen(s, &["127.0.0.1:1883", "127.0.0.1:1883"]), &["listen"]);
        check(|s| listen(s, &["0.0.0.0:1883", "127.0.0.1:1883"]), &["listen"]);
        check(|s| listen(s, &["[::1]:1883", "[::]:1883"]), &["listen"]);
        check(|s| listen(s, &["0.0.0.0:1883", "[::]:1883"]), &[]);
        check(|s| listen(s, &["127.0.0.1:1883", "127.0.0.1:1884"]), &[]);
        check(|s| listen(s, &["127.0.0.1:0", "127.0.0.1:0"]), &[]);
    }
}
