//! Plugins that are Rust types: what they decide holds, and what goes wrong in them stays there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringmq::codec::{QoS, ReasonCode};
use ringmq::config::Settings;
use ringmq::config::plugin::OnError;
use ringmq::plugin::{
    ClientView, ConnectView, HookEvent, HookSet, MessageEdit, MessageView, SessionLimits, Verdict,
};
use ringmq::plugins::{Installed, Plugin, PluginError, PluginFactory};
use ringmq::shell::launcher::Broker;

use crate::client::{Client, connect, subscribe};
use crate::fields::Kind;
use crate::wire::Version;
use crate::{got, message, next, user};

/// Does what messages, client identifiers and filters tell it.
#[derive(Clone, Default)]
struct Obedient {
    hooks: HookSet,
    events: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
}

impl PluginFactory for Obedient {
    fn name(&self) -> &str {
        "obedient"
    }

    fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.clone()))
    }
}

fn obey(told: &str) -> Result<Verdict, PluginError> {
    match told {
        told if told.contains("panic") => panic!("as told"),
        told if told.contains("fail") => Err(PluginError::new("as told")),
        told if told.contains("deny") => Ok(Verdict::Deny(ReasonCode::QuotaExceeded)),
        _ => Ok(Verdict::Allow),
    }
}

impl Plugin for Obedient {
    fn hooks(&self) -> HookSet {
        self.hooks
    }

    fn connect(
        &mut self,
        client: &ClientView<'_>,
        _: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Result<Verdict, PluginError> {
        limits.keep_alive_max_s = Some(77);
        obey(client.client_id)
    }

    fn authorize_subscribe(
        &mut self,
        _: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Result<Verdict, PluginError> {
        *qos = QoS::AtMostOnce;
        obey(filter)
    }

    fn publish(
        &mut self,
        _: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        message.add_user_property("seen", "yes")?;
        let told = String::from_utf8_lossy(message.payload()).into_owned();
        if told.starts_with("large") {
            message.set_payload(&vec![b'x'; 300_000])?;
        }
        obey(&told)
    }

    fn deliver(
        &mut self,
        receiver: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<bool, PluginError> {
        if message.topic != "deliver" {
            return Ok(true);
        }
        obey(receiver.client_id).map(|verdict| !verdict.is_denied())
    }

    fn event(&mut self, event: &HookEvent<'_>) -> Result<(), PluginError> {
        self.events.fetch_add(1, Ordering::Relaxed);
        match event {
            HookEvent::Disconnected { .. } => panic!("on hearing of an end"),
            _ => Ok(()),
        }
    }
}

fn start(shards: u16, on_error: OnError, plugin: &Obedient) -> Broker {
    let settings = Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        cores: vec![0],
        shards,
        ..Settings::default()
    };
    let installed = Installed { on_error, ..Installed::new(plugin.clone()) };
    Broker::start_with(settings, vec![installed]).unwrap()
}

fn each(test: impl Fn(u16, OnError)) {
    for shards in [1, 2] {
        for on_error in [OnError::Deny, OnError::Pass] {
            test(shards, on_error);
        }
    }
}

#[test]
fn a_message_whose_hook_fails_or_panics_is_acknowledged_and_goes_where_the_policy_says() {
    let plugin = Obedient { hooks: HookSet::PUBLISH, ..Obedient::default() };
    each(|shards, on_error| {
        let broker = start(shards, on_error, &plugin);
        let address = broker.addresses()[0];
        let mut subscribers: Vec<_> = (0..3)
            .map(|n| Client::join(address, Version::V5, &format!("subscriber-{n}"), &[]))
            .collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe(&["#@1"]);
        }
        let mut publisher = Client::join(address, Version::V5, "publisher", &[]);
        for told in ["fail", "panic", "deny", "large and fail", "large and panic"] {
            let sent = message("t", &[("own", "x")], told);
            publisher.send(&sent.publish(Version::V5, 2, 1));
            let code = publisher.answer(Kind::Puback).number("reason").unwrap_or(0);
            publisher.send(&sent.publish(Version::V5, 0, 0));
            publisher.send(&message("t", &[], "fine").publish(Version::V5, 2, 2));
            publisher.answer(Kind::Puback);
            let passes = on_error == OnError::Pass && told != "deny";
            let want = match told {
                "deny" => 0x97,
                _ if passes => 0,
                _ => 0x83,
            };
            assert_eq!(code, want, "{told}");
            for subscriber in &mut subscribers {
                for _ in 0..if passes { 2 } else { 0 } {
                    // As it was sent: what the hook had changed before it failed is undone.
                    assert_eq!(next(subscriber), got("t", false, &user(&[("own", "x")]), told));
                }
                assert_eq!(next(subscriber), got("t", false, &user(&[("seen", "yes")]), "fine"));
            }
        }
        broker.stop().unwrap();
    });
    assert_eq!(plugin.made.load(Ordering::Relaxed), 6, "one for each shard");
}

#[test]
fn clients_and_subscriptions_are_judged_and_a_failure_is_as_the_policy_says() {
    let plugin = Obedient {
        hooks: HookSet::CONNECT | HookSet::SUBSCRIBE | HookSet::DELIVER,
        ..Obedient::default()
    };
    each(|shards, on_error| {
        let broker = start(shards, on_error, &plugin);
        let address = broker.addresses()[0];
        let failed = if on_error == OnError::Pass { 0 } else { 0x83 };
        for (id, want) in [("fine", 0), ("deny", 0x97), ("fail", failed), ("panic", failed)] {
            let mut client = Client::open(address, Version::V5);
            client.send(&connect(Version::V5, id, &[]));
            let connack = client.answer(Kind::Connack);
            assert_eq!(connack.number("reason").unwrap_or(0), want, "{connack}");
            let keep_alive = connack.number("server_keep_alive");
            // What a failed hook has set is undone.
            assert_eq!(keep_alive, (id == "fine").then_some(77), "{connack}");
        }
        let mut client = Client::join(address, Version::V5, "subscriber", &[]);
        client.send(&subscribe(Version::V5, 7, &["fine@2", "deny@1", "fail@1", "panic@2"]));
        let suback = client.answer(Kind::Suback);
        let codes: Vec<u64> = suback
            .all("reasons")
            .iter()
            .map(|code| code.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
            .collect();
        let granted = |qos| if on_error == OnError::Pass { qos } else { 0x83 };
        assert_eq!(codes, [0, 0x97, granted(1), granted(2)]);
        broker.stop().unwrap();
    });
}

#[test]
fn who_is_skipped_gets_nothing_and_all_others_do() {
    let plugin = Obedient { hooks: HookSet::DELIVER | HookSet::EVENTS, ..Obedient::default() };
    each(|shards, on_error| {
        let broker = start(shards, on_error, &plugin);
        let address = broker.addresses()[0];
        let names = ["a", "deny-1", "fail-1", "panic-1", "b", "deny-2", "fail-2", "panic-2"];
        let mut clients: Vec<_> =
            names.iter().map(|name| Client::join(address, Version::V5, name, &[])).collect();
        for client in &mut clients {
            client.subscribe(&["#@1"]);
        }
        let mut publisher = Client::join(address, Version::V311, "publisher", &[]);
        for topic in ["deliver", "end"] {
            publisher.send(&message(topic, &[], "p").publish(Version::V311, 3, 1));
            publisher.answer(Kind::Puback);
        }
        let is_wanted = |name: &str| match name.split('-').next().unwrap() {
            "deny" => false,
            "fail" | "panic" => on_error == OnError::Pass,
            _ => true,
        };
        for (name, client) in names.iter().zip(&mut clients) {
            if is_wanted(name) {
                assert_eq!(next(client), got("deliver", false, &[], "p"), "{name}");
            }
            assert_eq!(next(client), got("end", false, &[], "p"), "{name}");
        }
        // The retained copies pass the hook on their way to each.
        for name in names {
            let mut late = Client::join(address, Version::V5, &format!("{name}-late"), &[]);
            late.subscribe(&["deliver@1", "end@1"]);
            let mut want = vec![got("end", true, &[], "p")];
            if is_wanted(name) {
                want.insert(0, got("deliver", true, &[], "p"));
            }
            // Each topic's retained message is kept by a shard of its own.
            let mut came: Vec<_> = want.iter().map(|_| next(&mut late)).collect();
            came.sort_by(|one, other| one.topic.cmp(&other.topic));
            assert_eq!(came, want, "{name}");
        }
        drop(clients);
        let mut last = Client::join(address, Version::V5, "last", &[]);
        last.subscribe(&["end@1"]);
        assert_eq!(next(&mut last), got("end", true, &[], "p"));
        broker.stop().unwrap();
    });
    assert!(plugin.events.load(Ordering::Relaxed) >= 4 * 17);
}

#[test]
fn a_plugin_needs_a_name_of_its_own() {
    struct Named(String);
    impl PluginFactory for Named {
        fn name(&self) -> &str {
            &self.0
        }

        fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
            Ok(Box::new(Obedient::default()))
        }
    }
    let many: Vec<String> = (0..33).map(|number| format!("plugin-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (names, want) in [
        (&["a", "b", "a"][..], "two plugins have the name 'a'"),
        (&["a/b"], "plugin 'a/b': its name must be 1 to 64 letters, digits, - and _"),
        (&[""], "plugin '': its name must be 1 to 64 letters, digits, - and _"),
        (&many, "33 plugins are more than 32"),
    ] {
        let plugins = names.iter().map(|name| Installed::new(Named(name.to_string()))).collect();
        let error = Broker::start_with(Settings::default(), plugins).err().expect(want);
        assert_eq!(error.to_string(), want);
    }
}
