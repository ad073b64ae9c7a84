//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::agents::AgentOptions;
use crate::rates::RateOptions;
use crate::report::files::Files;
use crate::scenario::Scenario;
use crate::units;

/// What the bench starts and measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Subject {
    #[default]
    Broker,
    Relay,
}

/// What a measurement of scenarios is told.
#[derive(Clone, Debug, Default, Parser)]
pub(crate) struct Options {
    /// The subcommand says it.
    #[arg(skip)]
    pub subject: Subject,
    /// A scenario that a subcommand has made itself.
    #[arg(skip)]
    pub given: Vec<Scenario>,
    /// Measure this broker instead of a RingMQ of the bench's own
    #[arg(long, value_name = "HOST:PORT")]
    pub broker: Option<String>,
    /// The broker's process: its processor time and memory are measured
    #[arg(long, value_name = "N", requires = "broker")]
    pub pid: Option<u32>,
    /// A built-in scenario or a TOML file; may be repeated [default: fan-out, fan-in and p2p, with one message a write and
    /// with many]
    #[arg(long, value_name = "FILE|NAME")]
    pub scenario: Vec<String>,
    /// A public suite, as published but for machine and length; may be repeated
    #[arg(long, value_name = "NAME")]
    pub suite: Vec<String>,
    /// So many times the clients and the rates of a suite, as 0.02
    #[arg(long, value_name = "N", requires = "suite")]
    pub factor: Option<f64>,
    /// All built-in scenarios: some 12 minutes
    #[arg(long, conflicts_with_all = ["scenario", "suite"])]
    pub full: bool,
    /// List the built-in scenarios and the suites, or those named
    #[arg(long)]
    pub list: bool,
    /// Print the results as JSON instead of the table
    #[arg(long)]
    pub json: bool,
    /// Messages (connections) per second of the latency run; 0: no such run
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub rates: RateOptions,
    /// Length of each measured run: seconds, or 500ms, 10s, 2m
    #[arg(long, visible_alias = "duration", value_name = "TIME", default_value = "5", value_parser = units::seconds)]
    pub seconds: f64,
    /// Time before each measurement for everything to warm up
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = units::seconds)]
    pub warm_up: f64,
    #[arg(long, value_name = "0|1|2")]
    pub qos: Option<u8>,
    /// Size of the payload: bytes, or 4k, 64KiB, 1m
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub payload: Option<usize>,
    /// The protocol: 3 is 3.1.1, 5 is 5.0
    #[arg(long, value_name = "3|5")]
    pub mqtt: Option<u8>,
    /// User properties on each publish (MQTT 5)
    #[arg(long, value_name = "N")]
    pub user_properties: Option<usize>,
    /// Messages that the broker drops at a limit, and counts in $SYS, are no error: they are shown, and the bench ends with 0
    #[arg(long)]
    pub allow_drops: bool,
    /// The broker may add user properties behind those that were sent: a plugin of it does (MQTT 5)
    #[arg(long)]
    pub allow_added_properties: bool,
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    #[arg(long, value_name = "N")]
    pub subscribers: Option<usize>,
    /// Messages that a publisher may have outstanding
    #[arg(long, value_name = "N")]
    pub window: Option<u64>,
    /// Messages that a publisher sends at once, flat out; 0: half its window
    #[arg(long, value_name = "N")]
    pub batch: Option<u64>,
    /// Idle connections; connections under way in a storm
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// How often a stall is repeated
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How long a stalled subscriber does not read
    #[arg(long, value_name = "TIME", value_parser = units::seconds)]
    pub stall: Option<f64>,
    /// Makes the generator slower by so much work for each message or connection, microseconds: shows that it is named
    /// as the limit
    #[arg(long, value_name = "US", hide = true)]
    pub burden: Option<u64>,
    /// Shards of the bench's own broker
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "broker")]
    pub shards: u16,
    /// Cores of the bench's own broker, as 0-1,3 [default: the first]
    #[arg(long, value_name = "LIST", conflicts_with = "broker")]
    pub cores: Option<String>,
    /// How the bench's own broker asks for input and output: auto, uring or epoll
    #[arg(long, value_name = "WAY", default_value = "auto", conflicts_with = "broker")]
    pub io: String,
    /// A further option of the bench's own broker, as KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "broker")]
    pub set: Vec<String>,
    /// Generator threads [default: one for each core that is not the broker's]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub files: Files,
    /// Write the results as a JSON file into this folder, too
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub agents: AgentOptions,
}
