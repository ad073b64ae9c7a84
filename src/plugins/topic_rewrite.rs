//! The built-in plugin `topic-rewrite`: renames topics by regular expressions.

use regex::{CaptureLocations, Regex, RegexBuilder};

use super::filters::Filters;
use super::template::{Captures, Template};
use super::{Plugin, PluginError, PluginFactory, refusal};
use crate::config::plugin::{PluginSettings, RewriteSettings};
use crate::config::table::Refusal;
use crate::plugin::{ClientView, HookSet, MessageEdit, Verdict};

/// The most bytes that one compiled pattern may take, and that its matching may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(super) struct TopicRewriteFactory {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Clone)]
struct Rule {
    filters: Filters,
    pattern: Regex,
    to: Template,
}

/// One shard's instance.
struct TopicRewrite {
    rules: Vec<(Rule, CaptureLocations)>,
    /// The memory of the new topic.
    topic: String,
}

impl TopicRewriteFactory {
    pub(super) fn new(
        settings: &PluginSettings,
        rules: &[RewriteSettings],
    ) -> Result<TopicRewriteFactory, Vec<Refusal>> {
        let mut made = Vec::new();
        let mut wrong = Vec::new();
        for rule in rules {
            match Rule::new(&settings.name, rule) {
                Ok(rule) => made.push(rule),
                Err((key, what)) => wrong.push(refusal(settings, rule.line, key, what)),
            }
        }
        if wrong.is_empty() {
            Ok(TopicRewriteFactory { name: settings.name.clone(), rules: made })
        } else {
            Err(wrong)
        }
    }
}

impl Rule {
    /// The rule, or the wrong key with the reason.
    fn new(plugin: &str, settings: &RewriteSettings) -> Result<Rule, (&'static str, String)> {
        let filters = Filters::new(std::slice::from_ref(&settings.filter))
            .map_err(|wrong| ("filter", wrong.join("; ")))?;
        let pattern = RegexBuilder::new(&settings.pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|error| ("pattern", explain(&settings.pattern, &error)))?;
        let captures = Captures { pattern: &pattern };
        let to = Template::parse(&settings.to, plugin, Some(&captures))
            .map_err(|wrong| ("to", wrong))?;
        Ok(Rule { filters, pattern, to })
    }
}

/// The last line of the parser's message: the others draw the place of the error.
fn explain(pattern: &str, error: &regex::Error) -> String {
    let said = error.to_string();
    let why = said.lines().last().unwrap_or_default().trim();
    let why = why.strip_prefix("error: ").unwrap_or(why);
    format!(
        "'{pattern}' is no regular expression: {why}; allowed: the syntax of Rust's regex crate"
    )
}

impl PluginFactory for TopicRewriteFactory {
    fn name(&self) -> &str {
        &self.name
    }

    fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
        let with_locations = |rule: &Rule| {
            // A clone shares the compiled program, and has memory of its own to match in.
            let rule = rule.clone();
            let locations = rule.pattern.capture_locations();
            (rule, locations)
        };
        let rules = self.rules.iter().map(with_locations).collect();
        Ok(Box::new(TopicRewrite { rules, topic: String::new() }))
    }
}

impl Plugin for TopicRewrite {
    fn hooks(&self) -> HookSet {
        HookSet::PUBLISH
    }

    fn publish(
        &mut self,
        client: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        let TopicRewrite { rules, topic: made } = self;
        for (rule, locations) in rules {
            let topic = message.topic();
            if !rule.filters.contains(topic)
                || rule.pattern.captures_read(locations, topic).is_none()
            {
                continue;
            }
            let capture = |number| locations.get(number).map(|(from, to)| &topic[from..to]);
            rule.to.render(client, message, capture, made);
            message.set_topic(made)?;
            break;
        }
        Ok(Verdict::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plugin::{OnError, PluginWork};
    use crate::limits::Limits;
    use crate::plugin::{EditBuffers, MessageView};

    /// Rules from `(filter, pattern, to)`.
    fn factory(rules: &[(&str, &str, &str)]) -> Result<TopicRewriteFactory, Vec<Refusal>> {
        let rule = |&(filter, pattern, to): &(&str, &str, &str)| RewriteSettings {
            filter: filter.to_owned(),
            pattern: pattern.to_owned(),
            to: to.to_owned(),
            line: 7,
        };
        let rules: Vec<_> = rules.iter().map(rule).collect();
        let settings = PluginSettings {
            name: "rename".to_owned(),
            work: PluginWork::TopicRewrite { rules: rules.clone() },
            on_error: OnError::Deny,
            slow_ms: 10,
            file: "FILE".to_owned(),
            line: 3,
        };
        TopicRewriteFactory::new(&settings, &rules)
    }

    /// The topic that the plugin makes of a topic; `None`: an error.
    fn rewrite(plugin: &mut dyn Plugin, topic: &str) -> Option<String> {
        let original = MessageView { topic, ..MessageView::default() };
        let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
        let mut message = MessageEdit::new(original, &mut buffers, &limits);
        let client = ClientView { client_id: "c+1", shard: 2, ..ClientView::default() };
        plugin.publish(&client, &mut message).ok()?;
        Some(message.topic().to_owned())
    }

    #[test]
    fn the_first_rule_that_matches_makes_the_whole_topic() {
        let factory = factory(&[
            ("old/#", r"^old/(\d+)/(?<rest>.*)$", "new/$1/by-${shard}/${rest}"),
            ("#", "^old/", "left/${topic}"),
            ("+/x", "middle", "$0"),
            ("#", "^client$", "of/${client_id}"),
            ("#", "^none$", ""),
        ])
        .unwrap();
        let mut plugin = factory.make(2).unwrap();
        for (topic, want) in [
            ("old/7/a/b", Some("new/7/by-2/a/b")),
            ("old/x", Some("left/old/x")),
            ("a-middle-z/x", Some("middle")),
            ("a-middle-z/y", Some("a-middle-z/y")),
            ("untouched", Some("untouched")),
            // A client identifier may have characters that a topic may not.
            ("client", None),
        ] {
            assert_eq!(rewrite(&mut *plugin, topic).as_deref(), want, "{topic}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_with_its_line_and_key() {
        let told = |filter, pattern, to| {
            let wrong = factory(&[(filter, pattern, to)]).err().expect(pattern);
            assert_eq!((wrong.len(), wrong[0].line), (1, 7));
            wrong[0].sentence.clone()
        };
        let sentence = told("#", "a(b", "x");
        assert_eq!(
            sentence,
            "[[plugin]] 'rename': key 'pattern': 'a(b' is no regular expression: unclosed group; allowed: the \
             syntax of Rust's regex crate"
        );
        assert!(told("#", r"\w{1000}{1000}", "x").contains("key 'pattern'"));
        assert!(told("a#", "a", "x").contains("key 'filter'"));
        assert!(told("#", "a", "$1").contains("key 'to': '$1' is no capture of the pattern"));
    }
}
