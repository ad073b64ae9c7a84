//! An eventfd: what a thread rings so that a ring's completion wakes another.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Rung by any thread, watched by one ring. Nobody reads it: a watch is edge triggered, and its 64-bit count of rings
/// cannot overflow within the life of a process.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: needed because std has no eventfd. Sound because the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: needed to own a descriptor that came from libc. Sound because it is new and nobody else has it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
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
