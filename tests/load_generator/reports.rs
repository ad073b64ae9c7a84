//! What the bench writes of a run, read by others: Python's own readers, and a checker of JSON Schemas.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::BENCH;

/// A file or folder of the tests' own, which is not there yet.
fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&place);
    let _ = fs::remove_file(&place);
    place
}

/// Past the capture of a passing test's output.
fn skip(what: &str, reason: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED {what}: {reason}");
}

fn python(interpreter: &str, script: &str, arguments: &[&Path]) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load_generator").join(script);
    let output = Command::new(interpreter).arg(script).args(arguments).output();
    if output.is_err() {
        skip("what the bench writes, read in Python", "there is no python3");
    }
    output.ok()
}

fn check_with_python(interpreter: &str, script: &str, arguments: &[&Path]) {
    let Some(output) = python(interpreter, script, arguments) else { return };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}\n{said}");
}

/// A Python with jsonschema; `None`, with the reason printed, where it cannot be had.
fn python_with_jsonschema() -> Option<String> {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
    let output = Command::new(install).arg("jsonschema").stdin(Stdio::null()).output();
    let output = output.expect("it starts");
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).expect("text").trim().to_string());
    }
    skip("the schema of the bench's JSON", String::from_utf8_lossy(&output.stderr).trim());
    None
}

fn run(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).output().expect("the bench starts")
}

/// A short run of each kind.
const EACH_KIND: &str = "--json --scenario p2p-qos1 --scenario p2p-rate --scenario connect-storm --scenario idle \
    --scenario stalled-subscriber --stall 0.4 --rounds 1 --connections 10 --seconds 1.3 --warm-up 0.1";

#[test]
fn a_curve_is_what_the_schema_says() {
    let folder = place("curve-schema");
    fs::create_dir_all(&folder).expect("a folder");
    let [schema, result] = ["schema.json", "result.json"].map(|name| folder.join(name));
    fs::write(&schema, run(&["schema"]).stdout).expect("a file");
    let short = "--json --scenario p2p-qos0 --seconds 0.2 --warm-up 0.1";
    let Some(python) = python_with_jsonschema() else { return };
    for rates in ["--rates 1k,2k --p99 1us", "--find-max --rate 100k --max 1us"] {
        let arguments = format!("{short} {rates}");
        let output = run(&arguments.split_whitespace().collect::<Vec<_>>());
        fs::write(&result, output.stdout).expect("a file");
        check_with_python(&python, "check_schema.py", &[&schema, &result]);
    }
}

#[test]
fn a_result_is_what_its_schema_says_and_agrees_with_itself() {
    let folder = place("schema");
    fs::create_dir_all(&folder).expect("a folder");
    let schema = run(&["schema"]);
    assert!(schema.status.success(), "{schema:?}");
    let result = run(&EACH_KIND.split_whitespace().collect::<Vec<_>>());
    let files = [("schema.json", &schema.stdout), ("result.json", &result.stdout)];
    let [schema, result] = files.map(|(name, text)| {
        fs::write(folder.join(name), text).expect("written");
        folder.join(name)
    });
    check_with_python("python3", "check_result.py", &[&result]);
    if let Some(interpreter) = python_with_jsonschema() {
        check_with_python(&interpreter, "check_schema.py", &[&schema, &result]);
        // A checker that takes everything would not see a key that nobody has described.
        let text = fs::read_to_string(&result).expect("it was written");
        fs::write(&result, text.replacen("\"elapsed_s\"", "\"elapsed\"", 1)).expect("written");
        let wrong = python(&interpreter, "check_schema.py", &[&schema, &result]);
        assert_eq!(wrong.expect("it started").status.code(), Some(1));
    }
}

#[test]
fn the_command_in_a_result_can_be_pasted_into_a_shell() {
    let scenario = place("it's a scenario.toml");
    fs::write(&scenario, "payload = 32\n").expect("written");
    let short = "--json --seconds 0.2 --warm-up 0 --rate 0 --window 10 --scenario";
    let mut arguments: Vec<&str> = short.split_whitespace().collect();
    arguments.push(scenario.to_str().expect("text"));
    let command_of = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["command"].as_str().expect("text").to_string()
    };
    let first = command_of(run(&arguments));
    let again = Command::new("sh").args(["-c", &first]).output().expect("a shell");
    assert_eq!(command_of(again), first);
}

/// Short, with and without latency.
const SHORT: &str =
    "--scenario p2p-qos1 --scenario idle --connections 10 --seconds 1.2 --warm-up 0.1 --rate 2000";

fn text_of(path: &Path) -> String {
    path.to_str().expect("text").to_string()
}

#[test]
fn page_csv_and_histograms_say_what_the_json_says() {
    let folder = place("files");
    fs::create_dir_all(folder.join("hgrm")).expect("a folder");
    let [result, table, page, histograms] =
        ["result.json", "table.csv", "page.html", "hgrm"].map(|name| folder.join(name));
    let named = [("--csv", &table), ("--html", &page), ("--hgrm", &histograms)];
    let mut arguments: Vec<String> = SHORT.split_whitespace().map(str::to_string).collect();
    arguments.push("--json".to_string());
    let files = named.map(|(option, path)| [option.to_string(), text_of(path)]);
    arguments.extend(files.as_flattened().to_vec());
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (_, path) in named {
        assert!(said.contains(&format!("written to {}", path.display())), "{said}");
    }
    fs::write(&result, &output.stdout).expect("written");
    check_with_python("python3", "check_files.py", &[&result, &table, &page, &histograms]);

    // A result that was kept says the same.
    let again = folder.join("again");
    fs::create_dir_all(again.join("hgrm")).expect("a folder");
    let [table, page, histograms] = ["table.csv", "page.html", "hgrm"].map(|name| again.join(name));
    let [kept, csv, html, hgrm] = [&result, &table, &page, &histograms].map(|path| text_of(path));
    let output = run(&["report", &kept, "--csv", &csv, "--html", &html, "--hgrm", &hgrm]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check_with_python("python3", "check_files.py", &[&result, &table, &page, &histograms]);
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_the_table_is_printed_all_the_same() {
    let short = "--scenario p2p-qos0 --seconds 0.2 --warm-up 0 --rate 0";
    for file in ["/dev/full", "/no/such/folder/file"] {
        for option in ["--html", "--csv"] {
            let mut arguments: Vec<&str> = short.split_whitespace().collect();
            arguments.extend([option, file]);
            let output = run(&arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            let table = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(&format!("{file} cannot be written: ")), "{said}");
            assert!(table.contains("out msg/s") && table.contains("p2p-qos0"), "{table}");
        }
    }
    let folder = place("none");
    let output = run(&["--scenario", "no-such", "--csv", &text_of(&folder)]);
    assert!(!output.status.success() && !folder.exists());
}

#[test]
fn results_of_comparisons_become_a_page() {
    let page = place("comparison.html");
    let kept = "bench/results/compare-2026-11-28T190628Z-d9058a8b4a.json";
    let output = run(&["report", kept, "--html", &text_of(&page)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&page).expect("it was written");
    for words in ["mosquitto", "floor", "fan-out", "each dot is a round", "scripts/compare --table"]
    {
        assert!(text.contains(words), "{words}");
    }
    for (arguments, sentence) in [
        (&["report", kept][..], "what is to be written?"),
        (&["report", "no-such.json", "--html", "x"], "no-such.json: No such file"),
        (&["report", "README.md", "--html", "x"], "README.md: expected value"),
        (&["report", "bench/results/README.md", "--csv", "x"], "README.md: "),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.contains(sentence)), (Some(2), true), "{said}");
    }
}
