//! The command line: options from the table of keys, the subcommands, and what each prints.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::check::{self, Level};
use super::config_file::{Configuration, Origin};
use super::launcher::{EXIT_FAILED, EXIT_STALLED, LaunchError};
use super::logs;
use super::memory::Allowance;
use crate::config::Settings;
use crate::config::keys::{Group, KEYS, Key};
use crate::config::kind::{Kind, Written};
use crate::links;
use crate::plugins::abi::{HEADER, HEADER_RUST};
use crate::printable::one_line;

/// The command line or the configuration is wrong.
const EXIT_USAGE: u8 = 2;

const CONFIG: &str = "config";
const CHECK: &str = "check";
const SERVE: &str = "serve";
const PLUGIN_HEADER: &str = "plugin-header";
const RUST: &str = "rust";
const PORT: &str = "port";
const VERBOSE: &str = "verbose";
const ASIDE: &str = "aside";
const BRIDGE: &str = "bridge";
const SEND: &str = "send";

const EXAMPLES: &str = "\
Examples:
  ringmq                                    serve on 127.0.0.1:1883, a shard on every core
  ringmq --listen 0.0.0.0:1883 --listen [::]:1883 --cores 0-3
  ringmq config > ringmq.toml               the whole configuration, explained, to start from
  ringmq -p 1884 -v                         on 127.0.0.1:1884, with all that happens in the log
  ringmq -c ringmq.toml
  ringmq check --config ringmq.toml         what is wrong here, and what to do
  ringmq aside north --config ringmq.toml   what the remote of the bridge north does not take
  ringmq plugin-header > ringmq_plugin.h    what a plugin of your own is built with, explained

Exit codes: 0 ended as told, 1 it cannot run here, 2 the command line or the configuration is wrong,
3 a worker stood still (stall_max_ms).";

/// Runs the program with its arguments; `serve` is what to do with the settings once they hold.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Settings) -> Result<(), LaunchError>,
) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let is_printed = error.print().is_ok();
            // What was asked for and cannot be written has failed.
            let code = if is_printed || error.use_stderr() { error.exit_code() } else { 1 };
            return ExitCode::from(code as u8);
        }
    };
    let (name, options) = matches.subcommand().unwrap_or((SERVE, &matches));
    if name == PLUGIN_HEADER {
        let header = if options.get_flag(RUST) { HEADER_RUST } else { HEADER };
        return print(header, ExitCode::SUCCESS);
    }
    let configuration = match load(options) {
        Ok(configuration) => configuration,
        Err(sentences) => return refuse(&sentences),
    };
    let memory_size = Allowance::read().map(|allowance| allowance.size);
    let settings = configuration.resolve(check::allowed_cores(), memory_size);
    let contradictions = configuration.contradictions(&settings);
    match name {
        // `check` lists them among its findings.
        CHECK => print_findings(&settings),
        _ if !contradictions.is_empty() => refuse(&contradictions),
        CONFIG => print(&configuration.print(&settings), ExitCode::SUCCESS),
        ASIDE => show_aside(options, &settings),
        _ => start(settings, serve),
    }
}

fn command() -> Command {
    let subcommands = [
        (SERVE, "Run the broker (the same as no command)"),
        (
            CONFIG,
            "Print the whole configuration: each key with its value, default, bounds and meaning",
        ),
        (CHECK, "Examine kernel, limits, cores, ports and configuration, and say what to do"),
    ];
    Command::new("ringmq")
        .version(env!("CARGO_PKG_VERSION"))
        .about("RingMQ: an MQTT 3.1, 3.1.1 and 5.0 broker for Linux servers")
        .override_usage("ringmq [COMMAND] [OPTIONS]")
        .after_help(EXAMPLES)
        .subcommands(subcommands.map(|(name, about)| {
            Command::new(name).about(about).override_usage(format!("ringmq {name} [OPTIONS]"))
        }))
        .subcommand(
            Command::new(PLUGIN_HEADER)
                .about(
                    "Print the header that plugins are built with, which explains how to write one",
                )
                .override_usage("ringmq plugin-header [--rust]")
                .arg(Arg::new(RUST).long(RUST).action(ArgAction::SetTrue).help(
                    "The same for plugins in Rust: types and numbers, without the explanations",
                )),
        )
        .subcommand(
            Command::new(ASIDE)
                .about("Show the messages that a bridge has set aside, or send them again")
                .override_usage("ringmq aside BRIDGE [--send] --config FILE")
                .arg(Arg::new(BRIDGE).required(true).help("The name of the bridge"))
                .arg(Arg::new(SEND).long(SEND).action(ArgAction::SetTrue).help(
                    "Send them to the remote again: a broker that runs does so within a second, another one when it starts",
                )),
        )
        .arg(
            Arg::new("config-file")
                .short('c')
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true)
                .help("Read this TOML file; options of the command line win over it"),
        )
        .arg(
            Arg::new(PORT)
                .short('p')
                .long(PORT)
                .value_name("PORT")
                .value_parser(clap::value_parser!(u16))
                .global(true)
                .help("Listen on this port of 127.0.0.1, beside what --listen says"),
        )
        .arg(
            Arg::new(VERBOSE)
                .short('v')
                .long(VERBOSE)
                .action(ArgAction::SetTrue)
                .conflicts_with("log_level")
                .global(true)
                .help("The same as --log-level debug"),
        )
        .args(KEYS.iter().map(option))
}

/// The option of a key. `-h` shows those of the first groups, `--help` all.
fn option(key: &'static Key) -> Arg {
    let default = key.kind.text(&key.get(&Settings::default()));
    let shape = match key.kind {
        Kind::Choice(words) => words.join("|"),
        kind => kind.placeholder().to_owned(),
    };
    let is_common =
        matches!(key.group, Group::Network | Group::Workers) || key.name.starts_with("log");
    Arg::new(key.name)
        .long(key.option())
        .value_name(shape)
        .action(if is_list(key) { ArgAction::Append } else { ArgAction::Set })
        .allow_hyphen_values(true)
        .global(true)
        .help_heading(key.group.title())
        .hide_short_help(!is_common)
        .help(format!("{} [default: {default}]", key.explanation))
}

/// The option may stand several times.
fn is_list(key: &Key) -> bool {
    matches!(key.kind, Kind::Addresses | Kind::Networks)
}

/// The file first, then the options.
fn load(options: &ArgMatches) -> Result<Configuration, Vec<String>> {
    let mut configuration = Configuration::default();
    let mut wrong = Vec::new();
    if let Some(path) = options.get_one::<PathBuf>("config-file")
        && let Err(sentences) = configuration.read_file(path)
    {
        wrong.extend(sentences);
    }
    let port = options.get_one::<u16>(PORT).map(u16::to_string);
    let short = |key: &Key| match key.name {
        "listen" => port.as_deref(),
        "log_level" => options.get_flag(VERBOSE).then_some("debug"),
        _ => None,
    };
    for key in KEYS {
        let texts = options.get_many::<String>(key.name).into_iter().flatten();
        let texts = texts.map(String::as_str).chain(short(key));
        let mut written: Vec<_> = texts.map(Written::Argument).collect();
        if written.is_empty() {
            continue;
        }
        let written = if is_list(key) { Written::List(written) } else { written.remove(0) };
        let option = format!("--{}", key.option());
        match key.kind.read(&written) {
            Ok(value) => configuration.set(key, value, Origin::CommandLine(option)),
            Err(what) => wrong.push(format!("{option}: {what}; allowed: {}", key.kind.allowed())),
        }
    }
    if wrong.is_empty() { Ok(configuration) } else { Err(wrong) }
}

/// Runs the checks and, if nothing forbids it, the broker.
fn start(settings: Settings, serve: impl FnOnce(Settings) -> Result<(), LaunchError>) -> ExitCode {
    let logs = logs::start(settings.log_level, settings.log_format);
    let findings = check::run_checks_for_start(&settings);
    for finding in &findings {
        match finding.level {
            Level::Ok => tracing::debug!("{}", finding.sentence()),
            Level::Warn => tracing::warn!("{}", finding.sentence()),
            Level::Fail => tracing::error!("{}", finding.sentence()),
        }
    }
    let code = if check::has_failed(&findings) {
        tracing::error!("the broker cannot run here; `ringmq check` says the same and more");
        EXIT_FAILED
    } else {
        match serve(settings) {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!("{error}");
                error.exit_code()
            }
        }
    };
    drop(logs);
    if code == EXIT_STALLED {
        // No destructor runs beside a thread that is lost in a plugin: it may be using what that destroys.
        signal_hook::low_level::exit(code.into());
    }
    ExitCode::from(code)
}

/// What the bridge named in the options has set aside.
fn show_aside(options: &ArgMatches, settings: &Settings) -> ExitCode {
    let name = options.get_one::<String>(BRIDGE).expect("clap requires it");
    let Some(bridge) = settings.bridges.iter().find(|bridge| bridge.name == *name) else {
        let names: Vec<_> = settings.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return refuse(&[format!(
            "there is no bridge '{name}' in the configuration, which has: {known}; --config names its file"
        )]);
    };
    let folder = links::log_directory(bridge, &settings.data_dir);
    match links::aside::command::run(&folder, options.get_flag(SEND)) {
        Ok(text) => print(&text, ExitCode::SUCCESS),
        Err(sentence) => {
            let _ = writeln!(io::stderr(), "error: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn print_findings(settings: &Settings) -> ExitCode {
    let mut findings = check::run_checks(settings);
    findings.extend(check::check_plugins(settings));
    let width = terminal_size::terminal_size_of(io::stdout())
        .map_or(check::LINE_WIDTH, |(width, _)| check::LINE_WIDTH.min(width.0.into()));
    let mut text: String = findings.iter().map(|finding| format!("{finding:width$}\n")).collect();
    let fail_count = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if fail_count == 0 {
        text.push_str("RingMQ can run here.\n");
        return print(&text, ExitCode::SUCCESS);
    }
    text.push_str(&format!("RingMQ cannot run here: {fail_count} to put right.\n"));
    print(&text, ExitCode::FAILURE)
}

fn refuse(sentences: &[String]) -> ExitCode {
    let line = |sentence: &String| format!("error: {}\n", one_line(sentence));
    let text: String = sentences.iter().map(line).collect();
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(EXIT_USAGE)
}

/// A reader that goes away early (`| head`) is no error.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed_and_has_an_option_for_each_key() {
        command().debug_assert();
        let command = command();
        for key in KEYS {
            let found = command.get_arguments().any(|arg| arg.get_long() == Some(&key.option()));
            assert!(found, "{}", key.name);
        }
    }
}
