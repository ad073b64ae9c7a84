//! Messages and changed states that wait to be written, in a batch.

use super::format;
use super::segment::Run;
use super::states::{Mark, Span};

/// Spans of changed states that are kept for the next write; with more, a new segment's head takes them all.
const CHANGES_MAX: usize = 4096;

/// Messages that are not in a segment yet.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where it began; those before `run` were dropped.
    pub first_sequence: u64,
    pub run: Run,
    /// Their records.
    pub bytes: Vec<u8>,
    /// So many at the front of `run` were dropped, and so many of the bytes are theirs.
    pub dropped: usize,
    dropped_size: usize,
}

impl Batch {
    pub(super) fn new(first_sequence: u64) -> Batch {
        let (bytes, dropped, dropped_size) = Default::default();
        Batch { first_sequence, run: Run::new(first_sequence), bytes, dropped, dropped_size }
    }

    pub(super) fn count(&self) -> usize {
        self.run.sizes.len() - self.dropped
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len() - self.dropped_size
    }

    /// Drops the oldest message; `false`: there is none.
    pub(super) fn drop_first(&mut self) -> bool {
        let Some(&size) = self.run.sizes.get(self.dropped) else { return false };
        self.dropped += 1;
        self.dropped_size += size as usize;
        if self.count() == 0 {
            // Nobody has seen their sequences.
            *self = Batch::new(self.first_sequence);
        } else if self.dropped_size * 2 > self.bytes.len() {
            self.close_gap();
        }
        true
    }

    /// Moves what is left to the front. What was dropped is larger whenever messages are dropped, so all moves together
    /// cost no more than writing the messages did.
    pub(super) fn close_gap(&mut self) {
        self.run.drop_first(std::mem::take(&mut self.dropped));
        self.bytes.drain(..std::mem::take(&mut self.dropped_size));
    }
}

/// States that changed since they were last written.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub received: Vec<Span>,
    pub done: Vec<Span>,
    /// They were more than fit.
    pub overflow: bool,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.received.is_empty() && self.done.is_empty() && !self.overflow
    }

    /// Whether messages that were received are among them.
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

    /// One record, or nothing.
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
