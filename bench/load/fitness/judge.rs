//! The findings: each says what is, whether that suits a measurement, and what to do.

use ringmq::config::kind::cores_text;
use ringmq::printable::counted;
use serde::Serialize;

use super::activity::Activity;
use super::cores::{BUSY_MAX, Choice, INTERRUPTS_MAX};
use super::quota;
use super::topology::{Core, Topology};
use super::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    Fit,
    /// Figures are worse here, or differ from run to run.
    Unfit,
    /// The kernel does not show it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub subject: &'static str,
    pub level: Level,
    /// What is.
    pub what: String,
    /// What to do; empty if nothing is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    fn fit(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Fit, what: what.into(), remedy: String::new() }
    }

    fn unfit(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Unfit, what: what.into(), remedy: remedy.into() }
    }

    fn unknown(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Unknown, what: what.into(), remedy: String::new() }
    }
}

/// The longest time to wake up from an idle state, microseconds.
const WAKE_UP_US_MAX: u64 = 20;
/// Clocks that are read without a call of the kernel.
const QUICK_CLOCKS: [&str; 4] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

pub(super) fn all(
    tree: &Tree,
    topology: &Topology,
    activity: &Activity,
    choice: &Choice,
) -> Vec<Finding> {
    let mut findings = at_rest(tree, topology, choice);
    let used = used(choice);
    findings.push(others(activity, topology, &used));
    findings.push(stolen(activity, &used));
    findings.push(interrupts(activity, &choice.broker));
    findings.push(throttled(activity));
    findings
}

/// What is known without watching.
pub(super) fn at_rest(tree: &Tree, topology: &Topology, choice: &Choice) -> Vec<Finding> {
    let used = used(choice);
    let cores: Vec<&Core> = used.iter().filter_map(|number| topology.core(*number)).collect();
    vec![
        count(choice),
        hardware(topology, choice),
        nodes(topology, choice),
        governor(&cores),
        turbo(tree),
        speed(topology, choice),
        idle(&cores),
        group(tree, used.len()),
        clock(tree),
    ]
}

fn used(choice: &Choice) -> Vec<usize> {
    let mut used = [&choice.broker[..], &choice.generator].concat();
    used.sort_unstable();
    used.dedup();
    used
}

fn count(choice: &Choice) -> Finding {
    let subject = "cores";
    let Choice { broker, generator } = choice;
    if generator.iter().any(|core| !broker.contains(core)) {
        let what =
            format!("broker on {}, generator on {}", cores_text(broker), cores_text(generator));
        return Finding::fit(subject, what);
    }
    Finding::unfit(
        subject,
        "broker and generator take the only core from each other",
        "allow this process two cores or more (taskset, cpuset, a larger machine)",
    )
}

fn hardware(topology: &Topology, choice: &Choice) -> Finding {
    let subject = "SMT";
    let of_broker = choice.broker.iter().map(|number| topology.core(*number));
    if of_broker.into_iter().any(|core| core.is_none_or(|core| core.siblings.is_none())) {
        return Finding::unknown(subject, "the kernel does not say which cores share hardware");
    }
    let siblings = topology.siblings(&choice.broker);
    let text = cores_text(&siblings);
    let broker = cores_text(&choice.broker);
    if siblings.is_empty() {
        return Finding::fit(subject, format!("core {broker} shares its hardware with none"));
    }
    if siblings.iter().any(|core| choice.generator.contains(core)) {
        return Finding::unfit(
            subject,
            format!("the generator's core {text} shares hardware with the broker's {broker}"),
            "choose other cores with --cores, or switch SMT off: echo off > /sys/devices/system/cpu/smt/control",
        );
    }
    Finding::fit(subject, format!("core {text} shares hardware with {broker}, and is left alone"))
}

fn nodes(topology: &Topology, choice: &Choice) -> Finding {
    let subject = "memory";
    let mut nodes = Vec::new();
    for number in used(choice) {
        let Some(node) = topology.core(number).and_then(|core| core.node) else {
            return Finding::unknown(
                subject,
                "the kernel does not say to which node a core belongs",
            );
        };
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    match nodes.len() {
        0 | 1 => Finding::fit(subject, "all cores belong to one node"),
        _ => Finding::unfit(
            subject,
            format!("the cores belong to {}", counted(nodes.len() as u64, "nodes")),
            "choose cores of one node: lscpu names them",
        ),
    }
}

fn governor(cores: &[&Core]) -> Finding {
    let subject = "governor";
    let Some(governors) =
        cores.iter().map(|core| core.governor.as_deref()).collect::<Option<Vec<_>>>()
    else {
        return Finding::unknown(
            subject,
            "the kernel shows no frequency scaling: the host or the firmware decides",
        );
    };
    match governors.iter().find(|governor| **governor != "performance") {
        None => Finding::fit(subject, "performance"),
        Some(other) => Finding::unfit(
            subject,
            format!(
                "{other}: the clock follows the load, so little load costs more time a message"
            ),
            "cpupower frequency-set -g performance",
        ),
    }
}

fn turbo(tree: &Tree) -> Finding {
    let subject = "turbo";
    let folder = "sys/devices/system/cpu";
    let intel = tree.number(&format!("{folder}/intel_pstate/no_turbo")).map(|off| off == 0);
    let other = || tree.number(&format!("{folder}/cpufreq/boost")).map(|on| on == 1);
    match intel.or_else(other) {
        None => Finding::unknown(
            subject,
            "the kernel does not say whether cores are clocked above their rating",
        ),
        Some(false) => Finding::fit(subject, "off"),
        Some(true) => Finding::unfit(
            subject,
            "on: the clock depends on heat and on what other cores do",
            match intel {
                Some(_) => "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo",
                None => "echo 0 > /sys/devices/system/cpu/cpufreq/boost",
            },
        ),
    }
}

fn speed(topology: &Topology, choice: &Choice) -> Finding {
    let subject = "clock";
    let speed = |core: &Core| core.speed_max;
    let broker: Option<Vec<u64>> =
        choice.broker.iter().map(|number| topology.core(*number).and_then(speed)).collect();
    let best = topology.0.iter().filter_map(speed).max();
    let Some((slowest, best)) = broker.and_then(|of| of.into_iter().min()).zip(best) else {
        return Finding::unknown(subject, "the kernel does not say how fast each core is");
    };
    let mhz = |khz: u64| khz / 1000;
    if slowest < best {
        return Finding::unfit(
            subject,
            format!("the broker's core has {} MHz, others here {}", mhz(slowest), mhz(best)),
            "choose a fast core with --cores",
        );
    }
    Finding::fit(subject, format!("{} MHz, no core here has more", mhz(best)))
}

fn idle(cores: &[&Core]) -> Finding {
    let subject = "idle states";
    let deepest = cores.iter().filter_map(|core| core.deepest_idle.as_ref());
    match deepest.max_by_key(|(_, latency_us)| *latency_us) {
        None => Finding::unknown(subject, "the kernel shows none: a host may have its own"),
        Some((name, latency_us)) if *latency_us > WAKE_UP_US_MAX => Finding::unfit(
            subject,
            format!(
                "{name} takes {latency_us} us to wake up: latencies at a low rate have it in them"
            ),
            format!("cpupower idle-set -D {WAKE_UP_US_MAX}"),
        ),
        Some((name, latency_us)) => {
            Finding::fit(subject, format!("{name}, the deepest, takes {latency_us} us to wake up"))
        }
    }
}

fn group(tree: &Tree, core_count: usize) -> Finding {
    let subject = "quota";
    match quota::quota(tree) {
        None => Finding::unknown(subject, "no control group can be read"),
        Some(None) => Finding::fit(subject, "no control group limits processor time"),
        Some(Some(cores)) if cores < core_count as f64 => Finding::unfit(
            subject,
            format!(
                "the control group may use {cores:.2} cores, and {core_count} are wanted: all stop until it may again"
            ),
            "raise or remove it: CPUQuota=, docker --cpus, cpu.max",
        ),
        Some(Some(cores)) => {
            Finding::fit(subject, format!("the control group may use {cores:.2} cores: enough"))
        }
    }
}

fn clock(tree: &Tree) -> Finding {
    let subject = "time";
    let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    match tree.line(path) {
        None => Finding::unknown(subject, "the kernel does not name its clock"),
        Some(clock) if QUICK_CLOCKS.contains(&clock.as_str()) => Finding::fit(subject, clock),
        Some(clock) => Finding::unfit(
            subject,
            format!("the clock is {clock}: each look at it is a call of the kernel"),
            "boot with clocksource=tsc, if the machine's is steady (dmesg says why it is not used)",
        ),
    }
}

fn others(activity: &Activity, topology: &Topology, used: &[usize]) -> Finding {
    let subject = "other programs";
    let Some(shares) = &activity.shares else {
        return Finding::unknown(subject, "/proc/stat cannot be read");
    };
    // What runs beside a core on its hardware slows it down as well.
    let mut concerned = topology.siblings(used);
    concerned.extend(used);
    let busy = concerned.iter().filter_map(|core| Some((core, shares.get(core)?.busy)));
    match busy.max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        None => Finding::unknown(subject, "/proc/stat has none of these cores"),
        Some((core, share)) if share > BUSY_MAX => Finding::unfit(
            subject,
            format!("core {core} was busy for {:.0} % of the time", share * 100.0),
            "end what runs: ps -eLo psr,pcpu,comm --sort=-pcpu | head",
        ),
        Some((_, share)) => Finding::fit(
            subject,
            format!("the busiest core was busy for {:.1} % of the time", share * 100.0),
        ),
    }
}

fn stolen(activity: &Activity, used: &[usize]) -> Finding {
    let subject = "stolen time";
    let shares = activity.shares.as_ref();
    let of_used = used.iter().filter_map(|core| Some((core, shares?.get(core)?.stolen)));
    match of_used.max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        None => Finding::unknown(subject, "/proc/stat does not show it"),
        Some((core, share)) if share > 0.01 => Finding::unfit(
            subject,
            format!("the hypervisor took core {core} away for {:.1} % of the time", share * 100.0),
            "measure on a machine of its own, or when its neighbours are quiet",
        ),
        Some((_, share)) => {
            Finding::fit(subject, format!("the hypervisor took {:.1} % at most", share * 100.0))
        }
    }
}

fn interrupts(activity: &Activity, broker: &[usize]) -> Finding {
    let subject = "interrupts";
    let rates = activity.interrupts.as_ref();
    let of_broker = broker.iter().filter_map(|core| Some((core, rates?.get(core)?)));
    match of_broker.max_by(|(_, (one, _)), (_, (other, _))| one.total_cmp(other)) {
        None => {
            Finding::unknown(subject, "/proc/interrupts does not show those of the broker's core")
        }
        Some((core, (rate, source))) if *rate > INTERRUPTS_MAX => Finding::unfit(
            subject,
            format!("core {core} takes {rate:.0} a second, most of {source}"),
            "send them elsewhere: echo N > /proc/irq/NUMBER/smp_affinity_list, without irqbalance",
        ),
        Some((core, (rate, _))) => {
            Finding::fit(subject, format!("core {core} takes {rate:.0} a second from devices"))
        }
    }
}

fn throttled(activity: &Activity) -> Finding {
    let subject = "throttling";
    match activity.throttled {
        None => Finding::unknown(subject, "no control group counts it"),
        Some(0) => Finding::fit(subject, "the control group was not stopped"),
        Some(count) => Finding::unfit(
            subject,
            format!("the control group was stopped {} over its quota", counted(count, "times")),
            "raise or remove its quota: CPUQuota=, docker --cpus, cpu.max",
        ),
    }
}
