//! Commits of what was pushed to the log, and what goes where they fail.
//!
//! A full log drops by policy, or holds publishers back: connections that publish messages which it stores are not
//! read, on every shard (`FromBridges::Block`). On a full disk `drop-oldest` gives up the oldest file of which no
//! message was sent, and writes again at once. Where there is none, and with `drop-newest`, what was not written is
//! dropped and its publishers are answered, and so is everything that comes until the next try a second later. Any
//! other failure of a write gets one more try first.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Outbound, Progress};
use crate::config::bridge::WhenFull;
use crate::disk::{Full, Spool};
use crate::executor::sleep;
use crate::links::deletions::Verdict;

/// After a commit that failed, and between two looks for room in a full log.
pub(super) const RETRY: Duration = Duration::from_millis(1_000);
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// What needs no commit of its own is committed this often.
const IDLE_COMMIT: Duration = Duration::from_millis(1_000);

/// Between two lines about a log that cannot be written.
const SILENCE: Duration = Duration::from_secs(10);

/// How a commit went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Written,
    /// Files that are deleted would help.
    NoSpace,
    /// It is no fault of the disk: publishers wait, whatever a full log would drop.
    Passing,
    Failed,
}

impl Outbound {
    /// Commits what was pushed, as long as the connection lives.
    pub(crate) async fn run_commits(self: Rc<Self>) {
        let Some(spool) = &self.spool else { return };
        let mut failure_count = 0;
        loop {
            futures_lite::future::or(self.has_pushed.wait(), sleep(IDLE_COMMIT)).await;
            self.tell();
            while spool.wants_commit() || !self.overflow.borrow().is_empty() {
                let outcome = self.commit(spool).await;
                if outcome != Outcome::Written {
                    failure_count += u32::from(outcome != Outcome::Passing);
                    let may_drop = match outcome {
                        Outcome::NoSpace => true,
                        Outcome::Failed => failure_count > 1,
                        Outcome::Written | Outcome::Passing => false,
                    };
                    if may_drop && self.drop_unwritten(spool, outcome).await {
                        continue;
                    }
                    self.tell();
                    self.pause(spool).await;
                    continue;
                }
                failure_count = 0;
                if !self.push_overflow() {
                    futures_lite::future::or(self.is_free.wait(), sleep(ROOM_PAUSE)).await;
                }
            }
        }
    }

    /// Until the next try.
    async fn pause(&self, spool: &Spool) {
        let has_waiting = spool.has_uncommitted() || !self.overflow.borrow().is_empty();
        let may_wait = self.when_full == WhenFull::Hold || has_waiting || self.is_shedding.get();
        match may_wait {
            true => sleep(RETRY).await,
            // Only marks could not be written: a message that comes is not to wait for their next try.
            false => futures_lite::future::or(self.has_pushed.wait(), sleep(RETRY)).await,
        }
        self.is_shedding.set(false);
    }

    /// After a commit that failed, where publishers are not to wait: drops what `when_full` says. `true`: there is space now,
    /// so try at once.
    async fn drop_unwritten(&self, spool: &Spool, outcome: Outcome) -> bool {
        let has_waiting = spool.has_uncommitted() || !self.overflow.borrow().is_empty();
        if self.when_full == WhenFull::Hold || !has_waiting {
            return false;
        }
        if self.when_full == WhenFull::DropOldest
            && outcome == Outcome::NoSpace
            && self.may_delete(spool)
        {
            let (from, in_flight) = self.sent(spool);
            if let Some(freed) = spool.free_segment(from, &in_flight) {
                self.deletions.borrow_mut().note_deleted(freed.size);
                self.shed(freed.messages);
                return true;
            }
        }
        let Some(count) = spool.abandon().await else { return true };
        let overflowed = std::mem::take(&mut *self.overflow.borrow_mut()).len() as u64;
        self.overflow_bytes.set(0);
        {
            let Progress { open, committing } = &mut *self.progress.borrow_mut();
            open.fill(None);
            committing.fill(None);
        }
        self.shed(count + overflowed);
        self.is_shedding.set(true);
        self.has_committed.raise();
        false
    }

    /// Whether a file of the log goes because the disk is full.
    fn may_delete(&self, spool: &Spool) -> bool {
        let wanted = spool.uncommitted_size() as u64;
        let verdict = self.deletions.borrow_mut().judge(Instant::now(), wanted);
        if let Verdict::Vain(pause) = verdict {
            warn!(
                "bridge: files of its log were deleted and the disk is as full as before: the rest stays, and what \
                 arrives is dropped until there is space; another file may go in {} s",
                pause.as_secs()
            );
        }
        verdict == Verdict::May
    }

    pub(super) fn shed(&self, count: u64) {
        self.lose(|dropped| dropped.full += count);
        self.shed.set(self.shed.get() + count);
    }

    /// Says, now and then, why commits fail and how many messages were dropped for it.
    fn tell(&self) {
        let now = Instant::now();
        let (failure, count) = (self.failure.borrow(), self.shed.get());
        let has_news = count > 0 || self.is_failure_new.get() && !failure.is_empty();
        if !has_news || self.silent_until.get().is_some_and(|until| now < until) {
            return;
        }
        match self.when_full {
            WhenFull::Hold => warn!("bridge: {failure}; publishers wait until then"),
            _ if failure.is_empty() => {
                warn!("bridge: its log can be written again; {count} more messages were dropped");
            }
            _ => warn!(
                "bridge: {failure}; its publishers do not wait: {count} messages were dropped"
            ),
        }
        self.is_failure_new.set(false);
        self.shed.set(0);
        self.silent_until.set(Some(now + SILENCE));
    }

    /// One commit. On failure everything stays as it is, for the next try.
    pub(crate) async fn commit(&self, spool: &Spool) -> Outcome {
        let _turn = self.turn.acquire().await.expect("it is never closed");
        {
            let Progress { open, committing } = &mut *self.progress.borrow_mut();
            for (open, committing) in open.iter_mut().zip(committing) {
                let opened = open.take();
                *committing = committing.take().or(opened);
            }
        }
        let size = spool.uncommitted_size() as u64;
        let outcome = match spool.commit().await {
            Ok(_) => {
                self.deletions.borrow_mut().note_written(size);
                self.progress.borrow_mut().committing.fill(None);
                self.failure.borrow_mut().clear();
                Outcome::Written
            }
            Err(error) => {
                let text = error.to_string();
                let is_new = *self.failure.borrow() != text;
                self.is_failure_new.set(is_new || self.is_failure_new.get());
                self.failure.replace(text);
                match &error {
                    error if error.wants_space() => Outcome::NoSpace,
                    error if error.is_passing() => Outcome::Passing,
                    _ => Outcome::Failed,
                }
            }
        };
        self.update_hold();
        self.has_committed.raise();
        self.has_work.raise();
        outcome
    }

    /// Pushes what overflowed; `false` when the log has no room for the first of it.
    pub(super) fn push_overflow(&self) -> bool {
        if self.is_reserved.get() {
            return false;
        }
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
}
