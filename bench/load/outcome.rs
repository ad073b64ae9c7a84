//! What a scenario came to: the numbers of one row of the table.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::agents::AgentsReport;
use crate::broker::Said;
use crate::engine::Counts;
use crate::meter::Usage;
use crate::rates::{HighestRate, Point};
use crate::report::measured::MeasuredRun;
use crate::tally::Faults;

/// What kept a flat-out run from going faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    /// The broker's core was busy: the number is the broker's.
    Broker,
    /// The generator's core was busy and the broker's was not: the broker can do more.
    Generator,
    /// Neither was: they waited for each other.
    Waiting,
    /// The broker's process is not known, or the generator was not measured.
    Unknown,
}

impl Bound {
    /// What would keep a run at a fixed rate from going faster. `idle_ns`: the time in which the busiest generator thread had
    /// nothing to do.
    pub(crate) fn on_schedule(usage: &Usage, idle_ns: u64) -> Bound {
        // On schedule the generator never sleeps: that its threads run says nothing.
        let is_idle = idle_ns as f64 / 1e9 > IDLE * usage.elapsed_s;
        match usage.bound {
            Bound::Broker => Bound::Broker,
            _ if !is_idle => Bound::Generator,
            Bound::Unknown => Bound::Unknown,
            Bound::Generator | Bound::Waiting => Bound::Waiting,
        }
    }

    /// Behind "this much and no more was done:".
    pub(crate) fn words(self) -> &'static str {
        match self {
            Bound::Broker => "the broker was the limit",
            Bound::Generator => "the generator was the limit",
            Bound::Waiting => "the broker did not take more, and was not busy all the time",
            Bound::Unknown => {
                "the broker did not take more, and its process or the generator was not measured"
            }
        }
    }
}

/// A run that sends this much of its rate has kept it.
const RATE_KEPT: f64 = 0.95;
/// A generator thread that had nothing to do for this much of the time was not busy.
pub(crate) const IDLE: f64 = 0.07;
/// Messages that may be due on either side of a run's edges.
const DUE_SLACK: f64 = 2.0;

/// Whether `sent` messages are as many as the rate wants.
pub(crate) fn is_rate_kept(rate: f64, sent: u64, usage: &Usage) -> bool {
    sent as f64 >= RATE_KEPT * rate * usage.elapsed_s - DUE_SLACK
}

/// Microseconds from when a message was due.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// Messages per second towards the broker.
    pub rate: f64,
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    pub(crate) fn new(rate: f64, histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            rate,
            count: histogram.len(),
            mean_us: histogram.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }
}

/// How many messages went together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Batches {
    /// Messages per write of the generator.
    pub messages_per_write: Option<f64>,
    /// Messages per read at a subscriber: the broker's own batches, or more where the generator is the limit and reads late.
    pub messages_per_read: Option<f64>,
}

impl Batches {
    pub(crate) fn new(counts: &Counts) -> Batches {
        let per = |messages: u64, calls: u64| (calls > 0).then(|| messages as f64 / calls as f64);
        Batches {
            messages_per_write: per(counts.sent, counts.writes),
            messages_per_read: per(counts.delivered, counts.reads),
        }
    }
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub scenario: String,
    #[serde(flatten)]
    pub said: Said,
    /// Messages (connections in a storm) per second towards the broker, and delivered by it.
    pub in_per_s: f64,
    pub out_per_s: f64,
    /// Megabytes (10^6) of publishes delivered per second, whole packets.
    pub megabytes_per_s: f64,
    pub batches: Batches,
    /// The same of the run at a fixed rate.
    pub in_per_s_at_rate: Option<f64>,
    pub out_per_s_at_rate: Option<f64>,
    pub batches_at_rate: Batches,
    pub latency: Option<Latency>,
    /// Microseconds of the broker's processor time per delivered message, flat out, and at the latency run's rate.
    pub cpu_us_per_message: Option<f64>,
    pub cpu_us_per_message_at_rate: Option<f64>,
    /// Cores' worth of processor time during the flat-out run (where there is none: at a fixed rate). `None`: not measured.
    pub broker_cores_used: Option<f64>,
    pub generator_cores_used: Option<f64>,
    pub bound: Bound,
    /// What kept the run at a fixed rate below its rate; `None`: nothing did.
    pub bound_at_rate: Option<Bound>,
    /// Other programs used the broker's or the generator's core during the flat-out run.
    pub contested: bool,
    /// The same of the run at a fixed rate.
    pub contested_at_rate: bool,
    /// The broker's resident memory at the end of the flat-out run, and the most that was seen, bytes.
    pub resident_size: Option<u64>,
    pub resident_size_max: Option<u64>,
    /// Messages (connections in a storm) of the whole scenario: sent to the broker, and delivered by it.
    pub sent: u64,
    pub delivered: u64,
    pub faults: Faults,
    /// What the broker's count of dropped messages grew by; `None`: nothing was lost, or it has none.
    pub dropped_as_counted: Option<u64>,
    /// Each run with all that was measured of it.
    pub runs: Vec<MeasuredRun>,
    /// The runs at several rates, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<Point>,
    /// What the search for the highest rate has found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_rate: Option<HighestRate>,
    /// What was said before the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What only this kind of scenario measures, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    /// What each of several generators did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentsReport>,
    /// It was ended before its time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Why this must count as failed, besides the faults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    pub name: Cow<'static, str>,
    pub value: f64,
    pub unit: &'static str,
}

impl Outcome {
    pub(crate) fn new(scenario: &str) -> Outcome {
        Outcome {
            scenario: scenario.to_string(),
            said: Said::default(),
            in_per_s: 0.0,
            out_per_s: 0.0,
            megabytes_per_s: 0.0,
            batches: Batches::default(),
            in_per_s_at_rate: None,
            out_per_s_at_rate: None,
            batches_at_rate: Batches::default(),
            latency: None,
            cpu_us_per_message: None,
            cpu_us_per_message_at_rate: None,
            broker_cores_used: None,
            generator_cores_used: None,
            bound: Bound::Unknown,
            bound_at_rate: None,
            contested: false,
            contested_at_rate: false,
            resident_size: None,
            resident_size_max: None,
            sent: 0,
            delivered: 0,
            faults: Faults::default(),
            dropped_as_counted: None,
            runs: Vec::new(),
            curve: Vec::new(),
            highest_rate: None,
            warnings: Vec::new(),
            measures: Vec::new(),
            agents: None,
            interrupted: false,
            failures: Vec::new(),
        }
    }

    pub(crate) fn failed(scenario: &str, reason: String) -> Outcome {
        Outcome { failures: vec![reason], ..Outcome::new(scenario) }
    }

    /// Takes over what went through a flow during the flat-out run.
    pub(crate) fn set_traffic(&mut self, counts: &Counts, elapsed_s: f64) {
        self.in_per_s = counts.sent as f64 / elapsed_s;
        self.out_per_s = counts.delivered as f64 / elapsed_s;
        self.megabytes_per_s = counts.size as f64 / elapsed_s / 1e6;
        self.batches = Batches::new(counts);
    }

    /// Takes over what was used during the flat-out run, in which `delivered` messages came.
    pub(crate) fn set_usage(&mut self, usage: &Usage, delivered: u64) {
        let each = |used: f64| used * 1e6 / delivered as f64;
        self.cpu_us_per_message = usage.broker_s.filter(|_| delivered > 0).map(each);
        self.set_cores(usage);
        self.bound = usage.bound;
        self.contested = usage.contested;
        self.resident_size = usage.resident_size;
    }

    fn set_cores(&mut self, usage: &Usage) {
        self.broker_cores_used = usage.broker_s.map(|used| used / usage.elapsed_s);
        self.generator_cores_used = usage.generator_s.map(|used| used / usage.elapsed_s);
    }

    /// Takes over what was used at a fixed `rate`, at which `sent` messages went out and `delivered` came. `idle_ns`: the time
    /// in which the busiest generator thread had nothing to do.
    pub(crate) fn set_usage_at_rate(
        &mut self,
        usage: &Usage,
        rate: f64,
        [sent, delivered]: [u64; 2],
        idle_ns: u64,
    ) {
        self.contested_at_rate = usage.contested;
        self.cpu_us_per_message_at_rate =
            usage.broker_s.map(|used| used * 1e6 / delivered.max(1) as f64);
        let in_per_s = sent as f64 / usage.elapsed_s;
        self.in_per_s_at_rate = Some(in_per_s);
        self.out_per_s_at_rate = Some(delivered as f64 / usage.elapsed_s);
        let bound = Bound::on_schedule(usage, idle_ns);
        let is_kept = is_rate_kept(rate, sent, usage);
        self.bound_at_rate = (!is_kept).then_some(bound);
        if is_kept && bound == Bound::Generator {
            let warning = "the generator was busy all the time: the latency is partly its own";
            self.warnings.push(warning.to_string());
        }
        if self.generator_cores_used.is_none() {
            self.set_cores(usage);
        }
    }

    pub(crate) fn measure(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: f64,
        unit: &'static str,
    ) {
        self.measures.push(Measure { name: name.into(), value, unit });
    }

    /// It has something to show.
    pub(crate) fn is_begun(&self) -> bool {
        let counted = self.sent > 0 || !self.measures.is_empty();
        counted || self.faults.any() || !self.failures.is_empty()
    }

    pub(crate) fn is_good(&self, allows_drops: bool) -> bool {
        let dropped = if allows_drops { 0 } else { self.faults.dropped };
        !Faults { dropped, ..self.faults }.any() && self.failures.is_empty()
    }
}
