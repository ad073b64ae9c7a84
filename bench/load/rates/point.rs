//! A point of the curve: what one rate came to, and whether it holds; and the highest that does.

use serde::Serialize;

use super::options::{LatencyLimit, words_of};
use super::search::{Search, Verdict};
use crate::figures::{duration, grouped};
use crate::outcome::{Batches, Bound, Latency, is_rate_kept};
use crate::recorder::new_histogram;
use crate::tally::Faults;
use crate::traffic::AtRate;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    /// Messages per second towards the broker that were wanted.
    pub rate: f64,
    /// Those that were sent, and those that the broker delivered.
    pub in_per_s: f64,
    pub out_per_s: f64,
    /// As many were sent as were wanted.
    pub is_kept: bool,
    /// The rate was kept, nothing was lost, and each latency that must hold did.
    pub holds: bool,
    /// What kept it from more; `None`: it held.
    pub bound: Option<Bound>,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Other programs used the broker's or the generator's core.
    pub contested: bool,
    pub latency: Latency,
    pub batches: Batches,
    /// Microseconds of the broker's processor time per delivered message.
    pub cpu_us_per_message: Option<f64>,
    /// Cores' worth of processor time.
    pub broker_cores_used: Option<f64>,
    pub generator_cores_used: Option<f64>,
    pub resident_size: Option<u64>,
    pub faults: Faults,
    /// Latencies that must hold and did not, by name.
    #[serde(skip)]
    pub broken: Vec<&'static str>,
}

impl Point {
    pub(crate) fn new(rate: f64, ran: &AtRate, faults: Faults, limits: &[LatencyLimit]) -> Point {
        let AtRate { usage, counts, idle_ns, latencies, .. } = ran;
        let per_s = |count: u64| count as f64 / usage.elapsed_s;
        let cores = |used: Option<f64>| used.map(|used| used / usage.elapsed_s);
        let cpu = |used: f64| used * 1e6 / counts.delivered.max(1) as f64;
        let mut point = Point {
            rate,
            in_per_s: per_s(counts.sent),
            out_per_s: per_s(counts.delivered),
            is_kept: is_rate_kept(rate, counts.sent, usage),
            holds: false,
            bound: Some(Bound::on_schedule(usage, *idle_ns)),
            reasons: Vec::new(),
            contested: usage.contested,
            latency: Latency::new(rate, &latencies.total),
            batches: Batches::new(counts),
            cpu_us_per_message: usage.broker_s.map(cpu),
            broker_cores_used: cores(usage.broker_s),
            generator_cores_used: cores(usage.generator_s),
            resident_size: usage.resident_size,
            faults,
            broken: Vec::new(),
        };
        point.judge(limits);
        point
    }

    /// A run that something ended.
    pub(crate) fn failed(rate: f64, reason: String) -> Point {
        Point {
            rate,
            in_per_s: 0.0,
            out_per_s: 0.0,
            is_kept: false,
            holds: false,
            bound: Some(Bound::Unknown),
            reasons: vec![reason],
            contested: false,
            latency: Latency::new(rate, &new_histogram()),
            batches: Batches::default(),
            cpu_us_per_message: None,
            broker_cores_used: None,
            generator_cores_used: None,
            resident_size: None,
            faults: Faults::default(),
            broken: Vec::new(),
        }
    }

    fn judge(&mut self, limits: &[LatencyLimit]) {
        let bound = self.bound.unwrap_or(Bound::Unknown);
        if self.faults.any() {
            self.reasons.push(self.faults.words());
        }
        if !self.is_kept {
            let [sent, wanted] = [self.in_per_s, self.rate].map(grouped);
            self.reasons.push(format!("{sent} of {wanted} msg/s were sent: {}", bound.words()));
        }
        if self.latency.count == 0 {
            self.reasons.push("none came of those that were due".to_string());
        }
        for limit in limits.iter().filter(|limit| !limit.is_held(&self.latency)) {
            let value = duration(limit.value(&self.latency));
            let why = if self.is_kept && bound == Bound::Generator {
                ": the generator was the limit"
            } else {
                ""
            };
            self.reasons.push(format!("{} was {value}{why}", limit.name));
            self.broken.push(limit.name);
        }
        self.holds = self.reasons.is_empty();
        if self.holds {
            self.bound = None;
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.bound {
            _ if self.holds => Verdict::Holds,
            Some(Bound::Generator) if !self.faults.any() => Verdict::GeneratorLimit,
            _ => Verdict::Fails,
        }
    }
}

/// What the search for the highest rate has found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HighestRate {
    pub limits: Vec<LatencyLimit>,
    /// Messages per second towards the broker; `None`: no rate held.
    pub rate: Option<f64>,
    /// It may be higher: the generator was the limit, or the search was cut short.
    pub is_at_least: bool,
    /// The lowest rate that did not hold, and why.
    pub fails_at: Option<f64>,
    pub reason: Option<String>,
    pub run_count: u32,
    /// Messages lost at rates that do not hold.
    pub lost_above: u64,
}

impl HighestRate {
    pub(crate) fn new(search: &Search, limits: &[LatencyLimit], curve: &[Point]) -> HighestRate {
        let rate = search.held();
        let failed = search.failed();
        let by_generator = failed.is_some_and(|(_, verdict)| verdict == Verdict::GeneratorLimit);
        let is_of = |point: &&Point| {
            failed.is_some_and(|(rate, verdict)| point.rate == rate && point.verdict() == verdict)
        };
        let above = curve.iter().filter(|point| rate.is_some_and(|rate| point.rate > rate));
        HighestRate {
            limits: limits.to_vec(),
            rate,
            is_at_least: failed.is_none() || by_generator || !search.is_over(),
            fails_at: failed.map(|(rate, _)| rate),
            reason: curve.iter().rfind(is_of).map(|point| point.reasons.join(", ")),
            run_count: search.probe_count(),
            lost_above: above.map(|point| point.faults.lost).sum(),
        }
    }

    /// One sentence.
    pub(crate) fn words(&self) -> String {
        let limits = words_of(&self.limits);
        let above = self.fails_at.zip(self.reason.as_ref());
        let above = above.map(|(rate, reason)| format!("; at {} msg/s {reason}", grouped(rate)));
        let above = above.unwrap_or_default();
        match self.rate.map(grouped) {
            Some(rate) if self.is_at_least => {
                format!("at least {rate} msg/s hold {limits}{above}")
            }
            Some(rate) => format!("{rate} msg/s is the highest rate that holds {limits}{above}"),
            None => format!("no rate was found that holds {limits}{above}"),
        }
    }
}
