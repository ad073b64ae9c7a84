//! What the bench says: the table, its footnotes, and the JSON file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ringmq::shell::calendar;
use serde::Serialize;

use crate::broker::{Placement, Said};
use crate::machine::Machine;
use crate::options::{Options, Subject};
use crate::outcome::{Bound, Outcome};
use crate::scenario::Scenario;

const COLUMNS: [&str; 16] = [
    "scenario",
    "in msg/s",
    "out msg/s",
    "MB/s",
    "at msg/s",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "max",
    "CPU us/msg",
    "RSS MiB",
    "lost",
    "dup",
    "reord",
    "corrupt",
];

/// The table, a line for each scenario, with footnotes.
pub fn table(outcomes: &[Outcome], shared_cores: bool) -> String {
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.map(str::to_string).into()];
    rows.extend(outcomes.iter().map(row));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text.push('\n');
    text += "Latency from when a message was due, at the rate beside it (connections: until accepted). ";
    text += "CPU and RSS: the broker's, flat out.\n";
    let marks = [
        (
            Bound::Generator,
            "* the generator was busy and the broker was not: the broker can do more than this",
        ),
        (
            Bound::Waiting,
            "~ neither broker nor generator was busy all the time: they waited for each other",
        ),
    ];
    for (bound, note) in marks {
        if outcomes.iter().any(|outcome| outcome.bound == bound && outcome.out_per_s > 0.0) {
            text += note;
            text.push('\n');
        }
    }
    if outcomes.iter().any(|outcome| outcome.contested) {
        text += "! other programs used the broker's or the generator's core\n";
    }
    if shared_cores {
        text += "The broker is not kept off the generator's cores: it can use less than it would alone.\n";
    }
    for outcome in outcomes {
        text += &details(outcome);
    }
    text
}

fn row(outcome: &Outcome) -> Vec<String> {
    let dash = || "-".to_string();
    let mark = match outcome.bound {
        Bound::Generator => "*",
        Bound::Waiting => "~",
        Bound::Broker | Bound::Unknown => "",
    };
    let mark = if outcome.contested { format!("!{mark}") } else { mark.to_string() };
    let has_traffic = outcome.out_per_s > 0.0;
    let rate = |value: f64, mark: &str| {
        if has_traffic { format!("{mark}{}", grouped(value)) } else { dash() }
    };
    let mut cells = vec![
        outcome.scenario.clone(),
        rate(outcome.in_per_s, ""),
        rate(outcome.out_per_s, &mark),
        if outcome.megabytes_per_s > 0.0 {
            format!("{:.1}", outcome.megabytes_per_s)
        } else {
            dash()
        },
    ];
    match &outcome.latency {
        Some(latency) => {
            let times =
                [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
            cells.push(grouped(latency.rate));
            cells.extend(times.map(duration));
        }
        None => cells.extend((0..6).map(|_| dash())),
    }
    cells.push(outcome.cpu_us_per_message.map_or_else(dash, |cpu| format!("{cpu:.3}")));
    cells.push(
        outcome
            .resident_size
            .map_or_else(dash, |size| format!("{:.1}", size as f64 / f64::from(1 << 20))),
    );
    let faults = &outcome.faults;
    let counts = [faults.lost, faults.duplicated, faults.reordered, faults.corrupt + faults.astray];
    cells.extend(counts.map(|count| count.to_string()));
    cells
}

fn details(outcome: &Outcome) -> String {
    let mut text = String::new();
    if !outcome.measures.is_empty() {
        text += &format!("\n{}\n", outcome.scenario);
    }
    for measure in &outcome.measures {
        let value = if measure.value.fract() == 0.0 {
            grouped(measure.value)
        } else {
            format!("{:.2}", measure.value)
        };
        text += &format!("  {:<50} {value:>12} {}\n", measure.name, measure.unit);
    }
    if let (Some(bound), Some(sent)) = (outcome.bound_at_rate, outcome.in_per_s_at_rate) {
        let wanted = outcome.latency.as_ref().map_or(0.0, |latency| latency.rate);
        let (sent, wanted) = (grouped(sent), grouped(wanted));
        let why = bound.words();
        text += &format!("{}: {sent} of {wanted} msg/s were sent: {why}\n", outcome.scenario);
    }
    if outcome.faults.dropped > 0 {
        let (dropped, lost) = (outcome.faults.dropped as f64, outcome.faults.lost as f64);
        let (name, dropped, lost) = (&outcome.scenario, grouped(dropped), grouped(lost));
        text += &format!(
            "{name}: {dropped} messages were dropped at a limit, as the broker counts in $SYS"
        );
        text += &format!("; {lost} are lost besides\n");
    }
    let is_unexplained = outcome.dropped_as_counted.is_none() || outcome.interrupted;
    if outcome.faults.lost > 0 && is_unexplained && !outcome.warnings.is_empty() {
        let name = &outcome.scenario;
        text += &format!("{name}: whether a limit dropped what is lost is not known: ");
        text += "the broker has not said in $SYS\n";
    }
    if outcome.interrupted {
        text += &format!("{}: interrupted, this is what there was\n", outcome.scenario);
    }
    for failure in &outcome.failures {
        text += &format!("FAILED {}: {failure}\n", outcome.scenario);
    }
    text
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds with three digits and the unit that fits.
fn duration(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{unit}")
}

/// Everything that a later reader needs to know of a run.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub date: String,
    /// Of the repository that the bench ran in; with `-dirty` if it had changes.
    pub commit: String,
    pub command: String,
    pub machine: Machine,
    /// The address of a broker that is not the bench's own.
    pub broker: Option<&'a str>,
    pub broker_cores: &'a [usize],
    pub generator_cores: &'a [usize],
    pub shards: Option<u16>,
    #[serde(skip)]
    subject: Subject,
    #[serde(flatten)]
    pub said: Said,
    pub seconds: f64,
    pub scenarios: Vec<ScenarioReport<'a>>,
}

#[derive(Debug, Serialize)]
pub struct ScenarioReport<'a> {
    pub settings: &'a Scenario,
    pub outcome: &'a Outcome,
}

impl<'a> Report<'a> {
    pub fn new(
        options: &'a Options,
        placement: &'a Placement,
        scenarios: &'a [Scenario],
        outcomes: &'a [Outcome],
    ) -> Report<'a> {
        let pairs = scenarios.iter().zip(outcomes);
        Report {
            date: date(),
            commit: commit(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::describe(),
            broker: options.broker.as_deref(),
            broker_cores: &placement.broker,
            generator_cores: &placement.generator,
            shards: options.broker.is_none().then_some(options.shards),
            subject: options.subject,
            said: said_in(outcomes),
            seconds: options.seconds,
            scenarios: pairs
                .map(|(settings, outcome)| ScenarioReport { settings, outcome })
                .collect(),
        }
    }

    /// What was measured, where: the line above the table.
    pub fn title(&self) -> String {
        let io = self.said.io.as_ref().map(|io| format!(", {io}")).unwrap_or_default();
        let subject = match self.broker {
            Some(address) => format!("broker {address}{io}"),
            None if self.subject == Subject::Floor => format!("floor{io}"),
            None => {
                let shards = self.shards.unwrap_or(1);
                let plural = if shards == 1 { "" } else { "s" };
                format!("RingMQ, {shards} shard{plural}{io}")
            }
        };
        let cores = |cores: &[usize]| {
            let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
            if cores.is_empty() { "any".to_string() } else { cores.join(",") }
        };
        let (broker, generator) = (cores(self.broker_cores), cores(self.generator_cores));
        let title = format!("{subject}; broker on core {broker}, generator on core {generator}");
        match &self.said.warning {
            Some(warning) => format!("{title}\n{warning}"),
            None => title,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    /// Writes the report into a folder. Returns the file.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, String> {
        let path = folder.join(format!("{}-{}.json", self.date.replace(':', ""), self.commit));
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        fs::write(&path, self.json() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// All scenarios' brokers are alike.
fn said_in(outcomes: &[Outcome]) -> Said {
    outcomes
        .iter()
        .map(|outcome| &outcome.said)
        .find(|said| said.io.is_some())
        .cloned()
        .unwrap_or_default()
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "no-commit".to_string();
    };
    // Results of earlier runs are no change to what is measured.
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    if changed { commit + "-dirty" } else { commit }
}

/// Now, UTC, as `2001-02-03T04:05:06Z`.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    calendar::text(seconds, 'T', "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_be_read() {
        assert_eq!(
            [0.0, 999.0, 1000.4, 1234567.0].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        let times = [0.5, 9.99, 10.0, 123.4, 999.6, 12_345.0, 2.5e6].map(duration);
        assert_eq!(times, ["0.50us", "9.99us", "10.0us", "123us", "1.00ms", "12.3ms", "2.50s"]);
    }

    #[test]
    fn a_run_that_the_generator_held_back_is_marked() {
        let mut outcome = Outcome::new("case");
        outcome.out_per_s = 1000.0;
        outcome.bound = Bound::Broker;
        assert!(!table(&[outcome.clone()], false).contains('*'));
        outcome.bound = Bound::Generator;
        let text = table(&[outcome], false);
        assert!(text.contains("*1,000") && text.contains("* the generator was busy"), "{text}");
    }
}
