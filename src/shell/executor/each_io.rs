//! Tests that need an executor run on each backend, io_uring's left out where the kernel refuses it.

use std::io::{self, Write};
use std::thread;

use glommio::Placement;
use io_uring::IoUring;
use libc::{EACCES, ENOSYS, EPERM};

use super::{Here, epoll, uring};
use crate::shell::child::bounded;
use crate::shell::io::Io;

pub fn for_each_io(mut check: impl FnMut(Io)) {
    if has_uring() {
        check(Io::Uring);
    }
    check(Io::Epoll);
}

/// Whether the kernel makes rings for this process; where it does not, says which test is skipped.
pub fn has_uring() -> bool {
    let Err(error) = IoUring::new(2) else { return true };
    if !matches!(error.raw_os_error(), Some(EPERM | EACCES | ENOSYS)) {
        // It is not refused: whatever it is, the test should meet it.
        return true;
    }
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not by a macro, whose output the harness keeps to itself; in one call, as others write too. The
    // harness may stand in the middle of a line.
    let line = format!("\nSKIPPED {test} on io_uring: {error}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    false
}

/// Runs `work` and its tasks on an executor on this thread.
pub fn run<T>(io: Io, work: impl Future<Output = T>) -> T {
    bounded(|| match io {
        Io::Uring => {
            let executor = uring::builder(Placement::Unbound).io_memory(64 << 10).ring_depth(32);
            let executor = executor.make().expect("an executor");
            let _entered = Here::Uring.enter();
            executor.run(work)
        }
        Io::Epoll => epoll::run(epoll::runtime("test").expect("a runtime"), work),
    })
}
