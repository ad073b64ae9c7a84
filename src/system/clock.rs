//! The one clock of the process.

use std::time;

use crate::time::Instant;

/// Milliseconds since the process began, the same on every shard. Each shard reads it once a turn.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: time::Instant,
}

impl Clock {
    pub fn new() -> Clock {
        Clock { epoch: time::Instant::now() }
    }

    pub fn now(&self) -> Instant {
        Instant(self.epoch.elapsed().as_millis() as u64)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
