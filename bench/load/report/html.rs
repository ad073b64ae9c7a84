//! The report as one HTML page: nothing is asked for from outside, nothing in it runs, and its figures are those of the JSON that
//! it holds.

mod axis;
mod chart;
mod figures;
mod seconds;
mod sections;
mod words;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use ringmq::printable::{is_unfit, one_line};

use super::kept::{Compared, Document, Rounds};

const STYLE: &str = include_str!("html/page.css");

/// No script, no request: what stands in the page is all that there is.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of all documents together.
pub(super) fn page(documents: &[Document]) -> String {
    let scenarios = side_by_side(documents);
    let title = words::title(documents);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    @for sentence in words::measured(documents, &scenarios) { p { (sentence) } }
                }
                main {
                    (sections::overview(&scenarios))
                    (sections::problems(&scenarios))
                    @for (index, scenario) in scenarios.iter().enumerate() {
                        (sections::scenario(index, scenario))
                    }
                    (sections::legend())
                    (sections::origin(documents))
                    @for (index, document) in documents.iter().enumerate() { (embedded(index, document)) }
                }
            }
        }
    };
    page.into_string()
}

/// The document itself. In JSON `<`, `>`, `&`, and what ends a line or cannot be seen, stand in strings only, where they can be
/// escaped.
fn embedded(index: usize, document: &Document) -> Markup {
    let mut text = String::with_capacity(document.text.len() + 1024);
    for char in document.text.trim().chars() {
        match char {
            '\n' | '\r' | '\t' => text.push(char),
            char if matches!(char, '<' | '>' | '&') || is_unfit(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    text += &format!("\\u{unit:04x}");
                }
            }
            char => text.push(char),
        }
    }
    html! { script type="application/json" id=(format!("result-{}", index + 1)) { (PreEscaped(text)) } }
}

/// The scenarios of all documents: those of one name in one section, each broker with a name of its own.
fn side_by_side(documents: &[Document]) -> Vec<Compared> {
    let mut sections: Vec<Compared> = Vec::new();
    for document in documents {
        for scenario in &document.scenarios {
            let shown = shown(scenario);
            let Some(section) = sections.iter_mut().find(|section| section.name == shown.name)
            else {
                sections.push(shown);
                continue;
            };
            for mut rounds in shown.brokers {
                let is_taken =
                    |name: &str| section.brokers.iter().any(|known| known.broker == name);
                if is_taken(&rounds.broker) {
                    let of = [document.head.commit.as_str(), document.source.as_str()];
                    let named = of.map(|of| format!("{} ({})", rounds.broker, one_line(of)));
                    let numbered = (2..).map(|number| format!("{} ({number})", rounds.broker));
                    let mut names = named.into_iter().chain(numbered);
                    rounds.broker = names.find(|name| !is_taken(name)).expect("numbers do not end");
                }
                section.brokers.push(rounds);
            }
        }
    }
    let mut names: Vec<String> = Vec::new();
    for section in &mut sections {
        section.brokers.sort_by_key(|rounds| !words::is_ringmq(&rounds.broker));
        for rounds in &section.brokers {
            if !names.contains(&rounds.broker) {
                names.push(rounds.broker.clone());
            }
        }
    }
    names.sort_by_key(|name| !words::is_ringmq(name));
    for rounds in sections.iter_mut().flat_map(|section| &mut section.brokers) {
        let place = names.iter().position(|name| *name == rounds.broker);
        rounds.place = place.expect("it is among them");
    }
    sections
}

/// With names as they may be shown.
fn shown(scenario: &Compared) -> Compared {
    let brokers = scenario
        .brokers
        .iter()
        .map(|rounds| Rounds { broker: one_line(&rounds.broker).into_owned(), ..rounds.clone() });
    Compared {
        name: one_line(&scenario.name).into_owned(),
        words: one_line(&scenario.words).into_owned(),
        brokers: brokers.collect(),
        ..scenario.clone()
    }
}

#[cfg(test)]
mod tests;
