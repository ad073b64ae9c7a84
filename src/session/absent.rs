//! Sessions whose clients are away, by the addresses that the clients came from: the address that holds most loses
//! first.

use super::holders::class_of;
use super::shares::{HolderName, ShareId, Shares};
use super::{Holders, SessionKey};
use crate::arena::{Gauge, tree_size};
use crate::hash::KeyedHash;
use std::collections::BTreeSet;

/// What an address holds.
#[derive(Debug, Default)]
struct Holding {
    /// Sessions whose clients are away.
    absent_count: usize,
    /// Bytes that are stored for these sessions.
    bytes: usize,
    /// Counts the wills of all clients of the address, connected or not; `None`: no client has a will.
    wills: Option<Gauge>,
}

/// The sessions of absent clients in the orders in which they lose.
#[derive(Debug)]
pub struct Absent {
    addresses: Shares<Holding>,
    by_bytes: Holders<ShareId>,
    by_count: Holders<ShareId>,
    /// The sessions of each address, ordered by the bytes that are stored for them (to an eighth), and by when their
    /// clients left.
    sessions_by_bytes: BTreeSet<(ShareId, u32, SessionKey)>,
    sessions_by_age: BTreeSet<(ShareId, u32, SessionKey)>,
}

impl Absent {
    pub fn new(hash: &KeyedHash) -> Absent {
        Absent {
            addresses: Shares::new(hash.state()),
            by_bytes: Holders::default(),
            by_count: Holders::default(),
            sessions_by_bytes: BTreeSet::new(),
            sessions_by_age: BTreeSet::new(),
        }
    }

    /// Counts one more session of an address.
    pub fn enter(&mut self, address: Option<HolderName>) -> ShareId {
        self.addresses.enter(address)
    }

    /// Counts one session less of an address. The session is not listed any more.
    pub fn leave(&mut self, address: ShareId) {
        self.addresses.leave(address);
    }

    pub fn find(&self, address: HolderName) -> Option<ShareId> {
        self.addresses.find(address)
    }

    pub fn name(&self, address: ShareId) -> Option<HolderName> {
        self.addresses.name(address)
    }

    /// Bytes that are stored for all absent clients; a message that waits for several clients counts once for each.
    pub fn bytes(&self) -> usize {
        self.by_bytes.bytes()
    }

    /// Bytes that the orders and the table of addresses take.
    pub fn table_bytes(&self) -> usize {
        let listed = self.sessions_by_bytes.len() + self.sessions_by_age.len();
        self.addresses.bytes()
            + self.by_bytes.tree_bytes()
            + self.by_count.tree_bytes()
            + tree_size(listed, size_of::<(ShareId, u32, SessionKey)>())
    }

    /// Notes that `now` bytes are stored for a session instead of `before`; 0: nothing is stored, or its client is
    /// connected.
    pub fn set_bytes(&mut self, address: ShareId, key: SessionKey, before: usize, now: usize) {
        if before == now {
            return;
        }
        let sum = &mut self.addresses.get_mut(address).bytes;
        let sum_before = *sum;
        *sum = sum_before - before + now;
        self.by_bytes.set(address, sum_before, *sum);
        let (old, new) = (class_of(before), class_of(now));
        if before > 0 && (now == 0 || old != new) {
            self.sessions_by_bytes.remove(&(address, old, key));
        }
        if now > 0 && (before == 0 || old != new) {
            self.sessions_by_bytes.insert((address, new, key));
        }
    }

    /// Lists a session whose client has left.
    pub fn list(&mut self, address: ShareId, key: SessionKey, left_s: u32) {
        self.sessions_by_age.insert((address, left_s, key));
        self.change_count(address, 1);
    }

    /// Takes a session off the list: its client is back, or it ends.
    pub fn unlist(&mut self, address: ShareId, key: SessionKey, left_s: u32) {
        let was_listed = self.sessions_by_age.remove(&(address, left_s, key));
        debug_assert!(was_listed, "a session is listed until its client is back");
        self.change_count(address, -1);
    }

    fn change_count(&mut self, address: ShareId, by: isize) {
        let count = &mut self.addresses.get_mut(address).absent_count;
        let before = *count;
        *count = before.saturating_add_signed(by);
        self.by_count.set(address, before, *count);
    }

    /// The session for which most is stored, of the address for which most is stored, both to an eighth; and how many
    /// bytes that address has.
    pub fn largest(&self) -> Option<(SessionKey, usize)> {
        let address = self.by_bytes.largest()?;
        let (.., key) = of_address(&self.sessions_by_bytes, address).next_back()?;
        Some((key, self.addresses.get(address).bytes))
    }

    /// The address with most sessions, to an eighth, and how many sessions it has.
    pub fn most(&self) -> Option<(ShareId, usize)> {
        let address = self.by_count.largest()?;
        Some((address, self.addresses.get(address).absent_count))
    }

    /// The sessions of an address, in the order in which their clients left.
    pub fn oldest(&self, address: ShareId) -> impl Iterator<Item = SessionKey> {
        of_address(&self.sessions_by_age, address).map(|(.., key)| key)
    }

    /// How many sessions the clients of an address have left behind.
    pub fn count(&self, address: ShareId) -> usize {
        self.addresses.get(address).absent_count
    }

    /// Bytes that the wills of an address take.
    pub fn will_bytes(&self, address: ShareId) -> usize {
        self.addresses.get(address).wills.as_ref().map_or(0, Gauge::bytes)
    }

    /// The gauge of an address's wills.
    pub fn wills(&mut self, address: ShareId) -> Gauge {
        self.addresses.get_mut(address).wills.get_or_insert_default().clone()
    }
}

fn of_address(
    set: &BTreeSet<(ShareId, u32, SessionKey)>,
    address: ShareId,
) -> impl DoubleEndedIterator<Item = (ShareId, u32, SessionKey)> {
    let first = SessionKey { index: 0, generation: 0 };
    set.range((address, 0, first)..(address.next(), 0, first)).copied()
}
