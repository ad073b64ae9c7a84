//! Processes of tests: each ends with its test, and each wait for one is bounded.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long work of one second may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// This test binary, to run one test of it.
pub fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", test]);
    command
}

/// Ends the process if `work` takes longer than any work here should: a hanging executor cannot be left alone.
pub fn bounded<T>(work: impl FnOnce() -> T) -> T {
    let test = thread::current().name().unwrap_or_default().to_owned();
    let (ended, end) = mpsc::channel::<()>();
    thread::spawn(move || {
        if end.recv_timeout(PATIENCE * 8) == Err(RecvTimeoutError::Timeout) {
            // A macro would not do: the harness keeps its output to itself.
            let _ = writeln!(io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    let outcome = work();
    drop(ended);
    outcome
}

/// A process that is killed when this is dropped.
pub struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.end_within(PATIENCE);
    }
}

impl Child {
    /// Starts a process whose output is to be read.
    pub fn spawn(command: &mut Command) -> io::Result<Child> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map(Child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its lines as they come. A line in which it was killed is left out.
    pub fn lines(&mut self) -> Receiver<String> {
        let mut output = BufReader::new(self.0.stdout.take().expect("read once"));
        let (said, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while output.read_line(&mut line).is_ok() && line.pop() == Some('\n') {
                if said.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        lines
    }

    /// Its whole output and its end.
    pub fn output(command: &mut Command) -> io::Result<Output> {
        let mut child = Child::spawn(command.stderr(Stdio::piped()))?;
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let stdout = read(stdout.expect("read once"));
        let stderr = read(stderr.expect("read once"));
        let status = child.end_within(PATIENCE * 4);
        let status = status.unwrap_or_else(|| panic!("it does not end: {}", child.state()));
        let stdout = stdout.recv_timeout(PATIENCE).expect("nobody else writes to it");
        let stderr = stderr.recv_timeout(PATIENCE).expect("nobody else writes to it");
        Ok(Output { status, stdout, stderr })
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        assert!(self.end_within(PATIENCE).is_some(), "it does not die: {}", self.state());
    }

    /// The state of each of its threads.
    pub fn state(&self) -> String {
        let directory = format!("/proc/{}/task", self.id());
        let mut state = String::new();
        for thread in fs::read_dir(directory).into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let status = read("status");
            let what = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default();
            state.push_str(&format!("{} {what} in {}; ", read("comm").trim(), read("wchan")));
        }
        state
    }

    fn end_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
                outcome => return outcome.ok().flatten(),
            }
        }
    }
}

fn read(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sent, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sent.send(bytes);
    });
    all
}
