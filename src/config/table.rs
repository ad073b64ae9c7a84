//! Tables of the file, such as `[[plugin]]`: each is read by its fields, and all that is wrong is told with its line.

use super::kind::{Kind, Value, Written};

/// A value of the file. Lines count from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'a> {
    pub line: usize,
    pub form: Form<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Form<'a> {
    Plain(Written<'a>),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
}

/// One `name = value` of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// Where the name stands.
    pub line: usize,
    pub node: Node<'a>,
}

/// What a table may have.
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// One line.
    pub explanation: &'static str,
    /// What holds without it, as it is printed: a value, or words.
    pub default: &'static str,
    /// TOML for the printed example.
    pub example: &'static str,
}

/// The form of a field's value.
#[derive(Clone, Copy)]
pub enum Shape {
    One(Kind),
    /// A list of tables, inline or each below its own `[[..]]`.
    Tables {
        fields: &'static [Field],
        count_max: usize,
    },
    /// A table of names that are the operator's own: texts, numbers and flags, all taken as text.
    Options {
        count_max: usize,
        size_max: usize,
    },
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub line: usize,
    pub sentence: String,
}

/// One table while it is read.
pub struct Reader<'r> {
    /// The table as an operator knows it: `[[plugin]] 'name'`.
    place: String,
    line: usize,
    entries: &'r [Entry<'r>],
    fields: &'static [Field],
    wrong: &'r mut Vec<Refusal>,
}

impl Node<'_> {
    /// The value for a kind to read.
    pub fn written(&self) -> Written<'_> {
        match &self.form {
            Form::Plain(written) => written.clone(),
            Form::List(list) => Written::List(list.iter().map(Node::written).collect()),
            Form::Table(_) => Written::Other("table"),
        }
    }
}

impl Shape {
    fn allowed(&self) -> String {
        match self {
            Shape::One(kind) => kind.allowed(),
            Shape::Tables { fields, count_max } => {
                let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                format!("1 to {count_max} tables of {}", names.join(", "))
            }
            Shape::Options { count_max, size_max } => format!(
                "a table of at most {count_max} names of your own, each with a text (at most {size_max} bytes), a \
                 number, true or false"
            ),
        }
    }
}

impl<'r> Reader<'r> {
    /// Begins to read a table that stands at `line`; refuses every name that none of the `fields` has.
    pub fn new(
        place: String,
        line: usize,
        entries: &'r [Entry<'r>],
        fields: &'static [Field],
        wrong: &'r mut Vec<Refusal>,
    ) -> Reader<'r> {
        for entry in entries {
            if fields.iter().any(|field| field.name == entry.name) {
                continue;
            }
            let names = || fields.iter().map(|field| field.name);
            let meant = did_you_mean(entry.name, names());
            let allowed: Vec<_> = names().collect();
            wrong.push(Refusal {
                line: entry.line,
                sentence: format!(
                    "{place}: key '{}': there is no such key{meant}; allowed: {}",
                    entry.name,
                    allowed.join(", ")
                ),
            });
        }
        Reader { place, line, entries, fields, wrong }
    }

    pub fn line(&self) -> usize {
        self.line
    }

    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The value of a field, if it is there and right.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        let Shape::One(kind) = self.field(name).shape else { panic!("{name} has no kind") };
        let entry = self.entry(name)?;
        match kind.read(&entry.node.written()) {
            Ok(value) => Some(value),
            Err(what) => {
                self.refuse(name, &what);
                None
            }
        }
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        let Value::Text(text) = value else { panic!("{name} is a text: {value:?}") };
        Some(text)
    }

    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let Value::Texts(texts) = value else { panic!("{name} is a list: {value:?}") };
        Some(texts)
    }

    pub fn word(&mut self, name: &str) -> Option<&'static str> {
        let value = self.value(name)?;
        let Value::Word(word) = value else { panic!("{name} is a word: {value:?}") };
        Some(word)
    }

    pub fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.value(name)?;
        let Value::Number(number) = value else { panic!("{name} is a number: {value:?}") };
        Some(number)
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let Value::Flag(flag) = value else { panic!("{name} is a flag: {value:?}") };
        Some(flag)
    }

    /// The tables below a field, those that `read` makes something of.
    pub fn tables<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Shape::Tables { fields, count_max } = self.field(name).shape else {
            panic!("{name} has no tables")
        };
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let nodes = match &entry.node.form {
            Form::List(nodes) if (1..=count_max).contains(&nodes.len()) => nodes,
            Form::List(nodes) => {
                self.refuse(name, &format!("{} tables are out of bounds", nodes.len()));
                return Vec::new();
            }
            _ => {
                self.refuse(name, &format!("{} is no list of tables", entry.node.written()));
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for node in nodes {
            let Form::Table(entries) = &node.form else {
                self.refuse(name, &format!("{} is no table", node.written()));
                continue;
            };
            let place = format!("{}: {name}", self.place);
            let mut reader = Reader::new(place, node.line, entries, fields, &mut *self.wrong);
            found.extend(read(&mut reader));
        }
        found
    }

    /// The names and values of a field that is the operator's own table, in the order of the file.
    pub fn options(&mut self, name: &str) -> Vec<(String, String)> {
        let Shape::Options { count_max, size_max } = self.field(name).shape else {
            panic!("{name} has no options")
        };
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let Form::Table(entries) = &entry.node.form else {
            self.refuse(name, &format!("{} is no table", entry.node.written()));
            return Vec::new();
        };
        if entries.len() > count_max {
            self.refuse(name, &format!("{} names are out of bounds", entries.len()));
            return Vec::new();
        }
        let mut found = Vec::new();
        for option in entries {
            let text = match option.node.written() {
                Written::Text(text) if text.len() <= size_max => text.to_owned(),
                Written::Number(number) => number.to_string(),
                Written::Flag(flag) => flag.to_string(),
                other => {
                    let what = format!("'{}': {other} is not taken", option.name);
                    let allowed = self.field(name).shape.allowed();
                    self.refuse_at(option.line, name, &what, &allowed);
                    continue;
                }
            };
            found.push((option.name.to_owned(), text));
        }
        found
    }

    /// The value, or a refusal that it is missing; one that was wrong has been refused already.
    pub fn require<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.has(name) {
            self.refuse(name, "it is missing");
        }
        value
    }

    /// Refuses a field's value, with what the field allows.
    pub fn refuse(&mut self, name: &str, what: &str) {
        let allowed = self.field(name).shape.allowed();
        self.refuse_with(name, what, &allowed);
    }

    pub fn refuse_with(&mut self, name: &str, what: &str, allowed: &str) {
        let line = self.entry(name).map_or(self.line, |entry| entry.line);
        self.refuse_at(line, name, what, allowed);
    }

    fn refuse_at(&mut self, line: usize, name: &str, what: &str, allowed: &str) {
        let sentence = format!("{}: key '{name}': {what}; allowed: {allowed}", self.place);
        self.wrong.push(Refusal { line, sentence });
    }

    fn entry(&self, name: &str) -> Option<&'r Entry<'r>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn field(&self, name: &str) -> &'static Field {
        self.fields.iter().find(|field| field.name == name).expect("only fields are asked for")
    }
}

/// What a table is called in sentences: by its header, and by its name if it has one.
pub fn place(header: &str, entries: &[Entry]) -> String {
    match entries.iter().find(|entry| entry.name == "name").map(|entry| &entry.node.form) {
        Some(Form::Plain(Written::Text(name))) => format!("{header} '{name}'"),
        _ => header.to_owned(),
    }
}

/// The fields as comments that become a table without their `# `.
pub fn print_example(header: &str, fields: &[Field]) -> String {
    let mut out = format!("# {header}\n");
    for field in fields {
        out.push_str(&format!(
            "#   # {}\n#   # Default: {}. Allowed: {}.\n#   {} = {}\n",
            field.explanation,
            field.default,
            field.shape.allowed(),
            field.name,
            field.example
        ));
    }
    out
}

/// `; did you mean 'NAME'?` with the one that was probably meant; nothing if none is near.
pub fn did_you_mean(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let name = name.replace('-', "_").to_lowercase();
    let nearest = known.map(|known| (strsim::damerau_levenshtein(&name, known), known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= (nearest.len() / 3).max(1) => {
            format!("; did you mean '{nearest}'?")
        }
        _ => String::new(),
    }
}
