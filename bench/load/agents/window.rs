//! How far messages between agents have got: the reports that an agent gets about its own publishers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::split::Part;
use crate::engine::control::Shared;

/// How far the publishers here have got elsewhere.
#[derive(Debug)]
pub(super) struct Window {
    /// The cell of each publisher.
    cells: BTreeMap<u32, u32>,
    shared: Arc<Shared>,
}

impl Window {
    pub(super) fn new(part: &Part, shared: Arc<Shared>) -> Window {
        Window { cells: part.credited.iter().copied().collect(), shared }
    }

    pub(super) fn note(&self, counts: &[(u32, u64)]) -> Result<(), String> {
        for (publisher, count) in counts {
            let cell =
                self.cells.get(publisher).ok_or("it counts for a publisher that is not here")?;
            self.shared.next[*cell as usize].fetch_max(*count, Relaxed);
        }
        Ok(())
    }
}
