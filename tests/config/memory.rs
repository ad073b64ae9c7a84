//! Memory limits of control groups, live: the binary runs in a group of this test's own, where the machine allows one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{entries, ringmq, stderr, stdout};

/// A control group of version 1 below the one that the test runs in; it goes with its owner.
pub(crate) struct Group(PathBuf);

impl Group {
    /// `None` where groups may not be made; says so.
    pub(crate) fn new(name: &str, limit: u64) -> Option<Group> {
        let made = Group::make(name, limit);
        if made.is_none() {
            println!("SKIPPED: no memory group of version 1 may be made here");
        }
        made
    }

    fn make(name: &str, limit: u64) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| line.split_once(":memory:"))?.1.to_owned();
        let parent = Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/'));
        let folder = parent.join(format!("ringmq-{name}-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Group(folder);
        fs::write(group.0.join("memory.limit_in_bytes"), limit.to_string()).ok()?;
        Some(group)
    }

    /// A group without a limit of its own below this one.
    fn inner(&self) -> Group {
        let folder = self.0.join("inner");
        fs::create_dir(&folder).unwrap();
        Group(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.0).arg(env!("CARGO_BIN_EXE_ringmq"));
        command.args(arguments).output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_limit_of_a_group_and_of_its_parent_is_found_and_defaults_follow() {
    let Some(group) = Group::new("limit", 300 << 20) else { return };
    let inner = group.inner();
    for group in [&group, &inner] {
        let arguments = ["check", "--listen", "0", "--shards", "2", "--io", "epoll"];
        let printed = stdout(&group.run(&arguments));
        // The kernel's file is named, and the broker's defaults fit.
        assert!(printed.contains("\nok    memory  "), "{printed}");
        let words: Vec<_> = printed.split_whitespace().collect();
        assert!(words.join(" ").contains("300 MiB (/sys/fs/cgroup/memory/"), "{printed}");
    }
    let in_group = inner.run(&["config", "--shards", "2"]);
    assert_eq!(stderr(&in_group), "");
    let in_group = stdout(&in_group);
    let lines: Vec<_> = in_group.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("shard_stored_bytes_max = ")).unwrap();
    assert!(lines[at - 1].contains(" Here: \""), "{}", lines[at - 1]);
    // What is printed loads elsewhere as the same.
    let outside = stdout(&ringmq(&["config", "--shards", "2"]));
    assert_eq!(entries(&in_group), entries(&outside));
}

#[test]
fn what_is_set_above_the_limit_is_a_warning_with_the_file() {
    let Some(group) = Group::new("set", 300 << 20) else { return };
    let arguments = [
        "check",
        "--listen",
        "0",
        "--shards",
        "2",
        "--io",
        "epoll",
        "--retained-bytes-max",
        "1GiB",
    ];
    let printed = stdout(&group.run(&arguments));
    assert!(printed.contains("\nwarn  memory  "), "{printed}");
}
