//! A measurement: the scenarios that the command line names, one after the other, and what is said of them.

use std::process::ExitCode;

use crate::options::Options;
use crate::report::Report;
use crate::report::kept::Document;
use crate::run::Bench;
use crate::scenario::Listed;
use crate::{scenario, screen, suite, table};

/// Runs what the command line asks for. Ends with 1 unless every message was delivered as it should be.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
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
    for warning in options.files.warnings() {
        eprintln!("ringmq-bench: {warning}; the table is printed all the same");
    }
    let outcomes = bench.run_all(options, &scenarios)?;
    if outcomes.len() < scenarios.len() {
        eprintln!("interrupted: {} of {} scenarios ran", outcomes.len(), scenarios.len());
    }
    if outcomes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let report = Report::new(options, &bench.placement, &scenarios, &outcomes);
    if options.json {
        screen::print(&(report.json() + "\n"))?;
    } else {
        let width = screen::width();
        let table = table::table(&scenarios, &outcomes, bench.placement.shared, width);
        let notes = suite::notes(&scenarios, options.seconds, width);
        screen::print(&format!("{}\n{table}{notes}", report.title(width)))?;
    }
    let mut failures = Vec::new();
    if let Some(folder) = &options.output {
        match report.write(folder) {
            Ok(path) => eprintln!("written to {}", path.display()),
            Err(failure) => failures.push(failure),
        }
    }
    if !options.files.is_empty() {
        let document = Document::parse("this measurement".to_string(), report.json())?;
        match options.files.write(&[document]) {
            Ok(paths) => paths.iter().for_each(|path| eprintln!("written to {}", path.display())),
            Err(failure) => failures.push(failure),
        }
    }
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    let good = outcomes.iter().all(|outcome| outcome.is_good(options.allow_drops));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
