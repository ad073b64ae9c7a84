//! Limits of the whole process and of its sockets, and packets that take their time: by the program, on io_uring and on epoll.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(20);
const WORLDS: [&str; 2] = ["auto", "epoll"];

/// A connection that says nothing yet.
fn dial(broker: &Broker) -> TcpStream {
    let socket = TcpStream::connect(broker.address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A client of 3.1.1 that has its CONNACK.
fn join(broker: &Broker, client_id: &[u8; 1], keep_alive_s: u8) -> TcpStream {
    let mut socket = dial(broker);
    let connect =
        [b"\x10\x0d\x00\x04MQTT\x04\x02\x00", &[keep_alive_s][..], b"\x00\x01", client_id];
    socket.write_all(&connect.concat()).unwrap();
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket
}

/// The broker closes it.
fn is_closed(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0; 64]) {
        Ok(size) => size == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// A QoS 1 publish to `t` with so many bytes behind its fixed header, at most 2 MiB.
fn publish(size: usize) -> Vec<u8> {
    let mut bytes = vec![0x32, size as u8 | 0x80, (size >> 7) as u8 | 0x80, (size >> 14) as u8];
    bytes.extend(b"\x00\x01t\x00\x05");
    bytes.resize(4 + size, b'x');
    bytes
}

/// Waits until the log has a line with all of these.
fn until_told(broker: &Broker, parts: &[&str]) {
    let began = Instant::now();
    loop {
        let log = broker.log();
        if log.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{parts:?} in\n{log}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until `$SYS` says that this counter is at least 1.
fn until_counted(client: &mut TcpStream, counter: &str) {
    let topic = format!("$SYS/broker/shards/0/{counter}");
    let size = topic.len() as u8;
    let subscribe = [&[0x82, size + 5, 0, 1, 0, size][..], topic.as_bytes(), &[0]].concat();
    client.write_all(&subscribe).unwrap();
    let (began, mut read) = (Instant::now(), Vec::new());
    // What is retained first, and then what changes.
    while !read.windows(size.into()).enumerate().any(|(at, window)| {
        let value = read.get(at + topic.len());
        window == topic.as_bytes() && value.is_some_and(|value| (b'1'..=b'9').contains(value))
    }) {
        assert!(began.elapsed() < PATIENCE, "{topic}: {read:?}");
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn a_connection_that_is_one_too_many_is_counted_and_told_with_its_address() {
    for io in WORLDS {
        for (key, value, counter) in [
            ("connections_max", "2", "refused/accepts"),
            ("connections_per_address_max", "2", "refused/addresses"),
            ("connect_rate_per_address_max", "2", "refused/connect_rates"),
        ] {
            let option = format!("--{}", key.replace('_', "-"));
            let own = ["--shards", "1", "--sys-interval-ms", "100", "--io", io];
            let broker = Broker::start(&[&own[..], &[option.as_str(), value]].concat()).unwrap();
            let mut first = join(&broker, b"a", 0);
            // Who has not said CONNECT would give its place to the next one.
            let _second = (key == "connections_max").then(|| join(&broker, b"b", 0));
            let began = Instant::now();
            // A rate gives a place back with time, so that on a slow machine more than the third are let in.
            let (refused, _others) = {
                let mut others = Vec::new();
                loop {
                    let mut socket = dial(&broker);
                    let own = socket.local_addr().unwrap().to_string();
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    if is_closed(&mut socket) {
                        break (own, others);
                    }
                    others.push(socket);
                    assert!(began.elapsed() < PATIENCE, "{io}: {key} refuses nobody");
                }
            };
            until_told(
                &broker,
                &["INFO refused a connection from", &refused, &format!("; see {key}")],
            );
            until_told(&broker, &["WARN", "refused", key]);
            until_counted(&mut first, counter);
        }
    }
}

#[test]
fn what_was_counted_since_the_last_report_is_told_in_the_end() {
    for io in WORLDS {
        let options = ["--shards", "2", "--packet-size-max", "1000", "--io", io];
        let mut broker = Broker::start(&options).unwrap();
        let mut client = join(&broker, b"a", 0);
        let mut refuse = |count: usize| {
            client.write_all(&publish(20_000).repeat(count)).unwrap();
            let mut acks = vec![0; 4 * count];
            client.read_exact(&mut acks).unwrap();
            assert_eq!(acks, [0x40, 2, 0, 5].repeat(count));
        };
        refuse(1);
        until_told(&broker, &["INFO refused a message of client 'a'", "; see packet_size_max"]);
        until_told(&broker, &["1 packet refused: larger than packet_size_max"]);
        // The limit was told a moment ago, so the next line of it would be due in ten seconds.
        refuse(3);
        broker.signal("TERM");
        assert!(broker.wait().unwrap().success());
        until_told(&broker, &["3 packets refused: larger than packet_size_max"]);
        until_told(&broker, &["stopped; "]);
    }
}

#[test]
fn a_packet_that_keeps_its_rate_arrives_and_a_trickle_does_not() {
    let tries = WORLDS.map(|io| {
        thread::spawn(move || {
            let broker = Broker::start(&["--shards", "1", "--io", io]).unwrap();
            let mut slow = join(&broker, b"a", 1);
            let mut trickle = join(&broker, b"b", 1);
            let bytes = publish(600_000);
            // 130 kB in a second.
            for (number, piece) in bytes.chunks(6_500).enumerate() {
                slow.write_all(piece).unwrap();
                if number % 20 == 0 {
                    // It ends while this goes on.
                    let _ = trickle.write_all(&bytes[number / 20..=number / 20]);
                }
                thread::sleep(Duration::from_millis(50));
            }
            let mut ack = [0; 4];
            slow.read_exact(&mut ack).unwrap();
            assert_eq!(ack, [0x40, 2, 0, 5], "{io}");
            assert!(is_closed(&mut trickle), "{io}");
        })
    });
    tries.into_iter().for_each(|one| one.join().unwrap());
}
