//! `memory_max`: a queue that would fill the machine ends near the bound, the broker says so, and recovers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::{self, Client, PATIENCE, Received};
use crate::fields::Kind;
use crate::message::Message;
use crate::wire::Version;

const MIB: usize = 1 << 20;

/// Anonymous memory of a process.
fn anonymous_mib(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() / 1024
}

fn wait_for(broker: &Broker, words: &str) {
    let began = Instant::now();
    while !broker.log().contains(words) {
        assert!(began.elapsed() < PATIENCE, "no '{words}' in:\n{}", broker.log());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn near_memory_max_nothing_grows_and_the_broker_recovers_when_it_is_read() {
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        println!("SKIPPED: a sanitizer has its own memory in the broker's");
        return;
    }
    for io in ["auto", "epoll"] {
        // The queue alone could take more than the process may.
        let arguments = ["--io", io, "--shards", "1", "--memory-max", "100MiB"];
        let bounds = ["--queue-bytes-max", "900MiB", "--shard-stored-bytes-max", "1GiB"];
        let broker = Broker::start(&[&arguments[..], &bounds].concat()).unwrap();
        let lasting = [("keep", "1000"), ("clean", "0")];
        let mut absent = Client::join(broker.address, Version::V311, "absent", &lasting);
        absent.subscribe(&["t@1"]);
        absent.leave();
        let mut sender = Client::join(broker.address, Version::V5, "sender", &[]);
        let payload = vec![b'm'; MIB / 2];
        let message = Message { topic: "t".to_owned(), properties: Vec::new(), payload };
        for id in 1..=400 {
            sender.send(&message.publish(Version::V5, 0b010, id));
            sender.answer(Kind::Puback);
            // Slowly enough that the watching thread sees it come, on a loaded machine, too.
            thread::sleep(Duration::from_millis(10));
        }
        wait_for(&broker, "near memory_max (100 MiB)");
        let held = anonymous_mib(broker.id());
        assert!((70..=150).contains(&held), "{held} MiB\n{}", broker.log());
        // The broker may be below the bound by what its sockets held a moment ago: then a little more is enough.
        let is_turned_away = (401..=500).any(|id| {
            let mut new = Client::open(broker.address, Version::V5);
            new.send(&client::connect(Version::V5, "new", &[]));
            let reason = new.answer(Kind::Connack).number("reason");
            sender.send(&message.publish(Version::V5, 0b010, id));
            sender.answer(Kind::Puback);
            reason == Some(0x97)
        });
        assert!(is_turned_away, "{}", broker.log());
        // What was kept is there, and when it is gone there is room.
        let mut absent = Client::join(broker.address, Version::V311, "absent", &lasting);
        let mut got = 0;
        while let Received::Frame(_) = absent.message(Duration::from_secs(1)) {
            got += 1;
        }
        assert!((100..400).contains(&got), "{got} messages");
        wait_for(&broker, "clients are let in again");
        Client::join(broker.address, Version::V5, "new", &[]);
    }
}
