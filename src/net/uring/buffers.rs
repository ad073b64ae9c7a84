//! The receive buffers that all sockets of a ring share: the kernel takes one when bytes have arrived, not before.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use super::RingSettings;

const PAGE_SIZE: usize = 4096;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC` (Linux 6.12): a receive takes of a buffer what it needs, the next one goes on behind it.
const INCREMENTAL: u16 = 2;

/// Buffers and the ring of descriptors through which the kernel is given them.
///
/// ```text
///  a buffer that is shared:   | Loan | Loan | (ended) | Loan |  the kernel's: the next receive  |
///                             0                              filled                         size
/// ```
/// A completion names bytes behind `filled`, so two loans have no byte in common, and the kernel writes behind `filled` alone
/// until the whole buffer is given back. Both the buffers and the descriptors are reached through pointers: no reference spans
/// more than one loan or one descriptor that is not published.
pub(super) struct ReceiveBuffers {
    descriptors: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: u32,
    /// `IOU_PBUF_RING_INC`.
    is_shared: bool,
    /// How much of each buffer completions have named.
    filled: Box<[u32]>,
    /// Where the next descriptor goes; the kernel sees it once `publish` has stored it.
    tail: u16,
    published: u16,
}

/// Bytes that one completion has named: nobody else has them until the loan is given back, which uses it up.
pub(super) struct Loan {
    buffer: u16,
    from: usize,
    size: usize,
    /// The kernel puts nothing more into the buffer: it goes back with this loan.
    is_last: bool,
}

impl ReceiveBuffers {
    /// Buffers as the settings say, registered with `uring`.
    ///
    /// # Safety
    /// The value must not be dropped before `uring` has no receive in flight.
    pub(super) unsafe fn register(
        uring: &IoUring,
        settings: RingSettings,
    ) -> io::Result<ReceiveBuffers> {
        let (count, size) = (settings.receive_buffers, settings.receive_buffer_size);
        assert!(count.is_power_of_two() && size > 0);
        // Zeroed memory of this size comes from the kernel page by page, when it is first written.
        let descriptors = allocate(descriptors_layout(count)).cast();
        let memory = allocate(memory_layout(count, size));
        let filled = vec![0; count as usize].into_boxed_slice();
        let is_shared = settings.shares_buffers;
        let mut buffers = ReceiveBuffers {
            descriptors,
            memory,
            count,
            size,
            is_shared,
            filled,
            tail: 0,
            published: 0,
        };
        let flags = if is_shared { INCREMENTAL } else { 0 };
        // SAFETY: needed because the kernel keeps the address. Sound because the memory is page aligned, has room for
        // `count` descriptors, and lives as long as `buffers`, which by our own contract outlives every receive; the
        // registration ends with the ring, and without a receive the kernel does not look at it.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                descriptors.as_ptr() as u64,
                count,
                GROUP,
                flags,
            )?;
        }
        for buffer in 0..count {
            buffers.queue(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// What a completion of a receive lends; `None`: it has no buffer, or leaves one that is shared with the kernel.
    ///
    /// A completion without data says of a shared buffer that nothing more comes into it, although the kernel has taken none of it
    /// and fills it next: such a buffer was given back it would be in the kernel's ring twice.
    ///
    /// # Safety
    /// `result` and `flags` are those of a completion of the ring with which these buffers are registered. Completions are told
    /// in their order, each once.
    pub(super) unsafe fn lend(&mut self, result: i32, flags: u32) -> Option<Loan> {
        let buffer = cqueue::buffer_select(flags)?;
        let size = usize::try_from(result).unwrap_or(0);
        if size == 0 && self.is_shared {
            return None;
        }
        let filled = &mut self.filled[buffer as usize];
        let from = *filled;
        assert!(size <= (self.size - from) as usize);
        *filled += size as u32;
        Some(Loan { buffer, from: from as usize, size, is_last: !cqueue::buffer_more(flags) })
    }

    /// The bytes of a loan, to read and to change.
    pub(super) fn bytes(&mut self, loan: &mut Loan) -> &mut [u8] {
        let start = loan.buffer as usize * self.size as usize + loan.from;
        // SAFETY: needed because the kernel wrote them behind the compiler's back. Sound because `lend` made the loan, its only
        // source: the range lies within `memory`, all of which is initialised; no other loan has a byte of it; and the kernel
        // writes behind it alone until the loan is given back, which it cannot be while its bytes are borrowed. The completion
        // was read with acquire order after the kernel's writes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(start), loan.size) }
    }

    /// Ends a loan. Its buffer goes to the kernel again if nothing more comes into it.
    pub(super) fn give_back(&mut self, loan: Loan) {
        if loan.is_last {
            self.queue(loan.buffer);
        }
    }

    /// Queues a buffer for the kernel, all of it; `publish` lets go of it.
    fn queue(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        assert!(self.tail.wrapping_sub(self.published) < self.count);
        let position = (self.tail & (self.count - 1)) as usize;
        // SAFETY: needed because the descriptor lies in memory shared with the kernel. Sound because `position < count`,
        // and the kernel does not read a descriptor at or beyond the published tail. At most `count` descriptors exist,
        // one for each buffer, so this place was consumed. The setters leave alone the field that holds the tail.
        unsafe {
            let descriptor = &mut *self.descriptors.as_ptr().add(position);
            let start = buffer as usize * self.size as usize;
            descriptor.set_addr(self.memory.as_ptr().add(start) as u64);
            descriptor.set_len(self.size);
            descriptor.set_bid(buffer);
        }
        self.filled[buffer as usize] = 0;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see everything given back so far.
    pub(super) fn publish(&mut self) {
        if self.tail == self.published {
            return;
        }
        self.published = self.tail;
        // SAFETY: needed because the tail lies in memory shared with the kernel. Sound because `descriptors` is the
        // ring's page-aligned base, the tail is an aligned 16-bit word in it, and both sides access it atomically.
        // Release: the descriptors are written before the kernel sees the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.descriptors.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
impl ReceiveBuffers {
    /// Buffers ever queued for the kernel.
    pub(super) fn queued(&self) -> u16 {
        self.tail
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: needed to free what `register` allocated. Sound because the layouts are the same, and by the contract of
        // `register` no receive that could still write here is in flight.
        unsafe {
            dealloc(self.descriptors.as_ptr().cast(), descriptors_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.size));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: needed for memory aligned to a page. Sound because no layout here has size 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

fn descriptors_layout(count: u16) -> Layout {
    let size = count as usize * size_of::<BufRingEntry>();
    Layout::from_size_align(size, PAGE_SIZE).expect("count is 16 bits wide")
}

fn memory_layout(count: u16, size: u32) -> Layout {
    Layout::from_size_align(count as usize * size as usize, PAGE_SIZE)
        .expect("the configuration bounds the buffers")
}
