//! The handshake that wakes the task of a side, and never misses it.
//!
//! loom checks the order of registering and looking (`model`), on a waker of its own in place of the crate's.

use std::task::{Context, Poll};

use super::atomics::AtomicWaker;

/// Where a side's task leaves its waker, and senders call it.
pub(super) struct Summons(AtomicWaker);

impl Summons {
    pub(super) fn new() -> Summons {
        Summons(AtomicWaker::new())
    }

    /// Ready when there is mail; else the task will be woken.
    pub(super) fn poll(
        &self,
        context: &mut Context<'_>,
        has_mail: impl FnOnce() -> bool,
    ) -> Poll<()> {
        self.0.register(context.waker());
        // Behind the registration: the look sees what was sent before it, and what is sent later wakes.
        match has_mail() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// A sender calls this after it wrote.
    pub(super) fn call(&self) {
        self.0.wake();
    }
}
