//! Results that were kept, as every writer of a report reads them: the JSON of a measurement, and what `scripts/compare` keeps.

use std::collections::BTreeMap;
use std::path::Path;

use ringmq::printable::one_line;
use serde::Deserialize;
use serde_json::Value;

use super::histogram::Percentile;
use crate::figures::grouped;

/// A JSON document of either kind, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// What the document was read from, or what stands for that.
    pub source: String,
    /// The document as it was written.
    pub text: String,
    pub head: Head,
    pub scenarios: Vec<Compared>,
}

/// What holds for all scenarios.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Head {
    pub date: String,
    pub commit: String,
    pub version: String,
    pub command: String,
    pub machine: KeptMachine,
    pub unfit: Vec<String>,
    pub broker: Option<String>,
    pub broker_version: Option<String>,
    pub broker_cores: Vec<u64>,
    pub generator_cores: Vec<u64>,
    /// The brokers' core in a comparison.
    pub core: Option<u64>,
    pub shards: Option<u64>,
    pub io: Option<String>,
    pub io_warning: Option<String>,
    pub subject: Option<String>,
    pub seconds: f64,
    pub rounds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptMachine {
    pub processor: String,
    pub core_count: u64,
    pub memory_mib: Option<u64>,
    pub kernel: String,
    pub virtual_machine: bool,
}

/// A scenario with all that was measured in it.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub name: String,
    pub words: String,
    /// What a message is in it: a connect storm counts connections.
    pub counts_connections: bool,
    pub brokers: Vec<Rounds>,
}

/// What one broker came to.
#[derive(Clone, Debug)]
pub(crate) struct Rounds {
    pub broker: String,
    /// Its place among all brokers of a report: the same in each scenario.
    pub place: usize,
    pub rounds: Vec<Kept>,
}

/// An outcome.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// The scenario's.
    #[serde(skip)]
    pub is_idle: bool,
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub megabytes_per_s: f64,
    pub batches: KeptBatches,
    pub in_per_s_at_rate: Option<f64>,
    pub out_per_s_at_rate: Option<f64>,
    pub batches_at_rate: KeptBatches,
    pub latency: Option<KeptLatency>,
    pub cpu_us_per_message: Option<f64>,
    pub cpu_us_per_message_at_rate: Option<f64>,
    pub broker_cores_used: Option<f64>,
    pub generator_cores_used: Option<f64>,
    pub bound: Option<String>,
    pub bound_at_rate: Option<String>,
    pub contested: bool,
    pub contested_at_rate: bool,
    pub resident_size: Option<f64>,
    pub resident_size_max: Option<f64>,
    pub sent: f64,
    pub delivered: f64,
    pub faults: BTreeMap<String, u64>,
    pub dropped_as_counted: Option<u64>,
    pub runs: Vec<KeptRun>,
    pub warnings: Vec<String>,
    pub measures: Vec<KeptMeasure>,
    pub interrupted: bool,
    pub failures: Vec<String>,
    /// The part of the time of all cores that a hypervisor took.
    pub steal: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptBatches {
    pub messages_per_write: Option<f64>,
    pub messages_per_read: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptMeasure {
    pub name: String,
    pub value: f64,
    pub unit: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptLatency {
    pub rate: f64,
    pub count: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub percentiles: Vec<KeptPercentile>,
    pub histogram: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct KeptPercentile {
    pub percentile: f64,
    pub us: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptRun {
    pub pace: String,
    pub rate: Option<f64>,
    pub kept: Option<bool>,
    pub elapsed_s: Option<f64>,
    pub in_per_s: Option<f64>,
    pub out_per_s: Option<f64>,
    pub megabytes_per_s: Option<f64>,
    pub batches: KeptBatches,
    pub cpu_us_per_message: Option<f64>,
    pub broker_cores_used: Option<f64>,
    pub generator_cores_used: Option<f64>,
    pub bound: Option<String>,
    pub contested: bool,
    pub resident_size: Option<f64>,
    pub latency: Option<KeptLatency>,
    pub series: Vec<KeptPoint>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeptPoint {
    pub at_s: f64,
    pub span_s: f64,
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub missing: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub max_us: Option<f64>,
    pub broker_cores: Option<f64>,
    pub generator_cores: Option<f64>,
    pub resident_size: Option<f64>,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Document, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        Document::parse(path.display().to_string(), text).map_err(|error| wrong(&error))
    }

    pub(crate) fn parse(source: String, text: String) -> Result<Document, String> {
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let head: Head = part(&value, "its head")?;
        let scenarios = match (value.get("scenarios"), value.get("outcomes")) {
            (Some(Value::Array(scenarios)), _) => of_measurement(scenarios, &head)?,
            (_, Some(Value::Object(outcomes))) => of_comparison(outcomes, &value["settings"])?,
            _ => {
                let kinds = "neither a result of ringmq-bench nor one of scripts/compare";
                return Err(format!("{kinds}: it has no scenarios and no outcomes"));
            }
        };
        Ok(Document { source, text, head, scenarios })
    }
}

fn part<T: for<'a> Deserialize<'a>>(value: &Value, name: &str) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("{name} is not as the bench writes it: {error}"))
}

fn of_measurement(scenarios: &[Value], head: &Head) -> Result<Vec<Compared>, String> {
    let read = |scenario: &Value| -> Result<Compared, String> {
        let settings = &scenario["settings"];
        let name = text(settings, "name");
        let outcome: Kept = part(&scenario["outcome"], &format!("the outcome of {name}"))?;
        let rounds = vec![Kept { is_idle: settings["kind"] == "idle", ..outcome }];
        let words = Some(text(scenario, "words")).filter(|words| !words.is_empty());
        Ok(Compared {
            words: words.unwrap_or_else(|| text(settings, "about")),
            counts_connections: counts_connections(settings),
            brokers: vec![Rounds { broker: head.broker_name(), place: 0, rounds }],
            name,
        })
    };
    scenarios.iter().map(read).collect()
}

fn of_comparison(
    outcomes: &serde_json::Map<String, Value>,
    settings: &Value,
) -> Result<Vec<Compared>, String> {
    let empty = serde_json::Map::new();
    let read = |(name, brokers): (&String, &Value)| -> Result<Compared, String> {
        let settings = &settings[name];
        let words = ["words", "about"].map(|key| text(settings, key));
        let mut compared = Compared {
            name: name.clone(),
            words: words.into_iter().find(|words| !words.is_empty()).unwrap_or_default(),
            counts_connections: counts_connections(settings),
            brokers: Vec::new(),
        };
        for (broker, rounds) in brokers.as_object().unwrap_or(&empty) {
            let mut rounds: Vec<Kept> = part(rounds, &format!("{broker} in {name}"))?;
            let is_idle = settings["kind"] == "idle";
            rounds.iter_mut().for_each(|round| round.is_idle = is_idle);
            compared.brokers.push(Rounds { broker: broker.clone(), place: 0, rounds });
        }
        Ok(compared)
    };
    outcomes.iter().map(read).collect()
}

/// Where clients only connect.
fn counts_connections(settings: &Value) -> bool {
    settings["kind"].as_str().is_some_and(|kind| kind.starts_with("connect-"))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_string()
}

impl Head {
    fn broker_name(&self) -> String {
        match (&self.broker_version, &self.broker, self.subject.as_deref()) {
            (_, None, Some("relay")) => "relay".to_string(),
            (_, None, _) => "RingMQ".to_string(),
            (Some(version), Some(_), _) => version.clone(),
            (None, Some(address), _) => format!("broker at {address}"),
        }
    }
}

impl Kept {
    /// Every run. Results that were kept before there were runs have those that their figures tell of.
    pub(crate) fn all_runs(&self) -> Vec<KeptRun> {
        if !self.runs.is_empty() {
            return self.runs.clone();
        }
        let mut runs = Vec::new();
        if self.out_per_s > 0.0 || self.latency.is_none() {
            runs.push(KeptRun {
                pace: if self.is_idle { "at-rest" } else { "flat-out" }.to_string(),
                in_per_s: Some(self.in_per_s),
                out_per_s: Some(self.out_per_s),
                megabytes_per_s: Some(self.megabytes_per_s),
                batches: self.batches,
                cpu_us_per_message: self.cpu_us_per_message,
                broker_cores_used: self.broker_cores_used,
                generator_cores_used: self.generator_cores_used,
                bound: self.bound.clone().filter(|_| !self.is_idle),
                contested: self.contested,
                resident_size: self.resident_size,
                ..KeptRun::default()
            });
        }
        if let Some(latency) = &self.latency {
            runs.push(KeptRun {
                pace: "rate".to_string(),
                rate: Some(latency.rate),
                kept: Some(self.bound_at_rate.is_none()),
                in_per_s: self.in_per_s_at_rate,
                out_per_s: self.out_per_s_at_rate,
                batches: self.batches_at_rate,
                cpu_us_per_message: self.cpu_us_per_message_at_rate,
                bound: self.bound_at_rate.clone(),
                contested: self.contested_at_rate,
                latency: Some(latency.clone()),
                ..KeptRun::default()
            });
        }
        runs
    }

    pub(crate) fn fault(&self, name: &str) -> u64 {
        self.faults.get(name).copied().unwrap_or(0)
    }
}

impl KeptRun {
    /// What the run is called: it tells runs of a scenario apart.
    pub(crate) fn label(&self) -> String {
        match (self.pace.as_str(), self.rate) {
            (_, Some(rate)) => format!("{}/s", grouped(rate)),
            ("flat-out", None) => "flat out".to_string(),
            ("at-rest", None) => "at rest".to_string(),
            (pace, None) => one_line(pace).into_owned(),
        }
    }
}

impl KeptLatency {
    /// The distribution, as far as it was kept.
    pub(crate) fn curve(&self) -> Vec<Percentile> {
        let all = self.percentiles.iter().map(|kept| (kept.percentile, kept.us));
        let few = [
            (50.0, self.p50_us),
            (90.0, self.p90_us),
            (99.0, self.p99_us),
            (99.9, self.p999_us),
            (100.0, self.max_us),
        ];
        let points: Vec<(f64, f64)> =
            if self.percentiles.is_empty() { few.to_vec() } else { all.collect() };
        points.into_iter().map(|(percentile, us)| Percentile { percentile, us }).collect()
    }
}
