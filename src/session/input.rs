//! Input of one connection that cannot be used yet, counted by the memory that it holds.
//!
//! A buffer grows to the size of its frame at most. Memory that its bytes do not need is given back, so a client that sends
//! one byte of a packet cannot keep a megabyte.

use super::BufferPool;
use crate::arena::Gauge;
use crate::codec;

/// Larger buffers are not passed on: a connection that holds one byte must not be given memory for a megabyte.
const POOLED_SIZE_MAX: usize = 1 << 10;

/// The first part of a frame, or what came while its connection was parked.
#[derive(Debug)]
pub struct InputBuffer {
    bytes: Vec<u8>,
    /// Counts the capacity of all buffers of a budget.
    total: Gauge,
}

impl InputBuffer {
    pub fn new(total: Gauge) -> InputBuffer {
        InputBuffer { bytes: Vec::new(), total }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes. The memory grows to twice the bytes that have arrived at most, and not beyond the end of the
    /// frame.
    pub fn append(&mut self, bytes: &[u8], pool: &mut BufferPool) {
        let size = self.bytes.len() + bytes.len();
        if size > self.bytes.capacity() {
            self.grow(size, pool);
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn grow(&mut self, size: usize, pool: &mut BufferPool) {
        let before = self.bytes.capacity();
        if before == 0 && size <= POOLED_SIZE_MAX {
            self.bytes = pool.take();
        }
        let capacity = self.bytes.capacity();
        if size > capacity {
            let frame_size = codec::frame_size(&self.bytes).ok().flatten().unwrap_or(0);
            let target = size.max((2 * capacity).min(frame_size));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.total.add(self.bytes.capacity() - before);
    }

    /// Takes all bytes, with their memory; nothing is left here.
    pub fn take(&mut self) -> InputBuffer {
        let empty = InputBuffer::new(self.total.clone());
        std::mem::replace(self, empty)
    }

    /// Forgets the first `size` bytes, and gives back the memory that only those needed.
    pub fn consume(&mut self, size: usize) {
        self.bytes.drain(..size);
        let before = self.bytes.capacity();
        if before > POOLED_SIZE_MAX && before > 2 * self.bytes.len() {
            self.bytes.shrink_to_fit();
            self.total.subtract(before - self.bytes.capacity());
        }
    }

    /// Counts the memory in another gauge from now on.
    pub fn count_in(&mut self, total: &Gauge) {
        self.total.subtract(self.bytes.capacity());
        self.total = total.clone();
        self.total.add(self.bytes.capacity());
    }

    /// Ends the buffer; its memory goes to the pool if it is small.
    pub fn recycle(mut self, pool: &mut BufferPool) {
        if self.bytes.capacity() <= POOLED_SIZE_MAX {
            self.total.subtract(self.bytes.capacity());
            pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for InputBuffer {
    fn drop(&mut self) {
        self.total.subtract(self.bytes.capacity());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_allocated() {
        let (connects, frames) = (Gauge::default(), Gauge::default());
        let mut pool = BufferPool::default();
        let mut input = InputBuffer::new(connects.clone());
        // A PUBLISH of 1,000,004 bytes arrives in pieces.
        input.append(&[0x30, 0xc0, 0x84, 0x3d], &mut pool);
        let mut held_max = 0;
        for _ in 0..1_000 {
            input.append(&[0; 1_000], &mut pool);
            assert_eq!(connects.bytes(), input.bytes.capacity());
            assert!(connects.bytes() <= 2 * input.len() + POOLED_SIZE_MAX);
            held_max = held_max.max(connects.bytes());
        }
        assert_eq!((input.len(), held_max), (1_000_004, 1_000_004));
        input.append(&[0x30], &mut pool);
        input.count_in(&frames);
        assert_eq!((connects.bytes(), frames.bytes()), (0, input.bytes.capacity()));
        input.consume(1_000_004);
        assert_eq!(input.bytes(), [0x30]);
        assert!(frames.bytes() == input.bytes.capacity() && frames.bytes() < 64);
        let taken = input.take();
        assert!(input.is_empty() && taken.len() == 1 && frames.bytes() > 0);
        taken.recycle(&mut pool);
        assert_eq!((frames.bytes(), pool.count()), (0, 1));
        input.append(&[0; POOLED_SIZE_MAX + 1], &mut pool);
        input.take().recycle(&mut pool);
        assert_eq!((frames.bytes(), pool.count()), (0, 1), "a large buffer is freed");
        input.append(&[0; 10], &mut pool);
        drop(input);
        assert_eq!((frames.bytes(), pool.count()), (0, 0));
    }
}
