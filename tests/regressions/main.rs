//! What users of other brokers reported, each class of it replayed from outside: a broker process of its own, plain sockets,
//! packets written and read by the conformance suite's code. Each runs on 1 and on 2 shards and ends with a broker at rest.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/broker.rs"]
mod broker;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/fields.rs"]
mod fields;
#[allow(dead_code, reason = "the tests of bridges use other parts of it")]
#[path = "../bridges/process.rs"]
mod process;
#[allow(dead_code, reason = "the tests of bridges use other parts of it")]
#[path = "../bridges/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/wire.rs"]
mod wire;

mod addresses;
mod bridges;
mod bystanders;
mod client;
mod connect_properties;
mod flaky_links;
mod memory_max;
mod message;
mod namespaces;
mod publish_and_leave;
mod publisher;
mod retained_changes;
mod subscriptions;
mod take_over;
mod world;
mod zero_window;

use world::World;

/// Runs `test` against brokers of 1 and of 2 shards, which must be at rest when it returns.
fn each_shard_count(arguments: &[&str], test: impl Fn(&mut World)) {
    for shards in [1, 2] {
        let mut world = World::start(shards, arguments);
        test(&mut world);
        world.end();
    }
}
