//! A measurement: the scenarios that the command line names, one after the other, and what is said of them.

use std::process::ExitCode;

use crate::options::Options;
use crate::report::Report;
use crate::run::Bench;
use crate::scenario::Listed;
use crate::{scenario, screen, suite, table};

/// Runs what the command line asks for. Ends with 1 unless every message was delivered as it should be.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    if options.list {
        let all = options.scenario.is_empty() && options.suite.is_empty();
        let listed = match all {
            true => scenario::built_in(),
            false => scenario::chosen(options)?,
        };
        if options.json {
            let listed: Vec<Listed> = listed.iter().map(Listed::new).collect();
            println!("{}", serde_json::to_string_pretty(&listed).expect("plain data"));
        } else {
            listed.iter().for_each(|listed| println!("{:<26} {}", listed.name, listed.about));
            let suites = suite::list().filter(|_| all);
            suites.for_each(|(name, title)| println!("{:<26} {title}", format!("--suite {name}")));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let scenarios = scenario::chosen(options)?;
    let bench = Bench::new(options, &scenarios)?;
    let outcomes = bench.run_all(options, &scenarios)?;
    if outcomes.len() < scenarios.len() {
        eprintln!("interrupted: {} of {} scenarios ran", outcomes.len(), scenarios.len());
    }
    if outcomes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let report = Report::new(options, &bench.placement, &scenarios, &outcomes);
    if options.json {
        println!("{}", report.json());
    } else {
        let width = screen::width();
        let table = table::table(&scenarios, &outcomes, bench.placement.shared, width);
        let notes = suite::notes(&scenarios, options.seconds, width);
        screen::print(&format!("{}\n{table}{notes}", report.title(width)))?;
    }
    if let Some(folder) = &options.output {
        eprintln!("written to {}", report.write(folder)?.display());
    }
    let good = outcomes.iter().all(|outcome| outcome.is_good(options.allow_drops));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
