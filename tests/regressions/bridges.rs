//! Bridges under load: links that are cut while publishers flood, backlogs that drain, logs that are full.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE, Received};
use crate::message::{Ledger, Source};
use crate::process::{Process, folder};
use crate::proxy::Proxy;
use crate::publisher::Publisher;
use crate::wire::Version;
use crate::world::World;

/// Between two acknowledgements that a publisher waits for.
const BATCH: u64 = 200;
const CUTS: u64 = 12;
/// How far a flood that is acknowledged may be ahead of its reader.
const AHEAD_MAX: u64 = 4_000;
/// Messages of each source that wait while the remote is away, most of them in the log alone, and those that follow.
const BACKLOG: u64 = 10_000;
const NEW: u64 = 5_000;
/// For both sources: a message each millisecond takes three times as long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// What the log takes where it is to be full, and messages that are published to it.
const LOG_MAX: u64 = 1_000;
const TOO_MANY: u64 = 4_000;

/// A link that can be cut, to a remote that has one reader.
struct Far {
    link: Proxy,
    reader: Reader,
    _remote: Process,
}

/// Runs `test` against brokers of 1 and of 2 shards that forward `far/#` to a remote, and are at rest when it returns.
fn each_bridge(name: &str, more: &str, test: impl Fn(&World, Far)) {
    for shards in [1, 2] {
        let folder = folder(&format!("regressions-{name}-{shards}"));
        let remote = Process::ringmq(&folder, "remote", 1, "");
        let link = Proxy::to(remote.address);
        let file = folder.join("near.toml");
        let text = format!(
            "data_dir = \"{}\"\n[[bridge]]\nname = \"north\"\naddresses = [\"{}\"]\nreconnect_min_ms = 20\n\
             reconnect_max_ms = 100\n{more}\n[[bridge.forward]]\nfilter = \"far/#\"\n",
            folder.join("near-data").display(),
            link.address
        );
        std::fs::write(&file, text).unwrap();
        let world = World::start(shards, &["--config", file.to_str().unwrap()]);
        let mut client = Client::join(remote.address, Version::V5, "reader", &[]);
        client.subscribe(&["far/#@2"]);
        let reader = Reader { client, last_at: Instant::now() };
        let mut watcher = Watcher::new(world.address());
        watcher.await_says(&[("state", "connected")]);
        test(&world, Far { link, reader, _remote: remote });
        watcher.await_says(&[("state", "connected"), ("backlog/messages", "0"), ("holding", "0")]);
        watcher.client.leave();
        world.end();
    }
}

/// Source `id` has one topic: its order is promised.
fn sources(count: u64) -> Vec<Source> {
    let source = |id| {
        let topics = vec![format!("far/{id}")];
        Source { id, version: Version::V5, topics, size_max: 200 }
    };
    (0..count).map(source).collect()
}

fn publisher(world: &World, name: &str) -> Publisher {
    Publisher::new(Client::join(world.address(), Version::V5, name, &[]))
}

/// Publishes those numbers, `BATCH` of them at a time; after each `settled` is told how far it came.
fn publish(
    publisher: &mut Publisher,
    source: &Source,
    qos: u8,
    numbers: std::ops::Range<u64>,
    settled: impl Fn(u64),
) {
    for first in numbers.clone().step_by(BATCH as usize) {
        let end = numbers.end.min(first + BATCH);
        for number in first..end {
            publisher.publish(&source.message(number), qos, false);
        }
        publisher.settle();
        settled(end);
    }
}

struct Reader {
    client: Client,
    last_at: Instant,
}

impl Reader {
    /// The next message's source and number, every byte of it checked; `None`: none came for a moment.
    fn next(&mut self, sources: &[Source]) -> Option<(u64, u64)> {
        match self.client.message(Duration::from_millis(50)) {
            Received::Frame(frame) => {
                self.last_at = Instant::now();
                let delivery = self.client.delivery(&frame).unwrap();
                Some(Ledger::new(sources).check(&delivery, Version::V5))
            }
            Received::Nothing => {
                assert!(self.last_at.elapsed() < PATIENCE, "nothing comes any more");
                None
            }
            Received::Closed => panic!("the remote closed the connection"),
        }
    }
}

/// Hears what the bridge says of itself.
struct Watcher {
    client: Client,
    said: BTreeMap<String, String>,
}

impl Watcher {
    fn new(address: SocketAddr) -> Watcher {
        let mut client = Client::join(address, Version::V5, "bridge-watcher", &[]);
        client.subscribe(&["$SYS/bridges/north/#@0"]);
        Watcher { client, said: BTreeMap::new() }
    }

    fn await_that(&mut self, what: &str, is_so: impl Fn(&BTreeMap<String, String>) -> bool) {
        let began = Instant::now();
        while !is_so(&self.said) {
            assert!(began.elapsed() < PATIENCE, "not {what}: {:?}", self.said);
            if let Received::Frame(frame) = self.client.receive(Duration::from_millis(100)) {
                let delivery = self.client.delivery(&frame).expect("only $SYS comes");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let name = text(delivery.topic).replacen("$SYS/bridges/north/", "", 1);
                self.said.insert(name, text(delivery.payload));
            }
        }
    }

    fn await_says(&mut self, wanted: &[(&str, &str)]) {
        self.await_that(&format!("{wanted:?}"), |said| {
            wanted.iter().all(|(name, value)| said.get(*name).is_some_and(|said| said == value))
        });
    }

    /// Waits until the bridge has noticed that its link is gone.
    fn await_loss(&mut self) {
        self.await_that("down", |said| said.get("state").is_some_and(|state| state != "connected"));
    }
}

/// Waits until a connection was there to be cut; no other passes until what is returned goes.
fn cut(link: &Proxy) -> MutexGuard<'_, ()> {
    let began = Instant::now();
    loop {
        let held = link.hold();
        if link.cut() > 0 {
            return held;
        }
        drop(held);
        assert!(began.elapsed() < PATIENCE, "the bridge does not come back");
        sleep(Duration::from_millis(2));
    }
}

/// Raised when it goes, whatever for: a scope waits for its threads.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_bridge_comes_back_each_time_while_publishers_flood() {
    each_bridge("flood", "", |world, far| {
        let Far { link, mut reader, .. } = far;
        // Source `id` publishes at QoS `id`.
        let sources = sources(3);
        let got: [AtomicU64; 3] = Default::default();
        let published: [AtomicU64; 3] = Default::default();
        let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let flood = |source: &Source| {
            let place = source.id as usize;
            let mut publisher = publisher(world, &format!("flood-{place}"));
            while !stop.load(SeqCst) {
                let next = published[place].load(SeqCst);
                sleep(Duration::from_millis(2));
                // What is not acknowledged is lost with a link, and dropped when too much of it waits.
                if place > 0 && next > got[place].load(SeqCst) + AHEAD_MAX {
                    continue;
                }
                published[place].store(next + BATCH, SeqCst);
                publish(&mut publisher, source, place as u8, next..next + BATCH, |_| {});
            }
            publisher.leave();
        };
        thread::scope(|scope| {
            let flood = &flood;
            let ending = Ending(&stop);
            let floods: Vec<_> =
                sources.iter().map(|source| scope.spawn(move || flood(source))).collect();
            let reading = scope.spawn(|| {
                let is_missing =
                    |place: usize| got[place].load(SeqCst) < published[place].load(SeqCst);
                while !is_over.load(SeqCst) || is_missing(1) || is_missing(2) {
                    let Some((id, number)) = reader.next(&sources) else { continue };
                    let next = got[id as usize].load(SeqCst);
                    match id {
                        0 => assert!(number >= next, "QoS 0: {number} came, {next} is next"),
                        1 => assert!(number <= next, "QoS 1: {number} came, {next} is next"),
                        _ => assert_eq!(number, next, "QoS 2"),
                    }
                    got[id as usize].fetch_max(number + 1, SeqCst);
                }
            });
            let mut watcher = Watcher::new(world.address());
            for round in 0..CUTS {
                let before = [1, 2].map(|place: usize| got[place].load(SeqCst));
                let began = Instant::now();
                while [1, 2].iter().any(|&place| got[place].load(SeqCst) <= before[place - 1]) {
                    assert!(!reading.is_finished() && began.elapsed() < PATIENCE, "round {round}");
                    sleep(Duration::from_millis(1));
                }
                if round % 4 == 0 {
                    let held = cut(&link);
                    watcher.await_loss();
                    drop(held);
                    watcher.await_says(&[("state", "connected"), ("last_error", "")]);
                } else {
                    drop(cut(&link));
                }
            }
            watcher.client.leave();
            drop(ending);
            floods.into_iter().for_each(|flood| flood.join().unwrap());
            is_over.store(true, SeqCst);
        });
        let got = got.map(AtomicU64::into_inner);
        println!("{} shards: {got:?} messages", world.shards);
        assert!(got.iter().all(|&got| got > 1_000), "{got:?}: no flood");
    });
}

#[test]
fn a_backlog_drains_at_the_speed_of_the_link_and_in_order() {
    // What is in memory only is a small part of it.
    each_bridge(
        "backlog",
        "memory_bytes_max = \"64KiB\"\npacket_size_max = \"64KiB\"",
        |world, far| {
            let Far { link, mut reader, .. } = far;
            let sources = sources(2);
            let mut watcher = Watcher::new(world.address());
            let held = cut(&link);
            watcher.await_loss();
            let mut publishers: Vec<_> =
                (0..2).map(|id| publisher(world, &format!("backlog-{id}"))).collect();
            for (publisher, source) in publishers.iter_mut().zip(&sources) {
                publish(publisher, source, 1 + source.id as u8, 0..BACKLOG, |_| {});
            }
            watcher.await_says(&[("backlog/messages", &(2 * BACKLOG).to_string())]);
            watcher.client.leave();
            let mut got = [0; 2];
            let drained = AtomicU64::new(0);
            let between = AtomicU64::new(0);
            thread::scope(|scope| {
                for (mut publisher, source) in publishers.drain(..).zip(&sources) {
                    let (drained, between) = (&drained, &between);
                    scope.spawn(move || {
                        let qos = 1 + source.id as u8;
                        publish(&mut publisher, source, qos, BACKLOG..BACKLOG + NEW, |_| {
                            let is_draining = (1..2 * BACKLOG).contains(&drained.load(SeqCst));
                            between.fetch_add(u64::from(is_draining), SeqCst);
                            // As long as the backlog is there, if that is as it should be.
                            sleep(Duration::from_millis(5));
                        });
                        publisher.leave();
                    });
                }
                drop(held);
                let began = Instant::now();
                let mut drain = None;
                while got != [BACKLOG + NEW; 2] {
                    let Some((id, number)) = reader.next(&sources) else { continue };
                    let next = &mut got[id as usize];
                    // Nothing of it was sent before.
                    assert_eq!(number, *next, "source {id}");
                    *next += 1;
                    drained.fetch_add(u64::from(number < BACKLOG), SeqCst);
                    if drain.is_none() && drained.load(SeqCst) == 2 * BACKLOG {
                        drain = Some(began.elapsed());
                    }
                }
                let drain = drain.unwrap();
                println!("{} shards: {} messages drained in {drain:?}", world.shards, 2 * BACKLOG);
                assert!(drain < DRAIN_MAX, "{drain:?}");
            });
            assert!(between.into_inner() > 0, "nothing new came while it drained");
        },
    );
}

#[test]
fn a_full_log_holds_its_publishers_and_nobody_else() {
    let more = format!("when_full = \"hold\"\nspool_messages_max = {LOG_MAX}");
    each_bridge("hold", &more, |world, far| {
        let Far { link, mut reader, .. } = far;
        let sources = sources(2);
        let mut watcher = Watcher::new(world.address());
        let held = cut(&link);
        watcher.await_loss();
        let settled: [AtomicU64; 2] = Default::default();
        thread::scope(|scope| {
            for (source, settled) in sources.iter().zip(&settled) {
                scope.spawn(move || {
                    let mut publisher = publisher(world, &format!("held-{}", source.id));
                    let note = |end| settled.store(end, SeqCst);
                    publish(&mut publisher, source, 1 + source.id as u8, 0..TOO_MANY, note);
                    publisher.leave();
                });
            }
            watcher.await_says(&[("holding", "1")]);
            sleep(Duration::from_millis(200));
            let sum = || settled.iter().map(|settled| settled.load(SeqCst)).sum::<u64>();
            let before = sum();
            // Its topic is no bridge's.
            let mut other = publisher(world, "other");
            let near =
                Source { id: 0, version: Version::V5, topics: vec!["near".into()], size_max: 9 };
            publish(&mut other, &near, 1, 0..TOO_MANY, |_| {});
            other.leave();
            assert_eq!(sum(), before, "held publishers went on");
            assert!(before <= LOG_MAX, "{before} messages are said to be in the log");
            drop(held);
            let mut got = [0; 2];
            while got != [TOO_MANY; 2] {
                let Some((id, number)) = reader.next(&sources) else { continue };
                assert_eq!(number, got[id as usize], "source {id}");
                got[id as usize] += 1;
            }
        });
        watcher.await_says(&[("holding", "0"), ("messages/dropped/full", "0")]);
        watcher.client.leave();
    });
}

#[test]
fn a_full_log_counts_what_it_drops() {
    for policy in ["drop-oldest", "drop-newest"] {
        let more = format!("when_full = \"{policy}\"\nspool_messages_max = {LOG_MAX}");
        each_bridge(policy, &more, |world, far| {
            let Far { link, mut reader, .. } = far;
            let sources = sources(1);
            let mut watcher = Watcher::new(world.address());
            let held = cut(&link);
            watcher.await_loss();
            let mut publisher = publisher(world, "many");
            publish(&mut publisher, &sources[0], 1, 0..TOO_MANY, |_| {});
            publisher.leave();
            let dropped = (TOO_MANY - LOG_MAX).to_string();
            watcher.await_says(&[("messages/dropped/full", &dropped)]);
            drop(held);
            let first = if policy == "drop-oldest" { TOO_MANY - LOG_MAX } else { 0 };
            for expected in first..first + LOG_MAX {
                let number = loop {
                    if let Some((_, number)) = reader.next(&sources) {
                        break number;
                    }
                };
                assert_eq!(number, expected, "{policy}");
            }
            watcher.await_says(&[("backlog/messages", "0"), ("messages/dropped/full", &dropped)]);
            watcher.client.leave();
            assert_eq!(reader.next(&sources), None);
        });
    }
}
