//! The counts of the memory that clients cause on a shard; `store`, `metadata` and `shortage` say what happens where a budget ends.

use super::discards::Discards;
use super::metadata::Metadata;
use super::store::Store;
use crate::arena::Gauge;
use crate::limits::Limits;
use crate::session::{OutputTotal, Totals};

/// Gauges and budgets of a shard, one for each kind of memory.
pub(super) struct Memory {
    /// The store of waiting messages: the clients that fill it, and the publishers that wait for it.
    pub store: Store,
    pub metadata: Metadata,
    pub discards: Discards,
    pub will_bytes: Gauge,
    /// Bytes of all output buffers.
    pub output_total: OutputTotal,
    /// Memory of clients' input that cannot be used yet.
    pub frame_bytes: Gauge,
    /// Memory of CONNECTs of which a part has arrived.
    pub connect_bytes: Gauge,
    /// While the process is short of memory: the bounds that return when it no longer is.
    pub limits_with_memory: Option<Box<Limits>>,
}

impl Memory {
    pub(super) fn new(totals: &Totals) -> Memory {
        let Totals { connect_input, output, metadata, .. } = totals.clone();
        Memory {
            store: Store::default(),
            metadata: Metadata::new(metadata),
            discards: Discards::default(),
            will_bytes: Gauge::default(),
            output_total: output,
            frame_bytes: Gauge::default(),
            connect_bytes: connect_input,
            limits_with_memory: None,
        }
    }
}
