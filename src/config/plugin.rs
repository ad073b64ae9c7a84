//! The `[[plugin]]` tables: which plugins run, in which order, and what each does.

use std::path::Path;

use super::duration::TimeUnit;
use super::kind::{Kind, quoted};
use super::table::{self, Field, Node, Reader, Refusal, Shape};

pub const PLUGIN_COUNT_MAX: usize = 32;
pub const NAME_SIZE_MAX: usize = 64;
const FILTER_COUNT_MAX: usize = 256;
/// Of a filter, a topic, a pattern or a path.
const TEXT_SIZE_MAX: usize = 4096;
const PROPERTY_COUNT_MAX: usize = 64;
const RULE_COUNT_MAX: usize = 256;
const OPTION_COUNT_MAX: usize = 256;
const OPTION_SIZE_MAX: usize = 65_535;
/// The filters of a plugin or rule that names none: every topic that does not begin with `$`.
const ALL_TOPICS: &str = "#";

/// One plugin of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSettings {
    /// Unlike all others; a level of topics below `$SYS/broker/plugins`.
    pub name: String,
    pub work: PluginWork,
    pub on_error: OnError,
    /// A call that takes longer is named in the log.
    pub slow_ms: u64,
    /// Where its table stands, for messages.
    pub file: String,
    pub line: usize,
}

/// What a plugin does: its `kind` and the keys of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginWork {
    UserProperty { filters: Vec<String>, properties: Vec<PropertySettings> },
    TopicRewrite { rules: Vec<RewriteSettings> },
    Library { path: String, options: Vec<(String, String)> },
}

/// What becomes of a message or a request whose hook failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on as if the plugin were not there.
    Pass,
}

/// A user property to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertySettings {
    pub name: String,
    /// With variables.
    pub value: String,
    /// Those of the same name that the client sent are removed.
    pub replace: bool,
    pub line: usize,
}

/// Topics to rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteSettings {
    pub filter: String,
    /// A regular expression.
    pub pattern: String,
    /// The new topic, with captures and variables.
    pub to: String,
    pub line: usize,
}

const USER_PROPERTY: &str = "user-property";
const TOPIC_REWRITE: &str = "topic-rewrite";
const LIBRARY: &str = "library";

const DENY: &str = "deny";
const PASS: &str = "pass";

const fn text(size_max: usize) -> Shape {
    Shape::One(Kind::Text { size_min: 1, size_max })
}

const FIELDS: &[Field] = &[
    Field {
        name: "name",
        shape: text(NAME_SIZE_MAX),
        explanation: "Its own name, of letters, digits, - and _: in the log and in $SYS/broker/plugins/NAME.",
        default: "none, it must be given",
        example: "\"enrich\"",
    },
    Field {
        name: "kind",
        shape: Shape::One(Kind::Choice(&[USER_PROPERTY, TOPIC_REWRITE, LIBRARY])),
        explanation: "user-property adds to messages, topic-rewrite renames topics, library is a shared library of yours.",
        default: "none, it must be given",
        example: "\"user-property\"",
    },
    Field {
        name: "on_error",
        shape: Shape::One(Kind::Choice(&[DENY, PASS])),
        explanation: "What becomes of a message or request whose hook fails or panics.",
        default: "\"deny\"",
        example: "\"deny\"",
    },
    Field {
        name: "slow_ms",
        shape: Shape::One(Kind::Time { unit: TimeUnit::Milliseconds, min: 1, max: 60_000 }),
        explanation: "A call that takes longer is named in the log; it is measured by the tick of the kernel, some milliseconds.",
        default: "10",
        example: "10",
    },
    Field {
        name: "filters",
        shape: Shape::One(Kind::Texts { count_max: FILTER_COUNT_MAX, size_max: TEXT_SIZE_MAX }),
        explanation: "user-property: the topics it is for.",
        default: "[\"#\"]",
        example: "[\"sensors/#\"]",
    },
    Field {
        name: "properties",
        shape: Shape::Tables { fields: PROPERTY_FIELDS, count_max: PROPERTY_COUNT_MAX },
        explanation: "user-property: what is added, in this order; with replace = true in the place of what the client sent.",
        default: "none, user-property needs them",
        example: "[{ name = \"from\", value = \"${client_id}\", replace = true }, { name = \"site\", value = \"7\" }]",
    },
    Field {
        name: "rules",
        shape: Shape::Tables { fields: RULE_FIELDS, count_max: RULE_COUNT_MAX },
        explanation: "topic-rewrite: the first rule whose filter and pattern match makes the topic; $1 is a capture.",
        default: "none, topic-rewrite needs them",
        example: "[{ filter = \"old/#\", pattern = \"^old/(.+)$\", to = \"new/$1\" }]",
    },
    Field {
        name: "path",
        shape: text(TEXT_SIZE_MAX),
        explanation: "library: the file of the shared library; a relative path begins at the folder of this file.",
        default: "none, library needs it",
        example: "\"/usr/lib/ringmq/example.so\"",
    },
    Field {
        name: "options",
        shape: Shape::Options { count_max: OPTION_COUNT_MAX, size_max: OPTION_SIZE_MAX },
        explanation: "library: what the library is told.",
        default: "none",
        example: "{ level = \"3\" }",
    },
];

const PROPERTY_FIELDS: &[Field] = &[
    Field {
        name: "name",
        shape: text(TEXT_SIZE_MAX),
        explanation: "The name of the user property.",
        default: "none, it must be given",
        example: "\"from\"",
    },
    Field {
        name: "value",
        shape: Shape::One(Kind::Text { size_min: 0, size_max: TEXT_SIZE_MAX }),
        explanation: "Its value, with variables.",
        default: "none, it must be given",
        example: "\"${client_id}\"",
    },
    Field {
        name: "replace",
        shape: Shape::One(Kind::Flag),
        explanation: "It takes the place of those of the same name that the client sent.",
        default: "false",
        example: "true",
    },
];

const RULE_FIELDS: &[Field] = &[
    Field {
        name: "filter",
        shape: text(TEXT_SIZE_MAX),
        explanation: "The topics it is for.",
        default: "\"#\"",
        example: "\"old/#\"",
    },
    Field {
        name: "pattern",
        shape: text(TEXT_SIZE_MAX),
        explanation: "A regular expression that the topic must match.",
        default: "none, it must be given",
        example: "\"^old/(.+)$\"",
    },
    Field {
        name: "to",
        shape: text(TEXT_SIZE_MAX),
        explanation: "The whole new topic, with captures and variables.",
        default: "none, it must be given",
        example: "\"new/$1\"",
    },
];

/// The keys that a kind has and others have not.
fn own_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        USER_PROPERTY => &["filters", "properties"],
        TOPIC_REWRITE => &["rules"],
        _ => &["path", "options"],
    }
}

const ABOUT: &str = "\
# Plugins see and change what passes. Any number of [[plugin]] tables (at most 32), called in the order in which they
# stand here; each shard has its own instance. They follow all other keys. Variables in values and new topics:
# ${client_id} ${user_name} ${peer} ${listener} ${topic} ${qos} ${retain} ${payload_size} ${time_ms} ${shard} ${plugin};
# what is not known is empty, and $$ is a dollar.
";

/// The example of the printed configuration.
pub fn print_example() -> String {
    format!("{ABOUT}#\n{}", table::print_example("[[plugin]]", FIELDS))
}

/// Reads the value of the key `plugin`; `file` is its name for messages.
pub fn read(node: &Node, file: &str, wrong: &mut Vec<Refusal>) -> Vec<PluginSettings> {
    const ALLOWED: &str = "tables that each begin with [[plugin]]";
    let mut refuse = |line, what: &str| {
        wrong.push(Refusal { line, sentence: format!("key 'plugin': {what}; allowed: {ALLOWED}") });
    };
    let table::Form::List(nodes) = &node.form else {
        refuse(node.line, &format!("{} is no list of tables", node.written()));
        return Vec::new();
    };
    if nodes.len() > PLUGIN_COUNT_MAX {
        refuse(node.line, &format!("{} plugins are more than {PLUGIN_COUNT_MAX}", nodes.len()));
        return Vec::new();
    }
    let mut found: Vec<PluginSettings> = Vec::new();
    for node in nodes {
        let table::Form::Table(entries) = &node.form else {
            let sentence =
                format!("key 'plugin': {} is no table; allowed: {ALLOWED}", node.written());
            wrong.push(Refusal { line: node.line, sentence });
            continue;
        };
        let place = table::place("[[plugin]]", entries);
        let mut reader = Reader::new(place, node.line, entries, FIELDS, wrong);
        let Some(plugin) = read_one(&mut reader, file) else { continue };
        if found.iter().any(|other| other.name == plugin.name) {
            reader.refuse("name", "another plugin has this name");
        }
        found.push(plugin);
    }
    found
}

/// Whether a plugin can be called so.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=NAME_SIZE_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn read_one(reader: &mut Reader, file: &str) -> Option<PluginSettings> {
    let name = reader.text("name");
    let name = reader.require("name", name);
    if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
        let what = format!("'{name}' has other characters than letters, digits, - and _");
        reader.refuse("name", &what);
    }
    let on_error = match reader.word("on_error") {
        Some(PASS) => OnError::Pass,
        _ => OnError::Deny,
    };
    let slow_ms = reader.number("slow_ms").unwrap_or(PluginSettings::SLOW_MS);
    let kind = reader.word("kind");
    let kind = reader.require("kind", kind)?;
    for other in [USER_PROPERTY, TOPIC_REWRITE, LIBRARY].into_iter().filter(|other| *other != kind)
    {
        for key in own_keys(other) {
            if reader.has(key) {
                let what = format!("it is for kind = \"{other}\"");
                reader.refuse_with(
                    key,
                    &what,
                    &format!("with \"{kind}\": {}", own_keys(kind).join(", ")),
                );
            }
        }
    }
    let work = match kind {
        USER_PROPERTY => read_user_property(reader),
        TOPIC_REWRITE => read_topic_rewrite(reader),
        _ => read_library(reader),
    };
    let (file, line) = (file.to_owned(), reader.line());
    Some(PluginSettings { name: name?, work: work?, on_error, slow_ms, file, line })
}

fn read_user_property(reader: &mut Reader) -> Option<PluginWork> {
    let filters = match reader.has("filters") {
        true => reader.texts("filters"),
        false => Some(vec![ALL_TOPICS.to_owned()]),
    };
    let properties = reader.tables("properties", |reader| {
        let name = reader.text("name");
        let value = reader.text("value");
        let name = reader.require("name", name);
        let value = reader.require("value", value);
        let replace = reader.flag("replace").unwrap_or(false);
        Some(PropertySettings { name: name?, value: value?, replace, line: reader.line() })
    });
    reader.require("properties", (!properties.is_empty()).then_some(()))?;
    Some(PluginWork::UserProperty { filters: filters?, properties })
}

fn read_topic_rewrite(reader: &mut Reader) -> Option<PluginWork> {
    let rules = reader.tables("rules", |reader| {
        let filter = match reader.has("filter") {
            true => reader.text("filter"),
            false => Some(ALL_TOPICS.to_owned()),
        };
        let pattern = reader.text("pattern");
        let to = reader.text("to");
        let pattern = reader.require("pattern", pattern);
        let to = reader.require("to", to);
        Some(RewriteSettings { filter: filter?, pattern: pattern?, to: to?, line: reader.line() })
    });
    reader.require("rules", (!rules.is_empty()).then_some(()))?;
    Some(PluginWork::TopicRewrite { rules })
}

fn read_library(reader: &mut Reader) -> Option<PluginWork> {
    let path = reader.text("path");
    let path = reader.require("path", path);
    let options = reader.options("options");
    Some(PluginWork::Library { path: path?, options })
}

impl PluginSettings {
    /// A relative path of a library begins where the file of its table is.
    pub fn find_beside(&mut self, file: &Path) {
        if let (PluginWork::Library { path, .. }, Some(folder)) = (&mut self.work, file.parent()) {
            *path = folder.join(&*path).display().to_string();
        }
    }

    /// Unless the operator says otherwise.
    pub const SLOW_MS: u64 = 10;

    /// The table as TOML that reads back as the same plugin.
    pub fn print(&self) -> String {
        let on_error = match self.on_error {
            OnError::Deny => DENY,
            OnError::Pass => PASS,
        };
        let mut out = format!(
            "# Set by {}:{}.\n[[plugin]]\nname = {}\n",
            self.file,
            self.line,
            quoted(&self.name)
        );
        let mut say = |line: String| out.push_str(&(line + "\n"));
        say(format!("kind = \"{}\"", self.work.kind()));
        say(format!("on_error = \"{on_error}\""));
        say(format!("slow_ms = {}", self.slow_ms));
        match &self.work {
            PluginWork::UserProperty { filters, properties } => {
                let filters: Vec<_> = filters.iter().map(|filter| quoted(filter)).collect();
                say(format!("filters = [{}]", filters.join(", ")));
                say("properties = [".to_owned());
                for PropertySettings { name, value, replace, .. } in properties {
                    let (name, value) = (quoted(name), quoted(value));
                    say(format!("    {{ name = {name}, value = {value}, replace = {replace} }},"));
                }
                say("]".to_owned());
            }
            PluginWork::TopicRewrite { rules } => {
                say("rules = [".to_owned());
                for RewriteSettings { filter, pattern, to, .. } in rules {
                    let (filter, pattern, to) = (quoted(filter), quoted(pattern), quoted(to));
                    say(format!("    {{ filter = {filter}, pattern = {pattern}, to = {to} }},"));
                }
                say("]".to_owned());
            }
            PluginWork::Library { path, options } => {
                say(format!("path = {}", quoted(path)));
                let options: Vec<_> = options
                    .iter()
                    .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
                    .collect();
                say(format!("options = {{ {} }}", options.join(", ")));
            }
        }
        out
    }
}

impl PluginWork {
    pub fn kind(&self) -> &'static str {
        match self {
            PluginWork::UserProperty { .. } => USER_PROPERTY,
            PluginWork::TopicRewrite { .. } => TOPIC_REWRITE,
            PluginWork::Library { .. } => LIBRARY,
        }
    }
}
