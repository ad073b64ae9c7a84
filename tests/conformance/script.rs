//! Script files to steps: what `language.md` describes, read into data.

use std::collections::BTreeMap;

use crate::fields::{self, Kind, Type, field};
use crate::wire::{self, Version};

#[derive(Debug)]
pub(crate) struct Script {
    pub name: String,
    pub file: String,
    pub line: usize,
    /// The statements that this script shows.
    pub shows: Vec<String>,
    pub versions: Vec<Version>,
    /// Limits of the broker that differ from the defaults, by the names of `limits.rs`.
    pub limits: Vec<(String, u64)>,
    /// Each is run by itself, with its values in place of `%name`.
    examples: Vec<BTreeMap<String, String>>,
    lines: Vec<(usize, String)>,
}

/// A script with one of its examples, in one version.
#[derive(Debug)]
pub(crate) struct Case {
    pub title: String,
    pub version: Version,
    pub limits: Vec<(String, u64)>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// `file:line`
    pub place: String,
    pub text: String,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Send {
        client: String,
        packet: Template,
        version: Option<Version>,
    },
    SendRaw {
        client: String,
        bytes: Vec<u8>,
    },
    /// With `unordered`, it may come before or after its unordered neighbours.
    Expect {
        client: String,
        packet: Template,
        unordered: bool,
    },
    Closed(String),
    Silent(String),
    Drop(String),
    Wait(u64),
}

/// A packet with places for variables; for an expected packet, a pattern.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub kind: Kind,
    pub fields: Vec<(&'static str, Term)>,
    /// Fields that must not be there.
    pub absent: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Exact(Vec<u8>),
    /// Bound by the first packet it is expected in.
    Variable(String),
    Any,
    Range(u64, u64),
}

pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Script>, String> {
    let mut scripts: Vec<Script> = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        let wrong = |what: &str| format!("{file}:{number}: {what}: {line}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = || rest.split_whitespace().map(str::to_owned);
        if line.is_empty() || line == "#" || line.starts_with("# ") {
            continue;
        }
        if word == "script" {
            columns.clear();
            scripts.push(Script {
                name: rest.to_owned(),
                file: file.to_owned(),
                line: number,
                shows: Vec::new(),
                versions: vec![Version::V5, Version::V311],
                limits: Vec::new(),
                examples: Vec::new(),
                lines: Vec::new(),
            });
            continue;
        }
        let script = scripts.last_mut().ok_or_else(|| wrong("before the first script"))?;
        match word {
            "shows" => script.shows.extend(words()),
            "versions" => {
                let parsed: Option<_> = words().map(|name| version(&name)).collect();
                script.versions = parsed.ok_or_else(|| wrong("unknown version"))?;
            }
            "limits" => {
                for word in words() {
                    let pair = word
                        .split_once('=')
                        .and_then(|(k, v)| Some((k.to_owned(), v.parse().ok()?)));
                    script.limits.push(pair.ok_or_else(|| wrong("not NAME=NUMBER"))?);
                }
            }
            "with" => columns = words().collect(),
            "|" => {
                let values: Vec<&str> = rest.split(" | ").map(str::trim).collect();
                if values.len() != columns.len() {
                    return Err(wrong("another count of values than names behind `with`"));
                }
                let values = values.into_iter().map(str::to_owned);
                script.examples.push(columns.iter().cloned().zip(values).collect());
            }
            _ => script.lines.push((number, line.to_owned())),
        }
    }
    Ok(scripts)
}

fn version(name: &str) -> Option<Version> {
    [Version::V31, Version::V311, Version::V5].into_iter().find(|version| version.name() == name)
}

impl Script {
    /// The script once for each version and example.
    pub(crate) fn cases(&self) -> Result<Vec<Case>, String> {
        let mut cases = Vec::new();
        let none = [BTreeMap::new()];
        let examples = if self.examples.is_empty() { &none[..] } else { &self.examples };
        for (index, example) in examples.iter().enumerate() {
            for &version in &self.versions {
                let only = example.get("only").map(String::as_str).unwrap_or("any");
                if only != "any" && !applies(only, version) {
                    continue;
                }
                let number = if self.examples.is_empty() {
                    String::new()
                } else {
                    format!("/{}", index + 1)
                };
                cases.push(Case {
                    title: format!("{}{number} in {}", self.name, version.name()),
                    version,
                    limits: self.limits.clone(),
                    steps: self.steps(version, example)?,
                });
            }
        }
        Ok(cases)
    }

    fn steps(
        &self,
        version: Version,
        example: &BTreeMap<String, String>,
    ) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        let mut lines = self.lines.iter();
        while let Some((number, line)) = lines.next() {
            let Some(count) = line.strip_prefix("repeat ") else {
                steps.extend(self.step(*number, line, version, example)?);
                continue;
            };
            let count: usize = count.parse().map_err(|e| format!("{}:{number}: {e}", self.file))?;
            let inner: Vec<_> = lines.by_ref().take_while(|(_, line)| line != "end").collect();
            for index in 1..=count {
                let mut values = example.clone();
                values.insert("i".to_owned(), index.to_string());
                for (number, line) in &inner {
                    steps.extend(self.step(*number, line, version, &values)?);
                }
            }
        }
        Ok(steps)
    }

    fn step(
        &self,
        number: usize,
        line: &str,
        version: Version,
        values: &BTreeMap<String, String>,
    ) -> Result<Option<Step>, String> {
        let mut text = line.to_owned();
        for (name, value) in values {
            text = text.replace(&format!("%{name}"), value);
        }
        if let Some((condition, rest)) = text.split_once(": ")
            && matches!(condition, "5" | "3")
        {
            if !applies(condition, version) {
                return Ok(None);
            }
            text = rest.to_owned();
        }
        let place = format!("{}:{number}", self.file);
        match action(&text) {
            Ok(action) => Ok(Some(Step { place, text, action })),
            Err(error) => Err(format!("{place}: {error}: {text}")),
        }
    }
}

/// `5` is MQTT 5, `3` both versions before it.
fn applies(condition: &str, version: Version) -> bool {
    (condition == "5") == (version == Version::V5)
}

fn action(text: &str) -> Result<Action, String> {
    let tokens = tokens(text)?;
    let word = |index: usize| tokens.get(index).map(String::as_str).unwrap_or("");
    if word(0) == "wait" {
        let (digits, unit) =
            word(1).split_at(word(1).find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0));
        let number: f64 = digits.parse().map_err(|_| "wait NUMBER and ms or s")?;
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            _ => return Err("the unit is ms or s".to_owned()),
        };
        return Ok(Action::Wait((number * factor) as u64));
    }
    let client = word(0).to_owned();
    match word(1) {
        "closed" => Ok(Action::Closed(client)),
        "silent" => Ok(Action::Silent(client)),
        "drop" => Ok(Action::Drop(client)),
        ">" if wire::is_raw(word(2)) => {
            Ok(Action::SendRaw { client, bytes: wire::assemble(&tokens[2..])? })
        }
        ">" => {
            let (kind, said) = word(2).split_once('/').unwrap_or((word(2), ""));
            let said =
                if said.is_empty() { None } else { Some(version(said).ok_or("unknown version")?) };
            Ok(Action::Send { client, packet: template(kind, &tokens[3..])?, version: said })
        }
        "<" | "<~" => {
            let packet = template(word(2), &tokens[3..])?;
            Ok(Action::Expect { client, packet, unordered: word(1) == "<~" })
        }
        _ => Err("not a line of the language".to_owned()),
    }
}

fn template(kind: &str, tokens: &[String]) -> Result<Template, String> {
    let kind = Kind::from_name(kind).ok_or_else(|| format!("{kind} is not a packet"))?;
    let mut template = Template { kind, fields: Vec::new(), absent: Vec::new() };
    let mut positional: &[&'static str] = match kind {
        Kind::Connect => &["client_id"],
        Kind::Publish => &["topic", "payload"],
        Kind::Subscribe | Kind::Unsubscribe => &["filter"],
        _ => &[],
    };
    for token in tokens {
        if let Some(name) = token.strip_prefix('!') {
            template.absent.push(field(name).ok_or_else(|| format!("no field {name}"))?.0);
            continue;
        }
        let named = token.split_once('=').and_then(|(name, value)| Some((field(name)?, value)));
        let ((name, kind_of), value) = match named {
            Some(named) => named,
            None => {
                let name = *positional.first().ok_or_else(|| format!("{token}: which field?"))?;
                if name != "filter" {
                    positional = &positional[1..];
                }
                (field(name).unwrap(), token.as_str())
            }
        };
        let lists = matches!(name, "reasons" | "sub_id");
        for part in value.split(',').filter(|_| lists) {
            template.fields.push((name, term(part, kind_of)?));
        }
        if !lists {
            template.fields.push((name, term(value, kind_of)?));
        }
    }
    Ok(template)
}

fn term(text: &str, kind: Type) -> Result<Term, String> {
    if let Some(name) = text.strip_prefix('?') {
        return Ok(Term::Variable(name.to_owned()));
    }
    if text == "*" {
        return Ok(Term::Any);
    }
    if kind.is_number()
        && let Some((least, most)) = text.split_once("..")
    {
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number"));
        return Ok(Term::Range(number(least)?, number(most)?));
    }
    fields::value(text, kind).map(Term::Exact)
}

/// Words between blanks; a quoted part, with `\"` in it, belongs to its word.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut token = String::new();
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                token.push('\\');
                token.extend(characters.next());
            }
            '"' => {
                quoted = !quoted;
                token.push('"');
            }
            c if c.is_whitespace() && !quoted => {
                if !token.is_empty() {
                    tokens.push(std::mem::take(&mut token));
                }
            }
            c => token.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    tokens.extend((!token.is_empty()).then_some(token));
    Ok(tokens)
}
