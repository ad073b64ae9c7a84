//! A run second by second: rates, latency, processor time and memory.

use maud::{Markup, html};

use super::axis::{Axis, decimal, exact_time, short};
use super::chart::{Line, Lines};
use super::figures::middle_run;
use crate::figures::grouped;
use crate::report::kept::{Compared, KeptPoint, KeptRun, Rounds};

const MIB: f64 = (1 << 20) as f64;

/// One line of a chart: its words, and its value in each second.
type Curve = (&'static str, fn(&KeptPoint) -> Option<f64>);

/// Lines of one chart: of a broker alone all of them, of several brokers beside each other the first.
struct Kind {
    title: &'static str,
    note: &'static str,
    curves: &'static [Curve],
    is_time: bool,
    /// Of a tick, and of a figure.
    write: fn(f64) -> String,
    figure: fn(f64) -> String,
}

/// More points than these are a line from end to end of their seconds: with fewer each is drawn as long as it was.
const STRETCHES_MAX: usize = 40;

fn stretches(series: &[KeptPoint], read: fn(&KeptPoint) -> Option<f64>) -> Vec<(f64, f64)> {
    let points = series.iter().filter_map(|point| Some((point, read(point)?)));
    match series.len() {
        0..=STRETCHES_MAX => points
            .flat_map(|(point, value)| [(point.at_s - point.span_s, value), (point.at_s, value)])
            .collect(),
        _ => points.map(|(point, value)| (point.at_s, value)).collect(),
    }
}

const KINDS: [Kind; 4] = [
    Kind {
        title: "Rate",
        note: "a second",
        curves: &[
            ("delivered", |point| Some(point.out_per_s)),
            ("sent", |point| Some(point.in_per_s)),
        ],
        is_time: false,
        write: short,
        figure: grouped,
    },
    Kind {
        title: "Latency",
        note: "of the messages that came in each second; lower is better",
        curves: &[
            ("p99", |point| point.p99_us),
            ("p50", |point| point.p50_us),
            ("longest", |point| point.max_us),
        ],
        is_time: true,
        write: exact_time,
        figure: exact_time,
    },
    Kind {
        title: "CPU",
        note: "cores' worth of processor time",
        curves: &[
            ("broker", |point| point.broker_cores),
            ("generator", |point| point.generator_cores),
        ],
        is_time: false,
        write: decimal,
        figure: |cores| format!("{cores:.2}"),
    },
    Kind {
        title: "Memory",
        note: "MiB, resident, of the broker",
        curves: &[("broker", |point| point.resident_size.map(|size| size / MIB))],
        is_time: false,
        write: decimal,
        figure: |mib| format!("{mib:.1} MiB"),
    },
];

/// The charts of the runs of one label: of each broker the round in the middle.
pub(super) fn charts(scenario: &Compared, label: &str) -> Markup {
    let run_of = |rounds: &'_ Rounds| {
        let run = middle_run(rounds, label).filter(|run| !run.series.is_empty())?;
        Some((rounds.broker.clone(), rounds.place, run))
    };
    let runs: Vec<(String, usize, KeptRun)> = scenario.brokers.iter().filter_map(run_of).collect();
    if runs.is_empty() {
        return html! {};
    }
    let charts: Vec<Markup> = KINDS.iter().filter_map(|kind| chart(kind, &runs)).collect();
    html! {
        h3 { "Second by second, " (label) }
        div.charts.seconds { @for chart in &charts { (chart) } }
    }
}

fn chart(kind: &Kind, runs: &[(String, usize, KeptRun)]) -> Option<Markup> {
    let curves = if runs.len() > 1 { &kind.curves[..1] } else { kind.curves };
    let mut lines = Vec::new();
    for (broker, place, run) in runs {
        for (index, (words, read)) in curves.iter().enumerate() {
            let Some(last) = run.series.iter().filter_map(read).next_back() else { continue };
            let is_alone = runs.len() == 1;
            lines.push(Line {
                label: if is_alone { words.to_string() } else { format!("{broker}, {words}") },
                colour: if is_alone { index } else { *place },
                dash: 0,
                points: stretches(&run.series, *read),
                figure: format!("{} at the end", (kind.figure)(last)),
            });
        }
    }
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    if values.clone().all(|value| value == 0.0) {
        return None;
    }
    let y =
        if kind.is_time { Axis::times("", values) } else { Axis::linear("", values, kind.write) };
    let ends = runs.iter().filter_map(|(_, _, run)| run.series.last()).map(|point| point.at_s);
    let missing =
        runs.iter().flat_map(|(_, _, run)| &run.series).filter(|point| point.missing > 0.0);
    let marks =
        if kind.title == "Rate" { missing.map(|point| point.at_s).collect() } else { Vec::new() };
    let chart = Lines {
        title: kind.title.to_string(),
        note: kind.note.to_string(),
        x: Axis::linear("seconds", ends, decimal),
        y,
        lines,
        marks,
    };
    Some(chart.draw())
}
