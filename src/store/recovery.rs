//! What a directory's segments say after a stop or a crash, without I/O: read in order, up to the first torn record of each.

use std::collections::VecDeque;
use std::fmt;

use super::format::{Decoded, HEAD_SIZE_MIN, Head, MESSAGE_OVERHEAD, Record};
use super::log::Found;
use super::segment::Segment;
use super::states::{Mark, Span, State, States};

/// A segment has fewer messages: all sequences in segments up to `n` are below `(n + 1) * SEQUENCES_PER_SEGMENT`.
const SEQUENCES_PER_SEGMENT: u64 = 1 << 32;
/// Packet ids are sequences modulo this.
const PACKET_ID_COUNT: u64 = 65_000;

pub const FIRST_SEQUENCE: u64 = 1;

/// What recovery could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub segment: u64,
    /// Where the first torn record begins; 0: the segment's head is torn.
    pub offset: u64,
    /// Bytes from there to the end of the file.
    pub size: u64,
    /// At most so many messages were in the log, waiting, and are lost. What is cut from the newest segment is not
    /// counted: after a crash it was never committed.
    pub messages_lost: u64,
}

impl Cut {
    /// More messages did not fit.
    fn messages_max(&self) -> u64 {
        let head_size = if self.offset == 0 { HEAD_SIZE_MIN } else { 0 };
        self.size.saturating_sub(head_size as u64).div_ceil(MESSAGE_OVERHEAD as u64)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} is torn at byte {}: {} bytes are cut, at most {} messages lost",
            self.segment, self.offset, self.size, self.messages_lost
        )
    }
}

/// A segment that this program is too old for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVersion(pub u32);

/// Reads segments in ascending order of id.
#[derive(Debug)]
pub struct Recovery {
    states: States,
    segments: VecDeque<Segment>,
    next_segment: u64,
    next_sequence: u64,
    boot: Option<[u8; 16]>,
    /// `first..end` is in no segment; it was cut out by the cut of that index.
    holes: Vec<(u64, u64, Option<usize>)>,
    cuts: Vec<Cut>,
    /// The segment being read.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    id: u64,
    file_size: u64,
    /// Of the file, how far it was understood.
    offset: u64,
    has_head: bool,
    torn: bool,
    wanted: usize,
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery {
            states: States::new(FIRST_SEQUENCE),
            segments: VecDeque::new(),
            next_segment: 1,
            next_sequence: FIRST_SEQUENCE,
            boot: None,
            holes: Vec::new(),
            cuts: Vec::new(),
            reading: None,
        }
    }
}

impl Recovery {
    pub fn begin(&mut self, id: u64, file_size: u64) {
        assert!(id >= self.next_segment, "segments are read in order");
        self.next_segment = id + 1;
        let torn = false;
        self.reading = Some(Reading { id, file_size, offset: 0, has_head: false, torn, wanted: 1 });
    }

    /// How many bytes from [`Recovery::offset`] on are needed at least to go on. `None`: no more of this segment.
    pub fn wanted(&self) -> Option<usize> {
        let reading = self.reading.as_ref().filter(|reading| !reading.torn)?;
        (reading.offset < reading.file_size).then_some(reading.wanted)
    }

    /// Of the current segment, how far it was understood.
    pub fn offset(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.offset)
    }

    /// Takes the segment's bytes from [`Recovery::offset`] on; says how many it understood.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, UnknownVersion> {
        let mut used = 0;
        while let Some(reading) = self.reading.as_ref().filter(|reading| !reading.torn) {
            let (id, has_head) = (reading.id, reading.has_head);
            let understood = if has_head {
                match Record::decode(&bytes[used..]) {
                    Decoded::Whole { value, size } if self.take(value, size) => Ok(size),
                    Decoded::Incomplete { size } => Err(Some(size)),
                    _ => Err(None),
                }
            } else {
                match Head::decode(&bytes[used..]) {
                    Decoded::Version(version) => return Err(UnknownVersion(version)),
                    Decoded::Whole { value, size }
                        if value.segment == id && self.take_head(&value, size) =>
                    {
                        Ok(size)
                    }
                    Decoded::Incomplete { size } => Err(Some(size)),
                    _ => Err(None),
                }
            };
            let Some(reading) = &mut self.reading else { break };
            match understood {
                Ok(size) => {
                    used += size;
                    reading.offset += size as u64;
                    reading.wanted = 1;
                }
                Err(Some(wanted)) => {
                    reading.wanted = wanted;
                    reading.torn = reading.offset + wanted as u64 > reading.file_size
                        && reading.offset < reading.file_size;
                    break;
                }
                Err(None) => reading.torn = true,
            }
        }
        Ok(used)
    }

    /// The segment's file has no more bytes. What was not understood is cut.
    pub fn end(&mut self) -> Option<&Cut> {
        let reading = self.reading.take()?;
        if reading.offset == reading.file_size && reading.has_head {
            return None;
        }
        self.cuts.push(Cut {
            segment: reading.id,
            offset: reading.offset,
            size: reading.file_size - reading.offset,
            messages_lost: 0,
        });
        self.cuts.last()
    }

    /// All segments were read. `boot` is that of the machine now.
    pub fn finish(mut self, boot: [u8; 16]) -> (Found, Vec<Cut>) {
        let mut covered = self.states.floor();
        let runs: Vec<(u64, u64)> = self
            .segments
            .iter()
            .map(|segment| (segment.messages.first_sequence, segment.messages.end()))
            .chain([(self.next_sequence, self.next_sequence)])
            .collect();
        for (first, end) in runs {
            self.fill_hole(covered, first);
            covered = covered.max(end);
        }
        // What is cut, or was not synced before the machine went down, may have had sequences that the remote remembers.
        if self.boot.is_some_and(|before| before != boot) || !self.cuts.is_empty() {
            let first = self.next_sequence;
            self.next_sequence = beyond(first, self.next_segment);
            self.states.set(Span { first, end: self.next_sequence, mark: Mark::Done });
        }
        let mut in_segments = 0;
        for segment in &mut self.segments {
            count(segment, &self.states);
            in_segments += segment.unfinished - segment.waiting;
        }
        let received = self.states.spans().filter(|span| span.mark == Mark::Received);
        let orphans = received.map(|span| span.end - span.first).sum::<u64>() - in_segments;
        let found = Found {
            states: self.states,
            segments: self.segments,
            next_segment: self.next_segment,
            next_sequence: self.next_sequence,
            orphans,
        };
        (found, self.cuts)
    }

    /// Messages in no segment: deleted because they were done, or cut. Those that were received have only states left.
    fn fill_hole(&mut self, first: u64, end: u64) {
        let mut at = self.states.next_waiting(first);
        while at < end {
            let next = self.states.spans().find(|span| span.first > at).map_or(end, |s| s.first);
            let next = next.min(end);
            for &(hole_first, hole_end, cut) in &self.holes {
                let lost = next.min(hole_end).saturating_sub(at.max(hole_first));
                if let Some(cut) = cut.and_then(|index| self.cuts.get_mut(index)) {
                    cut.messages_lost = (cut.messages_lost + lost).min(cut.messages_max());
                }
            }
            self.states.set(Span { first: at, end: next, mark: Mark::Done });
            at = self.states.next_waiting(next);
        }
    }

    fn take_head(&mut self, head: &Head, size: usize) -> bool {
        if head.floor > head.first_sequence
            || head.spans.iter().any(|span| span.end > head.first_sequence)
        {
            return false;
        }
        // What an older segment holds from here on does not count: it was written again.
        for segment in self.segments.iter_mut().rev() {
            if segment.messages.end() <= head.first_sequence {
                break;
            }
            segment.forget_from(head.first_sequence);
        }
        if head.first_sequence > self.next_sequence {
            let cut_by = self.cuts.len().checked_sub(1).filter(|_| self.cut_since_last_head());
            self.holes.push((self.next_sequence, head.first_sequence, cut_by));
        }
        self.next_sequence = head.first_sequence;
        self.states = States::from_spans(head.floor, &head.spans);
        self.boot = Some(head.boot);
        self.segments.push_back(Segment::new(head.segment, head.first_sequence, size as u64));
        if let Some(reading) = &mut self.reading {
            reading.has_head = true;
        }
        true
    }

    /// The newest segment that has a head, or one behind it, was cut.
    fn cut_since_last_head(&self) -> bool {
        match (self.cuts.last(), self.segments.back()) {
            (Some(cut), Some(segment)) => cut.segment >= segment.id,
            (cut, None) => cut.is_some(),
            (None, _) => false,
        }
    }

    fn take(&mut self, record: Record<'_>, size: usize) -> bool {
        let Some(segment) = self.segments.back_mut() else { return false };
        match record {
            Record::Message { sequence, time_ms, .. } => {
                if sequence != self.next_sequence {
                    return false;
                }
                segment.found_message(size as u32, time_ms);
                self.next_sequence += 1;
                true
            }
            Record::States { segment: id, spans } => {
                if id != segment.id || spans.clone().any(|span| span.end > self.next_sequence) {
                    return false;
                }
                spans.for_each(|span| self.states.set(span));
                segment.size += size as u64;
                true
            }
        }
    }
}

/// A sequence above all that were ever in a segment below `next_segment`, half a round of packet ids away from `last`.
fn beyond(last: u64, next_segment: u64) -> u64 {
    let least = last.max(next_segment.saturating_mul(SEQUENCES_PER_SEGMENT));
    let wanted = (last + PACKET_ID_COUNT / 2) % PACKET_ID_COUNT;
    least + (wanted + PACKET_ID_COUNT - least % PACKET_ID_COUNT) % PACKET_ID_COUNT
}

fn count(segment: &mut Segment, states: &States) {
    let sequences = segment.messages.first_sequence..segment.messages.end();
    for (sequence, &size) in sequences.zip(&segment.messages.sizes) {
        if let Some(state) = states.state(sequence) {
            segment.unfinished += 1;
            segment.unfinished_size += u64::from(size);
            segment.waiting += u64::from(state == State::Waiting);
        }
    }
}
