//! The table of a scenario at several rates: a line for each.

use anstyle::Style;
use ringmq::printable::counted;

use super::layout::{Cell, Run, Section};
use super::{CONTESTED, MARKS, figure};
use crate::figures::{duration, grouped, processor_time};
use crate::outcome::{Latency, Outcome};
use crate::rates::Point;
use crate::scenario::Scenario;
use crate::screen::{BAD, GOOD, PLAIN, STRONG, WARNING};

pub(super) const HEADINGS: [&str; 8] =
    ["sent/s", "CPU us", "p50", "p90", "p99", "p99.9", "max", "lost"];
/// Behind what was done, from here on, the latency.
pub(super) const LATENCY: usize = 2;

/// Behind a rate that does not hold.
const FAILED: &str = " x";

const LEGEND: &str = "A line is a run at a rate in messages a second towards the broker, on the same \
    connections. x: it does not hold. CPU us: the broker's processor time, microseconds a delivered \
    message. p50 to max: latency from when a message was due. lost: or dropped.";

pub(super) fn is_shown(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| !outcome.curve.is_empty())
}

pub(super) fn section(scenario: &Scenario, outcome: &Outcome) -> Section {
    let run = |point: &Point| Run { label: label(point), cells: cells(point) };
    let runs = outcome.curve.iter().map(run).collect();
    Section { name: outcome.scenario.clone(), words: scenario.words(), runs }
}

fn label(point: &Point) -> String {
    let failed = if point.holds { "  " } else { FAILED };
    format!("{:>8}/s{failed}", grouped(point.rate))
}

fn cells(point: &Point) -> Vec<Cell> {
    let mark = |(bound, mark, _): &(_, char, _)| {
        (point.bound == Some(*bound) && !point.is_kept).then_some(*mark)
    };
    let marks = MARKS.iter().filter_map(mark).chain(point.contested.then_some(CONTESTED));
    let marks: String = marks.collect();
    let style = if point.is_kept && marks.is_empty() { PLAIN } else { WARNING };
    let sent = Cell { text: format!("{marks}{}", grouped(point.in_per_s)), style };
    let mut cells = vec![sent, figure(point.cpu_us_per_message, processor_time)];
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = point.latency;
    let values =
        [("p50", p50_us), ("p90", p90_us), ("p99", p99_us), ("p99.9", p999_us), ("max", max_us)];
    cells.extend(values.map(|(name, us)| {
        let style = if point.broken.contains(&name) { BAD } else { PLAIN };
        Cell { style, ..figure((point.latency.count > 0).then_some(us), duration) }
    }));
    let lost = point.faults.count();
    cells.push(Cell { text: grouped(lost as f64), style: if lost > 0 { BAD } else { GOOD } });
    cells
}

/// What stands below it of all scenarios, and of each.
pub(super) fn notes(outcomes: &[Outcome]) -> Vec<(Style, String)> {
    let mut notes = vec![(PLAIN, LEGEND.to_string())];
    let points = || outcomes.iter().flat_map(|outcome| &outcome.curve);
    for (bound, mark, note) in MARKS {
        if points().any(|point| point.bound == Some(bound) && !point.is_kept) {
            notes.push((WARNING, format!("{mark} {note}")));
        }
    }
    outcomes.iter().for_each(|outcome| notes.extend(notes_of(outcome)));
    notes
}

fn notes_of(outcome: &Outcome) -> Vec<(Style, String)> {
    let name = &outcome.scenario;
    let Some(highest) = &outcome.highest_rate else {
        let failed = outcome.curve.iter().filter(|point| !point.holds);
        let words = |point: &Point| {
            let (rate, why) = (grouped(point.rate), point.reasons.join(", "));
            (WARNING, format!("{name} at {rate} msg/s: {why}"))
        };
        return failed.map(words).collect();
    };
    let mut notes = Vec::new();
    // Else it stands among the failures.
    if highest.rate.is_some() {
        notes.push((STRONG, format!("{name}: {}", highest.words())));
    }
    let disturbed = outcome.curve.iter().filter(|point| point.contested && !point.holds);
    let disturbed = disturbed.count() as u64;
    if disturbed > 0 {
        let runs = counted(disturbed, "runs");
        let note =
            "did not hold while other programs used the cores: on a quiet machine it may be more";
        notes.push((WARNING, format!("{name}: {runs} {note}")));
    }
    if highest.lost_above > 0 {
        let lost = grouped(highest.lost_above as f64);
        notes.push((
            WARNING,
            format!("{name}: {lost} messages were lost above the rate that holds"),
        ));
    }
    notes
}
