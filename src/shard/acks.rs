//! Acknowledgements, PINGREQ and DISCONNECT.

use super::input::Step;
use super::{ConnectionId, Shard};
use crate::codec::{self, Ack, Disconnect, ReasonCode};
use crate::session::SessionKey;
use crate::session::inflight::FlowState;
use crate::time::Instant;

impl Shard {
    /// The end of a QoS 1 message. An id that is not in flight is ignored: the flow may have ended before.
    pub(super) fn on_puback(&mut self, now: Instant, key: SessionKey, ack: &Ack<'_>) -> Step {
        let Some(session) = self.clients.session(key) else { return Step::Stop };
        let is_awaited = session
            .inflight
            .get(ack.packet_id)
            .is_some_and(|flow| flow.state == FlowState::AwaitPuback);
        if is_awaited {
            // Whatever the reason code: an error ends the message as well. [MQTT-4.4.0-2] [MQTT-4.8.2-6]
            session.inflight.finish(ack.packet_id);
            self.pump(now, key);
        }
        Step::Done
    }

    pub(super) fn on_pubrec(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        ack: &Ack<'_>,
    ) -> Step {
        let Some(session) = self.clients.session(key) else { return Step::Stop };
        if ack.reason.is_error() {
            let is_awaited = session
                .inflight
                .get(ack.packet_id)
                .is_some_and(|flow| flow.state == FlowState::AwaitPubrec);
            if is_awaited {
                // [MQTT-4.4.0-2]
                session.inflight.finish(ack.packet_id);
                self.pump(now, key);
            }
            return Step::Done;
        }
        let reason = match session.inflight.received(ack.packet_id) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        // [MQTT-4.3.3-4]
        let packet_id = ack.packet_id;
        self.answer(id, |version, _, out| codec::encode_pubrel(version, packet_id, reason, out));
        Step::Done
    }

    pub(super) fn on_pubrel(&mut self, id: ConnectionId, key: SessionKey, ack: &Ack<'_>) -> Step {
        let Some(session) = self.clients.session(key) else { return Step::Stop };
        // [MQTT-4.3.3-11] [MQTT-4.3.3-12]
        let reason = match session.received_qos2.remove(ack.packet_id) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let packet_id = ack.packet_id;
        self.answer(id, |version, _, out| codec::encode_pubcomp(version, packet_id, reason, out));
        Step::Done
    }

    pub(super) fn on_pubcomp(&mut self, now: Instant, key: SessionKey, ack: &Ack<'_>) -> Step {
        let Some(session) = self.clients.session(key) else { return Step::Stop };
        let is_awaited = session
            .inflight
            .get(ack.packet_id)
            .is_some_and(|flow| flow.state == FlowState::AwaitPubcomp);
        if is_awaited {
            session.inflight.finish(ack.packet_id);
            self.pump(now, key);
        }
        Step::Done
    }

    pub(super) fn on_pingreq(&mut self, id: ConnectionId) -> Step {
        // [MQTT-3.12.4-1]
        self.answer(id, |_, _, out| codec::encode_pingresp(out));
        Step::Done
    }

    pub(super) fn on_disconnect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        disconnect: &Disconnect<'_>,
    ) -> Step {
        let expiry_max_s = self.limits.session_expiry_max_s;
        let Some(session) = self.clients.session(key) else { return Step::Stop };
        let expiry_max_s = session.bounds().session_expiry_max_s.unwrap_or(expiry_max_s);
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if session.expiry_s == 0 && expiry_s > 0 {
                return self.refuse(
                    now,
                    id,
                    ReasonCode::ProtocolError,
                    "a session expiry interval of 0 cannot be raised by DISCONNECT",
                );
            }
            session.expiry_s = expiry_s.min(expiry_max_s);
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            session.will = None;
        }
        if let Some(connection) = self.clients.connection(id) {
            connection.has_said_all = true;
        }
        self.close(now, id, "the client said DISCONNECT");
        Step::Stop
    }
}
