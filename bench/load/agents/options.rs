//! The options of agents: what the driver is told of them, and what an agent itself.

use std::path::PathBuf;

use clap::{Args, Parser};
use ringmq::printable::counted;

use crate::units;

/// Of the driver.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AgentOptions {
    /// Publish and subscribe from this agent (`ringmq-bench agent`) instead of from here; may be repeated
    #[arg(long = "agent", value_name = "HOST:PORT", requires = "broker")]
    pub agents: Vec<String>,
    /// Publish and subscribe from so many processes of the bench's own
    #[arg(long, value_name = "N", conflicts_with = "agents", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub processes: Option<u16>,
    /// Publishers on the first half of the agents or processes, subscribers on the others
    #[arg(long)]
    pub apart: bool,
    /// A file with the token that the agents share, for its owner only [default: $RINGMQ_BENCH_TOKEN]
    #[arg(long, value_name = "FILE", requires = "agents")]
    pub token_file: Option<PathBuf>,
}

impl AgentOptions {
    /// Where the generator is, if not in this process.
    pub(crate) fn words(&self) -> Option<String> {
        let processes = self.processes.map(|count| match count {
            1 => "1 process".to_string(),
            count => format!("{count} processes"),
        });
        processes.or_else(|| self.count().map(|count| counted(count as u64, "agents")))
    }

    /// How many others generate; `None`: this process does.
    pub(crate) fn count(&self) -> Option<usize> {
        let processes = self.processes.map(usize::from);
        processes.or((!self.agents.is_empty()).then_some(self.agents.len()))
    }
}

/// Of an agent.
#[derive(Clone, Debug, Parser)]
pub(crate) struct AgentCommand {
    /// Where drivers connect; beyond loopback they need the token
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18830")]
    pub listen: String,
    /// A broker that this agent may connect to; may be repeated. It connects to no other
    #[arg(long = "target", value_name = "HOST:PORT", required = true)]
    pub targets: Vec<String>,
    /// A file with the token that drivers share, for its owner only [default: $RINGMQ_BENCH_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Cores of the generator, as 0-1,3 [default: all]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// Makes the clock wrong, as that of another host may be: shows that it is corrected
    #[arg(long, value_name = "TIME", hide = true, default_value = "0", allow_hyphen_values = true, value_parser = offset)]
    pub clock_offset: i64,
    /// Makes the clock fast by so many millionths
    #[arg(long, value_name = "PPM", hide = true, default_value = "0", allow_hyphen_values = true, value_parser = drift)]
    pub clock_drift: i64,
}

/// Nanoseconds: up to half an hour, either way.
fn offset(text: &str) -> Result<i64, String> {
    let (sign, plain) = text.strip_prefix('-').map_or((1.0, text), |plain| (-1.0, plain));
    let seconds = units::seconds(plain)?;
    if seconds > 1800.0 {
        return Err("a clock is wrong by 30m at most".to_string());
    }
    Ok((sign * seconds * 1e9) as i64)
}

/// Millionths: up to 1 %, either way.
fn drift(text: &str) -> Result<i64, String> {
    let number = text.strip_suffix("ppm").unwrap_or(text).parse::<i64>();
    number
        .ok()
        .filter(|ppm| ppm.abs() <= 10_000)
        .ok_or_else(|| format!("{text:?} is no drift: write -10000ppm to 10000ppm"))
}
