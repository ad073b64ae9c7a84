//! One keyed hash for the whole process, so that every shard finds the same owner for a name; a table by such hashes.
//!
//! A session lives on the shard `hash(client id)`, so a take-over is local. A topic's retained message lives on
//! `hash(topic)`, a shared group on `hash($share/name/filter)`.

mod table;

use ahash::RandomState;

pub use table::PartedTable;

/// A keyed hash of bytes. Equal seeds give equal hashes within one build of the program.
#[derive(Clone, Debug)]
pub struct KeyedHash(RandomState);

impl KeyedHash {
    pub fn new(seed: u64) -> KeyedHash {
        KeyedHash(RandomState::with_seeds(
            seed,
            seed ^ 0x9e37_79b9_7f4a_7c15,
            seed.rotate_left(32),
            !seed,
        ))
    }

    pub fn bytes(&self, bytes: &[u8]) -> u64 {
        self.bytes_inlined(bytes)
    }

    /// As `bytes`, with one call less, for the hot path.
    #[inline(always)]
    pub fn bytes_inlined(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }

    pub fn state(&self) -> RandomState {
        self.0.clone()
    }
}
