//! The loser at a limit that all clients share: the address that holds most loses, before a client that holds little.
//!
//! Client ids are free, so shared budgets count by client and by address; an IPv6 address counts as its /64. Each shard
//! keeps the shares of its own budgets. At a limit an address takes from others that hold more, never from itself. So
//! behind one balancer, where all clients have one address, the broker does the same as with `shares_by_address =
//! false`.
//!
//! - Sessions: the address that left most behind loses, if it left more than an eighth of all. The session whose client
//!   left first ends, and up to three more where metadata lacks, but none if that would not do. Else the new session
//!   gets 0x97.
//! - Wills and retained messages are not taken back. A client, or an address, that has eight times the free room gets
//!   no more of them. A retained message counts to the client that set it last (`shard::retained`).

use super::{About, ConnectionId, Notice, Origin, Shard};
use crate::limits::{FREE_SHARE, SESSION_SHARE};
use crate::session::{HolderName, SessionKey};
use crate::time::Instant;
use smallvec::SmallVec;
use std::net::SocketAddr;

/// The most sessions that end for one new client: each may have thousands of subscriptions.
const DISPLACED_MAX: usize = 4;

pub(super) type Losers = SmallVec<[SessionKey; DISPLACED_MAX]>;

impl Shard {
    /// The name of the address of a connection without session; `None`: addresses are not told apart.
    fn address_name(&mut self, id: ConnectionId) -> Option<HolderName> {
        let peer = self.clients.connection(id).and_then(|connection| connection.addresses().peer);
        self.holder_name(peer)
    }

    pub(super) fn holder_name(&self, peer: Option<SocketAddr>) -> Option<HolderName> {
        self.limits.shares_by_address.then(|| match peer {
            Some(peer) => Origin::of(peer).name(self.peers.hash()),
            None => Origin::unknown(self.peers.hash()),
        })
    }

    /// Counts a session and its will to the address of its client.
    pub(super) fn count_address(&mut self, peer: Option<SocketAddr>, key: SessionKey) {
        let address = self.holder_name(peer);
        self.clients.set_address(key, address);
        let has_will = self.clients.session(key).is_some_and(|session| session.will().is_some());
        if !has_will {
            return;
        }
        let gauge = self.clients.wills_of(key);
        let will = self.clients.session(key).and_then(|session| session.will_mut());
        if let (Some(gauge), Some(will)) = (gauge, will) {
            will.count_in(gauge);
        }
    }

    /// The sessions that end to make room for a new client: of the address that left most sessions behind, if these are
    /// more than a share of all, the ones whose clients left first. There are none if what they hold would not be
    /// enough. An address takes nothing from itself, so behind one balancer no client loses a session to others.
    pub(super) fn sessions_to_displace(&mut self, id: ConnectionId, client_id: &str) -> Losers {
        let Some(newcomer) = self.address_name(id) else { return Losers::new() };
        let absent = self.clients.absent();
        let Some((address, count)) = absent.most() else { return Losers::new() };
        let own = absent.find(newcomer);
        let own_count = own.map_or(0, |own| absent.count(own));
        let is_over = count > self.clients.session_count() / SESSION_SHARE;
        if !is_over || own == Some(address) || own_count >= count {
            return Losers::new();
        }
        let mut losers: Losers =
            self.clients.absent().oldest(address).take(DISPLACED_MAX).collect();
        // The first session that ends leaves room in the table.
        let growth = self.clients.session_growth();
        let mut lacks = self.lacks_for_session(client_id).map(|lack| lack.saturating_sub(growth));
        for (number, key) in losers.iter().enumerate() {
            let [id_size, size] = self.clients.live_session(*key).counted_sizes();
            lacks = [lacks[0].saturating_sub(id_size), lacks[1].saturating_sub(size)];
            if lacks == [0, 0] {
                losers.truncate(number + 1);
                return losers;
            }
        }
        Losers::new()
    }

    pub(super) fn displace_sessions(&mut self, now: Instant, losers: &[SessionKey]) {
        losers.iter().for_each(|key| self.displace_session(now, *key));
    }

    fn displace_session(&mut self, now: Instant, loser: SessionKey) {
        let keys = "sessions_max and shard_metadata_bytes_max";
        self.counters.sessions_displaced += 1;
        let client_id = self.clients.live_session(loser).client_id();
        let why = "of all addresses, that of its client has left most sessions behind";
        // The notice has no connection: it would be the newcomer's, not the loser's.
        let notice = || Notice::new(About::Session, None, client_id, why);
        self.events.notice(now, (About::Session, keys), notice);
        self.end_session(now, loser);
    }

    /// Whether there is room for the will of a client that connects: an address leaves some room for others.
    /// `existing`: the session whose will the new one replaces.
    pub(super) fn may_keep_will(
        &mut self,
        id: ConnectionId,
        existing: Option<SessionKey>,
        size: usize,
    ) -> bool {
        let old = existing.and_then(|key| self.clients.session(key)?.will());
        let old_size = old.map_or(0, |will| will.stored.size());
        if size <= old_size {
            return true;
        }
        let bytes_max = self.limits.shard_wills_bytes_max;
        let free =
            bytes_max.saturating_sub(self.memory.will_bytes.bytes().saturating_sub(old_size));
        if size > free {
            return false;
        }
        let Some(address) = self.address_name(id) else { return true };
        let absent = self.clients.absent();
        let held = absent.find(address).map_or(0, |address| absent.will_bytes(address));
        held.saturating_sub(old_size) + size <= free.saturating_mul(FREE_SHARE)
    }
}
