//! The page against texts that mean harm, and against what it must show.

use serde_json::{Value, json};

use super::*;

const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onload='alert(1)",
    "<!--<script>\u{2028}alert(1)",
    "]]></style><svg onload=alert(1)>",
    "\u{202e}evil\u{0}&lt;b&gt;",
];

fn run(label: Option<f64>, hostile: &str) -> Value {
    let latency = label.map(|rate| {
        json!({
            "rate": rate, "count": 1000, "p50_us": 20.0, "p90_us": 40.0, "p99_us": 60.0, "p999_us": 1234.0, "max_us": 2000.0,
            "percentiles": [{"percentile": 0.0, "us": 10.0}, {"percentile": 99.0, "us": 60.0}, {"percentile": 100.0, "us": 2000.0}],
        })
    });
    let point = |at: f64| {
        json!({
            "at_s": at, "span_s": 1.0, "in_per_s": 1000.0, "out_per_s": 1000.0 * at, "missing": 3, "p50_us": 20.0,
            "p99_us": 60.0, "max_us": 2000.0, "broker_cores": 0.5, "generator_cores": 1.0, "resident_size": 10485760,
        })
    };
    json!({
        "pace": if label.is_some() { "rate" } else { hostile }, "rate": label, "kept": label.map(|_| false), "elapsed_s": 2.0,
        "in_per_s": 1000.0, "out_per_s": 2000000.0, "megabytes_per_s": 1.0, "cpu_us_per_message": 0.125, "contested": true,
        "bound": "generator", "resident_size": 10485760, "latency": latency, "series": [point(1.0), point(2.0)],
    })
}

fn outcome(hostile: &str) -> Value {
    json!({
        "out_per_s": 2000000.0, "runs": [run(None, hostile), run(Some(1000.0), hostile), run(Some(2000.0), hostile)],
        "faults": {"lost": 7, "dropped": 11}, "failures": [hostile], "warnings": [hostile], "interrupted": true, "steal": 0.1,
        "measures": [{"name": hostile, "value": 1.5, "unit": hostile}],
    })
}

fn head(hostile: &str) -> Value {
    json!({
        "date": hostile, "commit": hostile, "version": hostile, "command": hostile, "seconds": 2.0, "io": hostile, "io_warning": hostile,
        "unfit": [hostile], "machine": {"processor": hostile, "kernel": hostile, "core_count": 2}, "broker": hostile, "broker_version": hostile,
    })
}

fn measurement(hostile: &str) -> Document {
    let mut value = head(hostile);
    let settings = json!({"name": hostile, "about": hostile, "kind": "traffic"});
    value["scenarios"] =
        json!([{"settings": settings, "words": hostile, "outcome": outcome(hostile)}]);
    Document::parse(hostile.to_string(), value.to_string()).expect("a result")
}

fn comparison(hostile: &str) -> Document {
    let mut value = head(hostile);
    value["settings"] = json!({hostile: {"about": hostile, "kind": "traffic"}});
    let rounds = json!([outcome(hostile), outcome(hostile)]);
    value["outcomes"] = json!({hostile: {hostile: rounds, "mosquitto": rounds, "ringmq": rounds}});
    Document::parse(hostile.to_string(), value.to_string()).expect("a comparison")
}

/// The tags of a page, as `<name`, in order: text that is escaped has none.
fn tags(page: &str) -> Vec<&str> {
    let parts = page.split('<').skip(1);
    parts.map(|part| &part[..part.find([' ', '>']).unwrap_or(part.len())]).collect()
}

#[test]
fn no_text_breaks_out_of_its_place() {
    let documents = |text: &str| vec![measurement(text), comparison(text), measurement(text)];
    let harmless = page(&documents("harmless"));
    for hostile in HOSTILE {
        let page = page(&documents(hostile));
        assert_eq!(tags(&page), tags(&harmless), "{hostile}");
        for forbidden in ["onerror=", "onload="] {
            // As text it may stand there, as an attribute not: the quote or bracket in front of it is escaped.
            for (at, _) in page.match_indices(forbidden) {
                let tag = &page[page[..at].rfind('<').expect("a tag")..at];
                assert!(tag.contains('>') || tag.matches('"').count() % 2 == 1, "{tag}");
            }
        }
        assert!(!page.contains('\u{202e}') && !page.contains('\u{2028}') && !page.contains('\0'));
    }
}

#[test]
fn the_json_in_the_page_is_that_of_the_document() {
    for hostile in HOSTILE {
        let document = comparison(hostile);
        let page = page(std::slice::from_ref(&document));
        let (_, rest) = page
            .split_once("<script type=\"application/json\" id=\"result-1\">")
            .expect("it is there");
        let (text, _) = rest.split_once("</script>").expect("it ends");
        let [embedded, original] =
            [text, &document.text].map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        assert_eq!(embedded, original);
    }
}

#[test]
fn nothing_is_asked_for_from_outside() {
    let page = page(&[measurement("a name"), comparison("a name")]);
    assert!(page.contains("default-src 'none'"), "{page}");
    for outside in ["http:", "https:", "src=", "@import", "url(", "<link", "<iframe", "xlink"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let scripts = page.matches("<script").count();
    assert_eq!(scripts, page.matches("<script type=\"application/json\"").count());
}

#[test]
fn the_page_says_what_was_lost_and_why_and_what_must_be_known() {
    let page = page(&[comparison("a name")]);
    for words in [
        "ringmq: 14 messages were lost",
        "ringmq: 22 messages were dropped at a limit",
        "mosquitto: the generator was the limit in 2 of 2 rounds",
        "not quiet: other programs used the broker&#39;s",
        "not quiet: the hypervisor took processor time in 2 of 2 rounds",
        "interrupted",
        "1,000/s: 1,000 were sent a second",
        "each dot is a round",
        "lower is better",
        "higher is better",
        "messages were missing",
        "2,000,000",
        "0.125 µs",
    ] {
        assert!(page.contains(words) || page.replace("'", "&#39;").contains(words), "{words}");
    }
    assert!(!page.contains("e+0") && !page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn results_that_were_kept_are_shown() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    let files = std::fs::read_dir(folder)
        .expect("it is there")
        .map(|entry| entry.expect("readable").path());
    let is_result = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|end| end == "json")
            && !path.to_string_lossy().contains("/scaling-")
    };
    let mut shown = 0;
    for path in files.filter(is_result) {
        let document = match Document::read(&path) {
            Ok(document) => document,
            // The first comparison was kept before there were outcomes.
            Err(reason) => {
                assert!(reason.contains("neither a result of ringmq-bench"), "{reason}");
                continue;
            }
        };
        let page = page(std::slice::from_ref(&document));
        let broker = &document.scenarios[0].brokers[0].broker;
        assert!(page.contains(broker.as_str()) && page.contains("<svg"), "{}", path.display());
        shown += 1;
    }
    assert!(shown >= 5, "{shown}");
}
