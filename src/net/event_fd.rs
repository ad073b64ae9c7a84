//! An eventfd: what a thread rings so that another one's wait ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};

/// Rung by any thread, watched by one. Nobody reads it: a watch is edge triggered, and its 64-bit count of rings
/// cannot overflow within the life of a process.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(EventFd(File::from(fd)))
    }

    pub fn ring(&self) {
        (&self.0).write_all(&1u64.to_ne_bytes()).expect("an eventfd takes 2^64 - 2 rings");
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
