//! The executors of this program: on glommio, or on plain threads and tokio, behind one facade.
//!
//! With io_uring all executors are glommio's. With epoll a shard is a plain pinned thread, and one thread beside the
//! shards has a runtime of tokio's: tokio runs on no shard. No other module names glommio or tokio.
//!
//! A shard's executor runs one call, which never awaits. A side executor stands beside the shards and runs tasks, all
//! on one thread. [`Io`] chooses the backend, the same for the whole process. The calls that tasks make of their executor
//! (`spawn`, `sleep`, [`net`], [`files`]) ask the thread for it.
//!
//! A task that panics ends the process on both backends: its state is not to be trusted, and other tasks wait for it.

#[cfg(test)]
pub(crate) mod each_io;
mod epoll;
pub(crate) mod files;
pub(crate) mod net;
#[cfg(test)]
mod tests;
mod uring;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::process;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::system::io::Io;
use epoll::Pool;

/// The semaphore needs no runtime: its wakers are those of the executor that polls.
pub(crate) use tokio::sync::Semaphore;

thread_local! {
    /// The side executor that runs on this thread; it is never set on a shard's thread.
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The backend of a side executor.
#[derive(Clone)]
enum Here {
    Uring,
    Epoll(Rc<Pool>),
}

impl Here {
    /// Makes it this thread's until the guard is dropped.
    fn enter(self) -> Entered {
        let before = HERE.replace(Some(self));
        assert!(before.is_none(), "a thread runs one side executor at a time");
        Entered
    }
}

struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(None);
    }
}

fn here() -> Here {
    HERE.with_borrow(|here| here.clone()).expect("the caller is a task of a side executor")
}

/// A thread that runs a shard or a side executor.
pub(crate) enum Handle {
    Uring(glommio::ExecutorJoinHandle<()>),
    Epoll(thread::JoinHandle<()>),
}

impl Handle {
    /// Waits for the end of the thread. The error says why its work could not begin.
    pub(crate) fn join(self) -> Result<(), String> {
        match self {
            Handle::Uring(handle) => handle.join().map_err(|error| error.to_string()),
            Handle::Epoll(thread) => thread.join().map_err(|_| "its thread panicked".to_string()),
        }
    }
}

/// Runs `work` on a thread of its own, pinned to `core` if one is given. If the core cannot be pinned, this call
/// returns an error or, with io_uring, maybe [`Handle::join`] does.
pub(crate) fn run_shard(
    io: Io,
    name: &str,
    core: Option<usize>,
    work: impl FnOnce() + Send + 'static,
) -> Result<Handle, String> {
    let work = || {
        let _guard = AbortOnPanic;
        work();
    };
    match io {
        Io::Uring => uring::run_shard(name, core, work).map(Handle::Uring),
        Io::Epoll => epoll::run_shard(name, core, work).map(Handle::Epoll),
    }
}

/// Runs the future that `make` makes, and the tasks that it spawns, on a thread of their own, until that future ends.
pub(crate) fn run_side<F: Future<Output = ()> + 'static>(
    io: Io,
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Handle, String> {
    let make = || abort_on_panic(async { make().await });
    match io {
        Io::Uring => uring::run_side(name, make).map(Handle::Uring),
        Io::Epoll => epoll::run_side(name, make).map(Handle::Epoll),
    }
}

/// Runs a task on this thread's executor, to its end or that of the executor.
pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let (ended, outcome) = oneshot::channel();
    let task = abort_on_panic(async move {
        // The outcome is dropped if no caller awaits it.
        let _ = ended.send(future.await);
    });
    match here() {
        Here::Uring => drop(glommio::spawn_local(task).detach()),
        Here::Epoll(_) => drop(tokio::task::spawn_local(task)),
    }
    Task(outcome)
}

/// The outcome of a task. The task goes on when this is dropped.
pub(crate) struct Task<T>(oneshot::Receiver<T>);

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let outcome = Pin::new(&mut self.0).poll(context);
        outcome.map(|outcome| outcome.expect("tasks end before their executor"))
    }
}

pub(crate) async fn sleep(pause: Duration) {
    match here() {
        Here::Uring => glommio::timer::sleep(pause).await,
        Here::Epoll(_) => tokio::time::sleep(pause).await,
    }
}

/// Ends the process when a panic passes it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

/// The guard stands for each poll alone: a task that is dropped because another one panicked has done nothing wrong.
async fn abort_on_panic<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _guard = AbortOnPanic;
        future.as_mut().poll(context)
    })
    .await
}
