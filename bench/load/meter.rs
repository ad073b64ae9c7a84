//! Reads the meters around a span of time: processor time of broker and generator, and memory.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::Counts;
use crate::interrupt;
use crate::machine::{self, ProcessorTime, Time};
use crate::outcome::Bound;
use crate::progress::Progress;
use crate::report::series::{self, Moment, Series};

/// A thread that ran, or was ready to, for this much of the time was busy.
pub(crate) const BUSY: f64 = 0.93;

/// A thread that was ready for this much of the time, and did not run, had its core taken by others.
const CONTESTED: f64 = 0.05;

/// How often it is looked whether what ends by itself is over.
const SHORT_STEP: Duration = Duration::from_millis(5);

/// Half of the shortest run that the command line allows.
const MEASURED_S_MIN: f64 = 0.05;

/// Watches a broker's process, where one is known, and the generator's threads.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: Option<u32>,
    generator: BTreeSet<u32>,
    pub resident_size_max: Option<u64>,
    /// The latest span, interval by interval.
    series: Series,
}

struct Reading {
    at: Instant,
    broker: Option<ProcessorTime>,
    own: ProcessorTime,
}

/// What was used during a span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub elapsed_s: f64,
    /// Seconds of processor time.
    pub broker_s: Option<f64>,
    /// `None`: not measured.
    pub generator_s: Option<f64>,
    pub bound: Bound,
    /// Other programs used the broker's or the generator's core.
    pub contested: bool,
    pub resident_size: Option<u64>,
}

impl Usage {
    /// The span was not cut so short that its figures would mean nothing.
    pub(crate) fn is_measured(&self) -> bool {
        self.elapsed_s >= MEASURED_S_MIN
    }
}

impl Meter {
    pub(crate) fn new(pid: Option<u32>, generator: BTreeSet<u32>) -> Meter {
        Meter { pid, generator, resident_size_max: None, series: Series::default() }
    }

    /// Waits for `span` while `check` finds nothing wrong and nobody interrupts, and returns what was used in it. `counts` are
    /// read between intervals, which `take_series` gives.
    pub(crate) fn watch(
        &mut self,
        span: Duration,
        progress: &Progress,
        counts: impl FnMut() -> Counts,
        mut check: impl FnMut() -> Result<(), String>,
    ) -> Result<Usage, String> {
        let interval = series::interval(span);
        self.watch_course(span, interval, progress, counts, || check().map(|()| false))
    }

    /// The same until `has_ended` says that what is measured has: for a span at most, in intervals that are given.
    pub(crate) fn watch_course(
        &mut self,
        span: Duration,
        interval: Duration,
        progress: &Progress,
        mut counts: impl FnMut() -> Counts,
        mut has_ended: impl FnMut() -> Result<bool, String>,
    ) -> Result<Usage, String> {
        let begin = self.read()?;
        let end = begin.at + span;
        let mut moments = vec![Moment { counts: counts(), ..self.moment(&begin, &begin) }];
        let mut ends = 1;
        loop {
            let now = Instant::now();
            let next = begin.at + interval * ends;
            let left = end.min(next).saturating_duration_since(now);
            if now >= end || interrupt::came() {
                break;
            }
            if left.is_zero() {
                let reading = self.read()?;
                if moments.len() < series::MOMENTS_MAX {
                    moments.push(Moment { counts: counts(), ..self.moment(&begin, &reading) });
                }
                // A machine that stood still has passed several.
                ends = ((reading.at - begin.at).as_nanos() / interval.as_nanos()) as u32 + 1;
                continue;
            }
            let step = left.min(Duration::from_millis(100));
            thread::sleep(step);
            progress.advance(step);
            self.resident_size();
            if has_ended()? {
                break;
            }
        }
        let after = self.read()?;
        let last = Moment { counts: counts(), ..self.moment(&begin, &after) };
        moments.push(last);
        self.series = Series::new(moments, interval);
        Ok(self.usage(&begin, &after, last.resident_size))
    }

    /// What `watch` has seen at last, interval by interval.
    pub(crate) fn take_series(&mut self) -> Series {
        std::mem::take(&mut self.series)
    }

    fn moment(&mut self, begin: &Reading, now: &Reading) -> Moment {
        let seconds = |total: Total| total.ran as f64 / 1e9;
        let [broker_s, generator_s] =
            [self.broker(begin, now), self.generator(begin, now)].map(|total| total.map(seconds));
        let at_s = (now.at - begin.at).as_secs_f64();
        let resident_size = self.resident_size();
        Moment { at_s, counts: Counts::default(), broker_s, generator_s, resident_size }
    }

    fn broker(&self, begin: &Reading, end: &Reading) -> Option<Total> {
        let (begin, end) = (begin.broker.as_ref()?, end.broker.as_ref()?);
        Some(Total::of(end.since(begin, |_| true)))
    }

    /// `None`: it is not measured.
    fn generator(&self, begin: &Reading, end: &Reading) -> Option<Total> {
        let is_measured = !self.generator.is_empty()
            && self.generator.iter().all(|thread| begin.own.has(*thread) && end.own.has(*thread));
        let mine = |thread| self.generator.contains(&thread);
        is_measured.then(|| Total::of(end.own.since(&begin.own, mine)))
    }

    /// The same until `is_done`, or somebody interrupts: of what ends by itself, and may be over at once.
    pub(crate) fn watch_until(
        &mut self,
        progress: &Progress,
        mut is_done: impl FnMut() -> Result<bool, String>,
    ) -> Result<Usage, String> {
        let begin = self.read()?;
        while !is_done()? && !interrupt::came() {
            thread::sleep(SHORT_STEP);
            progress.advance(SHORT_STEP);
            self.resident_size();
        }
        let after = self.read()?;
        let resident_size = self.resident_size();
        Ok(self.usage(&begin, &after, resident_size))
    }

    pub(crate) fn resident_size(&mut self) -> Option<u64> {
        let size = machine::resident_size(self.pid?).ok();
        self.resident_size_max = self.resident_size_max.max(size);
        size
    }

    fn read(&self) -> Result<Reading, String> {
        let ended = |error| format!("the broker's process cannot be measured: {error}");
        let broker = self.pid.map(ProcessorTime::of_process).transpose().map_err(ended)?;
        let own = ProcessorTime::of_process(std::process::id())
            .map_err(|error| format!("/proc: {error}"))?;
        Ok(Reading { at: Instant::now(), broker, own })
    }

    fn usage(&self, begin: &Reading, end: &Reading, resident_size: Option<u64>) -> Usage {
        let elapsed_ns = (end.at - begin.at).as_nanos() as f64;
        let (generator, broker) = (self.generator(begin, end), self.broker(begin, end));
        let is_busy = |total: &Total| total.busiest as f64 > BUSY * elapsed_ns;
        let bound = match (&broker, &generator) {
            (Some(broker), _) if is_busy(broker) => Bound::Broker,
            (None, _) | (_, None) => Bound::Unknown,
            (Some(_), Some(generator)) if is_busy(generator) => Bound::Generator,
            (Some(_), Some(_)) => Bound::Waiting,
        };
        let totals = broker.iter().chain(&generator);
        let waited_longest = totals.map(|total| total.waited_longest).max().unwrap_or(0);
        Usage {
            elapsed_s: elapsed_ns / 1e9,
            broker_s: broker.map(|broker| broker.ran as f64 / 1e9),
            generator_s: generator.map(|generator| generator.ran as f64 / 1e9),
            bound,
            contested: waited_longest as f64 > CONTESTED * elapsed_ns,
            resident_size,
        }
    }
}

/// Nanoseconds of several threads: of all together, and the most of one.
#[derive(Default)]
struct Total {
    ran: u64,
    busiest: u64,
    waited_longest: u64,
}

impl Total {
    fn of(threads: impl Iterator<Item = Time>) -> Total {
        threads.fold(Total::default(), |total, time| Total {
            ran: total.ran + time.ran,
            busiest: total.busiest.max(time.busy()),
            waited_longest: total.waited_longest.max(time.waited),
        })
    }
}
