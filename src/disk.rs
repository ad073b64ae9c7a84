//! The bounded log on disk of one bridge connection: messages that the remote has not acknowledged, in order.
//!
//! # The caller
//! The caller is a task of one side executor. All methods take `&self`: tasks share the log as `Rc<Spool>`, and push,
//! mark and read while a commit is under way. Nothing is borrowed across an await.
//!
//! # The way of a message
//! 1. [`Spool::push`] copies it into the batch in memory and gives it its sequence. No I/O.
//! 2. [`Spool::commit`] writes the batch and, with [`SyncPolicy::EachBatch`], syncs it. When it returns `Ok(end)`, every
//!    sequence below `end` is in the log: **only now acknowledge it to its publisher**. Messages that are pushed while a
//!    commit runs go with the next one, so the slower the disk, the larger the batches.
//! 3. [`Spool::read`] gives committed messages that wait, in order, a chunk at a time; [`Chunk::is_empty`] says that there
//!    is none from that sequence on. Messages that were committed lately come from memory.
//! 4. QoS 2: when PUBREC comes, [`Spool::received`], then a commit, **then** PUBREL: so after SIGKILL the message is
//!    released and not sent again. When PUBACK or PUBCOMP comes (or the message is given up), [`Spool::done`]; it needs no
//!    commit of its own, but commit at least once a second while there is something to write: until then SIGKILL makes QoS 1
//!    repeat these messages, and their disk space is not free.
//!
//! # Sequences
//! Sequences rise and are never given out twice in one directory's life, also after a complete drain. They have **gaps**:
//! messages that were done out of order or dropped, and, after damage or a reboot, a jump of
//! billions, so that no sequence that the remote may remember comes again. A jump leads half a round away modulo 65,000: packet
//! ids that are sequences modulo 65,000 are unique among up to 32,500 messages in flight.
//!
//! # What a commit costs
//! A commit is one write of the whole batch (its bytes are copied once for it), with `EachBatch` one fdatasync. It costs
//! nothing when nothing changed. A commit that has only `done` marks does not sync. Once for each segment, a file is created, it
//! and its directory are synced (whatever the policy: older segments are deleted because its head has their states), and the
//! segments whose messages are all done are deleted, a file each. If the future of a commit is dropped, the next commit does
//! its work.
//!
//! # When a commit fails
//! [`SpoolError`] says what, where and what to do. No message is lost: the batch stays in memory, further pushes are taken
//! until [`Full::Batch`], reads and marks go on, and the next commit tries again, so commit with a pause of, say, a second.
//! Segments that are drained are deleted first, which needs no space. Until a commit succeeds acknowledge nothing.
//!
//! # Bounds
//! Files: `bytes_max`, exceeded by at most one batch, the records of states and a segment about to be deleted. Memory:
//! two batches, `memory_max`, one chunk, and some 5 bytes a message. [`Full`] hands the decision to the caller: hold back, drop
//! the message, or [`Spool::make_room`]. Space comes back by whole segments. Where no publisher is to wait for a disk that is
//! full, [`Spool::free_segment`] makes space, and [`Spool::abandon`] gives up messages that could not be written.
//!
//! # Power loss
//! `EachBatch` loses nothing that was committed. `Interval` and `Never` may lose messages that were not synced, and QoS 2
//! messages among the last may then be repeated.

mod error;
mod files;
mod lock;
#[cfg(test)]
pub(crate) mod process_tests;
mod reader;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::executor::{self, Semaphore, sleep};
use crate::store::log::{Freed, Log, Step};
use crate::store::states::Mark;
use files::Files;
use reader::Reader;

pub use crate::store::recovery::{Cut, CutKind};
pub use crate::store::states::State;
pub use crate::store::{Backlog, Full, SpoolSettings, SyncPolicy};
pub use error::SpoolError;
pub use lock::refuse_if_taken;
pub use reader::Chunk;

/// The log of one bridge connection; see the module.
#[derive(Debug)]
pub struct Spool {
    inner: Rc<Inner>,
    reader: RefCell<Reader>,
    cuts: Vec<Cut>,
    _lock: lock::Lock,
}

#[derive(Debug)]
struct Inner {
    log: RefCell<Log>,
    files: Rc<Files>,
    /// The semaphore lets one commit run at a time.
    commit_permit: Semaphore,
    /// The error of a sync in the background; the next commit returns it.
    failure: RefCell<Option<SpoolError>>,
    /// Whether the last commit failed.
    has_failed: Cell<bool>,
}

impl Spool {
    /// Opens the log in `directory`, which is made if it is missing, and recovers its messages. An error if another
    /// process (or another spool of this one) has the directory open. Every segment is read once.
    pub async fn open(directory: &Path, settings: SpoolSettings) -> Result<Spool, SpoolError> {
        let settings = settings.bounded();
        let lock = lock::Lock::take(directory)?;
        let (files, found, cuts) = Files::open(directory).await?;
        for cut in &cuts {
            tracing::warn!(directory = %directory.display(), "spool: {cut}");
        }
        let sync = settings.sync;
        let log = Log::new(settings, files::boot_id(), random_key(), found);
        let inner = Rc::new(Inner {
            log: RefCell::new(log),
            files,
            commit_permit: Semaphore::new(1),
            failure: RefCell::new(None),
            has_failed: Cell::new(false),
        });
        if let SyncPolicy::Interval(interval_ms) = sync {
            let weak = Rc::downgrade(&inner);
            executor::spawn(async move {
                loop {
                    sleep(Duration::from_millis(interval_ms.max(1))).await;
                    let Some(inner) = weak.upgrade() else { return };
                    if let Err(failure) = inner.sync().await {
                        inner.failure.replace(Some(failure));
                    }
                }
            });
        }
        Ok(Spool { inner, reader: RefCell::default(), cuts, _lock: lock })
    }

    pub fn directory(&self) -> PathBuf {
        self.inner.files.directory().to_owned()
    }

    /// The cuts of recovery; a warning for each was logged already.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Copies a message into the batch; it is readable, and safe from SIGKILL, after the next commit.
    pub fn push(&self, message: &[u8]) -> Result<u64, Full> {
        self.push_with(|batch| batch.extend_from_slice(message))
    }

    /// Like [`Spool::push`]; `write` appends the message to the batch, and does nothing else to it.
    pub fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<u64, Full> {
        self.inner.log.borrow_mut().push(time_ms(), write)
    }

    /// Whether the log has room for a message of that size ([`Full::Batch`] apart).
    pub fn has_room(&self, size: usize) -> bool {
        self.inner.log.borrow().has_room(size)
    }

    /// As [`Spool::has_room`], for `count` messages of `size` bytes together.
    pub fn has_room_for(&self, count: u64, size: usize) -> bool {
        self.inner.log.borrow().has_room_for(count, size)
    }

    /// Whether a commit would do anything.
    pub fn wants_commit(&self) -> bool {
        self.inner.log.borrow().wants_commit()
    }

    /// Puts everything that was pushed and marked before the call into the log. Every sequence below the returned one
    /// is there.
    pub async fn commit(&self) -> Result<u64, SpoolError> {
        let _permit = self.inner.commit_permit.acquire().await.expect("it is never closed");
        let outcome = self.commit_with_permit().await;
        self.inner.has_failed.set(outcome.is_err());
        outcome
    }

    async fn commit_with_permit(&self) -> Result<u64, SpoolError> {
        if let Some(failure) = self.inner.failure.take() {
            return Err(failure);
        }
        // Messages that are pushed from here on wait for the next commit, as publishers wait for this one to return.
        let mut may_seal = true;
        loop {
            let step = self.inner.log.borrow_mut().next_step(&mut may_seal);
            let Some(step) = step else { break };
            if let Err(error) = self.inner.run(step).await
                && !self.inner.log.borrow().can_make_space()
            {
                return Err(error);
            }
        }
        Ok(self.inner.log.borrow().committed())
    }

    /// Every sequence below this one is in the log.
    pub fn committed(&self) -> u64 {
        self.inner.log.borrow().committed()
    }

    /// The sequence that the next push gets, if its message is taken.
    pub fn next_sequence(&self) -> u64 {
        self.inner.log.borrow().next_sequence()
    }

    /// The next committed messages from `from` on that wait (neither received nor done), in order: up to `count_max`,
    /// and up to `bytes_max` bytes together (the first may have more). The chunk may have fewer messages than there
    /// are, but it is empty only if there is none. At least 256 KiB of a file are read at once, and the rest is kept
    /// for the next call.
    ///
    /// One reader reads at a time; a second one that is called meanwhile uses a window of its own.
    pub async fn read(
        &self,
        from: u64,
        bytes_max: usize,
        count_max: usize,
    ) -> Result<Chunk, SpoolError> {
        let mut reader = self.reader.take();
        let chunk = reader.read(&self.inner, from, bytes_max, count_max).await;
        self.reader.replace(reader);
        chunk
    }

    /// Notes that the remote has the message: PUBREC came. `false`: that, or more, was known, or the message is not
    /// committed.
    pub fn received(&self, sequence: u64) -> bool {
        self.inner.log.borrow_mut().mark(sequence, Mark::Received)
    }

    /// Notes that nothing is left to do for the message. `false`: that was known, or the message is not committed.
    pub fn done(&self, sequence: u64) -> bool {
        self.inner.log.borrow_mut().mark(sequence, Mark::Done)
    }

    /// `None`: the message is done, or not committed.
    pub fn state(&self, sequence: u64) -> Option<State> {
        self.inner.log.borrow().state(sequence)
    }

    /// All sequences below this one are done: reading begins here.
    pub fn floor(&self) -> u64 {
        self.inner.log.borrow().floor()
    }

    /// Whether a commit is needed before the PUBRELs of [`Spool::received_unfinished`] may leave.
    pub fn has_unrecorded_received(&self) -> bool {
        self.inner.log.borrow().has_unrecorded_received()
    }

    /// The messages whose PUBREC came and that are not done, in order; they are few.
    pub fn received_unfinished(&self) -> Vec<u64> {
        self.inner.log.borrow().states().received().collect()
    }

    /// Up to `count_max` committed messages from `from` on that are not done, in order.
    pub fn unfinished(&self, from: u64, count_max: usize) -> Vec<(u64, State)> {
        self.inner.log.borrow().unfinished(from, count_max)
    }

    /// Frees the bytes that the last read has read in advance, if no message waits.
    pub fn trim(&self) {
        if self.inner.log.borrow().next_waiting(0).is_none()
            && let Ok(mut reader) = self.reader.try_borrow_mut()
        {
            reader.trim();
        }
    }

    pub fn backlog(&self) -> Backlog {
        self.inner.log.borrow().backlog()
    }

    /// Drops waiting messages from `from` on, oldest first, but none `in_flight` (in order), until a message of `size`
    /// bytes has room; returns how many were dropped. Messages in flight, and received ones, are better not dropped. As
    /// space comes back by whole segments, up to two segments' messages may go at once; their files go with the next
    /// commit. Messages that no commit has begun to write are dropped last, and their sequences may come again.
    pub fn make_room(&self, from: u64, in_flight: &[u64], size: usize) -> u64 {
        self.inner.log.borrow_mut().make_room(from, in_flight, size)
    }

    /// Whether a commit is under way, or has failed and is to be repeated. [`Spool::make_room`] cannot drop the
    /// messages that it writes, nor those behind them.
    pub fn is_writing(&self) -> bool {
        self.inner.log.borrow().is_writing()
    }

    /// Whether messages were pushed that are not committed.
    pub fn has_uncommitted(&self) -> bool {
        self.inner.log.borrow().has_uncommitted()
    }

    /// The bytes of the messages that were pushed and are not committed.
    pub fn uncommitted_size(&self) -> usize {
        self.inner.log.borrow().uncommitted_size()
    }

    /// For a full disk: drops all messages of the oldest file that can be deleted then. None of them was sent (`from`
    /// is the first that was not sent, and none is `in_flight`). The next commit deletes the file before it writes.
    /// `None`: there is no such file.
    pub fn free_segment(&self, from: u64, in_flight: &[u64]) -> Option<Freed> {
        // A file that is open keeps its space.
        if let Ok(mut reader) = self.reader.try_borrow_mut() {
            *reader = Reader::default();
        }
        self.inner.log.borrow_mut().free_segment(from, in_flight)
    }

    /// Drops all messages that were pushed and are not committed, and returns how many. Their sequences may come again.
    /// `None`: a commit has succeeded meanwhile, and nothing was dropped.
    pub async fn abandon(&self) -> Option<u64> {
        let _permit = self.inner.commit_permit.acquire().await.expect("it is never closed");
        self.inner.has_failed.get().then(|| self.inner.log.borrow_mut().abandon())
    }

    /// Commits, and syncs whatever the policy: for a clean stop. The directory is free when the spool is dropped.
    /// Without this call the log is left as after SIGKILL.
    pub async fn sync(&self) -> Result<(), SpoolError> {
        self.commit().await?;
        self.inner.sync().await
    }
}

impl Inner {
    async fn run(&self, step: Step) -> Result<(), SpoolError> {
        let outcome = self.files.run(&step).await;
        let mut log = self.log.borrow_mut();
        match (outcome, &step) {
            (Ok(()), step) => log.step_done(step),
            // A file that could not be deleted is no reason to stop: it is tried again when the next segment begins.
            (Err(error), Step::Delete { .. }) => {
                log.step_failed(&step);
                tracing::warn!("spool: {error}");
            }
            (Err(error), _) => {
                log.step_failed(&step);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Syncs beside the steps of a commit.
    async fn sync(&self) -> Result<(), SpoolError> {
        let segment = self.log.borrow_mut().begin_sync();
        let Some(segment) = segment else { return Ok(()) };
        let outcome = self.files.sync(segment).await;
        if outcome.is_err() {
            self.log.borrow_mut().step_failed(&Step::Sync { segment });
        }
        outcome
    }
}

/// The keys of std's hash maps come from the system's random numbers.
fn random_key() -> u64 {
    RandomState::new().hash_one(time_ms())
}

fn time_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
