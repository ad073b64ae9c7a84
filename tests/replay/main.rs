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
use std::ops::Range;
use std::thread::{self, sleep};
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

/// Whether a few bytes a message are more than what memory differs by from run to run.
fn is_long() -> bool {
    message_count() >= 300_000
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

/// Sends its messages, a window at a time.
struct Publisher {
    client: Client,
    publisher: u64,
    acked: u64,
}

impl Publisher {
    fn connect(address: SocketAddr, publisher: u64) -> Publisher {
        let id = format!("publisher-{publisher}");
        let client = Client::connect(address, &id, V5, false).unwrap();
        Publisher { client, publisher, acked: 0 }
    }

    /// Until so many are acknowledged.
    fn publish_to(&mut self, count: u64) {
        let mut sent = self.acked;
        while self.acked < count {
            while sent < count && sent - self.acked < WINDOW {
                self.publish(sent);
                sent += 1;
            }
            self.client.flush().unwrap();
            let got = self.client.read(PATIENCE).unwrap();
            assert!(!got.is_empty(), "no acknowledgement came: {} of {sent}", self.acked);
            self.acked += got.iter().filter(|one| matches!(one, Got::Acked(_))).count() as u64;
        }
    }

    fn publish(&mut self, number: u64) {
        let topic = format!("data/{}/{}", self.publisher, number % TOPICS);
        let properties = own_properties(self.publisher, number);
        self.client.publish(Publish {
            qos: match (number % TOPICS).is_multiple_of(2) {
                true => QoS::AtLeastOnce,
                false => QoS::ExactlyOnce,
            },
            retain: number % 1000 < TOPICS,
            topic: &topic,
            packet_id: PacketId::new((number % 60_000 + 1) as u16),
            properties: ForwardedProperties::from_raw(&properties),
            payload: &payload(self.publisher, number),
            ..Publish::default()
        });
    }
}

/// What one receiver must get.
struct Receiver {
    client: Client,
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
    fn connect(
        address: SocketAddr,
        id: &str,
        version: ProtocolVersion,
        (has_properties, prefix): (bool, &'static str),
    ) -> Receiver {
        let mut client = Client::connect(address, id, version, false).unwrap();
        client.subscribe(&format!("{prefix}data/#"), QoS::ExactlyOnce).unwrap();
        client.read(Duration::from_millis(300)).unwrap();
        let name = format!("{id} ({version:?})");
        let next = HashMap::new();
        Receiver { client, name, has_properties, prefix, next, wills: 0, count: 0 }
    }

    /// Until it has so many, so many wills among them, and no more.
    fn receive_to(&mut self, count: u64, wills: u64) {
        while self.count < count {
            let got = self.client.read(PATIENCE).unwrap();
            assert!(!got.is_empty(), "{}: {} of {count} came", self.name, self.count);
            for one in &got {
                if let Got::Message(message) = one {
                    self.note(message);
                }
            }
        }
        assert_eq!((self.count, self.wills), (count, wills), "{}", self.name);
        let more = self.client.read(Duration::from_millis(500)).unwrap();
        assert!(!more.iter().any(|one| matches!(one, Got::Message(_))), "{}: more", self.name);
    }

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

/// Clients that are lost and leave a will with a property.
fn leave_wills(address: SocketAddr, numbers: Range<u64>) {
    for number in numbers {
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

/// Every client that takes part.
struct Cast {
    publishers: Vec<Publisher>,
    receivers: Vec<Receiver>,
}

impl Cast {
    /// Receivers of both protocols at the broker and at both remotes.
    fn connect(local: &Process, remotes: &[Process; 2], shards: u16) -> Cast {
        let mut receivers = Vec::new();
        for number in 0..2 * shards {
            for (version, has_properties) in [(V5, true), (V311, false)] {
                let id = format!("local-{version:?}-{number}");
                let what = (has_properties, "");
                receivers.push(Receiver::connect(local.address, &id, version, what));
            }
        }
        for (remote, what) in remotes.iter().zip([(true, "five/"), (false, "three/")]) {
            for version in [V5, V311] {
                let what = (what.0 && version == V5, what.1);
                let id = format!("{version:?}");
                receivers.push(Receiver::connect(remote.address, &id, version, what));
            }
        }
        let publishers =
            (0..PUBLISHERS).map(|number| Publisher::connect(local.address, number)).collect();
        Cast { publishers, receivers }
    }

    /// Half of the messages and of the wills, to everyone, to the end.
    fn play(&mut self, local: &Process, half: u64) {
        let began = Instant::now();
        let each = message_count() / PUBLISHERS * half / 2;
        let wills = WILLS * half / 2;
        let count = each * PUBLISHERS + wills;
        let is_good = thread::scope(|scope| {
            let mut threads = Vec::new();
            for publisher in &mut self.publishers {
                threads.push(scope.spawn(move || publisher.publish_to(each)));
            }
            for receiver in &mut self.receivers {
                threads.push(scope.spawn(move || receiver.receive_to(count, wills)));
            }
            leave_wills(local.address, wills - WILLS / 2..wills);
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            outcomes.iter().all(Result::is_ok)
        });
        assert!(is_good, "the local broker says:\n{}", local.log());
        println!("half {half}, {count} messages so far: {:?}", began.elapsed());
    }
}

/// What a shard may keep: receive buffers, and of the arena's ring what a turn of theirs fills, hooks' additions included.
const SHARD_KEEPS: u64 = 6 << 20;
/// What a bridge keeps for a minute: what it sent last, to know it again; and its buffers.
const BRIDGE_KEEPS: u64 = 6 << 20;
/// Everything else, in all: pages of which a part is in use. After a million messages, of which the second half is held
/// against the first, thirteen bytes a message are more.
const MARGIN: u64 = 6 << 20;

/// The memory of a broker that is left alone, when it is at most `bound`, and after a long run has settled.
fn rest(process: &Process, bound: u64) -> u64 {
    let settles_at = Instant::now() + Duration::from_secs(if is_long() { 8 } else { 0 });
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let size = process.anonymous_size();
        // A sanitizer has memory of its own there.
        if std::env::var_os("ASAN_OPTIONS").is_some()
            || size <= bound && settles_at <= Instant::now()
        {
            return size;
        }
        let shown = |size: u64| format!("{:.1} MiB", size as f64 / (1 << 20) as f64);
        assert!(Instant::now() < deadline, "{}, above {}", shown(size), shown(bound));
        sleep(Duration::from_millis(100));
    }
}

fn check(shards: u16) {
    let folder = folder(&format!("replay-{shards}"));
    let remotes =
        ["five", "three"].map(|name| Process::ringmq(&folder, &format!("remote-{name}"), 1, ""));
    let text = configuration(remotes[0].address, remotes[1].address);
    let local = Process::ringmq(&folder, "local", shards, &text);
    await_bridges(local.address);
    let mut cast = Cast::connect(&local, &remotes, shards);
    let before = local.anonymous_size();
    cast.play(&local, 1);
    let kept = u64::from(shards) * SHARD_KEEPS + 2 * BRIDGE_KEEPS;
    let middle = rest(&local, before + kept + MARGIN);
    cast.play(&local, 2);
    let after = rest(&local, middle + MARGIN);
    println!("{shards} shards, resident: {before}, at half {middle}, in the end {after} bytes");
    check_arena(local.address, shards);
    check_retained(local.address);
}

#[test]
fn every_receiver_gets_every_property_on_one_shard() {
    check(1);
}

#[test]
fn every_receiver_gets_every_property_on_two_shards() {
    check(2);
}
