//! Ctrl-C, or SIGTERM: the bench ends what it measures, and prints what there is so far.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Why a run that had nothing to show yet has ended.
pub const REASON: &str = "interrupted";

/// As a shell has it of a program that SIGINT ended.
pub const EXIT_CODE: u8 = 130;

fn flag_raised() -> &'static Arc<AtomicBool> {
    static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    RAISED.get_or_init(Arc::default)
}

/// From here on the first signal is noted; the second ends the process at once, and its own broker ends with it.
pub fn listen() -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(signal, EXIT_CODE.into(), flag_raised().clone())?;
        flag::register(signal, flag_raised().clone())?;
    }
    Ok(())
}

/// Somebody wants the bench to end.
pub fn came() -> bool {
    flag_raised().load(Relaxed)
}

/// For what takes long and shows nothing before its end.
pub fn check() -> Result<(), String> {
    if came() { Err(REASON.to_string()) } else { Ok(()) }
}
