//! What waits for one bridge connection: in the log what must not be lost, in memory the rest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tracing::warn;

use super::record::Record;
use super::signal::Signal;
use crate::arena::Generation;
use crate::codec::QoS;
use crate::config::bridge::{BridgeSettings, WhenFull};
use crate::shard::ShardId;
use crate::shell::executor::{Semaphore, sleep};
use crate::shell::spool::{Full, Spool};

/// After a commit that failed, and between two looks for room in a full log.
const RETRY: Duration = Duration::from_millis(1_000);
const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// What needs no commit of its own is committed this often.
const IDLE_COMMIT: Duration = Duration::from_millis(1_000);

/// Publishers are held back from this part of the bounds on, and let go below the other.
const HOLD_PERCENT: u64 = 90;
const LET_GO_PERCENT: u64 = 80;

/// Counts since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropped {
    /// Messages that a full log or queue had no room for.
    pub full: u64,
    /// Too large for the log, or mapped to a topic that no message can have.
    pub unfit: u64,
    pub expired: u64,
}

/// Where a stored message came from: who waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub shard: ShardId,
    /// `NONE`: nobody waits.
    pub generation: Generation,
}

pub struct Outbound {
    spool: Option<Spool>,
    when_full: WhenFull,
    messages_max: u64,
    bytes_max: u64,
    direct_messages_max: usize,
    direct_bytes_max: usize,
    /// Records that only wait for the link.
    direct: RefCell<VecDeque<Vec<u8>>>,
    direct_bytes: Cell<usize>,
    /// Records that the log had no room for yet, in order.
    overflow: RefCell<VecDeque<(Origin, Vec<u8>)>>,
    overflow_bytes: Cell<usize>,
    progress: RefCell<Progress>,
    /// One commit at a time: what is open when one begins is written when it ends.
    turn: Semaphore,
    /// The first sequence that was never handed to the link.
    pub unsent: Cell<u64>,
    pub dropped: Cell<Dropped>,
    pub is_holding: Cell<bool>,
    /// Why the last commit failed; empty: it did not.
    pub failure: RefCell<String>,
    has_pushed: Signal,
    /// Something was committed, or waits for the link.
    pub has_work: Rc<Signal>,
    /// Something was committed, or could not be.
    has_committed: Rc<Signal>,
}

/// By shard: the oldest message that is not committed.
struct Progress {
    open: Vec<Option<Generation>>,
    committing: Vec<Option<Generation>>,
}

impl Outbound {
    /// `spool`: for a connection whose rules store.
    pub fn new(
        settings: &BridgeSettings,
        spool: Option<Spool>,
        shard_count: u16,
        has_committed: Rc<Signal>,
    ) -> Outbound {
        let none = vec![None; usize::from(shard_count)];
        Outbound {
            unsent: Cell::new(spool.as_ref().map_or(0, Spool::floor)),
            spool,
            when_full: settings.when_full,
            messages_max: settings.spool_messages_max,
            bytes_max: settings.spool_bytes_max,
            direct_messages_max: settings.memory_messages_max,
            direct_bytes_max: settings.memory_bytes_max,
            direct: RefCell::default(),
            direct_bytes: Cell::new(0),
            overflow: RefCell::default(),
            overflow_bytes: Cell::new(0),
            progress: RefCell::new(Progress { open: none.clone(), committing: none }),
            turn: Semaphore::new(1),
            dropped: Cell::default(),
            is_holding: Cell::new(false),
            failure: RefCell::default(),
            has_pushed: Signal::default(),
            has_work: Rc::default(),
            has_committed,
        }
    }

    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Takes a record that must not be lost.
    pub fn store(&self, origin: Origin, record: Vec<u8>) {
        if self.overflow.borrow().is_empty() {
            match self.push(origin, &record) {
                Ok(()) => {}
                Err(Full::TooLarge) => self.lose(|dropped| dropped.unfit += 1),
                Err(_) => self.overflow(origin, record),
            }
        } else {
            self.overflow(origin, record);
        }
        self.has_pushed.raise();
        self.update_hold();
    }

    /// Takes a record that waits in memory only; the oldest one goes when there is no room.
    pub fn keep(&self, record: Vec<u8>) {
        let mut direct = self.direct.borrow_mut();
        let mut bytes = self.direct_bytes.get() + record.len();
        direct.push_back(record);
        while direct.len() > self.direct_messages_max || bytes > self.direct_bytes_max {
            let Some(oldest) = direct.pop_front() else { break };
            bytes -= oldest.len();
            self.lose(|dropped| dropped.full += 1);
        }
        self.direct_bytes.set(bytes);
        self.has_work.raise();
    }

    /// The next record that waits in memory only.
    pub fn next_direct(&self) -> Option<Vec<u8>> {
        let record = self.direct.borrow_mut().pop_front()?;
        self.direct_bytes.set(self.direct_bytes.get() - record.len());
        Some(record)
    }

    /// What the link had no room for.
    pub fn put_back(&self, record: Vec<u8>) {
        self.direct_bytes.set(self.direct_bytes.get() + record.len());
        self.direct.borrow_mut().push_front(record);
    }

    pub fn direct_len(&self) -> usize {
        self.direct.borrow().len()
    }

    /// Those above QoS 0 of the records that wait in memory only.
    pub fn direct_acknowledged_count(&self) -> usize {
        let is_acknowledged = |record: &&Vec<u8>| {
            Record::decode(record).is_some_and(|record| record.qos != QoS::AtMostOnce)
        };
        self.direct.borrow().iter().filter(is_acknowledged).count()
    }

    /// Whether half of the memory queue is free: for those who can wait.
    pub fn has_direct_room(&self) -> bool {
        self.direct_len() < self.direct_messages_max.div_ceil(2)
            && self.direct_bytes.get() < self.direct_bytes_max.div_ceil(2)
            && self.overflow.borrow().is_empty()
    }

    /// More waits for room in the log than memory should hold: nothing more should be taken from the shards.
    pub fn is_flooded(&self) -> bool {
        self.overflow_bytes.get() > self.direct_bytes_max
    }

    /// Messages that are in no log yet and not dropped either.
    pub fn is_settled(&self) -> bool {
        let progress = self.progress.borrow();
        let is_empty = |list: &[Option<Generation>]| list.iter().all(Option::is_none);
        self.overflow.borrow().is_empty()
            && is_empty(&progress.open)
            && is_empty(&progress.committing)
    }

    /// The oldest message of a shard that the log does not have yet.
    pub fn oldest_unwritten(&self, shard: ShardId) -> Option<Generation> {
        let progress = self.progress.borrow();
        let shard_index = usize::from(shard);
        // What overflows came later than what was pushed, but of another shard maybe alone.
        let overflowing = self.overflow.borrow();
        let overflowing = overflowing
            .iter()
            .find(|(origin, _)| origin.shard == shard && origin.generation != Generation::NONE)
            .map(|(origin, _)| origin.generation);
        let written = [progress.committing[shard_index], progress.open[shard_index], overflowing];
        written.into_iter().flatten().min()
    }

    pub fn lose(&self, count: impl FnOnce(&mut Dropped)) {
        let mut dropped = self.dropped.get();
        count(&mut dropped);
        self.dropped.set(dropped);
    }

    fn push(&self, origin: Origin, record: &[u8]) -> Result<(), Full> {
        let Some(spool) = &self.spool else { return Ok(()) };
        let pushed = match (spool.push(record), self.when_full) {
            (Err(Full::Messages | Full::Bytes), WhenFull::DropNewest) => {
                self.lose(|dropped| dropped.full += 1);
                return Ok(());
            }
            (Err(Full::Messages | Full::Bytes), WhenFull::DropOldest) => {
                let count = spool.make_room(self.unsent.get(), record.len());
                self.lose(|dropped| dropped.full += count);
                match spool.push(record) {
                    Err(Full::Messages | Full::Bytes) if count == 0 => {
                        // All that is there is under way to the remote.
                        self.lose(|dropped| dropped.full += 1);
                        return Ok(());
                    }
                    pushed => pushed,
                }
            }
            (pushed, _) => pushed,
        };
        pushed?;
        if origin.generation != Generation::NONE {
            let place = &mut self.progress.borrow_mut().open[usize::from(origin.shard)];
            place.get_or_insert(origin.generation);
        }
        Ok(())
    }

    fn overflow(&self, origin: Origin, record: Vec<u8>) {
        self.overflow_bytes.set(self.overflow_bytes.get() + record.len());
        self.overflow.borrow_mut().push_back((origin, record));
    }

    /// Gives memory back that was needed for what has left.
    pub fn trim(&self) {
        if let Some(spool) = &self.spool {
            spool.trim();
        }
        let (mut direct, mut overflow) = (self.direct.borrow_mut(), self.overflow.borrow_mut());
        if direct.is_empty() {
            *direct = VecDeque::new();
        }
        if overflow.is_empty() {
            *overflow = VecDeque::new();
        }
    }

    /// Commits what was pushed, as long as the connection lives.
    pub async fn run_commits(self: Rc<Self>) {
        let Some(spool) = &self.spool else { return };
        loop {
            futures_lite::future::or(self.has_pushed.wait(), sleep(IDLE_COMMIT)).await;
            while spool.wants_commit() || !self.overflow.borrow().is_empty() {
                if !self.commit(spool).await {
                    sleep(RETRY).await;
                } else if !self.push_overflow() {
                    sleep(ROOM_PAUSE).await;
                }
            }
        }
    }

    /// One commit; whether it succeeded. On failure everything stays as it is, for the next try.
    pub async fn commit(&self, spool: &Spool) -> bool {
        let _turn = self.turn.acquire().await.expect("it is never closed");
        {
            let Progress { open, committing } = &mut *self.progress.borrow_mut();
            for (open, committing) in open.iter_mut().zip(committing) {
                let opened = open.take();
                *committing = committing.take().or(opened);
            }
        }
        let outcome = spool.commit().await;
        let is_good = outcome.is_ok();
        match outcome {
            Ok(_) => {
                self.progress.borrow_mut().committing.fill(None);
                self.failure.borrow_mut().clear();
            }
            Err(error) => {
                let text = error.to_string();
                if *self.failure.borrow() != text {
                    warn!("bridge: {text}");
                }
                self.failure.replace(text);
            }
        }
        self.update_hold();
        self.has_committed.raise();
        self.has_work.raise();
        is_good
    }

    /// Pushes what overflowed; `false` when the log has no room for the first of it.
    fn push_overflow(&self) -> bool {
        loop {
            let Some((origin, record)) = self.overflow.borrow_mut().pop_front() else {
                return true;
            };
            self.overflow_bytes.set(self.overflow_bytes.get() - record.len());
            match self.push(origin, &record) {
                Ok(()) => {}
                Err(Full::TooLarge) => self.lose(|dropped| dropped.unfit += 1),
                Err(full) => {
                    self.overflow_bytes.set(self.overflow_bytes.get() + record.len());
                    self.overflow.borrow_mut().push_front((origin, record));
                    return full == Full::Batch;
                }
            }
        }
    }

    /// With `hold`: whether publishers have to wait.
    fn update_hold(&self) {
        let Some(spool) = &self.spool else { return };
        if self.when_full != WhenFull::Hold {
            return;
        }
        let backlog = spool.backlog();
        let percent = |count: u64, max: u64| count.saturating_mul(100) / max.max(1);
        let filled = percent(backlog.messages, self.messages_max)
            .max(percent(backlog.disk_bytes, self.bytes_max));
        let is_holding = match self.is_holding.get() {
            true => filled >= LET_GO_PERCENT || !self.overflow.borrow().is_empty(),
            false => filled >= HOLD_PERCENT,
        };
        if self.is_holding.replace(is_holding) != is_holding {
            self.has_committed.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::executor::each_io::{for_each_io, run};
    use crate::shell::spool::tests::{Folder, settings};
    use futures_lite::future::poll_once;

    #[test]
    fn shards_hear_of_a_message_when_the_log_has_it() {
        for_each_io(|io| {
            run(io, async {
                let folder = Folder::new("outbound");
                let spool = Spool::open(&folder.path, settings()).await.unwrap();
                let bridge = BridgeSettings::new("north");
                let outbound = Outbound::new(&bridge, Some(spool), 1, Rc::default());
                let spool = outbound.spool().unwrap();
                let mut turn_count = 0;
                for number in 1..=20 {
                    let generation = Generation::from_number(number);
                    let sequence = spool.next_sequence();
                    outbound.store(Origin { shard: 0, generation }, vec![b'.'; 100]);
                    let mut commit = std::pin::pin!(outbound.commit(spool));
                    let mut is_over = false;
                    while !is_over {
                        is_over = poll_once(&mut commit).await.is_some();
                        if spool.committed() <= sequence {
                            assert_eq!(outbound.oldest_unwritten(0), Some(generation));
                        }
                        turn_count += 1;
                        sleep(Duration::from_micros(20)).await;
                    }
                    assert_eq!(outbound.oldest_unwritten(0), None);
                }
                assert!(turn_count > 20, "no commit took its time");
            });
        });
    }
}
