//! The clocks of agents: how far each is ahead of the driver's, how that changes, and how well it is known.
//!
//! A reading is the best of many pings: half its round trip is how wrong it may be, whichever way took longer. Between
//! two readings a clock is assumed to go evenly. A reading that is off the line between its neighbours by more than the
//! round trips explain shows how unevenly it goes.

use serde::{Deserialize, Serialize};

/// One reading of an agent's clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// Nanoseconds of the driver's clock.
    pub at_ns: i64,
    /// By how much the agent's clock is ahead.
    pub offset_ns: i64,
    pub round_trip_ns: u64,
}

/// One ping, as the driver (sent, came) and the agent (got, answered) have stamped it, nanoseconds of their clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    pub sent_ns: u64,
    pub got_ns: u64,
    pub answered_ns: u64,
    pub came_ns: u64,
}

impl Ping {
    /// `None`: no clocks that go forward can have stamped the ping so.
    pub(super) fn reading(&self) -> Option<Reading> {
        let there = i64::try_from(i128::from(self.got_ns) - i128::from(self.sent_ns)).ok()?;
        let back = i64::try_from(i128::from(self.answered_ns) - i128::from(self.came_ns)).ok()?;
        let round = self.came_ns.checked_sub(self.sent_ns)?;
        let inside = self.answered_ns.checked_sub(self.got_ns)?;
        // The clocks differ in pace, too, so a round trip may seem to have taken less than no time.
        let round_trip_ns =
            if inside > round + round / 16 { return None } else { round.saturating_sub(inside) };
        let offset_ns = i64::midpoint(there, back);
        Some(Reading {
            at_ns: i64::try_from(self.sent_ns + round / 2).ok()?,
            offset_ns,
            round_trip_ns,
        })
    }
}

/// The readings of one agent, in the order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Track(pub Vec<Reading>);

/// The value at `at` of the line through points in the order of their first; beyond the ends the last line goes on.
pub(super) fn interpolate(points: &[(i64, i64)], at: i64) -> i64 {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return 0 };
    let behind = points.partition_point(|point| point.0 <= at).clamp(1, points.len().max(2) - 1);
    let Some(end) = points.get(behind) else { return first.1 };
    let begin = points[behind - 1];
    if end.0 <= begin.0 {
        return last.1;
    }
    let part = (at as f64 - begin.0 as f64) / (end.0 as f64 - begin.0 as f64);
    begin.1.saturating_add((part * (end.1 as f64 - begin.1 as f64)).round() as i64)
}

impl Track {
    fn points(&self) -> Vec<(i64, i64)> {
        self.0.iter().map(|reading| (reading.at_ns, reading.offset_ns)).collect()
    }

    /// By how much the agent's clock is ahead at a time of the driver's.
    pub(super) fn offset_at(&self, at_ns: i64) -> i64 {
        interpolate(&self.points(), at_ns)
    }

    /// How much faster the agent's clock goes, millionths.
    pub(super) fn drift_ppm(&self) -> f64 {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return 0.0 };
        let elapsed = (last.at_ns - first.at_ns) as f64;
        if elapsed > 0.0 { (last.offset_ns - first.offset_ns) as f64 / elapsed * 1e6 } else { 0.0 }
    }

    /// Half the longest of the shortest round trips.
    pub(super) fn half_round_trip_ns(&self) -> u64 {
        self.0.iter().map(|reading| reading.round_trip_ns.div_ceil(2)).max().unwrap_or(0)
    }

    /// How far a reading is off the line of its neighbours, beyond what the round trips explain.
    pub(super) fn residual_ns(&self) -> u64 {
        let off = |three: &[Reading]| {
            let ends = [three[0], three[2]].map(|reading| (reading.at_ns, reading.offset_ns));
            let off = three[1].offset_ns.abs_diff(interpolate(&ends, three[1].at_ns));
            let known: u64 = three.iter().map(|reading| reading.round_trip_ns.div_ceil(2)).sum();
            off.saturating_sub(known)
        };
        self.0.windows(3).map(off).max().unwrap_or(0)
    }

    /// How wrong an offset may be.
    pub(super) fn uncertainty_ns(&self) -> u64 {
        self.half_round_trip_ns() + self.residual_ns()
    }

    /// By how much this clock is ahead of `other`, by the times of this one.
    pub(super) fn relative_to(&self, other: &Track) -> Vec<(i64, i64)> {
        let mut times: Vec<i64> =
            self.0.iter().chain(&other.0).map(|reading| reading.at_ns).collect();
        times.sort_unstable();
        times.dedup();
        let point = |at: i64| {
            let own = self.offset_at(at);
            (at + own, own - other.offset_at(at))
        };
        times.into_iter().map(point).collect()
    }
}

/// How wrong a latency between two of these clocks may be: the uncertainty of the two worst clocks, and the drift of a
/// clock within half a slice.
pub(super) fn pair_uncertainty_ns(tracks: &[&Track], slice_ns: u64) -> u64 {
    let mut each: Vec<u64> = tracks.iter().map(|track| track.uncertainty_ns()).collect();
    each.sort_unstable_by(|one, other| other.cmp(one));
    let drifts = tracks.iter().map(|track| track.drift_ppm());
    let (least, most) = drifts
        .fold((f64::MAX, f64::MIN), |(least, most), drift| (least.min(drift), most.max(drift)));
    let within = (most - least).max(0.0) / 1e6 * slice_ns as f64 / 2.0;
    each.iter().take(2).sum::<u64>() + within.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_ns: i64, offset_ns: i64, round_trip_ns: u64) -> Reading {
        Reading { at_ns, offset_ns, round_trip_ns }
    }

    #[test]
    fn a_ping_is_off_by_half_its_round_trip_at_most() {
        // The agent's clock is 1,000 ahead; the way there takes 10, the agent 5, the way back 30.
        let ping = Ping { sent_ns: 100, got_ns: 1110, answered_ns: 1115, came_ns: 145 };
        let read = ping.reading().expect("they go forward");
        assert_eq!(read.round_trip_ns, 40);
        assert!(read.offset_ns.abs_diff(1000) <= 20, "{read:?}");
        let nonsense = [
            Ping { sent_ns: 100, got_ns: 1110, answered_ns: 1000, came_ns: 145 },
            Ping { sent_ns: 100, got_ns: 0, answered_ns: u64::MAX, came_ns: 145 },
            Ping { sent_ns: 100, got_ns: 0, answered_ns: 500, came_ns: 145 },
        ];
        assert!(nonsense.iter().all(|ping| ping.reading().is_none()));
    }

    #[test]
    fn a_clock_goes_evenly_between_readings_and_beyond() {
        let track = Track(vec![reading(0, 100, 10), reading(1000, 200, 30)]);
        assert_eq!(
            [-1000, 0, 500, 1000, 2000].map(|at| track.offset_at(at)),
            [0, 100, 150, 200, 300]
        );
        assert_eq!(
            (track.drift_ppm(), track.half_round_trip_ns(), track.residual_ns()),
            (1e5, 15, 0)
        );
        assert_eq!(Track(vec![reading(5, 7, 1)]).offset_at(9), 7);
        assert_eq!(Track::default().offset_at(9), 0);
    }

    #[test]
    fn an_uneven_clock_is_known_less_well() {
        let even = Track(vec![reading(0, 0, 10), reading(500, 52, 10), reading(1000, 100, 10)]);
        assert_eq!((even.residual_ns(), even.uncertainty_ns()), (0, 5));
        let uneven = Track(vec![reading(0, 0, 10), reading(500, 90, 10), reading(1000, 100, 10)]);
        assert_eq!((uneven.residual_ns(), uneven.uncertainty_ns()), (25, 30));
        // 5 + 30, and the drift of 100,000 ppm within half of 100.
        let still = Track(vec![reading(0, 0, 10)]);
        assert_eq!(pair_uncertainty_ns(&[&still, &uneven], 100), 40);
    }

    #[test]
    fn one_clock_is_seen_from_another() {
        // Ahead by 1,000 and fast by 1 %; behind by 50.
        let fast = Track(vec![reading(0, 1000, 2), reading(10_000, 1100, 2)]);
        let slow = Track(vec![reading(0, -50, 2), reading(10_000, -50, 2)]);
        let points = fast.relative_to(&slow);
        assert_eq!(points, [(1000, 1050), (11_100, 1150)]);
        assert_eq!(interpolate(&points, 6050), 1100);
    }
}
