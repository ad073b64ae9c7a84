//! Clients that publish and are gone at once, while the broker is busy with others: what they sent is still delivered.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bystanders::Bystanders;
use crate::client::{self, Client, PATIENCE, Received};
use crate::each_shard_count;
use crate::message::{Follow, Ledger, Source};
use crate::wire::Version;

/// Clients that come and go in each run.
const CLIENTS: u64 = 1500;
const MESSAGES: u64 = 3;
/// What comes later than this after all that must come is not waited for.
const QUIET: Duration = Duration::from_millis(300);
/// The number of a client's will among its messages: all have one topic.
const WILL: u64 = MESSAGES;

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// DISCONNECT, then it waits for the broker to close.
    InOrder,
    /// DISCONNECT, and closed in the same moment: the broker's answers meet a reset.
    AtOnce,
    /// Closed without a word, which publishes the will.
    Silently,
    /// Half a packet is its last word; the will is published.
    Halfway,
    /// A message that has an allocation of its own in the broker, and gone.
    Large,
    /// A reset that may overtake what was sent: nothing need arrive, but what does is right.
    Reset,
}

const WAYS: [Way; 6] =
    [Way::InOrder, Way::AtOnce, Way::Silently, Way::Halfway, Way::Large, Way::Reset];

impl Way {
    fn of(client: u64) -> Way {
        WAYS[(client % WAYS.len() as u64) as usize]
    }

    /// Messages that must arrive, the will included.
    fn arriving(self) -> u64 {
        match self {
            Way::InOrder | Way::AtOnce | Way::Large => MESSAGES,
            Way::Silently | Way::Halfway => MESSAGES + 1,
            Way::Reset => 0,
        }
    }
}

#[test]
fn what_a_client_publishes_before_it_leaves_is_delivered() {
    each_shard_count(&[], |world| {
        let address = world.address();
        let sources: Vec<Source> = (0..CLIENTS).map(source).collect();
        let bystanders = Bystanders::start(address);
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let subscribers =
                [(Version::V5, "leave/#@2"), (Version::V311, "leave/+@1"), (Version::V5, "#@0")];
            for (place, (version, filter)) in subscribers.into_iter().enumerate() {
                let mut client = Client::join(address, version, &format!("reader-{place}"), &[]);
                client.subscribe(&[filter]);
                let sources = &sources;
                scope.spawn(move || read_all(client, sources));
            }
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let client = next.fetch_add(1, Ordering::SeqCst);
                        let Some(source) = sources.get(client as usize) else { return };
                        come_and_go(address, source, Way::of(client));
                    }
                });
            }
        });
        bystanders.finish();
    });
}

fn source(client: u64) -> Source {
    let is_large = Way::of(client) == Way::Large;
    let version = if client % 5 < 3 { Version::V5 } else { Version::V311 };
    // Three of these, and the packets around them, fit the window of a fresh connection.
    let size_max = if is_large { 18_000 } else { 900 };
    Source { id: client, version, topics: vec![format!("leave/{}", client % 16)], size_max }
}

/// One client's life, in as few writes as it takes.
fn come_and_go(address: SocketAddr, source: &Source, way: Way) {
    let version = source.version;
    let mut client = Client::open(address, version);
    let id = format!("leaver-{}", source.id);
    let mut bytes = client::connect_with_will(version, &id, &source.message(WILL));
    for number in 0..MESSAGES {
        let qos = ((source.id + number) % 3) as u8;
        let packet = source.message(number).publish(version, qos << 1, 1 + number as u16);
        bytes.extend(packet);
    }
    match way {
        Way::InOrder | Way::AtOnce | Way::Large => bytes.extend([0xE0, 0]),
        Way::Halfway => {
            let whole = source.message(WILL + 1).publish(version, 0b010, 9);
            bytes.extend(&whole[..whole.len() / 2]);
        }
        Way::Silently | Way::Reset => {}
    }
    client.send(&bytes);
    match way {
        Way::InOrder => client.drain(),
        Way::Silently => client.socket.shutdown(Shutdown::Write).unwrap(),
        Way::Reset => client.reset(),
        Way::AtOnce | Way::Halfway | Way::Large => {}
    }
}

/// Reads until all that must arrive has, and then until it is quiet.
fn read_all(mut client: Client, sources: &[Source]) {
    let wanted: u64 = (0..CLIENTS).map(|client| Way::of(client).arriving()).sum();
    let mut ledger = Ledger::new(sources);
    let mut counts = vec![0; sources.len()];
    let mut got = 0;
    let mut last_at = Instant::now();
    while got < wanted || last_at.elapsed() < QUIET {
        assert!(last_at.elapsed() < PATIENCE, "{got} of {wanted} arrived: {}", missing(&counts));
        let Received::Frame(frame) = client.message(QUIET) else { continue };
        let delivery = client.delivery(&frame).unwrap();
        if !delivery.topic.starts_with(b"leave/") {
            continue;
        }
        last_at = Instant::now();
        let (id, number) = ledger.take(&delivery, client.version, Follow::Gapless);
        let way = Way::of(id);
        assert!(number < MESSAGES || way.arriving() != MESSAGES, "{way:?} has no will");
        assert_eq!(number, counts[id as usize], "{way:?}: {id}");
        counts[id as usize] += 1;
        got += u64::from(way != Way::Reset);
    }
    client.leave();
}

fn missing(counts: &[u64]) -> String {
    let short = (0..).zip(counts).filter(|&(id, &count)| count < Way::of(id).arriving());
    short.take(10).map(|(id, count)| format!("{:?} {id}: {count}; ", Way::of(id))).collect()
}
