//! Reads the meters around a span of time: processor time of broker and generator, and memory.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::{self, ProcessorTime};
use crate::outcome::Bound;
use crate::progress::Progress;

/// A thread that used this much of the time was busy.
const BUSY: f64 = 0.93;

/// Watches a broker's process, where one is known, and the generator's threads.
#[derive(Debug)]
pub struct Meter {
    pid: Option<u32>,
    generator: BTreeSet<u32>,
    pub resident_size_max: Option<u64>,
}

struct Reading {
    at: Instant,
    broker: Option<ProcessorTime>,
    own: ProcessorTime,
}

/// What was used during a span.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub elapsed_s: f64,
    /// Seconds of processor time.
    pub broker_s: Option<f64>,
    pub generator_s: f64,
    pub bound: Bound,
    pub resident_size: Option<u64>,
}

impl Meter {
    pub fn new(pid: Option<u32>, generator: BTreeSet<u32>) -> Meter {
        Meter { pid, generator, resident_size_max: None }
    }

    /// Waits for `span` while `check` finds nothing wrong, and returns what was used in it.
    pub fn watch(
        &mut self,
        span: Duration,
        progress: &Progress,
        mut check: impl FnMut() -> Result<(), String>,
    ) -> Result<Usage, String> {
        let begin = self.read()?;
        let end = begin.at + span;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let step = left.min(Duration::from_millis(100));
            thread::sleep(step);
            progress.advance(step);
            self.resident_size();
            check()?;
        }
        let after = self.read()?;
        let resident_size = self.resident_size();
        Ok(self.usage(&begin, &after, resident_size))
    }

    pub fn resident_size(&mut self) -> Option<u64> {
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
        let broker =
            end.broker.as_ref().zip(begin.broker.as_ref()).map(|(end, begin)| end.since(begin));
        let used = self.generator.iter().map(|thread| end.own.thread_since(&begin.own, *thread));
        let (sum, busiest) =
            used.fold((0, 0), |(sum, busiest), time| (sum + time, time.max(busiest)));
        let generator_busy = busiest as f64 > BUSY * elapsed_ns;
        let bound = match broker {
            None => Bound::Unknown,
            Some((_, busiest)) if busiest as f64 > BUSY * elapsed_ns => Bound::Broker,
            Some(_) if generator_busy => Bound::Generator,
            Some(_) => Bound::Waiting,
        };
        Usage {
            elapsed_s: elapsed_ns / 1e9,
            broker_s: broker.map(|(sum, _)| sum as f64 / 1e9),
            generator_s: sum as f64 / 1e9,
            bound,
            resident_size,
        }
    }
}
