//! The engine: connects a plan's clients, spreads them over generator threads, gives orders and reads counts.

pub(crate) mod control;
mod drawn;
pub(crate) mod far;
mod publisher;
pub(crate) mod ramp;
pub(crate) mod subscriber;
pub(crate) mod wire;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::control::{Orders, Shared};
use self::wire::Wire;
use self::worker::Worker;
use crate::client::{Client, Target};
use crate::interrupt;
use crate::machine;
use crate::plan::Plan;
use crate::recorder::{Drawer, Latencies, Recording};
use crate::tally::Faults;

/// The socket of a client that stalls takes only this much: the broker keeps the rest.
const STALLED_RECEIVE_SIZE: usize = 32 << 10;

/// A publisher that can keep its schedule sends a due message within this time.
const SCHEDULE_CALM: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Faults>>,
}

impl Engine {
    /// Connects all clients, subscribers first, and starts a thread on each of `cores`, round robin.
    pub(crate) fn start(
        plan: Plan,
        target: &Target,
        cores: &[usize],
        thread_count: usize,
    ) -> Result<Engine, String> {
        let shared = Arc::new(Shared::new(plan, thread_count));
        let mut workers = Vec::new();
        for index in 0..thread_count {
            workers.push(Worker::new(shared.clone(), index)?);
        }
        let plan = &shared.plan;
        let subscribers = plan.subscribers.iter().enumerate();
        let own = subscribers.filter(|(index, _)| !plan.away.has_subscriber(*index));
        for (place, (index, subscriber)) in own.enumerate() {
            let receive_size = plan.flows[subscriber.flow].stalls.then_some(STALLED_RECEIVE_SIZE);
            let mut client = Client::connect(
                target,
                &format!("bench-s{index:05}"),
                plan.mqtt,
                index,
                receive_size,
            )?;
            client.subscribe(&subscriber.filters, subscriber.qos)?;
            let (stream, _) = client.into_stream()?;
            // The members of a group stay together, so that their messages are counted without locks.
            let thread = subscriber.group.map_or(place, |(group, _)| group) % thread_count;
            workers[thread].add_subscriber(Wire::new(stream), index)?;
        }
        let connections = plan.connections().enumerate();
        let own = connections.filter(|(_, index)| !plan.away.has_publisher(*index));
        for (place, (number, index)) in own.enumerate() {
            let client =
                Client::connect(target, &format!("bench-p{number:05}"), plan.mqtt, number, None)?;
            let (stream, receive_max) = client.into_stream()?;
            workers[place % thread_count].add_publisher(Wire::new(stream), index, receive_max)?;
        }
        let start = |(index, worker): (usize, Worker)| {
            let cores = cores.get(index % cores.len().max(1)).copied();
            let run = move || {
                // A thread without a core of its own runs where it may. It is slower, and reported as the limit.
                let _ = cores.map(|core| machine::pin(&[core]));
                worker.run()
            };
            thread::Builder::new().name(format!("generator-{index}")).spawn(run)
        };
        let threads: Result<Vec<_>, _> = workers.into_iter().enumerate().map(start).collect();
        let threads = threads.map_err(|error| format!("thread: {error}"))?;
        let engine = Engine { shared, threads };
        // A thread tells its id before it follows its first orders.
        engine.wait_until_followed()?;
        Ok(engine)
    }

    /// Gives orders, and returns once all threads follow them, or one has failed.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Orders)) -> Result<(), String> {
        self.shared.order(change);
        self.wait_until_followed()
    }

    fn wait_until_followed(&self) -> Result<(), String> {
        while !self.shared.is_followed() {
            self.check()?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// The counts of the threads, for a thread that tells others of them.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The counts of a flow until now.
    pub(crate) fn counts(&self, flow: usize) -> Counts {
        Counts {
            sent: self.shared.sent_count(flow),
            writes: self.shared.write_count(flow),
            delivered: self.shared.delivered_count(flow),
            reads: self.shared.read_count(flow),
            size: self.shared.delivered_size(flow),
            missing: self.shared.missing_count(),
        }
    }

    /// The findings of the threads since the last call, without messages that are lost until the end of the run.
    pub(crate) fn collect(&self) -> Result<Faults, String> {
        self.order(|orders| orders.collections += 1)?;
        Ok(self.shared.take_collected())
    }

    /// How many messages of a flow must reach subscribers, of those that were sent.
    pub(crate) fn due_count(&self, flow: usize) -> u64 {
        self.shared.due_count(flow)
    }

    /// How far the flow's publishers have got with all their subscribers: the smallest of them.
    pub(crate) fn reached(&self, flow: usize) -> u64 {
        let of_flow = (0..self.shared.plan.publishers.len())
            .filter(|index| self.shared.plan.publishers[*index].flow == flow);
        of_flow.map(|index| self.shared.delivered_to_all(index)).min().unwrap_or(0)
    }

    /// The kernel's ids of the generator threads.
    pub(crate) fn thread_ids(&self) -> BTreeSet<u32> {
        let ids: BTreeSet<u32> =
            self.shared.threads.iter().map(|thread| thread.thread_id.load(Relaxed)).collect();
        assert!(!ids.contains(&0), "a thread follows orders once it has told its id");
        ids
    }

    /// Nanoseconds since the last time in which the busiest thread on schedule had nothing to do.
    pub(crate) fn take_idle_ns(&self) -> u64 {
        let idle = self.shared.threads.iter().map(|thread| thread.idle_ns.swap(0, Relaxed));
        idle.min().unwrap_or(0)
    }

    /// An error if the run cannot go on, with the reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        match self.shared.failure() {
            Some(reason) => Err(reason),
            None if ended => Err("a generator thread panicked".to_string()),
            None => Ok(()),
        }
    }

    /// Waits until all messages of a flow have arrived, or no more come for `patience`. Returns whether all have.
    pub(crate) fn drain(&self, flow: usize, patience: Duration) -> Result<bool, String> {
        let mut last = (self.counts(flow).delivered, Instant::now());
        while !self.shared.at_rest(flow) && last.1.elapsed() < patience {
            self.check()?;
            thread::sleep(Duration::from_millis(2));
            let delivered = self.counts(flow).delivered;
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
        }
        self.check()?;
        Ok(self.shared.at_rest(flow))
    }

    /// Waits until the messages that were due before the end of a schedule have been sent and have arrived, for `span`
    /// at most, or until no more do for `patience`. Messages that the broker has held back are late, and count. A
    /// broker that needs longer has not kept the rate.
    pub(crate) fn end_schedule(
        &self,
        flow: usize,
        span: Duration,
        patience: Duration,
    ) -> Result<(), String> {
        let begin = Instant::now();
        let progress = || {
            let counts = self.counts(flow);
            [counts.sent, counts.delivered]
        };
        let mut last = (progress(), Instant::now());
        loop {
            let waited = last.1.elapsed();
            let is_done = self.shared.at_rest(flow) && waited > SCHEDULE_CALM;
            if is_done || waited > patience || begin.elapsed() > span || interrupt::came() {
                return self.check();
            }
            self.check()?;
            thread::sleep(Duration::from_millis(2));
            let now = progress();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    /// The drawers in which the threads leave recorded latencies.
    pub(crate) fn drawers(&self) -> impl Iterator<Item = &Drawer> {
        self.shared.threads.iter().map(|thread| &thread.drawer)
    }

    /// Ends the record of latencies, and takes the last of them.
    pub(crate) fn end_record(&self, latencies: &mut Latencies) -> Result<(), String> {
        self.order(|orders| orders.recording = Recording::default())?;
        latencies.collect(self.drawers());
        Ok(())
    }

    /// Ends the threads and adds up their findings.
    pub(crate) fn stop(self) -> Result<Faults, String> {
        self.shared.order(|orders| orders.stop = true);
        let mut faults = Faults::default();
        for thread in self.threads {
            let part = thread.join().map_err(|_| "a generator thread panicked".to_string())?;
            faults.add(&part);
        }
        faults.lost += self.shared.lost_in_groups();
        self.shared.failure().map_or(Ok(faults), Err)
    }
}

/// The traffic of a flow.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub sent: u64,
    /// How many writes the publishers made.
    pub writes: u64,
    pub delivered: u64,
    /// How many reads the subscribers made.
    pub reads: u64,
    /// Bytes of whole packets delivered.
    pub size: u64,
    /// Messages that later ones have overtaken; in a storm, connections that have failed.
    pub missing: u64,
}

impl Counts {
    /// The traffic since `earlier`.
    pub(crate) fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            sent: self.sent - earlier.sent,
            writes: self.writes - earlier.writes,
            delivered: self.delivered - earlier.delivered,
            reads: self.reads - earlier.reads,
            size: self.size - earlier.size,
            // A message that was overtaken may have arrived since.
            missing: self.missing.saturating_sub(earlier.missing),
        }
    }
}
