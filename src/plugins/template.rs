//! Texts with variables, such as `from ${client_id}`, and with the captures of a regular expression.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plugin::{ClientView, MessageEdit};

/// A text that was parsed once and is rendered for each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
    /// The capture of this number.
    Capture(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    ClientId,
    UserName,
    Peer,
    Listener,
    Topic,
    Qos,
    Retain,
    PayloadSize,
    TimeMs,
    Shard,
    Plugin,
}

const VARIABLES: [(&str, Variable); 11] = [
    ("client_id", Variable::ClientId),
    ("user_name", Variable::UserName),
    ("peer", Variable::Peer),
    ("listener", Variable::Listener),
    ("topic", Variable::Topic),
    ("qos", Variable::Qos),
    ("retain", Variable::Retain),
    ("payload_size", Variable::PayloadSize),
    ("time_ms", Variable::TimeMs),
    ("shard", Variable::Shard),
    ("plugin", Variable::Plugin),
];

/// The captures of a pattern, which a template may name.
pub(super) struct Captures<'a> {
    pub pattern: &'a regex::Regex,
}

impl Captures<'_> {
    fn by_number(&self, number: usize) -> Option<usize> {
        (number < self.pattern.captures_len()).then_some(number)
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.pattern.capture_names().position(|known| known == Some(name))
    }
}

impl Template {
    /// Parses `text`; `plugin` is the value of the variable for the plugin's name. Without `captures` the text may name
    /// none.
    pub(super) fn parse(
        text: &str,
        plugin: &str,
        captures: Option<&Captures>,
    ) -> Result<Template, String> {
        let mut template = Template { parts: Vec::new() };
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            template.push_text(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('$') {
                template.push_text("$");
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('{') {
                let Some((name, behind)) = behind.split_once('}') else {
                    return Err("a '${' has no '}'; a dollar itself is '$$'".to_owned());
                };
                match part(name, captures)? {
                    Part::Variable(Variable::Plugin) => template.push_text(plugin),
                    part => template.parts.push(part),
                }
                rest = behind;
            } else {
                let size = rest.bytes().take_while(u8::is_ascii_digit).count();
                if size == 0 || captures.is_none() {
                    return Err("a '$' stands alone; a dollar itself is '$$'".to_owned());
                }
                template.parts.push(part(&rest[..size], captures)?);
                rest = &rest[size..];
            }
        }
        template.push_text(rest);
        Ok(template)
    }

    /// Whether the text is the same for all messages of one client on one topic.
    pub(super) fn is_of_client_and_topic(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Capture(_) => false,
            Part::Variable(variable) => !matches!(
                variable,
                Variable::Qos | Variable::Retain | Variable::PayloadSize | Variable::TimeMs
            ),
        })
    }

    /// The text, if it is the same for every message.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text, if it exists as a whole and need not be rendered.
    #[inline]
    pub(super) fn borrowed<'t>(&'t self, client: &ClientView<'t>) -> Option<&'t str> {
        match self.parts.as_slice() {
            [Part::Variable(Variable::ClientId)] => Some(client.client_id),
            [Part::Variable(Variable::UserName)] => Some(client.user_name.unwrap_or_default()),
            _ => self.fixed(),
        }
    }

    /// Renders the text into `out`. `capture` gives the value of a number.
    pub(super) fn render<'c>(
        &self,
        client: &ClientView<'_>,
        message: &MessageEdit<'_>,
        capture: impl Fn(usize) -> Option<&'c str>,
        out: &mut String,
    ) {
        out.clear();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => variable.render(client, message, out),
                // A capture that took no part in the match is empty.
                Part::Capture(number) => out.push_str(capture(*number).unwrap_or_default()),
            }
        }
    }

    fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }
}

impl Variable {
    fn render(self, client: &ClientView<'_>, message: &MessageEdit<'_>, out: &mut String) {
        match self {
            Variable::ClientId => out.push_str(client.client_id),
            Variable::UserName => out.push_str(client.user_name.unwrap_or_default()),
            Variable::Topic => out.push_str(message.topic()),
            Variable::Retain => out.push_str(if message.retain() { "true" } else { "false" }),
            Variable::Qos => push(out, message.qos() as u8),
            Variable::Shard => push(out, client.shard),
            Variable::PayloadSize => push(out, message.payload().len()),
            Variable::TimeMs => push(out, unix_ms()),
            Variable::Peer => client.peer.into_iter().for_each(|peer| push(out, peer)),
            Variable::Listener => {
                client.listener.into_iter().for_each(|address| push(out, address))
            }
            // The plugin's name became a part of the text when the template was parsed.
            Variable::Plugin => {}
        }
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a String takes everything");
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// The part for a name that stands between `${` and `}`, or behind `$`.
fn part(name: &str, captures: Option<&Captures>) -> Result<Part, String> {
    let number = name.parse::<usize>().ok().filter(|_| name.bytes().all(|b| b.is_ascii_digit()));
    if let Some(captures) = captures {
        if let Some(number) = number {
            let known = captures.by_number(number);
            return known.map(Part::Capture).ok_or_else(|| {
                let last = captures.pattern.captures_len() - 1;
                format!("'${name}' is no capture of the pattern; allowed: $0 to ${last}")
            });
        }
        if let Some(number) = captures.by_name(name) {
            return Ok(Part::Capture(number));
        }
    }
    match VARIABLES.iter().find(|(known, _)| *known == name) {
        Some((_, variable)) => Ok(Part::Variable(*variable)),
        None => Err(unknown(name, captures)),
    }
}

fn unknown(name: &str, captures: Option<&Captures>) -> String {
    let known = VARIABLES.iter().map(|(known, _)| *known);
    let meant = crate::config::table::did_you_mean(name, known.clone());
    let mut allowed: Vec<_> = known.map(|known| format!("${{{known}}}")).collect();
    allowed.push("$$ for a dollar".to_owned());
    if captures.is_some() {
        allowed.push("captures of the pattern".to_owned());
    }
    format!("'${{{name}}}' is not known{meant}; allowed: {}", allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;
    use crate::limits::Limits;
    use crate::plugin::{EditBuffers, MessageView};

    fn client() -> ClientView<'static> {
        ClientView {
            client_id: "c-1",
            user_name: Some("anna"),
            peer: Some("192.0.2.1:5000".parse().unwrap()),
            listener: Some("[::1]:1883".parse().unwrap()),
            version: None,
            shard: 3,
        }
    }

    /// The rendered text for a message to `a/b`.
    fn render(text: &str, client: &ClientView<'_>, captures: Option<&Captures>) -> String {
        let original = MessageView {
            topic: "a/b",
            payload: b"12345",
            qos: QoS::ExactlyOnce,
            retain: true,
            ..MessageView::default()
        };
        let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
        let message = MessageEdit::new(original, &mut buffers, &limits);
        let template = Template::parse(text, "tag", captures).unwrap();
        let matched = captures.map(|captures| captures.pattern.captures("a/b").unwrap());
        let capture = |number| {
            matched.as_ref().and_then(|matched| matched.get(number)).map(|found| found.as_str())
        };
        let mut out = "what was there".to_owned();
        template.render(client, &message, capture, &mut out);
        out
    }

    #[test]
    fn every_variable_stands_for_what_it_says() {
        let cases = [
            ("", ""),
            ("plain", "plain"),
            ("${client_id}", "c-1"),
            ("<${user_name}>", "<anna>"),
            ("${peer}", "192.0.2.1:5000"),
            ("${listener}", "[::1]:1883"),
            ("${topic}/${topic}", "a/b/a/b"),
            ("${qos}${retain}", "2true"),
            ("${payload_size} bytes", "5 bytes"),
            ("${shard}", "3"),
            ("by ${plugin}.", "by tag."),
            ("5$$ and $${topic}", "5$ and ${topic}"),
        ];
        for (text, want) in cases {
            assert_eq!(render(text, &client(), None), want, "{text}");
        }
        for (name, _) in VARIABLES.iter().filter(|(name, _)| *name != "time_ms") {
            let written = format!("${{{name}}}");
            assert!(cases.iter().any(|(text, _)| text.contains(&written)), "{name} has no case");
        }
        let before = unix_ms();
        let rendered: u128 = render("${time_ms}", &client(), None).parse().unwrap();
        assert!((before..=unix_ms()).contains(&rendered), "{rendered}");
    }

    #[test]
    fn what_is_not_known_of_a_client_is_empty() {
        let client = ClientView { client_id: "x", ..ClientView::default() };
        let text = "${client_id}${user_name}${peer}${listener}";
        assert_eq!(render(text, &client, None), "x");
    }

    #[test]
    fn captures_are_named_by_number_and_by_name() {
        let pattern = regex::Regex::new("^(?<first>[a-z])/(b)(c)?$").unwrap();
        let captures = Captures { pattern: &pattern };
        for (text, want) in [
            ("$1-$2", "a-b"),
            ("${2}0/$0", "b0/a/b"),
            ("${first}/${client_id}", "a/c-1"),
            ("<$3>", "<>"),
            ("$$1", "$1"),
        ] {
            assert_eq!(render(text, &client(), Some(&captures)), want, "{text}");
        }
    }

    #[test]
    fn only_what_is_the_same_for_all_is_fixed() {
        let fixed =
            |text| Template::parse(text, "tag", None).unwrap().fixed().map(ToOwned::to_owned);
        assert_eq!(fixed("a${plugin}$$b"), Some("atag$b".to_owned()));
        assert_eq!(fixed(""), Some(String::new()));
        assert_eq!(fixed("a${topic}"), None);
        for text in ["plain", "", "${client_id}", "${user_name}", "${topic}", "a${client_id}"] {
            let template = Template::parse(text, "tag", None).unwrap();
            for client in [client(), ClientView { client_id: "x", ..ClientView::default() }] {
                let borrowed = template.borrowed(&client);
                assert!(
                    borrowed.is_none_or(|found| found == render(text, &client, None)),
                    "{text}"
                );
                assert_eq!(borrowed.is_none(), text == "${topic}" || text == "a${client_id}");
            }
        }
    }

    #[test]
    fn a_template_that_cannot_be_is_told_why() {
        let pattern = regex::Regex::new("^(a)$").unwrap();
        let captures = Captures { pattern: &pattern };
        for (text, captures, begins) in [
            (
                "${clientid}",
                None,
                "'${clientid}' is not known; did you mean 'client_id'?; allowed: ${client_id}",
            ),
            ("${}", None, "'${}' is not known; allowed: "),
            ("${topic", None, "a '${' has no '}'"),
            ("a$", None, "a '$' stands alone"),
            ("$1", None, "a '$' stands alone"),
            ("${1}", None, "'${1}' is not known"),
            ("$2", Some(&captures), "'$2' is no capture of the pattern; allowed: $0 to $1"),
            ("${+1}", Some(&captures), "'${+1}' is not known"),
            ("$x", Some(&captures), "a '$' stands alone"),
        ] {
            let told = Template::parse(text, "tag", captures).unwrap_err();
            assert!(told.starts_with(begins), "{text}: {told}");
        }
    }
}
