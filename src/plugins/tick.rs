//! The kernel's tick: a clock that takes a few nanoseconds to read, for work that is done with every message.

use std::sync::OnceLock;

use rustix::time::{ClockId, clock_getres, clock_gettime};

/// The time since the machine started, milliseconds, as of the last tick.
#[inline]
pub(super) fn now_ms() -> u64 {
    // The clock is older than io_uring, so every kernel that runs the broker has it.
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// How many milliseconds two readings may be off.
pub(super) fn resolution_ms() -> u64 {
    static RESOLUTION_MS: OnceLock<u64> = OnceLock::new();
    *RESOLUTION_MS.get_or_init(|| {
        let time = clock_getres(ClockId::MonotonicCoarse);
        (time.tv_nsec as u64).div_ceil(1_000_000).max(1)
    })
}
