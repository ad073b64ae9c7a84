//! Reports how far messages between agents have got: publishers of other agents, with the subscribers here.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::control::Control;
use super::protocol::{FromAgent, Progress};
use crate::engine::Counts;
use crate::engine::control::Shared;

/// How often a report is sent, and how often if nothing has changed.
const INTERVAL: Duration = Duration::from_millis(2);
const SILENCE_MAX: Duration = Duration::from_millis(200);
/// The largest part of the time that looking takes, as a divisor: a large plan is looked at less often.
const SHARE: u32 = 10;

struct Watched {
    shared: Arc<Shared>,
    /// A publisher elsewhere, its cells here, and its last reported value.
    reported: Vec<(u32, Vec<u32>, u64)>,
}

/// A thread that tells the driver how far this agent is.
pub(super) struct Reporter {
    watched: Mutex<Option<Watched>>,
    orders: Mutex<u32>,
    changed: Condvar,
}

impl Reporter {
    pub(super) fn start(control: Arc<Control>) -> Result<Arc<Reporter>, String> {
        let reporter = Arc::new(Reporter {
            watched: Mutex::default(),
            orders: Mutex::new(0),
            changed: Condvar::new(),
        });
        let telling = reporter.clone();
        let tell = move || telling.tell(&control);
        thread::Builder::new()
            .name("reporter".to_string())
            .spawn(tell)
            .map_err(|error| format!("thread: {error}"))?;
        Ok(reporter)
    }

    pub(super) fn watch(&self, shared: Arc<Shared>, reported: Vec<(u32, Vec<u32>)>) {
        let reported =
            reported.into_iter().map(|(publisher, cells)| (publisher, cells, 0)).collect();
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Watched { shared, reported });
    }

    /// Counts one more order that is followed.
    pub(super) fn followed(&self) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Reports until the driver does not read any more.
    fn tell(&self, control: &Control) {
        let (mut last, mut told) = (Progress::default(), Instant::now());
        loop {
            let begin = Instant::now();
            let progress = self.progress();
            let is_new = !progress.reported.is_empty()
                || (progress.orders, progress.at_rest) != (last.orders, last.at_rest);
            if is_new || told.elapsed() > SILENCE_MAX {
                told = begin;
                last = Progress { reported: Vec::new(), ..progress.clone() };
                if control.say(&FromAgent::Progress(progress)).is_err() {
                    return;
                }
            }
            let pause = INTERVAL.max(SHARE * begin.elapsed());
            let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_timeout(orders, pause));
        }
    }

    fn progress(&self) -> Progress {
        let orders = *self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Watched { shared, reported }) = watched.as_mut() else {
            return Progress::default();
        };
        let mut changed = Vec::new();
        for (publisher, cells, told) in reported {
            let counts = cells.iter().map(|cell| shared.next[*cell as usize].load(Relaxed));
            let count = counts.min().unwrap_or(0);
            if count > *told {
                *told = count;
                changed.push((*publisher, count));
            }
        }
        let counts = Counts {
            sent: shared.sent_count(0),
            writes: shared.write_count(0),
            delivered: shared.delivered_count(0),
            reads: shared.read_count(0),
            size: shared.delivered_size(0),
            missing: shared.missing_count(),
        };
        Progress { orders, at_rest: shared.at_rest(0), counts, reported: changed }
    }
}
