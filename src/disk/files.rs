//! The files of a log: does the steps of the log, and reads a directory back.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::error::SpoolError;
use crate::executor::files::{Directory, File};
use crate::executor::{Semaphore, spawn};
use crate::store::log::{Found, Step};
use crate::store::recovery::{Cut, CutKind, Recovery};

/// How much of a file is read at once.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// A directory of segments, `00000000000000000001.log` and so on.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    directory: Directory,
    /// The segment that was created last, open for writing.
    active: RefCell<Option<(u64, Rc<File>)>>,
    /// The semaphore lets one creation run at a time.
    creation_permit: Arc<Semaphore>,
    /// The segment that is being created. If it is still set when the next one is, its commit was given up meanwhile.
    creating: Cell<Option<u64>>,
    /// Torn segments, each with the size of its good part. The rest is cut off when the next segment's head says which
    /// sequences it may have had.
    torn: RefCell<Vec<(u64, u64)>>,
}

impl Files {
    /// Reads all segments. Nothing is changed yet.
    pub(super) async fn open(path: &Path) -> Result<(Rc<Files>, Found, Vec<Cut>), SpoolError> {
        let directory =
            Directory::open(path).await.map_err(|error| SpoolError::io("opening", path, error))?;
        let path = path.to_owned();
        let (active, creating, torn) = Default::default();
        let creation_permit = Arc::new(Semaphore::new(1));
        let files = Files { path, directory, active, creation_permit, creating, torn };
        let mut recovery = Recovery::default();
        for segment in files.list()? {
            files.recover(segment, &mut recovery).await?;
        }
        let (found, cuts) = recovery.finish(boot_id());
        let tails = cuts.iter().filter(|cut| cut.kind == CutKind::Tail);
        files.torn.replace(tails.map(|cut| (cut.segment, cut.offset)).collect());
        Ok((Rc::new(files), found, cuts))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:020}.log"))
    }

    pub(super) async fn run(self: &Rc<Files>, step: &Step) -> Result<(), SpoolError> {
        match step {
            Step::Create { segment, head } => self.create_to_the_end(*segment, head.clone()).await,
            Step::Write { segment, offset, states, messages } => {
                let file = self.active(*segment)?;
                write_all(&file, *offset, states, messages)
                    .await
                    .map_err(|error| SpoolError::io("writing", &self.path_of(*segment), error))
            }
            Step::Sync { segment } => self.sync(*segment).await,
            Step::Truncate { segment, size } => {
                let path = self.path_of(*segment);
                self.truncate(&path, *size)
                    .await
                    .map_err(|error| SpoolError::io("cutting", &path, error))
            }
            Step::Delete { segment } => {
                let path = self.path_of(*segment);
                match self.directory.remove(&path).await {
                    Ok(()) => Ok(()),
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                    Err(error) => Err(SpoolError::io("deleting", &path, error)),
                }
            }
        }
    }

    pub(super) async fn sync(&self, segment: u64) -> Result<(), SpoolError> {
        let file = self.active(segment)?;
        file.fdatasync()
            .await
            .map_err(|error| SpoolError::io("syncing", &self.path_of(segment), error))
    }

    pub(super) async fn open_for_reading(&self, segment: u64) -> Result<Rc<File>, SpoolError> {
        let path = self.path_of(segment);
        let file = File::open(&path).await;
        file.map(Rc::new).map_err(|error| SpoolError::io("opening", &path, error))
    }

    /// Creates a file, and goes on when its future is dropped. The kernel would make a file that was removed before its
    /// creation completed, and the file would stay: empty, and torn as after a crash.
    async fn create_to_the_end(
        self: &Rc<Files>,
        segment: u64,
        head: Vec<u8>,
    ) -> Result<(), SpoolError> {
        let permit =
            self.creation_permit.clone().acquire_owned().await.expect("it is never closed");
        let given_up = self.creating.replace(Some(segment));
        let files = Rc::clone(self);
        let creation = spawn(async move {
            let _permit = permit;
            if let Some(given_up) = given_up {
                let _ = files.directory.remove(&files.path_of(given_up)).await;
            }
            let created = files.create(segment, &head).await;
            match created {
                Ok(()) => files.cut_torn().await,
                // The segment's number is not used again, and its file has no message that counts, so it may stay.
                Err(_) => drop(files.directory.remove(&files.path_of(segment)).await),
            }
            created
        });
        let created = creation.await;
        self.creating.set(None);
        created
    }

    async fn create(&self, segment: u64, head: &[u8]) -> Result<(), SpoolError> {
        let path = self.path_of(segment);
        let file = self
            .directory
            .create(&path)
            .await
            .map_err(|error| SpoolError::io("creating", &path, error))?;
        write_all(&file, 0, head, &[])
            .await
            .map_err(|error| SpoolError::io("writing", &path, error))?;
        file.fdatasync().await.map_err(|error| SpoolError::io("syncing", &path, error))?;
        self.directory
            .sync()
            .await
            .map_err(|error| SpoolError::io("syncing", &self.path, error))?;
        self.active.replace(Some((segment, Rc::new(file))));
        Ok(())
    }

    fn active(&self, segment: u64) -> Result<Rc<File>, SpoolError> {
        let active = self.active.borrow();
        let file = active.as_ref().filter(|(id, _)| *id == segment);
        // This is not reached: only the segment that was created last is written and synced.
        let missing =
            || SpoolError::io("writing", &self.path_of(segment), io::ErrorKind::NotFound.into());
        file.map(|(_, file)| Rc::clone(file)).ok_or_else(missing)
    }

    fn list(&self) -> Result<Vec<u64>, SpoolError> {
        let failed = |error| SpoolError::io("listing", &self.path, error);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
            segments.extend(id.filter(|id| id.len() == 20).and_then(|id| id.parse::<u64>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    async fn recover(&self, segment: u64, recovery: &mut Recovery) -> Result<(), SpoolError> {
        let path = self.path_of(segment);
        let failed = |error| SpoolError::io("reading", &path, error);
        let file =
            File::open(&path).await.map_err(|error| SpoolError::io("opening", &path, error))?;
        let file_size = file.size().await.map_err(failed)?;
        recovery.begin(segment, file_size);
        let mut at_hand = Vec::new();
        while let Some(wanted) = recovery.wanted() {
            let size = READ_SIZE.max(wanted.saturating_sub(at_hand.len()));
            let offset = recovery.offset() + at_hand.len() as u64;
            let read = file.read_at(offset, size).await.map_err(failed)?;
            if read.is_empty() {
                break;
            }
            at_hand.extend_from_slice(&read);
            let used = recovery.feed(&at_hand).map_err(|unknown| SpoolError::Version {
                path: path.clone(),
                version: unknown.0,
            })?;
            at_hand.drain(..used);
        }
        recovery.end();
        file.close().await.map_err(failed)
    }

    /// A tail that could not be cut is found and cut again after the next start.
    async fn cut_torn(&self) {
        for (segment, good_size) in self.torn.take() {
            let path = self.path_of(segment);
            if good_size == 0 {
                let _ = self.directory.remove(&path).await;
            } else {
                let _ = self.truncate(&path, good_size).await;
            }
        }
    }

    async fn truncate(&self, path: &Path, size: u64) -> io::Result<()> {
        let file = self.directory.open_for_writing(path).await?;
        let outcome = file.truncate(size).await;
        file.close().await?;
        outcome
    }
}

/// Writes two buffers at once, and goes on after a short write.
async fn write_all(file: &File, offset: u64, first: &[u8], second: &[u8]) -> io::Result<()> {
    let size = first.len() + second.len();
    let mut written = 0;
    while written < size {
        let mut buffer = Vec::with_capacity(size - written);
        buffer.extend_from_slice(&first[written.min(first.len())..]);
        buffer.extend_from_slice(&second[written.saturating_sub(first.len())..]);
        match file.write_at(buffer, offset + written as u64).await? {
            0 => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            count => written += count,
        }
    }
    Ok(())
}

/// The id of this boot of the machine; zeros if the kernel does not tell it.
pub(super) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    id
}
