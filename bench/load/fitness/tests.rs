//! Fixture trees: what /proc and /sys of other machines say.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const CORES: &str = "sys/devices/system/cpu";

/// A tree of files that goes away with its end.
struct Fixture(PathBuf);

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Fixture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmq-bench-machine-{}-{number}", std::process::id());
        let fixture = Fixture(std::env::temp_dir().join(name));
        fs::create_dir_all(&fixture.0).expect("a folder");
        files.iter().for_each(|(path, text)| fixture.write(path, text));
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("it is below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A core of a server: `node` 0 or 1, hardware shared with `siblings`.
    fn core(&self, number: usize, node: usize, siblings: &str, khz: &str) {
        let folder = format!("{CORES}/cpu{number}");
        self.write(&format!("{folder}/topology/thread_siblings_list"), siblings);
        self.write(&format!("{folder}/node{node}/cpulist"), "");
        self.write(&format!("{folder}/cpufreq/cpuinfo_max_freq"), khz);
        self.write(&format!("{folder}/cpufreq/scaling_governor"), "performance\n");
        self.write(&format!("{folder}/cpuidle/state0/name"), "POLL\n");
        self.write(&format!("{folder}/cpuidle/state0/latency"), "0\n");
        self.write(&format!("{folder}/cpuidle/state1/name"), "C1\n");
        self.write(&format!("{folder}/cpuidle/state1/latency"), "2\n");
    }

    fn tree(&self) -> Tree {
        Tree::below(self.0.clone())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Four cores, two by two on the same hardware, nothing wrong.
fn quiet_server() -> Fixture {
    let fixture = Fixture::new(&[
        ("proc/self/cgroup", "0::/bench.slice\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu io\n"),
        ("sys/fs/cgroup/bench.slice/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/bench.slice/cpu.stat", "usage_usec 1\nnr_throttled 7\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n"),
        ("proc/stat", &stat([[0, 1000, 0]; 4])),
        ("proc/interrupts", &interrupts([10, 10, 10, 10])),
    ]);
    for core in 0..4 {
        fixture.core(core, 0, ["0,2", "1,3", "0,2", "1,3"][core], "3000000");
    }
    fixture
}

/// `busy`, `idle` and `stolen` of each core.
fn stat(cores: [[u64; 3]; 4]) -> String {
    let mut text = "cpu  1 2 3 4 5 6 7 8 0 0\n".to_string();
    for (number, [busy, idle, stolen]) in cores.iter().enumerate() {
        text += &format!("cpu{number} {busy} 0 0 {idle} 0 0 0 {stolen} 0 0\n");
    }
    text + "intr 12 0 0\nctxt 5\n"
}

fn interrupts(counts: [u64; 4]) -> String {
    let [a, b, c, d] = counts;
    format!(
        "           CPU0       CPU1       CPU2       CPU3\n \
         24: {a} {b} {c} {d}  PCI-MSI 512-edge  nvme0q1\nLOC: 9999999 9999999 9999999 9999999 Local timer interrupts\n"
    )
}

fn found(fixture: &Fixture, allowed: &[usize], watch: impl FnOnce()) -> Examination {
    examine(&fixture.tree(), allowed, None, 1, watch)
}

fn level(examination: &Examination, subject: &str) -> Level {
    let finding = examination.findings.iter().find(|finding| finding.subject == subject);
    finding.unwrap_or_else(|| panic!("nothing on {subject}")).level
}

fn unfit(examination: &Examination) -> Vec<&'static str> {
    let unfit = examination.findings.iter().filter(|finding| finding.level == Level::Unfit);
    unfit.map(|finding| finding.subject).collect()
}

#[test]
fn a_quiet_server_is_fit_and_its_generator_stays_off_the_brokers_hardware() {
    let fixture = quiet_server();
    let examination =
        found(&fixture, &[0, 1, 2, 3], || fixture.write("proc/stat", &stat([[1, 1999, 0]; 4])));
    assert_eq!(unfit(&examination), Vec::<&str>::new());
    assert!(examination.findings.iter().all(|finding| finding.level == Level::Fit));
    assert_eq!((examination.broker_cores, examination.generator_cores), (vec![0], vec![1, 3]));
}

#[test]
fn a_machine_that_shows_nothing_is_unknown_and_not_fit() {
    let fixture = Fixture::new(&[]);
    let examination = found(&fixture, &[0, 1], || {});
    assert_eq!(unfit(&examination), Vec::<&str>::new());
    let known = examination.findings.iter().filter(|finding| finding.level == Level::Fit);
    assert_eq!(known.map(|finding| finding.subject).collect::<Vec<_>>(), ["cores"]);
    assert_eq!((examination.broker_cores, examination.generator_cores), (vec![0], vec![1]));
}

#[test]
fn what_the_firmware_and_the_kernel_do_to_the_clock_is_named() {
    let fixture = quiet_server();
    fixture.write(&format!("{CORES}/cpu1/cpufreq/scaling_governor"), "schedutil\n");
    fixture.write(&format!("{CORES}/intel_pstate/no_turbo"), "0\n");
    fixture.write(&format!("{CORES}/cpu0/cpuidle/state2/name"), "C6\n");
    fixture.write(&format!("{CORES}/cpu0/cpuidle/state2/latency"), "133\n");
    fixture.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
    let examination = found(&fixture, &[0, 1, 2, 3], || {});
    assert_eq!(unfit(&examination), ["governor", "turbo", "idle states", "time"]);
    // A state that is switched off is not gone into.
    fixture.write(&format!("{CORES}/cpu0/cpuidle/state2/disable"), "1\n");
    assert_eq!(level(&found(&fixture, &[0, 1, 2, 3], || {}), "idle states"), Level::Fit);
}

#[test]
fn boost_of_other_makers_is_turbo_too() {
    for (boost, expected) in [("1", Level::Unfit), ("0", Level::Fit)] {
        let fixture = Fixture::new(&[("sys/devices/system/cpu/cpufreq/boost", boost)]);
        assert_eq!(level(&found(&fixture, &[0, 1], || {}), "turbo"), expected);
    }
}

#[test]
fn a_core_that_shares_hardware_is_unfit_where_there_is_no_other() {
    let fixture = quiet_server();
    let examination = found(&fixture, &[0, 2], || {});
    assert_eq!(unfit(&examination), ["SMT"]);
    let examination = found(&fixture, &[0], || {});
    assert_eq!(unfit(&examination), ["cores"]);
}

#[test]
fn fast_cores_left_alone_come_first_and_those_of_one_node_stay_together() {
    let fixture = Fixture::new(&[("sys/devices/system/cpu/isolated", "3\n")]);
    for (core, node) in [0, 0, 1, 1, 1].into_iter().enumerate() {
        fixture.core(core, node, &core.to_string(), ["5000000", "4000000"][usize::from(core > 0)]);
    }
    let topology = Topology::read(&fixture.tree(), &[0, 1, 2, 3, 4]);
    let choice = |broker: &[usize], generator: &[usize]| Choice {
        broker: broker.to_vec(),
        generator: generator.to_vec(),
    };
    assert_eq!(cores::choose(&topology, 1, None), choice(&[3], &[2, 4]));
    assert_eq!(cores::choose(&topology, 2, None), choice(&[2, 3], &[4]));
    // More than there are: one stays the generator's.
    assert_eq!(cores::choose(&topology, 9, None).generator.len(), 1);
    assert_eq!(cores::beside(&topology, vec![0]), choice(&[0], &[1]));
    let examination = examine(&fixture.tree(), &[1, 2], Some(vec![1]), 1, || {});
    assert_eq!(unfit(&examination), ["memory"]);
    let examination = examine(&fixture.tree(), &[0, 1], Some(vec![1]), 1, || {});
    assert_eq!(unfit(&examination), ["clock"]);
}

#[test]
fn what_goes_on_meanwhile_is_measured_on_the_cores_that_count() {
    let fixture = quiet_server();
    let examination = found(&fixture, &[0, 1], || {
        // Core 2 is not allowed, and shares the hardware of core 0.
        fixture
            .write("proc/stat", &stat([[0, 2000, 0], [0, 1960, 40], [500, 1500, 0], [0, 2000, 0]]));
    });
    assert_eq!(unfit(&examination), ["other programs", "stolen time"]);
    let said = examination.words(80);
    assert!(said.contains("core 2 was busy for 50 % of the time"), "{said}");
    assert!(said.contains("took core 1 away for 4.0 %"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 90), "{said}");
}

#[test]
fn a_core_with_many_interrupts_is_not_chosen_and_named_where_it_is_asked_for() {
    let fixture = quiet_server();
    let watch = || fixture.write("proc/interrupts", &interrupts([1_000_000, 10, 10, 10]));
    let examination = found(&fixture, &[0, 1, 2, 3], watch);
    assert_eq!(examination.broker_cores, [1]);
    assert_eq!(level(&examination, "interrupts"), Level::Fit);
    fixture.write("proc/interrupts", &interrupts([10, 10, 10, 10]));
    let watch = || fixture.write("proc/interrupts", &interrupts([1_000_000, 10, 10, 10]));
    let examination = examine(&fixture.tree(), &[0, 1, 2, 3], Some(vec![0]), 1, watch);
    let finding = examination.findings.iter().find(|finding| finding.subject == "interrupts");
    let finding = finding.expect("there is one");
    assert_eq!(finding.level, Level::Unfit);
    assert!(finding.what.contains("nvme0q1 (number 24)"), "{}", finding.what);
}

#[test]
fn the_least_quota_of_all_groups_above_counts_in_both_versions() {
    let fixture = quiet_server();
    fixture.write("proc/self/cgroup", "0::/bench.slice/inner.scope\n");
    fixture.write("sys/fs/cgroup/bench.slice/inner.scope/cpu.max", "400000 100000\n");
    assert_eq!(level(&found(&fixture, &[0, 1], || {}), "quota"), Level::Fit);
    fixture.write("sys/fs/cgroup/bench.slice/cpu.max", "150000 100000\n");
    let examination = found(&fixture, &[0, 1], || {
        fixture.write("sys/fs/cgroup/bench.slice/cpu.stat", "nr_throttled 9\n");
    });
    assert_eq!(unfit(&examination), ["quota", "throttling"]);

    // Version 1, in a container that sees its own group as the root.
    let fixture = Fixture::new(&[
        ("proc/self/cgroup", "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!(level(&found(&fixture, &[0, 1], || {}), "quota"), Level::Unfit);
    fixture.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_eq!(level(&found(&fixture, &[0, 1], || {}), "quota"), Level::Fit);
}

#[test]
fn lines_that_make_no_sense_are_passed_over() {
    let fixture = quiet_server();
    for text in ["", "cpu\ncpu0\ncpux 1 2\ncpu1 5\n", "\u{0}\u{1}", "cpu0 9 9 9 9 9 9 9 99999"] {
        fixture.write("proc/stat", text);
        fixture.write("proc/interrupts", text);
        fixture.write("proc/self/cgroup", text);
        found(&fixture, &[0, 1], || {});
    }
}
