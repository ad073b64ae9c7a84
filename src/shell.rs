//! The process: command line, configuration file, checks, launcher, workers, logs, memory, shutdown.

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
