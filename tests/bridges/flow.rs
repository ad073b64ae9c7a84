//! A numbered flow from a publisher of one broker to a subscriber of another, while everything between them is disturbed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use ringmq::codec::{PacketId, ProtocolVersion, Publish, QoS};

use crate::client::{Client, Got, Message};
use crate::process::Process;
use crate::proxy::Proxy;

/// The client id of whoever publishes: what it meets is what the next one meets.
const PUBLISHER: &str = "publisher";
/// A message's topic is its number modulo this.
pub(crate) const TOPICS: u64 = 7;
/// Messages that a publisher has unacknowledged.
const WINDOW: usize = 100;
/// A run without a message for so long has come to its end, one way or another.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often what happens while the messages flow.
#[derive(Default)]
pub(crate) struct Events {
    pub cuts: u64,
    /// The publisher's broker is killed: it has a log of what it acknowledges.
    pub source_kills: u64,
    /// The publisher's broker is stopped, and what it has acknowledged it hands on before, or keeps.
    pub source_restarts: u64,
    /// It keeps nothing: nobody publishes before the bridge is back.
    pub is_source_forgetful: bool,
    /// The subscriber's broker is stopped, and what it has acknowledged it gives to its subscriber, or keeps.
    pub target_restarts: u64,
    /// The subscriber's broker is killed when its subscriber has everything, and the publisher goes on.
    pub target_kills: u64,
}

/// What lies between a publisher and a subscriber.
pub(crate) struct Path<'a> {
    /// The publisher's broker.
    pub source: &'a mut Process,
    /// The subscriber's broker.
    pub target: &'a mut Process,
    pub link: &'a Proxy,
    /// So many messages are on their way at most, so that what happens meets a flow, not a backlog.
    pub ahead_max: u64,
}

/// How far a flow has come.
#[derive(Default)]
struct Progress {
    published: AtomicU64,
    acked: AtomicU64,
    /// Different messages that have come.
    seen: AtomicU64,
    /// Connections of the subscriber.
    subscribed: AtomicU64,
    has_failed: AtomicBool,
    /// Who has it publishes.
    gate: Mutex<()>,
}

impl Progress {
    /// Waits for `is_reached`, as long as the subscriber is content; who waits in vain finds out by what does not come.
    fn wait(&self, patience: Duration, is_reached: impl Fn(&Progress) -> bool) {
        let began = Instant::now();
        while !is_reached(self) && !self.has_failed.load(Relaxed) && began.elapsed() < patience {
            sleep(Duration::from_millis(2));
        }
    }

    fn await_subscriber(&self, times: u64) {
        self.wait(PATIENCE, |progress| progress.subscribed.load(Relaxed) >= times);
    }
}

pub(crate) fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes(message.payload[..8].try_into().unwrap())
}

/// Publishes numbers to `t/N`, each again until it is acknowledged, over as many connections as it takes.
fn publisher(
    address: SocketAddr,
    qos: QoS,
    count: u64,
    ahead_max: u64,
    progress: Arc<Progress>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut waiting: VecDeque<u64> = VecDeque::new();
        let mut next = 0;
        let mut connection_count = 0;
        while (next < count || !waiting.is_empty()) && !progress.has_failed.load(Relaxed) {
            connection_count += 1;
            assert!(connection_count < 10_000, "no broker stays");
            let connected = {
                let _open = progress.gate.lock().unwrap();
                Client::connect(address, PUBLISHER, ProtocolVersion::V5, true)
            };
            let Ok(mut client) = connected else {
                sleep(Duration::from_millis(20));
                continue;
            };
            // What was not acknowledged goes again, in order, with the identifiers that it had.
            for &number in &waiting {
                queue(&mut client, qos, number, true);
            }
            let mut exchange = || -> std::io::Result<()> {
                while (next < count || !waiting.is_empty()) && !progress.has_failed.load(Relaxed) {
                    if let Ok(_open) = progress.gate.try_lock() {
                        let end = count.min(progress.seen.load(Relaxed).saturating_add(ahead_max));
                        while waiting.len() < WINDOW && next < end {
                            queue(&mut client, qos, next, false);
                            waiting.push_back(next);
                            next += 1;
                        }
                        progress.published.store(next, Relaxed);
                        client.flush()?;
                    }
                    for got in client.read(Duration::from_millis(20))? {
                        let Got::Acked(id) = got else { continue };
                        let place = waiting.iter().position(|number| id_of(*number) == id);
                        if let Some(place) = place {
                            waiting.remove(place);
                            progress.acked.fetch_add(1, Relaxed);
                        }
                    }
                }
                Ok(())
            };
            if exchange().is_err() {
                sleep(Duration::from_millis(20));
            }
        }
    })
}

fn id_of(number: u64) -> u16 {
    (number % 60_000 + 1) as u16
}

fn queue(client: &mut Client, qos: QoS, number: u64, dup: bool) {
    let topic = format!("t/{}", number % TOPICS);
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(64 + (number % 50) as usize, b'.');
    client.publish(Publish {
        dup,
        qos,
        topic: &topic,
        packet_id: PacketId::new(id_of(number)),
        payload: &payload,
        ..Publish::default()
    });
}

/// Publishes `count` messages and waits until all are acknowledged.
pub(crate) fn publish_all(address: SocketAddr, qos: QoS, count: u64) {
    publisher(address, qos, count, u64::MAX, Arc::default()).join().unwrap();
}

/// Adds what comes until nothing has for `patience`.
pub(crate) fn collect(client: &mut Client, got: &mut Vec<Message>, patience: Duration) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let batch = client.read(patience).unwrap();
        if batch.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "messages come without end");
        got.extend(batch.into_iter().filter_map(|one| match one {
            Got::Message(message) => Some(message),
            _ => None,
        }));
    }
}

/// Adds what comes until there are `count`.
pub(crate) fn collect_until(
    client: &mut Client,
    got: &mut Vec<Message>,
    count: usize,
    patience: Duration,
) {
    let deadline = Instant::now() + patience;
    while got.len() < count && Instant::now() < deadline {
        collect(client, got, Duration::from_millis(50));
    }
    assert!(got.len() >= count, "{} of {count} came", got.len());
}

/// Waits until a bridge says of itself that it is in this state.
pub(crate) fn await_state(address: SocketAddr, bridge: &str, state: &str) {
    let mut client = Client::connect(address, "state", ProtocolVersion::V5, false).unwrap();
    client.subscribe(&format!("$SYS/bridges/{bridge}/state"), QoS::AtMostOnce).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut last = String::new();
    while last != state {
        assert!(Instant::now() < deadline, "bridge {bridge} is '{last}', not '{state}'");
        for got in client.read(Duration::from_millis(100)).unwrap() {
            if let Got::Message(message) = got {
                last = String::from_utf8(message.payload).unwrap();
            }
        }
    }
}

/// What the subscriber has seen of each topic.
struct Seen {
    /// The number that must come next, by topic.
    next: Vec<u64>,
    count: u64,
    repeat_count: u64,
}

impl Seen {
    fn note(&mut self, message: &Message) {
        let number = number_of(message);
        let topic = number % TOPICS;
        assert_eq!(message.topic, format!("from/here/{topic}"));
        assert_eq!(message.payload.len(), 64 + (number % 50) as usize);
        let next = &mut self.next[topic as usize];
        if number < *next {
            self.repeat_count += 1;
            return;
        }
        assert_eq!(
            number, *next,
            "topic {topic}: {number} came, {next} must be next: lost or out of order"
        );
        *next += TOPICS;
        self.count += 1;
    }
}

/// Publishes to `probe` at `source`, until a bridge has brought it to `target` once: the way is open.
pub(crate) fn await_crossing(source: SocketAddr, target: SocketAddr, client_id: &str) {
    let mut far = Client::connect(target, "probe", ProtocolVersion::V5, false).unwrap();
    far.subscribe("probe", QoS::AtMostOnce).unwrap();
    let mut near = Client::connect(source, client_id, ProtocolVersion::V5, false).unwrap();
    let payload = fastrand::u64(..).to_be_bytes();
    let began = Instant::now();
    let is_it = |got: &Got| matches!(got, Got::Message(message) if message.payload == payload);
    loop {
        assert!(began.elapsed() < PATIENCE, "nothing crosses the bridge");
        near.publish(Publish { topic: "probe", payload: &payload, ..Publish::default() });
        near.flush().unwrap();
        if far.read(Duration::from_millis(20)).unwrap().iter().any(is_it) {
            return;
        }
    }
}

/// Reads until `count` different messages have come, over as many connections as it takes; how many came again.
fn subscriber(
    address: SocketAddr,
    qos: QoS,
    count: u64,
    progress: Arc<Progress>,
) -> JoinHandle<u64> {
    struct Flag(Arc<Progress>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.has_failed.store(thread::panicking(), Relaxed);
        }
    }
    thread::spawn(move || {
        let _flag = Flag(progress.clone());
        let mut seen = Seen { next: (0..TOPICS).collect(), count: 0, repeat_count: 0 };
        let mut last_at = Instant::now();
        while seen.count < count {
            assert!(last_at.elapsed() < PATIENCE, "{} of {count} came, then no more", seen.count);
            let connected = Client::connect(address, "subscriber", ProtocolVersion::V5, true)
                .and_then(|mut client| {
                    client.subscribe("from/#", qos)?;
                    Ok(client)
                });
            let Ok(mut client) = connected else {
                sleep(Duration::from_millis(20));
                continue;
            };
            // Its SUBACK has come, and maybe messages.
            let mut is_subscribed = false;
            while seen.count < count && last_at.elapsed() < PATIENCE {
                let Ok(batch) = client.read(Duration::from_millis(500)) else { break };
                if !batch.is_empty() && !std::mem::replace(&mut is_subscribed, true) {
                    progress.subscribed.fetch_add(1, Relaxed);
                }
                for got in &batch {
                    if let Got::Message(message) = got {
                        seen.note(message);
                        last_at = Instant::now();
                    }
                }
                progress.seen.store(seen.count, Relaxed);
            }
        }
        seen.repeat_count
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Cut,
    SourceKill,
    SourceRestart,
    TargetRestart,
    TargetKill,
}

/// Sends `count` messages along the path, over a bridge. Nothing may be lost, and each topic's order must hold, repeats aside;
/// at QoS 2 there are none.
pub(crate) fn check_flow(count: u64, qos: QoS, events: &Events, path: Path<'_>) {
    let Path { source, target, link, ahead_max } = path;
    let progress: Arc<Progress> = Arc::default();
    let receiving = subscriber(target.address, qos, count, progress.clone());
    progress.await_subscriber(1);
    let sending = publisher(source.address, qos, count, ahead_max, progress.clone());
    let mut plan: Vec<(u64, Event)> = Vec::new();
    for (times, event) in [
        (events.cuts, Event::Cut),
        (events.source_kills, Event::SourceKill),
        (events.source_restarts, Event::SourceRestart),
        (events.target_restarts, Event::TargetRestart),
        (events.target_kills, Event::TargetKill),
    ] {
        plan.extend((1..=times).map(|n| (n * count / (times + 1), event)));
    }
    plan.sort_unstable();
    let cut_count = Cell::new(0);
    let began = Instant::now();
    for (at, event) in plan {
        progress.wait(Duration::from_secs(900), |progress| progress.seen.load(Relaxed) >= at);
        match event {
            Event::Cut => progress.wait(PATIENCE, |_| {
                // There may be none just now.
                let is_cut = link.cut() > 0;
                cut_count.set(cut_count.get() + u64::from(is_cut));
                is_cut
            }),
            Event::SourceKill => {
                source.kill();
                source.run();
            }
            Event::SourceRestart => {
                restart_source(source, target, events.is_source_forgetful, &progress);
            }
            Event::TargetRestart => {
                // One that keeps nothing needs the subscriber back before the bridge is.
                let times = progress.subscribed.load(Relaxed);
                let _held = link.hold();
                target.stop();
                target.run();
                progress.await_subscriber(times + 1);
            }
            Event::TargetKill => kill_target(count, target, link, &progress),
        }
    }
    sending.join().unwrap();
    let outcome = receiving.join();
    let repeat_count = outcome.unwrap_or_else(|_| {
        panic!(
            "seen {} of {count}\nsource: {}\ntarget: {}",
            progress.seen.load(Relaxed),
            source.log(),
            target.log()
        )
    });
    assert_eq!(cut_count.get(), events.cuts, "each cut met a connection");
    println!("{count} messages, {repeat_count} repeats, {:?}", began.elapsed());
    if qos == QoS::ExactlyOnce {
        assert_eq!(repeat_count, 0, "each crosses once");
    }
}

fn restart_source(source: &mut Process, target: &Process, is_forgetful: bool, progress: &Progress) {
    if !is_forgetful {
        source.stop();
        source.run();
        return;
    }
    // What it has for a bridge that is away goes with it, and what is published before the bridge is back goes nowhere.
    await_crossing(source.address, target.address, "before");
    source.stop();
    let _closed = progress.gate.lock().unwrap();
    source.run();
    await_crossing(source.address, target.address, PUBLISHER);
}

/// What the target has acknowledged and not delivered would be lost, so it has delivered everything.
fn kill_target(count: u64, target: &mut Process, link: &Proxy, progress: &Progress) {
    let closed = progress.gate.lock().unwrap();
    let published = progress.published.load(Relaxed);
    progress.wait(PATIENCE, |progress| {
        progress.seen.load(Relaxed).min(progress.acked.load(Relaxed)) >= published
    });
    let times = progress.subscribed.load(Relaxed);
    let _held = link.hold();
    target.kill();
    drop(closed);
    let more = (published + WINDOW as u64).min(count);
    progress.wait(PATIENCE, |progress| progress.acked.load(Relaxed) >= more);
    target.run();
    progress.await_subscriber(times + 1);
}
