//! What a shard says of itself to the one that publishes it for all.

use crate::counters::Counters;
use crate::gauges::Gauges;
use crate::plugin::HookFigures;

/// One shard's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub counters: Counters,
    pub gauges: Gauges,
    pub hooks: Vec<HookFigures>,
    /// Messages that clients were sent and have not acknowledged.
    pub unacknowledged: usize,
}
