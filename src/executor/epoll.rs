//! Executors without io_uring: a plain thread for a shard, and a runtime of tokio's on one thread for the tasks beside
//! the shards.

pub(super) mod files;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::{AbortOnPanic, Here};

/// How many calls on files may block at once: each has a thread of the pool.
const FILE_CALLS_MAX: u32 = 32;
/// How many look-ups may block at once. A look-up may be stuck for as long as the system likes, so look-ups never take
/// the place of a call on a file.
const LOOK_UPS_MAX: u32 = 8;

/// How long the end of an executor waits for calls on files that no task awaits any more.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// The thread says whether it is pinned before `work` begins.
pub(super) fn run_shard(
    name: &str,
    core: Option<usize>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, String> {
    let (pinned, outcome) = mpsc::channel();
    let run = move || {
        let is_pinned = core.map_or(Ok(()), pin);
        let may_work = is_pinned.is_ok();
        let _ = pinned.send(is_pinned);
        if may_work {
            work();
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    let thread = thread.map_err(|error| format!("its thread cannot be made: {error}"))?;
    outcome.recv().map_err(|_| "its thread ended at once".to_string())??;
    Ok(thread)
}

/// Binds the calling thread to one core.
fn pin(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    let bound = if core < CpuSet::MAX_CPU {
        cores.set(core);
        sched_setaffinity(None, &cores)
    } else {
        Err(Errno::INVAL)
    };
    bound.map_err(|error| format!("the thread cannot be bound to core {core}: {error}"))
}

pub(super) fn run_side<F: Future<Output = ()> + 'static>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<JoinHandle<()>, String> {
    let runtime = runtime(name).map_err(|error| format!("its runtime cannot be made: {error}"))?;
    let run = move || run(runtime, async move { make().await });
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| format!("its thread cannot be made: {error}"))
}

pub(super) fn runtime(name: &str) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads((FILE_CALLS_MAX + LOOK_UPS_MAX) as usize)
        .thread_name(format!("{name}-calls"))
        .build()
}

/// Runs `work`, and the tasks that it spawns, on the calling thread until `work` ends.
pub(super) fn run<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let pool = Rc::new(Pool::new());
    let tasks = LocalSet::new();
    let outcome = {
        let _entered = Here::Epoll(pool.clone()).enter();
        tasks.block_on(&runtime, work)
    };
    drop(tasks);
    runtime.block_on(pool.settle());
    // A look-up that is stuck keeps its thread, and the end does not wait for it.
    runtime.shutdown_background();
    outcome
}

/// Blocking calls on threads of the runtime's. A call that has begun runs to its end, also when its future is dropped.
pub(crate) struct Pool {
    files: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
}

impl Pool {
    fn new() -> Pool {
        let semaphore = |max: u32| Arc::new(Semaphore::new(max as usize));
        Pool { files: semaphore(FILE_CALLS_MAX), look_ups: semaphore(LOOK_UPS_MAX) }
    }

    /// Makes a call on a file. The end of the executor waits for it.
    pub(crate) async fn call_file<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        run_blocking(&self.files, call).await
    }

    /// Makes a look-up. The end of the executor does not wait for it.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        run_blocking(&self.look_ups, call).await
    }

    /// Waits until no call on a file runs any more, or for `SETTLE_TIME`.
    async fn settle(&self) {
        let idle = self.files.acquire_many(FILE_CALLS_MAX);
        if tokio::time::timeout(SETTLE_TIME, idle).await.is_err() {
            tracing::warn!("an operation on a file did not end in time");
        }
    }
}

/// Runs a call, which holds one of `permits` until it has ended, even if no task awaits it.
async fn run_blocking<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    let permit = permits.clone().acquire_owned().await.expect("it is never closed");
    let call = move || {
        let _permit = permit;
        let _guard = AbortOnPanic;
        call()
    };
    tokio::task::spawn_blocking(call).await.expect("tasks end before their runtime")
}
