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

/// A message that somebody did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// `None`: it was not on its way to one client.
    pub client_id: Option<Box<str>>,
    pub topic: Box<str>,
    pub why: DropReason,
}

/// Messages that were dropped, until somebody is told; empty unless somebody wants to know.
#[derive(Debug, Default)]
pub struct DropLog {
    is_on: bool,
    waiting: Vec<Dropped>,
}

/// Drops kept between two tellings; what is dropped beyond is only counted, where it happened.
const WAITING_MAX: usize = 4096;

impl DropLog {
    pub fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    #[inline]
    pub fn push(&mut self, client_id: Option<&str>, topic: &[u8], why: DropReason) {
        if self.is_on {
            self.keep(client_id, topic, why);
        }
    }

    #[cold]
    fn keep(&mut self, client_id: Option<&str>, topic: &[u8], why: DropReason) {
        if self.waiting.len() < WAITING_MAX {
            let topic = String::from_utf8_lossy(topic).into();
            self.waiting.push(Dropped { client_id: client_id.map(Box::from), topic, why });
        }
    }

    pub fn count(&self) -> usize {
        self.waiting.len()
    }

    pub fn take(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.waiting)
    }
}
