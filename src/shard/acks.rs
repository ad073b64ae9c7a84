//! Acknowledgements, PINGREQ and DISCONNECT.

use super::input::Outcome;
use super::{ConnectionId, Shard};
use crate::codec::{self, Ack, AckType, Disconnect, ReasonCode};
use crate::session::SessionKey;
use crate::session::inflight::FlowState;
use crate::time::Instant;

/// So many bytes of acknowledgements are used before the shard checks whether their connection has used its part of
/// the turn.
const ACKS_AT_ONCE_BYTES: usize = 32 << 10;

/// Fewer bytes are not charged: they come in pieces so small that the reads of a turn bring little.
const ACKS_CHARGED_BYTES: usize = 2 << 10;

impl Shard {
    /// Uses the plain acknowledgements at the start of `bytes`, of which there is at least one. Many come in a row, and
    /// checks that hold for all are made once. Returns how many bytes they had.
    #[inline(never)]
    pub(super) fn read_plain_acks(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
    ) -> usize {
        self.pause_hooks();
        let bytes = &bytes[..bytes.len().min(ACKS_AT_ONCE_BYTES)];
        let key = self.clients.live_connection(id).session();
        let key = key.expect("acknowledgements are read on an open connection");
        let output_size_max = self.limits.output_size_max;
        let (session, connection) = self.clients.live_pair(key);
        let (mut used, mut finished_count, mut answer_count) = (0, 0, 0);
        while let Some((ack_type, packet_id)) = codec::next_plain_ack(&bytes[used..]) {
            used += 4;
            let (inflight, pool) = (session.inflight_mut(), &mut self.delivery.pool);
            match ack_type {
                AckType::Puback | AckType::Pubcomp => {
                    let awaited = match ack_type {
                        AckType::Puback => FlowState::AwaitPuback,
                        _ => FlowState::AwaitPubcomp,
                    };
                    finished_count += u64::from(inflight.finish(packet_id, awaited));
                }
                AckType::Pubrec => {
                    answer_count += 1;
                    // [MQTT-4.3.3-4]
                    let reason = reason_if(inflight.received(packet_id));
                    connection.answer(pool, |version, _, out| {
                        codec::encode_pubrel(version, packet_id, reason, out);
                    });
                }
                AckType::Pubrel => {
                    answer_count += 1;
                    // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
                    let reason = reason_if(session.end_received(packet_id));
                    connection.answer(pool, |version, _, out| {
                        codec::encode_pubcomp(version, packet_id, reason, out);
                    });
                }
            }
            // The next acknowledgement may have to wait until its answer has room.
            if connection.output.size() >= output_size_max {
                break;
            }
        }
        self.counters.packets_received += used as u64 / 4;
        self.counters.packets_sent += answer_count;
        if answer_count > 0 {
            self.clients.list_flush(id);
        }
        if finished_count > 0 {
            self.pump(now, key);
        }
        if used >= ACKS_CHARGED_BYTES {
            // Each acknowledgement may have made room for a message.
            self.charge(id, used as u64 / 2);
        }
        used
    }

    /// Ends a QoS 1 message. An id that is not in flight is ignored: the flow may have ended before.
    pub(super) fn on_puback(&mut self, now: Instant, key: SessionKey, ack: &Ack<'_>) -> Outcome {
        let session = self.clients.live_session(key);
        // The reason code does not matter: an error ends the message as well. [MQTT-4.4.0-2] [MQTT-4.8.2-6]
        if session.inflight_mut().finish(ack.packet_id, FlowState::AwaitPuback) {
            self.pump(now, key);
        }
        Outcome::Done
    }

    pub(super) fn on_pubrec(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        ack: &Ack<'_>,
    ) -> Outcome {
        let session = self.clients.live_session(key);
        if ack.reason.is_error() {
            // [MQTT-4.4.0-2]
            if session.inflight_mut().finish(ack.packet_id, FlowState::AwaitPubrec) {
                self.pump(now, key);
            }
            return Outcome::Done;
        }
        // [MQTT-4.3.3-4]
        let reason = reason_if(session.inflight_mut().received(ack.packet_id));
        let packet_id = ack.packet_id;
        self.answer(id, |version, _, out| codec::encode_pubrel(version, packet_id, reason, out));
        Outcome::Done
    }

    pub(super) fn on_pubrel(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        ack: &Ack<'_>,
    ) -> Outcome {
        let session = self.clients.live_session(key);
        // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
        let reason = reason_if(session.end_received(ack.packet_id));
        let packet_id = ack.packet_id;
        self.answer(id, |version, _, out| codec::encode_pubcomp(version, packet_id, reason, out));
        Outcome::Done
    }

    pub(super) fn on_pubcomp(&mut self, now: Instant, key: SessionKey, ack: &Ack<'_>) -> Outcome {
        let session = self.clients.live_session(key);
        if session.inflight_mut().finish(ack.packet_id, FlowState::AwaitPubcomp) {
            self.pump(now, key);
        }
        Outcome::Done
    }

    pub(super) fn on_pingreq(&mut self, id: ConnectionId) -> Outcome {
        if self.shutdown.has_begun {
            self.count_ping(id);
        }
        // [MQTT-3.12.4-1]
        self.answer(id, |_, _, out| codec::encode_pingresp(out));
        Outcome::Done
    }

    pub(super) fn on_disconnect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        disconnect: &Disconnect<'_>,
    ) -> Outcome {
        let expiry_max_s = self.limits.session_expiry_max_s;
        let session = self.clients.live_session(key);
        let expiry_max_s = session.bounds().session_expiry_max_s.unwrap_or(expiry_max_s);
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if session.expiry_s() == 0 && expiry_s > 0 {
                return self.refuse(
                    now,
                    id,
                    ReasonCode::ProtocolError,
                    "a session expiry interval of 0 cannot be raised by DISCONNECT",
                );
            }
            session.set_expiry_s(expiry_s.min(expiry_max_s));
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            session.take_will();
        }
        self.clients.live_connection(id).has_said_all = true;
        self.close(now, id, "the client said DISCONNECT");
        Outcome::Stop
    }
}

/// The reason code of the answer, by whether the id is known.
fn reason_if(is_known: bool) -> ReasonCode {
    if is_known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound }
}
