//! What a shard holds at this moment.

use super::Shard;
use crate::pipeline::{STAGES, Stage};

/// Amounts held now; bytes unless named otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub connections: usize,
    pub sessions: usize,
    pub connected_sessions: usize,
    pub subscriptions: usize,
    pub shared_groups: usize,
    pub group_backlog: usize,
    /// Of clients, which limits bound.
    pub retained_messages: usize,
    pub retained_bytes: usize,
    /// What the broker says of itself, retained beside those.
    pub system_messages: usize,
    pub system_bytes: usize,
    pub stored_bytes: usize,
    pub stored_messages: usize,
    /// Of these, what sessions hold whose clients are away; a message that waits for several counts with each.
    pub absent_bytes: usize,
    pub output_bytes: usize,
    /// Capacity of output buffers that were large when they were used again.
    pub reused_output_bytes: usize,
    pub frame_bytes: usize,
    pub connect_bytes: usize,
    pub will_bytes: usize,
    /// What clients cause beside messages, input and output; what is known of other shards' subscriptions; remembered routes.
    pub metadata_bytes: usize,
    pub interest_bytes: usize,
    pub route_bytes: usize,
    /// What waits for other shards.
    pub mail_bytes: usize,
    /// Empty buffers that are kept to be used again.
    pub spare_bytes: usize,
    pub arena_used: usize,
    pub arena_held: u64,
    /// Messages that encode, plugin and bridge have not acknowledged.
    pub held_by_stage: [u64; 3],
    /// The last generation each stage acknowledged.
    pub acked_by_stage: [u64; 3],
    pub mail_is_above_mark: bool,
    /// Connections listed as waiting for mail.
    pub parked_on_mail: usize,
    /// Publishers wait for clients whose messages fill the store of this shard or another.
    pub store_is_holding: bool,
    pub interest_filters: usize,
    /// Somebody has hooks.
    pub has_hooks: bool,
}

impl Shard {
    pub fn gauges(&self) -> Gauges {
        let by_stage = |of: &dyn Fn(Stage) -> u64| [of(STAGES[0]), of(STAGES[1]), of(STAGES[2])];
        let admitted = self.arena.admitted();
        Gauges {
            connections: self.clients.connection_count(),
            sessions: self.clients.session_count(),
            connected_sessions: self.clients.connected_count,
            subscriptions: self.clients.subscription_count,
            shared_groups: self.groups.len(),
            group_backlog: self.groups.backlog_count(),
            retained_messages: self.retained.used().messages,
            retained_bytes: self.retained.used().bytes,
            system_messages: self.retained.system().messages,
            system_bytes: self.retained.system().bytes,
            stored_bytes: self.stored.bytes(),
            stored_messages: self.stored.message_count(),
            absent_bytes: self.clients.absent().bytes(),
            output_bytes: self.output_total.bytes.bytes(),
            reused_output_bytes: self.output_total.reused.bytes(),
            frame_bytes: self.frame_bytes.bytes(),
            connect_bytes: self.connect_bytes.bytes(),
            will_bytes: self.will_bytes.bytes(),
            metadata_bytes: self.metadata_bytes(),
            interest_bytes: self.router.interest().bytes(),
            route_bytes: self.router.route_bytes(),
            mail_bytes: self.outbox.bytes() + self.postponed_mail.bytes() + self.inbound_bytes(),
            spare_bytes: self.pool.bytes() + self.input_pool.bytes() + self.outbox.spare_bytes(),
            arena_used: self.arena.used(),
            arena_held: self.arena.held(),
            held_by_stage: by_stage(&|stage| admitted.count_since(self.pipeline.acked(stage))),
            acked_by_stage: by_stage(&|stage| self.pipeline.acked(stage).number()),
            parked_on_mail: self.parked_on_mail.len(),
            mail_is_above_mark: self.outbox.is_mail_above_mark(),
            store_is_holding: self.outbox.is_held(),
            interest_filters: self.router.interest().filter_count(),
            has_hooks: !self.hook_set.is_empty(),
        }
    }
}
