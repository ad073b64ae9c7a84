//! Memory: what may be locked, and whether the bounds fit the machine.

use rustix::process::Resource;

use super::{Finding, kernel};
use crate::config::Settings;
use crate::limits::Size;
use crate::printable::counted;
use crate::shell::memory::{Allowance, rounded};
use crate::system::process::{Process, raise_limit};

/// What an executor asks for before it starts, whatever the capabilities of the process.
const LOCKED_MIN: u64 = 512 << 10;
/// The three small rings of a shard's executor, each with its 64 KiB of registered buffers. With this, the estimate is
/// some 5 % above what a kernel counts.
const EXECUTOR_LOCKED: u64 = 3 * (76 << 10);

/// Raises the limit on locked memory as far as needed and allowed, then compares.
pub(super) fn check_locked(settings: &Settings, process: &Process) -> Finding {
    let needed = locked_need(settings, process);
    match raise_limit(Resource::Memlock, needed) {
        Ok(limit) => judge_locked(limit, needed),
        Err(error) => Finding::warn(
            "locked memory",
            format!("the limit cannot be read: {error}"),
            "allow the system call prlimit64",
        ),
    }
}

/// What all shards lock, as far as the kernel counts it.
fn locked_need(settings: &Settings, process: &Process) -> u64 {
    let release = process.kernel_release.as_deref();
    if process.may_lock_memory || !kernel::counts_rings_as_locked(release) {
        return LOCKED_MIN;
    }
    LOCKED_MIN.max(settings.shard_count() as u64 * shard_locked(settings))
}

/// A shard's own ring (a submission takes 68 bytes and brings four completions of 16), the ring of its receive buffers,
/// and its executor.
fn shard_locked(settings: &Settings) -> u64 {
    let ring = settings.ring_entries as u64 * (68 + 4 * 16) + (8 << 10);
    let receive_ring = (settings.receive_buffers as u64 * 16).next_multiple_of(4 << 10);
    ring + receive_ring + EXECUTOR_LOCKED
}

fn judge_locked(limit: u64, needed: u64) -> Finding {
    let subject = "locked memory";
    let needed_text = Size(needed.next_multiple_of(1 << 10));
    let allowed = if limit == u64::MAX { "no limit".to_owned() } else { Size(limit).to_string() };
    if limit >= needed {
        return Finding::ok(subject, format!("{allowed}; at least {needed_text} is needed"));
    }
    let remedy = "raise the limit (shell: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; \
                  Docker: --ulimit memlock=-1)";
    if limit < LOCKED_MIN {
        return Finding::fail(
            subject,
            format!("{allowed} is allowed, and an executor asks for {needed_text} or more"),
            remedy,
        );
    }
    Finding::fail(
        subject,
        format!("{allowed} is allowed, and the rings of all shards need {needed_text}"),
        format!("{remedy}, or lower shards or ring_entries"),
    )
}

/// Whether all that the bounds allow fits into the machine, or into the control groups.
pub(super) fn check_bounds(settings: &Settings) -> Finding {
    judge_bounds(settings, Allowance::read())
}

fn judge_bounds(settings: &Settings, allowance: Option<Allowance>) -> Finding {
    let subject = "memory";
    let shard_count = settings.shard_count() as u64;
    let bound = settings.shard_bytes_max().saturating_mul(shard_count);
    let mut there = Vec::new();
    if settings.memory_max > 0 {
        there.push(format!("memory_max is {}", rounded(settings.memory_max)));
    }
    if let Some(allowance) = &allowance {
        there.push(format!("there is {allowance}"));
    }
    let bound_text = rounded(bound);
    let shards = counted(shard_count, "shards");
    let text = format!("the bounds of {shards} allow {bound_text}, {}", there.join(", and "));
    let size = allowance.map_or(u64::MAX, |allowance| allowance.size);
    if settings.memory_max > size {
        return Finding::warn(
            subject,
            text,
            "lower memory_max: it cannot keep the kernel from ending the process",
        );
    }
    let max = if settings.memory_max > 0 { settings.memory_max } else { size };
    if bound > max {
        return Finding::warn(
            subject,
            text,
            "lower shard_stored_bytes_max, shard_output_bytes_max or retained_bytes_max, unless the load never comes \
             near them",
        );
    }
    Finding::ok(subject, text.trim_end_matches(", "))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn executors_and_rings_must_fit_the_limit() {
        for (limit, needed, level, what) in [
            (LOCKED_MIN - 1, LOCKED_MIN, Level::Fail, "executor"),
            (LOCKED_MIN, LOCKED_MIN, Level::Ok, "512KiB"),
            (LOCKED_MIN, LOCKED_MIN + 1, Level::Fail, "need 513KiB"),
            (u64::MAX, LOCKED_MIN, Level::Ok, "no limit"),
        ] {
            let finding = judge_locked(limit, needed);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.what.contains(what), "{finding:?}");
        }
    }

    #[test]
    fn rings_count_only_on_new_kernels_and_without_the_capability() {
        let settings = Settings { shards: 64, ..Settings::default() };
        let need = |release: &str, may_lock_memory| {
            let kernel_release = Some(release.to_owned());
            locked_need(
                &settings,
                &Process { kernel_release, may_lock_memory, ..Process::default() },
            )
        };
        assert_eq!(need("6.18.0", true), LOCKED_MIN);
        assert_eq!(need("6.13.9", false), LOCKED_MIN);
        assert_eq!(need("6.14.0", false), 64 * shard_locked(&settings));
    }

    #[test]
    fn bounds_above_the_memory_are_a_warning() {
        let settings = Settings { shards: 2, ..Settings::default() };
        let bound = 2 * settings.shard_bytes_max();
        let file = "/sys/fs/cgroup/ringmq.service/memory.high";
        let judge = |size| {
            let set_by = Some(file.into());
            judge_bounds(&settings, Some(Allowance { size, set_by }))
        };
        assert_eq!(judge(bound).level, Level::Ok);
        assert_eq!(judge(bound - 1).level, Level::Warn);
        // An operator who wonders finds the file.
        assert!(judge(bound).what.contains(file) && judge(bound - 1).what.contains(file));
        assert_eq!(judge_bounds(&settings, None).level, Level::Ok);
        let settings = Settings { memory_max: 5 << 30, ..settings };
        let judge = |size| judge_bounds(&settings, Some(Allowance { size, set_by: None })).level;
        assert_eq!((judge(5 << 30), judge((5 << 30) - 1)), (Level::Ok, Level::Warn));
    }
}
