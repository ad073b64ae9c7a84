//! `scripts/flamegraph` up to the picture: what it draws is the work of perf and inferno, which are stood in for.
#![cfg(feature = "load")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A folder of its own for a test, with `cargo`, `perf` and inferno stood in for, and the binaries under test as those that
/// `cargo` would have built.
struct Stage {
    folder: PathBuf,
}

const STAND_INS: [(&str, &str); 4] = [
    // Whoever builds before it is sure what for is noticed.
    ("cargo", "echo \"cargo $*\" >>\"$STAGE/built\""),
    (
        "perf",
        "case $1 in record) while [ \"$1\" != --output ]; do shift; done; : >\"$2\"; shift 3; \"$@\" ;; \
         script) echo samples ;; esac",
    ),
    (
        "inferno-collapse-perf",
        "cat >/dev/null; [ \"$*\" = --kernel ] || exit 1; echo 'ringmq;main 3'; echo 'ringmq;main;do_syscall_64_[k] 1'",
    ),
    (
        "inferno-flamegraph",
        "echo \"<svg viewBox=\\\"0 0 1200 300\\\">$*\"; cat; tr '>' ' ' <palette.map; echo '</svg>'",
    ),
];

impl Stage {
    fn new(name: &str) -> Stage {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("flamegraph-{name}"));
        let _ = fs::remove_dir_all(&folder);
        let (bin, release) = (folder.join("bin"), folder.join("flamegraph/release"));
        fs::create_dir_all(&bin).expect("a folder");
        fs::create_dir_all(&release).expect("a folder");
        for (name, script) in STAND_INS {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        symlink(env!("CARGO_BIN_EXE_ringmq"), release.join("ringmq")).expect("a link");
        symlink(env!("CARGO_BIN_EXE_ringmq-bench"), release.join("ringmq-bench")).expect("a link");
        Stage { folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/flamegraph"))
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("STAGE", &self.folder)
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("RINGMQ_FLAMEGRAPH", self.picture())
            .env("RINGMQ_FLAMEGRAPH_S", "1")
            .output()
            .expect("the script starts")
    }

    fn picture(&self) -> PathBuf {
        self.folder.join("picture.svg")
    }

    fn has_built(&self) -> bool {
        self.folder.join("built").exists()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_is_printed_at_once() {
    let stage = Stage::new("help");
    let begin = Instant::now();
    for arguments in [&["--help"][..], &["-h"], &["p2p-qos0", "--help"]] {
        let output = stage.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("scripts/flamegraph SCENARIO"), "{arguments:?}");
    }
    assert!(!stage.has_built() && begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_cannot_be_drawn_is_refused_before_anything_is_built() {
    let stage = Stage::new("refused");
    let refused = [
        (&["no-such"][..], "no-such is neither a file nor one of: connect-churn"),
        (&["--rate", "5"], "--rate stands where a scenario must"),
        (&["p2p-qos0", "--seconds", "9"], "RINGMQ_FLAMEGRAPH_S, not --seconds"),
        (&["p2p-qos0", "--broker", "127.0.0.1:1"], "--broker is chosen by this script"),
        (&["connect-storm", "--rate", "1000"], "--rate is for traffic, and connect-storm"),
    ];
    for (arguments, sentence) in refused {
        let output = stage.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(sentence), "{}", text(&output.stderr));
    }
    assert!(!stage.has_built());
}

#[test]
fn a_scenario_at_a_fixed_rate_is_drawn() {
    let draw = |name: &str, arguments: &[&str]| {
        let stage = Stage::new(name);
        let output = stage.run(arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(said.contains("1,000/s") && said.contains("written to"), "{arguments:?}: {said}");
        let picture = fs::read_to_string(stage.picture()).expect("a picture");
        let title = format!("ringmq, {}: ", arguments[0]);
        assert!(picture.contains(&title) && picture.contains(" at a fixed rate"), "{picture}");
        // Where it is from, how the samples are divided, and whose is which colour.
        for part in
            ["commit ", " cores, Linux ", "25% in the kernel", "id=\"legend\"", "the kernel</text>"]
        {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert!(!picture.contains("_[k]"), "{picture}");
        let colour = |name: &str| {
            let line = picture.lines().find_map(|line| line.strip_prefix(name));
            let line =
                line.and_then(|line| line.trim_start_matches(['-', ' ']).strip_prefix("rgb("));
            let numbers = line.expect("a colour").trim_end_matches(')').split(',');
            numbers.map(|number| number.parse().expect("a number")).collect::<Vec<u8>>()
        };
        let (broker, kernel) = (colour("main-"), colour("do_syscall_64-"));
        assert!(broker[0] > broker[2] + 100 && kernel[2] > kernel[0] + 50, "{picture}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| draw("own-rate", &["p2p-rate", "--rate", "1000", "--publishers", "2"]));
        scope.spawn(|| draw("given-rate", &["p2p-qos0", "--rate", "1000", "--publishers", "2"]));
    });
}

#[test]
fn a_run_that_fails_says_why() {
    let stage = Stage::new("failed");
    let output = stage.run(&["p2p-rate", "--qos", "3"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("it must be 0, 1 or 2"), "{said}");
}
