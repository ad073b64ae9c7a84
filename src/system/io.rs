//! The two ways in which this process does its input and output, and the choice between them.
//!
//! The choice is made once, before an executor starts. `auto` tries a ring of the kind that shards use, and takes epoll
//! where the kernel forbids or lacks it: with a warning, a finding of `ringmq check`, and `$SYS/broker/io`. Where
//! a resource has only run out (locked memory, descriptors), the start stops instead.

use std::fmt;

use crate::config::IoMode;
use crate::system::process::Process;
use crate::system::rings::{Refusal, try_io_uring};

/// The way in which shards, bridges and logs do their input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// A ring of the kernel's for each shard; glommio for the tasks beside the shards.
    Uring,
    /// Readiness and system calls; tokio for the tasks beside the shards. This is for systems that refuse io_uring.
    Epoll,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Uring => "io_uring",
            Io::Epoll => "epoll",
        })
    }
}

/// The result of the choice.
#[derive(Clone, Debug)]
pub struct Choice {
    pub io: Io,
    /// Why io_uring was not chosen, if it was tried.
    pub refusal: Option<Refusal>,
}

/// Tries what `mode` asks for, on this machine, as this process. `Err`: it cannot be had, and nothing takes its place.
pub fn choose(mode: IoMode, process: &Process) -> Result<Choice, Refusal> {
    if mode == IoMode::Epoll {
        return Ok(Choice { io: Io::Epoll, refusal: None });
    }
    match try_io_uring(process) {
        Ok(()) => Ok(Choice { io: Io::Uring, refusal: None }),
        Err(refusal) if mode == IoMode::Auto && refusal.is_lasting => {
            Ok(Choice { io: Io::Epoll, refusal: Some(refusal) })
        }
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    static SKIPPED: AtomicU32 = AtomicU32::new(0);

    /// Whether this process may have rings. If they are refused, a line says which test is skipped, why, and how many
    /// were. If a resource has run out, the test itself meets that.
    pub fn has_io_uring() -> bool {
        let Err(refusal) = try_io_uring(&Process::read()) else { return true };
        if !refusal.is_lasting {
            return true;
        }
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        let thread = thread::current();
        let test = thread.name().unwrap_or("a test");
        // A macro would not do: the harness keeps its output to itself. The line is one call, as other threads write,
        // too, and the harness may stand in the middle of a line.
        let line = format!("\nSKIPPED {test}: no io_uring: {} (number {count})\n", refusal.what);
        let _ = io::stderr().write_all(line.as_bytes());
        false
    }
}
