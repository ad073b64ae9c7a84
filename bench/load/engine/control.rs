//! The memory that the bench's main thread and its generator threads share: orders one way, counts the other.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::far::FarOrders;
use super::ramp::Ramp;
use crate::plan::{Plan, PublisherPlan};
use crate::recorder::{Drawer, Recording};
use crate::tally::Faults;

/// How the publishers of a flow publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    Still,
    /// Messages leave as fast as the window allows.
    Window,
    /// One message each `interval_ns` from each publisher from `from_ns` on, whatever the broker does, up to the window.
    Rate {
        from_ns: u64,
        interval_ns: f64,
    },
    /// As `Rate`, with a rate that rises first.
    Ramp(Ramp),
}

impl Pace {
    /// Whether messages are due at a time, whatever the broker does.
    pub(crate) fn is_on_schedule(&self) -> bool {
        matches!(self, Pace::Rate { .. } | Pace::Ramp(_))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// The pace of each flow.
    pub paces: Vec<Pace>,
    /// Whether subscribers of the flows that stall do not read.
    pub stalled: bool,
    /// The messages whose latency is recorded.
    pub recording: Recording,
    /// Messages that are due later than this are not sent; those that were due before still are.
    pub until_ns: u64,
    /// The orders for messages of other agents.
    pub far: Option<Arc<FarOrders>>,
    /// How often the threads have been asked for their findings.
    pub collections: u32,
    pub stop: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ThreadCounts {
    pub thread_id: AtomicU32,
    /// The orders that the thread follows.
    pub epoch: AtomicU32,
    /// A thread on schedule never sleeps: nanoseconds in which it had nothing to do.
    pub idle_ns: AtomicU64,
    /// How many messages were delivered, by flow.
    pub delivered: Vec<AtomicU64>,
    /// Bytes of delivered publishes, whole packets, by flow.
    pub delivered_size: Vec<AtomicU64>,
    /// Reads in which subscribers got publishes, or parts of one, by flow.
    pub reads: Vec<AtomicU64>,
    /// Messages that later ones have overtaken, of all flows.
    pub missing: AtomicU64,
    pub drawer: Drawer,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub plan: Plan,
    /// By cell: the next sequence that must come; with a shared group: how many have come.
    pub next: Vec<AtomicU64>,
    /// By publisher: how many messages were sent.
    pub sent: Vec<AtomicU64>,
    /// By publisher: how many writes that took.
    pub writes: Vec<AtomicU64>,
    /// By publisher: how many messages the broker has acknowledged to the end; at QoS 0 all that were sent.
    pub acked: Vec<AtomicU64>,
    pub threads: Vec<ThreadCounts>,
    epoch: AtomicU32,
    orders: Mutex<Orders>,
    /// The findings that the threads have handed over.
    collected: Mutex<Faults>,
    failure: Mutex<Option<String>>,
}

fn counters(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Shared {
    pub(crate) fn new(plan: Plan, thread_count: usize) -> Shared {
        let flow_count = plan.flows.len();
        let orders = Orders {
            paces: vec![Pace::Still; flow_count],
            stalled: false,
            recording: Recording::default(),
            until_ns: u64::MAX,
            far: None,
            collections: 0,
            stop: false,
        };
        let threads = (0..thread_count).map(|_| ThreadCounts {
            delivered: counters(flow_count),
            delivered_size: counters(flow_count),
            reads: counters(flow_count),
            ..ThreadCounts::default()
        });
        Shared {
            next: counters(plan.cell_count),
            sent: counters(plan.publishers.len()),
            writes: counters(plan.publishers.len()),
            acked: counters(plan.publishers.len()),
            threads: threads.collect(),
            epoch: AtomicU32::new(1),
            orders: Mutex::new(orders),
            collected: Mutex::default(),
            failure: Mutex::new(None),
            plan,
        }
    }

    /// Every thread follows the latest orders.
    pub(crate) fn is_followed(&self) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        self.threads.iter().all(|thread| thread.epoch.load(Ordering::Acquire) == epoch)
    }

    /// Changes the orders; the threads see the change within milliseconds.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut orders);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// The orders, if they have changed since `epoch`.
    #[inline]
    pub(crate) fn changed_orders(&self, epoch: &mut u32) -> Option<Orders> {
        let now = self.epoch.load(Ordering::Acquire);
        if now == *epoch {
            return None;
        }
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch = self.epoch.load(Ordering::Acquire);
        Some(orders.clone())
    }

    /// Takes the findings of a thread.
    pub(crate) fn hand_over(&self, part: &Faults) {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner).add(part);
    }

    pub(crate) fn take_collected(&self) -> Faults {
        std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the reason for which the run cannot go on; the first one stays.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of a publisher's messages have reached all its subscribers.
    #[inline]
    pub(crate) fn delivered_to_all(&self, publisher: usize) -> u64 {
        let cells = &self.plan.publishers[publisher].cells;
        let counts = cells.iter().map(|cell| self.next[*cell as usize].load(Ordering::Relaxed));
        counts.min().unwrap_or_else(|| self.acked[publisher].load(Ordering::Relaxed))
    }

    pub(crate) fn sent_count(&self, flow: usize) -> u64 {
        self.sum_of_flow(flow, &self.sent)
    }

    /// How many messages of a flow must reach subscribers, of those that were sent.
    pub(crate) fn due_count(&self, flow: usize) -> u64 {
        let publishers = self.plan.publishers.iter().zip(&self.sent);
        let of_flow = publishers.filter(|(publisher, _)| publisher.flow == flow);
        let due = |(publisher, sent): (&PublisherPlan, &AtomicU64)| {
            publisher.cells.len() as u64 * sent.load(Ordering::Relaxed)
        };
        of_flow.map(due).sum()
    }

    pub(crate) fn write_count(&self, flow: usize) -> u64 {
        self.sum_of_flow(flow, &self.writes)
    }

    fn sum_of_flow(&self, flow: usize, by_publisher: &[AtomicU64]) -> u64 {
        let publishers = self.plan.publishers.iter().zip(by_publisher);
        let of_flow = publishers.filter(|(publisher, _)| publisher.flow == flow);
        of_flow.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn delivered_count(&self, flow: usize) -> u64 {
        self.threads.iter().map(|thread| thread.delivered[flow].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn delivered_size(&self, flow: usize) -> u64 {
        self.threads.iter().map(|thread| thread.delivered_size[flow].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn read_count(&self, flow: usize) -> u64 {
        self.threads.iter().map(|thread| thread.reads[flow].load(Ordering::Relaxed)).sum()
    }

    /// Messages that later ones have overtaken, of all flows.
    pub(crate) fn missing_count(&self) -> u64 {
        self.threads.iter().map(|thread| thread.missing.load(Ordering::Relaxed)).sum()
    }

    /// Whether every message of a flow has been acknowledged and delivered.
    pub(crate) fn at_rest(&self, flow: usize) -> bool {
        (0..self.plan.publishers.len())
            .filter(|index| self.plan.publishers[*index].flow == flow)
            .all(|index| {
                let sent = self.sent[index].load(Ordering::Relaxed);
                sent == self.acked[index].load(Ordering::Relaxed)
                    && sent <= self.delivered_to_all(index)
            })
    }

    /// How many messages for shared subscriptions reached no member.
    pub(crate) fn lost_in_groups(&self) -> u64 {
        let mut cells: Vec<(u32, usize)> = Vec::new();
        for subscriber in
            self.plan.subscribers.iter().filter(|subscriber| subscriber.group.is_some())
        {
            cells.extend(
                subscriber.cells.iter().enumerate().map(|(publisher, cell)| (*cell, publisher)),
            );
        }
        cells.sort_unstable();
        cells.dedup();
        let lost = |(cell, publisher): &(u32, usize)| {
            let came = self.next.get(*cell as usize)?.load(Ordering::Relaxed);
            Some(self.sent[*publisher].load(Ordering::Relaxed).saturating_sub(came))
        };
        cells.iter().filter_map(lost).sum()
    }
}
