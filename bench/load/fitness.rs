//! `ringmq-bench machine`: what makes this machine unfit to measure on, and which cores to measure on. What the kernel does
//! not show is said to be unknown: in a virtual machine that is much.

mod activity;
mod cores;
mod judge;
mod quota;
mod topology;
mod tree;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use ringmq::config::kind::cores_text;
use serde::Serialize;

pub(crate) use self::cores::Choice;
use self::judge::Finding;
pub(crate) use self::judge::Level;
use self::topology::Topology;
pub(crate) use self::tree::Tree;
use crate::broker::parse_cores;
use crate::machine::{self, Machine};
use crate::screen::{BAD, GOOD, PLAIN, STRONG, fitted, print, width};
use crate::{interrupt, units};

/// How long the machine is watched unless told otherwise, seconds.
const WATCHED_S: &str = "2";

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Cores that the broker is to have, as 0-1,3 [default: those that suit best]
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// How many cores the broker is to have
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "cores")]
    count: usize,
    /// How long the machine is watched: seconds, or 500ms, 10s, 2m
    #[arg(long, visible_alias = "duration", value_name = "TIME", default_value = WATCHED_S, value_parser = units::seconds)]
    seconds: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found, for other programs.
#[derive(Debug, Serialize)]
struct Examination {
    machine: Machine,
    broker_cores: Vec<usize>,
    generator_cores: Vec<usize>,
    findings: Vec<Finding>,
}

/// Watches the machine and says what was found. Ends with 1 if it is unfit.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    if !(0.1..=3600.0).contains(&options.seconds) {
        return Err("--seconds must be 0.1 to 3600".to_string());
    }
    let allowed = machine::cores_of(0).map_err(|error| format!("cores: {error}"))?;
    let wanted = options.cores.as_deref().map(parse_cores).transpose()?;
    if let Some(missing) = wanted.iter().flatten().find(|core| !allowed.contains(core)) {
        let allowed = cores_text(&allowed);
        return Err(format!("--cores: this process may use {allowed}, not core {missing}"));
    }
    if !(1..=allowed.len()).contains(&options.count) {
        return Err(format!("--count must be 1 to {}: so many cores there are", allowed.len()));
    }
    let examination = examine(&Tree::default(), &allowed, wanted, options.count, || {
        let span = Duration::from_secs_f64(options.seconds);
        let step = Duration::from_millis(50);
        let mut left = span;
        while !left.is_zero() && !interrupt::came() {
            thread::sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    });
    if options.json {
        println!("{}", serde_json::to_string_pretty(&examination).expect("plain data"));
    } else {
        print(&examination.words(width()))?;
    }
    let is_unfit = examination.findings.iter().any(|finding| finding.level == Level::Unfit);
    Ok(if is_unfit { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn examine(
    tree: &Tree,
    allowed: &[usize],
    wanted: Option<Vec<usize>>,
    count: usize,
    watch: impl FnOnce(),
) -> Examination {
    let topology = Topology::read(tree, allowed);
    let before = activity::Reading::take(tree);
    watch();
    let activity = activity::Reading::take(tree).since(&before);
    let choice = match wanted {
        Some(broker) => cores::beside(&topology, broker),
        None => cores::choose(&topology, count, Some(&activity)),
    };
    let findings = judge::all(tree, &topology, &activity, &choice);
    let Choice { broker, generator } = choice;
    let machine = Machine::describe();
    Examination { machine, broker_cores: broker, generator_cores: generator, findings }
}

/// What is known without watching to make the machine unfit for this choice of cores, a few words each.
pub(crate) fn unfit_words(choice: &Choice) -> Vec<String> {
    let tree = Tree::default();
    let mut all: Vec<usize> = [&choice.broker[..], &choice.generator].concat();
    all.sort_unstable();
    all.dedup();
    let found = judge::at_rest(&tree, &Topology::read(&tree, &all), choice);
    let unfit = found.into_iter().filter(|finding| finding.level == Level::Unfit);
    unfit.map(|finding| format!("{}: {}", finding.subject, finding.what)).collect()
}

/// The cores for a broker that needs `count`, by what is known without watching.
pub(crate) fn choose_cores(allowed: &[usize], count: usize) -> Choice {
    cores::choose(&Topology::read(&Tree::default(), allowed), count, None)
}

/// The generator's cores beside those of a broker.
pub(crate) fn cores_beside(allowed: &[usize], broker: Vec<usize>) -> Choice {
    cores::beside(&Topology::read(&Tree::default(), allowed), broker)
}

impl Examination {
    /// No line is wider than `width`.
    fn words(&self, width: usize) -> String {
        let mut text = String::new();
        for line in fitted(&self.machine.words(), width, 2) {
            text += &format!("{STRONG}{line}{STRONG:#}\n");
        }
        text.push('\n');
        for finding in &self.findings {
            let (style, level) = match finding.level {
                Level::Fit => (GOOD, "fit"),
                Level::Unfit => (BAD, "UNFIT"),
                Level::Unknown => (PLAIN, "unknown"),
            };
            let sentence = format!("{}: {}", finding.subject, finding.what);
            let lines = fitted(&sentence, width - 9, 2);
            for (at, line) in lines.iter().enumerate() {
                let level = if at == 0 { level } else { "" };
                text += &format!("{style}{level:<9}{style:#}{line}\n");
            }
            let remedy = format!("-> {}", finding.remedy);
            let remedies = fitted(&remedy, width - 11, 3);
            for line in remedies.iter().filter(|_| !finding.remedy.is_empty()) {
                text += &format!("{:11}{line}\n", "");
            }
        }
        text + &self.choice_words(width)
    }

    fn choice_words(&self, width: usize) -> String {
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let [broker, generator] =
            [&self.broker_cores, &self.generator_cores].map(|cores| cores_text(cores));
        let mut text = format!(
            "\nBroker on {broker}, generator on {generator}: ringmq-bench --cores {broker}\n"
        );
        let verdict = match (count(Level::Unfit), count(Level::Unknown)) {
            (0, 0) => "Nothing makes this machine unfit.".to_string(),
            (0, unknown) => {
                format!("Nothing that is known makes this machine unfit; {unknown} unknown.")
            }
            (unfit, _) => format!(
                "{unfit} found that {} figures worse, or different from run to run.",
                if unfit == 1 { "makes" } else { "make" }
            ),
        };
        for line in fitted(&verdict, width, 2) {
            text += &format!("{line}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests;
