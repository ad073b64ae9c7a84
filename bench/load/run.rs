//! Runs scenarios one after the other, each against a broker that has just been started.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{self, Broker, Found, Placement};
use crate::drops::DropCounter;
use crate::options::{Options, Subject};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::rates::Rates;
use crate::recording::replay;
use crate::scenario::{Kind, Scenario};
use crate::{
    agents, connect_rate, idle, interrupt, limits, machine, reconnect, retained, room, stalled,
    storm, traffic,
};

/// What all runs have in common.
#[derive(Debug)]
pub(crate) struct Bench {
    pub placement: Placement,
    pub thread_count: usize,
    pub warm_up: Duration,
    /// Of each measurement.
    pub span: Duration,
    pub progress: Progress,
    pub rates: Rates,
    /// The broker, if it is not the bench's own.
    found: Option<Found>,
    /// The broker's count of dropped messages was up to date once.
    has_counted: Cell<bool>,
}

const ASKS_FOR_DROPS: &str = "waiting for the broker's count of dropped messages";

impl Bench {
    pub(crate) fn new(options: &Options, scenarios: &[Scenario]) -> Result<Bench, String> {
        if !(0.1..=3600.0).contains(&options.seconds) || !(0.0..=600.0).contains(&options.warm_up) {
            return Err("--seconds must be 0.1 to 3600 and --warm-up 0 to 600".to_string());
        }
        agents::check(options, scenarios)?;
        let placement = Placement::choose(options)?;
        let found = broker::find(options, scenarios.first().map_or(3, |scenario| scenario.mqtt))?;
        let told = found.as_ref().and_then(|found| found.packet_size_max);
        for scenario in scenarios {
            limits::check_packet_size(options, scenario, told)?;
        }
        let warnings = room::check(options, scenarios, found.as_ref())?;
        if !placement.shared {
            machine::pin(&placement.generator).map_err(|error| format!("cores: {error}"))?;
        }
        let thread_count = options.threads.unwrap_or(placement.generator.len());
        if !(1..=64).contains(&thread_count) {
            return Err("--threads must be 1 to 64".to_string());
        }
        let warm_up = Duration::from_secs_f64(options.warm_up);
        let span = Duration::from_secs_f64(options.seconds);
        let rates = Rates::new(options, scenarios)?;
        let expected = |scenario: &Scenario| match rates.is_asked() {
            true => rates.run_count() * (warm_up + span),
            false => expected_time(scenario, warm_up, span),
        };
        let total = scenarios.iter().map(expected).sum();
        rates.announce(scenarios.len(), warm_up + span);
        let progress = Progress::new(total, true);
        warnings.iter().for_each(|warning| progress.warn(warning));
        let has_counted = Cell::new(false);
        Ok(Bench { placement, thread_count, warm_up, span, progress, rates, found, has_counted })
    }

    /// Runs all scenarios, while the progress bar moves: fewer if somebody interrupts.
    pub(crate) fn run_all(
        &self,
        options: &Options,
        scenarios: &[Scenario],
    ) -> Result<Vec<Outcome>, String> {
        let mut outcomes = Vec::new();
        for scenario in scenarios {
            let ran = self.run(options, scenario);
            let interrupted = interrupt::came();
            match ran {
                Ok(outcome) if interrupted && !outcome.is_begun() => {}
                Ok(outcome) => outcomes.push(outcome),
                Err(_) if interrupted => {}
                // What others have shown is not lost by it.
                Err(reason) if !outcomes.is_empty() => {
                    outcomes.push(Outcome::failed(&scenario.name, reason));
                }
                Err(reason) => {
                    self.progress.end();
                    return Err(reason);
                }
            }
            if interrupted {
                break;
            }
        }
        self.progress.end();
        Ok(outcomes)
    }

    /// Runs one scenario from the start of its broker to the end. What fails within the run is part of its outcome.
    fn run(&self, options: &Options, scenario: &Scenario) -> Result<Outcome, String> {
        machine::raise_open_files(room::sockets(scenario))?;
        self.progress.say(&scenario.name, "starting the broker");
        let broker = Broker::start(options, self.found.as_ref(), &self.placement, scenario)?;
        let warning = limits::warning(options, scenario, self.found.as_ref())?;
        if let Some(warning) = &warning {
            self.progress.warn(warning);
        }
        let is_explained = limits::is_explained(scenario) && options.subject == Subject::Broker;
        // The bench's own broker has dropped nothing yet: a client that listens meanwhile would be measured, too.
        let listens = is_explained && !broker.is_own();
        let mut drops = listens.then(|| DropCounter::listen(&broker)).flatten();
        // What runs before this one have dropped was waited for then.
        if let Some(drops) = drops.as_mut().filter(|_| !self.has_counted.replace(true)) {
            self.progress.say(&scenario.name, ASKS_FOR_DROPS);
            drops.begin();
        }
        let measured = match scenario.kind {
            Kind::Traffic if options.agents.count().is_some() => {
                agents::run(self, options, scenario, &broker)
            }
            Kind::Traffic => traffic::run(self, scenario, &broker),
            Kind::ConnectStorm => storm::run(self, scenario, &broker),
            Kind::Idle => idle::run(self, scenario, &broker),
            Kind::StalledSubscriber => stalled::run(self, scenario, &broker),
            Kind::ConnectRate => connect_rate::run(self, scenario, &broker),
            Kind::ReconnectStorm => reconnect::run(self, scenario, &broker),
            Kind::RetainedStorm => retained::run(self, scenario, &broker),
            Kind::Replay => replay::run(self, scenario, &broker),
        };
        let mut outcome = measured.unwrap_or_else(|reason| match interrupt::came() {
            true => Outcome::new(&scenario.name),
            false => Outcome::failed(&scenario.name, limits::hint(scenario, &reason)),
        });
        outcome.interrupted = interrupt::came();
        outcome.warnings.extend(warning);
        let published = scenario.published.as_ref();
        outcome.warnings.extend(published.map(|published| published.words(options.seconds)));
        if is_explained && outcome.faults.lost > 0 {
            self.progress.say(&scenario.name, ASKS_FOR_DROPS);
            if let Some(mut drops) = drops.or_else(|| DropCounter::listen(&broker)) {
                drops.explain(&mut outcome).unwrap_or_else(|reason| outcome.failures.push(reason));
            }
        }
        outcome.said = broker.said.clone();
        if let Err(reason) = broker.stop() {
            outcome.failures.push(reason);
        }
        Ok(outcome)
    }

    /// Waits while `check` finds nothing wrong, and nobody interrupts.
    pub(crate) fn wait(
        &self,
        span: Duration,
        mut check: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + span;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || interrupt::came() {
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
        Kind::Traffic if scenario.rate > 0.0 && scenario.ramp_s > 0.0 => {
            let flat_out = if scenario.flat_out { round } else { Duration::ZERO };
            flat_out + Duration::from_secs_f64(scenario.ramp_s) + round
        }
        Kind::Traffic | Kind::ConnectStorm if scenario.rate > 0.0 && scenario.flat_out => 2 * round,
        Kind::Traffic | Kind::ConnectStorm => round,
        Kind::Idle => span,
        Kind::Replay => replay::span(scenario),
        Kind::StalledSubscriber => {
            let stall = Duration::from_secs_f64(scenario.stall_s);
            (warm_up + 2 * stall) * scenario.rounds as u32
        }
        Kind::ConnectRate => {
            Duration::from_secs_f64(scenario.connections as f64 / scenario.rate) + span
        }
        // They take as long as they take.
        Kind::ReconnectStorm | Kind::RetainedStorm => Duration::from_secs(3),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario;

    /// Of the two minutes in which the README promises the short table, the rest is for brokers that start and end.
    const SHORT_TIME_MAX: Duration = Duration::from_secs(100);

    #[test]
    fn the_short_table_takes_less_than_two_minutes() {
        let options = Options::parse_from(["ringmq-bench"]);
        let warm_up = Duration::from_secs_f64(options.warm_up);
        let span = Duration::from_secs_f64(options.seconds);
        let short = scenario::chosen(&options).expect("they are built in");
        let total: Duration =
            short.iter().map(|scenario| expected_time(scenario, warm_up, span)).sum();
        assert!(total <= SHORT_TIME_MAX, "{total:?}");
    }
}
