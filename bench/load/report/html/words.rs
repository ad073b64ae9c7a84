//! Sentences: what was measured, what went wrong, and what must be known of the rounds.

use ringmq::printable::{counted, one_line};

use crate::figures::grouped;
use crate::report::kept::{Compared, Document, Kept, KeptRun, Rounds};

/// A hypervisor that takes more of the time of the cores than this takes part.
const STEAL_MAX: f64 = 0.02;

/// RingMQ and its variants come first.
pub(super) fn is_ringmq(broker: &str) -> bool {
    broker.to_ascii_lowercase().starts_with("ringmq")
}

fn names(scenarios: &[Compared]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for rounds in scenarios.iter().flat_map(|scenario| &scenario.brokers) {
        if !names.contains(&rounds.broker.as_str()) {
            names.push(&rounds.broker);
        }
    }
    names
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_string(),
        [one] => (*one).to_string(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

pub(super) fn title(documents: &[Document]) -> String {
    let mut brokers: Vec<String> = Vec::new();
    for rounds in
        documents.iter().flat_map(|document| &document.scenarios).flat_map(|of| &of.brokers)
    {
        let name = one_line(&rounds.broker).into_owned();
        if !brokers.contains(&name) {
            brokers.push(name);
        }
    }
    brokers.sort_by_key(|name| !is_ringmq(name));
    let brokers: Vec<&str> = brokers.iter().map(String::as_str).collect();
    match brokers.len() {
        0..=5 => format!("MQTT benchmark: {}", listed(&brokers)),
        count => format!("MQTT benchmark: {count} brokers"),
    }
}

/// What was measured, and where: a sentence each.
pub(super) fn measured(documents: &[Document], scenarios: &[Compared]) -> Vec<String> {
    let names = names(scenarios);
    let seconds: Vec<String> = distinct(documents.iter().map(|document| {
        let head = &document.head;
        let rounds = head.rounds.filter(|rounds| *rounds > 1);
        let rounds = rounds.map_or(String::new(), |rounds| format!("{rounds} rounds of "));
        format!("{rounds}{} s a run", head.seconds)
    }));
    let mut sentences = vec![format!(
        "{} in {}, {}: each message was verified, and latency counts from when a message was due, so that a broker that \
         stands still is not spared the messages that waited for it.",
        listed(&names),
        counted(scenarios.len() as u64, "scenarios"),
        seconds.join(", ")
    )];
    sentences.extend(distinct(documents.iter().map(machine)));
    for document in documents.iter().filter(|document| !document.head.unfit.is_empty()) {
        let unfit: Vec<_> = document.head.unfit.iter().map(|text| one_line(text)).collect();
        sentences.push(format!("The machine is unfit: {}.", unfit.join("; ")));
    }
    for document in documents {
        sentences
            .extend(document.head.io_warning.as_deref().map(|text| one_line(text).into_owned()));
    }
    sentences
}

fn distinct(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for text in texts {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

/// Where a document's figures come from.
pub(super) fn machine(document: &Document) -> String {
    let head = &document.head;
    let machine = &head.machine;
    let mut parts = vec![one_line(&machine.processor).into_owned()];
    parts.push(counted(machine.core_count, "cores"));
    parts.extend(machine.memory_mib.map(|mib| format!("{:.0} GiB", mib as f64 / 1024.0)));
    parts.extend(machine.virtual_machine.then(|| "virtual machine".to_string()));
    parts.push(format!("Linux {}", one_line(&machine.kernel)));
    let list = |cores: &[u64]| cores.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let of = |cores: &[u64]| match cores {
        [] => "any core".to_string(),
        [core] => format!("core {core}"),
        cores => format!("cores {}", list(cores)),
    };
    if let Some(core) = head.core {
        parts.push(format!("brokers on core {core}"));
    } else {
        parts.push(format!("broker on {}", of(&head.broker_cores)));
        parts.push(format!("generator on {}", of(&head.generator_cores)));
    }
    parts.join(", ")
}

/// What must be known before a figure is believed, and what went wrong; the worse is first.
pub(super) fn problems(scenario: &Compared) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    for rounds in &scenario.brokers {
        found.extend(faults(scenario, rounds));
        found.extend(marks(rounds).into_iter().map(|text| (false, text)));
    }
    found.sort_by_key(|(is_bad, _)| !is_bad);
    found
}

fn faults(scenario: &Compared, rounds: &Rounds) -> Vec<(bool, String)> {
    let broker = &rounds.broker;
    let what = if scenario.counts_connections { "connections" } else { "messages" };
    let sum = |name: &str| rounds.rounds.iter().map(|outcome| outcome.fault(name)).sum::<u64>();
    let mut found = Vec::new();
    let kinds = [
        ("lost", "were lost: sent, and not delivered when everything had come to rest"),
        ("dropped", "were dropped at a limit, as the broker itself counts in $SYS"),
        ("duplicated", "came twice"),
        ("reordered", "came behind a later message of the same publisher"),
        ("corrupt", "were not, byte for byte, what was sent"),
        ("astray", "came to a subscriber that had not asked for them"),
    ];
    for (kind, words) in kinds {
        let count = sum(kind);
        if count > 0 {
            found.push((true, format!("{broker}: {} {what} {words}.", grouped(count as f64))));
        }
    }
    for outcome in &rounds.rounds {
        let said = |text: &String| format!("{broker}: {}", one_line(text));
        found.extend(outcome.failures.iter().map(|text| (true, said(text))));
        found.extend(outcome.warnings.iter().map(|text| (false, said(text))));
        if outcome.fault("lost") > 0 && outcome.dropped_as_counted.is_none() {
            let unknown = "whether a limit dropped what is lost is not known: the broker has not said so in $SYS.";
            found.push((false, format!("{broker}: {unknown}")));
        }
    }
    let texts = distinct(found.iter().map(|(_, text)| text.clone()));
    let is_bad = |text: &String| found.iter().any(|(is_bad, other)| *is_bad && other == text);
    texts.into_iter().map(|text| (is_bad(&text), text)).collect()
}

/// In how many rounds something else than the broker took part.
fn marks(rounds: &Rounds) -> Vec<String> {
    let count = rounds.rounds.len();
    let in_rounds = |holds: &dyn Fn(&Kept) -> bool| {
        let held = rounds.rounds.iter().filter(|outcome| holds(outcome)).count();
        (held > 0).then(|| {
            if count > 1 { format!(" in {held} of {count} rounds") } else { String::new() }
        })
    };
    let any_run =
        |holds: fn(&KeptRun) -> bool| move |outcome: &Kept| outcome.all_runs().iter().any(holds);
    let is_bound = |run: &KeptRun, name: &str| run.bound.as_deref() == Some(name);
    let broker = &rounds.broker;
    let mut found = Vec::new();
    if let Some(rounds) = in_rounds(&any_run(|run| run.bound.as_deref() == Some("generator"))) {
        found.push(format!(
            "{broker}: the generator was the limit{rounds}: the broker can do more than this."
        ));
    }
    let waited = |run: &KeptRun| run.pace != "rate" && run.bound.as_deref() == Some("waiting");
    if let Some(rounds) = in_rounds(&any_run(waited)) {
        found.push(format!(
            "{broker}: neither broker nor generator was busy all the time{rounds}: they waited for each other."
        ));
    }
    if let Some(rounds) = in_rounds(&any_run(|run| run.contested)) {
        found.push(format!(
            "{broker}: not quiet: other programs used the broker's or the generator's core{rounds}."
        ));
    }
    if let Some(rounds) = in_rounds(&|outcome: &Kept| outcome.steal > STEAL_MAX) {
        found.push(format!("{broker}: not quiet: the hypervisor took processor time{rounds}."));
    }
    for run in rounds.rounds.iter().flat_map(Kept::all_runs).filter(|run| run.kept == Some(false)) {
        let sent = run.in_per_s.map_or("-".to_string(), grouped);
        let why = if is_bound(&run, "broker") {
            "the broker was the limit"
        } else {
            "it did not keep the rate"
        };
        found.push(format!("{broker} at {}: {sent} were sent a second: {why}.", run.label()));
    }
    if rounds.rounds.iter().any(|outcome| outcome.interrupted) {
        found.push(format!("{broker}: interrupted: the figures are of the time until then."));
    }
    found
}
