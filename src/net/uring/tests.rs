//! The ring against the kernel, on loopback: what holds for it alone.

use std::io::{Read, Write};

use super::*;
use crate::net::tests::{Rig, SMALL, TestNetwork, pattern, stored};
use crate::shard::Part;
use crate::system::io::tests::has_io_uring;

impl TestNetwork for Ring {
    fn make(settings: RingSettings) -> Ring {
        Ring::new(settings).unwrap()
    }

    fn is_sending(&mut self, key: SocketKey) -> bool {
        self.sockets.get_mut(key).is_none_or(|socket| socket.send.is_some())
    }

    fn is_broken(&mut self, key: SocketKey) -> bool {
        self.sockets.get_mut(key).unwrap().broken
    }

    fn holds_nothing(&self) -> bool {
        self.in_flight == 1
    }
}

#[test]
fn a_receive_that_ran_out_of_buffers_goes_on() {
    if !has_io_uring() {
        return;
    }
    let one = RingSettings { receive_buffers: 1, receive_buffer_size: 64, ..SMALL };
    let mut rig = Rig::<Ring>::new(one, ReadMode::Many);
    let mut clients: Vec<_> = (0..3).map(|_| rig.connect()).collect();
    let bytes = pattern(5_000);
    for client in &mut clients {
        client.write_all(&bytes).unwrap();
    }
    rig.until("all received", |rig| (0..3).all(|owner| rig.received_size(owner) == bytes.len()));
    assert!(rig.received.values().all(|received| *received == bytes));
    assert!(rig.net.receive_rearms() > 3);
}

/// Several connections speak before any of them is heard: what they said lies in one buffer.
#[test]
fn receives_share_buffers() {
    if !has_io_uring() {
        return;
    }
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
    let mut rig = Rig::<Ring>::new(settings, ReadMode::Many);
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
    assert_eq!(rig.net.receive_rearms(), 0, "four buffers are room for 50 receives");
}

#[test]
fn a_single_shot_receive_leaves_nothing_in_flight() {
    if !has_io_uring() {
        return;
    }
    let mut rig = Rig::<Ring>::new(SMALL, ReadMode::Once);
    let mut client = rig.connect();
    assert!(rig.net.release(rig.keys[0]).is_some(), "nothing was submitted yet");
    rig.keys.clear();
    drop(client);

    client = rig.connect();
    rig.step();
    assert!(rig.net.release(rig.keys[0]).is_none(), "the kernel holds a receive");
    client.write_all(b"connect").unwrap();
    rig.until("received", |rig| rig.received_size(0) == 7);
    let socket = rig.net.release(rig.keys[0]).expect("the receive has completed");
    assert_eq!(rig.net.socket_count(), 0);

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
fn a_dropped_ring_closes_its_sockets_and_frees_what_it_lent() {
    if !has_io_uring() {
        return;
    }
    let mut rig = Rig::<Ring>::new(SMALL, ReadMode::Many);
    rig.net.watch(Arc::new(EventFd::new().unwrap()));
    let mut clients: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    rig.net.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() }, false);
    rig.step();
    assert!(rig.net.settle(), "the kernel lets go of everything");
    assert_eq!((rig.net.socket_count(), rig.net.in_flight), (0, 0));
    drop(rig);
    for client in &mut clients {
        let _ = client.read_to_end(&mut Vec::new());
    }
}

#[test]
fn several_pieces_are_one_send() {
    if !has_io_uring() {
        return;
    }
    let mut rig = Rig::<Ring>::new(SMALL, ReadMode::Many);
    let _client = rig.connect();
    let parts = vec![Part { at: 1, stored: stored(b"b") }];
    let output = Output { bytes: b"ac".to_vec(), parts };
    assert!(rig.net.send(rig.keys[0], output, true).is_none());
    rig.until("sent", |rig| rig.sent == [0]);
}

#[test]
fn a_closed_socket_stays_until_the_kernel_lets_go_of_its_output() {
    if !has_io_uring() {
        return;
    }
    let mut rig = Rig::<Ring>::new(SMALL, ReadMode::Many);
    let _client = rig.connect();
    rig.net.send(rig.keys[0], Output { bytes: pattern(16 << 20), parts: Vec::new() }, false);
    rig.step();
    rig.net.close(rig.keys[0]);
    assert_eq!(rig.net.socket_count(), 1, "the kernel still reads the output");
    rig.until("closed", |rig| rig.net.socket_count() == 0);
}
