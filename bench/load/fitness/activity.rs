//! What a machine does while nobody measures: programs, interrupts, and a hypervisor that takes cores away.

use std::collections::BTreeMap;
use std::time::Instant;

use super::quota;
use super::tree::Tree;

/// Counters of the kernel at a time.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    at: Instant,
    /// By core.
    ticks: Option<BTreeMap<usize, Ticks>>,
    /// By source and core; the sources in the kernel's words.
    interrupts: Option<BTreeMap<(String, usize), u64>>,
    /// How often the quota of this process's group stopped it.
    throttled: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    total: u64,
    busy: u64,
    stolen: u64,
}

/// What happened between two readings. `None`: the kernel does not show it.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    /// By core: the shares of time in which programs ran, and in which the hypervisor had taken the core away.
    pub shares: Option<BTreeMap<usize, Shares>>,
    /// By core: the devices' interrupts per second, and the source of most of them.
    pub interrupts: Option<BTreeMap<usize, (f64, String)>>,
    pub throttled: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    pub busy: f64,
    pub stolen: f64,
}

impl Reading {
    pub(super) fn take(tree: &Tree) -> Reading {
        Reading {
            at: Instant::now(),
            ticks: tree.text("proc/stat").map(|text| read_ticks(&text)),
            interrupts: tree.text("proc/interrupts").map(|text| read_interrupts(&text)),
            throttled: quota::throttled(tree),
        }
    }

    pub(super) fn since(&self, before: &Reading) -> Activity {
        let elapsed_s = (self.at - before.at).as_secs_f64().max(1e-9);
        let ticks = self.ticks.as_ref().zip(before.ticks.as_ref());
        let interrupts = self.interrupts.as_ref().zip(before.interrupts.as_ref());
        Activity {
            shares: ticks.map(|(after, before)| shares(after, before)),
            interrupts: interrupts.map(|(after, before)| rates(after, before, elapsed_s)),
            throttled: self
                .throttled
                .zip(before.throttled)
                .map(|(after, before)| after.saturating_sub(before)),
        }
    }
}

/// Lines as `cpu3 user nice system idle iowait irq softirq steal ...`, in ticks.
fn read_ticks(text: &str) -> BTreeMap<usize, Ticks> {
    let of_core = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let core = words.next()?.parse().ok()?;
        let fields: Vec<u64> = words.map_while(|word| word.parse().ok()).take(8).collect();
        let total: u64 = fields.iter().sum();
        let idle = fields.get(3)? + fields.get(4).unwrap_or(&0);
        let stolen = fields.get(7).copied().unwrap_or(0);
        Some((core, Ticks { total, busy: total - idle - stolen, stolen }))
    };
    // The sum of all cores has no number.
    text.lines().filter_map(of_core).collect()
}

fn shares(
    after: &BTreeMap<usize, Ticks>,
    before: &BTreeMap<usize, Ticks>,
) -> BTreeMap<usize, Shares> {
    let of_core = |(core, after): (&usize, &Ticks)| {
        let before = before.get(core)?;
        let total = after.total.saturating_sub(before.total).max(1) as f64;
        let share = |after: u64, before: u64| after.saturating_sub(before) as f64 / total;
        let stolen = share(after.stolen, before.stolen);
        Some((*core, Shares { busy: share(after.busy, before.busy), stolen }))
    };
    after.iter().filter_map(of_core).collect()
}

/// A line of cores, then lines as `24: 10 0 IO-APIC 5-edge virtio0`. Sources without a number are the kernel's own: timers
/// and calls between cores, which follow from what runs there.
fn read_interrupts(text: &str) -> BTreeMap<(String, usize), u64> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let cores: Vec<usize> = header
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("CPU")?.parse().ok())
        .collect();
    let mut counts = BTreeMap::new();
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let Ok(number) = number.trim().parse::<u32>() else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let device = words.get(cores.len()..).and_then(|behind| behind.last()).copied();
        let source = format!("{} (number {number})", device.unwrap_or("a device"));
        for (core, word) in cores.iter().zip(&words) {
            counts.insert((source.clone(), *core), word.parse().unwrap_or(0));
        }
    }
    counts
}

fn rates(
    after: &BTreeMap<(String, usize), u64>,
    before: &BTreeMap<(String, usize), u64>,
    elapsed_s: f64,
) -> BTreeMap<usize, (f64, String)> {
    let mut found: BTreeMap<usize, (f64, f64, String)> = BTreeMap::new();
    for ((source, core), count) in after {
        let new = count - before.get(&(source.clone(), *core)).unwrap_or(&0).min(count);
        let rate = new as f64 / elapsed_s;
        let (sum, most, who) = found.entry(*core).or_default();
        *sum += rate;
        if rate >= *most {
            (*most, *who) = (rate, source.clone());
        }
    }
    found.into_iter().map(|(core, (sum, _, who))| (core, (sum, who))).collect()
}
