//! Runs at several rates, and the search for the highest one that holds a latency.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::double::{self, Manner};
use crate::slow::{self, Above, CAPACITY};
use crate::{BENCH, any_outcomes, bench, bench_table, next_child};

const ONE: &str = "--scenario p2p-qos0 --publishers 1 --subscribers 1 --warm-up 0.1";

fn outcome_of(output: &std::process::Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    report["scenarios"][0]["outcome"].clone()
}

fn curve(outcome: &Value) -> &[Value] {
    outcome["curve"].as_array().expect("a list")
}

#[test]
fn each_rate_of_a_list_is_a_run_of_its_own() {
    let arguments = "--scenario p2p-qos1 --scenario fan-in --seconds 0.5 --warm-up 0.1";
    let outcomes = any_outcomes(&format!("{arguments} --rates 2k,100,0.5k"));
    assert_eq!(outcomes.len(), 2);
    for outcome in &outcomes {
        let rates: Vec<_> = curve(outcome).iter().map(|point| point["rate"].as_f64()).collect();
        assert_eq!(rates, [100.0, 500.0, 2000.0].map(Some), "{outcome:#}");
        for point in curve(outcome) {
            let rate = point["rate"].as_f64().expect("a rate");
            // The histogram is that of this rate alone.
            let count = point["latency"]["count"].as_f64().expect("counted");
            assert!(count <= 0.5 * rate + 1.0 && count > 0.0, "{point:#}");
            assert!(point["cpu_us_per_message"].as_f64() > Some(0.0), "{point:#}");
            assert_eq!(point["faults"]["lost"], 0, "{point:#}");
        }
        assert!(outcome["latency"].is_null() && outcome["highest_rate"].is_null(), "{outcome:#}");
    }
}

#[test]
fn what_a_broker_has_held_back_at_the_end_of_a_run_is_late_and_not_left_out() {
    let address = slow::start(Above::Delays);
    let rate = CAPACITY + CAPACITY / 2;
    let output = bench(&format!("{ONE} --window 20 --seconds 1 --broker {address} --rates {rate}"));
    let outcome = outcome_of(&output);
    let latency = &curve(&outcome)[0]["latency"];
    // The window stops the publisher for a third of the run: all that was due meanwhile goes out behind it.
    let count = latency["count"].as_f64().expect("counted");
    assert!(count > 0.95 * f64::from(rate), "{outcome:#}");
    assert!(latency["p99_us"].as_f64() > Some(300_000.0), "{outcome:#}");
}

#[test]
fn what_a_run_has_lost_is_none_of_the_next_ones() {
    let manner = Manner { counted_before: 0, unsaid: 0, loses: 100, counts: 0 };
    let address = double::start(manner).address;
    let output = bench(&format!("{ONE} --seconds 0.3 --broker {address} --rates 1k,1k,900"));
    let outcome = outcome_of(&output);
    let lost = |point: &Value| point["faults"]["lost"].as_u64();
    let mut found: Vec<_> = curve(&outcome).iter().map(lost).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 0, 100].map(Some), "{outcome:#}");
    assert_eq!(outcome["faults"]["lost"], 100, "{outcome:#}");
    let holds = |point: &&Value| point["holds"] == true;
    assert!(curve(&outcome).iter().filter(holds).all(|point| lost(point) == Some(0)));
    assert_eq!(output.status.code(), Some(1));
}

/// What a search has found, or why it must not count: the machine may not let generator and double run as they should.
fn searched(above: Above, limit: &str, words: &str) -> Result<Value, String> {
    let address = slow::start(above);
    let search = format!("--broker {address} --find-max --rate 1200 {limit}");
    let output = bench(&format!("{ONE} --seconds 0.4 {search}"));
    let outcome = outcome_of(&output);
    let highest = &outcome["highest_rate"];
    let capacity = f64::from(CAPACITY);
    let rates: Vec<_> = curve(&outcome).iter().map(|point| point["rate"].as_f64()).collect();
    assert!(rates.is_sorted(), "{rates:?}");
    assert_eq!(highest["run_count"], rates.len(), "{outcome:#}");
    let rate = highest["rate"].as_f64().unwrap_or(0.0);
    // The search is as exact as the shortest span lets it.
    let is_found = (0.5 * capacity..1.6 * capacity).contains(&rate)
        && highest["fails_at"].as_f64().is_some_and(|fails| fails <= 1.04 * rate)
        && highest["is_at_least"] == false
        && highest["reason"].to_string().contains(words);
    // What was found on purpose is no fault.
    let is_good = outcome["faults"]["lost"] == 0 && output.status.code() == Some(0);
    if is_found && is_good { Ok(outcome) } else { Err(format!("{above:?} {outcome:#}")) }
}

#[test]
fn the_highest_rate_is_that_at_which_a_slow_broker_keeps_up() {
    let found = |above: Above, limit: &str, words: &str| {
        let mut tries = (0..4).map(|_| searched(above, limit, words));
        let mut last = String::new();
        tries
            .find_map(|tried| tried.map_err(|wrong| last = wrong).ok())
            .unwrap_or_else(|| panic!("{last}"))
    };
    // Half of the messages are late only when the broker is: a machine that stands still delays a few.
    found(Above::Delays, "--p50 40ms", "p50 was");
    let loses = found(Above::Loses, "--p50 10s", "lost");
    assert!(loses["highest_rate"]["lost_above"].as_u64() > Some(0), "{loses:#}");
    found(Above::Closes, "--p50 10s", "closed a connection");
}

#[test]
fn a_slow_generator_makes_the_highest_rate_a_lower_bound() {
    let slow =
        "--scenario p2p-qos0 --seconds 0.3 --warm-up 0.1 --burden 300 --find-max --p50 100ms";
    let outcome = &any_outcomes(slow)[0];
    let highest = &outcome["highest_rate"];
    assert!(highest["rate"].as_f64() < Some(3500.0), "{outcome:#}");
    assert_eq!(highest["is_at_least"], true, "{outcome:#}");
    assert!(highest["reason"].to_string().contains("the generator was the limit"), "{outcome:#}");
}

#[test]
fn that_no_rate_holds_is_an_error() {
    let output = bench(&format!("{ONE} --seconds 0.1 --rate 4 --find-max --max 1us"));
    let outcome = outcome_of(&output);
    assert!(outcome["highest_rate"]["rate"].is_null(), "{outcome:#}");
    let failure = outcome["failures"][0].to_string();
    assert!(failure.contains("no rate was found that holds max <= 1.00us"), "{outcome:#}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn ctrl_c_shows_the_curve_so_far() {
    let search = "--scenario p2p-qos0 --seconds 0.5 --warm-up 0.1 --find-max --max 100s --json";
    let mut command = Command::new(BENCH);
    command.args(search.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let bench = command.spawn().expect("it starts");
    next_child(&bench, &[]);
    std::thread::sleep(Duration::from_secs(3));
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it runs");
    let output = bench.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("looks for the highest rate that holds max <= 100s"), "{said}");
    let outcome = outcome_of(&output);
    assert!(!curve(&outcome).is_empty() && outcome["interrupted"] == true, "{outcome:#}");
    assert_eq!(outcome["highest_rate"]["is_at_least"], true, "{outcome:#}");
    assert!(outcome["failures"].is_null(), "{outcome:#}");
}

#[test]
fn the_table_has_a_line_for_each_rate() {
    let table = bench_table(&format!("{ONE} --seconds 0.2 --rates 1k,2k --p99 1us"));
    for words in ["sent/s CPU us p50", "1,000/s x", "2,000/s x", "at 1,000 msg/s: p99 was"] {
        assert!(table.contains(words), "{words}\n{table}");
    }
}

#[test]
fn a_search_that_cannot_be_is_refused_in_a_sentence() {
    let refused = [
        ("--find-max", "--find-max needs the latency that must hold"),
        ("--p99 10ms", "with --find-max or --rates only"),
        ("--find-max --p99 10", "write it with its unit"),
        ("--rates 1k,0", "each rate must be above 0"),
        ("--rates 1k,x", "is no rate"),
        ("--rates 1k --scenario idle", "are for traffic"),
    ];
    for (arguments, sentence) in refused {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(sentence), "{arguments}: {said}");
    }
}
