//! The generator of a replay: one thread that publishes what is due, and verifies what comes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::publisher::{Manner, Publisher};
use super::source::{Next, Source};
use super::subscribers::{Batch, Subscriber};
use super::verifier::Verifier;
use crate::engine::Counts;
use crate::machine::now_ns;
use crate::tally::Faults;

/// What is due and cannot be sent yet; a recording is not read on above it.
const WAITING_COUNT_MAX: u64 = 100_000;
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Flat out, a delivery that has not come for so long is not waited for.
const PATIENCE_NS: u64 = 3_000_000_000;
/// A broker that takes nothing for so long will not.
const STANDSTILL_NS: u64 = 20_000_000_000;

/// Flat out a loop with nothing to do sleeps until something comes, or for so long.
const SLEEP: Duration = Duration::from_millis(1);

/// What the player's thread and the one that watches it share.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub thread_id: AtomicU32,
    /// It may begin: messages are due from `begin_ns` on.
    pub begin_ns: AtomicU64,
    /// Nothing more is to be published.
    pub still: AtomicBool,
    pub stop: AtomicBool,
    /// When all was published; 0: it is not yet.
    pub end_ns: AtomicU64,
    pub sent: AtomicU64,
    pub writes: AtomicU64,
    pub delivered: AtomicU64,
    pub reads: AtomicU64,
    pub size: AtomicU64,
    pub missing: AtomicU64,
    /// Deliveries that should have come by now.
    pub expected: AtomicU64,
    pub unacked: AtomicU64,
    /// Nanoseconds in which there was nothing to do.
    pub idle_ns: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Gauges {
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Relaxed),
            writes: self.writes.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            reads: self.reads.load(Relaxed),
            size: self.size.load(Relaxed),
            missing: self.missing.load(Relaxed),
        }
    }

    /// Everything that was sent has been acknowledged and delivered.
    pub(super) fn is_at_rest(&self) -> bool {
        let delivered = self.delivered.load(Relaxed);
        self.unacked.load(Relaxed) == 0 && delivered >= self.expected.load(Relaxed)
    }
}

/// What a player has found when it ends.
#[derive(Debug)]
pub(super) struct Played {
    pub faults: Faults,
    pub latency: Histogram<u64>,
    /// The longest that a message was sent after it was due.
    pub late_ns_max: u64,
}

pub(super) struct Player {
    pub gauges: Arc<Gauges>,
    pub manner: Manner,
    /// How often as fast as it was recorded.
    pub speed: f64,
    pub source: Source,
    pub verifier: Verifier,
    pub publishers: Vec<Publisher>,
    pub subscribers: Vec<Subscriber>,
    /// Holds the largest packet.
    pub buffer: Box<[u8]>,
}

/// How far a player is.
#[derive(Default)]
struct Course {
    begin_ns: u64,
    sent: u64,
    reads: u64,
    size: u64,
    /// Waiting at all publishers.
    waiting: u64,
    waiting_bytes: u64,
    /// The recording has been read to its end.
    is_read: bool,
    /// The recording is read more slowly than it is played.
    lacks_messages: bool,
    /// When something has last gone on.
    moved_ns: u64,
}

impl Player {
    /// Runs until it is told to stop, or something fails.
    pub(super) fn run(mut self) -> Played {
        self.gauges.thread_id.store(rustix::thread::gettid().as_raw_pid() as u32, Relaxed);
        if let Err(reason) = self.run_loop() {
            let mut failure = self.gauges.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(reason);
        }
        self.verifier.finish();
        let late = self.publishers.iter().map(|publisher| publisher.late_ns_max);
        Played {
            faults: self.verifier.faults,
            late_ns_max: late.max().unwrap_or(0),
            latency: self.verifier.latency,
        }
    }

    fn run_loop(&mut self) -> Result<(), String> {
        let mut poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        self.register(&poll)?;
        let mut events = Events::with_capacity(1024);
        let mut course = Course::default();
        let (mut was_idle, mut last) = (false, now_ns());
        loop {
            if self.gauges.stop.load(Relaxed) {
                return Ok(());
            }
            if course.begin_ns == 0 {
                course.begin_ns = self.gauges.begin_ns.load(Relaxed);
                course.moved_ns = now_ns();
            }
            let has_begun = course.begin_ns > 0;
            let is_on_schedule = has_begun && self.manner.window.is_none();
            let is_busy = has_begun && (is_on_schedule || !was_idle && !course.lacks_messages);
            let sleep = if is_busy { Duration::ZERO } else { SLEEP };
            match poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in &events {
                self.serve(event.token().0, event.is_readable(), &mut course)?;
            }
            let now = now_ns();
            let sent = if has_begun { self.play(&mut course, now)? } else { 0 };
            let is_idle = events.is_empty() && sent == 0 && !course.lacks_messages;
            if is_idle && was_idle {
                self.gauges.idle_ns.fetch_add(now - last, Relaxed);
            }
            if !is_idle || course.waiting == 0 {
                course.moved_ns = now;
            }
            (was_idle, last) = (is_idle, now);
            self.tell(&course);
            self.check_standstill(&mut course, now)?;
        }
    }

    fn register(&mut self, poll: &Poll) -> Result<(), String> {
        let publishers = self.publishers.iter_mut().map(|publisher| &mut publisher.wire);
        let subscribers = self.subscribers.iter_mut().map(|subscriber| &mut subscriber.wire);
        for (at, wire) in publishers.chain(subscribers).enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = poll.registry().register(&mut wire.stream, Token(at), interest);
            registered.map_err(|error| format!("epoll: {error}"))?;
        }
        Ok(())
    }

    fn serve(
        &mut self,
        token: usize,
        is_readable: bool,
        course: &mut Course,
    ) -> Result<(), String> {
        let Player { publishers, subscribers, buffer, verifier, .. } = self;
        if let Some(publisher) = publishers.get_mut(token) {
            publisher.flush()?;
            if is_readable {
                publisher.read(buffer)?;
            }
            return Ok(());
        }
        let Batch { reads, size } = subscribers[token - publishers.len()].read(buffer, verifier)?;
        course.reads += reads;
        course.size += size;
        Ok(())
    }

    /// Publishes what is due. Returns how many messages that was.
    fn play(&mut self, course: &mut Course, now: u64) -> Result<u64, String> {
        if self.gauges.still.load(Relaxed) {
            return Ok(0);
        }
        self.take_due(course, now)?;
        let mut sent = 0;
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            if !publisher.waiting.is_empty() {
                sent += publisher.pump(index, self.manner, &mut self.verifier)?;
            }
        }
        course.sent += sent;
        // As if all were of one size: near enough for a bound.
        course.waiting_bytes -= course.waiting_bytes * sent / course.waiting.max(1);
        course.waiting -= sent;
        if course.waiting == 0 && course.is_read {
            let _ = self.gauges.end_ns.compare_exchange(0, now_ns(), Relaxed, Relaxed);
        }
        Ok(sent)
    }

    /// Hands what is due to its publishers.
    fn take_due(&mut self, course: &mut Course, now: u64) -> Result<(), String> {
        course.lacks_messages = false;
        while course.waiting < WAITING_COUNT_MAX && course.waiting_bytes < WAITING_BYTES_MAX {
            let at_ns = match self.source.next()? {
                Next::At(at_ns) => at_ns,
                Next::Later => {
                    course.lacks_messages = true;
                    return Ok(());
                }
                Next::End => {
                    course.is_read = true;
                    return Ok(());
                }
            };
            let due_ns = course.begin_ns.saturating_add((at_ns as f64 / self.speed) as u64);
            if self.manner.window.is_none() && due_ns > now {
                return Ok(());
            }
            let Some(cue) = self.source.take() else { return Ok(()) };
            let payload_size = cue.message.payload.as_ref().map_or(0, Vec::len);
            course.waiting_bytes += (200 + cue.message.topic.len() + payload_size) as u64;
            course.waiting += 1;
            let publisher = self.verifier.publisher_of(cue.stream);
            self.publishers[publisher].waiting.push_back((cue, due_ns));
        }
        Ok(())
    }

    fn tell(&self, course: &Course) {
        let gauges = &self.gauges;
        let unacked = self.publishers.iter().map(Publisher::unacked).sum::<usize>();
        let writes = self.publishers.iter().map(|publisher| publisher.write_count).sum();
        // `expected` first: what is at rest has come.
        gauges.expected.store(self.verifier.expected, Relaxed);
        gauges.unacked.store(unacked as u64, Relaxed);
        gauges.sent.store(course.sent, Relaxed);
        gauges.writes.store(writes, Relaxed);
        gauges.reads.store(course.reads, Relaxed);
        gauges.size.store(course.size, Relaxed);
        gauges.missing.store(self.verifier.missing, Relaxed);
        gauges.delivered.store(self.verifier.delivered, Relaxed);
    }

    fn check_standstill(&mut self, course: &mut Course, now: u64) -> Result<(), String> {
        let stood_ns = now.saturating_sub(course.moved_ns);
        if stood_ns > STANDSTILL_NS {
            return Err(format!(
                "{} messages are due, and the broker has taken nothing for {} s",
                course.waiting,
                STANDSTILL_NS / 1_000_000_000
            ));
        }
        if stood_ns > PATIENCE_NS && self.manner.window.is_some() {
            self.verifier.give_up_waiting();
        }
        Ok(())
    }
}
