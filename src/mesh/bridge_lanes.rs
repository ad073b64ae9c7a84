//! The lanes between a shard and the executor of the bridges.
//!
//! Two towards the shard, so that news of the log is never behind messages that the shard cannot take yet; one towards the
//! bridges. A shard is woken by its door as by other shards; the bridges' executor by the waker that it left.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use rtrb::{Consumer, Producer, RingBuffer};

use super::Door;
use crate::routing::bridge_mail::{FromBridges, ToBridges};
use crate::shard::ShardId;

/// Items of one lane.
const LANE_ITEMS: usize = 256;

/// A shard's end.
pub(crate) struct BridgePort {
    to: Lane<ToBridges>,
    control: Consumer<FromBridges>,
    publish: Consumer<FromBridges>,
    publish_bytes: Arc<AtomicUsize>,
    waker: Arc<AtomicWaker>,
    written: bool,
    /// What `has_room` said last.
    had_room: Cell<bool>,
    /// The lane had no room for all that there was.
    is_behind: Arc<AtomicBool>,
    /// Messages were asked for when the lanes were last looked at.
    takes_messages: bool,
    /// Items that `next` still gives; `None`: a round begins.
    left: Option<usize>,
}

/// The bridges' end of one shard's lanes.
pub(crate) struct ShardLanes {
    from: Consumer<ToBridges>,
    from_bytes: Arc<AtomicUsize>,
    is_behind: Arc<AtomicBool>,
    control: Producer<FromBridges>,
    publish: Lane<FromBridges>,
    doors: Arc<[Door]>,
    shard: ShardId,
}

/// The bridges' ends of all shards' lanes.
pub(crate) struct BridgeEnd {
    pub shards: Vec<ShardLanes>,
    waker: Arc<AtomicWaker>,
}

/// A lane with a bound in bytes.
struct Lane<T> {
    producer: Producer<T>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl<T> Lane<T> {
    fn has_room(&self) -> bool {
        !self.producer.is_full() && self.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    fn send(&mut self, item: T, size: usize) {
        self.bytes.fetch_add(size, Ordering::Relaxed);
        assert!(self.producer.push(item).is_ok(), "the sender has looked for room");
    }
}

/// Lanes for each of the shards whose doors these are. A lane of messages has room while it holds less than `bytes_max`.
pub(crate) fn connect(doors: &Arc<[Door]>, bytes_max: usize) -> (Vec<BridgePort>, BridgeEnd) {
    let waker = Arc::new(AtomicWaker::new());
    let mut ports = Vec::new();
    let mut shards = Vec::new();
    for shard in 0..doors.len() as ShardId {
        let (to, from) = RingBuffer::new(LANE_ITEMS);
        let (control, control_in) = RingBuffer::new(LANE_ITEMS);
        let (publish, publish_in) = RingBuffer::new(LANE_ITEMS);
        let (to_bytes, publish_bytes) = (Arc::default(), Arc::default());
        let is_behind: Arc<AtomicBool> = Arc::default();
        ports.push(BridgePort {
            to: Lane { producer: to, bytes: Arc::clone(&to_bytes), bytes_max },
            control: control_in,
            publish: publish_in,
            publish_bytes: Arc::clone(&publish_bytes),
            waker: waker.clone(),
            written: false,
            had_room: Cell::new(true),
            is_behind: is_behind.clone(),
            takes_messages: true,
            left: None,
        });
        shards.push(ShardLanes {
            from,
            from_bytes: to_bytes,
            is_behind,
            control,
            publish: Lane { producer: publish, bytes: publish_bytes, bytes_max },
            doors: doors.clone(),
            shard,
        });
    }
    (ports, BridgeEnd { shards, waker })
}

impl BridgePort {
    pub(crate) fn has_room(&self) -> bool {
        let has_room = self.to.has_room();
        self.had_room.set(has_room);
        if !has_room {
            self.is_behind.store(true, Ordering::Release);
        }
        has_room
    }

    /// The lane has room.
    pub(crate) fn send(&mut self, mail: ToBridges) {
        let size = mail.size();
        self.to.send(mail, size);
        self.written = true;
    }

    /// All that the lane has room for was sent. Wakes the bridges if something was since the last call.
    pub(crate) fn wake(&mut self) {
        if self.had_room.get() && self.is_behind.load(Ordering::Relaxed) {
            self.is_behind.store(false, Ordering::Release);
        }
        if std::mem::take(&mut self.written) {
            self.waker.wake();
        }
    }

    /// The next item, of control first; messages only if `takes_messages`. `None` ends a round, which gives at most as many
    /// items as there were when it began.
    pub(crate) fn next(&mut self, takes_messages: bool) -> Option<FromBridges> {
        self.takes_messages = takes_messages;
        let messages = if takes_messages { self.publish.slots() } else { 0 };
        let left = self.left.take().unwrap_or_else(|| self.control.slots() + messages);
        if left == 0 {
            return None;
        }
        self.left = Some(left - 1);
        if let Ok(mail) = self.control.pop() {
            return Some(mail);
        }
        let mail = self.publish.pop().expect("so many are there");
        self.publish_bytes.fetch_sub(mail.size(), Ordering::Relaxed);
        Some(mail)
    }

    /// Something that would be taken.
    pub(crate) fn has_mail(&self) -> bool {
        !self.control.is_empty() || self.takes_messages && !self.publish.is_empty()
    }
}

impl ShardLanes {
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Takes what the lane holds. `true` when there was something.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(ToBridges)) -> bool {
        let bytes = &self.from_bytes;
        drain(&mut self.from, |mail| {
            bytes.fetch_sub(mail.size(), Ordering::Relaxed);
            take(mail);
        })
    }

    /// Whether a message lane has room; the control lane may be full all the same.
    pub(crate) fn has_room(&self) -> bool {
        self.publish.has_room()
    }

    pub(crate) fn has_control_room(&self) -> bool {
        !self.control.is_full()
    }

    /// There is room in the lane that this goes to.
    pub(crate) fn send(&mut self, mail: FromBridges) {
        if matches!(mail, FromBridges::Publish { .. }) {
            let size = mail.size();
            self.publish.send(mail, size);
        } else {
            assert!(self.control.push(mail).is_ok(), "the sender has looked for room");
        }
        let door = &self.doors[usize::from(self.shard)];
        if door.asleep.must_ring() {
            door.bell.ring();
        }
    }
}

/// Takes what the lane holds now, not what arrives meanwhile.
fn drain<T>(lane: &mut Consumer<T>, take: impl FnMut(T)) -> bool {
    let count = lane.slots();
    if count == 0 {
        return false;
    }
    lane.read_chunk(count).expect("so many are there").into_iter().for_each(take);
    true
}

impl BridgeEnd {
    /// Ready when some shard's lane holds something; else the task is woken when one does.
    pub(crate) fn poll_arrival(&self, context: &mut Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        // Behind the registration: what was sent before is seen here, what comes later wakes.
        match self.has_mail() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.shards.iter().any(|shard| !shard.from.is_empty())
    }

    /// Whether some shard has more to tell than its lane had room for. Where that is asked before the lanes are looked at, a no
    /// means that they hold all that the shards had told before they last sent something.
    pub(crate) fn is_any_behind(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_behind.load(Ordering::Acquire))
    }
}
