//! Latencies of the generator's threads, interval by interval. A thread swaps its histogram for an empty one, which
//! costs it next to nothing, and the thread of the meters adds the histograms up.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// A histogram from one nanosecond to two minutes, with three digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("bounds in order")
}

/// How many intervals are added up at a time. A thread that is later than this counts for the oldest of them.
const OPEN_MAX: usize = 8;

/// The latencies to record: of messages that were due in `due_ns`, in intervals of `interval_ns` from `from_ns` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recording {
    pub due_ns: Range<u64>,
    pub from_ns: u64,
    /// 0: there is one interval for all.
    pub interval_ns: u64,
}

/// Where a thread leaves its full histograms, and finds empty ones.
#[derive(Debug, Default)]
pub(crate) struct Drawer(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    full: Vec<(usize, Histogram<u64>)>,
    empty: Vec<Histogram<u64>>,
}

/// Records the latencies of one thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    recording: Recording,
    histogram: Histogram<u64>,
    interval: usize,
    /// When the interval ends.
    end_ns: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        let recording = Recording::default();
        Recorder { recording, histogram: new_histogram(), interval: 0, end_ns: u64::MAX }
    }
}

impl Recorder {
    /// Records a message that was due at `due_ns` and has arrived.
    #[inline(always)]
    pub(crate) fn record(&mut self, due_ns: u64, now_ns: u64) {
        if self.recording.due_ns.contains(&due_ns) {
            self.histogram.saturating_record(now_ns.saturating_sub(due_ns).max(1));
        }
    }

    /// Hands over the latencies so far, and records as ordered from now on.
    pub(crate) fn begin(&mut self, recording: &Recording, drawer: &Drawer) {
        if *recording == self.recording {
            return;
        }
        self.hand_over(drawer);
        self.recording = recording.clone();
        self.interval = 0;
        self.end_ns = match recording.interval_ns {
            0 => u64::MAX,
            span => recording.from_ns + span,
        };
    }

    /// Hands over the interval's histogram if the interval is over. Messages behind the last interval count for it.
    #[inline]
    pub(crate) fn turn(&mut self, now_ns: u64, drawer: &Drawer) {
        if now_ns >= self.end_ns {
            self.end_interval(now_ns, drawer);
        }
    }

    #[cold]
    fn end_interval(&mut self, now_ns: u64, drawer: &Drawer) {
        self.hand_over(drawer);
        let Recording { due_ns, from_ns, interval_ns } = &self.recording;
        self.interval = ((now_ns - from_ns) / interval_ns) as usize;
        let end_ns = from_ns + (self.interval as u64 + 1) * interval_ns;
        self.end_ns = if end_ns >= due_ns.end { u64::MAX } else { end_ns };
    }

    pub(crate) fn hand_over(&mut self, drawer: &Drawer) {
        if self.histogram.is_empty() {
            return;
        }
        let mut contents = drawer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = contents.empty.pop().unwrap_or_else(new_histogram);
        contents.full.push((self.interval, std::mem::replace(&mut self.histogram, next)));
    }
}

/// The latencies of one interval, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IntervalLatency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// The latencies of a run, of all threads.
#[derive(Debug)]
pub(crate) struct Latencies {
    pub total: Histogram<u64>,
    /// Intervals that have not ended, by number.
    open: BTreeMap<usize, Histogram<u64>>,
    /// Intervals that have ended; `None`: no message arrived in it.
    ended: Vec<Option<IntervalLatency>>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { total: new_histogram(), open: BTreeMap::new(), ended: Vec::new() }
    }
}

impl Latencies {
    /// Takes the histograms that the threads have handed over.
    pub(crate) fn collect<'a>(&mut self, drawers: impl Iterator<Item = &'a Drawer>) {
        for drawer in drawers {
            let contents = &mut drawer.0.lock().unwrap_or_else(PoisonError::into_inner);
            let full = std::mem::take(&mut contents.full);
            for (interval, mut histogram) in full {
                self.add(interval, &histogram);
                histogram.reset();
                contents.empty.push(histogram);
            }
        }
        while self.open.len() > OPEN_MAX {
            self.end_oldest();
        }
    }

    fn add(&mut self, interval: usize, histogram: &Histogram<u64>) {
        let interval = interval.max(self.ended.len());
        let open = self.open.entry(interval).or_insert_with(new_histogram);
        for sum in [&mut self.total, open] {
            sum.add(histogram).expect("all have the same bounds");
        }
    }

    fn end_oldest(&mut self) {
        let Some((interval, histogram)) = self.open.pop_first() else { return };
        let us = |ns: u64| ns as f64 / 1000.0;
        self.ended.resize(interval, None);
        self.ended.push(Some(IntervalLatency {
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            max_us: us(histogram.max()),
        }));
    }

    /// Ends all intervals. The last of `count` and all behind it become one.
    pub(crate) fn end(&mut self, count: usize) -> &[Option<IntervalLatency>] {
        let last = count.saturating_sub(1).max(self.ended.len());
        let mut tail = new_histogram();
        for histogram in self.open.split_off(&last).values() {
            tail.add(histogram).expect("all have the same bounds");
        }
        if !tail.is_empty() {
            self.open.insert(last, tail);
        }
        while !self.open.is_empty() {
            self.end_oldest();
        }
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Latencies of messages given as (arrival, latency), each in seconds, in intervals of a second.
    fn recorded(
        threads: &[&[(u64, u64)]],
        count: usize,
    ) -> (Latencies, Vec<Option<IntervalLatency>>) {
        let due_ns = SECOND..1_000 * SECOND;
        let recording = Recording { due_ns, from_ns: SECOND, interval_ns: SECOND };
        let mut latencies = Latencies::default();
        for came in threads {
            let (mut recorder, drawer) = (Recorder::default(), Drawer::default());
            recorder.begin(&recording, &drawer);
            for (at, took) in *came {
                let now = at * SECOND + SECOND / 2;
                recorder.turn(now, &drawer);
                recorder.record(now - took * SECOND, now);
                latencies.collect([&drawer].into_iter());
            }
            recorder.begin(&Recording::default(), &drawer);
            latencies.collect([&drawer].into_iter());
        }
        let ended = latencies.end(count).to_vec();
        (latencies, ended)
    }

    fn maxima(ended: &[Option<IntervalLatency>]) -> Vec<Option<u64>> {
        let seconds = |latency: &IntervalLatency| (latency.max_us / 1e6).round() as u64;
        ended.iter().map(|latency| latency.as_ref().map(seconds)).collect()
    }

    #[test]
    fn each_interval_has_its_own_latencies_of_all_threads() {
        let threads: [&[_]; 2] = [&[(1, 0), (2, 1), (5, 4)], &[(2, 0), (4, 3), (4, 2)]];
        let (latencies, ended) = recorded(&threads, 5);
        assert_eq!(maxima(&ended), [Some(0), Some(1), None, Some(3), Some(4)]);
        assert_eq!(latencies.total.len(), 6);
    }

    #[test]
    fn what_was_not_due_in_the_time_of_the_record_is_left_out() {
        let (latencies, ended) = recorded(&[&[(3, 2), (3, 3)]], 9);
        assert_eq!((latencies.total.len(), maxima(&ended)), (1, vec![None, None, Some(2)]));
    }

    #[test]
    fn what_comes_behind_the_last_interval_counts_for_it() {
        let (latencies, ended) = recorded(&[&[(1, 0), (2, 0), (7, 6)]], 2);
        assert_eq!((latencies.total.len(), maxima(&ended)), (3, vec![Some(0), Some(6)]));
    }

    #[test]
    fn a_thread_that_is_far_behind_counts_for_the_oldest_open_interval() {
        let quick: Vec<(u64, u64)> = (1..=20).map(|at| (at, 0)).collect();
        let (latencies, ended) = recorded(&[&quick, &[(2, 1)]], 20);
        let expected: Vec<Option<u64>> =
            (0..20).map(|interval| Some(u64::from(interval == 20 - OPEN_MAX))).collect();
        assert_eq!((latencies.total.len(), maxima(&ended)), (21, expected));
    }
}
