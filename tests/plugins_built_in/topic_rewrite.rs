//! `topic-rewrite`: what it makes of a topic is what is subscribed to, retained, and seen by the plugins behind it.

use crate::client::{Client, ack};
use crate::fields::Kind;
use crate::wire::Version;
use crate::{await_sys, end, got, message, next, start, user};

const RULES: &str = r#"
[[plugin]]
name = "rename"
kind = "topic-rewrite"
on_error = "POLICY"
rules = [
    { filter = "old/#", pattern = '^old/(\d+)/(?<rest>.*)$', to = "new/$1/${client_id}/${rest}" },
    { pattern = "^bad$", to = "bad/${user_name}" },
]
[[plugin]]
name = "mark"
kind = "user-property"
filters = ["new/#"]
properties = [{ name = "now", value = "${topic}" }]
"#;

fn rules(on_error: &str) -> String {
    RULES.replace("POLICY", on_error)
}

#[test]
fn the_new_topic_is_the_one_that_is_routed_retained_and_seen_by_the_next_plugin() {
    for shards in [1, 2] {
        let broker = start("rewrite", shards, &rules("deny"));
        let mut live: Vec<_> = (0..3)
            .map(|n| Client::join(broker.address, Version::V5, &format!("live-{n}"), &[]))
            .collect();
        for client in &mut live {
            client.subscribe(&["#@1,rap"]);
        }
        let mut publisher = Client::join(broker.address, Version::V5, "pub", &[]);
        for number in 0..6 {
            let sent = message(&format!("old/{number}/a/b"), &[("x", "y")], "p");
            publisher.send(&sent.publish(Version::V5, 3, 1));
            publisher.answer(Kind::Puback);
            let topic = format!("new/{number}/pub/a/b");
            let properties = user(&[("x", "y"), ("now", &topic)]);
            for client in &mut live {
                assert_eq!(next(client), got(&topic, true, &properties, "p"));
            }
            let mut late = Client::join(broker.address, Version::V5, "late", &[]);
            // If the old topic had been retained, it would come first.
            late.subscribe(&[&format!("old/{number}/a/b@1"), &format!("{topic}@1")]);
            assert_eq!(next(&mut late), got(&topic, true, &properties, "p"));
            late.leave();
        }
        publisher.send(&message("old/x/a", &[], "as it is").publish(Version::V5, 0, 0));
        assert_eq!(next(&mut live[0]), got("old/x/a", false, &[], "as it is"));
        end(broker);
    }
}

#[test]
fn a_topic_that_cannot_be_is_refused_and_the_connection_stays() {
    for shards in [1, 2] {
        let broker = start("refused", shards, &rules("deny"));
        let mut subscriber = Client::join(broker.address, Version::V5, "subscriber", &[]);
        subscriber.subscribe(&["#@2"]);
        for version in [Version::V5, Version::V311] {
            let fields = [("user_name", "a+b")];
            let mut publisher = Client::join(broker.address, version, "publisher", &fields);
            let bad = message("bad", &[], "bad");
            let code = |packet: crate::fields::Packet| packet.number("reason").unwrap_or(0);
            let want = if version == Version::V5 { 0x83 } else { 0 };
            publisher.send(&bad.publish(version, 2, 1));
            assert_eq!(code(publisher.answer(Kind::Puback)), want);
            publisher.send(&bad.publish(version, 4, 2));
            assert_eq!(code(publisher.answer(Kind::Pubrec)), want);
            if version == Version::V311 {
                // It does not know that this was an error.
                publisher.send(&ack(Kind::Pubrel, 2));
                publisher.answer(Kind::Pubcomp);
            }
            publisher.send(&bad.publish(version, 0, 0));
            // The packet identifier of the refused one is free again.
            publisher.send(&message("good", &[], "good").publish(version, 4, 2));
            assert_eq!(code(publisher.answer(Kind::Pubrec)), 0);
            publisher.send(&ack(Kind::Pubrel, 2));
            publisher.answer(Kind::Pubcomp);
            assert_eq!(next(&mut subscriber), got("good", false, &[], "good"));
            publisher.leave();
        }
        await_sys(broker.address, "plugins/rename/publish/errors", "6");
        await_sys(broker.address, "plugins/rename/publish/denied", "6");
        assert!(broker.log().contains("plugin 'rename' failed in its publish hook"));
        end(broker);
    }
}

#[test]
fn a_topic_that_cannot_be_stays_as_it_was_where_errors_pass() {
    for shards in [1, 2] {
        let broker = start("passed", shards, &rules("pass"));
        let mut subscriber = Client::join(broker.address, Version::V5, "subscriber", &[]);
        subscriber.subscribe(&["#@1"]);
        let mut publisher =
            Client::join(broker.address, Version::V5, "publisher", &[("user_name", "a+b")]);
        publisher.send(&message("bad", &[("x", "y")], "bad").publish(Version::V5, 2, 1));
        assert_eq!(publisher.answer(Kind::Puback).number("reason"), None);
        assert_eq!(next(&mut subscriber), got("bad", false, &user(&[("x", "y")]), "bad"));
        await_sys(broker.address, "plugins/rename/publish/errors", "1");
        end(broker);
    }
}
