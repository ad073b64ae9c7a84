//! Why a message did not reach somebody.

use std::fmt;

/// By the limit that was met, or by who refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The session's queue was full.
    QueueFull,
    /// The budget of the shard for messages that wait was full.
    StoreFull,
    /// The backlog of a shared subscription was full, or its last member left.
    GroupFull,
    /// Larger than the client takes.
    TooLarge,
    /// QoS 0, and the client is away.
    OfflineQos0,
    /// Its expiry interval passed.
    Expired,
    /// The store of retained messages was full.
    RetainedFull,
    /// A hook denied it.
    Denied,
}

impl DropReason {
    pub const ALL: [DropReason; 8] = [
        DropReason::QueueFull,
        DropReason::StoreFull,
        DropReason::GroupFull,
        DropReason::TooLarge,
        DropReason::OfflineQos0,
        DropReason::Expired,
        DropReason::RetainedFull,
        DropReason::Denied,
    ];

    /// A short name without spaces.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::StoreFull => "store_full",
            DropReason::GroupFull => "group_full",
            DropReason::TooLarge => "too_large",
            DropReason::OfflineQos0 => "offline_qos0",
            DropReason::Expired => "expired",
            DropReason::RetainedFull => "retained_full",
            DropReason::Denied => "denied",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
