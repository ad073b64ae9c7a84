//! `$SYS`: the counters of all shards as retained messages, under the names that Mosquitto's users know.
//!
//! Every shard reports to shard 0 once an interval; shard 0 publishes the sums and each shard's own figures, and only
//! what has changed.

use super::timers::Timer;
use super::{Counters, Shard, ShardId};
use crate::arena::{Claim, Draft, Meta};
use crate::peers::ShardSet;
use crate::plugin::HookFigures;
use crate::routing::mail::Control;
use crate::routing::report::Report;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::fmt::Display;

impl Counters {
    /// The counters of hooks.
    fn hook_lines(&self, say: &mut dyn FnMut(&str, &dyn Display)) {
        say("plugins/publishes/denied", &self.publishes_denied);
        say("plugins/publishes/changed", &self.publishes_changed);
        say("plugins/deliveries/skipped", &self.deliveries_skipped);
        say("plugins/connects/denied", &self.connects_denied);
        say("plugins/subscribes/denied", &self.subscribes_denied);
        say("plugins/connects/asked", &self.questions);
        say("plugins/connects/unanswered", &self.questions_expired);
        say("plugins/connects/too_many", &self.questions_refused);
        say("plugins/answers/unasked", &self.answers_unasked);
    }

    fn add_hooks(&mut self, other: &Counters) {
        self.publishes_denied += other.publishes_denied;
        self.publishes_changed += other.publishes_changed;
        self.deliveries_skipped += other.deliveries_skipped;
        self.connects_denied += other.connects_denied;
        self.subscribes_denied += other.subscribes_denied;
        self.questions += other.questions;
        self.questions_expired += other.questions_expired;
        self.questions_refused += other.questions_refused;
        self.answers_unasked += other.answers_unasked;
    }
}

impl Report {
    /// The memory that a report takes while it is on its way: an estimate.
    pub(crate) fn size(&self) -> usize {
        size_of::<Report>() + size_of_val(self.hooks.as_slice())
    }

    /// One shard's own figures.
    fn lines(&self, say: &mut dyn FnMut(&str, &dyn Display)) {
        let Report { counters, gauges, hooks: _, unacknowledged: _ } = self;
        say("clients/connected", &gauges.connected_sessions);
        say("connections", &gauges.connections);
        say("sessions", &gauges.sessions);
        say("subscriptions/count", &gauges.subscriptions);
        say("publish/messages/received", &counters.publishes_received);
        say("publish/messages/sent", &counters.publishes_sent);
        say("mail/messages/sent", &counters.mail_messages_sent);
        say("mail/messages/received", &counters.mail_messages_received);
        say("bytes/stored", &gauges.stored_bytes);
        say("bytes/stored_for_absent", &gauges.absent_bytes);
        say("bytes/output", &(gauges.output_bytes + gauges.reused_output_bytes));
        say("bytes/sealed", &gauges.sealed_bytes);
        say("bytes/transports", &gauges.transport_bytes);
        say("bytes/frames", &gauges.frame_bytes);
        say("bytes/connects", &gauges.connect_bytes);
        say("bytes/wills", &gauges.will_bytes);
        say("bytes/metadata", &gauges.metadata_bytes);
        say("bytes/interest", &gauges.interest_bytes);
        say("bytes/routes", &gauges.route_bytes);
        say("bytes/mail", &gauges.mail_bytes);
        say("bytes/spare", &gauges.spare_bytes);
        say("bytes/retained", &gauges.retained_bytes);
        say("retained/count", &gauges.retained_messages);
        say("arena/used", &gauges.arena_used);
        say("arena/admitted", &counters.admitted);
        say("arena/stale_reads", &counters.stale_reads);
        for (name, held) in ["encode", "plugin", "bridge"].iter().zip(gauges.held_by_stage) {
            say(&format!("arena/held/{name}"), &held);
        }
        say("dropped/queue_full", &counters.dropped_queue_full);
        say("dropped/stored_full", &counters.dropped_stored_full);
        say("dropped/group_full", &counters.dropped_group_full);
        say("dropped/too_large", &counters.dropped_too_large);
        say("dropped/offline_qos0", &counters.dropped_offline_qos0);
        say("dropped/expired", &counters.expired);
        say("refused/retained", &counters.retained_refused);
        say("refused/wills", &counters.wills_refused);
        say("refused/metadata", &counters.refused_by_metadata);
        say("refused/subscriptions", &counters.subscriptions_refused);
        say("refused/connections", &counters.connections_refused);
        say("refused/flapping", &counters.refused_as_flapping);
        say("refused/lag", &counters.refused_by_lag);
        say("refused/connects_too_large", &counters.connects_too_large);
        say("refused/sessions", &counters.sessions_refused);
        say("sessions/displaced", &counters.sessions_displaced);
        say("refused/accepts", &counters.accepts_refused);
        say("refused/addresses", &counters.refused_by_address);
        say("refused/connect_rates", &counters.refused_by_connect_rate);
        say("refused/memory", &counters.refused_by_memory);
        say("memory/shortages", &counters.memory_shortages);
        say("refused/packets_too_large", &counters.refused_by_size);
        say("refused/receive_max", &counters.refused_by_receive_max);
        say("refused/topic_aliases", &counters.refused_by_alias);
        say("refused/topics", &counters.refused_by_topic);
        say("refused/payload_formats", &counters.refused_by_payload_format);
        say("refused/qos", &counters.refused_by_qos);
        say("refused/too_large", &counters.refused_by_arena);
        say("closed/protocol_errors", &counters.protocol_errors);
        say("closed/keep_alives", &counters.keep_alives_expired);
        say("closed/packets_timed_out", &counters.packets_timed_out);
        say("closed/connects_timed_out", &counters.connects_timed_out);
        say("closed/timed_out", &counters.connections_timed_out);
        say("closed/slow", &counters.slow_clients_closed);
        say("closed/taken_over", &counters.connections_taken_over);
        say("closed/taken_over_cut", &counters.takeovers_cut);
        say("closed/lingering_cut", &counters.lingers_cut);
        say("shared_subscriptions/count", &gauges.shared_groups);
        say("shared_subscriptions/waiting", &gauges.group_backlog);
        say("frames/evicted", &counters.frames_evicted);
        say("connects/evicted", &counters.connects_evicted);
        say("connects/displaced", &counters.connects_displaced);
        say("store/holds", &counters.store_holds);
        say("mail/holds", &counters.mail_holds);
        say("parked/mail", &counters.parked_on_mail);
        say("parked/output", &counters.parked_on_output);
        say("parked/bridges", &counters.parked_on_bridges);
        say("parked/rates", &counters.parked_on_rate);
        say("parked/turns", &counters.parked_on_turns);
        if gauges.has_hooks {
            counters.hook_lines(say);
        }
        say("bridges/messages/sent", &counters.bridge_messages_sent);
        say("bridges/messages/received", &counters.bridge_messages_received);
        say("bridges/acks_withheld", &counters.acks_withheld);
        say("bridges/dropped/loops", &counters.bridge_loops_ended);
        say("bridges/dropped/hops", &counters.bridge_paths_too_long);
        say("bridges/unbelieved", &counters.bridges_unbelieved);
    }
}

/// The account of the calls of each plugin's hooks on all shards.
fn plugin_lines(reports: &[Report], say: &mut dyn FnMut(&str, &dyn Display)) {
    let mut sums: BTreeMap<(&str, &str), HookFigures> = BTreeMap::new();
    for figures in reports.iter().flat_map(|report| &report.hooks) {
        sums.entry((&figures.plugin, figures.hook)).or_default().add(figures);
    }
    for ((plugin, hook), sum) in sums {
        let mut say =
            |name: &str, value: u64| say(&format!("plugins/{plugin}/{hook}/{name}"), &value);
        say("calls", sum.calls);
        say("denied", sum.denials);
        say("errors", sum.errors);
        say("panics", sum.panics);
        say("slow", sum.slow);
        say("time/mean_ns", sum.mean_ns());
        say("time/max_ns", sum.longest_ns);
    }
}

/// The shard that publishes the figures.
const PUBLISHER: ShardId = 0;
/// In one interval so many sessions are asked how many messages their clients have not acknowledged. With more sessions
/// the figure is older.
const SESSIONS_ASKED_MAX: usize = 10_000;
/// The interval of housekeeping where `$SYS` is off.
const HOUSEKEEPING_MS: u64 = 10_000;
/// A broker of this age reports more often, because an operator that has just started it looks.
const YOUNG_MS: u64 = 10_000;
const YOUNG_INTERVAL_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Sys {
    timer: Option<Instant>,
    started_at: Instant,
    sampled_at: Instant,
    /// The last report of each shard; only the publisher keeps them.
    reports: Vec<Report>,
    /// The shards whose report has come since figures were last published.
    fresh: ShardSet,
    /// Whether the publisher's own report of this interval has been taken and its figures are not published yet.
    is_due: bool,
    loads: [Load; LOAD_COUNT],
    connected_max: usize,
    asking: Asking,
    /// Memory of the whole process in bytes, now and at most, if the world tells it.
    heap: Option<(u64, u64)>,
    /// Lines that never change.
    facts: Vec<(&'static str, String)>,
    /// The last value of each topic.
    said: BTreeMap<String, String>,
}

/// How far all sessions have been asked for their unacknowledged messages.
#[derive(Debug, Default)]
struct Asking {
    place: usize,
    /// The count of the sessions that were asked in this round.
    count: usize,
    /// The count of all sessions at the end of the last round.
    total: usize,
}

/// A rate per minute, averaged over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    total: u64,
    averages: [f64; 3],
}

const LOAD_NAMES: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "connections",
    "sockets",
];
const LOAD_COUNT: usize = LOAD_NAMES.len();
const LOAD_MINUTES: [u32; 3] = [1, 5, 15];

impl Load {
    /// Notes by how much the total grew within `elapsed_ms`.
    fn sample(&mut self, total: u64, elapsed_ms: u64) {
        let per_minute = total.saturating_sub(self.total) as f64 * 60_000.0 / elapsed_ms as f64;
        self.total = total;
        for (average, minutes) in self.averages.iter_mut().zip(LOAD_MINUTES) {
            let weight = (-(elapsed_ms as f64) / (f64::from(minutes) * 60_000.0)).exp();
            *average = per_minute + weight * (*average - per_minute);
        }
    }
}

impl Sys {
    pub(super) fn new(id: ShardId, shard_count: u16, now: Instant) -> Sys {
        let report_count = if id == PUBLISHER { usize::from(shard_count) } else { 0 };
        Sys {
            timer: None,
            started_at: now,
            sampled_at: now,
            reports: vec![Report::default(); report_count],
            fresh: ShardSet::EMPTY,
            is_due: false,
            loads: Default::default(),
            connected_max: 0,
            asking: Asking::default(),
            heap: None,
            facts: Vec::new(),
            said: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, from: ShardId, report: Report) {
        if let Some(place) = self.reports.get_mut(usize::from(from)) {
            *place = report;
            self.fresh.insert(from);
        }
    }

    /// Whether the figures of this interval are to be published and no shard's report is missing.
    fn is_complete(&self) -> bool {
        self.is_due && self.fresh.len() == self.reports.len()
    }

    fn sum(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.reports.iter().map(of).sum()
    }

    fn sample_loads(&mut self, now: Instant) {
        let elapsed_ms = now.ms_since(self.sampled_at);
        if elapsed_ms == 0 {
            return;
        }
        self.sampled_at = now;
        let totals: [fn(&Counters) -> u64; LOAD_COUNT] = [
            |c| c.packets_received,
            |c| c.packets_sent,
            |c| c.publishes_received,
            |c| c.publishes_sent,
            |c| c.dropped(),
            |c| c.bytes_received,
            |c| c.bytes_sent,
            |c| c.connections_opened,
            |c| {
                let unseen = c.refused_by_address + c.refused_by_connect_rate;
                c.connections_opened + c.connections_refused + unseen
            },
        ];
        for (index, of) in totals.iter().enumerate() {
            let total = self.sum(|report| of(&report.counters));
            self.loads[index].sample(total, elapsed_ms);
        }
    }

    /// All topics below `$SYS/broker/` with their present values.
    fn lines(&mut self, now: Instant) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut say =
            |topic: &str, value: &dyn Display| lines.push((topic.to_string(), value.to_string()));
        let connected = self.sum(|r| r.gauges.connected_sessions as u64);
        self.connected_max = self.connected_max.max(connected as usize);
        let sessions = self.sum(|r| r.gauges.sessions as u64);
        for (name, value) in &self.facts {
            say(name, value);
        }
        say("version", &concat!("ringmq version ", env!("CARGO_PKG_VERSION")));
        say("uptime", &format_args!("{} seconds", now.ms_since(self.started_at) / 1000));
        say("clients/total", &sessions);
        say("clients/connected", &connected);
        say("clients/active", &connected);
        say("clients/disconnected", &sessions.saturating_sub(connected));
        say("clients/inactive", &sessions.saturating_sub(connected));
        say("clients/maximum", &self.connected_max);
        say("clients/expired", &self.sum(|r| r.counters.sessions_expired));
        say("messages/received", &self.sum(|r| r.counters.packets_received));
        say("messages/sent", &self.sum(|r| r.counters.packets_sent));
        say("messages/inflight", &self.sum(|r| r.unacknowledged as u64));
        // Mosquitto counts waiting and retained messages together, including the broker's own.
        let retained = |r: &Report| r.gauges.retained_messages + r.gauges.system_messages;
        let retained_bytes = |r: &Report| r.gauges.retained_bytes + r.gauges.system_bytes;
        let kept = self.sum(|r| (r.gauges.stored_messages + retained(r)) as u64);
        let kept_bytes = self.sum(|r| (r.gauges.stored_bytes + retained_bytes(r)) as u64);
        say("messages/stored", &kept);
        say("store/messages/count", &kept);
        say("store/messages/bytes", &kept_bytes);
        if let Some((current, maximum)) = self.heap {
            say("heap/current", &current);
            say("heap/maximum", &maximum);
        }
        say("subscriptions/count", &self.sum(|r| r.gauges.subscriptions as u64));
        say("shared_subscriptions/count", &self.sum(|r| r.gauges.shared_groups as u64));
        say("retained messages/count", &self.sum(|r| retained(r) as u64));
        say("retained messages/bytes", &self.sum(|r| retained_bytes(r) as u64));
        say("bytes/received", &self.sum(|r| r.counters.bytes_received));
        say("bytes/sent", &self.sum(|r| r.counters.bytes_sent));
        say("publish/messages/received", &self.sum(|r| r.counters.publishes_received));
        say("publish/messages/sent", &self.sum(|r| r.counters.publishes_sent));
        say("publish/messages/dropped", &self.sum(|r| r.counters.dropped()));
        say("publish/messages/expired", &self.sum(|r| r.counters.expired));
        say("publish/bytes/received", &self.sum(|r| r.counters.publish_bytes_received));
        say("publish/bytes/sent", &self.sum(|r| r.counters.publish_bytes_sent));
        say("arena/stale_reads", &self.sum(|r| r.counters.stale_reads));
        if self.reports.iter().any(|report| report.gauges.has_hooks) {
            let mut all = Counters::default();
            self.reports.iter().for_each(|report| all.add_hooks(&report.counters));
            all.hook_lines(&mut say);
            plugin_lines(&self.reports, &mut say);
        }
        for (name, load) in LOAD_NAMES.iter().zip(&self.loads) {
            for (minutes, average) in LOAD_MINUTES.iter().zip(load.averages) {
                say(&format!("load/{name}/{minutes}min"), &format_args!("{average:.2}"));
            }
        }
        for (shard, report) in self.reports.iter().enumerate() {
            let mut say_own =
                |name: &str, value: &dyn Display| say(&format!("shards/{shard}/{name}"), value);
            report.lines(&mut say_own);
        }
        lines
    }
}

impl Shard {
    /// Publishes the first figures at once: a client that asks for the version need not wait for an interval.
    pub(super) fn start_sys(&mut self, now: Instant) {
        self.timers.set(Timer::Sys, &mut self.sys.timer, Some(now));
    }

    pub(super) fn schedule_sys(&mut self, now: Instant) {
        let is_young = now.ms_since(self.sys.started_at) < YOUNG_MS;
        let interval_ms = match self.limits.sys_interval_ms {
            0 => HOUSEKEEPING_MS,
            interval_ms if is_young => interval_ms.min(YOUNG_INTERVAL_MS),
            interval_ms => interval_ms,
        };
        self.timers.set(Timer::Sys, &mut self.sys.timer, Some(now.plus_ms(interval_ms)));
    }

    pub(super) fn on_sys_timer(&mut self, now: Instant) {
        self.sys.timer = None;
        self.schedule_sys(now);
        self.sweep_retained(now);
        self.delivery.pool.trim();
        self.connections.input_pool.trim();
        self.flow.outbox.trim();
        self.trim_edits();
        if self.limits.sys_interval_ms == 0 || self.shutdown.has_begun {
            return;
        }
        self.ask_sessions();
        let report = Report {
            counters: self.counters().clone(),
            gauges: self.gauges(),
            hooks: self.hook_figures(),
            unacknowledged: self.sys.asking.total,
        };
        if self.peers.own() != PUBLISHER {
            return self.flow.outbox.control(PUBLISHER, Control::Counters(Box::new(report)));
        }
        if self.sys.is_due {
            // Some shard stands still, so its figures are old.
            self.publish_figures(now);
        }
        self.sys.is_due = true;
        self.take_report(now, PUBLISHER, report);
    }

    /// Takes a report. The figures are published when all shards have sent theirs: else those of the others would be an
    /// interval old.
    pub(super) fn take_report(&mut self, now: Instant, from: ShardId, report: Report) {
        self.sys.take(from, report);
        if self.sys.is_complete() && !self.shutdown.has_begun {
            self.publish_figures(now);
        }
    }

    fn publish_figures(&mut self, now: Instant) {
        (self.sys.fresh, self.sys.is_due) = (ShardSet::EMPTY, false);
        self.sys.sample_loads(now);
        for (name, value) in self.sys.lines(now) {
            self.say(now, format!("$SYS/broker/{name}"), value);
        }
    }

    fn ask_sessions(&mut self) {
        let Sys { asking, .. } = &mut self.sys;
        let (count, next) = self.clients.unacknowledged(asking.place, SESSIONS_ASKED_MAX);
        asking.count += count;
        asking.place = next.unwrap_or(0);
        if next.is_none() {
            asking.total = std::mem::take(&mut asking.count);
        }
    }

    /// Memory of the whole process in bytes, now and at most.
    pub fn set_heap(&mut self, current: u64, maximum: u64) {
        self.sys.heap = Some((current, maximum));
    }

    /// Sets the facts that the world publishes below `$SYS/broker/`: topic and text.
    pub fn set_facts(&mut self, facts: Vec<(&'static str, String)>) {
        self.sys.facts = facts;
    }

    /// Publishes the status of the bridges.
    pub(super) fn publish_status(&mut self, now: Instant, lines: Vec<(String, String)>) {
        if self.limits.sys_interval_ms == 0 || self.shutdown.has_begun {
            return;
        }
        for (topic, value) in lines {
            self.say(now, topic, value);
        }
    }

    /// Publishes a topic of `$SYS` if its value is new.
    fn say(&mut self, now: Instant, topic: String, value: String) {
        if self.sys.said.get(&topic) == Some(&value) {
            return;
        }
        let meta = Meta {
            qos: 0,
            retain: true,
            is_origin: true,
            expires_at: None,
            publisher: 0,
            from_bridge: false,
            claim: Claim::None,
        };
        let draft = Draft {
            topic: topic.as_bytes(),
            properties: [&[], &[]],
            payload: value.as_bytes(),
            meta,
        };
        // A value without room is refused once, not in each interval.
        let _ = self.admit(now, &draft);
        self.sys.said.insert(topic, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_becomes_every_average() {
        let mut load = Load::default();
        for second in 1..=7200u64 {
            load.sample(second * 50, 1000);
        }
        for average in load.averages {
            assert!((average - 3000.0).abs() < 5.0, "{average}");
        }
    }
}
