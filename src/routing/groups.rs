//! Shared subscriptions: groups live on their owner's shard, which picks the member for each message.
//!
//! A member has credit: messages that its shard can still take for it. Messages wait in the group while no member has
//! credit. Messages that a member did not send, and QoS 1 messages that its ended session left unacknowledged, come back to
//! the front of the group. QoS 2 messages that were sent stay with their session. [MQTT-4.8.2-4] [MQTT-4.8.2-5]

use crate::arena::{Gauge, Stored, allocated, map_size};
use crate::codec::QoS;
use crate::peers::ShardId;
use crate::session::queue::{Queue, QueueLimits, Queued};
use crate::session::{DropLog, DropReason, Envelope, Holders, SessionKey};
use crate::time::Instant;
use crate::topic::{Members, filter_of};
use slab::Slab;
use std::collections::HashMap;
use std::rc::Rc;

/// The options of a member's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberOptions {
    pub qos: QoS,
    pub retain_as_published: bool,
    /// Subscription identifier; 0: none.
    pub id: u32,
    /// The member's own number for this group: see `Envelope::membership`.
    pub membership: u32,
}

impl MemberOptions {
    pub(crate) const SIZE: usize = 10;

    pub(crate) fn to_bytes(self) -> [u8; MemberOptions::SIZE] {
        let mut bytes = [0; MemberOptions::SIZE];
        bytes[..4].copy_from_slice(&self.id.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.membership.to_le_bytes());
        bytes[8] = self.qos as u8;
        bytes[9] = u8::from(self.retain_as_published);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> MemberOptions {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        MemberOptions {
            id: number(0),
            membership: number(4),
            qos: QoS::from_bits(bytes[8]).unwrap_or(QoS::AtMostOnce),
            retain_as_published: bytes[9] != 0,
        }
    }

    pub(crate) fn envelope(&self, published_qos: u8, published_retain: bool) -> Envelope {
        let published = QoS::from_bits(published_qos).unwrap_or(QoS::AtMostOnce);
        Envelope {
            // [MQTT-4.8.2-3]
            qos: published.min(self.qos),
            retain: published_retain && self.retain_as_published,
            ids: (self.id != 0).then(|| Rc::from([self.id])),
            membership: self.membership,
        }
    }
}

/// The handle of a group on its owner: its index, and a number that tells it from earlier groups at that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey {
    pub index: u32,
    pub number: u32,
}

/// A member: its shard and its session there.
pub(crate) type Member = (ShardId, SessionKey);

#[derive(Debug)]
pub(crate) struct Group {
    pub key: GroupKey,
    /// The whole filter, `$share/name/filter`.
    pub text: Box<str>,
    pub members: Members<Member, MemberOptions>,
    /// Messages that no member could take yet.
    pub backlog: Queue,
    /// The bytes that the list of the largest holders counts for the group.
    listed_bytes: usize,
}

impl Group {
    /// The topic filter without share name.
    pub(crate) fn filter(&self) -> &str {
        filter_of(&self.text)
    }

    /// How many messages above QoS 0 wait.
    pub(crate) fn acknowledged_backlog_count(&self) -> u64 {
        self.backlog.iter().filter(|queued| queued.stored.message().meta.qos > 0).count() as u64
    }

    /// Puts a message at the end of the backlog; returns how many messages were dropped for it. Expired messages are
    /// added to `expired` instead.
    pub(crate) fn wait(
        &mut self,
        now: Instant,
        stored: Stored,
        limits: QueueLimits,
        expired: &mut u64,
        drops: &mut DropLog,
    ) -> u64 {
        let mut dropped = 0;
        self.backlog.expire_if_full(now, stored.size(), limits, |victim| {
            *expired += 1;
            drops.push(None, victim.stored.message().topic, DropReason::Expired);
        });
        let pushed = self.backlog.push(waiting(stored), limits, |victim| {
            dropped += 1;
            drops.push(None, victim.stored.message().topic, DropReason::GroupFull);
        });
        if let Err(refused) = pushed {
            dropped += 1;
            drops.push(None, refused.stored.message().topic, DropReason::GroupFull);
        }
        dropped
    }

    /// Puts messages that came back, in their order, in front of all others; returns how many messages were dropped for
    /// them.
    pub(crate) fn take_back(
        &mut self,
        returned: Vec<Stored>,
        limits: QueueLimits,
        drops: &mut DropLog,
    ) -> u64 {
        for stored in returned.into_iter().rev() {
            self.backlog.push_front(waiting(stored));
        }
        let mut dropped = 0;
        self.backlog.shed(limits, |victim| {
            dropped += 1;
            drops.push(None, victim.stored.message().topic, DropReason::GroupFull);
        });
        dropped
    }
}

fn waiting(stored: Stored) -> Queued {
    let meta = stored.message().meta;
    let qos = QoS::from_bits(meta.qos).unwrap_or(QoS::AtMostOnce);
    Queued { stored, envelope: Envelope { qos, retain: meta.retain, ids: None, membership: 0 } }
}

/// The groups that this shard owns.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: Slab<Group>,
    /// How many groups were ever made.
    number: u32,
    by_text: HashMap<Box<str>, u32, ahash::RandomState>,
    stored: Gauge,
    /// Bytes that the texts and the members of the groups take.
    texts_size: usize,
    members_size: usize,
    backlogs: Holders<u32>,
}

impl Groups {
    /// `stored` counts the messages that wait in the groups.
    pub(crate) fn new(state: ahash::RandomState, stored: Gauge) -> Groups {
        Groups {
            groups: Slab::new(),
            number: 0,
            by_text: HashMap::with_hasher(state),
            stored,
            texts_size: 0,
            members_size: 0,
            backlogs: Holders::default(),
        }
    }

    /// The memory in use, without the messages that wait, in bytes: an estimate.
    pub(crate) fn bytes(&self) -> usize {
        allocated(self.groups.capacity() * size_of::<Group>())
            + map_size(self.by_text.capacity(), size_of::<(Box<str>, u32)>())
            + self.texts_size
            + self.members_size
    }

    /// Changes the members of a group.
    pub(crate) fn change_members<T>(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Members<Member, MemberOptions>) -> T,
    ) -> T {
        let members = &mut self.groups[index as usize].members;
        self.members_size -= members.bytes();
        let changed = change(members);
        self.members_size += members.bytes();
        changed
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// The group at a place that was remembered; `None`: the group may have ended since.
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Group> {
        self.groups.get_mut(index as usize)
    }

    /// The group at a place that was looked up in this call: `Shard::on_away` alone removes groups.
    #[inline]
    #[track_caller]
    pub(crate) fn live(&mut self, index: u32) -> &mut Group {
        self.get(index).expect("a group that was looked up is there")
    }

    /// The index of the group, and whether the group is new.
    pub(crate) fn find_or_create(&mut self, text: &str) -> (u32, bool) {
        if let Some(index) = self.find(text) {
            return (index, false);
        }
        let entry = self.groups.vacant_entry();
        let index = entry.key() as u32;
        self.number += 1;
        entry.insert(Group {
            key: GroupKey { index, number: self.number },
            text: text.into(),
            members: Members::new(),
            backlog: Queue::new(self.stored.clone()),
            listed_bytes: 0,
        });
        self.by_text.insert(text.into(), index);
        self.texts_size += 2 * allocated(text.len());
        (index, true)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Group {
        let group = self.groups.remove(index as usize);
        self.by_text.remove(&group.text);
        self.texts_size -= 2 * allocated(group.text.len());
        self.members_size -= group.members.bytes();
        self.backlogs.set(index, group.listed_bytes, 0);
        group
    }

    /// Lists a group whose backlog has changed.
    #[inline]
    pub(crate) fn list_backlog(&mut self, index: u32) {
        let group = &mut self.groups[index as usize];
        let bytes = group.backlog.stored_bytes();
        if bytes != group.listed_bytes {
            self.backlogs.set(index, group.listed_bytes, bytes);
            group.listed_bytes = bytes;
        }
    }

    /// The group for which most is stored, to an eighth.
    pub(crate) fn largest_backlog(&self) -> Option<u32> {
        self.backlogs.largest()
    }

    /// Bytes that are stored for all groups.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlogs.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// How many messages above QoS 0 wait in all groups.
    pub(crate) fn acknowledged_backlog_count(&self) -> u64 {
        self.groups.iter().map(|(_, group)| group.acknowledged_backlog_count()).sum()
    }

    pub(crate) fn backlog_count(&self) -> usize {
        self.groups.iter().map(|(_, group)| group.backlog.len()).sum()
    }
}
