//! What the bridges make of their sides: two lanes towards a shard, of which one holds messages.
//!
//! News of the logs have a lane of their own, so that they are never behind messages that a shard cannot take yet.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use super::side::{self, Bounds, ShardEnd, Side, SideEnd};
use super::{Door, Weighed};
use crate::routing::bridge_mail::{FromBridges, ToBridges};
use crate::shard::ShardId;

/// Items of one lane.
const LANE_ITEMS: usize = 256;

/// A shard's end.
pub(crate) struct BridgePort {
    news: ShardEnd<ToBridges, FromBridges>,
    /// Nothing goes back by this side.
    messages: ShardEnd<Infallible, FromBridges>,
    /// What `has_room` said last.
    had_room: Cell<bool>,
    /// The lane had no room for all that there was.
    is_behind: Arc<AtomicBool>,
    /// Messages were asked for when the lanes were last looked at.
    takes_messages: bool,
    /// Items that `next` still gives; `None`: a round begins.
    left: Option<usize>,
}

/// The bridges' ends of all shards' lanes.
pub(crate) struct BridgeEnd {
    news: Side<ToBridges, FromBridges>,
    messages: Side<Infallible, FromBridges>,
    /// By shard.
    behind: Vec<Arc<AtomicBool>>,
}

/// The bridges' end of one shard's lanes.
pub(crate) struct ShardLanes<'a> {
    news: &'a mut SideEnd<ToBridges, FromBridges>,
    messages: &'a mut SideEnd<Infallible, FromBridges>,
}

impl Weighed for ToBridges {
    fn size(&self) -> usize {
        ToBridges::size(self)
    }
}

impl Weighed for FromBridges {
    fn size(&self) -> usize {
        FromBridges::size(self)
    }
}

/// Lanes for each of the shards whose doors these are. A lane has room while it holds less than `bytes_max`.
pub(crate) fn connect(doors: &Arc<[Door]>, bytes_max: usize) -> (Vec<BridgePort>, BridgeEnd) {
    let bounds = Bounds { items: LANE_ITEMS, bytes_max };
    let (news_ports, news) = side::connect(doors, bounds);
    let (messages_ports, messages) = side::connect(doors, bounds);
    let behind: Vec<Arc<AtomicBool>> = doors.iter().map(|_| Arc::default()).collect();
    let ports = news_ports.into_iter().zip(messages_ports).zip(&behind);
    let ports = ports.map(|((news, messages), is_behind)| BridgePort {
        news,
        messages,
        had_room: Cell::new(true),
        is_behind: is_behind.clone(),
        takes_messages: true,
        left: None,
    });
    (ports.collect(), BridgeEnd { news, messages, behind })
}

impl BridgePort {
    pub(crate) fn has_room(&self) -> bool {
        let has_room = self.news.has_room();
        self.had_room.set(has_room);
        if !has_room {
            self.is_behind.store(true, Ordering::Release);
        }
        has_room
    }

    /// The lane has room.
    pub(crate) fn send(&mut self, mail: ToBridges) {
        self.news.send(mail);
    }

    /// All that the lane has room for was sent. Wakes the bridges if something was since the last call.
    pub(crate) fn wake(&mut self) {
        if self.had_room.get() && self.is_behind.load(Ordering::Relaxed) {
            self.is_behind.store(false, Ordering::Release);
        }
        self.news.wake();
    }

    /// Whether the shard hears now, and only now, that the executor of the bridges has ended.
    pub(crate) fn hear_end(&mut self) -> bool {
        self.news.hear_end()
    }

    /// The next item, of the news first; messages only if `takes_messages`. `None` ends a round, which gives at most as many
    /// items as there were when it began.
    pub(crate) fn next(&mut self, takes_messages: bool) -> Option<FromBridges> {
        self.takes_messages = takes_messages;
        let messages = if takes_messages { self.messages.count() } else { 0 };
        let left = self.left.take().unwrap_or_else(|| self.news.count() + messages);
        if left == 0 {
            return None;
        }
        self.left = Some(left - 1);
        let mail = self.news.take().or_else(|| self.messages.take());
        Some(mail.expect("so many are there"))
    }

    /// Something that would be taken.
    pub(crate) fn has_mail(&self) -> bool {
        self.news.count() > 0
            || self.takes_messages && self.messages.count() > 0
            || self.news.has_ended()
    }
}

impl ShardLanes<'_> {
    pub(crate) fn shard(&self) -> ShardId {
        self.news.shard()
    }

    /// Takes what the lane holds. `true` when there was something.
    pub(crate) fn receive(&mut self, take: impl FnMut(ToBridges)) -> bool {
        self.news.receive(take)
    }

    /// Whether the lane of messages has room; the lane of news may be full all the same.
    pub(crate) fn has_room(&self) -> bool {
        self.messages.has_room()
    }

    pub(crate) fn has_news_room(&self) -> bool {
        self.news.has_room()
    }

    /// There is room in the lane that this goes to.
    pub(crate) fn send(&mut self, mail: FromBridges) {
        match mail {
            FromBridges::Publish { .. } => self.messages.send(mail),
            _ => self.news.send(mail),
        }
    }
}

impl BridgeEnd {
    pub(crate) fn shard_count(&self) -> u16 {
        self.behind.len() as u16
    }

    /// The lanes of one shard.
    pub(crate) fn shard(&mut self, shard: ShardId) -> ShardLanes<'_> {
        let shard = usize::from(shard);
        ShardLanes { news: &mut self.news.ends[shard], messages: &mut self.messages.ends[shard] }
    }

    /// The lanes of all shards.
    pub(crate) fn shards(&mut self) -> impl Iterator<Item = ShardLanes<'_>> {
        let ends = self.news.ends.iter_mut().zip(&mut self.messages.ends);
        ends.map(|(news, messages)| ShardLanes { news, messages })
    }

    /// Ready when some shard's lane holds something; else the task is woken when one does.
    pub(crate) fn poll_arrival(&self, context: &mut Context<'_>) -> Poll<()> {
        self.news.poll_arrival(context)
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.news.has_mail()
    }

    /// Whether some shard has more to tell than its lane had room for. Where that is asked before the lanes are looked at, a no
    /// means that they hold all that the shards had told before they last sent something.
    pub(crate) fn is_any_behind(&self) -> bool {
        self.behind.iter().any(|is_behind| is_behind.load(Ordering::Acquire))
    }
}
