//! The notes of the table about agents.

use anstyle::Style;

use super::{AgentReport, AgentsReport};
use crate::figures::duration;
use crate::outcome::Outcome;
use crate::screen::{PLAIN, WARNING};

/// A latency that may be wrong by more than this part of the median is not known well.
const KNOWN: f64 = 0.1;

/// An agent that starts later than this has not started together with the others.
const TOGETHER_US: f64 = 20_000.0;

/// The notes, a paragraph each.
pub(crate) fn notes(outcome: &Outcome) -> Vec<(Style, String)> {
    let Some(AgentsReport { agents, crosses, crossed, latency_uncertainty_us }) = &outcome.agents
    else {
        return Vec::new();
    };
    let name = &outcome.scenario;
    let mut notes: Vec<(Style, String)> =
        agents.iter().map(|agent| (PLAIN, format!("{name}, {}", agent_words(agent)))).collect();
    if let (Some(uncertainty_us), Some(latency)) = (latency_uncertainty_us, &outcome.latency) {
        let between = if *crossed < latency.count {
            format!(
                "{:.0} % of the latencies are between agents",
                100.0 * *crossed as f64 / latency.count as f64
            )
        } else {
            "the latencies are between agents".to_string()
        };
        let wrong =
            format!("their clocks make them wrong by ±{} at most", duration(*uncertainty_us));
        let median = duration(latency.p50_us);
        notes.push(match *uncertainty_us > KNOWN * latency.p50_us {
            true => (
                WARNING,
                format!("{name}: {between}; {wrong}: more than 10 % of the median of {median}"),
            ),
            false => (PLAIN, format!("{name}: {between}; {wrong}")),
        });
    }
    if *crosses && outcome.out_per_s > 0.0 {
        let reports = "flat out, a window between agents goes round with their reports, every 2 ms or so: a larger \
            --window shows whether that was the limit";
        notes.push((PLAIN, format!("{name}: {reports}")));
    }
    for agent in agents.iter().filter(|agent| agent.late_us > TOGETHER_US) {
        notes.push((
            WARNING,
            format!("{name}: {} began {} late", agent.name, duration(agent.late_us)),
        ));
    }
    let busy = |was_busy: fn(&AgentReport) -> bool| {
        let busy: Vec<&str> = agents
            .iter()
            .filter(|agent| was_busy(agent))
            .map(|agent| agent.name.as_str())
            .collect();
        (!busy.is_empty()).then(|| busy.join(", "))
    };
    if let Some(busy) = busy(|agent| agent.was_busy) {
        notes.push((WARNING, format!("{name}: busy all the time, flat out: {busy}")));
    }
    if let (Some(busy), Some(_)) = (busy(|agent| agent.was_busy_at_rate), outcome.bound_at_rate) {
        notes.push((WARNING, format!("{name}: busy all the time, at the fixed rate: {busy}")));
    }
    notes
}

fn agent_words(agent: &AgentReport) -> String {
    let AgentReport {
        name,
        publishers,
        subscribers,
        cores_used,
        cores_used_at_rate,
        clock,
        faults,
        ..
    } = agent;
    let cores = cores_used.or(*cores_used_at_rate);
    let cores = cores.map_or_else(String::new, |cores| format!(", {cores:.2} cores used"));
    let faults = faults.filter(|faults| faults.any());
    let faults = faults.map_or_else(String::new, |faults| format!(", FAULTS: {}", faults.words()));
    format!(
        "{name}: {publishers} publishers, {subscribers} subscribers{cores}; clock {:+.6} s, drift {:+.1} ppm, known to \
         ±{} (round trip {}){faults}",
        clock.offset_us / 1e6,
        clock.drift_ppm,
        duration(clock.uncertainty_us),
        duration(clock.round_trip_us),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Latency;
    use crate::recorder::new_histogram;

    #[test]
    fn clocks_that_are_not_known_well_are_warned_of() {
        let mut latency = new_histogram();
        latency.saturating_record_n(100_000, 50);
        let warnings = |uncertainty_us: f64| -> Vec<String> {
            let latency_uncertainty_us = Some(uncertainty_us);
            let agents =
                AgentsReport { crossed: 50, latency_uncertainty_us, ..AgentsReport::default() };
            let latency = Some(Latency::new(1000.0, &latency));
            let outcome = Outcome { agents: Some(agents), latency, ..Outcome::new("case") };
            let warned = notes(&outcome).into_iter().filter(|(style, _)| *style == WARNING);
            warned.map(|(_, note)| note).collect()
        };
        assert!(warnings(9.0).is_empty());
        let warned = warnings(11.0);
        assert_eq!(warned.len(), 1);
        assert!(warned[0].contains("more than 10 % of the median of 100us"), "{warned:?}");
    }
}
