//! What the bench says of a run: the title above the table, and the JSON file.

pub(crate) mod command;
mod csv;
pub(crate) mod files;
mod hgrm;
pub(crate) mod histogram;
mod html;
pub(crate) mod kept;
pub(crate) mod measured;
pub(crate) mod schema;
pub(crate) mod series;
pub(crate) mod show;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ringmq::printable::counted;
use ringmq::system::calendar;
use serde::Serialize;

use self::schema::Schema;
use crate::broker::{Placement, Said};
use crate::fitness;
use crate::machine::Machine;
use crate::options::{Options, Subject};
use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::screen::{STRONG, WARNING, fitted};

/// Figures of a build without optimization say nothing of those of another.
const DEBUG: &str = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };

/// Everything that a later reader needs to know of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub schema: Schema,
    pub date: String,
    /// Of the repository that the bench ran in; with `-dirty` if it had changes.
    pub commit: String,
    /// Of the bench, and of the RingMQ that it starts.
    pub version: &'static str,
    pub command: String,
    pub machine: Machine,
    /// What is known to make it unfit to measure on, whatever else it does.
    pub unfit: Vec<String>,
    /// The address of a broker that is not the bench's own.
    pub broker: Option<&'a str>,
    pub broker_cores: &'a [usize],
    pub generator_cores: &'a [usize],
    pub shards: Option<u16>,
    #[serde(skip)]
    subject: Subject,
    /// Whose figures these are.
    #[serde(rename = "subject")]
    subject_name: &'static str,
    #[serde(skip)]
    generators: Option<String>,
    #[serde(flatten)]
    pub said: Said,
    pub seconds: f64,
    pub scenarios: Vec<ScenarioReport<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport<'a> {
    pub settings: &'a Scenario,
    pub words: String,
    pub outcome: &'a Outcome,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        options: &'a Options,
        placement: &'a Placement,
        scenarios: &'a [Scenario],
        outcomes: &'a [Outcome],
    ) -> Report<'a> {
        let pairs = scenarios.iter().zip(outcomes);
        Report {
            schema: schema::RESULT,
            date: date(),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION"),
            command: command::own(),
            machine: Machine::describe(),
            unfit: fitness::unfit_words(&placement.choice()),
            broker: options.broker.as_deref(),
            broker_cores: &placement.broker,
            generator_cores: &placement.generator,
            shards: options.broker.is_none().then_some(options.shards),
            subject: options.subject,
            subject_name: match options.subject {
                Subject::Relay => "relay",
                Subject::Broker if options.broker.is_some() => "other",
                Subject::Broker => "ringmq",
            },
            generators: options.agents.words(),
            said: said_in(outcomes),
            seconds: options.seconds,
            scenarios: pairs
                .map(|(settings, outcome)| ScenarioReport {
                    settings,
                    words: settings.words(),
                    outcome,
                })
                .collect(),
        }
    }

    /// What was measured and where, a paragraph each: what stands above the table. No line is wider than `width`.
    pub(crate) fn title(&self, width: usize) -> String {
        let mut text = String::new();
        for line in fitted(&self.subject_words(), width, 2) {
            text += &format!("{STRONG}{line}{STRONG:#}\n");
        }
        for paragraph in [self.machine.words(), self.cores_words()] {
            text += &(fitted(&paragraph, width, 2).join("\n") + "\n");
        }
        if !self.unfit.is_empty() {
            let unfit =
                format!("the machine is unfit: {} (ringmq-bench machine)", self.unfit.join("; "));
            for line in fitted(&unfit, width, 2) {
                text += &format!("{WARNING}{line}{WARNING:#}\n");
            }
        }
        for line in self.said.warning.iter().flat_map(|warning| fitted(warning, width, 2)) {
            text += &format!("{WARNING}{line}{WARNING:#}\n");
        }
        text
    }

    fn subject_words(&self) -> String {
        let io = self.said.io.as_ref().map(|io| format!(", {io}")).unwrap_or_default();
        let version = format!("{}, commit {}{DEBUG}", self.version, self.commit);
        match self.broker {
            Some(address) => {
                let broker = self.said.version.as_deref().unwrap_or("broker");
                format!("{broker} at {address}{io}; ringmq-bench {version}")
            }
            None if self.subject == Subject::Relay => format!("relay {version}{io}"),
            None => {
                let shards = counted(self.shards.unwrap_or(1).into(), "shards");
                format!("RingMQ {version}, {shards}{io}")
            }
        }
    }

    fn cores_words(&self) -> String {
        let cores = |cores: &[usize]| {
            let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
            match cores.len() {
                0 => "any core".to_string(),
                1 => format!("core {}", cores[0]),
                _ => format!("cores {}", cores.join(",")),
            }
        };
        let broker = cores(self.broker_cores);
        let generator = self.generators.clone().unwrap_or_else(|| cores(self.generator_cores));
        format!("broker on {broker}, generator on {generator}; {} s a run", self.seconds)
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    /// Writes the report into a folder. Returns the file.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, String> {
        let path = folder.join(format!("{}-{}.json", self.date.replace(':', ""), self.commit));
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        files::write(&path, (self.json() + "\n").as_bytes())?;
        Ok(path)
    }
}

/// All scenarios' brokers are alike.
fn said_in(outcomes: &[Outcome]) -> Said {
    outcomes
        .iter()
        .map(|outcome| &outcome.said)
        .find(|said| said.io.is_some() || said.version.is_some())
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
