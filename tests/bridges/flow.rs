//! A numbered flow from a publisher of one broker to a subscriber of another, while everything between them is disturbed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use ringmq::codec::{PacketId, ProtocolVersion, Publish, QoS};

use crate::client::{Client, Got, Message};
use crate::process::Process;
use crate::proxy::Proxy;

/// A message's topic is its number modulo this.
pub const TOPICS: u64 = 7;
/// Messages that a publisher has unacknowledged.
const WINDOW: usize = 100;
/// A run without a message for so long has come to its end, one way or another.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often what happens while the messages flow.
pub struct Events {
    pub cuts: u64,
    pub kills: u64,
    pub remote_restarts: u64,
}

pub fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes(message.payload[..8].try_into().unwrap())
}

/// Publishes numbers to `t/N`, each again until it is acknowledged, over as many connections as it takes.
fn publisher(address: SocketAddr, qos: QoS, count: u64, acked: Arc<AtomicU64>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut waiting: VecDeque<u64> = VecDeque::new();
        let mut next = 0;
        let mut connection_count = 0;
        while next < count || !waiting.is_empty() {
            connection_count += 1;
            assert!(connection_count < 10_000, "no broker stays");
            let Ok(mut client) = Client::connect(address, "publisher", ProtocolVersion::V5, true)
            else {
                sleep(Duration::from_millis(20));
                continue;
            };
            // What was not acknowledged goes again, in order, with the identifiers that it had.
            for &number in &waiting {
                queue(&mut client, qos, number, true);
            }
            let mut exchange = || -> std::io::Result<()> {
                while next < count || !waiting.is_empty() {
                    while waiting.len() < WINDOW && next < count {
                        queue(&mut client, qos, next, false);
                        waiting.push_back(next);
                        next += 1;
                    }
                    client.flush()?;
                    for got in client.read(Duration::from_secs(5))? {
                        let Got::Acked(id) = got else { continue };
                        let place = waiting.iter().position(|number| id_of(*number) == id);
                        if let Some(place) = place {
                            waiting.remove(place);
                            acked.fetch_add(1, Ordering::Relaxed);
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
pub fn publish_all(address: SocketAddr, qos: QoS, count: u64) {
    publisher(address, qos, count, Arc::default()).join().unwrap();
}

/// Adds what comes until nothing has for `patience`.
pub fn collect(client: &mut Client, got: &mut Vec<Message>, patience: Duration) {
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
pub fn collect_until(
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
pub fn await_state(address: SocketAddr, bridge: &str, state: &str) {
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

/// Reads until `count` different messages have come, over as many connections as it takes.
fn subscriber(
    address: SocketAddr,
    qos: QoS,
    count: u64,
    (seen_count, subscribed_count): (Arc<AtomicU64>, Arc<AtomicU64>),
    has_failed: Arc<AtomicBool>,
) -> JoinHandle<u64> {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(thread::panicking(), Ordering::Relaxed);
        }
    }
    thread::spawn(move || {
        let _flag = Flag(has_failed);
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
                    subscribed_count.fetch_add(1, Ordering::Relaxed);
                }
                for got in &batch {
                    if let Got::Message(message) = got {
                        seen.note(message);
                        last_at = Instant::now();
                    }
                }
                seen_count.store(seen.count, Ordering::Relaxed);
            }
        }
        seen.repeat_count
    })
}

/// Sends `count` messages through `local`'s bridge to a subscriber of `remote`. Nothing may be lost, and each topic's order
/// must hold, repeats aside; at QoS 2 there are none.
pub fn check_flow(
    count: u64,
    qos: QoS,
    events: &Events,
    local: &mut Process,
    remote: &mut Process,
    link: &Proxy,
) {
    let (acked, seen) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let has_failed: Arc<AtomicBool> = Arc::default();
    let subscribed: Arc<AtomicU64> = Arc::default();
    let counts = (seen.clone(), subscribed.clone());
    let receiving = subscriber(remote.address, qos, count, counts, has_failed.clone());
    let await_subscriber = |times: u64| {
        let began = Instant::now();
        while subscribed.load(Ordering::Relaxed) < times && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2));
        }
    };
    await_subscriber(1);
    let sending = publisher(local.address, qos, count, acked.clone());
    let mut plan: Vec<(u64, u8)> = Vec::new();
    for (times, what) in [(events.cuts, 0), (events.kills, 1), (events.remote_restarts, 2)] {
        plan.extend((1..=times).map(|n| (n * count / (times + 1), what)));
    }
    plan.sort_unstable();
    let mut cut_count = 0;
    let began = Instant::now();
    for (at, what) in plan {
        while acked.load(Ordering::Relaxed) < at && !has_failed.load(Ordering::Relaxed) {
            assert!(began.elapsed() < Duration::from_secs(900), "too slow: {}", local.log());
            sleep(Duration::from_millis(2));
        }
        match what {
            0 => cut_count += link.cut(),
            1 => {
                local.kill();
                local.run();
            }
            _ => {
                // What it has acknowledged it gives to its subscriber, or keeps. One that keeps nothing needs the subscriber
                // back before the bridge is.
                let times = subscribed.load(Ordering::Relaxed);
                let _held = link.hold();
                remote.stop();
                remote.run();
                await_subscriber(times + 1);
            }
        }
    }
    sending.join().unwrap();
    let outcome = receiving.join();
    let repeat_count = outcome.unwrap_or_else(|_| {
        panic!(
            "seen {} of {count}\nlocal: {}\nremote: {}",
            seen.load(Ordering::Relaxed),
            local.log(),
            remote.log()
        )
    });
    assert!(cut_count > 0 || events.cuts == 0, "no link was ever cut");
    println!("{count} messages, {repeat_count} repeats, {:?}", began.elapsed());
    if qos == QoS::ExactlyOnce {
        assert_eq!(repeat_count, 0, "each crosses once");
    }
}
