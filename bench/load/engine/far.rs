//! Latency of messages that another agent's clock has stamped. It is kept in slices of time until the pace of both
//! clocks is known, and is then corrected slice by slice.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::message::Stamp;

/// The publishers elsewhere, and what is known of the clocks there.
#[derive(Debug, Default)]
pub(crate) struct FarOrders {
    /// The agent of each publisher.
    pub agents: Vec<u16>,
    /// The number of this agent.
    pub own: u16,
    /// For each agent: the time of its clock in which due messages have their latency recorded.
    pub recorded_ns: Vec<Range<u64>>,
    /// For each agent: by how much the clock here is ahead, as far as it is known before the run.
    pub offset_ns: Vec<i64>,
    pub slice_ns: u64,
    pub slices: Mutex<Vec<Slice>>,
}

/// The messages from one agent within a slice of time.
#[derive(Debug)]
pub(crate) struct Slice {
    pub agent: u16,
    /// The middle of the slice, by the clock here.
    pub at_ns: i64,
    /// Latencies in nanoseconds, as far as they were known, to three digits, each with a number of messages.
    pub counts: Vec<(i64, u64)>,
}

/// The slices of one generator thread.
#[derive(Debug, Default)]
pub(crate) struct Far {
    orders: Option<Arc<FarOrders>>,
    /// The number of the slice that is being filled.
    slice: u64,
    /// The counts of each agent.
    counts: Vec<HashMap<i64, u64>>,
}

/// Latencies have three digits, as in the histograms.
fn rounded(ns: i64) -> i64 {
    let size = ns.unsigned_abs();
    let drop = (64 - size.leading_zeros()).saturating_sub(11);
    let kept = (size >> drop << drop) as i64;
    if ns < 0 { kept.wrapping_neg() } else { kept }
}

impl Far {
    pub(crate) fn adopt(&mut self, orders: Option<&Arc<FarOrders>>) {
        self.flush();
        self.counts = vec![HashMap::default(); orders.map_or(0, |orders| orders.recorded_ns.len())];
        self.orders = orders.cloned();
    }

    /// Takes a message from elsewhere; `false`: it is not from elsewhere.
    #[inline(always)]
    pub(crate) fn takes(&mut self, stamp: &Stamp, now_ns: u64) -> bool {
        self.orders.is_some() && self.note(stamp, now_ns)
    }

    fn note(&mut self, stamp: &Stamp, now_ns: u64) -> bool {
        let Some(orders) = &self.orders else { return false };
        let agent = orders.agents[stamp.publisher as usize];
        if agent == orders.own {
            return false;
        }
        let index = usize::from(agent);
        if !orders.recorded_ns[index].contains(&stamp.due_ns) {
            return true;
        }
        let slice = now_ns / orders.slice_ns;
        let took = (now_ns as i64).wrapping_sub(stamp.due_ns as i64);
        let value = rounded(took.wrapping_sub(orders.offset_ns[index]));
        if slice != self.slice {
            self.flush();
            self.slice = slice;
        }
        *self.counts[index].entry(value).or_default() += 1;
        true
    }

    fn flush(&mut self) {
        let Some(orders) = &self.orders else { return };
        let at_ns = (self.slice * orders.slice_ns + orders.slice_ns / 2) as i64;
        for (agent, counts) in
            self.counts.iter_mut().enumerate().filter(|(_, counts)| !counts.is_empty())
        {
            let slice = Slice { agent: agent as u16, at_ns, counts: counts.drain().collect() };
            orders.slices.lock().unwrap_or_else(PoisonError::into_inner).push(slice);
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_from_elsewhere_are_kept_by_slice_until_the_clocks_are_known() {
        let orders = Arc::new(FarOrders {
            agents: vec![0, 1],
            own: 0,
            recorded_ns: vec![0..u64::MAX, 1000..5000],
            offset_ns: vec![0, -500],
            slice_ns: 100,
            ..FarOrders::default()
        });
        let mut far = Far::default();
        let stamp = |publisher, due_ns| Stamp { publisher, sequence: 0, due_ns };
        assert!(!far.takes(&stamp(1, 2000), 1600));
        far.adopt(Some(&orders));
        assert!(!far.takes(&stamp(0, 1500), 1600));
        assert!(far.takes(&stamp(1, 999), 1600) && far.takes(&stamp(1, 5000), 1600));
        for now in [1610, 1690, 1700] {
            assert!(far.takes(&stamp(1, 2000), now));
        }
        drop(far);
        let mut slices = std::mem::take(&mut *orders.slices.lock().expect("no panic"));
        slices[0].counts.sort_unstable();
        let kept: Vec<_> = slices.into_iter().map(|slice| (slice.at_ns, slice.counts)).collect();
        assert_eq!(kept, [(1650, vec![(110, 1), (190, 1)]), (1750, vec![(200, 1)])]);
    }

    #[test]
    fn three_digits_are_kept() {
        assert_eq!([0, 2047, 2049, -2049, 1_000_001].map(rounded), [0, 2047, 2048, -2048, 999_936]);
        assert_eq!(rounded(i64::MIN), i64::MIN);
    }
}
