//! The reasons for which a message does not reach a receiver.

use crate::time::Instant;
use std::fmt;

/// The limit that was met, or the side that refused the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The session's queue was full.
    QueueFull,
    /// The shard's budget for messages that wait was full.
    StoreFull,
    /// The backlog of a shared subscription was full, or its last member left.
    GroupFull,
    /// The message is larger than the client takes.
    TooLarge,
    /// The message is at QoS 0, and the client is away.
    OfflineQos0,
    /// The message's expiry interval passed.
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

    /// The words that tell an operator, and the keys that set the limit that was met (empty: the client set it).
    /// `None`: no limit was met, so the operator is not told.
    pub fn told(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            DropReason::QueueFull => {
                ("its queue was full", "queue_messages_max and queue_bytes_max")
            }
            DropReason::StoreFull => {
                ("the store of waiting messages was full", "shard_stored_bytes_max")
            }
            DropReason::GroupFull => (
                "a shared subscription had no member to take it",
                "group_messages_max and group_bytes_max",
            ),
            DropReason::TooLarge => ("larger than its client takes", ""),
            DropReason::RetainedFull => {
                ("there is no room", "retained_messages_max and retained_bytes_max")
            }
            DropReason::OfflineQos0 | DropReason::Expired | DropReason::Denied => return None,
        })
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }

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

/// A message that did not reach a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// `None`: the message was not on its way to one client.
    pub client_id: Option<Box<str>>,
    pub topic: Box<str>,
    pub why: DropReason,
}

/// Messages that were dropped, until hooks or the log are told: all of them if hooks want to know, and now and then one
/// example of each reason for the log.
#[derive(Debug, Default)]
pub struct DropLog {
    is_on: bool,
    /// `WORK` while drops wait to be told, and a bit for each reason of which the log wants no other example now. 0:
    /// there is nothing to do.
    state: u16,
    waiting: Vec<Dropped>,
    /// Examples for the log.
    examples: Vec<Dropped>,
    quiet_until: Instant,
}

/// How many drops are kept between two tellings. Further drops are only counted, where they happen.
const WAITING_MAX: usize = 4096;

/// The shortest time between two examples of a reason.
const QUIET_MS: u64 = 10_000;

const WORK: u16 = 1 << DropReason::ALL.len();

impl DropLog {
    pub fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    #[inline]
    pub fn push(&mut self, client_id: Option<&str>, topic: &[u8], why: DropReason) {
        if self.is_on || self.state & why.bit() == 0 {
            self.keep(client_id, topic, why);
        }
    }

    #[cold]
    fn keep(&mut self, client_id: Option<&str>, topic: &[u8], why: DropReason) {
        let is_example = self.state & why.bit() == 0 && why.told().is_some();
        let is_kept = self.is_on && self.waiting.len() < WAITING_MAX;
        if !is_example && !is_kept {
            return;
        }
        let topic = String::from_utf8_lossy(topic).into();
        let dropped = Dropped { client_id: client_id.map(Box::from), topic, why };
        self.state |= WORK;
        if is_example {
            self.state |= why.bit();
            self.examples.push(dropped.clone());
        }
        if is_kept {
            self.waiting.push(dropped);
        }
    }

    /// Adds the client's name to the last drop, if that has this reason and waits for the log.
    pub fn name_last(&mut self, why: DropReason, client_id: &str) {
        if let Some(last) = self.examples.last_mut().filter(|last| last.why == why) {
            last.client_id.get_or_insert_with(|| client_id.into());
        }
    }

    /// 1 if drops wait to be told, else 0.
    #[inline]
    pub fn count(&self) -> usize {
        usize::from(self.state & WORK)
    }

    /// 0 if no drops wait to be told and no reason waits for its quiet time to end.
    #[inline]
    pub fn chore_count(&self) -> usize {
        usize::from(self.state)
    }

    /// Takes all drops that wait for hooks, and the examples for the log.
    pub fn take(&mut self, now: Instant) -> (Vec<Dropped>, Vec<Dropped>) {
        if !self.examples.is_empty() {
            self.quiet_until = now.plus_ms(QUIET_MS);
        } else if self.quiet_until <= now {
            self.state = 0;
        }
        self.state &= !WORK;
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.examples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_one_example_of_a_reason_now_and_then() {
        let mut drops = DropLog::default();
        let mut told = Vec::new();
        for at in [0, 1, 2, 9_999, 10_000, 10_001, 10_002] {
            for why in DropReason::ALL {
                drops.push(Some("c"), format!("{at}").as_bytes(), why);
            }
            let (hooks, examples) = drops.take(Instant(at));
            assert!(hooks.is_empty() && drops.count() == 0);
            told.extend(examples.into_iter().map(|one| format!("{} {}", one.topic, one.why)));
        }
        let reasons = ["queue_full", "store_full", "group_full", "too_large", "retained_full"];
        let expected = ["0", "10001"].map(|at| reasons.map(|why| format!("{at} {why}")));
        assert_eq!(told, expected.concat());
        drops.take(Instant(90_000));
        assert_eq!(drops.chore_count(), 0);
    }
}
