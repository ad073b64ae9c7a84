//! Bounds of one session where they differ from the broker's.

/// `None`: the broker's limit holds. The budgets of the shard hold in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many seconds the session may outlive its connection. A client that asks for less gets less.
    pub session_expiry_max_s: Option<u32>,
    /// The longest keep alive; 0: no limit. Only 5.0 clients can be told.
    pub keep_alive_max_s: Option<u16>,
    /// How many QoS 1 and 2 messages may be unacknowledged towards the client, even if the client allows more; at least
    /// 1.
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
