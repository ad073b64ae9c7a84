//! The memory that this process may use: the machine's, or the least that a control group allows.
//!
//! All groups count from the process's own up to the root, as far as its name space shows them; version 1 says the
//! least of the hidden ones itself. Budgets that have their default values shrink to fit (`config`), down to the least
//! that the relations between the bounds allow.

mod control_groups;
mod usage;
mod watch;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use control_groups::ControlGroups;
pub use watch::MemoryWatch;

use crate::limits::Size;

/// What may be used, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub size: u64,
    /// The file of a control group; `None`: it is the machine's whole memory.
    pub set_by: Option<PathBuf>,
}

impl Allowance {
    /// The least of the machine's memory and the limits of this process's control groups; `None` where nothing says it.
    pub fn read() -> Option<Allowance> {
        Allowance::read_below(Path::new("/"))
    }

    /// As `read`, with the files of the kernel below `root`.
    fn read_below(root: &Path) -> Option<Allowance> {
        let machine = machine_size(root).map(|size| Allowance { size, set_by: None });
        let group = ControlGroups::find(root)
            .limit()
            .map(|(size, file)| Allowance { size, set_by: Some(file) });
        // Of two that are the same, the machine's needs no explanation.
        [machine, group].into_iter().flatten().min_by_key(|allowance| allowance.size)
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&rounded(self.size))?;
        match &self.set_by {
            Some(file) => write!(out, " ({})", file.display()),
            None => Ok(()),
        }
    }
}

fn machine_size(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
    Some(line.strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// To read, not to compute with.
pub fn rounded(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        return format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    }
    if bytes >= 1 << 20 {
        return format!("{} MiB", bytes >> 20);
    }
    Size(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a kernel below a folder of the test's own.
    struct Kernel(PathBuf);

    impl Kernel {
        fn new(name: &str, files: &[(&str, &str)]) -> Kernel {
            let name = format!("ringmq-groups-{name}-{}", std::process::id());
            let kernel = Kernel(std::env::temp_dir().join(name));
            let _ = fs::remove_dir_all(&kernel.0);
            kernel.write("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\n");
            for (path, text) in files {
                kernel.write(path, text);
            }
            kernel
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MACHINE: u64 = 16_384_000 << 10;
    const V2: &str = "25 1 0:20 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    /// Which limit is found, and in which file; an empty one stands for the machine.
    fn check(name: &str, files: &[(&str, &str)], size: u64, file: &str) {
        let kernel = Kernel::new(name, files);
        let found = Allowance::read_below(&kernel.0).unwrap();
        let named = found.set_by.as_ref().map_or("", |path| path.to_str().unwrap());
        assert_eq!((found.size, named), (size, file), "{name}");
    }

    #[test]
    fn without_groups_the_machine_limits() {
        check("none", &[], MACHINE, "");
        check("no-mount", &[("proc/self/cgroup", "0::/a\n")], MACHINE, "");
        check(
            "unlimited",
            &[
                ("proc/self/cgroup", "0::/a\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/a/memory.max", "max\n"),
                ("sys/fs/cgroup/a/memory.high", "max\n"),
            ],
            MACHINE,
            "",
        );
    }

    #[test]
    fn the_least_of_all_groups_from_the_service_up_to_the_root_limits() {
        let tree = |service: &'static str, high: &'static str, slice: &'static str| {
            [
                ("proc/self/cgroup", "0::/system.slice/ringmq.service\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/cgroup.procs", ""),
                ("sys/fs/cgroup/system.slice/memory.max", slice),
                ("sys/fs/cgroup/system.slice/ringmq.service/memory.max", service),
                ("sys/fs/cgroup/system.slice/ringmq.service/memory.high", high),
                // A neighbour's limit is none of ours.
                ("sys/fs/cgroup/system.slice/other.service/memory.max", "4096\n"),
            ]
        };
        let service = "/sys/fs/cgroup/system.slice/ringmq.service";
        let max = format!("{service}/memory.max");
        check("service", &tree("314572800\n", "max\n", "max\n"), 314572800, &max);
        let high = format!("{service}/memory.high");
        check("high", &tree("314572800\n", "300000000\n", "max\n"), 300000000, &high);
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        check("slice", &tree("314572800\n", "300000000\n", "200000000\n"), 200000000, slice);
    }

    #[test]
    fn a_container_finds_its_limit_in_its_own_name_space_and_in_the_hosts() {
        let file = "/sys/fs/cgroup/memory.max";
        check(
            "own",
            &[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/memory.max", "314572800\n"),
            ],
            314572800,
            file,
        );
        // The path is the host's, the mount shows the container's part of the tree.
        check(
            "host-bound",
            &[
                ("proc/self/cgroup", "0::/docker/abc/inner\n"),
                ("proc/self/mountinfo", &V2.replace(" / /sys", " /docker/abc /sys")),
                ("sys/fs/cgroup/memory.max", "314572800\n"),
                ("sys/fs/cgroup/inner/memory.max", "400000000\n"),
            ],
            314572800,
            file,
        );
        // The path is the host's, and the mount does not say which part it shows, or shows another.
        for (name, path) in [("host-blind", "/docker/abc"), ("outside", "/../../system.slice/x")] {
            check(
                name,
                &[
                    ("proc/self/cgroup", &format!("0::{path}\n")),
                    ("proc/self/mountinfo", V2),
                    ("sys/fs/cgroup/memory.max", "314572800\n"),
                ],
                314572800,
                file,
            );
        }
    }

    #[test]
    fn groups_of_version_1_and_hybrid_trees_are_read() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let files = |hierarchy: &'static str, parent: &'static str, stat: &'static str| {
            [
                ("proc/self/cgroup", "4:memory:/a/b\n1:cpu:/c\n0::/a\n"),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/unified/a/cgroup.procs", ""),
                ("sys/fs/cgroup/cpu/c/memory.limit_in_bytes", "4096\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", parent),
                ("sys/fs/cgroup/memory/a/memory.use_hierarchy", hierarchy),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "314572800\n"),
                ("sys/fs/cgroup/memory/a/b/memory.stat", stat),
            ]
        };
        let own = "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes";
        let parent = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        check("v1", &files("1\n", "9223372036854771712\n", "cache 5\n"), 314572800, own);
        check("v1-parent", &files("1\n", "200000000\n", "cache 5\n"), 200000000, parent);
        // Without hierarchy, a group's limit is for those that are in itself.
        check("v1-flat", &files("0\n", "200000000\n", "cache 5\n"), 314572800, own);
        // A parent that this name space does not show.
        let stat = "cache 5\nhierarchical_memory_limit 100000000\n";
        let file = "/sys/fs/cgroup/memory/a/b/memory.stat";
        check("v1-hidden", &files("1\n", "200000000\n", stat), 100000000, file);
    }

    #[test]
    fn a_mount_point_with_a_space_in_its_name_is_found() {
        check(
            "space",
            &[
                ("proc/self/cgroup", "0::/a\n"),
                ("proc/self/mountinfo", "31 23 0:28 / /sys/c\\040g rw - cgroup2 cgroup2 rw\n"),
                ("sys/c g/a/memory.max", "314572800\n"),
            ],
            314572800,
            "/sys/c g/a/memory.max",
        );
    }
}
