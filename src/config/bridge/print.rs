//! Bridges as TOML that reads back as the same bridges.

use super::keys::{FIELDS, RETAINS, SCALARS, kind_of};
use super::{BridgeSettings, QosRule, RuleSettings, TopicRule};
use crate::config::kind::quoted;
use crate::config::table;

const ABOUT: &str = "\
# Bridges take messages to other MQTT brokers, and bring messages from them. Any number of [[bridge]] tables (at most
# 64), behind all keys without a table. Keys of a rule in forward and subscribe: filter, to or prefix, qos_max or qos,
# retain, except, and for forward store. In to, $1 is what the first wildcard of the filter stands for, $# the last one,
# $0 the whole topic, $$ a dollar: sensors/+/temp/# to site-7/$1/t/$2.
";

/// The example of the printed configuration.
pub fn print_example() -> String {
    format!("{ABOUT}#\n{}", table::print_example("[[bridge]]", FIELDS))
}

impl BridgeSettings {
    /// The table, but for its password.
    pub fn print(&self) -> String {
        let mut out = format!("# Set by {}:{}.\n[[bridge]]\n", self.file, self.line);
        let mut say = |line: String| out.push_str(&(line + "\n"));
        say(format!("name = {}", quoted(&self.name)));
        let addresses = self.addresses.iter().map(|address| quoted(&address.to_string()));
        say(format!("addresses = [{}]", addresses.collect::<Vec<_>>().join(", ")));
        if let Some(user_name) = &self.user_name {
            say(format!("user_name = {}", quoted(user_name)));
        }
        if self.password.is_some() {
            say("# password = a password is set; it is not printed".to_owned());
        }
        for scalar in SCALARS {
            let value = kind_of(scalar.name).toml(&(scalar.get)(self));
            say(format!("{} = {value}", scalar.name));
        }
        let properties =
            [("connect", &self.connect_properties), ("message", &self.message_properties)];
        for (what, list) in properties {
            if list.is_empty() {
                continue;
            }
            say(format!("{what}_properties = ["));
            for (name, value) in list {
                say(format!("    {{ name = {}, value = {} }},", quoted(name), quoted(value)));
            }
            say("]".to_owned());
        }
        for (what, rules) in [("forward", &self.forward), ("subscribe", &self.subscribe)] {
            if rules.is_empty() {
                continue;
            }
            say(format!("{what} = ["));
            for rule in rules {
                say(format!("    {{ {} }},", print_rule(rule, what == "forward")));
            }
            say("]".to_owned());
        }
        out
    }
}

fn print_rule(rule: &RuleSettings, is_forward: bool) -> String {
    let mut parts = vec![format!("filter = {}", quoted(&rule.filter))];
    match &rule.topic {
        TopicRule::Keep => {}
        TopicRule::Prefix(prefix) => parts.push(format!("prefix = {}", quoted(prefix))),
        TopicRule::Template(to) => parts.push(format!("to = {}", quoted(to))),
    }
    match rule.qos {
        QosRule::Keep => {}
        QosRule::Max(max) => parts.push(format!("qos_max = {max}")),
        QosRule::Set(qos) => parts.push(format!("qos = {qos}")),
    }
    parts.push(format!("retain = \"{}\"", RETAINS[rule.retain as usize]));
    if !rule.except.is_empty() {
        let except: Vec<_> = rule.except.iter().map(|filter| quoted(filter)).collect();
        parts.push(format!("except = [{}]", except.join(", ")));
    }
    if is_forward {
        parts.push(format!("store = {}", rule.store));
    }
    parts.join(", ")
}
