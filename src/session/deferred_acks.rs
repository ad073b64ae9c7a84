//! Acknowledgements that a client gets when the logs of bridges have its messages.
//!
//! ```text
//!  PUBLISH 7 --> admitted as generation 90, bridges 0 and 2 store it
//!                  |   DeferredAck { packet id 7, Ticket { generation 90, bridges {0, 2} } }
//!  PUBLISH 8 --> no bridge stores it, but 7 waits
//!                  |   DeferredAck { packet id 8, Ticket::NOW }
//!                  v
//!            queue of the session   [ 7 | 8 ]        answered from the front only
//!                  ^
//!  Written { bridge 0, through 95 }     90 <= 95
//!  Written { bridge 2, through 80 }     90 >  80: 7 waits, and 8 behind it
//!  Written { bridge 2, through 91 }     --> PUBACK 7, PUBACK 8
//! ```
//! A client has at most the receive maximum of acknowledgements waiting: a 5.0 client that sends more is disconnected,
//! as it was told the maximum; a 3.x client is not read (`Park::Acks`).

use super::ConnectionId;
use crate::arena::Generation;
use crate::codec::{PacketId, ReasonCode};
use std::collections::VecDeque;

/// The message that bridges must have written before an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub generation: Generation,
    /// A bit for each bridge.
    pub bridges: u64,
}

impl Ticket {
    /// A ticket for which nothing has to be written.
    pub const NOW: Ticket = Ticket { generation: Generation::NONE, bridges: 0 };
}

/// A PUBACK or PUBREC that waits.
#[derive(Clone, Copy, Debug)]
pub struct DeferredAck {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub is_qos2: bool,
    /// The connection that published: a QoS 1 message is acknowledged there or not at all.
    pub connection: ConnectionId,
    pub ticket: Ticket,
}

/// The answers that wait in one session, in the order of its publishes. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
#[derive(Debug, Default)]
pub struct DeferredAcks(pub VecDeque<DeferredAck>);

impl DeferredAcks {
    /// Forgets the answers that need not be given: the client will send its QoS 1 messages again, and its QoS 2
    /// messages are remembered.
    pub fn disconnect(&mut self) {
        self.0.retain(|deferred| deferred.is_qos2);
    }

    /// Whether the PUBREC of this packet id waits.
    pub fn has_qos2(&self, packet_id: PacketId) -> bool {
        self.0.iter().any(|deferred| deferred.is_qos2 && deferred.packet_id == packet_id)
    }
}
