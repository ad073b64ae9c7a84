//! A traffic run: flat out within the window, then at a fixed rate.

use std::time::Duration;

use crate::broker::Broker;
use crate::engine::Engine;
use crate::engine::control::Pace;
use crate::interrupt;
use crate::machine::now_ns;
use crate::meter::Meter;
use crate::outcome::{Batches, Outcome};
use crate::plan::Plan;
use crate::recorder::{Latencies, Recording};
use crate::report::measured::{MeasuredRun, Pace as RunPace, RecordedLatency};
use crate::report::series;
use crate::run::Bench;
use crate::scenario::Scenario;

/// A run is at rest when nothing has come for this long.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The time from the order to the first message of an open-loop run.
const LEAD_NS: u64 = 50_000_000;

pub fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    bench.progress.say(&scenario.name, "connecting");
    let engine = Engine::start(
        Plan::new(scenario),
        &broker.target,
        &bench.placement.generator,
        bench.thread_count,
    )?;
    let mut outcome = Outcome::new(&scenario.name);
    let mut meter = Meter::new(broker.pid, engine.thread_ids());
    if scenario.flat_out {
        bench.progress.say(&scenario.name, "flat out");
        measure_throughput(bench, &engine, &mut meter, &mut outcome)?;
        settle(&engine)?;
    }
    if scenario.rate > 0.0 && !interrupt::came() {
        bench.progress.say(&scenario.name, "at a fixed rate");
        measure_latency(bench, scenario, &engine, &mut meter, &mut outcome)?;
    }
    outcome.resident_size_max = meter.resident_size_max;
    let counts = engine.counts(0);
    (outcome.sent, outcome.delivered) = (counts.sent, counts.delivered);
    outcome.faults = engine.stop()?;
    Ok(outcome)
}

fn settle(engine: &Engine) -> Result<(), String> {
    engine.order(|orders| orders.paces[0] = Pace::Still)?;
    engine.drain(0, PATIENCE)?;
    Ok(())
}

fn measure_throughput(
    bench: &Bench,
    engine: &Engine,
    meter: &mut Meter,
    outcome: &mut Outcome,
) -> Result<(), String> {
    engine.order(|orders| orders.paces[0] = Pace::Window)?;
    bench.wait(bench.warm_up, || engine.check())?;
    let before = engine.counts(0);
    let usage = meter.watch(bench.span, &bench.progress, || engine.counts(0), || engine.check())?;
    if !usage.is_measured() {
        return Ok(());
    }
    let counts = engine.counts(0).since(&before);
    outcome.set_traffic(&counts, usage.elapsed_s);
    outcome.set_usage(&usage, counts.delivered);
    let run = MeasuredRun::new(RunPace::FlatOut, &counts, &usage, meter.take_series());
    outcome.runs.push(run);
    if counts.delivered == 0 && !interrupt::came() {
        outcome.failures.push("nothing was delivered".to_string());
    }
    Ok(())
}

fn measure_latency(
    bench: &Bench,
    scenario: &Scenario,
    engine: &Engine,
    meter: &mut Meter,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let from_ns = now_ns() + LEAD_NS;
    let interval_ns = 1e9 * scenario.publishers as f64 / scenario.rate;
    let recorded_from = from_ns + bench.warm_up.as_nanos() as u64;
    engine.order(|orders| {
        orders.paces[0] = Pace::Rate { from_ns, interval_ns };
        orders.recording = Recording {
            due_ns: recorded_from..recorded_from + bench.span.as_nanos() as u64,
            from_ns: recorded_from,
            interval_ns: series::interval(bench.span).as_nanos() as u64,
        };
    })?;
    bench.wait(bench.warm_up + Duration::from_nanos(LEAD_NS), || engine.check())?;
    let before = engine.counts(0);
    engine.take_idle_ns();
    let mut latencies = Latencies::default();
    let counts = || {
        latencies.collect(engine.drawers());
        engine.counts(0)
    };
    let usage = meter.watch(bench.span, &bench.progress, counts, || engine.check())?;
    let idle_ns = engine.take_idle_ns();
    let counts = engine.counts(0).since(&before);
    settle(engine)?;
    engine.end_record(&mut latencies)?;
    let is_recorded = !interrupt::came() || !latencies.total.is_empty();
    let recorded = is_recorded.then(|| RecordedLatency::new(scenario.rate, &latencies.total));
    outcome.latency = recorded.as_ref().map(|recorded| recorded.summary.clone());
    if !usage.is_measured() {
        return Ok(());
    }
    outcome.batches_at_rate = Batches::new(&counts);
    if !scenario.flat_out {
        outcome.resident_size = usage.resident_size;
    }
    let messages = [counts.sent, counts.delivered];
    outcome.set_usage_at_rate(&usage, scenario.rate, messages, idle_ns);
    let mut series = meter.take_series();
    series.set_latencies(latencies.end(series.points.len()));
    let run = MeasuredRun::new(RunPace::Rate, &counts, &usage, series);
    let run = run.at_rate(scenario.rate, outcome.bound_at_rate);
    outcome.runs.push(MeasuredRun { latency: recorded, ..run });
    Ok(())
}
