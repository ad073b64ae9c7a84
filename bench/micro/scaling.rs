//! The scaling model: a whole broker of many shards in one thread, the core alone; what a delivered message costs all shards
//! together as shards, sessions and filters grow.
//!
//! `cargo bench --bench scaling -- shards=64 sessions=10000 filters=10000 receivers=10 count=1000000` runs one point;
//! `scripts/scaling` runs them all. Each topic's receivers sit on two shards, neither of them the publisher's if there are
//! enough. The turns are those of production, without sockets. Under `cargo test` it runs small.

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, Subscribe, SubscribeFilters,
    SubscriptionOptions,
};
use ringmq::hash::KeyedHash;
use ringmq::limits::Limits;
use ringmq::peers::Partitions;
use ringmq::shard::{
    Arrival, ConnectionId, Lane, Mail, Output, ReadMode, Shard, ShardId, ShardSettings,
};
use ringmq::time::Instant;
use ringmq::turn::memory::Lanes;
use ringmq::turn::{Adoption, Event, World, turn};
use std::collections::VecDeque;

const NOW: Instant = Instant(1);
const SEED: u64 = 1;
const VERSION: ProtocolVersion = ProtocolVersion::V311;

/// At least as many as shards, so that each has one.
const PUBLISHERS: usize = 64;
const TOPICS_PER_PUBLISHER: usize = 4;
const PAYLOAD_SIZE: usize = 64;
/// What one receive brings.
const READ_SIZE: usize = 8 << 10;
/// Clients that are let in before the shards run.
const SETUP_BATCH: usize = 1_000;
const FILTERS_PER_SUBSCRIBE: usize = 100;
/// Rounds of turns in which nothing is delivered.
const ROUNDS_MAX: usize = 1_000;

#[derive(Clone, Copy)]
struct Point {
    shards: usize,
    /// Connected sessions that get no message.
    sessions: usize,
    /// Filters of those sessions, that no message matches, every second one with a wildcard.
    filters: usize,
    /// Of each topic.
    receivers: usize,
    /// Messages to deliver.
    count: usize,
}

impl Point {
    const SMALL: Point = Point { shards: 4, sessions: 20, filters: 40, receivers: 2, count: 2_000 };

    /// From `name=number` words; what is not named is as in `SMALL`.
    fn read(words: &[String]) -> Point {
        let mut point = Point::SMALL;
        for word in words {
            let (name, number) = word.split_once('=').expect("expected name=number");
            let number = number.parse().expect("expected name=number");
            *match name {
                "shards" => &mut point.shards,
                "sessions" => &mut point.sessions,
                "filters" => &mut point.filters,
                "receivers" => &mut point.receivers,
                "count" => &mut point.count,
                _ => panic!("{name}: expected shards, sessions, filters, receivers or count"),
            } = number;
        }
        point
    }
}

/// The broker: its shards and the lanes between each two.
struct Model {
    shards: Vec<Shard>,
    lanes: Lanes<()>,
    /// What each publisher writes again and again.
    reads: Vec<Vec<u8>>,
    /// By shard: the connections that write in the next turn, with the index of what they write, and the outputs that have left.
    written: Vec<VecDeque<(ConnectionId, usize)>>,
    sent: Vec<VecDeque<(ConnectionId, Output)>>,
    hash: KeyedHash,
    partitions: Partitions,
    clients: usize,
}

/// A publisher and one receive of its messages.
struct Source {
    shard: usize,
    connection: ConnectionId,
    /// The index of that receive.
    read: usize,
    messages: usize,
}

fn main() {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let point = Point::read(&words);
    let (mut model, sources) = Model::new(point);
    let before = model.delivered();
    let started_ns = time_used_ns();
    let mut expected = 0;
    while expected < point.count {
        for source in &sources {
            model.written[source.shard].push_back((source.connection, source.read));
            expected += source.messages * point.receivers;
        }
        model.round();
    }
    model.settle();
    let nanoseconds = (time_used_ns() - started_ns) as f64 / expected as f64;
    assert_eq!(model.delivered() - before, expected as u64, "every message was delivered");
    let Point { shards, sessions, filters, receivers, .. } = point;
    println!(
        "{shards} shards {sessions} sessions {filters} filters {receivers} receivers {expected} delivered \
         {nanoseconds:.1} ns each"
    );
}

/// Processor time of this process: what else the machine does is no part of it.
fn time_used_ns() -> u64 {
    let account = std::fs::read_to_string("/proc/self/schedstat").expect("Linux keeps it");
    account.split(' ').next().and_then(|text| text.parse().ok()).expect("a number")
}

impl Model {
    /// A broker with everyone connected and subscribed, and who publishes what.
    fn new(point: Point) -> (Model, Vec<Source>) {
        let limits = Limits {
            sys_interval_ms: 0,
            connections_max: usize::MAX,
            sessions_max: usize::MAX,
            ..Limits::default()
        };
        let shard = |id| {
            let shard_count = point.shards as u16;
            let settings = ShardSettings {
                id: id as ShardId,
                shard_count,
                limits: limits.clone(),
                seed: SEED,
            };
            Shard::new(settings, NOW)
        };
        let mut model = Model {
            shards: (0..point.shards).map(shard).collect(),
            lanes: Lanes::new(point.shards, usize::MAX),
            reads: Vec::new(),
            written: vec![VecDeque::new(); point.shards],
            sent: (0..point.shards).map(|_| VecDeque::new()).collect(),
            hash: KeyedHash::new(SEED),
            partitions: Partitions::even(point.shards as u16),
            clients: 0,
        };
        model.add_bystanders(point);
        model.add_receivers(point);
        let sources = (0..PUBLISHERS).map(|publisher| model.add_publisher(publisher)).collect();
        model.settle();
        (model, sources)
    }

    fn add_bystanders(&mut self, point: Point) {
        for session in 0..point.sessions {
            let shard = session % point.shards;
            let connection = self.connect(shard);
            let own = point.filters / point.sessions
                + usize::from(session < point.filters % point.sessions);
            let filters: Vec<String> = (0..own)
                .map(|index| match index % 2 {
                    0 => format!("idle/{session:07}/{index:05}/state"),
                    _ => format!("idle/{session:07}/{index:05}/+"),
                })
                .collect();
            for some in filters.chunks(FILTERS_PER_SUBSCRIBE) {
                self.subscribe(shard, connection, some);
                // A client whose SUBACK is pending is not read.
                if filters.len() > FILTERS_PER_SUBSCRIBE {
                    self.settle();
                }
            }
            if session % SETUP_BATCH == 0 {
                self.settle();
            }
        }
        self.settle();
    }

    fn add_receivers(&mut self, point: Point) {
        for publisher in 0..PUBLISHERS {
            for index in 0..TOPICS_PER_PUBLISHER {
                for receiver in 0..point.receivers {
                    // Two neighbours of the publisher's shard.
                    let shard = (publisher + 1 + receiver % 2) % point.shards;
                    let connection = self.connect(shard);
                    self.subscribe(shard, connection, &[topic(publisher, index)]);
                }
            }
        }
        self.settle();
    }

    fn add_publisher(&mut self, publisher: usize) -> Source {
        let shard = publisher % self.shards.len();
        let connection = self.connect(shard);
        let payload = [7; PAYLOAD_SIZE];
        let (mut bytes, mut messages) = (Vec::new(), 0);
        while bytes.len() < READ_SIZE {
            let topic = topic(publisher, messages % TOPICS_PER_PUBLISHER);
            let publish = Publish { topic: &topic, payload: &payload, ..Publish::default() };
            Packet::Publish(publish).encode(VERSION, &mut bytes);
            messages += 1;
        }
        self.reads.push(bytes);
        Source { shard, connection, read: self.reads.len() - 1, messages }
    }

    /// A client whose session belongs to `shard`.
    fn connect(&mut self, shard: usize) -> ConnectionId {
        let client_id = loop {
            let client_id = format!("client-{:09}", self.clients);
            self.clients += 1;
            let owner = self.partitions.owner(&self.hash, client_id.as_bytes());
            if usize::from(owner) == shard {
                break client_id;
            }
        };
        let mut bytes = Vec::new();
        Connect::new(VERSION, &client_id).encode(&mut bytes);
        let own = &mut self.shards[shard];
        let connection = own.handle_open(NOW, Arrival::default()).expect("room for a connection");
        own.handle_bytes(NOW, connection, &mut bytes);
        connection
    }

    fn subscribe(&mut self, shard: usize, connection: ConnectionId, filters: &[String]) {
        let options = SubscriptionOptions::default();
        let list: Vec<(&str, SubscriptionOptions)> =
            filters.iter().map(|filter| (filter.as_str(), options)).collect();
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).expect("not 0"),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        let mut bytes = Vec::new();
        subscribe.encode(VERSION, &mut bytes);
        self.shards[shard].handle_bytes(NOW, connection, &mut bytes);
    }

    /// Turns until nothing moves.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// One turn of every shard. `true`: something moved.
    fn round(&mut self) -> bool {
        (0..self.shards.len()).fold(false, |moved, shard| self.turn(shard) | moved)
    }

    fn turn(&mut self, own: usize) -> bool {
        let mut world = Place {
            own: own as ShardId,
            lanes: &mut self.lanes,
            reads: &mut self.reads,
            written: &mut self.written[own],
            sent: &mut self.sent[own],
            has_moved: false,
        };
        turn(&mut self.shards[own], &mut world, NOW);
        world.has_moved || !self.shards[own].is_idle()
    }

    fn delivered(&mut self) -> u64 {
        self.shards.iter_mut().map(|shard| shard.counters().publishes_sent).sum()
    }
}

/// What one shard's turn finds.
struct Place<'a> {
    own: ShardId,
    lanes: &'a mut Lanes<()>,
    reads: &'a mut [Vec<u8>],
    written: &'a mut VecDeque<(ConnectionId, usize)>,
    sent: &'a mut VecDeque<(ConnectionId, Output)>,
    has_moved: bool,
}

impl World for Place<'_> {
    type Socket = ();

    fn next_event(&mut self) -> Option<Event<'_, ()>> {
        if let Some((connection, output)) = self.sent.pop_front() {
            self.has_moved = true;
            return Some(Event::Sent { connection, output });
        }
        let (connection, read) = self.written.pop_front()?;
        self.has_moved = true;
        Some(Event::Received { connection, bytes: &mut self.reads[read] })
    }

    fn next_mail(&mut self, lane: Lane) -> Option<(ShardId, Mail)> {
        let mail = self.lanes.next_mail(self.own, lane);
        self.has_moved |= mail.is_some();
        mail
    }

    fn next_adoption(&mut self) -> Option<Adoption<()>> {
        None
    }

    fn adopt(&mut self, _: ConnectionId, (): (), _: ReadMode) {}

    fn refuse(&mut self, (): ()) {}

    fn release(&mut self, _: ConnectionId) {
        panic!("every client connects to its shard");
    }

    fn hand_over(&mut self, _: ShardId, _: Adoption<()>) {}

    fn read_rest(&mut self, _: ConnectionId, _: usize) -> Option<&mut [u8]> {
        None
    }

    fn read(&mut self, _: ConnectionId, _: ReadMode) {}

    fn has_room(&mut self, _: ShardId, _: Lane) -> bool {
        true
    }

    fn post(&mut self, to: ShardId, lane: Lane, mail: Mail) {
        self.has_moved = true;
        self.lanes.post(self.own, to, lane, mail);
    }

    fn deliver(&mut self) {}

    fn send(&mut self, connection: ConnectionId, output: Output, _: bool) -> Option<Output> {
        self.has_moved = true;
        self.sent.push_back((connection, output));
        None
    }

    fn close(&mut self, _: ConnectionId, _: bool) {
        panic!("no client is sent away");
    }
}

fn topic(publisher: usize, index: usize) -> String {
    format!("model/{publisher:02}/{index:02}/temperature")
}
