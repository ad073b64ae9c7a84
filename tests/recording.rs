//! `ringmq-bench record` and `replay`: a recording of a broker's traffic, played to RingMQ, to Mosquitto, and to doubles
//! that do something wrong.
#![cfg(feature = "load")]

#[path = "recording/double.rs"]
mod double;
#[path = "load_generator/packets.rs"]
mod packets;
#[path = "load_generator/running.rs"]
mod running;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, encode_pubrel, next_frame,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::double::Fault;
use crate::running::Running;

const BENCH: &str = env!("CARGO_BIN_EXE_ringmq-bench");

fn bench(arguments: &str) -> Output {
    let mut command = Command::new(BENCH);
    command.args(arguments.split_whitespace()).env_remove("RINGMQ_BENCH_PASSWORD");
    command.output().expect("the bench starts")
}

/// What a replay came to, and its exit code.
fn replay(file: &Path, further: &str) -> (Value, i32) {
    let output = bench(&format!("replay {} --json {further}", file.display()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (report["scenarios"][0]["outcome"].clone(), output.status.code().expect("it ended"))
}

fn measure(outcome: &Value, name: &str) -> f64 {
    let measures = outcome["measures"].as_array().expect("a list");
    let found = measures.iter().find(|measure| measure["name"] == name);
    found.and_then(|measure| measure["value"].as_f64()).unwrap_or_else(|| panic!("{outcome:#}"))
}

/// A folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recording-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

impl Running {
    /// `None`: there is none on this machine.
    fn mosquitto() -> Option<Running> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let program = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["-p", &address.port().to_string()]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
        });
        let running = Running { process: program?, address: address.to_string() };
        for _ in 0..1000 {
            if TcpStream::connect(address).is_ok() {
                return Some(running);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not listen");
    }
}

/// A recorder that records by now.
struct Recorder {
    process: Child,
    said: BufReader<ChildStderr>,
}

impl Recorder {
    fn start(address: &str, file: &Path, further: &str) -> Recorder {
        let mut command = Command::new(BENCH);
        command.args(["record", "--broker", address, "-o"]).arg(file);
        command.args(further.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let said = BufReader::new(process.stderr.take().expect("piped"));
        let mut recorder = Recorder { process, said };
        let mut line = String::new();
        recorder.said.read_line(&mut line).expect("text");
        assert!(line.starts_with("recording into "), "{line}");
        recorder
    }

    /// What it said at last, and its exit code.
    fn end(mut self) -> (String, i32) {
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("it runs");
        self.wait()
    }

    /// All that it says fits into its pipes.
    fn wait(&mut self) -> (String, i32) {
        let begin = Instant::now();
        while self.process.try_wait().expect("its own").is_none() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the recorder does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        self.said.read_to_string(&mut text).expect("text");
        let mut out = self.process.stdout.take().expect("piped");
        out.read_to_string(&mut text).expect("text");
        (text, self.process.wait().expect("it ends").code().expect("it ended by itself"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Publishes, and waits for what the broker says to each message.
struct Client(TcpStream);

const VERSION: ProtocolVersion = ProtocolVersion::V5;

impl Client {
    fn connect(address: &str) -> Client {
        let mut client = Client(TcpStream::connect(address).expect("it listens"));
        let mut bytes = Vec::new();
        Connect { keep_alive_s: 600, ..Connect::new(VERSION, "publishes") }.encode(&mut bytes);
        client.ask(&bytes);
        client
    }

    fn ask(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("open");
        let mut input = Vec::new();
        while next_frame(&input, 1 << 20).expect("a packet").is_none() {
            let mut chunk = [0; 1000];
            let size = self.0.read(&mut chunk).expect("open");
            assert!(size > 0, "closed");
            input.extend_from_slice(&chunk[..size]);
        }
        let frame = next_frame(&input, 1 << 20).expect("a packet").expect("whole");
        Packet::decode(&frame, VERSION).expect("sound");
    }

    fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: &[u8]) {
        let packet_id = PacketId::new(1).filter(|_| qos > 0);
        let qos = QoS::from_bits(qos).expect("a QoS");
        let pair = [0x26, 0, 1, b'a', 0, 2, b'b', b'c'];
        let properties =
            ringmq::codec::ForwardedProperties::from_raw(if retain { &pair } else { &[] });
        let mut bytes = Vec::new();
        let publish =
            Publish { qos, retain, topic, packet_id, payload, properties, ..Publish::default() };
        publish.encode(VERSION, &mut bytes);
        match packet_id {
            None => self.0.write_all(&bytes).expect("open"),
            Some(id) => {
                self.ask(&bytes);
                if qos == QoS::ExactlyOnce {
                    let mut release = Vec::new();
                    encode_pubrel(VERSION, id, ReasonCode::Success, &mut release);
                    self.ask(&release);
                }
            }
        }
    }
}

const COUNT: usize = 60;

/// Messages of all QoS and sizes on a few topics, one of them with the retain flag and a user property.
fn publish_all(address: &str) {
    let mut client = Client::connect(address);
    for index in 0..COUNT {
        let topic = format!("plant/{}/secret", index % 3);
        let payload = vec![b'p'; [0, 5, 24, 300][index % 4]];
        client.publish(&topic, (index % 3) as u8, index == 30, &payload);
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Ends once the broker has handed on what was published: QoS 0 is not acknowledged.
fn settle() {
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn traffic_is_recorded_and_replayed_at_any_speed_and_verified() {
    let folder = folder("whole");
    let broker = Running::ringmq("--sys-interval-ms 200");
    Client::connect(&broker.address).publish("plant/kept", 1, true, b"kept before");
    let file = folder.join("plain.jsonl");
    let hashed = folder.join("hashed.jsonl");
    let payloads = folder.join("payloads.jsonl");
    let recorders = [
        Recorder::start(&broker.address, &file, ""),
        Recorder::start(&broker.address, &hashed, "--hash-topics --mqtt 3"),
        Recorder::start(&broker.address, &payloads, "--payloads --filter plant/#"),
    ];
    publish_all(&broker.address);
    settle();
    for recorder in recorders {
        let (said, code) = recorder.end();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("60 messages and 1 retained"), "{said}");
    }
    for path in [&file, &hashed, &payloads] {
        let mode = fs::metadata(path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let lines = lines(path);
        assert_eq!(lines.len(), 1 + 1 + COUNT + 1);
        assert_eq!(lines[1]["retained"], true, "{:#}", lines[1]);
        let end = &lines[COUNT + 2]["end"];
        assert!(end["why"] == "interrupted" && end["dropped"] == 0, "{end:#}");
    }
    check_lines(&lines(&file), &lines(&payloads));
    let text = fs::read_to_string(&hashed).expect("written");
    for secret in ["plant", "secret", "kept", "cHBwcH", "user"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(!fs::read_to_string(&file).expect("written").contains("ppp"));

    let again = bench(&format!("record --broker {} -o {}", broker.address, file.display()));
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));

    let other = format!("--broker {} --filter plant/+/secret --subscribers 2", broker.address);
    for (path, further, factor) in [
        (&file, "--speed 2", 1),
        (&file, "--flat-out --loop 3 --publishers 2", 3),
        (&file, "--mqtt 3 --io epoll --speed 4", 1),
        (&hashed, "--speed 4 --loop 2", 2),
        (&payloads, "--speed 4 --publishers 1", 1),
        (&payloads, &other, 2),
    ] {
        let (outcome, code) = replay(path, further);
        assert_eq!(code, 0, "{further}: {outcome:#}");
        assert_eq!(outcome["delivered"], (COUNT * factor) as u64, "{further}: {outcome:#}");
        assert_eq!(measure(&outcome, "retained, set up before"), 1.0);
        let is_flat_out = further.contains("flat-out");
        assert_eq!(outcome["latency"].is_null(), is_flat_out, "{further}: {outcome:#}");
        if !is_flat_out {
            assert_eq!(outcome["latency"]["count"], outcome["delivered"], "{further}: {outcome:#}");
        }
    }
}

fn check_lines(plain: &[Value], with_payloads: &[Value]) {
    let mut last = 0;
    for (index, line) in plain[2..2 + COUNT].iter().enumerate() {
        assert_eq!(line["topic"], format!("plant/{}/secret", index % 3), "{line:#}");
        assert_eq!(line["qos"], index % 3, "{line:#}");
        assert_eq!(line["size"], [0, 5, 24, 300][index % 4], "{line:#}");
        assert_eq!(line["retain"] == true, index == 30, "{line:#}");
        assert!(line["payload"].is_null(), "{line:#}");
        let ns = line["ns"].as_u64().expect("a time");
        assert!(ns >= last, "{line:#}");
        last = ns;
    }
    assert_eq!(plain[32]["user_properties"], serde_json::json!([[1, 2]]));
    assert_eq!(with_payloads[3]["payload"], "cHBwcHA=");
}

/// A recording as somebody may write it by hand: `count` messages within `span_ms`.
fn write(file: &Path, count: usize, span_ms: u64, size: impl Fn(usize) -> usize) {
    let mut text =
        r##"{"ringmq_recording":1,"begin":"","mqtt":3,"filters":["#"]}"##.to_string() + "\n";
    for index in 0..count {
        let ns = span_ms * 1_000_000 * index as u64 / count as u64;
        let (topic, size) = (index % 2, size(index));
        text += &format!("{{\"ns\":{ns},\"topic\":\"t/{topic}\",\"size\":{size},\"qos\":0}}\n");
    }
    fs::write(file, text).expect("writable");
}

#[test]
fn every_fault_of_a_broker_is_found_with_stamps_and_without() {
    let folder = folder("faults");
    let stamped = folder.join("stamped.jsonl");
    write(&stamped, 100, 300, |_| 40);
    let short = folder.join("short.jsonl");
    write(&short, 100, 300, |_| 6);
    let names = ["lost", "duplicated", "reordered", "corrupt"];
    let check = |file: &Path, fault: Fault, expected: [u64; 4]| {
        let address = double::start(fault);
        // With one publisher the double has one order to change.
        let (outcome, code) = replay(file, &format!("--publishers 1 --broker {address}"));
        let found = names.map(|name| outcome["faults"][name].as_u64());
        assert_eq!(found, expected.map(Some), "{fault:?}, {}: {outcome:#}", file.display());
        assert_eq!(code, i32::from(expected != [0; 4]), "{fault:?}: {outcome:#}");
        assert_eq!(outcome["sent"], 100, "{outcome:#}");
        outcome["latency"]["max_us"].as_f64().expect("measured")
    };
    let check = &check;
    std::thread::scope(|scope| {
        for file in [&stamped, &short] {
            scope.spawn(move || check(file, Fault::Nothing, [0; 4]));
            scope.spawn(move || check(file, Fault::Drops, [10, 0, 0, 0]));
            scope.spawn(move || check(file, Fault::Repeats, [0, 10, 0, 0]));
            scope.spawn(move || check(file, Fault::Corrupts, [10, 0, 0, 10]));
            scope.spawn(move || check(file, Fault::Misdirects, [10, 0, 0, 10]));
            scope.spawn(move || {
                let max_us = check(file, Fault::Delays, [0; 4]);
                assert!(max_us >= double::DELAY.as_micros() as f64, "{max_us}");
            });
        }
    });
}

#[test]
fn an_order_that_a_broker_changes_is_found_within_each_topic() {
    let folder = folder("order");
    for (name, size) in [("stamped", 40), ("short", 6)] {
        let file = folder.join(name);
        write(&file, 100, 300, |_| size);
        let text = fs::read_to_string(&file).expect("written").replace("t/1", "t/0");
        fs::write(&file, text).expect("writable");
        let address = double::start(Fault::Reorders);
        let (outcome, code) = replay(&file, &format!("--broker {address}"));
        // The last one of a hundred is held back for good.
        assert_eq!(outcome["faults"]["reordered"], 9, "{outcome:#}");
        assert_eq!(outcome["faults"]["lost"], 1, "{outcome:#}");
        assert_eq!(code, 1);
    }
}

#[test]
fn how_each_message_is_verified_is_said() {
    let folder = folder("proofs");
    let file = folder.join("sizes.jsonl");
    write(&file, 100, 100, |index| [0, 1, 23, 24, 5000][index % 5]);
    let (outcome, code) = replay(&file, "");
    assert_eq!(code, 0, "{outcome:#}");
    assert_eq!(measure(&outcome, "verified by stamp and checksum"), 40.0);
    assert_eq!(measure(&outcome, "verified by up to 23 bytes of filling"), 40.0);
    assert_eq!(measure(&outcome, "without a payload: verified by count and order"), 20.0);
    let warning = outcome["warnings"][0].as_str().expect("it has no end");
    assert!(warning.contains("cut, or never ended"), "{warning}");
}

#[test]
fn a_replay_is_a_scenario_like_others() {
    let folder = folder("scenario");
    let file = folder.join("r.jsonl");
    write(&file, 200, 100, |_| 64);
    let scenario = folder.join("scenario.toml");
    let text =
        format!("kind = \"replay\"\nfile = \"{}\"\nflat_out = true\nloops = 5\n", file.display());
    fs::write(&scenario, text).expect("writable");
    let output = bench(&format!("--json --scenario {} --window 20", scenario.display()));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let outcome = &report["scenarios"][0]["outcome"];
    assert!(output.status.success() && outcome["delivered"] == 1000, "{outcome:#}");
    assert_eq!(report["scenarios"][0]["settings"]["kind"], "replay");
    let output = bench(&format!("--scenario {} --payload 100", scenario.display()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--payload is not for a replay"), "{said}");
}

#[test]
fn a_generator_that_is_too_slow_for_the_speed_is_named_as_the_limit() {
    let folder = folder("slow");
    let file = folder.join("r.jsonl");
    write(&file, 300, 300, |_| 64);
    let (outcome, code) = replay(&file, "--speed 10 --burden 5000");
    assert_eq!(code, 0, "{outcome:#}");
    assert_eq!(outcome["bound_at_rate"], "generator", "{outcome:#}");
    assert!(measure(&outcome, "sent after due, longest") > 500.0, "{outcome:#}");
    assert!(outcome["latency"]["max_us"].as_f64() > Some(500_000.0), "{outcome:#}");
}

#[test]
fn a_recording_that_cannot_be_played_is_refused_with_the_reason() {
    let folder = folder("refused");
    let file = folder.join("r.jsonl");
    let refused = |file: &Path, reason: &str| {
        let output = bench(&format!("replay {}", file.display()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(reason), "{reason}: {said}");
        assert!(said.len() < 1000, "{said}");
    };
    write(&file, 3, 1, |index| if index == 1 { 5 << 20 } else { 1 });
    refused(&file, "the broker takes 1048576 at most (packet_size_max): leave those messages out");
    write(&file, 0, 1, |_| 0);
    refused(&file, "no messages to play");
    refused(&folder, "no regular file");
    refused(&folder.join("none"), "No such file");
    fs::write(&file, [0x7f; 3000]).expect("writable");
    refused(&file, "line 1: its first line is not that of a recording");
    write(&file, 3, 1, |_| 1);
    let text = fs::read_to_string(&file).expect("written");
    for (from, to, reason) in [
        ("\"t/1\"", "\"t/\\u0000\"", "line 3: topic"),
        ("\"t/1\"", "\"t/+\"", "line 3: topic"),
        ("\"size\":1", "\"size\":99999999999", "line 2: size is 99999999999"),
        ("recording\":1", "recording\":7", "version 7"),
    ] {
        fs::write(&file, text.replacen(from, to, 1)).expect("writable");
        refused(&file, reason);
    }
}

#[test]
fn what_was_recorded_stays_when_the_broker_closes() {
    let folder = folder("closes");
    let file = folder.join("r.jsonl");
    let played = folder.join("played.jsonl");
    write(&played, 100, 300, |_| 40);
    let address = double::start(Fault::Closes(50));
    let mut recorder = Recorder::start(&address, &file, "--mqtt 3");
    let _ = bench(&format!("replay {} --publishers 1 --broker {address}", played.display()));
    let (said, code) = recorder.wait();
    assert!(code == 1 && said.contains("the broker closed the connection"), "{said}");
    assert!(said.contains("50 messages"), "{said}");
    let (outcome, code) = replay(&file, "");
    assert!(code == 0 && outcome["delivered"] == 50, "{outcome:#}");
}

#[test]
fn a_recorder_ends_when_it_should_and_names_what_keeps_it_from_recording() {
    let folder = folder("ends");
    let broker = Running::ringmq("");
    let address = &broker.address;
    let file = folder.join("r.jsonl");
    let mut recorder = Recorder::start(address, &file, "--seconds 300ms");
    let (said, code) = recorder.wait();
    assert!(code == 0 && said.contains("the time was up"), "{said}");
    let mut recorder = Recorder::start(address, &file, "--force --size-max 10000");
    let publisher = std::thread::spawn({
        let address = address.clone();
        move || publish_all(&address)
    });
    let (said, code) = recorder.wait();
    publisher.join().expect("published");
    assert!(code == 0 && said.contains("--size-max"), "{said}");
    assert!(fs::metadata(&file).expect("written").len() <= 10_000);
    let full = bench(&format!("record --broker {address} --force -o /dev/full --seconds 300ms"));
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(full.status.code() == Some(1) && said.contains("/dev/full: "), "{said}");
    let refused = |arguments: &str, reason: &str| {
        let output = bench(&format!("record -o {}/x {arguments}", folder.display()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(reason), "{arguments}: {said}");
        assert!(!folder.join("x").exists());
    };
    refused("--broker 127.0.0.1:1", "--broker 127.0.0.1:1: connecting to");
    refused(&format!("--broker {address} --filter $share/g/a"), "take messages away");
    refused(&format!("--broker {address} --filter a/#/b"), "no topic filter");
    refused(&format!("--broker {address} --filter a --key-file k"), "--hash-topics");
}

#[test]
fn mosquittos_traffic_is_recorded_and_replayed_to_it() {
    let Some(broker) = Running::mosquitto() else {
        println!(
            "SKIPPED mosquittos_traffic_is_recorded_and_replayed_to_it: there is no mosquitto"
        );
        return;
    };
    let folder = folder("mosquitto");
    for mqtt in [3, 5] {
        let file = folder.join(format!("{mqtt}.jsonl"));
        let recorder =
            Recorder::start(&broker.address, &file, &format!("--mqtt {mqtt} --filter plant/#"));
        publish_all(&broker.address);
        settle();
        let (said, code) = recorder.end();
        assert!(code == 0 && said.contains("60 messages"), "{said}");
        for further in ["--speed 2", "--flat-out", "--mqtt 3 --speed 4"] {
            let (outcome, code) = replay(&file, &format!("{further} --broker {}", broker.address));
            assert_eq!(code, 0, "{mqtt}, {further}: {outcome:#}");
            assert_eq!(outcome["delivered"], COUNT as u64, "{outcome:#}");
        }
    }
}
