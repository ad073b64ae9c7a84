//! The counters of a shard: plain integers, so that counting on the hot path is one increment.

/// Totals since the shard began. Sizes are in bytes.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Steps of work beside received packets and deliveries: see `Shard::steps`.
    pub steps: u64,
    /// Steps of giving messages to their receivers.
    pub delivery_steps: u64,
    // Traffic.
    pub packets_received: u64,
    pub packets_sent: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub publishes_received: u64,
    pub publishes_sent: u64,
    pub publish_bytes_received: u64,
    pub publish_bytes_sent: u64,
    // Clients.
    pub connections_opened: u64,
    pub connections_refused: u64,
    pub connections_taken_over: u64,
    /// Take-overs that left bytes of the old connection unread.
    pub takeovers_cut: u64,
    pub connects_timed_out: u64,
    /// CONNECTs that were too large; unfinished CONNECTs for which their budget had no room; connections without
    /// CONNECT that made room for others.
    pub connects_too_large: u64,
    pub connects_evicted: u64,
    pub connects_displaced: u64,
    pub keep_alives_expired: u64,
    /// Connections whose packets took too long to arrive.
    pub packets_timed_out: u64,
    /// Connections that the kernel gave up (ETIMEDOUT).
    pub connections_timed_out: u64,
    pub protocol_errors: u64,
    pub refused_as_flapping: u64,
    pub refused_by_lag: u64,
    pub sessions_expired: u64,
    pub sessions_refused: u64,
    /// Sessions of absent clients that ended to make room for new ones: their addresses had left most sessions behind.
    pub sessions_displaced: u64,
    /// New sessions that were refused because the process was short of memory, and how often the process was short.
    pub refused_by_memory: u64,
    pub memory_shortages: u64,
    /// Clients that were closed because they did not read the messages that filled the store.
    pub slow_clients_closed: u64,
    // Messages that were dropped, by the limit that was met.
    pub dropped_queue_full: u64,
    pub dropped_stored_full: u64,
    pub dropped_group_full: u64,
    pub dropped_offline_qos0: u64,
    pub dropped_too_large: u64,
    /// Messages of clients that are bridges that were dropped: they had been here before, or had come over too many
    /// bridges.
    pub bridge_loops_ended: u64,
    pub bridge_paths_too_long: u64,
    /// Connections that said they are bridges, from addresses that are not believed.
    pub bridges_unbelieved: u64,
    pub expired: u64,
    pub retained_refused: u64,
    pub wills_refused: u64,
    /// Sessions, subscriptions, aliases and QoS 2 messages for which the budget of metadata had no room.
    pub refused_by_metadata: u64,
    pub subscriptions_refused: u64,
    pub frames_evicted: u64,
    pub refused_by_size: u64,
    pub refused_by_receive_max: u64,
    pub refused_by_alias: u64,
    pub refused_by_topic: u64,
    pub refused_by_payload_format: u64,
    pub refused_by_qos: u64,
    pub refused_by_arena: u64,
    // Results of hooks.
    pub publishes_denied: u64,
    pub publishes_changed: u64,
    pub deliveries_skipped: u64,
    pub connects_denied: u64,
    /// CONNECTs that a hook answers later; those whose time passed before; those that there was no room to wait for; answers
    /// that nobody waited for.
    pub questions: u64,
    pub questions_expired: u64,
    pub questions_refused: u64,
    pub answers_unasked: u64,
    pub subscribes_denied: u64,
    // Back-pressure.
    /// How often publishers waited for clients that filled the store.
    pub store_holds: u64,
    pub parked_on_mail: u64,
    pub parked_on_output: u64,
    pub parked_on_bridges: u64,
    pub parked_on_rate: u64,
    /// Connections that had used their part of a turn.
    pub parked_on_turns: u64,
    /// How often publishers of other shards had to wait until mail was worked off.
    pub mail_holds: u64,
    // Bridges.
    pub bridge_messages_sent: u64,
    pub bridge_messages_received: u64,
    /// Acknowledgements that waited for a bridge's log.
    pub acks_withheld: u64,
    // Mail.
    pub mail_messages_sent: u64,
    pub mail_messages_received: u64,
    pub mail_batches_sent: u64,
    pub mail_bytes_sent: u64,
    // Arena.
    pub admitted: u64,
    pub stale_reads: u64,
    // Events of the network ring.
    pub accepts_refused: u64,
    pub refused_by_address: u64,
    pub refused_by_connect_rate: u64,
    pub accept_backoffs: u64,
    /// Closed connections that were not read until their clients had closed, because others needed the room.
    pub lingers_cut: u64,
    pub receive_rearms: u64,
}

impl Counters {
    /// Steps of work (`shard/steps.rs`).
    #[inline(always)]
    pub fn add_steps(&mut self, count: u64) {
        self.steps += count;
    }

    /// As `add_steps`, for messages that go to their receivers.
    #[inline(always)]
    pub fn add_delivery_steps(&mut self, count: u64) {
        self.delivery_steps += count;
    }

    /// Messages dropped at any limit, as `$SYS` reports them.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full
            + self.dropped_stored_full
            + self.dropped_group_full
            + self.dropped_too_large
    }
}
