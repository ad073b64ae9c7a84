//! The TOML file: read with the line of everything that is wrong with it, and printed as it holds.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::config::Settings;
use crate::config::keys::{Group, KEYS, Key};
use crate::config::kind::{Kind, Value, Written, cores_text};

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

    /// The settings as they hold on this machine: `allowed_cores` stand for all.
    pub fn resolve(&self, allowed_cores: Vec<usize>) -> Settings {
        let mut settings = self.settings.clone();
        if settings.cores.is_empty() {
            settings.cores = allowed_cores;
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
        let table = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, &error.span().unwrap_or(0..0));
            vec![format!("{name}:{line}: this is not TOML: {}", error.message().trim())]
        })?;
        let mut wrong = Vec::new();
        for (written_name, value) in table.get_ref() {
            let line = line_of(text, &written_name.span());
            let read = read_entry(written_name.get_ref(), value.get_ref());
            match read {
                Ok((key, value)) => self.set(key, value, Origin::File(name.to_owned(), line)),
                Err(sentence) => wrong.push((line, sentence)),
            }
        }
        wrong.sort();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(wrong.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")).collect())
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
            _ => String::new(),
        };
        format!(
            "# {}\n# Default: {default_text}. Allowed: {}.{origin}{here}\n{} = {}\n",
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
            Origin::File(name, line) => write!(out, "{name}:{line}"),
            Origin::CommandLine(option) => out.write_str(option),
        }
    }
}

/// The key and its value, or the sentence that refuses the entry.
fn read_entry(name: &str, value: &DeValue) -> Result<(&'static Key, Value), String> {
    let Some(key) = Key::find(name) else {
        return Err(refuse_name(name, matches!(value, DeValue::Table(_))));
    };
    let read = written(value).and_then(|written| key.kind.read(&written));
    read.map(|value| (key, value))
        .map_err(|what| format!("key '{name}': {what}; allowed: {}", key.kind.allowed()))
}

fn refuse_name(name: &str, is_table: bool) -> String {
    if is_table {
        return format!(
            "key '{name}': there is no such section; allowed: keys without a section, as `ringmq config` prints them"
        );
    }
    let nearest = match nearest_key(name) {
        Some(nearest) => format!("; did you mean '{nearest}'?"),
        None => String::new(),
    };
    format!(
        "key '{name}': there is no such key{nearest}; allowed: the keys that `ringmq config` prints"
    )
}

/// The key that was probably meant.
fn nearest_key(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_").to_lowercase();
    let (distance, nearest) =
        KEYS.iter().map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name)).min()?;
    (distance <= (nearest.len() / 3).max(1)).then_some(nearest)
}

fn written<'a>(value: &'a DeValue) -> Result<Written<'a>, String> {
    Ok(match value {
        DeValue::String(text) => Written::Text(text),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            Written::Number(number.map_err(|_| format!("{integer} is out of bounds"))?)
        }
        DeValue::Boolean(flag) => Written::Flag(*flag),
        DeValue::Array(list) => {
            Written::List(list.iter().map(|one| written(one.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Float(_) => Written::Other("float"),
        DeValue::Datetime(_) => Written::Other("date"),
        DeValue::Table(_) => Written::Other("table"),
    })
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
