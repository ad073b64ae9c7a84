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

impl SessionLimits {
    /// These limits, and where one of them is not set, that of `other`.
    #[must_use]
    pub fn or(self, other: SessionLimits) -> SessionLimits {
        SessionLimits {
            session_expiry_max_s: self.session_expiry_max_s.or(other.session_expiry_max_s),
            keep_alive_max_s: self.keep_alive_max_s.or(other.keep_alive_max_s),
            inflight_max: self.inflight_max.or(other.inflight_max),
            queue_messages_max: self.queue_messages_max.or(other.queue_messages_max),
            queue_bytes_max: self.queue_bytes_max.or(other.queue_bytes_max),
            subscriptions_max: self.subscriptions_max.or(other.subscriptions_max),
        }
    }
}
