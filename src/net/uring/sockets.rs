//! A socket of a ring, with the operations that the kernel still holds on it.

use std::os::fd::OwnedFd;

use super::send::InFlight;
use crate::shard::ReadMode;

/// Whether the kernel holds a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    Idle,
    Once,
    Many,
    /// Asked to end; its last completion is still to come.
    Cancelled,
}

pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    /// What the user of the ring calls it.
    pub(super) owner: u64,
    pub(super) wanted: ReadMode,
    pub(super) receive: Receive,
    /// It stands in the list of receives to submit.
    pub(super) receive_queued: bool,
    pub(super) send: Option<InFlight>,
    /// A send has failed, and the receive is to report the end.
    pub(super) broken: bool,
    /// Its end was reported, and nothing is reported any more.
    pub(super) ended: bool,
    /// Nothing is reported any more; it goes with its last completion.
    pub(super) closing: bool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, owner: u64) -> Socket {
        Socket {
            fd,
            owner,
            wanted: ReadMode::Stopped,
            receive: Receive::Idle,
            receive_queued: false,
            send: None,
            broken: false,
            ended: false,
            closing: false,
        }
    }

    /// What happens to it concerns nobody.
    pub(super) fn is_mute(&self) -> bool {
        self.ended || self.closing
    }

    /// The kernel holds nothing on it.
    pub(super) fn is_quiet(&self) -> bool {
        self.receive == Receive::Idle && self.send.is_none()
    }
}
