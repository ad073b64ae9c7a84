//! The two ways in which this process does its input and output.

use std::fmt;

/// What shards, bridges and logs do their input and output with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// A ring of the kernel's for each shard, glommio for what stands beside the shards.
    Uring,
    /// Readiness and system calls, tokio for what stands beside the shards: where io_uring is refused.
    Epoll,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Uring => "io_uring",
            Io::Epoll => "epoll",
        })
    }
}
