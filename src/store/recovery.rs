//! Recovery of a directory's segments after a stop, a crash or damage, without I/O: it reads them in order and passes
//! over bad bytes.
//!
//! Records carry checks with a random key that no packet has, and sequences that go on (`format`, version 2). So
//! recovery and the reader search for the next record behind bad bytes, whatever payloads hold, and tell how many messages
//! are gone. Sequences count these, also those of a missing file, because a file is deleted only when it is recorded
//! that its messages are done (after a write has failed, at once). The newest file's end is bounded by its bytes alone.

use std::collections::VecDeque;
use std::fmt;

use super::format::{Decoded, Format, HEAD_SIZE_MIN, Head, RECORD_HEAD_SIZE, Record};
use super::log::Found;
use super::segment::Segment;
use super::states::{Mark, Span, State, States};

/// A segment has fewer messages than this: all sequences in segments up to `n` are below `(n + 1) *
/// SEQUENCES_PER_SEGMENT`.
const SEQUENCES_PER_SEGMENT: u64 = 1 << 32;
/// Packet ids are sequences modulo this.
const PACKET_ID_COUNT: u64 = 65_000;

pub const FIRST_SEQUENCE: u64 = 1;

/// Bytes or files that recovery could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub kind: CutKind,
    /// The segment; for [`CutKind::Missing`], the one behind the missing files.
    pub segment: u64,
    /// Where the bad bytes begin; 0: the segment's head is bad.
    pub offset: u64,
    /// The size of the bad bytes.
    pub size: u64,
    /// The most waiting messages that can be lost. In front of good messages the number is exact, unless the bad bytes
    /// recorded that some of them were done.
    pub messages_lost: u64,
    /// How many messages fit into the bad bytes.
    messages_max: u64,
}

/// The kind of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutKind {
    /// Bad bytes from the offset to the end: a crash cut the last write short, or there is damage.
    Tail,
    /// Bad bytes in front of good records.
    Damage,
    /// Files that are not there.
    Missing,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { segment, offset, size, .. } = self;
        let lost = match self.messages_lost {
            0 => "no message lost".to_string(),
            1 => "at most 1 message lost".to_string(),
            count => format!("at most {count} messages lost"),
        };
        match self.kind {
            CutKind::Tail => write!(
                f,
                "segment {segment} is torn at byte {offset}: its last {size} bytes are cut, {lost}; what a crash \
                 interrupts was not acknowledged to its publisher"
            ),
            CutKind::Damage => write!(
                f,
                "segment {segment} is damaged at byte {offset}: {size} bytes are passed over, {lost}; check the disk"
            ),
            CutKind::Missing => {
                write!(f, "a file in front of segment {segment} is missing: {lost}")
            }
        }
    }
}

/// The segment was written by a newer program.
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
    /// The format of the newest segment with a head.
    format: Format,
    holes: Vec<Hole>,
    cuts: Vec<Cut>,
    /// The segment being read.
    reading: Option<Reading>,
}

/// The messages `first..end` are in no segment.
#[derive(Clone, Copy, Debug)]
struct Hole {
    first: u64,
    end: u64,
    /// The first of the cuts that may have had them. All cuts behind it, up to `cuts_end`, may have had them, too.
    cuts_from: usize,
    cuts_end: usize,
    /// The segment behind the hole.
    segment: u64,
    /// Whether the states of all messages before the hole are known.
    is_told: bool,
}

#[derive(Debug)]
struct Reading {
    id: u64,
    file_size: u64,
    /// How far the file was read.
    offset: u64,
    /// Whether the segment has a head. If that is damaged, the segment is read without it.
    has_head: bool,
    format: Format,
    /// Where bad bytes began, if no good record was found since.
    bad_from: Option<u64>,
    torn: bool,
    /// Whether a record begins where the segment is torn.
    ends_in_record: bool,
    wanted: usize,
}

impl Reading {
    /// Passes over bytes that are no record, or no head. A segment without a good head is read without it.
    fn pass(&mut self, size: usize) {
        self.has_head = true;
        self.bad_from.get_or_insert(self.offset);
        self.offset += size as u64;
        self.wanted = 1;
    }
}

impl Default for Recovery {
    fn default() -> Recovery {
        Recovery {
            states: States::new(FIRST_SEQUENCE),
            segments: VecDeque::new(),
            next_segment: 1,
            next_sequence: FIRST_SEQUENCE,
            boot: None,
            format: Format::V1,
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
        self.reading = Some(Reading {
            id,
            file_size,
            offset: 0,
            has_head: false,
            format: self.format,
            bad_from: None,
            torn: false,
            ends_in_record: false,
            wanted: 1,
        });
    }

    /// How many bytes from [`Recovery::offset`] on are needed at least to go on. `None`: no more of this segment is
    /// needed.
    pub fn wanted(&self) -> Option<usize> {
        let reading = self.reading.as_ref().filter(|reading| !reading.torn)?;
        (reading.offset < reading.file_size).then_some(reading.wanted)
    }

    /// How far the current segment was read.
    pub fn offset(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.offset)
    }

    /// Takes the segment's bytes from [`Recovery::offset`] on; returns how many it has read.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, UnknownVersion> {
        let mut used = 0;
        while let Some(reading) = self.reading.as_ref().filter(|reading| !reading.torn) {
            let (format, has_head) = (reading.format, reading.has_head);
            let rest = &bytes[used..];
            let next =
                if has_head { self.read_record(rest, format) } else { self.read_head(rest)? };
            let Some(reading) = &mut self.reading else { break };
            match next {
                Next::Good(size) => {
                    used += size;
                    reading.offset += size as u64;
                    reading.wanted = 1;
                }
                Next::Wanted(wanted) => {
                    reading.wanted = wanted;
                    let is_behind_end = reading.offset + wanted as u64 > reading.file_size
                        && reading.offset < reading.file_size;
                    if is_behind_end && !has_head && format != Format::V1 {
                        reading.pass(1);
                        used += 1;
                        continue;
                    }
                    reading.torn = is_behind_end;
                    reading.ends_in_record = has_head && wanted > RECORD_HEAD_SIZE;
                    break;
                }
                // Payloads of version 1 may look like records, so nothing behind bad bytes is believed.
                Next::Bad(_) if reading.format == Format::V1 => reading.torn = true,
                Next::Bad(size) => {
                    reading.pass(size);
                    used += size;
                }
            }
        }
        Ok(used)
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<Next, UnknownVersion> {
        let id = self.reading.as_ref().map_or(0, |reading| reading.id);
        Ok(match Head::decode(bytes) {
            Decoded::Version(version) => return Err(UnknownVersion(version)),
            Decoded::Whole { value, size }
                if value.segment == id && self.take_head(&value, size) =>
            {
                Next::Good(size)
            }
            Decoded::Incomplete { size } => Next::Wanted(size),
            // All segments of one run of the program have one key, so the key of the segment before finds records here.
            _ => Next::Bad(1),
        })
    }

    fn read_record(&mut self, bytes: &[u8], format: Format) -> Next {
        match Record::decode(bytes, format) {
            Decoded::Whole { value, size } if self.take(value, size) => Next::Good(size),
            Decoded::Whole { size, .. } | Decoded::Damaged { size } => Next::Bad(size),
            Decoded::Incomplete { size } => Next::Wanted(size),
            Decoded::Torn | Decoded::Version(_) => Next::Bad(1),
        }
    }

    /// Ends a segment whose file has no more bytes. Bytes at its end that were not understood are cut.
    pub fn end(&mut self) -> Option<&Cut> {
        let reading = self.reading.take()?;
        let good_size = reading.bad_from.unwrap_or(reading.offset);
        if good_size == reading.file_size && reading.has_head {
            return None;
        }
        self.cut(CutKind::Tail, &reading, good_size, reading.file_size - good_size);
        self.cuts.last()
    }

    fn cut(&mut self, kind: CutKind, reading: &Reading, offset: u64, size: u64) {
        let head_size = if offset == 0 { HEAD_SIZE_MIN as u64 } else { 0 };
        let overhead = reading.format.message_overhead() as u64;
        let messages_max = match reading {
            // Version 1 does not check the size in a torn record.
            Reading { ends_in_record: true, bad_from: None, format: Format::V2(_), .. } => 1,
            _ => size.saturating_sub(head_size).div_ceil(overhead),
        };
        let segment = reading.id;
        self.cuts.push(Cut { kind, segment, offset, size, messages_lost: 0, messages_max });
    }

    /// Ends recovery: all segments were read. `boot` is the present one of the machine.
    pub fn finish(mut self, boot: [u8; 16]) -> (Found, Vec<Cut>) {
        // No later head says how many messages there were.
        let from = self.cuts_in_front();
        for cut in &mut self.cuts[from..] {
            cut.messages_lost = cut.messages_max;
        }
        for hole in std::mem::take(&mut self.holes) {
            self.account_for(hole);
        }
        let mut covered = self.states.floor();
        let runs: Vec<(u64, u64)> = self
            .segments
            .iter()
            .map(|segment| (segment.messages.first_sequence, segment.messages.end()))
            .chain([(self.next_sequence, self.next_sequence)])
            .collect();
        for (first, end) in runs {
            self.give_up(covered, first);
            covered = covered.max(end);
        }
        // Messages that are cut, or that were not synced before the machine went down, may have had sequences that the
        // remote remembers.
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

    /// Counts the messages of a hole that waited, as far as their states are known, as lost with cut bytes or with a
    /// missing file.
    fn account_for(&mut self, hole: Hole) {
        let mut lost = self.give_up(hole.first, hole.end);
        for cut in &mut self.cuts[hole.cuts_from..hole.cuts_end] {
            let by_cut = lost.min(cut.messages_max - cut.messages_lost);
            cut.messages_lost += by_cut;
            lost -= by_cut;
        }
        // A program that wrote version 1 deleted files before it recorded the reason.
        if lost > 0 && hole.is_told {
            let (offset, size, messages_max) = Default::default();
            let (kind, segment) = (CutKind::Missing, hole.segment);
            let cut = Cut { kind, segment, offset, size, messages_lost: lost, messages_max };
            self.cuts.push(cut);
        }
    }

    /// Gives up messages that are in no segment: they are done, but for received ones, which have only states left.
    /// Returns how many waited.
    fn give_up(&mut self, first: u64, end: u64) -> u64 {
        let mut count = 0;
        let mut at = self.states.next_waiting(first);
        while at < end {
            let next = self.states.spans().find(|span| span.first > at).map_or(end, |s| s.first);
            let next = next.min(end);
            count += next - at;
            self.states.set(Span { first: at, end: next, mark: Mark::Done });
            at = self.states.next_waiting(next);
        }
        count
    }

    fn take_head(&mut self, head: &Head, size: usize) -> bool {
        if head.floor > head.first_sequence
            || head.spans.iter().any(|span| span.end > head.first_sequence)
        {
            return false;
        }
        self.begin_segment(head.segment, head.first_sequence, size as u64, head.format);
        self.states = States::from_spans(head.floor, &head.spans);
        self.boot = Some(head.boot);
        self.format = head.format;
        if let Some(reading) = &mut self.reading {
            reading.has_head = true;
            reading.format = head.format;
        }
        true
    }

    fn begin_segment(&mut self, id: u64, first_sequence: u64, head_size: u64, format: Format) {
        // Messages of an older segment from here on do not count: they were written again.
        for segment in self.segments.iter_mut().rev() {
            if segment.messages.end() <= first_sequence {
                break;
            }
            segment.forget_from(first_sequence);
        }
        self.holes.iter_mut().for_each(|hole| hole.end = hole.end.min(first_sequence));
        self.holes.retain(|hole| hole.first < hole.end);
        if first_sequence > self.next_sequence {
            self.holes.push(Hole {
                first: self.next_sequence,
                end: first_sequence,
                cuts_from: self.cuts_in_front(),
                cuts_end: self.cuts.len(),
                segment: id,
                is_told: format != Format::V1,
            });
        }
        self.next_sequence = first_sequence;
        self.segments.push_back(Segment::new(id, first_sequence, head_size, format));
    }

    /// How many cuts are in front of the newest segment's last good record.
    fn cuts_in_front(&self) -> usize {
        let newest = self.segments.back().map_or(0, |segment| segment.id);
        let is_behind =
            |cut: &Cut| cut.segment > newest || cut.segment == newest && cut.kind == CutKind::Tail;
        self.cuts.iter().rposition(|cut| !is_behind(cut)).map_or(0, |index| index + 1)
    }

    fn take(&mut self, record: Record<'_>, size: usize) -> bool {
        let Some(reading) = &self.reading else { return false };
        let (id, format) = (reading.id, reading.format);
        let place = match record {
            Record::Message { sequence, .. } => sequence,
            Record::States { place, .. } if format == Format::V1 => {
                if place != id {
                    return false;
                }
                self.next_sequence
            }
            Record::States { place, .. } => place,
        };
        if let Record::States { spans, .. } = &record
            && spans.clone().any(|span| span.end > place)
        {
            return false;
        }
        if !self.go_on_at(place) {
            return false;
        }
        let Some(segment) = self.segments.back_mut() else { return false };
        match record {
            Record::Message { time_ms, .. } => {
                segment.found_message(size as u32, time_ms);
                self.next_sequence += 1;
            }
            Record::States { spans, .. } => {
                spans.for_each(|span| self.states.set(span));
                segment.size += size as u64;
            }
        }
        true
    }

    /// Notes that a good record names `place` as the next message. That must be the message behind the last one; behind
    /// bad bytes it may be later by at most as many messages as fit into these.
    fn go_on_at(&mut self, place: u64) -> bool {
        let Some(reading) = self.reading.take() else { return false };
        let is_next = match reading.bad_from {
            None => place == self.next_sequence,
            Some(bad_from) => self.pass_over(&reading, bad_from, place),
        };
        let bad_from = reading.bad_from.filter(|_| !is_next);
        self.reading = Some(Reading { bad_from, ..reading });
        is_next
    }

    fn pass_over(&mut self, reading: &Reading, bad_from: u64, place: u64) -> bool {
        let size = reading.offset - bad_from;
        let fits = size.div_ceil(reading.format.message_overhead() as u64);
        let has_head = self.segments.back().is_some_and(|segment| segment.id == reading.id);
        let Some(count) = place.checked_sub(self.next_sequence) else { return false };
        // A segment with a bad head may have begun anywhere.
        if has_head && count > fits {
            return false;
        }
        self.cut(CutKind::Damage, reading, bad_from, size);
        if !has_head {
            self.begin_segment(reading.id, place, reading.offset, reading.format);
            return true;
        }
        if count > 0 {
            self.holes.push(Hole {
                first: self.next_sequence,
                end: place,
                cuts_from: self.cuts.len() - 1,
                cuts_end: self.cuts.len(),
                segment: reading.id,
                is_told: true,
            });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.found_damage(size, count);
            segment.note_found(place, segment.size);
        }
        self.next_sequence = place;
        true
    }
}

/// The next element of the bytes at hand.
enum Next {
    Good(usize),
    /// So many bytes are needed to tell.
    Wanted(usize),
    /// So many bytes are no record.
    Bad(usize),
}

/// A sequence above all sequences that were ever in a segment below `next_segment`, half a round of packet ids away
/// from `last`.
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
