//! One shard's worker: its broker, its network and its end of the mesh; it waits, and runs the turn.
//!
//! A worker sleeps only when its shard says `is_idle`, so what a turn left for the next one waits for no event. It
//! counts its turns for the thread that watches (`shell::standstill`).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info};

use crate::net::Network;
use crate::shard::{Event, Shard, ShardId};
use crate::shell::waiter::Waiter;
use crate::shell::watch::{Report, Snapshot};
use crate::shell::world::NetWorld;
use crate::system::clock::Clock;
use crate::time::Instant;
use crate::turn::turn;

/// The longest sleep: once a second a worker reports its counters.
const SLEEP_MAX_MS: u64 = 1_000;

/// When another shard's lane was full, it is tried again this soon, for nobody rings when there is room.
const RETRY_MS: u64 = 1;

pub(super) struct Worker<N> {
    shard: Shard,
    world: NetWorld<N>,
    clock: Clock,
    waiter: Waiter,
    report: Arc<Report>,
    report_due: Instant,
    /// When this turn began.
    now: Instant,
}

impl<N: Network> Worker<N> {
    pub(super) fn new(
        shard: Shard,
        world: NetWorld<N>,
        clock: Clock,
        waiter: Waiter,
        report: Arc<Report>,
    ) -> Worker<N> {
        let now = clock.now();
        let report_due = now.plus_ms(SLEEP_MAX_MS);
        Worker { shard, world, clock, waiter, report, report_due, now }
    }

    /// Runs a turn, after waiting for something to do if it `may_wait`.
    pub(super) fn turn(&mut self, may_wait: bool) {
        if may_wait {
            self.wait();
        } else {
            self.world.net.poll(self.now);
        }
        let now = self.clock.now();
        self.now = now;
        self.report.beat.tick();
        let is_short = self.report.is_memory_short.load(Ordering::Relaxed);
        self.shard.set_memory_short(now, is_short);
        self.world.begin_turn(now);
        turn(&mut self.shard, &mut self.world, now);
        if self.shard.wants_turn_times() {
            self.shard.note_turn_time(self.clock.now().ms_since(now));
        }
        self.world.note_connecting(self.shard.connecting_count());
        self.world.look_at_lingering();
        self.world.look_at_stalls();
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Noticed(notice) => info!("{notice}"),
                // Only while they are asked for.
                event => debug!("{event}"),
            }
        }
        if self.report_due <= now {
            self.report(now);
        }
    }

    pub(super) fn id(&self) -> ShardId {
        self.world.port.own()
    }

    /// Accepts connections from the next turn on.
    pub(super) fn listen(&mut self, listeners: Vec<OwnedFd>) {
        for listener in listeners {
            self.world.net.listen(listener);
        }
    }

    /// From here on nothing is accepted or read; what was read takes its way.
    pub(super) fn stop(&mut self) {
        self.world.begin_ending();
        self.shard.begin_shutdown(self.now);
    }

    /// Says goodbye to clients that nothing waits for, or that have stood still for too long. `true`: nobody is waited for.
    pub(super) fn part_from_clients(&mut self) -> bool {
        let now = self.clock.now();
        let is_done = self.shard.part_from_clients(now);
        while let Some(connection) = self.shard.poll_confirmed() {
            let bytes = self.world.confirmed(connection);
            self.shard.handle_confirmed(now, connection, bytes);
        }
        is_done
    }

    pub(super) fn disconnect_all(&mut self) {
        self.shard.disconnect_all(self.now);
    }

    /// Tells what ends with the process, and what was counted since the last report.
    pub(super) fn report_remainder(&mut self) {
        self.report(self.now);
        self.report.set_remainder(self.shard.remainder());
    }

    /// No turn since the last question received or sent anything, and nothing waits for room in a lane, or for its turn.
    pub(super) fn was_quiet(&mut self) -> bool {
        !std::mem::take(&mut self.world.has_moved) && !self.has_left()
    }

    fn has_left(&self) -> bool {
        self.world.is_held_up() || self.shard.has_postponed()
    }

    /// The same of what goes to and comes from other shards and the bridges.
    pub(super) fn had_no_mail(&mut self) -> bool {
        !std::mem::take(&mut self.world.has_mailed) && !self.has_left()
    }

    /// Every connection is closed, also for the kernel.
    pub(super) fn is_empty(&self) -> bool {
        self.shard.connection_count() == 0 && self.world.net.socket_count() == 0
    }

    fn wait(&mut self) {
        let now = self.now;
        let deadline = [self.shard.poll_timeout(), self.world.deadline()]
            .into_iter()
            .flatten()
            .fold(self.report_due, Instant::min);
        // What a turn left for the next one does not wait for an event.
        let longest_ms = match (self.world.is_held_up(), self.shard.is_idle()) {
            _ if self.shard.has_postponed() => 0,
            (true, _) => RETRY_MS,
            (false, true) => SLEEP_MAX_MS,
            (false, false) => 0,
        };
        let timeout = Duration::from_millis(deadline.ms_since(now).min(longest_ms));
        let NetWorld { net, port, .. } = &mut self.world;
        self.waiter.wait(net, port, now, timeout);
    }

    fn report(&mut self, now: Instant) {
        self.report_due = now.plus_ms(SLEEP_MAX_MS);
        self.shard.counters().receive_rearms = self.world.net.receive_rearms();
        self.shard.counters().connections_timed_out = self.world.net.timed_out();
        self.shard.counters().lingers_cut = self.world.lingering.cut_count;
        if let Some((current, maximum)) = self.report.heap.get() {
            self.shard.set_heap(current, maximum);
        }
        let gauges = self.shard.gauges();
        self.report.note_loser(self.shard.take_loser());
        self.report.set(Snapshot {
            counters: self.shard.counters().clone(),
            held_by_stage: gauges.held_by_stage,
            acked_by_stage: gauges.acked_by_stage,
            waiting_bytes: (gauges.stored_bytes + gauges.output_bytes + gauges.retained_bytes)
                as u64,
        });
    }
}
