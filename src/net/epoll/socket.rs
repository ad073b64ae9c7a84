//! One socket, and what the kernel has told of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::Served;
use super::sending::{Sending, Sent};
use crate::shard::ReadMode;

pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// What the user of the network calls it.
    pub(super) owner: u64,
    pub(super) wanted: ReadMode,
    /// It stands in the list of sockets that have something.
    pub(super) is_listed: bool,
    /// Bytes may be there, or the end.
    pub(super) is_readable: bool,
    /// The peer has ended, or the connection broke: what is there is read up to it.
    pub(super) is_at_end: bool,
    /// There may be room for more to send.
    pub(super) is_writable: bool,
    /// An output has left, which was not reported yet.
    pub(super) is_reporting: bool,
    /// What did not leave at once.
    pub(super) sending: Option<Box<Sending>>,
    /// A send has failed; reported when nothing is read that would report the end.
    broken: Option<io::Error>,
    /// Its end was reported, and nothing is reported any more.
    pub(super) has_ended: bool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, owner: u64) -> Socket {
        Socket {
            fd,
            owner,
            wanted: ReadMode::Stopped,
            is_listed: false,
            is_readable: false,
            is_at_end: false,
            is_writable: true,
            is_reporting: false,
            sending: None,
            broken: None,
            has_ended: false,
        }
    }

    /// Keeps what the kernel tells.
    pub(super) fn note(&mut self, flags: EventFlags) {
        self.is_at_end |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.is_readable |= self.is_at_end || flags.contains(EventFlags::IN);
        self.is_writable |= flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
    }

    /// The kernel does not watch it.
    pub(super) fn refuse(&mut self, error: io::Error) {
        self.broken = Some(error);
    }

    /// A send has failed. While it is read, the receive reports the end, behind what the peer has said before: a DISCONNECT
    /// perhaps.
    pub(super) fn break_off(&mut self, error: io::Error) {
        self.broken = Some(error);
        self.is_at_end = true;
        self.is_readable = true;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.is_reporting || self.sending.is_some()
    }

    pub(super) fn can_send(&self) -> bool {
        self.is_writable && self.sending.is_some() || self.reports_break()
    }

    pub(super) fn can_receive(&self) -> bool {
        self.is_readable && self.wanted != ReadMode::Stopped
    }

    pub(super) fn has_work(&self) -> bool {
        !self.has_ended && (self.can_send() || self.can_receive())
    }

    /// It is broken, and no receive will say so.
    fn reports_break(&self) -> bool {
        self.broken.is_some() && !self.can_receive()
    }

    /// Sends what has not left yet.
    pub(super) fn go_on_sending(&mut self) -> Option<Served> {
        if self.reports_break() {
            let error = self.broken.take();
            return Some(self.end(false, error));
        }
        let mut sending = self.sending.take()?;
        match sending.go_on(&self.fd) {
            Sent::All => Some(Served::Sent { owner: self.owner, output: sending.finish() }),
            Sent::Some => {
                self.is_writable = false;
                self.sending = Some(sending);
                None
            }
            Sent::Broken(error) => {
                self.break_off(error);
                if !self.reports_break() {
                    return None;
                }
                let error = self.broken.take();
                Some(self.end(false, error))
            }
        }
    }

    /// Nothing comes after this. `is_read_out`: nothing is left to be read either.
    pub(super) fn end(&mut self, is_read_out: bool, error: Option<io::Error>) -> Served {
        self.has_ended = true;
        self.sending = None;
        // Of a broken connection a receive may see no more than the end.
        let error = error.or(self.broken.take());
        Served::Ended { owner: self.owner, is_read_out, error }
    }
}
