//! Output: answers into the connections' buffers, buffers to the ring and back.

use super::{ConnectionId, Output, Shard};
use crate::codec::{Disconnect, ProtocolVersion, ReasonCode};
use crate::session::Park;
use crate::session::connection::{ConnectionState, Open};
use crate::time::Instant;

impl Shard {
    /// The most connections that may have bytes for `poll_flush`.
    pub fn flush_count(&self) -> usize {
        self.clients.flush.len()
    }

    /// The next bytes to send. At most one output of a connection is with the world at a time.
    #[inline]
    pub fn poll_flush(&mut self) -> Option<(ConnectionId, Output)> {
        while let Some(id) = self.clients.flush.pop_front() {
            // The connection may be gone since it was listed.
            let Some(connection) = self.clients.connection(id) else { continue };
            connection.is_flush_listed = false;
            if self.connections.links.has(id) {
                match self.take_sealed(id) {
                    Some(output) => return Some((id, output)),
                    None => continue,
                }
            }
            if let Some(output) = connection.output.take() {
                if connection.has_ended {
                    self.forget_output(id, output);
                    continue;
                }
                return Some((id, output));
            }
        }
        None
    }

    /// Drops output for a socket that has ended.
    #[cold]
    #[inline(never)]
    pub(super) fn forget_output(&mut self, id: ConnectionId, output: Output) {
        self.clients.live_connection(id).output.sent(output, &mut self.delivery.pool);
    }

    /// Handles an output that was sent as a whole; its buffer goes back.
    pub fn handle_sent(&mut self, now: Instant, id: ConnectionId, output: Output) {
        let has_more = self.connections.links.is_any() && self.end_sealed(id);
        // The connection may be gone since it sent.
        let Some(connection) = self.clients.connection(id) else { return };
        self.counters.bytes_sent += connection.output.sent(output, &mut self.delivery.pool) as u64;
        match connection.state {
            ConnectionState::Closing(_) => {
                if connection.output.size() == 0 && !has_more {
                    return self.list_close(id);
                }
            }
            ConnectionState::Open(Open { key, .. }) => {
                let is_parked = connection.park == Some(Park::Output);
                self.pump(now, key);
                if is_parked {
                    self.unpark(now, id, Park::Output);
                }
            }
            ConnectionState::Connecting(_) => {}
        }
        if has_more {
            self.list_own_bytes(id);
        }
        self.clients.list_flush(id);
    }

    /// Appends to a connection's output.
    #[inline]
    pub(super) fn answer(
        &mut self,
        id: ConnectionId,
        write: impl FnOnce(ProtocolVersion, usize, &mut Vec<u8>),
    ) {
        self.counters.packets_sent += 1;
        let connection = self.clients.live_connection(id);
        connection.answer(&mut self.delivery.pool, write);
        if !connection.is_flush_listed && connection.output.has_bytes() {
            connection.is_flush_listed = true;
            self.clients.flush.push_back(id);
        }
    }

    /// Sends DISCONNECT to an open 5.0 connection. Other versions have no such packet. [MQTT-3.14.0-1]
    pub(super) fn send_disconnect(&mut self, id: ConnectionId, reason: ReasonCode, why: &str) {
        let connection = self.clients.live_connection(id);
        if connection.session().is_none() || connection.version != ProtocolVersion::V5 {
            return;
        }
        let disconnect = Disconnect {
            reason_string: connection.wants_problem_information.then_some(why),
            ..Disconnect::new(reason)
        };
        self.answer(id, |version, size_max, out| disconnect.encode(version, size_max, out));
    }
}
