//! The load generator against brokers of its own: every built-in scenario in small, so that none can rot.
#![cfg(feature = "shell")]

use std::process::{Command, Output};

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.args(["--no-output", "--json"]).args(arguments.split_whitespace());
    command.output().expect("the bench starts")
}

/// What the bench prints for people.
fn bench_table(arguments: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.arg("--no-output").args(arguments.split_whitespace());
    let output = command.output().expect("the bench starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the bench and returns the outcome of each scenario. Fails if it found anything wrong.
fn outcomes(arguments: &str) -> Vec<serde_json::Value> {
    let output = bench(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments}\n{said}\n{text}");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    scenarios.iter().map(|scenario| scenario["outcome"].clone()).collect()
}

fn measure(outcome: &serde_json::Value, name: &str) -> f64 {
    let measures = outcome["measures"].as_array().expect("a list");
    let found = measures.iter().find(|measure| measure["name"] == name);
    found.and_then(|measure| measure["value"].as_f64()).expect(name)
}

#[test]
fn every_default_scenario_delivers_all_it_sends_on_one_and_two_shards() {
    for variant in ["--shards 1", "--shards 2", "--shards 2 --mqtt 5 --user-properties 2"] {
        let outcomes = outcomes(&format!("{variant} --seconds 0.3 --warm-up 0.1 --rate 500"));
        assert_eq!(outcomes.len(), 8);
        for outcome in outcomes {
            let of = |field: &str| outcome[field].as_f64().unwrap_or_default();
            assert!(of("out_per_s") > 0.0 && of("cpu_us_per_message") > 0.0, "{outcome:#}");
            assert!(outcome["latency"]["count"].as_u64() > Some(0), "{outcome:#}");
        }
    }
}

#[test]
fn payloads_larger_than_any_buffer_arrive_intact() {
    let sizes = "--payload 300000 --window 4 --publishers 3 --subscribers 3 --rate 30";
    for qos in 0..3 {
        let arguments =
            format!("{sizes} --qos {qos} --scenario p2p-qos0 --seconds 0.3 --warm-up 0");
        assert!(outcomes(&arguments)[0]["delivered"].as_u64() > Some(3));
    }
}

#[test]
fn idle_connections_stay_open() {
    let scenarios = "--scenario idle --scenario idle-subscribed";
    for outcome in outcomes(&format!("{scenarios} --connections 200 --seconds 0.2")) {
        assert_eq!(measure(&outcome, "connections"), 200.0);
    }
}

#[test]
fn what_a_stalled_subscriber_misses_is_what_the_broker_dropped() {
    let stall = "--scenario stalled-beyond-limits --stall 3 --rounds 1 --warm-up 0.1";
    let output = bench(&format!("{stall} --set queue-messages-max=100"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = &report["scenarios"][0]["outcome"];
    // Throughput is not compared: the machine may be busy with other tests.
    let missing = measure(outcome, "missing");
    assert!(missing > 0.0, "{outcome:#}");
    assert_eq!(missing, measure(outcome, "dropped, as the broker counts"), "{outcome:#}");
    for fault in ["duplicated", "reordered", "corrupt", "astray"] {
        assert_eq!(outcome["faults"][fault], 0, "{outcome:#}");
    }
}

/// Of each outcome that the bench prints, whatever it came to.
fn any_outcomes(arguments: &str) -> Vec<serde_json::Value> {
    let output = bench(arguments);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    scenarios.iter().map(|scenario| scenario["outcome"].clone()).collect()
}

/// A scenario of each kind that has generator threads, so short that nothing but the meters is judged.
const EACH_KIND: &str = "--scenario p2p-qos1 --scenario p2p-rate --scenario connect-storm \
    --scenario stalled-subscriber --stall 0.4 --rounds 1 --seconds 0.4";

#[test]
fn the_generator_is_measured_in_every_scenario() {
    // Without a warm-up nothing but the bench itself waits for the threads.
    let outcomes = any_outcomes(&format!("{EACH_KIND} --warm-up 0"));
    assert_eq!(outcomes.len(), 4);
    for outcome in &outcomes {
        assert!(outcome["generator_cores_used"].as_f64() > Some(0.0), "{outcome:#}");
    }
    assert_ne!(outcomes[0]["bound"], "unknown", "{:#}", outcomes[0]);
    let idle = any_outcomes("--scenario idle --connections 10 --seconds 0.2");
    assert!(idle[0]["generator_cores_used"].is_f64(), "{:#}", idle[0]);
}

#[test]
fn a_slow_generator_is_named_as_the_limit() {
    // Work of 0.3 ms a message leaves the broker next to nothing to do.
    let slow = "--warm-up 0.1 --window 10 --burden 300";
    let outcomes = any_outcomes(&format!("{EACH_KIND} {slow}"));
    assert_eq!(outcomes.len(), 4);
    for outcome in &outcomes {
        let field = if outcome["scenario"] == "p2p-rate" { "bound_at_rate" } else { "bound" };
        assert_eq!(outcome[field], "generator", "{outcome:#}");
    }
    let table = bench_table(&format!("--scenario p2p-rate --seconds 0.3 {slow}"));
    assert!(table.contains("msg/s were sent: the generator was the limit"), "{table}");
}

#[test]
fn a_run_that_loses_messages_ends_with_an_error() {
    // Within its limits nothing may be missing; here the limit is one message.
    let stall = "--scenario stalled-subscriber --stall 2 --rounds 1 --warm-up 0.1";
    let output = bench(&format!("{stall} --set queue-messages-max=1 --set inflight-max=1"));
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["scenarios"][0]["outcome"]["faults"]["lost"].as_u64() > Some(0));
}

#[test]
fn what_cannot_be_run_is_refused_in_a_sentence() {
    let refused = [
        ("--scenario no-such", "neither a readable file"),
        ("--qos 3", "it must be 0, 1 or 2"),
        ("--cores 4000", "core 4000 is not among those"),
        ("--broker 127.0.0.1:1 --scenario p2p-qos0", "connecting to 127.0.0.1:1"),
    ];
    for (arguments, sentence) in refused {
        let output = bench(arguments);
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(sentence), "{arguments}: {said}");
    }
}
