//! A subscriber stops reading while others run flat out: they must not slow down, and it must get what is its own.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::drops::DropCounter;
use crate::engine::control::Pace;
use crate::engine::{Counts, Engine};
use crate::interrupt;
use crate::machine::now_ns;
use crate::meter::{Meter, Usage};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::report::measured::{MeasuredRun, Pace as RunPace};
use crate::report::series::Series;
use crate::run::Bench;
use crate::scenario::Scenario;
use crate::tally::Faults;
use crate::traffic::PATIENCE;

/// The flows of the plan.
const OTHERS: usize = 0;
const STALLED: usize = 1;

/// A kernel that has sent in vain for as long as the stall tries again after as long once more, unless told otherwise.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);

/// The others' throughput may fall by this much during a stall.
const SLOWDOWN_MAX: f64 = 0.10;

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut outcome = Outcome::new(&scenario.name);
    let silent = "the broker does not let a client subscribe to $SYS";
    let mut drops = match scenario.beyond_limits {
        true => Some(DropCounter::listen(broker).ok_or(silent)?),
        false => None,
    };
    let dropped_before = drops.as_mut().map_or(Ok(0), DropCounter::settled)?;
    let mut plan = Plan::new(scenario);
    plan.add(&flow(scenario), true);
    let engine =
        Engine::start(plan, &broker.target, &bench.placement.generator, bench.thread_count)?;
    let interval_ns = 1e9 / scenario.stalled_rate;
    let from_ns = now_ns();
    engine.order(|orders| {
        orders.paces[OTHERS] = Pace::Window;
        orders.paces[STALLED] = Pace::Rate { from_ns, interval_ns };
    })?;
    bench.wait(bench.warm_up, || engine.check())?;
    let mut meter = Meter::new(broker.pid, engine.thread_ids());
    let mut rounds = Vec::new();
    for round in 1..=scenario.rounds {
        match run_round(bench, scenario, &engine, &mut meter, round, &mut outcome) {
            Ok(round) => rounds.push(round),
            Err(_) if interrupt::came() && !rounds.is_empty() => break,
            Err(reason) => return Err(reason),
        }
    }
    engine.order(|orders| {
        orders.paces.fill(Pace::Still);
        orders.stalled = false;
    })?;
    engine.drain(OTHERS, PATIENCE)?;
    let has_all = engine.drain(STALLED, PATIENCE)?;
    let stalled = engine.counts(STALLED);
    outcome.delivered = engine.counts(OTHERS).delivered + stalled.delivered;
    outcome.resident_size_max = meter.resident_size_max;
    outcome.faults = engine.stop()?;
    if interrupt::came() && !has_all {
        // Nobody waits for a subscriber that has stalled just now: what it has not got is not lost.
        outcome.faults.lost = 0;
    }
    judge_throughput(&rounds, &mut outcome);
    let longest = rounds.iter().map(|round| round.catch_up).max().unwrap_or_default();
    outcome.measure("caught up after, longest", longest.as_secs_f64(), "s");
    outcome.measure("sent to the stalled subscriber", stalled.sent as f64, "messages");
    if let Some(drops) = drops.as_mut().filter(|_| !interrupt::came()) {
        judge_drops(drops.settled()? - dropped_before, &mut outcome);
    }
    Ok(outcome)
}

/// What a round has shown.
struct Round {
    /// The others' throughput during the stall to that without.
    ratio: f64,
    /// From when the subscriber reads again until it has all that was sent by then.
    catch_up: Duration,
}

/// One publisher and one QoS 1 subscriber, which stalls.
pub(crate) fn flow(scenario: &Scenario) -> Scenario {
    Scenario {
        publishers: 1,
        subscribers: 1,
        topic: "bench/stalled/{publisher}".to_string(),
        filters: vec!["bench/stalled/+".to_string()],
        idle_filters: 0,
        qos: 1,
        payload: scenario.stalled_payload,
        // What waits for the subscriber is for the broker to bound, not for the generator.
        window: u64::MAX,
        // A rate that a slow generator never reaches would keep it from everything else.
        burden_us: 0,
        ..scenario.clone()
    }
}

/// The others without and with the stall, and the subscriber's catching up.
fn run_round(
    bench: &Bench,
    scenario: &Scenario,
    engine: &Engine,
    meter: &mut Meter,
    round: usize,
    outcome: &mut Outcome,
) -> Result<Round, String> {
    let span = Duration::from_secs_f64(scenario.stall_s);
    let mut run = |stalled: bool| -> Result<(Counts, Usage, Series), String> {
        let doing = if stalled { "stalled" } else { "all read" };
        bench
            .progress
            .say(&scenario.name, &format!("round {round} of {}, {doing}", scenario.rounds));
        engine.order(|orders| orders.stalled = stalled)?;
        let before = engine.counts(OTHERS);
        let counts = || engine.counts(OTHERS);
        let usage = meter.watch(span, &bench.progress, counts, || engine.check())?;
        interrupt::check()?;
        Ok((engine.counts(OTHERS).since(&before), usage, meter.take_series()))
    };
    let (counts, usage, series) = run(false)?;
    outcome.runs.push(MeasuredRun::new(RunPace::FlatOut, &counts, &usage, series));
    let free = counts.delivered as f64 / usage.elapsed_s;
    let (counts, usage, series) = run(true)?;
    outcome.runs.push(MeasuredRun::new(RunPace::Stalled, &counts, &usage, series));
    let behind = engine.counts(STALLED);
    outcome.set_traffic(&counts, usage.elapsed_s);
    outcome.set_usage(&usage, counts.delivered);
    engine.order(|orders| orders.stalled = false)?;
    let catch_up = catch_up(engine, behind.sent)
        .map_err(|reason| format!("round {round} of {}: {reason}", scenario.rounds))?;
    if round == 1 {
        outcome.measure(
            "waiting at the end of the stall",
            (behind.sent - behind.delivered) as f64,
            "messages",
        );
    }
    Ok(Round { ratio: outcome.out_per_s / free.max(1.0), catch_up })
}

/// Waits until the subscriber has got as far as `sent`. Returns how long that took.
fn catch_up(engine: &Engine, sent: u64) -> Result<Duration, String> {
    let begin = Instant::now();
    let mut last = (engine.reached(STALLED), begin);
    while last.0 < sent {
        engine.check()?;
        interrupt::check()?;
        if last.1.elapsed() > CATCH_UP_PATIENCE {
            return Err(format!(
                "the subscriber reads again, has got {} of {sent} messages, and nothing more for {CATCH_UP_PATIENCE:?}",
                last.0
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
        let reached = engine.reached(STALLED);
        if reached > last.0 {
            last = (reached, Instant::now());
        }
    }
    Ok(begin.elapsed())
}

fn judge_throughput(rounds: &[Round], outcome: &mut Outcome) {
    let mut ratios: Vec<f64> = rounds.iter().map(|round| round.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    outcome.measure("others' throughput, stalled to not stalled, median", median * 100.0, "%");
    outcome.measure("least of the rounds", ratios[0] * 100.0, "%");
    if median < 1.0 - SLOWDOWN_MAX {
        outcome.failures.push(format!(
            "the others fell to {:.1} % while one subscriber stalled",
            median * 100.0
        ));
    }
}

/// What is missing must be what the broker says it has dropped, and something must be.
fn judge_drops(dropped: u64, outcome: &mut Outcome) {
    let missing = outcome.faults.lost;
    outcome.measure("missing", missing as f64, "messages");
    outcome.measure("dropped, as the broker counts", dropped as f64, "messages");
    if missing != dropped {
        outcome.failures.push(format!(
            "{missing} messages are missing and the broker counts {dropped} as dropped"
        ));
    }
    if missing == 0 {
        outcome
            .failures
            .push("nothing was dropped: the broker's limits were not reached".to_string());
    }
    outcome.faults = Faults { lost: 0, ..outcome.faults };
}
