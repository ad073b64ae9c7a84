//! What a seed decides once: shards, clients, limits.

use crate::dice::Dice;
use ringmq::limits::{Limits, QueuePolicy, Sizes};

/// A capacity that no lane of a run reaches.
pub(crate) const UNFILLED: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub shard_count: usize,
    pub client_count: usize,
    pub hostile_count: usize,
    /// Items a lane holds.
    pub lane_capacity: usize,
    pub step_count: usize,
    /// No limit may make anything be lost; back-pressure may be as tight as it likes.
    pub is_ample: bool,
    pub payload_size_max: usize,
    /// Retained topics of each client.
    pub retained_count: usize,
    /// How eagerly clients change their subscriptions.
    pub churn: usize,
    /// Everybody is a member of one of two groups and publishes to both, above QoS 0.
    pub is_sharing: bool,
    /// It ends with the broker's shutdown.
    pub is_shut_down: bool,
    /// How many connections of a hundred have a transport.
    pub transport_percent: usize,
    pub sizes: Sizes,
    pub limits: Limits,
    /// Limits that shards take while they run; none in most runs.
    pub later_limits: Vec<Limits>,
}

impl Scenario {
    pub(crate) fn new(dice: &mut Dice) -> Scenario {
        let is_ample = dice.chance(60);
        let shard_count = *dice.pick(&[1, 1, 2, 2, 2, 3, 4, 5, 8]);
        let packet_size_max = *dice.pick(&[2048, 8192, 65_536]);
        let sizes = Sizes {
            arena_size: packet_size_max * dice.between(4, 16),
            arena_slots: *dice.pick(&[1, 2, 8, 512]),
            route_cache_max: *dice.pick(&[1, 4, 1000]),
            mail_bytes_mark: *dice.pick(&[1, 300, 5000, 4 << 20]),
        };
        let limits = draw(dice, is_ample, packet_size_max, &sizes);
        let payload_size_max = match packet_size_max {
            2048 => *dice.pick(&[40, 400]),
            8192 => *dice.pick(&[40, 4000]),
            _ => *dice.pick(&[200, 30_000]),
        };
        // Packets as large as clients send them may arrive in any case.
        let may_be_smaller = 2 * payload_size_max + 1024 <= packet_size_max;
        let later_count = if dice.chance(25) { dice.between(1, 3) } else { 0 };
        let later_limits = (0..later_count).map(|_| {
            let is_smaller = may_be_smaller && dice.chance(50);
            let packet_size_max = if is_smaller { packet_size_max / 2 } else { packet_size_max };
            draw(dice, is_ample, packet_size_max, &sizes)
        });
        let later_limits = later_limits.collect();
        Scenario {
            shard_count,
            client_count: dice.between(2, 14),
            hostile_count: if dice.chance(40) { dice.between(1, 3) } else { 0 },
            lane_capacity: *dice.pick(&[1, 1, 2, 4, 64, UNFILLED]),
            step_count: *dice.pick(&[300, 1500, 4000, 8000]),
            is_ample,
            retained_count: *dice.pick(&[3, 3, 40]),
            churn: *dice.pick(&[1, 1, 4]),
            is_sharing: dice.chance(12),
            is_shut_down: dice.chance(20),
            transport_percent: *dice.pick(&[0, 0, 0, 40, 100]),
            payload_size_max,
            sizes,
            limits,
            later_limits,
        }
    }

    fn all_limits(&self) -> impl Iterator<Item = &Limits> {
        std::iter::once(&self.limits).chain(&self.later_limits)
    }

    /// What every client may send unacknowledged, whenever it connects.
    pub(crate) fn receive_max_least(&self) -> u16 {
        self.all_limits().map(|limits| limits.receive_max).min().expect("there is one")
    }

    /// What a client may have to acknowledge, whenever it connects.
    pub(crate) fn inflight_max_most(&self) -> u16 {
        self.all_limits().map(|limits| limits.inflight_max).max().expect("there is one")
    }

    /// The most that `of` finds in any of the limits.
    pub(crate) fn most(&self, of: impl Fn(&Limits) -> usize) -> usize {
        self.all_limits().map(of).max().expect("there is one")
    }
}

fn draw(dice: &mut Dice, is_ample: bool, packet_size_max: usize, sizes: &Sizes) -> Limits {
    let mut limits = pressing(dice, packet_size_max, sizes);
    if !is_ample {
        tighten(dice, &mut limits);
    }
    assert_eq!(limits.contradiction(sizes), None);
    limits
}

/// Limits that make others wait, but lose nothing.
fn pressing(dice: &mut Dice, packet_size_max: usize, sizes: &Sizes) -> Limits {
    let output_size_max = *dice.pick(&[64, 200, 2000, 256 << 10]);
    Limits {
        packet_size_max,
        receive_max: *dice.pick(&[1, 2, 5, 30, 1024]),
        inflight_max: *dice.pick(&[1, 2, 5, 30, 1024]),
        topic_alias_max: *dice.pick(&[0, 1, 3, 64]),
        topic_alias_out_max: *dice.pick(&[0, 1, 3, 64]),
        session_expiry_max_s: 100_000,
        session_expiry_v3_s: 20_000,
        keep_alive_max_s: *dice.pick(&[0, 0, 60]),
        queue_messages_max: 1 << 20,
        queue_bytes_max: 1 << 30,
        queue_policy: *dice.pick(&[QueuePolicy::DropNewest, QueuePolicy::DropOldest]),
        queue_qos0_offline: dice.chance(30),
        output_size_max,
        retained_messages_max: 1 << 20,
        retained_bytes_max: 1 << 30,
        subscriptions_per_client_max: 1000,
        overlapping_subscriptions_max: *dice.pick(&[64, 256]),
        turn_steps_max: *dice.pick(&[1, 3, 20, 200, 50_000, 50_000]),
        large_message_size: *dice.pick(&[64, 512, 1 << 20]).min(&(sizes.arena_size / 4)),
        shard_stored_bytes_max: 1 << 30,
        shard_output_bytes_max: 1 << 30,
        group_messages_max: 1 << 20,
        group_bytes_max: 1 << 30,
        group_credit_max: *dice.pick(&[1, 2, 7, 128]),
        sys_interval_ms: *dice.pick(&[0, 0, 0, 5000]),
        ..Limits::default()
    }
}

/// Limits at which messages, clients and packets are turned away.
fn tighten(dice: &mut Dice, limits: &mut Limits) {
    let packet = limits.packet_size_max;
    limits.queue_messages_max = *dice.pick(&[1, 3, 20, 1000]);
    limits.queue_bytes_max = packet * dice.between(1, 4);
    limits.retained_messages_max = *dice.pick(&[1, 4, 1000]);
    limits.retained_bytes_max = *dice.pick(&[500, 5000, 1 << 20]);
    limits.subscriptions_per_client_max = *dice.pick(&[1, 3, 100]);
    limits.group_messages_max = *dice.pick(&[1, 3, 20, 1000]);
    limits.group_bytes_max = packet * dice.between(1, 4);
    let queue = limits.queue_bytes_max.max(limits.group_bytes_max);
    limits.shard_stored_bytes_max = queue * dice.between(1, 3);
    limits.output_size_max = *dice.pick(&[64, 200, 2000]);
    limits.shard_output_bytes_max = limits.output_size_max + packet * dice.between(1, 3);
    limits.shard_frames_bytes_max = packet * dice.between(1, 2);
    limits.shard_connects_bytes_max = packet * dice.between(1, 2);
    limits.shard_wills_bytes_max = *dice.pick(&[100, 400, 1 << 20]);
    limits.shard_metadata_bytes_max = *dice.pick(&[16 << 10, 64 << 10, 1 << 20, 256 << 20]);
    limits.sessions_max = *dice.pick(&[2, 5, 1000]);
    limits.connections_max = *dice.pick(&[3, 8, 1000]);
}
