//! The one count of connections that all shards share, in all and by the address that they come from.
//!
//! A connection counts from accept to close. Addresses are counted where that is limited; all shards share what an
//! address may have, as the kernel spreads its connections over them. An IPv6 address counts as its /64.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shard::{Origin, Refusal, ShardId};
use crate::time::Instant;

/// Connections above the maximum at a time: each is about to take the place of one that has not said CONNECT, or to be refused.
pub(crate) const OVER_MAX: usize = 64;

/// The bound on addresses that are remembered without a connection, until their whole rate of connections is theirs again.
const IDLE_ADDRESSES_MAX: usize = 65_536;

/// Lets in as many as the process may have. Touched when a connection opens and when it closes, never between.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    max: usize,
    /// `None`: addresses are not counted.
    by_address: Option<ByAddress>,
    /// Each shard's connections that have not said CONNECT, as of its last turn.
    connecting: Vec<AtomicUsize>,
}

/// How a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The address that the connection is counted under.
    pub origin: Option<Origin>,
    /// There are more than may be, so another has to go, or this one.
    pub is_over: bool,
}

#[derive(Debug)]
struct ByAddress {
    /// Connections at a time, and within a second; 0: no limit.
    count_max: usize,
    rate_max: u64,
    origins: Mutex<Origins>,
}

#[derive(Debug, Default)]
struct Origins {
    states: HashMap<Origin, State>,
    /// The addresses without a connection.
    idle_count: usize,
}

/// The count and the rate of one address.
#[derive(Clone, Copy, Debug)]
struct State {
    count: usize,
    /// Thousandths of connections that the address might open at `at`.
    tokens: u64,
    at: Instant,
}

impl State {
    /// What it may open fills up within a second.
    fn fill(&mut self, rate_max: u64, now: Instant) {
        let full = rate_max * 1000;
        let grown = now.ms_since(self.at).saturating_mul(rate_max);
        self.tokens = self.tokens.saturating_add(grown).min(full);
        self.at = now;
    }
}

impl Gate {
    pub(crate) fn new(max: usize, count_max: usize, rate_max: u64, shard_count: u16) -> Gate {
        let by_address = (count_max > 0 || rate_max > 0).then(|| ByAddress {
            count_max,
            rate_max,
            origins: Mutex::default(),
        });
        let connecting = (0..shard_count).map(|_| AtomicUsize::new(0)).collect();
        Gate { inside: AtomicUsize::new(0), max, by_address, connecting }
    }

    /// Lets a connection in, or says why not. `peer` is asked for only if somebody wants to know; what it is counted under
    /// is given back to `leave`.
    pub(crate) fn enter(
        &self,
        now: Instant,
        peer: impl FnOnce() -> Option<SocketAddr>,
    ) -> Result<Entry, Refusal> {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        if before >= self.max.saturating_add(OVER_MAX) {
            self.leave(None);
            return Err(Refusal::Full);
        }
        let is_over = before >= self.max;
        let unknown = Entry { origin: None, is_over };
        let Some(by_address) = &self.by_address else { return Ok(unknown) };
        // A peer that is gone already has no address; the first receive will say so.
        let Some(origin) = peer().map(Origin::of) else { return Ok(unknown) };
        match by_address.enter(now, origin) {
            Ok(()) => Ok(Entry { origin: Some(origin), is_over }),
            Err(refusal) => {
                self.leave(None);
                Err(refusal)
            }
        }
    }

    /// A shard says how many of its connections have not said CONNECT.
    pub(crate) fn note_connecting(&self, shard: ShardId, count: usize) {
        self.connecting[usize::from(shard)].store(count, Ordering::Relaxed);
    }

    /// The shard, but for `own`, with most connections that have not said CONNECT.
    pub(crate) fn most_connecting(&self, own: ShardId) -> Option<ShardId> {
        let counts = self.connecting.iter().map(|count| count.load(Ordering::Relaxed));
        let others = (0..).zip(counts).filter(|(shard, count)| *shard != own && *count > 0);
        others.max_by_key(|(_, count)| *count).map(|(shard, _)| shard)
    }

    pub(crate) fn leave(&self, origin: Option<Origin>) {
        let before = self.inside.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "who leaves has entered");
        if let (Some(by_address), Some(origin)) = (&self.by_address, origin) {
            by_address.leave(origin);
        }
    }
}

impl ByAddress {
    fn enter(&self, now: Instant, origin: Origin) -> Result<(), Refusal> {
        let mut origins = self.origins();
        if origins.idle_count >= IDLE_ADDRESSES_MAX {
            origins.forget_idle(self.rate_max, now);
        }
        let Origins { states, idle_count } = &mut *origins;
        let state = states.entry(origin).or_insert_with(|| {
            *idle_count += 1;
            State { count: 0, tokens: self.rate_max * 1000, at: now }
        });
        state.fill(self.rate_max, now);
        if self.count_max > 0 && state.count >= self.count_max {
            return Err(Refusal::AddressFull);
        }
        if self.rate_max > 0 && state.tokens < 1000 {
            return Err(Refusal::AddressFast);
        }
        state.tokens = state.tokens.saturating_sub(1000);
        *idle_count -= usize::from(state.count == 0);
        state.count += 1;
        Ok(())
    }

    fn leave(&self, origin: Origin) {
        let mut origins = self.origins();
        let state = origins.states.get_mut(&origin).expect("who leaves has entered");
        state.count -= 1;
        if state.count > 0 {
            return;
        }
        if self.rate_max == 0 {
            origins.states.remove(&origin);
        } else {
            origins.idle_count += 1;
        }
    }

    fn origins(&self) -> MutexGuard<'_, Origins> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origins {
    /// Addresses without a connection go when all is theirs again; if many are left, all of them go, so that this is rare.
    fn forget_idle(&mut self, rate_max: u64, now: Instant) {
        self.states.retain(|_, state| {
            state.fill(rate_max, now);
            state.count > 0 || state.tokens < rate_max * 1000
        });
        let is_idle = |state: &&State| state.count == 0;
        self.idle_count = self.states.values().filter(is_idle).count();
        if self.idle_count > IDLE_ADDRESSES_MAX / 2 {
            self.states.retain(|_, state| state.count > 0);
            self.idle_count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(gate: &Gate, at: u64, address: &str) -> Result<Option<Origin>, Refusal> {
        let entry = gate.enter(Instant(at), || Some(address.parse().unwrap()))?;
        assert!(!entry.is_over);
        Ok(entry.origin)
    }

    #[test]
    fn a_few_get_into_a_full_gate_and_are_marked() {
        let gate = Gate::new(2, 0, 0, 1);
        let ask = || {
            let entry = gate.enter(Instant(1), || panic!("nobody asks for addresses"));
            entry.map(|entry| entry.is_over)
        };
        assert_eq!([ask(), ask()], [Ok(false), Ok(false)]);
        assert!((0..OVER_MAX).all(|_| ask() == Ok(true)));
        assert!(ask() == Err(Refusal::Full) && ask() == Err(Refusal::Full));
        gate.leave(None);
        assert_eq!([ask(), ask()], [Ok(true), Err(Refusal::Full)]);
        (0..OVER_MAX + 1).for_each(|_| gate.leave(None));
        assert_eq!([ask(), ask()], [Ok(false), Ok(true)]);
    }

    #[test]
    fn the_shard_with_most_strangers_is_known_to_the_others() {
        let gate = Gate::new(2, 0, 0, 3);
        assert_eq!(gate.most_connecting(0), None);
        gate.note_connecting(0, 9);
        gate.note_connecting(1, 2);
        gate.note_connecting(2, 3);
        assert_eq!([0, 1, 2].map(|own| gate.most_connecting(own)), [Some(2), Some(0), Some(0)]);
        gate.note_connecting(0, 0);
        gate.note_connecting(2, 0);
        assert_eq!([0, 1, 2].map(|own| gate.most_connecting(own)), [Some(1), None, Some(1)]);
    }

    #[test]
    fn an_address_has_so_many_connections_and_takes_none_of_others() {
        let gate = Gate::new(100, 2, 0, 1);
        let first = enter(&gate, 1, "192.0.2.1:1000").unwrap();
        // The same address, as a socket of both families shows it.
        enter(&gate, 1, "[::ffff:192.0.2.1]:1001").unwrap();
        assert_eq!(enter(&gate, 1, "192.0.2.1:1002"), Err(Refusal::AddressFull));
        enter(&gate, 1, "192.0.2.2:1000").unwrap();
        // The owner of an IPv6 network has all its addresses.
        enter(&gate, 1, "[2001:db8:0:1::1]:1").unwrap();
        enter(&gate, 1, "[2001:db8:0:1:ffff::2]:1").unwrap();
        assert_eq!(enter(&gate, 1, "[2001:db8:0:1::3]:1"), Err(Refusal::AddressFull));
        enter(&gate, 1, "[2001:db8:0:2::3]:1").unwrap();
        gate.leave(first);
        enter(&gate, 1, "192.0.2.1:1003").unwrap();
        assert_eq!(gate.inside.load(Ordering::Relaxed), 6, "who is refused is not counted");
    }

    #[test]
    fn an_address_connects_so_often_within_a_second() {
        let gate = Gate::new(1_000_000, 0, 5, 1);
        let mut let_in = 0;
        for ms in 0..10_000 {
            if let Ok(origin) = enter(&gate, 1_000 + ms, "192.0.2.1:1") {
                let_in += 1;
                gate.leave(origin);
            }
            if ms % 500 == 0 {
                gate.leave(enter(&gate, 1_000 + ms, "192.0.2.2:1").expect("another address"));
            }
        }
        assert!((54..=55).contains(&let_in), "{let_in} were let in");
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten() {
        let gate = Gate::new(1_000_000, 0, 1, 1);
        let kept = enter(&gate, 0, "192.0.2.1:1").unwrap();
        for number in 0..3 * IDLE_ADDRESSES_MAX as u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 1));
            let entry = gate.enter(Instant(u64::from(number) / 1000), || Some(address)).unwrap();
            gate.leave(entry.origin);
        }
        assert!(gate.by_address.as_ref().unwrap().origins().states.len() <= IDLE_ADDRESSES_MAX + 1);
        gate.leave(kept);
    }
}
