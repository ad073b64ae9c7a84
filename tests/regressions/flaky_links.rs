//! Floods at QoS 1 and 2 over links that are cut all the time, with clients that are away or deaf: nothing of QoS 2 is lost or
//! doubled, nothing of QoS 1 lost, and the broker's memory is bounded.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bystanders::Bystanders;
use crate::client::{self, Client, PATIENCE, Received, ack};
use crate::each_shard_count;
use crate::fields::Kind;
use crate::message::{Follow, Ledger, Source};
use crate::publisher::Publisher;
use crate::wire::{self, Version};

/// Messages of each source that go over two flaky links.
const MESSAGES: u64 = 2500;
/// How far a source may be ahead of the flaky reader: less than its session's queue takes.
const AHEAD_MAX: u64 = 150;
/// The publisher's own window.
const WINDOW: usize = 16;
/// What a session's queue takes, messages, and what a shard stores for all, MiB.
const QUEUE_MAX: u64 = 500;
const STORED_MAX_MIB: u64 = 8;
/// The flood for those who do not read: messages of 4 KiB and more.
const FLOOD: u64 = 25_000;
/// Its ids are behind those of the flaky sources.
const FLOOD_SOURCE: u64 = 2;

#[test]
fn floods_over_flaky_links_lose_nothing_and_fit_the_memory() {
    let limits = [
        "--queue-messages-max=500",
        "--queue-bytes-max=4MiB",
        "--group-bytes-max=4MiB",
        "--shard-stored-bytes-max=8MiB",
        "--shard-output-bytes-max=16MiB",
    ];
    each_shard_count(&limits, |world| {
        let shards = world.shards as u64;
        // Stored messages, arena and output of each shard, and as much again for what an allocator keeps.
        world.growth_max_mib = 2 * shards * (STORED_MAX_MIB + 8) + 16;
        let address = world.address();
        let sources: Vec<Source> = (0..3).map(source).collect();
        let bystanders = Bystanders::start(address);
        let deaf = sleeper(address, "deaf");
        drop(sleeper(address, "away"));
        let got: [AtomicU64; 2] = Default::default();
        let is_done = AtomicBool::new(false);
        drop(flaky_reader(address));
        thread::scope(|scope| {
            let (sources, got, is_done) = (&sources, &got, &is_done);
            let senders: Vec<_> = (0..2)
                .map(|id: usize| scope.spawn(move || send_all(address, &sources[id], &got[id])))
                .collect();
            let reader = scope.spawn(move || read_all(address, sources, got, is_done));
            flood(address, &sources[FLOOD_SOURCE as usize]);
            for sender in senders {
                let cuts = sender.join().expect("the sender was served");
                assert!(cuts > 30, "a link was cut {cuts} times only");
            }
            is_done.store(true, Ordering::SeqCst);
            let cuts = reader.join().expect("the reader got everything");
            assert!(cuts > 30, "the reader's link was cut {cuts} times only");
        });
        check_sleeper(deaf, &sources);
        check_sleeper(sleeper(address, "away"), &sources);
        for id in ["deaf", "away", "reader", "sender-0", "sender-1"] {
            Client::join(address, Version::V5, id, &[]).leave();
        }
        bystanders.finish();
    });
}

fn source(id: u64) -> Source {
    let size_max = if id == FLOOD_SOURCE { 8000 } else { 600 };
    let topics = (0..3).map(|n| format!("{}/{id}/{n}", if id == 2 { "flood" } else { "flaky" }));
    Source { id, version: Version::V5, topics: topics.collect(), size_max }
}

/// A lasting session with a subscription to the flood.
fn sleeper(address: SocketAddr, id: &str) -> Client {
    let mut client = Client::join(address, Version::V5, id, &[("keep", "1000")]);
    client.subscribe(&["flood/#@1"]);
    client
}

fn flaky_reader(address: SocketAddr) -> Client {
    let mut client = Client::join(address, Version::V5, "reader", &[("keep", "1000")]);
    client.subscribe(&["flaky/#@2"]);
    client
}

/// Far more than the broker may keep, at QoS 1, to clients that do not read.
fn flood(address: SocketAddr, source: &Source) {
    let client = Client::join(address, source.version, "flood", &[]);
    let mut publisher = Publisher::new(client);
    for number in 0..FLOOD {
        publisher.publish(&source.message(number), 1 + (number % 2) as u8, false);
        if number % 25 == 24 {
            publisher.settle();
        }
    }
    publisher.settle();
    publisher.leave();
}

/// Reads what a sleeper's session has kept: right and in order, and no more than what fits its queue, window and output.
fn check_sleeper(mut client: Client, sources: &[Source]) {
    let ledger = Ledger::new(sources);
    let mut last = None;
    let mut got = 0;
    loop {
        let patience = if got < QUEUE_MAX { PATIENCE } else { Duration::from_millis(500) };
        let Received::Frame(frame) = client.message(patience) else { break };
        let delivery = client.delivery(&frame).unwrap();
        let (id, number) = ledger.check(&delivery, client.version);
        assert_eq!(id, FLOOD_SOURCE);
        assert!(last.is_none_or(|last| number > last), "{number} came after {last:?}");
        last = Some(number);
        got += 1;
    }
    assert!((QUEUE_MAX..FLOOD / 4).contains(&got), "{got} messages were kept");
    client.leave();
}

/// One message of a sender that is not settled.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    number: u64,
    id: u16,
    is_received: bool,
}

/// Publishes all of a source over a link that is cut again and again, sends again what was not acknowledged; the cuts.
fn send_all(address: SocketAddr, source: &Source, got: &AtomicU64) -> u64 {
    let qos = 1 + source.id as u8;
    let mut random = fastrand::Rng::with_seed(source.id + 100);
    let mut window: VecDeque<Unsettled> = VecDeque::new();
    let mut next = 0;
    let mut cuts = 0;
    while next < MESSAGES || !window.is_empty() {
        let name = format!("sender-{}", source.id);
        let mut client =
            Client::join(address, source.version, &name, &[("keep", "1000"), ("clean", "0")]);
        for one in &window {
            if one.is_received {
                client.send(&ack(Kind::Pubrel, one.id));
            } else {
                let packet =
                    source.message(one.number).publish(source.version, 8 | qos << 1, one.id);
                client.send(&packet);
            }
        }
        let mut acks_left = random.u32(5..80);
        while acks_left > 0 && (next < MESSAGES || !window.is_empty()) {
            while window.len() < WINDOW
                && next < MESSAGES
                && next < got.load(Ordering::SeqCst) + AHEAD_MAX
            {
                let one =
                    Unsettled { number: next, id: 1 + (next % 60_000) as u16, is_received: false };
                client.send(&source.message(next).publish(source.version, qos << 1, one.id));
                window.push_back(one);
                next += 1;
            }
            if window.is_empty() {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            settle(&mut client, &mut window);
            acks_left -= 1;
        }
        cut(client, source, &mut random, next);
        cuts += 1;
    }
    cuts
}

/// Takes in one acknowledgement.
fn settle(client: &mut Client, window: &mut VecDeque<Unsettled>) {
    let frame = client.frame();
    let packet = wire::decode(&frame, client.version).unwrap();
    let reason = packet.number("reason").unwrap_or(0);
    // A PUBREL whose PUBCOMP was lost with the link finds nothing.
    assert!(reason < 0x80 || packet.kind == Kind::Pubcomp && reason == 0x92, "{packet}");
    let id = packet.number("id").unwrap_or_else(|| panic!("{packet}")) as u16;
    let place = window.iter().position(|one| one.id == id).unwrap_or_else(|| panic!("{packet}"));
    if packet.kind == Kind::Pubrec {
        window[place].is_received = true;
        client.send(&ack(Kind::Pubrel, id));
    } else {
        window.remove(place);
    }
}

/// The end of a link: in the middle of a packet, with acknowledgements unread, or both.
fn cut(mut client: Client, source: &Source, random: &mut fastrand::Rng, number: u64) {
    if random.bool() {
        let whole = source.message(number).publish(source.version, 0b010, 60_001);
        client.send(&whole[..random.usize(1..whole.len())]);
    }
    if random.bool() {
        client.reset();
    }
}

/// Reads both sources at QoS 2 over a link that is cut again and again; the cuts.
fn read_all(
    address: SocketAddr,
    sources: &[Source],
    got: &[AtomicU64; 2],
    is_done: &AtomicBool,
) -> u64 {
    let mut random = fastrand::Rng::with_seed(9);
    let mut ledger = Ledger::new(sources);
    // Packet ids that were received and not released: the session's memory on this side.
    let mut received: HashSet<u16> = HashSet::new();
    let mut cuts = 0;
    let mut last_at = Instant::now();
    while !is_done.load(Ordering::SeqCst)
        || got.iter().any(|got| got.load(Ordering::SeqCst) < MESSAGES)
    {
        let fields = [("keep", "1000"), ("clean", "0")];
        let mut client = Client::open(address, Version::V5);
        client.send(&client::connect(Version::V5, "reader", &fields));
        let connack = client.answer(Kind::Connack);
        assert_eq!(connack.number("session"), Some(1), "the session was lost: {connack}");
        for _ in 0..random.u32(20..300) {
            let patience = if is_done.load(Ordering::SeqCst) {
                PATIENCE.min(Duration::from_secs(1))
            } else {
                Duration::from_millis(50)
            };
            let Received::Frame(frame) = client.receive(patience) else { break };
            let Some(delivery) = client.delivery(&frame) else {
                let packet = wire::decode(&frame, Version::V5).unwrap();
                assert_eq!(packet.kind, Kind::Pubrel, "{packet}");
                let id = packet.number("id").unwrap() as u16;
                received.remove(&id);
                client.send(&ack(Kind::Pubcomp, id));
                continue;
            };
            assert_eq!(u64::from(delivery.qos), 1 + ledger.check(&delivery, Version::V5).0);
            let is_new = delivery.qos == 1 || received.insert(delivery.id);
            assert!(is_new || delivery.dup, "an id in use comes without DUP");
            if is_new {
                last_at = Instant::now();
                // What the sender had to send again at QoS 1, and what the broker had to, may come twice.
                let follow = if delivery.qos == 1 { Follow::Repeating } else { Follow::Gapless };
                let (id, number) = ledger.take(&delivery, Version::V5, follow);
                got[id as usize].fetch_max(number + 1, Ordering::SeqCst);
            }
            client.acknowledge(&delivery);
        }
        assert!(last_at.elapsed() < PATIENCE, "nothing new came after {got:?}");
        if random.bool() {
            client.reset();
        }
        cuts += 1;
    }
    cuts
}
