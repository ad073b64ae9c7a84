//! Messages that wait for one bridge connection: in the log where they must not be lost, else in memory.

mod commits;

pub(super) use commits::Outcome;
use commits::{RETRY, ROOM_PAUSE};

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::deletions::Deletions;
use super::record::Record;
use super::signal::Signal;
use crate::arena::Generation;
use crate::bridge::Link;
use crate::codec::QoS;
use crate::config::bridge::{BridgeSettings, WhenFull};
use crate::disk::{Full, Spool};
use crate::executor::{Semaphore, sleep};
use crate::shard::ShardId;

/// Publishers are held back from this part of the bounds on, and let go below the other.
const HOLD_PERCENT: u64 = 90;
const LET_GO_PERCENT: u64 = 80;

/// Counts since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dropped {
    /// Messages that a full log or queue had no room for.
    pub full: u64,
    /// Too large for the log, or mapped to a topic that no message can have.
    pub unfit: u64,
    pub expired: u64,
    /// The file of what is set aside could not take them.
    pub aside: u64,
}

/// Where a stored message came from: who waits for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub shard: ShardId,
    /// `NONE`: nobody waits.
    pub generation: Generation,
}

pub(crate) struct Outbound {
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
    /// The first sequence that was not offered to the link since it came up, or is to be offered again.
    pub unsent: Cell<u64>,
    /// Of the connection, to see what is in flight.
    pub link: OnceCell<Rc<RefCell<Link>>>,
    pub dropped: Cell<Dropped>,
    pub is_blocking: Cell<bool>,
    /// Why the last commit failed; empty: it did not.
    pub failure: RefCell<String>,
    /// The next sequences are promised: what comes meanwhile waits.
    is_reserved: Cell<bool>,
    is_free: Signal,
    /// Nothing can be written and nobody is to wait for it: what comes is dropped, until the next try.
    is_shedding: Cell<bool>,
    /// Messages dropped because the log could not be written, and not told of yet.
    shed: Cell<u64>,
    is_failure_new: Cell<bool>,
    /// Of files of the log, for space.
    deletions: RefCell<Deletions>,
    silent_until: Cell<Option<Instant>>,
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
    pub(crate) fn new(
        settings: &BridgeSettings,
        spool: Option<Spool>,
        shard_count: u16,
        has_committed: Rc<Signal>,
    ) -> Outbound {
        let none = vec![None; usize::from(shard_count)];
        Outbound {
            unsent: Cell::new(spool.as_ref().map_or(0, Spool::floor)),
            link: OnceCell::new(),
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
            is_blocking: Cell::new(false),
            failure: RefCell::default(),
            is_reserved: Cell::new(false),
            is_free: Signal::default(),
            is_shedding: Cell::new(false),
            shed: Cell::new(0),
            is_failure_new: Cell::new(false),
            deletions: RefCell::default(),
            silent_until: Cell::new(None),
            has_pushed: Signal::default(),
            has_work: Rc::default(),
            has_committed,
        }
    }

    pub(crate) fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// Takes a record that must not be lost.
    pub(crate) fn store(&self, origin: Origin, record: Vec<u8>) {
        if self.is_shedding.get() {
            self.shed(1);
            // Its publisher waits for nothing; what tells it so is awake already.
            return;
        }
        if self.overflow.borrow().is_empty() && !self.is_reserved.get() {
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

    /// Takes records that were set aside, and waits for room. `note` hears the sequence of the first, before the log has it,
    /// and how many are to follow in a row: no others, whose sequences would be somebody else's. Says how many were taken.
    pub(crate) async fn bring_back(
        &self,
        records: &[&[u8]],
        note: impl AsyncFn(u64, usize) -> io::Result<()>,
    ) -> io::Result<usize> {
        let Some(spool) = &self.spool else {
            note(0, records.len()).await?;
            for record in records {
                while !self.has_direct_room() {
                    sleep(ROOM_PAUSE).await;
                }
                self.keep(record.to_vec());
            }
            return Ok(records.len());
        };
        let size: usize = records.iter().map(|record| record.len()).sum();
        // A small log has room for one at a time, if not for more.
        let records = if size as u64 > self.bytes_max / 4 { &records[..1] } else { records };
        let count = records.len() as u64;
        let size: usize = records.iter().map(|record| record.len()).sum();
        let is_too_large = size as u64 > self.bytes_max / 2;
        while !self.overflow.borrow().is_empty()
            || self.is_shedding.get()
            || !self.failure.borrow().is_empty()
            || !is_too_large && !spool.has_room_for(count, size)
        {
            sleep(ROOM_PAUSE).await;
        }
        self.is_reserved.set(true);
        let taken = match note(spool.next_sequence(), records.len()).await {
            Ok(()) => Ok(self.push_in_row(spool, records).await),
            Err(error) => Err(error),
        };
        self.is_reserved.set(false);
        self.is_free.raise();
        self.push_overflow();
        self.has_pushed.raise();
        taken
    }

    async fn push_in_row(&self, spool: &Spool, records: &[&[u8]]) -> usize {
        for (index, record) in records.iter().enumerate() {
            loop {
                match spool.push(record) {
                    Ok(_) => break,
                    Err(Full::TooLarge) => {
                        // Those behind it get other sequences than was noted.
                        self.lose(|dropped| dropped.unfit += 1);
                        return index + 1;
                    }
                    Err(Full::Messages | Full::Bytes) => return index,
                    Err(Full::Batch) => {
                        if self.commit(spool).await != Outcome::Written {
                            sleep(RETRY).await;
                        }
                    }
                }
            }
        }
        records.len()
    }

    /// Waits until the log has what it was given.
    pub(crate) async fn settle(&self) {
        let Some(spool) = &self.spool else { return };
        while self.commit(spool).await != Outcome::Written {
            sleep(RETRY).await;
        }
    }

    /// Takes a record that waits in memory only; the oldest one goes when there is no room.
    pub(crate) fn keep(&self, record: Vec<u8>) {
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
    pub(crate) fn next_direct(&self) -> Option<Vec<u8>> {
        let record = self.direct.borrow_mut().pop_front()?;
        self.direct_bytes.set(self.direct_bytes.get() - record.len());
        Some(record)
    }

    /// What the link had no room for.
    pub(crate) fn put_back(&self, record: Vec<u8>) {
        self.direct_bytes.set(self.direct_bytes.get() + record.len());
        self.direct.borrow_mut().push_front(record);
    }

    pub(crate) fn direct_len(&self) -> usize {
        self.direct.borrow().len()
    }

    /// Those above QoS 0 of the records that wait in memory only.
    pub(crate) fn direct_acknowledged_count(&self) -> usize {
        let is_acknowledged = |record: &&Vec<u8>| {
            Record::decode(record).is_some_and(|record| record.qos != QoS::AtMostOnce)
        };
        self.direct.borrow().iter().filter(is_acknowledged).count()
    }

    /// Whether half of the memory queue is free: for those who can wait.
    pub(crate) fn has_direct_room(&self) -> bool {
        self.direct_len() < self.direct_messages_max.div_ceil(2)
            && self.direct_bytes.get() < self.direct_bytes_max.div_ceil(2)
            && self.overflow.borrow().is_empty()
    }

    /// More waits for room in the log than memory should hold: nothing more should be taken from the shards.
    pub(crate) fn is_flooded(&self) -> bool {
        self.overflow_bytes.get() > self.direct_bytes_max
    }

    /// Messages that are in no log yet and not dropped either.
    pub(crate) fn is_settled(&self) -> bool {
        let progress = self.progress.borrow();
        let is_empty = |list: &[Option<Generation>]| list.iter().all(Option::is_none);
        self.overflow.borrow().is_empty()
            && is_empty(&progress.open)
            && is_empty(&progress.committing)
    }

    /// The oldest message of a shard that the log does not have yet.
    pub(crate) fn oldest_unwritten(&self, shard: ShardId) -> Option<Generation> {
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

    pub(crate) fn lose(&self, count: impl FnOnce(&mut Dropped)) {
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
                let (from, in_flight) = self.sent(spool);
                let count = spool.make_room(from, &in_flight, record.len());
                self.lose(|dropped| dropped.full += count);
                match spool.push(record) {
                    // What is being written can be dropped when it is written.
                    Err(Full::Messages | Full::Bytes) if spool.is_writing() => Err(Full::Batch),
                    Err(Full::Messages | Full::Bytes) => {
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

    /// What a full log may drop: everything from the first sequence on, but what is in flight.
    fn sent(&self, spool: &Spool) -> (u64, Vec<u64>) {
        let unsent = self.unsent.get();
        match self.link.get() {
            Some(link) => link.borrow().droppable(spool.floor(), unsent),
            None => (unsent, Vec::new()),
        }
    }

    fn overflow(&self, origin: Origin, record: Vec<u8>) {
        self.overflow_bytes.set(self.overflow_bytes.get() + record.len());
        self.overflow.borrow_mut().push_back((origin, record));
    }

    /// Gives memory back that was needed for what has left.
    pub(crate) fn trim(&self) {
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
        let is_blocking = match self.is_blocking.get() {
            true => filled >= LET_GO_PERCENT || !self.overflow.borrow().is_empty(),
            false => filled >= HOLD_PERCENT,
        };
        if self.is_blocking.replace(is_blocking) != is_blocking {
            self.has_committed.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::process_tests::{child, on_a_disk_of_its_own, survived};
    use crate::disk::tests::settings;
    use crate::disk::{SpoolSettings, SyncPolicy};
    use crate::executor::each_io::{for_each_io, run};
    use crate::system::folder::Folder;
    use futures_lite::future::poll_once;
    use std::path::Path;
    use std::time::Duration;

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

    fn numbered(number: u64, size: usize) -> Vec<u8> {
        let mut record = vec![b'.'; size];
        record[..8].copy_from_slice(&number.to_le_bytes());
        record
    }

    async fn numbers_in(spool: &Spool) -> Vec<u64> {
        let mut found = Vec::new();
        let mut from = spool.floor();
        loop {
            let chunk = spool.read(from, 1 << 20, 1000).await.unwrap();
            if chunk.is_empty() {
                return found;
            }
            for (sequence, record) in chunk.iter() {
                found.push(u64::from_le_bytes(record[..8].try_into().unwrap()));
                from = sequence + 1;
            }
        }
    }

    #[test]
    fn a_burst_before_the_first_commit_loses_its_oldest() {
        for_each_io(|io| {
            run(io, async {
                for (messages_max, bytes_max) in [(100, 1 << 20), (100_000, 64 << 10)] {
                    let folder = Folder::new("burst");
                    let batch_size_max = 1 << 20;
                    let settings =
                        SpoolSettings { messages_max, bytes_max, batch_size_max, ..settings() };
                    let spool = Spool::open(&folder.path, settings).await.unwrap();
                    let bridge = BridgeSettings::new("north");
                    assert_eq!(bridge.when_full, WhenFull::DropOldest);
                    let outbound = Outbound::new(&bridge, Some(spool), 1, Rc::default());
                    for number in 1..=1000 {
                        let generation = Generation::from_number(number);
                        outbound.store(Origin { shard: 0, generation }, numbered(number, 200));
                    }
                    let spool = outbound.spool().unwrap();
                    assert_eq!(outbound.commit(spool).await, Outcome::Written);
                    assert_eq!(outbound.oldest_unwritten(0), None);
                    let kept = numbers_in(spool).await;
                    let dropped = outbound.dropped.get().full;
                    assert!(kept.len() as u64 >= messages_max.min(250), "{}", kept.len());
                    assert_eq!(kept, (dropped + 1..=1000).collect::<Vec<_>>());
                }
            });
        });
    }

    /// On a file system of 400 KiB.
    async fn fill_the_disk(directory: &Path, when_full: WhenFull) {
        let ballast = directory.join("ballast");
        std::fs::write(&ballast, vec![1; 100 << 10]).unwrap();
        let settings = SpoolSettings {
            bytes_max: 10 << 20,
            segment_size: 32 << 10,
            sync: SyncPolicy::EachBatch,
            ..settings()
        };
        let spool = Spool::open(&directory.join("spool"), settings).await.unwrap();
        let bridge = BridgeSettings { when_full, ..BridgeSettings::new("north") };
        let outbound = Rc::new(Outbound::new(&bridge, Some(spool), 1, Rc::default()));
        let work = publish_beyond(&outbound, &ballast, when_full);
        futures_lite::future::or(outbound.clone().run_commits(), work).await;
    }

    async fn publish_beyond(outbound: &Outbound, ballast: &Path, when_full: WhenFull) {
        let mut number = 0;
        let mut publish = async |count| {
            for _ in 0..count {
                number += 1;
                let generation = Generation::from_number(number);
                outbound.store(Origin { shard: 0, generation }, numbered(number, 1000));
                if number % 20 > 0 {
                    continue;
                }
                let until = std::time::Instant::now() + Duration::from_secs(60);
                while outbound.oldest_unwritten(0).is_some() {
                    assert!(std::time::Instant::now() < until, "publishers are held");
                    sleep(Duration::from_millis(1)).await;
                }
            }
            number
        };
        let last = publish(1000).await;
        let spool = outbound.spool().unwrap();
        let kept = numbers_in(spool).await;
        let dropped = outbound.dropped.get().full;
        assert!(dropped > 400 && kept.len() > 100, "{dropped} dropped, {} kept", kept.len());
        assert_eq!(dropped + kept.len() as u64, last, "each is in the log or counted");
        let first = if when_full == WhenFull::DropOldest { dropped } else { 0 };
        assert_eq!(kept, (first + 1..=first + kept.len() as u64).collect::<Vec<_>>());
        // With space nothing is dropped any more, once it was tried again.
        std::fs::remove_file(ballast).unwrap();
        sleep(RETRY + Duration::from_millis(200)).await;
        let last = publish(20).await;
        assert_eq!(outbound.dropped.get().full, dropped);
        let kept = numbers_in(spool).await;
        assert_eq!(kept[kept.len() - 20..], (last - 19..=last).collect::<Vec<_>>());
    }

    /// On a file system of 400 KiB, where a second link to each file keeps what it takes.
    async fn fill_a_disk_that_keeps_all(directory: &Path) {
        let settings = SpoolSettings {
            bytes_max: 10 << 20,
            segment_size: 16 << 10,
            sync: SyncPolicy::EachBatch,
            ..settings()
        };
        let (log, links) = (directory.join("spool"), directory.join("links"));
        let spool = Spool::open(&log, settings).await.unwrap();
        let bridge = BridgeSettings::new("north");
        assert_eq!(bridge.when_full, WhenFull::DropOldest);
        let outbound = Rc::new(Outbound::new(&bridge, Some(spool), 1, Rc::default()));
        let work = publish_in_vain(&outbound, &log, &links);
        futures_lite::future::or(outbound.clone().run_commits(), work).await;
    }

    async fn publish_in_vain(outbound: &Outbound, log: &Path, links: &Path) {
        let mut number = 0;
        let mut publish = async |count| {
            for _ in 0..count {
                number += 1;
                let generation = Generation::from_number(number);
                outbound.store(Origin { shard: 0, generation }, numbered(number, 1000));
                let until = std::time::Instant::now() + Duration::from_secs(60);
                while outbound.oldest_unwritten(0).is_some() {
                    assert!(std::time::Instant::now() < until, "publishers are held");
                    sleep(Duration::from_millis(1)).await;
                }
            }
            number
        };
        let before = publish(150).await;
        assert_eq!(outbound.dropped.get().full, 0);
        std::fs::create_dir(links).unwrap();
        for entry in std::fs::read_dir(log).unwrap() {
            let entry = entry.unwrap();
            std::fs::hard_link(entry.path(), links.join(entry.file_name())).unwrap();
        }
        let ballast = std::fs::File::create(links.join("ballast")).unwrap();
        while std::io::Write::write(&mut &ballast, &[1; 4096]).is_ok_and(|size| size == 4096) {}
        // Several tries.
        let mut last = before;
        for _ in 0..3 {
            last = publish(20).await;
            sleep(RETRY + Duration::from_millis(200)).await;
        }
        let spool = outbound.spool().unwrap();
        let kept = numbers_in(spool).await;
        let dropped = outbound.dropped.get().full;
        assert_eq!(dropped + kept.len() as u64, last, "each is in the log or counted");
        let of_backlog = kept.iter().filter(|&&number| number <= before).count();
        assert!(of_backlog > 50 && dropped >= 40, "{of_backlog} of {before} kept");
        std::fs::remove_dir_all(links).unwrap();
        let last = publish(20).await;
        assert_eq!(outbound.dropped.get().full, dropped);
        let kept = numbers_in(spool).await;
        assert_eq!(kept[kept.len() - 20..], (last - 19..=last).collect::<Vec<_>>());
    }

    #[test]
    fn a_disk_that_deletion_does_not_empty_keeps_the_backlog() {
        const NAME: &str = "a_disk_that_deletion_does_not_empty_keeps_the_backlog";
        if let Some((io, directory)) = child() {
            return run(io, async {
                fill_a_disk_that_keeps_all(&directory).await;
                survived();
            });
        }
        let name = format!("links::outbound::tests::{NAME}");
        for_each_io(|io| on_a_disk_of_its_own(&name, io));
    }

    fn check_full_disk(test: &str, when_full: WhenFull) {
        if let Some((io, directory)) = child() {
            return run(io, async {
                fill_the_disk(&directory, when_full).await;
                survived();
            });
        }
        let name = format!("links::outbound::tests::{test}");
        for_each_io(|io| on_a_disk_of_its_own(&name, io));
    }

    #[test]
    fn a_full_disk_drops_whole_files_and_holds_nobody() {
        check_full_disk("a_full_disk_drops_whole_files_and_holds_nobody", WhenFull::DropOldest);
    }

    #[test]
    fn a_full_disk_drops_what_arrives_and_holds_nobody() {
        check_full_disk("a_full_disk_drops_what_arrives_and_holds_nobody", WhenFull::DropNewest);
    }
}
