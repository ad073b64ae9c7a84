//! The lock of a directory. The open file holds it, so it ends with the process, however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process;

use super::error::{Holder, SpoolError};

const NAME: &str = "lock";

/// While this lock lives, no other lock of the same directory can be taken.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough while a process that was just forked has the file open, too.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock, and makes the directory if it is missing, for the broker's user alone.
    pub(super) fn take(directory: &Path) -> Result<Lock, SpoolError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| SpoolError::io("making the directory", directory, error))?;
        let path = directory.join(NAME);
        let failed = |error| SpoolError::io("locking", &path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(SpoolError::Locked { directory: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The id only tells other processes the holder, so a full disk does not matter.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
        Ok(Lock { file })
    }
}

/// Refuses a directory that another process has locked, and leaves no file there.
pub fn refuse_if_taken(directory: &Path) -> Result<(), SpoolError> {
    // A file that is not there, or may not be read, has no lock that could be told.
    let Ok(mut file) = File::open(directory.join(NAME)) else { return Ok(()) };
    match file.try_lock_shared() {
        Ok(()) => drop(Lock { file }),
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&mut file);
            return Err(SpoolError::Locked { directory: directory.to_owned(), holder });
        }
        Err(TryLockError::Error(_)) => {}
    }
    Ok(())
}

/// The process that wrote its id into the lock, if the id is there.
fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let process_id = text.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{process_id}/comm")).unwrap_or_default();
    Some(Holder { process_id, name: name.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::folder::Folder;

    #[test]
    fn a_second_one_is_refused_and_told_who_has_the_first() {
        let folder = Folder::new("lock");
        let first = Lock::take(&folder.path.join("a/b")).unwrap();
        let refused = Lock::take(&folder.path.join("a/b")).unwrap_err();
        let SpoolError::Locked { holder: Some(holder), .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(holder.process_id, process::id());
        assert!(!holder.name.is_empty() && refused.to_string().contains(&holder.name));
        assert_eq!(
            refuse_if_taken(&folder.path.join("a/b")).unwrap_err().to_string(),
            refused.to_string()
        );
        drop(first);
        refuse_if_taken(&folder.path.join("a/b")).unwrap();
        refuse_if_taken(&folder.path.join("nowhere")).unwrap();
        Lock::take(&folder.path.join("a/b")).unwrap();
    }
}
