//! The process around the core: io_uring and epoll, executors, clock, threads, files, command line.
//!
//! `launcher` starts one `worker` a shard, and `bridges` beside the shards; `executor` runs both. A worker finds its
//! sockets in `net`, its lanes in `mesh`, and hands both to the turn as a `world`. `watch` is the thread that looks
//! after all of them.

mod bridges;
mod build_time;
pub mod calendar;
mod calm;
pub mod check;
#[cfg(test)]
mod child;
pub mod cli;
mod clock;
pub mod config_file;
mod executor;
mod gate;
pub mod io;
mod kernel;
pub mod launcher;
mod listener;
pub mod logs;
pub mod memory;
mod mesh;
pub mod net;
pub mod plugin_abi;
pub mod plugins;
mod shutdown;
mod socket;
pub mod spool;
mod stalls;
mod standstill;
mod waiter;
mod watch;
mod worker;
mod world;
