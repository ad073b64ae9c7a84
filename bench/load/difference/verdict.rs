//! The verdict on two sets: which figures got worse or better, and which difference would have been seen.

use std::collections::BTreeSet;

use ringmq::printable::counted;
use serde::Serialize;

use super::sets::{Measure, Set, check_settings};
use super::statistics::{self, Found, Row};
use crate::figures::{grouped, median, processor_time};
use crate::screen::{BAD, GOOD, PLAIN, STRONG, fitted};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Same,
    Better,
    Worse,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub scenario: String,
    pub measure: &'static str,
    pub unit: &'static str,
    pub before: f64,
    pub after: f64,
    /// The ratio of after to before.
    pub ratio: f64,
    /// How often a difference this large comes by chance in any figure.
    pub chance: f64,
    /// A difference of this size or more would have been found most of the time, as a share.
    pub visible_from: f64,
    pub verdict: Verdict,
}

#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub before: String,
    pub after: String,
    pub rounds: [usize; 2],
    pub at_least: f64,
    pub error: f64,
    pub figures: Vec<Figure>,
    /// Errors that occurred after and not before: scenario and words.
    pub new_faults: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

impl Comparison {
    /// `Err`: no verdict is possible.
    pub(super) fn new(
        before: &Set,
        after: &Set,
        at_least: f64,
        error: f64,
    ) -> Result<Comparison, String> {
        check_settings(before, after)?;
        let common: Vec<&(String, Measure)> =
            before.figures.keys().filter(|key| after.figures.contains_key(*key)).collect();
        if common.is_empty() {
            return Err(format!("{} and {} have no figure in common", before.name, after.name));
        }
        let rounds = [before.round_count, after.round_count];
        // Both directions count, and so do the two ways to deal the rounds out as they are.
        let least_chance = 2.0 / statistics::ways(rounds[0], rounds[0] + rounds[1]);
        if rounds.contains(&1) || least_chance > error {
            return Err(format!(
                "{} and {} rounds are too few to tell a difference from noise: take 4 or more of each, in turns",
                rounds[0], rounds[1]
            ));
        }
        let rows: Vec<Row> = common.iter().map(|key| row(before, after, key)).collect();
        let (found, critical) = statistics::test(&rows, rounds[0], rounds[0] + rounds[1], error);
        let figures = common.iter().zip(found).map(|(key, found)| {
            let [one, other] = [before, after].map(|set| mean(&set.figures[*key]));
            judge(key, [one, other], &found, critical, at_least, error)
        });
        Ok(Comparison {
            before: before.name.clone(),
            after: after.name.clone(),
            rounds,
            at_least,
            error,
            figures: figures.collect(),
            new_faults: after.faults.difference(&before.faults).cloned().collect(),
            warnings: warnings(before, after),
        })
    }

    pub(super) fn is_worse(&self) -> bool {
        let worse = self.figures.iter().any(|figure| figure.verdict == Verdict::Worse);
        worse || !self.new_faults.is_empty()
    }

    /// No line is wider than `width`.
    pub(super) fn words(&self, all: bool, width: usize) -> String {
        let mut text = String::new();
        let mut say = |style: anstyle::Style, sentence: &str| {
            for line in fitted(sentence, width, 2) {
                text += &format!("{style}{line}{style:#}\n");
            }
        };
        let [one, other] = self.rounds.map(|count| counted(count as u64, "rounds"));
        say(STRONG, &format!("{} ({one}) to {} ({other})", self.before, self.after));
        self.warnings.iter().for_each(|warning| say(PLAIN, warning));
        for (scenario, words) in &self.new_faults {
            say(BAD, &format!("worse   {scenario}: {words}, and not before"));
        }
        let shown = self.figures.iter().filter(|figure| all || figure.verdict != Verdict::Same);
        for figure in shown {
            let (style, word) = match figure.verdict {
                Verdict::Same => (PLAIN, "same"),
                Verdict::Better => (GOOD, "better"),
                Verdict::Worse => (BAD, "worse"),
            };
            say(style, &format!("{word:<7} {}", figure.words()));
        }
        let count =
            |verdict| self.figures.iter().filter(|figure| figure.verdict == verdict).count();
        let visible: Vec<f64> = self.figures.iter().map(|figure| figure.visible_from).collect();
        let middle = median(&visible).unwrap_or(0.0);
        say(
            PLAIN,
            &format!(
                "{} worse, {} better, {} without a difference of {:.0} % or more. With this noise one of {:.1} % \
                 would have been seen in half of the figures. The chance that anything here is found by mistake is \
                 {:.0} %.",
                count(Verdict::Worse),
                count(Verdict::Better),
                count(Verdict::Same),
                self.at_least * 100.0,
                middle * 100.0,
                self.error * 100.0
            ),
        );
        text
    }
}

impl Figure {
    fn words(&self) -> String {
        let number = |value: f64| match self.unit {
            "us" => processor_time(value),
            _ => grouped(value),
        };
        format!(
            "{}, {}: {} {unit} to {} {unit}, {:+.1} %",
            self.scenario,
            self.measure,
            number(self.before),
            number(self.after),
            (self.ratio - 1.0) * 100.0,
            unit = self.unit,
        )
    }
}

/// At the decisive multiple of the standard error a difference is still missed half of the time. With this much more it
/// is found in 95 of 100 cases, if noise spreads as errors do.
const POWER: f64 = 1.645;

fn judge(
    (scenario, measure): &(String, Measure),
    [before, after]: [f64; 2],
    found: &Found,
    critical: f64,
    at_least: f64,
    error: f64,
) -> Figure {
    let ratio = found.ratio_ln.exp();
    let is_found = found.chance <= error && found.statistic.abs() >= critical;
    let is_large = found.ratio_ln.abs() >= at_least.ln_1p();
    let verdict = match is_found && is_large {
        false => Verdict::Same,
        true if (ratio > 1.0) == measure.more_is_better => Verdict::Better,
        true => Verdict::Worse,
    };
    let visible_from = ((critical + POWER) * found.standard_error).exp_m1().max(at_least);
    Figure {
        scenario: scenario.clone(),
        measure: measure.words,
        unit: measure.unit,
        before,
        after,
        ratio,
        chance: found.chance,
        visible_from,
        verdict,
    }
}

fn row(before: &Set, after: &Set, key: &(String, Measure)) -> Row {
    let columns = |set: &Set| {
        let values = &set.figures[key];
        let ln = |round: usize| values.get(round).copied().flatten().map_or(f64::NAN, f64::ln);
        (0..set.round_count).map(ln).collect::<Vec<f64>>()
    };
    Row([columns(before), columns(after)].concat())
}

/// The geometric mean, because the values are ratios.
fn mean(values: &[Option<f64>]) -> f64 {
    let there: Vec<f64> = values.iter().flatten().map(|value| value.ln()).collect();
    (there.iter().sum::<f64>() / there.len().max(1) as f64).exp()
}

fn warnings(before: &Set, after: &Set) -> Vec<String> {
    let mut warnings = Vec::new();
    let all = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> {
        one.union(other).cloned().collect()
    };
    let machines = all(&before.machines, &after.machines);
    if machines.len() > 1 {
        warnings.push(format!("measured on different machines: {}", machines.join(" and ")));
    }
    let seconds = all(&before.seconds, &after.seconds);
    if seconds.len() > 1 {
        warnings.push(format!("the runs had different lengths: {} s", seconds.join(" and ")));
    }
    // Dates are written so that their order is the order of their text.
    let is_behind = |one: &Set, other: &Set| {
        one.dates.last().zip(other.dates.first()).is_some_and(|(last, first)| last < first)
    };
    if is_behind(before, after) || is_behind(after, before) {
        warnings.push(
            "the sets were measured one after the other: what the machine did in between is in each difference; \
             take rounds in turns (scripts/compare does)"
                .to_string(),
        );
    }
    let only = |one: &Set, other: &Set| -> Vec<String> {
        one.settings.keys().filter(|name| !other.settings.contains_key(*name)).cloned().collect()
    };
    for (missing, set) in [(only(before, after), before), (only(after, before), after)] {
        if !missing.is_empty() {
            warnings.push(format!("only in {}: {}", set.name, missing.join(", ")));
        }
    }
    warnings
}
