//! A run as it went, second by second.

use std::time::Duration;

use serde::Serialize;

use crate::engine::Counts;
use crate::recorder::Latencies;

/// Points of a run: more seconds than these are put together.
const POINTS_MAX: u32 = 3600;
/// A run that takes longer than was thought has one long interval at its end.
pub(crate) const MOMENTS_MAX: usize = 2 * POINTS_MAX as usize;

/// A last piece that is shorter than this part of an interval belongs to the point before it.
const PIECE_MIN: f64 = 0.25;

/// The length of the intervals of a run: whole seconds.
pub(crate) fn interval(span: Duration) -> Duration {
    let seconds = span.as_secs_f64() / f64::from(POINTS_MAX);
    Duration::from_secs(seconds.ceil().max(1.0) as u64)
}

/// What happened in an interval.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
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
pub(crate) struct Series {
    pub points: Vec<Point>,
    #[serde(skip)]
    interval: Duration,
}

/// The meters at one moment, all since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub at_s: f64,
    pub counts: Counts,
    pub broker_s: Option<f64>,
    pub generator_s: Option<f64>,
    pub resident_size: Option<u64>,
}

impl Series {
    /// Between each two of the `moments`, of intervals that were to be `interval` long, is a point.
    pub(crate) fn new(mut moments: Vec<Moment>, interval: Duration) -> Series {
        let count = moments.len();
        if let [_, .., last, end] = &moments[..]
            && end.at_s - last.at_s < PIECE_MIN * interval.as_secs_f64()
        {
            moments.remove(count - 2);
        }
        let points = moments.windows(2).map(|pair| Point::between(&pair[0], &pair[1])).collect();
        Series { points, interval }
    }

    /// Adds the latencies of the intervals.
    pub(crate) fn set_latencies(&mut self, latencies: &mut Latencies) {
        let interval_s = self.interval.as_secs_f64();
        // A point that began an instant before an interval is that interval's.
        let number = |point: &Point| ((point.at_s - point.span_s) / interval_s + 0.05) as usize;
        let Some(last) = self.points.last() else { return };
        let latencies = latencies.end(number(last) + 1);
        for point in &mut self.points {
            let latency = latencies.get(number(point)).copied().flatten();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Drawer, Recorder, Recording};

    const SECOND: Duration = Duration::from_secs(1);

    /// Of a run in which a hundred messages come each second.
    fn series(ends: &[f64]) -> Series {
        let moment = |at_s: &f64| {
            let counts = Counts { delivered: (at_s * 100.0) as u64, ..Counts::default() };
            Moment { at_s: *at_s, counts, broker_s: Some(at_s / 2.0), ..Moment::default() }
        };
        Series::new(ends.iter().map(moment).collect(), SECOND)
    }

    fn spans(ends: &[f64]) -> Vec<f64> {
        series(ends).points.iter().map(|point| (point.span_s * 100.0).round() / 100.0).collect()
    }

    #[test]
    fn a_short_last_piece_belongs_to_the_point_before_it() {
        assert_eq!(spans(&[0.0, 0.1]), [0.1]);
        assert_eq!(spans(&[0.0, 1.0, 2.0, 2.2]), [1.0, 1.2]);
        assert_eq!(spans(&[0.0, 1.0, 2.0, 2.5]), [1.0, 1.0, 0.5]);
        // The machine stood still.
        assert_eq!(spans(&[0.0, 1.0, 6.3, 7.0, 8.0]), [1.0, 5.3, 0.7, 1.0]);
        for point in series(&[0.0, 1.0, 6.3, 7.0]).points {
            assert!((point.out_per_s - 100.0).abs() < 2.0, "{point:?}");
            assert!((point.broker_cores.expect("measured") - 0.5).abs() < 0.01, "{point:?}");
        }
    }

    #[test]
    fn latencies_stand_at_the_points_of_their_time() {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let (mut recorder, drawer) = (Recorder::default(), Drawer::default());
        let recording = Recording { due_ns: 0..ns(9.0), from_ns: 0, interval_ns: ns(1.0) };
        recorder.begin(&recording, &drawer);
        for (came_s, took_s) in [(0.5, 0.1), (6.4, 4.0), (7.5, 0.2), (8.1, 0.3)] {
            recorder.turn(ns(came_s), &drawer);
            recorder.record(ns(came_s - took_s), ns(came_s));
        }
        recorder.hand_over(&drawer);
        let mut latencies = Latencies::default();
        latencies.collect([&drawer].into_iter());
        let mut series = series(&[0.0, 0.999, 6.3, 7.0, 8.0]);
        series.set_latencies(&mut latencies);
        let tenths = |us: f64| (us / 1e5).round();
        let longest: Vec<_> = series.points.iter().map(|point| point.max_us.map(tenths)).collect();
        assert_eq!(longest, [Some(1.0), None, Some(40.0), Some(3.0)]);
    }

    #[test]
    fn an_hour_has_no_more_points_than_seconds() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            [SECOND / 10, 60 * SECOND, hour, 10 * hour].map(interval),
            [SECOND, SECOND, SECOND, 10 * SECOND]
        );
    }
}
