//! The fault that this broker was made against, replayed: plugins add user properties, subscribers of both protocols read,
//! and two bridges copy, the one that keeps properties first. Each receiver gets each message once, in order, with every
//! property of its client and of each plugin, byte for byte.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the tests of plugins use other parts of it")]
#[path = "../plugins/build.rs"]
mod build;
#[allow(dead_code, reason = "the tests of bridges use other parts of it")]
#[path = "../bridges/client.rs"]
mod client;
#[allow(dead_code, reason = "the tests of bridges use other parts of it")]
#[path = "../bridges/process.rs"]
mod process;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use client::{Client, Got, Message};
use process::{Process, folder};
use ringmq::codec::{
    Connect, ForwardedProperties, PacketId, ProtocolVersion, Publish, QoS, Will, put_user_property,
};
use ringmq::random::Random;

use ProtocolVersion::{V5, V311};

const PUBLISHERS: u64 = 3;
const TOPICS: u64 = 5;
const WINDOW: u64 = 500;
const WILLS: u64 = 20;
/// A receiver that has waited for so long will not get the rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages in all: fewer in the gate, `REPLAY_MESSAGES=1000000` by hand.
fn message_count() -> u64 {
    std::env::var("REPLAY_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(30_000)
}

/// The user properties that a publisher gives its message, encoded.
fn own_properties(publisher: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(publisher << 48 | number);
    let mut bytes = Vec::new();
    for _ in 0..random.below(5) {
        let text = |random: &mut Random| -> String {
            let sizes = [0, 1, 7, 130];
            let size = sizes[random.below(4) as usize];
            (0..size).map(|_| ['a', 'é', '\u{1f600}', '='][random.below(4) as usize]).collect()
        };
        let (name, value) = (text(&mut random), text(&mut random));
        put_user_property(&mut bytes, &name, &value);
    }
    bytes
}

/// What the three plugins put behind them.
fn with_plugins(mut properties: Vec<u8>, client_id: &str, topic: &str, size: usize) -> Vec<u8> {
    put_user_property(&mut properties, "built-in", &format!("{client_id} to {topic}"));
    put_user_property(&mut properties, "from", client_id);
    put_user_property(&mut properties, "size", &size.to_string());
    properties
}

fn payload(publisher: u64, number: u64) -> Vec<u8> {
    let mut payload = publisher.to_be_bytes().to_vec();
    payload.extend_from_slice(&number.to_be_bytes());
    payload.resize(16 + (number % 40) as usize, b'.');
    payload
}

fn publish_all(address: SocketAddr, publisher: u64, count: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        let id = format!("publisher-{publisher}");
        let mut client = Client::connect(address, &id, V5, false).unwrap();
        let (mut sent, mut acked) = (0, 0);
        while acked < count {
            while sent < count && sent - acked < WINDOW {
                let topic = format!("data/{publisher}/{}", sent % TOPICS);
                let (properties, payload) =
                    (own_properties(publisher, sent), payload(publisher, sent));
                let qos = if (sent % TOPICS).is_multiple_of(2) {
                    QoS::AtLeastOnce
                } else {
                    QoS::ExactlyOnce
                };
                client.publish(Publish {
                    qos,
                    retain: sent % 1000 < TOPICS,
                    topic: &topic,
                    packet_id: PacketId::new((sent % 60_000 + 1) as u16),
                    properties: ForwardedProperties::from_raw(&properties),
                    payload: &payload,
                    ..Publish::default()
                });
                sent += 1;
            }
            client.flush().unwrap();
            let got = client.read(PATIENCE).unwrap();
            assert!(!got.is_empty(), "no acknowledgement came: {acked} of {sent}");
            acked += got.iter().filter(|one| matches!(one, Got::Acked(_))).count() as u64;
        }
    })
}

/// What one receiver must get.
struct Receiver {
    name: String,
    has_properties: bool,
    /// In front of each topic.
    prefix: &'static str,
    /// The next number, by publisher and topic.
    next: HashMap<(u64, u64), u64>,
    wills: u64,
    count: u64,
}

impl Receiver {
    fn note(&mut self, message: &Message) {
        let topic = message.topic.strip_prefix(self.prefix).expect("the prefix of its bridge");
        let expected = match topic.strip_prefix("data/will/") {
            Some(will) => {
                self.wills += 1;
                let mut own = Vec::new();
                put_user_property(&mut own, "last", will);
                with_plugins(own, &format!("will-{will}"), topic, message.payload.len())
            }
            None => self.note_number(topic, message),
        };
        self.count += 1;
        let expected = if self.has_properties { expected } else { Vec::new() };
        assert_eq!(message.properties, expected, "{}: {topic}", self.name);
    }

    fn note_number(&mut self, topic: &str, message: &Message) -> Vec<u8> {
        let publisher = u64::from_be_bytes(message.payload[..8].try_into().unwrap());
        let number = u64::from_be_bytes(message.payload[8..16].try_into().unwrap());
        assert_eq!(message.payload, payload(publisher, number));
        assert_eq!(topic, format!("data/{publisher}/{}", number % TOPICS));
        let next = self.next.entry((publisher, number % TOPICS)).or_insert(number % TOPICS);
        assert_eq!(number, *next, "{}: lost, repeated or out of order", self.name);
        *next += TOPICS;
        let id = format!("publisher-{publisher}");
        with_plugins(own_properties(publisher, number), &id, topic, message.payload.len())
    }
}

fn receive_all(
    address: SocketAddr,
    id: &str,
    version: ProtocolVersion,
    (has_properties, prefix): (bool, &'static str),
    count: u64,
) -> JoinHandle<()> {
    let mut client = Client::connect(address, id, version, false).unwrap();
    client.subscribe(&format!("{prefix}data/#"), QoS::ExactlyOnce).unwrap();
    client.read(Duration::from_millis(300)).unwrap();
    let name = format!("{id} ({version:?})");
    thread::spawn(move || {
        let mut receiver =
            Receiver { name, has_properties, prefix, next: HashMap::new(), wills: 0, count: 0 };
        while receiver.count < count {
            let got = client.read(PATIENCE).unwrap();
            assert!(!got.is_empty(), "{}: {} of {count} came", receiver.name, receiver.count);
            for one in &got {
                if let Got::Message(message) = one {
                    receiver.note(message);
                }
            }
        }
        assert_eq!(receiver.wills, WILLS, "{}", receiver.name);
        let more = client.read(Duration::from_millis(500)).unwrap();
        assert!(!more.iter().any(|one| matches!(one, Got::Message(_))), "{}: more", receiver.name);
    })
}

/// Clients that are lost and leave a will with a property.
fn leave_wills(address: SocketAddr) {
    for number in 0..WILLS {
        let mut properties = Vec::new();
        put_user_property(&mut properties, "last", &number.to_string());
        let (id, topic) = (format!("will-{number}"), format!("data/will/{number}"));
        let mut connect = Connect::new(V5, &id);
        connect.will = Some(Will {
            topic: &topic,
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: false,
            delay_s: 0,
            message_expiry_s: None,
            payload_format_utf8: false,
            properties: ForwardedProperties::from_raw(&properties),
        });
        drop(Client::connect_as(address, connect).unwrap());
    }
}

fn configuration(first: SocketAddr, second: SocketAddr) -> String {
    let (c, rust) = (build::c("user_property"), build::rust());
    let library = |name: &str, path: &std::path::Path, options: &str| {
        format!(
            "[[plugin]]\nname = \"{name}\"\nkind = \"library\"\npath = \"{}\"\noptions = {{ {options} }}\n",
            path.display()
        )
    };
    let bridge = |name: &str, address: SocketAddr, protocol: &str| {
        format!(
            "[[bridge]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nprotocol = \"{protocol}\"\nreconnect_min_ms = 100\n\
             forward = [{{ filter = \"data/#\", prefix = \"{name}/\" }}]\n"
        )
    };
    format!(
        "[[plugin]]\nname = \"first\"\nkind = \"user-property\"\nfilters = [\"data/#\"]\n\
         properties = [{{ name = \"built-in\", value = \"${{client_id}} to ${{topic}}\" }}]\n{}{}{}{}",
        library("second", &c, "prefix = \"data/\", sender = \"from\""),
        library("third", &rust, "name = \"size\""),
        bridge("five", first, "5.0"),
        bridge("three", second, "3.1.1"),
    )
}

/// The last values of topics of `$SYS`.
fn sys(address: SocketAddr, filter: &str) -> HashMap<String, String> {
    let mut client = Client::connect(address, "sys", V5, false).unwrap();
    client.subscribe(filter, QoS::AtMostOnce).unwrap();
    let mut values = HashMap::new();
    for _ in 0..10 {
        for got in client.read(Duration::from_millis(100)).unwrap() {
            if let Got::Message(message) = got {
                values.insert(message.topic, String::from_utf8(message.payload).unwrap());
            }
        }
    }
    values
}

fn await_bridges(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let states = sys(address, "$SYS/bridges/+/state");
        if states.len() == 2 && states.values().all(|state| state == "connected") {
            return;
        }
        assert!(Instant::now() < deadline, "{states:?}");
    }
}

/// At rest: nothing is held, nothing was read too late.
fn check_arena(address: SocketAddr, shards: u16) {
    let values = sys(address, "$SYS/broker/shards/+/arena/#");
    for shard in 0..shards {
        let of = |name: &str| values[&format!("$SYS/broker/shards/{shard}/arena/{name}")].as_str();
        assert_eq!(of("stale_reads"), "0");
        for stage in ["encode", "plugin", "bridge"] {
            assert_eq!(of(&format!("held/{stage}")), "0");
        }
    }
}

/// New subscribers get what the hooks made of retained messages.
fn check_retained(address: SocketAddr) {
    let mut client = Client::connect(address, "late", V5, false).unwrap();
    client.subscribe("data/+/+", QoS::AtMostOnce).unwrap();
    let mut count = 0;
    for _ in 0..10 {
        for got in client.read(Duration::from_millis(100)).unwrap() {
            let Got::Message(message) = got else { continue };
            assert!(message.retain);
            let publisher = u64::from_be_bytes(message.payload[..8].try_into().unwrap());
            let number = u64::from_be_bytes(message.payload[8..16].try_into().unwrap());
            let id = format!("publisher-{publisher}");
            let own = own_properties(publisher, number);
            let expected = with_plugins(own, &id, &message.topic, message.payload.len());
            assert_eq!(message.properties, expected);
            count += 1;
        }
    }
    assert_eq!(count, PUBLISHERS * TOPICS);
}

fn check(shards: u16) {
    let folder = folder(&format!("replay-{shards}"));
    let remotes =
        ["five", "three"].map(|name| Process::ringmq(&folder, &format!("remote-{name}"), 1, ""));
    let text = configuration(remotes[0].address, remotes[1].address);
    let local = Process::ringmq(&folder, "local", shards, &text);
    await_bridges(local.address);
    let each = message_count() / PUBLISHERS;
    let count = each * PUBLISHERS + WILLS;
    let mut receivers = Vec::new();
    for number in 0..2 * shards {
        for (version, has_properties) in [(V5, true), (V311, false)] {
            let id = format!("local-{version:?}-{number}");
            let what = (has_properties, "");
            receivers.push(receive_all(local.address, &id, version, what, count));
        }
    }
    for (remote, what) in remotes.iter().zip([(true, "five/"), (false, "three/")]) {
        for version in [V5, V311] {
            let what = (what.0 && version == V5, what.1);
            receivers.push(receive_all(
                remote.address,
                &format!("{version:?}"),
                version,
                what,
                count,
            ));
        }
    }
    let resident_size = local.resident_size();
    let began = Instant::now();
    let publishers: Vec<_> = (0..PUBLISHERS).map(|p| publish_all(local.address, p, each)).collect();
    leave_wills(local.address);
    let threads = publishers.into_iter().chain(receivers);
    let outcomes: Vec<_> = threads.map(JoinHandle::join).collect();
    assert!(outcomes.iter().all(Result::is_ok), "the local broker says:\n{}", local.log());
    println!("{count} messages on {shards} shards in {:?}", began.elapsed());
    sleep(Duration::from_secs(1));
    check_arena(local.address, shards);
    check_retained(local.address);
    let grown = local.resident_size().saturating_sub(resident_size) >> 20;
    println!("resident: {} MiB, then {grown} MiB more", resident_size >> 20);
    // What is kept for later: buffers that go round, the logs' memory, a part of the arena that was touched.
    // A sanitizer has memory of its own there.
    assert!(
        grown < 160 || std::env::var_os("ASAN_OPTIONS").is_some(),
        "{grown} MiB more than at the beginning"
    );
}

#[test]
fn every_receiver_gets_every_property_on_one_shard() {
    check(1);
}

#[test]
fn every_receiver_gets_every_property_on_two_shards() {
    check(2);
}
