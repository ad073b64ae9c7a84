//! Executors of glommio: each has a ring of the kernel's.

use std::time::Duration;
use std::{io, mem};

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};

use super::Here;

/// The I/O memory of a shard's executor: it does no I/O on the shard's thread.
const SHARD_IO_MEMORY: usize = 64 << 10;
const SHARD_RING_DEPTH: usize = 8;

/// Glommio 0.9 looks at this timer between arming it and running tasks. If the timer has fired by then, glommio assumes
/// that there is nothing to run: it parks, with tasks that could run, until something else wakes it, which may never
/// happen. So the timer is longer than load keeps a thread from its core. Its use, to look at the rings although tasks
/// go on and on, is not missed. A shard's executor has one task, which never comes back, and the bridges' tasks await
/// files and sockets between their steps, so glommio runs out of tasks. If a process should be stopped for longer at
/// just that place, a shard that has begun does not mind, and bridges wake by their own timers.
const PREEMPT_TIMER: Duration = Duration::from_secs(10);

/// The settings of every executor here.
pub(super) fn builder(placement: Placement) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement).preempt_timer(PREEMPT_TIMER)
}

pub(super) fn run_shard(
    name: &str,
    core: Option<usize>,
    work: impl FnOnce() + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, String> {
    builder(core.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .io_memory(SHARD_IO_MEMORY)
        .ring_depth(SHARD_RING_DEPTH)
        // This is the only task of its executor. It awaits nothing, because glommio does not run while the task waits
        // in its own ring.
        .spawn(move || async move { work() })
        .map_err(|error: GlommioError<()>| error.to_string())
}

pub(super) fn run_side<F: Future<Output = ()> + 'static>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, String> {
    let run = move || async move {
        // Tasks that `make` leaves may still run once it has ended, before the thread ends with its executor.
        mem::forget(Here::Uring.enter());
        make().await;
    };
    builder(Placement::Unbound)
        .name(name)
        .spawn(run)
        .map_err(|error: GlommioError<()>| error.to_string())
}

/// The system's error alone where there is one: callers add what they did, and with which file.
pub(super) fn io_error(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::{io, thread};

    use super::*;
    use crate::system::child::{Child, PATIENCE, again};
    use crate::system::io::tests::has_io_uring;

    /// This variable is set for the process that is stopped.
    const CHILD: &str = "RINGMQ_EXECUTOR_CHILD";

    /// Runs task after task, and reports each.
    fn run_on_and_on() {
        let executor = builder(Placement::Unbound).make().unwrap();
        loop {
            (0..100).for_each(|_| executor.run(async {}));
            io::stdout().write_all(b"on\n").unwrap();
        }
    }

    #[test]
    fn an_executor_goes_on_after_its_process_was_stopped() {
        if std::env::var_os(CHILD).is_some() {
            return run_on_and_on();
        }
        if !has_io_uring() {
            return;
        }
        let name = "executor::uring::tests::an_executor_goes_on_after_its_process_was_stopped";
        let mut child = Child::spawn(again(name).env(CHILD, "")).unwrap();
        let lines = child.lines();
        let signal = |name: &str| {
            let id = child.id().to_string();
            assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
        };
        let goes_on = || {
            let said = lines.recv_timeout(PATIENCE);
            assert!(said.is_ok(), "it hangs: {}", child.state());
        };
        // Some one stop in eight meets the place where it matters.
        for _ in 0..30 {
            goes_on();
            signal("-STOP");
            // The pause is longer than glommio's own preempt timer.
            thread::sleep(Duration::from_millis(130));
            lines.try_iter().for_each(drop);
            signal("-CONT");
        }
        goes_on();
    }
}
