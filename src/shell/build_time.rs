//! When this program was built, as Mosquitto's `$SYS/broker/timestamp` tells it.

use std::env;
use std::fs;
use std::time::UNIX_EPOCH;

use crate::system::calendar;

/// The time of the program's file: builds that are alike have no time of their own.
pub(super) fn of_this_program() -> Option<String> {
    let modified = fs::metadata(env::current_exe().ok()?).and_then(|file| file.modified()).ok()?;
    let seconds = modified.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(calendar::text(seconds, ' ', "+0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_a_date() {
        let date = of_this_program().expect("its file has one");
        assert!(date.starts_with("20") && date.ends_with("+0000"), "{date}");
    }
}
