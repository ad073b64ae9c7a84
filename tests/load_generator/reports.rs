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
