//! The spool on real files: restarts, damage, a full disk, SIGKILL.

use std::fs;
use std::path::{Path, PathBuf};

use futures_lite::future;

use super::*;
use crate::executor::each_io::{for_each_io, run};
use crate::executor::spawn;
use crate::random::Random;
use crate::system::folder::Folder;

pub(crate) fn settings() -> SpoolSettings {
    SpoolSettings {
        segment_size: 16 << 10,
        bytes_max: 256 << 10,
        messages_max: 100_000,
        batch_size_max: 8 << 10,
        memory_max: 0,
        sync: SyncPolicy::Never,
    }
}

pub(crate) fn message(sequence: u64) -> Vec<u8> {
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

/// Reads all messages that wait, and compares them.
pub(crate) async fn drain(spool: &Spool, bytes_max: usize, count_max: usize) -> Vec<u64> {
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
    for_each_io(|io| {
        for memory_max in [0, 10_000, 1 << 20] {
            for sync in [SyncPolicy::EachBatch, SyncPolicy::Interval(5), SyncPolicy::Never] {
                let folder = Folder::new("restart");
                let settings = SpoolSettings { memory_max, sync, ..settings() };
                run(io, async {
                    let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
                    fill(&spool, 500).await;
                    assert_eq!(drain(&spool, 4096, 50).await, (1..=500).collect::<Vec<_>>());
                    (1..=100).for_each(|sequence| assert!(spool.done(sequence)));
                    assert!(spool.received(101) && spool.done(103) && !spool.done(103));
                    assert!(spool.has_unrecorded_received());
                    spool.commit().await.unwrap();
                    assert!(!spool.has_unrecorded_received());
                    assert_eq!(spool.push(b"never committed"), Ok(501));
                });
                run(io, async {
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
    });
}

#[test]
fn sequences_go_on_after_a_complete_drain_and_files_go() {
    for_each_io(|io| {
        let folder = Folder::new("drain");
        let mut next = 1;
        for _ in 0..5 {
            run(io, async {
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
    });
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    found.sort();
    found
}

#[test]
fn messages_of_any_size_are_read_whatever_is_asked_for() {
    for_each_io(|io| {
        let folder = Folder::new("sizes");
        let settings = SpoolSettings { bytes_max: 8 << 20, segment_size: 1 << 20, ..settings() };
        let sizes = [0, 1, 300_000, 7, 900_000, 262_119, 262_144, 5, 20_000];
        let message = |index: usize| vec![index as u8; sizes[index]];
        run(io, async {
            let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
            for index in 0..sizes.len() {
                spool.push(&message(index)).unwrap();
                spool.commit().await.unwrap();
            }
            assert_eq!(spool.push(&vec![0; 5 << 20]), Err(Full::TooLarge));
        });
        run(io, async {
            let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
            for (bytes_max, count_max) in
                [(0, 1), (10, 100), (300_000, 2), (usize::MAX, usize::MAX)]
            {
                let mut from = 1;
                while from <= sizes.len() as u64 {
                    let chunk = spool.read(from, bytes_max, count_max).await.unwrap();
                    for (sequence, bytes) in chunk.iter() {
                        assert!(sequence == from && bytes == message(from as usize - 1), "{from}");
                        from += 1;
                    }
                    assert!(!chunk.is_empty(), "{from}");
                }
            }
        });
    });
}

#[test]
fn tasks_push_commit_read_and_mark_at_once() {
    for_each_io(|io| {
        let folder = Folder::new("tasks");
        let settings =
            SpoolSettings { memory_max: 3000, sync: SyncPolicy::EachBatch, ..settings() };
        let count = 3000;
        run(io, async {
            let spool = Rc::new(Spool::open(&folder.path, settings.clone()).await.unwrap());
            let pushing = spawn({
                let spool = spool.clone();
                async move {
                    while spool.next_sequence() <= count {
                        let pushed = spool.push(&message(spool.next_sequence()));
                        if pushed.is_err() || spool.next_sequence() % 10 == 0 {
                            sleep(Duration::from_micros(50)).await;
                        }
                    }
                }
            });
            let committing = spawn({
                let spool = spool.clone();
                async move {
                    while spool.floor() <= count {
                        // Two commits at once, and one that is given up.
                        let pause = async { sleep(Duration::from_micros(30)).await };
                        let given_up = async { assert!(spool.commit().await.is_ok()) };
                        future::or(given_up, pause).await;
                        let end = spool.next_sequence();
                        let (first, second) = future::zip(spool.commit(), spool.commit()).await;
                        assert!(first.unwrap() >= end && second.unwrap() >= end);
                        sleep(Duration::from_micros(20)).await;
                    }
                }
            });
            let mut expected = 1;
            while expected <= count {
                let chunk = spool.read(expected, 5000, 20).await.unwrap();
                if chunk.is_empty() {
                    sleep(Duration::from_micros(20)).await;
                }
                for (sequence, bytes) in chunk.iter() {
                    assert!(sequence == expected && bytes == message(sequence), "{expected}");
                    assert!(expected % 3 > 0 || spool.received(sequence));
                    assert!(spool.done(sequence));
                    expected += 1;
                }
            }
            pushing.await;
            committing.await;
            // The last marks may have been made after the last commit began.
            spool.commit().await.unwrap();
            spool.sync().await.unwrap();
            assert_eq!(spool.backlog().messages, 0);
            // All segments are drained but the one that has the states. Files that given-up commits began to create are
            // removed by the commit after them.
            assert_eq!(segments(&folder.path).len(), 1, "files are deleted as they drain");
            drop(spool);
            let spool = Spool::open(&folder.path, settings).await.unwrap();
            assert_eq!((spool.cuts(), spool.next_sequence()), (&[][..], count + 1));
            spool.commit().await.unwrap();
            assert_eq!(segments(&folder.path).len(), 1);
        });
    });
}

#[test]
fn commits_that_are_given_up_at_any_step_lose_nothing() {
    for_each_io(|io| {
        let folder = Folder::new("given-up");
        let settings =
            SpoolSettings { segment_size: 4 << 10, sync: SyncPolicy::EachBatch, ..settings() };
        let mut random = Random::new(3);
        let mut count = 0;
        run(io, async {
            let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
            let mut given_up = 0;
            for _ in 0..300 {
                for _ in 0..random.below(8) {
                    if spool.push(&message(spool.next_sequence())).is_err() {
                        break;
                    }
                }
                let mut commit = std::pin::pin!(spool.commit());
                for _ in 0..random.below(12) {
                    if let Some(committed) = future::poll_once(&mut commit).await {
                        committed.unwrap();
                        break;
                    }
                    future::yield_now().await;
                }
                given_up += u32::from(spool.committed() < spool.next_sequence());
            }
            assert!(given_up > 50, "{given_up}");
            count = spool.commit().await.unwrap() - 1;
            assert_eq!(drain(&spool, 1 << 20, 1000).await, (1..=count).collect::<Vec<_>>());
        });
        run(io, async {
            let spool = Spool::open(&folder.path, settings.clone()).await.unwrap();
            assert_eq!(spool.cuts(), []);
            assert_eq!(drain(&spool, 1 << 20, 1000).await, (1..=count).collect::<Vec<_>>());
        });
    });
}

#[test]
fn damage_is_told_and_what_is_behind_it_is_read() {
    for_each_io(|io| {
        let folder = Folder::new("damage");
        let mut found = Vec::new();
        run(io, async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            fill(&spool, 600).await;
            let files = segments(&folder.path);
            assert!(files.len() > 3);
            flip(&files[1], 9000);
            let mut lost = None;
            loop {
                let from = found.last().map_or(1, |last| last + 1);
                match spool.read(from, 10_000, 1000).await {
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => found.extend(chunk.iter().map(|(sequence, bytes)| {
                        assert_eq!(bytes, message(sequence));
                        sequence
                    })),
                    Err(SpoolError::Damaged { messages_lost, .. }) => {
                        assert!(lost.replace(messages_lost).is_none(), "told once");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!((lost, found.len()), (Some(1), 599));
            assert_eq!(spool.backlog().messages, 599);
            spool.commit().await.unwrap();
        });
        let told = |spool: &Spool| -> Vec<(CutKind, u64)> {
            spool.cuts().iter().map(|cut| (cut.kind, cut.messages_lost)).collect()
        };
        run(io, async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            assert_eq!(told(&spool), [(CutKind::Damage, 0)], "it was given up before");
            assert!(spool.next_sequence() > 601);
            assert_eq!(drain(&spool, 1 << 20, 1000).await, found);
            fill(&spool, 1).await;
        });
        // The next start finds this damage.
        let files = segments(&folder.path);
        flip(&files[0], 9000);
        fs::remove_file(&files[2]).unwrap();
        run(io, async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            let left = drain(&spool, 1 << 20, 1000).await;
            let gone = 600 - left.len() as u64;
            let told = told(&spool);
            assert_eq!(told[..2], [(CutKind::Damage, 1), (CutKind::Damage, 0)]);
            assert_eq!(told[2..], [(CutKind::Missing, gone - 1)]);
            assert!(gone > 50, "{gone}");
        });
    });
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_segment_of_a_newer_program_is_not_touched() {
    for_each_io(|io| {
        let folder = Folder::new("newer");
        run(io, async {
            let spool = Spool::open(&folder.path, settings()).await.unwrap();
            fill(&spool, 1).await;
        });
        let file = &segments(&folder.path)[0];
        let mut bytes = fs::read(file).unwrap();
        bytes[8] = 9;
        let check = crc32fast::hash(&bytes[..12]).to_le_bytes();
        bytes[12..16].copy_from_slice(&check);
        fs::write(file, &bytes).unwrap();
        let error = run(io, async { Spool::open(&folder.path, settings()).await.unwrap_err() });
        assert!(matches!(error, SpoolError::Version { version: 9, .. }), "{error}");
        assert_eq!(&fs::read(file).unwrap(), &bytes);
    });
}
