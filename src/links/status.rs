//! The bridges' status below `$SYS/bridges/`.

use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use super::{Bridge, Hub, unix_ms};
use crate::disk::Backlog;
use crate::executor::sleep;
use crate::routing::bridge_mail::FromBridges;

const LOOK_INTERVAL_MS: u64 = 1_000;

/// Sums over a bridge's connections.
#[derive(Default)]
struct Sums {
    backlog: Backlog,
    direct: usize,
    sent: u64,
    received: u64,
    dropped_full: u64,
    dropped_unfit: u64,
    dropped_expired: u64,
    refused: u64,
    postponed: u64,
    aside: u64,
    dropped_aside: u64,
    oversized: u64,
    connected: usize,
}

pub(super) async fn run(hub: Rc<Hub>, interval_ms: u64) {
    loop {
        let lines: Vec<(String, String)> = hub.bridges.iter().flat_map(status_of).collect();
        hub.publish(lines);
        // Only what is new is said, so states are told soon though counters are asked for rarely.
        sleep(Duration::from_millis(interval_ms.min(LOOK_INTERVAL_MS))).await;
    }
}

impl Hub {
    /// Hands on what is new, to the shard that publishes.
    fn publish(&self, mut lines: Vec<(String, String)>) {
        let mut end = self.end.borrow_mut();
        let mut lanes = end.shard(0);
        if !lanes.has_news_room() {
            return;
        }
        let mut said = self.said.borrow_mut();
        lines.retain(|(topic, value)| said.get(topic) != Some(value));
        if lines.is_empty() {
            return;
        }
        said.extend(lines.iter().cloned());
        lanes.send(FromBridges::Status(lines));
    }
}

fn status_of(bridge: &Bridge) -> Vec<(String, String)> {
    let name = &bridge.settings.name;
    let mut lines = Vec::new();
    let mut say = |topic: &str, value: &dyn Display| {
        lines.push((format!("$SYS/bridges/{name}/{topic}"), value.to_string()));
    };
    let now_ms = unix_ms();
    let mut sums = Sums::default();
    for line in &bridge.lines {
        let status = line.status();
        let backlog = line.outbound.spool().map(|spool| spool.backlog()).unwrap_or_default();
        let dropped = line.outbound.dropped.get();
        sums.backlog.messages += backlog.messages;
        sums.backlog.bytes += backlog.bytes;
        sums.backlog.disk_bytes += backlog.disk_bytes;
        sums.backlog.oldest_time_ms =
            [sums.backlog.oldest_time_ms, backlog.oldest_time_ms].into_iter().flatten().min();
        sums.direct += line.outbound.direct_len();
        sums.sent += status.sent;
        sums.received += status.received;
        sums.refused += status.refused;
        sums.postponed += status.postponed;
        sums.aside += status.aside;
        sums.dropped_aside += dropped.aside;
        sums.oversized += status.oversized;
        sums.dropped_full += dropped.full;
        sums.dropped_unfit += dropped.unfit + status.unfit;
        sums.dropped_expired += dropped.expired;
        sums.connected += usize::from(status.is_connected);
        let own = |what: &str| match bridge.lines.len() {
            1 => what.to_string(),
            _ => format!("connections/{}/{what}", line.index),
        };
        say(&own("state"), &status.state);
        say(&own("since"), &(status.since_ms / 1000));
        say(&own("address"), &status.address);
        say(&own("last_error"), &status.last_error);
    }
    if bridge.lines.len() > 1 {
        let state = match sums.connected {
            0 => "disconnected",
            count if count == bridge.lines.len() => "connected",
            _ => "partly connected",
        };
        say("state", &state);
        say("connections/connected", &sums.connected);
    }
    let failure = bridge.lines.iter().map(|line| line.outbound.failure.borrow().clone());
    say("log/error", &failure.into_iter().find(|text| !text.is_empty()).unwrap_or_default());
    say("log/bytes", &sums.backlog.disk_bytes);
    say("backlog/messages", &(sums.backlog.messages + sums.direct as u64));
    say("backlog/bytes", &sums.backlog.bytes);
    let age_ms = sums.backlog.oldest_time_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
    say("backlog/age", &(age_ms / 1000));
    say("messages/sent", &sums.sent);
    say("messages/received", &sums.received);
    say("messages/refused", &sums.refused);
    say("messages/postponed", &sums.postponed);
    say("messages/aside", &sums.aside);
    say("messages/dropped/aside", &sums.dropped_aside);
    say("messages/dropped/full", &sums.dropped_full);
    say("messages/dropped/unfit", &sums.dropped_unfit);
    say("messages/dropped/expired", &sums.dropped_expired);
    say("messages/dropped/too_large", &sums.oversized);
    say("messages/dropped/echoes", &bridge.echoes.count());
    say("messages/dropped/loops", &bridge.loops.count());
    say("messages/dropped/hops", &bridge.paths_too_long.count());
    say("holding", &u8::from(bridge.lines.iter().any(|line| line.outbound.is_blocking.get())));
    lines
}
