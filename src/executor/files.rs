//! Files of a side executor's tasks. Paths are absolute; errors are the system's.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;

use glommio::io::{BufferedFile, OpenOptions, ReadResult};

use super::uring::io_error;
use super::{Here, epoll, here};

/// A file. A call whose future is dropped may still be made. With epoll, later calls on the same file wait for it.
pub(crate) enum File {
    Uring(BufferedFile),
    Epoll(epoll::files::File),
}

impl File {
    /// Opens a file for reading.
    pub(crate) async fn open(path: &Path) -> io::Result<File> {
        match here() {
            Here::Uring => {
                let file = BufferedFile::open(path).await;
                file.map(File::Uring).map_err(io_error)
            }
            Here::Epoll(pool) => epoll::files::File::open(pool, path).await.map(File::Epoll),
        }
    }

    /// Reads up to `size` bytes; fewer at the end of the file.
    pub(crate) async fn read_at(&self, offset: u64, size: usize) -> io::Result<Bytes> {
        match self {
            File::Uring(file) => {
                let bytes = file.read_at(offset, size).await;
                bytes.map(Bytes::Uring).map_err(io_error)
            }
            File::Epoll(file) => {
                let bytes = file.read_at(offset, size).await;
                bytes.map(|bytes| Bytes::Epoll(Rc::new(bytes)))
            }
        }
    }

    /// Writes bytes; returns how many were written.
    pub(crate) async fn write_at(&self, bytes: Vec<u8>, offset: u64) -> io::Result<usize> {
        match self {
            File::Uring(file) => file.write_at(bytes, offset).await.map_err(io_error),
            File::Epoll(file) => file.write_at(bytes, offset).await,
        }
    }

    pub(crate) async fn truncate(&self, size: u64) -> io::Result<()> {
        match self {
            File::Uring(file) => file.truncate(size).await.map_err(io_error),
            File::Epoll(file) => file.truncate(size).await,
        }
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        match self {
            File::Uring(file) => file.fdatasync().await.map_err(io_error),
            File::Epoll(file) => file.fdatasync().await,
        }
    }

    pub(crate) async fn size(&self) -> io::Result<u64> {
        match self {
            File::Uring(file) => file.file_size().await.map_err(io_error),
            File::Epoll(file) => file.size().await,
        }
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        match self {
            File::Uring(file) => file.close().await.map_err(io_error),
            File::Epoll(file) => {
                file.close().await;
                Ok(())
            }
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("File")
    }
}

/// The bytes of a read; a copy shares the memory.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Uring(ReadResult),
    Epoll(Rc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Uring(bytes) => bytes,
            Bytes::Epoll(bytes) => bytes,
        }
    }
}

/// A directory, and the calls that change the names of its files. With epoll, each call waits for the one before, even
/// if the future of that was dropped.
pub(crate) enum Directory {
    Uring(glommio::io::Directory),
    Epoll(epoll::files::Directory),
}

impl Directory {
    pub(crate) async fn open(path: &Path) -> io::Result<Directory> {
        match here() {
            Here::Uring => {
                let directory = glommio::io::Directory::open(path).await;
                directory.map(Directory::Uring).map_err(io_error)
            }
            Here::Epoll(pool) => {
                epoll::files::Directory::open(pool, path).await.map(Directory::Epoll)
            }
        }
    }

    /// Creates a file, for the broker's user alone, and opens it for writing. An error if there is one of that name.
    pub(crate) async fn create(&self, path: &Path) -> io::Result<File> {
        match self {
            Directory::Uring(_) => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                options.buffered_open(path).await.map(File::Uring).map_err(io_error)
            }
            Directory::Epoll(directory) => directory.create(path).await.map(File::Epoll),
        }
    }

    pub(crate) async fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        match self {
            Directory::Uring(_) => {
                let file = OpenOptions::new().write(true).buffered_open(path).await;
                file.map(File::Uring).map_err(io_error)
            }
            Directory::Epoll(directory) => directory.open_for_writing(path).await.map(File::Epoll),
        }
    }

    pub(crate) async fn remove(&self, path: &Path) -> io::Result<()> {
        match self {
            Directory::Uring(_) => glommio::io::remove(path).await.map_err(io_error),
            Directory::Epoll(directory) => directory.remove(path).await,
        }
    }

    /// Syncs the names that were created and removed to the disk.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        match self {
            Directory::Uring(directory) => directory.sync().await.map_err(io_error),
            Directory::Epoll(directory) => directory.sync().await,
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}
