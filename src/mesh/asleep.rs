//! The handshake that lets a sender ring only for a shard that sleeps, and never misses one.
//!
//! loom checks that no wake-up is lost (`model`); without either fence it finds a lost one.

use super::atomics::{AtomicBool, Ordering, fence};

/// Whether a shard sleeps or is about to.
///
/// The receiver announces its sleep, fences and looks at its lanes; a sender writes to a lane, fences and looks here.
/// One of the two fences is first, so one of the two sees the other's write: either the receiver finds the mail and
/// stays awake, or the sender finds the announcement and rings.
pub(super) struct Asleep(AtomicBool);

impl Asleep {
    pub(super) fn new() -> Asleep {
        Asleep(AtomicBool::new(false))
    }

    /// The receiver calls this before it looks at its lanes for the last time and sleeps.
    pub(super) fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The receiver calls this once it is awake, or when it stays awake.
    pub(super) fn retract(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A sender calls this after it wrote. `true`: this sender must ring now, and other senders need not.
    ///
    /// The answer is final: this may take back an announcement later than the one that was seen, so that only the ring
    /// which follows wakes the receiver.
    pub(super) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = self.0.load(Ordering::Relaxed);
        if asleep {
            self.0.store(false, Ordering::Relaxed);
        }
        asleep
    }
}
