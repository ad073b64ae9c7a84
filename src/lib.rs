//! RingMQ: an MQTT broker in layers, listed bottom up. Each module uses only those above it in this list.

// Plain data.
pub mod counters;
pub mod hash;
pub mod limits;
pub mod printable;
pub mod random;
pub mod time;

pub mod config;

// The deterministic core: no I/O, no clock, no async, no threads.
pub mod arena;
pub mod codec;
pub mod topic;

pub mod bridge;
pub mod store;

pub mod pipeline;
pub mod session;
pub mod stages;

pub mod shard;
pub mod turn;

// The world: the operating system, threads, sockets, files, the process.
#[cfg(feature = "shell")]
pub mod system;

#[cfg(feature = "shell")]
mod executor;
#[cfg(feature = "shell")]
pub mod net;

#[cfg(feature = "shell")]
mod mesh;

#[cfg(feature = "shell")]
pub mod disk;
#[cfg(feature = "shell")]
pub mod plugins;

#[cfg(feature = "shell")]
mod links;

#[cfg(feature = "shell")]
pub mod shell;
