//! The cores that workers are pinned to: there, and allowed to this process.

use std::fs;

use super::Finding;
use crate::config::kind::{cores_text, parse_cores};
use crate::config::{Settings, WaitMode};
use crate::printable::counted;
use crate::system::process::{read_line, status_field};

/// The cores of the process's affinity.
pub fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_field(&status, "Cpus_allowed_list").and_then(parse_cores).unwrap_or_default()
}

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let online = read_line("/sys/devices/system/cpu/online").and_then(|text| parse_cores(&text));
    judge(settings, &allowed_cores(), online.as_deref())
}

/// `online` is `None` where the kernel does not say.
fn judge(settings: &Settings, allowed: &[usize], online: Option<&[usize]>) -> Vec<Finding> {
    let subject = "cores";
    let select = |belongs: &dyn Fn(&usize) -> bool| -> Vec<usize> {
        settings.cores.iter().copied().filter(|core| belongs(core)).collect()
    };
    let exists = |core: &usize| online.is_none_or(|online| online.contains(core));
    let missing = select(&|core| !exists(core));
    let forbidden = select(&|core| exists(core) && !allowed.contains(core));
    let mut findings = Vec::new();
    if settings.cores.is_empty() {
        findings.push(Finding::fail(
            subject,
            "the process's affinity cannot be read",
            "mount /proc where the broker runs, or name the cores with --cores",
        ));
    }
    if !missing.is_empty() {
        findings.push(Finding::fail(
            subject,
            format!("this machine has no core {}", cores_text(&missing)),
            format!("choose from {} with --cores", cores_text(allowed)),
        ));
    }
    if !forbidden.is_empty() {
        findings.push(Finding::fail(
            subject,
            format!("core {} is not among those that the process may use", cores_text(&forbidden)),
            format!(
                "choose from {} with --cores, or widen the affinity (taskset, cpuset, AllowedCPUs=)",
                cores_text(allowed)
            ),
        ));
    }
    if findings.is_empty() {
        findings.push(judge_load(settings));
    }
    findings
}

fn judge_load(settings: &Settings) -> Finding {
    let subject = "cores";
    let shard_count = settings.shard_count() as usize;
    let core_count = settings.cores.len();
    let shards = counted(shard_count as u64, "shards");
    let what = format!("{}: {shards}", cores_text(&settings.cores));
    if shard_count > core_count && settings.wait == WaitMode::Spin {
        return Finding::warn(
            subject,
            format!("{what} that spin take the cores from each other"),
            "set wait to sleep, or leave shards at 0: one for each core",
        );
    }
    if shard_count > core_count {
        return Finding::warn(
            subject,
            format!("{what} share the cores"),
            "for speed, leave shards at 0: one for each core",
        );
    }
    if shard_count < core_count {
        let idle = cores_text(&settings.cores[shard_count..]);
        return Finding::warn(
            subject,
            format!("{what}, so core {idle} stays idle"),
            "leave shards at 0 for one on each core, or name fewer cores",
        );
    }
    Finding::ok(subject, if shard_count == 1 { what } else { what + ", one on each" })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn cores_must_exist_and_be_allowed() {
        let cases: [(&[usize], u16, &[Level], &str); 7] = [
            (&[0, 1], 0, &[Level::Ok], "0-1: 2 shards"),
            (&[1], 0, &[Level::Ok], "1: 1 shard"),
            (&[0, 1], 4, &[Level::Warn], "share"),
            (&[0, 1], 1, &[Level::Warn], "core 1 stays idle"),
            (&[0, 9], 0, &[Level::Fail], "no core 9"),
            (&[0, 3], 0, &[Level::Fail], "core 3 is not among"),
            (&[], 0, &[Level::Fail], "cannot be read"),
        ];
        for (cores, shards, levels, what) in cases {
            let settings = Settings { cores: cores.to_vec(), shards, ..Settings::default() };
            let found = judge(&settings, &[0, 1], Some(&[0, 1, 2, 3]));
            let seen: Vec<_> = found.iter().map(|finding| finding.level).collect();
            assert_eq!(seen, levels, "{found:?}");
            assert!(found[0].what.contains(what), "{found:?}");
        }
        let spinning =
            Settings { cores: vec![0], shards: 2, wait: WaitMode::Spin, ..Settings::default() };
        assert!(judge(&spinning, &[0], None)[0].what.contains("spin"));
        let both = Settings { cores: vec![3, 9], ..Settings::default() };
        assert_eq!(judge(&both, &[0, 1], Some(&[0, 1, 2, 3])).len(), 2);
        assert_eq!(judge(&both, &[3, 9], None)[0].level, Level::Ok);
    }
}
