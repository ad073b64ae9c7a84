//! The memory of all shards of a run as the allocator counts it, held against what their gauges say.
//!
//! Every call into a shard is measured. What the world does within such a call is left out, and what a shard has given away, an
//! output or mail, counts until a shard or `given_back` frees it.

use allocation_counter::{AllocationInfo, measure, opt_out};
use std::cell::RefCell;

thread_local! {
    /// Of the run of this thread.
    static HELD: RefCell<AllocationInfo> = RefCell::default();
}

/// A run begins.
pub(crate) fn begin() {
    HELD.set(AllocationInfo::default());
}

/// A call into a shard.
pub(crate) fn counted<T>(call: impl FnOnce() -> T) -> T {
    let mut result = None;
    let held = measure(|| result = Some(call()));
    HELD.with_borrow_mut(|sum| *sum += held);
    result.expect("it was called")
}

/// What the world does within a call into a shard.
pub(crate) fn uncounted<T>(call: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(call()));
    result.expect("it was called")
}

/// The world frees what a shard gave it.
pub(crate) fn given_back<T>(thing: T) {
    counted(|| drop(thing));
}

/// What all shards hold, with two words that the C library needs for an allocation.
pub(crate) fn held() -> usize {
    HELD.with_borrow(|held| (held.bytes_current + 16 * held.count_current).max(0) as usize)
}
