//! What `scripts/compare` prints of runs that were kept, on screens of several widths.
#![cfg(feature = "shell")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const WIDTHS: [usize; 4] = [40, 80, 100, 160];

fn has_python() -> bool {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        println!("SKIPPED the tables of scripts/compare: there is no python3");
    }
    is_there
}

/// The tables of a kept run; `None` where there is no Python.
fn shown(file: &Path, columns: usize) -> Option<String> {
    let mut command = Command::new("scripts/compare");
    command.arg("--show").arg(file).env("COLUMNS", columns.to_string());
    if !has_python() {
        return None;
    }
    let output = command.output().expect("scripts/compare starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn kept() -> Vec<PathBuf> {
    let entries = fs::read_dir("bench/results").expect("it is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let is_comparison = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("text");
        name.starts_with("compare-") && name.ends_with(".json")
    };
    // The first one was kept before there were tables.
    let has_table = |path: &PathBuf| report(path).get("table").is_some();
    let kept: Vec<PathBuf> = paths.filter(is_comparison).filter(has_table).collect();
    assert!(!kept.is_empty());
    kept
}

fn report(file: &Path) -> serde_json::Value {
    let text = fs::read_to_string(file).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

fn list(value: &serde_json::Value) -> &[serde_json::Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn check_width(text: &str, width: usize) {
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{width}: {line}\n{text}");
    }
}

#[test]
fn kept_runs_are_shown_whole_on_any_screen() {
    for file in kept() {
        let report = report(&file);
        for width in WIDTHS {
            let Some(text) = shown(&file, width) else { return };
            check_width(&text, width);
            let words: Vec<&str> = text.split_whitespace().collect();
            for row in list(&report["rows"]) {
                for name in ["scenario", "broker"] {
                    let name = row[name].as_str().expect("text");
                    assert!(words.contains(&name), "{width}: {name}\n{text}");
                }
                for (figure, digits) in [("cpu_us", 3), ("cpu_us_at_rate", 2)] {
                    let Some(value) = row["figures"][figure]["median"].as_f64() else { continue };
                    let figure = format!("{value:.digits$}");
                    let is_there = words.contains(&figure.as_str());
                    assert!(is_there, "{width}: {figure}\n{text}");
                }
            }
            let targets = list(&report["table"]);
            let held = targets.iter().filter(|row| row["holds"] == true).count();
            let sum = format!("{held} of {} hold", targets.len());
            assert_eq!(!targets.is_empty(), text.contains(&sum), "{width}: {sum}\n{text}");
        }
    }
}

#[test]
fn what_is_no_comparison_is_refused_in_a_sentence() {
    for (file, sentence) in [
        ("bench/results/compare-mosquitto-2.0.11.json", "it has no "),
        ("no/such/file.json", "No such file"),
        ("README.md", "--show README.md: "),
    ] {
        let mut command = Command::new("scripts/compare");
        if !has_python() {
            return;
        }
        let output = command.args(["--show", file]).output().expect("scripts/compare starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(sentence), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn both_batches_stand_beside_the_figures_they_belong_to() {
    let figure = |value: f64| serde_json::json!({"median": value, "min": value, "max": value});
    let mut report = report(&kept()[0]);
    let mut row = list(&report["rows"])[0].clone();
    let scenario = row["scenario"].as_str().expect("text").to_string();
    for (name, value) in [
        ("out_per_s", 1_000_000.0),
        ("cpu_us", 0.125),
        ("per_write", 5.0),
        ("per_read", 1234.0),
        ("cpu_us_at_rate", 17.5),
        ("per_write_at_rate", 1.5),
        ("per_read_at_rate", 2.5),
    ] {
        row["figures"][name] = figure(value);
    }
    report["settings"][&scenario]["words"] = "1 to 50, 64 B, QoS 0, batch 5".into();
    report["table"] = serde_json::json!([{
        "about": "a row", "scenario": scenario, "base_scenario": scenario, "broker": row["broker"], "base": "mosquitto",
        "measure": "cpu_us", "value": 0.125, "base_value": 0.25, "ratio": 0.5, "target": "-", "holds": null,
        "per_write": 5.0, "per_read": 1234.0,
    }]);
    report["rows"] = serde_json::json!([row]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("both_batches.json");
    fs::write(&file, report.to_string()).expect("written");
    let Some(text) = shown(&file, 250) else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    let holds = |wanted: &str| {
        let wanted: Vec<&str> = wanted.split(' ').collect();
        words.windows(wanted.len()).any(|part| part == wanted)
    };
    assert!(holds("1 to 50, 64 B, QoS 0, batch 5"), "{text}");
    assert!(holds("1,000,000 0.125") && holds("5.0 1,234") && holds("17.50 1.5 2.5"), "{text}");
    assert!(holds("0.125 0.250 of mosquitto 0.50 - - 5.0 1,234"), "{text}");
    assert!(text.contains("0 of 0 hold"), "{text}");
}
