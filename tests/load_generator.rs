//! The load generator against brokers of its own: every built-in scenario in small, so that none can rot.
#![cfg(feature = "load")]

#[path = "load_generator/clients.rs"]
mod clients;
#[path = "load_generator/double.rs"]
mod double;
#[path = "load_generator/hostile.rs"]
mod hostile;
#[path = "load_generator/packets.rs"]
mod packets;
#[path = "load_generator/rates.rs"]
mod rates;
#[path = "load_generator/reports.rs"]
mod reports;
#[path = "load_generator/running.rs"]
mod running;
#[path = "load_generator/slow.rs"]
mod slow;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::double::Manner;
use crate::running::Running;

const BENCH: &str = env!("CARGO_BIN_EXE_ringmq-bench");

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(BENCH);
    command.args(arguments.split_whitespace()).arg("--json");
    command.output().expect("the bench starts")
}

/// What the bench prints for people, in a line.
fn bench_table(arguments: &str) -> String {
    let mut command = Command::new(BENCH);
    command.args(arguments.split_whitespace());
    let output = command.output().expect("the bench starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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

/// Delivered something, and the broker's processor time is known.
fn check_flat_out(outcomes: &[serde_json::Value], count: usize) {
    assert_eq!(outcomes.len(), count);
    for outcome in outcomes {
        let of = |field: &str| outcome[field].as_f64().unwrap_or_default();
        assert!(of("out_per_s") > 0.0 && of("cpu_us_per_message") > 0.0, "{outcome:#}");
    }
}

#[test]
fn every_scenario_with_traffic_delivers_all_it_sends_on_one_and_two_shards() {
    let many = "fan-out fan-in p2p-qos0 p2p-qos1 p2p-qos2 wildcards shared connect-storm";
    let many: String = many.split(' ').map(|name| format!(" --scenario {name}")).collect();
    for variant in ["--shards 1", "--shards 2", "--shards 2 --mqtt 5 --user-properties 2"] {
        let arguments = format!("{variant} --seconds 0.3 --warm-up 0.1 --rate 500{many}");
        let outcomes = outcomes(&arguments);
        check_flat_out(&outcomes, 8);
        for outcome in outcomes {
            assert!(outcome["latency"]["count"].as_u64() > Some(0), "{outcome:#}");
        }
    }
}

#[test]
fn the_relay_delivers_all_that_it_is_sent_at_every_qos_in_both_worlds() {
    // Subscribers with ids of their own, large messages that leave by reference, several publishers for one subscriber.
    let further =
        ["p2p-qos1 --mqtt 5 --user-properties 2", "fan-out --payload 4k", "fan-in --window 3"];
    for io in ["auto", "epoll"] {
        let start = format!("relay --io {io} --seconds 0.3 --warm-up 0.1 --rate 0");
        let named = [
            "fan-out",
            "fan-in",
            "p2p-qos0",
            "p2p-qos0-4k",
            "p2p-qos1-one",
            "p2p-qos2",
            "wildcards",
        ];
        let named = named.map(|name| format!(" --scenario {name}")).concat();
        check_flat_out(&outcomes(&format!("{start}{named}")), 7);
        for (scenario, qos) in further.iter().flat_map(|scenario| [1, 2].map(|qos| (scenario, qos)))
        {
            let outcomes = outcomes(&format!("{start} --scenario {scenario} --qos {qos}"));
            check_flat_out(&outcomes, 1);
        }
    }
}

/// Writes the scenarios of `scripts/compare --relay`, and prints where.
const WRITE_GRID: &str = r#"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, "scripts")
from comparison import relay_grid
print(*relay_grid.write(relay_grid.rows()).values(), sep="\n")
"#;

#[test]
fn the_relays_grid_has_a_row_for_each_of_its_clients_qos_and_batches() {
    let mut python = Command::new("python3");
    let Ok(written) = python.args(["-c", WRITE_GRID]).output() else {
        println!("SKIPPED the grid of scripts/compare --relay: there is no python3");
        return;
    };
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let files = String::from_utf8(written.stdout).expect("text");
    let named: String = files.lines().map(|file| format!(" --scenario {file}")).collect();
    let listing = bench(&format!("--list{named}"));
    assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
    let listing: serde_json::Value = serde_json::from_slice(&listing.stdout).expect("JSON");
    let mut words: Vec<_> =
        listing.as_array().expect("a list").iter().map(|it| &it["words"]).collect();
    for clients in ["50 pairs", "1000 pairs", "1 to 50", "50 to 1"] {
        for (qos, batch) in (0..3).flat_map(|qos| [1, 5, 50, 500].map(|batch| (qos, batch))) {
            let row = format!("{clients}, 64 B, QoS {qos}, batch {batch}");
            let at = words.iter().position(|words| **words == row);
            words.remove(at.unwrap_or_else(|| panic!("{row} is missing: {words:?}")));
        }
    }
    assert!(words.is_empty(), "{words:?}");
}

#[test]
fn what_the_relay_cannot_do_is_said() {
    // The old name stands for it, too.
    let output = bench("floor --scenario shared --seconds 0.2 --warm-up 0.1");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the relay has no shared subscriptions"), "{said}");
}

#[test]
fn the_short_table_has_one_message_a_write_beside_many() {
    let outcomes = outcomes("--seconds 0.3 --warm-up 0.1 --rate 0");
    check_flat_out(&outcomes, 10);
    for pair in outcomes.chunks(2) {
        let per_write =
            |at: usize| pair[at]["batches"]["messages_per_write"].as_f64().expect("measured");
        assert!(per_write(0) < 1.1 && per_write(1) > 10.0, "{pair:#?}");
        let names = [0, 1].map(|at: usize| pair[at]["scenario"].as_str().expect("a name"));
        assert_eq!(names[0], format!("{}-one", names[1]));
    }
}

#[test]
fn messages_go_in_writes_of_as_many_as_the_scenario_says() {
    let short = "--seconds 0.3 --warm-up 0.1";
    for (scenario, batch) in [("p2p-qos0", 250.0), ("p2p-qos1", 250.0), ("p2p-qos2", 50.0)] {
        for (suffix, wanted) in [("-one", 1.0), ("-five", 5.0), ("", batch)] {
            let outcome = &outcomes(&format!("{short} --scenario {scenario}{suffix}"))[0];
            let per_write = outcome["batches"]["messages_per_write"].as_f64().expect("measured");
            // A socket that takes less than a write wants another one; the edges of the run count halves.
            assert!((0.9 * wanted..1.05 * wanted).contains(&per_write), "{outcome:#}");
            let per_read = outcome["batches"]["messages_per_read"].as_f64().expect("measured");
            assert!(per_read >= 0.9, "{outcome:#}");
            assert!(wanted > 1.0 || per_read < 1.1, "{outcome:#}");
        }
    }
}

#[test]
fn at_a_rate_a_write_has_what_is_due() {
    let arguments = "--seconds 0.3 --warm-up 0.1 --scenario p2p-rate --rate 500";
    let outcome = &outcomes(arguments)[0];
    let per_write = outcome["batches_at_rate"]["messages_per_write"].as_f64().expect("measured");
    assert!(per_write >= 1.0 && outcome["batches"]["messages_per_write"].is_null(), "{outcome:#}");
    assert!(outcome["out_per_s_at_rate"].as_f64() > Some(0.0), "{outcome:#}");
}

/// Two rows, of which the second is a user's.
const TABLE: &str =
    "--scenario p2p-qos1 --scenario bench/scenarios/p2p-qos0-v5.toml --seconds 0.2 --warm-up 0.1";

fn table(environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(BENCH);
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).args(TABLE.split_whitespace());
    let output = command.output().expect("the bench starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn the_table_is_as_wide_as_it_is_told_and_has_colour_only_where_it_is_seen() {
    for (columns, width) in [("", 80), ("80", 80), ("100", 100), ("160", 160), ("no", 80)] {
        let text = table(&[("COLUMNS", columns)]);
        assert!(widest(&text) <= width && !text.contains('\u{1b}'), "{columns}\n{text}");
        let in_a_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["RingMQ 0", ", commit ", "Linux ", "50 pairs, 64 B, QoS 1, batch 250"] {
            assert!(in_a_line.contains(words), "{columns}: {words}\n{text}");
        }
        assert_eq!(width == 160, text.contains("  /write  /read   MiB  faults  "), "{text}");
    }
    assert!(table(&[("CLICOLOR_FORCE", "1")]).contains("\u{1b}[1m"));
    assert!(!table(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\u{1b}'));
}

#[test]
fn on_a_terminal_the_table_has_its_width_and_colours() {
    for (columns, color) in [(100, ""), (160, "NO_COLOR=1 ")] {
        // Its own COLUMNS are those of a window that has changed since.
        let line =
            format!("stty rows 30 cols {columns} && COLUMNS=70 {color}TERM=xterm {BENCH} {TABLE}");
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        let Ok(output) = command.stdin(Stdio::null()).stderr(Stdio::null()).output() else {
            println!(
                "SKIPPED on_a_terminal_the_table_has_its_width_and_colours: there is no `script`"
            );
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
        // In front of it, the bar of the progress.
        let (_, shown) = text.rsplit_once("RingMQ 0").unwrap_or_else(|| panic!("{text:?}"));
        assert_eq!(color.is_empty(), shown.contains("\u{1b}[1mp2p-qos1\u{1b}[0m"), "{shown:?}");
        let shown = shown.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        let heading = shown.lines().find(|line| line.contains("in msg/s")).expect("a heading");
        assert!((70..=columns).contains(&heading.chars().count()), "{heading}");
    }
}

#[test]
fn another_broker_is_named_with_its_version() {
    let broker = Running::ringmq("");
    let address = &broker.address;
    let short = "--scenario p2p-rate --seconds 0.1 --warm-up 0";
    let mut command = Command::new(BENCH);
    command.args(["--broker", address]).args(short.split_whitespace()).env("COLUMNS", "200");
    let output = command.output().expect("the bench starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let title = format!("ringmq version {} at {address}, ", env!("CARGO_PKG_VERSION"));
    assert!(text.starts_with(&title), "{text}");
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
    // Work of 0.3 ms a message, or 3 ms a connection, leaves the broker next to nothing to do.
    let slow = "--warm-up 0.1 --window 10 --burden 300";
    let runs = [
        ("p2p-qos1", "bound", slow),
        ("p2p-rate", "bound_at_rate", slow),
        ("stalled-subscriber", "bound", slow),
        ("connect-storm", "bound", "--warm-up 0.1 --burden 3000"),
    ];
    for (scenario, field, slow) in runs {
        let stall = "--stall 0.4 --rounds 1 --seconds 0.4";
        let bound =
            || any_outcomes(&format!("--scenario {scenario} {stall} {slow}"))[0][field].clone();
        // Whatever else runs here may take the broker's core from it, so that both wait.
        let mut bounds = vec![bound()];
        while bounds.len() < 5 && bounds.last() != Some(&"generator".into()) {
            bounds.push(bound());
        }
        assert_eq!(bounds.pop(), Some("generator".into()), "{scenario}, and before: {bounds:?}");
    }
    let table = bench_table(&format!("--scenario p2p-rate --seconds 0.3 {slow}"));
    assert!(table.contains("msg/s were sent: the generator was the limit"), "{table}");
}

#[test]
fn a_run_that_loses_messages_ends_with_an_error() {
    // Within its limits nothing may be missing; here the limit is one message.
    let stall = "--scenario stalled-subscriber --stall 2 --rounds 1 --warm-up 0.1";
    let output = bench(&format!(
        "{stall} --set queue-messages-max=1 --set inflight-max=1 --set sys-interval-ms=300"
    ));
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let faults = &report["scenarios"][0]["outcome"]["faults"];
    assert!(faults["dropped"].as_u64() > Some(0) && faults["lost"] == 0, "{faults:#}");
}

#[test]
fn what_cannot_be_run_is_refused_in_a_sentence() {
    let refused = [
        ("--scenario no-such", "neither a readable file"),
        ("--qos 3", "it must be 0, 1 or 2"),
        ("--cores 1000", "core 1000 is not among those"),
        ("--cores 4000", "each once and below 1024"),
        ("--cores 3-1", "expected cores as 0-1,3"),
        ("--broker nowhere --scenario p2p-qos0", "expected HOST:PORT"),
        ("--payload 4kk", "is no size"),
        ("--duration soon", "is no time"),
    ];
    for (arguments, sentence) in refused {
        let output = bench(arguments);
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(sentence), "{arguments}: {said}");
    }
}

#[test]
fn a_broker_that_nobody_runs_is_named_within_a_second() {
    let begin = Instant::now();
    let output = bench("--broker 127.0.0.1:1");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--broker 127.0.0.1:1: no broker listens there"), "{said}");
    // The bench gives up after 0.9 s; the rest is for a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// The processes that a process has started and that run.
fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let process: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let (_, behind_name) = stat.rsplit_once(") ")?;
        let parent = behind_name.split(' ').nth(1)?.parse::<u32>().ok()?;
        (parent == pid && !behind_name.starts_with('Z')).then_some(process)
    });
    processes.collect()
}

/// Waits for a child that is none of `known`.
fn next_child(bench: &Child, known: &[u32]) -> u32 {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let new = children(bench.id()).into_iter().find(|child| !known.contains(child));
        if let Some(child) = new {
            return child;
        }
        assert!(Instant::now() < end, "the bench starts a broker for each scenario");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_prints_what_there_is_so_far_and_ends_the_benchs_own_broker() {
    let scenarios = "--scenario p2p-qos0 --scenario p2p-qos1 --scenario p2p-qos2";
    let arguments = format!("{scenarios} --seconds 6 --warm-up 0.1 --rate 0 --json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.args(arguments.split_whitespace()).process_group(0);
    let bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let first = next_child(&bench, &[]);
    let second = next_child(&bench, &[first]);
    std::thread::sleep(Duration::from_secs(3));
    // As a terminal does: to the whole group.
    kill_process_group(Pid::from_child(&bench), Signal::INT).expect("the group is there");
    // As `timeout` does it: to the program besides.
    std::thread::sleep(Duration::from_millis(20));
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it runs");
    let output = bench.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    assert_eq!(scenarios.len(), 2, "{report:#}");
    let (ended, cut) = (&scenarios[0]["outcome"], &scenarios[1]["outcome"]);
    assert!(ended["out_per_s"].as_f64() > Some(0.0) && ended["interrupted"].is_null(), "{ended:#}");
    assert!(cut["delivered"].as_u64() > Some(0) && cut["interrupted"] == true, "{cut:#}");
    for outcome in [ended, cut] {
        assert_eq!(outcome["faults"]["lost"], 0, "{outcome:#}");
        assert!(outcome["failures"].is_null(), "{outcome:#}");
    }
    assert!(said.contains("interrupted: 2 of 3 scenarios ran"), "{said}");
    for broker in [first, second] {
        assert!(!Path::new(&format!("/proc/{broker}")).exists(), "broker {broker} runs on");
    }
}

#[test]
fn no_file_is_written_unless_asked() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-file");
    let _ = fs::remove_dir_all(&folder);
    // As in a clone.
    fs::create_dir_all(folder.join("bench/results")).expect("a folder");
    let run = |further: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
        let short =
            ["--scenario", "p2p-qos0", "--duration", "200ms", "--warm-up", "0", "--rate", "0"];
        let output = command.args(short).args(further).current_dir(&folder).output();
        assert!(output.expect("it starts").status.success());
        let count = |part: &str| fs::read_dir(folder.join(part)).expect(part).count();
        (count("."), count("bench/results"))
    };
    assert_eq!(run(&[]), (1, 0));
    assert_eq!(run(&["--output", "bench/results"]), (1, 1));
}

#[test]
fn sizes_and_times_are_taken_as_people_write_them() {
    let output = bench("--scenario p2p-qos0 --payload 4k --duration 300ms --warm-up 0s --rate 0");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["seconds"], 0.3);
    assert_eq!(report["scenarios"][0]["settings"]["payload"], 4096);
}

#[test]
fn a_payload_above_the_brokers_limit_is_named_as_that() {
    let short = "--scenario p2p-qos0 --duration 200ms --warm-up 0 --rate 0 --window 2";
    let refused = |arguments: &str| {
        let output = bench(&format!("{short} {arguments}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    let said = refused("--payload 5m");
    assert!(said.contains("the broker takes 1048576 at most (packet_size_max)"), "{said}");
    let (_, remedy) = said.trim().split_once("smaller --payload, or ").expect("a remedy");
    outcomes(&format!("{short} --publishers 2 --subscribers 2 --payload 5m {remedy}"));

    let other = Running::ringmq("--packet-size-max 64KiB --connect-size-max 64KiB");
    let said = refused(&format!("--payload 64k --broker {}", other.address));
    assert!(said.contains("the broker takes 65536 at most: use a smaller --payload"), "{said}");
}

#[test]
fn what_the_broker_drops_at_a_limit_is_shown_as_dropped_and_not_as_lost() {
    let beyond = "--scenario fan-in --publishers 50 --window 500 --payload 2k --duration 500ms \
        --warm-up 0 --rate 0 --set queue-messages-max=100 --set sys-interval-ms=300";
    let output = bench(beyond);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("up to 25000 messages may wait for one subscriber"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = &report["scenarios"][0]["outcome"];
    let faults = &outcome["faults"];
    assert!(faults["dropped"].as_u64() > Some(0), "{outcome:#}");
    assert_eq!(faults["dropped"], outcome["dropped_as_counted"], "{outcome:#}");
    assert_eq!(faults["lost"], 0, "{outcome:#}");
    assert!(outcome["warnings"][0].is_string(), "{outcome:#}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn no_more_is_taken_for_dropped_than_the_broker_counts() {
    let check = |[counted_before, unsaid, counts]: [u64; 3],
                 expected: [u64; 2],
                 codes: [i32; 2]| {
        let manner = Manner { counted_before, unsaid, loses: 100, counts };
        for (further, code) in ["", "--allow-drops"].iter().zip(codes) {
            let address = double::start(manner).address;
            let one = "--scenario p2p-qos0 --publishers 1 --subscribers 1 --rate 0 --warm-up 0";
            let output = bench(&format!("{one} --duration 300ms --broker {address} {further}"));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let outcome = &report["scenarios"][0]["outcome"];
            let found = ["dropped", "lost"].map(|fault| outcome["faults"][fault].as_u64());
            assert_eq!(found, expected.map(Some), "{manner:?}: {outcome:#}");
            assert_eq!(output.status.code(), Some(code), "{manner:?}, {further}: {outcome:#}");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check([0, 0, 100], [100, 0], [1, 0]));
        scope.spawn(|| check([0, 0, 60], [60, 40], [1, 1]));
        scope.spawn(|| check([0, 0, 0], [0, 100], [1, 1]));
        // What others lost before is no excuse.
        scope.spawn(|| check([1000, 0, 0], [0, 100], [1, 1]));
        scope.spawn(|| check([1000, 100, 0], [0, 100], [1, 1]));
        scope.spawn(|| check([1000, 0, 250], [100, 0], [1, 0]));
    });
}

#[test]
fn an_interrupted_run_says_what_the_broker_has_dropped_so_far() {
    let manner = Manner { counted_before: 0, unsaid: 0, loses: 100, counts: 100 };
    let double = double::start(manner);
    let address = &double.address;
    let one = "--scenario p2p-qos0 --publishers 1 --subscribers 1 --rate 0 --warm-up 0 --json";
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.args(format!("{one} --duration 60s --broker {address}").split_whitespace());
    let bench = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let begin = Instant::now();
    while double.published() < 1000 {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing is published");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The double says its count every 0.2 s.
    std::thread::sleep(Duration::from_secs(1));
    kill_process(Pid::from_child(&bench), Signal::TERM).expect("it runs");
    let output = bench.wait_with_output().expect("it ends");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = &report["scenarios"][0]["outcome"];
    assert_eq!(outcome["interrupted"], true, "{outcome:#}");
    assert_eq!(outcome["faults"]["dropped"], 100, "{outcome:#}");
    assert_eq!(outcome["faults"]["lost"], 0, "{outcome:#}");
}

#[test]
fn a_second_ctrl_c_ends_the_bench_at_once_and_its_broker_with_it() {
    let arguments = "--scenario stalled-subscriber --stall 60 --warm-up 0";
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq-bench"));
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    let mut bench = command.spawn().expect("it starts");
    let broker = next_child(&bench, &[]);
    // It is the broker, with its threads, and no copy of the bench any more.
    let tasks = format!("/proc/{broker}/task");
    let end = Instant::now() + Duration::from_secs(30);
    while fs::read_dir(&tasks).is_ok_and(|tasks| tasks.count() < 2) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The bench waits ten seconds for a broker that does not end.
    let signal = |process: u32, signal| {
        let process = Pid::from_raw(process as i32).expect("no process is 0");
        kill_process(process, signal).expect("it runs");
    };
    signal(broker, Signal::STOP);
    signal(bench.id(), Signal::INT);
    std::thread::sleep(Duration::from_secs(1));
    assert!(bench.try_wait().expect("it is a child").is_none());
    let begin = Instant::now();
    signal(bench.id(), Signal::INT);
    assert_eq!(bench.wait().expect("it is a child").code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    signal(broker, Signal::CONT);
    while Path::new(&format!("/proc/{broker}")).exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "broker {broker} runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
