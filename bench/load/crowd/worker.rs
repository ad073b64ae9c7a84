//! One thread of a crowd: an event loop over its share of the clients.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::member::{Member, State};
use super::{Findings, Shared};
use crate::engine::wire::Wire;
use crate::machine::{self, now_ns};

/// The size is that of an engine's thread.
const READ_SIZE: usize = 128 << 10;

/// How long the loop sleeps without an event if nothing is due.
const SLEEP: Duration = Duration::from_millis(2);

/// A connection that is not accepted within this time has failed.
const CONNECT_TIME_MAX_NS: u64 = 20_000_000_000;
const SWEEP_INTERVAL_NS: u64 = 500_000_000;

const UNDER_WAY: [State; 3] = [State::Connecting, State::Greeted, State::Subscribing];

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// The number of this thread, and how many threads there are.
    index: usize,
    thread_count: usize,
    poll: Poll,
    /// The clients by token: client number `index + token * thread_count`. They begin in this order.
    members: Vec<Member>,
    begun: usize,
    /// How many clients have begun and are neither ready nor failed.
    open: usize,
    begin_ns: u64,
    buffer: Box<[u8]>,
    findings: Findings,
    has_subscribed: bool,
    has_left: bool,
    ping_ns: u64,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        thread_count: usize,
    ) -> Result<Worker, String> {
        let numbers = (index..shared.orders.count).step_by(thread_count);
        let begin_ns = now_ns();
        Ok(Worker {
            index,
            thread_count,
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            members: numbers.map(|number| Member::new(number, &shared.orders)).collect(),
            begun: 0,
            open: 0,
            begin_ns,
            buffer: vec![0; READ_SIZE].into(),
            findings: Findings::new(),
            has_subscribed: false,
            has_left: false,
            ping_ns: begin_ns + ping_interval_ns(&shared),
            shared,
        })
    }

    pub(super) fn run(mut self) -> Findings {
        self.shared.thread_ids[self.index]
            .store(rustix::thread::gettid().as_raw_pid() as u32, Relaxed);
        if let Err(reason) = self.run_loop() {
            let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(reason);
        }
        for member in &self.members {
            self.findings.faults.lost += member.lost(self.shared.fed.load(Relaxed));
        }
        self.findings
    }

    fn run_loop(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let (mut was_idle, mut last, mut swept) = (false, now_ns(), now_ns());
        while !self.shared.stop.load(Relaxed) {
            let begun = self.begun;
            self.begin_due()?;
            let on_schedule = self.shared.orders.rate > 0.0 && self.begun < self.members.len();
            let sleep = if on_schedule { Duration::ZERO } else { SLEEP };
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in &events {
                self.serve(event.token().0, event.is_writable());
            }
            self.follow_orders();
            let now = now_ns();
            let is_idle = events.is_empty() && self.begun == begun;
            if is_idle && was_idle {
                self.shared.idle_ns[self.index].fetch_add(now - last, Relaxed);
            }
            (was_idle, last) = (is_idle, now);
            if now - swept > SWEEP_INTERVAL_NS {
                self.sweep(now);
                swept = now;
            }
        }
        Ok(())
    }

    /// Begins as many connections as are due, or as may be under way.
    fn begin_due(&mut self) -> Result<(), String> {
        let now = now_ns();
        let rate = self.shared.orders.rate / self.thread_count as f64;
        let open_max = (self.shared.orders.open_max / self.thread_count).max(1);
        while self.begun < self.members.len() && self.open < open_max {
            let mut due_ns = now;
            if rate > 0.0 {
                // The threads begin in turns.
                let turn = self.index as f64 / self.thread_count as f64;
                due_ns = self.begin_ns + ((self.begun as f64 + turn) * 1e9 / rate) as u64;
            }
            if due_ns > now {
                break;
            }
            machine::work(self.shared.orders.burden_ns);
            self.begin(due_ns)?;
        }
        Ok(())
    }

    fn begin(&mut self, due_ns: u64) -> Result<(), String> {
        let token = self.begun;
        let target = &self.shared.orders.target;
        let failed = |error| format!("connecting to {}: {error}", target.address);
        let socket = target.socket(self.members[token].number).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        if let Err(error) = socket.connect(&target.address.into())
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            return Err(failed(error));
        }
        let mut wire = Wire::new(TcpStream::from_std(socket.into()));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut wire.stream, Token(token), interest);
        registered.map_err(|error| format!("epoll: {error}"))?;
        self.members[token].begin(wire, due_ns);
        self.begun += 1;
        self.open += 1;
        self.shared.begun.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Serves a client as far as it can go now.
    fn serve(&mut self, token: usize, writable: bool) {
        let (shared, member) = (&self.shared, &mut self.members[token]);
        let before = member.state;
        let was_open = UNDER_WAY.contains(&before);
        let served = member.serve(writable, &mut self.buffer, shared, &mut self.findings);
        if let Err(reason) = served {
            member.end();
            if before == State::Leaving {
                shared.left.fetch_add(1, Relaxed);
            } else {
                let counter = if was_open { &shared.failed } else { &shared.closed };
                counter.fetch_add(1, Relaxed);
                shared.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            }
        }
        if was_open && !UNDER_WAY.contains(&self.members[token].state) {
            self.open -= 1;
        }
    }

    /// Follows the orders to all clients.
    fn follow_orders(&mut self) {
        let subscribe_ns = self.shared.subscribe_ns.load(Relaxed);
        if subscribe_ns > 1 && !self.has_subscribed {
            self.has_subscribed = true;
            for token in 0..self.members.len() {
                if self.members[token].state == State::Waiting {
                    self.open += 1;
                    self.members[token].subscribe_at(subscribe_ns, &self.shared);
                }
            }
        }
        if self.shared.leave.load(Relaxed) && !self.has_left {
            self.has_left = true;
            self.members.iter_mut().for_each(Member::leave);
        }
        if now_ns() > self.ping_ns {
            self.members.iter_mut().for_each(Member::ping);
            self.ping_ns = now_ns() + ping_interval_ns(&self.shared);
        }
    }

    /// Gives up connections that were not accepted in time.
    fn sweep(&mut self, now: u64) {
        for member in &mut self.members[..self.begun] {
            let is_late = now.saturating_sub(member.begun_ns) > CONNECT_TIME_MAX_NS;
            if is_late && UNDER_WAY.contains(&member.state) {
                member.end();
                self.open -= 1;
                self.shared.failed.fetch_add(1, Relaxed);
                let mut reason = self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner);
                reason.get_or_insert("the broker did not accept a connection in time".to_string());
            }
        }
    }
}

fn ping_interval_ns(shared: &Shared) -> u64 {
    u64::from(shared.orders.target.keep_alive_s) * 500_000_000
}
