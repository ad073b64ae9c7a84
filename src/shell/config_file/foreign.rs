//! A file that is no configuration of RingMQ: what it looks like, and what to write instead.

use crate::printable::Quoted;

/// Keys of Mosquitto and what says the same here; an empty text: nothing does.
const MOSQUITTO: &[(&str, &str)] = &[
    ("listener", "listen = [\"0.0.0.0:1883\"]"),
    ("port", "listen = [\"0.0.0.0:1883\"]"),
    ("bind_address", "listen = [\"0.0.0.0:1883\"]"),
    ("max_connections", "connections_max"),
    ("max_keepalive", "keep_alive_max_s"),
    ("max_inflight_messages", "inflight_max"),
    ("max_queued_messages", "queue_messages_max"),
    ("max_queued_bytes", "queue_bytes_max"),
    ("max_packet_size", "packet_size_max"),
    ("message_size_limit", "packet_size_max"),
    ("max_topic_alias", "topic_alias_max"),
    ("persistent_client_expiration", "session_expiry_max_s"),
    ("queue_qos0_messages", "queue_qos0_offline"),
    ("persistence_location", "data_dir"),
    ("sys_interval", "sys_interval_ms"),
    ("log_type", "log_level"),
    ("connection", "a [[bridge]] table"),
    ("address", "addresses in a [[bridge]] table"),
    ("topic", "forward and subscribe in a [[bridge]] table"),
    ("remote_clientid", "client_id in a [[bridge]] table"),
    ("remote_username", "user_name in a [[bridge]] table"),
    ("remote_password", "password in a [[bridge]] table"),
    ("plugin", "a [[plugin]] table"),
    ("auth_plugin", "a [[plugin]] table"),
    ("allow_anonymous", ""),
    ("password_file", ""),
    ("acl_file", ""),
    ("per_listener_settings", ""),
    ("cafile", ""),
    ("capath", ""),
    ("certfile", ""),
    ("keyfile", ""),
    ("bridge_cafile", ""),
    ("protocol", ""),
    ("socket_domain", ""),
    ("persistence", ""),
    ("autosave_interval", ""),
    ("include_dir", ""),
    ("pid_file", ""),
    ("user", ""),
    ("log_dest", ""),
    ("log_timestamp", ""),
    ("connection_messages", ""),
];

/// What is wrong, with the line, if the text is of a kind that people have lying about.
pub(super) fn look(text: &str) -> Option<Vec<(usize, String)>> {
    look_for_mosquitto(text).or_else(|| {
        let (line, kind) = look_for_others(text)?;
        Some(vec![(line, looks_like(kind))])
    })
}

fn looks_like(kind: &str) -> String {
    format!(
        "this looks like {kind}, and RingMQ reads TOML: `ringmq config` prints a whole file to start from"
    )
}

/// Lines with something on them, counted from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn look_for_mosquitto(text: &str) -> Option<Vec<(usize, String)>> {
    let mut found = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for (number, line) in lines(text) {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let known = MOSQUITTO.iter().find(|(name, _)| *name == key);
        let Some((key, here)) = known.filter(|_| !value.trim_start().starts_with('=')) else {
            continue;
        };
        if found.is_empty() {
            found.push((number, looks_like("a configuration of Mosquitto")));
        }
        if told.contains(key) {
            continue;
        }
        told.push(key);
        let place = Quoted(key);
        found.push(match *here {
            "" => (number, format!("{place} has no counterpart yet")),
            here => (number, format!("{place} is here: {here}")),
        });
    }
    (!found.is_empty()).then_some(found)
}

fn look_for_others(text: &str) -> Option<(usize, &'static str)> {
    let (number, first) = lines(text).next()?;
    if first.starts_with('<') {
        return Some((number, "XML"));
    }
    if first.starts_with('{') {
        return Some((number, "JSON"));
    }
    let is_name = |name: &str| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        !name.is_empty() && name.bytes().all(is_of_name)
    };
    lines(text).find_map(|(number, line)| {
        if line.strip_suffix('{').is_some_and(|name| is_name(name.trim_end())) {
            return Some((number, "HOCON, as EMQX and NanoMQ read it"));
        }
        let (name, value) = line.split_once(':')?;
        let is_yaml = is_name(name) && (value.is_empty() || value.starts_with(' '));
        is_yaml.then_some((number, "YAML"))
    })
}

/// What to do about a line that is not TOML, if it can be told: most often quotes are missing.
pub(super) fn remedy(line: &str) -> Option<String> {
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.split('#').next()?.trim());
    let (opening, inner) = match value.strip_prefix('[') {
        Some(rest) => ("[", rest.strip_suffix(']')?.trim()),
        None => ("", value),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/*$".contains(&byte);
    let is_number = inner.replace('_', "").parse::<f64>().is_ok();
    if inner.is_empty() || is_number || !inner.bytes().all(is_plain) {
        return None;
    }
    let closing = if opening.is_empty() { "" } else { "]" };
    Some(format!("a text stands in quotes: {name} = {opening}\"{inner}\"{closing}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Key;

    #[test]
    fn a_file_of_another_program_is_recognised() {
        for (text, kind, line) in [
            ("# mine\n\nlistener 1883\n", "Mosquitto", 3),
            ("per_listener_settings true", "Mosquitto", 1),
            ("listeners:\n  tcp: 1883\n", "YAML", 1),
            ("{ \"listen\": 1883 }", "JSON", 1),
            ("<?xml version=\"1.0\"?>\n<hivemq>", "XML", 1),
            ("node.name = x\nlisteners.tcp.default {\n", "HOCON", 2),
        ] {
            let found = look(text).unwrap_or_else(|| panic!("{text}"));
            assert!(found[0].1.contains(kind) && found[0].0 == line, "{text}: {found:?}");
        }
        for text in ["", "listen = 1\n", "port = 1883", "listen = [\n", "wait = \n", "shards 2"] {
            assert_eq!(look(text), None, "{text}");
        }
    }

    #[test]
    fn each_line_of_mosquittos_is_told_what_it_is_here() {
        let found = look("listener 1883\nlistener 8883\nallow_anonymous true\n").unwrap();
        let told: Vec<_> = found[1..].iter().map(|(line, what)| (*line, what.as_str())).collect();
        let listen = "'listener' is here: listen = [\"0.0.0.0:1883\"]";
        assert_eq!(told, [(1, listen), (3, "'allow_anonymous' has no counterpart yet")]);
        for (_, here) in MOSQUITTO {
            let name = here.split(' ').next().unwrap();
            let is_table = here.is_empty() || here.contains("[[");
            assert!(is_table || Key::find(name).is_some(), "there is no key {name}");
        }
    }

    #[test]
    fn a_text_without_quotes_gets_them() {
        for (line, told) in [
            ("listen = 127.0.0.1:1883", Some("listen = \"127.0.0.1:1883\"")),
            ("listen = [0.0.0.0:1883]  # all", Some("listen = [\"0.0.0.0:1883\"]")),
            ("arena_size=64MiB", Some("arena_size = \"64MiB\"")),
            ("wait = spin", Some("wait = \"spin\"")),
            ("wait = ", None),
            ("shards = 1", None),
            ("shards 1", None),
            ("a = \"b", None),
        ] {
            let told = told.map(|told| format!("a text stands in quotes: {told}"));
            assert_eq!(remedy(line), told, "{line}");
        }
    }
}
