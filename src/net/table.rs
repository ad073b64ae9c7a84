//! The sockets of a shard by key.

use super::token::{GENERATION_MASK, SocketKey};

/// A slab with generations.
pub(super) struct Table<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    count: usize,
}

struct Slot<S> {
    generation: u32,
    socket: Option<S>,
}

impl<S> Default for Table<S> {
    fn default() -> Table<S> {
        Table { slots: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<S> Table<S> {
    pub(super) fn insert(&mut self, socket: S) -> SocketKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, socket: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.socket.is_none());
        slot.socket = Some(socket);
        self.count += 1;
        SocketKey { index, generation: slot.generation }
    }

    pub(super) fn get_mut(&mut self, key: SocketKey) -> Option<&mut S> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.socket.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: SocketKey) -> Option<S> {
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
