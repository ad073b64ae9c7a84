//! What the event loops count, and the main thread shows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::recorder::new_histogram;

/// Reasons that are told apart; a broker may word each differently.
const REASON_COUNT_MAX: usize = 16;
const REASON_SIZE_MAX: usize = 120;

/// Of all clients since the beginning.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Connections that were begun, and that the broker has accepted.
    pub begun: AtomicU64,
    pub accepted: AtomicU64,
    /// Clients that are accepted now, and that do nothing more.
    pub open: AtomicU64,
    pub ended: AtomicU64,
    /// Clients that were accepted at least once, or have given up.
    pub settled: AtomicU64,
    /// Attempts to connect that failed, and accepted connections that were lost.
    pub refused: AtomicU64,
    pub lost_connections: AtomicU64,
    pub subscribed: AtomicU64,
    /// Publishes, and those of them that were acknowledged to the end (QoS 0: sent).
    pub sent: AtomicU64,
    pub acked: AtomicU64,
    /// Refused by the broker, in a reason code.
    pub nacked: AtomicU64,
    /// Acknowledgements that a lost connection has taken with it.
    pub unacked: AtomicU64,
    /// Sent more than an interval after they were due.
    pub late: AtomicU64,
    pub received: AtomicU64,
    pub received_size: AtomicU64,
    pub retained: AtomicU64,
    /// Received with a checksum that is right, and without any.
    pub verified: AtomicU64,
    pub unverified: AtomicU64,
    pub lost: AtomicU64,
    pub duplicated: AtomicU64,
    /// Duplicates that say that they are, as QoS 1 allows.
    pub redelivered: AtomicU64,
    pub reordered: AtomicU64,
    /// Their sequences were not looked at: the table of publishers is full.
    pub untracked: AtomicU64,
    /// Came before they were sent, by this clock.
    pub early: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

pub(super) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[derive(Debug)]
pub(super) struct Times {
    /// Since it was looked at last, and of the whole run.
    pub recent: Histogram<u64>,
    pub whole: Histogram<u64>,
}

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub counts: Counts,
    /// The main thread has had enough.
    pub stop: AtomicBool,
    /// Publishers publish: all have connected, or nobody waits for that.
    pub go: AtomicBool,
    /// Publishes that were given out, where there is a limit or a topic counts them.
    pub tickets: AtomicU64,
    /// From the first packet to CONNACK; from when a message was due to its last acknowledgement; from when it was due to
    /// its arrival.
    pub connect: Mutex<Times>,
    pub acknowledge: Mutex<Times>,
    pub arrive: Mutex<Times>,
    reasons: Mutex<BTreeMap<String, u64>>,
    failure: Mutex<Option<String>>,
}

fn times() -> Mutex<Times> {
    Mutex::new(Times { recent: new_histogram(), whole: new_histogram() })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(waits_for_all: bool) -> Shared {
        Shared {
            counts: Counts::default(),
            stop: AtomicBool::new(false),
            go: AtomicBool::new(!waits_for_all),
            tickets: AtomicU64::new(0),
            connect: times(),
            acknowledge: times(),
            arrive: times(),
            reasons: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Something failed: a connection, a subscription, a publish.
    pub(super) fn blame(&self, reason: &str) {
        let mut reasons = lock(&self.reasons);
        let reason: String = reason.chars().take(REASON_SIZE_MAX).collect();
        if reasons.len() < REASON_COUNT_MAX || reasons.contains_key(&reason) {
            *reasons.entry(reason).or_default() += 1;
        } else {
            *reasons.entry("other reasons".to_string()).or_default() += 1;
        }
    }

    /// Most frequent first.
    pub(super) fn reasons(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> = lock(&self.reasons).clone().into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }

    /// The run cannot go on.
    pub(super) fn fail(&self, reason: String) {
        lock(&self.failure).get_or_insert(reason);
        self.stop.store(true, Relaxed);
    }

    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
}

/// The times of one thread, handed over now and then.
pub(super) struct LocalTimes(Histogram<u64>);

impl LocalTimes {
    pub(super) fn new() -> LocalTimes {
        LocalTimes(new_histogram())
    }

    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    pub(super) fn hand_over(&mut self, to: &Mutex<Times>) {
        if self.0.is_empty() {
            return;
        }
        let mut times = lock(to);
        times.recent.add(&self.0).expect("the bounds of all are the same");
        times.whole.add(&self.0).expect("the bounds of all are the same");
        self.0.reset();
    }
}
