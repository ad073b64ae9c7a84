//! The facade on each backend.

use std::cell::Cell;
use std::fs;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use atomic_waker::AtomicWaker;
use futures_lite::future::poll_once;
use rustix::thread::{CpuSet, sched_getaffinity};
use socket2::{Domain, Socket, Type};

use super::each_io::{for_each_io, run};
use super::files::{Directory, File};
use super::*;
use crate::system::child::{self, Child};
use crate::system::folder::Folder;

/// The place at which a child of a test panics, and its backend.
const CHILD: &str = "RINGMQ_PANIC_CHILD";
const PLACES: [&str; 4] = ["shard", "side", "task", "call"];

/// The cores that the calling thread may run on.
fn own_cores() -> Vec<usize> {
    let cores = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).collect()
}

#[test]
fn a_shard_runs_on_its_core_under_its_name() {
    let core = *own_cores().last().unwrap();
    for_each_io(|io| {
        let (seen, sight) = mpsc::channel();
        let look = move || {
            let name = thread::current().name().map(str::to_owned);
            seen.send((name, own_cores())).unwrap();
        };
        run_shard(io, "shard-7", Some(core), look).unwrap().join().unwrap();
        let (name, cores) = sight.recv().unwrap();
        // Glommio appends a number to the name.
        assert!(name.is_some_and(|name| name.starts_with("shard-7")));
        assert_eq!(cores, [core]);
    });
}

#[test]
fn a_core_that_is_not_there_is_an_error_and_nothing_runs() {
    for_each_io(|io| {
        let has_run = Arc::new(AtomicBool::new(false));
        let work = {
            let has_run = has_run.clone();
            move || has_run.store(true, Ordering::Relaxed)
        };
        let error = run_shard(io, "shard-0", Some(1_000), work).and_then(Handle::join).unwrap_err();
        assert!(error.contains("1000"), "{error}");
        assert!(!has_run.load(Ordering::Relaxed));
    });
}

#[test]
fn tasks_run_beside_each_other_and_go_on_when_nobody_awaits_them() {
    for_each_io(|io| {
        let (done, all_done) = mpsc::channel();
        let work = async move || {
            let sum = Rc::new(Cell::new(0));
            let tasks: Vec<Task<u32>> = (1..=3)
                .map(|number| {
                    let sum = sum.clone();
                    spawn(async move {
                        sleep(Duration::from_millis(5)).await;
                        sum.set(sum.get() + number);
                        number
                    })
                })
                .collect();
            let mut tasks = tasks.into_iter();
            assert_eq!(tasks.next().unwrap().await, 1);
            drop(tasks);
            while sum.get() < 6 {
                sleep(Duration::from_millis(1)).await;
            }
            // A task that never ends does not hold up the end. glommio keeps the task's memory then, which the search
            // for leaks finds.
            if io == Io::Epoll {
                drop(spawn(pending::<()>()));
            }
            done.send(thread::current().name().map(str::to_owned)).unwrap();
        };
        run_side(io, "side", work).unwrap().join().unwrap();
        assert!(all_done.recv().unwrap().is_some_and(|name| name.starts_with("side")));
    });
}

#[test]
fn other_threads_wake_tasks() {
    for_each_io(|io| {
        let (waker, count) = (Arc::new(AtomicWaker::new()), Arc::new(AtomicU32::new(0)));
        let ringer = {
            let (waker, count) = (waker.clone(), count.clone());
            move || {
                for _ in 0..200 {
                    thread::sleep(Duration::from_micros(200));
                    count.fetch_add(1, Ordering::SeqCst);
                    waker.wake();
                }
            }
        };
        // Only wakers move these tasks: a missed one hangs.
        let reach = |end: u32| {
            let (waker, count) = (waker.clone(), count.clone());
            poll_fn(move |context| {
                waker.register(context.waker());
                match count.load(Ordering::SeqCst) >= end {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
        };
        let ringing = thread::spawn(ringer);
        run(io, async {
            reach(100).await;
            spawn(reach(200)).await;
        });
        ringing.join().unwrap();
    });
}

#[test]
fn a_connection_carries_bytes_both_ways_and_closes_one_way_first() {
    const SIZE: usize = 3 << 20;
    for_each_io(|io| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let remote = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
        let received = run(io, async {
            let addresses = net::resolve("localhost".to_owned(), address.port()).await.unwrap();
            assert!(addresses.contains(&address), "{addresses:?}");
            let (mut reader, mut writer) =
                net::connect(address, Duration::from_secs(5)).await.unwrap();
            writer.write_all(&sent).await.unwrap();
            writer.close().await.unwrap();
            let (mut received, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            loop {
                match reader.read(&mut buffer).await.unwrap() {
                    0 => break received,
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
        });
        assert!(received == sent, "{} of {SIZE} bytes", received.len());
        remote.join().unwrap();
    });
}

#[test]
fn a_refused_and_a_late_connection_are_errors() {
    // Two connections wait in a listener that accepts none, so further ones get no answer.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let full_address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&full_address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the listener is never full");
    }
    for_each_io(|io| {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        run(io, async {
            let refused = net::connect(closed, Duration::from_secs(5)).await.err().unwrap();
            assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED), "{refused}");
            let late = net::connect(full_address, Duration::from_millis(50)).await.err().unwrap();
            assert_eq!(late.raw_os_error(), Some(libc::ETIMEDOUT), "{late}");
        });
    });
}

#[test]
fn a_file_holds_what_was_written_and_errors_have_the_systems_number() {
    for_each_io(|io| {
        let folder = Folder::new("executor-files");
        fs::create_dir_all(&folder.path).unwrap();
        let path = folder.path.join("file");
        run(io, async {
            let missing = File::open(&path).await.err().unwrap();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT), "{missing}");
            let directory = Directory::open(&folder.path).await.unwrap();
            let file = directory.create(&path).await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
            let again = directory.create(&path).await.err().unwrap();
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST), "{again}");
            assert_eq!(file.write_at(b"0123456789".to_vec(), 2).await.unwrap(), 10);
            file.fdatasync().await.unwrap();
            file.close().await.unwrap();
            let file = directory.open_for_writing(&path).await.unwrap();
            file.truncate(9).await.unwrap();
            directory.sync().await.unwrap();
            let reading = File::open(&path).await.unwrap();
            assert_eq!(reading.size().await.unwrap(), 9);
            assert_eq!(&*reading.read_at(1, 100).await.unwrap(), b"\x000123456");
            assert_eq!(&*reading.read_at(4, 3).await.unwrap(), b"234");
            assert!(reading.read_at(9, 3).await.unwrap().is_empty());
            directory.remove(&path).await.unwrap();
            let gone = directory.remove(&path).await.err().unwrap();
            assert_eq!(gone.raw_os_error(), Some(libc::ENOENT), "{gone}");
            let no_directory = Directory::open(&path).await.err().unwrap();
            assert_eq!(no_directory.raw_os_error(), Some(libc::ENOENT), "{no_directory}");
        });
    });
}

#[test]
fn the_end_waits_for_calls_on_files_and_not_for_look_ups() {
    let has_ended = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    run(Io::Epoll, async {
        let Here::Epoll(pool) = here() else { panic!("another backend") };
        let stuck = pool.look_up(|| thread::sleep(Duration::from_secs(10)));
        assert!(poll_once(stuck).await.is_none());
        let has_ended = has_ended.clone();
        let call = pool.call_file(move || {
            thread::sleep(Duration::from_millis(300));
            has_ended.store(true, Ordering::SeqCst);
        });
        assert!(poll_once(call).await.is_none());
    });
    assert!(has_ended.load(Ordering::SeqCst));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_panic_anywhere_on_an_executor_ends_the_process() {
    if let Ok(child) = std::env::var(CHILD) {
        let (place, io) = child.split_once(' ').unwrap();
        let io = if io == Io::Uring.to_string() { Io::Uring } else { Io::Epoll };
        panic_at(place, io);
        return;
    }
    for_each_io(|io| {
        for place in PLACES {
            if (place, io) == ("call", Io::Uring) {
                // With io_uring the kernel makes the calls.
                continue;
            }
            let name = "executor::tests::a_panic_anywhere_on_an_executor_ends_the_process";
            let mut child = child::again(name);
            let output = Child::output(child.env(CHILD, format!("{place} {io}"))).unwrap();
            let signal = output.status.signal();
            assert_eq!(signal, Some(libc::SIGABRT), "{place} on {io}: {}", output.status);
        }
    });
}

fn panic_at(place: &str, io: Io) {
    let wait = || sleep(Duration::from_secs(60));
    let handle = match place {
        "shard" => run_shard(io, "shard", None, || panic!("out of a shard")),
        "side" => run_side(io, "side", async || panic!("out of a side executor")),
        "task" => run_side(io, "side", async move || {
            spawn(async { panic!("out of a task") });
            wait().await;
        }),
        _ => run_side(io, "side", async move || {
            let Here::Epoll(pool) = here() else { panic!("another backend") };
            let call = pool.call_file(|| panic!("out of a call"));
            // No task awaits this call.
            assert!(poll_once(call).await.is_none());
            wait().await;
        }),
    };
    let _ = handle.unwrap().join();
}

/// The end of the work may have woken a task, which then runs once more before the thread ends.
#[test]
fn a_task_that_runs_when_the_work_has_ended_harms_nobody() {
    for_each_io(|io| {
        for _ in 0..20 {
            let work = || async {
                drop(spawn(async {
                    sleep(Duration::from_secs(60)).await;
                }));
            };
            run_side(io, "side", work).expect("an executor").join().expect("it ends");
        }
    });
}
