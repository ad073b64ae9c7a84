//! Sections of the page: the table of all figures, what went wrong, each scenario with its charts, and where it all comes from.

use maud::{Markup, html};
use ringmq::printable::one_line;

use super::axis::{Axis, decimal, exact_time, nines, short};
use super::chart::{Bar, Bars, Line, Lines};
use super::figures::{figure, labels, middle_run, of_rounds, runs};
use super::{seconds, words};
use crate::figures::{batch, grouped, median, processor_time};
use crate::report::kept::{Compared, Document, Kept, KeptLatency, KeptRun, Rounds};

const MIB: f64 = (1 << 20) as f64;

/// Rates that have bars of their own.
const RATES_MAX: usize = 2;

/// The id of a scenario's section.
fn anchor(index: usize) -> String {
    format!("scenario-{}", index + 1)
}

fn shown(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_string(), write)
}

/// All figures, a line for each run of each broker: medians, where there are rounds.
pub(super) fn overview(scenarios: &[Compared]) -> Markup {
    let headings = [
        "in msg/s",
        "out msg/s",
        "CPU µs",
        "/write",
        "/read",
        "MiB",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "faults",
    ];
    html! {
        h2 { "All figures" }
        div.wide { table {
            thead { tr { th.name {} @for heading in headings { th scope="col" { (heading) } } } }
            @for (index, scenario) in scenarios.iter().enumerate() {
                tbody.part {
                    tr { th.name scope="rowgroup" colspan="13" {
                        span.heading {
                            a href=(format!("#{}", anchor(index))) { (scenario.name) }
                            " " span.note { (scenario.words) }
                        }
                    } }
                    @for rounds in &scenario.brokers { (rows(rounds)) }
                }
            }
        } }
    }
}

fn rows(rounds: &Rounds) -> Markup {
    let labels = labels(std::slice::from_ref(rounds));
    let faults: u64 = rounds.rounds.iter().flat_map(|outcome| outcome.faults.values()).sum();
    let has_failed = rounds.rounds.iter().any(|outcome| !outcome.failures.is_empty());
    html! {
        @for (index, label) in labels.iter().enumerate() {
            @let runs = runs(rounds, label);
            @let of = |read: fn(&KeptRun) -> Option<f64>| figure(&runs, read);
            @let us = |read: fn(&KeptLatency) -> f64| shown(figure(&runs, |run| run.latency.as_ref().map(read)), exact_time);
            tr {
                th.name scope="row" { (rounds.broker) ", " (label) }
                td { (shown(of(|run| run.in_per_s), grouped)) }
                td.warn[runs.iter().any(is_marked)] { (shown(of(|run| run.out_per_s), grouped)) }
                td { (shown(of(|run| run.cpu_us_per_message), processor_time)) }
                td { (shown(of(|run| run.batches.messages_per_write), batch)) }
                td { (shown(of(|run| run.batches.messages_per_read), batch)) }
                td { (shown(of(|run| run.resident_size), |size| format!("{:.1}", size / MIB))) }
                td { (us(|latency| latency.p50_us)) }
                td { (us(|latency| latency.p90_us)) }
                td { (us(|latency| latency.p99_us)) }
                td { (us(|latency| latency.p999_us)) }
                td { (us(|latency| latency.max_us)) }
                td.good[faults == 0 && !has_failed].bad[faults > 0 || has_failed] {
                    @if index == 0 { (grouped(faults as f64)) }
                }
            }
        }
    }
}

/// Something else than the broker took part.
fn is_marked(run: &KeptRun) -> bool {
    run.contested
        || run.kept == Some(false)
        || matches!(run.bound.as_deref(), Some("generator" | "waiting"))
}

/// What was lost and why.
pub(super) fn problems(scenarios: &[Compared]) -> Markup {
    let found: Vec<_> =
        scenarios.iter().map(|scenario| (scenario, words::problems(scenario))).collect();
    let is_bad = found.iter().flat_map(|(_, problems)| problems).any(|(is_bad, _)| *is_bad);
    let marked = found.iter().filter(|(_, problems)| problems.iter().any(|(is_bad, _)| !is_bad));
    let marked = marked.count();
    html! {
        h2 { "What was lost, and why" }
        @if !is_bad { p.good { "Nothing was lost, dropped, duplicated, reordered or corrupt." } }
        @for (scenario, problems) in &found {
            @if problems.iter().any(|(is_bad, _)| *is_bad) {
                h3 { (scenario.name) }
                ul.problems { @for (_, text) in problems.iter().filter(|(is_bad, _)| *is_bad) { li.bad { (text) } } }
            }
        }
        @if marked > 0 {
            p { "In " (marked) " of " (scenarios.len()) " scenarios something must be known of the figures: "
                "it stands with the scenario, and the figures concerned are coloured." }
        }
    }
}

/// What must be known of a scenario's figures.
fn marks(scenario: &Compared) -> Markup {
    let marks: Vec<String> = words::problems(scenario)
        .into_iter()
        .filter_map(|(is_bad, text)| (!is_bad).then_some(text))
        .collect();
    html! {
        @if !marks.is_empty() { ul.problems { @for text in &marks { li.warn { (text) } } } }
    }
}

/// One scenario with its charts.
pub(super) fn scenario(index: usize, scenario: &Compared) -> Markup {
    let labels = labels(&scenario.brokers);
    let is_at_rate = |label: &String| {
        scenario.brokers.iter().flat_map(|of| runs(of, label)).any(|run| run.rate.is_some())
    };
    // More rates than these are seen better over the rate than each by itself.
    let has_bars = labels.iter().filter(|label| is_at_rate(label)).count() <= RATES_MAX;
    html! {
        section id=(anchor(index)) {
            h2 { (scenario.name) }
            p.words { (scenario.words) }
            (marks(scenario))
            div.charts {
                @for label in labels.iter().filter(|label| has_bars || !is_at_rate(label)) {
                    (bars(scenario, label))
                }
                (percentiles(scenario))
                (by_rate(scenario))
                (memory(scenario))
            }
            @for label in &labels { (seconds::charts(scenario, label)) }
            (measures(scenario))
        }
    }
}

fn bar_chart(
    title: &str,
    note: &str,
    scenario: &Compared,
    values: impl Fn(&Rounds) -> (String, Vec<f64>),
    write: fn(f64) -> String,
) -> Markup {
    let bar = |rounds: &Rounds| {
        let (words, values) = values(rounds);
        let median = median(&values).filter(|median| *median > 0.0)?;
        let (label, colour) = (format!("{}{words}", rounds.broker), rounds.place);
        Some(Bar { label, colour, median, figure: write(median), rounds: values })
    };
    let bars: Vec<Bar> = scenario.brokers.iter().filter_map(bar).collect();
    if bars.is_empty() {
        return html! {};
    }
    let all = bars.iter().flat_map(|bar| bar.rounds.iter().copied());
    let axis = Axis::linear("", all, write);
    Bars { title: title.to_string(), note: note.to_string(), axis, bars }.draw()
}

/// How many messages went together: no figure of a message stands without it.
fn batches(runs: &[KeptRun]) -> String {
    let of = |read: fn(&KeptRun) -> Option<f64>| figure(runs, read).map(batch);
    let write = of(|run| run.batches.messages_per_write);
    let read = of(|run| run.batches.messages_per_read);
    let words = [(write, "a write"), (read, "a read")];
    let words = words.into_iter().filter_map(|(count, of)| Some(format!(", {} {of}", count?)));
    words.collect()
}

/// Throughput, processor time a message and latency of one run, a bar for each broker.
fn bars(scenario: &Compared, label: &str) -> Markup {
    let of = |read: fn(&KeptRun) -> Option<f64>| {
        move |rounds: &Rounds| {
            let runs = runs(rounds, label);
            (batches(&runs), runs.iter().filter_map(read).collect())
        }
    };
    let what = if scenario.counts_connections { "connection" } else { "message" };
    let is_at_rate =
        scenario.brokers.iter().flat_map(|of| runs(of, label)).any(|run| run.rate.is_some());
    let throughput = match is_at_rate {
        // It is what was asked for.
        true => html! {},
        false => bar_chart(
            &format!("Throughput, {label}"),
            &format!("{what}s delivered a second; higher is better"),
            scenario,
            of(|run| run.out_per_s),
            grouped,
        ),
    };
    let p99 = |run: &KeptRun| run.latency.as_ref().map(|latency| latency.p99_us);
    html! {
        (throughput)
        (bar_chart(
            &format!("CPU per {what}, {label}"),
            "microseconds of the broker's processor time; lower is better",
            scenario,
            of(|run| run.cpu_us_per_message),
            |us| format!("{} µs", processor_time(us)),
        ))
        (bar_chart(&format!("p99 latency, {label}"), "lower is better", scenario, of(p99), exact_time))
    }
}

/// A line's name: only as much as tells it from the others.
fn line_name(scenario: &Compared, rounds: &Rounds, rest: &str) -> String {
    match scenario.brokers.len() {
        1 => rest.to_string(),
        _ => format!("{}, {rest}", rounds.broker),
    }
}

/// The labels of the runs of which latency was recorded.
fn at_rate_labels(rounds: &Rounds) -> Vec<String> {
    let has_latency = |label: &String| runs(rounds, label).iter().any(|run| run.latency.is_some());
    labels(std::slice::from_ref(rounds)).into_iter().filter(has_latency).collect()
}

/// How many messages took how long, at each rate.
fn percentiles(scenario: &Compared) -> Markup {
    let mut lines = Vec::new();
    let mut count = 0.0f64;
    for rounds in &scenario.brokers {
        for (dash, label) in at_rate_labels(rounds).iter().enumerate() {
            let Some(latency) = middle_run(rounds, label).and_then(|run| run.latency) else {
                continue;
            };
            count = count.max(latency.count as f64);
            let end = (latency.count as f64).max(1.0).log10();
            let points = latency.curve().into_iter();
            let points = points.map(|point| (nines(point.percentile).min(end), point.us));
            let (colour, dash) = match scenario.brokers.len() {
                1 => (lines.len(), 0),
                _ => (rounds.place, dash),
            };
            lines.push(Line {
                label: line_name(scenario, rounds, label),
                colour,
                dash,
                points: points.collect(),
                figure: format!("p99 {}", exact_time(latency.p99_us)),
            });
        }
    }
    if lines.is_empty() {
        return html! {};
    }
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let several = scenario.brokers.iter().any(|rounds| rounds.rounds.len() > 1);
    let of = if several { "; of the round whose p99 is in the middle" } else { "" };
    let chart = Lines {
        title: "Latency by percentile".to_string(),
        note: format!("from when a message was due; lower is better{of}"),
        x: Axis::percentiles("percent of the messages took no longer", count),
        y: Axis::times("latency", values),
        marks: Vec::new(),
        lines,
    };
    chart.draw()
}

/// Where there are several rates: latency and processor time over the rate.
fn by_rate(scenario: &Compared) -> Markup {
    let rates_of = |rounds: &Rounds| {
        let labels = labels(std::slice::from_ref(rounds));
        let mut points: Vec<(f64, f64, f64)> = labels
            .iter()
            .filter_map(|label| {
                let runs = runs(rounds, label);
                let rate = runs.first()?.rate?;
                let p99 = figure(&runs, |run| Some(run.latency.as_ref()?.p99_us))?;
                let cpu = figure(&runs, |run| run.cpu_us_per_message).unwrap_or(f64::NAN);
                Some((rate, p99, cpu))
            })
            .collect();
        points.sort_by(|one, next| one.0.total_cmp(&next.0));
        points
    };
    let curves: Vec<_> = scenario.brokers.iter().map(|rounds| (rounds, rates_of(rounds))).collect();
    if curves.iter().all(|(_, points)| points.len() < 2) {
        return html! {};
    }
    let draw = |title: &str, note: &str, read: fn(&(f64, f64, f64)) -> f64, is_time: bool| {
        let line = |(rounds, points): &(&Rounds, Vec<(f64, f64, f64)>)| {
            let points: Vec<_> = points.iter().map(|point| (point.0, read(point))).collect();
            let points: Vec<_> = points.into_iter().filter(|point| point.1.is_finite()).collect();
            let (label, colour) = (rounds.broker.clone(), rounds.place);
            Line { label, colour, dash: 0, points, figure: String::new() }
        };
        let lines: Vec<Line> = curves.iter().map(line).collect();
        let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
        let y = if is_time { Axis::times("", values) } else { Axis::linear("", values, decimal) };
        let rates = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let x = Axis::linear("messages a second asked for", rates, short);
        Lines { title: title.to_string(), note: note.to_string(), x, y, marks: Vec::new(), lines }
            .draw()
    };
    html! {
        (draw("p99 latency by rate", "lower is better", |point| point.1, true))
        (draw("CPU per message by rate", "microseconds; lower is better", |point| point.2, false))
    }
}

/// Memory beside the others', where brokers are compared.
fn memory(scenario: &Compared) -> Markup {
    let resident = |outcome: &Kept| outcome.resident_size.map(|size| size / MIB);
    let write = |mib: f64| format!("{mib:.1} MiB");
    let (title, note) = ("Memory", "resident at the end of the run; lower is better");
    html! {
        @if scenario.brokers.len() > 1 {
            (bar_chart(title, note, scenario, |rounds| (String::new(), of_rounds(rounds, resident)), write))
        }
    }
}

/// What only this kind of scenario measures.
fn measures(scenario: &Compared) -> Markup {
    let value =
        |value: f64| if value.fract() == 0.0 { grouped(value) } else { format!("{value:.2}") };
    let has_some =
        |rounds: &&Rounds| rounds.rounds.iter().any(|outcome| !outcome.measures.is_empty());
    html! {
        @for rounds in scenario.brokers.iter().filter(has_some) {
            h3 { (rounds.broker) }
            @for outcome in &rounds.rounds {
                dl { @for measure in &outcome.measures {
                    dt { (one_line(&measure.name)) }
                    dd { (value(measure.value)) " " (one_line(&measure.unit)) }
                } }
            }
        }
    }
}

pub(super) fn legend() -> Markup {
    let terms = [
        (
            "CPU µs",
            "microseconds of the broker's processor time, user and system, for each delivered message.",
        ),
        (
            "/write, /read",
            "messages a write of the generator, and messages a read at a subscriber: what the broker has put together, or \
             more where the generator was the limit. A message is the cheaper the more go together: no figure stands \
             without both.",
        ),
        (
            "p50 to max",
            "latency from when a message was due to when it was read; a connection: until it was accepted. Delays of \
             the generator are in it.",
        ),
        ("MiB", "the broker's resident memory at the end of the run."),
        (
            "faults",
            "messages lost, dropped at a limit, duplicated, reordered, corrupt or delivered to a subscriber that did not \
             ask for them, over the whole scenario.",
        ),
        (
            "coloured",
            "something else than the broker took part in the figure: see the sentences with the scenario.",
        ),
    ];
    html! {
        h2 { "How to read it" }
        dl { @for (term, text) in terms { dt { (term) } dd { (text) } } }
    }
}

/// Where the figures come from, and how to repeat them.
pub(super) fn origin(documents: &[Document]) -> Markup {
    html! {
        h2 { "Where it comes from, and how to repeat it" }
        @for (index, document) in documents.iter().enumerate() {
            @let head = &document.head;
            p {
                (one_line(&document.source)) ": " (one_line(&head.date)) ", commit " (one_line(&head.commit))
                @if !head.version.is_empty() { ", ringmq-bench " (one_line(&head.version)) }
                @if let Some(shards) = head.shards { ", " (ringmq::printable::counted(shards, "shards")) }
                @if let Some(io) = &head.io { ", " (one_line(io)) }
                ". " (words::machine(document)) "."
                @if head.commit.ends_with("-dirty") { " The tree had changes that no commit holds." }
            }
            @if !head.command.is_empty() { pre { (one_line(&head.command)) } }
            p.note {
                "All figures of this page are in the JSON that it holds, in the element "
                code { "result-" (index + 1) } "."
            }
        }
    }
}
