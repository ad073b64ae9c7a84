//! The bytes on their way to one client: one contiguous buffer that fills while another is in flight.
//!
//! At most one output of a connection is with the kernel, which owns its bytes until the completion. Buffers go round in
//! a pool: a buffer of more than 1 KiB that is used again counts whole beside the bytes in use, and is not used where
//! such buffers would take 16 MiB more than the bytes in use. Otherwise gauges count bytes in use, not the capacity of
//! vectors, which is up to twice that.

use crate::arena::{Stored, allocated};
use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use thin_vec::ThinVec;

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

/// The bytes of one send. Usually it has no parts; each part goes between the bytes before its `at` and the bytes
/// behind.
///
/// ```text
///  bytes:  | room for a header | MQTT ...  part  ... MQTT |
///           0               begin          at          len
/// ```
/// Only a connection with a transport has such room. A header that the transport writes ends where the MQTT bytes begin.
#[derive(Debug, Default)]
pub struct Output {
    pub bytes: Vec<u8>,
    pub parts: ThinVec<Part>,
    /// The place in `bytes` of the first byte that is sent.
    pub begin: u32,
    /// The size of the room in front, in bytes: what `begin` is before a header stands there.
    pub room: u32,
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Output {
        Output { bytes, ..Output::default() }
    }
}

impl Output {
    /// An empty output that leaves `room` bytes in front of what is appended.
    pub fn with_room(room: u32) -> Output {
        Output { room, ..Output::default() }
    }

    /// All bytes in the order in which they leave.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = self.begin as usize;
        let pairs = self.parts.iter().flat_map(move |part| {
            let before = &self.bytes[from..part.at];
            from = part.at;
            [before, part.bytes()]
        });
        let tail_from = self.parts.last().map_or(self.begin as usize, |part| part.at);
        pairs.chain(std::iter::once(&self.bytes[tail_from..])).filter(|slice| !slice.is_empty())
    }

    /// The bytes of an output without parts.
    #[inline]
    pub fn whole(&self) -> &[u8] {
        debug_assert!(self.parts.is_empty());
        &self.bytes[self.begin as usize..]
    }

    /// How many bytes are sent.
    pub fn size(&self) -> usize {
        self.bytes.len() - self.begin as usize
            + self.parts.iter().map(|part| part.bytes().len()).sum::<usize>()
    }
}

/// Empty buffers to use again, so that an idle connection holds none. Buffers that were not needed for a while are
/// freed.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    /// Capacity of all free buffers, bytes.
    bytes: usize,
    /// The fewest free buffers there were since the last trim.
    spare_count: usize,
}

/// The largest capacity kept in all. The buffers of a busy shard go round without meeting the allocator.
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

    /// Frees as many buffers as were never needed since the last call. It is called now and then.
    pub fn trim(&mut self) {
        for buffer in self.free.drain(..self.spare_count) {
            self.bytes -= buffer.capacity();
        }
        self.spare_count = self.free.len();
    }
}

/// No more large buffers are used again where they hold this much more than twice the bytes to be sent.
pub const OUTPUT_SLACK: usize = POOL_BYTES_MAX;

/// A buffer from the pool up to this capacity counts as the bytes in it.
pub const SMALL_CAPACITY: usize = 1 << 10;

/// Counts the bytes of all buffers of a shard. Each connection has it, so it is one pointer.
#[derive(Clone, Debug, Default)]
pub struct OutputTotal(Rc<OutputSums>);

#[derive(Debug, Default)]
pub struct OutputSums {
    /// Bytes to be sent.
    pub bytes: Sum,
    /// Capacity of buffers that were large when they came from the pool: few bytes may stand in them.
    pub reused: Sum,
}

impl Deref for OutputTotal {
    type Target = OutputSums;

    fn deref(&self) -> &OutputSums {
        &self.0
    }
}

/// A number of bytes that several holders change.
#[derive(Debug, Default)]
pub struct Sum(Cell<usize>);

impl Sum {
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn subtract(&self, bytes: usize) {
        debug_assert!(bytes <= self.0.get());
        self.0.set(self.0.get() - bytes);
    }
}

/// One connection's output.
#[derive(Debug)]
pub struct OutputBuffer {
    filling: Output,
    filling_size: usize,
    /// The size in flight; 0: nothing is.
    in_flight_size: usize,
    /// What the buffer that fills, and the buffer in flight, count in `OutputTotal::reused`; `u32::MAX` at most.
    filling_reused: u32,
    in_flight_reused: u32,
    total: OutputTotal,
}

impl OutputBuffer {
    /// `total` counts all buffers of the shard.
    pub fn new(total: OutputTotal) -> OutputBuffer {
        OutputBuffer {
            filling: Output::default(),
            filling_size: 0,
            in_flight_size: 0,
            filling_reused: 0,
            in_flight_reused: 0,
            total,
        }
    }

    /// Bytes waiting and in flight.
    pub fn size(&self) -> usize {
        self.filling_size + self.in_flight_size
    }

    pub fn total(&self) -> usize {
        self.total.bytes.bytes()
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
            self.begin_filling(pool);
        }
        let before = self.filling.bytes.len();
        write(&mut self.filling.bytes);
        let added = self.filling.bytes.len() - before;
        let was_empty = self.filling_size == 0;
        self.filling_size += added;
        self.total.bytes.add(added);
        was_empty && added > 0
    }

    /// Takes a buffer from the pool, with room in front where a transport wants room.
    #[inline(always)]
    fn begin_filling(&mut self, pool: &mut BufferPool) {
        self.filling.bytes = pool.take();
        if self.filling.bytes.capacity() > SMALL_CAPACITY {
            self.count_reused(pool);
        }
        if self.filling.room > 0 {
            self.filling.bytes.resize(self.filling.room as usize, 0);
            self.filling.begin = self.filling.room;
        }
    }

    /// Counts a buffer that was large before, or gives it back to the pool where such buffers hold too much.
    #[inline(never)]
    fn count_reused(&mut self, pool: &mut BufferPool) {
        if self.total.reused.bytes() > 2 * self.total.bytes.bytes() + OUTPUT_SLACK {
            pool.give(std::mem::take(&mut self.filling.bytes));
            return;
        }
        self.filling_reused = u32::try_from(self.filling.bytes.capacity()).unwrap_or(u32::MAX);
        self.total.reused.add(self.filling_reused as usize);
    }

    /// Gives an empty buffer back to the pool.
    #[cold]
    #[inline(never)]
    pub fn give_back_empty(&mut self, pool: &mut BufferPool) {
        if self.filling_size == 0 {
            self.total.reused.subtract(std::mem::take(&mut self.filling_reused) as usize);
            pool.give(std::mem::take(&mut self.filling.bytes));
        }
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
        self.total.bytes.add(size);
    }

    /// Takes the next bytes to send, unless some are in flight or there are none.
    pub fn take(&mut self) -> Option<Output> {
        if self.is_in_flight() || self.filling_size == 0 {
            return None;
        }
        self.in_flight_size = self.filling_size;
        self.in_flight_reused = std::mem::take(&mut self.filling_reused);
        self.filling_size = 0;
        let next = Output::with_room(self.filling.room);
        Some(std::mem::replace(&mut self.filling, next))
    }

    /// Everything that is appended from now on leaves `room` bytes in front of it. To be called before anything is appended.
    pub fn set_room(&mut self, room: u32) {
        debug_assert!(self.filling.bytes.capacity() == 0);
        self.filling.room = room;
    }

    /// An output without bytes, for what a transport alone has to send; `None`: something is in flight or waits.
    pub fn take_empty(&mut self) -> Option<Output> {
        let is_free = !self.is_in_flight() && self.filling_size == 0;
        is_free.then(|| Output::with_room(self.filling.room))
    }

    /// A transport has changed the size of the output that is in flight.
    pub fn resize_in_flight(&mut self, size: usize) {
        self.total.bytes.subtract(self.in_flight_size);
        self.total.bytes.add(size);
        self.in_flight_size = size;
    }

    /// Ends the send that was in flight.
    #[inline(always)]
    pub fn sent(&mut self, output: Output, pool: &mut BufferPool) -> usize {
        let size = std::mem::take(&mut self.in_flight_size);
        self.total.bytes.subtract(size);
        if self.in_flight_reused > 0 {
            self.total.reused.subtract(std::mem::take(&mut self.in_flight_reused) as usize);
        }
        pool.give(output.bytes);
        size
    }
}

impl Drop for OutputBuffer {
    fn drop(&mut self) {
        self.total.bytes.subtract(self.size());
        self.total.reused.subtract(self.filling_reused as usize + self.in_flight_reused as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Claim, Draft, Gauge, Meta};

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
    fn few_bytes_in_buffers_that_were_large_hold_little_memory() {
        const LARGE: usize = 256 << 10;
        let total = OutputTotal::default();
        let mut pool = BufferPool::default();
        let mut slow: Vec<OutputBuffer> = Vec::new();
        for number in 0..2_000 {
            let mut reader = OutputBuffer::new(total.clone());
            reader.append(&mut pool, |out| out.extend_from_slice(&[0; LARGE]));
            let output = reader.take().expect("it has bytes");
            reader.sent(output, &mut pool);
            let mut buffer = OutputBuffer::new(total.clone());
            buffer.append(&mut pool, |out| out.push(1));
            // Half of the buffers have a send in flight behind which more bytes wait.
            if number % 2 == 0 {
                let output = buffer.take().expect("it has a byte");
                std::mem::forget(output);
                buffer.append(&mut pool, |out| out.push(1));
            }
            slow.push(buffer);
            assert!(total.reused.bytes() <= 2 * total.bytes.bytes() + OUTPUT_SLACK + LARGE);
        }
        let capacity: usize = slow.iter().map(|buffer| buffer.filling.bytes.capacity()).sum();
        assert!(
            (1..=total.reused.bytes() + slow.len() * SMALL_CAPACITY).contains(&capacity),
            "{capacity}"
        );
        drop(slow);
        assert_eq!((total.bytes.bytes(), total.reused.bytes()), (0, 0));
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
        let total = OutputTotal::default();
        let mut pool = BufferPool::default();
        let mut buffer = OutputBuffer::new(total.clone());
        assert!(buffer.append(&mut pool, |out| out.extend_from_slice(b"ab")));
        buffer.append_payload(&stored);
        assert!(!buffer.append(&mut pool, |out| out.extend_from_slice(b"cd")));
        buffer.append_payload(&stored);
        assert_eq!(total.bytes.bytes(), 14);
        let output = buffer.take().unwrap();
        assert!(buffer.take().is_none());
        assert_eq!(output.slices().collect::<Vec<_>>().concat(), b"abLARGEcdLARGE");
        assert_eq!(output.size(), 14);
        buffer.append(&mut pool, |out| out.push(1));
        assert!(buffer.take().is_none(), "one output is in flight at most");
        assert_eq!(buffer.sent(output, &mut pool), 14);
        assert_eq!(total.bytes.bytes(), 1);
        drop(buffer);
        assert_eq!(total.bytes.bytes(), 0);
    }
}
