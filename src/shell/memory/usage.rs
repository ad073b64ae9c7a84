//! The memory that the process uses: its own pages, and the kernel's memory for its sockets.

use std::fs;
use std::path::Path;

use super::control_groups::ControlGroups;
use crate::system::process::{Process, status_field};

/// What `/proc/net/sockstat` counts in.
const SOCKET_PAGE: u64 = 4 << 10;

/// Of the most that may be used: above the first part there is little, below the second there is enough again.
const SHORT_PART: u64 = 90;
const ENOUGH_PART: u64 = 80;

/// Looks between two times of giving memory back while there is little.
const LOOKS_PER_RETURN: u32 = 10;

/// Asks the kernel.
#[derive(Debug)]
pub(super) struct Usage {
    groups: ControlGroups,
    /// What sockets of the machine held when this began: that was not ours. `None`: others share the machine.
    sockets_before: Option<u64>,
}

impl Usage {
    pub(super) fn begin() -> Usage {
        let is_shared = Process::read().container.is_some();
        let sockets_before = if is_shared { None } else { machine_sockets() };
        Usage { groups: ControlGroups::find(Path::new("/")), sockets_before }
    }

    /// Bytes of anonymous memory and of sockets; `None` where the kernel does not say.
    pub(super) fn read(&self) -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let own = anonymous(&status)?;
        // Sockets are counted for a group of one's own, or else for the whole machine, which a container shares with others.
        let of_machine = || Some(machine_sockets()?.saturating_sub(self.sockets_before?));
        let sockets = self.groups.sockets().or_else(of_machine);
        Some(own.saturating_add(sockets.unwrap_or(0)))
    }
}

/// Anonymous memory of the process, from `/proc/self/status`.
fn anonymous(status: &str) -> Option<u64> {
    let size = status_field(status, "RssAnon")?.strip_suffix("kB")?;
    Some(size.trim().parse::<u64>().ok()? << 10)
}

fn machine_sockets() -> Option<u64> {
    parse_sockets(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

/// What TCP holds, of a line such as `TCP: inuse 1 orphan 0 tw 63 alloc 1 mem 5`.
fn parse_sockets(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
    Some(words.nth(1)?.parse::<u64>().ok()? * SOCKET_PAGE)
}

/// Whether there is little memory, told when it changes.
#[derive(Debug)]
pub(super) struct Shortage {
    max: u64,
    is_short: bool,
    looks: u32,
}

impl Shortage {
    pub(super) fn new(max: u64) -> Shortage {
        Shortage { max, is_short: false, looks: 0 }
    }

    /// `Some` when it has become or ceased to be short. Between the two marks it stays as it is.
    pub(super) fn look(&mut self, used: u64) -> Option<bool> {
        let part = |percent: u64| (u128::from(self.max) * u128::from(percent) / 100) as u64;
        let is_short =
            if self.is_short { used >= part(ENOUGH_PART) } else { used >= part(SHORT_PART) };
        let has_changed = is_short != self.is_short;
        self.looks = if has_changed { 0 } else { self.looks.wrapping_add(1) };
        self.is_short = is_short;
        has_changed.then_some(is_short)
    }

    /// Whether freed memory shall be given back at this look: now and then while there is little.
    pub(super) fn gives_back(&self) -> bool {
        self.is_short && self.looks > 0 && self.looks.is_multiple_of(LOOKS_PER_RETURN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_and_sockets_are_found_in_what_the_kernel_says() {
        let status = "VmRSS:\t    9000 kB\nRssAnon:\t    1234 kB\nRssFile:\t 5 kB\n";
        assert_eq!(anonymous(status), Some(1234 << 10));
        assert_eq!(anonymous("VmRSS:\t 9000 kB\n"), None);
        let text =
            "sockets: used 20\nTCP: inuse 1 orphan 0 tw 63 alloc 1 mem 7\nUDP: inuse 0 mem 9\n";
        assert_eq!(parse_sockets(text), Some(7 << 12));
        assert_eq!(parse_sockets("UDP: inuse 0 mem 9\n"), None);
    }

    #[test]
    fn what_this_process_takes_is_seen() {
        let usage = Usage::begin();
        let before = usage.read().unwrap();
        let held = vec![1u8; 64 << 20];
        let after = usage.read().unwrap();
        assert!(after >= before + (48 << 20), "{before} bytes, then {after}");
        drop(held);
    }

    #[test]
    fn a_shortage_begins_near_the_most_and_ends_well_below() {
        let mut shortage = Shortage::new(1_000);
        let told: Vec<_> =
            [0, 899, 900, 5_000, 850, 800, 799, 899, 900].map(|used| shortage.look(used)).into();
        let expected = [None, None, Some(true), None, None, None, Some(false), None, Some(true)];
        assert_eq!(told, expected);
    }

    #[test]
    fn memory_is_given_back_now_and_then_while_there_is_little() {
        let mut shortage = Shortage::new(1_000);
        let mut given = |used| {
            shortage.look(used);
            shortage.gives_back()
        };
        assert!((0..50).all(|_| !given(100)));
        assert_eq!((0..=30).filter(|_| given(950)).count(), 3);
        assert!((0..50).all(|_| !given(100)));
    }
}
