//! The memory and tools with which all sessions of a shard send and keep messages.

use super::{BufferPool, Context, DropLog, EncodedOnce, Totals};
use crate::arena::Gauge;
use crate::counters::Counters;
use crate::limits::Limits;
use crate::time::Instant;

/// Buffers, encodings for several receivers, the gauge of stored messages, and the log of drops.
#[derive(Debug)]
pub struct Delivery {
    /// Messages in session queues and in flight.
    pub stored: Gauge,
    /// Output buffers.
    pub pool: BufferPool,
    encoded: EncodedOnce,
    pub drops: DropLog,
}

impl Delivery {
    pub fn new(totals: &Totals) -> Delivery {
        Delivery {
            stored: totals.stored.clone(),
            pool: BufferPool::default(),
            encoded: EncodedOnce::default(),
            drops: DropLog::default(),
        }
    }

    /// The context of one call into a session.
    #[inline(always)]
    pub fn context<'a>(
        &'a mut self,
        now: Instant,
        limits: &'a Limits,
        counters: &'a mut Counters,
    ) -> Context<'a> {
        let Delivery { stored, pool, encoded, drops } = self;
        Context { now, limits, counters, stored, pool, encoded, drops }
    }
}
