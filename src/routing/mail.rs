//! The mail between shards: batches on three lanes for each ordered pair of shards.
//!
//! Publishes are copied into one contiguous batch per receiving shard and turn. A batch for which a lane has no room stays in
//! the outbox. Above the outbox's mark, publishers are not read.

mod batch;

pub(crate) use batch::{Address, Batch, BatchReader};
use batch::{HEADER_SIZE, REPEAT};

use super::groups::{GroupKey, MemberOptions};
use super::report::Report;
use super::retained::{Ask, Room, Setter, Word};
use crate::arena::{Message, Run};
use crate::counters::Counters;
use crate::peers::{ShardId, ShardSet};
use crate::session::{BufferPool, ConnectionId, SessionKey};
use std::collections::VecDeque;

/// A lane between two shards; first in, first out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Interest, groups, queries, counters.
    Control,
    /// Messages from their origin.
    Publish,
    /// Messages from a shared group's owner to a member. Receiving them causes no further publishes.
    Member,
}

/// The lanes in the order in which a turn fills them: acks of interest follow all earlier publishes.
pub const LANES: [Lane; 3] = [Lane::Publish, Lane::Member, Lane::Control];

/// One item of a lane.
#[derive(Debug)]
pub struct Mail(pub(crate) Content);

#[derive(Debug)]
pub(crate) enum Content {
    Control(Vec<Control>),
    Publishes(Batch),
    Members(Batch),
}

impl Mail {
    pub fn lane(&self) -> Lane {
        match &self.0 {
            Content::Control(_) => Lane::Control,
            Content::Publishes(_) => Lane::Publish,
            Content::Members(_) => Lane::Member,
        }
    }

    /// The memory in use, in bytes: an estimate.
    pub fn size(&self) -> usize {
        match &self.0 {
            Content::Control(items) => items.iter().map(Control::size).sum(),
            Content::Publishes(batch) | Content::Members(batch) => batch.bytes.capacity(),
        }
    }
}

/// One line of control mail.
#[derive(Debug)]
pub(crate) enum Control {
    /// The sender has its first subscription to the filter, or has lost its last one.
    Interest {
        filter: Box<str>,
        version: u64,
        is_added: bool,
    },
    InterestAck {
        filter: Box<str>,
        version: u64,
    },
    Join {
        filter: Box<str>,
        session: SessionKey,
        connection: ConnectionId,
        options: MemberOptions,
        credit: u32,
    },
    Joined {
        connection: ConnectionId,
    },
    /// There is no room for the member.
    JoinRefused {
        filter: Box<str>,
        session: SessionKey,
        connection: ConnectionId,
    },
    /// The member has left; `returned` has the messages that it did not send.
    Leave {
        filter: Box<str>,
        session: SessionKey,
        returned: Batch,
    },
    /// The member's client is away for now.
    Away {
        filter: Box<str>,
        session: SessionKey,
        returned: Batch,
    },
    /// Messages that arrived after their member was gone.
    Stranded {
        group: GroupKey,
        returned: Batch,
    },
    /// The member can take so many more messages.
    Credit {
        filter: Box<str>,
        session: SessionKey,
        count: u32,
    },
    RetainedQuery {
        session: SessionKey,
        request: u64,
        filter: Box<str>,
        after: Option<Box<str>>,
        count_max: usize,
    },
    RetainedAnswer {
        session: SessionKey,
        request: u64,
        messages: Batch,
        /// The topic after which the next query goes on; `None`: there is no more.
        more: Option<Box<str>>,
    },
    /// A retained message waits for room at its topic's owner.
    RoomAsk(Ask),
    RoomWord(Box<Word>),
    /// The sender will not send the message for which room was promised.
    PromiseBack {
        topic: Box<str>,
    },
    /// The sender's lease of the owner's room runs low.
    LeaseAsk,
    Lease(Room),
    /// The owner needs back the room of the receiver's lease that is not spent.
    LeaseRecall,
    LeaseBack(Room),
    Counters(Box<Report>),
    /// Clients of the sender fill its store: publishers of the receiver wait, or go on.
    Block {
        is_on: bool,
    },
    /// The mail for the sender would take it many turns: publishers of the receiver wait, or go on.
    Busy {
        is_on: bool,
    },
}

impl Control {
    pub(crate) fn size(&self) -> usize {
        let text = match self {
            Control::Interest { filter, .. }
            | Control::InterestAck { filter, .. }
            | Control::Join { filter, .. }
            | Control::JoinRefused { filter, .. }
            | Control::Credit { filter, .. } => filter.len(),
            Control::Leave { filter, returned, .. } | Control::Away { filter, returned, .. } => {
                filter.len() + returned.bytes.len()
            }
            Control::RetainedQuery { filter, after, .. } => {
                filter.len() + after.as_ref().map_or(0, |after| after.len())
            }
            Control::RetainedAnswer { messages, more, .. } => {
                messages.bytes.len() + more.as_ref().map_or(0, |more| more.len())
            }
            Control::RoomAsk(Ask { topic, .. }) | Control::PromiseBack { topic } => topic.len(),
            Control::RoomWord(word) => size_of::<Word>() + word.topic.len(),
            Control::Joined { .. }
            | Control::Block { .. }
            | Control::Busy { .. }
            | Control::LeaseAsk
            | Control::Lease(_)
            | Control::LeaseRecall
            | Control::LeaseBack(_) => 0,
            Control::Stranded { returned, .. } => returned.bytes.len(),
            Control::Counters(report) => report.size(),
        };
        size_of::<Control>() + text
    }
}

/// The batches that wait on one lane; the last one may grow.
#[derive(Debug, Default)]
struct Batches {
    closed: VecDeque<Batch>,
    /// The batch that may grow; a batch without bytes stands for none.
    open: Batch,
}

impl Batches {
    fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.bytes.is_empty()
    }

    /// Whether the open batch has room for `size` more bytes, if it may have `size_max`.
    #[inline]
    fn has_room(&self, size: usize, size_max: usize) -> bool {
        let filled = self.open.bytes.len();
        filled > 0 && filled + size <= size_max
    }

    /// Opens a new batch and closes the one that was open.
    fn begin(&mut self, bytes: Vec<u8>, number: u64) {
        let before = std::mem::replace(&mut self.open, Batch { bytes, count: 0, number });
        if !before.bytes.is_empty() {
            self.closed.push_back(before);
        }
    }

    /// The memory in use.
    fn memory(&self) -> usize {
        let closed: usize = self.closed.iter().map(|batch| batch.bytes.capacity()).sum();
        closed + self.open.bytes.capacity()
    }

    fn oldest(&self) -> Option<u64> {
        let open = (!self.open.bytes.is_empty()).then_some(&self.open);
        self.closed.front().or(open).map(|batch| batch.number)
    }

    fn pop(&mut self) -> Option<Batch> {
        let is_open = !self.open.bytes.is_empty();
        self.closed.pop_front().or_else(|| is_open.then(|| std::mem::take(&mut self.open)))
    }
}

/// The mail that waits for one other shard.
#[derive(Debug, Default)]
struct Waiting {
    control: Vec<Control>,
    /// Each ack leaves when every batch up to its number is in its lane.
    acks: VecDeque<(u64, Control)>,
    publishes: Batches,
    members: Batches,
    publish_bytes: usize,
    member_bytes: usize,
    /// The size of the last batch that left: the next one gets a buffer of this size.
    last_batch_size: usize,
}

impl Waiting {
    /// An empty buffer for a batch that begins with `size` bytes and is closed at `size_max`, with room for a batch
    /// like the last one.
    #[inline(never)]
    fn fresh(&self, size: usize, size_max: usize, spares: &mut BufferPool) -> Vec<u8> {
        let mut bytes = spares.take();
        bytes.reserve(size.max(self.last_batch_size.min(size_max)));
        bytes
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty()
            && self.acks.is_empty()
            && self.publishes.is_empty()
            && self.members.is_empty()
    }
}

/// All mail that waits for other shards.
#[derive(Debug)]
pub(crate) struct Outbox {
    to: Vec<Waiting>,
    /// The shards for which mail waits.
    receivers: ShardSet,
    /// Buffers of batches that were read, for the next batches. They have a pool of their own, as connections need
    /// smaller buffers.
    spares: BufferPool,
    mark: usize,
    /// A batch is closed at so many bytes. Only a single large message makes a larger batch.
    batch_size: usize,
    /// The reasons for which publishers are not read, as bits.
    marks: u8,
    /// The shards whose stores make publishers wait, and the shards that have much to work off.
    blocked_by: ShardSet,
    busy: ShardSet,
    /// How many batches wait on all publish and member lanes.
    batch_count: usize,
    /// How many batches were ever opened.
    batch_number: u64,
    control_count: usize,
    ack_count: usize,
}

/// A batch is closed at this size, or at the mark.
const BATCH_SIZE: usize = 256 << 10;

const MAIL_MARK: u8 = 1;
const STORE_MARK: u8 = 2;
const BUSY_MARK: u8 = 4;

/// How many buffers of batches are kept.
const SPARE_COUNT_MAX: usize = 16;

impl Outbox {
    pub(crate) fn new(shard_count: u16, mark: usize) -> Outbox {
        Outbox {
            to: (0..shard_count).map(|_| Waiting::default()).collect(),
            receivers: ShardSet::EMPTY,
            spares: BufferPool::default(),
            mark,
            batch_size: BATCH_SIZE.min(mark),
            marks: 0,
            blocked_by: ShardSet::EMPTY,
            busy: ShardSet::EMPTY,
            batch_count: 0,
            batch_number: 0,
            control_count: 0,
            ack_count: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batch_count + self.control_count + self.ack_count == 0
    }

    /// Takes the buffer of a batch that was read. Where more buffers come than go, few are kept.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        // A large buffer is not kept where batches are small: it would hold few bytes.
        let is_fit = batch.bytes.capacity() <= 2 * self.batch_size;
        if is_fit && self.spares.count() < SPARE_COUNT_MAX {
            self.spares.give(batch.bytes);
        }
    }

    /// The memory of all mail that waits for other shards: an estimate.
    pub(crate) fn bytes(&self) -> usize {
        let controls = |waiting: &Waiting| -> usize {
            let acks = waiting.acks.iter().map(|(_, ack)| ack);
            waiting.control.iter().chain(acks).map(Control::size).sum()
        };
        let of = |waiting: &Waiting| {
            waiting.publishes.memory() + waiting.members.memory() + controls(waiting)
        };
        self.to.iter().map(of).sum()
    }

    /// Capacity of the empty buffers that are kept.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.spares.bytes()
    }

    /// Frees the buffers that were not needed since the last call.
    pub(crate) fn trim(&mut self) {
        self.spares.trim();
    }

    /// The shards for which mail waits, in the order of their numbers.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.receivers.into_iter()
    }

    /// The bytes that may wait for one lane before publishers are not read any more.
    pub(crate) fn mark(&self) -> usize {
        self.mark
    }

    /// Whether publishers are not read: more mail waits for some shard than its lanes should hold, or some shard makes
    /// publishers wait.
    pub(crate) fn is_above_mark(&self) -> bool {
        self.marks != 0
    }

    pub(crate) fn is_mail_above_mark(&self) -> bool {
        self.marks & (MAIL_MARK | BUSY_MARK) != 0
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.marks & STORE_MARK != 0
    }

    /// Notes whether a shard's store makes publishers wait.
    pub(crate) fn block(&mut self, shard: ShardId, is_on: bool) {
        self.blocked_by.set(shard, is_on);
        self.set_mark(STORE_MARK, !self.blocked_by.is_empty());
    }

    /// Notes whether a shard has much to work off.
    pub(crate) fn wait_for(&mut self, shard: ShardId, is_on: bool) {
        self.busy.set(shard, is_on);
        self.set_mark(BUSY_MARK, !self.busy.is_empty());
    }

    fn set_mark(&mut self, mark: u8, is_on: bool) {
        self.marks = if is_on { self.marks | mark } else { self.marks & !mark };
    }

    pub(crate) fn control(&mut self, to: ShardId, control: Control) {
        self.control_count += 1;
        self.receivers.insert(to);
        self.to[usize::from(to)].control.push(control);
    }

    /// As `control`; the item leaves once every earlier message is in its lane.
    pub(crate) fn control_behind(&mut self, to: ShardId, control: Control) {
        self.ack_count += 1;
        self.receivers.insert(to);
        self.to[usize::from(to)].acks.push_back((self.batch_number, control));
    }

    #[inline]
    pub(crate) fn publish(&mut self, to: ShardId, message: &Message<'_>) {
        self.publish_behind(to, message, None);
    }

    /// `repeated` is the number of the batch that ends with a message that this one repeats. Returns the number of the
    /// batch that has this message.
    #[inline]
    fn publish_behind(&mut self, to: ShardId, message: &Message<'_>, repeated: Option<u64>) -> u64 {
        let size = HEADER_SIZE + message.size();
        let waiting = &mut self.to[usize::from(to)];
        if !waiting.publishes.has_room(size, self.batch_size) {
            let bytes = waiting.fresh(size, self.batch_size, &mut self.spares);
            self.batch_number += 1;
            self.batch_count += 1;
            self.receivers.insert(to);
            waiting.publishes.begin(bytes, self.batch_number);
        }
        let batch = &mut waiting.publishes.open;
        let number = batch.number;
        batch.push_flagged(message, if repeated == Some(number) { REPEAT } else { 0 });
        waiting.publish_bytes += size;
        self.marks |= u8::from(waiting.publish_bytes > self.mark) * MAIL_MARK;
        number
    }

    /// Sends a message with its setter to the shard that retains it.
    #[inline(never)]
    pub(crate) fn publish_to_owner(
        &mut self,
        owner: ShardId,
        message: &Message<'_>,
        setter: Option<Setter>,
    ) {
        self.publish(owner, message);
        let Some(setter) = setter else { return };
        let waiting = &mut self.to[usize::from(owner)];
        waiting.publishes.open.push_setter(message, setter);
        waiting.publish_bytes += Setter::SIZE;
    }

    /// Sends a message to each of `shards`.
    #[inline]
    pub(crate) fn publish_to_all(&mut self, shards: ShardSet, message: &Message<'_>) {
        for shard in shards {
            self.publish(shard, message);
        }
    }

    /// Sends a run to each of `shards`.
    pub(crate) fn publish_run(&mut self, shards: ShardSet, run: &Run<'_>) {
        for shard in shards {
            // In another batch the repeat would follow another message.
            let mut last_batch = None;
            for message in run.messages() {
                last_batch = Some(self.publish_behind(shard, &message, last_batch));
            }
        }
    }

    pub(crate) fn member(&mut self, to: ShardId, address: &Address, message: &Message<'_>) {
        let size = HEADER_SIZE + message.size();
        let waiting = &mut self.to[usize::from(to)];
        if !waiting.members.has_room(size, self.batch_size) {
            let bytes = waiting.fresh(size, self.batch_size, &mut self.spares);
            self.batch_number += 1;
            self.batch_count += 1;
            self.receivers.insert(to);
            waiting.members.begin(bytes, self.batch_number);
        }
        let batch = &mut waiting.members.open;
        let before = batch.bytes.len();
        batch.push_to(address, message);
        waiting.member_bytes += batch.bytes.len() - before;
        self.marks |= u8::from(waiting.member_bytes > self.mark) * MAIL_MARK;
    }

    pub(crate) fn poll(
        &mut self,
        to: ShardId,
        lane: Lane,
        counters: &mut Counters,
    ) -> Option<Mail> {
        if self.is_empty() {
            return None;
        }
        if lane == Lane::Control {
            self.send_acks(to);
        }
        let waiting = &mut self.to[usize::from(to)];
        let content = match lane {
            Lane::Control => {
                if waiting.control.is_empty() {
                    return None;
                }
                self.control_count -= waiting.control.len();
                Content::Control(std::mem::take(&mut waiting.control))
            }
            Lane::Publish => {
                let batch = waiting.publishes.pop()?;
                waiting.publish_bytes -= batch.bytes.len();
                Content::Publishes(batch)
            }
            Lane::Member => {
                let batch = waiting.members.pop()?;
                waiting.member_bytes -= batch.bytes.len();
                Content::Members(batch)
            }
        };
        debug_assert!(self.receivers.contains(to), "who has mail is listed");
        if waiting.is_empty() {
            self.receivers.remove(to);
        }
        if let Content::Publishes(batch) | Content::Members(batch) = &content {
            waiting.last_batch_size = batch.bytes.len();
            self.batch_count -= 1;
            counters.mail_batches_sent += 1;
            counters.mail_messages_sent += batch.count as u64;
            counters.mail_bytes_sent += batch.bytes.len() as u64;
            if self.is_mail_above_mark() {
                let mark = self.mark;
                let is_above =
                    self.to.iter().any(|w| w.publish_bytes > mark || w.member_bytes > mark);
                self.set_mark(MAIL_MARK, is_above);
            }
        }
        Some(Mail(content))
    }

    /// Sends the acks in front of which no batch waits any more.
    fn send_acks(&mut self, to: ShardId) {
        if self.to[usize::from(to)].acks.is_empty() {
            return;
        }
        let fronts = self.to.iter().flat_map(|w| [w.publishes.oldest(), w.members.oldest()]);
        let oldest = fronts.flatten().min().unwrap_or(u64::MAX);
        let waiting = &mut self.to[usize::from(to)];
        while waiting.acks.front().is_some_and(|(number, _)| *number < oldest) {
            self.ack_count -= 1;
            self.control_count += 1;
            waiting.control.extend(waiting.acks.pop_front().map(|(_, ack)| ack));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Claim, Meta};

    #[test]
    fn an_ack_waits_for_the_batches_before_it_and_for_no_other() {
        let meta = Meta {
            qos: 0,
            retain: false,
            is_origin: true,
            expires_at: None,
            publisher: 0,
            from_bridge: false,
            claim: Claim::None,
        };
        let message = Message::of(b"tp", 1, 0, meta, None);
        let mut counters = Counters::default();
        let mut outbox = Outbox::new(3, 1 << 20);
        let ack = || Control::InterestAck { filter: "f".into(), version: 1 };
        outbox.publish(2, &message);
        outbox.control_behind(1, ack());
        assert!(outbox.poll(1, Lane::Control, &mut counters).is_none());
        assert!(outbox.poll(2, Lane::Publish, &mut counters).is_some());
        outbox.publish(2, &message);
        outbox.control_behind(1, ack());
        let Some(Mail(Content::Control(items))) = outbox.poll(1, Lane::Control, &mut counters)
        else {
            panic!("the first ack is free");
        };
        assert_eq!(items.len(), 1);
        assert!(outbox.poll(1, Lane::Control, &mut counters).is_none());
        assert!(!outbox.is_empty());
        assert!(outbox.poll(2, Lane::Publish, &mut counters).is_some());
        assert!(outbox.poll(1, Lane::Control, &mut counters).is_some());
        assert!(outbox.is_empty());
    }
}
