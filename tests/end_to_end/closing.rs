//! How the broker closes connections with an error: clients that still write learn why, within bounds.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(10);

/// A SUBSCRIBE without the flags that it must have: malformed.
const MALFORMED: &[u8] = b"\x80\x07\x00\x01\x00\x00\x01w\x00";
/// PUBLISH of `w: x`.
const PUBLISH: &[u8] = b"\x30\x05\x00\x01w\x00x";

/// A connected 5.0 client.
fn client(broker: &Broker, id: u8) -> TcpStream {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let connect = [b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01", &[id][..]].concat();
    socket.write_all(&connect).unwrap();
    assert_eq!(packet(&mut socket).expect("no CONNACK")[0], 0x20);
    socket
}

/// The next packet, of at most 127 bytes; `None` when the connection was closed.
fn packet(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).ok()?;
    let mut packet = vec![0; 2 + usize::from(head[1])];
    packet[..2].copy_from_slice(&head);
    socket.read_exact(&mut packet[2..]).ok()?;
    Some(packet)
}

/// Whether the broker has closed the socket for good: what is sent to it is answered by a reset.
fn is_reset(socket: &mut TcpStream) -> bool {
    socket.write_all(&[0]).is_err()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_still_writes_reads_why_and_nothing_that_came_later_is_worked_on() {
    for io in ["uring", "epoll"] {
        let Ok(broker) = Broker::start(&["--shards", "2", "--io", io, "--linger-ms", "20s"]) else {
            println!("SKIPPED: no {io}");
            continue;
        };
        let mut watcher = client(&broker, b'w');
        watcher.write_all(b"\x82\x07\x00\x01\x00\x00\x01w\x00").unwrap();
        assert_eq!(packet(&mut watcher).unwrap()[0], 0x90);
        for id in b'a'..b'e' {
            let mut writing = client(&broker, id);
            writing.write_all(&[MALFORMED, PUBLISH].concat()).unwrap();
            // Its kernel has confirmed the reason long since.
            for _ in 0..40 {
                writing.write_all(&PUBLISH.repeat(100)).expect("the connection broke");
                thread::sleep(Duration::from_millis(2));
            }
            let reason = packet(&mut writing).expect("no DISCONNECT");
            assert_eq!((reason[0], reason[2]), (0xe0, 0x81), "{reason:?}");
            assert_eq!(packet(&mut writing), None);
        }
        watcher.write_all(b"\x30\x07\x00\x01w\x00end").unwrap();
        assert_eq!(packet(&mut watcher).unwrap(), b"\x30\x07\x00\x01w\x00end");
    }
}

#[test]
fn who_does_not_close_is_read_for_a_time_and_a_size_that_are_bounded() {
    for io in ["auto", "epoll"] {
        let broker = Broker::start(&["--shards", "1", "--io", io, "--linger-ms", "400"]).unwrap();
        let mut idle = client(&broker, b'i');
        idle.write_all(MALFORMED).unwrap();
        let began = Instant::now();
        assert_eq!(packet(&mut idle).unwrap()[0], 0xe0);
        until("closed", || is_reset(&mut idle));
        assert!(began.elapsed() >= Duration::from_millis(300), "after {:?}", began.elapsed());

        let broker = Broker::start(&["--shards", "1", "--io", io, "--linger-ms", "60s"]).unwrap();
        let mut flood = client(&broker, b'f');
        flood.set_write_timeout(Some(PATIENCE)).unwrap();
        flood.write_all(MALFORMED).unwrap();
        let mut written = 0;
        let error = loop {
            match flood.write(&[0; 4096]) {
                Ok(size) => written += size,
                Err(error) => break error,
            }
            assert!(written < 64 << 20, "it reads without end");
        };
        assert!(written >= 1 << 20, "only {written} bytes were read");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    }
}

#[test]
fn few_closed_connections_linger_and_each_is_a_connection() {
    for io in ["auto", "epoll"] {
        let options = ["--linger-ms", "60s", "--connections-max", "4", "--lingering-max", "2"];
        let broker = Broker::start(&[&["--shards", "1", "--io", io], &options[..]].concat());
        let broker = broker.unwrap();
        let mut closed: Vec<TcpStream> = (b'0'..b'5')
            .map(|id| {
                let mut socket = client(&broker, id);
                socket.write_all(MALFORMED).unwrap();
                assert_eq!(packet(&mut socket).unwrap()[0], 0xe0);
                socket
            })
            .collect();
        // The newest two are read on.
        until("three are closed", || closed[..3].iter_mut().all(is_reset));
        assert!(!closed[3..].iter_mut().any(is_reset));
        let _inside = [client(&broker, b'a'), client(&broker, b'b')];
        let mut refused = TcpStream::connect(broker.address).unwrap();
        refused.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(!matches!(refused.read(&mut [0]), Ok(1..)), "it is let in");
        // Who closes makes room at once.
        closed.pop();
        let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
        until("the next is let in", || {
            let mut next = TcpStream::connect(broker.address).unwrap();
            next.set_read_timeout(Some(PATIENCE)).unwrap();
            next.write_all(connect).is_ok() && packet(&mut next).is_some_and(|it| it[0] == 0x20)
        });
        until("it is told", || broker.log().contains("raise lingering_max"));
    }
}
