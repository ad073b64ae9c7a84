//! Messages and changed states that wait to be written, in a batch.

use super::format;
use super::segment::Records;
use super::states::{Mark, Span};

/// So many spans of changed states are kept for the next write. If there are more, a new segment's head takes all
/// states.
const CHANGES_MAX: usize = 4096;

/// Messages that are not in a segment yet.
#[derive(Debug)]
pub(super) struct Batch {
    /// The first sequence of the batch, even if that message was dropped.
    pub first_sequence: u64,
    pub records: Records,
    /// The records of the messages.
    pub bytes: Vec<u8>,
    /// How many messages at the front of `records` were dropped, and how many of the bytes are theirs.
    pub dropped: usize,
    dropped_size: usize,
}

impl Batch {
    pub(super) fn new(first_sequence: u64) -> Batch {
        let (bytes, dropped, dropped_size) = Default::default();
        Batch {
            first_sequence,
            records: Records::new(first_sequence),
            bytes,
            dropped,
            dropped_size,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.records.sizes.len() - self.dropped
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len() - self.dropped_size
    }

    /// Drops the oldest message; `false`: there is none.
    pub(super) fn drop_first(&mut self) -> bool {
        let Some(&size) = self.records.sizes.get(self.dropped) else { return false };
        self.dropped += 1;
        self.dropped_size += size as usize;
        if self.count() == 0 {
            // No sequence of this batch was told to a reader, so they are used again.
            *self = Batch::new(self.first_sequence);
        } else if self.dropped_size * 2 > self.bytes.len() {
            self.close_gap();
        }
        true
    }

    /// Moves the remaining records to the front. The dropped part is larger than the rest whenever this is called for
    /// drops, so all moves together cost no more than writing the messages did.
    pub(super) fn close_gap(&mut self) {
        self.records.drop_first(std::mem::take(&mut self.dropped));
        self.bytes.drain(..std::mem::take(&mut self.dropped_size));
    }
}

/// States that have changed since they were last written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub received: Vec<Span>,
    pub done: Vec<Span>,
    /// Whether there were more changes than `CHANGES_MAX`.
    pub overflow: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.received.is_empty() && self.done.is_empty() && !self.overflow
    }

    /// Whether messages that were received may be among them.
    pub(super) fn may_have_received(&self) -> bool {
        !self.received.is_empty() || self.overflow
    }

    pub(super) fn add(&mut self, span: Span) {
        let list = match span.mark {
            Mark::Received => &mut self.received,
            Mark::Done => &mut self.done,
        };
        match list.last_mut() {
            Some(last) if last.end == span.first => last.end = span.end,
            _ if self.overflow => {}
            _ => list.push(span),
        }
        if self.received.len() + self.done.len() > CHANGES_MAX {
            self.overflow = true;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.received.len() + self.done.len()
    }

    /// One record; empty if no state has changed.
    pub(super) fn encode(&self, place: u64, key: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_size());
        if self.count() > 0 {
            format::encode_states(&mut out, place, self.received.iter().chain(&self.done), key);
        }
        out
    }

    pub(super) fn encoded_size(&self) -> usize {
        if self.count() > 0 { format::states_size(self.count()) } else { 0 }
    }
}
