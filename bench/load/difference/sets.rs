//! Sets of results of `ringmq-bench` and `scripts/compare`, of any version, as rounds of figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A larger file of results is none of ours, bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;

/// A figure of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Measure {
    pub words: &'static str,
    pub unit: &'static str,
    /// The path of the figure in an outcome.
    path: &'static [&'static str],
    pub more_is_better: bool,
}

/// The figures that are compared.
pub(super) const MEASURES: [Measure; 5] = [
    Measure {
        words: "CPU per message",
        unit: "us",
        path: &["cpu_us_per_message"],
        more_is_better: false,
    },
    Measure {
        words: "CPU per message at the rate",
        unit: "us",
        path: &["cpu_us_per_message_at_rate"],
        more_is_better: false,
    },
    Measure { words: "delivered", unit: "/s", path: &["out_per_s"], more_is_better: true },
    Measure { words: "p50", unit: "us", path: &["latency", "p50_us"], more_is_better: false },
    Measure { words: "p99", unit: "us", path: &["latency", "p99_us"], more_is_better: false },
];

/// A figure's values by scenario, one for each round; `None`: the round has none.
pub(super) type Figures = BTreeMap<(String, Measure), Vec<Option<f64>>>;

/// The rounds of one broker.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// The name of the set: its files.
    pub name: String,
    pub round_count: usize,
    pub figures: Figures,
    /// The settings of each scenario.
    pub settings: BTreeMap<String, Value>,
    /// The errors, as scenario and words.
    pub faults: BTreeSet<(String, String)>,
    /// The machines and the lengths of runs, which must be alike.
    pub machines: BTreeSet<String>,
    pub seconds: BTreeSet<String>,
    /// The dates on which the files were written.
    pub dates: BTreeSet<String>,
}

impl Set {
    /// Reads a file, or all results of a folder.
    pub(super) fn read(path: &Path, broker: &str) -> Result<Set, String> {
        let mut set = Set { name: path.display().to_string(), ..Set::default() };
        for file in files(path)? {
            let read = read_json(&file);
            let value = read.map_err(|reason| format!("{}: {reason}", file.display()))?;
            let taken = set.take(&value, broker);
            taken.map_err(|reason| format!("{}: {reason}", file.display()))?;
        }
        if set.round_count == 0 {
            return Err(format!("{}: there are no results in it", path.display()));
        }
        Ok(set)
    }

    /// Takes the rounds of one file.
    pub(super) fn take(&mut self, file: &Value, broker: &str) -> Result<(), String> {
        let machine = |key: &str| file["machine"][key].as_str().unwrap_or("unknown");
        self.machines.insert(format!("{}, Linux {}", machine("processor"), machine("kernel")));
        self.dates.extend(file["date"].as_str().map(str::to_string));
        self.seconds.insert(file["seconds"].to_string());
        if let Some(scenarios) = file["scenarios"].as_array() {
            let rounds = scenarios.iter().map(|one| (&one["settings"], &one["outcome"]));
            return self.take_rounds(rounds.collect());
        }
        let Some(outcomes) = file["outcomes"].as_object() else {
            return Err("these are no results of ringmq-bench or scripts/compare".to_string());
        };
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        for (scenario, brokers) in outcomes {
            known.extend(brokers.as_object().into_iter().flat_map(|brokers| brokers.keys()));
            let rounds = brokers[broker].as_array().into_iter().flatten();
            found.extend(rounds.map(|outcome| (&file["settings"][scenario], outcome)));
        }
        if found.is_empty() {
            let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
            return Err(format!(
                "no {broker} was measured: choose of {} with --broker",
                known.join(", ")
            ));
        }
        self.take_rounds(found)
    }

    /// Takes the rounds of scenarios. A scenario that comes again begins a further round.
    fn take_rounds(&mut self, found: Vec<(&Value, &Value)>) -> Result<(), String> {
        let base = self.round_count;
        let mut rounds_of: BTreeMap<String, usize> = BTreeMap::new();
        for (settings, outcome) in found {
            let scenario = outcome["scenario"].as_str().ok_or("an outcome names no scenario")?;
            let settings = plain_settings(settings);
            let known =
                self.settings.entry(scenario.to_string()).or_insert_with(|| settings.clone());
            if *known != settings {
                let key = differing_key(known, &settings);
                return Err(format!("scenario {scenario} was set differently before: {key}"));
            }
            let round = rounds_of.entry(scenario.to_string()).or_insert(0);
            let at = base + *round;
            *round += 1;
            self.round_count = self.round_count.max(at + 1);
            self.note(scenario, outcome, at);
        }
        Ok(())
    }

    fn note(&mut self, scenario: &str, outcome: &Value, round: usize) {
        for measure in MEASURES {
            let value = measure.path.iter().fold(outcome, |value, key| &value[key]).as_f64();
            // A run that measured nothing gives no figure; its error is reported.
            let Some(value) = value.filter(|value| value.is_finite() && *value > 0.0) else {
                continue;
            };
            let values = self.figures.entry((scenario.to_string(), measure)).or_default();
            values.resize(values.len().max(round + 1), None);
            values[round] = Some(value);
        }
        let counts = outcome["faults"].as_object().into_iter().flatten();
        for (kind, _) in counts.filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0)) {
            self.faults.insert((scenario.to_string(), format!("messages {kind}")));
        }
        for failure in outcome["failures"].as_array().into_iter().flatten() {
            let words = failure.as_str().unwrap_or("a run failed");
            self.faults.insert((scenario.to_string(), words.to_string()));
        }
    }
}

/// The settings without those that only name or describe the scenario.
fn plain_settings(settings: &Value) -> Value {
    let mut settings = settings.clone();
    if let Some(keys) = settings.as_object_mut() {
        keys.retain(|key, _| !["about", "words", "name"].contains(&key.as_str()));
    }
    settings
}

/// The first key that differs, with both values. A key that one version does not have yet is no difference.
fn differing_key(one: &Value, other: &Value) -> String {
    let keys = one.as_object().into_iter().flatten();
    let found = keys
        .into_iter()
        .find(|(key, value)| !other[key.as_str()].is_null() && other[key.as_str()] != **value);
    found.map_or("a key is missing".to_string(), |(key, value)| {
        format!("{key} is {value} and {}", other[key.as_str()])
    })
}

/// Refuses two sets that cannot be compared: a scenario is not the same in both.
pub(super) fn check_settings(before: &Set, after: &Set) -> Result<(), String> {
    for (scenario, settings) in &before.settings {
        let Some(others) = after.settings.get(scenario) else { continue };
        let (Some(own), Some(of_other)) = (settings.as_object(), others.as_object()) else {
            continue;
        };
        let differs =
            own.iter().any(|(key, value)| of_other.get(key).is_some_and(|other| other != value));
        if differs {
            let key = differing_key(settings, others);
            return Err(format!("scenario {scenario} is not the same in both: {key}"));
        }
    }
    Ok(())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn read_json(file: &Path) -> Result<Value, String> {
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > FILE_SIZE_MAX {
        return Err(format!("{size} bytes are no results"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("this is no JSON: {error}"))
}
