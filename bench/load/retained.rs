//! A retained storm: many topics have a retained message, and subscribers ask for all of them at once.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::crowd::feeder::Feeder;
use crate::crowd::{Crowd, Expected, Orders, Stillness};
use crate::figures::grouped;
use crate::machine::now_ns;
use crate::message::{Layout, Stamp};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::run::Bench;
use crate::scenario::Scenario;

/// How many connections are under way where there is no storm yet.
const OPEN_MAX: usize = 100;

/// Messages that should not come do so within this time.
const GRACE: Duration = Duration::from_millis(200);

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut outcome = Outcome::new(&scenario.name);
    let topics = (0..scenario.topics).map(|number| scenario.topic(0, number).into_bytes().into());
    let topics: Vec<Box<[u8]>> = topics.collect();
    bench.progress.say(&scenario.name, "setting the topics");
    let mut feeder = feeder(scenario, broker)?;
    let begin = Instant::now();
    feeder.feed(topics.iter().enumerate().map(|(number, topic)| {
        let stamp = Stamp { publisher: number as u32, sequence: 0, due_ns: now_ns() };
        (&**topic, Some(stamp))
    }))?;
    let set_per_s = topics.len() as f64 / begin.elapsed().as_secs_f64();
    outcome.measure("retained topics", topics.len() as f64, "");
    outcome.measure("set", set_per_s, "topics/s");
    let ran = storm(bench, scenario, broker, topics.clone(), &mut outcome);
    if !broker.is_own() {
        // The broker may be another's: it keeps no message of the storm.
        feeder.feed(topics.iter().map(|topic| (&**topic, None)))?;
    }
    ran.map(|()| outcome)
}

/// Messages are set with QoS 1 at least, so all are there when all are acknowledged.
fn feeder(scenario: &Scenario, broker: &Broker) -> Result<Feeder, String> {
    let layout = Layout {
        topics: Vec::new(),
        qos: scenario.qos.max(1),
        payload_size: scenario.payload,
        properties: scenario.properties().into(),
    };
    Feeder::connect(&broker.target, "bench-retained-feeder", scenario.mqtt, layout, true)
}

fn storm(
    bench: &Bench,
    scenario: &Scenario,
    broker: &Broker,
    topics: Vec<Box<[u8]>>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let count = scenario.subscribers as u64;
    let all = count * topics.len() as u64;
    let orders = Orders {
        target: broker.target,
        mqtt: scenario.mqtt,
        name: "bench-retained-".to_string(),
        count: scenario.subscribers,
        rate: 0.0,
        open_max: OPEN_MAX.max(scenario.subscribers),
        clean_start: true,
        lasts: false,
        had_session: false,
        filters: (0..scenario.subscribers).map(|number| scenario.filter_of(number)).collect(),
        qos: scenario.qos,
        expected: Expected::Retained(topics.len()),
        topics,
        burden_ns: scenario.burden_ns(),
    };
    let crowd = Crowd::start(orders, bench, true)?;
    if !crowd.wait(bench, |counts| counts.accepted == count)? {
        let reason = crowd.reason().unwrap_or_else(|| "they got no answer".to_string());
        return Err(format!("not all subscribers could connect: {reason}"));
    }
    bench.progress.say(&scenario.name, "all ask for all topics");
    let mut meter = Meter::new(broker.pid, crowd.thread_ids());
    crowd.subscribe();
    let mut stillness = Stillness::new(crowd.counts());
    let usage = meter.watch_until(&bench.progress, || {
        crowd.check()?;
        let counts = crowd.counts();
        let is_complete = counts.complete == count && counts.ready == count;
        Ok(is_complete || stillness.note(counts))
    })?;
    let counts = crowd.counts();
    outcome.resident_size_max = meter.resident_size_max;
    outcome.in_per_s = counts.ready as f64 / usage.elapsed_s;
    outcome.out_per_s = counts.delivered as f64 / usage.elapsed_s;
    outcome.megabytes_per_s = counts.delivered_size as f64 / usage.elapsed_s / 1e6;
    outcome.set_usage(&usage, counts.delivered);
    bench.wait(GRACE, || crowd.check())?;
    let (counts, reason) = (crowd.counts(), crowd.reason());
    let findings = crowd.stop()?;
    outcome.faults = findings.faults;
    (outcome.sent, outcome.delivered) = (all, counts.delivered);
    outcome.measure("verified", counts.delivered as f64, "messages");
    outcome.measure("verified, whole packets", counts.delivered_size as f64 / 1e6, "MB");
    let quantiles = [("first subscriber", 0.0), ("half of them", 0.5), ("the last", 1.0)];
    for (at, quantile) in quantiles.into_iter().filter(|_| !findings.complete.is_empty()) {
        let ms = findings.complete.value_at_quantile(quantile) as f64 / 1e6;
        outcome.measure(format!("all topics there, {at}"), ms, "ms");
    }
    if counts.ready < count || counts.closed > 0 {
        let lost = grouped((count - counts.ready + counts.closed) as f64);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        outcome.failures.push(format!("{lost} subscribers were turned away{reason}"));
    }
    Ok(())
}
