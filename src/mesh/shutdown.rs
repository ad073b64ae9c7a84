//! Shutdown in phases, each a barrier across the shards and bounded in time.
//!
//! The supervisor gives an order; each worker carries it out, does one whole turn, and says whether all its turns since
//! it last said so were quiet. A phase takes as many such rounds as it needs until all are quiet in one and the same:
//! what was sent before the round began is received in it, what was sent later makes its sender not quiet, so that then
//! nothing is on its way either.
//!
//! In `Deliver` members of shared subscriptions are told goodbye at the end of the phase, as they may get messages that
//! others leave. A client has come on when it acknowledges a message or takes an output; TCP_INFO says of a client that
//! seems to stand still how many bytes its side has confirmed (`shard::shutdown`).
//!
//! A listener refuses from the first phase on, so a successor may listen while its predecessor still delivers. With
//! bridges the successor waits for their logs first, at most `shutdown_max_ms` and two seconds (`links`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mesh::Door;

/// Between two rounds that were not quiet: twice as long after each.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
const ROUND_PAUSE_MAX: Duration = Duration::from_millis(16);
/// How often, while reports are awaited, the supervisor looks whether they can still come.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the workers are to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nobody listens yet.
    Start,
    /// Accept and serve.
    Run,
    /// Accept and read no more; run the stages; drain the lanes.
    Drain,
    /// Clients get what waits for them and acknowledge it; each is told goodbye as soon as nothing does.
    Deliver,
    /// Say goodbye to the clients that are left; flush; close.
    Disconnect,
    /// Cancel what is in flight, free it after its last completion, end the thread.
    End,
}

/// A phase and the round within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub phase: Phase,
    round: u32,
}

impl Order {
    /// What every worker begins with.
    pub(crate) const START: Order = Order { phase: Phase::Start, round: 0 };
}

/// Where the supervisor and the workers meet.
pub(crate) struct Orders {
    /// The round in the upper bits, the phase in the lowest three.
    current: AtomicU32,
    reports: Mutex<Reports>,
    reported: Condvar,
    worker_count: usize,
}

#[derive(Default)]
struct Reports {
    round: u32,
    count: usize,
    quiet_count: usize,
}

impl Orders {
    pub(crate) fn new(worker_count: usize) -> Orders {
        Orders {
            current: AtomicU32::new(0),
            reports: Mutex::default(),
            reported: Condvar::new(),
            worker_count,
        }
    }

    /// By a worker, each turn: one load.
    pub(crate) fn current(&self) -> Order {
        let word = self.current.load(Ordering::Acquire);
        let phase = match word & 7 {
            0 => Phase::Start,
            1 => Phase::Run,
            2 => Phase::Drain,
            3 => Phase::Deliver,
            4 => Phase::Disconnect,
            _ => Phase::End,
        };
        Order { phase, round: word >> 3 }
    }

    /// By a worker, once for each order that it has carried out.
    pub(crate) fn report(&self, order: Order, is_quiet: bool) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        // A late report belongs to a round that nobody waits for any more.
        if reports.round == order.round {
            reports.count += 1;
            reports.quiet_count += usize::from(is_quiet);
            self.reported.notify_one();
        }
    }

    /// By the supervisor: all that has to be there is there.
    pub(crate) fn begin_run(&self, doors: &Arc<[Door]>) {
        self.begin_round(Phase::Run);
        doors.iter().for_each(Door::ring);
    }

    /// By the supervisor: rounds of `phase` until all workers are quiet. `false` when `time` has passed before, or `give_up`,
    /// which is asked at each `LOOK_INTERVAL`, says so.
    pub(crate) fn run_phase(
        &self,
        phase: Phase,
        time: Duration,
        doors: &Arc<[Door]>,
        mut give_up: impl FnMut() -> bool,
    ) -> bool {
        let deadline = Instant::now() + time;
        let mut pause = ROUND_PAUSE;
        loop {
            let round = self.begin_round(phase);
            doors.iter().for_each(Door::ring);
            match self.await_reports(round, deadline, &mut give_up) {
                Some(true) => return true,
                Some(false) if Instant::now() < deadline => {}
                _ => return false,
            }
            std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
            pause = ROUND_PAUSE_MAX.min(pause * 2);
        }
    }

    fn begin_round(&self, phase: Phase) -> u32 {
        let round = (self.current.load(Ordering::Relaxed) >> 3) + 1;
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        *reports = Reports { round, ..Reports::default() };
        drop(reports);
        self.current.store(round << 3 | phase as u32, Ordering::Release);
        round
    }

    /// Whether all were quiet; `None`: they have not all reported, and nobody waits for them.
    fn await_reports(
        &self,
        round: u32,
        deadline: Instant,
        mut give_up: impl FnMut() -> bool,
    ) -> Option<bool> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            assert_eq!(reports.round, round);
            if reports.count == self.worker_count {
                return Some(reports.quiet_count == self.worker_count);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.reported.wait_timeout(reports, left.min(LOOK_INTERVAL));
            drop(waited);
            // It may say something, and a log that is not read holds whoever writes it.
            if give_up() {
                return None;
            }
            reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    /// Two workers that pass a ball `passes` times after the order came; quiet when it has come to rest.
    fn check(passes: usize, time: Duration, expected: bool) {
        let orders = Arc::new(Orders::new(2));
        let passed = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (orders, passed) = (orders.clone(), passed.clone());
                thread::spawn(move || {
                    let mut done = Order::START;
                    let mut has_moved = true;
                    loop {
                        let order = orders.current();
                        let count = passed.load(Ordering::SeqCst);
                        let mine =
                            order.phase >= Phase::Drain && count < passes && count % 2 == worker;
                        if mine {
                            has_moved = true;
                            passed.store(count + 1, Ordering::SeqCst);
                        }
                        if order != done {
                            done = order;
                            let was_quiet = !std::mem::take(&mut has_moved);
                            orders.report(order, was_quiet || order.phase == Phase::End);
                        }
                        if order.phase == Phase::End {
                            return;
                        }
                        thread::sleep(Duration::from_micros(100));
                    }
                })
            })
            .collect();
        let doors: Arc<[Door]> = Arc::new([]);
        assert_eq!(orders.run_phase(Phase::Drain, time, &doors, || false), expected);
        assert!(orders.run_phase(Phase::End, Duration::from_secs(10), &doors, || false));
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }

    #[test]
    fn a_phase_ends_when_all_are_quiet_in_one_round() {
        check(0, Duration::from_secs(10), true);
        check(10, Duration::from_secs(10), true);
    }

    #[test]
    fn a_phase_ends_when_nobody_is_expected_to_report_any_more() {
        let orders = Orders::new(1);
        let doors: Arc<[Door]> = Arc::new([]);
        let (began, mut looks) = (Instant::now(), 0);
        let give_up = || {
            looks += 1;
            looks == 3
        };
        assert!(!orders.run_phase(Phase::Drain, Duration::from_secs(600), &doors, give_up));
        assert!(looks == 3 && began.elapsed() >= 2 * LOOK_INTERVAL);
    }

    #[test]
    fn a_phase_ends_in_time_when_somebody_never_rests() {
        check(usize::MAX, Duration::from_millis(30), false);
    }
}
