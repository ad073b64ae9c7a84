//! Hostile clients against a broker with small budgets, while others go about their business: canaries lose nothing and are
//! never closed, the broker lives, and its memory stays within a stated bound. `ATTACK_S=600` is the time of all
//! floods together, `ATTACK=wills` runs those of that name. How long canaries waited is printed, not asserted.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/broker.rs"]
mod broker;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/client.rs"]
mod client;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/fields.rs"]
mod fields;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/message.rs"]
mod message;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/wire.rs"]
mod wire;

mod canary;
mod floods;

use std::fs;
use std::time::{Duration, Instant};

use broker::Broker;
use canary::Canaries;
use floods::FLOODS;

/// What the broker may use, in all.
const MEMORY_MAX_MIB: u64 = 256;

/// Budgets for two shards that add up to less than that.
const BUDGETS: &[&str] = &[
    "--shards=2",
    "--arena-size=4MiB",
    "--packet-size-max=512KiB",
    "--queue-bytes-max=1MiB",
    "--shard-stored-bytes-max=16MiB",
    "--shard-output-bytes-max=16MiB",
    "--shard-frames-bytes-max=8MiB",
    "--shard-wills-bytes-max=4MiB",
    "--shard-metadata-bytes-max=24MiB",
    "--retained-bytes-max=8MiB",
    "--group-bytes-max=1MiB",
    "--mail-bytes-mark=1MiB",
    "--sessions-max=5000",
    "--connections-max=2000",
    "--filter-size-max=1024",
    "--subscriptions-per-client-max=1000",
    "--topic-alias-max=16",
];

#[test]
fn floods_on_io_uring_starve_nobody() {
    attack("uring");
}

#[test]
fn floods_on_epoll_starve_nobody() {
    attack("epoll");
}

fn attack(io: &str) {
    let io_argument = format!("--io={io}");
    let mut broker = match Broker::start(&[BUDGETS, &[&io_argument]].concat()) {
        Ok(broker) => broker,
        Err(why) if io == "uring" && why.contains("no io_uring") => {
            println!("SKIPPED floods on io_uring: it is refused");
            return;
        }
        Err(why) => panic!("{why}"),
    };
    let each = flood_time();
    let canaries = Canaries::start(broker.address);
    let chosen = std::env::var("ATTACK").unwrap_or_default();
    for (name, flood) in FLOODS.iter().filter(|(name, _)| name.contains(&chosen)) {
        let began = Instant::now();
        let done = flood(broker.address, began + each);
        let waits = canaries.waits();
        let memory_mib = resident_mib(broker.id());
        println!("{io:5}  {name:22} {done:9}  {waits}  {memory_mib:4} MiB");
        assert!(!broker.has_ended(), "{name}: the broker has ended:\n{}", broker.log());
        assert!(canaries.are_well(), "{name}; the broker says:\n{}", broker.log());
        if let Some(memory_mib) = memory_mib.as_known() {
            assert!(memory_mib <= MEMORY_MAX_MIB, "{name}: {memory_mib} MiB are in use");
        }
    }
    canaries.stop();
    broker.signal("TERM");
    let status = broker.wait().unwrap();
    assert!(status.success(), "{status}: {}", broker.log());
}

fn flood_time() -> Duration {
    let all_s = std::env::var("ATTACK_S").ok().and_then(|text| text.parse::<f64>().ok());
    Duration::from_secs_f64(all_s.unwrap_or(7.0) / FLOODS.len() as f64)
}

/// Anonymous and shared memory of a process.
struct Resident(Option<u64>);

impl Resident {
    fn as_known(&self) -> Option<u64> {
        self.0
    }
}

impl std::fmt::Display for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0.map_or("?".to_owned(), |mib| mib.to_string()))
    }
}

/// Nothing where a sanitizer has its own memory there.
fn resident_mib(process: u32) -> Resident {
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        return Resident(None);
    }
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Resident(kib.map(|kib| kib / 1024))
}
