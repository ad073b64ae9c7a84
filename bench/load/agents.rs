//! More than one generator: agents on other hosts, or processes on this one, have the clients of a traffic scenario between
//! them; the bench is their driver.
//!
//! Every agent makes the same plan of the scenario and has its part of the clients, so that each message is verified where
//! it comes in, whoever sent it. What each publisher has sent is told everyone at the end, and says what is missing. How far
//! messages have got is told the agent of their publisher every few milliseconds, so that a window means the same as within
//! one process. The clocks of the agents are read before, between and after the runs; a latency between two agents is
//! corrected by what their clocks showed at the time, and what that may be wrong by is said beside it.

mod agent;
mod clock;
mod control;
mod crew;
mod driver;
mod handshake;
mod link;
mod merge;
mod options;
mod protocol;
mod reporter;
mod router;
pub(crate) mod session;
mod split;
mod token;
mod window;
mod words;

use serde::Serialize;

pub(crate) use self::agent::run as serve;
use self::clock::Reading;
pub(crate) use self::driver::run;
pub(crate) use self::options::{AgentCommand, AgentOptions};
pub(crate) use self::words::notes;
use crate::options::Options;
use crate::scenario::{Kind, Scenario};
use crate::tally::Faults;

/// Publishers and subscribers, one topic and payload size each, at a rate that does not rise.
fn can_run(scenario: &Scenario) -> bool {
    scenario.kind == Kind::Traffic && !scenario.is_mixed() && scenario.ramp_s == 0.0
}

/// Refuses what agents cannot do, and agents that would not be had, before anything runs.
pub(crate) fn check(options: &Options, scenarios: &[Scenario]) -> Result<(), String> {
    let agents = &options.agents;
    if agents.apart && agents.count().is_none() {
        return Err(
            "--apart is for several generators: --agent HOST:PORT or --processes N".to_string()
        );
    }
    if agents.count().is_none() {
        return Ok(());
    }
    if options.rates.is_asked() {
        return Err(
            "--rates and --find-max run in this process alone: leave out --agent and --processes"
                .to_string(),
        );
    }
    if let Some(other) = scenarios.iter().find(|scenario| !can_run(scenario)) {
        return Err(format!(
            "scenario {}: agents and processes have plain scenarios of publishers and subscribers only: name others without them",
            other.name
        ));
    }
    let token = token::Token::find(agents.token_file.as_deref())?;
    agents.agents.iter().try_for_each(|agent| link::greet(agent, token.as_ref(), true).map(drop))
}

/// What several generators did, for a scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AgentsReport {
    pub agents: Vec<AgentReport>,
    /// Messages go between agents.
    pub crosses: bool,
    /// Latencies that were measured between two agents.
    pub crossed: u64,
    /// What such a one may be wrong by. `None`: there are none.
    pub latency_uncertainty_us: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AgentReport {
    pub name: String,
    pub publishers: usize,
    pub subscribers: usize,
    pub threads: usize,
    /// Messages of the whole scenario.
    pub sent: Option<u64>,
    pub delivered: Option<u64>,
    pub faults: Option<Faults>,
    pub cores_used: Option<f64>,
    pub cores_used_at_rate: Option<f64>,
    /// Its threads were busy.
    pub was_busy: bool,
    pub was_busy_at_rate: bool,
    /// The latest that it began after the others.
    pub late_us: f64,
    pub clock: ClockReport,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ClockReport {
    /// What it showed more than the driver's when it was read first. Clocks begin with their processes.
    pub offset_us: f64,
    pub drift_ppm: f64,
    /// The longest of the shortest.
    pub round_trip_us: f64,
    /// What an offset may be wrong by: half a round trip, and what the clock is off an even way.
    pub uncertainty_us: f64,
    pub readings: Vec<Reading>,
}
