//! What a shard holds at one moment.

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
    /// Of outputs that are on their way, the bytes of those that a transport has sealed.
    pub sealed_bytes: usize,
    /// What transports hold: their states, and parts of records.
    pub transport_bytes: usize,
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
