//! Several generators driven by one bench: agents with clocks that are wrong, brokers that misbehave, hostile drivers, and
//! agents that die.
#![cfg(feature = "load")]

#[path = "agents/double.rs"]
mod double;
#[path = "load_generator/packets.rs"]
mod packets;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::double::Manner;

const BENCH: &str = env!("CARGO_BIN_EXE_ringmq-bench");
const TOKEN: &str = "RINGMQ_BENCH_TOKEN";

/// A program that has said where it listens, and ends with the test.
struct Running {
    process: Child,
    address: String,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut process = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split([' ', ';']).next().map(str::to_string)
        });
        std::thread::spawn(move || lines.count());
        Running { process, address: address.expect("it listens") }
    }

    fn agent(target: &str, options: &str) -> Running {
        let mut command = Command::new(BENCH);
        command.args(["agent", "--listen", "127.0.0.1:0", "--target", target]);
        command.args(options.split_whitespace()).env_remove(TOKEN);
        Running::start(command)
    }

    fn ringmq() -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.args("serve --listen 127.0.0.1:0 --shards 1".split(' '));
        Running::start(command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn driver(arguments: &str, agents: &[&Running]) -> Command {
    let mut command = Command::new(BENCH);
    command.args(arguments.split_whitespace()).env_remove(TOKEN).env("COLUMNS", "120");
    for agent in agents {
        command.args(["--agent", &agent.address]);
    }
    command
}

/// All that a program has said, in a line.
fn said(output: &Output) -> String {
    let [stderr, stdout] =
        [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    let words: Vec<&str> = stderr.split_whitespace().chain(stdout.split_whitespace()).collect();
    words.join(" ")
}

/// Runs the driver and returns its exit code and the outcome of each scenario.
fn drive(arguments: &str, agents: &[&Running]) -> (Option<i32>, Vec<Value>) {
    let output = driver(arguments, agents).arg("--json").output().expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments}: {}", said(&output)));
    let scenarios = report["scenarios"].as_array().expect("a list");
    (output.status.code(), scenarios.iter().map(|scenario| scenario["outcome"].clone()).collect())
}

/// Runs of any process that the agent has started.
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

/// Processor time that a process has used, in hundredths of a second.
fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(") ").expect("a name");
    let fields = behind_name.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// Waits until an agent has a run, or none.
fn wait_for_run(agent: &Running, wanted: bool) -> Option<u32> {
    let begin = Instant::now();
    loop {
        let run = children(agent.process.id()).first().copied();
        if run.is_some() == wanted {
            return run;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{run:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn processes_deliver_all_they_send_in_every_scenario_with_traffic() {
    let few = "--scenario fan-in --scenario p2p-qos1 --scenario shared".to_string();
    let many = format!("{few} --scenario fan-out --scenario p2p-qos2");
    for (split, scenarios) in [("--processes 2", many), ("--processes 3 --apart", few)] {
        let apart = if split.contains("apart") { split } else { "" };
        let arguments = format!("{split} --seconds 0.2 --warm-up 0.1 --rate 500 {scenarios}");
        let (code, outcomes) = drive(&arguments, &[]);
        let count = scenarios.matches("--scenario").count();
        assert_eq!((code, outcomes.len()), (Some(0), count), "{outcomes:#?}");
        for outcome in outcomes {
            let of = |field: &str| outcome[field].as_f64().unwrap_or_default();
            assert!(of("out_per_s") > 0.0 && of("cpu_us_per_message") > 0.0, "{outcome:#}");
            assert!(of("generator_cores_used") > 0.0, "{outcome:#}");
            let recorded = outcome["latency"]["count"].as_u64().expect("measured");
            let crossed = outcome["agents"]["crossed"].as_u64().expect("measured");
            let apart_from = outcome["agents"]["latency_uncertainty_us"].is_f64();
            assert!(recorded > 0 && apart_from == (crossed > 0), "{outcome:#}");
            assert!(apart.is_empty() || crossed == recorded, "{outcome:#}");
            let name = outcome["scenario"].as_str().expect("a name");
            assert!(!apart.is_empty() || !name.starts_with("p2p") || crossed == 0, "{outcome:#}");
        }
    }
}

#[test]
fn latency_between_clocks_that_are_wrong_is_right_within_what_is_said() {
    const DELAY_US: f64 = 30_000.0;
    let broker = double::start(Manner::Delays(Duration::from_micros(DELAY_US as u64)));
    // Within the run they part by some 40 ms, and by a minute from the beginning.
    let fast = Running::agent(&broker, "--clock-offset 60s --clock-drift 10000ppm");
    let slow = Running::agent(&broker, "--clock-offset -250ms --clock-drift -10000ppm");
    let run = format!("--broker {broker} --scenario p2p-rate --rate 400 --seconds 2 --warm-up 0.2");
    for options in ["--apart", "--publishers 1 --subscribers 4 --scenario fan-out-rate"] {
        let (code, outcomes) = drive(&format!("{run} {options}"), &[&fast, &slow]);
        assert_eq!(code, Some(0), "{outcomes:#?}");
        for outcome in outcomes {
            let uncertainty = outcome["agents"]["latency_uncertainty_us"].as_f64().unwrap_or(0.0);
            let at = |name: &str| outcome["latency"][name].as_f64().expect("measured");
            // A loaded machine is late, never early.
            assert!(at("p50_us") > DELAY_US - uncertainty - 1000.0, "{outcome:#}");
            assert!(at("p50_us") < DELAY_US + uncertainty + 60_000.0, "{outcome:#}");
            let clock = |agent: usize| &outcome["agents"]["agents"][agent]["clock"];
            for (agent, drift) in [(0, 10_000.0), (1, -10_000.0)] {
                let found = clock(agent)["drift_ppm"].as_f64().expect("measured");
                let known = clock(agent)["uncertainty_us"].as_f64().expect("measured");
                // Over two seconds, at both ends.
                assert!((found - drift).abs() < 100.0 + known, "{:#}", clock(agent));
            }
        }
    }
    let table = driver(&format!("{run} --apart"), &[&fast, &slow]).output().expect("it starts");
    let table = said(&table);
    for words in [
        "the latencies are between agents; their clocks make them wrong by ±",
        "drift +",
        "drift -",
        "known to ±",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn what_a_broker_does_wrong_is_found_also_between_agents() {
    let faults = [
        (Manner::Good, None),
        (Manner::Drops, Some("lost")),
        (Manner::Repeats, Some("duplicated")),
        (Manner::Reorders, Some("reordered")),
        (Manner::Corrupts, Some("corrupt")),
    ];
    let check = |manner: Manner, fault: Option<&str>| {
        for (split, qos) in [("", 0), ("--apart", 0), ("--apart", 1)] {
            let broker = double::start(manner);
            let agents = [(); 2].map(|()| Running::agent(&broker, ""));
            let run = "--scenario p2p-qos0 --publishers 4 --subscribers 4 --window 20 --rate 0 --seconds 0.3 --warm-up 0";
            let (code, outcomes) =
                drive(&format!("{run} --qos {qos} {split} --broker {broker}"), &agents.each_ref());
            let outcome = &outcomes[0];
            let expected = |name: &str| {
                u64::from(fault == Some(name) || fault == Some("corrupt") && name == "lost")
            };
            for name in ["lost", "duplicated", "reordered", "corrupt", "astray", "dropped"] {
                assert_eq!(
                    outcome["faults"][name],
                    expected(name),
                    "{manner:?} {split} {qos}: {outcome:#}"
                );
            }
            assert_eq!(code, Some(i32::from(fault.is_some())), "{manner:?}: {outcome:#}");
            assert_eq!(outcome["failures"], Value::Null, "{outcome:#}");
        }
    };
    std::thread::scope(|scope| {
        for (manner, fault) in faults {
            scope.spawn(move || check(manner, fault));
        }
    });
}

#[test]
fn what_never_came_is_found_by_what_was_sent_elsewhere() {
    let broker = double::start(Manner::Swallows);
    let agents = [(); 2].map(|()| Running::agent(&broker, ""));
    // No later message shows a gap: only what the other agent has sent says what is missing.
    let run = "--scenario p2p-qos0 --publishers 4 --subscribers 4 --window 20 --rate 0 --seconds 0.3 --warm-up 0 --apart";
    let (code, outcomes) = drive(&format!("{run} --broker {broker}"), &agents.each_ref());
    let outcome = &outcomes[0];
    let count = |value: &Value| value.as_u64().expect("a count");
    assert_eq!((code, count(&outcome["delivered"])), (Some(1), 100), "{outcome:#}");
    assert_eq!(count(&outcome["faults"]["lost"]), count(&outcome["sent"]) - 100, "{outcome:#}");
    assert!(count(&outcome["sent"]) > 100, "{outcome:#}");
}

#[test]
fn an_agent_that_dies_or_stops_is_named_and_the_others_are_shown() {
    for (signal, sentence) in
        [(Signal::KILL, "it closed the connection"), (Signal::STOP, "it has stopped")]
    {
        let broker = Running::ringmq();
        let agents = [(); 2].map(|()| Running::agent(&broker.address, ""));
        let ticks = processor_ticks(broker.process.id());
        let arguments = format!(
            "--broker {} --json --scenario p2p-qos1 --rate 0 --seconds 30 --warm-up 0",
            broker.address
        );
        let mut command = driver(&arguments, &agents.each_ref());
        let bench =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let run = wait_for_run(&agents[1], true).expect("a process");
        // The broker works by then: there is traffic.
        let begin = Instant::now();
        while processor_ticks(broker.process.id()) < ticks + 30 {
            assert!(begin.elapsed() < Duration::from_secs(30), "no traffic");
            std::thread::sleep(Duration::from_millis(5));
        }
        let begin = Instant::now();
        kill_process(Pid::from_raw(run as i32).expect("no process is 0"), signal).expect("it runs");
        let output = bench.wait_with_output().expect("it ends");
        // It would have run for 30 s.
        assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let outcome = &report["scenarios"][0]["outcome"];
        let failures = outcome["failures"].as_array().expect("a list");
        assert_eq!(failures.len(), 1, "{outcome:#}");
        let failure = failures[0].as_str().expect("a sentence");
        assert!(failure.contains(&agents[1].address) && failure.contains(sentence), "{failure}");
        assert!(outcome["delivered"].as_u64() > Some(0), "{outcome:#}");
    }
}

#[test]
fn a_driver_that_goes_away_ends_the_run_and_the_next_one_is_served() {
    let broker = Running::ringmq();
    let agent = Running::agent(&broker.address, "");
    let run =
        format!("--broker {} --scenario p2p-qos1 --rate 0 --warm-up 0 --seconds", broker.address);
    let mut first = driver(&format!("{run} 60"), &[&agent]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for_run(&agent, true);
    std::thread::sleep(Duration::from_millis(500));
    let second = driver(&format!("{run} 0.2"), &[&agent]).output().expect("it starts");
    assert_eq!(second.status.code(), Some(2));
    assert!(
        said(&second).contains("the agent has one plan at a time, and driver 127.0.0.1:"),
        "{}",
        said(&second)
    );
    let begin = Instant::now();
    first.kill().expect("it runs");
    first.wait().expect("it is a child");
    wait_for_run(&agent, false);
    // At once; the rest is for a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let (code, outcomes) = drive(&format!("{run} 0.2"), &[&agent]);
    assert_eq!(code, Some(0), "{outcomes:#?}");
}

/// A token file of this test.
fn token_file(name: &str, text: &str, mode: u32) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringmq-agents-{name}-{}", std::process::id()));
    fs::write(&path, text).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    path
}

#[test]
fn drivers_without_the_token_are_refused_and_it_is_never_printed() {
    const SECRET: &str = "a-token-that-nobody-knows";
    let broker = Running::ringmq();
    let file = token_file("good", SECRET, 0o600);
    let agent = Running::agent(&broker.address, &format!("--token-file {}", file.display()));
    let run = format!(
        "--broker {} --scenario p2p-qos0 --rate 0 --seconds 0.2 --warm-up 0",
        broker.address
    );
    let attempt = |token: Option<&str>| {
        let mut command = driver(&run, &[&agent]);
        if let Some(token) = token {
            command.env(TOKEN, token);
        }
        let output = command.output().expect("it starts");
        assert!(!said(&output).contains(SECRET), "{}", said(&output));
        (output.status.code(), said(&output))
    };
    for wrong in [None, Some("another-token-of-theirs")] {
        let (code, text) = attempt(wrong);
        assert!(code == Some(2) && text.contains("does not have this agent's token"), "{text}");
    }
    assert_eq!(attempt(Some(SECRET)).0, Some(0));
    // One that cannot show that it has the token is none of ours.
    let open = Running::agent(&broker.address, "");
    let output = driver(&run, &[&open]).env(TOKEN, SECRET).output().expect("it starts");
    assert!(said(&output).contains("it has no token"), "{}", said(&output));
    fs::remove_file(file).expect("it is there");

    let readable = token_file("readable", SECRET, 0o644);
    let refused = [
        ("--listen 0.0.0.0:0".to_string(), "beyond loopback drivers must have a token"),
        ("--listen [::]:0".to_string(), "beyond loopback drivers must have a token"),
        (format!("--token-file {}", readable.display()), "chmod 600"),
        ("--token-file /nowhere".to_string(), "--token-file /nowhere"),
    ];
    for (options, sentence) in refused {
        let mut command = Command::new(BENCH);
        command
            .args(["agent", "--target", "127.0.0.1:1"])
            .args(options.split(' '))
            .env_remove(TOKEN);
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{options}");
        assert!(said(&output).contains(sentence), "{options}: {}", said(&output));
    }
    fs::remove_file(readable).expect("it is there");
}

#[test]
fn what_agents_cannot_do_is_refused_in_a_sentence() {
    let (broker, other) = (Running::ringmq(), Running::ringmq());
    let agent = Running::agent(&broker.address, "");
    let run = |arguments: &str| {
        said(
            &driver(&format!("{arguments} --seconds 0.1 --warm-up 0"), &[&agent])
                .output()
                .expect("it starts"),
        )
    };
    let text = run(&format!("--broker {} --scenario p2p-qos0 --rate 0", other.address));
    assert!(text.contains(&format!("this agent may not connect to {}", other.address)), "{text}");
    let text = run(&format!("--broker {} --scenario connect-storm", broker.address));
    assert!(
        text.contains(
            "scenario connect-storm: agents and processes have plain scenarios of publishers"
        ),
        "{text}"
    );
    let text = said(&driver("--apart --scenario p2p-qos0", &[]).output().expect("it starts"));
    assert!(text.contains("--apart is for several generators"), "{text}");
    let nobody = ["--broker", &broker.address, "--agent", "127.0.0.1:1"];
    let text = said(&driver("", &[]).args(nobody).output().expect("it starts"));
    assert!(text.contains("--agent 127.0.0.1:1: no agent listens there"), "{text}");
}

/// A connection of a stranger.
struct Stranger(TcpStream);

impl Stranger {
    fn connect(agent: &Running) -> Stranger {
        let stream = TcpStream::connect(&agent.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        Stranger(stream)
    }

    fn send(&mut self, said: &Value) {
        self.try_send(said).expect("open");
    }

    fn try_send(&mut self, said: &Value) -> std::io::Result<()> {
        let text = said.to_string();
        self.0.write_all(&[&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat())
    }

    /// The next frame; `None`: the connection has ended.
    fn receive(&mut self) -> Option<Value> {
        let mut size = [0; 4];
        self.0.read_exact(&mut size).ok()?;
        let mut text = vec![0; u32::from_be_bytes(size) as usize];
        self.0.read_exact(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Becomes the driver of an agent without a token.
    fn take(agent: &Running) -> Stranger {
        let begin = Instant::now();
        loop {
            let mut stranger = Stranger::connect(agent);
            let greeting = stranger.receive().expect("a greeting");
            stranger.send(&json!({ "protocol": greeting["protocol"], "nonce": greeting["nonce"] }));
            let welcome = stranger.receive().expect("a welcome");
            if welcome["Accepted"].is_object() {
                return stranger;
            }
            // The one before has just ended.
            assert!(welcome["Busy"].is_object(), "{welcome}");
            assert!(begin.elapsed() < Duration::from_secs(20), "{welcome}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads until the agent has closed, or fails with a reason.
    fn end(&mut self) -> String {
        while let Some(said) = self.receive() {
            if let Some(reason) = said["Failed"]["reason"].as_str() {
                return reason.to_string();
            }
        }
        "closed".to_string()
    }
}

#[test]
fn strangers_and_hostile_drivers_do_not_hold_an_agent() {
    let broker = Running::ringmq();
    let agent = Running::agent(&broker.address, "");
    // Those that say nothing, and never end.
    let silent: Vec<Stranger> = (0..100).map(|_| Stranger::connect(&agent)).collect();
    let mut old = Stranger::connect(&agent);
    old.receive().expect("a greeting");
    old.send(&json!({ "protocol": 999, "from": "the future" }));
    let welcome = old.receive().expect("a welcome");
    let reason = welcome["Refused"]["reason"].as_str().expect("refused");
    assert!(reason.contains("version 1 of the protocol and the driver version 999"), "{reason}");

    // After 5 s an agent closes the connection of a stranger that has said nothing.
    let is_closed_at_once = |says: &[u8]| {
        let mut stranger = Stranger::connect(&agent);
        stranger.receive().expect("a greeting");
        let begin = Instant::now();
        stranger.0.write_all(says).expect("open");
        stranger.receive().is_none() && begin.elapsed() < Duration::from_secs(4)
    };
    assert!(is_closed_at_once(&[0xff; 64]), "it reads a frame of 4 GiB");
    assert!(is_closed_at_once(b"\0\0\0\x05hello"), "it takes what is no JSON");

    // Drivers that were taken and say what they may not.
    let prepare = |change: &dyn Fn(&mut Value)| {
        let mut said = json!({ "Prepare": {
            "scenario": { "name": "x", "publishers": 1, "subscribers": 1 },
            "split": { "publishers": [0], "subscribers": [0] },
            "agent": 0, "agent_count": 1, "broker": broker.address, "threads": 1,
        }});
        change(&mut said["Prepare"]);
        said
    };
    let hostile: [(Value, &str); 7] = [
        (
            json!({ "Order": { "rhythm": "Window", "from_ns": 0, "recorded_ns": [], "offset_ns": [], "slice_ns": 0 } }),
            "nothing is prepared",
        ),
        (
            prepare(&|said| said["scenario"]["publishers"] = json!(usize::MAX)),
            "scenario x: publishers",
        ),
        (
            prepare(&|said| said["scenario"]["subscribers"] = json!(99_999)),
            "not split as they may be",
        ),
        (prepare(&|said| said["agent"] = json!(7)), "not split as they may be"),
        (
            prepare(&|said| said["scenario"]["kind"] = json!("idle")),
            "publishers and subscribers only",
        ),
        (
            prepare(&|said| said["broker"] = json!("localhost:22")),
            "may not connect to localhost:22",
        ),
        (json!({ "Delivered": [[4_000_000_000_u32, 1]] }), "closed"),
    ];
    for (said, sentence) in &hostile {
        let mut stranger = Stranger::take(&agent);
        stranger.send(said);
        let reason = stranger.end();
        assert!(reason.contains(sentence), "{said}: {reason}");
        drop(stranger);
        wait_for_run(&agent, false);
    }
    drop(silent);
    let run = "--scenario p2p-qos0 --rate 0 --seconds 0.2 --warm-up 0";
    let (code, outcomes) = drive(&format!("{run} --broker {}", broker.address), &[&agent]);
    assert_eq!(code, Some(0), "{outcomes:#?}");
}

/// Something that listens as an agent does, says `protocol`, and then just `says` these bytes to a driver that has it.
fn impostor(protocol: u32, says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut driver = Stranger(stream);
            // Some only look whether anybody listens.
            let _ = driver.try_send(&json!({ "protocol": protocol, "nonce": vec![0; 32] }));
            let Some(hello) = driver.receive() else { continue };
            let _ = driver.try_send(&json!({ "Accepted": { "proof": null } }));
            if hello["only_asks"] == false {
                driver.0.write_all(says).expect("open");
                // Until the driver has had enough.
                std::thread::spawn(move || while driver.receive().is_some() {});
            }
        }
    });
    address
}

#[test]
fn an_agent_that_speaks_another_version_or_nonsense_is_named() {
    let broker = Running::ringmq();
    let attempt = |agent: &str| {
        let run = "--scenario p2p-qos0 --rate 0 --seconds 0.2 --warm-up 0";
        let mut command = driver(run, &[]);
        let output = command
            .args(["--broker", &broker.address, "--agent", agent])
            .output()
            .expect("it starts");
        (output.status.code(), said(&output))
    };
    let (code, text) = attempt(&impostor(999, b""));
    assert!(
        code == Some(2)
            && text.contains("speaks version 999 of the protocol and the driver version 1"),
        "{text}"
    );
    // Publisher 0 is its own.
    const NONSENSE: &[u8] =
        b"{\"Progress\":{\"orders\":0,\"at_rest\":true,\"delivered\":0,\"reported\":[[0,5]]}}";
    let framed: &'static [u8] =
        [&(NONSENSE.len() as u32).to_be_bytes()[..], NONSENSE].concat().leak();
    let wrong: [(&'static [u8], &str); 3] = [
        (b"\xff\xff\xff\xff", "it sent a frame of 4294967295 bytes"),
        (b"\0\0\0\x05hello", "it sent what is not understood"),
        (framed, "it reports nonsense: messages of publisher 0"),
    ];
    for (says, sentence) in wrong {
        let agent = impostor(1, says);
        let (code, text) = attempt(&agent);
        assert!(code == Some(1) && text.contains(sentence), "{text}");
        assert!(text.contains(&format!("agent {agent}: ")), "{text}");
    }
}
