//! The end in phases, and whether the shards still turn meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::{Broker, LaunchError, millis, remainder, tell_stall};
use crate::config::StallAction;
use crate::mesh::shutdown::{LOOK_INTERVAL, Phase};
use crate::shell::standstill::Standstills;
use crate::shell::watch::Watch;

/// How long the lanes and the logs of bridges may take until everything on its way has arrived.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Beside the time that closing connections have for their last bytes.
const DISCONNECT_TIME: Duration = Duration::from_secs(1);
/// How long the kernel may take to let go of what it holds.
const END_TIME: Duration = Duration::from_secs(6);
const END_TIME_MIN: Duration = Duration::from_millis(500);

impl Broker {
    /// Ends in phases, each bounded in time, and all of them by `shutdown_max_ms`.
    pub fn stop(self) -> Result<(), LaunchError> {
        let watch = Watch::new(&self.reports);
        self.end(watch)
    }

    /// As `stop`. Limits that were hit and that `watch` has not told are.
    pub(super) fn end(self, mut watch: Watch) -> Result<(), LaunchError> {
        let settings = &self.shared.settings;
        let time_max = Duration::from_millis(settings.shutdown_max_ms);
        let linger = Duration::from_millis(settings.limits.linger_ms);
        let end = Instant::now() + time_max;
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        // What clients that are left to the end have for their last bytes is kept back for them.
        let disconnect_time = (2 * linger + DISCONNECT_TIME).min(time_max / 3);
        let delivered = end - disconnect_time;
        let mut standstills = StopStandstills::begin(&self);
        if !standstills.run_phase(Phase::Drain, DRAIN_TIME.min(left(delivered)))? {
            warn!("messages were still on their way when the time for them was over");
        }
        if !standstills.run_phase(Phase::Deliver, left(delivered))? {
            warn!(
                "some clients had not acknowledged everything after {} s: raise shutdown_max_ms",
                time_max.as_secs()
            );
        }
        if !standstills.run_phase(Phase::Disconnect, disconnect_time)? {
            warn!("some clients did not take their last bytes in time");
        }
        let has_ended =
            standstills.run_phase(Phase::End, left(end).clamp(END_TIME_MIN, END_TIME))?;
        if let Some(shard) = standstills.first_still().filter(|_| !has_ended) {
            let doing = self.reports[shard].occupation();
            error!("shard {shard} has not turned since the broker was told to end: {doing}");
            return Err(LaunchError::Stalled);
        }
        if !has_ended {
            warn!("the kernel did not let go of a ring in time");
        }
        watch.look_last().iter().for_each(|warning| warn!("{warning}"));
        remainder::tell(&self.reports, self.bridges_left.load(Ordering::Relaxed));
        if has_ended {
            for worker in self.workers {
                worker.join().map_err(LaunchError::Executor)?;
            }
        }
        Ok(())
    }
}

/// The phases of an end, and whether the shards turn meanwhile.
struct StopStandstills<'a> {
    broker: &'a Broker,
    standstills: Standstills,
    looked_at: Instant,
    /// By shard, when the end began.
    beats: Vec<u64>,
}

impl<'a> StopStandstills<'a> {
    fn begin(broker: &'a Broker) -> StopStandstills<'a> {
        StopStandstills {
            broker,
            standstills: Standstills::new(
                broker.reports.len(),
                broker.shared.settings.stall_max_ms,
            ),
            looked_at: Instant::now(),
            beats: broker.reports.iter().map(|report| report.beat.look()).collect(),
        }
    }

    /// As `Orders::run_phase`; a shard that stands still ends the process as it does while the broker runs.
    fn run_phase(&mut self, phase: Phase, time: Duration) -> Result<bool, LaunchError> {
        let broker = self.broker;
        let mut has_stalled = false;
        let is_quiet = broker.shared.orders.run_phase(phase, time, &broker.doors, || {
            let slept = self.looked_at.elapsed();
            // A shard that has ended does not turn.
            if slept >= LOOK_INTERVAL && phase != Phase::End {
                self.looked_at = Instant::now();
                let beats = broker.reports.iter().map(|report| &report.beat);
                let found = self.standstills.look(beats, millis(LOOK_INTERVAL), millis(slept));
                has_stalled |=
                    found.into_iter().any(|stall| tell_stall(stall, broker) == StallAction::End);
            }
            has_stalled
        });
        if has_stalled { Err(LaunchError::Stalled) } else { Ok(is_quiet) }
    }

    /// A shard that has not turned since the end began.
    fn first_still(&self) -> Option<usize> {
        let mut reports = self.broker.reports.iter().zip(&self.beats);
        reports.position(|(report, beat)| report.beat.look() == *beat)
    }
}
