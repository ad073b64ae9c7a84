//! Facts about a segment that save reading it: sizes, offsets, times, and how many of its messages are not done.

use super::format::Format;

/// An offset is remembered about every so many bytes.
const OFFSET_STEP: u64 = 64 * 1024;
/// Times are remembered to this precision.
const TIME_STEP_MS: u64 = 1000;

/// Message records with consecutive sequences. Of a record that cannot be read, only the sequence is left.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub first_sequence: u64,
    /// The size of each message's record; 0: it cannot be read.
    pub sizes: Vec<u32>,
    /// From this sequence on (until the next entry) messages were pushed at this time, ms since 1970, or up to
    /// [`TIME_STEP_MS`] later.
    times: Vec<(u64, u64)>,
}

impl Records {
    pub fn new(first_sequence: u64) -> Records {
        Records { first_sequence, ..Records::default() }
    }

    /// The sequence behind the last one.
    pub fn end(&self) -> u64 {
        self.first_sequence + self.sizes.len() as u64
    }

    pub fn holds(&self, sequence: u64) -> bool {
        (self.first_sequence..self.end()).contains(&sequence)
    }

    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub fn add(&mut self, size: u32, time_ms: u64) {
        if self.times.last().is_none_or(|&(_, last)| time_ms.abs_diff(last) >= TIME_STEP_MS) {
            self.times.push((self.end(), time_ms));
        }
        self.sizes.push(size);
    }

    pub fn size_of(&self, sequence: u64) -> Option<u32> {
        let index = sequence.checked_sub(self.first_sequence)?;
        self.sizes.get(usize::try_from(index).ok()?).copied()
    }

    pub fn time_of(&self, sequence: u64) -> Option<u64> {
        let behind = self.times.partition_point(|&(first, _)| first <= sequence);
        self.times[..behind].last().map(|&(_, time_ms)| time_ms)
    }

    /// Forgets the first `count` records.
    pub fn drop_first(&mut self, count: usize) {
        self.sizes.drain(..count);
        self.first_sequence += count as u64;
        let behind = self.times.partition_point(|&(first, _)| first <= self.first_sequence);
        self.times.drain(..behind.saturating_sub(1));
    }

    /// Appends records that begin where these end.
    fn join(&mut self, records: Records) {
        assert_eq!(self.end(), records.first_sequence);
        self.sizes.extend_from_slice(&records.sizes);
        self.times.extend_from_slice(&records.times);
    }

    fn truncate(&mut self, end: u64) {
        self.sizes.truncate(end.saturating_sub(self.first_sequence) as usize);
        let kept = self.times.partition_point(|&(first, _)| first < end);
        self.times.truncate(kept);
    }
}

/// A file of the log.
#[derive(Clone, Debug)]
pub struct Segment {
    pub id: u64,
    pub messages: Records,
    head_size: u64,
    /// Bytes of the file that count: head and whole records.
    pub size: u64,
    /// How many messages are not done, and the bytes of their records.
    pub unfinished: u64,
    pub unfinished_size: u64,
    /// How many of the unfinished messages wait.
    pub waiting: u64,
    pub format: Format,
    /// The number of the write that records the last of the segment's marks.
    pub recorded_by: u64,
    /// Whether the file could not be deleted. The deletion is tried again when the next segment begins.
    pub stuck: bool,
    /// Sequence and offset of some message records.
    offsets: Vec<(u64, u64)>,
}

impl Segment {
    pub fn new(id: u64, first_sequence: u64, head_size: u64, format: Format) -> Segment {
        Segment {
            id,
            format,
            recorded_by: 0,
            messages: Records::new(first_sequence),
            head_size,
            size: head_size,
            unfinished: 0,
            unfinished_size: 0,
            waiting: 0,
            stuck: false,
            offsets: Vec::new(),
        }
    }

    /// Bytes behind the head.
    pub fn filled(&self) -> u64 {
        self.size - self.head_size
    }

    /// Takes in the bytes that were written at the segment's end: `states_size` bytes of states, then `records`, all of
    /// which waits.
    pub fn append(&mut self, states_size: u64, records: Records) {
        let mut offset = self.size + states_size;
        for (&size, sequence) in records.sizes.iter().zip(records.first_sequence..) {
            self.note_place(sequence, offset);
            offset += u64::from(size);
            self.unfinished_size += u64::from(size);
        }
        self.unfinished += records.sizes.len() as u64;
        self.waiting += records.sizes.len() as u64;
        self.size = offset;
        if !records.is_empty() {
            self.messages.join(records);
        }
    }

    /// Takes in one record that was found at the end. Its state is counted later.
    pub fn found_message(&mut self, size: u32, time_ms: u64) {
        self.note_place(self.messages.end(), self.size);
        self.messages.add(size, time_ms);
        self.size += u64::from(size);
    }

    /// Takes in that the next `size` bytes, with so many messages, cannot be read.
    pub fn found_damage(&mut self, size: u64, count: u64) {
        self.size += size;
        let sizes = &mut self.messages.sizes;
        sizes.resize(sizes.len() + count as usize, 0);
    }

    /// Notes that the record of `sequence`, or states before it, begin at `offset`, because the bytes in front cannot
    /// be read.
    pub fn note_found(&mut self, sequence: u64, offset: u64) {
        let at = self.offsets.partition_point(|&(first, _)| first < sequence);
        match self.offsets.get_mut(at) {
            Some(place) if place.0 == sequence => place.1 = offset,
            _ => self.offsets.insert(at, (sequence, offset)),
        }
    }

    /// Forgets messages from `end` on: a later segment has them.
    pub fn forget_from(&mut self, end: u64) {
        self.messages.truncate(end);
        self.offsets.retain(|&(sequence, _)| sequence < end);
    }

    /// A known message at or before `sequence`, and its offset.
    pub fn offset_before(&self, sequence: u64) -> Option<(u64, u64)> {
        let behind = self.offsets.partition_point(|&(first, _)| first <= sequence);
        self.offsets[..behind].last().copied()
    }

    fn note_place(&mut self, sequence: u64, offset: u64) {
        if self.offsets.last().is_none_or(|&(_, last)| offset - last >= OFFSET_STEP) {
            self.offsets.push((sequence, offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_knows_sizes_times_and_places() {
        let mut segment = Segment::new(1, 10, 64, Format::V2(1));
        let mut records = Records::new(10);
        (0..4000u32).for_each(|index| records.add(30 + index % 50, 5000 + u64::from(index)));
        segment.append(20, records.clone());
        let written: u64 = records.sizes.iter().map(|&size| u64::from(size)).sum();
        assert_eq!(segment.size, 64 + 20 + written);
        assert_eq!((segment.unfinished, segment.unfinished_size), (4000, written));
        let (sequence, offset) = segment.offset_before(3000).unwrap();
        assert!(sequence > 10 && sequence <= 3000, "the second place was found");
        let before = &records.sizes[..(sequence - 10) as usize];
        assert_eq!(offset, 84 + before.iter().map(|&size| u64::from(size)).sum::<u64>());
        for sequence in [10, 1009, 1010, 4009] {
            let exact = 5000 + sequence - 10;
            let known = segment.messages.time_of(sequence).unwrap();
            assert!(known <= exact && exact - known < TIME_STEP_MS, "{sequence}: {known}");
        }
        segment.forget_from(500);
        assert_eq!(segment.messages.end(), 500);
        assert_eq!(segment.messages.size_of(500), None);
    }
}
