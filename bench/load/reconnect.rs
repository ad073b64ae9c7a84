//! A reconnect storm: clients come back all at once to sessions that have outlived their connections. Session, subscription and
//! each message that has waited must be there.

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

/// The state before a storm begins.
struct Stage<'a> {
    bench: &'a Bench,
    scenario: &'a Scenario,
    broker: &'a Broker,
    /// The beginning of all client ids: no session of an earlier run belongs to them.
    name: String,
    topics: Vec<Box<[u8]>>,
}

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut outcome = Outcome::new(&scenario.name);
    let topics = (0..scenario.subscribers).map(|number| scenario.topic_of(number).into_bytes());
    let stage = Stage {
        bench,
        scenario,
        broker,
        name: format!("bench-{}-{}-", std::process::id(), now_ns()),
        topics: topics.map(Into::into).collect(),
    };
    stage.make_sessions(&mut outcome)?;
    bench.progress.say(&scenario.name, "publishing what waits");
    let mut feeder = stage.feeder()?;
    for sequence in 0..scenario.queued as u64 {
        feeder.feed(stage.message_each(sequence))?;
    }
    stage.storm(&mut feeder, &mut outcome)?;
    if !broker.is_own() {
        stage.end_sessions()?;
    }
    Ok(outcome)
}

impl Stage<'_> {
    fn count(&self) -> u64 {
        self.scenario.subscribers as u64
    }

    fn orders(&self) -> Orders {
        Orders {
            target: self.broker.target,
            mqtt: self.scenario.mqtt,
            name: self.name.clone(),
            count: self.scenario.subscribers,
            rate: 0.0,
            open_max: OPEN_MAX,
            clean_start: false,
            lasts: true,
            had_session: false,
            filters: Vec::new(),
            qos: self.scenario.qos,
            expected: Expected::Nothing,
            topics: Vec::new(),
            burden_ns: self.scenario.burden_ns(),
        }
    }

    /// All clients connect, subscribe and leave.
    fn make_sessions(&self, outcome: &mut Outcome) -> Result<(), String> {
        self.bench.progress.say(&self.scenario.name, "making sessions");
        let filters =
            (0..self.scenario.subscribers).map(|number| self.scenario.filter_of(number)).collect();
        let crowd = Crowd::start(Orders { filters, ..self.orders() }, self.bench, false)?;
        let count = self.count();
        if !crowd.wait(self.bench, |counts| counts.ready == count)? {
            return Err(self.why(&crowd, "did not take all sessions"));
        }
        crowd.leave();
        if !crowd.wait(self.bench, |counts| counts.left == count)? {
            return Err(self.why(&crowd, "did not let all clients go"));
        }
        let findings = crowd.stop()?;
        if findings.wrong_sessions > 0 {
            outcome.failures.push(format!(
                "the broker says of {} new clients that it had their sessions",
                grouped(findings.wrong_sessions as f64)
            ));
        }
        outcome.faults.add(&findings.faults);
        Ok(())
    }

    fn why(&self, crowd: &Crowd, what: &str) -> String {
        let reason = crowd.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("the broker {what}{reason}")
    }

    fn feeder(&self) -> Result<Feeder, String> {
        let layout = Layout {
            topics: Vec::new(),
            qos: self.scenario.qos,
            payload_size: self.scenario.payload,
            properties: self.scenario.properties().into(),
        };
        let name = format!("{}feeder", self.name);
        Feeder::connect(&self.broker.target, &name, self.scenario.mqtt, layout, false)
    }

    /// One message for each session.
    fn message_each(&self, sequence: u64) -> impl Iterator<Item = (&[u8], Option<Stamp>)> {
        self.topics.iter().enumerate().map(move |(publisher, topic)| {
            let stamp = Stamp { publisher: publisher as u32, sequence, due_ns: now_ns() };
            (&**topic, Some(stamp))
        })
    }

    fn storm(&self, feeder: &mut Feeder, outcome: &mut Outcome) -> Result<(), String> {
        let (count, queued) = (self.count(), self.scenario.queued as u64);
        self.bench.progress.say(&self.scenario.name, "all come back");
        let orders = Orders {
            open_max: self.scenario.subscribers,
            had_session: true,
            expected: Expected::InSequence(queued),
            topics: self.topics.clone(),
            ..self.orders()
        };
        let crowd = Crowd::start(orders, self.bench, false)?;
        let mut meter = Meter::new(self.broker.pid, crowd.thread_ids());
        let mut stillness = Stillness::new(crowd.counts());
        let usage = meter.watch_until(&self.bench.progress, || {
            crowd.check()?;
            let counts = crowd.counts();
            Ok(counts.complete == count || stillness.note(counts))
        })?;
        let counts = crowd.counts();
        outcome.resident_size_max = meter.resident_size_max;
        outcome.in_per_s = counts.accepted as f64 / usage.elapsed_s;
        outcome.out_per_s = counts.delivered as f64 / usage.elapsed_s;
        outcome.megabytes_per_s = counts.delivered_size as f64 / usage.elapsed_s / 1e6;
        outcome.set_usage(&usage, counts.delivered);
        outcome.measure("clients that came back", counts.accepted as f64, "");
        // A session that has lost its subscription gets nothing more.
        self.bench.progress.say(&self.scenario.name, "publishing to all that came back");
        feeder.feed(self.message_each(queued))?;
        crowd.note_fed(1);
        crowd.wait(self.bench, |counts| counts.delivered >= count * (queued + 1))?;
        let (counts, reason) = (crowd.counts(), crowd.reason());
        let findings = crowd.stop()?;
        outcome.faults.add(&findings.faults);
        (outcome.sent, outcome.delivered) = (count * (queued + 1), counts.delivered);
        let found = counts.accepted.saturating_sub(findings.wrong_sessions);
        outcome.measure("sessions that were there", found as f64, "");
        for (what, histogram) in
            [("accepted", &findings.ready), ("all messages there", &findings.complete)]
        {
            let quantiles = [("p50", 0.5), ("p99", 0.99), ("the last", 1.0)];
            for (at, quantile) in quantiles.into_iter().filter(|_| !histogram.is_empty()) {
                let ms = histogram.value_at_quantile(quantile) as f64 / 1e6;
                outcome.measure(format!("{what}, {at}"), ms, "ms");
            }
        }
        if findings.wrong_sessions > 0 {
            let lost = grouped(findings.wrong_sessions as f64);
            outcome.failures.push(format!(
                "the broker no longer had the session of {lost} of {} clients that came back",
                grouped(count as f64)
            ));
        }
        if counts.accepted < count || counts.closed > 0 {
            let refused = grouped((count - counts.accepted + counts.closed) as f64);
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            outcome.failures.push(format!("{refused} clients could not come back{reason}"));
        }
        Ok(())
    }

    /// The broker may be another's: it keeps no session of the storm.
    fn end_sessions(&self) -> Result<(), String> {
        let orders = Orders { clean_start: true, lasts: false, ..self.orders() };
        let crowd = Crowd::start(orders, self.bench, false)?;
        let count = self.count();
        crowd.wait(self.bench, |counts| counts.ready + counts.failed == count)?;
        crowd.leave();
        crowd.wait(self.bench, |counts| counts.left + counts.failed + counts.closed == count)?;
        crowd.stop().map(|_| ())
    }
}
