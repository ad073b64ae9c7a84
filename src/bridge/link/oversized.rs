//! A PUBLISH that is larger than this broker takes: the link answers it and passes over its bytes.
//!
//! A link that closed instead would meet the same message on its next connection, and on each one after that. An alias
//! that such a packet defines stays undefined, so its next use ends the connection.

use super::Link;
use crate::codec::{PublishStart, ReasonCode, publish_start};
use crate::time::Instant;

impl Link {
    /// Messages of the remote that were larger than `packet_size_max`.
    pub fn oversized_count(&self) -> u64 {
        self.oversized_count
    }

    /// Passes over the bytes that have arrived of the packet at the start of `bytes`, if it is a PUBLISH and its packet
    /// identifier has arrived. Returns how many bytes these are. `None`: it is no PUBLISH, or none that can be
    /// answered.
    pub(super) fn pass_over_oversized(&mut self, now: Instant, bytes: &[u8]) -> Option<usize> {
        if !self.is_up() {
            return None;
        }
        let Some(start) = publish_start(bytes).ok()? else { return Some(0) };
        self.oversized_count += 1;
        self.bytes_to_skip = start.size;
        self.answer_oversized(now, start);
        Some(self.skip(bytes))
    }

    /// How many of these bytes belong to a packet that is passed over.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> usize {
        let skipped = bytes.len().min(self.bytes_to_skip);
        self.bytes_to_skip -= skipped;
        skipped
    }

    fn answer_oversized(&mut self, now: Instant, start: PublishStart) {
        let Some(packet_id) = start.packet_id else { return };
        if let Some(number) = self.number_of(now, packet_id, start.qos) {
            // A remote takes "quota exceeded" as a reason to send the message again, so the answer has another code.
            self.inflow.take(number, ReasonCode::ImplementationSpecificError);
            self.send_answers(now);
        }
    }
}
