//! `ringmq-bench`: the load generator that measures RingMQ, or any other MQTT broker.

mod agents;
mod broker;
mod client;
mod clients;
mod commands;
mod connect_rate;
mod crowd;
mod difference;
mod drops;
mod engine;
mod figures;
mod fitness;
mod idle;
mod interrupt;
mod limits;
mod machine;
mod measurement;
mod message;
mod meter;
mod mix;
mod options;
mod outcome;
mod plan;
mod progress;
mod rates;
mod reconnect;
mod recorder;
mod recording;
mod relay;
mod report;
mod retained;
mod room;
mod run;
mod scenario;
mod screen;
mod stalled;
mod storm;
mod suite;
mod table;
mod tally;
mod traffic;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use ringmq::printable::one_line;

use crate::commands::CommandLine;

fn main() -> ExitCode {
    machine::now_ns();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == broker::SERVE) {
        return broker::serve(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|first| first == relay::SERVE) {
        return relay::serve(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|first| first == agents::session::RUN) {
        return agents::session::run(&arguments[2..]);
    }
    let command_line = CommandLine::parse();
    if let Err(error) = interrupt::listen() {
        eprintln!("ringmq-bench: signals: {error}");
        return ExitCode::from(2);
    }
    match command_line.run() {
        Ok(_) if interrupt::came() => ExitCode::from(interrupt::EXIT_CODE),
        Ok(code) => code,
        Err(reason) => {
            // Brokers and agents have their say in it.
            let lines: Vec<_> = reason.lines().map(one_line).collect();
            eprintln!("ringmq-bench: {}", lines.join("\n"));
            ExitCode::from(2)
        }
    }
}
