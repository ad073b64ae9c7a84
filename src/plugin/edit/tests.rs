//! Checks changes against a plain list of properties.

use super::*;
use crate::arena::{Arena, Claim, Gauge};
use crate::random::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
enum One {
    User(String, String),
    ContentType(String),
    ResponseTopic(String),
    Correlation(Vec<u8>),
    Format(bool),
}

impl One {
    fn encode(&self, out: &mut Vec<u8>) {
        let binary = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            One::User(name, value) => {
                out.push(0x26);
                binary(out, name.as_bytes());
                binary(out, value.as_bytes());
            }
            One::ContentType(text) => {
                out.push(0x03);
                binary(out, text.as_bytes());
            }
            One::ResponseTopic(text) => {
                out.push(0x08);
                binary(out, text.as_bytes());
            }
            One::Correlation(data) => {
                out.push(0x09);
                binary(out, data);
            }
            One::Format(is_utf8) => out.extend_from_slice(&[0x01, u8::from(*is_utf8)]),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            One::User(..) => 0,
            One::ContentType(_) => 1,
            One::ResponseTopic(_) => 2,
            One::Correlation(_) => 3,
            One::Format(_) => 4,
        }
    }
}

/// The expected message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<One>,
}

impl Model {
    fn raw(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        self.properties.iter().for_each(|one| one.encode(&mut raw));
        raw
    }

    fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.raw().len()
    }

    /// Puts `new` in the place of the first that matches, or at the end; removes the other matches.
    fn replace(&mut self, matches: impl Fn(&One) -> bool, new: Option<One>) {
        let place = self.properties.iter().position(&matches).unwrap_or(self.properties.len());
        self.properties.retain(|one| !matches(one));
        if let Some(new) = new {
            self.properties.insert(place, new);
        }
    }

    fn set(&mut self, kind: u8, new: Option<One>) {
        self.replace(|one| one.kind() == kind, new);
    }
}

const SIZE_MAX: usize = 160;

fn text(random: &mut Random, size_max: u64) -> String {
    (0..random.below(size_max)).map(|_| ['a', 'b', 'ü', '€'][random.below(4) as usize]).collect()
}

fn name(random: &mut Random) -> String {
    ["n", "name", "ü"][random.below(3) as usize].to_string()
}

fn maybe<T>(random: &mut Random, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
    if random.below(3) == 0 { None } else { Some(make(random)) }
}

fn draw(random: &mut Random) -> Model {
    let mut properties = Vec::new();
    for _ in 0..random.below(5) {
        properties.push(One::User(name(random), text(random, 6)));
    }
    for one in [
        One::ContentType("text".into()),
        One::ResponseTopic("r/t".into()),
        One::Correlation(vec![0, 1, 255]),
        One::Format(false),
    ] {
        if random.below(2) == 0 {
            let place = random.below(properties.len() as u64 + 1) as usize;
            properties.insert(place, one);
        }
    }
    let payload = vec![random.number() as u8; random.below(60) as usize];
    Model { topic: format!("t{}", random.below(100)), payload, properties }
}

/// Makes one change to both; returns whether the message took it.
fn change(random: &mut Random, edit: &mut MessageEdit<'_>, model: &mut Model) -> bool {
    let was = model.clone();
    let result = match random.below(9) {
        0 => {
            model.topic = format!("new/{}", text(random, 12));
            edit.set_topic(&model.topic)
        }
        1 => {
            model.payload = vec![random.number() as u8; random.below(120) as usize];
            edit.set_payload(&model.payload)
        }
        2 => {
            let (name, value) = (name(random), text(random, 12));
            model.properties.push(One::User(name.clone(), value.clone()));
            edit.add_user_property(&name, &value)
        }
        3 => {
            let (name, value) = (name(random), text(random, 12));
            let is_named = |one: &One| matches!(one, One::User(other, _) if *other == name);
            model.replace(is_named, Some(One::User(name.clone(), value.clone())));
            edit.replace_user_property(&name, &value)
        }
        4 => {
            let name = name(random);
            let before = model.properties.len();
            model.replace(|one| matches!(one, One::User(other, _) if *other == name), None);
            assert_eq!(edit.remove_user_property(&name), before - model.properties.len());
            Ok(())
        }
        5 => {
            let new = maybe(random, |random| text(random, 20));
            model.set(1, new.clone().map(One::ContentType));
            edit.set_content_type(new.as_deref())
        }
        6 => {
            let new = maybe(random, |random| format!("r{}", text(random, 20)));
            model.set(2, new.clone().map(One::ResponseTopic));
            edit.set_response_topic(new.as_deref())
        }
        7 => {
            let new = maybe(random, |random| vec![7; random.below(20) as usize]);
            model.set(3, new.clone().map(One::Correlation));
            edit.set_correlation_data(new.as_deref())
        }
        _ => {
            let new = maybe(random, |random| random.below(2) == 0);
            model.set(4, new.map(One::Format));
            edit.set_payload_format_utf8(new)
        }
    };
    let fits = model.size() <= was.size() || model.size() + HEAD_SIZE_MAX <= SIZE_MAX;
    assert_eq!(result, if fits { Ok(()) } else { Err(EditError::TooLarge) });
    if !fits {
        *model = was;
    }
    fits
}

fn check(edit: &MessageEdit<'_>, model: &Model) {
    assert_eq!(edit.topic(), model.topic);
    assert_eq!(edit.payload(), model.payload);
    let (first, second) = edit.property_parts();
    assert_eq!([first, second].concat(), model.raw());
    assert_eq!(edit.properties().count(), model.properties.len());
    let users = model.properties.iter().filter_map(|one| match one {
        One::User(name, value) => Some((name.as_str(), value.as_str())),
        _ => None,
    });
    assert!(edit.user_properties().eq(users));
    let has = |kind| model.properties.iter().any(|one| one.kind() == kind);
    assert_eq!(edit.content_type().is_some(), has(1));
    assert_eq!(edit.response_topic().is_some(), has(2));
    assert_eq!(edit.correlation_data().is_some(), has(3));
    assert_eq!(edit.payload_format_utf8().is_some(), has(4));
}

#[test]
fn a_changed_message_is_what_a_plain_list_would_be_and_so_is_its_slot() {
    let limits = Limits { packet_size_max: SIZE_MAX, ..Limits::DEFAULT };
    let mut random = Random::new(21);
    let mut buffers = EditBuffers::default();
    let (mut made, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut arena = Arena::new(4 * SIZE_MAX, 4, 100, Gauge::default());
        let mut model = draw(&mut random);
        let meta = Meta {
            qos: 1,
            retain: false,
            is_origin: true,
            expires_at: Some(Instant(7_500)),
            publisher: 9,
            from_bridge: false,
            claim: Claim::None,
        };
        let (was, raw) = (model.clone(), model.raw());
        let now = Instant(1_000);
        let view = MessageView::with(&was.topic, &raw, &was.payload, &meta, now);
        assert_eq!(view.message_expiry_s, Some(7), "rounded up");
        let mut edit = MessageEdit::new(view, &mut buffers, &limits);
        for _ in 0..random.below(6) {
            match change(&mut random, &mut edit, &mut model) {
                true => made += 1,
                false => refused += 1,
            }
            check(&edit, &model);
        }
        assert!(edit.is_changed() || model == was);
        if round % 2 == 0 {
            edit.set_qos(QoS::ExactlyOnce);
            edit.set_retain(true);
            edit.set_message_expiry_s(Some(3));
            assert!(edit.is_changed());
        }
        arena.admit(&edit.finish(meta, now)).unwrap();
        let message = arena.last().unwrap();
        assert_eq!(message.topic, model.topic.as_bytes());
        assert_eq!(message.properties, model.raw());
        assert_eq!(message.payload, model.payload);
        let changed = Meta { qos: 2, retain: true, expires_at: Some(Instant(4_000)), ..meta };
        assert_eq!(message.meta, if round % 2 == 0 { changed } else { meta });
    }
    assert!(made > 3000 && refused > 300, "{made} {refused}");
}

#[test]
fn a_change_that_no_client_could_ask_for_is_refused_and_changes_nothing() {
    let limits = Limits { filter_size_max: 20, filter_levels_max: 3, ..Limits::DEFAULT };
    let mut buffers = EditBuffers::default();
    let mut raw = Vec::new();
    One::User("k".into(), "v".into()).encode(&mut raw);
    let view =
        MessageView { topic: "t", payload: b"p", raw_properties: &raw, ..Default::default() };
    let mut edit = MessageEdit::new(view, &mut buffers, &limits);
    for topic in ["", "a/+", "#", "a\0", "$SYS", "$SYS/x", "a/b/c/d", &"x".repeat(21)] {
        assert_eq!(edit.set_topic(topic), Err(EditError::TopicInvalid), "{topic:?}");
    }
    for topic in ["", "a/+", "#"] {
        assert_eq!(edit.set_response_topic(Some(topic)), Err(EditError::TopicInvalid));
    }
    let long = "x".repeat(65_536);
    assert_eq!(edit.set_response_topic(Some("a\0")), Err(EditError::TextInvalid));
    assert_eq!(edit.set_content_type(Some("\0")), Err(EditError::TextInvalid));
    assert_eq!(edit.add_user_property("a\0", "b"), Err(EditError::TextInvalid));
    assert_eq!(edit.add_user_property("a", "\0"), Err(EditError::TextInvalid));
    assert_eq!(edit.replace_user_property("k", "\0"), Err(EditError::TextInvalid));
    assert_eq!(edit.add_user_property(&long, ""), Err(EditError::TooLarge));
    assert_eq!(edit.set_correlation_data(Some(long.as_bytes())), Err(EditError::TooLarge));
    assert_eq!(edit.set_payload(&vec![0; limits.packet_size_max]), Err(EditError::TooLarge));
    assert!(!edit.is_changed());
    assert_eq!((edit.topic(), edit.payload()), ("t", &b"p"[..]));
    assert!(edit.user_properties().eq([("k", "v")]));
}

#[test]
fn a_payload_is_held_to_what_its_message_declares() {
    let limits = Limits::DEFAULT;
    let mut buffers = EditBuffers::default();
    let view = MessageView { topic: "t", payload: b"\xff", ..Default::default() };
    let mut edit = MessageEdit::new(view, &mut buffers, &limits);
    assert!(edit.is_payload_format_right());
    edit.set_payload_format_utf8(Some(true)).unwrap();
    assert!(!edit.is_payload_format_right());
    edit.set_payload("ü".as_bytes()).unwrap();
    assert!(edit.is_payload_format_right());
}

#[test]
fn what_was_encoded_before_is_what_would_be_encoded_now() {
    let limits = Limits { packet_size_max: 100, ..Limits::DEFAULT };
    let mut buffers = [EditBuffers::default(), EditBuffers::default(), EditBuffers::default()];
    let original = MessageView { topic: "t", raw_properties: b"\x01\x01", ..Default::default() };
    let (mut refused, long) = (0, "v".repeat(60));
    for (name, value) in [("", ""), ("n", "v"), ("ünï", "\u{1f600}"), ("k", &long)] {
        let mut edits = buffers.each_mut().map(|one| MessageEdit::new(original, one, &limits));
        let fixed = FixedProperty::new(name, value).unwrap();
        let head = PropertyName::new(name).unwrap();
        for _ in 0..3 {
            let [plain, named, whole] = &mut edits;
            let added = plain.add_user_property(name, value);
            assert_eq!(named.add_named_property(&head, value), added);
            assert_eq!(whole.add_fixed_property(&fixed), added);
            refused += u64::from(added == Err(EditError::TooLarge));
            assert_eq!(plain.property_parts(), named.property_parts());
            assert_eq!(plain.property_parts(), whole.property_parts());
        }
    }
    assert_eq!(refused, 2);
    let long = "x".repeat(65_536);
    for (text, error) in [("a\0", EditError::TextInvalid), (&long, EditError::TooLarge)] {
        assert_eq!(PropertyName::new(text), Err(error));
        assert_eq!(FixedProperty::new(text, ""), Err(error));
        assert_eq!(FixedProperty::new("", text), Err(error));
        let mut edit = MessageEdit::new(original, &mut buffers[0], &limits);
        let name = PropertyName::new("n").unwrap();
        assert_eq!(edit.add_named_property(&name, text), Err(error));
        assert!(!edit.is_changed());
    }
}
