//! The bounds of a shard while its process is short of memory: its holdings do not grow, and no new client is let in.
//!
//! Every bound falls to what the shard has in use, so a message needs no further check. A sixteenth of each bound
//! stays, so messages of clients that read come and go.

use super::Shard;
use crate::limits::Limits;
use crate::time::Instant;

/// This part of a bound stays, whatever is held.
const PART_LEFT: usize = 16;

impl Shard {
    /// Notes whether the process is short of memory. Sessions that exist may be resumed, as their clients empty them.
    pub fn set_memory_short(&mut self, now: Instant, is_short: bool) {
        if is_short == self.is_memory_short() {
            return;
        }
        let Some(configured) = self.memory.limits_with_memory.take() else {
            self.memory.limits_with_memory = Some(Box::new(self.limits.clone()));
            self.counters.memory_shortages += 1;
            self.lower_limits();
            self.memory.metadata.set_bounds(&self.limits, self.peers.count());
            self.check_input(now);
            // Buffers that were busy once are free when this runs a second time.
            self.delivery.pool.trim();
            self.delivery.pool.trim();
            self.connections.input_pool.trim();
            self.connections.input_pool.trim();
            self.flow.outbox.trim();
            self.trim_edits();
            return;
        };
        self.limits = *configured;
        self.memory.metadata.set_bounds(&self.limits, self.peers.count());
    }

    pub(super) fn is_memory_short(&self) -> bool {
        self.memory.limits_with_memory.is_some()
    }

    pub(super) fn lower_limits(&mut self) {
        let held = [
            // Sessions of absent clients keep what they have, of which they may have three quarters.
            self.delivery.stored.bytes() + self.delivery.stored.bytes() / 3,
            self.memory.output_total.bytes.bytes(),
            self.memory.will_bytes.bytes(),
            self.metadata_bound_for_held(),
            self.memory.frame_bytes.bytes().min(self.limits.packet_size_max),
            self.memory.connect_bytes.bytes().min(self.limits.connect_packet_size_max()),
        ];
        let Limits {
            shard_stored_bytes_max,
            shard_output_bytes_max,
            shard_wills_bytes_max,
            shard_metadata_bytes_max,
            shard_frames_bytes_max,
            shard_connects_bytes_max,
            ..
        } = &mut self.limits;
        let bounds = [
            shard_stored_bytes_max,
            shard_output_bytes_max,
            shard_wills_bytes_max,
            shard_metadata_bytes_max,
            shard_frames_bytes_max,
            shard_connects_bytes_max,
        ];
        for (bound, held) in bounds.into_iter().zip(held) {
            *bound = held.max(*bound / PART_LEFT).min(*bound);
        }
        let limits = &mut self.limits;
        // A packet that arrives in pieces can still arrive.
        limits.shard_frames_bytes_max = limits.shard_frames_bytes_max.max(limits.packet_size_max);
        let connect_size_max = limits.connect_packet_size_max();
        limits.shard_connects_bytes_max = limits.shard_connects_bytes_max.max(connect_size_max);
        // Retained messages stay until they are replaced, and other shards may use their leases. A bound of 0 would say
        // that nothing is ever retained.
        let retained_bytes = self.retained.kept.used().bytes + self.retained.kept.leased().bytes;
        limits.retained_bytes_max = retained_bytes.max(1).min(limits.retained_bytes_max);
    }
}
