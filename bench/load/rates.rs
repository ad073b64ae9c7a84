//! Runs a scenario at several rates: those of a list, or those of a search for the highest that holds a latency.

mod options;
mod point;
mod search;

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use self::options::{RateOptions, Rates};
pub(crate) use self::point::{HighestRate, Point};
use self::search::Search;
use crate::broker::Broker;
use crate::engine::Engine;
use crate::figures::grouped;
use crate::interrupt;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::run::Bench;
use crate::scenario::Scenario;
use crate::tally::Faults;
use crate::traffic;

/// How long a broker that has closed a connection is left alone, and how often it is tried.
const CALM_TIME: Duration = Duration::from_secs(1);
const CONNECT_COUNT_MAX: u32 = 3;

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let mut prober = Prober {
        bench,
        scenario,
        broker,
        link: None,
        resident_size_max: None,
        outcome: Outcome::new(&scenario.name),
    };
    prober.link = Some(prober.connect()?);
    let mut search = bench.rates.searches().then(|| Search::new(scenario.rate));
    let mut list = bench.rates.list().iter();
    loop {
        let next = search.as_ref().map_or_else(|| list.next().copied(), Search::next);
        let Some(rate) = next.filter(|_| !interrupt::came()) else { break };
        let Some(point) = prober.probe(rate) else { break };
        // What was cut short says nothing of its rate.
        if interrupt::came() {
            break;
        }
        if let Some(search) = &mut search {
            search.note(rate, point.verdict());
        }
        prober.outcome.curve.push(point);
    }
    let mut outcome = prober.finish();
    if let Some(search) = search.filter(|_| !outcome.curve.is_empty()) {
        answer(&search, bench, &mut outcome);
    }
    outcome.curve.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    Ok(outcome)
}

/// Says what the search came to. What was lost above the rate that holds was found on purpose, and is no fault of the run.
fn answer(search: &Search, bench: &Bench, outcome: &mut Outcome) {
    let highest = HighestRate::new(search, bench.rates.limits(), &outcome.curve);
    match highest.rate {
        Some(_) => outcome.faults.lost -= outcome.faults.lost.min(highest.lost_above),
        None if interrupt::came() => {}
        None => outcome.failures.push(highest.words()),
    }
    outcome.highest_rate = Some(highest);
}

/// Probes one rate after the other. The connections stay; when the broker has closed one, all are made anew.
struct Prober<'a> {
    bench: &'a Bench,
    scenario: &'a Scenario,
    broker: &'a Broker,
    link: Option<Link>,
    resident_size_max: Option<u64>,
    outcome: Outcome,
}

/// The connections, and what is known of them.
struct Link {
    engine: Engine,
    meter: Meter,
    /// Messages that earlier probes have found lost.
    lost: u64,
}

impl Prober<'_> {
    fn connect(&self) -> Result<Link, String> {
        let engine = traffic::start(self.bench, self.scenario, self.broker)?;
        let thread_ids: BTreeSet<u32> = engine.thread_ids();
        Ok(Link { engine, meter: Meter::new(self.broker.pid, thread_ids), lost: 0 })
    }

    /// When a run has ended the connections. What is under way of it is not to come to the next.
    fn connect_again(&self) -> Result<Link, String> {
        for _ in 1..CONNECT_COUNT_MAX {
            self.bench.wait(CALM_TIME, interrupt::check)?;
            if let Ok(link) = self.connect() {
                return Ok(link);
            }
        }
        self.bench.wait(CALM_TIME, interrupt::check)?;
        self.connect()
    }

    /// `None`: somebody has interrupted, or the broker takes no connections any more.
    fn probe(&mut self, rate: f64) -> Option<Point> {
        let mut link = match self.link.take().map_or_else(|| self.connect_again(), Ok) {
            Ok(link) => link,
            Err(_) if interrupt::came() => return None,
            Err(reason) => {
                self.outcome.failures.push(reason);
                return None;
            }
        };
        let doing = format!("run {} at {} msg/s", self.outcome.curve.len() + 1, grouped(rate));
        self.bench.progress.say(&self.scenario.name, &doing);
        match self.measure(rate, &mut link) {
            Ok(point) => {
                self.link = Some(link);
                point
            }
            Err(reason) => {
                self.end(link);
                if interrupt::came() {
                    return None;
                }
                // A search goes beyond what holds on purpose.
                if !self.bench.rates.searches() {
                    self.outcome.failures.push(format!("at {} msg/s: {reason}", grouped(rate)));
                }
                Some(Point::failed(rate, reason))
            }
        }
    }

    fn measure(&mut self, rate: f64, link: &mut Link) -> Result<Option<Point>, String> {
        let Link { engine, meter, lost } = link;
        let ran =
            traffic::run_at(rate, self.bench, self.scenario, engine, meter, &mut self.outcome)?;
        let found = engine.collect()?;
        let missing = engine.due_count(0).saturating_sub(engine.counts(0).delivered);
        let faults = Faults { lost: missing.saturating_sub(*lost), ..found };
        *lost = missing;
        self.outcome.faults.add(&found);
        if !ran.usage.is_measured() {
            return Ok(None);
        }
        self.outcome.resident_size = ran.usage.resident_size;
        let point = Point::new(rate, &ran, faults, self.bench.rates.limits());
        let bound = point.bound.filter(|_| !point.is_kept);
        self.outcome.runs.push(ran.into_run(rate, bound));
        Ok(Some(point))
    }

    /// Ends the connections. Why they cannot go on, if they cannot, was said before.
    fn end(&mut self, link: Link) {
        let counts = link.engine.counts(0);
        self.outcome.sent += counts.sent;
        self.outcome.delivered += counts.delivered;
        self.resident_size_max = self.resident_size_max.max(link.meter.resident_size_max);
        match link.engine.stop() {
            Ok(faults) => self.outcome.faults.add(&faults),
            // What earlier runs have lost stays lost.
            Err(_) => self.outcome.faults.lost += link.lost,
        }
    }

    fn finish(mut self) -> Outcome {
        if let Some(link) = self.link.take() {
            self.end(link);
        }
        self.outcome.resident_size_max = self.resident_size_max;
        self.outcome
    }
}
