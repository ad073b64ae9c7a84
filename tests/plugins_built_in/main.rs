//! Plugins that are built in, or are Rust types of who embeds the broker: from outside, on 1 and on 2 shards, with packets
//! written and read by the conformance suite's code.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/broker.rs"]
mod broker;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/client.rs"]
mod client;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/fields.rs"]
mod fields;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/message.rs"]
mod message;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/wire.rs"]
mod wire;

mod embedded;
mod topic_rewrite;
mod user_property;

use std::fs;
use std::path::Path;

use broker::Broker;
use client::{Client, PATIENCE, Received};
use message::Message;

/// A broker with this configuration, and figures in `$SYS` ten times a second; `name` is the test's own.
fn start(name: &str, shards: usize, configuration: &str) -> Broker {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{shards}.toml"));
    fs::write(&path, configuration).unwrap();
    let shards = shards.to_string();
    let path = path.to_str().unwrap();
    Broker::start(&["--shards", &shards, "--sys-interval-ms", "100", "--config", path]).unwrap()
}

/// Ends in order; a broker that was hurt does not.
fn end(mut broker: Broker) {
    broker.signal("TERM");
    let status = broker.wait().unwrap();
    assert!(status.success(), "{status}: {}", broker.log());
}

/// User properties as on the wire.
fn user(properties: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in properties {
        out.push(0x26);
        wire::prefixed(name.as_bytes(), &mut out).unwrap();
        wire::prefixed(value.as_bytes(), &mut out).unwrap();
    }
    out
}

fn message(topic: &str, properties: &[(&str, &str)], payload: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        properties: user(properties),
        payload: payload.as_bytes().to_vec(),
    }
}

/// A message as a subscriber got it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    topic: String,
    retain: bool,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

fn got(topic: &str, retain: bool, properties: &[u8], payload: &str) -> Got {
    let (topic, payload) = (topic.to_owned(), payload.as_bytes().to_vec());
    Got { topic, retain, properties: properties.to_vec(), payload }
}

/// The next message, which must come.
fn next(client: &mut Client) -> Got {
    let Received::Frame(frame) = client.message(PATIENCE) else { panic!("no message came") };
    let delivery = client.delivery(&frame).unwrap();
    Got {
        topic: String::from_utf8(delivery.topic.to_vec()).unwrap(),
        retain: delivery.retain,
        properties: delivery.properties.to_vec(),
        payload: delivery.payload.to_vec(),
    }
}

/// Waits until `$SYS` says `value` at `topic`.
fn await_sys(address: std::net::SocketAddr, topic: &str, value: &str) {
    let mut watcher = Client::join(address, wire::Version::V5, "$watcher", &[]);
    watcher.subscribe(&[&format!("$SYS/broker/{topic}@0")]);
    loop {
        let said = next(&mut watcher).payload;
        if said == value.as_bytes() {
            return watcher.leave();
        }
    }
}
