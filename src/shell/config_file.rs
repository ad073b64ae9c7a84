//! The TOML file: read with the line of everything that is wrong with it, and printed as it holds.

mod foreign;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{self, Path};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::bridge::check as check_bridge;
use crate::config::keys::{Effect, Group, KEYS, Key};
use crate::config::kind::{Kind, Value, Written, cores_text};
use crate::config::table::{Entry, Form, Node, Refusal, did_you_mean};
use crate::config::{self, Settings};
use crate::plugins::check as check_plugin;
use crate::printable::one_line;

/// The tables that say which plugins run.
const PLUGIN: &str = "plugin";
/// The tables that say what goes to other brokers, and comes from them.
const BRIDGE: &str = "bridge";

/// The settings as written, and where each came from.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    settings: Settings,
    origins: HashMap<&'static str, Origin>,
}

/// Where the value of a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// `FILE:LINE`.
    File(String, usize),
    /// The option, with its dashes.
    CommandLine(String),
}

impl Configuration {
    pub fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        key.set(&mut self.settings, value);
        self.origins.insert(key.name, origin);
    }

    /// The settings as they hold on this machine: `allowed_cores` stand for all, and default budgets fit into the bytes
    /// of memory that may be used, if they are known.
    pub fn resolve(&self, allowed_cores: Vec<usize>, memory_size: Option<u64>) -> Settings {
        let mut settings = self.settings.clone();
        if settings.cores.is_empty() {
            settings.cores = allowed_cores;
        }
        if let (0, Some(size)) = (settings.memory_max, memory_size) {
            // In whole mebibytes, to read well.
            settings.memory_max = ((size / 4 * 3) >> 20) << 20;
        }
        if settings.memory_max > 0 {
            settings.fit_budgets(settings.memory_max);
        }
        settings
    }

    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }

    /// Sets what the file sets, or says all that is wrong with it, a sentence each.
    pub fn read_file(&mut self, path: &Path) -> Result<(), Vec<String>> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|error| {
            vec![format!("{name}: {}: name an existing file with --config", plain(&error))]
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|b| *b == b'\n');
            vec![format!("{name}:{}: this is not UTF-8, as TOML must be", line.count())]
        })?;
        self.read_text(&text, &name)
    }

    /// As `read_file`, with the file's `name` for messages.
    pub fn read_text(&mut self, text: &str, name: &str) -> Result<(), Vec<String>> {
        let table = DeTable::parse(text).map_err(|error| explain(text, name, &error))?;
        let mut wrong = Vec::new();
        for (written_name, value) in table.get_ref() {
            let line = line_of(text, &written_name.span());
            let node = node(text, line, value.get_ref());
            match written_name.get_ref().as_ref() {
                PLUGIN => {
                    let mut plugins = config::plugin::read(&node, name, &mut wrong);
                    // So that the printed configuration means the same wherever it is kept.
                    let file = path::absolute(name).unwrap_or_default();
                    plugins.iter_mut().for_each(|plugin| plugin.find_beside(&file));
                    wrong.extend(plugins.iter().flat_map(check_plugin));
                    self.settings.plugins = plugins;
                }
                BRIDGE => {
                    let bridges = config::bridge::read(&node, name, &mut wrong);
                    wrong.extend(bridges.iter().flat_map(check_bridge));
                    self.settings.bridges = bridges;
                }
                key_name => match read_entry(key_name, &node) {
                    Ok((key, value)) => self.set(key, value, Origin::File(name.to_owned(), line)),
                    Err(sentence) => wrong.push(Refusal { line, sentence }),
                },
            }
        }
        wrong.sort();
        if wrong.is_empty() {
            return Ok(());
        }
        let place = |refusal: Refusal| format!("{name}:{}: {}", refusal.line, refusal.sentence);
        Err(wrong.into_iter().map(place).collect())
    }

    /// The contradictions of the resolved settings, each with where its keys come from.
    pub fn contradictions(&self, resolved: &Settings) -> Vec<String> {
        let explain = |contradiction: crate::limits::Contradiction| {
            let origins: Vec<_> = contradiction
                .keys
                .iter()
                .map(|key| format!("{key}: {}", self.origin(key)))
                .collect();
            format!("{} ({})", contradiction.sentence, origins.join(", "))
        };
        resolved.contradictions().into_iter().map(explain).collect()
    }

    /// The whole configuration as TOML that loads again, each key explained, with what `resolved` makes of it here.
    pub fn print(&self, resolved: &Settings) -> String {
        let mut out = format!(
            "# The whole configuration of RingMQ {}. Load it with `ringmq --config FILE`; options of the command\n\
             # line win over it. Sizes are bytes, plain or such as \"64KiB\", \"16MiB\", \"1GiB\"; times are plain\n\
             # numbers in the key's unit or such as \"500ms\", \"10s\", \"7d\".\n",
            env!("CARGO_PKG_VERSION")
        );
        for group in Group::ALL {
            out.push_str(&format!("\n# ---- {} ----\n", group.title()));
            for key in KEYS.iter().filter(|key| key.group == group) {
                out.push('\n');
                out.push_str(&self.print_key(key, resolved));
            }
        }
        // Tables come last: what follows one belongs to it.
        out.push_str(&format!("\n# ---- Plugins ----\n\n{}", config::plugin::print_example()));
        for plugin in &self.settings.plugins {
            out.push_str(&format!("\n{}", plugin.print()));
        }
        out.push_str(&format!("\n# ---- Bridges ----\n\n{}", config::bridge::print_example()));
        for bridge in &self.settings.bridges {
            out.push_str(&format!("\n{}", bridge.print()));
        }
        out
    }

    fn print_key(&self, key: &Key, resolved: &Settings) -> String {
        let default = key.get(&Settings::default());
        let mut default_text = key.kind.toml(&default);
        if let Kind::Time { .. } = key.kind {
            default_text = format!("{default_text} ({})", key.kind.text(&default));
        }
        let value = key.get(&self.settings);
        let origin = match self.origin(key.name) {
            Origin::Default => String::new(),
            origin => format!(" Set by {origin}."),
        };
        let here = match (key.name, &value) {
            ("cores", Value::Cores(cores)) if cores.is_empty() => {
                format!(" Here: {}.", cores_text(&resolved.cores))
            }
            ("shards", Value::Number(0)) => format!(" Here: {}.", resolved.shard_count()),
            _ if key.get(resolved) != value => {
                format!(" Here: {}.", key.kind.toml(&key.get(resolved)))
            }
            _ => String::new(),
        };
        let effect = match key.effect {
            Effect::Reload => "It takes a restart, until there is a reload.",
            Effect::Restart => "It takes a restart.",
        };
        format!(
            "# {}\n# Default: {default_text}. Allowed: {}. {effect}{origin}{here}\n{} = {}\n",
            key.explanation,
            key.kind.allowed(),
            key.name,
            key.kind.toml(&value)
        )
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::File(name, line) => write!(out, "{}:{line}", one_line(name)),
            Origin::CommandLine(option) => out.write_str(option),
        }
    }
}

/// Why a text is not TOML, and what it may be.
fn explain(text: &str, name: &str, error: &toml::de::Error) -> Vec<String> {
    if let Some(found) = foreign::look(text) {
        return found.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")).collect();
    }
    let line = line_of(text, &error.span().unwrap_or(0..0));
    let remedy = text.lines().nth(line - 1).and_then(foreign::remedy);
    let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
    vec![format!("{name}:{line}: this is not TOML: {}{remedy}", error.message().trim())]
}

/// The key and its value, or the sentence that refuses the entry.
fn read_entry(name: &str, node: &Node) -> Result<(&'static Key, Value), String> {
    let Some(key) = Key::find(name) else {
        return Err(refuse_name(name, matches!(node.form, Form::Table(_))));
    };
    match key.kind.read(&node.written()) {
        Ok(value) => Ok((key, value)),
        Err(what) => Err(format!("key '{name}': {what}; allowed: {}", key.kind.allowed())),
    }
}

fn refuse_name(name: &str, is_table: bool) -> String {
    if is_table {
        return format!(
            "key '{name}': there is no such section; allowed: keys without a section, as `ringmq config` prints them"
        );
    }
    let names = KEYS.iter().map(|key| key.name).chain([PLUGIN, BRIDGE]);
    let meant = did_you_mean(name, names);
    format!(
        "key '{name}': there is no such key{meant}; allowed: the keys that `ringmq config` prints"
    )
}

/// A value of the file that stands at `line` in its text.
fn node<'a>(text: &str, line: usize, value: &'a DeValue) -> Node<'a> {
    let form = match value {
        DeValue::String(text) => Form::Plain(Written::Text(text)),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            let beyond = |_| Written::Beyond(integer.to_string());
            Form::Plain(number.map_or_else(beyond, Written::Number))
        }
        DeValue::Boolean(flag) => Form::Plain(Written::Flag(*flag)),
        DeValue::Float(_) => Form::Plain(Written::Other("float")),
        DeValue::Datetime(_) => Form::Plain(Written::Other("date")),
        DeValue::Array(list) => {
            let element =
                |one: &'a Spanned<DeValue>| node(text, line_of(text, &one.span()), one.get_ref());
            Form::List(list.iter().map(element).collect())
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table
                .iter()
                .map(|(name, value)| {
                    let line = line_of(text, &name.span());
                    Entry { name: name.get_ref(), line, node: node(text, line, value.get_ref()) }
                })
                .collect();
            // As in the file.
            entries.sort_by_key(|entry| entry.line);
            Form::Table(entries)
        }
    };
    Node { line, form }
}

/// Counted from 1.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// An I/O error without its number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((what, _)) => what.to_lowercase(),
        None => text,
    }
}
