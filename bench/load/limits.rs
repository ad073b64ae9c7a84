//! What the broker takes and keeps, and whether a scenario is within it.

use std::collections::BTreeMap;

use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::Written;

use crate::options::{Options, Subject};
use crate::scenario::{Kind, Scenario};
use crate::{message, stalled};

/// The settings of the bench's own broker: what a scenario wants of it, and what the command line wants instead, by option.
pub fn wanted(options: &Options, scenario: &Scenario) -> Result<BTreeMap<String, String>, String> {
    let plain =
        |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), ToString::to_string);
    let mut wanted: BTreeMap<String, String> =
        scenario.broker.iter().map(|(key, value)| (key.replace('_', "-"), plain(value))).collect();
    for setting in &options.set {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("--set {setting}: expected KEY=VALUE"))?;
        wanted.insert(key.replace('_', "-"), value.to_string());
    }
    Ok(wanted)
}

/// The configuration of the bench's own broker. What it refuses it says itself when it is started.
pub fn settings(options: &Options, scenario: &Scenario) -> Result<Settings, String> {
    let mut settings = Settings::default();
    for (name, text) in wanted(options, scenario)? {
        if let Some(key) = Key::find(&name.replace('-', "_"))
            && let Ok(value) = key.kind.read(&Written::Argument(&text))
        {
            key.set(&mut settings, value);
        }
    }
    Ok(settings)
}

/// Refuses a scenario whose publishes the broker would not take. `told`: the largest packet of a broker that is not the
/// bench's own, where it says so.
pub fn check_packet_size(
    options: &Options,
    scenario: &Scenario,
    told: Option<usize>,
) -> Result<(), String> {
    let own = options.broker.is_none() && options.subject == Subject::Broker;
    let own = own.then(|| settings(options, scenario)).transpose()?;
    let limit = own.as_ref().map(|own| own.limits.packet_size_max).or(told);
    let (Some(size), Some(limit)) = (packet_size(scenario), limit) else { return Ok(()) };
    if size <= limit {
        return Ok(());
    }
    let way_out = match own {
        Some(own) if own.limits.arena_size < 4 * size => {
            let arena_size = (4 * size).next_power_of_two();
            format!(", or --set packet-size-max={size} --set arena-size={arena_size}")
        }
        Some(_) => format!(", or --set packet-size-max={size}"),
        None => String::new(),
    };
    Err(format!(
        "scenario {}: its largest packet has {size} bytes, and the broker takes {limit} at most{}: \
         use a smaller --payload{way_out}",
        scenario.name,
        if way_out.is_empty() { "" } else { " (packet_size_max)" },
    ))
}

/// Of the largest publish, fixed header included; `None`: the scenario publishes nothing.
pub fn packet_size(scenario: &Scenario) -> Option<usize> {
    let packet = |scenario: &Scenario| {
        let packet_id = if scenario.qos > 0 { 2 } else { 0 };
        let topic_size = 2 + scenario.topic_of(0).len();
        let body_size = topic_size + packet_id + scenario.properties().len() + scenario.payload;
        let mut header = vec![0];
        message::write_size(&mut header, body_size);
        header.len() + body_size
    };
    match scenario.kind {
        Kind::Traffic => Some(packet(scenario)),
        Kind::StalledSubscriber => Some(packet(scenario).max(packet(&stalled::flow(scenario)))),
        Kind::Idle | Kind::ConnectStorm => None,
    }
}

/// Behind the reason why a run failed: publishes that are large may be the reason.
pub fn hint(scenario: &Scenario, reason: &str) -> String {
    /// Smaller packets are within every broker's limit.
    const LARGE: usize = 10 << 10;
    const CLOSED: [&str; 3] = ["closed a connection", "reset by peer", "Broken pipe"];
    let is_closed = CLOSED.iter().any(|words| reason.contains(words));
    match packet_size(scenario).filter(|size| is_closed && *size >= LARGE) {
        Some(size) => format!(
            "{reason}; the scenario's packets have up to {size} bytes, and a broker closes over a packet above its limit: \
             try a smaller --payload"
        ),
        None => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_packet_is_held_to_be_why_a_connection_closed() {
        let mut scenario = Scenario::default();
        let closed = "the broker closed a connection";
        assert_eq!(hint(&scenario, closed), closed);
        scenario.payload = 100_000;
        assert!(
            hint(&scenario, closed).contains("up to 100017 bytes"),
            "{}",
            hint(&scenario, closed)
        );
        assert_eq!(hint(&scenario, "nothing was delivered"), "nothing was delivered");
    }
}
