//! Retained messages that are replaced and deleted while they are being delivered.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::bystanders::Bystanders;
use crate::client::{Client, PATIENCE, Received};
use crate::each_shard_count;
use crate::message::{Ledger, Message, Source};
use crate::publisher::Publisher;
use crate::wire::Version;

/// Topics of each writer.
const TOPICS: u64 = 40;
const READERS: u64 = 4;
const VISITS: u64 = 30;

#[test]
fn retained_messages_are_replaced_while_they_are_delivered() {
    each_shard_count(&[], |world| {
        let address = world.address();
        let sources: Vec<Source> = (0..3).map(source).collect();
        let stop = AtomicBool::new(false);
        let bystanders = Bystanders::start(address);
        let left = thread::scope(|scope| {
            let (sources, stop) = (&sources, &stop);
            let writers: Vec<_> = sources
                .iter()
                .map(|source| scope.spawn(move || write(address, source, stop)))
                .collect();
            let readers: Vec<_> = (0..READERS)
                .map(|id| scope.spawn(move || visit_often(address, id, sources)))
                .collect();
            let ends: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
            stop.store(true, Ordering::SeqCst);
            let retained: u64 = ends.into_iter().map(|end| end.expect("a reader's account")).sum();
            assert!(retained > 1000, "only {retained} retained messages met a change");
            let mut left = BTreeMap::new();
            for writer in writers {
                left.extend(writer.join().expect("the writer was served"));
            }
            left
        });
        for version in [Version::V5, Version::V311] {
            assert_eq!(all_retained(address, version, &sources, left.len()), left);
        }
        bystanders.finish();
    });
}

fn source(id: u64) -> Source {
    Source {
        id,
        version: if id == 1 { Version::V311 } else { Version::V5 },
        topics: (0..TOPICS).map(|n| format!("keep/{id}/{n}")).collect(),
        // The last one's messages mostly have an allocation of their own.
        size_max: if id == 2 { 80_000 } else { 2000 },
    }
}

/// Replaces and deletes until `stop`; what is left, by topic.
fn write(address: SocketAddr, source: &Source, stop: &AtomicBool) -> BTreeMap<String, u64> {
    let client = Client::join(address, source.version, &format!("writer-{}", source.id), &[]);
    let mut publisher = Publisher::new(client);
    let mut random = fastrand::Rng::with_seed(source.id);
    let mut left = BTreeMap::new();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..8 {
            let message = source.message(number);
            let qos = random.u8(..3);
            if random.u8(..6) == 0 {
                left.remove(&message.topic);
                let nothing = Message { payload: Vec::new(), ..message };
                publisher.publish(&nothing, qos, true);
            } else {
                publisher.publish(&message, qos, true);
                left.insert(message.topic, number);
            }
            number += 1;
        }
        publisher.settle();
        thread::sleep(Duration::from_millis(if source.id == 2 { 8 } else { 2 }));
    }
    publisher.leave();
    left
}

/// Subscribes again and again, and leaves in the middle of it as often as not; the retained messages that came.
fn visit_often(address: SocketAddr, id: u64, sources: &[Source]) -> u64 {
    let mut random = fastrand::Rng::with_seed(id);
    let mut retained_count = 0;
    for visit in 0..VISITS {
        let version = if (id + visit).is_multiple_of(2) { Version::V5 } else { Version::V311 };
        let mut client = Client::join(address, version, &format!("reader-{id}"), &[]);
        let filter = ["keep/#", "keep/+/+", "keep/2/#"][random.usize(..3)];
        client.subscribe(&[&format!("{filter}@{}", random.u8(..3))]);
        if id == 0 {
            // What the broker has for it is replaced before it is read.
            thread::sleep(Duration::from_millis(20));
        }
        let mut account = Account { ledger: Ledger::new(sources), last: HashMap::new() };
        for _ in 0..random.u32(..300) {
            let Received::Frame(frame) = client.message(Duration::from_millis(100)) else { break };
            retained_count += u64::from(account.take(&client, &frame));
        }
        match random.u8(..3) {
            0 => client.leave(),
            1 => client.reset(),
            _ => drop(client),
        }
    }
    retained_count
}

/// What one visit has seen.
struct Account<'a> {
    ledger: Ledger<'a>,
    /// By topic: the last number.
    last: HashMap<Vec<u8>, u64>,
}

impl Account<'_> {
    /// Checks every byte, and that nothing older follows; whether it was delivered as retained.
    fn take(&mut self, client: &Client, frame: &[u8]) -> bool {
        let delivery = client.delivery(frame).unwrap();
        if delivery.payload.is_empty() {
            assert!(!delivery.retain && delivery.topic.starts_with(b"keep/"), "a deletion, live");
            return false;
        }
        let (_, number) = self.ledger.check(&delivery, client.version);
        let last = self.last.insert(delivery.topic.to_vec(), number);
        // A message that came live may come once more as retained, where writer and keeper are on different shards.
        let follows = match last {
            None => true,
            Some(last) => number > last || delivery.retain && number == last,
        };
        assert!(follows, "{number} came after {last:?}");
        delivery.retain
    }
}

/// What a new subscriber gets, by topic: `count` messages, and then none that comes soon.
fn all_retained(
    address: SocketAddr,
    version: Version,
    sources: &[Source],
    count: usize,
) -> BTreeMap<String, u64> {
    let mut client = Client::join(address, version, "last-reader", &[]);
    client.subscribe(&["keep/#@1"]);
    let ledger = Ledger::new(sources);
    let mut found = BTreeMap::new();
    loop {
        let patience = if found.len() < count { PATIENCE } else { Duration::from_millis(300) };
        let Received::Frame(frame) = client.message(patience) else { break };
        let delivery = client.delivery(&frame).unwrap();
        assert!(delivery.retain);
        let (_, number) = ledger.check(&delivery, version);
        let topic = String::from_utf8(delivery.topic.to_vec()).unwrap();
        assert_eq!(found.insert(topic, number), None, "twice");
    }
    client.leave();
    found
}
