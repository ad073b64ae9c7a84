//! The glommio executors of this program.

use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

/// Glommio 0.9 looks at this timer between arming it and running tasks, and if it has fired by then takes it that there is
/// nothing to run: it parks, with tasks that could run, until something else wakes it, which may be never. So it is longer
/// than load keeps a thread from its core. Its use, to look at the rings although tasks go on and on, is not missed: a
/// shard's executor has one task, which never comes back, and the bridges' tasks await files and sockets between their
/// steps, so that glommio runs out of tasks. Should a process be stopped for longer at just that place, a shard that has
/// begun does not mind, and bridges wake by their own timers.
const PREEMPT_TIMER: Duration = Duration::from_secs(10);

/// What every executor here is made with.
pub fn builder(placement: Placement) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement).preempt_timer(PREEMPT_TIMER)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::{io, thread};

    use super::*;
    use crate::shell::child::{Child, PATIENCE, again};

    /// Set for the process that is stopped.
    const CHILD: &str = "RINGMQ_EXECUTOR_CHILD";

    /// Runs task after task, and says so.
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
        let name = "shell::executor::tests::an_executor_goes_on_after_its_process_was_stopped";
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
        // One in some eight stops meets the place where it matters.
        for _ in 0..30 {
            goes_on();
            signal("-STOP");
            // Longer than glommio's own preempt timer.
            thread::sleep(Duration::from_millis(130));
            lines.try_iter().for_each(drop);
            signal("-CONT");
        }
        goes_on();
    }
}
