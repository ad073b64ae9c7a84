//! Bounds of one session where they differ from the broker's.

/// `None`: what the broker's limits say. The budgets of the shard hold whatever is said here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Seconds the session may outlive its connection; a client that asks for less gets less.
    pub session_expiry_max_s: Option<u32>,
    /// Longest keep alive; 0: no limit. Told to 5.0 clients only.
    pub keep_alive_max_s: Option<u16>,
    /// QoS 1 and 2 messages unacknowledged towards the client, whatever it allows; at least 1.
    pub inflight_max: Option<u16>,
    pub queue_messages_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
    pub subscriptions_max: Option<usize>,
}
