//! One send in flight: the output that the kernel reads until the completion.

use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use crate::shard::Output;

/// Slices in one call, `UIO_MAXIOV` of the kernel; the rest follows as after a short send.
const SLICES_MAX: usize = 1024;

/// Bytes in one call: a length is 32 bits wide and a result 31.
const SEND_SIZE_MAX: usize = 1 << 30;

/// The kernel waits for room until all is sent, which saves turns; it may still send less.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// A send that the kernel has. It owns its `Sending` and offers no way to it but `complete`: until then nothing moves, borrows or
/// frees what the kernel was told the address of, and a value that is dropped leaks it.
///
/// This is no `Box`: whoever moves or reborrows a box says that nobody else has access to what the box holds.
pub(super) struct InFlight {
    send: NonNull<Sending>,
}

impl InFlight {
    /// The submission that sends what is left of `send`.
    pub(super) fn begin(send: Box<Sending>, socket: RawFd) -> (InFlight, squeue::Entry) {
        let send = NonNull::from(Box::leak(send));
        // SAFETY: needed because a reference to the box would end what the kernel may do through the pointers of the entry.
        // Sound because `send` was a box a line before and has no other owner; the entry's pointers derive from `send`, and
        // nothing else is derived from it before `complete`.
        let entry = unsafe { (*send.as_ptr()).submission(socket) };
        (InFlight { send }, entry)
    }

    /// Takes back what the kernel was lent.
    ///
    /// # Safety
    /// The kernel does not have the submission of `begin`: its completion was taken.
    pub(super) unsafe fn complete(self) -> Box<Sending> {
        // SAFETY: needed to own again what `begin` gave to the kernel. Sound because the pointer is that of a box, `self` is
        // its only owner and is consumed here, and by our own contract the kernel reads nothing of it any more.
        unsafe { Box::from_raw(self.send.as_ptr()) }
    }
}

/// An output, how much of it was sent, and what describes it to the kernel.
pub(super) struct Sending {
    output: Output,
    size: usize,
    sent: usize,
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

impl Sending {
    pub(super) fn new() -> Sending {
        // SAFETY: needed because the struct has private padding on some targets. Sound because all zeroes is a valid
        // `msghdr`: null pointers with lengths of 0.
        let header = unsafe { std::mem::zeroed() };
        Sending { output: Output::default(), size: 0, sent: 0, header, slices: Vec::new() }
    }

    /// `sent` bytes of it have left already.
    pub(super) fn fill(&mut self, output: Output, sent: usize) {
        self.size = output.slices().map(<[u8]>::len).sum();
        assert!(self.size > sent, "there is something to send");
        self.sent = sent;
        self.output = output;
    }

    /// `true` when all was sent.
    pub(super) fn advance(&mut self, sent: usize) -> bool {
        self.sent += sent;
        assert!(self.sent <= self.size);
        self.sent == self.size
    }

    pub(super) fn finish(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// The submission that sends what is left. It points into `self` and into the output, which `InFlight` keeps in place and
    /// untouched until the completion.
    fn submission(&mut self, socket: RawFd) -> squeue::Entry {
        if self.output.parts.is_empty() {
            let left = &self.output.bytes[self.sent..];
            let size = left.len().min(SEND_SIZE_MAX) as u32;
            return opcode::Send::new(Fd(socket), left.as_ptr(), size).flags(FLAGS).build();
        }
        self.slices.clear();
        let mut skip = self.sent;
        for slice in self.output.slices() {
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            let left = &slice[skip..];
            skip = 0;
            let iov_base = left.as_ptr().cast_mut().cast();
            self.slices.push(libc::iovec { iov_base, iov_len: left.len() });
            if self.slices.len() == SLICES_MAX {
                break;
            }
        }
        self.header.msg_iov = self.slices.as_mut_ptr();
        self.header.msg_iovlen = self.slices.len() as _;
        opcode::SendMsg::new(Fd(socket), ptr::from_ref(&self.header)).flags(FLAGS as u32).build()
    }
}

#[cfg(test)]
impl Sending {
    /// The bytes that a scatter submission made now would name.
    pub(super) fn described(&mut self) -> Vec<u8> {
        self.submission(0);
        let slices = self.slices.iter();
        // SAFETY: needed to read what the kernel would. Sound because the slices point into `self.output`.
        let slices = slices.map(|slice| unsafe {
            std::slice::from_raw_parts(slice.iov_base.cast(), slice.iov_len)
        });
        slices.collect::<Vec<&[u8]>>().concat()
    }
}
