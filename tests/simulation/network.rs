//! Sockets in memory: bytes both ways, split anywhere, lost at any time, read as slowly as the client likes.

use crate::dice::Dice;
use ringmq::shard::{ConnectionId, Output, ReadMode};
use std::collections::VecDeque;

pub(crate) type SocketId = usize;

/// An output that the shard gave out and that is on its way.
pub(crate) struct Flight {
    pub connection: ConnectionId,
    pub output: Output,
    bytes: Vec<u8>,
    sent: usize,
}

impl Flight {
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }
}

pub(crate) struct Socket {
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// The client closed or lost it; what it wrote before may still arrive.
    pub is_client_gone: bool,
    /// The broker closed it; what it sent before may still arrive.
    pub is_server_gone: bool,
    /// Bytes of the client were lost, or not all were handed to the broker.
    pub is_cut: bool,
    /// The client was back before the broker had closed it.
    pub is_overlapped: bool,
    /// Bytes the client's side holds until it reads.
    pub window: usize,
    pub flight: Option<Flight>,
    pub read_mode: ReadMode,
    /// The receive was cancelled this turn: one more completion may come.
    pub is_tail_due: bool,
}

impl Socket {
    /// Moves some of what is in flight to the client's side.
    pub(crate) fn carry(&mut self, dice: &mut Dice) {
        let Some(flight) = &mut self.flight else { return };
        let room = self.window.saturating_sub(self.to_client.len());
        let left = flight.bytes.len() - flight.sent;
        let most = room.min(left);
        if most == 0 {
            return;
        }
        let count = if dice.chance(70) { most } else { 1 + dice.below(most) };
        if !self.is_client_gone {
            self.to_client.extend(&flight.bytes[flight.sent..flight.sent + count]);
        }
        flight.sent += count;
    }

    /// Takes up to `count` bytes that the client wrote.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.to_server.len());
        self.to_server.drain(..count).collect()
    }

    /// The broker closes it. What it sent before may still be read. Returns what was on its way.
    pub(crate) fn drop_by_server(&mut self) -> Option<Output> {
        self.is_server_gone = true;
        self.is_cut |= !self.to_server.is_empty();
        self.to_server.clear();
        self.flight.take().map(|flight| flight.output)
    }

    /// The broker is done with it.
    pub(crate) fn is_released(&self) -> bool {
        self.is_server_gone
    }
}

/// All sockets of a run, and those that no shard has accepted yet.
#[derive(Default)]
pub(crate) struct Network {
    pub sockets: Vec<Socket>,
    /// By shard.
    pub accepts: Vec<VecDeque<SocketId>>,
    /// Read by nobody; they end when the broker ends them.
    pub abandoned: Vec<SocketId>,
}

impl Network {
    pub(crate) fn new(shard_count: usize) -> Network {
        Network {
            sockets: Vec::new(),
            accepts: vec![VecDeque::new(); shard_count],
            abandoned: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, dice: &mut Dice) -> SocketId {
        let id = self.sockets.len();
        self.sockets.push(Socket {
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            is_client_gone: false,
            is_server_gone: false,
            is_cut: false,
            is_overlapped: false,
            window: 1 << 20,
            flight: None,
            read_mode: ReadMode::Once,
            is_tail_due: false,
        });
        let shard = dice.below(self.accepts.len());
        self.accepts[shard].push_back(id);
        id
    }

    pub(crate) fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = &mut self.sockets[id];
        if socket.is_server_gone {
            socket.is_cut = true;
        } else {
            socket.to_server.extend(bytes);
        }
    }

    pub(crate) fn send(&mut self, id: SocketId, connection: ConnectionId, output: Output) {
        let socket = &mut self.sockets[id];
        assert!(socket.flight.is_none(), "at most one output of a connection is out");
        let bytes: Vec<u8> = output.slices().collect::<Vec<_>>().concat();
        assert_eq!(bytes.len(), output.size());
        assert!(!bytes.is_empty(), "an output has bytes");
        socket.flight = Some(Flight { connection, output, bytes, sent: 0 });
    }

    /// The client closes in order: all that it wrote arrives.
    pub(crate) fn close(&mut self, id: SocketId) {
        let socket = &mut self.sockets[id];
        socket.is_client_gone = true;
        socket.to_client.clear();
    }

    /// The connection breaks: what the client wrote arrives up to some point.
    pub(crate) fn lose(&mut self, dice: &mut Dice, id: SocketId) {
        let socket = &mut self.sockets[id];
        let kept = dice.below(socket.to_server.len() + 1);
        if kept < socket.to_server.len() {
            socket.to_server.truncate(kept);
        }
        socket.is_cut = true;
        socket.is_client_gone = true;
        socket.to_client.clear();
    }
}
