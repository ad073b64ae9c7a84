//! How the program ends: SIGTERM and SIGINT in order, a second signal at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(10);

/// CONNECT with clean start, of client `id`; with the will `w: gone` when `has_will`.
fn connect(level: u8, id: &str, has_will: bool) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let mut body =
        [b"\x00\x04MQTT", &[level, if has_will { 0x06 } else { 0x02 }, 0, 60][..], properties]
            .concat();
    body.extend((id.len() as u16).to_be_bytes());
    body.extend(id.as_bytes());
    if has_will {
        body.extend([properties, b"\x00\x01w\x00\x04gone"].concat());
    }
    [&[0x10, body.len() as u8], &body[..]].concat()
}

fn client(broker: &Broker, level: u8, id: &str, has_will: bool) -> TcpStream {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&connect(level, id, has_will)).unwrap();
    let connack = packet(&mut socket).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
    socket
}

/// The next packet, of at most 127 bytes; `None` when the connection was closed.
fn packet(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2];
    if socket.read_exact(&mut bytes).is_err() {
        return None;
    }
    assert!(bytes[1] < 128);
    let size = usize::from(bytes[1]);
    bytes.resize(2 + size, 0);
    socket.read_exact(&mut bytes[2..]).unwrap();
    Some(bytes)
}

#[test]
fn a_hang_up_is_logged_and_changes_nothing() {
    let mut broker = Broker::start(&["--shards", "1"]).unwrap();
    let mut client = client(&broker, 5, "client", false);
    for count in 1..=2 {
        broker.signal("HUP");
        let began = Instant::now();
        while broker.log().matches("SIGHUP: the broker goes on").count() < count {
            assert!(!broker.has_ended() && began.elapsed() < PATIENCE, "{}", broker.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
    client.write_all(b"\xc0\x00").unwrap();
    assert_eq!(packet(&mut client).unwrap(), [0xd0, 0]);
    assert!(broker.log().contains("INFO 1 shard on cores"), "{}", broker.log());
    broker.signal("TERM");
    assert_eq!(broker.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_ends_the_broker_in_order() {
    for (shards, signal) in [("1", "TERM"), ("2", "TERM"), ("2", "INT")] {
        let mut broker = Broker::start(&["--shards", shards]).unwrap();
        let mut watcher = client(&broker, 5, "watcher", false);
        watcher.write_all(b"\x82\x07\x00\x01\x00\x00\x01w\x00").unwrap();
        assert_eq!(packet(&mut watcher).unwrap()[0], 0x90);
        let mut others: Vec<_> =
            (0..8).map(|n| client(&broker, 5, &format!("new-{n}"), true)).collect();
        let mut old = client(&broker, 4, "old", true);
        // Accepted before the signal, on its way when it comes.
        others[0].write_all(b"\x30\x07\x00\x01w\x00end").unwrap();
        thread::sleep(Duration::from_millis(100));
        broker.signal(signal);
        let status = broker.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", broker.log());
        // The message, and no will.
        assert_eq!(packet(&mut watcher).unwrap(), b"\x30\x07\x00\x01w\x00end");
        for socket in others.iter_mut().chain([&mut watcher]) {
            let goodbye = packet(socket).expect("no DISCONNECT");
            assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:?}");
            assert_eq!(packet(socket), None);
        }
        assert_eq!(packet(&mut old), None);
        assert!(TcpStream::connect(broker.address).is_err(), "something still listens");
    }
}

#[test]
fn a_second_signal_ends_the_broker_at_once() {
    let mut broker = Broker::start(&["--shards", "1", "--linger-ms", "60000"]).unwrap();
    // A client that does not read keeps the first phase from its end.
    let mut deaf = client(&broker, 5, "deaf", false);
    deaf.write_all(b"\x82\x07\x00\x01\x00\x00\x01t\x00").unwrap();
    assert_eq!(packet(&mut deaf).unwrap()[0], 0x90);
    let mut publisher = client(&broker, 5, "publisher", false);
    let payload = vec![b'x'; 900_000];
    let size = payload.len() + 4;
    let header = [0x30, size as u8 | 0x80, (size >> 7) as u8 | 0x80, (size >> 14) as u8];
    for _ in 0..20 {
        publisher.write_all(&[&header[..], b"\x00\x01t\x00", &payload].concat()).unwrap();
    }
    publisher.write_all(b"\xc0\x00").unwrap();
    assert_eq!(packet(&mut publisher).unwrap(), b"\xd0\x00");
    broker.signal("TERM");
    let second = Instant::now() + Duration::from_millis(700);
    while Instant::now() < second {
        assert!(!broker.has_ended(), "the first signal ended it: {}", broker.log());
        thread::sleep(Duration::from_millis(20));
    }
    broker.signal("TERM");
    let began = Instant::now();
    broker.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
}
