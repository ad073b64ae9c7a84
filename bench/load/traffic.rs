//! A traffic run: flat out within the window, then at a fixed rate.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::engine::control::Pace;
use crate::engine::ramp::Ramp;
use crate::engine::{Counts, Engine};
use crate::machine::now_ns;
use crate::meter::{Meter, Usage};
use crate::outcome::{Batches, Bound, Latency, Outcome};
use crate::plan::Plan;
use crate::recorder::{Latencies, Recording};
use crate::report::measured::{MeasuredRun, Pace as RunPace, RecordedLatency};
use crate::report::series::{self, Series};
use crate::run::Bench;
use crate::scenario::Scenario;
use crate::{interrupt, rates};

/// A run is at rest when no message has arrived for this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// The time from the order to the first message of an open-loop run.
const LEAD_NS: u64 = 50_000_000;

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    if bench.rates.is_asked() {
        return rates::run(bench, scenario, broker);
    }
    let engine = start(bench, scenario, broker)?;
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

pub(crate) fn start(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Engine, String> {
    bench.progress.say(&scenario.name, "connecting");
    let cores = &bench.placement.generator;
    Engine::start(Plan::new(scenario), &broker.target, cores, bench.thread_count)
}

/// Stops publishing, and waits for the messages that are under way.
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
    let ran = run_at(scenario.rate, bench, scenario, engine, meter, outcome)?;
    if !interrupt::came() || !ran.latencies.total.is_empty() {
        outcome.latency = Some(Latency::new(scenario.rate, &ran.latencies.total));
    }
    if !ran.usage.is_measured() {
        return Ok(());
    }
    outcome.batches_at_rate = Batches::new(&ran.counts);
    if !scenario.flat_out {
        outcome.resident_size = ran.usage.resident_size;
    }
    let messages = [ran.counts.sent, ran.counts.delivered];
    outcome.set_usage_at_rate(&ran.usage, scenario.rate, messages, ran.idle_ns);
    outcome.runs.push(ran.into_run(scenario.rate, outcome.bound_at_rate));
    Ok(())
}

/// The result of a run at a fixed rate.
pub(crate) struct AtRate {
    pub usage: Usage,
    pub counts: Counts,
    /// The time in which the busiest generator thread had nothing to do.
    pub idle_ns: u64,
    pub latencies: Latencies,
    series: Series,
}

impl AtRate {
    /// The run with all its measurements; `bound` is what kept it below its rate.
    pub(crate) fn into_run(self, rate: f64, bound: Option<Bound>) -> MeasuredRun {
        let AtRate { usage, counts, mut latencies, mut series, .. } = self;
        let is_recorded = !interrupt::came() || !latencies.total.is_empty();
        let latency = is_recorded.then(|| RecordedLatency::new(rate, &latencies.total));
        series.set_latencies(&mut latencies);
        let run = MeasuredRun::new(RunPace::Rate, &counts, &usage, series).at_rate(rate, bound);
        MeasuredRun { latency, ..run }
    }
}

/// Publishes at a fixed rate, through the warm-up and the measured span, and waits for the messages that are under way.
pub(crate) fn run_at(
    rate: f64,
    bench: &Bench,
    scenario: &Scenario,
    engine: &Engine,
    meter: &mut Meter,
    outcome: &mut Outcome,
) -> Result<AtRate, String> {
    let from_ns = now_ns() + LEAD_NS;
    let interval_ns = 1e9 * scenario.publishers as f64 / rate;
    // A run at one of several rates begins at its full rate.
    let ramp_s = if bench.rates.is_asked() { 0.0 } else { scenario.ramp_s };
    let ramp_span = Duration::from_secs_f64(ramp_s);
    let recorded_from = from_ns + (ramp_span + bench.warm_up).as_nanos() as u64;
    let (span_ns, steps) = (ramp_span.as_nanos() as f64, scenario.ramp_steps);
    let pace = match ramp_span.is_zero() {
        true => Pace::Rate { from_ns, interval_ns },
        false => Pace::Ramp(Ramp { from_ns, interval_ns, span_ns, steps }),
    };
    let until_ns = recorded_from + bench.span.as_nanos() as u64;
    engine.order(|orders| {
        orders.paces[0] = pace;
        orders.until_ns = until_ns;
        orders.recording = Recording {
            due_ns: recorded_from..until_ns,
            from_ns: recorded_from,
            interval_ns: series::interval(bench.span).as_nanos() as u64,
        };
    })?;
    bench.wait(Duration::from_nanos(LEAD_NS), || engine.check())?;
    if !ramp_span.is_zero() {
        watch_ramp(bench, scenario, engine, ramp_span, outcome)?;
    }
    bench.wait(bench.warm_up, || engine.check())?;
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
    engine.end_schedule(0, bench.span, PATIENCE)?;
    settle(engine)?;
    engine.end_record(&mut latencies)?;
    Ok(AtRate { usage, counts, idle_ns, latencies, series: meter.take_series() })
}

/// A linear ramp is reported in so many parts.
const RAMP_PARTS: u32 = 5;

/// Measures the throughput while the rate rises, step by step.
fn watch_ramp(
    bench: &Bench,
    scenario: &Scenario,
    engine: &Engine,
    span: Duration,
    outcome: &mut Outcome,
) -> Result<(), String> {
    bench.progress.say(&scenario.name, "at a rate that rises");
    let is_linear = scenario.ramp_steps == 0;
    let parts = if is_linear { RAMP_PARTS } else { scenario.ramp_steps };
    let part_span = span / parts;
    let mut before = engine.counts(0);
    for part in 1..=parts {
        let begin = Instant::now();
        bench.wait(part_span, || engine.check())?;
        let (now, elapsed_s) = (engine.counts(0), begin.elapsed().as_secs_f64());
        if interrupt::came() {
            return Ok(());
        }
        let counts = now.since(&before);
        let rates = [counts.sent, counts.delivered].map(|count| count as f64 / elapsed_s);
        let share = 100 * part / parts;
        for (rate, way) in rates.into_iter().zip(["in", "out"]) {
            let of = if is_linear { "up to" } else { "at" };
            outcome.measure(format!("ramp, {of} {share} % of the rate: {way}"), rate, "msg/s");
        }
        before = now;
    }
    Ok(())
}
