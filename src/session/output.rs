//! What is on its way to one client: one contiguous buffer that fills while another is in flight.

use crate::arena::{Gauge, Stored, allocated};

/// A payload that leaves by reference, behind the first `at` bytes of the buffer.
#[derive(Clone, Debug)]
pub struct Part {
    pub at: usize,
    pub stored: Stored,
}

impl Part {
    pub fn bytes(&self) -> &[u8] {
        let message = self.stored.message();
        message.payload
    }
}

/// Bytes for one send. Usually without parts; each part goes between the bytes before and after its `at`.
#[derive(Debug, Default)]
pub struct Output {
    pub bytes: Vec<u8>,
    pub parts: Vec<Part>,
}

impl Output {
    /// All bytes in the order in which they leave.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let pairs = self.parts.iter().flat_map(move |part| {
            let before = &self.bytes[from..part.at];
            from = part.at;
            [before, part.bytes()]
        });
        let tail_from = self.parts.last().map_or(0, |part| part.at);
        pairs.chain(std::iter::once(&self.bytes[tail_from..])).filter(|slice| !slice.is_empty())
    }

    pub fn size(&self) -> usize {
        self.bytes.len() + self.parts.iter().map(|part| part.bytes().len()).sum::<usize>()
    }
}

/// Empty buffers to use again, so that an idle connection holds none. What was not needed for a while is freed.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    /// Capacity of all free buffers, bytes.
    bytes: usize,
    /// The fewest free buffers there were since the last trim.
    spare_count: usize,
}

/// Capacity kept in all; a busy shard's buffers go round without meeting the allocator.
const POOL_BYTES_MAX: usize = 16 << 20;
const POOL_COUNT_MAX: usize = 1024;

impl BufferPool {
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        self.spare_count = self.spare_count.min(self.free.len());
        buffer
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let has_room = self.bytes + capacity <= POOL_BYTES_MAX && self.free.len() < POOL_COUNT_MAX;
        if capacity > 0 && has_room {
            buffer.clear();
            self.bytes += capacity;
            self.free.push(buffer);
        }
    }

    /// Capacity of all free buffers.
    pub fn bytes(&self) -> usize {
        self.bytes + allocated(self.free.capacity() * size_of::<Vec<u8>>())
    }

    /// Free buffers.
    pub fn count(&self) -> usize {
        self.free.len()
    }

    /// Frees as many buffers as nobody needed since the last call. Called now and then.
    pub fn trim(&mut self) {
        for buffer in self.free.drain(..self.spare_count) {
            self.bytes -= buffer.capacity();
        }
        self.spare_count = self.free.len();
    }
}

/// One connection's output.
#[derive(Debug)]
pub struct OutputBuffer {
    filling: Output,
    filling_size: usize,
    /// 0: nothing is in flight.
    in_flight_size: usize,
    total: Gauge,
}

impl OutputBuffer {
    /// `total` counts the bytes of all buffers of the shard.
    pub fn new(total: Gauge) -> OutputBuffer {
        OutputBuffer { filling: Output::default(), filling_size: 0, in_flight_size: 0, total }
    }

    /// Bytes waiting and in flight.
    pub fn size(&self) -> usize {
        self.filling_size + self.in_flight_size
    }

    pub fn total(&self) -> usize {
        self.total.bytes()
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight_size > 0
    }

    pub fn has_bytes(&self) -> bool {
        self.filling_size > 0
    }

    /// Appends what `write` adds to the buffer; returns whether the buffer was empty before.
    #[inline]
    pub fn append(&mut self, pool: &mut BufferPool, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.filling.bytes.capacity() == 0 {
            self.filling.bytes = pool.take();
        }
        let before = self.filling.bytes.len();
        write(&mut self.filling.bytes);
        let added = self.filling.bytes.len() - before;
        let was_empty = self.filling_size == 0;
        self.filling_size += added;
        self.total.add(added);
        was_empty && added > 0
    }

    /// Appends a stored message's payload by reference.
    #[inline(never)]
    pub fn append_payload(&mut self, stored: &Stored) {
        let size = stored.message().payload.len();
        if size == 0 {
            return;
        }
        self.filling.parts.push(Part { at: self.filling.bytes.len(), stored: stored.clone() });
        self.filling_size += size;
        self.total.add(size);
    }

    /// The next bytes to send, unless some are in flight or there are none.
    pub fn take(&mut self) -> Option<Output> {
        if self.is_in_flight() || self.filling_size == 0 {
            return None;
        }
        self.in_flight_size = self.filling_size;
        self.filling_size = 0;
        Some(std::mem::take(&mut self.filling))
    }

    /// What was in flight has been sent.
    pub fn sent(&mut self, output: Output, pool: &mut BufferPool) -> usize {
        let size = self.in_flight_size;
        self.total.subtract(size);
        self.in_flight_size = 0;
        pool.give(output.bytes);
        size
    }
}

impl Drop for OutputBuffer {
    fn drop(&mut self) {
        self.total.subtract(self.size());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Claim, Draft, Meta};

    #[test]
    fn buffers_that_nobody_needs_are_freed_and_the_others_stay() {
        let mut pool = BufferPool::default();
        for _ in 0..10 {
            pool.give(Vec::with_capacity(100));
        }
        pool.trim();
        let taken = [pool.take(), pool.take(), pool.take()];
        taken.into_iter().for_each(|buffer| pool.give(buffer));
        pool.trim();
        assert_eq!((pool.free.len(), pool.bytes >= 300, pool.bytes < 400), (3, true, true));
        pool.trim();
        assert_eq!((pool.free.len(), pool.bytes), (0, 0));
        pool.give(Vec::with_capacity(POOL_BYTES_MAX));
        pool.give(Vec::with_capacity(1));
        assert_eq!(pool.free.len(), 1, "the pool is bounded in bytes");
    }

    #[test]
    fn parts_leave_between_the_bytes_around_them() {
        let meta = Meta {
            qos: 0,
            retain: false,
            is_origin: true,
            expires_at: None,
            publisher: 0,
            from_bridge: false,
            claim: Claim::None,
        };
        let draft = Draft { topic: b"t", properties: [&[], &[]], payload: b"LARGE", meta };
        let stored = Stored::from_draft(&draft, &Gauge::default());
        let total = Gauge::default();
        let mut pool = BufferPool::default();
        let mut buffer = OutputBuffer::new(total.clone());
        assert!(buffer.append(&mut pool, |out| out.extend_from_slice(b"ab")));
        buffer.append_payload(&stored);
        assert!(!buffer.append(&mut pool, |out| out.extend_from_slice(b"cd")));
        buffer.append_payload(&stored);
        assert_eq!(total.bytes(), 14);
        let output = buffer.take().unwrap();
        assert!(buffer.take().is_none());
        assert_eq!(output.slices().collect::<Vec<_>>().concat(), b"abLARGEcdLARGE");
        assert_eq!(output.size(), 14);
        buffer.append(&mut pool, |out| out.push(1));
        assert!(buffer.take().is_none(), "one output is in flight at most");
        assert_eq!(buffer.sent(output, &mut pool), 14);
        assert_eq!(total.bytes(), 1);
        drop(buffer);
        assert_eq!(total.bytes(), 0);
    }
}
