//! What each stage does with a message. Every stage acks every message, whatever became of it.
//!
//! No stage waits while it has a message in the arena. A message that must live on is copied into a `Stored` allocation
//! within the encode stage, or into a batch for other shards or bridges. So the stages always run to their end, running
//! them empties a full arena, and one closed TCP window blocks nobody.

pub(crate) mod bridge;
pub(crate) mod encode;
pub(crate) mod plugin;
