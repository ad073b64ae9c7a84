//! Clients that connect again and again, as two clients with one client id do. They are banned for a time, by address
//! and client id together.
//!
//! Another address with the same client id is not banned, nor is another client at the same address. A ban refuses a
//! CONNECT before it changes anything: the session and its connection stay as they are.

use super::Shard;
use super::origin::Origin;
use crate::hash::KeyedHash;
use crate::session::ConnectionId;
use crate::time::Instant;
use std::collections::HashMap;

/// How many pairs of address and client id are remembered. Further pairs are never banned.
const PAIRS_MAX: usize = 65_536;

/// An address and the hash of a client id.
type Pair = (Origin, u64);

#[derive(Clone, Copy, Debug)]
struct State {
    /// How many CONNECTs came since the window began.
    count: u32,
    since: Instant,
    banned_until: Instant,
}

/// The time between two searches for pairs that may be forgotten.
const SWEEP_MS: u64 = 1_000;

pub(super) struct Flapping {
    pairs: HashMap<Pair, State, ahash::RandomState>,
    sweep_at: Instant,
}

impl Flapping {
    pub(super) fn new(hash: &KeyedHash) -> Flapping {
        Flapping { pairs: HashMap::with_hasher(hash.state()), sweep_at: Instant(0) }
    }

    /// Forgets all counts.
    pub(super) fn forget_all(&mut self) {
        self.pairs.clear();
        self.pairs.shrink_to_fit();
    }

    /// Counts a CONNECT; returns whether it is banned. A window begins with the first CONNECT outside of any window.
    fn is_banned(
        &mut self,
        now: Instant,
        pair: Pair,
        (connects_max, window_s, ban_s): (u32, u32, u32),
    ) -> bool {
        let window_ms = u64::from(window_s) * 1000;
        if self.pairs.len() >= PAIRS_MAX && !self.pairs.contains_key(&pair) {
            if self.sweep_at <= now {
                self.sweep_at = now.plus_ms(SWEEP_MS);
                self.pairs.retain(|_, s| s.banned_until > now || now.ms_since(s.since) < window_ms);
            }
            if self.pairs.len() >= PAIRS_MAX {
                return false;
            }
        }
        let fresh = State { count: 0, since: now, banned_until: Instant(0) };
        let state = self.pairs.entry(pair).or_insert(fresh);
        if state.banned_until > now {
            return true;
        }
        if now.ms_since(state.since) >= window_ms {
            *state = fresh;
        }
        state.count += 1;
        if state.count > connects_max {
            *state = State { banned_until: now.plus_s(u64::from(ban_s)), ..fresh };
        }
        state.count == 0
    }
}

impl Shard {
    /// Whether the client connects too often to be let in.
    pub(super) fn is_flapping(&mut self, now: Instant, id: ConnectionId, client_id: &str) -> bool {
        let limits = &self.limits;
        if limits.flapping_connects_max == 0 {
            return false;
        }
        let bounds =
            (limits.flapping_connects_max, limits.flapping_window_s, limits.flapping_ban_s);
        let peer = self.clients.connection(id).and_then(|connection| connection.addresses().peer);
        let Some(peer) = peer else { return false };
        let pair = (Origin::of(peer), self.peers.hash().bytes(client_id.as_bytes()));
        self.guards.flapping.is_banned(now, pair, bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_too_often_is_banned_for_a_time_and_nobody_else() {
        let mut flapping = Flapping::new(&KeyedHash::new(1));
        let origin = |text: &str| Origin::of(text.parse().unwrap());
        let (first, second) = (origin("192.0.2.1:1"), origin("192.0.2.2:1"));
        let bounds = (3, 10, 60);
        let mut ask = |at_s: u64, origin, client| {
            flapping.is_banned(Instant(1_000).plus_s(at_s), (origin, client), bounds)
        };
        // A client that connects slowly is never banned.
        assert!((0..100).all(|time| !ask(time * 5, second, 9)));
        assert_eq!([0, 1, 2, 3, 4].map(|at| ask(at, first, 7)), [false, false, false, true, true]);
        assert!(!ask(4, first, 8), "another client at the same address");
        assert!(!ask(4, second, 7), "the same client id at another address");
        assert!(ask(62, first, 7), "until 63");
        assert!(!ask(63, first, 7));
        assert!(!ask(64, first, 7));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut flapping = Flapping::new(&KeyedHash::new(1));
        let origin = Origin::of("192.0.2.1:1".parse().unwrap());
        for client in 0..2 * PAIRS_MAX as u64 {
            assert!(!flapping.is_banned(Instant(1), (origin, client), (3, 10, 60)));
        }
        assert_eq!(flapping.pairs.len(), PAIRS_MAX);
        flapping.is_banned(Instant(10_001), (origin, u64::MAX), (3, 10, 60));
        assert_eq!(flapping.pairs.len(), 1, "what has passed is forgotten");
    }
}
