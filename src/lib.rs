//! RingMQ: an MQTT broker in layers, listed bottom up. Each module uses only those above it in this list.
//!
//! The rooms up to `turn` are deterministic: time and random numbers are parameters, and no loop goes over a hash map
//! where its order could be seen from outside.

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
