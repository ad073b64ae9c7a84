//! The account of the normative statements: which scripts or tests show each, or why none has to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::script::Script;

/// Statements of MQTT 5.0 in all.
const STATEMENT_COUNT: usize = 251;

enum Duty {
    /// The server's: shown by scripts, or by the tests that the line names as `FILE::FUNCTION`.
    Server(Vec<String>),
    /// The client's; the reason says what is left for a server.
    Client,
    /// A feature that RingMQ does not have, and that the specification leaves open.
    NotApplicable,
}

/// The account as text, or what is wrong with it.
pub(crate) fn account(scripts: &[Script]) -> Result<String, String> {
    let text = include_str!("statements.txt");
    let mut duties = BTreeMap::new();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match duty(line) {
            Ok((name, duty)) => {
                if duties.insert(name.to_owned(), duty).is_some() {
                    wrong.push(format!("statements.txt:{}: {name} twice", index + 1));
                }
            }
            Err(error) => wrong.push(format!("statements.txt:{}: {error}: {line}", index + 1)),
        }
    }
    if duties.len() != STATEMENT_COUNT {
        wrong.push(format!("{} statements, {STATEMENT_COUNT} there are", duties.len()));
    }
    let mut shown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for script in scripts {
        let place = format!("{}:{}", script.file, script.line);
        if !names.insert(&script.name) {
            wrong.push(format!("{place}: a second script {}", script.name));
        }
        for statement in &script.shows {
            match duties.get(statement) {
                None => wrong.push(format!("{place}: no statement {statement}")),
                Some(Duty::NotApplicable) => {
                    wrong.push(format!("{place}: {statement} is not applicable"))
                }
                Some(_) => shown.entry(statement).or_default().push(&script.name),
            }
        }
    }
    let mut counts = [0; 4];
    for (name, duty) in &duties {
        let by_scripts = shown.contains_key(name.as_str());
        counts[match duty {
            Duty::Server(tests) => {
                wrong.extend(tests.iter().filter_map(|test| missing_test(name, test)));
                if !by_scripts && tests.is_empty() {
                    wrong.push(format!("{name} is the server's, and nothing shows it"));
                }
                0
            }
            Duty::Client if by_scripts => 1,
            Duty::Client => 2,
            Duty::NotApplicable => 3,
        }] += 1;
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let [server, checked, client, not_applicable] = counts;
    Ok(format!(
        "{} of {STATEMENT_COUNT} statements: {server} of the server shown by {} scripts and tests, {checked} of clients \
         that the server is shown to enforce, {client} of clients alone, {not_applicable} not applicable",
        duties.len(),
        scripts.len(),
    ))
}

/// `MQTT-1.2.3-4 server [FILE::FUNCTION ..]`, `.. client REASON` or `.. not-applicable REASON`.
fn duty(line: &str) -> Result<(&str, Duty), &'static str> {
    let mut words = line.splitn(3, ' ');
    let (name, kind, rest) =
        (words.next().unwrap_or(""), words.next(), words.next().unwrap_or("").trim());
    if !name.starts_with("MQTT-") {
        return Err("a line begins with a statement");
    }
    let duty = match kind {
        Some("server") => Duty::Server(rest.split_whitespace().map(str::to_owned).collect()),
        Some(_) if rest.split_whitespace().count() < 3 => return Err("the reason is missing"),
        Some("client") => Duty::Client,
        Some("not-applicable") => Duty::NotApplicable,
        _ => return Err("server, client or not-applicable"),
    };
    Ok((name, duty))
}

/// What is wrong with a test named as `FILE::FUNCTION`.
fn missing_test(statement: &str, test: &str) -> Option<String> {
    let found = test.split_once("::").is_some_and(|(file, function)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains(&format!("#[test]\nfn {function}()"))
            || text.contains(&format!("#[test]\n    fn {function}()"))
    });
    if found { None } else { Some(format!("{statement}: there is no test {test}")) }
}
