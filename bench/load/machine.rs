//! The machine and its processes: cores, limits, processor time and memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::Instant;

use ringmq::printable::counted;
use ringmq::system::calls::{resource_limit, set_resource_limit};
use rustix::io::Errno;
use rustix::process::{Pid, Resource};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Nanoseconds since the bench began: the clock of all send times and latencies.
pub(crate) fn now_ns() -> u64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let ns = BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64;
    SKEW.get().map_or(ns, |skew| skew.apply(ns))
}

static SKEW: OnceLock<Skew> = OnceLock::new();

/// What makes the clock wrong, to show what that does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skew {
    pub offset_ns: i64,
    pub drift_ppm: i64,
}

impl Skew {
    /// An hour: no offset goes below it.
    const BASE_NS: i64 = 3_600_000_000_000;

    fn apply(&self, ns: u64) -> u64 {
        let drift = (i128::from(ns) * i128::from(self.drift_ppm) / 1_000_000) as i64;
        (Skew::BASE_NS + self.offset_ns + ns as i64 + drift) as u64
    }
}

/// From here on the clock is wrong.
pub(crate) fn set_clock_wrong(skew: Skew) {
    let _ = SKEW.set(skew);
}

/// What the machine's monotonic clock showed when this one showed nothing, and by how much that may be wrong, nanoseconds:
/// processes of one machine have that clock in common.
pub(crate) fn clock_origin_ns() -> (i64, u64) {
    let one = || {
        let before = now_ns();
        let monotonic = clock_gettime(ClockId::Monotonic);
        let after = now_ns();
        let ns = monotonic.tv_sec * 1_000_000_000 + monotonic.tv_nsec;
        (ns - before.midpoint(after) as i64, after - before)
    };
    (0..20).map(|_| one()).min_by_key(|(_, width)| *width).expect("there are some")
}

/// Keeps the calling thread busy.
#[cold]
pub(crate) fn work(span_ns: u64) {
    let end = now_ns() + span_ns;
    while now_ns() < end {
        std::hint::spin_loop();
    }
}

/// The cores that a process may run on; 0 is this one.
pub(crate) fn cores_of(pid: u32) -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(pid as i32))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps the calling thread, and what it starts from here on, on these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(Errno::INVAL.into());
        }
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the open-file limit so that `count` connections fit; for the broker that is started later too.
pub(crate) fn raise_open_files(count: usize) -> Result<(), String> {
    let wanted = count as u64 + 256;
    let (soft, hard) = resource_limit(Resource::Nofile).map_err(|error| error.to_string())?;
    if soft >= wanted && soft == hard {
        return Ok(());
    }
    let hard_wanted = hard.max(wanted);
    if set_resource_limit(Resource::Nofile, hard_wanted).is_ok() {
        return Ok(());
    }
    if hard < wanted {
        return Err(format!(
            "{count} connections need {wanted} open files and the hard limit is {hard}: raise it with `ulimit -Hn {wanted}` as root"
        ));
    }
    set_resource_limit(Resource::Nofile, hard).map_err(|error| error.to_string())
}

/// Nanoseconds that a thread, or several, ran, and that they were ready to run while others had the core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    pub ran: u64,
    pub waited: u64,
}

impl Time {
    pub(crate) fn busy(&self) -> u64 {
        self.ran + self.waited
    }

    fn since(&self, earlier: &Time) -> Time {
        let waited = self.waited.saturating_sub(earlier.waited);
        Time { ran: self.ran.saturating_sub(earlier.ran), waited }
    }
}

/// Processor time of the threads of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessorTime {
    threads: BTreeMap<u32, Time>,
}

impl ProcessorTime {
    /// Of all threads of a process. Threads that have ended are not in it: brokers keep theirs.
    pub(crate) fn of_process(pid: u32) -> io::Result<ProcessorTime> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Ok(time) = thread_time(pid, thread) {
                threads.insert(thread, time);
            }
        }
        Ok(ProcessorTime { threads })
    }

    pub(crate) fn has(&self, thread: u32) -> bool {
        self.threads.contains_key(&thread)
    }

    /// What each thread used since `earlier`, of those that `wanted` names.
    pub(crate) fn since<'a>(
        &'a self,
        earlier: &'a ProcessorTime,
        wanted: impl Fn(u32) -> bool + 'a,
    ) -> impl Iterator<Item = Time> + 'a {
        let wanted = self.threads.iter().filter(move |(thread, _)| wanted(**thread));
        wanted.map(|(thread, time)| {
            time.since(earlier.threads.get(thread).unwrap_or(&Time::default()))
        })
    }
}

/// The scheduler's own account; utime and stime, in ticks of 10 ms, where the kernel keeps none.
fn thread_time(pid: u32, thread: u32) -> io::Result<Time> {
    let account = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"));
    let account = account.unwrap_or_default();
    let mut numbers = account.split_whitespace().map_while(|text| text.parse::<u64>().ok());
    if let Some((ran, waited)) = numbers.next().zip(numbers.next()) {
        return Ok(Time { ran, waited });
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat"))?;
    // The name in front may hold spaces and parentheses; behind it, fields 14 and 15 are the 12th and 13th.
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields = behind_name.split(' ').skip(11).take(2);
    let ticks: u64 = fields.filter_map(|text| text.parse::<u64>().ok()).sum();
    Ok(Time { ran: ticks * 10_000_000, waited: 0 })
}

/// Resident memory of a process, bytes.
pub(crate) fn resident_size(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes
        .map(|size: u64| size * 1024)
        .ok_or_else(|| io::Error::other("no VmRSS in /proc: the process has ended"))
}

/// What a result was measured on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub core_count: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub virtual_machine: bool,
}

impl Machine {
    pub(crate) fn describe() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = memory.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
        Machine {
            processor: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            core_count: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_string(),
            virtual_machine: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }

    /// In a line.
    pub(crate) fn words(&self) -> String {
        let Machine { processor, core_count, memory_mib, kernel, virtual_machine } = self;
        let cores = counted(*core_count as u64, "cores");
        let memory = *memory_mib as f64 / 1024.0;
        let is_virtual = if *virtual_machine { ", virtual machine" } else { "" };
        format!("{processor}, {cores}, {memory:.0} GiB{is_virtual}, Linux {kernel}")
    }
}
