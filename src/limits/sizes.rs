//! Sizes of what a shard is made of at its start: a running shard cannot take others.

use super::TEXT_SIZE_CEILING;

/// Capacities of one shard's rings, lanes and tables. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Arena: the byte ring.
    pub arena_size: usize,
    /// Arena: slots, a power of two.
    pub arena_slots: usize,
    /// Topics whose subscribers are remembered.
    pub route_cache_max: usize,
    /// Bytes waiting for another shard, per lane, above which publishers are not read.
    pub mail_bytes_mark: usize,
}

impl Sizes {
    /// What holds unless the operator says otherwise.
    pub const DEFAULT: Sizes = Sizes {
        arena_size: 16 << 20,
        arena_slots: 8192,
        route_cache_max: 131_072,
        mail_bytes_mark: 4 << 20,
    };

    /// The largest packet of a remote broker whose message the arena takes, with the longest topic that an alias or a rule
    /// may give it. An arena that is hardly larger than a topic takes a quarter of itself, as from clients.
    pub const fn bridge_packet_size_max(&self) -> usize {
        let beside_a_topic = self.arena_size.saturating_sub(TEXT_SIZE_CEILING);
        if beside_a_topic > self.arena_size / 4 { beside_a_topic } else { self.arena_size / 4 }
    }
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes::DEFAULT
    }
}
