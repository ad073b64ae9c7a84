//! Messages that repeat the one before but for their payload: what most publishers send most of the time.

use super::{ConnectionId, Shard};
use crate::codec::{Frame, Known};
use crate::session::ConnectionState;
use crate::stages::plugin::MessageEdit;

impl Shard {
    /// Admits the messages at the start of `bytes` that repeat `frame`, which was just admitted; returns how many bytes they
    /// had.
    ///
    /// Nothing else happens between them, so whatever `read_packet` and `accept` ask of the connection, the mail and the
    /// topic holds for all when it holds for the first. What differs, is wrong or finds no room is left to those.
    #[inline]
    pub(super) fn read_repeats<'a>(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'a>,
        known: &Known<'a>,
        bytes: &[u8],
    ) -> usize {
        if self.has_hooks_to_ask()
            || self.is_shutting_down
            || self.is_mail_above_mark()
            || self.bridges.is_holding()
        {
            return 0;
        }
        let packet_size_max = self.limits.packet_size_max;
        let Some(connection) = self.clients.connection(id) else { return 0 };
        let Some(front) = known.front(frame, connection.version) else { return 0 };
        let Some(mut next) = front.repeat(bytes, packet_size_max) else { return 0 };
        let ConnectionState::Open(key) = connection.state else { return 0 };
        // A bridge's message has a mark, which is no property of it.
        let is_read = !connection.is_bridge
            && connection.park.is_none()
            && connection.output.size() < self.limits.output_size_max.saturating_mul(2);
        if !is_read {
            return 0;
        }
        // What hooks append stands behind the first one's properties.
        let Some(held) = self.held_for(key, known.topic()) else { return 0 };
        let (mut used, mut count, mut payload_bytes) = (0, 0, 0);
        loop {
            let is_admitted = match held {
                0 => self.arena.admit_repeat(next.pieces, next.payload.len()),
                _ => {
                    let size = self.arena.last_front_size() + next.payload.len();
                    size <= MessageEdit::size_max_of(&self.limits)
                        && self.arena.admit_repeat_of_last(next.payload)
                }
            };
            if !is_admitted {
                break;
            }
            used += next.size;
            count += 1;
            payload_bytes += next.payload.len();
            match front.repeat(&bytes[used..], packet_size_max) {
                Some(repeat) => next = repeat,
                None => break,
            }
        }
        self.counters.packets_received += count;
        self.counters.publishes_received += count;
        self.counters.publish_bytes_received += payload_bytes as u64;
        self.counters.admitted += count;
        self.count_held(count, held);
        used
    }
}
