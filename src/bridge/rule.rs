//! A forward or subscribe rule: which topics it means, and how it maps a message.

use std::fmt;

use smallvec::SmallVec;

use crate::codec::QoS;
use crate::config::bridge::{QosRule, RetainRule, RuleSettings, TopicRule};
use crate::limits::TEXT_SIZE_CEILING;
use crate::topic::{check_name, matches, parse_filter};

/// The direction in which the messages of a rule go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From this broker to the remote.
    Forward,
    /// From the remote to this broker.
    Subscribe,
}

/// A checked rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The filter of the subscription, with its share if it has one.
    filter: Box<str>,
    /// Where in `filter` the part begins with which topics are compared.
    match_index: usize,
    template: Box<[Part]>,
    qos: QosRule,
    retain: RetainRule,
    except: Box<[Box<str>]>,
    store: bool,
}

/// A piece of the topic that a rule makes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// The whole topic.
    Topic,
    /// The text for which the wildcard of this index, counted from 0, stands.
    Capture(usize),
}

/// Why a rule is invalid, and which of its keys is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    pub key: &'static str,
    pub what: String,
}

/// `None` for a `#` that stands for no level.
type Captures<'a> = SmallVec<[Option<&'a str>; 8]>;

impl Rule {
    pub fn compile(settings: &RuleSettings, direction: Direction) -> Result<Rule, RuleError> {
        let wrong = |key, what: String| RuleError { key, what };
        let checked = |filter: &str| {
            parse_filter(filter, TEXT_SIZE_CEILING, usize::MAX)
                .map(|parsed| (parsed.share.is_some(), parsed.filter.len()))
                .map_err(|error| format!("'{filter}': {error}"))
        };
        let (is_shared, size) = checked(&settings.filter).map_err(|what| wrong("filter", what))?;
        if is_shared && direction == Direction::Forward {
            let what = "a forward rule takes messages of this broker, where no share applies";
            return Err(wrong("filter", what.to_owned()));
        }
        for filter in &settings.except {
            if checked(filter).map_err(|what| wrong("except", what))?.0 {
                return Err(wrong(
                    "except",
                    format!("'{filter}' has a share: name the filter alone"),
                ));
            }
        }
        let match_index = settings.filter.len() - size;
        let levels = settings.filter[match_index..].split('/');
        let capture_count = levels.filter(|level| matches!(*level, "+" | "#")).count();
        let template = match &settings.topic {
            TopicRule::Keep => vec![Part::Topic],
            TopicRule::Prefix(text) => {
                vec![literal(text).map_err(|what| wrong("prefix", what))?, Part::Topic]
            }
            TopicRule::Template(text) => {
                parse_template(text, capture_count).map_err(|what| wrong("to", what))?
            }
        };
        Ok(Rule {
            filter: settings.filter.as_str().into(),
            match_index,
            template: template.into(),
            qos: settings.qos,
            retain: settings.retain,
            except: settings.except.iter().map(|filter| filter.as_str().into()).collect(),
            store: settings.store,
        })
    }

    /// The filter with which the remote is asked.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The filter without its share.
    pub fn match_filter(&self) -> &str {
        &self.filter[self.match_index..]
    }

    pub fn is_shared(&self) -> bool {
        self.match_index > 0
    }

    pub fn matches(&self, topic: &str) -> bool {
        matches(self.match_filter(), topic) && !self.excepts(topic)
    }

    /// Whether a topic that the filter means is excepted.
    pub fn excepts(&self, topic: &str) -> bool {
        self.except.iter().any(|filter| matches(filter, topic))
    }

    /// The topic on the other side; `None` if the filter does not mean `topic`, or no message can have the result.
    pub fn map_topic(&self, topic: &str) -> Option<String> {
        let mut mapped = String::new();
        self.map_topic_into(topic, &mut mapped).then_some(mapped)
    }

    /// As `map_topic`, into `out`, which is cleared first; returns whether there is a topic.
    pub fn map_topic_into(&self, topic: &str, out: &mut String) -> bool {
        out.clear();
        if let [Part::Topic] = *self.template {
            out.push_str(topic);
            return matches(self.match_filter(), topic);
        }
        let mut captures = Captures::new();
        if !capture(self.match_filter(), topic, &mut captures) {
            return false;
        }
        let mut is_level_missing = false;
        for part in &self.template {
            match part {
                Part::Text(text) if is_level_missing => {
                    out.push_str(text.strip_prefix('/').unwrap_or(text));
                }
                Part::Text(text) => out.push_str(text),
                Part::Topic => out.push_str(topic),
                Part::Capture(index) => match captures.get(*index).copied().flatten() {
                    Some(text) => out.push_str(text),
                    // The wildcard stands for no level, so the slash in front of it goes, or the one behind.
                    None if out.ends_with('/') => {
                        out.pop();
                    }
                    None => {
                        is_level_missing = out.is_empty();
                        continue;
                    }
                },
            }
            is_level_missing = false;
        }
        !out.is_empty() && out.len() <= TEXT_SIZE_CEILING
    }

    pub fn map_qos(&self, qos: QoS) -> QoS {
        match self.qos {
            QosRule::Keep => qos,
            QosRule::Max(max) => qos.min(QoS::from_bits(max).unwrap_or(qos)),
            QosRule::Set(set) => QoS::from_bits(set).unwrap_or(qos),
        }
    }

    pub fn map_retain(&self, retain: bool) -> bool {
        match self.retain {
            RetainRule::Keep => retain,
            RetainRule::Set => true,
            RetainRule::Clear => false,
        }
    }

    /// Whether a message published with `qos` goes through the log.
    pub fn stores(&self, qos: QoS) -> bool {
        self.store && self.map_qos(qos) > QoS::AtMostOnce
    }

    /// The highest QoS to ask the remote for.
    pub fn subscribe_qos(&self) -> QoS {
        match self.qos {
            QosRule::Max(max) => QoS::from_bits(max).unwrap_or(QoS::ExactlyOnce),
            QosRule::Keep | QosRule::Set(_) => QoS::ExactlyOnce,
        }
    }
}

/// The texts for which the wildcards of `filter` stand in `topic`; `false`: the filter does not mean it.
fn capture<'a>(filter: &str, topic: &'a str, captures: &mut Captures<'a>) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut rest = Some(topic);
    for wanted in filter.split('/') {
        if wanted == "#" {
            captures.push(rest);
            return true;
        }
        let Some(text) = rest else { return false };
        let (level, after) = match text.split_once('/') {
            Some((level, after)) => (level, Some(after)),
            None => (text, None),
        };
        if wanted == "+" {
            captures.push(Some(level));
        } else if wanted != level {
            return false;
        }
        rest = after;
    }
    rest.is_none()
}

fn literal(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Ok(Part::Text("".into()));
    }
    match check_name(text, TEXT_SIZE_CEILING, usize::MAX) {
        Ok(()) => Ok(Part::Text(text.into())),
        Err(error) => Err(format!("'{text}': {error}")),
    }
}

/// `capture_count` is the number of the filter's wildcards.
fn parse_template(template: &str, capture_count: usize) -> Result<Vec<Part>, String> {
    literal(&template.replace("$#", ""))?;
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let (name, behind) = reference(after).ok_or_else(|| {
            format!("'{template}': a dollar is written $$, a capture $1 or ${{1}}")
        })?;
        rest = behind;
        let part = match name {
            "$" => {
                text.push('$');
                continue;
            }
            "#" => Part::Capture(capture_count.wrapping_sub(1)),
            "0" => Part::Topic,
            // The name has a few digits and nothing else.
            digits => Part::Capture(digits.parse::<usize>().unwrap_or(0).wrapping_sub(1)),
        };
        if let Part::Capture(index) = part
            && index >= capture_count
        {
            return Err(format!(
                "'{template}': ${name} is used, and the filter has {capture_count} wildcards"
            ));
        }
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text).into()));
        }
        parts.push(part);
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    if parts.is_empty() {
        return Err("'': a topic is never empty".to_owned());
    }
    Ok(parts)
}

/// The name behind a dollar, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        let (name, rest) = braced.split_once('}')?;
        let is_number = (1..=4).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_digit());
        return (name == "#" || is_number).then_some((name, rest));
    }
    let first = text.chars().next()?;
    matches!(first, '0'..='9' | '#' | '$').then(|| text.split_at(1))
}

impl fmt::Display for RuleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "key '{}': {}", self.key, self.what)
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: &str, topic: TopicRule) -> Result<Rule, RuleError> {
        let settings = RuleSettings { topic, ..RuleSettings::new(filter) };
        Rule::compile(&settings, Direction::Subscribe)
    }

    fn check_mapping(
        topic_rule: fn(String) -> TopicRule,
        cases: &[(&str, &str, &str, Option<&str>)],
    ) {
        for &(filter, text, topic, expected) in cases {
            let rule = rule(filter, topic_rule(text.to_owned())).unwrap();
            assert_eq!(rule.map_topic(topic).as_deref(), expected, "{filter} {text} {topic}");
        }
    }

    #[test]
    fn a_template_puts_what_the_wildcards_stand_for() {
        check_mapping(
            TopicRule::Template,
            &[
                (
                    "sensors/+/temp/#",
                    "site-7/$1/t/$2",
                    "sensors/a/temp/x/y",
                    Some("site-7/a/t/x/y"),
                ),
                (
                    "sensors/+/temp/#",
                    "site-7/$1/t/$#",
                    "sensors/a/temp/x/y",
                    Some("site-7/a/t/x/y"),
                ),
                ("sensors/+/temp/#", "$2/$1", "sensors/a/temp", Some("a")),
                ("sensors/+/temp/#", "site-7/$1/t/$2", "sensors/a/temp", Some("site-7/a/t")),
                ("sensors/+/temp/#", "site-7/$1/t/$2", "sensors/a/temp/", Some("site-7/a/t/")),
                ("sensors/+/temp/#", "$1", "sensors/a/humidity", None),
                ("+/+", "$2/$1/$2", "a/b", Some("b/a/b")),
                ("+/+", "$2/$1", "a/b/c", None),
                ("+/+", "x$1", "/b", Some("x")),
                ("+", "${1}0", "a", Some("a0")),
                ("+", "$1$1", "a", Some("aa")),
                ("#", "a/$1", "$SYS/x", None),
                ("$SYS/#", "sys/$1", "$SYS/x", Some("sys/x")),
                ("#", "copy/$0", "a/b", Some("copy/a/b")),
                ("a", "$$1/b", "a", Some("$1/b")),
                ("a/#", "$1", "a", None),
                ("a/#", "$1/x", "a", Some("x")),
                ("a/#", "$1", "a/b", Some("b")),
                ("+/a", "$1", "/a", None),
                ("a/b", "c", "a/b", Some("c")),
                ("$share/g/a/+", "b/$1", "a/x", Some("b/x")),
            ],
        );
    }

    #[test]
    fn a_prefix_stands_in_front() {
        check_mapping(
            TopicRule::Prefix,
            &[
                ("a/#", "site/", "a/b", Some("site/a/b")),
                ("a/#", "site", "a", Some("sitea")),
                ("a/#", "", "a", Some("a")),
                ("a/#", "site/", "b", None),
            ],
        );
    }

    #[test]
    fn a_topic_that_would_be_too_long_is_none() {
        let rule = rule("+", TopicRule::Template("$1$1".to_owned())).unwrap();
        assert_eq!(rule.map_topic(&"x".repeat(32_767)).map(|topic| topic.len()), Some(65_534));
        assert_eq!(rule.map_topic(&"x".repeat(32_768)), None);
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_its_key() {
        let template = |text: &str| TopicRule::Template(text.to_owned());
        for (filter, topic, key, what) in [
            ("a/#/b", TopicRule::Keep, "filter", "misplaced wildcard"),
            ("", TopicRule::Keep, "filter", "empty"),
            ("a/+", template("$2"), "to", "$2 is used, and the filter has 1 wildcards"),
            ("a", template("$#"), "to", "$# is used, and the filter has 0 wildcards"),
            ("a", template("x/+"), "to", "wildcard"),
            ("a", template("x/$"), "to", "$$"),
            ("a", template("$SYS/x"), "to", "$$"),
            ("+", template("${x}"), "to", "$$"),
            ("+", template("${99999}"), "to", "$$"),
            ("a", template(""), "to", "never empty"),
            ("a", TopicRule::Prefix("#/".to_owned()), "prefix", "wildcard"),
        ] {
            let error = rule(filter, topic).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(error.what.contains(what), "{error}");
        }
        let shared = RuleSettings::new("$share/g/a");
        let error = Rule::compile(&shared, Direction::Forward).unwrap_err();
        assert_eq!(error.key, "filter");
        let except = RuleSettings { except: vec!["a#".to_owned()], ..RuleSettings::new("a") };
        assert_eq!(Rule::compile(&except, Direction::Forward).unwrap_err().key, "except");
    }

    #[test]
    fn qos_and_retain_become_what_the_rule_says() {
        let with = |qos, retain, store| {
            let settings = RuleSettings { qos, retain, store, ..RuleSettings::new("#") };
            Rule::compile(&settings, Direction::Forward).unwrap()
        };
        for (qos, retain, expected) in [
            (QosRule::Keep, RetainRule::Keep, [(0, false), (1, true), (2, false)]),
            (QosRule::Max(1), RetainRule::Set, [(0, true), (1, true), (1, true)]),
            (QosRule::Set(2), RetainRule::Clear, [(2, false), (2, false), (2, false)]),
            (QosRule::Set(0), RetainRule::Keep, [(0, false), (0, true), (0, false)]),
        ] {
            let rule = with(qos, retain, true);
            for (bits, (qos, retain)) in expected.into_iter().enumerate() {
                let published = QoS::from_bits(bits as u8).unwrap();
                assert_eq!(rule.map_qos(published) as u8, qos);
                assert_eq!(rule.map_retain(bits == 1), retain);
                assert_eq!(rule.stores(published), qos > 0);
            }
        }
        assert!(!with(QosRule::Keep, RetainRule::Keep, false).stores(QoS::ExactlyOnce));
        assert_eq!(with(QosRule::Max(1), RetainRule::Keep, true).subscribe_qos(), QoS::AtLeastOnce);
    }
}
