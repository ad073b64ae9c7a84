//! Hooks of plugins in C and Rust, called as a shard's chain calls them.

use std::net::SocketAddr;
use std::path::Path;

use ringmq::codec::{Property, ProtocolVersion, QoS, ReasonCode, UserProperties};
use ringmq::limits::Limits;
use ringmq::plugin::{
    ClientView, ConnectView, DropReason, EditBuffers, HookEvent, HookSet, MessageEdit, MessageView,
    SessionLimits, Verdict,
};
use ringmq::plugins::abi::{LibraryFactory, stale_calls};
use ringmq::plugins::{Plugin, PluginError, PluginFactory};

use super::build;

/// A message, whole and owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owned {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub message_expiry_s: Option<u32>,
    /// Encoded.
    pub properties: Vec<u8>,
}

impl Owned {
    pub(crate) fn new(topic: &str, payload: &[u8]) -> Owned {
        Owned { topic: topic.to_owned(), payload: payload.to_owned(), ..Owned::default() }
    }

    pub(crate) fn with(mut self, properties: &[Property<'_>]) -> Owned {
        properties.iter().for_each(|property| property.encode(&mut self.properties));
        self
    }

    pub(crate) fn view(&self) -> MessageView<'_> {
        MessageView {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            message_expiry_s: self.message_expiry_s,
            raw_properties: &self.properties,
        }
    }

    pub(crate) fn of(edit: &MessageEdit<'_>) -> Owned {
        let (first, second) = edit.property_parts();
        Owned {
            topic: edit.topic().to_owned(),
            payload: edit.payload().to_owned(),
            qos: edit.qos(),
            retain: edit.retain(),
            message_expiry_s: edit.message_expiry_s(),
            properties: [first, second].concat(),
        }
    }

    fn user_properties(&self) -> Vec<(&str, &str)> {
        UserProperties::from_raw(&self.properties).iter().collect()
    }
}

pub(crate) fn plugin(path: &Path, options: &[(&str, &str)]) -> Box<dyn Plugin> {
    make(path, options, 0).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn make(path: &Path, options: &[(&str, &str)], shard: u16) -> Result<Box<dyn Plugin>, String> {
    let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let factory = LibraryFactory::load("tested", path, options.collect());
    factory.unwrap().make(shard).map_err(|error| error.to_string())
}

pub(crate) const CLIENT: ClientView<'static> = ClientView {
    client_id: "client-7",
    user_name: None,
    peer: None,
    listener: None,
    version: Some(ProtocolVersion::V5),
    shard: 0,
};

/// What the publish hook of `plugin` says of a message, and the message behind it.
pub(crate) fn publish(
    plugin: &mut dyn Plugin,
    message: &Owned,
) -> (Result<Verdict, String>, Owned) {
    publish_within(plugin, message, &Limits::default())
}

fn publish_within(
    plugin: &mut dyn Plugin,
    message: &Owned,
    limits: &Limits,
) -> (Result<Verdict, String>, Owned) {
    let mut buffers = EditBuffers::default();
    let mut edit = MessageEdit::new(message.view(), &mut buffers, limits);
    let verdict = plugin.publish(&CLIENT, &mut edit).map_err(|error| error.to_string());
    (verdict, Owned::of(&edit))
}

#[test]
fn every_function_that_reads_or_changes_a_message_does() {
    let mut message = Owned::new("all", b"payload").with(&[
        Property::ContentType("text/x"),
        Property::UserProperty("b", "1"),
        Property::CorrelationData(b"corr"),
        Property::UserProperty("c", "2"),
        Property::UserProperty("b", "3"),
        Property::UserProperty("a", "4"),
    ]);
    message.message_expiry_s = Some(60);
    let (verdict, made) = publish(&mut *plugin(&build::c("rewrite"), &[]), &message);
    assert_eq!(verdict, Ok(Verdict::Allow));
    let mut expected = Owned::new("rewritten/topic", b"text/x 4 properties, 60 s").with(&[
        Property::ContentType("corr"),
        Property::UserProperty("b", "client-7"),
        Property::CorrelationData(b"\0\xff"),
        Property::UserProperty("a", "4"),
        Property::ResponseTopic("answers"),
        Property::PayloadFormat(true),
        Property::UserProperty("a", "all"),
    ]);
    expected.message_expiry_s = Some(61);
    (expected.qos, expected.retain) = (QoS::ExactlyOnce, true);
    assert_eq!(made, expected);
}

#[test]
fn what_a_plugin_hands_in_is_its_own_again_at_once() {
    let options = [("prefix", "in/"), ("sender", "from"), ("count", "number"), ("site", "Zürich")];
    let mut plugin = plugin(&build::c("user_property"), &options);
    for number in 1..=3 {
        let message = Owned::new("in/x", b"").with(&[Property::UserProperty("own", "1")]);
        let (verdict, made) = publish(&mut *plugin, &message);
        assert_eq!(verdict, Ok(Verdict::Allow));
        let number = number.to_string();
        let expected =
            [("own", "1"), ("from", "client-7"), ("number", &number), ("site", "Zürich")];
        assert_eq!(made.user_properties(), expected);
    }
    let other = Owned::new("out/x", b"");
    assert_eq!(publish(&mut *plugin, &other).1, other);
}

#[test]
fn a_hook_that_fails_or_denies_leaves_the_message_as_it_was() {
    let mut plugin = plugin(&build::c("deny"), &[]);
    let message = Owned::new("spoil", b"good").with(&[Property::UserProperty("own", "1")]);
    let (verdict, made) = publish(&mut *plugin, &message);
    assert_eq!(verdict, Err("it returned RINGMQ_FAILED (-1)".to_owned()));
    assert_eq!(made, message);
}

#[test]
fn what_a_hook_returns_is_a_verdict_or_an_error() {
    let mut plugin = plugin(&build::c("deny"), &[]);
    assert_eq!(plugin.hooks(), HookSet::ALL);
    let cases = [
        ("fine", Ok(Verdict::Allow)),
        ("deny", Ok(Verdict::Deny(ReasonCode::NotAuthorized))),
        ("quota", Ok(Verdict::Deny(ReasonCode::QuotaExceeded))),
        ("fail", Err("it was asked to fail")),
        ("odd", Err("it returned 42 (0x2A), which means nothing here")),
    ];
    for (word, expected) in cases {
        let expected = expected.map_err(str::to_owned);
        let text = |error: PluginError| error.to_string();
        let message = Owned::new(word, b"");
        let verdict = plugin.authorize_publish(&CLIENT, &message.view()).map_err(text);
        assert_eq!(verdict, expected, "authorize_publish of {word}");
        let verdict = plugin.authorize_subscribe(&CLIENT, word, &mut QoS::AtLeastOnce.clone());
        assert_eq!(verdict.map_err(text), expected, "authorize_subscribe of {word}");
        let client = ClientView { client_id: word, ..CLIENT };
        let mut limits = SessionLimits::default();
        let verdict = plugin.connect(&client, &ConnectView::default(), &mut limits).map_err(text);
        assert_eq!(verdict, expected, "connect of {word}");
    }
    let deliver = |plugin: &mut dyn Plugin, topic| {
        plugin.deliver(&CLIENT, &Owned::new(topic, b"").view()).unwrap()
    };
    assert!(deliver(&mut *plugin, "fine") && !deliver(&mut *plugin, "skip"));
    assert!(plugin.unsubscribed(&CLIENT, "a/b").is_ok() && plugin.tick().is_ok());
    let events = [
        HookEvent::Connected { client: CLIENT, is_resumed: true },
        HookEvent::Disconnected { client: CLIENT, why: "gone" },
        HookEvent::TakenOver { client: CLIENT },
        HookEvent::SessionEnded { client: CLIENT },
        HookEvent::Dropped { client_id: None, topic: "t", why: DropReason::Expired },
    ];
    assert!(events.iter().all(|event| plugin.event(event).is_ok()));
}

#[test]
fn what_a_client_may_have_is_bounded_by_its_hooks() {
    let mut plugin = plugin(&build::c("deny"), &[]);
    let mut limits = SessionLimits { inflight_max: Some(3), ..SessionLimits::default() };
    let low = ClientView { client_id: "low-1", ..CLIENT };
    assert!(plugin.connect(&low, &ConnectView::default(), &mut limits).is_ok());
    let expected = SessionLimits {
        session_expiry_max_s: Some(5),
        inflight_max: Some(3),
        ..SessionLimits::default()
    };
    assert_eq!(limits, expected);
    let wrong = ConnectView { password: Some(b"wrong"), ..ConnectView::default() };
    let verdict = plugin.connect(&CLIENT, &wrong, &mut limits).unwrap();
    assert_eq!(verdict, Verdict::Deny(ReasonCode::BadUserNameOrPassword));
    for (filter, granted) in [("a/low", QoS::AtMostOnce), ("a/b", QoS::ExactlyOnce)] {
        let mut qos = QoS::ExactlyOnce;
        assert_eq!(plugin.authorize_subscribe(&CLIENT, filter, &mut qos).unwrap(), Verdict::Allow);
        assert_eq!(qos, granted, "{filter}");
    }
}

#[test]
fn what_is_not_valid_is_refused_and_changes_nothing() {
    let mut plugin = plugin(&build::c("misuse"), &[]);
    let (verdict, made) = publish(&mut *plugin, &Owned::new("arguments", b"payload"));
    assert_eq!(verdict, Ok(Verdict::Allow));
    assert_eq!((made.topic.as_str(), made.payload.as_slice()), ("arguments", &b"payload"[..]));
    let expected = [
        ("null", "-3"),
        ("", ""),
        ("empty", "0"),
        ("utf8", "-4"),
        ("utf8 cut", "-4"),
        ("zero byte", "-4"),
        ("long", "-6"),
        ("huge", "-6"),
        ("no topic", "-5"),
        ("wildcard", "-5"),
        ("system", "-5"),
        ("response topic", "-5"),
        ("no such property", "-3"),
        ("number as text", "-3"),
        ("payload format", "-3"),
        ("qos", "-3"),
        ("retain", "-3"),
        ("limit", "-7"),
        ("level", "-3"),
        ("out", "-3"),
        ("past the last", "-8"),
        ("absent", "-8"),
        ("out of number", "-3"),
    ];
    assert_eq!(made.user_properties(), expected);
    // A message that is being delivered cannot be changed: the plugin skips if that was said.
    assert!(!plugin.deliver(&CLIENT, &made.view()).unwrap());
}

#[test]
fn a_handle_is_good_in_its_call_and_on_its_thread_alone() {
    let path = build::c("misuse");
    let mut first = plugin(&path, &[]);
    let message = Owned::new("handles", b"payload");
    let refused_before = stale_calls();
    let (_, made) = publish(&mut *first, &message);
    assert_eq!(made.user_properties(), [("none", "-2"), ("forged", "-2"), ("elsewhere", "-2")]);
    let stale = [("kept", "-2"), ("none", "-2"), ("forged", "-2"), ("elsewhere", "-2")];
    let (_, made) = publish(&mut *first, &message);
    assert_eq!(
        (made.user_properties().as_slice(), made.payload.as_slice()),
        (&stale[..], &b"payload"[..])
    );
    // Not of another instance either, and not of one that has taken the number of one that is gone.
    let (_, made) = publish(&mut *plugin(&path, &[]), &message);
    assert_eq!(made.user_properties(), stale);
    assert_eq!(stale_calls() - refused_before, 3 + 4 + 4 + 1);
    drop(first);
    for _ in 0..3 {
        let (_, made) = publish(&mut *plugin(&path, &[]), &message);
        assert_eq!(made.user_properties(), stale);
    }
    // One more each: at the end of an instance, between hooks.
    assert_eq!(stale_calls() - refused_before, 3 + 4 + 4 + 1 + 1 + 3 * (4 + 1));
}

#[test]
fn the_changes_of_one_call_are_bounded() {
    let flood = Owned::new("flood", b"");
    let (verdict, made) = publish(&mut *plugin(&build::c("misuse"), &[]), &flood);
    assert_eq!(verdict, Err("it returned RINGMQ_TOO_LARGE (-6)".to_owned()));
    assert_eq!(made, flood);
}

#[test]
fn what_does_not_fit_into_a_packet_fails_the_hook() {
    let limits = Limits { packet_size_max: 256, ..Limits::default() };
    let site = "s".repeat(200);
    let mut plugin = plugin(&build::c("user_property"), &[("sender", "from"), ("site", &site)]);
    let fits = Owned::new("t", b"");
    let (verdict, made) = publish_within(&mut *plugin, &fits, &limits);
    assert_eq!((verdict, made.user_properties().len()), (Ok(Verdict::Allow), 2));
    let large = Owned::new("t", &[7; 100]);
    let (verdict, made) = publish_within(&mut *plugin, &large, &limits);
    assert_eq!(verdict, Err("it returned RINGMQ_TOO_LARGE (-6)".to_owned()));
    assert_eq!(made, large);
}

#[test]
fn changes_are_made_in_their_order_as_if_made_at_once() {
    let mut plugin = plugin(&build::c("script"), &[]);
    let mut changed_count = 0;
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let payload: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
        let message = Owned::new("t", &payload).with(&[
            Property::UserProperty("a", "1"),
            Property::ContentType("c"),
            Property::UserProperty("b", "2"),
            Property::UserProperty("a", "3"),
        ]);
        let (verdict, made) = publish(&mut *plugin, &message);
        assert_eq!(verdict, Ok(Verdict::Allow), "seed {seed}");
        assert_eq!(made, played(&message), "seed {seed}");
        changed_count += usize::from(made != message);
    }
    assert!(changed_count > 1500, "{changed_count}");
}

/// What `script.c` asks for, made at once.
fn played(message: &Owned) -> Owned {
    let limits = Limits::default();
    let mut buffers = EditBuffers::default();
    let mut edit = MessageEdit::new(message.view(), &mut buffers, &limits);
    for bytes in message.payload.chunks_exact(3) {
        // What is refused changes nothing, in both.
        let _ = play(&mut edit, bytes[0], bytes[1], bytes[2]);
    }
    Owned::of(&edit)
}

fn play(edit: &mut MessageEdit<'_>, letter: u8, first: u8, second: u8) -> Option<()> {
    const TEXTS: [&[u8]; 10] =
        [b"", b"a", b"b", b"name", b"value", "été".as_bytes(), b"x/y", b"x/+", b"$SYS/x", b"\xff"];
    let data = |number: u8| TEXTS[usize::from(number) % TEXTS.len()];
    let text = |number| std::str::from_utf8(data(number)).ok();
    let flag = |number: u8| match number % 3 {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    match letter % 13 {
        0 => edit.set_topic(text(first)?),
        1 => edit.set_payload(data(first)),
        2 => {
            edit.set_qos(QoS::from_bits(first % 4)?);
            Ok(())
        }
        3 => {
            edit.set_retain(flag(first)?);
            Ok(())
        }
        4 => edit.set_content_type(Some(text(first)?)),
        5 => edit.set_response_topic(Some(text(first)?)),
        6 => edit.set_correlation_data(Some(data(first))),
        7 => edit.set_payload_format_utf8(Some(flag(first)?)),
        8 => {
            edit.set_message_expiry_s(Some(first.into()));
            Ok(())
        }
        9 => match first % 12 {
            1 => edit.set_payload_format_utf8(None),
            2 => {
                edit.set_message_expiry_s(None);
                Ok(())
            }
            3 => edit.set_content_type(None),
            8 => edit.set_response_topic(None),
            9 => edit.set_correlation_data(None),
            _ => Ok(()),
        },
        10 => edit.add_user_property(text(first)?, text(second)?),
        11 => edit.replace_user_property(text(first)?, text(second)?),
        _ => {
            edit.remove_user_property(text(first)?);
            Ok(())
        }
    }
    .ok()
}

#[test]
fn an_older_plugin_says_what_it_means() {
    let mut plugin = plugin(&build::c("older"), &[]);
    let mut judge = |topic: &str| {
        let verdict = plugin.authorize_publish(&CLIENT, &Owned::new(topic, b"").view());
        verdict.map_err(|error| error.to_string())
    };
    assert_eq!(judge("a"), Ok(Verdict::Allow));
    assert_eq!(judge("x"), Ok(Verdict::Deny(ReasonCode::NotAuthorized)));
    assert_eq!(judge("y"), Err("the older plugin says no".to_owned()));
    // Hooks that it does not have allow.
    let message = Owned::new("x", b"");
    assert_eq!(publish(&mut *plugin, &message), (Ok(Verdict::Allow), message));
}

#[test]
fn an_instance_that_is_not_made_says_why() {
    let c = build::c("user_property");
    let why = |path: &Path, options: &[(&str, &str)]| make(path, options, 0).err().unwrap();
    assert_eq!(why(&c, &[]), "options: set one of sender, count and site");
    let long = why(&c, &[("sender", &"n".repeat(65))]);
    assert_eq!(long, "options: names have at most 64 bytes, the site at most 256");
    let unknown = why(&build::rust(), &[("nmae", "x")]);
    assert_eq!(unknown, "options: 'nmae' is not one of name, panic, users");
}

#[test]
fn a_panic_in_a_plugin_in_rust_is_a_failure() {
    let options = [("name", "bytes"), ("panic", "boom")];
    let mut plugin = plugin(&build::rust(), &options);
    for _ in 0..3 {
        let message = Owned::new("boom", b"");
        let (verdict, made) = publish(&mut *plugin, &message);
        assert_eq!(verdict, Err("it returned RINGMQ_FAILED (-1)".to_owned()));
        assert_eq!(made, message);
        let (verdict, made) = publish(&mut *plugin, &Owned::new("loud/x", b"12345"));
        assert_eq!(verdict, Ok(Verdict::Allow));
        assert_eq!(
            (made.topic.as_str(), made.user_properties()),
            ("stamped/x", vec![("bytes", "5")])
        );
    }
}

#[test]
fn instances_on_several_threads_know_nothing_of_each_other() {
    let path = build::c("user_property");
    let options = vec![("count".to_owned(), "n".to_owned())];
    let factory = LibraryFactory::load("tested", &path, options).unwrap();
    std::thread::scope(|threads| {
        for shard in 0..4 {
            let factory = &factory;
            threads.spawn(move || {
                let mut plugin = factory.make(shard).unwrap();
                for number in 1..=2000 + u32::from(shard) {
                    let (_, made) = publish(&mut *plugin, &Owned::new("t", b""));
                    assert_eq!(made.user_properties(), [("n", number.to_string().as_str())]);
                }
            });
        }
    });
}

#[test]
fn a_plugin_sees_who_it_is() {
    let mut plugin = plugin(&build::c("show"), &[("zeta", "1"), ("alpha", "2")]);
    let peer: SocketAddr = "192.0.2.7:1234".parse().unwrap();
    let listener: SocketAddr = "[2001:db8::1]:1883".parse().unwrap();
    let client = ClientView {
        client_id: "c",
        user_name: Some("u"),
        peer: Some(peer),
        listener: Some(listener),
        version: Some(ProtocolVersion::V311),
        shard: 0,
    };
    let message = Owned { qos: QoS::AtLeastOnce, retain: true, ..Owned::new("t", b"p") };
    let limits = Limits::default();
    let mut buffers = EditBuffers::default();
    let mut edit = MessageEdit::new(message.view(), &mut buffers, &limits);
    assert_eq!(plugin.publish(&client, &mut edit).unwrap(), Verdict::Allow);
    let expected = "tested 0: zeta=1 alpha=2: c u 4 192.0.2.7:1234 2001:db8::1:1883 t p 1 1";
    assert_eq!(String::from_utf8_lossy(edit.payload()), expected);

    let mut packet = Vec::new();
    Property::UserProperty("k", "v").encode(&mut packet);
    Property::UserProperty("k", "w").encode(&mut packet);
    let will = Owned { qos: QoS::ExactlyOnce, ..Owned::new("w", b"dead") };
    let connect = ConnectView {
        password: Some(b"secret"),
        clean_start: true,
        keep_alive_s: 30,
        session_expiry_s: Some(9),
        will: Some(will.view()),
        user_properties: UserProperties::from_raw(&packet),
        ..ConnectView::default()
    };
    let error = plugin.connect(&CLIENT, &connect, &mut SessionLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "secret 1 30 1 9 w dead 2 0 k=w k=v k=w client-7 - 0");
}
