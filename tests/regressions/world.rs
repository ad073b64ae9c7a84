//! A broker under test: how it is started, what it must look like at rest, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::{Client, Received};
use crate::wire::Version;

/// How long a broker may take to come to rest, and to end.
const REST: Duration = Duration::from_secs(15);
/// Resident memory that a run may add, MiB, unless the test says otherwise: the arenas and what a broker keeps of buffers.
const GROWTH_MAX_MIB: u64 = 96;

pub(crate) struct World {
    broker: Broker,
    pub shards: usize,
    /// Resident memory before the first client, KiB.
    began_kib: u64,
    pub growth_max_mib: u64,
}

impl World {
    pub(crate) fn start(shards: usize, arguments: &[&str]) -> World {
        let count = shards.to_string();
        let own = ["--shards", &count, "--sys-interval-ms", "100"];
        let broker = Broker::start(&[&own[..], arguments].concat()).unwrap();
        let began_kib = memory_kib(broker.id(), "VmRSS");
        World { broker, shards, began_kib, growth_max_mib: GROWTH_MAX_MIB }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address
    }

    /// Sends the broker a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.broker.signal(name);
    }

    /// The most that the broker has had in memory, above what it began with. `None` where a sanitizer has its own memory there.
    pub(crate) fn growth_mib(&self) -> Option<u64> {
        if std::env::var_os("ASAN_OPTIONS").is_some() {
            return None;
        }
        Some((memory_kib(self.broker.id(), "VmHWM") - self.began_kib) / 1024)
    }

    /// All clients have gone and no session is left: nothing may be held, and the broker ends when it is told to.
    pub(crate) fn end(mut self) {
        self.assert_at_rest(1);
        if let Some(growth_mib) = self.growth_mib() {
            println!("{} shards: {growth_mib} MiB more at most", self.shards);
            assert!(growth_mib <= self.growth_max_mib, "{growth_mib} MiB more");
        }
        self.broker.signal("TERM");
        let status = self.broker.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.broker.log());
    }

    /// Waits until `$SYS` says of every shard that no slot is held, nothing is stored, and `session_count` sessions are left
    /// (the asking one included). A stale read is never forgiven.
    fn assert_at_rest(&self, session_count: u64) {
        let mut watcher = Client::join(self.address(), Version::V5, "$watcher", &[]);
        watcher.subscribe(&["$SYS/broker/#@0"]);
        let mut says: BTreeMap<String, String> = BTreeMap::new();
        let began = Instant::now();
        loop {
            let wrong = self.unrest(&says, session_count);
            if wrong.is_empty() {
                return;
            }
            assert!(began.elapsed() < REST, "not at rest: {}", wrong.join(", "));
            if let Received::Frame(frame) = watcher.receive(Duration::from_millis(200)) {
                let delivery = watcher.delivery(&frame).expect("only $SYS comes");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let name = text(delivery.topic).replacen("$SYS/broker/", "", 1);
                let value = text(delivery.payload);
                assert!(!name.ends_with("stale_reads") || value == "0", "{name} is {value}");
                says.insert(name, value);
            }
        }
    }

    /// What is not as it must be at rest, or was not heard of yet.
    fn unrest(&self, says: &BTreeMap<String, String>, session_count: u64) -> Vec<String> {
        const ZEROS: [&str; 9] = [
            "arena/held/encode",
            "arena/held/plugin",
            "arena/held/bridge",
            "arena/stale_reads",
            "arena/used",
            "bytes/stored",
            "bytes/frames",
            "bytes/wills",
            "shared_subscriptions/waiting",
        ];
        let mut wrong = Vec::new();
        let mut sessions = 0;
        let mut connections = 0;
        for shard in 0..self.shards {
            let read = |name: &str| {
                let value = says.get(&format!("shards/{shard}/{name}"));
                value.and_then(|value| value.parse::<u64>().ok())
            };
            for name in ZEROS {
                if read(name) != Some(0) {
                    wrong.push(format!("shard {shard} {name} = {:?}", read(name)));
                }
            }
            sessions += read("sessions").unwrap_or(u64::MAX / 1000);
            connections += read("connections").unwrap_or(u64::MAX / 1000);
        }
        if (sessions, connections) != (session_count, 1) {
            wrong.push(format!("{sessions} sessions, {connections} connections"));
        }
        wrong
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{} shards; the broker says:\n{}", self.shards, self.broker.log());
        }
    }
}

/// A line of the process's status.
fn memory_kib(process: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .unwrap_or_else(|error| panic!("the broker is gone: {error}"));
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a number of KiB")
}
