//! An event loop over its share of the clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mio::{Events, Poll, Token};

use super::check::Check;
use super::client::Client;
use super::counts::{LocalTimes, Shared};
use super::hub::Hub;
use super::settings::Settings;
use crate::machine::now_ns;

/// Clients of a thread that wait to be accepted: more begin when some are.
const OPENING_COUNT_MAX: usize = 500;
const BUFFER_SIZE: usize = 64 << 10;
/// The loop looks at what the main thread wants so often.
const SLEEP_NS: u64 = 20_000_000;
/// How long the end waits for acknowledgements.
const END_TIME_MAX_NS: u64 = 3_000_000_000;

/// Runs every `thread_count`th client, from the one with index `first` on, until they have ended or the run has.
pub(super) fn run(
    settings: &Settings,
    shared: &Shared,
    first: usize,
    thread_count: usize,
    from_ns: u64,
) {
    let mut worker = Worker::new(settings, first, thread_count, from_ns);
    if let Err(error) = worker.run(settings, shared) {
        shared.fail(format!("epoll: {error}"));
    }
}

struct Worker {
    clients: Vec<Client>,
    /// How many have begun, and when each begins.
    begun: usize,
    begins_ns: Vec<u64>,
    /// When clients want to be looked at; a place that is not the client's earliest is void.
    times: BinaryHeap<Reverse<(u64, usize)>>,
    /// Those that have more to do at once.
    eager: Vec<usize>,
    buffer: Box<[u8]>,
    /// Until when the end waits; `None`: the run goes on.
    ends_ns: Option<u64>,
    /// Publishers publish.
    goes: bool,
}

impl Worker {
    fn new(settings: &Settings, first: usize, thread_count: usize, from_ns: u64) -> Worker {
        let indices = (first..settings.count).step_by(thread_count);
        let client = |(token, index): (usize, usize)| Client::new(index, Token(token), settings);
        let begin = |index: usize| from_ns + (settings.connect_interval_ns * index as f64) as u64;
        Worker {
            clients: indices.clone().enumerate().map(client).collect(),
            begun: 0,
            begins_ns: indices.map(begin).collect(),
            times: BinaryHeap::new(),
            eager: Vec::new(),
            buffer: vec![0; BUFFER_SIZE].into(),
            ends_ns: None,
            goes: false,
        }
    }

    fn run(&mut self, settings: &Settings, shared: &Shared) -> std::io::Result<()> {
        let mut poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let mut events = Events::with_capacity(1024);
        let mut hub = Hub {
            settings,
            shared,
            registry: &registry,
            check: Check::default(),
            connect: LocalTimes::new(),
            acknowledge: LocalTimes::new(),
            arrive: LocalTimes::new(),
            now_ns: now_ns(),
            opening: 0,
        };
        let mut handed_over_ns = 0;
        while !self.is_over(&mut hub) {
            self.begin_clients(&mut hub);
            match poll.poll(&mut events, Some(Duration::from_nanos(self.sleep_ns(hub.now_ns)))) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            hub.now_ns = now_ns();
            for event in &events {
                self.serve(event.token().0, &mut hub);
            }
            for at in std::mem::take(&mut self.eager) {
                self.clients[at].is_eager = false;
                self.serve(at, &mut hub);
            }
            self.look(&mut hub);
            if hub.now_ns > handed_over_ns + SLEEP_NS {
                handed_over_ns = hub.now_ns;
                hand_over(&mut hub);
            }
        }
        for client in &mut self.clients {
            client.end(&mut hub);
        }
        hand_over(&mut hub);
        Ok(())
    }

    /// True once there is nothing left to do, or it takes too long.
    fn is_over(&mut self, hub: &mut Hub<'_>) -> bool {
        if !self.goes && hub.shared.go.load(Relaxed) {
            self.goes = true;
            // Each finds out when its first message is due.
            (0..self.begun).for_each(|at| self.serve(at, hub));
        }
        if self.ends_ns.is_none() && hub.shared.stop.load(Relaxed) {
            self.ends_ns = Some(hub.now_ns + END_TIME_MAX_NS);
            self.clients.iter_mut().for_each(|client| client.wind_up(hub));
        }
        let has_begun = self.begun == self.clients.len() || self.ends_ns.is_some();
        let is_late = self.ends_ns.is_some_and(|end| hub.now_ns >= end);
        is_late || has_begun && self.clients.iter().all(Client::is_ended)
    }

    fn begin_clients(&mut self, hub: &mut Hub<'_>) {
        while self.ends_ns.is_none()
            && self.begins_ns.get(self.begun).is_some_and(|begin| *begin <= hub.now_ns)
            && hub.opening < OPENING_COUNT_MAX
        {
            let at = self.begun;
            self.begun += 1;
            hub.now_ns = now_ns();
            self.clients[at].open(hub);
            self.schedule(at, hub);
        }
    }

    fn sleep_ns(&self, now_ns: u64) -> u64 {
        if !self.eager.is_empty() {
            return 0;
        }
        let begin = self.begins_ns.get(self.begun).copied().unwrap_or(u64::MAX);
        let look = self.times.peek().map_or(u64::MAX, |Reverse((time, _))| *time);
        // A begin that is due waits for others to be accepted.
        let begin = if begin <= now_ns { now_ns + SLEEP_NS } else { begin };
        begin.min(look).saturating_sub(now_ns).min(SLEEP_NS)
    }

    fn serve(&mut self, at: usize, hub: &mut Hub<'_>) {
        let client = &mut self.clients[at];
        hub.now_ns = now_ns();
        let more = client.serve(hub, &mut self.buffer);
        self.note(at, more, hub);
    }

    fn look(&mut self, hub: &mut Hub<'_>) {
        while let Some(Reverse((time, at))) = self.times.peek().copied() {
            if time > hub.now_ns {
                break;
            }
            self.times.pop();
            if self.clients[at].scheduled_ns != time {
                continue;
            }
            self.clients[at].scheduled_ns = u64::MAX;
            hub.now_ns = now_ns();
            let more = self.clients[at].look(hub);
            self.note(at, more, hub);
        }
    }

    fn note(&mut self, at: usize, more: bool, hub: &Hub<'_>) {
        if more && !std::mem::replace(&mut self.clients[at].is_eager, true) {
            self.eager.push(at);
        }
        self.schedule(at, hub);
    }

    /// A client that wants to be looked at earlier than it said has a place more; the later one is void.
    fn schedule(&mut self, at: usize, hub: &Hub<'_>) {
        let client = &mut self.clients[at];
        let time = client.wake_ns(hub);
        if time < client.scheduled_ns {
            client.scheduled_ns = time;
            self.times.push(Reverse((time, at)));
        }
    }
}

fn hand_over(hub: &mut Hub<'_>) {
    hub.connect.hand_over(&hub.shared.connect);
    hub.acknowledge.hand_over(&hub.shared.acknowledge);
    hub.arrive.hand_over(&hub.shared.arrive);
}
