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

mod space;
mod steps;

use std::collections::VecDeque;
use std::rc::Rc;

use super::batch::{Batch, Changes};
use super::format;
use super::segment::{Records, Segment};
use super::states::{Mark, Span, State, States};
use super::{Backlog, Full, SpoolSettings};

/// One step to be done with the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create a file with these bytes, and sync it and the directory.
    Create {
        segment: u64,
        head: Vec<u8>,
    },
    /// Write states and messages at the end of the segment.
    Write {
        segment: u64,
        offset: u64,
        states: Vec<u8>,
        messages: Rc<Vec<u8>>,
    },
    Sync {
        segment: u64,
    },
    /// Cut the segment at this size: further bytes do not count.
    Truncate {
        segment: u64,
        size: u64,
    },
    Delete {
        segment: u64,
    },
}

/// A batch that is being written. It does not change until it is written.
#[derive(Debug)]
struct Sealed {
    records: Records,
    bytes: Rc<Vec<u8>>,
    changes: Changes,
    /// Whether the batch is written and its policy wants it synced.
    written: bool,
}

/// Written messages that are kept in memory for a link that keeps up.
#[derive(Debug)]
pub struct Recent {
    pub records: Records,
    pub bytes: Rc<Vec<u8>>,
}

#[derive(Debug)]
pub struct Log {
    settings: SpoolSettings,
    boot: [u8; 16],
    /// The key of the checks of all records.
    key: u64,
    states: States,
    /// The segments, ascending by id. The last one takes the writes if `active`.
    segments: VecDeque<Segment>,
    active: bool,
    /// Whether a batch was given up. The next batch then begins a new segment, as a file whose head names the given-up
    /// sequences may have been begun.
    is_closed: bool,
    /// Whether bytes of such a batch may lie behind the counted bytes of the last segment.
    is_soiled: bool,
    /// The first segment of this process, which it may cut.
    first_own_segment: u64,
    /// Whether the active segment has bytes that were not synced.
    unsynced: bool,
    next_segment: u64,
    open: Batch,
    sealed: Option<Sealed>,
    changes: Changes,
    /// How many batches were sealed, and the number of the last one that is in a segment.
    sealed_count: u64,
    recorded: u64,
    /// Whether the last write failed.
    is_short: bool,
    recent: VecDeque<Recent>,
    recent_size: usize,
    /// How many received messages have lost their segment.
    orphans: u64,
    /// Sums over `segments`: bytes of files that are not all done; messages that are not done, and their bytes.
    live_size: u64,
    unfinished: u64,
    unfinished_size: u64,
    /// The bytes of all files.
    files_size: u64,
}

/// A segment whose messages were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// How many messages were dropped.
    pub messages: u64,
    /// The size of the segment's file.
    pub size: u64,
}

/// The result of recovery.
#[derive(Debug)]
pub struct Found {
    pub states: States,
    pub segments: VecDeque<Segment>,
    pub next_segment: u64,
    pub next_sequence: u64,
    pub orphans: u64,
}

impl Log {
    /// `key` is a random number that no client can know.
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

    /// All sequences below this one are in the log. Messages that were pushed from here on are not yet.
    pub fn committed(&self) -> u64 {
        let open = self.open.first_sequence;
        self.sealed.as_ref().map_or(open, |sealed| sealed.records.first_sequence)
    }

    pub fn next_sequence(&self) -> u64 {
        self.open.records.end()
    }

    /// All sequences below this one are done.
    pub fn floor(&self) -> u64 {
        self.states.floor()
    }

    pub fn states(&self) -> &States {
        &self.states
    }

    pub fn recent(&self) -> &VecDeque<Recent> {
        &self.recent
    }

    /// `None`: the message is done, or not committed.
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
        let sequence = self.open.records.end();
        let start = format::open_message(&mut self.open.bytes, sequence, time_ms);
        write(&mut self.open.bytes);
        let size = self.open.bytes.len() - start;
        if let Err(full) = self.judge(start, size) {
            self.open.bytes.truncate(start);
            return Err(full);
        }
        format::close_message(&mut self.open.bytes, start, self.key);
        self.open.records.add(size as u32, time_ms);
        Ok(sequence)
    }

    fn messages(&self) -> u64 {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.records.sizes.len());
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
        if let Some(records) = kept.or(self.sealed.as_ref().map(|sealed| &sealed.records))
            && !records.is_empty()
        {
            return records.time_of(self.states.floor().max(records.first_sequence));
        }
        let open = &self.open.records;
        open.time_of(self.states.floor().max(open.first_sequence + self.open.dropped as u64))
    }

    /// Marks a committed message. `false`: it had that mark, or a higher one, or is not committed.
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

    /// Whether a batch is being written.
    pub fn is_writing(&self) -> bool {
        self.sealed.is_some()
    }

    /// Gives up the unreadable messages of `segment` from `sequence` on, up to the record of `next`, if there is one,
    /// which begins at that offset. They count as done. Returns how many of them waited.
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

    /// Whether messages were pushed that are not committed.
    pub fn has_uncommitted(&self) -> bool {
        let sealed = self.sealed.as_ref().is_some_and(|sealed| !sealed.records.is_empty());
        sealed || !self.open.records.is_empty()
    }

    /// Whether messages are marked as received whose mark is not in the log.
    pub fn has_unrecorded_received(&self) -> bool {
        let sealed = self.sealed.as_ref().map(|sealed| &sealed.changes);
        sealed.into_iter().chain([&self.changes]).any(Changes::may_have_received)
    }

    /// Drops the oldest messages in memory: those above the bound, and those that will not be read again.
    fn forget_recent(&mut self) {
        while let Some(oldest) = self.recent.front()
            && (self.recent_size > self.settings.memory_max
                || oldest.records.end() <= self.states.floor())
        {
            self.recent_size -= oldest.bytes.capacity();
            self.recent.pop_front();
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
        /// Compares the sums with the parts that they sum up.
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
