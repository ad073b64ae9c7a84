//! Bridges end to end: real brokers, links that are cut, processes that are killed, and every message accounted for.
#![cfg(feature = "shell")]

mod client;
mod flow;
mod hops;
mod paused;
#[allow(dead_code, reason = "the replay uses the rest")]
mod process;
mod proxy;
mod refusing;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use flow::{Events, Path, check_flow};
use process::{Process, folder};
use proxy::Proxy;
use ringmq::codec::{ProtocolVersion, Publish, QoS, put_user_property};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// What a remote keeps for a bridge that is away, and what a bridge's log may keep.
const AHEAD_MAX: u64 = 500;
const LOGGED_MAX: u64 = 5_000;

/// Messages of a run that is disturbed: fewer in the gate, `BRIDGE_MESSAGES=200000` by hand.
fn message_count() -> u64 {
    std::env::var("BRIDGE_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// The folder of Mosquitto's programs; `None`, with the reason printed, when this machine cannot have them.
fn mosquitto() -> Option<String> {
    let install = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
    let output = Command::new(install).arg("mosquitto").stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    // Past the capture of a passing test's output.
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    let _ = writeln!(std::io::stdout(), "SKIPPED with mosquitto: {}", reason.trim());
    None
}

/// A bridge that comes back soon, before its rules.
fn bridge(address: std::net::SocketAddr, more: &str) -> String {
    format!(
        "[[bridge]]\nname = \"north\"\naddresses = [\"{address}\"]\nreconnect_min_ms = 20\nreconnect_max_ms = 200\n{more}\n"
    )
}

fn forwarding(address: std::net::SocketAddr, more: &str) -> String {
    let rule = "[[bridge.forward]]\nfilter = \"t/#\"\nto = \"from/here/$1\"\n";
    bridge(address, more) + rule
}

fn subscribing(address: std::net::SocketAddr, more: &str) -> String {
    let rules = "[[bridge.subscribe]]\nfilter = \"t/#\"\nto = \"from/here/$1\"\n\
                 [[bridge.subscribe]]\nfilter = \"probe\"\n";
    bridge(address, more) + rules
}

#[test]
fn nothing_is_lost_to_another_ringmq_and_order_holds() {
    for (shards, more) in [(1, ""), (2, "connections = 3"), (2, "protocol = \"3.1.1\"")] {
        let folder = folder(&format!("to-ringmq-{shards}-{}", more.len()));
        let mut remote = Process::ringmq(&folder, "remote", shards, "");
        let link = Proxy::to(remote.address);
        let configuration = forwarding(link.address, more);
        let mut local = Process::ringmq(&folder, "local", shards, &configuration);
        let events = Events { cuts: 20, source_kills: 3, target_restarts: 3, ..Events::default() };
        let path =
            Path { source: &mut local, target: &mut remote, link: &link, ahead_max: LOGGED_MAX };
        check_flow(message_count(), QoS::AtLeastOnce, &events, path);
    }
}

#[test]
fn nothing_is_lost_to_mosquitto_and_order_holds() {
    let Some(programs) = mosquitto() else { return };
    for more in ["", "protocol = \"3.1.1\""] {
        let folder = folder(&format!("to-mosquitto-{}", more.len()));
        let mut remote = Process::mosquitto(&programs, &folder, "remote");
        let link = Proxy::to(remote.address);
        let configuration = forwarding(link.address, more);
        let mut local = Process::ringmq(&folder, "local", 1, &configuration);
        let events = Events { cuts: 20, source_kills: 3, target_restarts: 3, ..Events::default() };
        let path =
            Path { source: &mut local, target: &mut remote, link: &link, ahead_max: LOGGED_MAX };
        check_flow(message_count(), QoS::AtLeastOnce, &events, path);
    }
}

/// From `remote` to a RingMQ that subscribes there, with everything that may happen to both. Forgetful is a remote that
/// keeps no sessions over its end.
fn check_inward(
    folder: &std::path::Path,
    remote: &mut Process,
    is_source_forgetful: bool,
    shards: u16,
    more: &str,
) {
    let link = Proxy::to(remote.address);
    let mut local = Process::ringmq(folder, "local", shards, &subscribing(link.address, more));
    flow::await_crossing(remote.address, local.address, "first");
    let events = Events {
        cuts: 20,
        source_restarts: 3,
        is_source_forgetful,
        target_restarts: 3,
        target_kills: 3,
        ..Events::default()
    };
    let path = Path { source: remote, target: &mut local, link: &link, ahead_max: AHEAD_MAX };
    check_flow(message_count(), QoS::AtLeastOnce, &events, path);
}

#[test]
fn nothing_that_another_ringmq_has_is_lost_on_its_way_here() {
    for (shards, more) in [(1, ""), (2, "protocol = \"3.1.1\"")] {
        let folder = folder(&format!("from-ringmq-{shards}"));
        let mut remote = Process::ringmq(&folder, "remote", shards, "");
        check_inward(&folder, &mut remote, true, shards, more);
    }
}

#[test]
fn nothing_that_mosquitto_has_is_lost_on_its_way_here() {
    let Some(programs) = mosquitto() else { return };
    for (shards, more) in [(2, ""), (1, "protocol = \"3.1.1\"")] {
        let folder = folder(&format!("from-mosquitto-{shards}"));
        let mut remote = Process::mosquitto(&programs, &folder, "remote");
        check_inward(&folder, &mut remote, false, shards, more);
    }
}

#[test]
fn qos_2_messages_come_once_over_a_link_that_is_cut() {
    let folder = folder("comes-once");
    let mut remote = Process::ringmq(&folder, "remote", 2, "");
    let link = Proxy::to(remote.address);
    let mut local = Process::ringmq(&folder, "local", 2, &subscribing(link.address, ""));
    flow::await_crossing(remote.address, local.address, "first");
    // Both keep their sessions in memory only, so both stay.
    let events = Events { cuts: 20, ..Events::default() };
    let path = Path { source: &mut remote, target: &mut local, link: &link, ahead_max: AHEAD_MAX };
    check_flow(message_count() / 2, QoS::ExactlyOnce, &events, path);
}

#[test]
fn qos_2_messages_cross_once_though_the_sender_is_killed() {
    let folder = folder("once");
    let mut remote = Process::ringmq(&folder, "remote", 1, "");
    let link = Proxy::to(remote.address);
    let mut local = Process::ringmq(&folder, "local", 2, &forwarding(link.address, ""));
    // The remote keeps its sessions in memory only, so it stays; and a publisher that is killed with its broker may repeat.
    let events = Events { cuts: 20, ..Events::default() };
    let path = Path { source: &mut local, target: &mut remote, link: &link, ahead_max: LOGGED_MAX };
    check_flow(message_count() / 2, QoS::ExactlyOnce, &events, path);
}

#[test]
fn what_the_log_has_survives_a_kill_and_crosses_once() {
    const COUNT: u64 = 3_000;
    let folder = folder("log-to-remote-once");
    let remote = Process::ringmq(&folder, "remote", 1, "");
    let mut subscriber = client::Client::connect(remote.address, "s", V5, true).unwrap();
    subscriber.subscribe("from/#", QoS::ExactlyOnce).unwrap();
    let link = Proxy::to(remote.address);
    let mut local = Process::ringmq(&folder, "local", 1, &forwarding(link.address, ""));
    flow::publish_all(local.address, QoS::ExactlyOnce, COUNT);
    // All is acknowledged, so it is in the log; now the process dies again and again while it sends.
    let mut got = Vec::new();
    for _ in 0..5 {
        local.kill();
        flow::collect(&mut subscriber, &mut got, Duration::from_millis(100));
        link.cut();
        local.run();
        flow::collect(&mut subscriber, &mut got, Duration::from_millis(1500));
    }
    flow::collect_until(&mut subscriber, &mut got, COUNT as usize, Duration::from_secs(30));
    flow::collect(&mut subscriber, &mut got, Duration::from_millis(500));
    let numbers: Vec<u64> = got.iter().map(flow::number_of).collect();
    assert_eq!(numbers.len(), COUNT as usize, "each crosses once");
    for topic in 0..flow::TOPICS {
        let of_topic: Vec<u64> =
            numbers.iter().copied().filter(|n| n % flow::TOPICS == topic).collect();
        assert!(of_topic.is_sorted(), "order per topic");
    }
}

#[test]
fn properties_cross_to_the_byte_and_mappings_hold() {
    let folder = folder("mapping");
    let remote = Process::ringmq(&folder, "remote", 2, "");
    let configuration = format!(
        "[[bridge]]\nname = \"map\"\naddresses = [\"{}\"]\nmessage_properties = [{{ name = \"via\", value = \"map\" }}]\n\
         [[bridge.forward]]\nfilter = \"sensors/+/temp/#\"\nto = \"site-7/$1/t/$2\"\nexcept = [\"sensors/x/#\"]\nqos_max = 1\n\
         retain = \"clear\"\n\
         [[bridge.forward]]\nfilter = \"plain/#\"\nprefix = \"site-7/\"\nstore = false\n\
         [[bridge.subscribe]]\nfilter = \"orders/#\"\nto = \"in/$1\"\n",
        remote.address
    );
    let local = Process::ringmq(&folder, "local", 2, &configuration);
    let mut far = client::Client::connect(remote.address, "far", V5, false).unwrap();
    far.subscribe("site-7/#", QoS::ExactlyOnce).unwrap();
    let mut near = client::Client::connect(local.address, "near", V5, false).unwrap();
    near.subscribe("in/#", QoS::ExactlyOnce).unwrap();
    flow::await_state(local.address, "map", "connected");
    let mut properties = Vec::new();
    for (name, value) in [("b", "1"), ("a", "\u{1f600}"), ("b", ""), ("", "x")] {
        put_user_property(&mut properties, name, value);
    }
    let publish = |topic, qos| Publish {
        qos,
        retain: true,
        topic,
        packet_id: ringmq::codec::PacketId::new(9).filter(|_| qos != QoS::AtMostOnce),
        properties: ringmq::codec::ForwardedProperties::from_raw(&properties),
        payload: b"21.5",
        ..Publish::default()
    };
    for (topic, qos) in [
        ("sensors/a/temp/in/side", QoS::ExactlyOnce),
        ("sensors/x/temp/1", QoS::AtMostOnce),
        ("plain/q", QoS::AtMostOnce),
    ] {
        near.publish(publish(topic, qos));
        near.flush().unwrap();
        near.read(Duration::from_millis(200)).unwrap();
    }
    let mut got = Vec::new();
    flow::collect_until(&mut far, &mut got, 2, Duration::from_secs(10));
    let mut expected = properties.clone();
    put_user_property(&mut expected, "via", "map");
    got.sort_by(|a, b| a.topic.cmp(&b.topic));
    let seen: Vec<_> =
        got.iter().map(|m| (m.topic.as_str(), m.qos, m.retain, m.properties.clone())).collect();
    assert_eq!(
        seen,
        [
            ("site-7/a/t/in/side", QoS::AtLeastOnce, false, expected.clone()),
            ("site-7/plain/q", QoS::AtMostOnce, true, expected),
        ]
    );
    far.publish(publish("orders/1/x", QoS::ExactlyOnce));
    far.flush().unwrap();
    let mut got = Vec::new();
    far.read(Duration::from_millis(300)).unwrap();
    flow::collect_until(&mut near, &mut got, 1, Duration::from_secs(10));
    assert_eq!((got[0].topic.as_str(), got[0].qos), ("in/1/x", QoS::ExactlyOnce));
    assert_eq!(got[0].properties, properties);
}

#[test]
fn retained_messages_are_sent_when_a_bridge_first_connects() {
    const COUNT: usize = 700;
    let folder = folder("retained");
    let mut remote = Process::ringmq(&folder, "remote", 1, "");
    remote.stop();
    let configuration = forwarding(remote.address, "");
    let local = Process::ringmq(&folder, "local", 2, &configuration);
    let mut near = client::Client::connect(local.address, "near", V5, false).unwrap();
    for number in 0..COUNT {
        let topic = format!("kept/{number}");
        near.publish(Publish { retain: true, topic: &topic, payload: b"no", ..Publish::default() });
    }
    near.flush().unwrap();
    flow::publish_all(local.address, QoS::AtLeastOnce, 1);
    drop(near);
    drop(local);
    // Those that a rule means, published before there was a bridge.
    let plain = Process::ringmq(
        &folder,
        "second",
        2,
        &forwarding(remote.address, "").replace("t/#", "kept/#"),
    );
    let mut near = client::Client::connect(plain.address, "near", V5, false).unwrap();
    for number in 0..COUNT {
        let topic = format!("kept/{number}");
        near.publish(Publish {
            retain: true,
            topic: &topic,
            payload: b"yes",
            ..Publish::default()
        });
    }
    near.flush().unwrap();
    near.read(Duration::from_millis(300)).unwrap();
    remote.run();
    let mut far = client::Client::connect(remote.address, "far", V5, false).unwrap();
    far.subscribe("from/#", QoS::ExactlyOnce).unwrap();
    let mut got = Vec::new();
    flow::collect_until(&mut far, &mut got, COUNT, Duration::from_secs(20));
    let mut topics: Vec<_> = got.iter().map(|message| message.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), COUNT);
}

#[test]
fn two_sites_with_the_same_configuration_leave_each_other_alone() {
    let folder = folder("same-configuration");
    let remote = Process::ringmq(&folder, "remote", 1, "");
    let mut far = client::Client::connect(remote.address, "far", V5, false).unwrap();
    far.subscribe("from/#", QoS::AtLeastOnce).unwrap();
    let configuration = forwarding(remote.address, "");
    let mut sites: Vec<_> =
        (0..2).map(|n| Process::ringmq(&folder, &format!("site-{n}"), 1, &configuration)).collect();
    for round in 0..2 {
        sites.iter().for_each(|site| flow::await_state(site.address, "north", "connected"));
        for site in &sites {
            flow::publish_all(site.address, QoS::AtLeastOnce, 20);
        }
        let mut got = Vec::new();
        flow::collect_until(&mut far, &mut got, 40, Duration::from_secs(20));
        flow::collect(&mut far, &mut got, Duration::from_millis(500));
        assert_eq!(got.len(), 40, "round {round}");
        // Each comes back as who it was.
        sites.iter_mut().for_each(|site| {
            site.stop();
            site.run();
        });
    }
    for site in &sites {
        let log = site.log();
        assert!(!log.contains("SessionTakenOver"), "{log}");
        let kept = log.matches("its client id is").count();
        assert_eq!(kept, 1, "made once: {log}");
    }
}

#[test]
fn a_successor_waits_for_the_logs_of_a_broker_that_still_ends() {
    let folder = folder("successor");
    for io in ["auto", "epoll"] {
        let options = format!("io = \"{io}\"\nshutdown_stall_ms = \"60s\"\n");
        let configuration = options + &forwarding(process::free_address(), "");
        let mut before = Process::ringmq(&folder, &format!("before-{io}"), 2, &configuration);
        // A client that reads nothing, so that what waits for it keeps the broker from its end.
        let mut busy = client::Client::connect(before.address, "busy", V5, false).unwrap();
        busy.subscribe("t/#", QoS::AtLeastOnce).unwrap();
        busy.read(Duration::from_secs(1)).unwrap();
        flow::publish_all(before.address, QoS::AtLeastOnce, 20);
        before.ask_to_end();
        before.await_log("shutting down");
        // One that is told to end while it waits, then one that is not.
        let mut impatient = before.successor(&format!("impatient-{io}"));
        impatient.await_log("waiting until that has ended");
        impatient.ask_to_end();
        assert_eq!(impatient.await_end().code(), Some(0), "{}", impatient.log());
        let mut after = before.successor(&format!("after-{io}"));
        after.await_log("waiting until that has ended");
        assert!(!after.log().contains("listening"), "{}", after.log());
        // It reads on until the broker says goodbye.
        while busy.read(Duration::from_secs(10)).is_ok_and(|got| !got.is_empty()) {}
        assert_eq!(before.await_end().code(), Some(0), "{}", before.log());
        after.await_log("listening on");
        flow::publish_all(after.address, QoS::AtLeastOnce, 20);
        after.stop();
    }
}

#[test]
fn a_ring_of_three_passes_a_message_once_around() {
    let folder = folder("ring");
    for protocol in ["5.0", "3.1.1"] {
        let bridge = |next: std::net::SocketAddr| {
            format!(
                "[[bridge]]\nname = \"next\"\naddresses = [\"{next}\"]\nprotocol = \"{protocol}\"\nreconnect_min_ms = 100\n\
                 [[bridge.forward]]\nfilter = \"ring/#\"\n"
            )
        };
        // Each needs the address of the next one before that one runs.
        let proxies: Vec<_> = (0..3).map(|_| proxy::Late::new()).collect();
        let brokers: Vec<_> = (0..3)
            .map(|n| {
                let next = proxies[(n + 1) % 3].address;
                Process::ringmq(
                    &folder,
                    &format!("{protocol}-{n}"),
                    1 + n as u16 % 2,
                    &bridge(next),
                )
            })
            .collect();
        for (proxy, broker) in proxies.iter().zip(&brokers) {
            proxy.lead_to(broker.address);
        }
        let mut watchers: Vec<_> = brokers
            .iter()
            .map(|broker| {
                flow::await_state(broker.address, "next", "connected");
                let mut watcher = client::Client::connect(broker.address, "w", V5, false).unwrap();
                watcher.subscribe("ring/#", QoS::AtLeastOnce).unwrap();
                watcher.read(Duration::from_millis(200)).unwrap();
                watcher
            })
            .collect();
        let mut publisher = client::Client::connect(brokers[0].address, "p", V5, false).unwrap();
        for number in 1..=20u16 {
            publisher.publish(Publish {
                qos: QoS::AtLeastOnce,
                topic: "ring/x",
                packet_id: ringmq::codec::PacketId::new(number),
                payload: &number.to_be_bytes(),
                ..Publish::default()
            });
        }
        publisher.flush().unwrap();
        publisher.read(Duration::from_millis(500)).unwrap();
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let mut got = Vec::new();
            flow::collect(watcher, &mut got, Duration::from_secs(2));
            // Where it began it is seen when it is published, and, without hop marks, when it has come around.
            let expected = if n == 0 && protocol == "3.1.1" { 40 } else { 20 };
            assert_eq!(got.len(), expected, "{protocol}, broker {n}");
        }
    }
}

#[test]
fn two_brokers_that_bridge_to_each_other_pass_a_message_once() {
    let folder = folder("pair");
    let (forward, subscribe) = (
        "[[bridge.forward]]\nfilter = \"pair/#\"\n",
        "[[bridge.subscribe]]\nfilter = \"pair/#\"\n",
    );
    let both = [forward, subscribe].concat();
    for (place, (rules, seen)) in [
        // The rules of each; what each sees of a message of its own and of the other's. Without hop marks, two that forward see
        // their own once more, when it comes around.
        ([Some(forward), Some(forward)], [[2, 1], [1, 2]]),
        ([Some(both.as_str()), None], [[1, 1], [1, 1]]),
        ([Some(subscribe), Some(subscribe)], [[1, 1], [1, 1]]),
    ]
    .into_iter()
    .enumerate()
    {
        for protocol in ["5.0", "3.1.1"] {
            let links = [proxy::Late::new(), proxy::Late::new()];
            let brokers = [0, 1].map(|n| {
                let rules = rules[n].map_or(String::new(), |rules| {
                    bridge(links[1 - n].address, &format!("protocol = \"{protocol}\"")) + rules
                });
                Process::ringmq(&folder, &format!("{protocol}-{place}-{n}"), 1 + n as u16, &rules)
            });
            for (link, broker) in links.iter().zip(&brokers) {
                link.lead_to(broker.address);
            }
            let mut watchers = [0, 1].map(|n| {
                if rules[n].is_some() {
                    flow::await_state(brokers[n].address, "north", "connected");
                }
                let mut watcher =
                    client::Client::connect(brokers[n].address, "w", V5, false).unwrap();
                watcher.subscribe("pair/#", QoS::AtLeastOnce).unwrap();
                watcher.read(Duration::from_millis(50)).unwrap();
                watcher
            });
            for (origin, broker) in brokers.iter().enumerate() {
                let mut publisher =
                    client::Client::connect(broker.address, "p", V5, false).unwrap();
                for number in 1..=20u16 {
                    publisher.publish(Publish {
                        qos: QoS::AtLeastOnce,
                        topic: "pair/x",
                        packet_id: ringmq::codec::PacketId::new(number),
                        payload: &[origin as u8, number as u8],
                        ..Publish::default()
                    });
                }
                publisher.flush().unwrap();
                for (n, watcher) in watchers.iter_mut().enumerate() {
                    let mut got = Vec::new();
                    let times = if protocol == "5.0" { 1 } else { seen[origin][n] };
                    let expected = 20 * times;
                    flow::collect_until(watcher, &mut got, expected, Duration::from_secs(10));
                    flow::collect(watcher, &mut got, Duration::from_millis(250));
                    assert_eq!(got.len(), expected, "{protocol} {place}: of {origin} at {n}");
                }
            }
        }
    }
}

#[test]
fn what_is_retained_does_not_go_round_between_two_that_subscribe_to_each_other() {
    const COUNT: usize = 10;
    let folder = folder("pair-retained");
    for protocol in ["5.0", "3.1.1"] {
        let links = [proxy::Late::new(), proxy::Late::new()];
        let brokers = [0, 1].map(|n| {
            let rules = bridge(links[1 - n].address, &format!("protocol = \"{protocol}\""))
                + "[[bridge.subscribe]]\nfilter = \"kept/#\"\n";
            Process::ringmq(&folder, &format!("{protocol}-{n}"), 1 + n as u16, &rules)
        });
        let mut watchers = brokers.each_ref().map(|broker| {
            let mut watcher = client::Client::connect(broker.address, "w", V5, false).unwrap();
            watcher.subscribe("kept/#", QoS::AtLeastOnce).unwrap();
            watcher.read(Duration::from_millis(50)).unwrap();
            watcher
        });
        // Before either has a link.
        let mut publisher = client::Client::connect(brokers[0].address, "p", V5, false).unwrap();
        for number in 0..COUNT {
            let topic = format!("kept/{number}");
            publisher.publish(Publish {
                retain: true,
                topic: &topic,
                payload: b"21.5",
                ..Publish::default()
            });
        }
        publisher.flush().unwrap();
        let mut own = Vec::new();
        flow::collect_until(&mut watchers[0], &mut own, COUNT, Duration::from_secs(10));
        for (link, broker) in links.iter().zip(&brokers) {
            link.lead_to(broker.address);
        }
        let mut others = Vec::new();
        flow::collect_until(&mut watchers[1], &mut others, COUNT, Duration::from_secs(20));
        brokers.iter().for_each(|broker| flow::await_state(broker.address, "north", "connected"));
        for (watcher, mut got) in watchers.iter_mut().zip([own, others]) {
            flow::collect(watcher, &mut got, Duration::from_millis(500));
            assert_eq!(got.len(), COUNT, "{protocol}");
        }
    }
}
