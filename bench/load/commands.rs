//! The command line as a whole: a measurement, or one of the subcommands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agents::{self, AgentCommand};
use crate::clients::options::{ConnOptions, PubOptions, SubOptions};
use crate::options::{Options, Subject};
use crate::recording::record::{self, RecordOptions};
use crate::recording::replay::{self, ReplayOptions};
use crate::report::schema;
use crate::report::show::{self, ShowOptions};
use crate::{clients, difference, fitness, measurement};

/// Measures RingMQ, or any other MQTT broker: starts a RingMQ of its own on one core, drives it over TCP from the others,
/// verifies every message, and prints a table. Ends with 1 if anything was lost, duplicated, out of order or corrupt.
#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measurement: Options,
}

/// What the bench does besides. The options and the work of each are in a file of their own.
#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a relay on RingMQ's network: the same packets along fixed routes, which no broker on it can do for less
    #[command(visible_alias = "floor")]
    Relay(Box<Options>),
    /// Say what makes this machine unfit to measure on, and choose cores
    Machine(fitness::Options),
    /// Say whether results got worse, with the noise between rounds taken into account
    Diff(difference::Options),
    /// Write a report of results that were kept: an HTML page, CSV, or latency histograms
    Report(ShowOptions),
    /// Print the JSON Schema of what --json and --output write
    Schema,
    /// Publish and subscribe for a bench on another host: a driver, which names this one with --agent
    Agent(AgentCommand),
    /// Connect many clients to a broker, with the options of emqtt-bench: how fast, and how many
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Conn(Box<ConnOptions>),
    /// Publish with many clients, with the options of emqtt-bench
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Pub(Box<PubOptions>),
    /// Subscribe with many clients, with the options of emqtt-bench; what `pub` sends is verified
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Sub(Box<SubOptions>),
    /// Record what a broker delivers: a user's own traffic, to be replayed
    Record(RecordOptions),
    /// Replay a recording as a scenario, and verify every message
    Replay(Box<ReplayOptions>),
}

impl CommandLine {
    /// Does what was asked. `Err` says why it could not be done.
    pub(crate) fn run(self) -> Result<ExitCode, String> {
        match self.command {
            None => measurement::run(&self.measurement),
            Some(Command::Diff(options)) => difference::run(&options),
            Some(Command::Machine(options)) => fitness::run(&options),
            Some(Command::Agent(command)) => agents::serve(command),
            Some(Command::Record(options)) => record::run(&options),
            Some(Command::Replay(options)) => replay::command(*options),
            Some(Command::Relay(options)) => {
                if options.broker.is_some() || !options.set.is_empty() || options.shards != 1 {
                    return Err("the relay is the bench's own, on one core and without a configuration: leave out --broker, --set and --shards".to_string());
                }
                measurement::run(&Options { subject: Subject::Relay, ..*options })
            }
            Some(Command::Report(options)) => show::run(&options),
            Some(Command::Schema) => schema::print(),
            Some(Command::Conn(options)) => clients::conn(&options),
            Some(Command::Pub(options)) => clients::publish(&options),
            Some(Command::Sub(options)) => clients::subscribe(&options),
        }
    }
}
