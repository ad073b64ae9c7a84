//! The spool on real files: restarts, damage, a full disk, SIGKILL.

use std::fs;
use std::path::{Path, PathBuf};

use glommio::{LocalExecutorBuilder, Placement};

use super::*;
use crate::random::Random;

/// A folder of its own, removed at the end.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringmq-spool-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder { path }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(64 << 10)
        .ring_depth(32)
        .make()
        .expect("an executor");
    executor.run(work)
}

fn settings() -> SpoolSettings {
    SpoolSettings {
        segment_size: 16 << 10,
        bytes_max: 256 << 10,
        messages_max: 100_000,
        batch_size_max: 8 << 10,
        memory_max: 0,
        sync: SyncPolicy::Never,
    }
}

fn message(sequence: u64) -> Vec<u8> {
    let mut random = Random::new(sequence);
    let size = random.below(300);
    let mut bytes = sequence.to_string().into_bytes();
    bytes.extend((0..size).map(|_| random.number() as u8));
    bytes
}

async fn fill(spool: &Spool, count: u64) {
    for _ in 0..count {
        let next = spool.next_sequence();
        let sequence = match spool.push(&message(next)) {
            Err(Full::Batch) => {
                spool.commit().await.unwrap();
                spool.push(&message(next)).unwrap()
            }
            pushed => pushed.unwrap(),
        };
        assert_eq!(sequence, next);
    }
    assert_eq!(spool.commit().await.unwrap(), spool.next_sequence());
}

/// Reads all that waits, and compares it.
async fn drain(spool: &Spool, bytes_max: usize, count_max: usize) -> Vec<u64> {
    let mut found = Vec::new();
    let mut from = spool.floor();
    loop {
        let chunk = spool.read(from, bytes_max, count_max).await.unwrap();
        if chunk.is_empty() {
            return found;
        }
        assert!(chunk.len() <= count_max);
        assert!(chunk.len() == 1 || chunk.iter().map(|(_, m)| m.len()).sum::<usize>() <= bytes_max);
        for (sequence, bytes) in chunk.iter() {
            assert!(sequence >= from && bytes == message(sequence), "{sequence}");
            found.push(sequence);
            from = sequence + 1;
        }
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart_in_order() {
    for memory_max in [0, 10_000, 1 << 20] {
        for sync in [SyncPolicy::EachBatch, SyncPolicy::Interval(5), SyncPolicy::Never] {
            let folder = Folder::new("restart");
            let settings = SpoolSettings { memory_max, sync, ..settings() };
            run(async {
                let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
                fill(&spool, 500).await;
                assert_eq!(drain(&spool, 4096, 50).await, (1..=500).collect::<Vec<_>>());
                (1..=100).for_each(|sequence| assert!(spool.done(sequence)));
                assert!(spool.received(101) && spool.done(103) && !spool.done(103));
                spool.commit().await.unwrap();
                assert_eq!(spool.push(b"never committed"), Ok(501));
            });
            run(async {
                let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
                assert_eq!(spool.cuts(), []);
                let expected: Vec<u64> = [102].into_iter().chain(104..=500).collect();
                assert_eq!(drain(&spool, 1 << 20, 7).await, expected);
                assert_eq!(spool.received_unfinished(), [101]);
                assert_eq!(spool.backlog().messages, 399);
                assert_eq!((spool.floor(), spool.committed()), (101, 501));
                fill(&spool, 10).await;
                assert_eq!(*drain(&spool, 100, 100).await.last().unwrap(), 510);
            });
        }
    }
}

#[test]
fn sequences_go_on_after_a_complete_drain_and_files_go() {
    let folder = Folder::new("drain");
    let mut next = 1;
    for _ in 0..5 {
        run(async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            assert_eq!(spool.committed(), next);
            fill(&spool, 400).await;
            assert_eq!(drain(&spool, 1 << 20, 1000).await.len(), 400);
            (next..next + 400).for_each(|sequence| assert!(spool.done(sequence)));
            next += 400;
            spool.commit().await.unwrap();
            assert_eq!(spool.backlog().messages, 0);
            assert!(spool.backlog().disk_bytes < 32 << 10, "{:?}", spool.backlog());
        });
    }
    assert!(segments(&folder.path).len() <= 2);
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    found.sort();
    found
}
