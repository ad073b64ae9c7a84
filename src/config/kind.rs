//! The kinds of values that keys take: how each is read, bounded, described and written back.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::duration::{self, TimeUnit};
use super::url;
use crate::limits::networks::Shown;
use crate::limits::{Networks, Size};

/// The cores that Linux's affinity masks have room for: the highest core number, plus one.
pub const CORE_COUNT_MAX: usize = 1024;
const LISTENER_COUNT_MAX: usize = 64;
const NETWORK_COUNT_MAX: usize = 1024;
/// How no network is written on the command line.
const NO_NETWORK: &str = "none";
/// How cores are written that are every core of the process's affinity.
const ALL_CORES: &str = "all";

/// What a key is set to. Numbers are in the key's unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    Flag(bool),
    Word(&'static str),
    /// Empty: every core of the process's affinity.
    Cores(Vec<usize>),
    Addresses(Vec<SocketAddr>),
    Networks(Networks),
    Text(String),
    Texts(Vec<String>),
}

/// A value as the operator wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<'a> {
    /// On the command line, where everything is text.
    Argument(&'a str),
    /// A string of the file.
    Text(&'a str),
    Number(i64),
    Flag(bool),
    List(Vec<Written<'a>>),
    /// An integer beyond 64 bits.
    Beyond(String),
    /// Of a type that no key takes, by its name.
    Other(&'static str),
}

/// What a key takes. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Count {
        min: u64,
        max: u64,
    },
    PowerOfTwo {
        min: u64,
        max: u64,
    },
    Size {
        min: u64,
        max: u64,
    },
    Time {
        unit: TimeUnit,
        min: u64,
        max: u64,
    },
    Flag,
    Choice(&'static [&'static str]),
    Cores,
    Addresses,
    /// Addresses without a port, and ranges of them.
    Networks,
    /// Bytes of UTF-8.
    Text {
        size_min: usize,
        size_max: usize,
    },
    /// `count_max` texts of at least one byte.
    Texts {
        count_max: usize,
        size_max: usize,
    },
}

impl Kind {
    /// The value, or what is wrong with it.
    pub fn read(&self, written: &Written) -> Result<Value, String> {
        let value = self.convert(written).ok_or_else(|| self.mismatch(written))?;
        match (self, &value) {
            (
                Kind::Count { min, max }
                | Kind::PowerOfTwo { min, max }
                | Kind::Size { min, max }
                | Kind::Time { min, max, .. },
                Value::Number(number),
            ) if !(*min..=*max).contains(number) => Err(format!("{written} is out of bounds")),
            (Kind::PowerOfTwo { .. }, Value::Number(number)) if !number.is_power_of_two() => {
                Err(format!("{written} is not a power of two"))
            }
            (Kind::Addresses, Value::Addresses(list))
                if list.is_empty() || list.len() > LISTENER_COUNT_MAX =>
            {
                Err(format!("{} addresses are out of bounds", list.len()))
            }
            (Kind::Networks, Value::Networks(networks))
                if networks.list().len() > NETWORK_COUNT_MAX =>
            {
                Err(format!("{} networks are out of bounds", networks.list().len()))
            }
            (Kind::Text { size_min, size_max }, Value::Text(text))
                if !(*size_min..=*size_max).contains(&text.len()) =>
            {
                Err(format!("a text of {} bytes is out of bounds", text.len()))
            }
            (Kind::Texts { count_max, .. }, Value::Texts(list))
                if list.is_empty() || list.len() > *count_max =>
            {
                Err(format!("{} texts are out of bounds", list.len()))
            }
            (Kind::Texts { size_max, .. }, Value::Texts(list)) => {
                match list.iter().find(|text| text.is_empty() || text.len() > *size_max) {
                    Some(text) => Err(format!("a text of {} bytes is out of bounds", text.len())),
                    None => Ok(value),
                }
            }
            _ => Ok(value),
        }
    }

    /// What the key takes, for the operator: `allowed: ...`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Count { min, max } => format!("a number from {min} to {max}"),
            Kind::PowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Kind::Size { min, max } => {
                format!("bytes from {} to {}, plain or such as \"64KiB\"", Size(*min), Size(*max))
            }
            Kind::Time { unit, min, max } => {
                let example = unit.example();
                format!("{} from {min} to {max}, plain or such as \"{example}\"", unit.name())
            }
            Kind::Flag => "true or false".to_owned(),
            Kind::Choice(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                quoted.join(", ")
            }
            Kind::Cores => format!(
                "\"{ALL_CORES}\", or core numbers from 0 to {} such as \"0-3,6\"",
                CORE_COUNT_MAX - 1
            ),
            Kind::Addresses => format!(
                "1 to {LISTENER_COUNT_MAX} addresses with a port, such as \"0.0.0.0:1883\" or \
                 \"[::]:1883\", or a port alone for 127.0.0.1"
            ),
            Kind::Networks => format!(
                "at most {NETWORK_COUNT_MAX} addresses without a port, and ranges of them, such as \"192.0.2.7\" or \
                 \"10.1.0.0/16\"; [] in a file, {NO_NETWORK} on the command line: nobody"
            ),
            Kind::Text { size_min: 0, size_max } => {
                format!("a text in quotes, at most {size_max} bytes")
            }
            Kind::Text { size_min, size_max } => {
                format!("a text in quotes, {size_min} to {size_max} bytes")
            }
            Kind::Texts { count_max, size_max } => format!(
                "1 to {count_max} texts in quotes, 1 to {size_max} bytes each, such as [\"one\", \"two\"]"
            ),
        }
    }

    /// The placeholder in the help of the command line.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Kind::Count { .. } | Kind::PowerOfTwo { .. } => "N",
            Kind::Size { .. } => "SIZE",
            Kind::Time { .. } => "TIME",
            Kind::Flag => "true|false",
            Kind::Choice(_) => "WORD",
            Kind::Cores => "CORES",
            Kind::Addresses | Kind::Networks => "ADDRESS",
            Kind::Text { .. } | Kind::Texts { .. } => "TEXT",
        }
    }

    /// The value for reading: sizes and times with their units.
    pub fn text(&self, value: &Value) -> String {
        match (self, value) {
            (Kind::Size { .. }, Value::Number(number)) => Size(*number).to_string(),
            (Kind::Time { unit, .. }, Value::Number(number)) => duration::text(*number, *unit),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Flag(flag)) => flag.to_string(),
            (_, Value::Word(word)) => (*word).to_owned(),
            (_, Value::Cores(cores)) => cores_text(cores),
            (_, Value::Addresses(list)) => {
                list.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
            }
            (_, Value::Networks(networks)) if networks.list().is_empty() => NO_NETWORK.to_owned(),
            (_, Value::Networks(networks)) => {
                let shown = networks.list().iter().map(|one| Shown(one).to_string());
                shown.collect::<Vec<_>>().join(", ")
            }
            (_, Value::Text(text)) => text.clone(),
            (_, Value::Texts(list)) => list.join(", "),
        }
    }

    /// The value as TOML that reads back as the same value.
    pub fn toml(&self, value: &Value) -> String {
        match (self, value) {
            (Kind::Size { .. }, Value::Number(number)) => {
                let text = Size(*number).to_string();
                if text.ends_with('B') { format!("\"{text}\"") } else { text }
            }
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Flag(flag)) => flag.to_string(),
            (_, Value::Word(word)) => format!("\"{word}\""),
            (_, Value::Cores(cores)) => format!("\"{}\"", cores_text(cores)),
            (_, Value::Addresses(list)) => {
                let quoted: Vec<_> = list.iter().map(|address| format!("\"{address}\"")).collect();
                format!("[{}]", quoted.join(", "))
            }
            (_, Value::Networks(networks)) => {
                let quoted = networks.list().iter().map(|one| format!("\"{}\"", Shown(one)));
                format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
            }
            (_, Value::Text(text)) => quoted(text),
            (_, Value::Texts(list)) => {
                let quoted: Vec<_> = list.iter().map(|text| quoted(text)).collect();
                format!("[{}]", quoted.join(", "))
            }
        }
    }

    /// Reads what has the right form, whatever its bounds.
    fn convert(&self, written: &Written) -> Option<Value> {
        use Written::{Argument, Flag, Number, Text};
        match (self, written) {
            (
                Kind::Count { .. }
                | Kind::PowerOfTwo { .. }
                | Kind::Size { .. }
                | Kind::Time { .. },
                Number(number),
            ) => Some(Value::Number(u64::try_from(*number).ok()?)),
            (Kind::Count { .. } | Kind::PowerOfTwo { .. }, Argument(text)) => {
                Some(Value::Number(text.replace('_', "").parse().ok()?))
            }
            (Kind::Size { .. }, Argument(text) | Text(text)) => {
                Size::parse(text).map(|size| Value::Number(size.0))
            }
            (Kind::Time { unit, .. }, Argument(text) | Text(text)) => {
                duration::parse(text, *unit).map(Value::Number)
            }
            (Kind::Flag, Flag(flag)) => Some(Value::Flag(*flag)),
            (Kind::Flag, Argument(text)) => text.parse().ok().map(Value::Flag),
            (Kind::Choice(words), Argument(text) | Text(text)) => {
                words.iter().find(|word| *word == text).map(|word| Value::Word(word))
            }
            (Kind::Cores, _) => cores(written).map(Value::Cores),
            (Kind::Addresses, _) => addresses(written).map(Value::Addresses),
            (Kind::Networks, _) => {
                networks(written).map(|list| Value::Networks(Networks::of(list)))
            }
            (Kind::Text { .. }, Argument(text) | Text(text)) => {
                Some(Value::Text((*text).to_owned()))
            }
            (Kind::Texts { .. }, _) => texts(written).map(Value::Texts),
            _ => None,
        }
    }

    /// Why a value was not taken at all: its type, or its text.
    fn mismatch(&self, written: &Written) -> String {
        match (self, written) {
            (Kind::Count { .. } | Kind::PowerOfTwo { .. }, Written::Text(_)) => {
                format!("{written} is a text in quotes, not a number")
            }
            (Kind::Flag, Written::Text(_)) => format!("{written} is a text in quotes"),
            (_, Written::Number(number)) if *number < 0 => format!("{number} is out of bounds"),
            (_, Written::Beyond(_)) => format!("{written} is out of bounds"),
            (Kind::Time { unit, .. }, Written::Argument(_) | Written::Text(_)) => {
                format!("{written} is no whole number of {}", unit.name())
            }
            (Kind::Size { .. }, Written::Argument(text) | Written::Text(text)) => {
                match Size::meant(text) {
                    Some(meant) => format!("{written} is no size; did you mean \"{meant}\"?"),
                    None => format!("{written} is no size"),
                }
            }
            (Kind::Addresses, Written::Argument(text) | Written::Text(text)) => {
                not_an_address(text)
            }
            (Kind::Networks, Written::Argument(text) | Written::Text(text)) => {
                format!("'{text}' is no address and no network")
            }
            (Kind::Networks, Written::List(list)) => {
                match list.iter().find(|one| networks(one).is_none()) {
                    Some(Written::Argument(text) | Written::Text(text)) => {
                        format!("'{text}' is no address and no network")
                    }
                    Some(wrong) => format!("{wrong} is no address and no network"),
                    None => format!("{written} is not taken"),
                }
            }
            (Kind::Addresses, Written::List(list)) => {
                match list.iter().find(|one| addresses(one).is_none()) {
                    Some(Written::Argument(text) | Written::Text(text)) => not_an_address(text),
                    Some(wrong) => format!("{wrong} is no address with a port"),
                    None => format!("{written} is not taken"),
                }
            }
            (_, Written::Number(_) | Written::Flag(_) | Written::List(_) | Written::Other(_)) => {
                format!("{written} is of the wrong type")
            }
            _ => format!("{written} is not taken"),
        }
    }
}

impl std::fmt::Display for Written<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Written::Argument(text) | Written::Text(text) => write!(out, "'{text}'"),
            Written::Number(number) => write!(out, "{number}"),
            Written::Flag(flag) => write!(out, "{flag}"),
            Written::List(_) => write!(out, "a list"),
            Written::Beyond(digits) => write!(out, "{digits}"),
            Written::Other(name) => write!(out, "a value of type {name}"),
        }
    }
}

/// A text as TOML.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control() => out.push_str(&format!("\\u{:04X}", character as u32)),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

fn texts(written: &Written) -> Option<Vec<String>> {
    let Written::List(list) = written else { return None };
    let text = |one: &Written| match one {
        Written::Argument(text) | Written::Text(text) => Some((*text).to_owned()),
        _ => None,
    };
    list.iter().map(text).collect()
}

fn cores(written: &Written) -> Option<Vec<usize>> {
    match written {
        Written::Argument(ALL_CORES) | Written::Text(ALL_CORES) => Some(Vec::new()),
        Written::Argument(text) | Written::Text(text) => parse_cores(text),
        Written::Number(number) => core(*number).map(|core| vec![core]),
        Written::List(list) if !list.is_empty() => {
            let mut found = Vec::new();
            for one in list {
                let Written::Number(number) = one else { return None };
                insert_core(&mut found, core(*number)?)?;
            }
            Some(found)
        }
        _ => None,
    }
}

/// Reads `0-3,6`, without repetition, in the order in which it is written.
pub fn parse_cores(text: &str) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = core(first.trim().parse().ok()?)?;
        let last = core(last.trim().parse().ok()?)?;
        if first > last {
            return None;
        }
        for one in first..=last {
            insert_core(&mut found, one)?;
        }
    }
    Some(found)
}

fn core(number: i64) -> Option<usize> {
    usize::try_from(number).ok().filter(|core| *core < CORE_COUNT_MAX)
}

/// `None` if the core is there already.
fn insert_core(cores: &mut Vec<usize>, core: usize) -> Option<()> {
    if cores.contains(&core) {
        return None;
    }
    cores.push(core);
    Some(())
}

/// Writes `0-3,6`.
pub fn cores_text(cores: &[usize]) -> String {
    if cores.is_empty() {
        return ALL_CORES.to_owned();
    }
    let mut parts = Vec::new();
    for run in cores.chunk_by(|a, b| a + 1 == *b) {
        match run {
            [only] => parts.push(only.to_string()),
            [first, .., last] => parts.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    parts.join(",")
}

fn addresses(written: &Written) -> Option<Vec<SocketAddr>> {
    match written {
        Written::Argument(text) | Written::Text(text) => {
            // A port alone must not face a network.
            if let Ok(port) = text.parse::<u16>() {
                return Some(vec![loopback(port)]);
            }
            url::split(text).ok()?.parse().ok().map(|address| vec![address])
        }
        Written::Number(number) => Some(vec![loopback(u16::try_from(*number).ok()?)]),
        Written::List(list) => {
            let mut found = Vec::new();
            for one in list {
                if matches!(one, Written::List(_)) {
                    return None;
                }
                found.extend(addresses(one)?);
            }
            Some(found)
        }
        Written::Flag(_) | Written::Beyond(_) | Written::Other(_) => None,
    }
}

fn networks(written: &Written) -> Option<Vec<IpNet>> {
    match written {
        Written::Argument(NO_NETWORK) => Some(Vec::new()),
        Written::Argument(text) => {
            text.split(',').map(|one| Networks::parse_one(one.trim())).collect()
        }
        Written::Text(text) => Networks::parse_one(text).map(|network| vec![network]),
        Written::List(list) if !list.iter().any(|one| matches!(one, Written::List(_))) => {
            let lists: Option<Vec<_>> = list.iter().map(networks).collect();
            Some(lists?.concat())
        }
        _ => None,
    }
}

/// What is wrong with an address to listen on, and what it may mean.
fn not_an_address(text: &str) -> String {
    let wrong = format!("'{text}' is no address with a port");
    let rest = match url::split(text) {
        Ok(rest) => rest,
        Err(what) => return format!("{wrong}: {what}"),
    };
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "1883"));
    let host = match host {
        "localhost" => "127.0.0.1",
        "" | "*" | "any" | "all" => "0.0.0.0",
        host => host,
    };
    match format!("{host}:{port}").parse::<SocketAddr>() {
        Ok(address) => format!("{wrong}; did you mean \"{address}\"?"),
        Err(_) => wrong,
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(list: &[usize]) -> Option<Value> {
        Some(Value::Cores(list.to_vec()))
    }

    fn addresses(list: &[&str]) -> Option<Value> {
        Some(Value::Addresses(list.iter().map(|text| text.parse().unwrap()).collect()))
    }

    fn check(kind: Kind, cases: &[(Written, Option<Value>)]) {
        for (written, expected) in cases {
            assert_eq!(kind.read(written).ok(), *expected, "{written:?}");
        }
    }

    #[test]
    fn cores_are_numbers_and_ranges_without_repetition() {
        use Written::{Argument, Flag, List, Number, Text};
        check(
            Kind::Cores,
            &[
                (Argument("0-3,6"), cores(&[0, 1, 2, 3, 6])),
                (Text("6, 0 - 1"), cores(&[6, 0, 1])),
                (Text("all"), cores(&[])),
                (Number(2), cores(&[2])),
                (List(vec![Number(1), Number(0)]), cores(&[1, 0])),
                (Text("1023"), cores(&[1023])),
                (Text("1024"), None),
                (Text("3-1"), None),
                (Text("0-2,1"), None),
                (Text("0-"), None),
                (Text(""), None),
                (Text("-1"), None),
                (Number(-1), None),
                (List(vec![]), None),
                (List(vec![Number(1), Number(1)]), None),
                (List(vec![Text("1")]), None),
                (Flag(true), None),
            ],
        );
        assert_eq!(cores_text(&[6, 0, 1, 2, 9, 10]), "6,0-2,9-10");
    }

    #[test]
    fn a_port_alone_means_loopback() {
        use Written::{Argument, List, Number, Text};
        check(
            Kind::Addresses,
            &[
                (Argument("1883"), addresses(&["127.0.0.1:1883"])),
                (Number(1884), addresses(&["127.0.0.1:1884"])),
                (Text("0.0.0.0:0"), addresses(&["0.0.0.0:0"])),
                (
                    List(vec![Text("[::]:1883"), Number(1)]),
                    addresses(&["[::]:1883", "127.0.0.1:1"]),
                ),
                (Text("localhost:1883"), None),
                (Text("127.0.0.1"), None),
                (Text(":1883"), None),
                (Text("65536"), None),
                (Number(65_536), None),
                (Number(-1), None),
                (List(vec![]), None),
                (List(vec![List(vec![Number(1)])]), None),
            ],
        );
    }

    #[test]
    fn networks_are_addresses_and_ranges_of_them() {
        use Written::{Argument, List, Number, Text};
        let networks = |list: &[&str]| {
            let list = list.iter().map(|text| Networks::parse_one(text).unwrap()).collect();
            Some(Value::Networks(Networks::of(list)))
        };
        check(
            Kind::Networks,
            &[
                (Argument("10.1.0.0/16"), networks(&["10.1.0.0/16"])),
                (Argument("10.1.0.0/16, ::1"), networks(&["10.1.0.0/16", "::1"])),
                (Argument("none"), networks(&[])),
                (List(vec![]), networks(&[])),
                (List(vec![Text("::1"), Text("10.0.0.9/8")]), networks(&["::1", "10.0.0.0/8"])),
                (Text("none"), None),
                (Text("127.0.0.1:1883"), None),
                (Number(1), None),
                (List(vec![List(vec![Text("::1")])]), None),
            ],
        );
        let wrong = Kind::Networks.read(&List(vec![Text("::1"), Text("here")]));
        assert_eq!(wrong, Err("'here' is no address and no network".to_owned()));
    }

    #[test]
    fn a_refusal_says_what_is_wrong_with_the_value() {
        use Written::{Argument, Flag, List, Number, Other, Text};
        let size = Kind::Size { min: 1024, max: 1 << 20 };
        let time = Kind::Time { unit: TimeUnit::Seconds, min: 0, max: 60 };
        let count = Kind::Count { min: 1, max: 10 };
        let power = Kind::PowerOfTwo { min: 1, max: 64 };
        let cases = [
            (size, Text("2MiB"), "'2MiB' is out of bounds"),
            (size, Argument("64K"), "'64K' is no size; did you mean \"64KiB\"?"),
            (size, Argument("64X"), "'64X' is no size"),
            (size, Flag(true), "true is of the wrong type"),
            (time, Text("1500ms"), "'1500ms' is no whole number of seconds"),
            (time, Number(61), "61 is out of bounds"),
            (time, Number(-1), "-1 is out of bounds"),
            (count, Text("5"), "'5' is a text in quotes, not a number"),
            (count, Argument("five"), "'five' is not taken"),
            (count, Other("float"), "a value of type float is of the wrong type"),
            (power, Number(48), "48 is not a power of two"),
            (Kind::Flag, Text("true"), "'true' is a text in quotes"),
            (Kind::Flag, Number(1), "1 is of the wrong type"),
            (
                Kind::Text { size_min: 1, size_max: 4 },
                Text(""),
                "a text of 0 bytes is out of bounds",
            ),
            (
                Kind::Text { size_min: 0, size_max: 4 },
                Text("12345"),
                "a text of 5 bytes is out of bounds",
            ),
            (Kind::Text { size_min: 0, size_max: 4 }, Number(1), "1 is of the wrong type"),
            (Kind::Texts { count_max: 1, size_max: 4 }, List(vec![]), "0 texts are out of bounds"),
            (
                Kind::Texts { count_max: 1, size_max: 4 },
                List(vec![Text("a"), Text("b")]),
                "2 texts are out of bounds",
            ),
            (
                Kind::Texts { count_max: 1, size_max: 4 },
                List(vec![Text("")]),
                "a text of 0 bytes is out of bounds",
            ),
            (
                Kind::Texts { count_max: 1, size_max: 4 },
                List(vec![Number(1)]),
                "a list is of the wrong type",
            ),
            (Kind::Choice(&["a", "b"]), Text("c"), "'c' is not taken"),
            (
                Kind::Addresses,
                List(vec![Number(1), Text("localhost:1")]),
                "'localhost:1' is no address with a port; did you mean \"127.0.0.1:1\"?",
            ),
        ];
        for (kind, written, expected) in cases {
            assert_eq!(kind.read(&written), Err(expected.to_owned()));
        }
    }
}
