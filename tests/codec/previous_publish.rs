//! A PUBLISH that is read behind another of its connection is read as if it were alone.

use ringmq::codec::{
    DecodeError, ForwardedProperties, Frame, Packet, PreviousPublish, Property, ProtocolVersion,
    Publish, next_frame,
};
use ringmq::random::Random;

const V5: ProtocolVersion = ProtocolVersion::V5;

/// Topics, and properties that travel: few, so that neighbours often have the same.
const TOPICS: [&str; 3] = ["a/b", "a/c", "a"];
const OWN: [&[Property<'static>]; 5] = [
    &[],
    &[Property::UserProperty("k", "v"), Property::UserProperty("k", "")],
    &[Property::UserProperty("k", "w")],
    &[Property::UserProperty("k", "v"), Property::PayloadFormat(true)],
    &[Property::ContentType("t"), Property::UserProperty("\u{fc}", "v")],
];

fn random_packet(random: &mut Random) -> Vec<u8> {
    let mut raw = Vec::new();
    OWN[random.below(5) as usize].iter().for_each(|property| property.encode(&mut raw));
    let mut some = |value| (random.below(6) == 0).then_some(value);
    let publish = Publish {
        topic_alias: some(3).map(|alias| alias as u16),
        message_expiry_s: some(9),
        topic: TOPICS[random.below(3) as usize],
        properties: ForwardedProperties::from_raw(&raw),
        payload: b"payload",
        ..Publish::default()
    };
    let mut bytes = Vec::new();
    Packet::Publish(publish).encode(V5, &mut bytes);
    if random.below(4) == 0 {
        // Behind the fixed header, so that it stays a frame.
        let place = 2 + random.below(bytes.len() as u64 - 2) as usize;
        bytes[place] = [0, 1, 0x26, 0x80, b'#'][random.below(5) as usize];
    }
    bytes
}

fn read<'a>(
    frame: &Frame<'a>,
    previous: &mut PreviousPublish<'a>,
) -> Result<Publish<'a>, DecodeError> {
    let mut publish = Publish::default();
    publish.read(frame, V5, previous).map(|()| publish)
}

#[test]
fn what_stood_before_changes_nothing() {
    let mut random = Random::new(3);
    let (mut good_count, mut bad_count) = (0, 0);
    for _ in 0..3_000 {
        let packets: Vec<_> = (0..10).map(|_| random_packet(&mut random)).collect();
        let mut previous = PreviousPublish::default();
        for packet in &packets {
            let frame = next_frame(packet, usize::MAX).unwrap().unwrap();
            let alone = Publish::decode(&frame, V5);
            assert_eq!(read(&frame, &mut previous), alone, "{packet:x?}");
            if alone.is_err() {
                bad_count += 1;
                break;
            }
            good_count += 1;
        }
    }
    assert!(good_count > 5_000 && bad_count > 1_000, "{good_count} {bad_count}");
}
