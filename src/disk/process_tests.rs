//! The spool in processes of its own: killed while they write, and on a disk that is full.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Instant;

use super::tests::{drain, message, settings};
use super::*;
use crate::executor::each_io::{for_each_io, run};
use crate::random::Random;
use crate::system::child::{self, Child, PATIENCE};
use crate::system::folder::Folder;
use crate::system::io::Io;

/// The directory that a child of a test works in, and its backend.
const CHILD: &str = "RINGMQ_SPOOL_CHILD";
const CHILD_IO: &str = "RINGMQ_SPOOL_CHILD_IO";

/// The same test, in a process of its own that gets `directory`.
fn child_of(test: &str, io: Io, directory: &Path) -> Command {
    let mut command = child::again(test);
    command.env(CHILD, directory).env(CHILD_IO, io.to_string());
    command
}

/// In a child process: its backend and directory.
pub(crate) fn child() -> Option<(Io, PathBuf)> {
    let directory = std::env::var_os(CHILD)?;
    let name = std::env::var(CHILD_IO).unwrap();
    let io = [Io::Uring, Io::Epoll].into_iter().find(|io| io.to_string() == name).unwrap();
    Some((io, directory.into()))
}

/// The work that a child reported before it was killed.
#[derive(Default)]
struct Said {
    committed: BTreeSet<u64>,
    /// Marks that were reported before they were made.
    marking: BTreeSet<u64>,
    received: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

impl Said {
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next().unwrap();
        let mut numbers =
            words.filter(|word| !word.is_empty()).map(|word| word.parse::<u64>().unwrap());
        match word {
            "committed" => {
                let first = numbers.next().unwrap();
                self.committed.extend(first..numbers.next().unwrap());
            }
            "marking" => self.marking.extend(numbers),
            "received" => self.received.extend(numbers),
            "done" => self.done.extend(numbers),
            // This is a line of the test harness.
            _ => {}
        }
    }

    fn check(&self, spool: &Spool) {
        let last = self.committed.last().copied().unwrap_or(0);
        assert!(spool.committed() > last, "sequences restart");
        for &sequence in &self.committed {
            let state = spool.state(sequence);
            if self.done.contains(&sequence) {
                assert_eq!(state, None, "{sequence} would be sent again");
            } else if self.received.contains(&sequence) {
                assert_ne!(state, Some(State::Waiting), "{sequence} would be sent again");
            } else if !self.marking.contains(&sequence) {
                assert_eq!(state, Some(State::Waiting), "{sequence} is lost");
            }
        }
    }
}

fn say(word: &str, numbers: &[u64]) {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    // A full pipe may take a part of the line before SIGKILL. An incomplete line was not reported.
    let line = format!("{word} {}\n", numbers.join(" "));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Pushes, commits and marks until it is killed.
async fn work(directory: &Path) {
    let settings = SpoolSettings { bytes_max: 1 << 20, segment_size: 32 << 10, ..settings() };
    let spool = Spool::open(directory, settings).await.unwrap();
    let mut random = Random::new(spool.next_sequence());
    loop {
        for _ in 0..random.below(40) {
            if spool.push(&message(spool.next_sequence())).is_err() {
                break;
            }
        }
        let first = spool.committed();
        say("committed", &[first, spool.commit().await.unwrap()]);
        let chunk = spool.read(spool.floor(), 4000, 1 + random.below(40) as usize).await.unwrap();
        let waiting: Vec<u64> = chunk.iter().map(|(sequence, _)| sequence).collect();
        say("marking", &waiting);
        if random.below(2) == 0 {
            waiting.iter().for_each(|&sequence| assert!(spool.received(sequence)));
            spool.commit().await.unwrap();
            say("received", &waiting);
        }
        let done: Vec<u64> = waiting.into_iter().filter(|_| random.below(8) > 0).collect();
        done.iter().for_each(|&sequence| assert!(spool.done(sequence)));
        spool.commit().await.unwrap();
        say("done", &done);
        for sequence in spool.received_unfinished().into_iter().take(5) {
            spool.done(sequence);
        }
    }
}

#[test]
fn sigkill_while_it_writes_loses_and_repeats_nothing() {
    if let Some((io, directory)) = child() {
        return run(io, work(&directory));
    }
    for_each_io(kill_while_it_writes);
}

fn kill_while_it_writes(io: Io) {
    let folder = Folder::new("sigkill");
    let mut said = Said::default();
    let mut random = Random::new(5);
    let mut torn = 0;
    for round in 0..12 {
        let name = "disk::process_tests::sigkill_while_it_writes_loses_and_repeats_nothing";
        let child = Child::spawn(&mut child_of(name, io, &folder.path)).unwrap();
        let lines = read_for(child, 30 + random.below(120), |child| {
            if round == 0 {
                refuses_a_second_process(io, &folder.path, child.id());
            }
        });
        assert!(lines.iter().any(|line| line.starts_with("done ")), "the child did nothing");
        lines.iter().for_each(|line| said.take(line));
        run(io, async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            torn += spool.cuts().len();
            said.check(&spool);
            drain(&spool, 1 << 20, 1000).await;
        });
    }
    let committed = said.committed.len();
    assert!(committed > 1000 && said.done.len() > 500, "{committed}");
    println!("{committed} messages, {torn} torn tails");
}

/// The lines that the child writes until it is killed, some ms after it has begun to work.
fn read_for(mut child: Child, work_ms: u64, meanwhile: impl FnOnce(&Child)) -> Vec<String> {
    let said = child.lines();
    let mut lines: Vec<String> = Vec::new();
    let until = Instant::now() + PATIENCE;
    while lines.last().is_none_or(|line| !line.starts_with("done ")) {
        match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Timeout) => panic!("{} hangs: {lines:?}", child.state()),
            Err(RecvTimeoutError::Disconnected) => panic!("the child ended: {lines:?}"),
        }
    }
    meanwhile(&child);
    thread::sleep(Duration::from_millis(work_ms));
    child.kill();
    loop {
        match said.recv_timeout(PATIENCE) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Timeout) => panic!("somebody else has the child's stdout"),
            Err(RecvTimeoutError::Disconnected) => return lines,
        }
    }
}

fn refuses_a_second_process(io: Io, directory: &Path, process_id: u32) {
    let error = run(io, async { Spool::open(directory, settings()).await.unwrap_err() });
    let SpoolError::Locked { holder: Some(holder), .. } = &error else { panic!("{error}") };
    assert_eq!(holder.process_id, process_id);
}

/// Works on a file system of 400 KiB.
async fn fill_the_disk(directory: &Path) {
    let bytes_max = 10 << 20;
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![1; 100 << 10]).unwrap();
    let settings = SpoolSettings { bytes_max, segment_size: 64 << 10, ..settings() };
    let spool = Spool::open(&directory.join("spool"), settings.clone()).await.unwrap();
    let mut committed = 1;
    let error = loop {
        while spool.push(&message(spool.next_sequence())) != Err(Full::Batch) {}
        match spool.commit().await {
            Ok(end) => committed = end,
            Err(error) => break error,
        }
    };
    assert!(error.is_disk_full() && error.to_string().contains("make space"), "{error}");
    assert!(spool.commit().await.unwrap_err().is_disk_full());
    assert_eq!(spool.committed(), committed);
    while spool.push(&message(spool.next_sequence())) != Err(Full::Batch) {}
    let pushed = spool.next_sequence();
    // All committed messages are read and marked, and drained segments make their own space.
    let mut from = 1;
    while from < committed / 2 {
        let chunk = spool.read(from, 10_000, 100).await.unwrap();
        for (sequence, bytes) in chunk.iter() {
            assert!(sequence == from && bytes == message(sequence) && spool.done(sequence));
            from += 1;
        }
    }
    assert_eq!(spool.commit().await.unwrap(), pushed);
    while let Ok(sequence) = spool.push(&message(spool.next_sequence())) {
        assert!(sequence >= pushed);
    }
    spool.commit().await.unwrap();
    // The disk is full again. This time space comes from elsewhere.
    while spool.commit().await.is_ok() {
        while spool.push(&message(spool.next_sequence())) != Err(Full::Batch) {}
    }
    std::fs::remove_file(&ballast).unwrap();
    let pushed = spool.next_sequence();
    assert_eq!(spool.commit().await.unwrap(), pushed);
    let left: Vec<u64> = (from..pushed).collect();
    assert_eq!(drain(&spool, 1 << 20, 1000).await, left);
    drop(spool);
    let spool = Spool::open(&directory.join("spool"), settings).await.unwrap();
    assert_eq!((drain(&spool, 1 << 20, 1000).await, spool.cuts()), (left, &[][..]));
    survived();
}

/// A child reports this at its end.
pub(crate) fn survived() {
    say("survived", &[]);
}

#[test]
fn a_full_disk_is_told_and_the_spool_goes_on_when_there_is_space() {
    if let Some((io, directory)) = child() {
        return run(io, fill_the_disk(&directory));
    }
    let name = "disk::process_tests::a_full_disk_is_told_and_the_spool_goes_on_when_there_is_space";
    for_each_io(|io| on_a_disk_of_its_own(name, io));
}

/// Runs the test again, in a child that has a file system of 400 KiB.
pub(crate) fn on_a_disk_of_its_own(name: &str, io: Io) {
    let folder = Folder::new(name.rsplit("::").next().unwrap());
    std::fs::create_dir_all(&folder.path).unwrap();
    let child = child_of(name, io, &folder.path);
    // A small file system of its own, which goes with the process.
    let mount = "mount -t tmpfs -o size=400k none \"$0\" || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount]);
    command.arg(&folder.path).arg(child.get_program()).args(child.get_args());
    let output = match Child::output(command.env(CHILD, &folder.path).env(CHILD_IO, io.to_string()))
    {
        Ok(output) if output.status.success() => output,
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr))
        }
        other => {
            println!("SKIPPED: no file system of its own for the test: {other:?}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("survived"), "{text}");
}
