//! The log as a state machine without I/O: what to write next, what may be deleted, what is full, what is not done.
//!
//! [`Log::next_step`] says one thing to do with the files; [`Log::step_done`] or [`Log::step_failed`] says how it went. A
//! step that was never answered (its future was dropped) is given out again.
//!
//! ```text
//! push -> open batch --seal--> sealed batch --Write, Sync by policy--> in a segment, committed
//! ```
//! - A sealed batch does not change: when a write fails half-way it is written again, the same bytes at the same place.
//! - After a failed sync nothing is known about the segment's unsynced bytes: the batch goes into a new segment. What an
//!   older segment holds from a newer one's first sequence on does not count.
//! - A segment's head holds all states, and is synced before any older segment is deleted: deletion loses no state.
//! - A segment is deleted when it is recorded elsewhere that all its messages are done or received, so a segment that is
//!   missing is noticed. Only after a write has failed, maybe for lack of space, is it deleted at once.

use std::collections::VecDeque;
use std::rc::Rc;

use super::batch::{Batch, Changes};
use super::format::{self, Format, Head, MESSAGE_OVERHEAD, RECORD_SIZE_MAX};
use super::segment::{Run, Segment};
use super::states::{Mark, Span, State, States};
use super::{Backlog, Full, SpoolSettings, SyncPolicy};

/// What is to be done with the files next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new file with these bytes, synced, and the directory synced.
    Create {
        segment: u64,
        head: Vec<u8>,
    },
    /// States and messages, at the end of the segment.
    Write {
        segment: u64,
        offset: u64,
        states: Vec<u8>,
        messages: Rc<Vec<u8>>,
    },
    Sync {
        segment: u64,
    },
    /// The segment has only so many bytes that count.
    Truncate {
        segment: u64,
        size: u64,
    },
    Delete {
        segment: u64,
    },
}

/// What is being written; it does not change until it is.
#[derive(Debug)]
struct Sealed {
    run: Run,
    bytes: Rc<Vec<u8>>,
    changes: Changes,
    /// Written, and the policy wants it synced.
    written: bool,
}

/// Messages that are written, kept in memory for a link that keeps up.
#[derive(Debug)]
pub struct Recent {
    pub run: Run,
    pub bytes: Rc<Vec<u8>>,
}

#[derive(Debug)]
pub struct Log {
    settings: SpoolSettings,
    boot: [u8; 16],
    /// Of the checks of all records.
    key: u64,
    states: States,
    /// By id, ascending. The last takes the writes if `active`.
    segments: VecDeque<Segment>,
    active: bool,
    /// A batch was given up: the next begins a new segment, as one may have been begun that says so.
    is_closed: bool,
    /// Behind what counts of the last segment may be such a batch.
    is_soiled: bool,
    /// The first segment that is ours to cut.
    first_own_segment: u64,
    /// The active segment has bytes that were not synced.
    unsynced: bool,
    next_segment: u64,
    open: Batch,
    sealed: Option<Sealed>,
    changes: Changes,
    /// Batches that were sealed, and the last of them that is in a segment.
    sealed_count: u64,
    recorded: u64,
    /// The last write failed.
    is_short: bool,
    recent: VecDeque<Recent>,
    recent_size: usize,
    /// Received messages whose segment is gone.
    orphans: u64,
    /// Sums over `segments`: bytes of files that are not all done; messages that are not done, and their bytes.
    live_size: u64,
    unfinished: u64,
    unfinished_size: u64,
    /// Of all files.
    files_size: u64,
}

/// A segment that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Those that were dropped.
    pub messages: u64,
    /// Of its file.
    pub size: u64,
}

/// What recovery found.
#[derive(Debug)]
pub struct Found {
    pub states: States,
    pub segments: VecDeque<Segment>,
    pub next_segment: u64,
    pub next_sequence: u64,
    pub orphans: u64,
}

impl Log {
    /// `key`: a random number that nobody can know.
    pub fn new(settings: SpoolSettings, boot: [u8; 16], key: u64, found: Found) -> Log {
        let mut log = Log {
            settings,
            boot,
            key,
            states: found.states,
            segments: found.segments,
            active: false,
            is_closed: false,
            is_soiled: false,
            first_own_segment: found.next_segment,
            unsynced: false,
            next_segment: found.next_segment,
            open: Batch::new(found.next_sequence),
            sealed: None,
            changes: Changes::default(),
            sealed_count: 0,
            recorded: 0,
            is_short: false,
            recent: VecDeque::new(),
            recent_size: 0,
            orphans: found.orphans,
            live_size: 0,
            unfinished: 0,
            unfinished_size: 0,
            files_size: 0,
        };
        for segment in &log.segments {
            log.files_size += segment.size;
            log.unfinished += segment.unfinished;
            log.unfinished_size += segment.unfinished_size;
            log.live_size += if segment.unfinished > 0 { segment.size } else { 0 };
        }
        log
    }

    /// All sequences below are in the log; pushed ones from here on are not yet.
    pub fn committed(&self) -> u64 {
        let open = self.open.first_sequence;
        self.sealed.as_ref().map_or(open, |sealed| sealed.run.first_sequence)
    }

    pub fn next_sequence(&self) -> u64 {
        self.open.run.end()
    }

    /// All sequences below are done.
    pub fn floor(&self) -> u64 {
        self.states.floor()
    }

    pub fn states(&self) -> &States {
        &self.states
    }

    pub fn recent(&self) -> &VecDeque<Recent> {
        &self.recent
    }

    /// `None`: done, or not committed.
    pub fn state(&self, sequence: u64) -> Option<State> {
        if sequence < self.committed() { self.states.state(sequence) } else { None }
    }

    /// The first message from `from` on that is committed and waits.
    pub fn next_waiting(&self, from: u64) -> Option<u64> {
        let next = self.states.next_waiting(from);
        (next < self.committed()).then_some(next)
    }

    /// Up to `count_max` messages from `from` on that are committed and not done.
    pub fn unfinished(&self, from: u64, count_max: usize) -> Vec<(u64, State)> {
        let mut found = Vec::new();
        let mut at = self.states.next_unfinished(from);
        while found.len() < count_max
            && let Some(state) = self.state(at)
        {
            found.push((at, state));
            at = self.states.next_unfinished(at + 1);
        }
        found
    }

    pub fn segment_of(&self, sequence: u64) -> Option<&Segment> {
        self.index_of(sequence).map(|index| &self.segments[index])
    }

    pub fn has_segment(&self, id: u64) -> bool {
        self.segments.binary_search_by_key(&id, |segment| segment.id).is_ok()
    }

    /// Appends a message; `write` appends its bytes.
    pub fn push(&mut self, time_ms: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<u64, Full> {
        if self.messages() >= self.settings.messages_max {
            return Err(Full::Messages);
        }
        let sequence = self.open.run.end();
        let start = format::open_message(&mut self.open.bytes, sequence, time_ms);
        write(&mut self.open.bytes);
        let size = self.open.bytes.len() - start;
        if let Err(full) = self.judge(start, size) {
            self.open.bytes.truncate(start);
            return Err(full);
        }
        format::close_message(&mut self.open.bytes, start, self.key);
        self.open.run.add(size as u32, time_ms);
        Ok(sequence)
    }

    /// Whether a message of so many bytes has room in the log, whatever waits in the batch.
    pub fn has_room(&self, size: usize) -> bool {
        self.messages() < self.settings.messages_max
            && self.disk_size() + (size + MESSAGE_OVERHEAD) as u64 <= self.settings.bytes_max
    }

    /// `size` bytes of record are at `start` of the open batch; what was there before is not counted yet.
    fn judge(&self, start: usize, size: usize) -> Result<(), Full> {
        if size > RECORD_SIZE_MAX || size as u64 > self.settings.message_size_ceiling() {
            return Err(Full::TooLarge);
        }
        if start > 0 && start + size > self.settings.batch_size_max {
            return Err(Full::Batch);
        }
        // The record itself is in the open batch already.
        if self.disk_size() > self.settings.bytes_max {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    /// Bytes of the files that are needed, and what is about to be written.
    fn disk_size(&self) -> u64 {
        let spare =
            self.segments.back().filter(|last| last.unfinished == 0 && !self.is_spent(last));
        self.live_size + spare.map_or(0, |segment| segment.size) + self.uncommitted_size() as u64
    }

    /// Nothing in it is needed and it is large: the next write begins a new one.
    fn is_spent(&self, segment: &Segment) -> bool {
        segment.unfinished == 0 && segment.filled() * 2 >= self.settings.segment_size
    }

    fn messages(&self) -> u64 {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.run.sizes.len());
        self.unfinished + self.orphans + (sealed + self.open.count()) as u64
    }

    pub fn backlog(&self) -> Backlog {
        Backlog {
            messages: self.messages(),
            bytes: self.unfinished_size + self.uncommitted_size() as u64,
            oldest_time_ms: self.oldest_time_ms(),
            disk_bytes: self.files_size,
        }
    }

    fn oldest_time_ms(&self) -> Option<u64> {
        let kept = self.segments.iter().find(|segment| segment.unfinished > 0);
        let kept = kept.map(|segment| &segment.messages);
        if let Some(run) = kept.or(self.sealed.as_ref().map(|sealed| &sealed.run))
            && !run.is_empty()
        {
            return run.time_of(self.states.floor().max(run.first_sequence));
        }
        let open = &self.open.run;
        open.time_of(self.states.floor().max(open.first_sequence + self.open.dropped as u64))
    }

    /// Marks a committed message; `false` when it had that mark, or a higher one, or is not committed.
    pub fn mark(&mut self, sequence: u64, mark: Mark) -> bool {
        let before = self.state(sequence);
        let changes = match (before, mark) {
            (None, _) | (Some(State::Received), Mark::Received) => return false,
            _ => Span { first: sequence, end: sequence + 1, mark },
        };
        self.states.set(changes);
        self.changes.add(changes);
        self.forget_recent();
        let Some(index) = self.index_of(sequence) else {
            // Only a received message outlives its segment.
            self.orphans -= u64::from(mark == Mark::Done);
            return true;
        };
        let segment = &mut self.segments[index];
        segment.recorded_by = self.sealed_count + 1;
        segment.waiting -= u64::from(before == Some(State::Waiting));
        if mark == Mark::Done {
            let size = u64::from(segment.messages.size_of(sequence).unwrap_or(0));
            segment.unfinished -= 1;
            segment.unfinished_size -= size;
            self.unfinished -= 1;
            self.unfinished_size -= size;
            if segment.unfinished == 0 {
                self.live_size -= segment.size;
            }
        }
        true
    }

    /// Drops waiting messages from `from` on, oldest first, until one of `size` bytes has room. Says how many. What is
    /// being written cannot be dropped, nor what came behind it.
    pub fn make_room(&mut self, from: u64, size: usize) -> u64 {
        let mut dropped = 0;
        while !self.has_room(size) {
            let is_dropped = match self.next_waiting(from) {
                Some(oldest) => self.mark(oldest, Mark::Done),
                None => self.sealed.is_none() && self.open.drop_first(),
            };
            if !is_dropped {
                break;
            }
            dropped += 1;
        }
        dropped
    }

    /// Drops all messages of the oldest segment whose file can go then, and what waits in front of them: none of its messages
    /// was sent (`from` is the first that was not) or received, and another segment takes the writes. The file goes with the
    /// next commit's first step, which needs no space. `None`: there is no such segment.
    pub fn free_segment(&mut self, from: u64) -> Option<Freed> {
        let older = self.segments.iter().take(self.segments.len().saturating_sub(1));
        let mut candidates = older.filter(|segment| {
            let first = self.states.next_unfinished(segment.messages.first_sequence);
            let waits = segment.unfinished > 0 && segment.waiting == segment.unfinished;
            waits && !segment.stuck && first >= from
        });
        let segment = candidates.next()?;
        let (end, mut freed) = (segment.messages.end(), Freed { messages: 0, size: segment.size });
        while let Some(next) = self.next_waiting(from).filter(|&next| next < end) {
            self.mark(next, Mark::Done);
            freed.messages += 1;
        }
        Some(freed)
    }

    /// Of the messages that were pushed and are not committed.
    pub fn uncommitted_size(&self) -> usize {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.bytes.len());
        self.open.size() + sealed
    }

    /// Drops all messages that are not committed; marks stay. Says how many. Only between commits.
    pub fn abandon(&mut self) -> u64 {
        let first = self.committed();
        let mut dropped = self.open.count();
        if let Some(sealed) = self.sealed.take() {
            dropped += sealed.run.sizes.len();
            let later = std::mem::replace(&mut self.changes, sealed.changes);
            later.received.into_iter().chain(later.done).for_each(|span| self.changes.add(span));
            self.changes.overflow |= later.overflow;
            self.is_closed = true;
            self.soil();
        }
        self.open = Batch::new(first);
        dropped as u64
    }

    /// Bytes behind what counts of the last segment go. They would come to life again if the segment that has these sequences,
    /// too, were deleted first.
    fn soil(&mut self) {
        let last = self.segments.back();
        self.is_soiled = last.is_some_and(|last| last.id >= self.first_own_segment);
    }

    /// A batch is being written.
    pub fn is_writing(&self) -> bool {
        self.sealed.is_some()
    }

    /// What stands in `segment` from `sequence` on cannot be read, up to the record of `next`, if there is one, which begins
    /// at that offset: it counts as done. Says how many messages waited there.
    pub fn lose(&mut self, segment: u64, sequence: u64, next: Option<(u64, u64)>) -> u64 {
        let Some(segment) = self.segments.iter_mut().find(|other| other.id == segment) else {
            return 0;
        };
        if let Some((next, offset)) = next {
            segment.note_found(next, offset);
        }
        let end = next.map_or(segment.messages.end(), |(next, _)| next);
        let mut lost = 0;
        while let Some(next) = self.next_waiting(sequence).filter(|&next| next < end) {
            self.mark(next, Mark::Done);
            lost += 1;
        }
        lost
    }

    /// Messages that were pushed and are not committed.
    pub fn has_uncommitted(&self) -> bool {
        let sealed = self.sealed.as_ref().is_some_and(|sealed| !sealed.run.is_empty());
        sealed || !self.open.run.is_empty()
    }

    /// Whether messages are marked as received that are not in the log as such.
    pub fn has_unrecorded_received(&self) -> bool {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.changes);
        sealed.into_iter().chain([&self.changes]).any(Changes::may_have_received)
    }

    /// Whether [`Log::next_step`] has something.
    pub fn wants_commit(&self) -> bool {
        let pending = !(self.open.run.is_empty() && self.changes.is_empty());
        pending
            || self.sealed.is_some()
            || self.is_soiled
            || self.deletable(|segment| segment.unfinished == 0).is_some()
    }

    /// What is to be done next. With `may_seal` (which is cleared then) all that was pushed and marked until now goes into
    /// the log, else only what was sealed before. `None`: nothing is left.
    pub fn next_step(&mut self, may_seal: &mut bool) -> Option<Step> {
        if self.is_soiled
            && let Some(Segment { id, size, .. }) = self.segments.back()
        {
            return Some(Step::Truncate { segment: *id, size: *size });
        }
        if self.is_short
            && let Some(segment) = self.deletable(|segment| segment.unfinished == 0)
        {
            return Some(Step::Delete { segment });
        }
        if self.sealed.is_none() && std::mem::take(may_seal) {
            let pending = !(self.open.run.is_empty() && self.changes.is_empty());
            if pending {
                self.seal();
            }
        }
        if let Some(sealed) = &self.sealed {
            if sealed.written {
                let segment = self.segments.back()?.id;
                return Some(Step::Sync { segment });
            }
            return Some(self.write_or_create());
        }
        let is_recorded =
            |segment: &Segment| segment.unfinished == 0 && segment.recorded_by <= self.recorded;
        if let Some(segment) = self.deletable(is_recorded) {
            return Some(Step::Delete { segment });
        }
        // Received messages need no bytes, only their states, which are all written here.
        if self.live_size * 2 > self.settings.bytes_max
            && let Some(segment) = self
                .deletable(|segment| segment.waiting == 0 && segment.recorded_by <= self.recorded)
        {
            return Some(match self.unsynced() {
                Some(segment) => Step::Sync { segment },
                None => Step::Delete { segment },
            });
        }
        None
    }

    /// After a step that failed: whether files can be deleted before it is tried again.
    pub fn can_make_space(&self) -> bool {
        self.is_short && self.deletable(|segment| segment.unfinished == 0).is_some()
    }

    /// The active segment, if it has bytes that were not synced.
    pub fn unsynced(&self) -> Option<u64> {
        let active = self.segments.back().filter(|_| self.active && self.unsynced);
        active.map(|segment| segment.id)
    }

    /// The segment to sync beside the steps; what is written from now on is unsynced again. If it fails, say so with
    /// [`Log::step_failed`].
    pub fn begin_sync(&mut self) -> Option<u64> {
        let segment = self.unsynced();
        self.unsynced = false;
        segment
    }

    /// The last segment stays: it has the states.
    fn deletable(&self, is_free: impl Fn(&Segment) -> bool) -> Option<u64> {
        let older = self.segments.iter().take(self.segments.len().saturating_sub(1));
        older.filter(|segment| !segment.stuck).find(|segment| is_free(segment)).map(|s| s.id)
    }

    fn seal(&mut self) {
        let next = Batch::new(self.open.run.end());
        let mut batch = std::mem::replace(&mut self.open, next);
        batch.close_gap();
        let (first, end) = (batch.first_sequence, batch.run.first_sequence);
        self.states.set(Span { first, end, mark: Mark::Done });
        self.sealed_count += 1;
        self.sealed = Some(Sealed {
            run: batch.run,
            bytes: Rc::new(batch.bytes),
            changes: std::mem::take(&mut self.changes),
            written: false,
        });
    }

    fn write_or_create(&mut self) -> Step {
        let sealed = self.sealed.as_ref().expect("something is sealed");
        let active = self.segments.back().filter(|segment| {
            let filled = segment.filled() + sealed.bytes.len() as u64;
            let fits = filled <= self.settings.segment_size || segment.filled() == 0;
            let goes_on =
                sealed.run.is_empty() || segment.messages.end() == sealed.run.first_sequence;
            let takes_more = self.active && !self.is_closed && !self.is_spent(segment);
            takes_more && fits && goes_on && !sealed.changes.overflow
        });
        if let Some(active) = active {
            return Step::Write {
                segment: active.id,
                offset: active.size,
                states: sealed.changes.encode(sealed.run.first_sequence, self.key),
                messages: Rc::clone(&sealed.bytes),
            };
        }
        if self.settings.sync != SyncPolicy::Never
            && let Some(segment) = self.unsynced()
        {
            return Step::Sync { segment };
        }
        let segment = self.next_segment;
        self.next_segment += 1;
        let head = Head {
            segment,
            first_sequence: sealed.run.first_sequence,
            floor: self.states.floor(),
            boot: self.boot,
            format: Format::V2(self.key),
            spans: self.states.spans().collect(),
        };
        Step::Create { segment, head: head.encode() }
    }

    pub fn step_done(&mut self, step: &Step) {
        match step {
            Step::Create { segment, head } => {
                let first = self.committed();
                let format = Format::V2(self.key);
                self.segments.push_back(Segment::new(*segment, first, head.len() as u64, format));
                self.is_short = false;
                self.files_size += head.len() as u64;
                self.segments.iter_mut().for_each(|segment| segment.stuck = false);
                self.active = true;
                self.is_closed = false;
                self.unsynced = false;
                // The head has them. Those that changed since are in `changes`.
                self.recorded = self.sealed_count;
                if let Some(sealed) = &mut self.sealed {
                    sealed.changes = Changes::default();
                    if sealed.run.is_empty() {
                        self.sealed = None;
                    }
                }
            }
            Step::Write { .. } => {
                self.is_short = false;
                self.unsynced = true;
                let Some(sealed) = &mut self.sealed else { return };
                sealed.written = true;
                // A message that is done and not known to be so is, at most, repeated as QoS 1 allows, or released
                // again: no sync for that.
                let wants_sync = !sealed.run.is_empty() || !sealed.changes.received.is_empty();
                if self.settings.sync != SyncPolicy::EachBatch || !wants_sync {
                    self.absorb();
                }
            }
            Step::Sync { .. } => {
                self.unsynced = false;
                if self.sealed.as_ref().is_some_and(|sealed| sealed.written) {
                    self.absorb();
                }
            }
            Step::Truncate { .. } => self.is_soiled = false,
            Step::Delete { segment } => self.forget(*segment),
        }
    }

    pub fn step_failed(&mut self, step: &Step) {
        match step {
            // The number is not used again; what may lie there has no message that counts.
            Step::Create { .. } => self.is_short = true,
            // The same bytes go to the same place next time.
            Step::Write { .. } => self.is_short = true,
            Step::Truncate { .. } => {}
            Step::Sync { segment } => {
                if self.segments.back().is_some_and(|last| last.id == *segment) {
                    self.active = false;
                    self.unsynced = false;
                    self.is_short = true;
                    if let Some(sealed) = self.sealed.as_mut().filter(|sealed| sealed.written) {
                        sealed.written = false;
                        self.soil();
                    }
                }
            }
            Step::Delete { segment } => {
                let stuck = self.segments.iter_mut().find(|other| other.id == *segment);
                stuck.into_iter().for_each(|segment| segment.stuck = true);
            }
        }
    }

    /// What is sealed is in the last segment now.
    fn absorb(&mut self) {
        let (Some(sealed), Some(segment)) = (self.sealed.take(), self.segments.back_mut()) else {
            return;
        };
        self.recorded = self.sealed_count;
        let Sealed { run, bytes, changes, .. } = sealed;
        let states_size = changes.encoded_size() as u64;
        let size_before = if segment.unfinished > 0 { segment.size } else { 0 };
        segment.append(states_size, run.clone());
        if segment.unfinished > 0 {
            self.live_size += segment.size - size_before;
        }
        self.files_size += states_size + bytes.len() as u64;
        self.unfinished += run.sizes.len() as u64;
        self.unfinished_size += bytes.len() as u64;
        self.keep_recent(run, bytes);
    }

    fn keep_recent(&mut self, run: Run, bytes: Rc<Vec<u8>>) {
        if run.is_empty() {
            return;
        }
        self.recent_size += bytes.capacity();
        self.recent.push_back(Recent { run, bytes });
        self.forget_recent();
    }

    /// Of the messages in memory, drops the oldest: those that are too many, and those that nobody will read again.
    fn forget_recent(&mut self) {
        while let Some(oldest) = self.recent.front()
            && (self.recent_size > self.settings.memory_max
                || oldest.run.end() <= self.states.floor())
        {
            self.recent_size -= oldest.bytes.capacity();
            self.recent.pop_front();
        }
    }

    fn forget(&mut self, id: u64) {
        let Ok(index) = self.segments.binary_search_by_key(&id, |segment| segment.id) else {
            return;
        };
        let Some(segment) = self.segments.remove(index) else { return };
        self.files_size -= segment.size;
        self.orphans += segment.unfinished;
        self.unfinished -= segment.unfinished;
        self.unfinished_size -= segment.unfinished_size;
        if segment.unfinished > 0 {
            self.live_size -= segment.size;
        }
    }

    fn index_of(&self, sequence: u64) -> Option<usize> {
        let behind =
            self.segments.partition_point(|segment| segment.messages.first_sequence <= sequence);
        // Segments without messages share their first sequence with the next one.
        let index = behind.checked_sub(1)?;
        (0..=index)
            .rev()
            .find(|&at| !self.segments[at].messages.is_empty())
            .filter(|&at| self.segments[at].messages.holds(sequence))
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    impl Log {
        /// The sums are what they sum up.
        pub fn check(&self) {
            let (mut live_size, mut unfinished, mut unfinished_size, mut received) = (0, 0, 0, 0);
            for segment in &self.segments {
                let (mut all, mut size_sum, mut waiting) = (0, 0, 0);
                for sequence in segment.messages.first_sequence..segment.messages.end() {
                    let state = self.states.state(sequence);
                    all += u64::from(state.is_some());
                    waiting += u64::from(state == Some(State::Waiting));
                    let size = segment.messages.size_of(sequence).unwrap();
                    size_sum += state.map_or(0, |_| u64::from(size));
                }
                assert_eq!((segment.unfinished, segment.unfinished_size), (all, size_sum));
                assert_eq!(segment.waiting, waiting);
                live_size += if all > 0 { segment.size } else { 0 };
                unfinished += all;
                unfinished_size += size_sum;
                received += all - waiting;
            }
            let totals = (self.live_size, self.unfinished, self.unfinished_size);
            assert_eq!(totals, (live_size, unfinished, unfinished_size));
            assert_eq!(
                self.files_size,
                self.segments.iter().map(|segment| segment.size).sum::<u64>()
            );
            assert_eq!(self.orphans, self.states.received().count() as u64 - received);
        }
    }
}
