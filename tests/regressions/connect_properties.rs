//! Errors in the properties of CONNECT and of its will: every property malformed, twice, cut short, misplaced, too long.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::bystanders::Bystanders;
use crate::client::{Client, PATIENCE, Received};
use crate::each_shard_count;
use crate::fields::{Kind, PROPERTIES, Type};
use crate::wire::{self, Version};

/// Which property section of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
}

/// MQTT 5.0 sections 3.1.2.11 and 3.1.3.2: where a client may use each.
const ALLOWED: [(Place, &[u8]); 2] = [
    (Place::Connect, &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
    (Place::Will, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
];

const USER_PROPERTY: u8 = 0x26;
const AUTH_METHOD: u8 = 0x15;
const AUTH_DATA: u8 = 0x16;

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const BAD_AUTH_METHOD: u8 = 0x8C;
const TOO_LARGE: u8 = 0x95;

/// Reason codes with which a CONNECT may be answered.
type Answers = &'static [u8];
const TAKEN: Answers = &[0];
const WRONG: Answers = &[MALFORMED, PROTOCOL_ERROR];

/// CONNECTs of random bytes in each run.
const RANDOM: usize = 5000;

#[derive(Debug)]
struct Case {
    name: String,
    packet: Vec<u8>,
    answers: Answers,
}

#[test]
fn a_wrong_property_in_connect_harms_nobody() {
    each_shard_count(&["--connect-size-max=1MiB"], |world| {
        let address = world.address();
        let bystanders = Bystanders::start(address);
        let mut watcher = Client::join(address, Version::V5, "watcher-of-refused", &[]);
        watcher.subscribe(&["refused/#@0"]);
        let cases = cases();
        assert!(cases.len() > 200, "{} cases", cases.len());
        for case in &cases {
            check(address, case);
        }
        cut_short(address);
        random_bytes(address);
        assert_eq!(watcher.receive(Duration::from_millis(100)), Received::Nothing);
        watcher.leave();
        bystanders.finish();
    });
}

/// One CONNECT, a publish behind it, and what comes back.
fn check(address: SocketAddr, case: &Case) {
    let mut client = Client::open(address, Version::V5);
    let is_taken = case.answers == TAKEN;
    let topic: &[u8] = if is_taken { b"taken/t" } else { b"refused/t" };
    let mut behind = vec![0x30, 3 + topic.len() as u8];
    wire::prefixed(topic, &mut behind).unwrap();
    behind.push(0);
    // A broker that refuses may close before it has read all.
    let _ = std::io::Write::write_all(&mut client.socket, &[&case.packet[..], &behind].concat());
    match client.receive(PATIENCE) {
        Received::Frame(frame) => {
            let connack = wire::decode(&frame, Version::V5).unwrap();
            let code = connack.number("reason").unwrap_or(0) as u8;
            assert_eq!(connack.kind, Kind::Connack, "{}: {connack}", case.name);
            let names = |code: &u8| format!("{code:#04x}");
            let wanted: Vec<String> = case.answers.iter().map(names).collect();
            assert!(case.answers.contains(&code), "{}: {connack}, not {wanted:?}", case.name);
        }
        // Too much of it was unread: the answer was lost with the reset.
        Received::Closed if case.answers == [TOO_LARGE] => return,
        other => panic!("{}: {other:?}", case.name),
    }
    if is_taken {
        client.leave();
    } else {
        assert_eq!(client.receive(PATIENCE), Received::Closed, "{}", case.name);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, allowed) in ALLOWED {
        let mut add = |name: &str, section: &[u8], answers: Answers| {
            let name = format!("{place:?}: {name}");
            cases.push(Case { name, packet: connect_with(place, section, None), answers });
        };
        for (id, name, kind, _) in PROPERTIES {
            let own = with_id(id, &valid(id, kind));
            if !allowed.contains(&id) {
                add(&format!("{name} misplaced"), &own, WRONG);
                // Where it may stand, some of these have an answer that CONNACK cannot give.
                add(&format!("{name} misplaced, of zeros"), &with_id(id, &[0; 4]), WRONG);
                continue;
            }
            let answers: Answers = match id {
                AUTH_METHOD => &[BAD_AUTH_METHOD],
                AUTH_DATA => WRONG,
                _ => TAKEN,
            };
            add(&format!("{name} as it should be"), &own, answers);
            let twice = [&own[..], &own].concat();
            let answers = if id == USER_PROPERTY { TAKEN } else { WRONG };
            add(&format!("{name} twice"), &twice, answers);
            for size in 1..own.len() {
                add(&format!("{name} cut to {size} bytes"), &own[..size], &[MALFORMED]);
            }
            for (wrong, value) in wrong_values(id, kind) {
                add(&format!("{name} {wrong}"), &with_id(id, &value), WRONG);
            }
            // Behind another property, and with bytes of no meaning behind itself.
            let user = with_id(USER_PROPERTY, b"\x00\x01k\x00\x01v");
            let last = &own[..own.len() - 1];
            add(&format!("{name} cut, behind another"), &[&user, last].concat(), &[MALFORMED]);
            add(&format!("{name} with a zero behind"), &[&own[..], &[0]].concat(), WRONG);
        }
        for id in [0x00, 0x04, 0x0A, 0x14, 0x20, 0x2B, 0x7F] {
            add(&format!("unknown property {id:#04x}"), &with_id(id, &[0, 0, 0, 0]), WRONG);
        }
        add("identifier of two bytes", &[0x91, 0x00, 0, 0, 0, 9], WRONG);
        add("identifier that does not end", &[0xFF; 5], WRONG);
        let long = with_id(USER_PROPERTY, &[pair(65_535, b'k'), pair(65_535, b'v')].concat());
        add("user property of the largest size", &long, TAKEN);
        add("more than a packet may have", &long.repeat(9), &[TOO_LARGE]);
        add("ten thousand user properties", &with_id(USER_PROPERTY, &[0; 4]).repeat(10_000), TAKEN);
        for (name, length) in lengths() {
            let section = with_id(USER_PROPERTY, b"\x00\x01k\x00\x01v");
            let packet = connect_with(place, &section, Some(&length));
            cases.push(Case { name: format!("{place:?}: {name}"), packet, answers: WRONG });
        }
    }
    cases
}

/// Lengths of a section of 7 bytes that are not 7.
fn lengths() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("length of a byte less", vec![6]),
        ("length 1", vec![1]),
        ("length up to the packet's end and beyond", vec![120]),
        ("length of megabytes", vec![0xFF, 0xFF, 0xFF, 0x7F]),
        ("length of five bytes", vec![0x87, 0x80, 0x80, 0x80, 0x00]),
        ("length longer than need be", vec![0x87, 0x00]),
    ]
}

fn with_id(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id], value].concat()
}

fn pair(size: usize, letter: u8) -> Vec<u8> {
    let mut out = Vec::new();
    wire::prefixed(&vec![letter; size], &mut out).unwrap();
    out
}

fn valid(id: u8, kind: Type) -> Vec<u8> {
    match kind {
        // Clean sessions end with their connection; the will is not delayed.
        Type::Byte => vec![u8::from(id != 0x01)],
        Type::Two => vec![0, 20],
        Type::Four if id == 0x27 => vec![0, 1, 0, 0],
        Type::Four => vec![0, 0, 0, if id == 0x02 { 9 } else { 0 }],
        Type::VarInt => vec![7],
        Type::Text | Type::Binary => b"\x00\x03abc".to_vec(),
        Type::Pair => b"\x00\x03key\x00\x05value".to_vec(),
    }
}

fn wrong_values(id: u8, kind: Type) -> Vec<(&'static str, Vec<u8>)> {
    let texts: [(&str, &[u8]); 5] = [
        ("that is not UTF-8", b"\x00\x02a\xFF"),
        ("with an overlong zero", b"\x00\x02\xC0\x80"),
        ("with half of a pair of surrogates", b"\x00\x03\xED\xA0\x80"),
        ("with a null character", b"\x00\x03a\x00b"),
        ("that ends within a character", b"\x00\x02a\xE2"),
    ];
    let mut wrong: Vec<(&str, Vec<u8>)> = match kind {
        Type::Byte => vec![("of 2", vec![2]), ("of 255", vec![255])],
        Type::Text => texts.map(|(name, text)| (name, text.to_vec())).to_vec(),
        Type::Pair => {
            let both = |(name, text): (&'static str, &[u8])| {
                [(name, [text, b"\x00\x01v"].concat()), (name, [b"\x00\x01k", text].concat())]
            };
            texts.into_iter().flat_map(both).collect()
        }
        _ => Vec::new(),
    };
    match id {
        0x21 => wrong.push(("of zero", vec![0, 0])),
        0x27 => wrong.push(("of zero", vec![0; 4])),
        0x08 => wrong.push(("with a wildcard", b"\x00\x03a/#".to_vec())),
        _ => {}
    }
    if matches!(kind, Type::Text | Type::Binary | Type::Pair) {
        wrong.push(("longer than the packet", b"\xFF\xFFabc".to_vec()));
    }
    wrong
}

/// A CONNECT with a will and `section` as its properties in `place`; `length` is written in front instead of its own.
fn connect_with(place: Place, section: &[u8], length: Option<&[u8]>) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05\x06\x00\x3C".to_vec();
    let put = |here: Place, body: &mut Vec<u8>| {
        if here != place {
            return body.push(0);
        }
        match length {
            Some(length) => body.extend(length),
            None => wire::var_int(section.len(), body),
        }
        body.extend(section);
    };
    put(Place::Connect, &mut body);
    body.extend(b"\x00\x05wrong");
    put(Place::Will, &mut body);
    body.extend(b"\x00\x09refused/w\x00\x04will");
    let mut packet = vec![0x10];
    wire::var_int(body.len(), &mut packet);
    packet.extend(body);
    packet
}

/// A CONNECT with much in it.
fn rich() -> Vec<u8> {
    let section = [
        with_id(0x21, &[0, 9]),
        with_id(USER_PROPERTY, b"\x00\x03key\x00\x05value"),
        with_id(0x22, &[0, 4]),
        with_id(0x19, &[1]),
        with_id(0x27, &[0, 0, 9, 9]),
    ];
    connect_with(Place::Connect, &section.concat(), None)
}

/// Every beginning of a CONNECT, then the end of the connection; and one that comes a byte at a time.
fn cut_short(address: SocketAddr) {
    let rich = rich();
    for size in 0..rich.len() {
        let mut client = Client::open(address, Version::V5);
        client.send(&rich[..size]);
        if size % 2 == 0 {
            client.reset();
        } else {
            client.socket.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.receive(PATIENCE), Received::Closed, "{size} bytes of CONNECT");
        }
    }
    let mut client = Client::open(address, Version::V5);
    for byte in &rich {
        client.send(&[*byte]);
    }
    assert_eq!(client.answer(Kind::Connack).bytes("reason"), None);
    client.leave();
}

/// CONNECTs with bytes changed, lost and added: each is taken or refused, or waits for more.
fn random_bytes(address: SocketAddr) {
    let mut random = fastrand::Rng::with_seed(7);
    let rich = rich();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..RANDOM {
        let mut packet = rich.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(2..packet.len() - 16);
            match random.u8(..4) {
                0 => drop(packet.remove(at)),
                1 => packet.insert(at, random.u8(..)),
                2 => packet[at] ^= 1 << random.u8(..8),
                _ => packet[at] = random.u8(..),
            }
        }
        let size = packet.len() - 2;
        packet[1] = size as u8;
        let mut client = Client::open(address, Version::V5);
        let _ = std::io::Write::write_all(&mut client.socket, &packet);
        match client.receive(PATIENCE) {
            Received::Frame(frame) if frame[3] == 0 => {
                taken += 1;
                // In order, so that the will stays unpublished, also when the next one takes the session over.
                client.leave();
            }
            // A level of its own, 3.1.1 for one, has other answers.
            Received::Frame(_) | Received::Closed => refused += 1,
            Received::Nothing => panic!("no answer to {packet:02x?}"),
        }
    }
    assert!(taken > 200 && refused > 2000, "{taken} taken, {refused} refused");
}
