//! The table: for each scenario its words, and a line of figures for each of its runs, as wide as the screen.

mod curve;
mod layout;

use anstyle::Style;

use self::layout::{Cell, Layout, Run, Section};
use crate::agents;
use crate::figures::{batch, duration, grouped, processor_time};
use crate::outcome::{Batches, Bound, Latency, Outcome};
use crate::scenario::{Kind, Scenario};
use crate::screen::{BAD, GOOD, PLAIN, STRONG, WARNING, fitted};

/// What a run has done, and behind that its latency, from `LATENCY` on.
const HEADINGS: [&str; 13] = [
    "in msg/s",
    "out msg/s",
    "MB/s",
    "CPU us",
    "/write",
    "/read",
    "MiB",
    "faults",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "max",
];
const LATENCY: usize = 8;

const LEGEND: &str = "CPU us: the broker's processor time, microseconds a delivered message. /write: messages a \
    write of the generator; /read: messages a read at a subscriber: what the broker has put together, or more where \
    the generator was the limit. MiB: the broker's memory. faults: messages lost, dropped at a limit, duplicated, \
    reordered or corrupt. p50 to max: latency from when a message was due (connections: until accepted).";

const MARKS: [(Bound, char, &str); 2] = [
    (
        Bound::Generator,
        '*',
        "the generator was busy and the broker was not: the broker can do more than this",
    ),
    (
        Bound::Waiting,
        '~',
        "neither broker nor generator was busy all the time: they waited for each other",
    ),
];
const CONTESTED: char = '!';

/// Sentences are read in lines that are no longer than this.
pub(crate) const NOTE_WIDTH_MAX: usize = 110;

/// The table with its footnotes. No line is wider than `width`.
pub(crate) fn table(
    scenarios: &[Scenario],
    outcomes: &[Outcome],
    shared: bool,
    width: usize,
) -> String {
    let pairs = scenarios.iter().zip(outcomes);
    let is_curve = curve::is_shown(outcomes);
    let section = if is_curve { curve::section } else { section };
    let sections: Vec<Section> =
        pairs.map(|(scenario, outcome)| section(scenario, outcome)).collect();
    let (headings, second): (&[&str], usize) =
        if is_curve { (&curve::HEADINGS, curve::LATENCY) } else { (&HEADINGS, LATENCY) };
    let mut text = Layout::choose(headings, second, &sections, width).write(headings, &sections);
    text.push('\n');
    for (style, note) in notes(outcomes, shared) {
        for line in fitted(&note, width.min(NOTE_WIDTH_MAX), 2) {
            text += &format!("{style}{line}{style:#}\n");
        }
    }
    for outcome in outcomes {
        text += &measures(outcome, width);
    }
    text
}

fn section(scenario: &Scenario, outcome: &Outcome) -> Section {
    let mut runs = Vec::new();
    if scenario.is_flat_out() || outcome.latency.is_none() {
        let label = match scenario.kind {
            Kind::Traffic | Kind::ConnectStorm | Kind::Replay if scenario.flat_out => "flat out",
            Kind::Traffic | Kind::ConnectStorm | Kind::Replay => "at a rate",
            Kind::Idle => "at rest",
            Kind::StalledSubscriber => "stalled",
            Kind::ConnectRate => "at a rate",
            Kind::ReconnectStorm | Kind::RetainedStorm => "at once",
        };
        runs.push(Run { label: label.to_string(), cells: flat_out(outcome) });
    }
    if let Some(latency) = &outcome.latency {
        let label = format!("{}/s", grouped(latency.rate));
        runs.push(Run { label, cells: at_rate(outcome, latency) });
    }
    // Of the scenario as a whole: beside its first run.
    let whole = whole(outcome);
    let at = LATENCY - whole.len();
    runs[0].cells.splice(at..LATENCY, whole);
    Section { name: outcome.scenario.clone(), words: scenario.words(), runs }
}

/// A figure where there is one.
fn figure<T>(value: Option<T>, write: impl Fn(T) -> String) -> Cell {
    Cell::plain(value.map_or_else(|| "-".to_string(), write))
}

fn batches(batches: &Batches) -> [Cell; 2] {
    [batches.messages_per_write, batches.messages_per_read].map(|messages| figure(messages, batch))
}

/// Messages per second, with what must be known of them.
fn marked(value: f64, bound: Bound, contested: bool) -> Cell {
    let bound = MARKS.iter().find(|(marked, ..)| *marked == bound).map(|(_, mark, _)| *mark);
    let marks: String = contested.then_some(CONTESTED).into_iter().chain(bound).collect();
    let style = if marks.is_empty() { PLAIN } else { WARNING };
    Cell { text: format!("{marks}{}", grouped(value)), style }
}

fn flat_out(outcome: &Outcome) -> Vec<Cell> {
    let positive = |value: f64| (value > 0.0).then_some(value);
    let out = match positive(outcome.out_per_s) {
        Some(value) => marked(value, outcome.bound, outcome.contested),
        None => figure(None, grouped),
    };
    let mut cells = vec![
        figure(positive(outcome.in_per_s), grouped),
        out,
        figure(positive(outcome.megabytes_per_s), |size| format!("{size:.1}")),
        figure(outcome.cpu_us_per_message, processor_time),
    ];
    cells.extend(batches(&outcome.batches));
    cells.resize(HEADINGS.len(), Cell::default());
    cells
}

fn at_rate(outcome: &Outcome, latency: &Latency) -> Vec<Cell> {
    let out = match outcome.out_per_s_at_rate {
        Some(value) => marked(value, Bound::Unknown, outcome.contested_at_rate),
        None => figure(None, grouped),
    };
    let mut cells = vec![
        figure(outcome.in_per_s_at_rate, grouped),
        out,
        Cell::default(),
        figure(outcome.cpu_us_per_message_at_rate, processor_time),
    ];
    cells.extend(batches(&outcome.batches_at_rate));
    cells.resize(LATENCY, Cell::default());
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *latency;
    cells.extend([p50_us, p90_us, p99_us, p999_us, max_us].map(|us| Cell::plain(duration(us))));
    cells
}

fn whole(outcome: &Outcome) -> [Cell; 2] {
    let faults = outcome.faults.count();
    let style = if outcome.is_good(false) { GOOD } else { BAD };
    let memory =
        figure(outcome.resident_size, |size| format!("{:.1}", size as f64 / f64::from(1 << 20)));
    [memory, Cell { text: grouped(faults as f64), style }]
}

/// What stands below the table, a paragraph each.
fn notes(outcomes: &[Outcome], shared_cores: bool) -> Vec<(Style, String)> {
    let mut notes = match curve::is_shown(outcomes) {
        true => curve::notes(outcomes),
        false => vec![(PLAIN, LEGEND.to_string())],
    };
    for (bound, mark, note) in MARKS {
        if outcomes.iter().any(|outcome| outcome.bound == bound && outcome.out_per_s > 0.0) {
            notes.push((WARNING, format!("{mark} {note}")));
        }
    }
    let is_contested = |outcome: &Outcome| {
        let in_curve = outcome.curve.iter().any(|point| point.contested);
        outcome.contested || outcome.contested_at_rate || in_curve
    };
    if outcomes.iter().any(is_contested) {
        let note = "other programs used the broker's or the generator's core";
        notes.push((WARNING, format!("{CONTESTED} {note}")));
    }
    if shared_cores {
        let note = "The broker is not kept off the generator's cores: it can use less than it would alone.";
        notes.push((WARNING, note.to_string()));
    }
    for outcome in outcomes {
        notes.extend(notes_of(outcome));
    }
    notes
}

fn notes_of(outcome: &Outcome) -> Vec<(Style, String)> {
    let (name, faults) = (&outcome.scenario, &outcome.faults);
    let mut notes = Vec::new();
    if let (Some(bound), Some(sent)) = (outcome.bound_at_rate, outcome.in_per_s_at_rate) {
        let wanted = outcome.latency.as_ref().map_or(0.0, |latency| latency.rate);
        let (sent, wanted, why) = (grouped(sent), grouped(wanted), bound.words());
        notes.push((WARNING, format!("{name}: {sent} of {wanted} msg/s were sent: {why}")));
    }
    if faults.any() {
        notes.push((BAD, format!("FAULTS {name}: {}", faults.words())));
    }
    if faults.dropped > 0 {
        let [dropped, lost] = [faults.dropped, faults.lost].map(|count| grouped(count as f64));
        let counted =
            format!("{dropped} messages were dropped at a limit, as the broker counts in $SYS");
        notes.push((BAD, format!("{name}: {counted}; {lost} are lost besides")));
    }
    let is_unexplained = outcome.dropped_as_counted.is_none() || outcome.interrupted;
    if faults.lost > 0 && is_unexplained && !outcome.warnings.is_empty() {
        let unknown =
            "whether a limit dropped what is lost is not known: the broker has not said in $SYS";
        notes.push((WARNING, format!("{name}: {unknown}")));
    }
    notes.extend(agents::notes(outcome));
    if outcome.interrupted {
        notes.push((WARNING, format!("{name}: interrupted, this is what there was")));
    }
    notes.extend(outcome.failures.iter().map(|failure| (BAD, format!("FAILED {name}: {failure}"))));
    notes
}

/// What only this kind of scenario measures.
fn measures(outcome: &Outcome, width: usize) -> String {
    if outcome.measures.is_empty() {
        return String::new();
    }
    let value =
        |value: f64| if value.fract() == 0.0 { grouped(value) } else { format!("{value:.2}") };
    let lines =
        outcome.measures.iter().map(|measure| (&*measure.name, value(measure.value), measure.unit));
    let lines: Vec<_> = lines.collect();
    let widest = |of: fn(&(&str, String, &str)) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let (name_width, value_width) = (widest(|line| line.0.len()), widest(|line| line.1.len()));
    let mut text = String::from("\n");
    for line in fitted(&outcome.scenario, width, 2) {
        text += &format!("{STRONG}{line}{STRONG:#}\n");
    }
    for (name, value, unit) in lines {
        let line = format!("  {name:<name_width$}  {value:>value_width$} {unit}");
        text += &(fitted(line.trim_end(), width, 4).join("\n") + "\n");
    }
    text
}

#[cfg(test)]
mod tests;
