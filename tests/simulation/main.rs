//! Whole brokers in memory from a seed: shards, lanes, sockets, clients and time, all in one thread.
//!
//! `SIM_SEED=7` runs one seed, `SIM_SEEDS=1000` that many (from `SIM_FIRST` on). A failure prints its seed; with
//! `SIM_TRACE=1` the run tells what happened to connections.

mod client;
mod coverage;
mod dice;
mod ending;
mod hooks;
mod host;
mod hostile;
mod ledger;
mod memory;
mod network;
mod records;
mod scenario;
mod world;

use coverage::Coverage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Seeds of an ordinary run.
const SEED_COUNT: u64 = 500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(seed: u64) -> Coverage {
    catch_unwind(AssertUnwindSafe(|| World::run(seed))).unwrap_or_else(|_| {
        panic!("seed {seed} failed; SIM_SEED={seed} repeats it");
    })
}

#[test]
fn brokers_keep_their_promises_whatever_happens_to_their_clients() {
    if let Some(seed) = setting("SIM_SEED") {
        println!("{:#?}", run(seed));
        return;
    }
    let count = setting("SIM_SEEDS").unwrap_or(SEED_COUNT);
    let first = setting("SIM_FIRST").unwrap_or(0);
    let mut sum = Coverage::default();
    for seed in first..first + count {
        sum.add(&run(seed));
    }
    println!("{sum:#?}");
    if count >= SEED_COUNT {
        assert_eq!(sum.unreached(), Vec::<&str>::new(), "no run reached these paths");
    }
}
