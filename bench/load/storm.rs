//! A connect storm: connections that connect, are accepted, subscribe if the scenario has filters, and leave again, some at
//! a time or on a schedule.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use ringmq::codec::{Connack, Packet, ProtocolVersion, ReasonCode, Suback, next_frame};

use crate::broker::Broker;
use crate::client::{Target, encode_connect, encode_subscribe, version};
use crate::engine::Counts;
use crate::interrupt;
use crate::machine::{self, now_ns};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::recorder::{Drawer, Latencies, Recorder, Recording};
use crate::report::measured::{MeasuredRun, Pace, RecordedLatency};
use crate::report::series;
use crate::run::Bench;
use crate::scenario::Scenario;

/// MQTT 3.1.1 and 5.0 alike: a normal disconnection.
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Connections of a thread that are under way on a schedule: more wait until some have ended.
const OPEN_MAX: usize = 2000;

/// A connection that is not accepted within this time has failed.
const CONNECT_TIME_MAX_NS: u64 = 5_000_000_000;

/// What the threads of a storm share.
struct Storm<'a> {
    target: Target,
    scenario: &'a Scenario,
    /// Connections begun per second by each thread; 0: as many as may be under way.
    rate: f64,
    open_max: usize,
    begun: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
    /// Per thread, on schedule: nanoseconds in which there was nothing to do.
    idle_ns: Vec<AtomicU64>,
    thread_ids: Vec<AtomicU32>,
    /// Latency is recorded from then on; 0: it is not.
    recorded_from_ns: AtomicU64,
    interval_ns: u64,
    /// One a thread.
    drawers: Vec<Drawer>,
    failure: Mutex<Option<String>>,
}

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut outcome = Outcome::new(&scenario.name);
    bench.progress.say(&scenario.name, "as fast as it goes");
    storm(bench, scenario, broker, 0.0, &mut outcome)?;
    if scenario.rate > 0.0 && !interrupt::came() {
        bench.progress.say(&scenario.name, "at a fixed rate");
        storm(bench, scenario, broker, scenario.rate, &mut outcome)?;
    }
    Ok(outcome)
}

fn storm(
    bench: &Bench,
    scenario: &Scenario,
    broker: &Broker,
    rate: f64,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let threads = bench.thread_count;
    let storm = Storm {
        target: broker.target,
        scenario,
        rate: rate / threads as f64,
        open_max: if rate > 0.0 { OPEN_MAX } else { scenario.connections.div_ceil(threads) },
        begun: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        idle_ns: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        thread_ids: (0..threads).map(|_| AtomicU32::new(0)).collect(),
        recorded_from_ns: AtomicU64::new(0),
        interval_ns: series::interval(bench.span).as_nanos() as u64,
        drawers: (0..threads).map(|_| Drawer::default()).collect(),
        failure: Mutex::new(None),
    };
    let mut latencies = Latencies::default();
    thread::scope(|scope| {
        for index in 0..threads {
            let (storm, cores) = (&storm, &bench.placement.generator);
            scope.spawn(move || {
                // Without a core of its own it runs where it may: slower, and reported as the limit.
                let _ = machine::pin(&[cores[index % cores.len()]]);
                storm.run_thread(index, threads);
            });
        }
        let measured = storm.measure(bench, broker, &mut latencies, outcome);
        storm.stop.store(true, Relaxed);
        measured
    })?;
    outcome.faults.lost += storm.failed.load(Relaxed);
    outcome.sent += storm.begun.load(Relaxed);
    outcome.delivered += storm.accepted.load(Relaxed);
    latencies.collect(storm.drawers.iter());
    if rate > 0.0 && (!interrupt::came() || !latencies.total.is_empty()) {
        let recorded = RecordedLatency::new(rate, &latencies.total);
        outcome.latency = Some(recorded.summary.clone());
        if let Some(run) = outcome.runs.last_mut().filter(|run| run.pace == Pace::Rate) {
            run.series.set_latencies(&mut latencies);
            run.latency = Some(recorded);
        }
    }
    Ok(())
}

impl Storm<'_> {
    fn measure(
        &self,
        bench: &Bench,
        broker: &Broker,
        latencies: &mut Latencies,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let check = || {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
        };
        bench.wait(bench.warm_up, check)?;
        let mut meter = Meter::new(broker.pid, self.told_thread_ids());
        let before = self.counts();
        self.recorded_from_ns.store(now_ns(), Relaxed);
        self.take_idle_ns();
        let counts = || {
            latencies.collect(self.drawers.iter());
            self.counts()
        };
        let usage = meter.watch(bench.span, &bench.progress, counts, check)?;
        self.recorded_from_ns.store(0, Relaxed);
        if !usage.is_measured() {
            return Ok(());
        }
        let idle_ns = self.take_idle_ns();
        let counts = self.counts().since(&before);
        let accepted = counts.delivered;
        outcome.resident_size_max = outcome.resident_size_max.max(meter.resident_size_max);
        let run = MeasuredRun::new(Pace::FlatOut, &counts, &usage, meter.take_series());
        if self.rate > 0.0 {
            let rate = self.scenario.rate;
            outcome.set_usage_at_rate(&usage, rate, [counts.sent, accepted], idle_ns);
            outcome.runs.push(run.at_rate(rate, outcome.bound_at_rate));
            return Ok(());
        }
        outcome.runs.push(run);
        outcome.in_per_s = counts.sent as f64 / usage.elapsed_s;
        outcome.out_per_s = accepted as f64 / usage.elapsed_s;
        outcome.set_usage(&usage, accepted);
        if accepted == 0 && !interrupt::came() {
            outcome.failures.push("no connection was accepted".to_string());
        }
        Ok(())
    }

    /// A connection that is begun counts as a message that is sent, one that is accepted as delivered.
    fn counts(&self) -> Counts {
        let [sent, delivered, missing] =
            [&self.begun, &self.accepted, &self.failed].map(|count| count.load(Relaxed));
        Counts { sent, delivered, missing, ..Counts::default() }
    }

    /// As of an engine.
    fn take_idle_ns(&self) -> u64 {
        self.idle_ns.iter().map(|idle| idle.swap(0, Relaxed)).min().unwrap_or(0)
    }

    /// The kernel's ids of the threads, each of which tells its own before all else.
    fn told_thread_ids(&self) -> BTreeSet<u32> {
        let told = |id: &AtomicU32| {
            while id.load(Relaxed) == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            id.load(Relaxed)
        };
        self.thread_ids.iter().map(told).collect()
    }

    fn run_thread(&self, index: usize, threads: usize) {
        self.thread_ids[index].store(rustix::thread::gettid().as_raw_pid() as u32, Relaxed);
        let ended = Dialer::new(self, index, threads).and_then(|mut dialer| dialer.run());
        if let Err(reason) = ended {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Connecting,
    /// CONNECT has been sent.
    Waiting,
    /// SUBSCRIBE has been sent.
    Subscribing,
    /// DISCONNECT has been sent: the broker closes, so that no port of ours stays in TIME_WAIT.
    Leaving,
}

struct Dial {
    stream: TcpStream,
    state: State,
    due_ns: u64,
    /// It may have been due long before.
    begun_ns: u64,
    connect: Vec<u8>,
    /// Empty: it does not subscribe.
    subscribe: Vec<u8>,
    input: Vec<u8>,
}

/// One thread's event loop over its connections.
struct Dialer<'a> {
    storm: &'a Storm<'a>,
    /// Which thread this is.
    index: usize,
    poll: Poll,
    /// By token.
    dials: Vec<Option<Dial>>,
    free: Vec<usize>,
    /// The number of the next connection, and the step to the one after.
    next: usize,
    step: usize,
    begin_ns: u64,
    begun: u64,
    latency: Recorder,
    /// Since when it records.
    recorded_from_ns: u64,
}

impl<'a> Dialer<'a> {
    fn new(storm: &'a Storm<'a>, index: usize, step: usize) -> Result<Dialer<'a>, String> {
        Ok(Dialer {
            storm,
            index,
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            dials: (0..storm.open_max).map(|_| None).collect(),
            free: (0..storm.open_max).rev().collect(),
            next: index,
            step,
            begin_ns: now_ns(),
            begun: 0,
            latency: Recorder::default(),
            recorded_from_ns: 0,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let mut swept = Instant::now();
        let (mut was_idle, mut last) = (false, now_ns());
        while !self.storm.stop.load(Relaxed) {
            let begun = self.begun;
            self.follow_record();
            self.begin_due()?;
            let sleep =
                if self.storm.rate > 0.0 { Duration::ZERO } else { Duration::from_millis(2) };
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in &events {
                self.serve(event.token().0);
            }
            let (is_idle, now) = (events.is_empty() && self.begun == begun, now_ns());
            if is_idle && was_idle {
                self.storm.idle_ns[self.index].fetch_add(now - last, Relaxed);
            }
            (was_idle, last) = (is_idle, now);
            if swept.elapsed() > Duration::from_millis(500) {
                self.sweep();
                swept = Instant::now();
            }
        }
        self.latency.hand_over(self.drawer());
        Ok(())
    }

    fn drawer(&self) -> &'a Drawer {
        &self.storm.drawers[self.index]
    }

    /// Begins or ends the record of latencies when it is told to.
    fn follow_record(&mut self) {
        let from_ns = self.storm.recorded_from_ns.load(Relaxed);
        if from_ns != self.recorded_from_ns {
            self.recorded_from_ns = from_ns;
            let recording = match from_ns {
                0 => Recording::default(),
                from_ns => {
                    let interval_ns = self.storm.interval_ns;
                    Recording { due_ns: from_ns..u64::MAX, from_ns, interval_ns }
                }
            };
            self.latency.begin(&recording, self.drawer());
        }
        self.latency.turn(now_ns(), self.drawer());
    }

    /// Begins as many connections as are due, or as may be under way.
    fn begin_due(&mut self) -> Result<(), String> {
        let now = now_ns();
        loop {
            let mut due_ns = now;
            if self.storm.rate > 0.0 {
                due_ns = self.begin_ns + (self.begun as f64 * 1e9 / self.storm.rate) as u64;
                if due_ns > now {
                    break;
                }
            }
            let Some(at) = self.free.pop() else { break };
            if self.storm.scenario.burden_us > 0 {
                machine::work(self.storm.scenario.burden_ns());
            }
            self.dials[at] = Some(self.dial(at, due_ns)?);
            self.begun += 1;
            self.storm.begun.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn dial(&mut self, at: usize, due_ns: u64) -> Result<Dial, String> {
        let failed = |error| format!("connecting to {}: {error}", self.storm.target.address);
        let number = self.next;
        self.next += self.step;
        // Source addresses take turns: ports are used again only after a while.
        let socket = self.storm.target.socket(number % 400_000).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        if let Err(error) = socket.connect(&self.storm.target.address.into())
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            return Err(failed(error));
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(at), interest).map_err(failed)?;
        let scenario = self.storm.scenario;
        let connect = encode_connect(
            &format!("storm-{number:09}"),
            scenario.mqtt,
            self.storm.target.keep_alive_s,
        );
        let subscribe = match scenario.filters.is_empty() {
            true => Vec::new(),
            false => encode_subscribe(&[scenario.filter_of(number)], scenario.qos, scenario.mqtt)?,
        };
        let (state, input) = (State::Connecting, Vec::new());
        Ok(Dial { stream, state, due_ns, begun_ns: now_ns(), connect, subscribe, input })
    }

    /// Takes a connection as far as it goes now.
    fn serve(&mut self, at: usize) {
        let Some(dial) = &mut self.dials[at] else { return };
        let before = dial.state;
        let ended = dial.advance(version(self.storm.scenario.mqtt));
        if before != State::Leaving && dial.state == State::Leaving {
            self.storm.accepted.fetch_add(1, Relaxed);
            self.latency.record(dial.due_ns, now_ns());
        }
        if ended {
            if dial.state != State::Leaving {
                self.storm.failed.fetch_add(1, Relaxed);
            }
            self.dials[at] = None;
            self.free.push(at);
        }
    }

    /// Gives up connections that were not accepted, or not closed, in time.
    fn sweep(&mut self) {
        let now = now_ns();
        for (at, place) in self.dials.iter_mut().enumerate() {
            let Some(dial) = place else { continue };
            if now.saturating_sub(dial.begun_ns) < CONNECT_TIME_MAX_NS {
                continue;
            }
            if dial.state != State::Leaving {
                self.storm.failed.fetch_add(1, Relaxed);
            }
            *place = None;
            self.free.push(at);
        }
    }
}

impl Dial {
    /// True if the connection has ended.
    fn advance(&mut self, version: ProtocolVersion) -> bool {
        if self.state == State::Connecting {
            // CONNECT is smaller than any socket's buffer: it goes whole or not at all.
            match self.stream.write(&self.connect) {
                Ok(size) if size == self.connect.len() => self.state = State::Waiting,
                Ok(_) => return true,
                Err(error) => {
                    return ![ErrorKind::WouldBlock, ErrorKind::NotConnected]
                        .contains(&error.kind());
                }
            }
        }
        let mut chunk = [0; 512];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(size) => self.input.extend_from_slice(&chunk[..size]),
                Err(error) => {
                    return error.kind() != ErrorKind::WouldBlock || self.refused(version);
                }
            }
            if !self.answer(version) {
                return true;
            }
        }
    }

    /// Goes on when what was waited for has come. `false`: the connection is of no use.
    fn answer(&mut self, version: ProtocolVersion) -> bool {
        let next = match self.state {
            State::Waiting if self.is_accepted(version) => {
                if self.subscribe.is_empty() {
                    State::Leaving
                } else {
                    State::Subscribing
                }
            }
            State::Subscribing if self.is_granted(version) => State::Leaving,
            _ => return true,
        };
        self.state = next;
        self.input.clear();
        let bytes = if next == State::Leaving { &DISCONNECT[..] } else { &self.subscribe };
        self.stream.write_all(bytes).is_ok()
    }

    fn is_granted(&self, version: ProtocolVersion) -> bool {
        let frame = next_frame(&self.input, usize::MAX).ok().flatten();
        let packet = frame.and_then(|frame| Packet::decode(&frame, version).ok());
        // What is refused has 0x80 and more.
        let granted =
            |suback: Suback<'_>| suback.reasons.iter().all(|reason| (reason as u8) < 0x80);
        matches!(packet, Some(Packet::Suback(suback)) if granted(suback))
    }

    fn connack(&self, version: ProtocolVersion) -> Option<ReasonCode> {
        let frame = next_frame(&self.input, usize::MAX).ok()??;
        Some(Connack::decode(&frame, version).ok()?.reason)
    }

    fn is_accepted(&self, version: ProtocolVersion) -> bool {
        self.connack(version) == Some(ReasonCode::Success)
    }

    fn refused(&self, version: ProtocolVersion) -> bool {
        self.connack(version).is_some_and(|reason| reason != ReasonCode::Success)
    }
}
