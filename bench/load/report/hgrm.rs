//! HdrHistogram's percentile text, as its plotters read it: milliseconds.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::histogram::decoded;
use super::kept::Document;

/// The latency of one run, and a name that tells it from the others.
#[derive(Debug)]
pub(super) struct Distribution {
    pub name: String,
    pub text: String,
}

/// Steps in which the distance to 100 % is halved.
const STEPS_PER_HALF: u32 = 5;

/// Of a histogram with three digits.
const SUB_BUCKETS: u32 = 2048;

const NS_PER_MS: f64 = 1e6;

/// Every latency of which the histogram was kept.
pub(super) fn distributions(documents: &[Document]) -> Result<Vec<Distribution>, String> {
    let mut found: Vec<Distribution> = Vec::new();
    for document in documents {
        for scenario in &document.scenarios {
            for broker in &scenario.brokers {
                for (round, outcome) in broker.rounds.iter().enumerate() {
                    for run in outcome.all_runs() {
                        let Some(encoded) = run.latency.and_then(|latency| latency.histogram)
                        else {
                            continue;
                        };
                        let histogram = decoded(&encoded).map_err(|error| {
                            format!(
                                "the histogram of {} in {}: {error}",
                                scenario.name, document.source
                            )
                        })?;
                        let rate = run.rate.map_or(String::new(), |rate| format!("-{rate:.0}"));
                        let round = match broker.rounds.len() {
                            1 => String::new(),
                            _ => format!("-round{}", round + 1),
                        };
                        let name = format!("{}-{}{rate}{round}", scenario.name, broker.broker);
                        let name = free_name(&found, &file_name(&name));
                        found.push(Distribution { name, text: text(&histogram) });
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Letters, digits and what does no harm in the name of a file.
fn file_name(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    let name: String = text.chars().map(|char| if plain(char) { char } else { '_' }).collect();
    let name: String = name.trim_start_matches('.').chars().take(150).collect();
    if name.is_empty() { "latency".to_string() } else { name }
}

fn free_name(found: &[Distribution], name: &str) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    let is_free = |name: &String| found.iter().all(|other| other.name != *name);
    names.find(is_free).expect("numbers do not end")
}

/// The text of one histogram of nanoseconds.
pub(super) fn text(histogram: &Histogram<u64>) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes it");
    line(format!(
        "{:>14} {:>14} {:>12} {:>16}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    ));
    let mut below = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALF) {
        let (value, quantile) = (step.value_iterated_to(), step.quantile_iterated_to());
        below += step.count_since_last_iteration();
        let ms = value as f64 / NS_PER_MS;
        line(match quantile {
            quantile if quantile < 1.0 => {
                format!("{ms:>14.6} {quantile:>14.12} {below:>12} {:>16.2}", 1.0 / (1.0 - quantile))
            }
            quantile => format!("{ms:>14.6} {quantile:>14.12} {below:>12}"),
        });
    }
    let ms = |ns: f64| ns / NS_PER_MS;
    line(format!(
        "#[Mean    = {:>14.6}, StdDeviation   = {:>14.6}]",
        ms(histogram.mean()),
        ms(histogram.stdev())
    ));
    line(format!(
        "#[Max     = {:>14.6}, Total count    = {:>14}]",
        ms(histogram.max() as f64),
        histogram.len()
    ));
    let buckets = histogram.buckets();
    line(format!("#[Buckets = {buckets:>14}, SubBuckets     = {SUB_BUCKETS:>14}]"));
    text
}
