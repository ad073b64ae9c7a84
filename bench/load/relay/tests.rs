//! The wires of the relay, without a network.

use ringmq::codec::{Connect, ProtocolVersion, Will};
use ringmq::net::Network;
use ringmq::net::epoll::Epoll;
use ringmq::shard::Output;

use super::acks::Ids;
use super::link::Link;
use super::wires::Wires;
use crate::client::{encode_connect, encode_subscribe};

/// Wires with as many links, on sockets that nobody uses.
fn wires(count: u64) -> Wires {
    let mut net = Epoll::new(64).expect("epoll");
    let mut wires = Wires::default();
    for owner in 0..count {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("it is free");
        wires.links.insert(Link::new(net.adopt(socket.into(), owner)));
    }
    wires
}

fn subscribe(wires: &mut Wires, link: usize, filter: &str, qos: u8) {
    let packet = encode_subscribe(&[filter.to_string()], qos, 3).expect("a QoS");
    assert_eq!(wires.receive(link, &packet), Ok(true));
    assert_eq!(sent(wires, link), [0x90, 3, 0, 1, qos]);
}

/// What would be sent to a link, which is sent with it.
fn sent(wires: &mut Wires, link: usize) -> Vec<u8> {
    let Some(output) = wires.links[link].output.take() else { return Vec::new() };
    let bytes = output.slices().collect::<Vec<_>>().concat();
    wires.sent(link, output);
    bytes
}

fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30 | qos << 1];
    let id = id.to_be_bytes();
    let id: &[u8] = if qos > 0 { &id } else { &[] };
    crate::message::write_size(&mut packet, 2 + topic.len() + id.len() + payload.len());
    packet.extend((topic.len() as u16).to_be_bytes());
    [packet, topic.as_bytes().to_vec(), id.to_vec(), payload.to_vec()].concat()
}

fn ack(first: u8, id: u16) -> Vec<u8> {
    [[first, 2], id.to_be_bytes()].concat()
}

#[test]
fn whole_packets_go_to_those_who_asked_for_them_however_they_arrive() {
    let mut wires = wires(4);
    for (index, filter) in [(1, "a/+"), (2, "a/b"), (3, "a/c")] {
        subscribe(&mut wires, index, filter, 0);
    }
    let large = vec![7; 300];
    let packets =
        [publish("a/b", 0, 0, b"12"), publish("a/b", 0, 0, &large), publish("a/b", 0, 0, b"")];
    let ends = [9, 9 + 308, 9 + 308 + 7];
    let all = packets.concat();
    for step in 1..all.len() {
        let (mut arrived, mut passed) = (0, [Vec::new(), Vec::new(), Vec::new()]);
        for bytes in all.chunks(step) {
            assert_eq!(wires.receive(0, bytes), Ok(true));
            arrived += bytes.len();
            let whole = ends.into_iter().filter(|end| *end <= arrived).max().unwrap_or(0);
            for (passed, link) in passed.iter_mut().zip(1..) {
                passed.extend(sent(&mut wires, link));
                assert_eq!(passed, if link == 3 { &[] } else { &all[..whole] }, "step {step}");
            }
        }
    }
    assert_eq!(wires.receive(0, &[0xe0, 0]), Ok(false));
}

#[test]
fn each_subscriber_has_packet_ids_of_its_own_and_everybody_an_answer_at_once() {
    for (qos, acked, last) in [(1, 0x40, 0x40), (2, 0x50, 0x70)] {
        let mut wires = wires(4);
        for link in [2, 3] {
            subscribe(&mut wires, link, "a/+", qos);
        }
        // The same id from two publishers at a time.
        let packets = [publish("a/b", qos, 9, b"12"), publish("a/b", qos, 7, b"3")].concat();
        for (from, own) in [(0, 1), (1, 3)] {
            assert_eq!(wires.receive(from, &packets), Ok(true));
            assert_eq!(sent(&mut wires, from), [ack(acked, 9), ack(acked, 7)].concat());
            for link in [2, 3] {
                let passed = [publish("a/b", qos, own, b"12"), publish("a/b", qos, own + 1, b"3")];
                assert_eq!(sent(&mut wires, link), passed.concat());
            }
        }
        for link in [2, 3] {
            let acks: Vec<u8> = (1..5).flat_map(|id| ack(acked, id)).collect();
            // Split within an acknowledgement.
            assert_eq!(wires.receive(link, &acks[..6]), Ok(true));
            assert_eq!(wires.receive(link, &acks[6..]), Ok(true));
            if qos == 2 {
                let releases: Vec<u8> = (1..5).flat_map(|id| ack(0x62, id)).collect();
                assert_eq!(sent(&mut wires, link), releases);
                assert_eq!(wires.receive(0, &releases), Ok(true));
                let ends: Vec<u8> = (1..5).flat_map(|id| ack(0x70, id)).collect();
                assert_eq!(sent(&mut wires, 0), ends);
                assert_eq!(wires.receive(link, &ends), Ok(true));
            }
            assert!(sent(&mut wires, link).is_empty());
            // Nothing more is due.
            assert!(wires.receive(link, &ack(last, 5)).is_err_and(|why| why.contains("nothing")));
        }
    }
}

#[test]
fn ids_go_round_and_are_never_given_twice_at_a_time() {
    let mut ids = Ids::default();
    ids.qos = 1;
    let mut next = 1;
    for count in [40_000, 30_000, 65_535, 1] {
        let mut give = ids.give(count).expect("none is in flight");
        let given: Vec<[u8; 2]> = (0..count).map(|_| give()).collect();
        drop(give);
        let expected = (0..count).map(|at| ((next - 1 + at) % 65_535 + 1) as u16);
        assert!(given.iter().copied().eq(expected.map(u16::to_be_bytes)));
        next += count;
        let acks: Vec<u8> = given.iter().flat_map(|id| [0x40, 2, id[0], id[1]]).collect();
        assert_eq!(ids.take(&acks), Ok(acks.len()));
    }
    drop(ids.give(65_535).expect("none is in flight"));
    assert!(ids.give(1).is_err_and(|why| why.contains("65536 messages unacknowledged")));
}

#[test]
fn what_has_several_receivers_and_is_large_leaves_by_reference() {
    let mut wires = wires(3);
    for link in [1, 2] {
        subscribe(&mut wires, link, "a", 2);
    }
    let payload = vec![7; 3000];
    for qos in 0..3 {
        let packets =
            |id| [publish("a", qos, id, &payload), publish("a", qos, id + 1, &payload)].concat();
        // The subscribers get one order of ids, so that of QoS 1 begins anew.
        for link in [1, 2] {
            wires.links[link].ids = Ids::default();
        }
        assert_eq!(wires.receive(0, &packets(5)), Ok(true));
        let taken = [1, 2].map(|link| wires.links[link].output.take().expect("it has something"));
        for (output, link) in taken.iter().zip(1..) {
            let shared: Vec<bool> =
                output.parts.iter().map(|part| part.stored.is_shared()).collect();
            assert_eq!(shared, if qos == 0 { vec![true] } else { vec![true; 2] });
            let expected = packets(if qos == 0 { 5 } else { 1 });
            assert_eq!(output.slices().collect::<Vec<_>>().concat(), expected);
            assert_eq!(output.size(), expected.len());
            wires.sent(link, Output::default());
        }
    }
}

#[test]
fn a_publisher_is_not_read_while_a_subscriber_has_much_to_take() {
    let mut wires = wires(3);
    subscribe(&mut wires, 2, "a", 0);
    let packet = publish("a", 0, 0, &[7; 200 << 10]);
    for from in [0, 1] {
        assert_eq!(wires.receive(from, &packet), Ok(true));
        assert_eq!((wires.links[from].is_paused, wires.changed.len()), (false, 0));
    }
    for from in [0, 1, 1] {
        assert_eq!(wires.receive(from, &packet), Ok(true));
        assert!(wires.links[from].is_paused);
    }
    assert_eq!(std::mem::take(&mut wires.changed), [0, 1]);
    assert_eq!(sent(&mut wires, 2), packet.repeat(5));
    assert_eq!(std::mem::take(&mut wires.changed), [0, 1]);
    assert!(![0, 1].map(|from| wires.links[from].is_paused).contains(&true));
    // Whoever leaves holds nobody back either.
    assert_eq!(wires.receive(0, &packet.repeat(3)), Ok(true));
    assert!(std::mem::take(&mut wires.changed) == [0] && wires.links[0].is_paused);
    assert!(wires.remove(2).is_some());
    assert!(wires.changed == [0] && !wires.links[0].is_paused);
}

#[test]
fn a_publisher_is_not_read_while_a_subscriber_has_many_ids_in_flight() {
    let mut wires = wires(2);
    subscribe(&mut wires, 1, "a", 1);
    let packets = |count| publish("a", 1, 1, b"").repeat(count);
    assert_eq!(wires.receive(0, &packets(16_383)), Ok(true));
    assert!(!wires.links[0].is_paused);
    assert_eq!(wires.receive(0, &packets(1)), Ok(true));
    assert!(wires.links[0].is_paused);
    sent(&mut wires, 1);
    assert_eq!(std::mem::take(&mut wires.changed), [0]);
    assert_eq!(wires.receive(1, &ack(0x40, 1)), Ok(true));
    assert!(wires.changed == [0] && !wires.links[0].is_paused);
}

#[test]
fn what_the_relay_cannot_do_is_refused_with_a_sentence() {
    let refused = |prepare: &[(usize, Vec<u8>)], last: (usize, Vec<u8>), sentence: &str| {
        let mut wires = wires(2);
        for (link, packet) in prepare {
            assert_eq!(wires.receive(*link, packet), Ok(true), "{sentence}");
        }
        let why = wires.receive(last.0, &last.1).expect_err(sentence);
        assert!(why.contains(sentence), "{why}");
    };
    let subscribe =
        |filter: &str, qos| encode_subscribe(&[filter.to_string()], qos, 3).expect("a QoS");
    let taker = || (1, subscribe("a", 1));
    refused(&[taker()], (0, publish("a", 2, 1, b"")), "was granted 1: the relay changes no QoS");
    refused(&[taker()], (0, vec![0x31, 3, 0, 1, b'a']), "the relay keeps no messages");
    refused(&[], (1, subscribe("$share/g/a", 0)), "no shared subscriptions");
    let is_5 = (0, encode_connect("c", 5, 60));
    refused(&[taker(), is_5.clone()], (0, vec![0x30, 4, 0, 1, b'a', 0]), "different versions");
    let alias = vec![0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1];
    refused(&[is_5], (0, alias), "topic alias");
    let two = (1, subscribe("b", 2));
    let first = (0, publish("a", 1, 1, b""));
    refused(&[taker(), two, first.clone()], (0, publish("b", 2, 2, b"")), "one order of ids");
    let mut with_will = Vec::new();
    let will = Some(Will { topic: "w", ..Will::default() });
    Connect { will, ..Connect::new(ProtocolVersion::V311, "c") }.encode(&mut with_will);
    refused(&[], (0, with_will), "the relay keeps none");
    refused(&[taker(), first.clone()], (1, ack(0x40, 2)), "id 1 was due");
    refused(&[taker(), first.clone()], (1, ack(0x50, 1)), "of type 5 for nothing");
    refused(&[taker(), first], (1, vec![0x40, 4, 0, 1, 0x87, 0]), "refused a message: 0x87");
    refused(&[], (0, vec![0xa2, 5, 0, 1, 0, 1, b'a']), "of type 10");
    refused(&[], (0, vec![0x32, 3, 0, 5, b'a']), "no packet id");
    let mut few = Vec::new();
    Connect { receive_max: Some(1), ..Connect::new(ProtocolVersion::V5, "c") }.encode(&mut few);
    let subscribed = (1, encode_subscribe(&["a".to_string()], 1, 5).expect("a QoS"));
    let sender = (0, encode_connect("c", 5, 60));
    let two = [0x32, 6, 0, 1, b'a', 0, 1, 0].repeat(2);
    refused(&[(1, few), subscribed, sender], (0, two), "2 messages unacknowledged, and takes 1");
}

#[test]
fn an_acknowledgement_with_a_reason_counts_as_one_without() {
    let mut wires = wires(2);
    subscribe(&mut wires, 1, "a", 2);
    assert_eq!(wires.receive(0, &publish("a", 2, 1, b"")), Ok(true));
    sent(&mut wires, 1);
    for with_reason in [vec![0x50, 3, 0, 1, 0], vec![0x70, 4, 0, 1, 0, 0]] {
        assert_eq!(wires.receive(1, &with_reason), Ok(true));
    }
    assert_eq!(sent(&mut wires, 1), ack(0x62, 1));
    assert_eq!(wires.receive(1, &[0xc0, 0]), Ok(true));
    assert_eq!(sent(&mut wires, 1), [0xd0, 0]);
}
