//! What hostile clients do, each until a given time. A flood tells what it got done; that it is refused or closed is well.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::{ack, connect, connect_with_will, subscribe, unsubscribe};
use crate::fields::Kind;
use crate::message::Message;
use crate::wire::Version::{self, V5, V311};

/// The rounds that it had the time for.
type Flood = fn(SocketAddr, Instant) -> Rounds;

pub(crate) const FLOODS: &[(&str, Flood)] = &[
    ("half a CONNECT", half_a_connect),
    ("half a packet", half_a_packet),
    ("no CONNECT at all", garbage),
    ("filters", filters),
    ("topic aliases", aliases),
    ("QoS 2 never released", never_released),
    ("sessions left behind", left_behind),
    ("never reads", never_reads),
    ("shared subscriptions", shared),
    ("matching filters", matching),
    ("identifiers", identifiers),
    ("take-over war", takeover_war),
    ("wills", wills),
    ("retained messages", retained),
];

pub(crate) struct Rounds(usize);

impl std::fmt::Display for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{} x", self.0))
    }
}

/// Runs `round` with its number until it is time.
fn rounds(until: Instant, mut round: impl FnMut(usize)) -> Rounds {
    let mut count = 0;
    while Instant::now() < until {
        round(count);
        count += 1;
    }
    Rounds(count)
}

/// A socket that sends what the broker takes, and does not mind being closed.
struct Hostile {
    socket: Option<TcpStream>,
    /// Something could not be sent.
    is_stopped: bool,
}

impl Hostile {
    fn open(address: SocketAddr) -> Hostile {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok();
        if let Some(socket) = &socket {
            let patience = Some(Duration::from_millis(200));
            socket.set_write_timeout(patience).unwrap();
            socket.set_read_timeout(patience).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        Hostile { socket, is_stopped: false }
    }

    fn connect(
        address: SocketAddr,
        version: Version,
        id: &str,
        fields: &[(&str, &str)],
    ) -> Hostile {
        let mut client = Hostile::open(address);
        client.send(&connect(version, id, fields));
        client.read_some();
        client
    }

    fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(socket) = &mut self.socket else { return };
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_stopped {
            match socket.write(rest) {
                Ok(0) => break,
                Ok(size) => rest = &rest[size..],
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => self.is_stopped = true,
                    _ => {
                        self.socket = None;
                        return;
                    }
                },
            }
        }
    }

    /// What is there, or comes soon.
    fn read_some(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        match socket.read(&mut [0; 16 << 10]) {
            Ok(0) => self.socket = None,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => self.socket = None,
            },
        }
    }
}

/// Refills `crowd` to `count` clients.
fn crowd(crowd: &mut Vec<Hostile>, count: usize, make: impl Fn(usize) -> Hostile) {
    crowd.retain(Hostile::is_open);
    while crowd.len() < count {
        let client = make(crowd.len());
        if !client.is_open() {
            return;
        }
        crowd.push(client);
    }
}

fn publish(topic: &str, payload: Vec<u8>, qos: u8, id: u16, version: Version) -> Vec<u8> {
    let message = Message { topic: topic.to_owned(), properties: Vec::new(), payload };
    message.publish(version, qos << 1, id)
}

/// Hundreds that have begun a CONNECT of 500 kB and send it slowly.
fn half_a_connect(address: SocketAddr, until: Instant) -> Rounds {
    let mut all = Vec::new();
    rounds(until, |_| {
        crowd(&mut all, 150, |_| {
            let mut client = Hostile::open(address);
            client.send(&[0x10, 0xA0, 0xC2, 0x1E]);
            client.send(b"\x00\x04MQTT\x05\x02\x00\x00\x00");
            client
        });
        for client in &mut all {
            client.send(&[0; 16 << 10]);
        }
    })
}

/// Hundreds that publish 100 kB and a byte of the next packet, and then wait.
fn half_a_packet(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    let mut large = publish("nobody", vec![7; 100_000], 0, 0, V311);
    large.push(0x30);
    rounds(until, |_| {
        crowd(&mut all, 300, |number| {
            let mut client = Hostile::connect(address, V311, &format!("half-{number}"), &[]);
            client.send(&large);
            client
        });
        for client in &mut all {
            client.send(&[0x80]);
        }
    })
}

/// What is not MQTT: TLS, HTTP, noise.
fn garbage(address: SocketAddr, until: Instant) -> Rounds {
    let mut noise = fastrand::Rng::with_seed(5);
    rounds(until, |round| {
        let mut client = Hostile::open(address);
        let mut bytes = vec![0; 2_000];
        noise.fill(&mut bytes);
        match round % 3 {
            0 => client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => client.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]),
            _ => client.send(&bytes),
        }
        drop(client);
    })
}

/// As many and as long filters as are allowed, on many clients.
fn filters(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    rounds(until, |round| {
        crowd(&mut all, 24, |number| {
            Hostile::connect(address, V5, &format!("filters-{number}"), &[])
        });
        for (number, client) in all.iter_mut().enumerate() {
            let long = "x".repeat(900);
            let filters: Vec<String> =
                (0..50).map(|filter| format!("f/{number}/{round}/{filter}/+/{long}@1")).collect();
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            client.send(&subscribe(V5, 1 + round as u16, &filters));
            client.read_some();
        }
    })
}

/// All aliases that are offered, with long topics.
fn aliases(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    rounds(until, |round| {
        crowd(&mut all, 300, |number| {
            Hostile::connect(address, V5, &format!("aliases-{number}"), &[])
        });
        for (number, client) in all.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            for alias in 1..=16_u8 {
                let topic = format!("{number}/{alias}/{round}/{}", "y".repeat(900));
                let mut body = (topic.len() as u16).to_be_bytes().to_vec();
                body.extend(topic.as_bytes());
                body.extend([3, 0x23, 0, alias]);
                bytes.push(0x30);
                crate::wire::var_int(body.len(), &mut bytes);
                bytes.extend(body);
            }
            client.send(&bytes);
        }
    })
}

/// All packet identifiers that there are.
fn never_released(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    rounds(until, |round| {
        crowd(&mut all, 40, |number| {
            Hostile::connect(address, V311, &format!("open-{number}"), &[])
        });
        for client in &mut all {
            let first = round * 500 % 65_000;
            let bytes: Vec<u8> = (first..first + 500)
                .flat_map(|id| publish("nobody", vec![1], 2, id as u16 + 1, V311))
                .collect();
            client.send(&bytes);
            client.read_some();
        }
    })
}

/// Sessions that last, each with a queue of large messages, whose clients never come back.
fn left_behind(address: SocketAddr, until: Instant) -> Rounds {
    let mut publisher = Hostile::connect(address, V311, "to-the-absent", &[]);
    let lasting = [("clean", "0")];
    rounds(until, |round| {
        let mut absent = Hostile::connect(address, V311, &format!("absent-{round}"), &lasting);
        absent.send(&subscribe(V311, 1, &[&format!("absent/{}@1", round % 8)]));
        absent.read_some();
        drop(absent);
        if !publisher.is_open() {
            publisher = Hostile::connect(address, V311, "to-the-absent", &[]);
        }
        for part in 0..4 {
            let topic = format!("absent/{}", round % 8);
            publisher.send(&publish(&topic, vec![3; 30_000], 1, part + 1, V311));
        }
        publisher.read_some();
    })
}

/// Subscribers that read nothing of what they are sent.
fn never_reads(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    let mut publisher = Hostile::connect(address, V311, "to-the-deaf", &[]);
    rounds(until, |_| {
        crowd(&mut all, 60, |number| {
            let mut client = Hostile::connect(address, V311, &format!("deaf-{number}"), &[]);
            client.send(&subscribe(V311, 1, &["deaf@1"]));
            client
        });
        if !publisher.is_open() || publisher.is_stopped {
            publisher = Hostile::connect(address, V311, "to-the-deaf", &[]);
        }
        for part in 0..8 {
            publisher.send(&publish("deaf", vec![4; 20_000], 1, part + 1, V311));
        }
        publisher.read_some();
    })
}

/// Groups by the hundred, with messages waiting in them, and a member that leaves them all at once.
fn shared(address: SocketAddr, until: Instant) -> Rounds {
    let filters: Vec<String> =
        (0..500).map(|group| format!("$share/g{group}/shared/#@1")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let names: Vec<&str> = filters.iter().map(|filter| filter.trim_end_matches("@1")).collect();
    rounds(until, |round| {
        let mut member = Hostile::connect(address, V311, "member", &[]);
        member.send(&subscribe(V311, 1, &filters));
        member.read_some();
        let mut publisher = Hostile::connect(address, V311, "to-the-groups", &[]);
        for number in 0..20 {
            publisher.send(&publish("shared/a", vec![5; 200], 1, number + 1, V311));
        }
        publisher.read_some();
        if round % 2 == 0 {
            member.send(&unsubscribe(V311, 2, &names));
            member.read_some();
        }
    })
}

/// Clients with hundreds of filters that all match, and publishes in bulk.
fn matching(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    let filters: Vec<String> = (0..512)
        .map(|bits| {
            let levels = (0..9).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "m" });
            format!("{}/+@0", levels.collect::<Vec<_>>().join("/"))
        })
        .collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    // Each topic's receivers have to be found anew.
    let bulk: Vec<u8> = (0..2_000)
        .flat_map(|number| publish(&format!("m/m/m/m/m/m/m/m/m/{number}"), vec![6], 0, 0, V311))
        .collect();
    let mut publisher = Hostile::connect(address, V311, "to-the-matching", &[]);
    rounds(until, |_| {
        crowd(&mut all, 20, |number| {
            let mut client = Hostile::connect(address, V311, &format!("matching-{number}"), &[]);
            client.send(&subscribe(V311, 1, &filters));
            client.read_some();
            client
        });
        if !publisher.is_open() || publisher.is_stopped {
            publisher = Hostile::connect(address, V311, "to-the-matching", &[]);
        }
        publisher.send(&bulk);
        all.iter_mut().for_each(Hostile::read_some);
    })
}

/// Overlapping filters, each with an identifier, so that a small message becomes a large one.
fn identifiers(address: SocketAddr, until: Instant) -> Rounds {
    let mut publisher = Hostile::connect(address, V5, "to-the-marked", &[]);
    let mut client = Hostile::connect(address, V5, "marked", &[]);
    rounds(until, |round| {
        if !client.is_open() {
            client = Hostile::connect(address, V5, "marked", &[]);
        }
        if !publisher.is_open() {
            publisher = Hostile::connect(address, V5, "to-the-marked", &[]);
        }
        for step in 0..16 {
            let bits = (round * 16 + step) % 512;
            let levels = (0..9).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "i" });
            let filter = levels.collect::<Vec<_>>().join("/");
            let mut body = vec![0, 1, 3, 0x0B, 0x80 | (bits & 0x7F) as u8, 1 + (bits >> 7) as u8];
            body.extend((filter.len() as u16).to_be_bytes());
            body.extend(filter.as_bytes());
            body.push(0);
            let mut bytes = vec![0x82];
            crate::wire::var_int(body.len(), &mut bytes);
            bytes.extend(body);
            client.send(&bytes);
        }
        for _ in 0..50 {
            publisher.send(&publish("i/i/i/i/i/i/i/i/i", vec![6], 0, 0, V5));
        }
        client.read_some();
    })
}

/// Two that are called the same.
fn takeover_war(address: SocketAddr, until: Instant) -> Rounds {
    rounds(until, |_| {
        let mut one = Hostile::open(address);
        one.send(&connect(V5, "the-one", &[]));
        let mut other = Hostile::open(address);
        other.send(&connect(V5, "the-one", &[]));
    })
}

/// Many wills of 60 kB.
fn wills(address: SocketAddr, until: Instant) -> Rounds {
    let mut all: Vec<Hostile> = Vec::new();
    rounds(until, |round| {
        crowd(&mut all, 400, |number| {
            let mut client = Hostile::open(address);
            let will =
                Message { topic: "will".to_owned(), properties: vec![], payload: vec![8; 60_000] };
            client.send(&connect_with_will(V311, &format!("mortal-{number}"), &will));
            client
        });
        all.truncate(400 - 40 * (round % 3));
    })
}

/// Retained messages of 8 kB on topics of their own.
fn retained(address: SocketAddr, until: Instant) -> Rounds {
    let mut client = Hostile::connect(address, V5, "setter", &[]);
    rounds(until, |round| {
        if !client.is_open() || client.is_stopped {
            client = Hostile::connect(address, V5, "setter", &[]);
        }
        for part in 0..20_u16 {
            let topic = format!("kept/{round}/{part}/{}", "z".repeat(500));
            let mut bytes = publish(&topic, vec![9; 8_000], 1, part + 1, V5);
            bytes[0] |= 1;
            client.send(&bytes);
        }
        client.read_some();
        client.send(&ack(Kind::Pubrec, 1));
    })
}
