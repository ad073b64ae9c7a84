//! What `scripts/compare` prints of runs that were kept, on screens of several widths, and how it treats its peers.
#![cfg(feature = "load")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

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

/// A folder of its own for a run of `scripts/compare`, with the binaries under test as those that `cargo` would have built.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("comparison-{name}"));
        let _ = fs::remove_dir_all(&folder);
        let (bin, release) = (folder.join("bin"), folder.join("release"));
        fs::create_dir_all(&bin).expect("a folder");
        fs::create_dir_all(&release).expect("a folder");
        let cargo = bin.join("cargo");
        fs::write(&cargo, "#!/bin/sh\necho \"$*\" >>\"$STAGE/built\"\n").expect("a file");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("its mode");
        symlink(env!("CARGO_BIN_EXE_ringmq"), release.join("ringmq")).expect("a link");
        symlink(env!("CARGO_BIN_EXE_ringmq-bench"), release.join("ringmq-bench")).expect("a link");
        Stage { folder }
    }

    /// A peer file: RingMQ by another name, behind `before` on its command line.
    fn peer(&self, file: &str, name: &str, before: &str) -> PathBuf {
        let path = self.folder.join(file);
        let text = format!(
            r#"
            name = "{name}"
            about = "RingMQ by another name"
            mqtt = [3]
            tried = true
            [find]
            program = "ringmq"
            paths = ["{}"]
            version = ["{{program}}", "--version"]
            [start]
            command = [{before}"{{program}}", "serve", "--listen", "127.0.0.1:{{port}}", "--cores", "{{core}}"]
            "#,
            self.folder.join("release").display()
        );
        fs::write(&path, text).expect("a file");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/compare"));
        command
            .args(arguments)
            .args(["--no-counts", "--no-chart", "--output"])
            .arg(self.folder.join("kept"))
            .args(["--", "--publishers", "2", "--subscribers", "2", "--warm-up", "0.1"])
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("STAGE", &self.folder)
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("COLUMNS", "160");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("scripts/compare starts")
    }

    fn kept(&self) -> serde_json::Value {
        report(&self.folder.join("kept.json"))
    }
}

fn can_compare() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        println!(
            "SKIPPED runs of scripts/compare: one core for the broker and one for the bench are needed"
        );
    }
    cores >= 2 && has_python()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether a line has these words in this order, as the cells of a table.
fn has_cells(text: &str, wanted: &[&str]) -> bool {
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut left = words.iter();
        wanted.iter().all(|wanted| left.any(|word| word == wanted))
    })
}

const SHORT: [&str; 6] = ["--rounds", "1", "--seconds", "0.3", "--scenario", "p2p-qos0-one"];

#[test]
fn peers_that_misbehave_are_noticed_and_ended() {
    if !has_python() {
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-m", "unittest", "discover", "--start-directory", "tests/comparison"]);
    let output = command.output().expect("python3 starts");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_broker_of_a_file_is_measured_beside_ringmq() {
    if !can_compare() {
        return;
    }
    let stage = Stage::new("file");
    let file = stage.peer("mine.toml", "mine", "");
    // A scenario of MQTT 5.0, which this peer does not speak.
    let mut arguments = SHORT.to_vec();
    arguments.extend(["--scenario", "p2p-qos0-v5", "--broker", "ringmq"]);
    arguments.extend(["--peer-file", file.to_str().expect("text")]);
    let output = stage.run(&arguments);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let kept = stage.kept();
    let pairs: Vec<(&str, &str)> = list(&kept["rows"])
        .iter()
        .filter_map(|row| Some((row["scenario"].as_str()?, row["broker"].as_str()?)))
        .collect();
    let wanted = [("p2p-qos0-one", "ringmq"), ("p2p-qos0-one", "mine"), ("p2p-qos0-v5", "ringmq")];
    assert_eq!(pairs, wanted, "{text}");
    assert!(has_cells(&text, &["mine", "no", "MQTT", "5.0"]), "{text}");
    let mine = &kept["brokers"]["mine"];
    assert_eq!(mine["version"], env!("CARGO_PKG_VERSION"));
    assert!(mine["command"].as_str().is_some_and(|text| text.contains("serve")), "{mine}");
    assert!(kept["command"].as_str().is_some_and(|text| text.contains("--peer-file")));
    // The command that built what was measured, and nothing else.
    let built = fs::read_to_string(stage.folder.join("built")).expect("cargo was called");
    assert_eq!(built.lines().count(), 1, "{built}");
    for reason in kept["not_tried"].as_object().expect("a table").values() {
        assert!(reason.as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn a_broker_that_dies_has_no_row_but_a_word() {
    if !can_compare() {
        return;
    }
    let stage = Stage::new("dies");
    let file = stage.peer("mortal.toml", "mortal", r#""timeout", "--signal=KILL", "4", "#);
    let mut arguments = vec!["--rounds", "1", "--seconds", "60", "--scenario", "p2p-qos0-one"];
    arguments.extend(["--broker", file.to_str().expect("text")]);
    let output = stage.run(&arguments);
    let text = said(&output);
    assert!(!output.status.success() && text.contains("nothing was measured"), "{text}");
    let kept = stage.kept();
    assert!(list(&kept["rows"]).is_empty(), "{text}");
    assert_eq!(kept["not_run"][0]["words"], "died", "{text}");
    assert!(has_cells(&text, &["mortal", "died"]), "{text}");
    assert!(text.contains("mortal ended by SIGKILL during the run"), "{text}");
}

#[test]
fn ctrl_c_ends_every_broker_and_shows_what_there_is() {
    if !can_compare() {
        return;
    }
    let stage = Stage::new("interrupted");
    let file = stage.peer("mine.toml", "mine", "");
    let mut arguments = vec!["--rounds", "500", "--seconds", "0.3", "--scenario", "p2p-qos0-one"];
    arguments.extend(["--broker", file.to_str().expect("text")]);
    let mut command = stage.command(&arguments);
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut compare = spawned.expect("scripts/compare starts");
    let stderr = BufReader::new(compare.stderr.take().expect("a pipe"));
    let mut said = String::new();
    for line in stderr.lines() {
        let line = line.expect("text");
        // One round is over, and a broker runs.
        if line.starts_with("round 2 ") {
            wait_for_broker(compare.id());
            kill_process(Pid::from_child(&compare), Signal::INT).expect("it runs");
        }
        said += &format!("{line}\n");
    }
    let id = compare.id();
    let output = compare.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{said}{text}");
    assert!(text.contains("INTERRUPTED") && text.contains("medians of 1 round of"), "{text}");
    assert!(has_cells(&text, &["mine"]), "{text}");
    assert_eq!(stage.kept()["interrupted"], true);
    assert_eq!(brokers_of(id), 0);
}

/// Processes that a run of `scripts/compare` has started, by what it wrote into their environment.
fn brokers_of(compare: u32) -> usize {
    let mark = format!("RINGMQ_COMPARED={compare}-");
    let is_own = |entry: fs::DirEntry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
    };
    fs::read_dir("/proc")
        .expect("it is there")
        .filter_map(Result::ok)
        .map(is_own)
        .filter(|own| *own)
        .count()
}

fn wait_for_broker(compare: u32) {
    let begin = Instant::now();
    while brokers_of(compare) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "no broker starts");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_built() {
    if !can_compare() {
        return;
    }
    let stage = Stage::new("refused");
    let one = stage.peer("one.toml", "same", "");
    let other = stage.peer("other.toml", "same", "");
    let own = stage.peer("own.toml", "ringmq", "");
    let broken = stage.folder.join("broken.toml");
    fs::write(&broken, "name = = 3").expect("a file");
    let text = |path: &Path| path.to_str().expect("text").to_string();
    let (one, other, own, broken) = (text(&one), text(&other), text(&own), text(&broken));
    for (arguments, sentence) in [
        (vec!["--broker", &one, "--peer-file", &other], "two brokers have the name same: "),
        (vec!["--broker", "ringmq", "--broker", "ringmq"], "two brokers have the name ringmq"),
        (vec!["--broker", &own], "name = 'ringmq' is taken; give it another name"),
        (vec!["--broker", &broken], "this is no TOML"),
        (vec!["--broker", "mosquito"], "there is no broker mosquito: it is none of emqx, "),
        (vec!["--peer-file", "absent.toml"], "No such file"),
    ] {
        let output = stage.run(&arguments);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(sentence), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(!stage.folder.join("built").exists());
}
