//! Plugins in brokers of their own: what clients get of them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::build;
use crate::client::{self, Client, PATIENCE, Received};
use crate::fields::{Kind, Packet};
use crate::message::{Message, Source};
use crate::wire::{self, Version};

/// The signal of `abort`.
const SIGABRT: i32 = 6;

/// How long nothing may come where nothing should.
const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn properties_of_the_client_and_of_plugins_in_c_and_rust_arrive_byte_for_byte() {
    let c = build::c("user_property");
    let rust = build::rust();
    for shards in ["1", "2"] {
        let tables =
            table("first", &c, "pass", "prefix = \"in/\", sender = \"from\", count = \"n\"")
                + &table("second", &rust, "deny", "name = \"size\"");
        let broker = start(&tables, shards);
        // Enough of them that each shard has some.
        let mut receivers: Vec<Client> = (0..8)
            .map(|number| {
                let version = if number % 2 == 0 { Version::V5 } else { Version::V311 };
                let mut client =
                    Client::join(broker.address, version, &format!("receiver-{number}"), &[]);
                client.subscribe(&["in/#@1", "out@1"]);
                client
            })
            .collect();
        let topics = ["in/a", "in/b", "out"].map(str::to_owned).to_vec();
        let source = Source { id: 0, version: Version::V5, topics, size_max: 200 };
        let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
        let mut counted = 0;
        for number in 0..300 {
            let message = source.message(number);
            sender.send(&message.publish(Version::V5, 0b010, number as u16 + 1));
            let puback = sender.answer(Kind::Puback);
            assert_eq!(puback.number("reason").unwrap_or(0), 0, "{puback}");
            let mut properties = message.properties.clone();
            if message.topic.starts_with("in/") {
                counted += 1;
                put_user_property("from", "sender", &mut properties);
                put_user_property("n", &counted.to_string(), &mut properties);
            }
            put_user_property("size", &message.payload.len().to_string(), &mut properties);
            for receiver in &mut receivers {
                let (topic, got_properties, payload) = next_message(receiver);
                assert_eq!((&topic, &payload), (&message.topic, &message.payload), "{number}");
                if receiver.version == Version::V5 {
                    assert_eq!(got_properties, properties, "{number}");
                }
            }
        }
    }
}

#[test]
fn clients_are_told_what_a_plugin_denies() {
    let library = build::c("deny");
    for shards in ["1", "2"] {
        let broker = start(&table("judge", &library, "deny", ""), shards);
        let connack = |version, fields: &[(&str, &str)]| {
            let mut client = Client::open(broker.address, version);
            client.send(&client::connect(version, "somebody", fields));
            let connack = client.answer(Kind::Connack);
            client.drain();
            connack.number("reason")
        };
        let wrong = [("user_name", "u"), ("password", "wrong")];
        assert_eq!(connack(Version::V5, &wrong), Some(0x86));
        assert_eq!(connack(Version::V311, &wrong), Some(4));

        let mut receiver = Client::join(broker.address, Version::V5, "receiver", &[]);
        receiver.send(&client::subscribe(
            Version::V5,
            1,
            &["a/low@2", "a/#@1", "deny@1", "fail@1"],
        ));
        let suback = receiver.answer(Kind::Suback);
        let reasons: Vec<_> = suback.all("reasons").iter().map(|code| text(code)).collect();
        assert_eq!(reasons, ["0", "1", "135", "131"], "{suback}");
        receiver.subscribe(&["t/#@2"]);

        let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
        // A failing hook denies, as configured, with Implementation specific error.
        let cases = [
            ("t/deny", 0x87),
            ("t/quota", 0x97),
            ("t/fail", 0x83),
            ("t/odd", 0x83),
            ("t/spoil", 0x83),
        ];
        for (topic, reason) in cases {
            for (flags, kind) in [(0b010, Kind::Puback), (0b100, Kind::Pubrec)] {
                sender.send(&publish(topic, flags, 7));
                let answer = sender.answer(kind);
                assert_eq!(answer.number("reason"), Some(reason), "{topic}: {answer}");
            }
            sender.send(&publish(topic, 0, 0));
        }
        sender.send(&publish("t/skip", 0b010, 8));
        sender.answer(Kind::Puback);
        sender.send(&publish("t/fine", 0b010, 9));
        assert_eq!(next_message(&mut receiver).0, "t/fine");
        assert_eq!(receiver.receive(SILENCE), Received::Nothing);
        receiver.send(&client::unsubscribe(Version::V5, 2, &["t/#"]));
        receiver.answer(Kind::Unsuback);
        wait_for(&broker, "it was asked to fail");
        wait_for(&broker, "unsubscribed 1");
    }
}

#[test]
fn a_plugin_in_rust_answers_connect_later_from_a_thread_of_its_own() {
    let library = build::rust();
    for shards in ["1", "2"] {
        let tables = format!(
            "connect_timeout_ms = 1000\n\n{}",
            table("door", &library, "deny", "users = \"anna echo\"")
        );
        let broker = start(&tables, shards);
        // All at once, some on each shard; each user is looked up for a while.
        let clients: Vec<(Client, &str, u64)> = (0..16)
            .map(|number| {
                let (user, reason) =
                    [("anna", 0), ("mallory", 0x86), ("echo", 0), ("", 0x86)][number % 4];
                let mut client = Client::open(broker.address, Version::V5);
                let id = format!("client-{number}");
                client.send(&client::connect(Version::V5, &id, &[("user_name", user)]));
                (client, user, reason)
            })
            .collect();
        for (mut client, user, reason) in clients {
            let connack = client.answer(Kind::Connack);
            assert_eq!(connack.number("reason").unwrap_or(0), reason, "{user}: {connack}");
            if reason == 0 {
                assert_eq!(connack.number("server_keep_alive"), Some(77), "{connack}");
                client.subscribe(&["t@1"]);
            } else {
                client.drain();
            }
        }
        for (version, refused) in [(Version::V5, 0x88), (Version::V311, 3)] {
            let mut client = Client::open(broker.address, version);
            client.send(&client::connect(version, "waits", &[("user_name", "nobody")]));
            assert_eq!(client.answer(Kind::Connack).number("reason"), Some(refused));
            client.drain();
        }
        wait_for(&broker, "no answer to its CONNECT came in time");
    }
}

#[test]
fn a_message_whose_hook_failed_passes_as_it_was_if_so_configured() {
    let broker = start(&table("judge", &build::c("deny"), "pass", ""), "2");
    let mut receiver = Client::join(broker.address, Version::V5, "receiver", &[]);
    receiver.subscribe(&["#@2"]);
    let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
    for topic in ["t/spoil", "t/fail", "t/odd"] {
        sender.send(&publish(topic, 0b010, 7));
        assert_eq!(sender.answer(Kind::Puback).number("reason").unwrap_or(0), 0);
        let got = next_message(&mut receiver);
        assert_eq!(got, (topic.to_owned(), Vec::new(), b"payload".to_vec()));
    }
}

#[test]
fn the_handles_of_a_plugin_end_with_their_calls_in_a_broker_too() {
    let broker = start(&table("misuse", &build::c("misuse"), "deny", ""), "1");
    let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
    for id in 1..=3 {
        sender.send(&publish("handles", 0b010, id));
        assert_eq!(sender.answer(Kind::Puback).number("reason").unwrap_or(0), 0);
    }
    let log = wait_for(&broker, "a handle that is not of the running call");
    assert!(log.contains("plugin 'misuse' on shard 0 called a function"), "{log}");
}

#[test]
fn an_exception_that_leaves_a_hook_ends_the_broker_in_order() {
    let mut broker = start(&table("throw", &build::c("throw"), "pass", ""), "1");
    let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
    sender.send(&publish("t", 0b010, 1));
    let status = broker.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}: {}", broker.log());
    wait_for(&broker, "foreign exception");
}

#[test]
fn a_broker_says_which_plugin_it_cannot_start_with() {
    let c = build::c("user_property");
    let cases = [
        (table("one", Path::new("/nowhere/one.so"), "deny", ""), "/nowhere/one.so cannot be read"),
        (table("two", &build::folder().join("deny.c"), "deny", ""), "cannot be loaded here"),
        (table("three", &c, "deny", ""), "options: set one of sender, count and site"),
    ];
    for (tables, expected) in cases {
        let config = config(&tables);
        for command in ["serve", "check"] {
            let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
                .args([command, "--listen", "127.0.0.1:0", "--config"])
                .arg(&config)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{command} of {tables}");
            // `check` breaks its lines.
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(expected), "{command}: {said}");
            assert!(said.contains("[[plugin]]") || said.contains("plugin '"), "{command}: {said}");
        }
    }
}

fn start(tables: &str, shards: &str) -> Broker {
    let config = config(tables);
    let arguments = ["--config", config.to_str().unwrap(), "--shards", shards];
    Broker::start(&arguments).unwrap()
}

pub(crate) fn config(tables: &str) -> PathBuf {
    let config = build::fresh("config").with_extension("toml");
    fs::write(&config, tables).unwrap();
    config
}

pub(crate) fn table(name: &str, library: &Path, on_error: &str, options: &str) -> String {
    format!(
        "[[plugin]]\nname = \"{name}\"\nkind = \"library\"\non_error = \"{on_error}\"\npath = \"{}\"\n\
         options = {{ {options} }}\n\n",
        library.display()
    )
}

pub(crate) fn publish(topic: &str, flags: u8, id: u16) -> Vec<u8> {
    let message =
        Message { topic: topic.to_owned(), properties: Vec::new(), payload: b"payload".to_vec() };
    message.publish(Version::V5, flags, id)
}

/// Topic, properties and payload of the next message.
fn next_message(client: &mut Client) -> (String, Vec<u8>, Vec<u8>) {
    let Received::Frame(frame) = client.message(PATIENCE) else { panic!("no message came") };
    let delivery = client.delivery(&frame).unwrap();
    (text(delivery.topic), delivery.properties.to_vec(), delivery.payload.to_vec())
}

fn put_user_property(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0x26);
    wire::prefixed(name.as_bytes(), out).unwrap();
    wire::prefixed(value.as_bytes(), out).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What the broker has logged, once `words` are in it.
pub(crate) fn wait_for(broker: &Broker, words: &str) -> String {
    let began = Instant::now();
    loop {
        let log = broker.log();
        if log.contains(words) {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "no '{words}' in:\n{log}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The user properties of a message that a client gets.
pub(crate) fn next_user_properties(client: &mut Client) -> Vec<Vec<u8>> {
    let Received::Frame(frame) = client.message(PATIENCE) else { panic!("no message came") };
    let packet: Packet = wire::decode(&frame, client.version).unwrap();
    packet.all("user").to_vec()
}
