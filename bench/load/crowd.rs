//! A crowd: clients that connect when each is due, subscribe, verify what comes to them, and stay until they are sent away.

pub(crate) mod feeder;
mod member;
mod worker;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use self::worker::Worker;
use crate::client::Target;
use crate::run::Bench;
use crate::tally::Faults;
use crate::{interrupt, machine};

/// What a client is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Nothing,
    /// Of the publisher with its own number, messages in sequence from 0 on, as many as this at first.
    InSequence(u64),
    /// A retained message of each of so many publishers.
    Retained(usize),
}

/// What all clients of a crowd are told.
#[derive(Debug)]
pub(crate) struct Orders {
    pub target: Target,
    pub mqtt: u8,
    /// In front of the client's number in its client id.
    pub name: String,
    pub count: usize,
    /// Connections begun per second; 0: as many at a time as `open_max`.
    pub rate: f64,
    pub open_max: usize,
    pub clean_start: bool,
    /// The session outlives the connection.
    pub lasts: bool,
    /// Whether the broker must have kept a session: what CONNACK must say.
    pub had_session: bool,
    /// One a client, round robin; empty: they do not subscribe.
    pub filters: Vec<String>,
    pub qos: u8,
    pub expected: Expected,
    /// One for each publisher of what is expected.
    pub topics: Vec<Box<[u8]>>,
    pub burden_ns: u64,
}

/// What the threads of a crowd share with the one that watches them.
#[derive(Debug)]
pub(crate) struct Shared {
    orders: Orders,
    /// The clients may subscribe, from this time on; 0: not yet.
    subscribe_ns: AtomicU64,
    /// They say goodbye.
    leave: AtomicBool,
    stop: AtomicBool,
    begun: AtomicU64,
    accepted: AtomicU64,
    /// Clients that the broker has accepted, and granted what they asked for.
    ready: AtomicU64,
    /// Clients that have all that they were to get at first.
    complete: AtomicU64,
    /// Connections that could not be made, and those that ended before their time.
    failed: AtomicU64,
    closed: AtomicU64,
    /// Messages that each client is to have got by the end.
    fed: AtomicU64,
    left: AtomicU64,
    delivered: AtomicU64,
    delivered_size: AtomicU64,
    /// Per thread.
    thread_ids: Vec<AtomicU32>,
    idle_ns: Vec<AtomicU64>,
    /// Why the first that failed did.
    reason: Mutex<Option<String>>,
    failure: Mutex<Option<String>>,
}

/// How far a crowd has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub begun: u64,
    pub accepted: u64,
    pub ready: u64,
    pub complete: u64,
    pub failed: u64,
    pub closed: u64,
    pub left: u64,
    pub delivered: u64,
    pub delivered_size: u64,
}

/// Nothing has changed for so long: nothing will.
const PATIENCE: Duration = Duration::from_secs(4);

/// Sees when a crowd stands still.
#[derive(Debug)]
pub(crate) struct Stillness(Counts, Instant);

impl Stillness {
    pub(crate) fn new(counts: Counts) -> Stillness {
        Stillness(counts, Instant::now())
    }

    /// It has stood still for too long.
    pub(crate) fn note(&mut self, counts: Counts) -> bool {
        if counts != self.0 {
            *self = Stillness::new(counts);
        }
        self.1.elapsed() > PATIENCE
    }
}

/// What a crowd has found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub faults: Faults,
    /// CONNACK does not say of a session what it must.
    pub wrong_sessions: u64,
    /// Nanoseconds from when a connection was due to when the client was accepted, and what it asked for granted.
    pub ready: Histogram<u64>,
    /// From when a client was due to connect, or to subscribe, to when it had all that waited for it.
    pub complete: Histogram<u64>,
}

impl Findings {
    fn new() -> Findings {
        Findings {
            faults: Faults::default(),
            wrong_sessions: 0,
            ready: histogram(),
            complete: histogram(),
        }
    }
}

/// One nanosecond to ten minutes, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds in order")
}

#[derive(Debug)]
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Findings>>,
}

impl Crowd {
    /// Starts the threads, and the clients with them. They subscribe as soon as they are accepted, unless `waits`.
    pub(crate) fn start(orders: Orders, bench: &Bench, waits: bool) -> Result<Crowd, String> {
        let threads = bench.thread_count;
        let counters = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let fed = AtomicU64::new(match orders.expected {
            Expected::InSequence(count) => count,
            Expected::Nothing | Expected::Retained(_) => 0,
        });
        let shared = Arc::new(Shared {
            orders,
            subscribe_ns: AtomicU64::new(u64::from(!waits)),
            leave: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            complete: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            fed,
            left: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            delivered_size: AtomicU64::new(0),
            thread_ids: (0..threads).map(|_| AtomicU32::new(0)).collect(),
            idle_ns: counters(threads),
            reason: Mutex::default(),
            failure: Mutex::default(),
        });
        let start = |index: usize| {
            let worker = Worker::new(shared.clone(), index, threads)?;
            let cores = &bench.placement.generator;
            let core = cores[index % cores.len()];
            let run = move || {
                // Without a core of its own it runs where it may: slower, and reported as the limit.
                let _ = machine::pin(&[core]);
                worker.run()
            };
            let thread = thread::Builder::new().name(format!("generator-{index}")).spawn(run);
            thread.map_err(|error| format!("thread: {error}"))
        };
        let threads = (0..threads).map(start).collect::<Result<Vec<_>, String>>()?;
        Ok(Crowd { shared, threads })
    }

    pub(crate) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let shared = &self.shared;
        Counts {
            begun: of(&shared.begun),
            accepted: of(&shared.accepted),
            ready: of(&shared.ready),
            complete: of(&shared.complete),
            failed: of(&shared.failed),
            closed: of(&shared.closed),
            left: of(&shared.left),
            delivered: of(&shared.delivered),
            delivered_size: of(&shared.delivered_size),
        }
    }

    /// The kernel's ids of the threads, each of which tells its own before all else.
    pub(crate) fn thread_ids(&self) -> BTreeSet<u32> {
        let told = |id: &AtomicU32| {
            while id.load(Relaxed) == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            id.load(Relaxed)
        };
        self.shared.thread_ids.iter().map(told).collect()
    }

    /// Nanoseconds since the last time in which a thread on schedule found nothing to do: those of the busiest.
    pub(crate) fn take_idle_ns(&self) -> u64 {
        self.shared.idle_ns.iter().map(|idle| idle.swap(0, Relaxed)).min().unwrap_or(0)
    }

    /// Why the run cannot go on, if it cannot.
    pub(crate) fn check(&self) -> Result<(), String> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failure {
            Some(reason) => Err(reason),
            None if self.threads.iter().any(JoinHandle::is_finished) => {
                Err("a generator thread panicked".to_string())
            }
            None => Ok(()),
        }
    }

    /// Why the first client failed that did.
    pub(crate) fn reason(&self) -> Option<String> {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the clients subscribe that have waited.
    pub(crate) fn subscribe(&self) {
        self.shared.subscribe_ns.store(machine::now_ns(), Relaxed);
    }

    /// Sends the clients away.
    pub(crate) fn leave(&self) {
        self.shared.leave.store(true, Relaxed);
    }

    /// `count` messages more have been sent to each client.
    pub(crate) fn note_fed(&self, count: u64) {
        self.shared.fed.fetch_add(count, Relaxed);
    }

    /// Waits until `is_done`, or until it stands still. False if it is not done.
    pub(crate) fn wait(
        &self,
        bench: &Bench,
        is_done: impl Fn(&Counts) -> bool,
    ) -> Result<bool, String> {
        let mut stillness = Stillness::new(self.counts());
        loop {
            let counts = self.counts();
            if is_done(&counts) {
                return Ok(true);
            }
            interrupt::check()?;
            self.check()?;
            if stillness.note(counts) {
                return Ok(false);
            }
            let step = Duration::from_millis(2);
            thread::sleep(step);
            bench.progress.advance(step);
        }
    }

    /// Ends the threads and adds up what they found.
    pub(crate) fn stop(self) -> Result<Findings, String> {
        self.shared.stop.store(true, Relaxed);
        let mut findings = Findings::new();
        for thread in self.threads {
            let part = thread.join().map_err(|_| "a generator thread panicked".to_string())?;
            findings.faults.add(&part.faults);
            findings.wrong_sessions += part.wrong_sessions;
            for (all, part) in
                [(&mut findings.ready, part.ready), (&mut findings.complete, part.complete)]
            {
                all.add(&part).map_err(|error| error.to_string())?;
            }
        }
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(findings), Err)
    }
}
