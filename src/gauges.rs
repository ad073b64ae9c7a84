//! The amounts that a shard holds at one moment.

/// Amounts held now; bytes unless named otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub connections: usize,
    pub sessions: usize,
    pub connected_sessions: usize,
    pub subscriptions: usize,
    pub shared_groups: usize,
    pub group_backlog: usize,
    /// Retained messages of clients, which limits bound.
    pub retained_messages: usize,
    pub retained_bytes: usize,
    /// Messages of the broker itself, which are retained beside those.
    pub system_messages: usize,
    pub system_bytes: usize,
    pub stored_bytes: usize,
    pub stored_messages: usize,
    /// The part of the stored bytes that waits for absent clients. A message that waits for several counts once for
    /// each.
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
    /// Memory that clients cause beside messages, input and output; interest of other shards; remembered routes.
    pub metadata_bytes: usize,
    pub interest_bytes: usize,
    pub route_bytes: usize,
    /// Mail that waits for other shards.
    pub mail_bytes: usize,
    /// Empty buffers that are kept to be used again.
    pub spare_bytes: usize,
    pub arena_used: usize,
    pub arena_held: u64,
    /// Messages that encode, plugin and bridge have not acked.
    pub held_by_stage: [u64; 3],
    /// The last generation that each stage acked.
    pub acked_by_stage: [u64; 3],
    pub mail_is_above_mark: bool,
    /// Connections listed as waiting for mail.
    pub parked_on_mail: usize,
    /// Connections listed as waiting for a bridge, those that are gone included.
    pub parked_on_bridges: usize,
    /// Whether publishers wait for clients whose messages fill the store of this shard or of another.
    pub store_is_blocking: bool,
    pub interest_filters: usize,
    /// Whether plugins have hooks.
    pub has_hooks: bool,
}
