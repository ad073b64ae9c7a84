//! The handle of a session.

/// The handle of a session on one shard: its index, and a generation that tells it from earlier sessions at that index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub index: u32,
    pub generation: u32,
}

impl SessionKey {
    /// The key as a number, never 0: generations begin at 1.
    pub fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that gave this number; `None`: the number is 0.
    pub fn from_u64(number: u64) -> Option<SessionKey> {
        let (generation, index) = ((number >> 32) as u32, number as u32);
        (generation > 0).then_some(SessionKey { index, generation })
    }
}
