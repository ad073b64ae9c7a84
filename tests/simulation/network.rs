//! Sockets in memory: bytes both ways, split anywhere, lost at any time, read as slowly as the client likes.

use crate::dice::Dice;
use crate::memory::counted;
use crate::records::Records;
use ringmq::shard::{ConnectionId, Output, ReadMode};
use ringmq::transport::Transport;
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
    /// Of a connection that is not plain: the client's end of the transport.
    client_end: Option<Records>,
    /// The broker's end, until the connection is accepted.
    broker_end: Option<Box<dyn Transport>>,
}

impl Socket {
    /// What a shard gets with the connection; `None`: the connection is plain.
    pub(crate) fn take_transport(&mut self) -> Option<Box<dyn Transport>> {
        self.broker_end.take()
    }

    pub(crate) fn has_transport(&self) -> bool {
        self.client_end.is_some()
    }

    /// Updates that the broker's transport has made when the client asked.
    pub(crate) fn updated_count(&self) -> u64 {
        self.client_end.as_ref().map_or(0, |end| end.updated_count)
    }

    /// The client reads up to `count` bytes that have arrived.
    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.to_client.drain(..count).collect();
        match &mut self.client_end {
            Some(end) => end.open_bytes(&mut bytes),
            None => bytes,
        }
    }

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
    /// How many connections of a hundred have a transport.
    transport_percent: usize,
}

impl Network {
    pub(crate) fn new(shard_count: usize, transport_percent: usize) -> Network {
        Network {
            sockets: Vec::new(),
            accepts: vec![VecDeque::new(); shard_count],
            abandoned: Vec::new(),
            transport_percent,
        }
    }

    pub(crate) fn connect(&mut self, dice: &mut Dice) -> SocketId {
        let id = self.sockets.len();
        let ends = dice.chance(self.transport_percent).then(|| {
            let body_max = *dice.pick(&[20, 512, 16 << 10]);
            Records::pair(id as u64, body_max)
        });
        // The allocator counts what the shards will free.
        let (broker_end, client_end) = match ends {
            Some((broker, client)) => {
                let broker: Box<dyn Transport> = counted(|| Box::new(broker));
                (Some(broker), Some(client))
            }
            None => (None, None),
        };
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
            client_end,
            broker_end,
        });
        let shard = dice.below(self.accepts.len());
        self.accepts[shard].push_back(id);
        id
    }

    pub(crate) fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = &mut self.sockets[id];
        if socket.is_server_gone {
            socket.is_cut = true;
        } else if let Some(end) = &mut socket.client_end {
            let sealed = end.seal_bytes(bytes);
            socket.to_server.extend(sealed);
        } else {
            socket.to_server.extend(bytes);
        }
    }

    /// Bytes that no transport has sealed.
    pub(crate) fn write_raw(&mut self, id: SocketId, bytes: &[u8]) {
        self.sockets[id].to_server.extend(bytes);
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
    pub(crate) fn close(&mut self, dice: &mut Dice, id: SocketId) {
        let socket = &mut self.sockets[id];
        if let Some(end) = &mut socket.client_end
            && !socket.is_server_gone
            && dice.chance(70)
        {
            end.say_goodbye();
            let sealed = end.seal_bytes(&[]);
            socket.to_server.extend(sealed);
        }
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
