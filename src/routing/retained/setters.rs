//! The setters of a shard's retained messages: a client, and its address, leave room for others.
//!
//! A message's setter travels with it to the topic's owner. It matters only where less than an eighth of the room is free;
//! there owners give no leases.

use super::Room;
use crate::arena::{Generation, Message};
use crate::hash::KeyedHash;
use crate::limits::{FREE_SHARE, Limits};
use crate::session::{Clients, HolderName, SessionKey, ShareId, Shares};
use std::collections::VecDeque;

/// This tells the names of clients from the names of addresses.
const CLIENT: u64 = 0x5eed_c11e_17ca_fe00;
/// These words stand for no name.
const NOBODY: [u64; 2] = [u64::MAX; 2];

/// A client that sets a retained message, and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setter {
    client: HolderName,
    /// `None`: addresses are not told apart.
    address: Option<HolderName>,
}

impl Setter {
    pub(crate) const SIZE: usize = 32;

    /// The setter behind a session that exists.
    pub(crate) fn of(clients: &mut Clients, hash: &KeyedHash, key: SessionKey) -> Option<Setter> {
        let own = hash.bytes(clients.session(key)?.client_id().as_bytes()) ^ CLIENT;
        Some(Setter { client: HolderName::new(own, own), address: clients.address_name(key) })
    }

    pub(crate) fn to_bytes(self) -> [u8; Setter::SIZE] {
        let address = self.address.map_or(NOBODY, HolderName::to_words);
        let mut bytes = [0; Setter::SIZE];
        let words = self.client.to_words().into_iter().chain(address);
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Setter {
        let (chunks, _) = bytes.as_chunks::<8>();
        let words =
            |at: usize| [u64::from_le_bytes(chunks[at]), u64::from_le_bytes(chunks[at + 1])];
        let address = words(2);
        Setter {
            client: HolderName::from_words(words(0)),
            address: (address != NOBODY).then(|| HolderName::from_words(address)),
        }
    }
}

/// Setters of messages in slots that cannot be found by their session: it is on another shard, or has ended.
#[derive(Debug, Default)]
pub(crate) struct SlotSetters(VecDeque<(Generation, Setter)>);

impl SlotSetters {
    /// Adds the setter of a message that was admitted and not denied: the encode stage will take it.
    pub(crate) fn push(&mut self, generation: Generation, setter: Setter) {
        self.0.push_back((generation, setter));
    }

    /// The setter of a message. The encode stage asks for messages in their order.
    #[inline(never)]
    pub(crate) fn take(
        &mut self,
        generation: Generation,
        message: &Message<'_>,
        clients: &mut Clients,
        hash: &KeyedHash,
    ) -> Option<Setter> {
        while let Some((first, setter)) = self.0.front().copied().filter(|(g, _)| *g <= generation)
        {
            self.0.pop_front();
            if first == generation {
                return Some(setter);
            }
        }
        Setter::of(clients, hash, SessionKey::from_u64(message.meta.publisher)?)
    }
}

/// The holders to which a retained message counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charged {
    client: ShareId,
    address: ShareId,
}

/// The room that the messages of each client and address take.
#[derive(Debug)]
pub(crate) struct Setters(Shares<Room>);

impl Setters {
    pub(super) fn new(hash: &KeyedHash) -> Setters {
        Setters(Shares::new(hash.state()))
    }

    /// The memory in use, in bytes: an estimate.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Counts a message to its setter; `None`: it counts to no holder.
    pub(super) fn charge(&mut self, setter: Option<Setter>, size: usize) -> Charged {
        let Some(Setter { client, address }) = setter else { return Charged::default() };
        let charged =
            Charged { client: self.0.enter(Some(client)), address: self.0.enter(address) };
        charged.each(|id| self.0.get_mut(id).add(Room::of_one(size)));
        charged
    }

    pub(super) fn discharge(&mut self, charged: Charged, size: usize) {
        charged.each(|id| {
            self.0.get_mut(id).subtract(Room::of_one(size));
            self.0.leave(id);
        });
    }

    /// Whether a setter leaves enough of `free` to others with one more message, or with one in the place of an `old`
    /// one.
    pub(super) fn may_set(
        &self,
        setter: Option<Setter>,
        size: usize,
        old: Option<(Charged, usize)>,
        free: Room,
    ) -> bool {
        if old.is_some_and(|(_, old_size)| size <= old_size) {
            return true;
        }
        let Some(Setter { client, address }) = setter else { return true };
        let entries =
            [Some(client), address].into_iter().flatten().filter_map(|one| self.0.find(one));
        entries.into_iter().all(|id| {
            let mut after = *self.0.get(id);
            after.add(Room::of_one(size));
            if let Some((charged, old_size)) = old
                && (charged.client == id || charged.address == id)
            {
                after.subtract(Room::of_one(old_size));
            }
            let has_messages = old.is_some() || after.messages <= free.messages * FREE_SHARE;
            has_messages && after.bytes <= free.bytes.saturating_mul(FREE_SHARE)
        })
    }
}

impl Charged {
    fn each(self, mut change: impl FnMut(ShareId)) {
        [self.client, self.address]
            .into_iter()
            .filter(|id| *id != ShareId::ALL)
            .for_each(&mut change);
    }
}

/// Whether so little room is left that a setter that holds most of the rest may have to leave it to others.
pub(crate) fn is_crowded(free: Room, limits: &Limits) -> bool {
    free.messages < limits.retained_messages_max / FREE_SHARE
        || free.bytes < limits.retained_bytes_max / FREE_SHARE
}
