//! Open files: one for each connection, and some of our own.

use rustix::process::Resource;

use super::Finding;
use crate::config::Settings;
use crate::mesh::gate::OVER_MAX;
use crate::system::process::raise_limit;

/// Open files beside the connections: what a process has anyhow, logs, configuration; connections above the maximum.
const OWN_FILES: u64 = 32 + OVER_MAX as u64;
/// A shard's ring, doorbell and executor; its listeners come on top.
const SHARD_FILES: u64 = 8;

/// Raises the limit as far as allowed, then compares.
pub(super) fn check(settings: &Settings) -> Finding {
    match raise_limit(Resource::Nofile, own_files(settings) + settings.connections_max as u64) {
        Ok(limit) => judge(settings, limit),
        Err(error) => Finding::warn(
            "open files",
            format!("the limit cannot be read: {error}"),
            "allow the system call prlimit64",
        ),
    }
}

fn own_files(settings: &Settings) -> u64 {
    OWN_FILES + settings.shard_count() as u64 * (SHARD_FILES + settings.listen.len() as u64)
}

fn judge(settings: &Settings, limit: u64) -> Finding {
    let subject = "open files";
    let own = own_files(settings);
    let room = limit.saturating_sub(own);
    let wanted = settings.connections_max as u64;
    if room == 0 {
        return Finding::fail(
            subject,
            format!("{limit} are allowed, and the broker itself needs {own}"),
            remedy(own + wanted),
        );
    }
    if room < wanted {
        return Finding::warn(
            subject,
            format!(
                "{limit} are allowed: room for {room} connections, and connections_max is {wanted}"
            ),
            format!("{}; or lower connections_max", remedy(own + wanted)),
        );
    }
    Finding::ok(subject, format!("{limit} are allowed: room for connections_max ({wanted})"))
}

fn remedy(needed: u64) -> String {
    format!(
        "raise the hard limit to {needed} (shell: ulimit -Hn {needed}; systemd: \
         LimitNOFILE={needed}; Docker: --ulimit nofile={needed})"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_limit_must_hold_the_connections_and_our_own_files() {
        let settings = Settings { cores: vec![0, 1], connections_max: 1000, ..Settings::default() };
        let own = OWN_FILES + 2 * SHARD_FILES + 2;
        for (limit, level) in [
            (own, Level::Fail),
            (own + 1, Level::Warn),
            (own + 999, Level::Warn),
            (own + 1000, Level::Ok),
            (u64::MAX, Level::Ok),
        ] {
            let finding = judge(&settings, limit);
            assert_eq!(finding.level, level, "{finding:?}");
            assert_eq!(finding.remedy.is_empty(), level == Level::Ok);
        }
    }
}
