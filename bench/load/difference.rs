//! `ringmq-bench diff A B`: whether B is slower or faster than A, with the noise between rounds taken into account.
//!
//! A round is one run of all scenarios. Were the two sets alike, any of their rounds could as well have been one of the
//! other set: how often a difference as large as the one found comes from dealing the rounds out anew is the chance that it
//! means nothing. The largest difference of all figures decides, so that many figures are no more likely to alarm than one
//! (the maximum statistic of Westfall and Young, 1993). Nothing is assumed of how figures spread.

mod sets;
mod statistics;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::sets::Set;
use self::verdict::Comparison;
use crate::screen::{print, width};

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Options {
    /// Results of before: a file of `ringmq-bench --output` or of scripts/compare, or a folder of such files
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Results of after
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Of results of scripts/compare: which broker's, or OLD,NEW for another in each file
    #[arg(long, value_name = "NAME[,NAME]", default_value = "ringmq")]
    broker: String,
    /// Smaller differences do not count, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0)]
    at_least: f64,
    /// How often a difference may be found where there is none, percent, over all figures together
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    error: f64,
    /// Show all figures, not only those that differ
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Both sets need several rounds, 4 at least, better 9, and taken in turns: what the machine
does in between then falls on both. scripts/compare does that:

  scripts/compare --variant old=old.toml --rounds 9 --output now
  ringmq-bench diff now.json now.json --broker old,ringmq

Ends with 0 if nothing got worse, 1 if something did, 2 if that cannot be said.";

pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    if !(0.0..=1000.0).contains(&options.at_least) || !(0.1..=50.0).contains(&options.error) {
        return Err("--at-least must be 0 to 1000 percent, and --error 0.1 to 50".to_string());
    }
    let (old, new) = options.broker.split_once(',').unwrap_or((&options.broker, &options.broker));
    let before = Set::read(&options.before, old)?;
    let after = Set::read(&options.after, new)?;
    let comparison =
        Comparison::new(&before, &after, options.at_least / 100.0, options.error / 100.0)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&comparison).expect("plain data"));
    } else {
        print(&comparison.words(options.all, width()))?;
    }
    Ok(if comparison.is_worse() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests;
