//! Facts that the kernel tells about this process and its machine.

use std::env;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::Resource;

use super::calls::{resource_limit, set_resource_limit};
use super::kernel;

/// The number of the capability that lifts the limit on locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// Facts about this process; `None` where `/proc` does not tell.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub kernel_release: Option<String>,
    /// `kernel.io_uring_disabled`; absent before Linux 6.6.
    pub io_uring_disabled: Option<u32>,
    /// Whether system calls are filtered.
    pub is_filtered: bool,
    pub may_lock_memory: bool,
    pub container: Option<Container>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Docker,
    Podman,
    Kubernetes,
}

impl Process {
    pub fn read() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Process {
            kernel_release: kernel::read_release(),
            io_uring_disabled: read_line("/proc/sys/kernel/io_uring_disabled")
                .and_then(|text| text.parse().ok()),
            is_filtered: status_field(&status, "Seccomp").is_some_and(|mode| mode == "2"),
            may_lock_memory: status_field(&status, "CapEff")
                .and_then(|mask| u64::from_str_radix(mask, 16).ok())
                .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1),
            container: container(),
        }
    }
}

/// Raises the soft limit to the hard one, or to the `needed` value, as far as that is allowed; returns the soft limit.
pub fn raise_limit(resource: Resource, needed: u64) -> io::Result<u64> {
    let (soft, hard) = resource_limit(resource)?;
    let wanted = hard.max(needed);
    // Only a privileged process may pass the hard limit.
    for limit in [wanted, hard] {
        if soft >= limit || set_resource_limit(resource, limit).is_ok() {
            return Ok(soft.max(limit));
        }
    }
    Ok(soft)
}

/// The first line of a file of `/proc` or `/sys`.
pub fn read_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// A field of `/proc/self/status`.
pub fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn container() -> Option<Container> {
    if env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Some(Container::Kubernetes)
    } else if Path::new("/run/.containerenv").exists() {
        Some(Container::Podman)
    } else if Path::new("/.dockerenv").exists() {
        Some(Container::Docker)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::status_field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tringmq\nSeccomp_filters:\t3\nSeccomp:\t2\nCapEff:\t0000000000004000\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "Seccomp_filters"), Some("3"));
        assert_eq!(status_field(status, "Cap"), None);
    }
}
