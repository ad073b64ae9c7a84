//! One output, and how much of it has left.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::shard::Output;

/// Slices in one call: as many as most outputs have, few enough for the stack.
const SLICES_MAX: usize = 64;

pub(super) struct Sending {
    output: Output,
    size: usize,
    sent: usize,
}

pub(super) enum Sent {
    All,
    /// The socket takes no more now; the kernel tells when it does.
    Some,
    Broken(io::Error),
}

impl Sending {
    pub(super) fn new(output: Output) -> Sending {
        let size = output.slices().map(<[u8]>::len).sum();
        assert!(size > 0, "there is something to send");
        Sending { output, size, sent: 0 }
    }

    /// Sends until all has left or the socket takes no more.
    pub(super) fn go_on(&mut self, socket: &impl AsFd) -> Sent {
        while self.sent < self.size {
            match self.call(socket) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Sent::Some,
                Err(error) => return Sent::Broken(error.into()),
            }
        }
        Sent::All
    }

    pub(super) fn finish(self) -> Output {
        self.output
    }

    fn call(&self, socket: &impl AsFd) -> rustix::io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if self.output.parts.is_empty() {
            return send(socket, &self.output.whole()[self.sent..], flags);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut skip = self.sent;
        for slice in self.output.slices() {
            if skip >= slice.len() {
                skip -= slice.len();
                continue;
            }
            if count == SLICES_MAX {
                break;
            }
            slices[count] = IoSlice::new(&slice[skip..]);
            (count, skip) = (count + 1, 0);
        }
        sendmsg(socket, &slices[..count], &mut SendAncillaryBuffer::default(), flags)
    }
}
