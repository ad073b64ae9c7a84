//! Tells the operator which limits were hit: one line a limit, at most every few seconds, never from a shard's thread.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::counters::Counters;
use crate::pipeline::STAGES;
use crate::plugins::Presence;
use crate::printable::counted;
use crate::shard::{Loser, Remainder};
use crate::shell::standstill::Beat;
use crate::system::process::status_field;
use crate::time::Instant;

/// Between two lines about the same limit.
const SILENCE_MS: u64 = 10_000;

/// A stage that holds messages and has acknowledged none for so long stands still.
const STANDSTILL_MS: u64 = 5_000;

/// A plugin's call that lasts so long is told: its shard stands still.
const STUCK_MS: u64 = 2_000;

/// What a shard says of itself: figures once a second, and at any time which call of a plugin it is in.
#[derive(Debug, Default)]
pub struct Report {
    snapshot: Mutex<Snapshot>,
    /// When the shard has ended.
    remainder: Mutex<Option<Remainder>>,
    /// Who lost most to a full store since it was told.
    loser: Mutex<Option<Loser>>,
    pub presence: Arc<Presence>,
    pub beat: Beat,
    /// Written by the thread that watches, read by the shard once a turn.
    pub is_memory_short: AtomicBool,
    pub heap: Heap,
}

/// Memory of the whole process, which the watching thread measures.
#[derive(Debug, Default)]
pub struct Heap {
    current: AtomicU64,
    maximum: AtomicU64,
}

impl Heap {
    /// Anonymous memory that is resident, in bytes.
    pub fn measure(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = status_field(&status, "RssAnon").and_then(|text| text.strip_suffix(" kB"));
        if let Some(size) = field.and_then(|text| text.trim().parse::<u64>().ok()) {
            self.current.store(size << 10, Ordering::Relaxed);
            self.maximum.fetch_max(size << 10, Ordering::Relaxed);
        }
    }

    /// Now and at most; `None` before it was measured.
    pub fn get(&self) -> Option<(u64, u64)> {
        let maximum = self.maximum.load(Ordering::Relaxed);
        (maximum > 0).then(|| (self.current.load(Ordering::Relaxed), maximum))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub counters: Counters,
    pub held_by_stage: [u64; STAGES.len()],
    pub acked_by_stage: [u64; STAGES.len()],
    /// Bytes of messages that wait, or that stay for those to come.
    pub waiting_bytes: u64,
}

impl Report {
    pub fn set(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    pub fn set_remainder(&self, remainder: Remainder) {
        *self.remainder.lock().unwrap_or_else(PoisonError::into_inner) = Some(remainder);
    }

    /// What ended with the shard; `None`: it has not said so.
    pub fn remainder(&self) -> Option<Remainder> {
        self.remainder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps who lost more than those before.
    pub fn note_loser(&self, loser: Option<Loser>) {
        let mut worst = self.loser.lock().unwrap_or_else(PoisonError::into_inner);
        let most = worst.as_ref().map_or(0, |worst| worst.message_count);
        if loser.as_ref().is_some_and(|loser| loser.message_count > most) {
            *worst = loser;
        }
    }

    fn take_loser(&self) -> Option<Loser> {
        self.loser.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Bytes received and sent since the shard began, and those of messages that it holds.
    pub fn bytes(&self) -> (u64, u64) {
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let Counters { bytes_received, bytes_sent, .. } = snapshot.counters;
        (bytes_received + bytes_sent, snapshot.waiting_bytes)
    }

    /// What the shard does now, as far as it can be seen from outside.
    pub fn occupation(&self) -> String {
        match self.presence.look() {
            Some(seen) => format!("it is in the {} hook of plugin '{}'", seen.hook, seen.plugin),
            None => {
                "it is in no plugin, so this is a fault of the broker: please report it".to_owned()
            }
        }
    }

    fn get(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A counter and what to say when it has moved: behind the number.
struct Rule {
    count: fn(&Counters) -> u64,
    sentence: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        count: |counters| counters.dropped_queue_full,
        sentence: "messages dropped: a session's queue was full; raise queue_messages_max or queue_bytes_max",
    },
    Rule {
        count: |counters| counters.dropped_stored_full,
        sentence: "messages dropped: a shard's store of waiting messages was full; raise shard_stored_bytes_max",
    },
    Rule {
        count: |counters| counters.store_holds,
        sentence: "times publishers waited: connected clients filled a shard's store faster than they took from it; raise \
                   shard_stored_bytes_max",
    },
    Rule {
        count: |counters| counters.mail_holds,
        sentence: "times publishers waited: what they had sent would have taken another shard many turns; see turn_steps_max \
                   and mail_bytes_mark",
    },
    Rule {
        count: |counters| counters.slow_clients_closed,
        sentence: "clients closed: they acknowledged nothing of what filled a shard's store; see shard_stored_bytes_max",
    },
    Rule {
        count: |counters| counters.dropped_group_full,
        sentence: "messages dropped: no member of a shared subscription took them; add members, or raise \
                   group_messages_max or group_bytes_max",
    },
    Rule {
        count: |counters| counters.dropped_too_large,
        sentence: "messages dropped: larger than the maximum packet size of their subscriber",
    },
    Rule {
        count: |counters| counters.refused_by_arena,
        sentence: "messages refused: larger than a shard's arena, with the topic that a bridge's rule gave them; raise \
                   arena_size",
    },
    Rule {
        count: |counters| counters.retained_refused,
        sentence: "retained messages refused or not kept: raise retained_messages_max or retained_bytes_max",
    },
    Rule {
        count: |counters| counters.parked_on_rate,
        sentence: "pauses in reading clients that published faster than message_rate_max or byte_rate_max",
    },
    Rule {
        count: |counters| counters.wills_refused,
        sentence: "wills refused: raise shard_wills_bytes_max; see shares_by_address",
    },
    Rule {
        count: |counters| counters.refused_by_metadata,
        sentence: "new sessions, subscriptions, topic aliases or QoS 2 messages refused: what clients hold beside messages filled \
                   its part of a shard; raise shard_metadata_bytes_max",
    },
    Rule {
        count: |counters| counters.subscriptions_refused,
        sentence: "subscriptions refused; see subscriptions_per_client_max, overlapping_subscriptions_max, \
                   shard_metadata_bytes_max, filter_size_max, filter_levels_max, wildcard_available, wildcard_depth_min, subscription_ids_available and shared_available",
    },
    Rule {
        count: |counters| counters.refused_by_qos,
        sentence: "connections closed: their clients published above the maximum QoS; raise qos_max",
    },
    Rule {
        count: |counters| counters.refused_by_size,
        sentence: "packets refused: larger than packet_size_max",
    },
    Rule {
        count: |counters| counters.refused_by_receive_max,
        sentence: "connections closed: their clients had more messages unacknowledged than receive_max",
    },
    Rule {
        count: |counters| counters.refused_by_alias,
        sentence: "connections closed: their clients used a topic alias above topic_alias_max",
    },
    Rule {
        count: |counters| counters.refused_by_topic,
        sentence: "messages refused: their topics were the broker's own, or longer or deeper than filter_size_max and \
                   filter_levels_max",
    },
    Rule {
        count: |counters| counters.refused_by_payload_format,
        sentence: "messages refused: marked as UTF-8, and it was none; see payload_format_checked",
    },
    Rule {
        count: |counters| counters.packets_timed_out,
        sentence: "connections closed: a packet took longer to arrive than packet_time_max_ms",
    },
    Rule {
        count: |counters| counters.connects_timed_out,
        sentence: "connections closed: no whole CONNECT arrived within connect_timeout_ms",
    },
    Rule {
        count: |counters| counters.questions_expired,
        sentence: "connections refused: a plugin did not answer their CONNECT within connect_timeout_ms",
    },
    Rule {
        count: |counters| counters.questions_refused,
        sentence: "connections refused: as many wait for the answer of a plugin as may; raise questions_max",
    },
    Rule {
        count: |counters| counters.sessions_refused,
        sentence: "sessions refused: raise sessions_max",
    },
    Rule {
        count: |counters| counters.sessions_displaced,
        sentence: "sessions of absent clients ended for new ones: their addresses had left most behind; raise sessions_max or \
                   shard_metadata_bytes_max, or see session_expiry_max_s and shares_by_address",
    },
    Rule {
        count: |counters| counters.refused_as_flapping,
        sentence: "connections refused: their clients connect again and again, as two with one client id do; see \
                   flapping_connects_max, flapping_window_s and flapping_ban_s",
    },
    Rule {
        count: |counters| counters.refused_by_lag,
        sentence: "new clients turned away: a shard's turns took longer than turn_time_max_ms",
    },
    Rule {
        count: |counters| counters.refused_by_memory,
        sentence: "new clients refused: the process is short of memory; raise memory_max, or lower the budgets of shards",
    },
    Rule {
        count: |counters| counters.takeovers_cut,
        sentence: "clients connected again and lost what their old connections still held: raise takeover_bytes_max",
    },
    Rule {
        count: |counters| counters.connections_timed_out,
        sentence: "connections ended: their peers answered nothing, or took nothing, for too long (ETIMEDOUT); see \
                   tcp_user_timeout_ms",
    },
    Rule {
        count: |counters| counters.frames_evicted,
        sentence: "connections closed: unfinished packets filled a shard's budget; raise shard_frames_bytes_max",
    },
    Rule {
        count: |counters| counters.connects_too_large,
        sentence: "clients refused: their CONNECT was larger than connect_size_max",
    },
    Rule {
        count: |counters| counters.connects_evicted,
        sentence: "connections closed: CONNECTs of which a part had arrived filled a shard's budget; raise \
                   shard_connects_bytes_max if they were no attack",
    },
    Rule {
        count: |counters| counters.connects_displaced,
        sentence: "connections closed before they said CONNECT, to let others in: raise connections_max if they were no \
                   attack",
    },
    Rule {
        count: |counters| counters.accepts_refused,
        sentence: "connections refused: raise connections_max, and the open-file limit with it",
    },
    Rule {
        count: |counters| counters.refused_by_address,
        sentence: "connections refused: their addresses had connections_per_address_max already",
    },
    Rule {
        count: |counters| counters.refused_by_connect_rate,
        sentence: "connections refused: their addresses connected faster than connect_rate_per_address_max",
    },
    Rule {
        count: |counters| counters.accept_backoffs,
        sentence: "pauses in accepting: no descriptor or memory left for a connection; raise the open-file limit",
    },
    Rule {
        count: |counters| counters.lingers_cut,
        sentence: "connections closed before their clients may have read why: raise lingering_max",
    },
    Rule {
        count: |counters| counters.stale_reads,
        sentence: "reads of messages already released: this is a fault of the broker, please report it",
    },
];

/// Looks at the reports of all shards.
pub(super) struct Watch {
    reports: Vec<Arc<Report>>,
    rules: Vec<RuleState>,
    stages: Vec<StageState>,
    calls: Vec<CallState>,
    /// Nobody who lost messages to a full store is named before.
    loser_silent_until: Instant,
}

#[derive(Clone, Copy, Default)]
struct RuleState {
    told: u64,
    silent_until: Instant,
}

/// One stage of one shard.
#[derive(Clone, Copy, Default)]
struct StageState {
    acked: u64,
    moved_at: Instant,
    is_told: bool,
}

/// The call of a plugin that one shard was seen in.
#[derive(Clone, Copy, Default)]
struct CallState {
    call: u64,
    since: Instant,
    is_told: bool,
}

impl Watch {
    pub(super) fn new(reports: &[Arc<Report>]) -> Watch {
        Watch {
            reports: reports.to_vec(),
            rules: vec![RuleState::default(); RULES.len()],
            stages: vec![StageState::default(); reports.len() * STAGES.len()],
            calls: vec![CallState::default(); reports.len()],
            loser_silent_until: Instant::default(),
        }
    }

    /// The limits that were hit since they were told last: nothing is told later.
    pub(super) fn look_last(&mut self) -> Vec<String> {
        let snapshots: Vec<Snapshot> = self.reports.iter().map(|report| report.get()).collect();
        let mut warnings = self.look_at_limits(&snapshots, Instant(u64::MAX));
        self.loser_silent_until = Instant::default();
        warnings.extend(self.look_for_loser(Instant::default()));
        warnings
    }

    fn look_at_limits(&mut self, snapshots: &[Snapshot], now: Instant) -> Vec<String> {
        let mut warnings = Vec::new();
        for (rule, state) in RULES.iter().zip(&mut self.rules) {
            let count: u64 =
                snapshots.iter().map(|snapshot| (rule.count)(&snapshot.counters)).sum();
            if count > state.told && state.silent_until <= now {
                warnings.push(counted(count - state.told, rule.sentence));
                *state = RuleState { told: count, silent_until: now.plus_ms(SILENCE_MS) };
            }
        }
        warnings
    }

    /// What to warn of now.
    pub(super) fn look(&mut self, now: Instant) -> Vec<String> {
        let snapshots: Vec<Snapshot> = self.reports.iter().map(|report| report.get()).collect();
        let mut warnings = self.look_at_limits(&snapshots, now);
        for (shard, snapshot) in snapshots.iter().enumerate() {
            for (stage, name) in STAGES.iter().enumerate() {
                let (held, acked) = (snapshot.held_by_stage[stage], snapshot.acked_by_stage[stage]);
                let state = &mut self.stages[shard * STAGES.len() + stage];
                if held == 0 || acked != state.acked {
                    *state = StageState { acked, moved_at: now, is_told: false };
                } else if !state.is_told && now.ms_since(state.moved_at) >= STANDSTILL_MS {
                    state.is_told = true;
                    warnings.push(format!(
                        "the {name:?} stage of shard {shard} stands still and holds {}",
                        counted(held, "messages")
                    ));
                }
            }
        }
        warnings.extend(self.look_for_loser(now));
        warnings.extend(self.look_at_calls(now));
        warnings
    }

    /// Whose messages a full store was rid of first.
    fn look_for_loser(&mut self, now: Instant) -> Option<String> {
        if self.loser_silent_until > now {
            return None;
        }
        let losers = self.reports.iter().filter_map(|report| report.take_loser());
        let Loser { client_id, message_count } = losers.max_by_key(|loser| loser.message_count)?;
        self.loser_silent_until = now.plus_ms(SILENCE_MS);
        Some(format!(
            "client '{}' held most of a full store and lost {message_count} messages, more than others; see \
             shard_stored_bytes_max",
            client_id.escape_debug()
        ))
    }

    /// Plugins that do not come back.
    pub(super) fn look_at_calls(&mut self, now: Instant) -> Vec<String> {
        let mut warnings = Vec::new();
        for (shard, (report, state)) in self.reports.iter().zip(&mut self.calls).enumerate() {
            let seen = report.presence.look();
            let call = seen.map_or(0, |seen| seen.call);
            let lasts_ms = now.ms_since(state.since);
            match seen {
                Some(seen) if call == state.call => {
                    if !state.is_told && lasts_ms >= STUCK_MS {
                        state.is_told = true;
                        warnings.push(format!(
                            "plugin '{}' has been in its {} hook for {} s: shard {shard} stands still until it returns",
                            seen.plugin,
                            seen.hook,
                            lasts_ms / 1000
                        ));
                    }
                }
                _ => *state = CallState { call, since: now, is_told: false },
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reports: &[Arc<Report>], shard: usize, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = reports[shard].get();
        change(&mut snapshot);
        reports[shard].set(snapshot);
    }

    #[test]
    fn a_limit_that_was_hit_is_told_once_in_a_while_with_what_came_since() {
        let reports = [Arc::new(Report::default()), Arc::new(Report::default())];
        let mut watch = Watch::new(&reports);
        assert!(watch.look(Instant(0)).is_empty());
        report(&reports, 0, |snapshot| snapshot.counters.dropped_queue_full = 3);
        report(&reports, 1, |snapshot| snapshot.counters.dropped_queue_full = 4);
        let warnings = watch.look(Instant(1_000));
        assert!(
            matches!(&warnings[..], [line] if line.starts_with("7 messages dropped: a session"))
        );
        report(&reports, 1, |snapshot| snapshot.counters.dropped_queue_full = 9);
        report(&reports, 1, |snapshot| snapshot.counters.wills_refused = 1);
        let warnings = watch.look(Instant(2_000));
        assert!(matches!(&warnings[..], [line] if line.starts_with("1 will refused")));
        assert!(watch.look(Instant(10_999)).is_empty());
        let warnings = watch.look(Instant(11_000));
        assert!(matches!(&warnings[..], [line] if line.starts_with("5 messages dropped")));
        assert!(watch.look(Instant(60_000)).is_empty());
        // What is counted while nothing is said about its limit is said in the end.
        report(&reports, 0, |snapshot| snapshot.counters.refused_by_size = 1);
        assert_eq!(watch.look(Instant(60_000)).len(), 1);
        report(&reports, 0, |snapshot| snapshot.counters.refused_by_size = 4);
        assert!(watch.look(Instant(60_001)).is_empty());
        assert_eq!(watch.look_last(), ["3 packets refused: larger than packet_size_max"]);
        assert!(watch.look_last().is_empty());
    }

    #[test]
    fn the_memory_of_the_process_is_measured() {
        let heap = Heap::default();
        assert_eq!(heap.get(), None);
        heap.measure();
        let (current, maximum) = heap.get().expect("/proc says it");
        assert!(current > 64 << 10 && maximum >= current, "{current} {maximum}");
    }

    #[test]
    fn what_a_warning_tells_to_raise_can_be_set() {
        let is_key = |word: &str| crate::config::keys::Key::find(word).is_some();
        for rule in RULES {
            let words = rule.sentence.split(|char: char| !char.is_ascii_lowercase() && char != '_');
            for word in words.filter(|word| word.contains('_')) {
                assert!(is_key(word), "{word}, in: {}", rule.sentence);
            }
        }
    }

    #[test]
    fn who_loses_most_to_a_full_store_is_named_on_one_line() {
        let reports = [Arc::new(Report::default()), Arc::new(Report::default())];
        let mut watch = Watch::new(&reports);
        let lose = |shard: usize, client_id: &str, message_count| {
            let loser = Loser { client_id: client_id.into(), message_count };
            reports[shard].note_loser(Some(loser));
        };
        lose(0, "a", 3);
        lose(1, "b\nforged", 9);
        lose(1, "c", 2);
        let told = watch.look(Instant(1_000));
        assert!(
            matches!(&told[..], [line] if line.starts_with("client 'b\\nforged' held")),
            "{told:?}"
        );
        lose(0, "d", 1);
        assert!(watch.look(Instant(2_000)).is_empty());
        assert!(matches!(&watch.look(Instant(11_000))[..], [line] if line.contains("'d'")));
    }

    #[test]
    fn a_stage_that_stands_still_is_told_once() {
        let reports = [Arc::new(Report::default())];
        let mut watch = Watch::new(&reports);
        report(&reports, 0, |snapshot| {
            snapshot.held_by_stage[1] = 5;
            snapshot.acked_by_stage[1] = 10;
        });
        for (at, count) in [(1_000, 0), (5_000, 0), (6_000, 1), (7_000, 0), (30_000, 0)] {
            assert_eq!(watch.look(Instant(at)).len(), count, "at {at} ms");
        }
        // It moves a little, and stands still again.
        report(&reports, 0, |snapshot| snapshot.acked_by_stage[1] = 11);
        for (at, count) in [(31_000, 0), (35_000, 0), (36_000, 1)] {
            assert_eq!(watch.look(Instant(at)).len(), count, "at {at} ms");
        }
        report(&reports, 0, |snapshot| snapshot.held_by_stage[1] = 0);
        assert!(watch.look(Instant(90_000)).is_empty());
    }

    #[test]
    fn a_plugin_that_does_not_come_back_is_told_once() {
        let reports = [Arc::new(Report::default()), Arc::new(Report::default())];
        let presence = &reports[1].presence;
        presence.name(["slow".to_owned()].into_iter());
        let mut watch = Watch::new(&reports);
        let publish = 4;
        let mut look = |at, count| {
            let told = watch.look(Instant(at));
            assert_eq!(told.len(), count, "at {at} ms: {told:?}");
            told
        };
        presence.enter(0, publish, 1);
        look(1_000, 0);
        look(2_000, 0);
        // Another call each second is no standstill.
        presence.enter(0, publish, 2);
        look(3_000, 0);
        look(4_000, 0);
        let told = look(5_000, 1);
        assert_eq!(
            told,
            [
                "plugin 'slow' has been in its publish hook for 2 s: shard 1 stands still until it returns"
            ]
        );
        look(6_000, 0);
        presence.leave();
        look(7_000, 0);
        look(17_000, 0);
    }
}
