//! The messages that a connection gives its link: those due again, then those only in memory, then the log's; and messages set aside.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use tracing::{error, warn};

use super::aside::{Kept, Place, Why};
use super::line::Line;
use super::record::Record;
use super::signal::Signal;
use super::{Bridge, Hub, unix_ms};
use crate::bridge::{Keeping, OutMessage, Sent, Trail, UNLOGGED, Unwanted};
use crate::codec::QoS;
use crate::config::bridge::{BridgeSettings, WhenFull};
use crate::disk::{Spool, State};
use crate::printable::{Quoted, counted};
use crate::time::Instant;

/// Of the log, read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// So often a message over which the remote closes is tried again while the file of what is set aside cannot be written.
const UNWRITABLE_TRIES: u32 = 3;

/// So many messages that are set aside have a line of their own in so long; the others are counted in the next one.
const LINES_MAX: u32 = 20;
const LINES_MS: u64 = 60_000;

/// Where a connection is with what waits for its link.
pub(super) struct Feed {
    /// Messages that no log holds, above QoS 0 in flight or of a topic that waits, by sequence.
    unlogged: RefCell<BTreeMap<u64, Vec<u8>>>,
    unlogged_bytes: Cell<usize>,
    unlogged_sequence: Cell<u64>,
    /// Of them, those to send again.
    again: RefCell<VecDeque<u64>>,
    /// Messages whose pause is over.
    due: RefCell<VecDeque<u64>>,
    /// Messages to set aside.
    unwanted: RefCell<VecDeque<(u64, Unwanted)>>,
    has_unwanted: Signal,
    /// In a row.
    unwritable_tries: Cell<u32>,
    lines: Lines,
    /// Below, the log is gone through again: some of it is under way, or over.
    seen_through: Cell<u64>,
    waiting_messages_max: usize,
    waiting_bytes_max: usize,
    /// Properties of a message that is sent.
    marked: RefCell<Vec<u8>>,
}

impl Feed {
    pub(super) fn new(settings: &BridgeSettings) -> Feed {
        Feed {
            unlogged: RefCell::default(),
            unlogged_bytes: Cell::new(0),
            unlogged_sequence: Cell::new(UNLOGGED),
            again: RefCell::default(),
            due: RefCell::default(),
            unwanted: RefCell::default(),
            has_unwanted: Signal::default(),
            unwritable_tries: Cell::new(0),
            lines: Lines::default(),
            seen_through: Cell::new(0),
            waiting_messages_max: settings.memory_messages_max,
            waiting_bytes_max: settings.memory_bytes_max,
            marked: RefCell::default(),
        }
    }

    /// The link is up: all that is not done is sent from the beginning.
    pub(super) fn begin(&self) {
        *self.again.borrow_mut() = self.unlogged.borrow().keys().copied().collect();
    }

    /// The link is down.
    pub(super) fn stop(&self) {
        self.due.borrow_mut().clear();
        self.seen_through.set(0);
    }

    pub(super) fn on_due(&self, sequence: u64) {
        if sequence < UNLOGGED {
            // It may be over before the log is gone through so far.
            self.seen_through.set(self.seen_through.get().max(sequence + 1));
        }
        self.due.borrow_mut().push_back(sequence);
    }

    pub(super) fn on_set_aside(&self, sequence: u64, why: Unwanted) {
        let mut unwanted = self.unwanted.borrow_mut();
        if !unwanted.iter().any(|(known, _)| *known == sequence) {
            unwanted.push_back((sequence, why));
        }
        self.has_unwanted.raise();
    }

    pub(super) fn remove(&self, sequence: u64) {
        if let Some(record) = self.unlogged.borrow_mut().remove(&sequence) {
            self.unlogged_bytes.set(self.unlogged_bytes.get() - record.len());
        }
    }

    /// Messages above QoS 0 that no log holds, in flight or behind others of their topic.
    pub(super) fn unacknowledged_count(&self) -> usize {
        self.unlogged.borrow().values().filter(|record| is_tracked(record)).count()
    }

    /// Gives memory back that was needed for what has passed.
    pub(super) fn trim(&self) {
        for queue in [&self.again, &self.due] {
            let mut queue = queue.borrow_mut();
            if queue.is_empty() {
                *queue = VecDeque::new();
            }
        }
    }

    fn insert(&self, sequence: u64, record: Vec<u8>) {
        self.unlogged_sequence.set(sequence);
        self.unlogged_bytes.set(self.unlogged_bytes.get() + record.len());
        self.unlogged.borrow_mut().insert(sequence, record);
    }

    /// Whether a record that waits behind another one has room.
    fn has_room(&self, size: usize) -> bool {
        self.unlogged.borrow().len() < self.waiting_messages_max
            && self.unlogged_bytes.get() + size <= self.waiting_bytes_max
    }
}

impl Line {
    /// Gives the link what it has room for.
    pub(super) async fn feed(self: &Rc<Self>, hub: &Rc<Hub>) -> io::Result<()> {
        let bridge = &hub.bridges[usize::from(self.bridge)];
        if !self.feed.unwanted.borrow().is_empty() {
            // It may be what has to go first.
            return Ok(());
        }
        self.feed_due(hub, bridge).await?;
        self.feed_unlogged(hub, bridge);
        let Some(spool) = self.outbound.spool() else { return Ok(()) };
        loop {
            let room = self.link.borrow().room();
            let from = self.outbound.unsent.get();
            if room == 0 || from >= spool.committed() {
                return Ok(());
            }
            let chunk = spool.read(from, CHUNK_BYTES, room).await.map_err(io::Error::other)?;
            if from < self.feed.seen_through.get() {
                // What the link has told meanwhile says what is over.
                self.take_events(hub);
            }
            // The link may have been lost meanwhile: then everything begins anew.
            if chunk.is_empty() || self.outbound.unsent.get() != from {
                return Ok(());
            }
            for (sequence, bytes) in chunk.iter() {
                if !self.is_to_send(spool, sequence) {
                    self.outbound.unsent.set(sequence + 1);
                    continue;
                }
                match self.send(hub, bridge, sequence, bytes) {
                    Sent::NoRoom => return Ok(()),
                    Sent::Taken | Sent::Waits => {}
                    Sent::TooLarge => self.end(sequence),
                }
                self.outbound.unsent.set(sequence + 1);
            }
        }
    }

    /// Whether a message of the log is neither under way nor over: known of all that is read for the first time.
    fn is_to_send(&self, spool: &Spool, sequence: u64) -> bool {
        sequence >= self.feed.seen_through.get()
            || !self.link.borrow().is_under_way(sequence)
                && spool.state(sequence) == Some(State::Waiting)
    }

    /// Messages that the remote refused for a time.
    async fn feed_due(&self, hub: &Hub, bridge: &Bridge) -> io::Result<()> {
        loop {
            let Some(sequence) = self.feed.due.borrow().front().copied() else { return Ok(()) };
            if !self.link.borrow().has_room_again() {
                return Ok(());
            }
            let record = self.record(sequence).await?;
            if self.feed.due.borrow().front() != Some(&sequence) {
                continue;
            }
            if !self.link.borrow().is_under_way(sequence) {
                match record.map(|record| self.send(hub, bridge, sequence, &record)) {
                    Some(Sent::NoRoom) => return Ok(()),
                    Some(Sent::Taken | Sent::Waits) => {}
                    Some(Sent::TooLarge) | None => self.end(sequence),
                }
            }
            self.feed.due.borrow_mut().pop_front();
        }
    }

    /// A message that is not over.
    async fn record(&self, sequence: u64) -> io::Result<Option<Vec<u8>>> {
        if sequence > UNLOGGED {
            return Ok(self.feed.unlogged.borrow().get(&sequence).cloned());
        }
        let Some(spool) = self.outbound.spool() else { return Ok(None) };
        let chunk = spool.read(sequence, 1, 1).await.map_err(io::Error::other)?;
        let found = chunk.iter().find(|(found, _)| *found == sequence);
        Ok(found.map(|(_, bytes)| bytes.to_vec()))
    }

    /// A message that is not in flight is over.
    fn end(&self, sequence: u64) {
        self.on_done(sequence);
        self.link.borrow_mut().forget(sequence);
    }

    /// What waited from `from` on is offered again.
    pub(super) fn on_again(&self, from: u64) {
        let unsent = &self.outbound.unsent;
        if from < unsent.get() {
            self.feed.seen_through.set(unsent.get().max(self.feed.seen_through.get()));
            unsent.set(from);
        }
        let link = self.link.borrow();
        let unlogged = self.feed.unlogged.borrow();
        let waiting = unlogged.keys().copied().filter(|sequence| !link.is_under_way(*sequence));
        *self.feed.again.borrow_mut() = waiting.collect();
        self.outbound.has_work.raise();
    }

    fn feed_unlogged(&self, hub: &Hub, bridge: &Bridge) {
        loop {
            let Some(sequence) = self.feed.again.borrow().front().copied() else { break };
            let record = self.feed.unlogged.borrow().get(&sequence).cloned();
            let is_under_way = self.link.borrow().is_under_way(sequence);
            if let Some(record) = record.filter(|_| !is_under_way) {
                match self.send(hub, bridge, sequence, &record) {
                    Sent::NoRoom => return,
                    Sent::Taken if is_tracked(&record) => {}
                    Sent::Taken => self.feed.remove(sequence),
                    Sent::Waits => {}
                    Sent::TooLarge => self.end(sequence),
                }
            }
            self.feed.again.borrow_mut().pop_front();
        }
        while self.link.borrow().room() > 0 {
            let Some(bytes) = self.outbound.next_direct() else { return };
            let sequence = self.feed.unlogged_sequence.get() + 1;
            match self.send(hub, bridge, sequence, &bytes) {
                Sent::NoRoom => return self.outbound.put_back(bytes),
                Sent::Taken if is_tracked(&bytes) => self.feed.insert(sequence, bytes),
                Sent::Waits if self.feed.has_room(bytes.len()) => self.feed.insert(sequence, bytes),
                Sent::Waits => self.outbound.lose(|dropped| dropped.full += 1),
                Sent::Taken | Sent::TooLarge => {}
            }
        }
    }

    /// Sends one record; what cannot be sent is counted.
    fn send(&self, hub: &Hub, bridge: &Bridge, sequence: u64, bytes: &[u8]) -> Sent {
        let Some(record) = Record::decode(bytes) else {
            warn!("bridge {}: a record of the log is no message; left out", self.name());
            self.outbound.lose(|dropped| dropped.unfit += 1);
            return Sent::TooLarge;
        };
        let left_ms = record.expires_at_ms.map(|at| at.saturating_sub(unix_ms()));
        if left_ms == Some(0) {
            self.outbound.lose(|dropped| dropped.expired += 1);
            return Sent::TooLarge;
        }
        let message = OutMessage {
            topic: record.topic,
            properties: record.properties,
            payload: record.payload,
            qos: record.qos,
            retain: record.retain,
            message_expiry_s: left_ms.map(|left| Instant(left).seconds_left(Instant::ZERO)),
        };
        let now = hub.clock.now();
        let outcome = self.send_marked(hub, now, sequence, &record, &message);
        match outcome {
            Sent::Taken => {
                self.status.borrow_mut().sent += 1;
                bridge.note_sent(now, &record);
            }
            Sent::TooLarge => {
                self.outbound.lose(|dropped| dropped.unfit += 1);
                warn!(
                    "bridge {}: a message to {} is larger than the remote takes; dropped",
                    self.name(),
                    Quoted(record.topic)
                );
            }
            Sent::NoRoom | Sent::Waits => {}
        }
        outcome
    }

    /// Sends a message with a mark that says where it has been; without it where that would be too large.
    fn send_marked(
        &self,
        hub: &Hub,
        now: Instant,
        sequence: u64,
        record: &Record<'_>,
        message: &OutMessage<'_>,
    ) -> Sent {
        let mut link = self.link.borrow_mut();
        if link.keeping() == Keeping::Nothing {
            return link.send(now, sequence, message);
        }
        let trail = match record.trail {
            // Of an earlier version's log.
            [] if record.from_bridge => Trail::UNKNOWN,
            trail => Trail::of(trail),
        };
        let mut properties = self.feed.marked.borrow_mut();
        properties.clear();
        properties.extend_from_slice(message.properties);
        trail.put_mark(hub.broker_id, &mut properties);
        match link.send(now, sequence, &OutMessage { properties: &properties, ..*message }) {
            Sent::TooLarge => link.send(now, sequence, message),
            sent => sent,
        }
    }
}

/// Sets aside what the remote does not take, as long as the process lives. A task of its own: a connection that ends leaves
/// nothing half written.
pub(super) async fn set_aside(hub: Rc<Hub>, line: Rc<Line>) {
    loop {
        line.feed.has_unwanted.wait().await;
        line.put_aside(&hub).await;
        line.outbound.has_work.raise();
    }
}

impl Line {
    async fn put_aside(&self, hub: &Hub) {
        let bridge = &hub.bridges[usize::from(self.bridge)];
        loop {
            let Some((sequence, unwanted)) = self.feed.unwanted.borrow().front().copied() else {
                return;
            };
            let is_over = match self.record(sequence).await {
                // The log has dropped it meanwhile.
                Ok(None) => true,
                Ok(Some(record)) => {
                    let place = Place { connection: self.index, sequence };
                    let why = match unwanted {
                        Unwanted::Refused { reason, .. } => Why::Refused(reason),
                        Unwanted::Closed { .. } => Why::Closed,
                    };
                    let put = bridge.aside.put(unix_ms(), place, why, &record).await;
                    let topic = Record::decode(&record).map_or("", |record| record.topic);
                    self.is_over(hub.clock.now(), bridge, topic, unwanted, put)
                }
                Err(error) => self.is_over(hub.clock.now(), bridge, "", unwanted, Err(error)),
            };
            if is_over {
                self.end(sequence);
            } else {
                self.link.borrow_mut().keep(hub.clock.now(), sequence);
            }
            self.feed.unwanted.borrow_mut().pop_front();
        }
    }

    /// Whether the message is not sent again. One that could be put nowhere is counted as lost, or kept, as the log does it.
    fn is_over(
        &self,
        now: Instant,
        bridge: &Bridge,
        topic: &str,
        unwanted: Unwanted,
        put: io::Result<Kept>,
    ) -> bool {
        let (file, bridge_name) = (bridge.aside.path(), &bridge.settings.name);
        let file = file.display();
        let holds = bridge.settings.when_full == WhenFull::Hold;
        let tries = self.feed.unwritable_tries.get() + 1;
        self.feed.unwritable_tries.set(if put.is_ok() { 0 } else { tries });
        let (is_lost, end) = match put {
            Ok(Kept::Yes) => {
                self.status.borrow_mut().aside += 1;
                let end = format!(
                    "it is set aside in {file}, so its topic has a gap; `ringmq aside {bridge_name}` shows it and sends it again"
                );
                (false, end)
            }
            Ok(Kept::Full) => {
                let what = format!(
                    "{file} is full: empty it with `ringmq aside {bridge_name}`, or raise aside_bytes_max"
                );
                (!holds, what)
            }
            // One that is refused bothers its own topic only; one that the remote closes over stands in the way of all others.
            Err(ref error) => {
                let is_in_the_way = matches!(unwanted, Unwanted::Closed { .. });
                let is_lost = is_in_the_way && !holds && tries > UNWRITABLE_TRIES;
                (is_lost, format!("{file} cannot be written: {error}"))
            }
        };
        let is_put = matches!(put, Ok(Kept::Yes));
        if is_lost {
            self.outbound.lose(|dropped| dropped.aside += 1);
        }
        if let Some(unsaid) = self.feed.lines.take(now) {
            let story = match unwanted {
                Unwanted::Refused { reason, for_ms } => {
                    format!("was refused for {} s, {reason:?}", for_ms / 1000)
                }
                Unwanted::Closed { times } => {
                    format!("made the remote close the connection {times} times")
                }
            };
            let (name, topic) = (self.name(), Quoted(topic));
            let more = match unsaid {
                0 => String::new(),
                _ => format!(" ({} like this before)", counted(unsaid, "messages")),
            };
            match (is_put, is_lost) {
                (true, _) => warn!("bridge {name}: a message to {topic} {story}: {end}{more}"),
                (_, true) => error!(
                    "bridge {name}: a message to {topic} {story}: it is dropped, so its topic has a gap: {end}{more}"
                ),
                _ => error!(
                    "bridge {name}: a message to {topic} {story}: it is sent again: {end}{more}"
                ),
            }
        }
        is_put || is_lost
    }
}

/// How many lines the log gets of messages that are set aside.
#[derive(Default)]
struct Lines {
    since: Cell<Instant>,
    count: Cell<u32>,
    unsaid: Cell<u64>,
}

impl Lines {
    /// Whether a message may have its line now, and how many before it had none.
    fn take(&self, now: Instant) -> Option<u64> {
        if now.ms_since(self.since.get()) >= LINES_MS {
            self.since.set(now);
            self.count.set(0);
        }
        if self.count.get() == LINES_MAX {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.count.set(self.count.get() + 1);
        Some(self.unsaid.take())
    }
}

/// Whether the remote answers a record.
fn is_tracked(bytes: &[u8]) -> bool {
    Record::decode(bytes).is_some_and(|record| record.qos != QoS::AtMostOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_that_are_set_aside_has_a_few_lines_with_the_count_of_all() {
        let lines = Lines::default();
        let taken: Vec<_> = (0..50).map(|at| lines.take(Instant(100_000 + at))).collect();
        assert_eq!(taken[..20], [Some(0); 20]);
        assert_eq!(taken[20..], [None; 30]);
        assert_eq!(lines.take(Instant(100_000 + LINES_MS)), Some(30));
        assert_eq!(lines.take(Instant(100_001 + LINES_MS)), Some(0));
    }
}
