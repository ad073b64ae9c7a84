//! The handshakes under every interleaving that the memory model allows: the same source, on loom's atomics.

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    /// loom's, with the names of the crate.
    pub(super) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(super) fn new() -> AtomicWaker {
            AtomicWaker(loom::future::AtomicWaker::new())
        }

        pub(super) fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub(super) fn wake(&self) {
            self.0.wake();
        }
    }
}
#[path = "asleep.rs"]
mod asleep;
#[path = "summons.rs"]
mod summons;

use std::future::poll_fn;

use asleep::Asleep;
use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use summons::Summons;

struct Shared {
    asleep: Asleep,
    /// One lane a sender.
    lanes: [AtomicUsize; 2],
    bell: Mutex<usize>,
    rung: Condvar,
}

impl Shared {
    fn mail(&self) -> usize {
        self.lanes.iter().map(|lane| lane.load(Ordering::Acquire)).sum()
    }
}

/// A lost wake-up is a deadlock, which loom reports.
fn check(mails_per_sender: usize, senders: usize) {
    let mut model = loom::model::Builder::new();
    // Two senders without a bound take minutes.
    model.preemption_bound = Some(if senders > 1 { 3 } else { 5 });
    model.check(move || {
        let shared = Arc::new(Shared {
            asleep: Asleep::new(),
            lanes: [AtomicUsize::new(0), AtomicUsize::new(0)],
            bell: Mutex::new(0),
            rung: Condvar::new(),
        });
        let sending: Vec<_> = (0..senders)
            .map(|sender| {
                let shared = shared.clone();
                thread::spawn(move || {
                    for mail in 1..=mails_per_sender {
                        shared.lanes[sender].store(mail, Ordering::Release);
                        if shared.asleep.must_ring() {
                            *shared.bell.lock().unwrap() += 1;
                            shared.rung.notify_one();
                        }
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < mails_per_sender * senders {
            shared.asleep.announce();
            if shared.mail() == seen {
                let mut bell = shared.bell.lock().unwrap();
                while *bell == 0 {
                    bell = shared.rung.wait(bell).unwrap();
                }
                *bell = 0;
            }
            shared.asleep.retract();
            seen = shared.mail();
        }
        sending.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_sleeper_is_woken_by_each_mail() {
    check(2, 1);
}

#[test]
fn a_sleeper_is_woken_whoever_of_two_senders_writes() {
    check(1, 2);
}

/// A side's task awaits the mails of two shards, each of which wakes it behind each mail.
#[test]
fn the_task_of_a_side_is_woken_by_each_mail_of_two_shards() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let summons = Arc::new(Summons::new());
        let lanes: [Arc<AtomicUsize>; 2] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let sending = lanes.each_ref().map(|lane| {
            let (lane, summons) = (lane.clone(), summons.clone());
            thread::spawn(move || {
                lane.store(1, Ordering::Release);
                summons.call();
            })
        });
        let mail = || lanes.iter().map(|lane| lane.load(Ordering::Acquire)).sum::<usize>();
        let mut seen = 0;
        while seen < lanes.len() {
            block_on(poll_fn(|context| summons.poll(context, || mail() > seen)));
            seen = mail();
        }
        sending.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
