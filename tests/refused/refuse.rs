//! Runs a command where io_uring is refused: `cargo run --example refuse -- EPERM cargo test`.

#[path = "filter.rs"]
mod filter;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use filter::Filter;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let filter = words.next().and_then(|word| read(word.to_str()?));
    let (Some(filter), Some(program)) = (filter, words.next()) else {
        eprintln!("usage: refuse EPERM|ENOSYS|newer-calls COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let failed = match filter.apply() {
        Ok(()) => format!("{}: {}", program.display(), Command::new(&program).args(words).exec()),
        Err(reason) => reason,
    };
    eprintln!("refuse: {failed}");
    ExitCode::from(2)
}

fn read(word: &str) -> Option<Filter> {
    match word {
        "EPERM" => Some(Filter::Eperm),
        "ENOSYS" => Some(Filter::Enosys),
        "newer-calls" => Some(Filter::NewerCalls),
        _ => None,
    }
}
