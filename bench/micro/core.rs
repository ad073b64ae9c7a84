//! The core without the world: bytes in, bytes out, on one shard in memory, in the turns of production.
//!
//! `cargo bench --bench core` times every scenario; `cargo bench --bench core -- NAME COUNT` runs one, for a profiler
//! or for `scripts/instructions`, with `--list` it names them. Under `cargo test` each runs small.

use ringmq::codec::{
    Connect, ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions, TopicFilters, Unsubscribe,
    next_frame, put_user_property,
};
use ringmq::limits::Limits;
use ringmq::plugin::{ClientView, HookSet, Hooks, MessageEdit, Verdict};
use ringmq::shard::{
    ConnectionId, Lane, ListenerId, Mail, Output, ReadMode, Shard, ShardId, ShardSettings,
};
use ringmq::time::Instant;
use ringmq::turn::{Adoption, Event, World, turn};
use std::collections::VecDeque;
use std::hint::black_box;

/// One pattern of traffic.
struct Scenario {
    name: &'static str,
    version: ProtocolVersion,
    qos: QoS,
    publishers: usize,
    /// Subscribers of each publisher's topic.
    subscribers: usize,
    payload_size: usize,
    /// Of each message; above 0 in MQTT 5.0 only.
    user_properties: usize,
    wildcard: bool,
    /// Each message comes in a receive and a turn of its own.
    is_alone: bool,
    /// Topics that each publisher writes to in turn, below its own one if there are several.
    topics: usize,
    /// Messages after each of which a subscription with wildcards, which means none of the topics, comes or goes; 0: none does.
    change_every: usize,
    /// What is called of each message.
    hooks: Option<MakeHooks>,
}

type MakeHooks = fn() -> Box<dyn Hooks>;

const NOW: Instant = Instant(1);
/// What one receive brings.
const READ_SIZE: usize = 8 << 10;
/// Receives of a round, after which all turns are made.
const ROUND_READS: usize = 50;
/// Clients that take turns to change a subscription.
const CHANGERS: usize = 16;

/// First bytes of packets.
const PUBLISH_QOS1: u8 = 0x32;
const PUBLISH_QOS2: u8 = 0x34;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

const PLAIN: Scenario = Scenario {
    name: "p2p-qos0",
    version: ProtocolVersion::V311,
    qos: QoS::AtMostOnce,
    publishers: 50,
    subscribers: 1,
    payload_size: 64,
    user_properties: 0,
    wildcard: false,
    is_alone: false,
    topics: 1,
    change_every: 0,
    hooks: None,
};

/// 100,000 topics in turn.
const ROUTES: Scenario =
    Scenario { name: "route-churn-none", publishers: 100, topics: 1_000, ..PLAIN };

const SCENARIOS: &[Scenario] = &[
    PLAIN,
    Scenario { name: "p2p-qos0-v5", version: ProtocolVersion::V5, ..PLAIN },
    Scenario {
        name: "p2p-qos0-v5-properties",
        version: ProtocolVersion::V5,
        user_properties: 5,
        ..PLAIN
    },
    Scenario {
        name: "p2p-qos0-v5-hook",
        version: ProtocolVersion::V5,
        hooks: Some(|| Box::new(Adder { holds: false })),
        ..PLAIN
    },
    Scenario {
        name: "p2p-qos0-v5-hook-holds",
        version: ProtocolVersion::V5,
        hooks: Some(|| Box::new(Adder { holds: true })),
        ..PLAIN
    },
    #[cfg(feature = "shell")]
    Scenario {
        name: "p2p-qos0-v5-user-property",
        version: ProtocolVersion::V5,
        hooks: Some(user_property),
        ..PLAIN
    },
    Scenario { name: "p2p-qos1", qos: QoS::AtLeastOnce, ..PLAIN },
    Scenario { name: "p2p-qos2", qos: QoS::ExactlyOnce, ..PLAIN },
    Scenario { name: "fan-out-qos0", publishers: 1, subscribers: 50, ..PLAIN },
    Scenario {
        name: "fan-out-qos1",
        publishers: 1,
        subscribers: 50,
        qos: QoS::AtLeastOnce,
        ..PLAIN
    },
    Scenario { name: "fan-in-wildcard", wildcard: true, ..PLAIN },
    Scenario { name: "fan-in-qos1", wildcard: true, qos: QoS::AtLeastOnce, ..PLAIN },
    Scenario { name: "alone-qos0", is_alone: true, ..PLAIN },
    Scenario { name: "alone-qos1", is_alone: true, qos: QoS::AtLeastOnce, ..PLAIN },
    ROUTES,
    Scenario { name: "route-churn-1000", change_every: 1_000, ..ROUTES },
    Scenario { name: "route-churn-100", change_every: 100, ..ROUTES },
];

/// The chain with the built-in plugin, which does what `Adder` does.
#[cfg(feature = "shell")]
fn user_property() -> Box<dyn Hooks> {
    use ringmq::config::plugin::{OnError, PluginSettings, PluginWork, PropertySettings};
    use ringmq::plugins::{Chain, install};
    let (name, value) = ("publisher".to_owned(), "${client_id}".to_owned());
    let work = PluginWork::UserProperty {
        filters: vec!["#".to_owned()],
        properties: vec![PropertySettings { name, value, replace: false, line: 1 }],
    };
    let settings = PluginSettings {
        name: "bench".to_owned(),
        work,
        on_error: OnError::Deny,
        slow_ms: PluginSettings::SLOW_MS,
        file: String::new(),
        line: 1,
    };
    let installed = install(&settings).expect("the settings are right");
    Box::new(Chain::new(&[installed], 0, &Default::default()).expect("it needs nothing"))
}

/// Adds one user property, and may say that it does so to the next messages, too.
struct Adder {
    holds: bool,
}

impl Hooks for Adder {
    fn hooks(&self) -> HookSet {
        HookSet::PUBLISH
    }

    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        if self.holds {
            message.hold();
        }
        let added = message.add_user_property("publisher", client.client_id);
        added.map_or(Verdict::Deny(ReasonCode::QuotaExceeded), |()| Verdict::Allow)
    }
}

/// The broker and its clients.
struct Bench {
    shard: Shard,
    wires: Wires,
    delivered: usize,
}

/// The clients' side: what they write, and what they answer to what they get.
struct Wires {
    version: ProtocolVersion,
    /// Clients answer QoS 1 and 2.
    is_acked: bool,
    accepted: Option<ConnectionId>,
    is_opening: bool,
    /// What publishers write again and again.
    written: Vec<(ConnectionId, Vec<u8>)>,
    /// Of that, what they write in this turn.
    due: VecDeque<usize>,
    /// What else clients write.
    answers: VecDeque<(ConnectionId, Vec<u8>)>,
    /// The answer that was handed in last, and buffers for the next ones.
    lent: Vec<u8>,
    spare: Vec<Vec<u8>>,
    sent: VecDeque<(ConnectionId, Output)>,
    /// Bytes that clients got.
    bytes: usize,
}

impl World for Wires {
    type Socket = ();

    fn next_event(&mut self) -> Option<Event<'_, ()>> {
        if let Some((connection, output)) = self.sent.pop_front() {
            return Some(Event::Sent { connection, output });
        }
        if let Some((connection, bytes)) = self.answers.pop_front() {
            let mut last = std::mem::replace(&mut self.lent, bytes);
            last.clear();
            self.spare.push(last);
            return Some(Event::Received { connection, bytes: &mut self.lent });
        }
        if let Some(read) = self.due.pop_front() {
            let (connection, bytes) = &mut self.written[read];
            return Some(Event::Received { connection: *connection, bytes });
        }
        std::mem::take(&mut self.is_opening)
            .then_some(Event::Accepted { socket: (), listener: ListenerId::default() })
    }

    fn next_mail(&mut self, _: Lane) -> Option<(ShardId, Mail)> {
        None
    }

    fn next_adoption(&mut self) -> Option<Adoption<()>> {
        None
    }

    fn adopt(&mut self, connection: ConnectionId, (): (), _: ReadMode) {
        self.accepted = Some(connection);
    }

    fn refuse(&mut self, (): ()) {
        panic!("there is room for a connection");
    }

    fn release(&mut self, _: ConnectionId) {
        panic!("there is no other shard");
    }

    fn hand_over(&mut self, _: ShardId, _: Adoption<()>) {
        panic!("there is no other shard");
    }

    fn read_rest(&mut self, _: ConnectionId, _: usize) -> Option<&mut [u8]> {
        None
    }

    fn read(&mut self, _: ConnectionId, _: ReadMode) {}

    fn has_room(&mut self, _: ShardId, _: Lane) -> bool {
        true
    }

    fn post(&mut self, _: ShardId, _: Lane, _: Mail) {
        panic!("there is no other shard");
    }

    fn deliver(&mut self) {}

    fn send(
        &mut self,
        connection: ConnectionId,
        output: Output,
        may_leave_now: bool,
    ) -> Option<Output> {
        self.bytes += output.size();
        if self.is_acked {
            let mut answer = self.spare.pop().unwrap_or_default();
            self.answer(&output.bytes, &mut answer);
            match answer.is_empty() {
                true => self.spare.push(answer),
                false => self.answers.push_back((connection, answer)),
            }
        }
        if may_leave_now {
            return Some(output);
        }
        self.sent.push_back((connection, output));
        None
    }

    fn close(&mut self, _: ConnectionId, _: bool) {
        panic!("no client is sent away");
    }
}

impl Wires {
    /// Looks at no more of a packet than its answer needs: the figures are to be the broker's.
    fn answer(&self, mut bytes: &[u8], acks: &mut Vec<u8>) {
        while let Ok(Some(frame)) = next_frame(bytes, usize::MAX) {
            bytes = &bytes[frame.size..];
            debug_assert!(Packet::decode(&frame, self.version).is_ok(), "the broker is right");
            let topic_end = || 2 + usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
            let (answer, id_index) = match frame.first_byte {
                PUBLISH_QOS1 => (PUBACK, topic_end()),
                PUBLISH_QOS2 => (PUBREC, topic_end()),
                PUBREC => (PUBREL, 0),
                PUBREL => (PUBCOMP, 0),
                _ => continue,
            };
            acks.extend_from_slice(&[answer, 2, frame.body[id_index], frame.body[id_index + 1]]);
        }
    }
}

impl Bench {
    fn new(scenario: &Scenario) -> Bench {
        let limits = Limits { sys_interval_ms: 0, ..Limits::default() };
        let settings = ShardSettings { id: 0, shard_count: 1, limits, seed: 1 };
        let mut shard = Shard::new(settings, NOW);
        if let Some(make) = scenario.hooks {
            shard.set_hooks(NOW, make());
        }
        let wires = Wires {
            version: scenario.version,
            is_acked: scenario.qos != QoS::AtMostOnce,
            accepted: None,
            is_opening: false,
            written: Vec::new(),
            due: VecDeque::new(),
            answers: VecDeque::new(),
            lent: Vec::new(),
            spare: Vec::new(),
            sent: VecDeque::new(),
            bytes: 0,
        };
        Bench { shard, wires, delivered: 0 }
    }

    fn connect(&mut self, client_id: &str) -> ConnectionId {
        self.wires.is_opening = true;
        self.turns();
        let id = self.wires.accepted.take().expect("room for a connection");
        let mut bytes = Vec::new();
        Connect::new(self.wires.version, client_id).encode(&mut bytes);
        self.write(id, bytes);
        id
    }

    fn subscribe(&mut self, id: ConnectionId, filter: &str, qos: QoS) {
        let bytes = encode_subscribe(self.wires.version, filter, qos);
        self.write(id, bytes);
    }

    fn write(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        self.wires.answers.push_back((id, bytes));
        self.turns();
    }

    /// Turns until nothing moves.
    fn turns(&mut self) {
        loop {
            turn(&mut self.shard, &mut self.wires, NOW);
            if self.wires.sent.is_empty() && self.wires.answers.is_empty() && self.shard.is_idle() {
                return;
            }
        }
    }
}

fn encode_subscribe(version: ProtocolVersion, filter: &str, qos: QoS) -> Vec<u8> {
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    let list = [(filter, options)];
    let subscribe = Subscribe {
        packet_id: PacketId::new(1).expect("not 0"),
        subscription_id: None,
        user_properties: Default::default(),
        filters: SubscribeFilters::from_list(&list),
    };
    let mut bytes = Vec::new();
    Packet::Subscribe(subscribe).encode(version, &mut bytes);
    bytes
}

fn encode_unsubscribe(version: ProtocolVersion, filter: &str) -> Vec<u8> {
    let list = [filter];
    let unsubscribe = Unsubscribe {
        packet_id: PacketId::new(1).expect("not 0"),
        user_properties: Default::default(),
        filters: TopicFilters::from_list(&list),
    };
    let mut bytes = Vec::new();
    Packet::Unsubscribe(unsubscribe).encode(version, &mut bytes);
    bytes
}

/// The receives of a publisher, each with the count of its messages: its topics in turn, until each has had one.
fn reads(scenario: &Scenario, publisher: usize, properties: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let Scenario { version, qos, .. } = *scenario;
    let payload = vec![7u8; scenario.payload_size];
    let mut reads = Vec::new();
    let (mut bytes, mut messages) = (Vec::new(), 0);
    for number in 0.. {
        let topic = match scenario.topics {
            1 => format!("bench/p2p/{publisher}"),
            topics => format!("bench/p2p/{publisher}/{}", number % topics),
        };
        messages += 1;
        let publish = Publish {
            qos,
            topic: &topic,
            packet_id: (qos != QoS::AtMostOnce).then(|| PacketId::new(messages as u16)).flatten(),
            properties: ForwardedProperties::from_raw(properties),
            payload: &payload,
            ..Publish::default()
        };
        Packet::Publish(publish).encode(version, &mut bytes);
        if bytes.len() >= READ_SIZE || scenario.is_alone {
            reads.push((std::mem::take(&mut bytes), std::mem::take(&mut messages)));
            if number + 1 >= scenario.topics {
                break;
            }
        }
    }
    reads
}

/// Puts a change of a subscription behind each `every` messages, two times as many as there are filters: each comes and goes.
fn put_changes(bench: &mut Bench, counts: &mut Vec<usize>, every: usize) {
    let version = bench.wires.version;
    let changers: Vec<ConnectionId> =
        (0..CHANGERS).map(|n| bench.connect(&format!("changer-{n}"))).collect();
    let (mut number, mut messages) = (0, 0);
    let reads = std::mem::take(&mut bench.wires.written);
    for (read, count) in reads.into_iter().zip(std::mem::take(counts)) {
        bench.wires.written.push(read);
        counts.push(count);
        messages += count;
        while messages >= every {
            messages -= every;
            let filter = match number / 2 % 2 {
                0 => format!("bench/p2p/+/x{}", number / 2),
                _ => format!("bench/p2p/x{}/#", number / 2),
            };
            let bytes = match number % 2 {
                0 => encode_subscribe(version, &filter, QoS::AtMostOnce),
                _ => encode_unsubscribe(version, &filter),
            };
            bench.wires.written.push((changers[number / 2 % CHANGERS], bytes));
            counts.push(0);
            number += 1;
        }
    }
}

/// Runs until at least `count` messages were delivered, and one of each topic before; returns how many were.
fn run(scenario: &Scenario, count: usize) -> usize {
    let qos = scenario.qos;
    let mut bench = Bench::new(scenario);
    let mut properties = Vec::new();
    for index in 0..scenario.user_properties {
        let (name, value) = (format!("name-{index:04}"), format!("value-{index:04}"));
        put_user_property(&mut properties, &name, &value);
    }
    // Messages of each receive.
    let mut counts = Vec::new();
    for publisher in 0..scenario.publishers {
        for subscriber in 0..scenario.subscribers {
            if !scenario.wildcard || publisher == 0 {
                let id = bench.connect(&format!("sub-{publisher}-{subscriber}"));
                let filter = match (scenario.wildcard, scenario.topics) {
                    (true, _) => "bench/+/#".to_owned(),
                    (false, 1) => format!("bench/p2p/{publisher}"),
                    _ => format!("bench/p2p/{publisher}/+"),
                };
                bench.subscribe(id, &filter, qos);
            }
        }
        let id = bench.connect(&format!("pub-{publisher}"));
        for (bytes, messages) in reads(scenario, publisher, &properties) {
            counts.push(messages);
            bench.wires.written.push((id, bytes));
        }
    }
    if scenario.change_every > 0 {
        put_changes(&mut bench, &mut counts, scenario.change_every);
    }
    let receivers = if scenario.wildcard { 1 } else { scenario.subscribers };
    let before = if scenario.topics > 1 { counts.iter().sum::<usize>() * receivers } else { 0 };
    let mut next = 0;
    while bench.delivered < before + count {
        for _ in 0..ROUND_READS.min(counts.len()) {
            bench.wires.due.push_back(next);
            bench.delivered += counts[next] * receivers;
            next = (next + 1) % counts.len();
            if scenario.is_alone {
                bench.turns();
            }
        }
        if !scenario.is_alone {
            bench.turns();
        }
    }
    let counters = bench.shard.counters();
    assert_eq!(counters.publishes_sent as usize, bench.delivered, "every message was sent");
    assert_eq!(counters.dropped(), 0);
    black_box(bench.wires.bytes);
    bench.delivered
}

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return SCENARIOS.iter().for_each(|scenario| println!("{}", scenario.name));
    }
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    // `cargo bench` says so; `cargo test` does not.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let named = arguments.first();
    let count = arguments.get(1).and_then(|text| text.parse().ok());
    let count = count.unwrap_or(if is_bench { 2_000_000 } else { 2_000 });
    for scenario in SCENARIOS {
        if named.is_some_and(|name| name != scenario.name) {
            continue;
        }
        let started = std::time::Instant::now();
        let delivered = run(scenario, count);
        let nanoseconds = started.elapsed().as_nanos() as f64 / delivered as f64;
        println!("{:<25} {delivered:>9} delivered  {nanoseconds:>7.1} ns each", scenario.name);
    }
}
