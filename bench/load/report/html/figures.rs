//! What the sections draw: figures of a broker over its rounds, and of its runs.

use crate::figures::median;
use crate::report::kept::{Kept, KeptRun, Rounds};

/// A figure of each round that has it.
pub(super) fn of_rounds(rounds: &Rounds, read: impl Fn(&Kept) -> Option<f64>) -> Vec<f64> {
    rounds.rounds.iter().filter_map(read).filter(|value| value.is_finite()).collect()
}

/// The runs of one label, a round each.
pub(super) fn runs(rounds: &Rounds, label: &str) -> Vec<KeptRun> {
    let all = rounds.rounds.iter().flat_map(Kept::all_runs);
    all.filter(|run| run.label() == label).collect()
}

/// The labels of a scenario's runs, in the order of the runs.
pub(super) fn labels(brokers: &[Rounds]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for run in brokers.iter().flat_map(|rounds| &rounds.rounds).flat_map(Kept::all_runs) {
        if !labels.contains(&run.label()) {
            labels.push(run.label());
        }
    }
    labels
}

/// The run in the middle: its p99, or its throughput, is the median's.
pub(super) fn middle_run(rounds: &Rounds, label: &str) -> Option<KeptRun> {
    let mut runs = runs(rounds, label);
    let key = |run: &KeptRun| match &run.latency {
        Some(latency) => latency.p99_us,
        None => run.out_per_s.unwrap_or(0.0),
    };
    runs.sort_by(|one, next| key(one).total_cmp(&key(next)));
    let middle = runs.len().checked_sub(1)? / 2;
    runs.into_iter().nth(middle)
}

/// The median of a figure over the rounds of a run.
pub(super) fn figure(runs: &[KeptRun], read: impl Fn(&KeptRun) -> Option<f64>) -> Option<f64> {
    median(&runs.iter().filter_map(read).collect::<Vec<_>>())
}
