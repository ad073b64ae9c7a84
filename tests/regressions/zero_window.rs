//! A client that reads nothing, so that its window is closed, and is out of reach for a while: it gets everything once it is
//! back, though probes of its window had no answer for longer than the kernel's bound on retransmissions allows.

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::{Client, PATIENCE, Received};
use crate::fields::Kind;
use crate::message::{Message, Source};
use crate::namespaces::Namespace;
use crate::wire::Version;

const MESSAGES: u64 = 3_000;
/// The kernel gives up after so many probes: with a second between them, after some 10 s.
const PROBES_MAX: &str = "12";
const OUTAGE: Duration = Duration::from_secs(15);
/// The timer of /proc/net/tcp that probes a closed window.
const PROBING: &str = "04";

#[test]
fn a_client_with_a_closed_window_outlives_an_outage() {
    let (here, there) = match network() {
        Ok(network) => network,
        Err(why) => {
            println!("SKIPPED a closed window and an outage: {why}");
            return;
        }
    };
    let mut all: Vec<_> = [("uring", 1883), ("epoll", 1884)]
        .into_iter()
        .filter_map(|(io, port)| Reader::start(&here, &there, io, port))
        .collect();
    let lost: Vec<_> = [("uring", 1885), ("epoll", 1886)]
        .into_iter()
        .filter_map(|(io, port)| {
            Outside::start(&here, &there, io, port, "tcp-user-timeout-ms=10000")
        })
        .collect();
    for reader in &all {
        await_probing(&here, reader.outside.port);
    }
    there.ip("address del 10.77.0.2/24 dev there").unwrap();
    for lost in &lost {
        let inside = lost.broker.address;
        here.run(move || {
            let mut publisher = Client::join(inside, Version::V311, "publisher", &[]);
            publisher.send(&text("said").publish(Version::V311, 0, 0));
            publisher.leave();
        });
    }
    sleep(OUTAGE);
    for lost in &lost {
        await_log(&lost.broker, "(ETIMEDOUT)");
    }
    there.ip("address add 10.77.0.2/24 dev there").unwrap();
    for reader in &mut all {
        reader.read_all();
    }
}

/// Where the broker is, and where its client is.
fn network() -> Result<(Namespace, Namespace), String> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    here.ip("link set lo up")?;
    here.ip(&format!(
        "link add here address 02:00:00:00:00:01 type veth \
         peer name there address 02:00:00:00:00:02 netns {}",
        there.id
    ))?;
    for (namespace, own, address, other, mac) in
        [(&here, "here", "1", "2", "02"), (&there, "there", "2", "1", "01")]
    {
        namespace.ip(&format!("address add 10.77.0.{address}/24 dev {own}"))?;
        namespace.ip(&format!("link set {own} up"))?;
        // Nobody has to be asked for it, who would not answer.
        let neighbour = format!("10.77.0.{other} lladdr 02:00:00:00:00:{mac} dev {own}");
        namespace.ip(&format!("neighbour replace {neighbour} nud permanent"))?;
    }
    here.run(|| fs::write("/proc/sys/net/ipv4/tcp_retries2", PROBES_MAX))
        .map_err(|error| format!("tcp_retries2: {error}"))?;
    Ok((here, there))
}

/// A broker, and a client of it from outside.
struct Outside {
    port: u16,
    broker: Broker,
    client: Client,
}

impl Outside {
    fn start(
        here: &Namespace,
        there: &Namespace,
        io: &'static str,
        port: u16,
        tcp: &'static str,
    ) -> Option<Outside> {
        let broker = here.run(move || {
            let outside = format!("10.77.0.1:{port}");
            let own = ["--io", io, "--shards", "1", "--listen", &outside, "--log-level", "debug"];
            Broker::start(&[&own[..], &[&format!("--{tcp}")]].concat())
        });
        let broker = match broker {
            Ok(broker) => broker,
            Err(why) if io == "uring" && why.contains("no io_uring") => {
                println!("SKIPPED a closed window and an outage with io_uring: it is refused");
                return None;
            }
            Err(why) => panic!("{why}"),
        };
        let address = SocketAddr::from(([10, 77, 0, 1], port));
        let client = there.run(move || {
            let mut client = Client::join(address, Version::V311, "reader", &[]);
            client.subscribe(&["said@1"]);
            client
        });
        Some(Outside { port, broker, client })
    }
}

struct Reader {
    outside: Outside,
    source: Source,
}

impl Reader {
    /// A client for which more waits than its window takes.
    fn start(here: &Namespace, there: &Namespace, io: &'static str, port: u16) -> Option<Reader> {
        let outside = Outside::start(here, there, io, port, "tcp-rto-max-ms=1000")?;
        let topics = vec!["said".to_owned()];
        let source = Source { id: 3, version: Version::V311, topics, size_max: 4_000 };
        let inside = outside.broker.address;
        let mut publisher = here.run(move || Client::join(inside, Version::V311, "publisher", &[]));
        for number in 0..MESSAGES {
            let id = (number + 1) as u16;
            publisher.send(&source.message(number).publish(Version::V311, 2, id));
            publisher.answer(Kind::Puback);
        }
        Some(Reader { outside, source })
    }

    fn read_all(&mut self) {
        for number in 0..MESSAGES {
            let Outside { client, broker, .. } = &mut self.outside;
            let Received::Frame(frame) = client.message(PATIENCE) else {
                panic!("{number} of {MESSAGES} came; the broker says:\n{}", broker.log());
            };
            let delivery = client.delivery(&frame).unwrap();
            assert_eq!(delivery.payload, self.source.message(number).payload, "{number}");
        }
        // The bound on retransmissions holds again.
        await_log(&self.outside.broker, "a peer answers again");
    }
}

fn text(topic: &str) -> Message {
    Message { topic: topic.to_owned(), properties: Vec::new(), payload: b"text".to_vec() }
}

fn await_log(broker: &Broker, words: &str) {
    let began = Instant::now();
    while !broker.log().contains(words) {
        assert!(began.elapsed() < PATIENCE, "no {words} in:\n{}", broker.log());
        sleep(Duration::from_millis(100));
    }
}

/// Until the broker's kernel probes the window of the connection to its `port`.
fn await_probing(here: &Namespace, port: u16) {
    let began = Instant::now();
    let local = format!("01004D0A:{port:04X}");
    loop {
        let table = here.run(|| fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_probing = |line: &[&str]| {
            line.get(1) == Some(&local.as_str()) && line[5].split(':').next() == Some(PROBING)
        };
        if lines.any(|line| is_probing(&line)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is probed:\n{table}");
        sleep(Duration::from_millis(50));
    }
}
