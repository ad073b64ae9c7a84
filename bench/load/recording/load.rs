//! A replay as a scenario: what its file leaves open follows from the recording.

use std::path::Path;
use std::sync::Arc;

use ringmq::topic;

use super::format::TEXT_SIZE_MAX;
use super::summary::Summary;
use crate::options::Options;
use crate::scenario::{Kind, Scenario};

/// Connections that publish, unless told otherwise: who published is not in a recording.
const PUBLISHERS: usize = 10;

/// What each publisher and subscriber needs to know of each stream.
const CELL_COUNT_MAX: usize = 16_000_000;

/// What a scenario's file does not say of a replay is left to the recording: it is no default of other scenarios.
pub(crate) fn set_defaults(table: &toml::Table, scenario: &mut Scenario) {
    if scenario.kind != Kind::Replay {
        return;
    }
    let says = |key: &str| table.contains_key(key);
    if !says("mqtt") {
        scenario.mqtt = 0;
    }
    if !says("publishers") {
        scenario.publishers = 0;
    }
    if !says("subscribers") {
        scenario.subscribers = 0;
    }
    if !says("filters") {
        scenario.filters.clear();
    }
    scenario.flat_out &= says("flat_out");
}

/// Reads the recording of a replay, and lets it decide what nobody has.
pub(crate) fn load(options: &Options, scenario: &mut Scenario) -> Result<(), String> {
    if scenario.kind != Kind::Replay {
        return Ok(());
    }
    let asked = [
        ("--payload", options.payload.is_some()),
        ("--qos", options.qos.is_some()),
        ("--user-properties", options.user_properties.is_some()),
        ("--rate", options.rate.is_some()),
    ];
    if let Some((name, _)) = asked.iter().find(|(_, is_asked)| *is_asked) {
        return Err(format!("{name} is not for a replay: its messages are those of the recording"));
    }
    if scenario.file.is_empty() {
        return Err(
            "a replay needs file = \"...\": a recording by `ringmq-bench record`".to_string()
        );
    }
    if !(0.001..=1e6).contains(&scenario.speed) || !(1..=1_000_000).contains(&scenario.loops) {
        return Err("speed must be 0.001 to 1,000,000 and loops 1 to 1,000,000".to_string());
    }
    let summary = Summary::read(Path::new(&scenario.file))?;
    if scenario.mqtt == 0 {
        scenario.mqtt = summary.mqtt;
    }
    if scenario.publishers == 0 {
        scenario.publishers = PUBLISHERS;
    }
    scenario.publishers = scenario.publishers.min(summary.topic_count());
    if scenario.filters.is_empty() {
        scenario.filters = summary.default_filters();
    }
    for filter in &scenario.filters {
        if filter.starts_with("$share/") {
            return Err(format!("filter {filter}: a replay does not verify shared subscriptions"));
        }
        topic::parse_filter(filter, TEXT_SIZE_MAX, usize::MAX)
            .map_err(|_| format!("{filter} is no topic filter"))?;
    }
    if scenario.subscribers == 0 {
        scenario.subscribers = scenario.filters.len();
    }
    if scenario.subscribers.saturating_mul(summary.streams.len()) > CELL_COUNT_MAX
        && scenario.filters.iter().any(|filter| filter.starts_with(['#', '+']))
    {
        return Err(format!(
            "{} subscribers to {} topics are too many: use fewer --subscribers, or narrower filters",
            scenario.subscribers,
            summary.topic_count()
        ));
    }
    scenario.recording = Some(Arc::new(summary));
    Ok(())
}
