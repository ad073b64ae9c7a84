//! Which socket of the network belongs to which connection of the shard.

use crate::net::SocketKey;
use crate::shard::ConnectionId;

/// Indexed by the connection's index. A stale connection finds nothing.
#[derive(Default)]
pub struct SocketTable {
    sockets: Vec<Option<Entry>>,
}

#[derive(Clone, Copy)]
struct Entry {
    generation: u32,
    socket: SocketKey,
    watch: Watch,
}

/// How far a connection is from being looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// Nothing was sent since all was seen to be confirmed.
    #[default]
    None,
    /// Something was sent since the last look.
    Busy,
    /// It is looked at.
    Quiet,
    /// Its probes may be two minutes apart.
    Patient,
}

impl SocketTable {
    pub fn insert(&mut self, connection: ConnectionId, socket: SocketKey) {
        let index = connection.index as usize;
        if index >= self.sockets.len() {
            self.sockets.resize(index + 1, None);
        }
        let entry = Entry { generation: connection.generation, socket, watch: Watch::None };
        let previous = self.sockets[index].replace(entry);
        assert!(previous.is_none(), "the connection before it was removed");
    }

    pub fn get(&self, connection: ConnectionId) -> Option<SocketKey> {
        let entry = (*self.sockets.get(connection.index as usize)?)?;
        (entry.generation == connection.generation).then_some(entry.socket)
    }

    /// The socket, and how it is watched.
    pub fn get_watched(&mut self, connection: ConnectionId) -> Option<(SocketKey, &mut Watch)> {
        let entry = self.sockets.get_mut(connection.index as usize)?.as_mut()?;
        (entry.generation == connection.generation).then_some((entry.socket, &mut entry.watch))
    }

    pub fn remove(&mut self, connection: ConnectionId) -> Option<SocketKey> {
        let socket = self.get(connection)?;
        self.sockets[connection.index as usize] = None;
        Some(socket)
    }
}

/// What the network calls the socket of a connection.
pub fn to_owner(connection: ConnectionId) -> u64 {
    u64::from(connection.generation) << 32 | u64::from(connection.index)
}

pub fn from_owner(owner: u64) -> ConnectionId {
    ConnectionId { index: owner as u32, generation: (owner >> 32) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network;
    use crate::net::epoll::Epoll;

    #[test]
    fn a_stale_connection_finds_no_socket() {
        let mut net = Epoll::new(64).unwrap();
        let socket = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let mut table = SocketTable::default();
        let first = ConnectionId { index: 5, generation: 1 };
        let second = ConnectionId { index: 5, generation: u32::MAX };
        let key = net.adopt(socket(), to_owner(first));
        table.insert(first, key);
        assert_eq!((table.get(first), table.get(second)), (Some(key), None));
        assert_eq!(table.remove(second), None);
        assert_eq!(table.remove(first), Some(key));
        let next = net.adopt(socket(), to_owner(second));
        table.insert(second, next);
        assert_eq!((table.get(first), table.get(second)), (None, Some(next)));
        assert_eq!(table.get(ConnectionId { index: 77, generation: 1 }), None);
        assert_eq!(from_owner(to_owner(second)), second);
    }
}
