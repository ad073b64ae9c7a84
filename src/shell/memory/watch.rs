//! Looks at the memory of the process and tells shards and operator when there is little, and when there is enough
//! again.
//!
//! The thread that watches looks at anonymous memory and sockets each 100 ms, near `memory_max`; a shard reads one word
//! a turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::rounded;
use super::usage::{Shortage, Usage};
use crate::shell::watch::Report;
use crate::system::calls::give_back_free_memory;

/// Belongs to the thread that watches.
#[derive(Debug)]
pub struct MemoryWatch {
    max: u64,
    usage: Usage,
    shortage: Shortage,
}

impl MemoryWatch {
    /// `max` is `memory_max`; 0: however much.
    pub fn begin(max: u64) -> MemoryWatch {
        MemoryWatch { max, usage: Usage::begin(), shortage: Shortage::new(max) }
    }

    /// To be called every 100 ms or so.
    pub fn look(&mut self, reports: &[Arc<Report>]) {
        if self.max == 0 {
            return;
        }
        let Some(used) = self.usage.read() else { return };
        if let Some(is_short) = self.shortage.look(used) {
            for report in reports {
                report.is_memory_short.store(is_short, Ordering::Relaxed);
            }
            self.tell(is_short, used);
        }
        // What shards let go of meanwhile.
        if self.shortage.gives_back() {
            give_back_free_memory();
        }
    }

    fn tell(&self, is_short: bool, used: u64) {
        let (used, max) = (rounded(used), rounded(self.max));
        if is_short {
            warn!(
                "{used} of memory are used, near memory_max ({max}): new clients are turned away, and queues and \
                 retained messages do not grow"
            );
        } else {
            info!("{used} of memory are used, of memory_max ({max}): clients are let in again");
        }
    }
}
