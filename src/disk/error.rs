//! The errors of a spool, in sentences for operators.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use libc::{EAGAIN, EDQUOT, EFBIG, EINTR, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS};

/// Why a spool could not do what was asked. Only [`SpoolError::Damaged`] means that committed messages are lost.
#[derive(Debug)]
pub enum SpoolError {
    /// Another process, or another spool of this one, uses the directory.
    Locked { directory: PathBuf, holder: Option<Holder> },
    /// A segment was written by a newer version of this program.
    Version { path: PathBuf, version: u32 },
    /// Written bytes can no longer be read: so many messages are lost. They count as done, and reading goes on behind
    /// them.
    Damaged { path: PathBuf, offset: u64, messages_lost: u64 },
    /// The system refused the call, which may be repeated.
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The process that uses a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub process_id: u32,
    /// The process's name in the kernel; empty if it cannot be seen from here.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { process_id, name } = self;
        match name.as_str() {
            "" => write!(f, "process {process_id}"),
            name => write!(f, "process {process_id} ({name})"),
        }
    }
}

impl SpoolError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> SpoolError {
        SpoolError::Io { doing, path: path.to_owned(), source }
    }

    /// Whether there is no space left on the disk.
    pub fn is_disk_full(&self) -> bool {
        let SpoolError::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(ENOSPC | EDQUOT | EFBIG))
    }

    /// Whether deleting files would help.
    pub fn wants_space(&self) -> bool {
        let SpoolError::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(ENOSPC | EDQUOT))
    }

    /// Whether the disk is well, and the process is short of descriptors or memory for a while.
    pub fn is_passing(&self) -> bool {
        let SpoolError::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EINTR | EAGAIN))
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpoolError::Locked { directory, holder } => {
                let directory = directory.display();
                write!(f, "the bridge's directory {directory} is in use by ")?;
                match holder {
                    Some(holder) => write!(f, "{holder}")?,
                    None => write!(f, "another process")?,
                }
                write!(f, ": stop it, or give each broker and each bridge a directory of its own")
            }
            SpoolError::Version { path, version } => write!(
                f,
                "{} was written by a newer version of this program (format {version}): run that one, or move the \
                 directory away",
                path.display()
            ),
            SpoolError::Damaged { path, offset, messages_lost } => write!(
                f,
                "{} is damaged at byte {offset}: {messages_lost} messages are lost; check the disk",
                path.display()
            ),
            SpoolError::Io { doing, path, source } => {
                write!(f, "{doing} {}: {source}", path.display())?;
                f.write_str(match source.raw_os_error() {
                    Some(ENOSPC | EDQUOT) => {
                        "; make space: the bridge goes on by itself when there is some"
                    }
                    Some(EFBIG) => "; raise the limit of file sizes (ulimit -f)",
                    Some(EROFS) => "; mount it for writing",
                    _ if source.kind() == io::ErrorKind::PermissionDenied => {
                        "; the broker's user must own the directory"
                    }
                    _ => "",
                })
            }
        }
    }
}

impl Error for SpoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SpoolError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
