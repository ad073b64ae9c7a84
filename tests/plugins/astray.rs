//! Plugins that never return or crash: the broker says which one it was, and its supervisor gets to know.

use std::os::unix::process::ExitStatusExt;

use crate::broker::Broker;
use crate::build;
use crate::client::Client;
use crate::fields::Kind;
use crate::served::{config, publish, table, wait_for};
use crate::wire::Version;

const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

/// A broker with the plugin, and a client's QoS 1 message on that topic on its way.
fn start(topic: &str, arguments: &[&str]) -> (Broker, Client) {
    let config = config(&table("stray", &build::c("stray"), "pass", ""));
    let mut all = vec!["--config", config.to_str().unwrap(), "--shards", "1"];
    all.extend(arguments);
    let broker = Broker::start(&all).unwrap();
    let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
    sender.send(&publish(topic, 0b010, 1));
    (broker, sender)
}

#[test]
fn a_plugin_that_never_returns_is_named_and_the_process_ends_for_its_supervisor() {
    for io in ["auto", "epoll"] {
        let (mut broker, _sender) = start("loop", &["--io", io, "--stall-max-ms", "3s"]);
        let status = broker.wait().unwrap();
        assert_eq!(status.code(), Some(3), "{status}: {}", broker.log());
        let log = wait_for(&broker, "the process ends");
        assert!(log.contains("in the publish hook of plugin 'stray'"), "{log}");
        assert!(log.contains("shard 0 has not turned for "), "{log}");
    }
}

#[test]
fn a_plugin_that_never_returns_is_named_while_the_broker_ends_too() {
    // Once the time for a turn is over first, once the time for the end.
    let cases = [
        ("auto", ["--stall-max-ms", "3s", "--shutdown-max-ms", "60s"]),
        ("epoll", ["--stall-max-ms", "60s", "--shutdown-max-ms", "3s"]),
    ];
    for (io, limits) in cases {
        let (mut broker, _sender) = start("loop", &[&["--io", io], &limits[..]].concat());
        wait_for(&broker, "the plugin loops");
        broker.signal("TERM");
        let status = broker.wait().unwrap();
        assert_eq!(status.code(), Some(3), "{status}: {}", broker.log());
        wait_for(&broker, "in the publish hook of plugin 'stray'");
    }
}

#[test]
fn the_others_go_on_if_so_configured_and_the_end_of_a_stall_is_told() {
    let arguments = ["--stall-max-ms", "2s", "--stall-action", "continue"];
    let (broker, mut sender) = start("while", &arguments);
    let log = wait_for(&broker, "the others go on");
    assert!(log.contains("in the publish hook of plugin 'stray'"), "{log}");
    // It comes back, and so does the client's answer.
    assert_eq!(sender.answer(Kind::Puback).number("reason").unwrap_or(0), 0);
    wait_for(&broker, "shard 0 turns again");
}

#[test]
fn a_plugin_that_crashes_is_named_and_the_signal_ends_the_process() {
    let plain = "on shard 0, in the publish hook of plugin 'stray'\n";
    let json = "{\"level\":\"ERROR\",\"message\":\"the process crashes (SIGSEGV) on shard 0, in the publish hook of plugin 'stray'\"}\n";
    let cases = [
        ("crash", "auto", "human", plain, SIGSEGV),
        ("crash", "epoll", "json", json, SIGSEGV),
        ("abort", "auto", "human", plain, SIGABRT),
    ];
    for (topic, io, format, line, signal) in cases {
        if signal == SIGSEGV && std::env::var_os("ASAN_OPTIONS").is_some() {
            println!("SKIPPED: a fault is what AddressSanitizer reports");
            continue;
        }
        let (mut broker, _sender) = start(topic, &["--io", io, "--log-format", format]);
        let status = broker.wait().unwrap();
        wait_for(&broker, line);
        assert_eq!(status.signal(), Some(signal), "{status}: {}", broker.log());
    }
}
