//! What the broker takes and keeps, and whether a scenario is within it.

use std::collections::BTreeMap;

use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::Written;
use ringmq::limits::Limits;

use crate::broker::Found;
use crate::options::{Options, Subject};
use crate::plan::{NO_CELL, Plan};
use crate::scenario::{Kind, Scenario};
use crate::{message, stalled};

/// The settings of the bench's own broker: what a scenario wants of it, and what the command line wants instead, by option.
pub(crate) fn wanted(
    options: &Options,
    scenario: &Scenario,
) -> Result<BTreeMap<String, String>, String> {
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
pub(crate) fn settings(options: &Options, scenario: &Scenario) -> Result<Settings, String> {
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
pub(crate) fn check_packet_size(
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
        Some(own) if own.sizes.arena_size < 4 * size => {
            let arena_size = (4 * size).next_power_of_two();
            format!(", or --set packet-size-max={size} --set arena-size={arena_size}")
        }
        Some(_) => format!(", or --set packet-size-max={size}"),
        None => String::new(),
    };
    let remedy = match scenario.kind {
        Kind::Replay => "leave those messages out of the recording",
        _ => "use a smaller --payload",
    };
    Err(format!(
        "scenario {}: its largest packet has {size} bytes, and the broker takes {limit} at most{}: \
         {remedy}{way_out}",
        scenario.name,
        if way_out.is_empty() { "" } else { " (packet_size_max)" },
    ))
}

/// Of the largest publish, fixed header included; `None`: the scenario publishes nothing.
pub(crate) fn packet_size(scenario: &Scenario) -> Option<usize> {
    let packet = |scenario: &Scenario| {
        let packet_id = if scenario.qos > 0 { 2 } else { 0 };
        let topic_size = 2 + scenario.topic_of(0).len();
        let payload_size = scenario.payload_size_max();
        let body_size = topic_size + packet_id + scenario.properties().len() + payload_size;
        let mut header = vec![0];
        message::write_size(&mut header, body_size);
        header.len() + body_size
    };
    match scenario.kind {
        Kind::Traffic | Kind::ReconnectStorm | Kind::RetainedStorm => Some(packet(scenario)),
        Kind::StalledSubscriber => Some(packet(scenario).max(packet(&stalled::flow(scenario)))),
        Kind::Replay => {
            scenario.recording.as_ref().map(|recording| recording.packet_size_max(scenario.mqtt))
        }
        Kind::Idle | Kind::ConnectStorm | Kind::ConnectRate => None,
    }
}

/// What one of the broker's limits is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Subscriber,
    SharedGroup,
    /// All subscribers together: a message that waits for several counts once.
    Broker,
}

/// What a broker keeps for subscribers that are behind: what is more it drops.
struct Room {
    scope: Scope,
    most: u64,
    is_bytes: bool,
    /// Behind "the broker keeps so many": where that is said.
    source: String,
    /// The key of the bench's own broker.
    key: Option<&'static str>,
}

/// The most that may wait at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Demand {
    scope: Scope,
    messages: u64,
    packet_size: u64,
    publishers: u64,
}

/// What brokers keep for a subscriber unless told otherwise: the default of Mosquitto's max_queued_messages.
const USUAL_MESSAGES_MAX: u64 = 1000;

/// What is to be said before a scenario that may have more messages under way than the broker keeps.
pub(crate) fn warning(
    options: &Options,
    scenario: &Scenario,
    found: Option<&Found>,
) -> Result<Option<String>, String> {
    if options.subject == Subject::Relay || !is_explained(scenario) {
        return Ok(None);
    }
    let rooms = match found {
        None => own_rooms(options, scenario)?,
        Some(found) => rooms_of(found.said.version.as_deref()),
    };
    let demands = demands(scenario, found.is_none());
    let over = rooms.iter().flat_map(|room| {
        let asked = demands.iter().filter(|demand| demand.scope == room.scope);
        asked.filter_map(move |demand| {
            let unit = if room.is_bytes { demand.packet_size } else { 1 };
            let wanted = demand.messages.saturating_mul(unit);
            (wanted > room.most).then_some((wanted as f64 / room.most.max(1) as f64, room, *demand))
        })
    });
    let worst = over.max_by(|one, other| one.0.total_cmp(&other.0));
    Ok(worst.map(|(_, room, demand)| sentence(scenario, room, demand)))
}

fn sentence(scenario: &Scenario, room: &Room, demand: Demand) -> String {
    let for_whom = match room.scope {
        Scope::Subscriber => "one subscriber",
        Scope::SharedGroup => "a shared subscription",
        Scope::Broker => "all subscribers",
    };
    let unit = if room.is_bytes { demand.packet_size } else { 1 };
    let fits = room.most / unit;
    let way_out = if scenario.kind == Kind::ReconnectStorm {
        "a smaller `queued` stays within it".to_string()
    } else if scenario.kind == Kind::StalledSubscriber && demand.publishers == 0 {
        "a shorter --stall stays within it".to_string()
    } else if fits >= demand.publishers {
        format!("--window {} stays within it", fits / demand.publishers.max(1))
    } else {
        "fewer --publishers stay within it".to_string()
    };
    let raise = room.key.map_or_else(String::new, |key| {
        format!(", --set {}={} raises it", key.replace('_', "-"), demand.messages * unit)
    });
    let kept = if room.is_bytes {
        format!("{} bytes ({fits} of them)", room.most)
    } else {
        room.most.to_string()
    };
    format!(
        "scenario {}: up to {} messages may wait for {for_whom}, and the broker keeps {kept} ({}): what is more it drops. {way_out}{raise}",
        scenario.name, demand.messages, room.source
    )
}

/// What is lost in this scenario may have been dropped at a limit.
pub(crate) fn is_explained(scenario: &Scenario) -> bool {
    match scenario.kind {
        Kind::Traffic | Kind::Replay | Kind::ReconnectStorm | Kind::RetainedStorm => true,
        // Beyond the limits it judges the drops itself.
        Kind::StalledSubscriber => !scenario.beyond_limits,
        Kind::Idle | Kind::ConnectStorm | Kind::ConnectRate => false,
    }
}

fn own_rooms(options: &Options, scenario: &Scenario) -> Result<Vec<Room>, String> {
    let Limits {
        queue_messages_max,
        queue_bytes_max,
        group_messages_max,
        group_bytes_max,
        shard_stored_bytes_max,
        ..
    } = settings(options, scenario)?.limits;
    let room = |scope, most: usize, key: &'static str| Room {
        scope,
        most: most as u64,
        is_bytes: key.contains("bytes"),
        source: key.to_string(),
        key: Some(key),
    };
    Ok(vec![
        room(Scope::Subscriber, queue_messages_max, "queue_messages_max"),
        room(Scope::Subscriber, queue_bytes_max, "queue_bytes_max"),
        room(Scope::SharedGroup, group_messages_max, "group_messages_max"),
        room(Scope::SharedGroup, group_bytes_max, "group_bytes_max"),
        // The sessions may all be one shard's.
        room(Scope::Broker, shard_stored_bytes_max, "shard_stored_bytes_max"),
    ])
}

/// What a broker of which only the name is known keeps by default.
fn rooms_of(version: Option<&str>) -> Vec<Room> {
    let version = version.unwrap_or_default().to_ascii_lowercase();
    let (most, source) = if version.contains("ringmq") {
        let most = Limits::DEFAULT.queue_messages_max as u64;
        (most, "queue_messages_max, unless its configuration says otherwise")
    } else if version.contains("mosquitto") {
        (
            USUAL_MESSAGES_MAX,
            "Mosquitto's max_queued_messages, unless its configuration says otherwise",
        )
    } else {
        (USUAL_MESSAGES_MAX, "a usual default; its own is not known")
    };
    vec![Room {
        scope: Scope::Subscriber,
        most,
        is_bytes: false,
        source: source.to_string(),
        key: None,
    }]
}

/// The windows of all publishers that a subscriber, a shared subscription or the broker gets messages of. `keeps_groups`: the broker
/// keeps for a shared subscription what its members do not take yet; others hand it to the members at once.
fn demands(scenario: &Scenario, keeps_groups: bool) -> Vec<Demand> {
    let packet_size = packet_size(scenario).unwrap_or(0) as u64;
    let mut demands = Vec::new();
    if scenario.kind == Kind::StalledSubscriber {
        let messages = (scenario.stalled_rate * scenario.stall_s) as u64;
        demands.push(Demand { scope: Scope::Subscriber, messages, packet_size, publishers: 0 });
    }
    if scenario.kind == Kind::ReconnectStorm {
        let (queued, publishers) = (scenario.queued as u64, 0);
        let all = queued * scenario.subscribers as u64;
        for (scope, messages) in [(Scope::Subscriber, queued), (Scope::Broker, all)] {
            demands.push(Demand { scope, messages, packet_size, publishers });
        }
        return demands;
    }
    // At a fixed rate the window is not what is under way; retained messages are fetched as they go out; what one of a
    // replay holds follows from the recording.
    if !scenario.flat_out || matches!(scenario.kind, Kind::RetainedStorm | Kind::Replay) {
        return demands;
    }
    let plan = Plan::new(scenario);
    let demand = |scope, publishers: u64, members: u64| {
        let messages = (publishers * scenario.window).div_ceil(members);
        Demand { scope, messages, packet_size, publishers: publishers.div_ceil(members) }
    };
    for subscriber in &plan.subscribers {
        let publishers = plan.publisher_count(|index| subscriber.cells[index] != NO_CELL);
        demands.push(match subscriber.group {
            None => demand(Scope::Subscriber, publishers, 1),
            Some(_) if keeps_groups => demand(Scope::SharedGroup, publishers, 1),
            Some((group, _)) => demand(Scope::Subscriber, publishers, plan.groups[group] as u64),
        });
    }
    let publishers = plan.publisher_count(|index| !plan.publishers[index].cells.is_empty());
    demands.push(demand(Scope::Broker, publishers, 1));
    demands.dedup();
    demands
}

/// Behind the reason why a run failed: publishes that are large may be the reason.
pub(crate) fn hint(scenario: &Scenario, reason: &str) -> String {
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
    use clap::Parser;

    use super::*;
    use crate::scenario;

    fn own(text: &str, arguments: &[&str]) -> Option<String> {
        let options = Options::parse_from(["ringmq-bench"].iter().chain(arguments));
        let scenario: Scenario = toml::from_str(text).expect(text);
        warning(&options, &scenario, None).expect("settings")
    }

    #[test]
    fn no_built_in_scenario_is_beyond_the_limits_of_its_broker() {
        for scenario in scenario::built_in() {
            assert_eq!(warning(&Options::parse_from(["ringmq-bench"]), &scenario, None), Ok(None));
        }
    }

    #[test]
    fn windows_beyond_what_the_broker_keeps_are_warned_of() {
        let many = "publishers = 200";
        let said = own(many, &[]).expect("200 x 500 for one subscriber");
        assert!(said.contains("100000 messages") && said.contains("keeps 10000"), "{said}");
        assert!(
            said.contains("--window 50 ") && said.contains("queue-messages-max=100000"),
            "{said}"
        );
        assert_eq!(
            own(many, &["--set", "queue-messages-max=100000", "--set", "queue-bytes-max=1GiB"]),
            None
        );
        // Each subscriber has one publisher.
        let pairs = "publishers = 200\nsubscribers = 200\nfilters = [\"bench/{subscriber}\"]";
        assert_eq!(own(pairs, &[]), None);
        let said = own("payload = 100000", &[]).expect("500 x 100 kB for one subscriber");
        assert!(said.contains("queue_bytes_max") && said.contains("--window 167 "), "{said}");
        let said = own(&format!("{pairs}\npayload = 20000"), &[]).expect("200 x 500 x 20 kB");
        assert!(
            said.contains("all subscribers") && said.contains("shard_stored_bytes_max"),
            "{said}"
        );
        let shared = "publishers = 200\nfilters = [\"$share/a/bench/+\"]";
        assert!(own(shared, &[]).is_some_and(|said| said.contains("group_messages_max")));
        let stalled = "kind = \"stalled-subscriber\"\nstall_s = 30.0";
        assert!(own(stalled, &[]).is_some_and(|said| said.contains("30000 messages")));
        assert_eq!(own("publishers = 200\nflat_out = false\nrate = 10.0", &[]), None);
    }

    #[test]
    fn of_other_brokers_the_defaults_are_said() {
        for (version, most, name) in [
            (Some("mosquitto version 2.0.11"), 1000, "max_queued_messages"),
            (Some("ringmq version 0.1.0"), 10_000, "queue_messages_max"),
            (None, 1000, "its own is not known"),
        ] {
            let room = &rooms_of(version)[0];
            assert!(room.most == most && room.source.contains(name), "{version:?}");
        }
    }

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
