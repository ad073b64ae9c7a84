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
    let mut send = Sending::new();
    send.fill(Output { parts: parts.into(), ..Output::from(b"abcdef".to_vec()) }, 0);
    assert!(!send.advance(2));
    assert_eq!(send.described(), b"c0123456789def");
    assert!(!send.advance(5));
    assert_eq!(send.described(), b"456789def");
    assert!(!send.advance(7));
    assert_eq!(send.described(), b"ef");
    assert!(send.advance(2));
}

/// Flags of a completion that names a buffer: its last bytes, or more comes into it.
fn flags_of(buffer: u16, is_last: bool) -> u32 {
    const HAS_BUFFER: u32 = 1;
    const HAS_MORE: u32 = 1 << 4;
    u32::from(buffer) << 16 | HAS_BUFFER | if is_last { 0 } else { HAS_MORE }
}

/// What the buffers make of a completion that the test makes up, in a ring without a receive.
fn lend(ring: &mut Ring, result: i32, flags: u32) -> Option<Loan> {
    // SAFETY: needed to call what completions are told to. Sound because the kernel has no receive, so that it touches no buffer.
    unsafe { ring.buffers.lend(result, flags) }
}

struct Probe<T>(std::marker::PhantomData<T>);

impl<T: Clone> Probe<T> {
    #[allow(dead_code, reason = "of a loan that can be cloned it would be used")]
    const IS_CLONE: bool = true;
}

trait NoClone {
    const IS_CLONE: bool = false;
}

impl<T> NoClone for Probe<T> {}

#[test]
fn a_loan_is_given_back_once_and_only_the_last_one_returns_its_buffer() {
    // Giving it back uses it up, and there is no second one.
    const { assert!(!Probe::<Loan>::IS_CLONE && Probe::<u16>::IS_CLONE) };
    if !has_io_uring() {
        return;
    }
    let mut ring = Ring::new(RingSettings { shares_buffers: true, ..SMALL }).unwrap();
    let queued = ring.buffers.queued();
    for is_last in [false, false, true] {
        let loan = lend(&mut ring, 10, flags_of(2, is_last)).expect("ten bytes");
        assert_eq!(ring.buffers.queued(), queued);
        ring.buffers.give_back(loan);
        assert_eq!(ring.buffers.queued(), queued + u16::from(is_last));
    }
    // The event that lent it is over, and the next one, and a wait.
    ring.lent = lend(&mut ring, 10, flags_of(3, true));
    for _ in 0..3 {
        assert!(ring.next_event(Instant::ZERO).is_none());
        ring.poll(Instant::ZERO);
        assert_eq!(ring.buffers.queued(), queued + 2);
    }
}

#[test]
fn a_completion_without_data_returns_no_shared_buffer() {
    if !has_io_uring() {
        return;
    }
    for shares_buffers in [true, false] {
        let mut ring = Ring::new(RingSettings { shares_buffers, ..SMALL }).unwrap();
        let queued = ring.buffers.queued();
        for result in [0, -libc::ECONNRESET] {
            let loan = lend(&mut ring, result, flags_of(1, true));
            // One that is nobody else's is used up whatever came in it.
            assert_eq!(loan.is_none(), shares_buffers);
            if let Some(loan) = loan {
                ring.buffers.give_back(loan);
            }
        }
        assert_eq!(ring.buffers.queued() - queued, if shares_buffers { 0 } else { 2 });
        assert!(lend(&mut ring, 0, 0).is_none());
    }
}

/// The same with the kernel: a connection that ends is told by a completion without data.
#[test]
fn connections_that_end_return_no_shared_buffer() {
    if !has_io_uring() || !kernel::shares_buffers() {
        return;
    }
    let settings = RingSettings { shares_buffers: true, receive_buffer_size: 4096, ..SMALL };
    let mut rig = Rig::<Ring>::new(settings, ReadMode::Many);
    let mut speaker = rig.connect();
    let queued = rig.net.buffers.queued();
    for round in 1..=20 {
        let leaver = rig.connect();
        speaker.write_all(b"0123456789").unwrap();
        rig.until("heard", |rig| rig.received_size(0) == round * 10);
        drop(leaver);
        rig.until("ended", |rig| rig.ended.len() == round);
        rig.net.close(rig.keys[round]);
    }
    assert_eq!(rig.net.buffers.queued(), queued, "200 bytes fill no buffer");
    assert_eq!(rig.received[&0], b"0123456789".repeat(20));
}

#[test]
fn a_receiver_that_changes_its_bytes_changes_no_others() {
    if !has_io_uring() {
        return;
    }
    let mut ring = Ring::new(RingSettings { shares_buffers: true, ..SMALL }).unwrap();
    let mut loans: Vec<Loan> = [10, 1, 245]
        .map(|size| lend(&mut ring, size, flags_of(1, size == 245)).expect("bytes"))
        .into();
    let whole = |ring: &mut Ring, loans: &mut [Loan]| {
        let bytes = loans.iter_mut().map(|loan| ring.buffers.bytes(loan).to_vec());
        bytes.collect::<Vec<_>>()
    };
    let mut expected = vec![vec![0; 10], vec![0; 1], vec![0; 245]];
    for index in [1, 0, 2] {
        ring.buffers.bytes(&mut loans[index]).fill(7 + index as u8);
        expected[index].fill(7 + index as u8);
        assert_eq!(whole(&mut ring, &mut loans), expected);
    }
    // Neighbours of the buffer are as they were.
    for neighbour in [0, 2] {
        let mut loan = lend(&mut ring, 256, flags_of(neighbour, true)).expect("bytes");
        assert_eq!(ring.buffers.bytes(&mut loan), [0; 256]);
    }
}

#[test]
fn a_send_that_is_dropped_while_the_kernel_has_it_frees_nothing() {
    let mut sending = Box::new(Sending::new());
    sending.fill(Output::from(b"abc".to_vec()), 0);
    let place = std::ptr::from_ref(&*sending) as usize;
    let mut table = Vec::with_capacity(1);
    table.push(InFlight::begin(sending, 0).0);
    // A table that grows moves its entries, not what the kernel reads.
    table.reserve(1000);
    let in_flight = table.pop().expect("it was pushed");
    // SAFETY: needed to free it. Sound because the entry was never submitted.
    let mut sending = unsafe { in_flight.complete() };
    assert_eq!(std::ptr::from_ref(&*sending) as usize, place);
    assert_eq!(sending.finish().bytes, b"abc");
    assert!(!std::mem::needs_drop::<InFlight>(), "who drops it frees nothing");
}

#[test]
fn a_dropped_ring_closes_its_sockets_and_frees_what_it_lent() {
    if !has_io_uring() {
        return;
    }
    let mut rig = Rig::<Ring>::new(SMALL, ReadMode::Many);
    rig.net.watch(Arc::new(EventFd::new().unwrap()));
    let mut clients: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    rig.net.send(rig.keys[0], Output::from(pattern(16 << 20)), false);
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
    let output = Output { parts: parts.into(), ..Output::from(b"ac".to_vec()) };
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
    rig.net.send(rig.keys[0], Output::from(pattern(16 << 20)), false);
    rig.step();
    rig.net.close(rig.keys[0]);
    assert_eq!(rig.net.socket_count(), 1, "the kernel still reads the output");
    rig.until("closed", |rig| rig.net.socket_count() == 0);
}
