//! The packets in `tests/vectors`: see its README for the format.

use std::collections::{BTreeMap, BTreeSet};

use ringmq::codec::{ProtocolVersion, ReasonCode, frame_size, next_frame};

use crate::{PACKET_SIZE_MAX, decode, encode, packets};

const FILES: [&str; 6] = [
    include_str!("../vectors/connect.txt"),
    include_str!("../vectors/connack.txt"),
    include_str!("../vectors/publish.txt"),
    include_str!("../vectors/acks.txt"),
    include_str!("../vectors/subscribe.txt"),
    include_str!("../vectors/others.txt"),
];

pub(crate) struct Vector {
    pub name: &'static str,
    pub version: ProtocolVersion,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Decodes, and is what we write.
    Exact,
    /// Decodes, but we write it otherwise.
    Loose,
    Error {
        kind: &'static str,
        reason: ReasonCode,
    },
}

/// Every vector, once for each of its versions.
pub(crate) fn all() -> Vec<Vector> {
    FILES.iter().flat_map(|file| rows(file)).flat_map(|columns| read(&columns)).collect()
}

/// The columns of each line that says something.
pub(crate) fn rows(file: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    file.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(" | ").collect())
}

fn read(columns: &[&'static str]) -> Vec<Vector> {
    let [name, versions, text, outcome] = columns else { panic!("four columns: {columns:?}") };
    let outcome = match outcome.split_once(' ') {
        None if *outcome == "ok" => Outcome::Exact,
        None => {
            assert_eq!(*outcome, "loose", "{name}");
            Outcome::Loose
        }
        Some((kind, code)) => {
            let code = u8::from_str_radix(code, 16).expect("a reason code");
            Outcome::Error { kind, reason: ReasonCode::from_u8(code).expect("a reason code") }
        }
    };
    versions
        .chars()
        .map(|digit| {
            let version = match digit {
                '3' => ProtocolVersion::V31,
                '4' => ProtocolVersion::V311,
                _ => ProtocolVersion::V5,
            };
            Vector { name, version, bytes: bytes(text), outcome: outcome.clone() }
        })
        .collect()
}

/// `text` as bytes.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut items = text.split_whitespace();
    let mut out = Vec::new();
    write(&mut items, &mut out);
    assert_eq!(items.next(), None, "a ] without its [ in {text}");
    out
}

fn write<'a>(items: &mut impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    while let Some(item) = items.next() {
        match item.as_bytes() {
            b"]" => return,
            b"[" | b"~" => {
                let mut inner = Vec::new();
                write(items, &mut inner);
                put_var_int(inner.len(), out);
                out.extend(inner);
            }
            [b'\'', text @ .., b'\''] => {
                let text = repeated(text);
                out.extend((text.len() as u16).to_be_bytes());
                out.extend(text);
            }
            [b'"', text @ .., b'"'] => out.extend(repeated(text)),
            _ => out.push(u8::from_str_radix(item, 16).expect("a byte in hex")),
        }
    }
}

fn repeated(text: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(text).expect("UTF-8");
    match text.split_once('*') {
        Some((text, count)) => text.repeat(count.parse().expect("a count")).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

fn put_var_int(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[test]
fn every_vector_decodes_to_what_it_says() {
    for Vector { name, version, bytes, outcome } in all() {
        let result = match next_frame(&bytes, PACKET_SIZE_MAX) {
            Err(error) => Err(error),
            Ok(frame) => {
                assert_eq!(frame.expect(name).size, bytes.len(), "{name}");
                decode(&bytes, version)
            }
        };
        match outcome {
            Outcome::Exact | Outcome::Loose => {
                assert_eq!(result, Ok(packets::named(name)), "{name} {version:?}");
            }
            Outcome::Error { kind, reason } => {
                let error = result.expect_err(name);
                assert_eq!(kind_of(error), kind, "{name} {version:?}");
                assert_eq!(error.reason(), reason, "{name} {version:?}");
                assert!(reason.is_error(), "{name}");
            }
        }
    }
}

#[test]
fn every_vector_is_encoded_as_it_says() {
    for Vector { name, version, bytes, outcome } in all() {
        if matches!(outcome, Outcome::Error { .. }) {
            continue;
        }
        let encoded = encode(&packets::named(name), version);
        assert_eq!(encoded == bytes, outcome == Outcome::Exact, "{name}: {encoded:02x?}");
        assert_eq!(decode(&encoded, version), Ok(packets::named(name)), "{name}");
    }
}

#[test]
fn every_kind_of_error_has_a_vector() {
    let seen: BTreeSet<&str> = all()
        .into_iter()
        .filter_map(|vector| match vector.outcome {
            Outcome::Error { kind, .. } => Some(kind),
            _ => None,
        })
        .collect();
    // Only the decoders of single packets, called with another packet, say that it is another.
    let source = include_str!("../../src/codec/error.rs");
    let (_, body) = source.split_once("pub enum DecodeError {").expect("the enum");
    let (body, _) = body.split_once("\n}").expect("its end");
    let kinds: BTreeSet<&str> = body
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|line| line.split(['(', ',']).next().expect("a name"))
        .filter(|kind| *kind != "OtherPacket")
        .collect();
    assert_eq!(seen, kinds);
}

#[test]
fn names_are_used_once_and_in_full() {
    let mut names = BTreeMap::new();
    for columns in FILES.iter().flat_map(|file| rows(file)) {
        *names.entry(columns[0]).or_insert(0) += 1;
    }
    let repeated: Vec<_> = names.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}

#[test]
fn a_prefix_of_a_packet_is_not_a_frame() {
    for Vector { name, bytes, outcome, .. } in all() {
        let framing_error = next_frame(&bytes, PACKET_SIZE_MAX).is_err();
        for end in 0..bytes.len().min(300) {
            match next_frame(&bytes[..end], PACKET_SIZE_MAX) {
                Ok(frame) => assert_eq!(frame, None, "{name} up to {end}"),
                Err(error) => {
                    assert!(framing_error, "{name} up to {end}: {error}");
                    assert!(matches!(outcome, Outcome::Error { .. }), "{name}");
                }
            }
        }
        if !framing_error {
            assert_eq!(frame_size(&bytes), Ok(Some(bytes.len())), "{name}");
        }
    }
}

/// A packet that lost its end, its remaining length made to fit, is another packet or an error, never a panic; and no
/// field is made up, so what decodes is never more than what is there.
#[test]
fn a_packet_that_lost_its_end_does_not_grow() {
    let mut refused = 0;
    for Vector { name, version, bytes, .. } in all() {
        let Ok(Some(frame)) = next_frame(&bytes, PACKET_SIZE_MAX) else { continue };
        for end in 0..frame.body.len().min(300) {
            let mut cut = vec![frame.first_byte];
            put_var_int(end, &mut cut);
            cut.extend(&frame.body[..end]);
            match decode(&cut, version) {
                Ok(packet) => assert!(
                    encode(&packet, version).len() <= cut.len() + 4,
                    "{name} up to {end}: {packet:?}"
                ),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_packet_at_the_limit_is_taken_and_one_above_is_not() {
    for Vector { name, bytes, .. } in all() {
        if next_frame(&bytes, PACKET_SIZE_MAX).is_err() {
            continue;
        }
        assert!(next_frame(&bytes, bytes.len()).expect(name).is_some());
        let error = next_frame(&bytes, bytes.len() - 1).expect_err(name);
        assert_eq!(error.reason(), ReasonCode::PacketTooLarge, "{name}");
    }
}

fn kind_of(error: ringmq::codec::DecodeError) -> String {
    let text = format!("{error:?}");
    text.split('(').next().expect("a name").to_string()
}
