//! Files by plain system calls on the pool's threads, in an order that holds although futures are dropped half-way.
//!
//! A call that was given to the pool is made, however late, and also when no task awaits it any more. So each call holds a
//! permit until it has been made, and the next of its kind waits for it: a write never comes after a later one, a file is not
//! created after it was removed.
//!
//! The end of the executor waits for these calls, and for no look-up of a name.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Pool;

/// Lets one call run at a time, in the order in which the calls were asked for.
#[derive(Clone)]
struct OneAtATime(Arc<Semaphore>);

impl OneAtATime {
    fn new() -> OneAtATime {
        OneAtATime(Arc::new(Semaphore::new(1)))
    }

    async fn take(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("it is never closed")
    }
}

pub(crate) struct File {
    file: Arc<fs::File>,
    pool: Rc<Pool>,
    /// Orders the calls that change the file's bytes.
    changes: OneAtATime,
    /// Orders the syncs, which may run beside changes.
    syncs: OneAtATime,
    /// Why a sync failed, until a caller hears it: the kernel tells it once, maybe to a sync that was given up.
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl File {
    fn new(pool: Rc<Pool>, file: fs::File) -> File {
        let (changes, syncs) = (OneAtATime::new(), OneAtATime::new());
        File { file: Arc::new(file), pool, changes, syncs, failure: Arc::default() }
    }

    pub(crate) async fn open(pool: Rc<Pool>, path: &Path) -> io::Result<File> {
        let path = path.to_owned();
        let file = pool.call_file(|| fs::File::open(path)).await?;
        Ok(File::new(pool, file))
    }

    pub(crate) async fn read_at(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let file = self.file.clone();
        let read = move || {
            let mut bytes = vec![0; size];
            let count = file.read_at(&mut bytes, offset)?;
            bytes.truncate(count);
            Ok(bytes)
        };
        self.pool.call_file(read).await
    }

    pub(crate) async fn write_at(&self, bytes: Vec<u8>, offset: u64) -> io::Result<usize> {
        self.change(move |file| file.write_at(&bytes, offset)).await
    }

    pub(crate) async fn truncate(&self, size: u64) -> io::Result<()> {
        self.change(move |file| file.set_len(size)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        call: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = self.changes.take().await;
        let file = self.file.clone();
        let change = move || {
            let _permit = permit;
            call(&file)
        };
        self.pool.call_file(change).await
    }

    pub(crate) async fn fdatasync(&self) -> io::Result<()> {
        self.sync_by(fs::File::sync_data).await
    }

    async fn sync_by(
        &self,
        call: impl FnOnce(&fs::File) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let permit = self.syncs.take().await;
        let (file, failure) = (self.file.clone(), self.failure.clone());
        let sync = move || {
            let mut failure = failure.lock().expect("no panic passes it");
            if failure.is_none() {
                *failure = call(&file).err();
            }
            // The permit goes back with the outcome: the next sync runs when a caller has heard this outcome, or has
            // given it up.
            permit
        };
        let _permit = self.pool.call_file(sync).await;
        let failure = self.failure.lock().expect("no panic passes it").take();
        failure.map_or(Ok(()), Err)
    }

    pub(crate) async fn size(&self) -> io::Result<u64> {
        let file = self.file.clone();
        self.pool.call_file(move || file.metadata().map(|metadata| metadata.len())).await
    }

    /// Calls that were given up keep the file open until they have ended.
    pub(crate) async fn close(self) {
        let File { file, pool, .. } = self;
        pool.call_file(|| drop(file)).await;
    }
}

pub(crate) struct Directory {
    file: Arc<fs::File>,
    pool: Rc<Pool>,
    /// Orders the calls that look up, create or remove names, and of syncs.
    names: OneAtATime,
}

impl Directory {
    pub(crate) async fn open(pool: Rc<Pool>, path: &Path) -> io::Result<Directory> {
        let path = path.to_owned();
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
        let file = Arc::new(pool.call_file(open).await?);
        Ok(Directory { file, pool, names: OneAtATime::new() })
    }

    pub(crate) async fn create(&self, path: &Path) -> io::Result<File> {
        let create =
            |path: PathBuf| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        self.change(path, create).await.map(|file| File::new(self.pool.clone(), file))
    }

    pub(crate) async fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        let open = |path: PathBuf| OpenOptions::new().write(true).open(path);
        self.change(path, open).await.map(|file| File::new(self.pool.clone(), file))
    }

    pub(crate) async fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(path, fs::remove_file).await
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        let file = self.file.clone();
        self.change(Path::new(""), move |_| file.sync_all()).await
    }

    async fn change<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = self.names.take().await;
        let path = path.to_owned();
        let change = move || {
            let _permit = permit;
            call(path)
        };
        self.pool.call_file(change).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use futures_lite::future::{poll_once, zip};

    use super::*;
    use crate::executor::each_io::run;
    use crate::executor::epoll::FILE_CALLS_MAX;
    use crate::executor::{Here, here};
    use crate::system::folder::Folder;
    use crate::system::io::Io;

    const SLOW: Duration = Duration::from_millis(100);

    fn check<F: Future<Output = ()>>(name: &str, work: impl FnOnce(Rc<Pool>, PathBuf) -> F) {
        let folder = Folder::new(name);
        fs::create_dir_all(&folder.path).unwrap();
        run(Io::Epoll, async {
            let Here::Epoll(pool) = here() else { panic!("another backend") };
            work(pool, folder.path.join("file")).await;
        });
    }

    async fn make(pool: &Rc<Pool>, path: &Path) -> File {
        let directory = Directory::open(pool.clone(), path.parent().unwrap()).await.unwrap();
        directory.create(path).await.unwrap()
    }

    #[test]
    fn a_write_that_was_given_up_never_comes_after_a_later_one() {
        check("late-write", async |pool, path| {
            let file = make(&pool, &path).await;
            let slow = file.change(|file| {
                thread::sleep(SLOW);
                file.write_at(b"old", 0)
            });
            assert!(poll_once(slow).await.is_none());
            // A call that is given up before it has its permit is never made.
            assert!(poll_once(file.write_at(b"never".to_vec(), 0)).await.is_none());
            file.write_at(b"new".to_vec(), 0).await.unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            thread::sleep(2 * SLOW);
            assert_eq!(fs::read(&path).unwrap(), b"new");
        });
    }

    #[test]
    fn a_write_that_waits_for_a_thread_keeps_its_place_or_is_never_made() {
        check("queued-write", async |pool, path| {
            let file = make(&pool, &path).await;
            let mut others: Vec<_> = (0..FILE_CALLS_MAX)
                .map(|_| Box::pin(pool.call_file(|| thread::sleep(SLOW))))
                .collect();
            for other in &mut others {
                assert!(poll_once(other).await.is_none());
            }
            assert!(poll_once(file.write_at(b"old".to_vec(), 0)).await.is_none());
            file.write_at(b"new".to_vec(), 0).await.unwrap();
            thread::sleep(2 * SLOW);
            assert_eq!(fs::read(&path).unwrap(), b"new");
        });
    }

    #[test]
    fn a_file_is_removed_after_its_creation_that_was_given_up() {
        check("late-create", async |pool, path| {
            let directory = Directory::open(pool, path.parent().unwrap()).await.unwrap();
            let slow = directory.change(&path, |path| {
                thread::sleep(SLOW);
                fs::File::create(path)
            });
            assert!(poll_once(slow).await.is_none());
            directory.remove(&path).await.unwrap();
            thread::sleep(2 * SLOW);
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_sync_runs_beside_writes() {
        check("sync-beside", async |pool, path| {
            let file = make(&pool, &path).await;
            let is_written = Arc::new(AtomicBool::new(false));
            let slow_sync = file.sync_by({
                let is_written = is_written.clone();
                move |_| {
                    while !is_written.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Ok(())
                }
            });
            let write = async {
                file.write_at(b"bytes".to_vec(), 0).await.unwrap();
                is_written.store(true, Ordering::SeqCst);
            };
            zip(slow_sync, write).await.0.unwrap();
        });
    }

    #[test]
    fn the_failure_of_a_sync_that_was_given_up_is_told_by_the_next_one_once() {
        check("lost-failure", async |pool, path| {
            let file = make(&pool, &path).await;
            let failing = file.sync_by(|_| {
                thread::sleep(SLOW);
                Err(io::Error::from_raw_os_error(libc::EIO))
            });
            assert!(poll_once(failing).await.is_none());
            let failure = file.fdatasync().await.unwrap_err();
            assert_eq!(failure.raw_os_error(), Some(libc::EIO));
            file.fdatasync().await.unwrap();
            // A sync that is awaited tells its failure itself, whichever sync waits behind it.
            let failing = file.sync_by(|_| Err(io::Error::from_raw_os_error(libc::EIO)));
            let (failure, next) = zip(failing, file.fdatasync()).await;
            assert!(failure.is_err() && next.is_ok());
        });
    }
}
