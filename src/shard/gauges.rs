//! Sums up the amounts that a shard holds at this moment.

use super::Shard;
use crate::gauges::Gauges;
use crate::pipeline::{STAGES, Stage};

impl Shard {
    pub fn gauges(&self) -> Gauges {
        let by_stage = |of: &dyn Fn(Stage) -> u64| [of(STAGES[0]), of(STAGES[1]), of(STAGES[2])];
        let admitted = self.flow.arena.admitted();
        Gauges {
            connections: self.clients.connection_count(),
            sessions: self.clients.session_count(),
            connected_sessions: self.clients.connected_count,
            subscriptions: self.clients.subscription_count,
            shared_groups: self.groups.len(),
            group_backlog: self.groups.backlog_count(),
            retained_messages: self.retained.kept.used().messages,
            retained_bytes: self.retained.kept.used().bytes,
            system_messages: self.retained.kept.system().messages,
            system_bytes: self.retained.kept.system().bytes,
            stored_bytes: self.delivery.stored.bytes(),
            stored_messages: self.delivery.stored.message_count(),
            absent_bytes: self.clients.absent().bytes(),
            output_bytes: self.memory.output_total.bytes.bytes(),
            reused_output_bytes: self.memory.output_total.reused.bytes(),
            sealed_bytes: self.connections.links.sealed_bytes(),
            transport_bytes: self.connections.links.bytes(),
            frame_bytes: self.memory.frame_bytes.bytes(),
            connect_bytes: self.memory.connect_bytes.bytes(),
            will_bytes: self.memory.will_bytes.bytes(),
            metadata_bytes: self.metadata_bytes(),
            interest_bytes: self.flow.router.interest().bytes(),
            route_bytes: self.flow.router.route_bytes(),
            mail_bytes: self.flow.outbox.bytes() + self.flow.inbox.bytes() + self.inbound_bytes(),
            spare_bytes: self.delivery.pool.bytes()
                + self.connections.input_pool.bytes()
                + self.flow.outbox.spare_bytes(),
            arena_used: self.flow.arena.used(),
            arena_held: self.flow.arena.held(),
            held_by_stage: by_stage(&|stage| admitted.count_since(self.flow.pipeline.acked(stage))),
            acked_by_stage: by_stage(&|stage| self.flow.pipeline.acked(stage).number()),
            parked_on_mail: self.connections.parked_on_mail.len(),
            parked_on_bridges: self.connections.parked_on_bridges.len(),
            mail_is_above_mark: self.flow.outbox.is_mail_above_mark(),
            store_is_blocking: self.flow.outbox.is_blocked(),
            interest_filters: self.flow.router.interest().filter_count(),
            has_hooks: !self.hooks.set.is_empty(),
        }
    }
}
