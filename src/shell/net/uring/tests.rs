//! The ring against the kernel, on loopback.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::arena::{Draft, Gauge, Meta, Stored};
use crate::shard::Part;
use crate::shell::child::{self, Child};

const SMALL: RingSettings = RingSettings {
    entries: 8,
    receive_buffers: 4,
    receive_buffer_size: 256,
    shares_buffers: false,
};
const STEP: Duration = Duration::from_millis(20);
/// Bounds every loop of a test: 10 seconds of waiting.
const STEPS_MAX: usize = 500;

/// A ring whose sockets are told apart by the number of their connection, and what they have received.
struct Rig {
    ring: Ring,
    address: SocketAddr,
    keys: Vec<SocketKey>,
    received: HashMap<u64, Vec<u8>>,
    sent: Vec<u64>,
    ended: Vec<u64>,
    accept_errors: usize,
    mode: ReadMode,
    echo: bool,
    now: Instant,
}

impl Rig {
    fn new(settings: RingSettings, mode: ReadMode) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ring = Ring::new(settings).unwrap();
        ring.listen(listener.into());
        Rig {
            ring,
            address,
            keys: Vec::new(),
            received: HashMap::new(),
            sent: Vec::new(),
            ended: Vec::new(),
            accept_errors: 0,
            mode,
            echo: false,
            now: Instant::ZERO,
        }
    }

    fn connect(&mut self) -> TcpStream {
        let count = self.keys.len();
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.until("accepted", |rig| rig.keys.len() > count);
        client
    }

    fn step(&mut self) {
        self.ring.wait(self.now, STEP);
        self.now = self.now.plus_ms(STEP.as_millis() as u64);
        self.take();
    }

    fn take(&mut self) {
        let mut echoes = Vec::new();
        let mut accepted = Vec::new();
        while let Some(event) = self.ring.next_event(self.now) {
            match event {
                Event::Accepted { socket, .. } => accepted.push(socket),
                Event::AcceptFailed { .. } => self.accept_errors += 1,
                Event::Received { owner, bytes } => {
                    assert!(!self.ended.contains(&owner), "bytes after the end");
                    self.received.entry(owner).or_default().extend_from_slice(bytes);
                    echoes.push(owner);
                }
                Event::Sent { owner, output } => {
                    assert!(output.slices().map(<[u8]>::len).sum::<usize>() > 0);
                    self.sent.push(owner);
                    echoes.push(owner);
                }
                Event::Ended { owner, socket, .. } => {
                    assert_eq!(self.keys[owner as usize], socket);
                    self.ended.push(owner);
                }
            }
        }
        for socket in accepted {
            let key = self.ring.adopt(socket, self.keys.len() as u64);
            self.ring.read(key, self.mode);
            self.keys.push(key);
        }
        for owner in echoes {
            self.send_echo(owner);
        }
    }

    /// Sends back what was received while nothing was on its way.
    fn send_echo(&mut self, owner: u64) {
        let key = self.keys[owner as usize];
        let busy = self.ring.sockets.get_mut(key).is_none_or(|socket| socket.send.is_some());
        if !self.echo || busy {
            return;
        }
        let bytes = self.received.remove(&owner).unwrap_or_default();
        if !bytes.is_empty() {
            self.ring.send(key, Output { bytes, parts: Vec::new() });
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        for _ in 0..STEPS_MAX {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not {what} after {STEPS_MAX} steps");
    }

    fn received_size(&self, owner: u64) -> usize {
        self.received.get(&owner).map_or(0, Vec::len)
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn stored(payload: &[u8]) -> Stored {
    let meta = Meta {
        qos: 0,
        retain: false,
        is_origin: true,
        expires_at: None,
        publisher: 0,
        from_bridge: false,
    };
    let draft = Draft { topic: b"t", properties: [&[], &[]], payload, meta };
    Stored::from_draft(&draft, &Gauge::default())
}

#[test]
fn many_connections_get_their_own_bytes_back() {
    const CLIENTS: usize = 20;
    const SIZE: usize = 20_000;
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    rig.echo = true;
    let address = rig.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            thread::spawn(move || {
                let mut client = TcpStream::connect(address).unwrap();
                let mut writer = client.try_clone().unwrap();
                let bytes = pattern(SIZE + number);
                let expected = bytes.clone();
                let writing = thread::spawn(move || writer.write_all(&bytes).unwrap());
                let mut echoed = vec![0; expected.len()];
                client.read_exact(&mut echoed).unwrap();
                writing.join().unwrap();
                assert!(echoed == expected, "client {number} got other bytes");
            })
        })
        .collect();
    rig.until("all ended", |rig| rig.ended.len() == CLIENTS);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(rig.ring.receive_rearms() > 0, "the buffers have run out");
}

#[test]
fn a_receive_that_ran_out_of_buffers_goes_on() {
    let one = RingSettings { receive_buffers: 1, receive_buffer_size: 64, ..SMALL };
    let mut rig = Rig::new(one, ReadMode::Many);
    let mut clients: Vec<_> = (0..3).map(|_| rig.connect()).collect();
    let bytes = pattern(5_000);
    for client in &mut clients {
        client.write_all(&bytes).unwrap();
    }
    rig.until("all received", |rig| (0..3).all(|owner| rig.received_size(owner) == bytes.len()));
    assert!(rig.received.values().all(|received| *received == bytes));
    assert!(rig.ring.receive_rearms() > 3);
}

/// Several connections speak before any of them is heard: what they said lies in one buffer.
#[test]
fn receives_share_buffers() {
    if !kernel::shares_buffers() {
        println!("SKIPPED: this kernel gives each receive a buffer of its own");
        return;
    }
    const CLIENTS: usize = 50;
    let settings = RingSettings {
        entries: 64,
        receive_buffers: 4,
        receive_buffer_size: 4096,
        shares_buffers: true,
    };
    let mut rig = Rig::new(settings, ReadMode::Many);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.connect()).collect();
    for round in 0..30 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&[(number + round) as u8; 60]).unwrap();
        }
        let size = (round + 1) * 60;
        rig.until("all received", |rig| {
            (0..CLIENTS as u64).all(|owner| rig.received_size(owner) == size)
        });
    }
    for (owner, bytes) in &rig.received {
        let expected = (0..30 * 60).map(|index| (*owner as usize + index / 60) as u8);
        assert!(bytes.iter().copied().eq(expected), "connection {owner} got other bytes");
    }
    assert_eq!(rig.ring.receive_rearms(), 0, "four buffers are room for 50 receives");
}

#[test]
fn a_single_shot_receive_leaves_nothing_in_flight() {
    let mut rig = Rig::new(SMALL, ReadMode::Once);
    let mut client = rig.connect();
    assert!(rig.ring.release(rig.keys[0]).is_some(), "nothing was submitted yet");
    rig.keys.clear();
    drop(client);

    client = rig.connect();
    rig.step();
    assert!(rig.ring.release(rig.keys[0]).is_none(), "the kernel holds a receive");
    client.write_all(b"connect").unwrap();
    rig.until("received", |rig| rig.received_size(0) == 7);
    let socket = rig.ring.release(rig.keys[0]).expect("the receive has completed");
    assert_eq!(rig.ring.socket_count(), 0);

    // The other ring reads on where this one has stopped.
    client.write_all(b"publish").unwrap();
    let mut other = Ring::new(SMALL).unwrap();
    let key = other.adopt(socket, 9);
    other.read(key, ReadMode::Many);
    other.wait(Instant::ZERO, Duration::from_secs(10));
    match other.next_event(Instant::ZERO) {
        Some(Event::Received { owner: 9, bytes }) => assert_eq!(bytes, b"publish"),
        event => panic!("{event:?}"),
    }
}

#[test]
fn a_single_shot_receive_is_repeated_until_told_otherwise() {
    let mut rig = Rig::new(SMALL, ReadMode::Once);
    let mut client = rig.connect();
    let bytes = pattern(2_000);
    client.write_all(&bytes).unwrap();
    rig.until("received", |rig| rig.received_size(0) == 2_000);
    assert_eq!(rig.received[&0], bytes);
    rig.ring.read(rig.keys[0], ReadMode::Many);
    client.write_all(&bytes).unwrap();
    rig.until("received", |rig| rig.received_size(0) == 4_000);
    client.shutdown(Shutdown::Write).unwrap();
    rig.until("ended", |rig| rig.ended == [0]);
}

#[test]
fn a_stopped_receive_loses_nothing() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    let bytes = pattern(40_000);
    let sending = bytes.clone();
    let writing = thread::spawn(move || client.write_all(&sending).map(|()| client));
    let mut stops = 0;
    for round in 0..STEPS_MAX {
        let before = rig.received_size(0);
        if before == bytes.len() {
            break;
        }
        rig.ring.read(rig.keys[0], ReadMode::Stopped);
        if round % 3 == 0 {
            // Wanted again while the cancellation is on its way.
            rig.ring.read(rig.keys[0], ReadMode::Many);
        }
        rig.ring.wait(rig.now, Duration::from_millis(1));
        rig.take();
        rig.ring.wait(rig.now, Duration::from_millis(1));
        rig.take();
        if round % 3 != 0 {
            let stopped_at = rig.received_size(0);
            rig.ring.wait(rig.now, Duration::from_millis(2));
            rig.take();
            assert_eq!(rig.received_size(0), stopped_at, "it is not read while stopped");
            stops += 1;
            rig.ring.read(rig.keys[0], ReadMode::Many);
            rig.ring.wait(rig.now, Duration::from_millis(2));
            rig.take();
        }
    }
    rig.until("received", |rig| rig.received_size(0) == bytes.len());
    assert!(rig.received[&0] == bytes);
    assert!(stops > 3);
    drop(writing.join().unwrap().unwrap());
}

#[test]
fn an_output_of_many_slices_arrives_whole_and_in_order() {
    const SLICES: usize = 1_300;
    let parts = (0..SLICES)
        .map(|index| Part { at: index * 5, stored: stored(&pattern(index % 2_000 + 1)) });
    let output = Output { parts: parts.collect(), bytes: pattern(SLICES * 5 + 3) };
    let expected = output.slices().collect::<Vec<_>>().concat();
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.ring.send(rig.keys[0], output);
    let reading = thread::spawn(move || {
        let mut bytes = vec![0; expected.len()];
        // A reader that is slow to begin makes the kernel wait for room.
        thread::sleep(Duration::from_millis(50));
        client.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected);
    });
    rig.until("sent", |rig| rig.sent == [0]);
    reading.join().unwrap();
}

#[test]
fn a_large_output_to_a_slow_reader_is_one_send() {
    let bytes = pattern(8 << 20);
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.ring.send(rig.keys[0], Output { bytes: bytes.clone(), parts: Vec::new() });
    for _ in 0..5 {
        rig.step();
    }
    assert!(rig.sent.is_empty(), "the socket's buffers hold less");
    let reading = thread::spawn(move || {
        let mut received = vec![0; bytes.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == bytes);
    });
    rig.until("sent", |rig| rig.sent == [0]);
    reading.join().unwrap();
}

#[test]
fn what_was_sent_in_part_is_sent_on_from_there() {
    let parts = vec![Part { at: 3, stored: stored(b"0123456789") }];
    let mut send = InFlight::new();
    send.begin(Output { bytes: b"abcdef".to_vec(), parts }, 0);
    assert!(!send.advance(2));
    assert_eq!(send.described(), b"c0123456789def");
    assert!(!send.advance(5));
    assert_eq!(send.described(), b"456789def");
    assert!(!send.advance(7));
    assert_eq!(send.described(), b"ef");
    assert!(send.advance(2));
}

#[test]
fn what_a_socket_takes_at_once_leaves_without_a_completion() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    let output = Output { bytes: b"at once".to_vec(), parts: Vec::new() };
    let output = rig.ring.send_now(rig.keys[0], output).expect("the socket had room");
    assert_eq!(output.bytes, b"at once");
    let mut received = [0; 7];
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"at once");
    rig.step();
    assert!(rig.sent.is_empty(), "the caller knew");
}

#[test]
fn what_a_socket_does_not_take_at_once_follows_in_order() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    let bytes = pattern(16 << 20);
    let output = Output { bytes: bytes.clone(), parts: Vec::new() };
    assert!(rig.ring.send_now(rig.keys[0], output).is_none(), "so much has no room");
    let reading = thread::spawn(move || {
        let mut received = vec![0; bytes.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == bytes);
    });
    rig.until("sent", |rig| rig.sent == [0]);
    reading.join().unwrap();
    let parts = vec![Part { at: 1, stored: stored(b"b") }];
    let output = Output { bytes: b"ac".to_vec(), parts };
    assert!(rig.ring.send_now(rig.keys[0], output).is_none(), "several pieces are one send");
    rig.until("sent", |rig| rig.sent.len() == 2);
}

#[test]
fn a_send_at_once_to_a_peer_that_has_gone_ends_the_connection() {
    let mut rig = Rig::new(SMALL, ReadMode::Stopped);
    let client = rig.connect();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    rig.step();
    let output = || Output { bytes: b"x".to_vec(), parts: Vec::new() };
    assert!(rig.ring.send_now(rig.keys[0], output()).is_none());
    rig.until("ended", |rig| rig.ended == [0]);
}

#[test]
fn a_closed_socket_goes_with_its_last_completion() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.ring.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() });
    rig.step();
    rig.ring.close(rig.keys[0]);
    assert_eq!(rig.ring.socket_count(), 1, "the kernel still reads the output");
    rig.until("closed", |rig| rig.ring.socket_count() == 0);
    assert_eq!((rig.sent.len(), rig.ended.len()), (0, 0), "nothing is said of a closed socket");
    let mut received = Vec::new();
    // An orderly end or a reset, but an end.
    let _ = client.read_to_end(&mut received);
    assert!(pattern(16 << 20).starts_with(&received));

    // The slot has a new use; the old key finds nothing.
    let stale = rig.keys[0];
    let mut client = rig.connect();
    assert_eq!(rig.keys[1].index, stale.index);
    rig.ring.close(stale);
    rig.ring.read(stale, ReadMode::Stopped);
    rig.ring.send(stale, Output { bytes: b"stale".to_vec(), parts: Vec::new() });
    assert!(rig.ring.release(stale).is_none());
    rig.ring.send(rig.keys[1], Output { bytes: b"fresh".to_vec(), parts: Vec::new() });
    rig.until("sent", |rig| rig.sent == [1]);
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fresh");
}

#[test]
fn a_peer_that_goes_away_ends_the_connection() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let client = rig.connect();
    rig.step();
    drop(client);
    rig.until("ended", |rig| rig.ended == [0]);
    rig.ring.close(rig.keys[0]);
    assert_eq!(rig.ring.socket_count(), 0);
}

#[test]
fn a_send_to_a_peer_that_has_gone_ends_the_connection() {
    let mut rig = Rig::new(SMALL, ReadMode::Stopped);
    let client = rig.connect();
    rig.ring.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() });
    rig.step();
    drop(client);
    rig.until("ended", |rig| rig.ended == [0]);
    assert!(rig.sent.is_empty());
}

#[test]
fn what_was_said_before_the_end_is_reported_before_the_end() {
    let mut broken_first = 0;
    for seed in 0..20 {
        let mut rig = Rig::new(SMALL, ReadMode::Many);
        let mut client = rig.connect();
        rig.ring.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() });
        rig.step();
        let words = pattern(3_000 + seed);
        client.write_all(&words).unwrap();
        // With bytes unread this is a reset: the send fails, whatever was received.
        drop(client);
        for round in 0..STEPS_MAX {
            rig.step();
            if !rig.ended.is_empty() || rig.ring.sockets.get_mut(rig.keys[0]).unwrap().broken {
                break;
            }
            assert!(round < STEPS_MAX - 1);
        }
        broken_first += usize::from(rig.ended.is_empty());
        rig.ring.read(rig.keys[0], ReadMode::Stopped);
        rig.until("ended", |rig| rig.ended == [0]);
        assert!(rig.received[&0] == words);
    }
    assert!(broken_first > 0, "a send has failed before the end was received");
}

/// What the other end of a connection has written, and a way to end it.
struct Peer {
    stream: Option<TcpStream>,
    written: Vec<u8>,
}

/// Connections that come, speak, stall and go in any order, and a ring told to read, send, give away and close in any
/// order: what arrives is what was written, and in the end the kernel holds the accept alone.
fn check_storm(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let settings = RingSettings {
        entries: 1 << random.u32(1..5),
        receive_buffers: 1 << random.u16(0..4),
        receive_buffer_size: 1 << random.u32(0..14),
        shares_buffers: kernel::shares_buffers() && random.bool(),
    };
    let mut rig = Rig::new(settings, ReadMode::Many);
    let mut peers: Vec<Peer> = Vec::new();
    let mut released = 0;
    for _ in 0..300 {
        if peers.is_empty() || (peers.len() < 12 && random.u8(..) < 20) {
            let stream = rig.connect();
            stream.set_nonblocking(true).unwrap();
            peers.push(Peer { stream: Some(stream), written: Vec::new() });
            // Mail may come before the first word about how to read.
            rig.mode = [ReadMode::Once, ReadMode::Many, ReadMode::Stopped][random.usize(0..3)];
        }
        let owner = random.usize(0..peers.len());
        let (peer, key) = (&mut peers[owner], rig.keys[owner]);
        let size = 1 << random.u32(0..20);
        match random.u8(0..12) {
            0..4 => {
                let bytes: Vec<u8> = (0..size.min(4_000)).map(|_| random.u8(..)).collect();
                let written = peer.stream.as_mut().map(|stream| stream.write(&bytes));
                if let Some(Ok(count)) = written {
                    peer.written.extend_from_slice(&bytes[..count]);
                }
            }
            4 => {
                let mut bytes = vec![0; size];
                let _ = peer.stream.as_mut().map(|stream| stream.read(&mut bytes));
            }
            5 => {
                // With bytes unread this is a reset.
                peer.stream = None;
            }
            6 => rig.ring.read(key, ReadMode::Once),
            7 => rig.ring.read(key, ReadMode::Many),
            8 => rig.ring.read(key, ReadMode::Stopped),
            9 => {
                let idle =
                    rig.ring.sockets.get_mut(key).is_some_and(|socket| socket.send.is_none());
                if idle && !rig.ended.contains(&(owner as u64)) {
                    let output = Output { bytes: pattern(size), parts: Vec::new() };
                    if random.bool() {
                        rig.ring.send(key, output);
                    } else {
                        rig.ring.send_now(key, output);
                    }
                }
            }
            10 if random.bool() => {
                rig.ring.close(key);
            }
            11 => released += usize::from(rig.ring.release(key).is_some()),
            _ => {}
        }
        rig.ring.wait(rig.now, Duration::from_micros(random.u64(1..300)));
        rig.take();
        for owner in rig.ended.drain(..) {
            rig.ring.close(rig.keys[owner as usize]);
        }
    }
    for (owner, peer) in peers.iter().enumerate() {
        let received = rig.received.get(&(owner as u64)).map_or(&[][..], |bytes| bytes);
        assert!(
            peer.written.starts_with(received),
            "seed {seed}: connection {owner} got others' bytes"
        );
    }
    for key in rig.keys.clone() {
        rig.ring.close(key);
    }
    rig.until("closed", |rig| rig.ring.socket_count() == 0);
    assert_eq!(rig.ring.in_flight, 1, "seed {seed}: the kernel holds the accept");
    let received: usize = rig.received.values().map(Vec::len).sum();
    assert!(received > 0, "seed {seed}: {released} released");
}

#[test]
fn a_storm_of_events_mixes_nothing_up_and_leaves_nothing_behind() {
    for seed in 0..60 {
        check_storm(seed);
    }
}

#[test]
fn a_dropped_ring_closes_its_sockets_and_frees_what_it_lent() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    rig.ring.watch(Arc::new(EventFd::new().unwrap()));
    let mut clients: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    rig.ring.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() });
    rig.step();
    assert!(rig.ring.settle(), "the kernel lets go of everything");
    assert_eq!((rig.ring.socket_count(), rig.ring.in_flight), (0, 0));
    drop(rig);
    for client in &mut clients {
        let _ = client.read_to_end(&mut Vec::new());
    }
}

#[test]
fn accepting_stops() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let _client = rig.connect();
    rig.ring.stop_accepting();
    rig.step();
    let _late = TcpStream::connect(rig.address).unwrap();
    for _ in 0..3 {
        rig.step();
    }
    assert_eq!(rig.keys.len(), 1);
}

#[test]
fn a_bell_rung_at_any_time_ends_the_wait() {
    let long = Duration::from_secs(20);
    let bell = Arc::new(EventFd::new().unwrap());
    let mut ring = Ring::new(SMALL).unwrap();
    ring.watch(bell.clone());
    let began = std::time::Instant::now();
    bell.ring();
    ring.wait(Instant::ZERO, long);
    for _ in 0..100 {
        assert!(ring.next_event(Instant::ZERO).is_none());
        bell.ring();
        ring.wait(Instant::ZERO, long);
    }
    assert!(ring.next_event(Instant::ZERO).is_none());
    let other = {
        let bell = bell.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            bell.ring();
        })
    };
    ring.wait(Instant::ZERO, long);
    other.join().unwrap();
    assert!(began.elapsed() < long);
}

#[test]
fn a_wait_ends_in_time() {
    let mut ring = Ring::new(SMALL).unwrap();
    let began = std::time::Instant::now();
    ring.wait(Instant::ZERO, Duration::from_millis(30));
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_spinning_thread_sees_that_there_is_work_without_entering_the_kernel() {
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.step();
    rig.step();
    assert!(!rig.ring.has_work());
    client.write_all(b"work").unwrap();
    let began = std::time::Instant::now();
    while !rig.ring.has_work() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::hint::spin_loop();
    }
    rig.ring.poll(rig.now);
    rig.take();
    assert_eq!(rig.received_size(0), 4);
}

#[test]
fn accepting_goes_on_after_the_descriptors_had_run_out() {
    // The open-file limit is the process's: the test proper runs in one of its own.
    let test = "shell::ring::tests::accepting_with_few_descriptors";
    let child = Child::output(child::again(test).args(["--ignored", "--test-threads=1"])).unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "lowers the open-file limit of the process; run by accepting_goes_on_after_the_descriptors_had_run_out"]
fn accepting_with_few_descriptors() {
    // Before the accept is submitted: that is when the kernel looks at the limit.
    let limits = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: needed because std cannot set limits. Sound because the pointer is to a live value.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
    let mut rig = Rig::new(SMALL, ReadMode::Many);
    let mut clients: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    let mut fillers: Vec<_> =
        (0..64).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    fillers.truncate(fillers.len() - 3);
    // Each connection takes one descriptor here and one there: the second finds none for its accept.
    let late: Vec<_> = (0..2).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    rig.until("refused twice", |rig| rig.accept_errors >= 2);
    assert_eq!(rig.keys.len(), 5);
    assert!(rig.ring.deadline().is_some(), "it backs off");
    clients.clear();
    for owner in 0..4 {
        rig.ring.close(rig.keys[owner]);
    }
    rig.until("accepted", |rig| rig.keys.len() == 6);
    assert!(rig.accept_errors < 20, "it does not try all the time");
    drop((late, fillers));
}
