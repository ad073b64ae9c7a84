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

/// Messages that wait for a subscriber when the signal comes; the broker has acknowledged all of them.
const BACKLOG: u16 = 3_000;

/// A subscriber at QoS `qos` that has read nothing yet of the `BACKLOG` that was published and acknowledged.
fn with_backlog(broker: &Broker, level: u8, qos: u8) -> TcpStream {
    let mut subscriber = client(broker, level, "subscriber", false);
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let body = [b"\x00\x01", properties, b"\x00\x01t", &[qos]].concat();
    subscriber.write_all(&[&[0x82, body.len() as u8], &body[..]].concat()).unwrap();
    assert_eq!(packet(&mut subscriber).unwrap()[0], 0x90);
    let mut publisher = client(broker, 5, "publisher", false);
    for number in 1..=BACKLOG {
        let [high, low] = number.to_be_bytes();
        let header = 0x30 | qos << 1;
        publisher.write_all(&[header, 8, 0, 1, b't', high, low, 0, high, low]).unwrap();
        let mut answer = packet(&mut publisher).unwrap();
        if qos == 2 {
            assert_eq!(answer[0], 0x50, "{answer:?}");
            publisher.write_all(&[0x62, 2, high, low]).unwrap();
            answer = packet(&mut publisher).unwrap();
        }
        assert_eq!(answer[0], if qos == 2 { 0x70 } else { 0x40 }, "{answer:?}");
    }
    subscriber
}

/// Reads and acknowledges messages until the connection ends; how many came, each once and in their order, and the last
/// other packet.
fn take_backlog(subscriber: &mut TcpStream, level: u8, may_acknowledge: bool) -> (u16, Vec<u8>) {
    let (mut count, mut last) = (0, Vec::new());
    while let Some(packet) = packet(subscriber) {
        let id_at = 5;
        let answer = match packet[0] & 0xf6 {
            header @ (0x32 | 0x34) => {
                count += 1;
                let payload_at = id_at + 2 + usize::from(level == 5);
                assert_eq!(packet[payload_at..], u16::to_be_bytes(count));
                let kind = if header == 0x32 { 0x40 } else { 0x50 };
                [kind, 2, packet[id_at], packet[id_at + 1]]
            }
            // PUBREL
            0x62 => [0x70, 2, packet[2], packet[3]],
            _ => {
                last = packet;
                continue;
            }
        };
        if may_acknowledge {
            // The broker may be gone.
            let _ = subscriber.write_all(&answer);
        }
    }
    (count, last)
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
fn who_never_acknowledges_holds_up_the_end_for_a_bounded_time_and_is_counted() {
    for (io, qos) in [("auto", 1), ("epoll", 2)] {
        let options = ["--shards", "2", "--io", io, "--shutdown-stall-ms", "1500"];
        let mut broker = Broker::start(&options).unwrap();
        let mut deaf = with_backlog(&broker, 5, qos);
        let mut idle = client(&broker, 5, "idle", false);
        broker.signal("TERM");
        let began = Instant::now();
        // Others do not wait for it, and nobody can connect any more.
        let goodbye = packet(&mut idle).expect("no DISCONNECT");
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:?}");
        assert!(TcpStream::connect(broker.address).is_err(), "something still listens");
        assert!(!broker.has_ended(), "it did not wait: {}", broker.log());
        // Pings are no progress.
        let pings = deaf.try_clone().map(|mut socket| {
            thread::spawn(move || {
                while socket.write_all(b"\xc0\x00").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
            })
        });
        let (count, last) = take_backlog(&mut deaf, 5, false);
        let took = began.elapsed();
        assert_eq!((count, last[0], last[2]), (1024, 0xe0, 0x8b));
        assert!(took >= Duration::from_millis(1_400), "it ended after {took:?}");
        assert!(took < Duration::from_secs(8), "it ended after {took:?}");
        drop(deaf);
        assert_eq!(broker.wait().unwrap().code(), Some(0));
        pings.unwrap().join().unwrap();
        let log = broker.log();
        let line = log.lines().last().unwrap_or_default();
        let counted = format!(
            "stopped; {BACKLOG} messages of QoS 1 and 2 not acknowledged by clients that were \
             connected (1: 'subscriber')"
        );
        assert!(line.ends_with(&counted), "{log}");
    }
}

#[test]
fn clients_that_come_on_slowly_are_waited_for_until_the_time_for_all_is_over() {
    let options = ["--shards", "1", "--shutdown-max-ms", "3000", "--shutdown-stall-ms", "2500"];
    let mut broker = Broker::start(&options).unwrap();
    let mut slow = with_backlog(&broker, 5, 1);
    broker.signal("TERM");
    let began = Instant::now();
    let mut count = 0;
    while let Some(packet) = packet(&mut slow) {
        if packet[0] == 0x32 {
            count += 1;
            if count > 1000 {
                thread::sleep(Duration::from_millis(200));
            }
            // What lies in its own buffers would keep it reading for longer.
            if broker.has_ended() {
                break;
            }
            let _ = slow.write_all(&[0x40, 2, packet[5], packet[6]]);
        }
    }
    assert_eq!(broker.wait().unwrap().code(), Some(0));
    let took = began.elapsed();
    assert!(count >= 1000 && took >= Duration::from_millis(1_900), "{count} in {took:?}");
    let log = broker.log();
    assert!(log.contains("raise shutdown_max_ms"), "{log}");
    let line = log.lines().last().unwrap_or_default();
    assert!(line.contains("(1: 'subscriber')"), "{log}");
}

#[test]
fn a_second_signal_ends_the_broker_at_once() {
    let mut broker = Broker::start(&["--shards", "1", "--shutdown-stall-ms", "60000"]).unwrap();
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

#[test]
fn what_was_accepted_is_given_to_connected_clients_and_acknowledged_before_the_end() {
    for (shards, io, level, qos) in
        [("1", "auto", 5, 1), ("2", "auto", 4, 2), ("2", "epoll", 5, 1), ("1", "epoll", 5, 2)]
    {
        let options = ["--shards", shards, "--io", io, "--linger-ms", "300"];
        let mut broker = Broker::start(&options).unwrap();
        let mut subscriber = with_backlog(&broker, level, qos);
        broker.signal("TERM");
        // A client may be busy for a while.
        thread::sleep(Duration::from_millis(900));
        let (count, last) = take_backlog(&mut subscriber, level, true);
        assert_eq!(count, BACKLOG, "{shards} {io} {level} {qos}: {}", broker.log());
        if level == 5 {
            assert_eq!((last[0], last[2]), (0xe0, 0x8b), "{last:?}");
        }
        assert_eq!(broker.wait().unwrap().code(), Some(0));
        let log = broker.log();
        let line = log.lines().last().unwrap_or_default();
        assert!(line.contains("0 messages"), "{log}");
    }
}
