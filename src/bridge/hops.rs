//! Hop marks: brokers that bridge to each other by MQTT 5.0 tell each other where a message has been.
//!
//! On such a link a message has one more user property. Its value names the brokers that have handed the message on, the first
//! one first, each by the number that it drew when it started:
//!
//! ```text
//! ringmq-path  0011223344556677,8899aabbccddeeff
//! ringmq-path  ?8899aabbccddeeff          before, it came over a hop that keeps no marks
//! ```
//! A broker that finds itself named has had the message, and drops it. So a loop ends where it closes, whatever topics and
//! payloads are, and nothing else is dropped. The mark is taken off before clients or plugins see the message, and travels
//! within the broker as the message's trail (`arena::split_trail`).
//!
//! A number holds until its broker ends. So a broker that has lost its retained messages in a restart takes them back from
//! its neighbours, and two brokers that run from copies of one folder have two numbers.
//!
//! All of this holds where all hops are of 5.0. A mark names at most `HOPS_MAX` brokers.
//!
//! - A mark is believed on links that our bridges opened, and from clients that say they are bridges and come from
//!   `bridges_from`. In any other client's message the property is an ordinary property of the message.
//! - A broker of another kind hands the mark on with the other user properties. Its clients see the mark, and the loop
//!   ends where the mark comes back to us. A bridge of that broker that is a client of ours is believed only if it says
//!   that it is a bridge.
//! - A hop without marks (3.1.1, or a RingMQ that does not believe us) leaves a gap in the trail and a question mark in
//!   the mark. `bridge::Echo` looks only at messages with a gap, and at messages for such a hop.

use std::borrow::Cow;

use crate::arena::{EMPTY_TRAIL, split_trail};
use crate::codec::{
    BRIDGE_PROPERTY, Property, PropertyIter, UserProperties, put_user_property_name,
};
use crate::limits::HOPS_MAX;

/// The user property of a message that names the brokers where the message has been.
pub const MARK_PROPERTY: &str = "ringmq-path";

/// The encoded property `codec::BRIDGE_PROPERTY` in a CONNACK to a bridge whose marks are read and written.
pub const MARKS_ARE_KEPT: &[u8] = b"\x26\0\x0dringmq-bridge\0\x05marks";
/// The encoded property in a CONNACK to a bridge that is a client like any other.
pub const MARKS_ARE_NOT_KEPT: &[u8] = b"\x26\0\x0dringmq-bridge\0\x06client";

/// The sign in front of a path whose beginning is not known.
const GAP: char = '?';
/// The flag of a trail whose beginning is not known.
const HAS_GAP: u8 = 1;
/// Hexadecimal digits of a number.
const DIGITS: usize = 16;

// The size of a trail is a byte.
const _: () = assert!(HOPS_MAX * size_of::<u64>() + EMPTY_TRAIL.len() <= u8::MAX as usize);

/// A broker's name in marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerId(u64);

impl BrokerId {
    /// `number` is drawn by chance: no other broker must have the same number.
    pub fn from_number(number: u64) -> BrokerId {
        BrokerId(number)
    }

    fn digits(self) -> [u8; DIGITS] {
        let mut digits = [0; DIGITS];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(self.0 >> (4 * (DIGITS - 1 - place)) & 15) as usize];
        }
        digits
    }

    fn parse(text: &str) -> Option<BrokerId> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != DIGITS || !text.bytes().all(is_digit) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(BrokerId)
    }
}

/// The brokers that a message has been at before it came to this broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// At most `HOPS_MAX`.
    brokers: Vec<BrokerId>,
    /// The message came over a hop that keeps no marks: its earlier brokers are not known.
    pub has_gap: bool,
}

/// A message as it arrives over a link between brokers.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    New {
        /// The message's properties without its mark.
        properties: Cow<'a, [u8]>,
        trail: Trail,
    },
    /// The message has been at this broker before.
    Returned,
    /// `HOPS_MAX` brokers have handed the message on.
    TooFar,
}

/// How a remote broker treats marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// The remote does not know marks. A remote of 5.0 hands user properties on, so marks come back to us.
    #[default]
    Properties,
    /// The remote reads and writes marks, too.
    Marks,
    /// The remote shows marks to its clients, and marks prove nothing; or messages have no properties.
    Nothing,
}

impl Keeping {
    /// How the remote treats marks, by the properties of its CONNACK.
    pub fn of(properties: &UserProperties<'_>) -> Keeping {
        let said = properties.iter().find(|(name, _)| *name == BRIDGE_PROPERTY);
        match said {
            None => Keeping::Properties,
            Some((_, "marks")) => Keeping::Marks,
            Some(_) => Keeping::Nothing,
        }
    }
}

/// The meaning of a value of the property.
enum Path {
    Known(Trail),
    TooLong,
    /// The value is no path: the property is a client's own.
    Foreign,
}

impl Trail {
    /// The trail of a message that came over a hop that keeps no marks.
    pub const UNKNOWN: Trail = Trail { brokers: Vec::new(), has_gap: true };

    /// The trail that `Message::trail` gives.
    pub fn of(trail: &[u8]) -> Trail {
        let mut read = Trail::default();
        let Some((brokers, [flags, _])) = trail.split_last_chunk::<2>() else { return read };
        read.has_gap = flags & HAS_GAP != 0;
        for number in brokers.as_chunks::<8>().0 {
            read.push(BrokerId(u64::from_le_bytes(*number)));
        }
        read
    }

    /// Appends the trail in the form that `Message::trail` gives.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for broker in &self.brokers {
            out.extend_from_slice(&broker.0.to_le_bytes());
        }
        out.extend_from_slice(&[if self.has_gap { HAS_GAP } else { 0 }, self.size() as u8]);
    }

    /// The size of the encoded trail.
    fn size(&self) -> usize {
        self.brokers.len() * size_of::<u64>() + EMPTY_TRAIL.len()
    }

    pub fn brokers(&self) -> &[BrokerId] {
        &self.brokers
    }

    /// Appends the property that names the trail's brokers, and `own` behind them.
    pub fn put_mark(&self, own: BrokerId, out: &mut Vec<u8>) {
        let value_size = usize::from(self.has_gap) + self.brokers.len() * (DIGITS + 1) + DIGITS;
        put_user_property_name(out, MARK_PROPERTY, value_size);
        out.extend_from_slice(&(value_size as u16).to_be_bytes());
        if self.has_gap {
            out.push(GAP as u8);
        }
        for broker in self.brokers() {
            out.extend_from_slice(&broker.digits());
            out.push(b',');
        }
        out.extend_from_slice(&own.digits());
    }

    /// Returns `false` if the trail has `HOPS_MAX` brokers.
    fn push(&mut self, broker: BrokerId) -> bool {
        let has_room = self.brokers.len() < HOPS_MAX;
        if has_room {
            self.brokers.push(broker);
        }
        has_room
    }
}

/// Takes the mark off a message that came over a link between brokers to the broker `own`. `unmarked` is the trail of a
/// message without a mark. Of several properties with the name the last one is the mark: the others are a client's.
pub fn arrive(properties: &[u8], own: BrokerId, unmarked: Trail) -> Arrival<'_> {
    let Some((start, end, value)) = find_mark(properties) else {
        return Arrival::New { properties: Cow::Borrowed(properties), trail: unmarked };
    };
    match parse(value) {
        Path::Foreign => Arrival::New { properties: Cow::Borrowed(properties), trail: unmarked },
        Path::Known(trail) if trail.brokers().contains(&own) => Arrival::Returned,
        // This broker could not add itself to the trail.
        Path::Known(trail) if trail.brokers.len() == HOPS_MAX => Arrival::TooFar,
        Path::TooLong => Arrival::TooFar,
        Path::Known(trail) => {
            let (front, back) = (&properties[..start], &properties[end..]);
            let properties = match back.is_empty() {
                true => Cow::Borrowed(front),
                false => Cow::Owned([front, back].concat()),
            };
            Arrival::New { properties, trail }
        }
    }
}

/// The last property with the name: where it begins and ends, and its value.
fn find_mark(properties: &[u8]) -> Option<(usize, usize, &str)> {
    let mut found = None;
    let mut iter = PropertyIter::new(properties);
    let mut start = 0;
    while let Some(property) = iter.next() {
        let end = properties.len() - iter.rest().len();
        if let Property::UserProperty(MARK_PROPERTY, value) = property {
            found = Some((start, end, value));
        }
        start = end;
    }
    found
}

fn parse(value: &str) -> Path {
    let (has_gap, brokers) = match value.strip_prefix(GAP) {
        Some(brokers) => (true, brokers),
        None => (false, value),
    };
    let mut trail = Trail { has_gap, ..Trail::default() };
    for text in brokers.split(',') {
        let Some(broker) = BrokerId::parse(text) else { return Path::Foreign };
        if !trail.push(broker) {
            return Path::TooLong;
        }
    }
    Path::Known(trail)
}

/// Properties of a message that a bridge brought: those that travel on, and behind them its trail.
pub fn with_trail(properties: &[u8], trail: &Trail) -> Vec<u8> {
    let mut all = Vec::with_capacity(properties.len() + trail.size());
    all.extend_from_slice(properties);
    trail.encode(&mut all);
    debug_assert_eq!(split_trail(&all).0, properties);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::put_user_property;

    fn id(number: u64) -> BrokerId {
        BrokerId::from_number(number)
    }

    fn property(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_user_property(&mut bytes, name, value);
        bytes
    }

    fn trail_of(has_gap: bool, brokers: &[u64]) -> Trail {
        let mut trail = Trail { has_gap, ..Trail::default() };
        assert!(brokers.iter().all(|broker| trail.push(id(*broker))));
        trail
    }

    #[test]
    fn a_mark_says_where_a_message_has_been_and_is_taken_off() {
        let own = [property("a", "1"), property("b", "2")].concat();
        for trail in [trail_of(false, &[]), trail_of(true, &[]), trail_of(true, &[1, u64::MAX])] {
            for behind in [Vec::new(), property("c", "3")] {
                let mut properties = own.clone();
                trail.put_mark(id(7), &mut properties);
                properties.extend_from_slice(&behind);
                let mut expected = trail.clone();
                assert!(expected.push(id(7)));
                let arrived = arrive(&properties, id(9), Trail::UNKNOWN);
                let properties_without = Cow::Owned([&own[..], &behind].concat());
                assert_eq!(
                    arrived,
                    Arrival::New { properties: properties_without, trail: expected.clone() }
                );
                for one in expected.brokers() {
                    assert_eq!(arrive(&properties, *one, Trail::UNKNOWN), Arrival::Returned);
                }
            }
        }
    }

    #[test]
    fn a_property_of_that_name_that_is_no_mark_stays() {
        let marked = property(MARK_PROPERTY, "0000000000000001");
        for value in
            ["", "?", ",", "1", "000000000000000G", "000000000000000A", "0000000000000001,"]
        {
            let properties = [marked.clone(), property(MARK_PROPERTY, value)].concat();
            for unmarked in [Trail::UNKNOWN, Trail::default()] {
                let expected = Arrival::New {
                    properties: Cow::Borrowed(&properties[..]),
                    trail: unmarked.clone(),
                };
                assert_eq!(arrive(&properties, id(1), unmarked), expected, "{value}");
            }
        }
        // A property of the client with this name stands in front of the mark of the client's broker.
        let mut properties = marked.clone();
        Trail::default().put_mark(id(2), &mut properties);
        let expected =
            Arrival::New { properties: Cow::Borrowed(&marked[..]), trail: trail_of(false, &[2]) };
        assert_eq!(arrive(&properties, id(1), Trail::UNKNOWN), expected);
    }

    #[test]
    fn what_connack_says_is_a_user_property() {
        for (bytes, kept) in
            [(MARKS_ARE_KEPT, Keeping::Marks), (MARKS_ARE_NOT_KEPT, Keeping::Nothing)]
        {
            assert_eq!(Keeping::of(&UserProperties::from_raw(bytes)), kept);
            assert_eq!(UserProperties::from_raw(bytes).size(), bytes.len());
        }
        assert_eq!(Keeping::of(&UserProperties::default()), Keeping::Properties);
    }

    #[test]
    fn a_path_has_a_bound() {
        let mut trail = Trail::default();
        for number in 0..HOPS_MAX as u64 {
            let mut properties = Vec::new();
            trail.put_mark(id(number), &mut properties);
            assert!(trail.push(id(number)));
            let is_last = number + 1 == HOPS_MAX as u64;
            let arrived = arrive(&properties, id(999), Trail::UNKNOWN);
            assert_eq!(arrived == Arrival::TooFar, is_last, "{number}");
        }
        let value = vec!["0000000000000001"; 3000].join(",");
        let properties = property(MARK_PROPERTY, &value);
        assert_eq!(arrive(&properties, id(999), Trail::UNKNOWN), Arrival::TooFar);
        let bytes = with_trail(b"p", &trail);
        assert_eq!(split_trail(&bytes).0, b"p");
    }

    #[test]
    fn a_trail_reads_back_behind_the_properties() {
        for trail in [trail_of(false, &[]), trail_of(true, &[3]), trail_of(false, &[1, 2, 3])] {
            let bytes = with_trail(b"properties", &trail);
            let (properties, raw) = split_trail(&bytes);
            assert_eq!((properties, Trail::of(raw)), (&b"properties"[..], trail));
        }
        assert_eq!(Trail::of(EMPTY_TRAIL), Trail::default());
        assert_eq!(Trail::of(b""), Trail::default(), "of a message that no bridge brought");
    }
}
