//! The process: command line, configuration file, checks, launcher, workers, logs, memory, shutdown.
//!
//! `launcher` starts one `worker` a shard, and `links` beside the shards; `executor` runs both. A worker finds its
//! sockets in `net`, its lanes in `mesh`, and hands both to the turn as a `world`. `watch` is the thread that looks
//! after all of them.

mod build_time;
mod calm;
pub mod check;
pub mod cli;
pub mod config_file;
pub mod launcher;
pub mod logs;
pub mod memory;
mod standstill;
mod waiter;
mod watch;
mod worker;
mod world;
