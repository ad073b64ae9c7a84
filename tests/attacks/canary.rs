//! Clients that do nothing wrong: pairs at QoS 1, each message of which must arrive once and in order.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::client::{Client, Received};
use crate::fields::Kind;
use crate::message::Source;
use crate::wire::Version;

/// Some on each shard.
const PAIRS: u64 = 6;
const PAUSE: Duration = Duration::from_millis(25);
/// Longer than any flood in the gate holds anybody up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Canaries {
    pairs: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    /// From publish to arrival, milliseconds, since they were last asked for.
    waits_ms: Arc<Mutex<Vec<f64>>>,
}

impl Canaries {
    pub(crate) fn start(address: SocketAddr) -> Canaries {
        let is_over = Arc::new(AtomicBool::new(false));
        let waits_ms = Arc::new(Mutex::new(Vec::new()));
        let pairs = (0..PAIRS)
            .map(|number| {
                let (is_over, waits_ms) = (is_over.clone(), waits_ms.clone());
                thread::spawn(move || sing(address, number, &is_over, &waits_ms))
            })
            .collect();
        Canaries { pairs, is_over, waits_ms }
    }

    pub(crate) fn waits(&self) -> Waits {
        let mut waits_ms = std::mem::take(&mut *self.waits_ms.lock().unwrap());
        waits_ms.sort_by(f64::total_cmp);
        Waits(waits_ms)
    }

    pub(crate) fn are_well(&self) -> bool {
        self.pairs.iter().all(|pair| !pair.is_finished())
    }

    pub(crate) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for pair in self.pairs {
            pair.join().expect("a canary lost nothing and was never closed");
        }
    }
}

/// Sorted.
pub(crate) struct Waits(Vec<f64>);

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: f64| self.0.get(((self.0.len() as f64 - 1.0) * part) as usize);
        let [half, most, all] = [0.5, 0.99, 1.0].map(|part| at(part).copied().unwrap_or(f64::NAN));
        write!(f, "{:4} waited p50 {half:7.1} p99 {most:7.1} max {all:7.1} ms", self.0.len())
    }
}

fn sing(address: SocketAddr, number: u64, is_over: &AtomicBool, waits_ms: &Mutex<Vec<f64>>) {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let topic = format!("canary/{number}");
    let source = Source { id: number, version, topics: vec![topic.clone()], size_max: 200 };
    let mut listener = Client::join(address, version, &format!("listener-{number}"), &[]);
    listener.subscribe(&[&format!("{topic}@1")]);
    let mut singer = Client::join(address, version, &format!("singer-{number}"), &[]);
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let id = (count % 60_000 + 1) as u16;
        let message = source.message(count);
        singer.send(&message.publish(version, 2, id));
        let Received::Frame(frame) = listener.message(PATIENCE) else {
            panic!("canary {number} has not heard message {count}");
        };
        let heard = listener.delivery(&frame).unwrap();
        assert_eq!(heard.payload, message.payload, "canary {number}, message {count}");
        let puback = singer.answer(Kind::Puback);
        assert_eq!(puback.number("reason").unwrap_or(0), 0, "canary {number}: {puback}");
        waits_ms.lock().unwrap().push(began.elapsed().as_secs_f64() * 1e3);
        count += 1;
        sleep(PAUSE);
    }
    listener.leave();
    singer.leave();
}
