//! The last read of a connection that did nothing wrong: before it ends, its socket is read and the bytes are used. A
//! take-over, a timer, or a failed send must not throw away bytes that the client has sent in time.
//!
//! - A take-over reads at most `takeover_bytes_max`; the CONNACK of the new connection waits for it.
//! - A keep alive that has passed ends the connection only if the socket had no whole packet.
//! - After a failed send a connection that is not read is read before it ends.
//! - A connection whose time for CONNECT has passed gets 100 ms more, as it may have to move to another shard.

use super::{ConnectionId, Shard};
use crate::session::Park;
use crate::session::connection::ConnectionState;
use crate::time::Instant;
use std::net::SocketAddr;
use std::rc::Rc;

/// A connection whose socket is read once more, and the reason for which it then ends.
#[derive(Debug)]
pub(super) struct LastRead {
    connection: ConnectionId,
    why: Why,
    /// How many bytes may still be read.
    left: usize,
}

#[derive(Debug)]
enum Why {
    /// The client of this name has connected again, with this connection.
    TakenOver(ConnectionId, Rc<str>),
    /// The keep alive, or the time for CONNECT, has passed.
    Silent,
    /// The time of a packet of which a part has arrived has passed.
    Late,
    /// A send has failed.
    Broken,
    /// The client says that it is a bridge: its address decides whether it is believed. Nothing is read.
    Unplaced,
}

impl Shard {
    /// The next connection whose socket is to be read, to its end or up to so many bytes.
    pub fn poll_last_read(&mut self) -> Option<(ConnectionId, usize)> {
        let last_read = self.connections.last_reads.front()?;
        Some((last_read.connection, last_read.left))
    }

    /// Whether the world is to answer with `handle_place`, without a read.
    pub fn is_place_asked(&self) -> bool {
        self.connections
            .last_reads
            .front()
            .is_some_and(|last_read| matches!(last_read.why, Why::Unplaced))
    }

    /// Handles the address of the connection, whose CONNECT is read again. Returns the connection if it is gone.
    pub fn handle_place(&mut self, now: Instant, peer: Option<SocketAddr>) {
        let LastRead { connection, .. } =
            self.connections.last_reads.pop_front().expect("it was polled");
        self.take_place(connection, peer);
        self.end_wait(now, connection);
    }

    /// Uses the input that waits in front of the bytes that follow, above all marks.
    pub fn begin_last_read(&mut self, now: Instant) {
        let LastRead { connection: id, why, .. } =
            self.connections.last_reads.front().expect("it was polled");
        let id = *id;
        if matches!(why, Why::Silent | Why::Late) {
            return;
        }
        self.give_up_claim(now, id);
        // The connection may have ended since it was listed.
        let Some(connection) = self.clients.connection(id) else { return };
        connection.is_peer_gone = true;
        // A connection that waits for its turn goes on in that turn, and a CONNECT goes on when it may.
        if !matches!(connection.park, None | Some(Park::Turn | Park::TakeOver | Park::Answer)) {
            connection.park = None;
            self.read_input(now, id);
        }
        self.update_read_mode(id);
    }

    /// Notes that the socket was read: to its end, up to the bound (`left` bytes less), or as far as the connection's
    /// part of the turn allows. Returns a connection that is gone.
    pub fn handle_last_read(&mut self, now: Instant, left: usize) -> Option<ConnectionId> {
        let LastRead { connection, why, .. } =
            self.connections.last_reads.pop_front().expect("it was polled");
        if !matches!(why, Why::Silent | Why::Late) && self.is_waiting_for_turn(connection) {
            self.connections.postponed_reads.push_back(LastRead { connection, why, left });
            self.work.turns.is_pending = true;
            return None;
        }
        let has_more = left == 0;
        match why {
            Why::TakenOver(successor, client_id) => {
                self.let_take_over(now, connection, (successor, &client_id), has_more);
            }
            Why::Silent => self.end_if_silent(now, connection),
            Why::Late => self.end_if_late(now, connection),
            // The connection may have ended in another way meanwhile.
            Why::Broken if self.clients.connection(connection).is_some() => {
                self.handle_close(now, connection);
                return Some(connection);
            }
            Why::Broken => {}
            Why::Unplaced => debug_assert!(false, "it was not to be read"),
        }
        None
    }

    /// As `handle_close`, for a connection whose socket may hold bytes: these are read first.
    pub fn handle_break(&mut self, connection: ConnectionId) {
        self.list_last_read(connection, Why::Broken);
    }

    /// Reads the old connection of a client before `successor` takes the client over.
    pub(super) fn read_before_take_over(
        &mut self,
        old: ConnectionId,
        successor: ConnectionId,
        client_id: Rc<str>,
    ) {
        self.list_last_read(old, Why::TakenOver(successor, client_id));
    }

    /// Lets a CONNECT wait until its connection's address is known.
    pub(super) fn ask_place(&mut self, id: ConnectionId) {
        self.clients.live_connection(id).park = Some(Park::TakeOver);
        self.list_last_read(id, Why::Unplaced);
    }

    /// Reads a CONNECT that waited again.
    fn end_wait(&mut self, now: Instant, id: ConnectionId) {
        self.unpark(now, id, Park::TakeOver);
        // The CONNECT may wait for another reason, too.
        let has_ended = self
            .clients
            .connection(id)
            .is_some_and(|c| c.has_ended && c.park != Some(Park::TakeOver));
        if has_ended {
            return self.handle_close(now, id);
        }
        self.end_if_over(now, id);
    }

    /// Ends the connection for a timer, unless its socket has bytes.
    pub(super) fn read_before_end(&mut self, connection: ConnectionId) {
        self.list_last_read(connection, Why::Silent);
    }

    /// As `read_before_end`, for a packet that takes too long: its rest may be in the socket.
    pub(super) fn read_before_late(&mut self, connection: ConnectionId) {
        self.list_last_read(connection, Why::Late);
    }

    fn list_last_read(&mut self, connection: ConnectionId, why: Why) {
        let left = self.limits.takeover_bytes_max;
        self.connections.last_reads.push_back(LastRead { connection, why, left });
    }

    /// Ends the connection if a timer of it has passed, after all bytes of its client were used.
    fn end_if_silent(&mut self, now: Instant, id: ConnectionId) {
        // The connection may have ended since it was listed.
        let Some(connection) = self.clients.connection(id) else { return };
        match connection.state {
            ConnectionState::Open(_) if connection.is_silent(now) => {
                self.end_for_keep_alive(now, id);
            }
            // This timer ends the connection's pause.
            ConnectionState::Open(_) if connection.park == Some(Park::Rate) => {}
            ConnectionState::Open(_) => self.set_keep_alive_timer(now, id),
            // A connection that is not open is not read like this.
            ConnectionState::Connecting(_) | ConnectionState::Closing(_) => {}
        }
    }
}
