//! The load generator's scenarios beyond plain traffic, and the public suites: each in small against RingMQ, and against a double
//! that does one thing wrong, which each must find.
#![cfg(feature = "load")]

#[path = "scenarios/double.rs"]
mod double;
#[path = "load_generator/packets.rs"]
mod packets;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::double::{DELAY, Fault};

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.args(arguments.split_whitespace()).env("COLUMNS", "100");
    command.output().expect("the bench starts")
}

/// The report, and whether the bench was content.
fn report(arguments: &str) -> (Value, bool) {
    let output = bench(&format!("--json {arguments}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|error| panic!("{arguments}: {error}\n{said}")), output.status.success())
}

/// The outcome of each scenario, in which nothing is wrong.
fn good(arguments: &str) -> Vec<Value> {
    let (report, is_good) = report(arguments);
    assert!(is_good, "{arguments}\n{report:#}");
    let scenarios = report["scenarios"].as_array().expect("a list");
    scenarios.iter().map(|scenario| scenario["outcome"].clone()).collect()
}

fn measure(outcome: &Value, name: &str) -> f64 {
    let measures = outcome["measures"].as_array().expect("a list");
    let found = measures.iter().find(|measure| measure["name"] == name);
    found
        .and_then(|measure| measure["value"].as_f64())
        .unwrap_or_else(|| panic!("{name}: {outcome:#}"))
}

/// A scenario's file.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, text).expect("a file");
    path
}

/// What is to be found: so many faults of a kind, more or less of a kind that others bring about, a failure, or a latency.
#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    Faults(&'static str, u64),
    Failure(&'static str),
    Late,
}

/// Runs a scenario against the double with each fault.
fn check(arguments: &str, cases: &[(Fault, &[Found])]) {
    std::thread::scope(|scope| {
        for (fault, found) in cases {
            scope.spawn(move || check_one(arguments, *fault, found));
        }
    });
}

fn check_one(arguments: &str, fault: Fault, found: &[Found]) {
    let address = double::start(fault);
    let (report, is_good) = report(&format!("--broker {address} {arguments}"));
    let outcome = &report["scenarios"][0]["outcome"];
    let context = || format!("{fault:?}: {arguments}\n{outcome:#}");
    for found in found {
        match found {
            Found::Nothing => assert!(is_good, "{}", context()),
            Found::Faults(kind, count) => {
                assert!(!is_good, "{}", context());
                assert_eq!(outcome["faults"][kind], *count, "{}", context());
            }
            Found::Failure(words) => {
                let failures = outcome["failures"].to_string();
                assert!(!is_good && failures.contains(words), "{}", context());
            }
            Found::Late => {
                let max_us = outcome["latency"]["max_us"].as_f64().expect("measured");
                assert!(max_us >= DELAY.as_secs_f64() * 1e6, "{}", context());
                // Others are late, too, and are not the double's fault.
                assert!(is_good, "{}", context());
            }
        }
    }
}

/// What every scenario with traffic has to find. What is lost is found as lost, or in front of what took its place.
const TRAFFIC: [(Fault, &[Found]); 8] = [
    (Fault::None, &[Found::Nothing]),
    (Fault::Drops, &[Found::Faults("lost", 1)]),
    (Fault::Repeats, &[Found::Faults("duplicated", 1), Found::Faults("lost", 0)]),
    (Fault::Reorders, &[Found::Faults("reordered", 1), Found::Faults("lost", 0)]),
    (Fault::Corrupts, &[Found::Faults("corrupt", 1)]),
    (Fault::Cuts, &[Found::Faults("corrupt", 1)]),
    (Fault::FlipsRetain, &[Found::Faults("corrupt", 1)]),
    (Fault::Delays, &[Found::Late]),
];

const SHORT: &str = "--warm-up 0 --seconds 0.5";

#[test]
fn payloads_of_16_bytes_are_verified_as_large_ones_are() {
    for (size, qos, filter) in
        [(16, 1, "bench/+"), (19, 0, "bench/+"), (16, 2, "$share/group/bench/+")]
    {
        let text = format!(
            "flat_out = false\nrate = 200.0\nwindow = 1000\npayload = {size}\nqos = {qos}\nfilters = [\"{filter}\"]",
        );
        let path = file(&format!("short-{size}-{qos}"), &text);
        check(&format!("{SHORT} --scenario {}", path.display()), &TRAFFIC);
    }
}

#[test]
fn topics_by_zipf_are_verified_topic_by_topic() {
    let text = "topic = \"bench/{topic}\"\ntopics = 3\nzipf = 1.0\nqos = 2\nwindow = 1000\nflat_out = false\nrate = 200.0";
    let path = file("zipf-faults", text);
    let arguments = format!("{SHORT} --scenario {}", path.display());
    check(&arguments, &TRAFFIC);
    check(&arguments, &[(Fault::ReordersTopics, &[Found::Nothing])]);
    // The message in front of it may have had the same one.
    let text = "topic = \"bench/{topic}\"\ntopics = 1000\nzipf = 0.0\nwindow = 1000\nflat_out = false\nrate = 200.0";
    let path = file("zipf-topics", text);
    let arguments = format!("{SHORT} --scenario {}", path.display());
    check(&arguments, &[(Fault::SwapsTopic, &[Found::Faults("corrupt", 1)])]);
}

#[test]
fn a_lost_message_of_a_rare_topic_does_not_stop_its_publisher() {
    let text =
        "topic = \"bench/{topic}\"\ntopics = 1000\nwindow = 10\nflat_out = false\nrate = 200.0";
    let path = file("zipf-rare", text);
    let address = double::start(Fault::Drops);
    let arguments = format!("--warm-up 0 --seconds 1 --scenario {}", path.display());
    let (report, _) = report(&format!("--broker {address} {arguments}"));
    let outcome = &report["scenarios"][0]["outcome"];
    assert_eq!(outcome["faults"]["lost"], 1, "{outcome:#}");
    assert!(outcome["sent"].as_u64() >= Some(150), "{outcome:#}");
}

#[test]
fn payloads_by_weight_are_verified_whatever_their_size() {
    let text = "payloads = [{ size = 16, weight = 1 }, { size = 64, weight = 1 }, { size = 5000, weight = 1 }]\n\
        qos = 1\nwindow = 1000\nflat_out = false\nrate = 200.0";
    let path = file("mix-faults", text);
    check(&format!("{SHORT} --scenario {}", path.display()), &TRAFFIC);
}

#[test]
fn while_the_rate_rises_every_message_is_verified() {
    for steps in [0, 2] {
        let text = format!(
            "ramp_s = 0.6\nramp_steps = {steps}\nqos = 1\nwindow = 1000\nflat_out = false\nrate = 300.0"
        );
        let path = file(&format!("ramp-{steps}"), &text);
        // All of these happen within the ramp, whose latency is not recorded.
        check(&format!("{SHORT} --scenario {}", path.display()), &TRAFFIC[..7]);
    }
}

#[test]
fn a_reconnect_storm_finds_what_a_session_lacks() {
    // Each fault but that of the delay, which is none.
    let mut cases = TRAFFIC[..7].to_vec();
    cases.push((
        Fault::ForgetsSessions,
        &[Found::Failure("no longer had the session of 12 of 12"), Found::Faults("lost", 132)],
    ));
    // What is published behind the storm comes to nobody.
    cases.push((Fault::ForgetsSubscriptions, &[Found::Faults("lost", 12)]));
    std::thread::scope(|scope| {
        for qos in [1, 2] {
            let cases = &cases;
            let arguments = format!("--scenario reconnect-storm --subscribers 12 --qos {qos}");
            scope.spawn(move || check(&arguments, cases));
        }
    });
}

#[test]
fn a_retained_storm_finds_what_is_missing_or_wrong() {
    let text = "kind = \"retained-storm\"\nsubscribers = 2\ntopics = 40\ntopic = \"kept/{topic}\"\n\
        filters = [\"kept/+\"]\npayload = 20";
    let path = file("retained-faults", text);
    // A corrupt message is none of those that were set.
    let cases: [(Fault, &[Found]); 7] = [
        (Fault::None, &[Found::Nothing]),
        (Fault::Drops, &[Found::Faults("lost", 1)]),
        (Fault::Repeats, &[Found::Faults("duplicated", 1), Found::Faults("lost", 0)]),
        (Fault::Corrupts, &[Found::Faults("corrupt", 1), Found::Faults("lost", 1)]),
        (Fault::Cuts, &[Found::Faults("corrupt", 1)]),
        (Fault::SwapsTopic, &[Found::Faults("corrupt", 1)]),
        (Fault::FlipsRetain, &[Found::Faults("corrupt", 1)]),
    ];
    check(&format!("--scenario {}", path.display()), &cases);
}

#[test]
fn a_connection_that_is_refused_closed_or_late_is_found() {
    let arguments = "--scenario connect-rate --connections 30 --rate 100 --seconds 0.3";
    let cases: [(Fault, &[Found]); 4] = [
        (Fault::None, &[Found::Nothing]),
        (Fault::Refuses, &[Found::Faults("lost", 1), Found::Failure("refused a connection: 0x03")]),
        (Fault::Closes, &[Found::Faults("lost", 1), Found::Failure("closed a connection")]),
        (Fault::AcceptsLate, &[Found::Late]),
    ];
    check(arguments, &cases);
}

#[test]
fn each_scenario_runs_in_small_on_one_and_two_shards() {
    let few = "--publishers 8 --subscribers 8 --rate 800 --connections 200";
    let names = "qos2-storm zipf payload-mix reconnect-storm connect-rate message-a-minute";
    let names: String = names.split(' ').map(|name| format!(" --scenario {name}")).collect();
    for variant in ["--shards 1", "--shards 2 --mqtt 5"] {
        let outcomes = good(&format!("{variant} {few} --seconds 0.3 --warm-up 0.1 {names}"));
        assert_eq!(outcomes.len(), 6);
        for outcome in &outcomes {
            assert!(outcome["delivered"].as_u64() > Some(5), "{outcome:#}");
            assert!(outcome["generator_cores_used"].is_f64(), "{outcome:#}");
        }
        assert_eq!(measure(&outcomes[3], "sessions that were there"), 8.0);
        assert_eq!(outcomes[3]["delivered"], 88);
        assert_eq!(measure(&outcomes[4], "connections"), 200.0);
        assert_eq!(outcomes[4]["latency"]["count"], 200);
    }
}

#[test]
fn every_retained_message_comes_once_to_each_who_asks() {
    let outcomes = good("--shards 2 --scenario retained-storm --subscribers 3 --qos 1");
    assert_eq!(outcomes[0]["delivered"], 30_000);
    assert_eq!(measure(&outcomes[0], "verified"), 30_000.0);
    assert!(measure(&outcomes[0], "all topics there, the last") > 0.0);
    // Fixed header, topic with its length, packet id and payload.
    let size = 2 + 2 + "bench/retained/000000".len() + 2 + 64;
    assert_eq!(measure(&outcomes[0], "verified, whole packets"), (30_000 * size) as f64 / 1e6);
}

#[test]
fn a_rate_rises_as_it_is_told_to() {
    let text = "ramp_s = 2.0\nramp_steps = 4\nwindow = 1000\nflat_out = false\nrate = 2000.0";
    let path = file("ramp-steps", text);
    let outcome = &good(&format!("--warm-up 0 --seconds 0.5 --scenario {}", path.display()))[0];
    for (share, wanted) in [(25, 500.0), (50, 1000.0), (75, 1500.0), (100, 2000.0)] {
        for way in ["in", "out"] {
            let rate = measure(outcome, &format!("ramp, at {share} % of the rate: {way}"));
            // A busy machine catches up late.
            assert!((0.5 * wanted..1.5 * wanted).contains(&rate), "{share} % {way}: {outcome:#}");
        }
    }
    assert!(outcome["latency"]["count"].as_u64() > Some(100), "{outcome:#}");
}

#[test]
fn a_suite_runs_by_its_name_and_says_what_is_not_as_published() {
    let suite = "--suite ombs-basic --factor 0.02 --seconds 1.2 --warm-up 0.1 --rate 200";
    let (report, is_good) = report(suite);
    assert!(is_good, "{report:#}");
    let scenarios = report["scenarios"].as_array().expect("a list");
    let names: Vec<&str> = scenarios
        .iter()
        .map(|scenario| scenario["outcome"]["scenario"].as_str().unwrap())
        .collect();
    let wanted =
        ["conn-tcp-10K-100", "fanout-1-1K-1-1K", "p2p-1K-1K-1K-1K", "sharedsub-1K-5-1K-1K"];
    assert_eq!(names, wanted);
    for scenario in scenarios {
        let published = &scenario["settings"]["published"];
        assert_eq!(published["seconds"], 1800.0, "{published:#}");
        assert!(
            published["machine"].as_str().is_some_and(|machine| machine.contains("c5.4xlarge"))
        );
        assert_eq!(published["factor"], 0.02);
        assert_eq!(published["changed"][0], "--rate 200");
        assert!(scenario["outcome"]["latency"]["mean_us"].as_f64() > Some(0.0), "{scenario:#}");
        assert_eq!(scenario["settings"]["keep_alive_s"], 300);
        let said = scenario["outcome"]["warnings"].to_string();
        assert!(said.contains("1.2 s instead of 1,800 s, this machine instead of AWS"), "{said}");
    }
    let output = bench("--suite ombs-basic --factor 0.001 --seconds 0.2 --warm-up 0 --rate 100");
    let table =
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["0.2 s instead of 1,800 s", "this machine instead of AWS", "--rate 100"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn what_there_is_no_room_for_is_refused_before_anything_is_started() {
    let refused = [
        ("--scenario connect-rate --connections 200000", "200,000 connections"),
        ("--scenario reconnect-storm --set sessions-max=10", "--set sessions-max=1000"),
        ("--suite no-such", "there are ombs-basic, ombs-enterprise"),
        ("--suite ombs-enterprise", "--factor"),
    ];
    for (arguments, sentence) in refused {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_named = said.contains(sentence) || said.contains("open files");
        assert!(output.status.code() == Some(2) && is_named, "{arguments}: {said}");
    }
}

#[test]
fn the_list_names_scenarios_and_suites() {
    let output = bench("--list");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["zipf ", "reconnect-storm ", "--suite ombs-basic ", "--suite ombs-enterprise "] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
    let output = bench("--suite ombs-enterprise --factor 0.02 --list");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("p2p-50K-50K-50K-50K ") && text.lines().count() == 4, "{text}");
}
