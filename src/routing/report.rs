//! The figures of a shard, for the shard that publishes them for all.

use crate::counters::Counters;
use crate::gauges::Gauges;
use crate::plugin::HookFigures;

/// One shard's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub counters: Counters,
    pub gauges: Gauges,
    pub hooks: Vec<HookFigures>,
    /// How many messages clients were sent and have not acknowledged.
    pub unacknowledged: usize,
}
