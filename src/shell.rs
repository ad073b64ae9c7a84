//! The world: io_uring, executors, clock, threads, files, command line.

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
