//! A run as it went, second by second.

use std::time::Duration;

use serde::Serialize;

use crate::engine::Counts;
use crate::recorder::IntervalLatency;

/// Points of a run: more seconds than these are put together.
const POINTS_MAX: u32 = 3600;

/// A last piece that is shorter than this part of an interval belongs to the point before it.
const PIECE_MIN: f64 = 0.25;

/// The length of the intervals of a run: whole seconds.
pub fn interval(span: Duration) -> Duration {
    let seconds = span.as_secs_f64() / f64::from(POINTS_MAX);
    Duration::from_secs(seconds.ceil().max(1.0) as u64)
}

/// What happened in an interval.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// When the interval ended, seconds from the start of the measurement, and how long it was.
    pub at_s: f64,
    pub span_s: f64,
    /// Messages (connections in a storm) per second towards the broker, and delivered by it.
    pub in_per_s: f64,
    pub out_per_s: f64,
    /// Messages that later ones of the same publisher overtook, and that had not come by the end of the interval: dropped,
    /// unless they came later. In a storm: connections that failed. Of shared subscriptions it is not known.
    pub missing: u64,
    /// Of messages that came in this interval; `None` where it is not recorded.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    /// Cores' worth of processor time; `None`: not measured.
    pub broker_cores: Option<f64>,
    pub generator_cores: Option<f64>,
    /// The broker's resident memory at the end of the interval, bytes.
    pub resident_size: Option<u64>,
}

/// The points of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Series {
    pub points: Vec<Point>,
}

/// The meters at one moment, all since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    pub at_s: f64,
    pub counts: Counts,
    pub broker_s: Option<f64>,
    pub generator_s: Option<f64>,
    pub resident_size: Option<u64>,
}

impl Series {
    /// Between each two of the `moments`, of intervals that were to be `interval` long, is a point.
    pub fn new(mut moments: Vec<Moment>, interval: Duration) -> Series {
        let count = moments.len();
        if let [_, .., last, end] = &moments[..]
            && end.at_s - last.at_s < PIECE_MIN * interval.as_secs_f64()
        {
            moments.remove(count - 2);
        }
        let points = moments.windows(2).map(|pair| Point::between(&pair[0], &pair[1])).collect();
        Series { points }
    }

    /// Adds the latencies of the intervals.
    pub fn set_latencies(&mut self, latencies: &[Option<IntervalLatency>]) {
        for (point, latency) in self.points.iter_mut().zip(latencies) {
            point.p50_us = latency.map(|latency| latency.p50_us);
            point.p99_us = latency.map(|latency| latency.p99_us);
            point.max_us = latency.map(|latency| latency.max_us);
        }
    }
}

impl Point {
    fn between(begin: &Moment, end: &Moment) -> Point {
        let span_s = (end.at_s - begin.at_s).max(f64::MIN_POSITIVE);
        let counts = end.counts.since(&begin.counts);
        let cores =
            |end: Option<f64>, begin: Option<f64>| Some(((end? - begin?) / span_s).max(0.0));
        Point {
            at_s: end.at_s,
            span_s,
            in_per_s: counts.sent as f64 / span_s,
            out_per_s: counts.delivered as f64 / span_s,
            missing: counts.missing,
            p50_us: None,
            p99_us: None,
            max_us: None,
            broker_cores: cores(end.broker_s, begin.broker_s),
            generator_cores: cores(end.generator_s, begin.generator_s),
            resident_size: end.resident_size,
        }
    }
}
