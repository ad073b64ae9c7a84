//! Networks against the kernel, on loopback: what holds for each of them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use socket2::SockRef;

use super::epoll::Epoll;
use super::uring::{Ring, RingSettings};
use super::*;
use crate::arena::{Claim, Draft, Gauge, Meta, Stored};
use crate::shard::Part;
use crate::system::child::{self, Child};
use crate::system::io::tests::has_io_uring;
use crate::system::kernel;

pub(super) const SMALL: RingSettings = RingSettings {
    entries: 8,
    receive_buffers: 4,
    receive_buffer_size: 256,
    shares_buffers: false,
};
const STEP: Duration = Duration::from_millis(20);
/// Bounds the loops that count their steps: 10 seconds of waiting.
const STEPS_MAX: usize = 500;

/// What tests ask of a network besides.
pub(super) trait TestNetwork: Network {
    fn make(settings: RingSettings) -> Self;

    fn is_sending(&mut self, key: SocketKey) -> bool;

    /// A send has failed, and the end was not reported.
    fn is_broken(&mut self, key: SocketKey) -> bool;

    /// The kernel holds nothing but what accepts.
    fn holds_nothing(&self) -> bool;
}

/// A network whose sockets are told apart by the number of their connection, and what they have received.
pub(super) struct Rig<N> {
    pub(super) net: N,
    address: SocketAddr,
    pub(super) keys: Vec<SocketKey>,
    pub(super) received: HashMap<u64, Vec<u8>>,
    pub(super) sent: Vec<u64>,
    pub(super) ended: Vec<u64>,
    /// Of each connection, where it came in.
    listeners: Vec<ListenerId>,
    accept_errors: usize,
    mode: ReadMode,
    echo: bool,
    now: Instant,
}

impl<N: TestNetwork> Rig<N> {
    pub(super) fn new(settings: RingSettings, mode: ReadMode) -> Rig<N> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut net = N::make(settings);
        net.listen(listener.into());
        Rig {
            net,
            address,
            keys: Vec::new(),
            received: HashMap::new(),
            sent: Vec::new(),
            ended: Vec::new(),
            listeners: Vec::new(),
            accept_errors: 0,
            mode,
            echo: false,
            now: Instant::ZERO,
        }
    }

    pub(super) fn connect(&mut self) -> TcpStream {
        let count = self.keys.len();
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.until("accepted", |rig| rig.keys.len() > count);
        client
    }

    pub(super) fn step(&mut self) {
        self.net.wait(self.now, STEP);
        self.now = self.now.plus_ms(STEP.as_millis() as u64);
        self.take();
    }

    fn take(&mut self) {
        let mut echoes = Vec::new();
        let mut accepted = Vec::new();
        while let Some(event) = self.net.next_event(self.now) {
            match event {
                Event::Accepted { socket, listener } => {
                    accepted.push(socket);
                    self.listeners.push(listener);
                }
                Event::AcceptFailed { .. } => self.accept_errors += 1,
                Event::Received { owner, bytes } => {
                    assert!(!self.ended.contains(&owner), "bytes after the end");
                    self.received.entry(owner).or_default().extend_from_slice(bytes);
                    // They are this event's alone: what others receive is not touched.
                    bytes.fill(0xAA);
                    echoes.push(owner);
                }
                Event::Sent { owner, output } => {
                    assert!(output.slices().map(<[u8]>::len).sum::<usize>() > 0);
                    self.sent.push(owner);
                    echoes.push(owner);
                }
                Event::Ended { owner, .. } => self.ended.push(owner),
            }
        }
        for socket in accepted {
            let key = self.net.adopt(socket, self.keys.len() as u64);
            self.net.read(key, self.mode);
            self.keys.push(key);
        }
        for owner in echoes {
            self.send_echo(owner);
        }
    }

    /// Sends back what was received while nothing was on its way.
    fn send_echo(&mut self, owner: u64) {
        let key = self.keys[owner as usize];
        let busy = self.net.is_sending(key);
        if !self.echo || busy {
            return;
        }
        let bytes = self.received.remove(&owner).unwrap_or_default();
        if !bytes.is_empty() {
            self.net.send(key, Output { bytes, parts: Vec::new() }, false);
        }
    }

    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig<N>) -> bool) {
        let began = std::time::Instant::now();
        while !done(self) {
            assert!(began.elapsed() < child::PATIENCE, "not {what} in time");
            self.step();
        }
    }

    pub(super) fn received_size(&self, owner: u64) -> usize {
        self.received.get(&owner).map_or(0, Vec::len)
    }
}

pub(super) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 + index / 251) as u8).collect()
}

pub(super) fn stored(payload: &[u8]) -> Stored {
    let meta = Meta {
        qos: 0,
        retain: false,
        is_origin: true,
        expires_at: None,
        publisher: 0,
        from_bridge: false,
        claim: Claim::None,
    };
    let draft = Draft { topic: b"t", properties: [&[], &[]], payload, meta };
    Stored::from_draft(&draft, &Gauge::default())
}

/// Each of these on each network.
macro_rules! on_each_network {
    ($($test:ident;)*) => {
        mod on_uring {
            $(#[test]
            fn $test() {
                if super::has_io_uring() {
                    super::$test::<super::Ring>();
                }
            })*

            #[test]
            #[ignore = "lowers the open-file limit of the process"]
            fn accepting_with_few_descriptors() {
                super::accepting_with_few_descriptors::<super::Ring>();
            }
        }

        mod on_epoll {
            $(#[test]
            fn $test() {
                super::$test::<super::Epoll>();
            })*

            #[test]
            #[ignore = "lowers the open-file limit of the process"]
            fn accepting_with_few_descriptors() {
                super::accepting_with_few_descriptors::<super::Epoll>();
            }
        }
    };
}

on_each_network! {
    many_connections_get_their_own_bytes_back;
    each_connection_names_its_listener;
    a_single_shot_receive_is_repeated_until_told_otherwise;
    a_stopped_receive_loses_nothing;
    an_output_of_many_slices_arrives_whole_and_in_order;
    a_large_output_to_a_slow_reader_is_one_send;
    what_a_socket_takes_at_once_leaves_without_a_completion;
    what_a_socket_does_not_take_at_once_follows_in_order;
    a_send_at_once_to_a_peer_that_has_gone_ends_the_connection;
    a_closed_socket_goes_with_its_last_completion;
    a_peer_that_goes_away_ends_the_connection;
    a_send_to_a_peer_that_has_gone_ends_the_connection;
    what_was_said_before_the_end_is_reported_before_the_end;
    a_storm_of_events_mixes_nothing_up_and_leaves_nothing_behind;
    accepting_stops;
    a_bell_rung_at_any_time_ends_the_wait;
    a_wait_ends_in_time;
    a_spinning_thread_sees_that_there_is_work_without_entering_the_kernel;
    a_spinning_thread_sees_that_the_bell_was_rung;
}

#[test]
fn accepting_goes_on_after_the_descriptors_had_run_out() {
    for network in ["on_uring", "on_epoll"] {
        if network == "on_uring" && !has_io_uring() {
            continue;
        }
        // The open-file limit is the process's: the test proper runs in one of its own.
        let test = format!("net::tests::{network}::accepting_with_few_descriptors");
        let mut again = child::again(&test);
        let child = Child::output(again.args(["--ignored", "--test-threads=1"])).unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
        assert!(output.contains("1 passed"), "{output}");
    }
}

fn each_connection_names_its_listener<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let second = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [rig.address, second.local_addr().unwrap()];
    rig.net.listen(second.into());
    let mut clients = Vec::new();
    for place in [0, 1, 1, 0, 1] {
        rig.address = addresses[place];
        clients.push(rig.connect());
        assert_eq!(rig.listeners.last(), Some(&ListenerId(place as u16)));
    }
}

fn many_connections_get_their_own_bytes_back<N: TestNetwork>() {
    const CLIENTS: usize = 20;
    const SIZE: usize = 20_000;
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
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
}

fn a_single_shot_receive_is_repeated_until_told_otherwise<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Once);
    let mut client = rig.connect();
    let bytes = pattern(2_000);
    client.write_all(&bytes).unwrap();
    rig.until("received", |rig| rig.received_size(0) == 2_000);
    assert_eq!(rig.received[&0], bytes);
    rig.net.read(rig.keys[0], ReadMode::Many);
    client.write_all(&bytes).unwrap();
    rig.until("received", |rig| rig.received_size(0) == 4_000);
    client.shutdown(Shutdown::Write).unwrap();
    rig.until("ended", |rig| rig.ended == [0]);
}

fn a_stopped_receive_loses_nothing<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
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
        rig.net.read(rig.keys[0], ReadMode::Stopped);
        if round % 3 == 0 {
            // Wanted again while the cancellation is on its way.
            rig.net.read(rig.keys[0], ReadMode::Many);
        }
        rig.net.wait(rig.now, Duration::from_millis(1));
        rig.take();
        rig.net.wait(rig.now, Duration::from_millis(1));
        rig.take();
        if round % 3 != 0 {
            let stopped_at = rig.received_size(0);
            rig.net.wait(rig.now, Duration::from_millis(2));
            rig.take();
            assert_eq!(rig.received_size(0), stopped_at, "it is not read while stopped");
            stops += 1;
            rig.net.read(rig.keys[0], ReadMode::Many);
            rig.net.wait(rig.now, Duration::from_millis(2));
            rig.take();
        }
    }
    rig.until("received", |rig| rig.received_size(0) == bytes.len());
    assert!(rig.received[&0] == bytes);
    assert!(stops > 3);
    drop(writing.join().unwrap().unwrap());
}

fn an_output_of_many_slices_arrives_whole_and_in_order<N: TestNetwork>() {
    const SLICES: usize = 1_300;
    let parts = (0..SLICES)
        .map(|index| Part { at: index * 5, stored: stored(&pattern(index % 2_000 + 1)) });
    let output = Output { parts: parts.collect(), bytes: pattern(SLICES * 5 + 3) };
    let expected = output.slices().collect::<Vec<_>>().concat();
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.net.send(rig.keys[0], output, false);
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

fn a_large_output_to_a_slow_reader_is_one_send<N: TestNetwork>() {
    let bytes = pattern(8 << 20);
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.net.send(rig.keys[0], Output { bytes: bytes.clone(), parts: Vec::new() }, false);
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

fn what_a_socket_takes_at_once_leaves_without_a_completion<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    let output = Output { bytes: b"at once".to_vec(), parts: Vec::new() };
    let output = rig.net.send(rig.keys[0], output, true).expect("the socket had room");
    assert_eq!(output.bytes, b"at once");
    let mut received = [0; 7];
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"at once");
    rig.step();
    assert!(rig.sent.is_empty(), "the caller knew");
}

fn what_a_socket_does_not_take_at_once_follows_in_order<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    let bytes = pattern(16 << 20);
    let output = Output { bytes: bytes.clone(), parts: Vec::new() };
    assert!(rig.net.send(rig.keys[0], output, true).is_none(), "so much has no room");
    let reading = thread::spawn(move || {
        let mut received = vec![0; bytes.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == bytes);
    });
    rig.until("sent", |rig| rig.sent == [0]);
    reading.join().unwrap();
}

fn a_send_at_once_to_a_peer_that_has_gone_ends_the_connection<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Stopped);
    let client = rig.connect();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    rig.step();
    let output = || Output { bytes: b"x".to_vec(), parts: Vec::new() };
    assert!(rig.net.send(rig.keys[0], output(), true).is_none());
    rig.until("ended", |rig| rig.ended == [0]);
}

fn a_closed_socket_goes_with_its_last_completion<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.net.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() }, false);
    rig.step();
    rig.net.close(rig.keys[0]);
    rig.until("closed", |rig| rig.net.socket_count() == 0);
    assert_eq!((rig.sent.len(), rig.ended.len()), (0, 0), "nothing is said of a closed socket");
    let mut received = Vec::new();
    // An orderly end or a reset, but an end.
    let _ = client.read_to_end(&mut received);
    assert!(pattern(16 << 20).starts_with(&received));

    // The slot has a new use; the old key finds nothing.
    let stale = rig.keys[0];
    let mut client = rig.connect();
    assert_eq!(rig.keys[1].index, stale.index);
    rig.net.close(stale);
    rig.net.read(stale, ReadMode::Stopped);
    rig.net.send(stale, Output { bytes: b"stale".to_vec(), parts: Vec::new() }, false);
    assert!(rig.net.release(stale).is_none());
    rig.net.send(rig.keys[1], Output { bytes: b"fresh".to_vec(), parts: Vec::new() }, false);
    rig.until("sent", |rig| rig.sent == [1]);
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"fresh");
}

fn a_peer_that_goes_away_ends_the_connection<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let client = rig.connect();
    rig.step();
    drop(client);
    rig.until("ended", |rig| rig.ended == [0]);
    rig.net.close(rig.keys[0]);
    assert_eq!(rig.net.socket_count(), 0);
}

fn a_send_to_a_peer_that_has_gone_ends_the_connection<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Stopped);
    let client = rig.connect();
    rig.net.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() }, false);
    rig.step();
    drop(client);
    rig.until("ended", |rig| rig.ended == [0]);
    assert!(rig.sent.is_empty());
}

fn what_was_said_before_the_end_is_reported_before_the_end<N: TestNetwork>() {
    let mut broken_first = 0;
    for seed in 0..20 {
        let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
        let mut client = rig.connect();
        rig.net.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() }, false);
        rig.step();
        let words = pattern(3_000 + seed);
        client.write_all(&words).unwrap();
        // With bytes unread this is a reset: the send fails, whatever was received.
        drop(client);
        for round in 0..STEPS_MAX {
            rig.step();
            if !rig.ended.is_empty() || rig.net.is_broken(rig.keys[0]) {
                break;
            }
            assert!(round < STEPS_MAX - 1);
        }
        broken_first += usize::from(rig.ended.is_empty());
        rig.net.read(rig.keys[0], ReadMode::Stopped);
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

/// Connections that come, speak, stall and go in any order, and a network told to read, send, give away and close in any
/// order: what arrives is what was written, and in the end the kernel holds the accept alone.
fn check_storm<N: TestNetwork>(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let settings = RingSettings {
        entries: 1 << random.u32(1..5),
        receive_buffers: 1 << random.u16(0..4),
        receive_buffer_size: 1 << random.u32(0..14),
        shares_buffers: kernel::shares_buffers() && random.bool(),
    };
    let mut rig = Rig::<N>::new(settings, ReadMode::Many);
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
            6 => rig.net.read(key, ReadMode::Once),
            7 => rig.net.read(key, ReadMode::Many),
            8 => rig.net.read(key, ReadMode::Stopped),
            9 if !rig.net.is_sending(key) && !rig.ended.contains(&(owner as u64)) => {
                let output = Output { bytes: pattern(size), parts: Vec::new() };
                rig.net.send(key, output, random.bool());
            }
            10 if random.bool() => {
                rig.net.close(key);
            }
            11 => released += usize::from(rig.net.release(key).is_some()),
            _ => {}
        }
        rig.net.wait(rig.now, Duration::from_micros(random.u64(1..300)));
        rig.take();
        for owner in rig.ended.drain(..) {
            rig.net.close(rig.keys[owner as usize]);
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
        rig.net.close(key);
    }
    rig.until("closed", |rig| rig.net.socket_count() == 0);
    assert!(rig.net.holds_nothing(), "seed {seed}: the kernel holds more than the accept");
    let received: usize = rig.received.values().map(Vec::len).sum();
    assert!(received > 0, "seed {seed}: {released} released");
}

fn a_storm_of_events_mixes_nothing_up_and_leaves_nothing_behind<N: TestNetwork>() {
    for seed in 0..60 {
        check_storm::<N>(seed);
    }
}

fn accepting_stops<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let _client = rig.connect();
    rig.net.stop_accepting();
    rig.step();
    TcpStream::connect(rig.address).expect_err("nobody waits for what nobody accepts");
    for _ in 0..3 {
        rig.step();
    }
    assert_eq!(rig.keys.len(), 1);
}

fn a_bell_rung_at_any_time_ends_the_wait<N: TestNetwork>() {
    let long = Duration::from_secs(20);
    let bell = Arc::new(EventFd::new().unwrap());
    let mut net = N::make(SMALL);
    net.watch(bell.clone());
    let began = std::time::Instant::now();
    bell.ring();
    net.wait(Instant::ZERO, long);
    for _ in 0..100 {
        assert!(net.next_event(Instant::ZERO).is_none());
        bell.ring();
        net.wait(Instant::ZERO, long);
    }
    assert!(net.next_event(Instant::ZERO).is_none());
    let other = {
        let bell = bell.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            bell.ring();
        })
    };
    net.wait(Instant::ZERO, long);
    other.join().unwrap();
    assert!(began.elapsed() < long);
}

fn a_wait_ends_in_time<N: TestNetwork>() {
    let mut net = N::make(SMALL);
    let began = std::time::Instant::now();
    net.wait(Instant::ZERO, Duration::from_millis(30));
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert!(began.elapsed() < Duration::from_secs(10));
}

fn a_spinning_thread_sees_that_there_is_work_without_entering_the_kernel<N: TestNetwork>() {
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut client = rig.connect();
    rig.step();
    rig.step();
    assert!(!rig.net.has_work());
    client.write_all(b"work").unwrap();
    let began = std::time::Instant::now();
    while !rig.net.has_work() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::hint::spin_loop();
    }
    rig.net.poll(rig.now);
    rig.take();
    assert_eq!(rig.received_size(0), 4);
}

fn a_spinning_thread_sees_that_the_bell_was_rung<N: TestNetwork>() {
    let bell = Arc::new(EventFd::new().unwrap());
    let mut net = N::make(SMALL);
    net.watch(bell.clone());
    net.poll(Instant::ZERO);
    for _ in 0..20 {
        while net.next_event(Instant::ZERO).is_some() {}
        net.poll(Instant::ZERO);
        assert!(!net.has_work());
        bell.ring();
        let began = std::time::Instant::now();
        while !net.has_work() {
            assert!(began.elapsed() < child::PATIENCE, "nobody hears the bell");
        }
        net.poll(Instant::ZERO);
    }
}

fn accepting_with_few_descriptors<N: TestNetwork>() {
    // Before the accept is submitted: that is when the kernel looks at the limit.
    crate::system::calls::set_resource_limit(rustix::process::Resource::Nofile, 64).unwrap();
    let mut rig = Rig::<N>::new(SMALL, ReadMode::Many);
    let mut clients: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    let mut fillers: Vec<_> =
        (0..64).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
    fillers.truncate(fillers.len() - 3);
    // Each connection takes one descriptor here and one there: the second finds none for its accept.
    let late: Vec<_> = (0..2).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    rig.until("refused twice", |rig| rig.accept_errors >= 2);
    assert_eq!(rig.keys.len(), 5);
    assert!(rig.net.deadline().is_some(), "it backs off");
    clients.clear();
    for owner in 0..4 {
        rig.net.close(rig.keys[owner]);
    }
    rig.until("accepted", |rig| rig.keys.len() == 6);
    assert!(rig.accept_errors < 20, "it does not try all the time");
    drop((late, fillers));
}
