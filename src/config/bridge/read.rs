//! Reads `[[bridge]]` tables. `bridge::check` checks their topic filters when rules are compiled.

use super::keys::{FIELDS, RETAINS, SCALARS};
use super::{
    BRIDGE_COUNT_MAX, BridgeProtocol, BridgeSettings, QosRule, RemoteAddress, RetainRule,
    RuleSettings, Secret, TopicRule,
};
use crate::config::table::{self, Form, Node, Reader, Refusal};
use crate::config::url;

/// A segment of the log holds at least so many of the largest packets, the log at least so many segments.
const PACKETS_PER_LOG_MIN: u64 = 4;
const SEGMENTS_PER_LOG_MIN: u64 = 2;

/// Reads the value of the key `bridge`; `file` is its name for messages.
pub fn read(node: &Node, file: &str, wrong: &mut Vec<Refusal>) -> Vec<BridgeSettings> {
    const ALLOWED: &str = "tables that each begin with [[bridge]]";
    let mut refuse = |line, what: &str| {
        wrong.push(Refusal { line, sentence: format!("key 'bridge': {what}; allowed: {ALLOWED}") });
    };
    let Form::List(nodes) = &node.form else {
        refuse(node.line, &format!("{} is no list of tables", node.written()));
        return Vec::new();
    };
    if nodes.len() > BRIDGE_COUNT_MAX {
        refuse(node.line, &format!("{} bridges are more than {BRIDGE_COUNT_MAX}", nodes.len()));
        return Vec::new();
    }
    let mut found: Vec<BridgeSettings> = Vec::new();
    for node in nodes {
        let Form::Table(entries) = &node.form else {
            let sentence =
                format!("key 'bridge': {} is no table; allowed: {ALLOWED}", node.written());
            wrong.push(Refusal { line: node.line, sentence });
            continue;
        };
        let place = table::place("[[bridge]]", entries);
        let mut reader = Reader::new(place, node.line, entries, FIELDS, wrong);
        let Some(mut bridge) = read_one(&mut reader) else { continue };
        bridge.file = file.to_owned();
        if found.iter().any(|other| other.name == bridge.name) {
            reader.refuse("name", "another bridge has this name");
        } else if !bridge.spool_dir.as_os_str().is_empty()
            && found.iter().any(|other| other.spool_dir == bridge.spool_dir)
        {
            reader.refuse("spool_dir", "another bridge has its logs there");
        }
        found.push(bridge);
    }
    found
}

fn read_one(reader: &mut Reader) -> Option<BridgeSettings> {
    let name = reader.text("name");
    let name = reader.require("name", name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if let Some(name) = name.as_ref().filter(|name| !name.bytes().all(is_plain)) {
        let what = format!("'{name}' has other characters than letters, digits, - and _");
        reader.refuse("name", &what);
    }
    let mut settings = BridgeSettings::new(name.as_deref().unwrap_or_default());
    settings.line = reader.line();
    for scalar in SCALARS {
        if let Some(value) = reader.value(scalar.name) {
            (scalar.set)(&mut settings, value);
        }
    }
    settings.addresses = read_addresses(reader);
    settings.user_name = reader.text("user_name");
    settings.password = reader.text("password").map(Secret);
    settings.connect_properties = read_properties(reader, "connect_properties");
    settings.message_properties = read_properties(reader, "message_properties");
    settings.forward = read_rules(reader, "forward");
    settings.subscribe = read_rules(reader, "subscribe");
    if !reader.has("forward") && !reader.has("subscribe") {
        reader.refuse("forward", "there is no rule: the bridge would do nothing");
    }
    check_together(reader, &settings);
    name.map(|_| settings)
}

/// What each key allows and all together do not.
fn check_together(reader: &mut Reader, settings: &BridgeSettings) {
    if settings.reconnect_min_ms > settings.reconnect_max_ms {
        reader.refuse_with(
            "reconnect_min_ms",
            &format!("{} is more than reconnect_max_ms", settings.reconnect_min_ms),
            &format!("at most reconnect_max_ms, {}", settings.reconnect_max_ms),
        );
    }
    if settings.memory_bytes_max < settings.packet_size_max {
        reader.refuse_with(
            "memory_bytes_max",
            &format!("{} is less than packet_size_max", settings.memory_bytes_max),
            &format!("at least packet_size_max, {}", settings.packet_size_max),
        );
    }
    let spool_min = (PACKETS_PER_LOG_MIN * settings.packet_size_max as u64)
        .max(SEGMENTS_PER_LOG_MIN * settings.spool_segment_size);
    if settings.spool_bytes_max < spool_min {
        let what = format!(
            "{} has no room for {PACKETS_PER_LOG_MIN} times packet_size_max, or {SEGMENTS_PER_LOG_MIN} times \
             spool_segment_size",
            settings.spool_bytes_max
        );
        reader.refuse_with("spool_bytes_max", &what, &format!("at least {spool_min} here"));
    }
    if settings.protocol == BridgeProtocol::V311 {
        for key in ["connect_properties", "message_properties"] {
            if reader.has(key) {
                reader.refuse_with(key, "3.1.1 has no properties", "with protocol = \"5.0\"");
            }
        }
        // [MQTT-3.1.2-22] of 3.1.1
        if settings.password.is_some() && settings.user_name.is_none() {
            let what = "3.1.1 has no password without a user name";
            reader.refuse_with("password", what, "with user_name, or with protocol = \"5.0\"");
        }
    }
}

fn read_addresses(reader: &mut Reader) -> Vec<RemoteAddress> {
    let texts = reader.texts("addresses");
    let Some(texts) = reader.require("addresses", texts) else { return Vec::new() };
    let mut addresses = Vec::new();
    for text in texts {
        match RemoteAddress::parse(&text) {
            Some(address) => addresses.push(address),
            None => {
                let mut what = format!("'{text}' is no host with a port");
                if let Err(reason) = url::split(&text) {
                    what = format!("{what}: {reason}");
                }
                let allowed = "such as \"broker.example:1883\", \"10.0.0.2\" or \"[::1]:1883\"";
                reader.refuse_with("addresses", &what, allowed);
            }
        }
    }
    addresses
}

fn read_properties(reader: &mut Reader, name: &str) -> Vec<(String, String)> {
    reader.tables(name, |reader| {
        let name = reader.text("name");
        let value = reader.text("value");
        let name = reader.require("name", name);
        let value = reader.require("value", value);
        let has_null =
            |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains('\0'));
        // [MQTT-1.5.4-2]
        for (key, text) in [("name", &name), ("value", &value)] {
            if has_null(text) {
                reader.refuse(key, "it contains U+0000");
            }
        }
        Some((name?, value?))
    })
}

fn read_rules(reader: &mut Reader, name: &str) -> Vec<RuleSettings> {
    let is_forward = name == "forward";
    reader.tables(name, |reader| {
        let filter = reader.text("filter");
        let filter = reader.require("filter", filter);
        let topic = match (reader.text("to"), reader.text("prefix")) {
            (Some(_), Some(_)) => {
                reader.refuse_with("prefix", "there is a 'to' as well", "one of the two");
                TopicRule::Keep
            }
            (Some(to), None) => TopicRule::Template(to),
            (None, Some(prefix)) => TopicRule::Prefix(prefix),
            (None, None) => TopicRule::Keep,
        };
        let qos = match (reader.number("qos"), reader.number("qos_max")) {
            (Some(_), Some(_)) => {
                reader.refuse_with("qos_max", "there is a 'qos' as well", "one of the two");
                QosRule::Keep
            }
            (Some(qos), None) => QosRule::Set(qos as u8),
            (None, Some(max)) if max < 2 => QosRule::Max(max as u8),
            (None, _) => QosRule::Keep,
        };
        let retain = match reader.word("retain") {
            Some(word) if word == RETAINS[1] => RetainRule::Set,
            Some(word) if word == RETAINS[2] => RetainRule::Clear,
            _ => RetainRule::Keep,
        };
        let except = reader.texts("except").unwrap_or_default();
        let store = is_forward && reader.flag("store").unwrap_or(true);
        let line = reader.line();
        Some(RuleSettings { filter: filter?, topic, qos, retain, except, store, line })
    })
}
