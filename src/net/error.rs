//! Why a shard has no network.

use std::fmt;
use std::io;

/// A sentence for the operator.
#[derive(Debug)]
pub enum NetworkError {
    /// Of a ring.
    Setup(io::Error),
    /// Receive buffers of a ring.
    Buffers(io::Error),
    Epoll(io::Error),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NetworkError::Setup(error)
        | NetworkError::Buffers(error)
        | NetworkError::Epoll(error)) = self;
        match (self, error.raw_os_error()) {
            (NetworkError::Setup(_), Some(libc::EPERM)) => write!(
                f,
                "io_uring is forbidden here: allow it in the container's seccomp profile, or set the sysctl \
                 kernel.io_uring_disabled to 0"
            ),
            (NetworkError::Epoll(_), _) => {
                write!(f, "cannot set up epoll: {error}; raise the open-file limit (ulimit -n)")
            }
            (_, Some(libc::ENOSYS | libc::EINVAL)) => write!(
                f,
                "the kernel lacks io_uring features that Linux 6.1 has: run a newer kernel ({error})"
            ),
            (_, Some(libc::ENOMEM)) => write!(
                f,
                "no memory for an io_uring: raise the memlock limit (ulimit -l), or lower ring_entries, \
                 receive_buffers or the number of shards"
            ),
            (_, Some(libc::EMFILE | libc::ENFILE)) => {
                write!(
                    f,
                    "no descriptor left for an io_uring: raise the open-file limit (ulimit -n)"
                )
            }
            (NetworkError::Setup(_), _) => write!(f, "cannot set up an io_uring: {error}"),
            (NetworkError::Buffers(_), _) => {
                write!(f, "cannot register receive buffers with an io_uring: {error}")
            }
        }
    }
}

impl std::error::Error for NetworkError {}
