//! Reads the backlog in order: lately written messages from memory, older ones from the files in large pieces.

use std::rc::Rc;

use super::Inner;
use super::error::SpoolError;
use super::files::READ_SIZE;
use crate::executor::files::{self, File};
use crate::store::format::{Decoded, Format, MESSAGE_OVERHEAD, RECORD_HEAD_SIZE, Record};
use crate::store::log::Log;
use crate::store::segment::Segment;
use crate::store::states::State;

/// Some messages of the backlog, in order.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Bytes,
    /// The sequence of each message, and where it begins and ends.
    messages: Vec<(u64, usize, usize)>,
}

#[derive(Debug, Default)]
enum Bytes {
    #[default]
    None,
    Memory(Rc<Vec<u8>>),
    File(files::Bytes),
}

impl Chunk {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages with their sequences.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bytes: &[u8] = match &self.bytes {
            Bytes::None => &[],
            Bytes::Memory(bytes) => bytes,
            Bytes::File(bytes) => bytes,
        };
        self.messages.iter().map(move |&(sequence, start, end)| (sequence, &bytes[start..end]))
    }
}

/// Where the last read ended, and the bytes that were read in advance.
#[derive(Debug, Default)]
pub(super) struct Reader {
    file: Option<(u64, Rc<File>)>,
    window: Option<Window>,
    place: Option<Place>,
    /// A position in a batch in memory; `segment` is the batch's first sequence.
    place_in_memory: Option<Place>,
}

/// The record of message `sequence`, or states before it, begin at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u64,
    sequence: u64,
    offset: u64,
}

/// Bytes of a segment.
#[derive(Debug)]
struct Window {
    segment: u64,
    offset: u64,
    bytes: files::Bytes,
}

/// How much a read asks for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    from: u64,
    bytes_max: usize,
    count_max: usize,
}

/// Why the window has no message at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The record at this place needs so many bytes.
    Bytes(Place, usize),
    Torn(Place),
}

impl Reader {
    pub(super) async fn read(
        &mut self,
        inner: &Inner,
        from: u64,
        bytes_max: usize,
        count_max: usize,
    ) -> Result<Chunk, SpoolError> {
        let wish = Wish { from, bytes_max, count_max: count_max.max(1) };
        // Offset and size of what this call has loaded: loading the same again would not help.
        let mut loaded = None;
        loop {
            let (missing, format, end) = {
                let log = inner.log.borrow();
                let Some(wanted) = log.next_waiting(from) else { return Ok(Chunk::default()) };
                if let Some(chunk) = self.take_from_memory(&log, wanted, wish) {
                    return Ok(chunk);
                }
                let segment = log.segment_of(wanted).expect("a message that waits has its segment");
                let place = self.place_before(segment, wanted);
                match self.take(&log, place, segment, wish) {
                    Ok(chunk) => return Ok(chunk),
                    Err(missing) => (missing, segment.format, segment.size),
                }
            };
            let (place, size) = match missing {
                Missing::Bytes(place, size) => (place, size),
                // Perhaps memory is at fault, not the disk: the bytes are read once more before messages are given up.
                Missing::Torn(place) => (place, 1),
            };
            let has_it = |(offset, read): (u64, usize)| offset == place.offset && size <= read;
            if loaded.is_some_and(has_it) || place.offset + size as u64 > end {
                loaded = None;
                match self.give_up(inner, place, format, end).await? {
                    // The loss was known before.
                    SpoolError::Damaged { messages_lost: 0, .. } => continue,
                    damage => return Err(damage),
                }
            }
            let size = size.max(READ_SIZE);
            loaded = Some((place.offset, size));
            if let Err(error) = self.load(inner, place, size, end).await {
                if inner.log.borrow().has_segment(place.segment) {
                    return Err(error);
                }
                // The segment's messages were done meanwhile, and it was deleted.
                loaded = None;
            }
        }
    }

    /// Frees the window. Its bytes are read again when they are wanted.
    pub(super) fn trim(&mut self) {
        self.window = None;
    }

    /// The nearest place known from which `wanted` can be reached.
    fn place_before(&self, segment: &Segment, wanted: u64) -> Place {
        let (sequence, offset) = segment.offset_before(wanted).expect("its first message is known");
        let known = Place { segment: segment.id, sequence, offset };
        let last = self.place.filter(|last| {
            last.segment == segment.id && (sequence..=wanted).contains(&last.sequence)
        });
        last.unwrap_or(known)
    }

    /// The messages from `place` on that the window has: at least one.
    fn take(
        &mut self,
        log: &Log,
        place: Place,
        segment: &Segment,
        wish: Wish,
    ) -> Result<Chunk, Missing> {
        let covers = |window: &&Window| {
            let size = window.bytes.len() as u64;
            window.segment == place.segment
                && (window.offset..window.offset + size).contains(&place.offset)
        };
        let Some(window) = self.window.as_ref().filter(covers) else {
            return Err(Missing::Bytes(place, 1));
        };
        let mut next = place;
        let mut size_sum = 0;
        let mut messages = Vec::new();
        let missing = loop {
            let start = (next.offset - window.offset) as usize;
            let (record, size) = match Record::decode(&window.bytes[start..], segment.format) {
                Decoded::Whole { value, size } => (value, size),
                Decoded::Incomplete { size } => break Some(Missing::Bytes(next, size)),
                _ => break Some(Missing::Torn(next)),
            };
            if let Record::Message { sequence, bytes, .. } = record {
                if sequence != next.sequence {
                    break Some(Missing::Torn(next));
                }
                if sequence >= wish.from && log.state(sequence) == Some(State::Waiting) {
                    let is_enough =
                        messages.len() >= wish.count_max || size_sum + bytes.len() > wish.bytes_max;
                    if is_enough && !messages.is_empty() {
                        break None;
                    }
                    size_sum += bytes.len();
                    let overhead = segment.format.message_overhead();
                    messages.push((sequence, start + overhead, start + size));
                }
                next.sequence += 1;
            }
            next.offset += size as u64;
            if next.offset >= segment.size {
                break None;
            }
        };
        let bytes = Bytes::File(window.bytes.clone());
        self.place = Some(next);
        match missing {
            Some(missing) if messages.is_empty() => Err(missing),
            None if messages.is_empty() => Err(Missing::Torn(next)),
            _ => Ok(Chunk { bytes, messages }),
        }
    }

    fn take_from_memory(&mut self, log: &Log, wanted: u64, wish: Wish) -> Option<Chunk> {
        let recent = log.recent();
        let behind = recent.partition_point(|batch| batch.records.first_sequence <= wanted);
        let batch = &recent[behind.checked_sub(1)?];
        if !batch.records.holds(wanted) {
            return None;
        }
        let first = batch.records.first_sequence;
        let start = Place { segment: first, sequence: first, offset: 0 };
        let last = self
            .place_in_memory
            .filter(|last| last.segment == first && (first..=wanted).contains(&last.sequence));
        let mut next = last.unwrap_or(start);
        let mut size_sum = 0;
        let mut messages = Vec::new();
        for &size in &batch.records.sizes[(next.sequence - first) as usize..] {
            let end = next.offset as usize + size as usize;
            let begin = next.offset as usize + MESSAGE_OVERHEAD;
            if next.sequence >= wish.from && log.state(next.sequence) == Some(State::Waiting) {
                let is_enough =
                    messages.len() >= wish.count_max || size_sum + end - begin > wish.bytes_max;
                if is_enough && !messages.is_empty() {
                    break;
                }
                size_sum += end - begin;
                messages.push((next.sequence, begin, end));
            }
            next.sequence += 1;
            next.offset = end as u64;
        }
        self.place_in_memory = Some(next);
        Some(Chunk { bytes: Bytes::Memory(Rc::clone(&batch.bytes)), messages })
    }

    /// Makes a window that begins at `place`, of `size` bytes or up to the segment's end.
    async fn load(
        &mut self,
        inner: &Inner,
        place: Place,
        size: usize,
        end: u64,
    ) -> Result<(), SpoolError> {
        self.window = None;
        let file = match self.file.take().filter(|(segment, _)| *segment == place.segment) {
            Some((_, file)) => file,
            None => inner.files.open_for_reading(place.segment).await?,
        };
        let size = size.min((end - place.offset) as usize);
        let bytes = file.read_at(place.offset, size).await.map_err(|error| {
            SpoolError::io("reading", &inner.files.path_of(place.segment), error)
        })?;
        self.file = Some((place.segment, file));
        self.window = Some(Window { segment: place.segment, offset: place.offset, bytes });
        Ok(())
    }

    /// Gives up unreadable messages as recovery would: up to the next good record. Returns what is lost.
    async fn give_up(
        &mut self,
        inner: &Inner,
        place: Place,
        format: Format,
        end: u64,
    ) -> Result<SpoolError, SpoolError> {
        let next = match format {
            Format::V1 => None,
            Format::V2(_) => self.find_next(inner, place, format, end).await?,
        };
        *self = Reader::default();
        let messages_lost = inner.log.borrow_mut().lose(place.segment, place.sequence, next);
        let path = inner.files.path_of(place.segment);
        Ok(SpoolError::Damaged { path, offset: place.offset, messages_lost })
    }

    /// The first good record behind the bad one at `place`: its offset, and the sequence of its message or of the one
    /// behind it.
    async fn find_next(
        &mut self,
        inner: &Inner,
        place: Place,
        format: Format,
        end: u64,
    ) -> Result<Option<(u64, u64)>, SpoolError> {
        let mut offset = place.offset + 1;
        let mut size = READ_SIZE;
        while offset < end {
            let from = Place { offset, ..place };
            if let Err(error) = self.load(inner, from, size, end).await {
                return if inner.log.borrow().has_segment(place.segment) {
                    Err(error)
                } else {
                    Ok(None)
                };
            }
            let bytes = self.window.as_ref().map_or(&[][..], |window| &window.bytes[..]);
            let (at, wanted) = match find_record(bytes, place.sequence, format) {
                Found::Record(next, at) => return Ok(Some((next, offset + at as u64))),
                Found::Part(at, wanted) => (at, wanted),
            };
            let reaches_end = offset + bytes.len() as u64 >= end || bytes.len() < size;
            // A record that the segment's end cuts off is no record.
            let at = if at == 0 && reaches_end { 1 } else { at };
            if bytes.len() < RECORD_HEAD_SIZE {
                break;
            }
            offset += at as u64;
            size = wanted.max(READ_SIZE);
        }
        Ok(None)
    }
}

/// The result of a search behind bad bytes.
enum Found {
    /// A record: the sequence of its message, or of the one behind it, and its offset.
    Record(u64, usize),
    /// At this offset there may be a record, which needs so many bytes.
    Part(usize, usize),
}

fn find_record(bytes: &[u8], from: u64, format: Format) -> Found {
    for at in 0..bytes.len() {
        match Record::decode(&bytes[at..], format) {
            Decoded::Whole { value, .. } => {
                let (Record::Message { sequence: next, .. } | Record::States { place: next, .. }) =
                    value;
                if next >= from {
                    return Found::Record(next, at);
                }
            }
            Decoded::Incomplete { size } => return Found::Part(at, size),
            _ => {}
        }
    }
    Found::Part(bytes.len(), RECORD_HEAD_SIZE)
}
