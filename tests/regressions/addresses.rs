//! What limits count by address: connections, how fast they are opened, clients that connect again and again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(10);
/// A broker with one shard and with two, on io_uring where there is some and on epoll.
const BROKERS: [[&str; 4]; 4] = [
    ["--shards", "1", "--io", "auto"],
    ["--shards", "2", "--io", "auto"],
    ["--shards", "1", "--io", "epoll"],
    ["--shards", "2", "--io", "epoll"],
];

fn start(own: [&str; 4], arguments: &[&str]) -> Broker {
    Broker::start(&[&own[..], arguments].concat()).unwrap()
}

/// Connects as a 5.0 client: the connection and the reason code of its CONNACK. `None`: it was closed at once.
fn connect(broker: &Broker, client_id: &str) -> Option<(TcpStream, u8)> {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = vec![0x10, 13 + client_id.len() as u8];
    packet.extend_from_slice(b"\0\x04MQTT\x05\x02\0\x3c\0\0");
    packet.push(client_id.len() as u8);
    packet.extend_from_slice(client_id.as_bytes());
    let mut head = [0; 4];
    let is_answered = socket.write_all(&packet).is_ok() && socket.read_exact(&mut head).is_ok();
    is_answered.then_some((socket, head[3]))
}

/// Waits until the broker has said so.
fn assert_says(broker: &Broker, words: &str) {
    let began = Instant::now();
    while !broker.log().contains(words) {
        assert!(began.elapsed() < PATIENCE, "no '{words}' in: {}", broker.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    for own in BROKERS {
        let broker = start(own, &["--connections-per-address-max", "3"]);
        let mut open: Vec<_> =
            ["a", "b", "c"].iter().map(|id| connect(&broker, id).expect("there is room")).collect();
        assert!(open.iter().all(|(_, reason)| *reason == 0));
        assert!(connect(&broker, "d").is_none());
        assert_says(&broker, "connections_per_address_max");
        open.pop();
        // The broker takes a moment to see it go.
        let began = Instant::now();
        while connect(&broker, "d").is_none() {
            assert!(began.elapsed() < PATIENCE, "a place that was left is free");
        }
    }
}

#[test]
fn an_address_connects_no_faster_than_it_may() {
    let broker = start(BROKERS[1], &["--connect-rate-per-address-max", "2"]);
    let began = Instant::now();
    let mut let_in = 0;
    for _ in 0..50 {
        let_in += u64::from(connect(&broker, "c").is_some());
    }
    // However slow this machine is.
    let most = 2 + 2 * (began.elapsed().as_millis() as u64 / 1000 + 1);
    assert!((2..=most).contains(&let_in), "{let_in} of {most}");
    assert_says(&broker, "connect_rate_per_address_max");
}

#[test]
fn a_client_that_connects_again_and_again_is_banned() {
    for own in BROKERS {
        let broker = start(own, &["--flapping-connects-max", "5", "--flapping-window-s", "3600"]);
        let mut last = None;
        for _ in 0..5 {
            let (socket, reason) = connect(&broker, "c").expect("an answer");
            assert_eq!(reason, 0);
            last = Some(socket);
        }
        let (_, reason) = connect(&broker, "c").expect("an answer");
        assert_eq!(reason, 0x8a);
        assert_says(&broker, "flapping_connects_max");
        // The connection that was there goes on.
        let mut last = last.unwrap();
        last.write_all(&[0xc0, 0]).unwrap();
        let mut rest = Vec::new();
        while !rest.ends_with(&[0xd0, 0]) {
            let mut byte = [0];
            last.read_exact(&mut byte).expect("PINGRESP");
            rest.push(byte[0]);
        }
        assert_eq!(connect(&broker, "other").expect("an answer").1, 0);
    }
}

#[test]
fn strangers_keep_no_client_out_of_a_full_broker() {
    for own in BROKERS {
        let broker = start(own, &["--connections-max", "6"]);
        let clients = ["a", "b"].map(|id| connect(&broker, id).expect("there is room"));
        let mut strangers = Vec::new();
        let mut dial = |count: usize| {
            for number in 0..count {
                let mut stranger = TcpStream::connect(broker.address).unwrap();
                // Half of them have begun a CONNECT.
                let _ = stranger.write_all(&[0x10, 200][..number % 2 * 2]);
                strangers.push(stranger);
            }
            // Who still stands in the queue of another shard's listener would come behind the next client, from its address.
            thread::sleep(Duration::from_millis(100));
        };
        dial(30);
        for round in 0..20 {
            let (_socket, reason) = connect(&broker, &format!("honest-{round}"))
                .unwrap_or_else(|| panic!("{own:?}: a stranger keeps a client out: {round}"));
            assert_eq!(reason, 0);
            dial(3);
        }
        assert_says(&broker, "closed before they said CONNECT");
        // Where all are clients nobody gets in, and none of them is closed.
        let mut others = Vec::new();
        while let Some((socket, _)) = connect(&broker, &format!("other-{}", others.len())) {
            others.push(socket);
            assert!(others.len() <= 6, "{own:?}");
        }
        for (mut socket, _) in clients {
            socket.write_all(&[0xc0, 0]).unwrap();
            let mut byte = [0];
            while byte != [0xd0] {
                socket.read_exact(&mut byte).expect("PINGRESP");
            }
        }
    }
}

/// A 5.0 client whose session outlives it connects from an address of the loopback and leaves; the reason code.
fn visit(broker: &Broker, last_byte: u8, client_id: &str) -> u8 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last_byte], 0)).into()).unwrap();
    socket.connect(&broker.address.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = vec![0x10, 18 + client_id.len() as u8];
    packet.extend_from_slice(b"\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\x02\x58\0");
    packet.push(client_id.len() as u8);
    packet.extend_from_slice(client_id.as_bytes());
    socket.write_all(&packet).unwrap();
    let mut head = [0; 4];
    socket.read_exact(&mut head).expect("CONNACK");
    head[3]
}

#[test]
fn the_address_that_left_most_sessions_behind_makes_room_for_a_client_of_another() {
    for own in BROKERS {
        let broker = start(own, &["--sessions-max", "32", "--connections-max", "32"]);
        let strange: Vec<u8> =
            (0..160).map(|number| visit(&broker, 9, &format!("strange-{number}"))).collect();
        assert!(strange.ends_with(&[0x97; 10]), "{own:?}: {strange:?}");
        for number in 0..3 {
            assert_eq!(visit(&broker, 1, &format!("honest-{number}")), 0, "{own:?}");
        }
        assert_says(&broker, "ended the session of client 'strange-");
        assert_says(&broker, "see session_expiry_max_s and shares_by_address");
        assert_eq!(visit(&broker, 9, "strange-again"), 0x97);
    }
}
