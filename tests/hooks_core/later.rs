//! CONNECTs that a hook answers later.

use super::{Scripted, World, check_released, hooked, quiet};
use ringmq::codec::{Connect, QoS, ReasonCode};
use ringmq::limits::Limits;
use ringmq::plugin::{Answer, QuestionId, Reply, SessionLimits};

/// Asks about all clients but the watcher.
fn asking() -> Scripted {
    Scripted { later: Some(|client| client.client_id != "watcher"), ..Scripted::default() }
}

const YES: Reply = Reply::Allow(SessionLimits {
    session_expiry_max_s: None,
    keep_alive_max_s: None,
    inflight_max: None,
    queue_messages_max: None,
    queue_bytes_max: None,
    subscriptions_max: None,
});

/// The question about a client that was asked last.
fn question(hooks: &Scripted, client_id: &str) -> (usize, QuestionId) {
    let questions = hooks.questions.borrow();
    let found = questions.iter().rev().find(|(client, ..)| client == client_id);
    let (_, shard, question) = found.unwrap_or_else(|| panic!("{client_id} was not asked about"));
    (*shard, *question)
}

fn answer_to(world: &mut World, (shard, question): (usize, QuestionId), reply: Reply) {
    let now = world.now;
    world.shards[shard].handle_answer(now, Answer { question, reply });
    world.settle();
}

fn answer(world: &mut World, hooks: &Scripted, client_id: &str, reply: Reply) {
    answer_to(world, question(hooks, client_id), reply);
}

fn unasked(world: &mut World) -> u64 {
    world.shards.iter_mut().map(|shard| shard.counters().answers_unasked).sum()
}

fn asked_count(hooks: &Scripted) -> usize {
    hooks.log.borrow().iter().filter(|line| line.starts_with("connect ")).count()
}

fn lasting(connect: &mut Connect<'_>) {
    connect.clean_start = false;
    connect.session_expiry_s = Some(100);
}

#[test]
fn a_client_waits_for_its_answer_and_what_it_sent_behind_connect_waits_with_it() {
    // On the second shard the CONNECT was handed over before it is asked about.
    for shard_count in [1, 2] {
        for number in 0..8 {
            let hooks = asking();
            let mut world = hooked(shard_count, quiet(), &hooks);
            let watcher = world.connect("watcher", |_| ());
            world.subscribe(watcher, "#", QoS::AtMostOnce);
            world.settle();
            world.received(watcher);
            let name = format!("c{number}");
            let client = world.connect(&name, |_| ());
            for payload in [b"1", b"2", b"3"] {
                world.publish(client, "t", payload, QoS::AtMostOnce, 0);
            }
            world.settle();
            assert!(world.received(client).is_empty() && world.messages(watcher).is_empty());
            assert!(world.is_open(client));
            let limits = SessionLimits { keep_alive_max_s: Some(77), ..SessionLimits::default() };
            answer(&mut world, &hooks, &name, Reply::Allow(limits));
            let mut keep_alive = None;
            world.packets(client, |packet| {
                if let ringmq::codec::Packet::Connack(connack) = packet {
                    keep_alive = Some(connack.server_keep_alive_s);
                }
            });
            assert_eq!(keep_alive, Some(Some(77)), "the answer bounds the session");
            assert_eq!(world.messages(watcher), ["t=1", "t=2", "t=3"]);
            assert_eq!(
                *hooks.log.borrow(),
                [
                    "connect watcher".to_string(),
                    format!("connect {name}"),
                    format!("resumed {name}"),
                ]
            );
            assert_eq!(unasked(&mut world), 0);
            check_released(&mut world);
        }
    }
}

#[test]
fn a_client_that_is_refused_later_is_told_why_and_leaves_nothing() {
    let hooks = asking();
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("c", |_| ());
    world.publish(client, "t", b"x", QoS::AtMostOnce, 0);
    answer(&mut world, &hooks, "c", Reply::Deny(ReasonCode::BadUserNameOrPassword));
    assert_eq!(world.received(client), ["CONNACK BadUserNameOrPassword"]);
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].gauges().sessions, 0);
    let counters = world.shards[0].counters();
    assert_eq!((counters.connects_denied, counters.publishes_received), (1, 0));
}

#[test]
fn a_client_without_an_answer_in_time_is_refused_and_a_late_one_is_nobody_s() {
    let hooks = asking();
    let mut world = hooked(1, Limits { connect_timeout_ms: 500, ..quiet() }, &hooks);
    let client = world.connect("c", |_| ());
    world.now = world.now.plus_ms(499);
    world.settle();
    assert!(world.received(client).is_empty());
    world.now = world.now.plus_ms(1);
    world.settle();
    assert_eq!(world.received(client), ["CONNACK ServerUnavailable"]);
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counters().questions_expired, 1);
    answer(&mut world, &hooks, "c", YES);
    assert_eq!(unasked(&mut world), 1);
    assert_eq!((world.shards[0].gauges().sessions, asked_count(&hooks)), (0, 1));
}

#[test]
fn of_two_answers_the_first_counts() {
    let hooks = asking();
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("c", |_| ());
    answer(&mut world, &hooks, "c", YES);
    answer(&mut world, &hooks, "c", Reply::Deny(ReasonCode::Banned));
    assert_eq!(world.received(client), ["CONNACK Success"]);
    assert!(world.is_open(client));
    assert_eq!(unasked(&mut world), 1);
    // A number that was never given is nobody's, too.
    let never = QuestionId::from_number(1_000).unwrap();
    answer_to(&mut world, (0, never), YES);
    assert_eq!(unasked(&mut world), 2);
}

#[test]
fn what_a_client_sent_before_it_went_is_used_once_the_answer_is_there() {
    for is_allowed in [true, false] {
        let hooks = asking();
        let mut world = hooked(1, Limits { connect_timeout_ms: 500, ..quiet() }, &hooks);
        let watcher = world.connect("watcher", |_| ());
        world.subscribe(watcher, "#", QoS::AtMostOnce);
        let client = world.connect("c", |_| ());
        world.publish(client, "t", b"x", QoS::AtMostOnce, 0);
        world.settle();
        world.lose(client);
        world.settle();
        if is_allowed {
            answer(&mut world, &hooks, "c", YES);
        } else {
            world.now = world.now.plus_ms(501);
            world.settle();
            answer(&mut world, &hooks, "c", YES);
        }
        let expected: &[&str] = if is_allowed { &["t=x"] } else { &[] };
        assert_eq!(world.messages(watcher), expected);
        assert_eq!(world.shards[0].gauges().connections, 1, "it is gone");
        assert_eq!(unasked(&mut world), u64::from(!is_allowed));
        check_released(&mut world);
    }
}

#[test]
fn a_socket_that_breaks_while_much_waits_in_it_is_read_and_asks_nothing_twice() {
    let hooks = asking();
    let mut world = hooked(1, quiet(), &hooks);
    let watcher = world.connect("watcher", |_| ());
    world.subscribe(watcher, "#", QoS::AtMostOnce);
    let client = world.connect("c", |_| ());
    // More than a connection that waits is read.
    for _ in 0..100 {
        world.publish(client, "t", &[b'x'; 1_000], QoS::AtMostOnce, 0);
    }
    world.lose_later(client);
    world.settle();
    assert_eq!(asked_count(&hooks), 2);
    answer(&mut world, &hooks, "c", YES);
    assert_eq!(world.messages(watcher).len(), 100);
    assert_eq!((asked_count(&hooks), unasked(&mut world)), (2, 0));
    assert_eq!(world.shards[0].gauges().connections, 1, "it is gone");
    check_released(&mut world);
}

#[test]
fn the_old_connection_of_a_client_goes_on_until_the_new_one_is_let_in() {
    for is_allowed in [false, true] {
        let hooks = asking();
        let mut world = hooked(1, quiet(), &hooks);
        let watcher = world.connect("watcher", |_| ());
        world.subscribe(watcher, "#", QoS::AtMostOnce);
        let old = world.connect("c", lasting);
        answer(&mut world, &hooks, "c", YES);
        let new = world.connect("c", lasting);
        world.publish(old, "t", b"1", QoS::AtLeastOnce, 1);
        world.settle();
        assert_eq!(world.received(old), ["CONNACK Success", "PUBACK Success"]);
        assert_eq!(asked_count(&hooks), 3);
        let reply = if is_allowed { YES } else { Reply::Deny(ReasonCode::NotAuthorized) };
        answer(&mut world, &hooks, "c", reply);
        if !is_allowed {
            world.publish(old, "t", b"2", QoS::AtLeastOnce, 2);
            world.settle();
        }
        let (told, left) = match is_allowed {
            true => ("CONNACK Success", vec!["DISCONNECT SessionTakenOver"]),
            false => ("CONNACK NotAuthorized", vec!["PUBACK Success"]),
        };
        assert_eq!(world.received(new), [told]);
        assert_eq!(world.received(old), left);
        assert_eq!((world.is_open(old), world.is_open(new)), (!is_allowed, is_allowed));
        assert_eq!(asked_count(&hooks), 3, "nobody was asked about twice");
        check_released(&mut world);
    }
}

#[test]
fn of_several_connects_of_a_client_the_one_that_is_answered_last_has_it() {
    let hooks = asking();
    let mut world = hooked(1, quiet(), &hooks);
    let first = world.connect("c", lasting);
    let first_question = question(&hooks, "c");
    let second = world.connect("c", lasting);
    answer(&mut world, &hooks, "c", YES);
    assert_eq!(world.received(second), ["CONNACK Success"]);
    answer_to(&mut world, first_question, YES);
    assert_eq!(world.received(first), ["CONNACK Success"]);
    assert_eq!(world.received(second), ["DISCONNECT SessionTakenOver"]);
    assert_eq!(world.shards[0].gauges().sessions, 1);
    assert_eq!((asked_count(&hooks), unasked(&mut world)), (2, 0));
}

#[test]
fn a_client_keeps_the_identifier_that_was_asked_about() {
    let hooks = asking();
    let mut world = hooked(2, quiet(), &hooks);
    let client = world.connect("", |_| ());
    let drawn = hooks.questions.borrow()[0].0.clone();
    answer(&mut world, &hooks, &drawn, YES);
    let mut assigned = None;
    world.packets(client, |packet| {
        if let ringmq::codec::Packet::Connack(connack) = packet {
            assigned = connack.assigned_client_id.map(str::to_owned);
        }
    });
    assert_eq!(assigned, Some(drawn));
}

#[test]
fn as_many_wait_as_may() {
    let hooks = asking();
    let mut world = hooked(1, Limits { questions_max: 2, ..quiet() }, &hooks);
    let waiting = ["a", "b"].map(|name| world.connect(name, |_| ()));
    let above = world.connect("c", |_| ());
    assert_eq!(world.received(above), ["CONNACK ServerBusy"]);
    assert_eq!(world.shards[0].counters().questions_refused, 1);
    answer(&mut world, &hooks, "a", YES);
    assert_eq!(world.received(waiting[0]), ["CONNACK Success"]);
    world.connect("d", |_| ());
    assert_eq!(hooks.questions.borrow().len(), 3, "there was room again");
}

#[test]
fn an_answer_after_the_shutdown_began_is_nobody_s() {
    let hooks = asking();
    let mut world = hooked(1, quiet(), &hooks);
    let client = world.connect("c", |_| ());
    let now = world.now;
    world.shards[0].begin_shutdown(now);
    world.settle();
    answer(&mut world, &hooks, "c", YES);
    assert_eq!(unasked(&mut world), 1);
    world.part();
    world.settle();
    assert!(world.received(client).is_empty() && !world.is_open(client));
    assert_eq!((world.shards[0].gauges().sessions, asked_count(&hooks)), (0, 1));
}

#[test]
fn a_flood_of_connects_with_the_same_answer_counts_once_each() {
    let limits = Limits { flapping_connects_max: 3, ..quiet() };
    let hooks = asking();
    let mut world = hooked(1, limits, &hooks);
    for _ in 0..3 {
        let client = world.connect_from("192.0.2.1:1000", "c", |_| ());
        answer(&mut world, &hooks, "c", YES);
        assert_eq!(world.received(client), ["CONNACK Success"]);
    }
}
