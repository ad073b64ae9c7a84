//! RingMQ: an MQTT broker in layers, listed bottom up. Each module uses only those above it in this list.
//!
//! The rooms up to `turn` are deterministic: time and random numbers are parameters, and no loop goes over a hash map
//! where its order could be seen from outside. `clippy.toml` bans what would break that; each room of the world says which of
//! its bans it does without.
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_types, clippy::disallowed_methods, clippy::disallowed_macros)
)]

// Plain data.
pub mod random;

pub mod counters;
pub mod gauges;
pub mod hash;
pub mod limits;
pub mod peers;
pub mod printable;
pub mod time;
pub mod work;

pub mod config;

// The deterministic core: no I/O, no clock, no async, no threads.
pub mod arena;
pub mod codec;
pub mod topic;

pub mod bridge;
pub mod store;

pub mod pipeline;
pub mod session;
pub mod transport;

pub mod plugin;
pub mod routing;
pub mod stages;

pub mod shard;
pub mod turn;

// The world: the operating system, threads, sockets, files, the process.
#[cfg(feature = "shell")]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "asks the kernel, the clock and the environment"
)]
pub mod system;

#[cfg(feature = "shell")]
#[expect(clippy::disallowed_types, reason = "hands work to threads and files beside the shards")]
mod executor;
#[cfg(feature = "shell")]
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "is where sockets are")]
pub mod net;

#[cfg(feature = "shell")]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "lets threads wait for each other at start and end, and counts connections of all shards"
)]
mod mesh;

#[cfg(feature = "shell")]
#[expect(clippy::disallowed_types, reason = "is where files are")]
pub mod disk;
#[cfg(feature = "shell")]
#[expect(clippy::disallowed_types, reason = "shares plugins between the shards of a process")]
pub mod plugins;

#[cfg(feature = "shell")]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "runs on one thread beside the shards"
)]
mod links;

#[cfg(feature = "shell")]
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "is the process: its threads, files and settings"
)]
pub mod shell;
