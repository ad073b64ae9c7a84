//! The rate at which a client may publish. A client above its rate is not read for a while, and nothing else happens to
//! it.
//!
//! Each client has a bucket of tokens for messages and one for bytes, which hold what it may send within a second. A
//! message is read while both buckets have tokens, and may take more than are there: the client pays before its next one.
//! Bytes that a take-over reads above all marks are charged, too. Without a rate nothing here costs anything.

use super::{About, Shard};
use crate::codec::{Frame, PacketType, frame_size};
use crate::hash::KeyedHash;
use crate::limits::Limits;
use crate::session::{ConnectionId, Park, SessionKey};
use crate::time::Instant;
use std::collections::HashMap;

/// Tokens are thousandths, so that a rate a second is a number of tokens a millisecond.
const TOKEN: i64 = 1000;

/// The tokens of one client.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    messages: i64,
    bytes: i64,
    at: Instant,
}

impl Bucket {
    /// A full bucket, also where there is no limit.
    fn new(limits: &Limits, now: Instant) -> Bucket {
        Bucket {
            messages: full(limits.message_rate_max),
            bytes: full(limits.byte_rate_max),
            at: now,
        }
    }

    fn fill(&mut self, limits: &Limits, now: Instant) {
        let elapsed_ms = now.ms_since(self.at).min(i64::MAX as u64) as i64;
        self.at = now;
        for (tokens, rate) in
            [(&mut self.messages, limits.message_rate_max), (&mut self.bytes, limits.byte_rate_max)]
        {
            let grown = elapsed_ms.saturating_mul(i64::from(rate));
            *tokens = tokens.saturating_add(grown).min(full(rate));
        }
    }

    /// Takes the tokens of a message of so many bytes.
    fn charge(&mut self, size: usize) {
        self.messages = self.messages.saturating_sub(TOKEN);
        self.bytes = self.bytes.saturating_sub(size as i64 * TOKEN);
    }

    /// Until when there are no tokens; `None`: there are some.
    fn empty_until(&self, limits: &Limits) -> Option<Instant> {
        let wait_ms = |tokens: i64, rate: u32| match rate {
            0 => 0,
            _ if tokens > 0 => 0,
            rate => (-tokens / i64::from(rate)) as u64 + 1,
        };
        let wait_ms = wait_ms(self.messages, limits.message_rate_max)
            .max(wait_ms(self.bytes, limits.byte_rate_max));
        (wait_ms > 0).then(|| self.at.plus_ms(wait_ms))
    }
}

fn full(rate: u32) -> i64 {
    i64::from(rate) * TOKEN
}

/// The buckets of the clients that have published.
pub(super) struct Rates {
    pub is_on: bool,
    buckets: HashMap<SessionKey, Bucket, ahash::RandomState>,
}

impl Rates {
    pub(super) fn new(limits: &Limits, hash: &KeyedHash) -> Rates {
        let mut rates = Rates { is_on: false, buckets: HashMap::with_hasher(hash.state()) };
        rates.begin_anew(limits);
        rates
    }

    /// The rates are others: every client has a full bucket again.
    pub(super) fn begin_anew(&mut self, limits: &Limits) {
        self.is_on = limits.message_rate_max > 0 || limits.byte_rate_max > 0;
        self.buckets.clear();
        self.buckets.shrink_to_fit();
    }

    pub(super) fn forget(&mut self, key: SessionKey) {
        if self.is_on {
            self.buckets.remove(&key);
        }
    }
}

impl Shard {
    /// Whether the packet at the start of `bytes` may be used now. If not, the connection is parked until it may.
    #[inline(never)]
    pub(super) fn is_within_rate(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> bool {
        let is_publish = bytes.first().is_some_and(|first| first >> 4 == PacketType::Publish as u8);
        let is_whole = frame_size(bytes).is_ok_and(|size| size.is_some_and(|s| s <= bytes.len()));
        !is_publish || !is_whole || self.has_tokens(now, id)
    }

    /// Whether a message of the client may be used now. If not, the connection is parked until it may.
    pub(super) fn has_tokens(&mut self, now: Instant, id: ConnectionId) -> bool {
        let connection = self.clients.live_connection(id);
        let is_heard =
            connection.park.is_some() || connection.is_peer_gone || self.shutdown.has_begun;
        let Some(key) = connection.session().filter(|_| !is_heard) else { return true };
        let fresh = Bucket::new(&self.limits, now);
        let bucket = self.guards.rates.buckets.entry(key).or_insert(fresh);
        bucket.fill(&self.limits, now);
        let Some(until) = bucket.empty_until(&self.limits) else { return true };
        let what = "it publishes faster than it may";
        self.notice_client(now, About::Pause, id, what, "message_rate_max and byte_rate_max");
        self.park(id, Park::Rate);
        self.set_connection_timer(id, Some(until));
        false
    }

    /// Charges a packet that was used.
    #[inline(never)]
    pub(super) fn charge_rate(&mut self, id: ConnectionId, frame: &Frame<'_>) {
        if frame.packet_type() != Some(PacketType::Publish) {
            return;
        }
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        if let Some(bucket) = key.and_then(|key| self.guards.rates.buckets.get_mut(&key)) {
            bucket.charge(frame.size);
        }
    }

    /// Charges a message that was passed over, but no more than the largest message that is taken: for a larger debt the
    /// client, with its PINGREQs, would not be read for long.
    pub(super) fn charge_passed(&mut self, now: Instant, id: ConnectionId, size: usize) {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        let Some(key) = key.filter(|_| self.guards.rates.is_on) else { return };
        let fresh = Bucket::new(&self.limits, now);
        let bucket = self.guards.rates.buckets.entry(key).or_insert(fresh);
        bucket.fill(&self.limits, now);
        bucket.charge(size.min(self.limits.packet_size_max));
    }

    /// Ends the pause of a client, which is read again.
    pub(super) fn end_rate_pause(&mut self, now: Instant, id: ConnectionId) {
        self.unpark(now, id, Park::Rate);
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.open().is_some_and(|open| open.keep_alive_ms > 0)
            && connection.park != Some(Park::Rate)
        {
            self.set_keep_alive_timer(now, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_a_second_brings_and_a_debt_is_paid_in_time() {
        let limits = Limits { message_rate_max: 10, byte_rate_max: 1_000, ..Limits::default() };
        let mut bucket = Bucket::new(&limits, Instant(0));
        bucket.fill(&limits, Instant(1_000_000));
        assert_eq!((bucket.messages, bucket.bytes), (10 * TOKEN, 1_000 * TOKEN));
        assert_eq!(bucket.empty_until(&limits), None);
        bucket.messages = 0;
        assert_eq!(bucket.empty_until(&limits), Some(Instant(1_000_001)));
        bucket.bytes = -5_000 * TOKEN;
        assert_eq!(bucket.empty_until(&limits), Some(Instant(1_005_001)));
        bucket.fill(&limits, Instant(1_005_001));
        assert_eq!(bucket.empty_until(&limits), None);
        let unlimited = Limits::default();
        assert_eq!(Bucket::new(&unlimited, Instant(5)).empty_until(&unlimited), None);
    }
}
