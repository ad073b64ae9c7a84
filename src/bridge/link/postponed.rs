//! Messages that the remote refuses for now (0x97, 0x91): each is sent again on the same link after a pause that grows,
//! and messages of its topic wait behind it, so that order holds per topic.
//!
//! Other topics go on. When the remote has taken the message, the link goes through the log again. Only messages in flight
//! beside the refused message may have overtaken it. A log that is full meanwhile drops its oldest message that is not in
//! flight. `refused_max_s` counts the time between refusals, without the time in which the remote was not there. Any other
//! code is final: the message is counted, logged and dropped.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::time::Instant;

/// From this many postponed messages on the link sends no others. Messages in flight may raise the count above it.
pub(super) const POSTPONED_MAX: usize = 4096;

/// A pause is doubled this often at most: the longest pause is reached earlier.
const DOUBLINGS_MAX: u32 = 20;

#[derive(Debug)]
pub(super) struct Postponed {
    pause_min_ms: u64,
    pause_max_ms: u64,
    /// A message that was refused for this long is given up; 0: never.
    give_up_ms: u64,
    /// The first refused message of each topic, by the topic's hash. Two topics with one hash wait for each other needlessly.
    fronts: HashMap<u64, u64, ahash::RandomState>,
    /// The postponed messages by sequence.
    messages: BTreeMap<u64, Message>,
    /// The messages whose pause runs, or is over and was not reported yet.
    dues: BTreeSet<(Instant, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    topic: u64,
    /// The time of the last refusal.
    refused_at: Instant,
    /// The time between refusals, without the times in which the message could not be sent.
    refused_ms: u64,
    refusals: u32,
    /// `None`: the message is under way, or its owner has been asked to send it.
    due: Option<Instant>,
    /// The message was sent, and the remote has not answered since.
    is_in_doubt: bool,
    /// Another message of the topic waits.
    has_followers: bool,
}

/// Whether a message may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    /// The message is the first of its topic, and its pause is over. `is_in_doubt`: the remote may have the message.
    Front {
        is_in_doubt: bool,
    },
    Waits,
}

/// The consequence of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This is the first refusal of the first message of its topic.
    First,
    Again,
    /// The message waits behind another message.
    Behind,
    /// The message was refused for so long that it is given up.
    GivenUp {
        for_ms: u64,
    },
}

impl Postponed {
    pub(super) fn new(
        pause_ms: (u64, u64),
        give_up_ms: u64,
        state: ahash::RandomState,
    ) -> Postponed {
        Postponed {
            pause_min_ms: pause_ms.0.max(1),
            pause_max_ms: pause_ms.1.max(pause_ms.0).max(1),
            give_up_ms,
            fronts: HashMap::with_hasher(state),
            messages: BTreeMap::new(),
            dues: BTreeSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= POSTPONED_MAX
    }

    /// The remote has refused a message for now.
    pub(super) fn refuse(&mut self, now: Instant, sequence: u64, topic: u64) -> Refusal {
        if let Some(message) = self.messages.get_mut(&sequence) {
            message.is_in_doubt = false;
            let gap_ms = now.ms_since(message.refused_at).min(2 * self.pause_max_ms);
            message.refused_at = now;
            message.refused_ms = message.refused_ms.saturating_add(gap_ms);
            let for_ms = message.refused_ms;
            if self.give_up_ms > 0 && for_ms >= self.give_up_ms {
                self.set_due(sequence, None);
                return Refusal::GivenUp { for_ms };
            }
            let doublings = message.refusals.min(DOUBLINGS_MAX);
            message.refusals = message.refusals.saturating_add(1);
            let doubled = self.pause_min_ms.saturating_mul(1 << doublings);
            self.set_due(sequence, Some(now.plus_ms(doubled.min(self.pause_max_ms))));
            return Refusal::Again;
        }
        let mut has_followers = false;
        if let Some(&front) = self.fronts.get(&topic) {
            let message = self.messages.get_mut(&front).expect("a front is postponed");
            if front < sequence {
                message.has_followers = true;
                return Refusal::Behind;
            }
            // This message goes first, though its refusal came later.
            self.finish(front);
            has_followers = true;
        }
        self.fronts.insert(topic, sequence);
        let message = Message {
            topic,
            refused_at: now,
            refused_ms: 0,
            refusals: 1,
            due: None,
            is_in_doubt: false,
            has_followers,
        };
        self.messages.insert(sequence, message);
        self.set_due(sequence, Some(now.plus_ms(self.pause_min_ms)));
        Refusal::First
    }

    /// Whether a message of this topic may be sent.
    pub(super) fn place(&mut self, now: Instant, sequence: u64, topic: u64) -> Place {
        let Some(&front) = self.fronts.get(&topic) else { return Place::Free };
        let message = self.messages.get_mut(&front).expect("a front is postponed");
        match sequence.cmp(&front) {
            Ordering::Less => Place::Free,
            Ordering::Equal if message.due.is_none_or(|due| due <= now) => {
                Place::Front { is_in_doubt: message.is_in_doubt }
            }
            Ordering::Equal => Place::Waits,
            Ordering::Greater => {
                message.has_followers = true;
                Place::Waits
            }
        }
    }

    /// The message is under way.
    pub(super) fn sent(&mut self, sequence: u64) {
        if let Some(message) = self.messages.get_mut(&sequence) {
            message.is_in_doubt = true;
            self.set_due(sequence, None);
        }
    }

    /// Another connection has begun: messages that were under way, or that the owner looked after, are due.
    pub(super) fn begin(&mut self, now: Instant) {
        let forgotten = self.messages.iter().filter(|(_, message)| message.due.is_none());
        let forgotten: Vec<u64> = forgotten.map(|(sequence, _)| *sequence).collect();
        for sequence in forgotten {
            self.set_due(sequence, Some(now));
        }
    }

    /// The message could not be given up just now.
    pub(super) fn keep(&mut self, now: Instant, sequence: u64) {
        self.set_due(sequence, Some(now.plus_ms(self.pause_max_ms)));
    }

    /// The message is over. Returns whether another message may have waited behind it.
    pub(super) fn finish(&mut self, sequence: u64) -> bool {
        if !self.messages.contains_key(&sequence) {
            return false;
        }
        self.set_due(sequence, None);
        let message = self.messages.remove(&sequence).expect("it was there");
        self.fronts.remove(&message.topic);
        if self.messages.is_empty() {
            self.fronts.shrink_to_fit();
        }
        message.has_followers
    }

    /// A message whose pause is over; each message is reported once.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<u64> {
        let &(due, sequence) = self.dues.first()?;
        if due > now {
            return None;
        }
        self.set_due(sequence, None);
        Some(sequence)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.dues.first().map(|(due, _)| *due)
    }

    fn set_due(&mut self, sequence: u64, due: Option<Instant>) {
        let Some(message) = self.messages.get_mut(&sequence) else { return };
        if let Some(before) = std::mem::replace(&mut message.due, due) {
            self.dues.remove(&(before, sequence));
        }
        if let Some(due) = due {
            self.dues.insert((due, sequence));
        }
    }
}
