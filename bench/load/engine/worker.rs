//! A generator thread: one event loop over its share of the connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::control::{Orders, Pace, Shared};
use super::publisher::Publisher;
use super::subscriber::{Findings, Subscriber};
use super::wire::Wire;
use crate::machine::now_ns;
use crate::message::Block;
use crate::tally::Faults;

/// The receive buffer stays in the second-level cache, and still holds over a thousand small messages.
const READ_SIZE: usize = 128 << 10;

/// How long the loop sleeps without an event. Orders, and deliveries of other threads, are seen within this time.
const SLEEP: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The number of this thread.
    index: usize,
    poll: Poll,
    /// The role of each token.
    roles: Vec<Role>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// The block of each flow.
    blocks: Vec<Block>,
    buffer: Box<[u8]>,
    findings: Findings,
    orders: Orders,
    epoch: u32,
    /// On schedule: when the first of the publishers has a message to send.
    due_ns: f64,
    /// When the broker must hear of the next client, whatever else goes on, and the index of that client.
    ping_ns: u64,
    ping_next: usize,
}

const PINGREQ: [u8; 2] = [0xc0, 0];

/// Half the keep alive, in nanoseconds.
fn ping_interval_ns(shared: &Shared) -> u64 {
    u64::from(shared.plan.keep_alive_s) * 500_000_000
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Result<Worker, String> {
        let orders = shared.changed_orders(&mut 0).expect("the first epoch is 1");
        let buffer_size = READ_SIZE.max(2 * shared.plan.message_size_max());
        Ok(Worker {
            index,
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            roles: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            blocks: shared.plan.flows.iter().map(|flow| Block::new(&flow.layout)).collect(),
            buffer: vec![0; buffer_size].into(),
            findings: Findings::new(&shared),
            orders,
            epoch: 0,
            due_ns: 0.0,
            ping_ns: now_ns() + ping_interval_ns(&shared),
            ping_next: 0,
            shared,
        })
    }

    pub(super) fn add_publisher(
        &mut self,
        wire: Wire,
        index: usize,
        receive_max: u16,
    ) -> Result<(), String> {
        let mut publisher = Publisher::new(wire, index, &self.shared, receive_max);
        let role = Role::Publisher(self.publishers.len());
        self.register(&mut publisher.wire, role)?;
        self.publishers.push(publisher);
        Ok(())
    }

    pub(super) fn add_subscriber(&mut self, wire: Wire, index: usize) -> Result<(), String> {
        let mut subscriber = Subscriber::new(wire, index, &self.shared);
        let role = Role::Subscriber(self.subscribers.len());
        self.register(&mut subscriber.wire, role)?;
        self.subscribers.push(subscriber);
        Ok(())
    }

    fn register(&mut self, wire: &mut Wire, role: Role) -> Result<(), String> {
        let token = Token(self.roles.len());
        self.roles.push(role);
        let registered = self.poll.registry().register(
            &mut wire.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        );
        registered.map_err(|error| format!("epoll: {error}"))
    }

    /// Runs until it is told to stop, or something fails.
    pub(super) fn run(mut self) -> Faults {
        self.shared.threads[self.index]
            .thread_id
            .store(rustix::thread::gettid().as_raw_pid() as u32, Relaxed);
        if let Err(reason) = self.run_loop() {
            self.shared.fail(reason);
        }
        let mut faults = self.findings.faults;
        faults.lost +=
            self.subscribers.iter().map(|subscriber| subscriber.lost(&self.shared)).sum::<u64>();
        self.findings.latency.hand_over(&self.shared.threads[self.index].drawer);
        faults
    }

    fn run_loop(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let (mut was_idle, mut last) = (false, now_ns());
        loop {
            if let Some(orders) = self.shared.changed_orders(&mut self.epoch) {
                self.adopt(orders)?;
                self.shared.threads[self.index].epoch.store(self.epoch, Release);
            }
            if self.orders.stop || self.shared.failure().is_some() {
                return Ok(());
            }
            let on_schedule = self.orders.paces.iter().any(Pace::is_on_schedule);
            let sleep = if on_schedule { Duration::ZERO } else { SLEEP };
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in &events {
                match self.roles[event.token().0] {
                    Role::Publisher(at) => self.serve_publisher(at, event.is_readable())?,
                    Role::Subscriber(at) => self.serve_subscriber(at)?,
                }
            }
            let now = now_ns();
            self.findings.latency.turn(now, &self.shared.threads[self.index].drawer);
            let mut sent = 0;
            // Of thousands of publishers few have a message to send at a time.
            if self.due_ns <= now as f64 || !events.is_empty() {
                sent = self.pump(now)?;
            }
            if self.ping_ns <= now {
                self.ping(now)?;
            }
            let is_idle = on_schedule && events.is_empty() && sent == 0;
            if is_idle && was_idle {
                self.shared.threads[self.index].idle_ns.fetch_add(now - last, Relaxed);
            }
            (was_idle, last) = (is_idle, now);
        }
    }

    /// Sends the messages that may be sent now. Returns how many.
    fn pump(&mut self, now: u64) -> Result<u64, String> {
        let (mut sent, mut due_ns) = (0, f64::INFINITY);
        for publisher in &mut self.publishers {
            let pace = self.orders.paces[publisher.flow];
            let until = if pace.is_on_schedule() { self.orders.until_ns } else { u64::MAX };
            let block = &mut self.blocks[publisher.flow];
            sent += publisher.pump(pace, block, &self.shared, now.min(until))?;
            due_ns = due_ns.min(publisher.rests_until_ns());
        }
        let rests = self.orders.paces.iter().all(Pace::is_on_schedule);
        self.due_ns = if rests { due_ns } else { 0.0 };
        Ok(sent)
    }

    /// Pings each client in turn, so that not all are written to at once, and each in time.
    fn ping(&mut self, now: u64) -> Result<(), String> {
        let publishers = self.publishers.len();
        let count = publishers + self.subscribers.len();
        let step_ns = ping_interval_ns(&self.shared) / count.max(1) as u64;
        for _ in 0..count {
            if self.ping_ns > now {
                break;
            }
            let at = self.ping_next % count;
            let wire = match at.checked_sub(publishers) {
                None => &mut self.publishers[at].wire,
                Some(at) => &mut self.subscribers[at].wire,
            };
            wire.write(&PINGREQ)?;
            self.ping_next = at + 1;
            self.ping_ns += step_ns.max(1);
        }
        Ok(())
    }

    fn adopt(&mut self, orders: Orders) -> Result<(), String> {
        for publisher in &mut self.publishers {
            let flow = publisher.flow;
            if orders.paces[flow] != self.orders.paces[flow] {
                publisher.set_pace(orders.paces[flow], &self.shared);
            }
        }
        if orders.collections != self.orders.collections {
            self.shared.hand_over(&std::mem::take(&mut self.findings.faults));
        }
        self.due_ns = 0.0;
        let drawer = &self.shared.threads[self.index].drawer;
        self.findings.latency.begin(&orders.recording, drawer);
        self.findings.far.adopt(orders.far.as_ref());
        self.orders = orders;
        for at in 0..self.subscribers.len() {
            if self.subscribers[at].held_back {
                self.serve_subscriber(at)?;
            }
        }
        Ok(())
    }

    fn serve_publisher(&mut self, at: usize, readable: bool) -> Result<(), String> {
        let publisher = &mut self.publishers[at];
        publisher.flush(&self.shared)?;
        if readable { publisher.read(&mut self.buffer, &self.shared) } else { Ok(()) }
    }

    fn serve_subscriber(&mut self, at: usize) -> Result<(), String> {
        let subscriber = &mut self.subscribers[at];
        subscriber.held_back =
            self.orders.stalled && self.shared.plan.flows[subscriber.flow].stalls;
        if subscriber.held_back {
            return Ok(());
        }
        subscriber.wire.flush()?;
        let batch = subscriber.read(&mut self.buffer, &self.shared, &mut self.findings)?;
        if batch.reads > 0 {
            let counts = &self.shared.threads[self.index];
            counts.delivered[subscriber.flow].fetch_add(batch.delivered, Relaxed);
            counts.delivered_size[subscriber.flow].fetch_add(batch.size, Relaxed);
            counts.reads[subscriber.flow].fetch_add(batch.reads, Relaxed);
            counts.missing.store(self.findings.missing, Relaxed);
        }
        Ok(())
    }
}
