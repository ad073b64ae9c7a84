//! One measured run of a scenario, flat out or at one rate, with all that was measured of it.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::histogram::{Percentile, encoded, percentiles};
use super::series::Series;
use crate::engine::Counts;
use crate::meter::Usage;
use crate::outcome::{Batches, Bound, Latency};

/// What the generator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pace {
    /// As fast as the windows, or the connections under way, allow.
    FlatOut,
    /// On schedule.
    Rate,
    /// Flat out, while a subscriber does not read.
    Stalled,
    /// Nothing.
    AtRest,
}

/// A run. Several rates of one scenario are a run each.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasuredRun {
    pub pace: Pace,
    /// Messages (connections) per second that were asked for; `None`: as many as it takes.
    pub rate: Option<f64>,
    /// It sent what was asked for; `None`: nothing was.
    pub kept: Option<bool>,
    pub elapsed_s: f64,
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub megabytes_per_s: f64,
    pub batches: Batches,
    /// Microseconds of the broker's processor time per delivered message.
    pub cpu_us_per_message: Option<f64>,
    pub broker_cores_used: Option<f64>,
    pub generator_cores_used: Option<f64>,
    /// What kept it from going faster, or from its rate; `None`: nothing did.
    pub bound: Option<Bound>,
    pub contested: bool,
    pub resident_size: Option<u64>,
    /// `None`: not recorded.
    pub latency: Option<RecordedLatency>,
    pub series: Series,
}

/// Latency from when a message was due (a connection: until it was accepted).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RecordedLatency {
    #[serde(flatten)]
    pub summary: Latency,
    pub percentiles: Vec<Percentile>,
    /// Nanoseconds, in HdrHistogram's V2 compressed encoding, base64.
    pub histogram: String,
}

impl RecordedLatency {
    pub(crate) fn new(rate: f64, histogram: &Histogram<u64>) -> RecordedLatency {
        RecordedLatency {
            summary: Latency::new(rate, histogram),
            percentiles: percentiles(histogram),
            histogram: encoded(histogram),
        }
    }
}

impl MeasuredRun {
    /// A run at no certain rate, in which `counts` went through.
    pub(crate) fn new(pace: Pace, counts: &Counts, usage: &Usage, series: Series) -> MeasuredRun {
        let each = |used: f64| used * 1e6 / counts.delivered as f64;
        let cores = |used: f64| used / usage.elapsed_s;
        MeasuredRun {
            pace,
            rate: None,
            kept: None,
            elapsed_s: usage.elapsed_s,
            in_per_s: counts.sent as f64 / usage.elapsed_s,
            out_per_s: counts.delivered as f64 / usage.elapsed_s,
            megabytes_per_s: counts.size as f64 / usage.elapsed_s / 1e6,
            batches: Batches::new(counts),
            cpu_us_per_message: usage.broker_s.filter(|_| counts.delivered > 0).map(each),
            broker_cores_used: usage.broker_s.map(cores),
            generator_cores_used: usage.generator_s.map(cores),
            bound: Some(usage.bound),
            contested: usage.contested,
            resident_size: usage.resident_size,
            latency: None,
            series,
        }
    }

    /// It was to send at `rate`; `bound` is what kept it from that.
    pub(crate) fn at_rate(self, rate: f64, bound: Option<Bound>) -> MeasuredRun {
        MeasuredRun {
            pace: Pace::Rate,
            rate: Some(rate),
            kept: Some(bound.is_none()),
            bound,
            ..self
        }
    }
}
