//! The log on disk without I/O: the bytes of its segments, the steps that write and delete them, and recovery.
//!
//! `crate::disk` gives it files; tests, the simulation and a fuzz target give it memory.

mod batch;
pub mod format;
pub mod log;
#[cfg(test)]
mod model;
pub mod recovery;
pub mod segment;
pub mod states;

/// When written bytes are synced to the disk. Whatever the policy, a commit that has returned survives SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// A commit returns when its messages are on the disk.
    EachBatch,
    /// Messages are on the disk at most this many ms after they were written. The spool syncs by itself.
    Interval(u64),
    /// The kernel decides.
    Never,
}

/// The bounds of a spool. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// A file is closed at this size. Of a larger value a quarter of `bytes_max` is used.
    pub segment_size: u64,
    /// The bound on the bytes of all files. One message may have half of it.
    pub bytes_max: u64,
    pub messages_max: u64,
    /// The bound on the bytes of the messages in the batch in memory. One message may exceed it.
    pub batch_size_max: usize,
    /// The bound on the bytes of committed messages that are kept in memory, so that a link that keeps up reads no
    /// file.
    pub memory_max: usize,
    pub sync: SyncPolicy,
}

impl Default for SpoolSettings {
    fn default() -> SpoolSettings {
        SpoolSettings {
            segment_size: 16 << 20,
            bytes_max: 1 << 30,
            messages_max: 10_000_000,
            batch_size_max: 1 << 20,
            memory_max: 4 << 20,
            sync: SyncPolicy::Interval(100),
        }
    }
}

impl SpoolSettings {
    /// The smallest `bytes_max`.
    pub const BYTES_MIN: u64 = 64 << 10;

    /// The largest record of a message.
    fn message_size_ceiling(&self) -> u64 {
        self.bytes_max / 2
    }

    /// The settings with the bounds that follow from other bounds.
    pub fn bounded(mut self) -> SpoolSettings {
        self.bytes_max = self.bytes_max.max(SpoolSettings::BYTES_MIN);
        self.segment_size = self.segment_size.min(self.bytes_max / 4);
        self
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The batch is full: the caller commits, then pushes again.
    Batch,
    /// `messages_max` messages are not done.
    Messages,
    /// The files have `bytes_max` bytes.
    Bytes,
    /// The message would never fit.
    TooLarge,
}

/// The messages that are not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Their number, including messages that are pushed and not committed yet.
    pub messages: u64,
    /// The bytes of their records.
    pub bytes: u64,
    /// When the oldest was pushed, ms since 1970, up to a second early.
    pub oldest_time_ms: Option<u64>,
    /// The bytes of all files.
    pub disk_bytes: u64,
}
