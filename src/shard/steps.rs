//! How much work a shard does, in steps: a session offered; a filter inserted, removed or compared; a message queued, moved
//! or freed; a timer fired; 4 KiB copied; a packet read. Builds with debug assertions count them, for tests; others have other things to do.

use super::Shard;

/// Bytes whose copy is a step, as a power of two.
const COPY_SHIFT: u32 = 12;

/// The steps of copying so many bytes.
#[inline(always)]
pub(super) fn of_bytes(bytes: usize) -> u64 {
    (bytes >> COPY_SHIFT) as u64
}

impl Shard {
    /// Steps since the shard began.
    #[inline(always)]
    pub fn steps(&self) -> u64 {
        self.counters.delivery_steps + self.work()
    }

    /// The same without what messages cost that went to their receivers.
    #[inline(always)]
    fn work(&self) -> u64 {
        self.counters.steps + self.counters.packets_received
    }

    /// Runs a call whose work has a bound, and notes how much it was.
    #[inline(always)]
    pub(super) fn counted<T>(&mut self, call: impl FnOnce(&mut Shard) -> T) -> T {
        if !cfg!(debug_assertions) {
            return call(self);
        }
        let before = self.work();
        let result = call(self);
        // A CONNECT that waits is counted again when it is read again.
        let steps = self.work().saturating_sub(before);
        self.call_steps_most = self.call_steps_most.max(steps);
        result
    }

    /// The most steps that a packet, a timer, a piece of mail or the end of a connection has taken since this was asked
    /// last, deliveries apart: at most `CALL_STEPS_MAX`.
    pub fn take_call_steps_most(&mut self) -> u64 {
        std::mem::take(&mut self.call_steps_most)
    }
}
