//! Conformance: scripts that name the normative statements they show, played on shards in memory and over loopback.

#[cfg(feature = "shell")]
#[allow(dead_code, reason = "the end-to-end tests use other parts of it")]
mod broker;
mod fields;
#[cfg(feature = "shell")]
mod loopback;
mod memory;
mod runner;
mod script;
mod statements;
mod wire;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[cfg(feature = "shell")]
use script::Action;
use script::{Case, Script};

/// Over loopback, scripts that wait longer than this are left to virtual time.
#[cfg(feature = "shell")]
const REAL_WAIT_MAX_MS: u64 = 3_500;

#[test]
fn every_statement_is_accounted_for() {
    match statements::account(&scripts()) {
        Ok(account) => tell(&account),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn scripts_hold_on_shards_in_memory() {
    let cases = cases();
    let mut jobs = Vec::new();
    for case in &cases {
        for (shards, split) in [(1, usize::MAX), (1, 1), (2, usize::MAX), (3, 7)] {
            jobs.push((
                case,
                format!(
                    "{shards} shards in memory{}",
                    if split == usize::MAX { String::new() } else { format!(", reads of {split}") }
                ),
                (shards, split),
            ));
        }
    }
    play_all(&jobs, 2, |case, &(shards, split), trace| {
        let mut world = memory::Memory::new(shards, split, &case.limits)?;
        runner::run(case, &mut world, trace)?;
        world.finish()
    });
}

#[cfg(feature = "shell")]
#[test]
fn scripts_hold_over_loopback() {
    let cases = cases();
    let mut jobs = Vec::new();
    for case in cases.iter().filter(|case| wait_ms(case) <= REAL_WAIT_MAX_MS) {
        for shards in [1, 2] {
            jobs.push((case, format!("{shards} shards over loopback"), shards));
        }
    }
    play_all(&jobs, 8, |case, &shards, trace| {
        let mut world = loopback::Loopback::start(shards, &case.limits)?;
        let result = runner::run(case, &mut world, trace);
        result.map_err(|error| {
            if trace { format!("{error}\n      the broker says:\n{}", world.log()) } else { error }
        })
    });
}

#[test]
fn a_script_that_is_wrong_fails() {
    let text = include_str!("wrong.txt");
    let mut count = 0;
    for script in script::parse("wrong.txt", text).unwrap() {
        for case in script.cases().unwrap() {
            let mut world = memory::Memory::new(1, usize::MAX, &case.limits).unwrap();
            let result = runner::run(&case, &mut world, false);
            assert!(result.is_err(), "{} holds", case.title);
            count += 1;
        }
    }
    assert!(count > 5, "only {count} wrong scripts");
}

/// Plays each job on one of `workers` threads and fails with all that did not hold.
fn play_all<T: Sync>(
    jobs: &[(&Case, String, T)],
    workers: usize,
    play: impl Fn(&Case, &T, bool) -> Result<(), String> + Sync,
) {
    let trace = std::env::var("RINGMQ_TRACE").is_ok();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..if trace { 1 } else { workers } {
            scope.spawn(|| {
                while let Some((case, place, how)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if trace {
                        println!("   {}, {place}", case.title);
                    }
                    let played = catch_unwind(AssertUnwindSafe(|| play(case, how, trace)));
                    let result =
                        played.unwrap_or_else(|panic| Err(format!("panic: {}", message(&panic))));
                    if let Err(error) = result {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{}, {place}\n   {error}", case.title));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    let how = &jobs.first().expect("no script was played").1;
    tell(&format!(
        "{} of {} plays of scripts hold, such as: {how}",
        jobs.len() - failures.len(),
        jobs.len()
    ));
    assert!(failures.is_empty(), "{} do not hold:\n{}", failures.len(), failures.join("\n"));
}

/// Prints past the capture of a passing test's output.
fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn message(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
}

/// All scripts, in the order of their files.
fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/scripts");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut scripts = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        scripts.extend(script::parse(name, &text).unwrap_or_else(|error| panic!("{error}")));
    }
    scripts
}

/// Every case of every script; with `RINGMQ_SCRIPT` in the environment, of scripts with that in their name.
fn cases() -> Vec<Case> {
    let wanted = std::env::var("RINGMQ_SCRIPT").unwrap_or_default();
    let mut cases = Vec::new();
    for script in scripts().iter().filter(|script| script.name.contains(&wanted)) {
        cases.extend(script.cases().unwrap_or_else(|error| panic!("{error}")));
    }
    cases
}

#[cfg(feature = "shell")]
fn wait_ms(case: &Case) -> u64 {
    let waits =
        case.steps.iter().map(|step| if let Action::Wait(ms) = step.action { ms } else { 0 });
    waits.sum()
}
