//! The one table of keys: each is a key of the TOML file and an option of the command line.

use super::duration::TimeUnit::{Microseconds, Milliseconds, Seconds};
use super::kind::{Kind, Value};
use super::{IoMode, LogFormat, LogLevel, Settings, StallAction, WaitMode};
use crate::limits::{PACKET_SIZE_CEILING, QueuePolicy, SHARD_COUNT_MAX};

/// One thing that an operator may set.
pub struct Key {
    /// As in the file; the option has dashes for underscores.
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    pub effect: Effect,
    /// One line.
    pub explanation: &'static str,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, Value),
}

/// When another value of a key takes effect. Nothing reads a configuration again yet: until then every key takes a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// When a running broker takes new limits (`Shard::set_limits`).
    Reload,
    /// At the next start: something is made of the value.
    Restart,
}

/// What a key is about: a heading in the help and in the printed configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Network,
    Workers,
    Packets,
    Sessions,
    Queues,
    Retained,
    Memory,
    Reports,
}

/// A closed set of words.
trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [&'static str];
    /// In the order of the words.
    const VALUES: &'static [Self];

    fn word(self) -> Value {
        let index = Self::VALUES.iter().position(|value| *value == self);
        Value::Word(Self::WORDS[index.expect("every value has a word")])
    }

    fn from_word(value: &Value) -> Self {
        let Value::Word(word) = value else { panic!("the kind reads words: {value:?}") };
        let index = Self::WORDS.iter().position(|known| known == word);
        Self::VALUES[index.expect("the kind reads only these words")]
    }
}

impl Choice for IoMode {
    const WORDS: &'static [&'static str] = &["auto", "uring", "epoll"];
    const VALUES: &'static [Self] = &[IoMode::Auto, IoMode::Uring, IoMode::Epoll];
}

impl Choice for WaitMode {
    const WORDS: &'static [&'static str] = &["sleep", "spin", "adaptive"];
    const VALUES: &'static [Self] = &[WaitMode::Sleep, WaitMode::Spin, WaitMode::Adaptive];
}

impl Choice for StallAction {
    const WORDS: &'static [&'static str] = &["end", "continue"];
    const VALUES: &'static [Self] = &[StallAction::End, StallAction::Continue];
}

impl Choice for QueuePolicy {
    const WORDS: &'static [&'static str] = &["drop-newest", "drop-oldest"];
    const VALUES: &'static [Self] = &[QueuePolicy::DropNewest, QueuePolicy::DropOldest];
}

impl Choice for LogLevel {
    const WORDS: &'static [&'static str] = &["error", "warn", "info", "debug", "trace"];
    const VALUES: &'static [Self] =
        &[LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
}

impl Choice for LogFormat {
    const WORDS: &'static [&'static str] = &["human", "json"];
    const VALUES: &'static [Self] = &[LogFormat::Human, LogFormat::Json];
}

impl Group {
    pub const ALL: [Group; 8] = [
        Group::Network,
        Group::Workers,
        Group::Packets,
        Group::Sessions,
        Group::Queues,
        Group::Retained,
        Group::Memory,
        Group::Reports,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Group::Network => "Network",
            Group::Workers => "Workers",
            Group::Packets => "Packets and topics",
            Group::Sessions => "Sessions",
            Group::Queues => "Queues",
            Group::Retained => "Retained messages",
            Group::Memory => "Memory of each shard, and disk",
            Group::Reports => "Logs and reports",
        }
    }
}

impl Key {
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    pub fn get(&self, settings: &Settings) -> Value {
        (self.get)(settings)
    }

    /// `value` is of this key's kind and within its bounds.
    pub fn set(&self, settings: &mut Settings, value: Value) {
        (self.set)(settings, value);
    }

    /// The option of the command line, without its dashes in front.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    let Value::Number(number) = value else { panic!("the kind reads numbers: {value:?}") };
    T::try_from(*number).ok().expect("the kind's bounds fit the field")
}

fn flag(value: &Value) -> bool {
    let Value::Flag(flag) = value else { panic!("the kind reads flags: {value:?}") };
    *flag
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

/// A number: `limit!` of the shards' limits, `capacity!` of their sizes, `setting!` of the process.
macro_rules! limit {
    ($group:ident, $name:ident, $kind:expr, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: $kind,
            effect: Effect::Reload,
            explanation: $explanation,
            get: |settings| Value::Number(settings.limits.$name as u64),
            set: |settings, value| settings.limits.$name = number(&value),
        }
    };
}

macro_rules! limit_flag {
    ($group:ident, $name:ident, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: Kind::Flag,
            effect: Effect::Reload,
            explanation: $explanation,
            get: |settings| Value::Flag(settings.limits.$name),
            set: |settings, value| settings.limits.$name = flag(&value),
        }
    };
}

macro_rules! capacity {
    ($group:ident, $name:ident, $kind:expr, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: $kind,
            effect: Effect::Restart,
            explanation: $explanation,
            get: |settings| Value::Number(settings.sizes.$name as u64),
            set: |settings, value| settings.sizes.$name = number(&value),
        }
    };
}

macro_rules! setting {
    ($group:ident, $name:ident, $kind:expr, $explanation:expr) => {
        Key {
            name: stringify!($name),
            group: Group::$group,
            kind: $kind,
            effect: Effect::Restart,
            explanation: $explanation,
            get: |settings| Value::Number(settings.$name as u64),
            set: |settings, value| settings.$name = number(&value),
        }
    };
}

mod table;

pub use table::KEYS;

#[cfg(test)]
mod tests {
    use super::super::kind::Written;
    use super::*;
    use crate::limits::Networks;

    /// A value that the key takes and that is not its default.
    fn other_value(key: &Key) -> Value {
        let default = key.get(&Settings::default());
        let candidates = match key.kind {
            Kind::Count { min, max } | Kind::Size { min, max } | Kind::Time { min, max, .. } => {
                [min, max].map(Value::Number).to_vec()
            }
            Kind::PowerOfTwo { min, max } => [min, max].map(Value::Number).to_vec(),
            Kind::Flag => vec![Value::Flag(false), Value::Flag(true)],
            Kind::Choice(words) => words.iter().map(|word| Value::Word(word)).collect(),
            Kind::Cores => vec![Value::Cores(vec![0, 1, 2, 6])],
            Kind::Addresses => vec![Value::Addresses(vec!["[::1]:5".parse().unwrap()])],
            Kind::Networks => vec![Value::Networks(Networks::of(Vec::new()))],
            Kind::Text { .. } => vec![Value::Text("a".to_owned())],
            Kind::Texts { .. } => vec![Value::Texts(vec!["a".to_owned()])],
        };
        candidates.into_iter().find(|value| *value != default).unwrap()
    }

    fn fields_of<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
        let body = source.split(&format!("pub struct {name} {{")).nth(1).unwrap();
        let lines = body.split("\n}").next().unwrap().lines();
        let fields = lines.filter_map(|line| line.trim().strip_prefix("pub "));
        fields.map(|field| field.split(':').next().unwrap()).collect()
    }

    #[test]
    fn every_limit_and_every_size_has_a_key_that_says_when_it_takes_effect() {
        let limits = fields_of(include_str!("../limits.rs"), "Limits");
        let sizes = fields_of(include_str!("../limits/sizes.rs"), "Sizes");
        assert!(limits.len() > 30 && sizes.len() > 3, "{limits:?} {sizes:?}");
        // The process counts connections, too, and has raised its limit of open files for them.
        for name in limits.iter().filter(|name| **name != "connections_max") {
            let key = Key::find(name).unwrap_or_else(|| panic!("no key sets Limits::{name}"));
            assert_eq!(key.effect, Effect::Reload, "{name}");
        }
        for key in KEYS.iter().filter(|key| !limits.contains(&key.name)) {
            assert_eq!(key.effect, Effect::Restart, "{} is no limit", key.name);
        }
        for name in sizes {
            assert!(Key::find(name).is_some(), "no key sets Sizes::{name}");
        }
    }

    #[test]
    fn a_key_sets_its_own_field_and_no_other() {
        for key in KEYS {
            let mut settings = Settings::default();
            let value = other_value(key);
            key.set(&mut settings, value.clone());
            assert_eq!(key.get(&settings), value, "{}", key.name);
            for other in KEYS.iter().filter(|other| other.name != key.name) {
                let default = other.get(&Settings::default());
                assert_eq!(other.get(&settings), default, "{} sets {}", key.name, other.name);
            }
        }
    }

    #[test]
    fn a_number_is_taken_up_to_its_bounds_and_not_beyond() {
        let mut refused_count = 0;
        for key in KEYS {
            let (Kind::Count { min, max }
            | Kind::PowerOfTwo { min, max }
            | Kind::Size { min, max }
            | Kind::Time { min, max, .. }) = key.kind
            else {
                continue;
            };
            let mut settings = Settings::default();
            for bound in [min, max] {
                let value = key.kind.read(&Written::Number(bound as i64)).unwrap();
                key.set(&mut settings, value);
                assert_eq!(key.get(&settings), Value::Number(bound), "{}", key.name);
            }
            for beyond in [min as i64 - 1, max as i64 + 1] {
                let refusal = key.kind.read(&Written::Number(beyond)).unwrap_err();
                assert_eq!(refusal, format!("{beyond} is out of bounds"), "{}", key.name);
                refused_count += 1;
            }
        }
        assert!(refused_count > 60);
    }

    #[test]
    fn the_default_of_each_key_is_within_its_bounds_and_reads_back() {
        for key in KEYS {
            let default = key.get(&Settings::default());
            let text = key.kind.text(&default);
            assert_eq!(key.kind.read(&Written::Argument(&text)), Ok(default), "{}", key.name);
        }
    }

    #[test]
    fn whatever_a_key_reads_it_can_be_set_to() {
        use Written::{Argument, Flag, List, Number, Other, Text};
        let texts =
            ["", "0", "-1", "1", "64", "7d", "64KiB", "true", "all", "spin", "[::]:1", "\u{e9}"];
        let mut written = vec![Flag(true), List(vec![]), List(vec![Number(1)]), Other("float")];
        written.extend([i64::MIN, -1, 0, 1, 64, 4096, i64::MAX].map(Number));
        written.extend(texts.iter().flat_map(|text| [Argument(text), Text(text)]));
        let mut taken_count = 0;
        for key in KEYS {
            for value in written.iter().filter_map(|one| key.kind.read(one).ok()) {
                let mut settings = Settings::default();
                key.set(&mut settings, value.clone());
                assert_eq!(key.get(&settings), value, "{}", key.name);
                taken_count += 1;
            }
        }
        assert!(taken_count > KEYS.len(), "{taken_count}");
    }

    #[test]
    fn names_are_unique_and_explanations_are_one_sentence_line() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
            assert!(key.explanation.ends_with('.'), "{}", key.name);
            assert!(key.explanation.len() <= 120, "{}", key.name);
            assert!(key.name.bytes().all(|b| b.is_ascii_lowercase() || b"_03".contains(&b)));
        }
    }

    #[test]
    fn the_groups_stand_together_in_their_order() {
        let order: Vec<_> = KEYS.chunk_by(|a, b| a.group == b.group).map(|k| k[0].group).collect();
        assert_eq!(order, Group::ALL);
    }
}
