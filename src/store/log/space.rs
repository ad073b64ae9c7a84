//! Room in the log: whether a message fits, and which messages go when it does not.

use super::{Batch, Freed, Log};
use crate::store::Full;
use crate::store::format::{MESSAGE_OVERHEAD, RECORD_SIZE_MAX};
use crate::store::segment::Segment;
use crate::store::states::Mark;

impl Log {
    /// Whether a message of so many bytes has room in the log, even behind the batch in memory.
    pub fn has_room(&self, size: usize) -> bool {
        self.messages() < self.settings.messages_max
            && self.disk_size() + (size + MESSAGE_OVERHEAD) as u64 <= self.settings.bytes_max
    }

    /// As `has_room`, for `count` messages of `size` bytes together.
    pub fn has_room_for(&self, count: u64, size: usize) -> bool {
        let size = size as u64 + count * MESSAGE_OVERHEAD as u64;
        self.messages() + count <= self.settings.messages_max
            && self.disk_size() + size <= self.settings.bytes_max
    }

    /// Whether a record of `size` bytes at `start` of the open batch has room. Earlier bytes at that place are not
    /// counted yet.
    pub(super) fn judge(&self, start: usize, size: usize) -> Result<(), Full> {
        if size > RECORD_SIZE_MAX || size as u64 > self.settings.message_size_ceiling() {
            return Err(Full::TooLarge);
        }
        if start > 0 && start + size > self.settings.batch_size_max {
            return Err(Full::Batch);
        }
        // The record is in the open batch already.
        if self.disk_size() > self.settings.bytes_max {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    /// The bytes of the files that are needed, and of the batches that are about to be written.
    fn disk_size(&self) -> u64 {
        let spare =
            self.segments.back().filter(|last| last.unfinished == 0 && !self.is_spent(last));
        self.live_size + spare.map_or(0, |segment| segment.size) + self.uncommitted_size() as u64
    }

    /// Whether a segment is large and nothing in it is needed, so that the next write begins a new one.
    pub(super) fn is_spent(&self, segment: &Segment) -> bool {
        segment.unfinished == 0 && segment.filled() * 2 >= self.settings.segment_size
    }

    /// The bytes of the messages that were pushed and are not committed.
    pub fn uncommitted_size(&self) -> usize {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.bytes.len());
        self.open.size() + sealed
    }

    /// Drops waiting messages from `from` on, oldest first, but none `in_flight` (in order), until a message of `size`
    /// bytes has room. Returns how many were dropped. Messages that are being written, and those behind them, cannot be
    /// dropped.
    pub fn make_room(&mut self, from: u64, in_flight: &[u64], size: usize) -> u64 {
        let mut dropped = 0;
        let mut at = from;
        while !self.has_room(size) {
            while let Some(next) =
                self.next_waiting(at).filter(|at| in_flight.binary_search(at).is_ok())
            {
                at = next + 1;
            }
            let is_dropped = match self.next_waiting(at) {
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

    /// Drops all messages of the oldest segment whose file can be deleted then, and the waiting messages in front of
    /// them. None of the segment's messages was received or sent (`from` is the first that was not sent, and none is
    /// `in_flight`, in order), and another segment takes the writes. The file is deleted by the next commit's first
    /// step, which needs no space. `None`: there is no such segment.
    pub fn free_segment(&mut self, from: u64, in_flight: &[u64]) -> Option<Freed> {
        let older = self.segments.iter().take(self.segments.len().saturating_sub(1));
        let mut candidates = older.filter(|segment| {
            let first = self.states.next_unfinished(segment.messages.first_sequence);
            let waits = segment.unfinished > 0 && segment.waiting == segment.unfinished;
            let sent = in_flight.partition_point(|sent| *sent < first);
            let is_sent = in_flight.get(sent).is_some_and(|sent| *sent < segment.messages.end());
            waits && !segment.stuck && first >= from && !is_sent
        });
        let segment = candidates.next()?;
        let records = &segment.messages;
        // Messages in front of the segment may be in flight.
        let from = if in_flight.is_empty() { from } else { records.first_sequence };
        let (end, mut freed) = (records.end(), Freed { messages: 0, size: segment.size });
        while let Some(next) = self.next_waiting(from).filter(|&next| next < end) {
            self.mark(next, Mark::Done);
            freed.messages += 1;
        }
        Some(freed)
    }

    /// The last segment stays, because its head has the states.
    pub(super) fn deletable(&self, is_free: impl Fn(&Segment) -> bool) -> Option<u64> {
        let older = self.segments.iter().take(self.segments.len().saturating_sub(1));
        older.filter(|segment| !segment.stuck).find(|segment| is_free(segment)).map(|s| s.id)
    }

    /// Whether files can be deleted before a step that failed is tried again.
    pub fn can_make_space(&self) -> bool {
        self.is_short && self.deletable(|segment| segment.unfinished == 0).is_some()
    }

    /// Drops all messages that are not committed; marks stay. Returns how many were dropped. It is called only between
    /// commits.
    pub fn abandon(&mut self) -> u64 {
        let first = self.committed();
        let mut dropped = self.open.count();
        if let Some(sealed) = self.sealed.take() {
            dropped += sealed.records.sizes.len();
            let later = std::mem::replace(&mut self.changes, sealed.changes);
            later.received.into_iter().chain(later.done).for_each(|span| self.changes.add(span));
            self.changes.overflow |= later.overflow;
            self.is_closed = true;
            self.soil();
        }
        self.open = Batch::new(first);
        dropped as u64
    }
}
