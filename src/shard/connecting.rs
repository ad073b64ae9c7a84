//! Connections without CONNECT: they may hold little memory, and they go before any client does.
//!
//! CONNECTs of which a part has arrived have a budget of their own, in which the oldest goes first. The gate of the
//! process (`mesh::gate`) lets a few connections in above `connections_max` and marks them. A marked connection takes
//! the place of one that is closed and lingers, or of one without CONNECT on its shard, or goes to a shard that has
//! one; else it is refused.
//!
//! If one address has more than an eighth of these connections, the oldest of the address with most goes: a flood
//! displaces itself. Else the oldest of all goes, if it has had a second for its CONNECT or comes from the newcomer's own
//! address. Bytes behind a CONNECT count to its client.

use super::input::Outcome;
use super::{ConnectionId, Handover, Shard};
use crate::arena::tree_size;
use crate::codec::{self, DecodeError, Frame, Packet, PacketType, ProtocolVersion};
use crate::hash::KeyedHash;
use crate::limits::CONNECTING_SHARE;
use crate::session::{HolderName, Holders, ShareId, Shares};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The most bytes of a CONNECT in front of its level: the longest protocol name with its length.
const BEFORE_LEVEL: usize = 2 + 6;

/// A connection that was opened this long ago has had time for its CONNECT.
const CONNECT_ON_THE_WAY_MS: u64 = 1_000;

/// Generation and index of a connection, so that the oldest connection comes first.
type Age = (u32, u32);

fn age(id: ConnectionId) -> Age {
    (id.generation, id.index)
}

fn of_age((generation, index): Age) -> ConnectionId {
    ConnectionId { index, generation }
}

/// All connections without CONNECT, by their age, each with the address to which it counts.
#[derive(Debug)]
pub(super) struct Connecting {
    silent: BTreeMap<Age, ShareId>,
    /// Connections of whose CONNECT a part has arrived.
    begun: BTreeMap<Age, ShareId>,
    addresses: Shares<BTreeSet<Age>>,
    by_count: Holders<ShareId>,
}

impl Connecting {
    pub(super) fn new(hash: &KeyedHash) -> Connecting {
        Connecting {
            silent: BTreeMap::new(),
            begun: BTreeMap::new(),
            addresses: Shares::new(hash.state()),
            by_count: Holders::default(),
        }
    }

    pub(super) fn add(&mut self, id: ConnectionId, address: Option<HolderName>) {
        let address = self.addresses.enter(address);
        self.silent.insert(age(id), address);
        let ages = self.addresses.get_mut(address);
        ages.insert(age(id));
        self.by_count.set(address, ages.len() - 1, ages.len());
    }

    pub(super) fn begin(&mut self, id: ConnectionId) {
        if let Some(address) = self.silent.remove(&age(id)) {
            self.begun.insert(age(id), address);
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        let age = age(id);
        let address = self.silent.remove(&age).or_else(|| self.begun.remove(&age));
        // What closes is removed before it is dropped.
        let Some(address) = address else { return };
        let ages = self.addresses.get_mut(address);
        ages.remove(&age);
        self.by_count.set(address, ages.len() + 1, ages.len());
        self.addresses.leave(address);
    }

    fn len(&self) -> usize {
        self.silent.len() + self.begun.len()
    }

    fn oldest_begun(&self) -> Option<ConnectionId> {
        self.begun.first_key_value().map(|(age, _)| of_age(*age))
    }

    /// The oldest connection of the address with most, if that has more than its share; else the oldest of all. The
    /// flag says whether it is of such a flood.
    fn next_to_go(&self) -> Option<(ConnectionId, bool)> {
        let most = self.by_count.largest().filter(|address| *address != ShareId::ALL);
        let most = most.map(|address| self.addresses.get(address));
        let most = most.filter(|ages| ages.len() > (self.len() / CONNECTING_SHARE).max(1));
        let firsts = [self.silent.first_key_value(), self.begun.first_key_value()];
        let oldest = || firsts.into_iter().flatten().map(|(age, _)| *age).min();
        let of_most = most.and_then(|ages| ages.first().copied());
        of_most.or_else(oldest).map(|age| (of_age(age), of_most.is_some()))
    }

    fn is_of(&self, id: ConnectionId, address: HolderName) -> bool {
        let own = self.silent.get(&age(id)).or_else(|| self.begun.get(&age(id)));
        own.is_some() && own.copied() == self.addresses.find(address)
    }

    /// The memory in use, in bytes: an estimate.
    pub(super) fn bytes(&self) -> usize {
        tree_size(self.len(), size_of::<(Age, ShareId)>())
            + tree_size(self.len(), size_of::<Age>())
            + self.addresses.bytes()
            + self.by_count.tree_bytes()
    }
}

impl Shard {
    /// How many connections have not sent CONNECT.
    pub fn connecting_count(&self) -> usize {
        self.connections.connecting.len()
    }

    /// Whether there are as many connections as the limit allows.
    pub fn is_full(&self) -> bool {
        self.clients.connection_count() >= self.limits.connections_max
    }

    /// Removes a connection without CONNECT to make room for a new one from `peer`, and returns its id, which is not
    /// used any more.
    pub fn displace_connecting(
        &mut self,
        now: Instant,
        peer: Option<SocketAddr>,
    ) -> Option<ConnectionId> {
        if self.shutdown.has_begun {
            return None;
        }
        let was_full = self.is_full();
        self.end_ended_connecting();
        if was_full && !self.is_full() {
            return None;
        }
        let (oldest, is_of_flood) = self.connections.connecting.next_to_go()?;
        let name = self.holder_name(peer);
        let is_own = name.is_some_and(|name| self.connections.connecting.is_of(oldest, name));
        let opened_at = self.clients.live_connection(oldest).last_received;
        if !is_of_flood && !is_own && opened_at.plus_ms(CONNECT_ON_THE_WAY_MS) > now {
            // The CONNECT may be on its way.
            return None;
        }
        self.counters.connects_displaced += 1;
        let peer = self.clients.live_connection(oldest).addresses().peer;
        let what = "it had not said CONNECT and made room for another";
        self.notice_unnamed(now, None, peer, what, "connections_max");
        self.drop_connection(oldest);
        Some(oldest)
    }

    /// Ends a connection whose CONNECT waits and whose socket has ended: only this shard still has it.
    fn end_ended_connecting(&mut self) {
        while let Some((oldest, _)) = self.connections.connecting.next_to_go()
            && self.clients.live_connection(oldest).has_ended
        {
            self.drop_connection(oldest);
        }
    }

    /// Ends the oldest unfinished CONNECT while these exceed their budget.
    pub(super) fn check_connect_bytes(&mut self, now: Instant) {
        while self.memory.connect_bytes.bytes() > self.limits.shard_connects_bytes_max {
            let Some(id) = self.connections.connecting.oldest_begun() else { return };
            self.counters.connects_evicted += 1;
            let why = "the CONNECTs of which a part has arrived exceed their budget";
            self.notice_unnamed(now, Some(id), None, why, "shard_connects_bytes_max");
            self.close(now, id, why);
        }
    }

    /// Uses the first packet, which must be CONNECT, and whole packets behind it; returns how many bytes they had.
    pub(super) fn read_first(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> usize {
        if self.shutdown.has_begun {
            return bytes.len();
        }
        self.pause_hooks();
        let size_max = self.limits.connect_packet_size_max();
        let (outcome, size) = match codec::next_frame(bytes, size_max) {
            _ if bytes.first().is_some_and(|first| !is_connect(*first)) => {
                // [MQTT-3.1.0-1]
                self.counters.protocol_errors += 1;
                self.notice_stranger(now, id, bytes, "the first packet was not CONNECT");
                self.close(now, id, "the first packet was not CONNECT");
                (Outcome::Stop, 0)
            }
            Ok(None) => (Outcome::Wait, 0),
            Ok(Some(frame)) => (self.read_connect(now, id, &frame, bytes), frame.size),
            Err(DecodeError::PacketTooLarge) => (self.refuse_large_connect(now, id, bytes), 0),
            Err(error) => (self.fail_at(now, id, bytes, &error), 0),
        };
        match outcome {
            Outcome::Done => size + self.read_packets(now, id, &bytes[size..]),
            Outcome::Wait | Outcome::PlainAcks => 0,
            Outcome::Stop => bytes.len(),
        }
    }

    fn read_connect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        frame: &Frame<'_>,
        all: &[u8],
    ) -> Outcome {
        self.counters.packets_received += 1;
        let connect = match Packet::decode(frame, ProtocolVersion::V5) {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => unreachable!("a CONNECT frame decodes to CONNECT"),
            Err(error) => return self.refuse_connect_error(now, id, (frame.body, all), &error),
        };
        if let Some(shard) = self.owner_of(&connect) {
            let connection = self.clients.live_connection(id);
            let deadline = connection.timer.unwrap_or(now);
            let listener = connection.listener;
            let transport = self.connections.links.remove(id);
            self.drop_connection(id);
            self.connections.handovers.push_back(Handover {
                connection: id,
                shard,
                listener,
                bytes: all.to_vec(),
                deadline,
                transport,
            });
            return Outcome::Stop;
        }
        self.run_pipeline(now);
        self.counted(|shard| shard.on_connect(now, id, &connect))
    }

    /// Answers a CONNECT that is larger than the limit as soon as its version is known: only 5.0 has an answer.
    fn refuse_large_connect(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> Outcome {
        // The header's size ends with the first byte without a continuation bit.
        let size_bytes = bytes.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 1;
        let body = bytes.get(1 + size_bytes..).unwrap_or_default();
        if body.len() <= BEFORE_LEVEL {
            return Outcome::Wait;
        }
        self.counters.connects_too_large += 1;
        let size = codec::frame_size(bytes).ok().flatten().unwrap_or_default();
        let what = format!("its CONNECT has {size} bytes");
        self.notice_unnamed(now, Some(id), None, &what, "connect_size_max");
        self.refuse_connect_error(now, id, (body, bytes), &DecodeError::PacketTooLarge)
    }

    /// Counts the connection, with the bytes behind its CONNECT, as a client's from now on.
    pub(super) fn count_as_client(&mut self, id: ConnectionId) {
        self.connections.connecting.remove(id);
        let connection = self.clients.live_connection(id);
        debug_assert!(connection.is_open());
        connection.input.count_in(&self.memory.frame_bytes);
    }
}

fn is_connect(first_byte: u8) -> bool {
    first_byte >> 4 == PacketType::Connect as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn id(generation: u32) -> ConnectionId {
        ConnectionId { index: generation % 7, generation }
    }

    #[test]
    fn a_flood_from_one_address_displaces_itself_and_without_one_the_oldest_goes() {
        let mut connecting = Connecting::new(&KeyedHash::new(1));
        let name = |number: u64| Some(HolderName::new(number, 0));
        (0..5).for_each(|number| connecting.add(id(number), name(u64::from(number))));
        connecting.begin(id(0));
        assert_eq!(connecting.next_to_go(), Some((id(0), false)));
        (5..200).for_each(|number| connecting.add(id(number), name(99)));
        connecting.begin(id(5));
        for number in 5..170 {
            assert_eq!(connecting.next_to_go(), Some((id(number), true)));
            connecting.remove(id(number));
            connecting.add(id(number + 1_000), name(99));
        }
        // The addresses are not told apart.
        let mut connecting = Connecting::new(&KeyedHash::new(1));
        (0..9).for_each(|number| connecting.add(id(number), None));
        connecting.begin(id(3));
        connecting.remove(id(0));
        assert_eq!(connecting.next_to_go(), Some((id(1), false)));
    }

    #[test]
    fn what_is_added_and_removed_leaves_nothing() {
        let mut random = Random::new(8);
        let mut connecting = Connecting::new(&KeyedHash::new(1));
        let mut open = BTreeSet::new();
        for number in 0..5_000 {
            connecting.add(id(number), Some(HolderName::new(random.below(9), 0)));
            open.insert(number);
            if random.below(2) == 0 {
                connecting.begin(id(number));
            }
            while open.len() as u64 > random.below(60) {
                let (gone, _) = connecting.next_to_go().expect("some are open");
                connecting.remove(gone);
                connecting.remove(gone);
                assert!(open.remove(&gone.generation));
            }
            assert_eq!(connecting.len(), open.len());
        }
        while let Some((gone, _)) = connecting.next_to_go() {
            connecting.remove(gone);
        }
        assert_eq!((connecting.len(), connecting.addresses.count()), (0, 0));
        assert_eq!(connecting.by_count.largest(), None);
    }
}
