//! The driver: runs the traffic of several agents, flat out within the window and then at a fixed rate, as one process
//! would.

use std::collections::BTreeSet;
use std::time::Duration;

use ringmq::printable::counted;

use super::crew::{Crew, soon};
use super::merge::{Merged, sum};
use super::protocol::{Mark, Rhythm};
use super::{AgentReport, AgentsReport};
use crate::broker::Broker;
use crate::engine::Counts;
use crate::interrupt;
use crate::meter::{BUSY, Meter, Usage};
use crate::options::Options;
use crate::outcome::{Batches, Bound, IDLE, Outcome};
use crate::report::measured::{MeasuredRun, Pace, RecordedLatency};
use crate::run::Bench;
use crate::scenario::Scenario;

/// The time from the order to the start that all agents have in common.
const LEAD: Duration = Duration::from_millis(200);

/// Runs a scenario. The findings of agents are shown, even if other agents fail.
pub(crate) fn run(
    bench: &Bench,
    options: &Options,
    scenario: &Scenario,
    broker: &Broker,
) -> Result<Outcome, String> {
    bench.progress.say(&scenario.name, "connecting");
    let mut crew = Crew::gather(bench, options, scenario, broker)?;
    let mut outcome = Outcome::new(&scenario.name);
    crew.prepare(options, scenario, broker)?;
    crew.read_clocks();
    let mut meter = Meter::new(broker.pid, BTreeSet::new());
    let mut run =
        Run { bench, scenario, crew: &mut crew, meter: &mut meter, outcome: &mut outcome };
    let measured = run.measure();
    let is_named =
        |reason: &String| crew.links.iter().any(|link| link.failure().as_ref() == Some(reason));
    outcome
        .failures
        .extend(measured.err().filter(|reason| !is_named(reason) && !interrupt::came()));
    outcome.resident_size_max = meter.resident_size_max;
    finish(&mut crew, scenario, &mut outcome);
    Ok(outcome)
}

/// The marks of each agent.
type Marks = Vec<(usize, Mark)>;

struct Run<'a> {
    bench: &'a Bench,
    scenario: &'a Scenario,
    crew: &'a mut Crew,
    meter: &'a mut Meter,
    outcome: &'a mut Outcome,
}

impl Run<'_> {
    fn measure(&mut self) -> Result<(), String> {
        let (bench, scenario) = (self.bench, self.scenario);
        if scenario.flat_out {
            bench.progress.say(&scenario.name, "flat out");
            self.measure_throughput()?;
            self.crew.settle()?;
        }
        if scenario.rate > 0.0 && !interrupt::came() {
            bench.progress.say(&scenario.name, "at a fixed rate");
            self.crew.read_clocks();
            self.measure_latency()?;
        }
        Ok(())
    }

    fn measure_throughput(&mut self) -> Result<(), String> {
        self.crew.order(Rhythm::Window, soon(LEAD), 0..0)?;
        self.bench.wait(self.bench.warm_up, || self.crew.check())?;
        let Some((usage, marks)) = self.watch()? else { return Ok(()) };
        let (counts, elapsed_s) = total(&marks);
        self.outcome.set_traffic(&counts, elapsed_s);
        self.outcome.set_usage(&usage, counts.delivered);
        let series = self.meter.take_series();
        self.outcome.runs.push(MeasuredRun::new(Pace::FlatOut, &counts, &usage, series));
        for (index, mark) in &marks {
            let report = &mut self.crew.reports[*index];
            (report.cores_used, report.was_busy) = (cores_used(mark), is_busy(mark));
        }
        if counts.delivered == 0 && !interrupt::came() {
            self.outcome.failures.push("nothing was delivered".to_string());
        }
        Ok(())
    }

    fn measure_latency(&mut self) -> Result<(), String> {
        let from_ns = soon(LEAD);
        let interval_ns = 1e9 * self.scenario.publishers as f64 / self.scenario.rate;
        let recorded_from = from_ns + self.bench.warm_up.as_nanos() as u64;
        let recorded_ns = recorded_from..recorded_from + self.bench.span.as_nanos() as u64;
        self.crew.order(Rhythm::Rate { interval_ns }, from_ns, recorded_ns)?;
        self.bench.wait(self.bench.warm_up + LEAD, || self.crew.check())?;
        let Some((usage, marks)) = self.watch()? else { return Ok(()) };
        let (counts, _) = total(&marks);
        self.outcome.batches_at_rate = Batches::new(&counts);
        if !self.scenario.flat_out {
            self.outcome.resident_size = usage.resident_size;
        }
        for (index, mark) in &marks {
            let report = &mut self.crew.reports[*index];
            report.cores_used_at_rate = cores_used(mark);
            // Threads on schedule never sleep.
            report.was_busy_at_rate = (mark.idle_ns as f64) < IDLE * mark.elapsed_ns as f64;
        }
        let idle_ns = marks.iter().map(|(_, mark)| mark.idle_ns).min().unwrap_or(0);
        let messages = [counts.sent, counts.delivered];
        self.outcome.set_usage_at_rate(&usage, self.scenario.rate, messages, idle_ns);
        let run = MeasuredRun::new(Pace::Rate, &counts, &usage, self.meter.take_series());
        self.outcome.runs.push(run.at_rate(self.scenario.rate, self.outcome.bound_at_rate));
        Ok(())
    }

    /// Measures for a span. `None`: the span was cut short.
    fn watch(&mut self) -> Result<Option<(Usage, Marks)>, String> {
        self.crew.mark()?;
        let crew = &*self.crew;
        let usage = self.meter.watch(
            self.bench.span,
            &self.bench.progress,
            || crew.counts(),
            || crew.check(),
        )?;
        let marks = crew.mark()?;
        if !usage.is_measured() {
            return Ok(None);
        }
        for (index, mark) in &marks {
            if is_nonsense(mark, &crew.reports[*index], usage.elapsed_s) {
                crew.links[*index].fail("it reports nonsense: more time than there was");
            }
        }
        crew.check()?;
        Ok(Some((with_generators(usage, &marks), marks)))
    }
}

/// The counts of all agents together, and the seconds that they took.
fn total(marks: &[(usize, Mark)]) -> (Counts, f64) {
    let counts = marks.iter().fold(Counts::default(), |all, (_, mark)| sum(&all, &mark.counts));
    let elapsed: f64 = marks.iter().map(|(_, mark)| mark.elapsed_ns as f64 / 1e9).sum();
    (counts, elapsed / marks.len().max(1) as f64)
}

fn cores_used(mark: &Mark) -> Option<f64> {
    mark.used.map(|used| used.ran_ns as f64 / mark.elapsed_ns.max(1) as f64)
}

fn is_busy(mark: &Mark) -> bool {
    mark.used.is_some_and(|used| used.busiest_ns as f64 > BUSY * mark.elapsed_ns as f64)
}

/// Whether no clock and no thread can have produced this mark.
fn is_nonsense(mark: &Mark, report: &AgentReport, elapsed_s: f64) -> bool {
    let elapsed_ns = mark.elapsed_ns as f64;
    let (least, most) = (0.5 * elapsed_s * 1e9 - 1e9, 2.0 * elapsed_s * 1e9 + 5e9);
    let ran_ns = mark.used.map_or(0.0, |used| used.ran_ns as f64);
    !(least..most).contains(&elapsed_ns)
        || ran_ns > 1.5 * elapsed_ns * report.threads.max(1) as f64 + 1e8
}

/// Adds the generators elsewhere to the broker's usage here.
fn with_generators(usage: Usage, marks: &[(usize, Mark)]) -> Usage {
    let used: Option<Vec<_>> = marks.iter().map(|(_, mark)| mark.used).collect();
    let is_contested =
        |used: &super::protocol::Used| used.waited_longest_ns as f64 > 0.05 * usage.elapsed_s * 1e9;
    let bound = match usage.bound {
        Bound::Broker => Bound::Broker,
        _ if usage.broker_s.is_none() || used.is_none() => Bound::Unknown,
        _ if marks.iter().any(|(_, mark)| is_busy(mark)) => Bound::Generator,
        _ => Bound::Waiting,
    };
    let contested = usage.contested || used.iter().flatten().any(is_contested);
    let generator_s = used.map(|used| used.iter().map(|used| used.ran_ns as f64 / 1e9).sum());
    Usage { generator_s, bound, contested, ..usage }
}

/// Collects the findings of the agents that are left.
fn finish(crew: &mut Crew, scenario: &Scenario, outcome: &mut Outcome) {
    // An agent that fails here is named below.
    let _ = crew.settle();
    crew.read_clocks();
    let sent = crew.close();
    let found = crew.finish(&sent);
    let dues = crew.dues(&sent);
    let mut merged = Merged::default();
    for (index, found) in &found {
        let (sent, due_max) = dues[*index];
        if let Err(reason) = merged.add(found, sent, due_max) {
            crew.links[*index].fail(&reason);
            continue;
        }
        let report = &mut crew.reports[*index];
        (report.sent, report.delivered) = (Some(found.counts.sent), Some(found.counts.delivered));
        report.faults = Some(found.faults);
    }
    let uncertainty_ns = crew.judge_clocks();
    // The connections of agents that have finished are closed by now.
    let finished: BTreeSet<usize> =
        (0..crew.links.len()).filter(|index| crew.reports[*index].delivered.is_some()).collect();
    let left = crew.links.iter().enumerate().filter(|(index, _)| !finished.contains(index));
    outcome.failures.extend(left.filter_map(|(_, link)| link.failure()));
    (outcome.sent, outcome.delivered) = (merged.counts.sent, merged.counts.delivered);
    outcome.faults = merged.faults;
    if scenario.rate > 0.0 && !merged.latency.is_empty() {
        let recorded = RecordedLatency::new(scenario.rate, &merged.latency);
        outcome.latency = Some(recorded.summary.clone());
        if let Some(run) = outcome.runs.iter_mut().find(|run| run.pace == Pace::Rate) {
            run.latency = Some(recorded);
        }
    }
    if merged.negative > 0 {
        outcome.warnings.push(format!(
            "by the agents' clocks {} came before they were sent: of them the least latency is counted, and the \
             clocks are known less well than is said",
            counted(merged.negative, "messages between agents")
        ));
    }
    outcome.agents = Some(AgentsReport {
        agents: crew.reports.clone(),
        crosses: crew.crosses,
        crossed: merged.crossed,
        latency_uncertainty_us: (merged.crossed > 0).then_some(uncertainty_ns as f64 / 1e3),
    });
}
