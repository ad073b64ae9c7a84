//! Retained messages that a session's subscriptions still have to be given.

use super::{Envelope, Seen};
use std::collections::VecDeque;

/// What a session fetches: there while it has a pull.
#[derive(Debug, Default)]
pub struct Fetch {
    /// One subscription after the other.
    pub pulls: VecDeque<Pull>,
    /// Topics that reached the session with the retain flag while it fetches; `None`: none yet.
    pub seen: Option<Box<Seen>>,
}

/// The retained messages of one subscription, fetched in chunks from the shards that own them.
#[derive(Debug)]
pub struct Pull {
    /// Tells answers to this request from older ones.
    pub request: u64,
    pub filter: Box<str>,
    pub envelope: Envelope,
    /// Shards still to ask; the first is being asked.
    pub shards: VecDeque<u16>,
    /// The last topic that was fetched from the first shard.
    pub after: Option<Box<str>>,
    pub is_asked: bool,
    /// What `Fetch::seen` counts from here on reached the session since it subscribed: an answer for one of those
    /// topics is older.
    pub seen_from: u64,
}

impl Fetch {
    /// The first pull has nobody to wait for.
    pub fn is_ready(&self) -> bool {
        self.pulls.front().is_some_and(|pull| !pull.is_asked)
    }

    /// Adds what a subscription that was made now asks for.
    pub fn push(&mut self, mut pull: Pull) {
        pull.seen_from = self.seen.as_ref().map_or(0, |seen| seen.next());
        self.pulls.push_back(pull);
    }

    /// What was asked for is asked for again.
    pub fn disconnect(&mut self) {
        for pull in &mut self.pulls {
            pull.is_asked = false;
        }
    }
}
