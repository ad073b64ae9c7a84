//! Which paths the runs reached: a simulation that never gets there shows nothing.

use ringmq::shard::Counters;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    pub runs: u64,
    pub receipts: u64,
    pub redelivered: u64,
    pub client_resends: u64,
    pub resumptions: u64,
    pub sessions_gone: u64,
    pub take_overs: u64,
    pub lost: u64,
    pub goodbyes: u64,
    /// Goodbyes that were heard although the client was back before the broker closed.
    pub overlapped: u64,
    /// Outputs that left within the turn.
    pub left_now: u64,
    pub hung: u64,
    /// Shards that took other limits while they ran.
    pub limits_set: u64,
    /// Bounds that were looked at while what was held when they fell was above them.
    pub held_above: u64,
    pub slow_readers: u64,
    pub aliases_in: u64,
    pub aliases_out: u64,
    pub pipelined: u64,
    pub refused: u64,
    pub redistributed: u64,
    pub shutdowns: u64,
    /// Shards that had nobody to wait for when they ended.
    pub delivered_at_the_end: u64,
    pub audited: u64,
    pub fetched_in_chunks: u64,
    pub withdrawn_wills: u64,
    pub cancelled_wills: u64,
    pub handovers: u64,
    /// Connections with a transport, those of them that moved, and what their transports sent by themselves.
    pub transports: u64,
    pub transports_moved: u64,
    pub updated: u64,
    /// Bytes that no transport had sealed, sent to one.
    pub raw_writes: u64,
    pub full_lanes: u64,
    pub group_messages: u64,
    pub ordered_in_groups: u64,
    pub retained_found: u64,
    pub interest_checked: u64,
    pub hostile_packets: u64,
    pub half_connects: u64,
    pub lost_messages: u64,
    pub unkept: u64,
    pub hostile_filters: u64,
    pub memory_checked: u64,
    /// What all shards held at most, added up over the runs.
    pub memory_most: u64,
    /// What a shard held on average beyond what was told, at most.
    pub memory_beyond: u64,
    /// The most steps that a call into a shard took.
    pub call_steps_most: u64,
    pub counters: Counters,
}

impl Coverage {
    /// Adds what a shard counted.
    pub(crate) fn count(&mut self, counters: &Counters) {
        let sum = &mut self.counters;
        for (into, from) in [
            (&mut sum.connections_refused, counters.connections_refused),
            (&mut sum.connections_taken_over, counters.connections_taken_over),
            (&mut sum.connects_timed_out, counters.connects_timed_out),
            (&mut sum.keep_alives_expired, counters.keep_alives_expired),
            (&mut sum.protocol_errors, counters.protocol_errors),
            (&mut sum.sessions_expired, counters.sessions_expired),
            (&mut sum.sessions_refused, counters.sessions_refused),
            (&mut sum.dropped_queue_full, counters.dropped_queue_full),
            (&mut sum.dropped_stored_full, counters.dropped_stored_full),
            (&mut sum.dropped_group_full, counters.dropped_group_full),
            (&mut sum.dropped_offline_qos0, counters.dropped_offline_qos0),
            (&mut sum.dropped_too_large, counters.dropped_too_large),
            (&mut sum.expired, counters.expired),
            (&mut sum.retained_refused, counters.retained_refused),
            (&mut sum.wills_refused, counters.wills_refused),
            (&mut sum.refused_by_metadata, counters.refused_by_metadata),
            (&mut sum.subscriptions_refused, counters.subscriptions_refused),
            (&mut sum.frames_evicted, counters.frames_evicted),
            (&mut sum.store_holds, counters.store_holds),
            (&mut sum.mail_holds, counters.mail_holds),
            (&mut sum.connects_too_large, counters.connects_too_large),
            (&mut sum.connects_evicted, counters.connects_evicted),
            (&mut sum.connects_displaced, counters.connects_displaced),
            (&mut sum.parked_on_mail, counters.parked_on_mail),
            (&mut sum.parked_on_output, counters.parked_on_output),
            (&mut sum.parked_on_turns, counters.parked_on_turns),
            (&mut sum.mail_messages_sent, counters.mail_messages_sent),
            (&mut sum.admitted, counters.admitted),
            (&mut sum.publishes_changed, counters.publishes_changed),
            (&mut sum.publishes_denied, counters.publishes_denied),
            (&mut sum.deliveries_skipped, counters.deliveries_skipped),
        ] {
            *into += from;
        }
    }

    pub(crate) fn add(&mut self, other: &Coverage) {
        for (into, from) in self.own().into_iter().zip(other.clone().own()) {
            *into.1 += *from.1;
        }
        self.memory_beyond = self.memory_beyond.max(other.memory_beyond);
        self.call_steps_most = self.call_steps_most.max(other.call_steps_most);
        self.count(&other.counters);
    }

    fn own(&mut self) -> Vec<(&'static str, &mut u64)> {
        vec![
            ("runs", &mut self.runs),
            ("receipts", &mut self.receipts),
            ("redelivered", &mut self.redelivered),
            ("client_resends", &mut self.client_resends),
            ("resumptions", &mut self.resumptions),
            ("sessions_gone", &mut self.sessions_gone),
            ("take_overs", &mut self.take_overs),
            ("lost", &mut self.lost),
            ("goodbyes", &mut self.goodbyes),
            ("overlapped", &mut self.overlapped),
            ("left_now", &mut self.left_now),
            ("hung", &mut self.hung),
            ("limits_set", &mut self.limits_set),
            ("held_above", &mut self.held_above),
            ("slow_readers", &mut self.slow_readers),
            ("aliases_in", &mut self.aliases_in),
            ("aliases_out", &mut self.aliases_out),
            ("pipelined", &mut self.pipelined),
            ("refused", &mut self.refused),
            ("redistributed", &mut self.redistributed),
            ("shutdowns", &mut self.shutdowns),
            ("delivered_at_the_end", &mut self.delivered_at_the_end),
            ("audited", &mut self.audited),
            ("fetched_in_chunks", &mut self.fetched_in_chunks),
            ("withdrawn_wills", &mut self.withdrawn_wills),
            ("cancelled_wills", &mut self.cancelled_wills),
            ("handovers", &mut self.handovers),
            ("transports", &mut self.transports),
            ("transports_moved", &mut self.transports_moved),
            ("updated", &mut self.updated),
            ("raw_writes", &mut self.raw_writes),
            ("full_lanes", &mut self.full_lanes),
            ("group_messages", &mut self.group_messages),
            ("ordered_in_groups", &mut self.ordered_in_groups),
            ("retained_found", &mut self.retained_found),
            ("interest_checked", &mut self.interest_checked),
            ("hostile_packets", &mut self.hostile_packets),
            ("half_connects", &mut self.half_connects),
            ("lost_messages", &mut self.lost_messages),
            ("unkept", &mut self.unkept),
            ("hostile_filters", &mut self.hostile_filters),
            ("memory_checked", &mut self.memory_checked),
            ("memory_most", &mut self.memory_most),
        ]
    }

    /// Paths that no run reached.
    pub(crate) fn unreached(&self) -> Vec<&'static str> {
        let mut copy = self.clone();
        let mut missing: Vec<_> = copy
            .own()
            .into_iter()
            .filter(|(_, count)| **count == 0)
            .map(|(name, _)| name)
            .collect();
        let c = &self.counters;
        let counted = [
            ("connections_refused", c.connections_refused),
            ("connections_taken_over", c.connections_taken_over),
            ("connects_timed_out", c.connects_timed_out),
            ("keep_alives_expired", c.keep_alives_expired),
            ("protocol_errors", c.protocol_errors),
            ("sessions_expired", c.sessions_expired),
            ("sessions_refused", c.sessions_refused),
            ("dropped_queue_full", c.dropped_queue_full),
            ("dropped_stored_full", c.dropped_stored_full),
            ("dropped_group_full", c.dropped_group_full),
            ("dropped_offline_qos0", c.dropped_offline_qos0),
            ("dropped_too_large", c.dropped_too_large),
            ("expired", c.expired),
            ("retained_refused", c.retained_refused),
            ("wills_refused", c.wills_refused),
            ("refused_by_metadata", c.refused_by_metadata),
            ("subscriptions_refused", c.subscriptions_refused),
            ("frames_evicted", c.frames_evicted),
            ("store_holds", c.store_holds),
            ("mail_holds", c.mail_holds),
            ("connects_too_large", c.connects_too_large),
            ("connects_evicted", c.connects_evicted),
            ("connects_displaced", c.connects_displaced),
            ("parked_on_mail", c.parked_on_mail),
            ("parked_on_turns", c.parked_on_turns),
            ("parked_on_output", c.parked_on_output),
            ("publishes_changed", c.publishes_changed),
            ("publishes_denied", c.publishes_denied),
            ("deliveries_skipped", c.deliveries_skipped),
        ];
        missing.extend(counted.into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name));
        missing
    }
}
