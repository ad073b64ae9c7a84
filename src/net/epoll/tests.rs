//! Tests of properties that only epoll has.

use std::io::Write;

use super::*;
use crate::net::tests::{Rig, SMALL, TestNetwork, pattern};
use crate::net::uring::RingSettings;

impl TestNetwork for Epoll {
    fn make(settings: RingSettings) -> Epoll {
        Epoll::new(settings.receive_buffer_size as usize).unwrap()
    }

    fn is_sending(&mut self, key: SocketKey) -> bool {
        self.sockets.get_mut(key).is_none_or(|socket| socket.is_sending())
    }

    fn is_broken(&mut self, key: SocketKey) -> bool {
        self.sockets.get_mut(key).unwrap().is_broken()
    }

    fn holds_nothing(&self) -> bool {
        self.sent.is_empty()
    }
}

/// A connection with much to say leaves room for others, and goes on without being asked.
#[test]
fn a_turn_takes_a_bounded_number_of_bytes_from_a_connection() {
    let mut rig = Rig::<Epoll>::new(SMALL, ReadMode::Many);
    let (mut loud, mut quiet) = (rig.connect(), rig.connect());
    loud.write_all(&pattern(100 * 256)).unwrap();
    quiet.write_all(b"quiet").unwrap();
    let mut turns = 0;
    while rig.received_size(0) < 100 * 256 {
        let before = rig.received_size(0);
        rig.step();
        turns += 1;
        assert!(rig.received_size(0) - before <= 256);
        assert!(turns > 2 || rig.received_size(0) < 100 * 256);
        if turns == 2 {
            assert_eq!(rig.received_size(1), 5, "it had its turn");
        }
    }
    assert!(turns >= 100);
    assert_eq!(rig.received[&0], pattern(100 * 256));
}

#[test]
fn a_socket_that_was_given_away_is_read_on_by_the_other() {
    let mut rig = Rig::<Epoll>::new(SMALL, ReadMode::Once);
    let mut client = rig.connect();
    client.write_all(b"connect").unwrap();
    rig.until("received", |rig| rig.received_size(0) == 7);
    let socket = rig.net.release(rig.keys[0]).expect("nothing is in flight");
    assert_eq!(rig.net.socket_count(), 0);
    client.write_all(b"publish").unwrap();
    rig.step();
    assert_eq!(rig.received_size(0), 7, "the first one has let go of it");
    let mut other = Epoll::new(64).unwrap();
    let key = other.adopt(socket, 9);
    other.read(key, ReadMode::Many);
    other.wait(Instant::ZERO, Duration::from_secs(10));
    match other.next_event(Instant::ZERO) {
        Some(Event::Received { owner: 9, bytes }) => assert_eq!(bytes, b"publish"),
        event => panic!("{event:?}"),
    }
}

/// What has left is reported with the next turn, once, and nobody sleeps before.
#[test]
fn an_output_that_has_left_is_reported_in_the_next_turn() {
    let mut rig = Rig::<Epoll>::new(SMALL, ReadMode::Many);
    let _client = rig.connect();
    let output = Output::from(b"x".to_vec());
    assert!(rig.net.send(rig.keys[0], output, false).is_none());
    assert!(rig.sent.is_empty() && rig.net.is_sending(rig.keys[0]));
    let began = std::time::Instant::now();
    rig.net.wait(Instant::ZERO, Duration::from_secs(20));
    assert!(began.elapsed() < Duration::from_secs(10));
    rig.step();
    assert_eq!(rig.sent, [0]);
    assert!(!rig.net.is_sending(rig.keys[0]));
}
