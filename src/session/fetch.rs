//! The retained messages that a session's new subscriptions have yet to get.
//!
//! A session fetches while it has pulls: one for each subscription that was made while something is retained, in order.
//! A pull asks the owners of topics, shard by shard, for chunks:
//!
//! ```text
//!  SUBSCRIBE --> Pull { filter, shards: [0, 1, 2], after: none }
//!                  |
//!                  v  only while nothing else waits for the session and its output has room
//!       +---> first of `shards` is the own one: look at its topics at once
//!       |     another one: query --------------------> owner, behind all earlier publishes of the asker
//!       |                    <------ answer: chunk, and where to go on
//!       |          |
//!       |          v  each message of the chunk
//!       |     topic in Seen since the subscription? --yes--> left out: a newer message is on its way
//!       |          | no
//!       |          v
//!       |     offered to the session as a retained message
//!       |          |
//!       +----------+  more topics: after = last topic;  done: next shard, then next pull
//! ```
//! `Seen` has the topics of messages with the retain flag that reached the session meanwhile. When it has forgotten
//! topics that a chunk needs, the same chunk is asked for again.

use super::{Envelope, Seen};
use crate::arena::allocated;
use std::collections::VecDeque;

/// The pulls of a session, which has a `Fetch` while it has a pull.
#[derive(Debug, Default)]
pub struct Fetch {
    /// One pull after the other. `push`, `pop` and `retain` alone change this list.
    pub pulls: VecDeque<Pull>,
    /// Bytes that the pulls hold beside their entries in the list.
    pulls_size: usize,
    /// Topics that reached the session with the retain flag while it fetches; `None`: none did yet.
    pub seen: Option<Box<Seen>>,
}

/// The retained messages of one subscription, fetched in chunks from the shards that own them.
#[derive(Debug)]
pub struct Pull {
    /// The number of the request, which tells its answer from older ones.
    pub request: u64,
    pub filter: Box<str>,
    pub envelope: Envelope,
    /// Shards still to ask; the first is being asked.
    pub shards: VecDeque<u16>,
    /// The last topic that was fetched from the first shard.
    pub after: Option<Box<str>>,
    pub is_asked: bool,
    /// Topics that `Fetch::seen` numbers from here on reached the session after it subscribed: a retained message of
    /// such a topic is older.
    pub seen_from: u64,
}

impl Pull {
    /// Bytes that the pull holds beside its entry, without `after`.
    fn size(&self) -> usize {
        let ids = self.envelope.ids.as_ref().map_or(0, |ids| size_of_val(&**ids) + 16);
        allocated(self.filter.len())
            + allocated(ids)
            + allocated(self.shards.capacity() * size_of::<u16>())
    }
}

impl Fetch {
    /// The memory in use, without `seen`, in bytes.
    pub fn bytes(&self) -> usize {
        allocated(size_of::<Fetch>())
            + allocated(self.pulls.capacity() * size_of::<Pull>())
            + self.pulls_size
    }

    pub fn pop(&mut self) {
        if let Some(pull) = self.pulls.pop_front() {
            self.pulls_size -= pull.size();
        }
    }

    pub fn retain(&mut self, is_kept: impl Fn(&Pull) -> bool) {
        self.pulls.retain(is_kept);
        self.pulls_size = self.pulls.iter().map(Pull::size).sum();
    }

    /// Whether the first pull waits for no answer.
    pub fn is_ready(&self) -> bool {
        self.pulls.front().is_some_and(|pull| !pull.is_asked)
    }

    /// Adds the pull of a subscription that was made now.
    pub fn push(&mut self, mut pull: Pull) {
        pull.seen_from = self.seen.as_ref().map_or(0, |seen| seen.next());
        self.pulls_size += pull.size();
        self.pulls.push_back(pull);
    }

    /// Forgets the requests of a connection that has ended: all of them will be sent again.
    pub fn disconnect(&mut self) {
        for pull in &mut self.pulls {
            pull.is_asked = false;
        }
    }
}
