//! The kernel's tick: a clock that costs a few nanoseconds to read, for what happens with every message.

use nix::time::{ClockId, clock_getres, clock_gettime};
use std::sync::OnceLock;

/// The time since the machine started, milliseconds, as of the last tick.
#[inline]
pub(super) fn now_ms() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) {
        Ok(time) => time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000,
        // The clock is as old as the kernel's io_uring and older.
        Err(_) => 0,
    }
}

/// How far two readings may be off, milliseconds.
pub(super) fn resolution_ms() -> u64 {
    static RESOLUTION_MS: OnceLock<u64> = OnceLock::new();
    *RESOLUTION_MS.get_or_init(|| match clock_getres(ClockId::CLOCK_MONOTONIC_COARSE) {
        Ok(time) => (time.tv_nsec() as u64).div_ceil(1_000_000).max(1),
        Err(_) => 10,
    })
}
