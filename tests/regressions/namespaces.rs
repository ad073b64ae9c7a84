//! Network namespaces, each entered by a thread of its own: what that thread opens and starts lives there.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::thread::{UnshareFlags, gettid};

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Namespace {
    jobs: Sender<Job>,
    /// Its thread, by which `ip` finds it.
    pub id: i32,
}

impl Namespace {
    pub(crate) fn new() -> Result<Namespace, String> {
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            #[expect(
                deprecated,
                reason = "unsound with file descriptors only: this takes no such flag"
            )]
            let made = rustix::thread::unshare(UnshareFlags::NEWNET);
            let made = made.map(|()| gettid().as_raw_pid());
            tell.send(made.map_err(|errno| format!("no network namespace: {errno}"))).unwrap();
            for job in todo {
                job();
            }
        });
        told.recv().unwrap().map(|id| Namespace { jobs, id })
    }

    /// Does `work` inside.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || tell.send(work()).unwrap())).unwrap();
        told.recv().unwrap()
    }

    /// `ip` with these words, inside.
    pub(crate) fn ip(&self, words: &str) -> Result<(), String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let told = Command::new("ip").args(&words).output();
            let told = told.map_err(|error| format!("ip, of iproute2: {error}"))?;
            let stderr = String::from_utf8_lossy(&told.stderr);
            if told.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {stderr}")) }
        })
    }
}
