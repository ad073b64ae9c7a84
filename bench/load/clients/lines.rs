//! What is shown: a line each second in the form of emqtt-bench's, and a summary at the end.

use std::time::Instant;

use anstyle::Style;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::counts::{Counts, Shared, Times, lock, value};
use super::settings::{Role, Settings};
use crate::figures::{duration, grouped};
use crate::report::command;
use crate::screen::{BAD, PLAIN, STRONG, WARNING, fitted};

/// What took less has no rate: the main thread looks 50 times a second.
const MEASURED_S_MIN: f64 = 0.2;

/// The lines of a run.
pub(super) struct Lines {
    role: Role,
    shows: bool,
    /// Stdout is for JSON.
    to_stderr: bool,
    begin: Instant,
    last: Instant,
    last_total: u64,
    /// When the first and the last of what is counted happened, seconds from the begin.
    first_s: Option<f64>,
    last_s: f64,
    /// When as many were connected as ever.
    connected_s: f64,
    accepted: u64,
    open_at_end: u64,
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// Total, and what it is called.
fn total(role: &Role, counts: &Counts) -> (&'static str, u64) {
    match role {
        Role::Conn => ("connect_succ", value(&counts.accepted)),
        Role::Pub(_) => ("pub", value(&counts.sent)),
        Role::Sub(_) => ("recv", value(&counts.received)),
    }
}

impl Lines {
    pub(super) fn new(settings: &Settings, shows: bool, to_stderr: bool) -> Lines {
        let now = Instant::now();
        Lines {
            role: settings.role.clone(),
            shows,
            to_stderr,
            begin: now,
            last: now,
            last_total: 0,
            first_s: None,
            last_s: 0.0,
            connected_s: 0.0,
            accepted: 0,
            open_at_end: 0,
        }
    }

    /// Prints a line if a second has passed.
    pub(super) fn tick(&mut self, shared: &Shared) {
        self.follow(shared);
        let elapsed_s = self.last.elapsed().as_secs_f64();
        if elapsed_s < 1.0 {
            return;
        }
        let line = self.line(shared, elapsed_s);
        self.last = Instant::now();
        self.last_total = total(&self.role, &shared.counts).1;
        if !self.shows {
        } else if self.to_stderr {
            eprintln!("{line}");
        } else {
            // A reader that goes away ends nothing.
            let _ = crate::screen::print(&(line + "\n"));
        }
    }

    fn follow(&mut self, shared: &Shared) {
        let now_s = self.begin.elapsed().as_secs_f64();
        let counted = total(&self.role, &shared.counts).1;
        if counted > 0 {
            self.first_s.get_or_insert(now_s);
        }
        if counted != self.last_total {
            self.last_s = now_s;
        }
        let accepted = value(&shared.counts.accepted);
        if accepted != std::mem::replace(&mut self.accepted, accepted) {
            self.connected_s = now_s;
        }
    }

    /// The threads are told to end.
    pub(super) fn stop(&mut self, shared: &Shared) {
        self.open_at_end = value(&shared.counts.open);
        self.follow(shared);
    }

    pub(super) fn end(&mut self, shared: &Shared) {
        self.follow(shared);
    }

    fn line(&self, shared: &Shared, elapsed_s: f64) -> String {
        let counts = &shared.counts;
        let (name, total) = total(&self.role, counts);
        let seconds = self.begin.elapsed().as_secs();
        let rate = (total - self.last_total) as f64 / elapsed_s;
        let mut line = format!("{seconds}s {name} total={total} rate={rate:.0}/sec");
        let mut add = |name: &str, value: u64| line += &format!(" {name}={value}");
        let open = value(&counts.open);
        add(
            "connected",
            match &self.role {
                // One whose subscription was not granted yet gets nothing.
                Role::Sub(_) => open.min(value(&counts.subscribed)),
                Role::Conn | Role::Pub(_) => open,
            },
        );
        match &self.role {
            Role::Conn => {}
            Role::Pub(_) => add("acked", value(&counts.acked)),
            Role::Sub(_) => add("lost", value(&counts.lost)),
        }
        let failed = value(&counts.refused) + value(&counts.lost_connections);
        if failed > 0 || matches!(self.role, Role::Conn) {
            add("failed", failed);
        }
        let times = match &self.role {
            Role::Conn => &shared.connect,
            Role::Pub(_) => &shared.acknowledge,
            Role::Sub(_) => &shared.arrive,
        };
        let recent = &mut lock(times).recent;
        if !recent.is_empty() {
            line += &format!(" p99={}", duration(at(recent, 0.99)));
            recent.reset();
        }
        line
    }
}

/// Microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Percentiles {
    count: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Percentiles {
    fn new(times: &Times) -> Option<Percentiles> {
        let whole = &times.whole;
        (!whole.is_empty()).then(|| Percentiles {
            count: whole.len(),
            p50_us: at(whole, 0.5),
            p90_us: at(whole, 0.9),
            p99_us: at(whole, 0.99),
            p999_us: at(whole, 0.999),
            max_us: whole.max() as f64 / 1000.0,
        })
    }

    fn words(&self) -> String {
        let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *self;
        let [p50, p90, p99, p999, max] = [p50_us, p90_us, p99_us, p999_us, max_us].map(duration);
        format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
    }
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: String,
    count: u64,
}

/// What a run came to.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    role: &'static str,
    /// Without the password.
    command: String,
    clients: usize,
    seconds: f64,
    begun: u64,
    accepted: u64,
    /// Until the last was accepted.
    connect_seconds: f64,
    connected_at_end: u64,
    refused: u64,
    connections_lost: u64,
    connect_time: Option<Percentiles>,
    /// From the first message to the last.
    message_seconds: f64,
    sent: u64,
    acknowledged: u64,
    refused_publishes: u64,
    unacknowledged: u64,
    late: u64,
    acknowledge_time: Option<Percentiles>,
    subscribed: u64,
    received: u64,
    received_bytes: u64,
    retained: u64,
    verified: u64,
    unverified: u64,
    lost: u64,
    duplicated: u64,
    redelivered: u64,
    reordered: u64,
    /// Payloads with a wrong checksum, among others that were right.
    corrupt: u64,
    untracked: u64,
    early: u64,
    latency: Option<Percentiles>,
    reasons: Vec<Reason>,
}

impl Summary {
    pub(super) fn new(settings: &Settings, shared: &Shared, lines: &Lines) -> Summary {
        let counts = &shared.counts;
        let of = |times| Percentiles::new(&lock(times));
        let reasons = shared.reasons().into_iter();
        let [verified, unverified] = [&counts.verified, &counts.unverified].map(value);
        Summary {
            role: match settings.role {
                Role::Conn => "conn",
                Role::Pub(_) => "pub",
                Role::Sub(_) => "sub",
            },
            command: command::own(),
            clients: settings.count,
            seconds: lines.begin.elapsed().as_secs_f64(),
            begun: value(&counts.begun),
            accepted: value(&counts.accepted),
            connect_seconds: lines.connected_s,
            connected_at_end: lines.open_at_end,
            refused: value(&counts.refused),
            connections_lost: value(&counts.lost_connections),
            connect_time: of(&shared.connect),
            message_seconds: lines.last_s - lines.first_s.unwrap_or(lines.last_s),
            sent: value(&counts.sent),
            acknowledged: value(&counts.acked),
            refused_publishes: value(&counts.nacked),
            unacknowledged: value(&counts.unacked),
            late: value(&counts.late),
            acknowledge_time: of(&shared.acknowledge),
            subscribed: value(&counts.subscribed),
            received: value(&counts.received),
            received_bytes: value(&counts.received_size),
            retained: value(&counts.retained),
            verified,
            unverified,
            lost: value(&counts.lost),
            duplicated: value(&counts.duplicated),
            redelivered: value(&counts.redelivered),
            reordered: value(&counts.reordered),
            corrupt: if verified > 0 { unverified } else { 0 },
            untracked: value(&counts.untracked),
            early: value(&counts.early),
            latency: of(&shared.arrive),
            reasons: reasons.map(|(reason, count)| Reason { reason, count }).collect(),
        }
    }

    pub(super) fn is_good(&self) -> bool {
        let faults = self.lost + self.duplicated + self.reordered + self.corrupt;
        self.reasons.is_empty() && faults + self.unacknowledged == 0
    }

    /// A paragraph a thing, no line wider than the screen.
    pub(super) fn words(&self, width: usize) -> String {
        let mut paragraphs = vec![(STRONG, self.first())];
        let mut add = |style: Style, text: String| paragraphs.push((style, text));
        if let Some(times) = &self.connect_time {
            add(PLAIN, format!("  connected after: {}", times.words()));
        }
        match self.role {
            "pub" => self.publishing(&mut add),
            "sub" => self.subscribing(&mut add),
            _ => {}
        }
        for Reason { reason, count } in &self.reasons {
            add(BAD, format!("  FAILED {} x {reason}", grouped(*count as f64)));
        }
        let mut text = String::new();
        for (style, paragraph) in paragraphs {
            for line in fitted(&paragraph, width, 4) {
                text += &format!("{style}{line}{style:#}\n");
            }
        }
        text
    }

    fn first(&self) -> String {
        let count = |count: u64| grouped(count as f64);
        let (accepted, clients) = (count(self.accepted), count(self.clients as u64));
        let each_s = match self.connect_seconds {
            seconds if seconds < MEASURED_S_MIN => String::new(),
            seconds => format!(" ({}/s)", grouped(self.accepted as f64 / seconds)),
        };
        format!(
            "{}: {accepted} connections of {clients} clients within {:.1} s{each_s}, {} in the end",
            self.role,
            self.connect_seconds,
            count(self.connected_at_end),
        )
    }

    fn each_s(&self, messages: u64) -> String {
        match self.message_seconds {
            seconds if seconds < MEASURED_S_MIN => String::new(),
            seconds => format!(" in {seconds:.1} s ({}/s)", grouped(messages as f64 / seconds)),
        }
    }

    fn publishing(&self, add: &mut impl FnMut(Style, String)) {
        let count = |count: u64| grouped(count as f64);
        let (sent, acked) = (count(self.sent), count(self.acknowledged));
        let acknowledged = match self.acknowledge_time {
            Some(_) => format!(", {acked} acknowledged"),
            None => String::new(),
        };
        add(STRONG, format!("  {sent} messages sent{}{acknowledged}", self.each_s(self.sent)));
        if let Some(times) = &self.acknowledge_time {
            add(PLAIN, format!("  acknowledged after: {}", times.words()));
        }
        if self.late > 0 {
            let late = count(self.late);
            add(WARNING, format!("  {late} were sent more than an interval after they were due"));
        }
        if self.unacknowledged > 0 {
            let unacked = count(self.unacknowledged);
            add(BAD, format!("  {unacked} were not acknowledged when their connection ended"));
        }
    }

    fn subscribing(&self, add: &mut impl FnMut(Style, String)) {
        let count = |count: u64| grouped(count as f64);
        let megabytes = self.received_bytes as f64 / 1e6;
        let retained = match self.retained {
            0 => String::new(),
            retained => format!(", {} of them retained", count(retained)),
        };
        let received = count(self.received);
        let each_s = self.each_s(self.received);
        add(STRONG, format!("  {received} messages received{each_s}{retained}; {megabytes:.1} MB"));
        if let Some(times) = &self.latency {
            add(PLAIN, format!("  latency from when they were due: {}", times.words()));
        }
        if self.early > 0 {
            let early = count(self.early);
            add(
                WARNING,
                format!("  {early} came before they were due: the clocks of the two ends differ"),
            );
        }
        let faults = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.corrupt, "corrupt, or of other senders"),
        ];
        let found = faults.iter().filter(|(number, _)| *number > 0);
        let found: Vec<String> =
            found.map(|(number, kind)| format!("{} {kind}", count(*number))).collect();
        let verified = count(self.verified);
        match (self.verified, found.is_empty()) {
            (0, _) if self.received == 0 => {}
            (0, _) => add(
                PLAIN,
                "  not verified: they are not as `ringmq-bench pub` sends them".to_string(),
            ),
            (_, true) => add(
                PLAIN,
                format!("  {verified} verified: none lost, duplicated, reordered or corrupt"),
            ),
            (_, false) => add(BAD, format!("  FAULTS {}; {verified} verified", found.join(", "))),
        }
        if self.redelivered > 0 {
            let again = count(self.redelivered);
            add(PLAIN, format!("  {again} came again with the flag that says so, as QoS 1 allows"));
        }
        if self.untracked > 0 {
            let untracked = count(self.untracked);
            add(
                WARNING,
                format!(
                    "  {untracked} are of more publishers than are followed: only checksums were looked at"
                ),
            );
        }
    }
}
