//! The next step with the files, and the consequences of its success or failure.

use std::rc::Rc;

use super::{Log, Recent, Sealed, Step};
use crate::store::SyncPolicy;
use crate::store::batch::{Batch, Changes};
use crate::store::format::{Format, Head};
use crate::store::segment::{Records, Segment};
use crate::store::states::{Mark, Span};

impl Log {
    /// Whether [`Log::next_step`] has a step.
    pub fn wants_commit(&self) -> bool {
        let pending = !(self.open.records.is_empty() && self.changes.is_empty());
        pending
            || self.sealed.is_some()
            || self.is_soiled
            || self.deletable(|segment| segment.unfinished == 0).is_some()
    }

    /// The next step. With `may_seal` (which is cleared then) everything that was pushed and marked until now goes into
    /// the log, else only the batch that was sealed before. `None`: nothing is left to do.
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
            let pending = !(self.open.records.is_empty() && self.changes.is_empty());
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
        // Received messages need only their states, not their bytes, and all states are written here.
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
                // The head has all states. States that changed since are in `changes`.
                self.recorded = self.sealed_count;
                if let Some(sealed) = &mut self.sealed {
                    sealed.changes = Changes::default();
                    if sealed.records.is_empty() {
                        self.sealed = None;
                    }
                }
            }
            Step::Write { .. } => {
                self.is_short = false;
                self.unsynced = true;
                let Some(sealed) = &mut self.sealed else { return };
                sealed.written = true;
                // A lost mark that says "done" makes a message repeat, as QoS 1 allows, or be released again, at most.
                // Such marks need no sync.
                let wants_sync = !sealed.records.is_empty() || !sealed.changes.received.is_empty();
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
            // The number of the segment is not used again. The file, if there is one, has no message that counts.
            Step::Create { .. } => self.is_short = true,
            // The same bytes go to the same offset next time.
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

    /// The active segment, if it has bytes that were not synced.
    pub fn unsynced(&self) -> Option<u64> {
        let active = self.segments.back().filter(|_| self.active && self.unsynced);
        active.map(|segment| segment.id)
    }

    /// The segment to sync beside the steps. Bytes that are written from now on are unsynced again. The caller reports
    /// a failure by [`Log::step_failed`].
    pub fn begin_sync(&mut self) -> Option<u64> {
        let segment = self.unsynced();
        self.unsynced = false;
        segment
    }

    fn seal(&mut self) {
        let next = Batch::new(self.open.records.end());
        let mut batch = std::mem::replace(&mut self.open, next);
        batch.close_gap();
        let (first, end) = (batch.first_sequence, batch.records.first_sequence);
        self.states.set(Span { first, end, mark: Mark::Done });
        self.sealed_count += 1;
        self.sealed = Some(Sealed {
            records: batch.records,
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
            let goes_on = sealed.records.is_empty()
                || segment.messages.end() == sealed.records.first_sequence;
            let takes_more = self.active && !self.is_closed && !self.is_spent(segment);
            takes_more && fits && goes_on && !sealed.changes.overflow
        });
        if let Some(active) = active {
            return Step::Write {
                segment: active.id,
                offset: active.size,
                states: sealed.changes.encode(sealed.records.first_sequence, self.key),
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
            first_sequence: sealed.records.first_sequence,
            floor: self.states.floor(),
            boot: self.boot,
            format: Format::V2(self.key),
            spans: self.states.spans().collect(),
        };
        Step::Create { segment, head: head.encode() }
    }

    /// Moves the sealed batch, which is written, into the last segment.
    fn absorb(&mut self) {
        let (Some(sealed), Some(segment)) = (self.sealed.take(), self.segments.back_mut()) else {
            return;
        };
        self.recorded = self.sealed_count;
        let Sealed { records, bytes, changes, .. } = sealed;
        let states_size = changes.encoded_size() as u64;
        let size_before = if segment.unfinished > 0 { segment.size } else { 0 };
        segment.append(states_size, records.clone());
        if segment.unfinished > 0 {
            self.live_size += segment.size - size_before;
        }
        self.files_size += states_size + bytes.len() as u64;
        self.unfinished += records.sizes.len() as u64;
        self.unfinished_size += bytes.len() as u64;
        self.keep_recent(records, bytes);
    }

    fn keep_recent(&mut self, records: Records, bytes: Rc<Vec<u8>>) {
        if records.is_empty() {
            return;
        }
        self.recent_size += bytes.capacity();
        self.recent.push_back(Recent { records, bytes });
        self.forget_recent();
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

    /// Notes that bytes behind the counted ones of the last segment must go. They would count again if the segment that
    /// has the same sequences were deleted first.
    pub(super) fn soil(&mut self) {
        let last = self.segments.back();
        self.is_soiled = last.is_some_and(|last| last.id >= self.first_own_segment);
    }
}
