//! Clients that connect at a rate, whatever the broker does, and stay: how long each waits, and the cost of all of
//! them.

use std::time::Instant;

use crate::broker::Broker;
use crate::crowd::{Crowd, Expected, Orders, Stillness};
use crate::interrupt;
use crate::meter::Meter;
use crate::outcome::{Latency, Outcome};
use crate::run::Bench;
use crate::scenario::Scenario;

/// How many connections may be under way: further ones wait until some have been accepted.
const OPEN_MAX: usize = 2000;

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut outcome = Outcome::new(&scenario.name);
    let fresh = Meter::new(broker.pid, Default::default()).resident_size();
    bench.progress.say(&scenario.name, "connecting at a rate");
    let crowd = Crowd::start(orders(scenario, broker), bench, false)?;
    let mut meter = Meter::new(broker.pid, crowd.thread_ids());
    let all = scenario.connections as u64;
    let mut stillness = Stillness::new(crowd.counts());
    let usage = meter.watch_until(&bench.progress, || {
        crowd.check()?;
        let counts = crowd.counts();
        let is_over = counts.begun == all && stillness.note(counts);
        Ok(counts.ready + counts.failed == all || is_over)
    })?;
    let (counts, idle_ns) = (crowd.counts(), crowd.take_idle_ns());
    if usage.is_measured() {
        let connections = [counts.begun, counts.ready];
        outcome.set_usage_at_rate(&usage, scenario.rate, connections, idle_ns);
        outcome.resident_size = usage.resident_size;
        outcome.measure("connecting took", usage.elapsed_s, "s");
    }
    bench.progress.say(&scenario.name, "the connections stay");
    let end = Instant::now() + bench.span;
    let held = meter.watch_until(&bench.progress, || {
        crowd.check()?;
        Ok(Instant::now() >= end)
    })?;
    outcome.measure("connections", (counts.ready - crowd.counts().closed) as f64, "");
    if let Some((fresh, with)) = fresh.zip(held.resident_size).filter(|_| counts.ready > 0) {
        let each = with.saturating_sub(fresh) as f64 / counts.ready as f64;
        outcome.measure("memory per connection", each / 1024.0, "KiB");
    }
    if let Some(used) = held.broker_s.filter(|_| held.is_measured()) {
        let share = 100.0 * used / held.elapsed_s;
        outcome.measure("processor time while they stay", share, "% of a core");
    }
    outcome.resident_size_max = meter.resident_size_max;
    let (counts, reason) = (crowd.counts(), crowd.reason());
    let findings = crowd.stop()?;
    outcome.faults = findings.faults;
    (outcome.sent, outcome.delivered) = (counts.begun, counts.ready);
    outcome.faults.lost += counts.closed
        + match interrupt::came() {
            true => counts.failed,
            false => all - counts.ready,
        };
    if let Some(reason) = reason {
        outcome.failures.push(reason);
    }
    if findings.wrong_sessions > 0 {
        let count = findings.wrong_sessions;
        let said = format!(
            "the broker says of {count} clients that start clean that it had their sessions"
        );
        outcome.failures.push(said);
    }
    if !findings.ready.is_empty() {
        outcome.latency = Some(Latency::new(scenario.rate, &findings.ready));
    }
    Ok(outcome)
}

fn orders(scenario: &Scenario, broker: &Broker) -> Orders {
    let filters = match scenario.filters.is_empty() {
        true => Vec::new(),
        false => (0..scenario.connections).map(|number| scenario.filter_of(number)).collect(),
    };
    Orders {
        target: broker.target,
        mqtt: scenario.mqtt,
        name: "bench-c".to_string(),
        count: scenario.connections,
        rate: scenario.rate,
        open_max: OPEN_MAX,
        clean_start: true,
        lasts: false,
        had_session: false,
        filters,
        qos: scenario.qos,
        expected: Expected::Nothing,
        topics: Vec::new(),
        burden_ns: scenario.burden_ns(),
    }
}
