//! The broker's entry: parse, load the configuration, run.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringmq::shell::cli::run(std::env::args_os(), ringmq::shell::launcher::run)
}
