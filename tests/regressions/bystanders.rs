//! Clients that behave while others do not: they must get every message, right and in order, all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE, Received};
use crate::message::{Follow, Ledger, Source};
use crate::publisher;
use crate::wire::Version;

/// How far the publisher may be ahead of the slowest subscriber, messages: a queue takes more.
const AHEAD_MAX: u64 = 400;

pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<u64>,
    subscribers: Vec<JoinHandle<()>>,
    /// How many messages there are; the largest number until that is known.
    total: Arc<AtomicU64>,
}

impl Bystanders {
    pub(crate) fn start(address: SocketAddr) -> Bystanders {
        let topics = (0..5).map(|n| format!("bystanders/{n}")).collect();
        let source = Source { id: 0, version: Version::V5, topics, size_max: 300 };
        let stop = Arc::new(AtomicBool::new(false));
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let got: Arc<[AtomicU64; 2]> = Arc::default();
        let subscribers = [(Version::V5, "bystanders/#@2"), (Version::V311, "bystanders/+@1")]
            .into_iter()
            .enumerate()
            .map(|(place, (version, filter))| {
                let mut client = Client::join(address, version, &format!("bystander-{place}"), &[]);
                client.subscribe(&[filter]);
                let (total, got, source) = (Arc::clone(&total), Arc::clone(&got), source.clone());
                thread::spawn(move || watch(client, &source, &total, &got[place]))
            })
            .collect();
        let publisher = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let slowest = || got.iter().map(|got| got.load(Ordering::SeqCst)).min().unwrap();
                let is_ahead = |number| number > slowest() + AHEAD_MAX;
                publisher::publish_until(address, &source, &AtomicU64::new(0), is_ahead, &stop)
            })
        };
        Bystanders { stop, publisher, subscribers, total }
    }

    /// Ends them; all has been received.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let count = self.publisher.join().expect("the publisher was served");
        assert!(count > 100, "only {count} messages between bystanders");
        self.total.store(count, Ordering::SeqCst);
        for subscriber in self.subscribers {
            subscriber.join().expect("the subscriber got everything");
        }
    }
}

fn watch(mut client: Client, source: &Source, total: &AtomicU64, got: &AtomicU64) {
    let mut ledger = Ledger::new(std::slice::from_ref(source));
    let mut last_at = Instant::now();
    while ledger.got_count < total.load(Ordering::SeqCst) {
        match client.message(Duration::from_millis(50)) {
            Received::Frame(frame) => {
                let delivery = client.delivery(&frame).unwrap();
                let (_, number) = ledger.take(&delivery, client.version, Follow::Gapless);
                assert!(number < 5 || ledger.got_count > 5, "it began with {number}");
                got.store(ledger.got_count, Ordering::SeqCst);
                last_at = Instant::now();
            }
            other => assert!(
                other == Received::Nothing && last_at.elapsed() < PATIENCE,
                "{other:?} after {} messages",
                ledger.got_count
            ),
        }
    }
    client.leave();
}
