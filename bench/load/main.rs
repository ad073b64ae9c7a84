//! `ringmq-bench`: the load generator that measures RingMQ, or any other MQTT broker.

mod broker;
mod client;
mod drops;
mod engine;
mod figures;
mod floor;
mod idle;
mod interrupt;
mod limits;
mod machine;
mod message;
mod meter;
mod options;
mod outcome;
mod plan;
mod progress;
mod report;
mod run;
mod scenario;
mod screen;
mod stalled;
mod storm;
mod table;
mod tally;
mod traffic;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;
use crate::report::Report;
use crate::run::Bench;
use crate::scenario::Listed;

fn main() -> ExitCode {
    machine::now_ns();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == broker::SERVE) {
        return broker::serve(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|first| first == floor::SERVE) {
        return floor::serve(&arguments[2..]);
    }
    let options = Options::parse();
    if let Err(error) = interrupt::listen() {
        eprintln!("ringmq-bench: signals: {error}");
        return ExitCode::from(2);
    }
    match bench(&options) {
        Ok(_) if interrupt::came() => ExitCode::from(interrupt::EXIT_CODE),
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("ringmq-bench: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Runs what the command line asks for. True if every message was delivered as it should be.
fn bench(options: &Options) -> Result<bool, String> {
    if options.list {
        let listed = match options.scenario.is_empty() {
            true => scenario::built_in(),
            false => scenario::chosen(options)?,
        };
        if options.json {
            let listed: Vec<Listed> = listed.iter().map(Listed::new).collect();
            println!("{}", serde_json::to_string_pretty(&listed).expect("plain data"));
        } else {
            listed.iter().for_each(|listed| println!("{:<22} {}", listed.name, listed.about));
        }
        return Ok(true);
    }
    let scenarios = scenario::chosen(options)?;
    let bench = Bench::new(options, &scenarios)?;
    let outcomes = bench.run_all(options, &scenarios)?;
    if outcomes.len() < scenarios.len() {
        eprintln!("interrupted: {} of {} scenarios ran", outcomes.len(), scenarios.len());
    }
    if outcomes.is_empty() {
        return Ok(true);
    }
    let report = Report::new(options, &bench.placement, &scenarios, &outcomes);
    if options.json {
        println!("{}", report.json());
    } else {
        let width = screen::width();
        let table = table::table(&scenarios, &outcomes, bench.placement.shared, width);
        screen::print(&format!("{}\n{table}", report.title(width)))?;
    }
    if let Some(folder) = &options.output {
        eprintln!("written to {}", report.write(folder)?.display());
    }
    Ok(outcomes.iter().all(|outcome| outcome.is_good(options.allow_drops)))
}
