//! Messages that repeat the one before them in all but the payload: most of what most publishers send.
//!
//! The first message of a row takes the whole way through `read_packet`. While the next frames of the same read have
//! the same front (topic and properties), they are admitted as repeats of it, without a decoder:
//!
//! ```text
//!  read_packets --> read_packet (first message) --> admitted, acknowledged
//!       |                                              |
//!       |<-- read_repeats (QoS 0) <--------------------+
//!       |<-- read_acked_repeats (QoS 1, 2: one append of all acknowledgements)
//!       v
//!  the first frame that differs, is malformed or finds no room takes the way of a first message
//! ```
//! The encode stage meets them again as a run (`arena::run`).
//!
//! At QoS 1 and 2 a message repeats only where neither publish hooks nor bridges have a say, because each of its
//! acknowledgements could then differ. At QoS 0 a publish hook that promises to repeat its change lets messages repeat.

use super::hooks::AT_ORIGIN;
use super::incoming::Incoming;
use super::{ConnectionId, Shard};
use crate::codec::{self, Frame, PacketId, PreviousPublish, ProtocolVersion, ReasonCode};
use crate::plugin::MessageEdit;
use crate::session::Session;
use crate::session::connection::Open;

/// Bytes of an acknowledgement without reason code.
const ACK_SIZE: usize = 4;

impl Shard {
    /// Admits the messages at the start of `bytes` that repeat `frame`, which was just admitted; returns how many bytes they
    /// had.
    ///
    /// Nothing else happens between them, so whatever `read_packet` and `accept` ask of the connection, the mail and the
    /// topic holds for all when it holds for the first. The first frame that differs, is malformed or finds no room is left to
    /// `read_packet` and `accept`.
    #[inline]
    pub(super) fn read_repeats<'a>(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'a>,
        previous: &PreviousPublish<'a>,
        bytes: &[u8],
    ) -> usize {
        if self.has_hooks_to_ask()
            || self.shutdown.has_begun
            || self.is_mail_above_mark()
            || self.bridges.is_blocking()
        {
            return 0;
        }
        let packet_size_max = self.packet_size_max_of(id);
        let connection = self.clients.live_connection(id);
        let Some(front) = previous.front(frame, connection.version) else { return 0 };
        let Some(mut next) = front.repeat(bytes, packet_size_max) else { return 0 };
        let Some(&Open { key, is_bridge, .. }) = connection.open() else { return 0 };
        // A bridge's message has a mark, which is no property of it.
        let is_read = !is_bridge
            && connection.park.is_none()
            && connection.output.size() < self.limits.output_size_max.saturating_mul(2);
        if !is_read {
            return 0;
        }
        // What hooks append stands behind the first one's properties.
        let Some(appended_size) = self.pledged_for(key, previous.topic()) else { return 0 };
        let (mut used, mut count, mut payload_bytes) = (0, 0, 0);
        loop {
            let admitted = match appended_size {
                0 => self.flow.admit(Incoming::Repeat {
                    pieces: &next.pieces,
                    payload_size: next.payload.len(),
                }),
                _ => {
                    let size_max = MessageEdit::size_max_of(&self.limits);
                    self.flow.admit(Incoming::RepeatOfLast { payload: next.payload, size_max })
                }
            };
            if admitted.is_none() {
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
        self.count_pledged(count, appended_size);
        used
    }

    /// As `read_repeats`, at QoS 1 or 2, where neither hooks nor bridges have a say: `frame` was acknowledged, and so are those
    /// that repeat it.
    #[inline(never)]
    pub(super) fn read_acked_repeats<'a>(
        &mut self,
        id: ConnectionId,
        frame: &Frame<'a>,
        previous: &PreviousPublish<'a>,
        bytes: &'a [u8],
    ) -> usize {
        if self.hooks.set.intersects(AT_ORIGIN)
            || self.shutdown.has_begun
            || self.is_mail_above_mark()
            || self.bridges.is_any()
        {
            return 0;
        }
        let packet_size_max = self.packet_size_max_of(id);
        let receive_max = self.receive_max_of(id);
        let connection = self.clients.live_connection(id);
        let version = connection.version;
        let Some(front) = previous.acked_front(frame, version) else { return 0 };
        let Some((mut packet_id, mut next)) = front.repeat(bytes, packet_size_max) else {
            return 0;
        };
        let Some(&Open { key, is_bridge, .. }) = connection.open() else { return 0 };
        let answers_max = self.limits.output_size_max.saturating_mul(2);
        let answers_room = answers_max.saturating_sub(connection.output.size());
        let is_read = !is_bridge
            && connection.park.is_none()
            && connection.packet_size_max as usize >= ACK_SIZE;
        if !is_read || answers_room < ACK_SIZE {
            return 0;
        }
        let Some((session, Some(connection))) = self.clients.pair(key) else { return 0 };
        if connection.id != id {
            return 0;
        }
        let is_qos2 = frame.is_qos2_publish();
        let (mut used, mut count, mut payload_bytes) = (0, 0, 0);
        let flow = &mut self.flow;
        connection.output.append(&mut self.delivery.pool, |out| {
            for _ in 0..answers_room / ACK_SIZE {
                let may_begin =
                    !is_qos2 || may_begin_qos2(session, version, receive_max, packet_id);
                if !may_begin {
                    break;
                }
                let repeat =
                    Incoming::Repeat { pieces: &next.pieces, payload_size: next.payload.len() };
                if flow.admit(repeat).is_none() {
                    break;
                }
                match is_qos2 {
                    // [MQTT-4.3.2-4]
                    false => codec::encode_puback(version, packet_id, ReasonCode::Success, out),
                    // [MQTT-4.3.3-8]
                    true => {
                        session.note_received(packet_id);
                        codec::encode_pubrec(version, packet_id, ReasonCode::Success, out);
                    }
                }
                used += next.size;
                count += 1;
                payload_bytes += next.payload.len();
                match front.repeat(&bytes[used..], packet_size_max) {
                    Some(repeat) => (packet_id, next) = repeat,
                    None => break,
                }
            }
        });
        if count == 0 {
            connection.output.give_back_empty(&mut self.delivery.pool);
        }
        self.clients.list_flush(id);
        self.counters.packets_received += count;
        self.counters.packets_sent += count;
        self.counters.publishes_received += count;
        self.counters.publish_bytes_received += payload_bytes as u64;
        used
    }
}

/// Whether a QoS 2 message is new, allowed, and can be remembered: all that `begin_qos2` asks.
#[inline(always)]
fn may_begin_qos2(
    session: &mut Session,
    version: ProtocolVersion,
    receive_max: usize,
    packet_id: PacketId,
) -> bool {
    !session.has_received(packet_id)
        && (version != ProtocolVersion::V5 || session.received_count() < receive_max)
        && session.may_receive_qos2()
}
