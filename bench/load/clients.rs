//! `conn`, `pub` and `sub`: many clients that do one thing, with the options of emqtt-bench; what they do is verified where both
//! ends are this program's.

mod check;
mod client;
mod counts;
mod hub;
mod lines;
pub(crate) mod options;
mod outgoing;
mod settings;
mod worker;

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use self::counts::{Shared, value};
use self::lines::{Lines, Summary};
use self::options::{CommonOptions, ConnOptions, PubOptions, SubOptions};
use self::settings::{Role, Settings};
use crate::{interrupt, machine, screen};

/// How often the main thread looks.
const TICK: Duration = Duration::from_millis(20);

pub(crate) fn conn(options: &ConnOptions) -> Result<ExitCode, String> {
    run(&Settings::conn(options)?, &options.common)
}

pub(crate) fn publish(options: &PubOptions) -> Result<ExitCode, String> {
    run(&Settings::publishing(options)?, &options.common)
}

pub(crate) fn subscribe(options: &SubOptions) -> Result<ExitCode, String> {
    run(&Settings::subscribing(options)?, &options.common)
}

/// Runs all clients to the end. Ends with 1 if anything failed.
fn run(settings: &Settings, common: &CommonOptions) -> Result<ExitCode, String> {
    if common.seconds.is_some_and(|seconds| !(0.1..=1e6).contains(&seconds)) {
        return Err("--seconds must be 0.1 to 1,000,000".to_string());
    }
    machine::raise_open_files(settings.count)?;
    if let Some(note) = note(settings, common) {
        eprintln!("ringmq-bench: {note}");
    }
    let cores = machine::cores_of(0).map_or(1, |cores| cores.len());
    let thread_count = common.threads.map_or(cores, usize::from).min(settings.count);
    let waits = matches!(&settings.role, Role::Pub(publishing) if publishing.waits_for_all);
    let shared = Shared::new(waits);
    let from_ns = machine::now_ns();
    let shows = common.log_to != "null";
    let mut lines = Lines::new(settings, shows, common.json);
    let span = common.seconds.map(Duration::from_secs_f64);
    thread::scope(|scope| {
        for first in 0..thread_count {
            let shared = &shared;
            let work = move || worker::run(settings, shared, first, thread_count, from_ns);
            let name = format!("clients-{first}");
            if let Err(error) = thread::Builder::new().name(name).spawn_scoped(scope, work) {
                shared.fail(format!("thread: {error}"));
            }
        }
        watch(settings, &shared, span, &mut lines);
    });
    lines.end(&shared);
    if let Some(reason) = shared.failure() {
        return Err(reason);
    }
    let summary = Summary::new(settings, &shared, &lines);
    if common.json {
        println!("{}", serde_json::to_string_pretty(&summary).expect("plain data"));
    } else {
        screen::print(&summary.words(screen::width()))?;
    }
    // It is how such a run is ended.
    interrupt::heeded();
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Shows what happens, each second, until there is an end to it; then tells the threads.
fn watch(settings: &Settings, shared: &Shared, span: Option<Duration>, lines: &mut Lines) {
    let begin = Instant::now();
    let counts = &shared.counts;
    let count = settings.count as u64;
    let limit = match &settings.role {
        Role::Sub(subscribing) => subscribing.limit,
        Role::Conn | Role::Pub(_) => 0,
    };
    loop {
        thread::sleep(TICK);
        lines.tick(shared);
        if value(&counts.settled) >= count {
            shared.go.store(true, Relaxed);
        }
        let is_over = span.is_some_and(|span| begin.elapsed() >= span)
            || limit > 0 && value(&counts.received) >= limit;
        let has_ended = value(&counts.ended) >= count;
        if is_over || has_ended || interrupt::came() || shared.stop.load(Relaxed) {
            lines.stop(shared);
            shared.stop.store(true, Relaxed);
            return;
        }
    }
}

/// What must be known of what is asked for.
fn note(settings: &Settings, common: &CommonOptions) -> Option<&'static str> {
    let is_v5 = settings.version == ringmq::codec::ProtocolVersion::V5;
    match &settings.role {
        _ if common.session_expiry > 0 && !is_v5 => {
            Some("--session-expiry is of MQTT 5: nothing is sent of it")
        }
        Role::Pub(publishing) if !publishing.is_sealed && common.log_to != "null" => Some(
            "payloads of less than 24 bytes, and texts, carry no sequence: nobody can verify them",
        ),
        _ => None,
    }
}
