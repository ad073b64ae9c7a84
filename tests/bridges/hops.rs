//! Hubs and rings of brokers: no genuine message is dropped where all hops are of 5.0, and every loop ends.

use std::path::Path;
use std::time::Duration;

use ringmq::codec::{PacketId, Publish, QoS};

use crate::client::{Client, Message};
use crate::process::{Process, folder};
use crate::{V5, bridge, flow, mosquitto, proxy};

const BOTH_WAYS: &str =
    "[[bridge.forward]]\nfilter = \"#\"\n[[bridge.subscribe]]\nfilter = \"#\"\n";

/// A client that sees everything at a broker.
struct Watcher {
    client: Client,
    got: Vec<Message>,
}

impl Watcher {
    fn new(broker: &Process) -> Watcher {
        let mut client = Client::connect(broker.address, "watcher", V5, false).unwrap();
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        // What told that the bridges are there may still be on its way.
        flow::collect(&mut client, &mut Vec::new(), Duration::from_millis(300));
        Watcher { client, got: Vec::new() }
    }

    fn await_count(&mut self, count: usize) {
        flow::collect_until(&mut self.client, &mut self.got, count, Duration::from_secs(20));
    }

    /// Topics and payloads of all that came, once nothing more does.
    fn all(&mut self) -> Vec<String> {
        flow::collect(&mut self.client, &mut self.got, Duration::from_millis(400));
        let line = |m: &Message| format!("{}={}", m.topic, String::from_utf8_lossy(&m.payload));
        self.got.iter().map(line).collect()
    }
}

fn retain(broker: &Process, topic: &str, payload: &str) {
    let mut client = Client::connect(broker.address, "setter", V5, false).unwrap();
    client.publish(Publish {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic,
        packet_id: PacketId::new(1),
        payload: payload.as_bytes(),
        ..Publish::default()
    });
    client.flush().unwrap();
    client.read(Duration::from_secs(5)).unwrap();
}

/// The retained message of a topic.
fn kept(broker: &Process, topic: &str) -> String {
    let mut client = Client::connect(broker.address, "reader", V5, false).unwrap();
    client.subscribe(topic, QoS::AtMostOnce).unwrap();
    let mut got = Vec::new();
    flow::collect_until(&mut client, &mut got, 1, Duration::from_secs(5));
    String::from_utf8_lossy(&got[0].payload).into_owned()
}

/// A hub that bridges to two sites, each by a protocol, all topics both ways.
struct Star {
    hub: Process,
    sites: [Process; 2],
}

impl Star {
    fn new(folder: &Path, protocols: [&str; 2], more: &str) -> Star {
        let sites = [0, 1].map(|n| Process::ringmq(folder, &format!("site-{n}"), 1 + n as u16, ""));
        let bridges = [0, 1].map(|n| {
            let more = format!("protocol = \"{}\"\n{more}", protocols[n]);
            let one = bridge(sites[n].address, &more) + BOTH_WAYS;
            one.replace("\"north\"", &format!("\"to-{n}\""))
        });
        let hub = Process::ringmq(folder, "hub", 2, &bridges.concat());
        for (n, site) in sites.iter().enumerate() {
            flow::await_state(hub.address, &format!("to-{n}"), "connected");
            flow::await_crossing(site.address, hub.address, "first");
        }
        Star { hub, sites }
    }

    fn brokers(&self) -> [&Process; 3] {
        [&self.hub, &self.sites[0], &self.sites[1]]
    }
}

#[test]
fn a_site_may_say_again_what_the_hub_has_said_and_all_agree() {
    for (place, (protocol, more)) in [
        ("5.0", ""),
        ("5.0", "connections = 3"),
        // Nothing goes round in a star, so nobody needs to look.
        ("3.1.1", "echo_detection = false"),
    ]
    .into_iter()
    .enumerate()
    {
        let star = Star::new(&folder(&format!("star-{place}")), [protocol; 2], more);
        let mut watchers = star.brokers().map(Watcher::new);
        for (count, (at, value)) in
            [(0, "ON"), (0, "OFF"), (1, "ON"), (2, "OFF"), (1, "ON")].into_iter().enumerate()
        {
            retain(star.brokers()[at], "lamp", value);
            watchers.iter_mut().for_each(|watcher| watcher.await_count(count + 1));
        }
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let expected = ["ON", "OFF", "ON", "OFF", "ON"].map(|value| format!("lamp={value}"));
            assert_eq!(watcher.all(), expected, "{protocol} {more}: at {n}");
        }
        for broker in star.brokers() {
            assert_eq!(kept(broker, "lamp"), "ON", "{protocol} {more}");
        }
    }
}

#[test]
fn hubs_with_hops_of_3_1_1_pass_each_new_message_once() {
    for (place, (protocols, more)) in [
        (["5.0", "3.1.1"], ""),
        (["5.0", "3.1.1"], "connections = 3"),
        (["3.1.1", "3.1.1"], "connections = 3"),
    ]
    .into_iter()
    .enumerate()
    {
        let star = Star::new(&folder(&format!("star-mixed-{place}")), protocols, more);
        let mut watchers = star.brokers().map(Watcher::new);
        let mut expected = Vec::new();
        for number in 0..6 {
            let topic = format!("lamp/{number}");
            retain(star.brokers()[number % 3], &topic, "ON");
            expected.push(format!("{topic}=ON"));
            watchers.iter_mut().for_each(|watcher| watcher.await_count(number + 1));
        }
        for (n, watcher) in watchers.iter_mut().enumerate() {
            assert_eq!(watcher.all(), expected, "{protocols:?} {more}: at {n}");
        }
    }
}

/// Three brokers, each forwarding to the next one by a protocol.
fn ring(folder: &Path, protocols: [&str; 3]) -> Vec<Process> {
    let links: Vec<_> = (0..3).map(|_| proxy::Late::new()).collect();
    let brokers: Vec<_> = (0..3)
        .map(|n| {
            let more = format!("protocol = \"{}\"", protocols[n]);
            let rules = bridge(links[(n + 1) % 3].address, &more)
                + "[[bridge.forward]]\nfilter = \"lamp/#\"\n";
            Process::ringmq(folder, &format!("ring-{n}"), 1 + n as u16 % 2, &rules)
        })
        .collect();
    for (link, broker) in links.iter().zip(&brokers) {
        link.lead_to(broker.address);
    }
    brokers.iter().for_each(|broker| flow::await_state(broker.address, "north", "connected"));
    brokers
}

#[test]
fn a_ring_of_5_0_drops_nothing_but_what_comes_around() {
    let brokers = ring(&folder("ring-5"), ["5.0"; 3]);
    let mut watchers: Vec<_> = brokers.iter().map(Watcher::new).collect();
    let said = [(0, "ON"), (0, "OFF"), (1, "ON"), (2, "OFF"), (0, "OFF"), (2, "ON")];
    for (count, (at, value)) in said.into_iter().enumerate() {
        retain(&brokers[at], "lamp/1", value);
        watchers.iter_mut().for_each(|watcher| watcher.await_count(count + 1));
    }
    for (n, watcher) in watchers.iter_mut().enumerate() {
        let expected = said.map(|(_, value)| format!("lamp/1={value}"));
        assert_eq!(watcher.all(), expected, "at {n}");
    }
    for broker in &brokers {
        assert_eq!(kept(broker, "lamp/1"), "ON");
        assert!(broker.log().contains("a loop of bridges ends here"), "{}", broker.log());
    }
}

#[test]
fn a_ring_with_a_hop_of_3_1_1_passes_a_message_once_around() {
    let protocols = ["5.0", "3.1.1", "5.0"];
    let brokers = ring(&folder("ring-mixed"), protocols);
    let mut watchers: Vec<_> = brokers.iter().map(Watcher::new).collect();
    for (at, broker) in brokers.iter().enumerate() {
        retain(broker, &format!("lamp/{at}"), "ON");
        watchers.iter_mut().for_each(|watcher| watcher.await_count(at + 1));
    }
    for (n, watcher) in watchers.iter_mut().enumerate() {
        let mut all = watcher.all();
        all.sort();
        // What is a broker's own may be seen once more, when it has come around.
        all.dedup();
        assert_eq!(all, [0, 1, 2].map(|at| format!("lamp/{at}=ON")), "at {n}");
        assert!(watcher.got.len() <= 4, "at {n}: {:?}", watcher.all());
    }
}

#[test]
fn a_loop_that_renames_its_messages_ends_where_it_closes() {
    let folder = folder("renaming");
    let links = [proxy::Late::new(), proxy::Late::new()];
    let brokers = [0, 1].map(|n| {
        let rules = bridge(links[1 - n].address, "")
            + &format!("[[bridge.forward]]\nfilter = \"#\"\nprefix = \"via-{n}/\"\n");
        Process::ringmq(&folder, &format!("broker-{n}"), 2, &rules)
    });
    for (link, broker) in links.iter().zip(&brokers) {
        link.lead_to(broker.address);
    }
    brokers.iter().for_each(|broker| flow::await_state(broker.address, "north", "connected"));
    let mut watchers = brokers.each_ref().map(Watcher::new);
    for value in ["ON", "OFF", "ON"] {
        retain(&brokers[0], "lamp", value);
    }
    watchers.iter_mut().for_each(|watcher| watcher.await_count(3));
    let expected = |topic: &str| ["ON", "OFF", "ON"].map(|value| format!("{topic}={value}"));
    assert_eq!(watchers[0].all(), expected("lamp"));
    assert_eq!(watchers[1].all(), expected("via-0/lamp"));
}

#[test]
fn brokers_that_do_not_believe_each_other_recognise_loops_by_content() {
    let folder = folder("unbelieved");
    for (place, rules) in
        ["[[bridge.forward]]\nfilter = \"pair/#\"\n", "[[bridge.subscribe]]\nfilter = \"pair/#\"\n"]
            .into_iter()
            .enumerate()
    {
        let links = [proxy::Late::new(), proxy::Late::new()];
        let brokers = [0, 1].map(|n| {
            let text = format!("bridges_from = []\n{}{rules}", bridge(links[1 - n].address, ""));
            Process::ringmq(&folder, &format!("broker-{place}-{n}"), 2, &text)
        });
        for (link, broker) in links.iter().zip(&brokers) {
            link.lead_to(broker.address);
        }
        brokers.iter().for_each(|broker| flow::await_state(broker.address, "north", "connected"));
        let mut watchers = brokers.each_ref().map(Watcher::new);
        for number in 0..5 {
            retain(&brokers[0], &format!("pair/{number}"), "ON");
        }
        let expected: Vec<_> = (0..5).map(|number| format!("pair/{number}=ON")).collect();
        for watcher in &mut watchers {
            watcher.await_count(5);
            let mut all = watcher.all();
            all.sort();
            // Two that forward see their own once more.
            assert!(all.len() <= 10, "{all:?}");
            all.dedup();
            assert_eq!(all, expected);
            // No mark, for nobody was to read it.
            assert!(watcher.got.iter().all(|message| message.properties.is_empty()));
        }
        let log = brokers[0].log();
        assert!(log.contains("bridges_from does not name its address"), "{log}");
        assert!(log.contains("name this broker's address in bridges_from there"), "{log}");
    }
}

#[test]
fn sites_around_a_mosquitto_hear_each_other_once_and_not_themselves() {
    let Some(programs) = mosquitto() else { return };
    for connections in [1, 3] {
        let folder = folder(&format!("around-mosquitto-{connections}"));
        let middle = Process::mosquitto(&programs, &folder, "middle");
        let sites = [0, 1].map(|n| {
            let more = format!("connections = {connections}");
            let rules = bridge(middle.address, &more) + BOTH_WAYS;
            Process::ringmq(&folder, &format!("site-{n}"), 1 + n as u16, &rules)
        });
        for site in &sites {
            flow::await_state(site.address, "north", "connected");
            flow::await_crossing(middle.address, site.address, "first");
        }
        let mut watchers = [&sites[0], &sites[1], &middle].map(Watcher::new);
        let said = [(0, "ON"), (0, "OFF"), (1, "ON"), (0, "OFF"), (2, "OFF"), (1, "OFF")];
        for (count, (at, value)) in said.into_iter().enumerate() {
            retain([&sites[0], &sites[1], &middle][at], "lamp", value);
            watchers.iter_mut().for_each(|watcher| watcher.await_count(count + 1));
        }
        for (n, watcher) in watchers.iter_mut().enumerate() {
            let expected = said.map(|(_, value)| format!("lamp={value}"));
            assert_eq!(watcher.all(), expected, "{connections} connections: at {n}");
            // Only a broker that knows of no marks shows them to its clients.
            let is_marked =
                |m: &Message| m.properties.windows(11).any(|bytes| bytes == b"ringmq-path");
            assert_eq!(watcher.got.iter().filter(|m| is_marked(m)).count(), [0, 0, 5][n]);
        }
        for broker in [&sites[0], &sites[1], &middle] {
            assert_eq!(kept(broker, "lamp"), "OFF");
        }
    }
}

#[test]
fn a_site_that_has_forgotten_its_retained_messages_takes_them_back() {
    let folder = folder("forgetful");
    let hub = Process::ringmq(&folder, "hub", 1, "");
    let rules = bridge(hub.address, "") + BOTH_WAYS;
    let mut site = Process::ringmq(&folder, "site", 2, &rules);
    flow::await_state(site.address, "north", "connected");
    flow::await_crossing(hub.address, site.address, "first");
    let mut watcher = Watcher::new(&hub);
    retain(&site, "lamp", "ON");
    watcher.await_count(1);
    site.stop();
    site.run();
    flow::await_crossing(hub.address, site.address, "first");
    assert_eq!(kept(&site, "lamp"), "ON");
    assert_eq!(watcher.all().iter().filter(|line| *line == "lamp=ON").count(), 1);
}
