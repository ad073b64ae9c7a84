//! Clients that subscribe, unsubscribe, and vanish while messages are being delivered to them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::bystanders::Bystanders;
use crate::client::{self, Client, PATIENCE, Received};
use crate::each_shard_count;
use crate::fields::Kind;
use crate::message::{Ledger, Source};
use crate::publisher;
use crate::wire::Version;

const SOURCES: u64 = 3;
const CHANGERS: u64 = 5;
const ROUNDS: u64 = 60;
/// Every topic matches two or three of them.
const FILTERS: [&str; 6] = ["s/#", "s/+/a", "s/+/b", "s/0/a", "s/1/b", "s/2/+"];

#[test]
fn subscriptions_change_while_messages_are_delivered() {
    // A queue for as long as a changer may be kept from reading on a busy machine.
    each_shard_count(&["--queue-messages-max=100000", "--queue-bytes-max=64MiB"], |world| {
        world.growth_max_mib += 64;
        let address = world.address();
        let topics: Vec<String> =
            (0..3).flat_map(|n| ["a", "b"].map(|letter| format!("s/{n}/{letter}"))).collect();
        let sources: Vec<Source> = (0..SOURCES)
            .map(|id| {
                let version = if id == 2 { Version::V311 } else { Version::V5 };
                // Some are large enough for an allocation of their own.
                let size_max = if id == 1 { 50_000 } else { 400 };
                Source { id, version, topics: topics.clone(), size_max }
            })
            .collect();
        let sent: Vec<AtomicU64> = (0..SOURCES).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicBool::new(false);
        let bystanders = Bystanders::start(address);
        thread::scope(|scope| {
            for (source, sent) in sources.iter().zip(&sent) {
                let stop = &stop;
                scope.spawn(move || {
                    let pause = Duration::from_millis(if source.id == 1 { 60 } else { 20 });
                    let is_ahead = |_| {
                        thread::sleep(pause);
                        false
                    };
                    publisher::publish_until(address, source, sent, is_ahead, stop)
                });
            }
            let changers: Vec<_> = (0..CHANGERS)
                .map(|id| {
                    let (sources, sent) = (&sources, &sent);
                    scope.spawn(move || Changer::new(address, id, sources, sent).run())
                })
                .collect();
            let ends: Vec<_> = changers.into_iter().map(|changer| changer.join()).collect();
            stop.store(true, Ordering::SeqCst);
            let got: u64 = ends.into_iter().map(|end| end.expect("a changer's account")).sum();
            assert!(got > 2000, "only {got} messages met a change");
        });
        bystanders.finish();
    });
}

/// One client whose subscriptions change all the time, and what it may get.
struct Changer<'a> {
    address: SocketAddr,
    id: u64,
    client: Client,
    random: fastrand::Rng,
    ledger: Ledger<'a>,
    /// The next number of each source, read from the source itself.
    sent: &'a [AtomicU64],
    /// By source and topic: the last number, and whether a gap behind it would be the first since the last SUBSCRIBE.
    last: HashMap<(u64, Vec<u8>), (u64, bool)>,
    /// Filters of this round and of the one before, whose messages may still be on their way.
    filters: Vec<&'static str>,
    former: Vec<&'static str>,
    got_count: u64,
    /// Connections whose session was taken over, with what they have not read.
    replaced: Vec<Client>,
}

impl<'a> Changer<'a> {
    fn new(
        address: SocketAddr,
        id: u64,
        sources: &'a [Source],
        sent: &'a [AtomicU64],
    ) -> Changer<'a> {
        Changer {
            address,
            id,
            client: join(address, id),
            random: fastrand::Rng::with_seed(id),
            ledger: Ledger::new(sources),
            sent,
            last: HashMap::new(),
            filters: Vec::new(),
            former: Vec::new(),
            got_count: 0,
            replaced: Vec::new(),
        }
    }

    /// All rounds; the messages that came.
    fn run(mut self) -> u64 {
        for round in 0..ROUNDS {
            self.subscribe();
            if round % 3 == 0 {
                self.await_news();
            }
            self.read_some();
            match self.random.u8(..10) {
                // The broker is in the middle of sending to it.
                0 => self.vanish(|client| client.reset()),
                1 => self.vanish(drop),
                // A second connection of the same client takes the session over.
                2 => {
                    let old = self.vanish(|client| client);
                    self.replaced.push(old);
                }
                _ => self.unsubscribe(),
            }
        }
        self.client.leave();
        self.got_count
    }

    fn subscribe(&mut self) {
        self.former = std::mem::take(&mut self.filters);
        let count = self.random.usize(1..=3);
        self.filters = self.random.choose_multiple(FILTERS, count);
        let wanted: Vec<String> =
            self.filters.iter().map(|f| format!("{f}@{}", self.random.u8(..3))).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for (_, may_jump) in self.last.values_mut() {
            *may_jump = true;
        }
        self.client.subscribe(&wanted);
    }

    /// What is published once SUBACK is there must come.
    fn await_news(&mut self) {
        let floor: Vec<u64> = self.next_numbers();
        loop {
            match self.client.message(PATIENCE) {
                Received::Frame(frame) => {
                    let (source, number) = self.take(&frame);
                    if number >= floor[source as usize] {
                        return;
                    }
                }
                other => panic!("{other:?} where news of {:?} were expected", self.filters),
            }
        }
    }

    fn read_some(&mut self) {
        for _ in 0..self.random.u32(..80) {
            match self.client.message(Duration::from_millis(10)) {
                Received::Frame(frame) => self.take(&frame),
                _ => break,
            };
        }
    }

    /// Gives up all filters at once or one by one. What is published from then on must not come.
    fn unsubscribe(&mut self) {
        let mut left = self.filters.clone();
        while !left.is_empty() {
            let count = if self.random.bool() { left.len() } else { 1 };
            let gone: Vec<&str> = left.drain(..count).collect();
            self.client.send(&client::unsubscribe(self.client.version, 2, &gone));
            self.client.answer(Kind::Unsuback);
        }
        let limit = self.next_numbers();
        self.client.send(&[0xC0, 0]);
        self.client.answer(Kind::Pingresp);
        while let Received::Frame(frame) = self.client.message(Duration::from_millis(2)) {
            let (source, number) = self.take(&frame);
            assert!(number < limit[source as usize], "{source}/{number} came after UNSUBACK");
        }
    }

    /// Ends the connection by `how`, and begins a new one with nothing left of the old.
    fn vanish<T>(&mut self, how: impl FnOnce(Client) -> T) -> T {
        let client = join(self.address, self.id);
        self.last.clear();
        self.filters.clear();
        how(std::mem::replace(&mut self.client, client))
    }

    fn next_numbers(&self) -> Vec<u64> {
        self.sent.iter().map(|sent| sent.load(Ordering::SeqCst)).collect()
    }

    fn take(&mut self, frame: &[u8]) -> (u64, u64) {
        let delivery = self.client.delivery(frame).unwrap();
        assert!(!delivery.retain && !delivery.dup, "{:?}", frame[0]);
        let (source, number) = self.ledger.check(&delivery, self.client.version);
        let filters = || self.filters.iter().chain(&self.former);
        assert!(filters().any(|filter| matches(filter, delivery.topic)), "{:?}", delivery.topic);
        let topics = 6;
        let place = self.last.entry((source, delivery.topic.to_vec()));
        let (last, may_jump) = place.or_insert((number.wrapping_sub(topics), true));
        let follows = number == last.wrapping_add(topics) || *may_jump && number > *last;
        assert!(follows, "source {source}: {number} came after {last}, {may_jump}");
        *may_jump &= number == last.wrapping_add(topics);
        *last = number;
        self.got_count += 1;
        (source, number)
    }
}

fn join(address: SocketAddr, id: u64) -> Client {
    let version = if id.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Client::join(address, version, &format!("changer-{id}"), &[])
}

/// Of the filters above alone.
fn matches(filter: &str, topic: &[u8]) -> bool {
    let topic = std::str::from_utf8(topic).unwrap();
    let mut levels = topic.split('/');
    filter
        .split('/')
        .all(|level| level == "#" || levels.next().is_some_and(|own| level == "+" || level == own))
}
