//! Hooks in whole shards: what they make of messages reaches everybody, what they refuse reaches nobody, and every
//! slot is released.

#[path = "../regressions_core/world.rs"]
#[allow(dead_code)] // other tests use the rest
mod world;

mod hooks;
mod later;
mod messages;
mod sessions;

use hooks::Scripted;
use ringmq::codec::{Packet, QoS};
use ringmq::limits::{Limits, Sizes};
use ringmq::pipeline::STAGES;
use world::World;

/// Nothing but what the test does.
fn quiet() -> Limits {
    Limits { sys_interval_ms: 0, ..Limits::default() }
}

fn hooked(shard_count: u16, limits: Limits, hooks: &Scripted) -> World {
    hooked_sized(shard_count, Sizes::default(), limits, hooks)
}

fn hooked_sized(shard_count: u16, sizes: Sizes, limits: Limits, hooks: &Scripted) -> World {
    let mut world = World::sized(shard_count, sizes, limits);
    let now = world.now;
    for shard in &mut world.shards {
        shard.set_hooks(now, Box::new(hooks.clone()));
    }
    world
}

/// A PUBLISH as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    message_expiry_s: Option<u32>,
    properties: Vec<u8>,
}

impl Got {
    fn new(topic: &str, payload: &[u8]) -> Got {
        Got {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            message_expiry_s: None,
            properties: Vec::new(),
        }
    }
}

/// The messages a client received since it last looked; those of QoS 1 and 2 are not acknowledged.
fn got(world: &mut World, client: usize) -> Vec<Got> {
    let mut all = Vec::new();
    world.packets(client, |packet| {
        if let Packet::Publish(p) = packet {
            all.push(Got {
                topic: p.topic.into(),
                payload: p.payload.into(),
                qos: p.qos,
                retain: p.retain,
                message_expiry_s: p.message_expiry_s,
                properties: p.properties.pieces().flatten().copied().collect(),
            });
        }
    });
    all
}

/// At rest nothing holds a slot, and nobody read what was gone.
fn check_released(world: &mut World) {
    for shard in &mut world.shards {
        let gauges = shard.gauges();
        assert_eq!((gauges.arena_held, gauges.arena_used), (0, 0));
        assert_eq!(gauges.held_by_stage, [0; STAGES.len()]);
        assert_eq!(shard.counters().stale_reads, 0);
    }
}
