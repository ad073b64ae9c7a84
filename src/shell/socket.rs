//! Which socket of the ring belongs to which connection of the shard.

use crate::shard::ConnectionId;
use crate::shell::ring::SocketKey;

/// Indexed by the connection's index. A stale connection finds nothing.
#[derive(Default)]
pub struct SocketTable {
    sockets: Vec<Option<Entry>>,
}

#[derive(Clone, Copy)]
struct Entry {
    generation: u32,
    socket: SocketKey,
}

impl SocketTable {
    pub fn insert(&mut self, connection: ConnectionId, socket: SocketKey) {
        let index = connection.index as usize;
        if index >= self.sockets.len() {
            self.sockets.resize(index + 1, None);
        }
        let entry = Entry { generation: connection.generation, socket };
        let previous = self.sockets[index].replace(entry);
        assert!(previous.is_none(), "the connection before it was removed");
    }

    pub fn get(&self, connection: ConnectionId) -> Option<SocketKey> {
        let entry = (*self.sockets.get(connection.index as usize)?)?;
        (entry.generation == connection.generation).then_some(entry.socket)
    }

    pub fn remove(&mut self, connection: ConnectionId) -> Option<SocketKey> {
        let socket = self.get(connection)?;
        self.sockets[connection.index as usize] = None;
        Some(socket)
    }
}

/// What the ring calls the socket of a connection.
pub fn to_owner(connection: ConnectionId) -> u64 {
    u64::from(connection.generation) << 32 | u64::from(connection.index)
}

pub fn from_owner(owner: u64) -> ConnectionId {
    ConnectionId { index: owner as u32, generation: (owner >> 32) as u32 }
}
