//! Ctrl-C, or SIGTERM: the bench ends what it measures, and prints what there is so far.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Why a run that had nothing to show yet has ended.
pub(crate) const REASON: &str = "interrupted";

/// As a shell has it of a program that SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// `timeout` and others send a signal to a program and to its group, so that it comes twice: that is one.
const SAME: Duration = Duration::from_millis(500);

static RAISED: AtomicBool = AtomicBool::new(false);

/// From here on the first signal is noted; a later one ends the process at once, and its own broker ends with it.
pub(crate) fn listen() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        let mut first = None;
        for _ in signals.forever() {
            RAISED.store(true, Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() > SAME {
                std::process::exit(EXIT_CODE.into());
            }
        }
    };
    thread::Builder::new().name("signals".to_string()).spawn(wait)?;
    Ok(())
}

/// Somebody wants the bench to end.
pub(crate) fn came() -> bool {
    RAISED.load(Relaxed)
}

/// The signal has ended what it was to end, and what follows is no interruption.
pub(crate) fn heeded() {
    RAISED.store(false, Relaxed);
}

/// For what takes long and shows nothing before its end.
pub(crate) fn check() -> Result<(), String> {
    if came() { Err(REASON.to_string()) } else { Ok(()) }
}
