//! `ringmq-bench replay`, and the scenarios of its kind: plays a recording at its own times, and verifies what comes.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use ringmq::codec::{QoS, RetainHandling, SubscriptionOptions};
use ringmq::topic;

use super::messages::{self, Proof};
use super::player::{Gauges, Played, Player};
use super::publisher::{Manner, Publisher};
use super::reader::Reader;
use super::session::{Identity, Session};
use super::source::Source;
use super::subscribers::Subscriber;
use super::summary::Summary;
use super::verifier::Verifier;
use crate::broker::Broker;
use crate::engine::Counts;
use crate::engine::wire::Wire;
use crate::machine::{self, now_ns};
use crate::message::Stamp;
use crate::meter::{Meter, Usage};
use crate::options::Options;
use crate::outcome::{Batches, Outcome};
use crate::report::measured::{MeasuredRun, Pace, RecordedLatency};
use crate::report::series::{self, Series};
use crate::run::Bench;
use crate::scenario::{Kind, Scenario};
use crate::traffic::PATIENCE;
use crate::{interrupt, measurement};

/// From the order to the first message.
const LEAD_NS: u64 = 50_000_000;

/// What the broker has kept has come when nothing has for so long (3.1.1: only then can it not be told from traffic).
const RETAINED_PATIENCE: Duration = Duration::from_millis(300);

/// Retained messages that are set up without waiting for the broker.
const SET_UP_WINDOW: u64 = 100;

/// No recording is as long.
const SPAN_MAX: Duration = Duration::from_secs(400 * 86_400);

const READ_SIZE: usize = 128 << 10;

/// What a replay is told.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct ReplayOptions {
    /// A recording by `ringmq-bench record`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// So many times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    speed: f64,
    /// As fast as the broker takes it, and no times: each publisher has a window of messages that have not come
    #[arg(long, conflicts_with = "speed")]
    flat_out: bool,
    /// How often the recording is played, one behind the other
    #[arg(long = "loop", value_name = "N", default_value_t = 1)]
    loops: u64,
    /// What subscriber n subscribes to, round robin; may be repeated [default: each first level of the topics by itself]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    #[command(flatten)]
    common: Options,
}

const NOTES: &str = "Topics are spread over --publishers [default: 10]; each topic stays with one of them, so that its order \
    is kept. A subscriber gets one filter: --subscribers [default: as many as filters]. Latency counts from \
    when a message was due; one generator thread publishes and verifies, and is named where it was the \
    limit. What the recording marks as retained is set up first, is not measured, and stays at the broker.

Payloads that were not recorded are filled: from 24 bytes on with a stamp and checksum, so that every \
    byte is verified; shorter ones with as many bytes that follow from topic and sequence. Payloads that \
    were recorded are compared by digest. How many messages are verified in which way stands below the \
    table. At a broker with other traffic on these topics that traffic counts as corrupt.";

/// Plays a recording as the only scenario of a measurement.
pub(crate) fn command(options: ReplayOptions) -> Result<ExitCode, String> {
    let ReplayOptions { file, speed, flat_out, loops, filter, mut common } = options;
    if common.full || !common.scenario.is_empty() {
        return Err("a replay is a scenario by itself: --scenario and --full are not for it".into());
    }
    let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    common.given.push(Scenario {
        name,
        about: format!("replay of {}", file.display()),
        kind: Kind::Replay,
        file: file.to_string_lossy().into_owned(),
        speed,
        flat_out,
        loops,
        filters: filter,
        mqtt: 0,
        publishers: 0,
        subscribers: 0,
        ..Scenario::default()
    });
    measurement::run(&common)
}

/// How long a replay of it takes at the recording's own times, all loops together.
pub(crate) fn span(scenario: &Scenario) -> Duration {
    let recorded_ns = scenario.recording.as_ref().map_or(0, |summary| summary.span_ns) as f64;
    let played_s = recorded_ns * scenario.loops as f64 / scenario.speed / 1e9;
    Duration::from_secs_f64(played_s.min(SPAN_MAX.as_secs_f64()))
}

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    let summary = scenario.recording.as_ref().ok_or("its recording was not read")?.clone();
    let mut outcome = Outcome::new(&scenario.name);
    for warning in &summary.warnings {
        bench.progress.warn(warning);
        outcome.warnings.push(warning.clone());
    }
    if scenario.mqtt == 3 && summary.has_properties {
        let warning = "3.1.1 has no properties: those of the recording are left out".to_string();
        bench.progress.warn(&warning);
        outcome.warnings.push(warning);
    }
    bench.progress.say(&scenario.name, "setting up what was retained");
    set_up_retained(&summary, scenario, broker)?;
    bench.progress.say(&scenario.name, "connecting");
    let replay = Replay::start(bench, scenario, broker, summary.clone())?;
    bench.progress.say(&scenario.name, "replay");
    let mut meter = Meter::new(broker.pid, replay.thread_ids());
    let begin_ns = now_ns() + LEAD_NS;
    replay.gauges.begin_ns.store(begin_ns, Relaxed);
    let is_done = || replay.check().map(|()| replay.gauges.end_ns.load(Relaxed) > 0);
    let counts = || replay.gauges.counts();
    let interval = series::interval(span(scenario));
    let usage = meter.watch_course(SPAN_MAX, interval, &bench.progress, counts, is_done)?;
    // It is looked at now and then only.
    let end_ns = match replay.gauges.end_ns.load(Relaxed) {
        0 => now_ns(),
        end_ns => end_ns,
    };
    let elapsed_s = end_ns.saturating_sub(begin_ns).max(1) as f64 / 1e9;
    let usage = Usage { elapsed_s, ..usage };
    let counts = replay.gauges.counts();
    let idle_ns = replay.gauges.idle_ns.load(Relaxed);
    replay.drain()?;
    let total = replay.gauges.counts();
    let played = replay.stop()?;
    (outcome.sent, outcome.delivered) = (total.sent, total.delivered);
    outcome.faults = played.faults;
    outcome.resident_size_max = meter.resident_size_max;
    let ended = Ended { usage, counts, idle_ns, series: meter.take_series(), played };
    match scenario.flat_out {
        true => ended.tell_flat_out(&mut outcome),
        false => ended.tell_at_rate(&mut outcome, scenario, &summary),
    }
    describe(&mut outcome, scenario, &summary);
    if total.delivered == 0 && total.sent > 0 && !interrupt::came() {
        outcome.failures.push("nothing was delivered".to_string());
    }
    Ok(outcome)
}

/// What has been measured of a replay.
struct Ended {
    usage: Usage,
    counts: Counts,
    idle_ns: u64,
    series: Series,
    played: Played,
}

impl Ended {
    fn tell_flat_out(self, outcome: &mut Outcome) {
        let Ended { usage, counts, series, .. } = self;
        if usage.is_measured() {
            outcome.set_traffic(&counts, usage.elapsed_s);
            outcome.set_usage(&usage, counts.delivered);
            outcome.runs.push(MeasuredRun::new(Pace::FlatOut, &counts, &usage, series));
        }
    }

    /// The rate is that of the recording, on average: how it comes and goes is the recording's own.
    fn tell_at_rate(self, outcome: &mut Outcome, scenario: &Scenario, summary: &Summary) {
        let Ended { usage, counts, idle_ns, series, played } = self;
        let due_s = span(scenario).as_secs_f64();
        let messages = (summary.messages * scenario.loops) as f64;
        let rate =
            if due_s > 0.0 { messages / due_s } else { counts.sent as f64 / usage.elapsed_s };
        let recorded = RecordedLatency::new(rate, &played.latency);
        outcome.latency = Some(recorded.summary.clone());
        outcome.measure("sent after due, longest", played.late_ns_max as f64 / 1e6, "ms");
        outcome.batches_at_rate = Batches::new(&counts);
        outcome.resident_size = usage.resident_size;
        if usage.is_measured() {
            outcome.set_usage_at_rate(&usage, rate, [counts.sent, counts.delivered], idle_ns);
            let run = MeasuredRun::new(Pace::Rate, &counts, &usage, series);
            let run = run.at_rate(rate, outcome.bound_at_rate);
            outcome.runs.push(MeasuredRun { latency: Some(recorded), ..run });
        }
    }
}

/// What a reader must know of the recording, below the table.
fn describe(outcome: &mut Outcome, scenario: &Scenario, summary: &Summary) {
    outcome.measure("topics", summary.topic_count() as f64, "");
    outcome.measure("messages recorded", summary.messages as f64, "messages");
    outcome.measure("retained, set up before", summary.retained as f64, "messages");
    for (name, count) in Proof::NAMES.into_iter().zip(summary.proofs) {
        if count > 0 {
            outcome.measure(name, (count * scenario.loops) as f64, "messages");
        }
    }
}

/// What the broker had kept when the recording began, it gets to keep again.
fn set_up_retained(summary: &Summary, scenario: &Scenario, broker: &Broker) -> Result<(), String> {
    if summary.retained == 0 {
        return Ok(());
    }
    let mut session = connect(broker, scenario.mqtt, "bench-retained")?;
    let mut reader = Reader::open(&summary.path)?;
    let (mut sent, mut out, mut properties) = (0u64, Vec::new(), Vec::new());
    let mut heard = Instant::now();
    let stamp = Stamp { publisher: u32::MAX, sequence: 0, due_ns: 0 };
    loop {
        let message = reader.next()?.filter(|message| message.is_retained);
        let is_last = message.is_none();
        if let Some(mut message) = message.filter(|message| !topic::is_system(&message.topic)) {
            message.qos = 1;
            properties.clear();
            messages::write_properties(&message, scenario.mqtt, &mut properties);
            let id = (sent % 65_535) as u16 + 1;
            messages::write_publish(&message, stamp, Some(id), &properties, &mut out);
            session.send(&out)?;
            out.clear();
            sent += 1;
        }
        let window = SET_UP_WINDOW.min(u64::from(session.receive_max));
        loop {
            let unacked = sent.checked_sub(session.acked);
            let unacked = unacked.ok_or("the broker acknowledges messages that were not sent")?;
            if unacked < if is_last { 1 } else { window } {
                break;
            }
            interrupt::check()?;
            if session.turn(&mut |_| Ok(()))? {
                heard = Instant::now();
            }
            if heard.elapsed() > PATIENCE * 5 {
                return Err("the broker does not acknowledge retained messages".to_string());
            }
        }
        if is_last {
            session.disconnect();
            return Ok(());
        }
    }
}

fn connect(broker: &Broker, mqtt: u8, client_id: &str) -> Result<Session, String> {
    interrupt::check()?;
    // Longer than any replay that nothing comes in, so that no client has to ping.
    let identity = Identity {
        client_id: client_id.to_string(),
        keep_alive_s: u16::MAX,
        ..Identity::default()
    };
    Session::connect(broker.target.address, mqtt, &identity)
}

/// A replay that runs.
struct Replay {
    gauges: Arc<Gauges>,
    source_thread: u32,
    thread: JoinHandle<Played>,
}

impl Replay {
    fn start(
        bench: &Bench,
        scenario: &Scenario,
        broker: &Broker,
        summary: Arc<Summary>,
    ) -> Result<Replay, String> {
        let (subscribers, granted) = subscribe(scenario, broker, summary.retained > 0)?;
        let mut publishers = Vec::new();
        for index in 0..scenario.publishers {
            let session = connect(broker, scenario.mqtt, &format!("bench-p{index:05}"))?;
            let receive_max = session.receive_max;
            let (stream, tail) = session.into_stream()?;
            publishers.push(Publisher::new(Wire::resumed(stream, tail), receive_max));
        }
        let source = Source::start(summary.clone(), scenario.loops)?;
        let source_id = source.thread_id.clone();
        let front = (scenario.mqtt, scenario.allow_added_properties);
        let matching = matching(scenario);
        let buffer_size = READ_SIZE.max(2 * summary.packet_size_max(scenario.mqtt));
        let gauges = Arc::new(Gauges::default());
        let player = Player {
            gauges: gauges.clone(),
            manner: Manner {
                mqtt: scenario.mqtt,
                window: scenario.flat_out.then_some(scenario.window),
                burden_ns: scenario.burden_ns(),
            },
            speed: scenario.speed,
            source,
            verifier: Verifier::new(summary, front, scenario.publishers, &granted, matching),
            publishers,
            subscribers,
            buffer: vec![0; buffer_size].into(),
        };
        let core = bench.placement.generator.first().copied();
        let run = move || {
            // Without a core of its own it runs where it may.
            let _ = core.map(|core| machine::pin(&[core]));
            player.run()
        };
        let thread = thread::Builder::new().name("replay".to_string()).spawn(run);
        let thread = thread.map_err(|error| format!("thread: {error}"))?;
        while gauges.thread_id.load(Relaxed) == 0 || source_id.load(Relaxed) == 0 {
            thread::sleep(Duration::from_micros(200));
        }
        Ok(Replay { gauges, source_thread: source_id.load(Relaxed), thread })
    }

    fn thread_ids(&self) -> BTreeSet<u32> {
        BTreeSet::from([self.gauges.thread_id.load(Relaxed), self.source_thread])
    }

    fn check(&self) -> Result<(), String> {
        match self.gauges.failure() {
            Some(reason) => Err(reason),
            None if self.thread.is_finished() => Err("the replay's thread panicked".to_string()),
            None => Ok(()),
        }
    }

    /// Waits until all that was sent has come, or nothing more does.
    fn drain(&self) -> Result<(), String> {
        self.gauges.still.store(true, Relaxed);
        // A loop that had begun before may still send.
        thread::sleep(Duration::from_millis(5));
        let mut last = (self.gauges.counts().delivered, Instant::now());
        while !self.gauges.is_at_rest() && last.1.elapsed() < PATIENCE {
            self.check()?;
            thread::sleep(Duration::from_millis(2));
            let delivered = self.gauges.counts().delivered;
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
        }
        self.check()
    }

    fn stop(self) -> Result<Played, String> {
        self.gauges.stop.store(true, Relaxed);
        let played = self.thread.join().map_err(|_| "the replay's thread panicked".to_string())?;
        self.gauges.failure().map_or(Ok(played), Err)
    }
}

/// Connects all subscribers. Returns with each the QoS that the broker has granted.
fn subscribe(
    scenario: &Scenario,
    broker: &Broker,
    has_retained: bool,
) -> Result<(Vec<Subscriber>, Vec<u8>), String> {
    let wanted = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..Default::default()
    };
    let (mut sessions, mut granted) = (Vec::new(), Vec::new());
    for index in 0..scenario.subscribers {
        let mut session = connect(broker, scenario.mqtt, &format!("bench-s{index:05}"))?;
        let filter = [scenario.filters[index % scenario.filters.len()].clone()];
        granted.extend(session.subscribe(&filter, wanted, &mut |_| Ok(()))?);
        session.set_patience(Duration::from_millis(1))?;
        sessions.push(session);
    }
    let mut last = Instant::now();
    while scenario.mqtt == 3 && last.elapsed() < RETAINED_PATIENCE {
        for session in &mut sessions {
            if session.turn(&mut |_| Ok(()))? {
                last = Instant::now();
            }
        }
        interrupt::check()?;
    }
    let mut subscribers = Vec::new();
    for (index, session) in sessions.into_iter().enumerate() {
        let (stream, tail) = session.into_stream()?;
        subscribers.push(Subscriber {
            wire: Wire::resumed(stream, tail),
            index: index as u32,
            mqtt: scenario.mqtt,
            passes_over_retained: has_retained && scenario.mqtt == 3,
        });
    }
    Ok((subscribers, granted))
}

/// Who gets a topic. Filters that several have are compared once.
fn matching(scenario: &Scenario) -> impl Fn(&str) -> Vec<u32> {
    let mut subscribers_of: HashMap<String, Vec<u32>> = HashMap::new();
    for index in 0..scenario.subscribers {
        let filter = &scenario.filters[index % scenario.filters.len()];
        subscribers_of.entry(filter.clone()).or_default().push(index as u32);
    }
    move |name: &str| {
        let matched = subscribers_of.iter().filter(|(filter, _)| topic::matches(filter, name));
        let mut subscribers: Vec<u32> = matched.flat_map(|(_, all)| all.iter().copied()).collect();
        subscribers.sort_unstable();
        subscribers
    }
}
