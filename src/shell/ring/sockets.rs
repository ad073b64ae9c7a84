//! The sockets of one ring, each with the operations that the kernel still holds on it.

use std::os::fd::OwnedFd;

use super::send::InFlight;
use super::token::{GENERATION_MASK, SocketKey};
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
    pub(super) send: Option<Box<InFlight>>,
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

/// A slab with generations.
#[derive(Default)]
pub(super) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

impl Sockets {
    pub(super) fn insert(&mut self, socket: Socket) -> SocketKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.socket.is_none());
        slot.socket = Some(socket);
        self.count += 1;
        SocketKey { index, generation: slot.generation }
    }

    pub(super) fn get_mut(&mut self, key: SocketKey) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.socket.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: SocketKey) -> Option<Socket> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let socket = slot.socket.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        self.count -= 1;
        Some(socket)
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn keys(&self) -> Vec<SocketKey> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.socket.is_some());
        used.map(|(index, slot)| SocketKey { index: index as u32, generation: slot.generation })
            .collect()
    }
}
