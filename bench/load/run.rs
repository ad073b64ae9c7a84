//! Runs scenarios one after the other, each against a broker that has just been started.

use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Placement};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::scenario::{Kind, Scenario};
use crate::{idle, machine, stalled, storm, traffic};

/// What all runs have in common.
#[derive(Debug)]
pub struct Bench {
    pub placement: Placement,
    pub thread_count: usize,
    pub warm_up: Duration,
    /// Of each measurement.
    pub span: Duration,
    pub progress: Progress,
}

impl Bench {
    pub fn new(options: &Options, scenarios: &[Scenario]) -> Result<Bench, String> {
        if !(0.1..=3600.0).contains(&options.seconds) || !(0.0..=600.0).contains(&options.warm_up) {
            return Err("--seconds must be 0.1 to 3600 and --warm-up 0 to 600".to_string());
        }
        let placement = Placement::choose(options)?;
        if !placement.shared {
            machine::pin(&placement.generator).map_err(|error| format!("cores: {error}"))?;
        }
        let thread_count = options.threads.unwrap_or(placement.generator.len());
        if !(1..=64).contains(&thread_count) {
            return Err("--threads must be 1 to 64".to_string());
        }
        let warm_up = Duration::from_secs_f64(options.warm_up);
        let span = Duration::from_secs_f64(options.seconds);
        let total = scenarios.iter().map(|scenario| expected_time(scenario, warm_up, span)).sum();
        Ok(Bench { placement, thread_count, warm_up, span, progress: Progress::new(total, true) })
    }

    /// Runs all scenarios, while the progress bar moves.
    pub fn run_all(
        &self,
        options: &Options,
        scenarios: &[Scenario],
    ) -> Result<Vec<Outcome>, String> {
        let outcomes = scenarios.iter().map(|scenario| self.run(options, scenario)).collect();
        self.progress.end();
        outcomes
    }

    /// Runs one scenario from the start of its broker to the end. What fails within the run is part of its outcome.
    fn run(&self, options: &Options, scenario: &Scenario) -> Result<Outcome, String> {
        let connections = scenario.connections.max(scenario.publishers + scenario.subscribers);
        machine::raise_open_files(connections)?;
        self.progress.say(&scenario.name, "starting the broker");
        let broker = Broker::start(options, &self.placement, scenario)?;
        let measured = match scenario.kind {
            Kind::Traffic => traffic::run(self, scenario, &broker),
            Kind::ConnectStorm => storm::run(self, scenario, &broker),
            Kind::Idle => idle::run(self, scenario, &broker),
            Kind::StalledSubscriber => stalled::run(self, scenario, &broker),
        };
        let mut outcome = measured.unwrap_or_else(|reason| {
            let mut outcome = Outcome::new(&scenario.name);
            outcome.failures.push(reason);
            outcome
        });
        outcome.said = broker.said.clone();
        if let Err(reason) = broker.stop() {
            outcome.failures.push(reason);
        }
        Ok(outcome)
    }

    /// Waits while `check` finds nothing wrong.
    pub fn wait(
        &self,
        span: Duration,
        mut check: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + span;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let step = left.min(Duration::from_millis(100));
            thread::sleep(step);
            self.progress.advance(step);
            check()?;
        }
    }
}

fn expected_time(scenario: &Scenario, warm_up: Duration, span: Duration) -> Duration {
    let round = warm_up + span;
    match scenario.kind {
        Kind::Traffic | Kind::ConnectStorm if scenario.rate > 0.0 && scenario.flat_out => 2 * round,
        Kind::Traffic | Kind::ConnectStorm => round,
        Kind::Idle => span,
        Kind::StalledSubscriber => {
            let stall = Duration::from_secs_f64(scenario.stall_s);
            (warm_up + 2 * stall) * scenario.rounds as u32
        }
    }
}
