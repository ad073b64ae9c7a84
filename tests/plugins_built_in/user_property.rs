//! `user-property`: every subscriber of every shard gets what the client sent and, behind it, what the plugin adds.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::{Client, ack, connect_with_will};
use crate::fields::Kind;
use crate::message::Source;
use crate::wire::Version;
use crate::{await_sys, end, got, message, next, start, user};

const ENRICH: &str = r#"
[[plugin]]
name = "enrich"
kind = "user-property"
filters = ["s/#", "+/twice"]
properties = [
    { name = "from", value = "<${client_id}>" },
    { name = "from", value = "again" },
    { name = "site", value = "7", replace = true },
]
"#;

#[test]
fn every_variable_is_what_the_publisher_was() {
    let configuration = r#"
[[plugin]]
name = "all"
kind = "user-property"
properties = [
    { name = "known", value = "${client_id} ${user_name} ${topic} ${qos} ${retain} ${payload_size} ${plugin} $$" },
    { name = "addresses", value = "${peer} ${listener}" },
    { name = "shard", value = "${shard}" },
    { name = "time", value = "${time_ms}" },
]
"#;
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for shards in [1, 2] {
        let broker = start("variables", shards, configuration);
        let mut subscriber = Client::join(broker.address, Version::V5, "subscriber", &[]);
        subscriber.subscribe(&["t/#@2"]);
        let mut shards_seen = BTreeSet::new();
        // The shards of client ids differ from run to run: after 8 clients all may have been on one.
        for number in 0..64 {
            if number >= 8 && shards_seen.len() == shards {
                break;
            }
            let id = format!("publisher-{number}");
            let named = [("user_name", "anna")];
            let fields = if number % 2 == 0 { &named[..] } else { &[] };
            let mut publisher = Client::join(broker.address, Version::V5, &id, fields);
            let before = now_ms();
            publisher.send(&message("t/1", &[("own", "x")], "12345").publish(Version::V5, 4, 1));
            publisher.answer(Kind::Pubrec);
            publisher.send(&ack(Kind::Pubrel, 1));
            publisher.answer(Kind::Pubcomp);
            let came = next(&mut subscriber);
            let mut texts = texts_of(&came.properties).into_iter();
            let mut next_is = |name: &str| {
                let (found, value) = texts.next().expect(name);
                assert_eq!(found, name);
                value
            };
            assert_eq!(next_is("own"), "x");
            let user_name = if number % 2 == 0 { "anna" } else { "" };
            assert_eq!(next_is("known"), format!("{id} {user_name} t/1 2 false 5 all $"));
            let peer = publisher.socket.local_addr().unwrap();
            assert_eq!(next_is("addresses"), format!("{peer} {}", broker.address));
            shards_seen.insert(next_is("shard").parse::<usize>().unwrap());
            let time: u128 = next_is("time").parse().unwrap();
            assert!((before..=now_ms()).contains(&time), "{time}");
            publisher.leave();
        }
        assert_eq!(shards_seen, (0..shards).collect());
        end(broker);
    }
}

/// The user properties of a message that has no others.
fn texts_of(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((&0x26, rest)) = bytes.split_first() {
        let mut text = rest;
        let mut take = || {
            let (size, rest) = text.split_at(2);
            let (own, rest) = rest.split_at(usize::from(u16::from_be_bytes([size[0], size[1]])));
            text = rest;
            String::from_utf8(own.to_vec()).unwrap()
        };
        found.push((take(), take()));
        bytes = text;
    }
    assert!(bytes.is_empty(), "only user properties were expected");
    found
}

#[test]
fn subscribers_on_every_shard_get_what_was_sent_and_what_was_added() {
    const MESSAGES: u64 = 50;
    let added = |id: &str| user(&[("from", &format!("<{id}>")), ("from", "again"), ("site", "7")]);
    for shards in [1, 2] {
        let broker = start("enrich", shards, ENRICH);
        let mut modern: Vec<_> = (0..4)
            .map(|n| Client::join(broker.address, Version::V5, &format!("modern-{n}"), &[]))
            .collect();
        let mut old = Client::join(broker.address, Version::V311, "old", &[]);
        for client in modern.iter_mut().chain([&mut old]) {
            client.subscribe(&["#@1"]);
        }
        for id in 0..4 {
            let topics = vec!["s/a".to_owned(), "plain".to_owned(), "x/twice".to_owned()];
            let source = Source { id, version: Version::V5, topics, size_max: 2000 };
            let name = format!("publisher-{id}");
            let mut publisher = Client::join(broker.address, Version::V5, &name, &[]);
            for number in 0..MESSAGES {
                let sent = source.message(number);
                publisher.send(&sent.publish(Version::V5, 2, number as u16 + 1));
                let mut want = sent.properties.clone();
                if sent.topic != "plain" {
                    want.extend(added(&name));
                }
                for client in &mut modern {
                    let came = next(client);
                    assert_eq!((&came.topic, &came.payload), (&sent.topic, &sent.payload));
                    assert_eq!(came.properties, want, "{name} {number}");
                }
                let came = next(&mut old);
                assert_eq!((came.topic, came.payload), (sent.topic, sent.payload));
            }
            publisher.leave();
        }
        await_sys(broker.address, "plugins/enrich/publish/calls", &(4 * MESSAGES).to_string());
        end(broker);
    }
}

#[test]
fn retained_messages_and_wills_have_the_properties_too() {
    for shards in [1, 2] {
        let broker = start("retained", shards, ENRICH);
        let mut publisher = Client::join(broker.address, Version::V5, "publisher", &[]);
        for number in 0..6 {
            let topic = format!("s/retained/{number}");
            // The plugin takes the place of the client's own `site`.
            let properties = [("site", "mine"), ("a", "1"), ("site", "mine too")];
            publisher.send(&message(&topic, &properties, "r").publish(Version::V5, 3, 1));
            publisher.answer(Kind::Puback);
        }
        let want = user(&[("site", "7"), ("a", "1"), ("from", "<publisher>"), ("from", "again")]);
        for number in 0..6 {
            let name = format!("late-{number}");
            let mut late = Client::join(broker.address, Version::V5, &name, &[]);
            let topic = format!("s/retained/{number}");
            late.subscribe(&[&format!("{topic}@1")]);
            assert_eq!(next(&mut late), got(&topic, true, &want, "r"));
            // A will with properties of its own, of a client on one shard or another.
            let will = message("s/will", &[("w", "x")], "gone");
            let name = format!("mortal-{number}");
            late.subscribe(&["s/will@1"]);
            let mut mortal = Client::open(broker.address, Version::V5);
            mortal.send(&connect_with_will(Version::V5, &name, &will));
            mortal.answer(Kind::Connack);
            mortal.reset();
            let properties =
                [("w", "x"), ("from", &format!("<{name}>")), ("from", "again"), ("site", "7")];
            assert_eq!(next(&mut late), got("s/will", false, &user(&properties), "gone"));
            late.leave();
        }
        end(broker);
    }
}
