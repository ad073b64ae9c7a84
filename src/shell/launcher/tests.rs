//! Whole brokers in this process, on loopback, with clients that speak just enough MQTT 3.1.1.

use super::*;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use socket2::SockRef;

use crate::config::WaitMode;

fn settings(shards: u16) -> Settings {
    let mut settings = Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        cores: vec![0],
        shards,
        receive_buffers: 8,
        receive_buffer_size: 512,
        ring_entries: 16,
        ..Settings::default()
    };
    settings.limits.linger_ms = 300;
    settings.limits.shutdown_stall_ms = 300;
    settings
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr, id: &str) -> Client {
        let mut client = Client::open(address);
        client.send_connect(id);
        assert_eq!(client.read(4), [0x20, 2, 0, 0], "{id}");
        client
    }

    fn open(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(stream)
    }

    fn send_connect(&mut self, id: &str) {
        let mut body = b"\0\x04MQTT\x04\x02\0\0\0".to_vec();
        body.push(id.len() as u8);
        body.extend_from_slice(id.as_bytes());
        self.send(0x10, &body);
    }

    fn send(&mut self, first_byte: u8, body: &[u8]) {
        let mut packet = vec![first_byte];
        let mut size = body.len();
        while size >= 128 {
            packet.push((size % 128) as u8 | 128);
            size /= 128;
        }
        packet.push(size as u8);
        packet.extend_from_slice(body);
        self.0.write_all(&packet).unwrap();
    }

    fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1, 0, filter.len() as u8];
        body.extend_from_slice(filter.as_bytes());
        body.push(0);
        self.send(0x82, &body);
        assert_eq!(self.read(5), [0x90, 3, 0, 1, 0]);
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        let mut body = vec![0, topic.len() as u8];
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(payload);
        self.send(0x30, &body);
    }

    fn read(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
            || self.0.take_error().is_ok_and(|error| error.is_some())
    }
}

fn check(shards: u16, wait: WaitMode) {
    const CLIENTS: usize = 60;
    let mut settings = Settings { wait, ..settings(shards) };
    settings.limits.linger_ms = 5_000;
    let broker = Broker::start(settings).unwrap();
    let addresses = broker.addresses().to_vec();
    // All at once, so that shards accept and hand over in the same turns.
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|number| Client::open(addresses[number % addresses.len()])).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_connect(&format!("client-{number}"));
    }
    for client in &mut clients {
        assert_eq!(client.read(4), [0x20, 2, 0, 0]);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("to/{number}"));
    }
    for (from, client) in clients.iter_mut().enumerate() {
        let to = (from + 7) % CLIENTS;
        client.publish(&format!("to/{to}"), format!("{from:02}").as_bytes());
    }
    for from in 0..CLIENTS {
        let to = (from + 7) % CLIENTS;
        let expected = format!("\0{}to/{to}{from:02}", (3 + to.to_string().len()) as u8 as char);
        let packet = clients[to].read(expected.len() + 2);
        assert_eq!(&packet[2..], expected.as_bytes());
    }
    let began = Instant::now();
    broker.stop().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "nobody lingers: {:?}", began.elapsed());
    assert!(clients.iter_mut().all(Client::is_closed));
}

#[test]
fn every_client_reaches_its_shard_and_every_message_its_client() {
    check(1, WaitMode::Sleep);
    check(2, WaitMode::Sleep);
    check(5, WaitMode::Sleep);
}

#[test]
fn workers_may_spin() {
    check(1, WaitMode::Spin);
    check(2, WaitMode::Adaptive);
}

#[test]
fn a_large_message_crosses_small_buffers_and_shards() {
    let broker = Broker::start(settings(2)).unwrap();
    let address = broker.addresses()[0];
    let payload: Vec<u8> = (0..300_000_u32).map(|index| (index / 3) as u8).collect();
    for pair in 0..4 {
        let mut receiver = Client::connect(address, &format!("receiver-{pair}"));
        receiver.subscribe("large");
        Client::connect(address, &format!("sender-{pair}")).publish("large", &payload);
        let packet = receiver.read(1 + 3 + 2 + 5 + payload.len());
        assert!(packet.ends_with(&payload));
    }
    broker.stop().unwrap();
}

#[test]
fn who_does_not_read_delays_the_end_by_a_stall_and_the_time_to_linger_at_most() {
    let broker = Broker::start(settings(2)).unwrap();
    let address = broker.addresses()[0];
    let mut stalled = Client::connect(address, "stalled");
    stalled.subscribe("flood");
    let mut sender = Client::connect(address, "sender");
    for _ in 0..60 {
        sender.publish("flood", &[7; 200_000]);
    }
    // All of it has been read when this is answered.
    sender.send(0xc0, &[]);
    assert_eq!(sender.read(2), [0xd0, 0]);
    let began = Instant::now();
    broker.stop().unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_full_broker_closes_the_connection_and_lets_in_the_next_when_somebody_leaves() {
    let broker = Broker::start(Settings { connections_max: 3, ..settings(2) }).unwrap();
    let address = broker.addresses()[0];
    let mut inside: Vec<_> =
        (0..3).map(|number| Client::connect(address, &format!("{number}"))).collect();
    assert!(Client::open(address).is_closed());
    inside.pop();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = Client::open(address);
        client.send_connect("next");
        if client.0.read_exact(&mut [0; 4]).is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "the place of who has left is free");
        thread::sleep(Duration::from_millis(5));
    }
    drop(inside);
    broker.stop().unwrap();
}

#[test]
fn a_port_in_use_is_a_sentence() {
    let broker = Broker::start(settings(1)).unwrap();
    let listen = vec![broker.addresses()[0]];
    let error = Broker::start(Settings { listen, ..settings(1) }).err().unwrap();
    assert!(error.to_string().contains("another process uses port"), "{error}");
    broker.stop().unwrap();
}

#[test]
fn a_client_that_still_sends_when_the_broker_ends_gets_its_last_bytes() {
    const SIZE: usize = 4_000;
    const COUNT: usize = 500;
    let mut settings = settings(1);
    settings.limits.linger_ms = 5_000;
    let broker = Broker::start(settings).unwrap();
    let address = broker.addresses()[0];
    let mut subscriber = Client::connect(address, "subscriber");
    SockRef::from(&subscriber.0).set_recv_buffer_size(64 << 10).unwrap();
    subscriber.subscribe("t");
    let mut publisher = Client::connect(address, "publisher");
    for number in 0..COUNT {
        publisher.publish("t", &vec![number as u8; SIZE]);
    }
    // What the broker has not read when it closes makes the kernel reset the connection.
    let mut sending = Client(subscriber.0.try_clone().unwrap());
    let pings = thread::spawn(move || while sending.0.write_all(&[0xc0, 0]).is_ok() {});
    let reading = thread::spawn(move || {
        // The last of it waits in the broker's kernel by then.
        thread::sleep(Duration::from_millis(300));
        for number in 0..COUNT {
            // Answers to pings come between.
            let mut head = subscriber.read(2);
            while head == [0xd0, 0] {
                head = subscriber.read(2);
            }
            let rest = subscriber.read(SIZE + 4);
            assert!(rest[4..].iter().all(|byte| *byte == number as u8), "message {number}");
        }
        let _ = subscriber.0.read_to_end(&mut Vec::new());
    });
    // The answer says that the broker has read all messages.
    publisher.send(0xc0, &[]);
    assert_eq!(publisher.read(2), [0xd0, 0]);
    broker.stop().unwrap();
    reading.join().unwrap();
    pings.join().unwrap();
}
