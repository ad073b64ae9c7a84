//! The results as CSV: a row for each run of each broker in each scenario and round, RFC 4180.

use super::kept::{Compared, Document, Kept, KeptRun, Rounds};

/// The columns keep their names and their order; further ones come behind them.
const COLUMNS: [&str; 41] = [
    "source",
    "date",
    "commit",
    "scenario",
    "words",
    "broker",
    "round",
    "run",
    "pace",
    "rate_per_s",
    "rate_kept",
    "elapsed_s",
    "in_per_s",
    "out_per_s",
    "megabytes_per_s",
    "messages_per_write",
    "messages_per_read",
    "cpu_us_per_message",
    "broker_cores",
    "generator_cores",
    "bound",
    "contested",
    "resident_bytes",
    "latency_count",
    "latency_p50_us",
    "latency_p90_us",
    "latency_p99_us",
    "latency_p999_us",
    "latency_max_us",
    "scenario_sent",
    "scenario_delivered",
    "scenario_lost",
    "scenario_dropped",
    "scenario_duplicated",
    "scenario_reordered",
    "scenario_corrupt",
    "scenario_astray",
    "scenario_interrupted",
    "scenario_failures",
    "scenario_warnings",
    "scenario_measures",
];

/// Every document's rows below one header.
pub(super) fn text(documents: &[Document]) -> Vec<u8> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let mut write = |fields: &[String]| writer.write_record(fields).expect("a vector takes it");
    write(&COLUMNS.map(str::to_string));
    for document in documents {
        for scenario in &document.scenarios {
            for broker in &scenario.brokers {
                for (round, outcome) in broker.rounds.iter().enumerate() {
                    for (index, run) in outcome.all_runs().iter().enumerate() {
                        let place = (round + 1, index + 1);
                        write(&row(document, scenario, broker, place, outcome, run));
                    }
                }
            }
        }
    }
    writer.into_inner().expect("a vector takes it")
}

fn row(
    document: &Document,
    scenario: &Compared,
    broker: &Rounds,
    (round, index): (usize, usize),
    outcome: &Kept,
    run: &KeptRun,
) -> [String; 41] {
    let latency = run.latency.as_ref();
    let figure = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let at = |read: fn(&super::kept::KeptLatency) -> f64| figure(latency.map(read));
    let fault = |name: &str| outcome.fault(name).to_string();
    let truth = |value: Option<bool>| value.map_or(String::new(), |value| value.to_string());
    let measures = outcome.measures.iter();
    let measures: Vec<String> = measures
        .map(|measure| format!("{}: {} {}", measure.name, measure.value, measure.unit))
        .collect();
    [
        harmless(&document.source),
        harmless(&document.head.date),
        harmless(&document.head.commit),
        harmless(&scenario.name),
        harmless(&scenario.words),
        harmless(&broker.broker),
        round.to_string(),
        index.to_string(),
        harmless(&run.pace),
        figure(run.rate),
        truth(run.kept),
        figure(run.elapsed_s),
        figure(run.in_per_s),
        figure(run.out_per_s),
        figure(run.megabytes_per_s),
        figure(run.batches.messages_per_write),
        figure(run.batches.messages_per_read),
        figure(run.cpu_us_per_message),
        figure(run.broker_cores_used),
        figure(run.generator_cores_used),
        harmless(run.bound.as_deref().unwrap_or_default()),
        run.contested.to_string(),
        figure(run.resident_size),
        figure(latency.map(|latency| latency.count as f64)),
        at(|latency| latency.p50_us),
        at(|latency| latency.p90_us),
        at(|latency| latency.p99_us),
        at(|latency| latency.p999_us),
        at(|latency| latency.max_us),
        outcome.sent.to_string(),
        outcome.delivered.to_string(),
        fault("lost"),
        fault("dropped"),
        fault("duplicated"),
        fault("reordered"),
        fault("corrupt"),
        fault("astray"),
        outcome.interrupted.to_string(),
        harmless(&outcome.failures.join("; ")),
        harmless(&outcome.warnings.join("; ")),
        harmless(&measures.join("; ")),
    ]
}

/// A text that no spreadsheet takes for a formula: with an apostrophe in front where it would be. Control characters become
/// spaces.
fn harmless(text: &str) -> String {
    let text: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let is_formula = |char| matches!(char, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
    if text.trim_start().starts_with(is_formula) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula() {
        let harmful = ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "\r\n=cmd|'/c calc'!A0", "＝1"];
        for text in harmful {
            let harmless = harmless(text);
            assert!(harmless.starts_with('\''), "{harmless}");
        }
        for text in ["", "mosquitto 2.0", "a=b", "RingMQ, \"the\" broker"] {
            assert_eq!(harmless(text), text);
        }
    }
}
