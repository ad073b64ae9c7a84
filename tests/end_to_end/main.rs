//! End to end: the real program on loopback, with 1 and 2 shards, driven by the MQTT clients of others.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/broker.rs"]
mod broker;
mod closing;
mod limits;
mod logs;
mod mosquitto;
mod refusals;
mod signals;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use broker::Broker;

/// Seconds that a script of a peer may take.
const SCRIPT_S: &str = "150";

#[test]
fn paho_sends_and_receives() {
    for shards in ["1", "2"] {
        paho("messages.py", shards);
    }
}

#[test]
fn paho_keeps_sessions_and_wills() {
    for shards in ["1", "2"] {
        paho("sessions.py", shards);
    }
}

#[test]
fn mqttjs_sends_and_receives() {
    let Some(modules) = peer("mqttjs") else { return };
    for shards in ["1", "2"] {
        let mut command = Command::new("timeout");
        command.args([SCRIPT_S, "node", &script("mqttjs/main.js")]).env("NODE_PATH", &modules);
        drive(command, shards);
    }
}

fn paho(name: &str, shards: &str) {
    let Some(python) = peer("paho") else { return };
    let mut command = Command::new("timeout");
    command.args([SCRIPT_S, &python, "-B", &script(&format!("paho/{name}"))]);
    drive(command, shards);
}

/// Runs a script against a broker of its own; the script fails by its exit code, and says how many scenarios it had.
fn drive(mut command: Command, shards: &str) {
    let broker = Broker::start(&["--shards", shards]).unwrap();
    let (host, port) = (broker.address.ip().to_string(), broker.address.port().to_string());
    let output = command.args([host, port]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{shards} shards: {said}");
    let is_whole = output.status.success() && said.contains(" hold\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        is_whole,
        "{command:?}: {}\n{said}\n{errors}\nthe broker says:\n{}",
        output.status,
        broker.log()
    );
}

/// How to run a peer, installed if need be; `None`, with the reason printed, when this machine cannot have it.
fn peer(name: &str) -> Option<String> {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
    let output = Command::new(install).arg(name).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        Some(3) => {
            // Past the capture of a passing test's output.
            let _ = writeln!(std::io::stdout(), "SKIPPED with {name}: {errors}");
            None
        }
        _ => panic!("scripts/interop {name}: {}: {errors}", output.status),
    }
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/end_to_end")
        .join(name)
        .to_str()
        .unwrap()
        .to_owned()
}
