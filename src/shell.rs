//! The world: io_uring, executors, clock, threads, files, command line.

pub mod check;
pub mod cli;
pub mod config_file;
pub mod logs;
mod mesh;
mod ring;
