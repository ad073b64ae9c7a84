//! The cores as the kernel describes them: which share hardware, memory and speed.

use ringmq::config::kind::parse_cores;

use super::tree::Tree;

/// One core that may be used. `None`: the kernel does not say.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub number: usize,
    /// Cores that share its hardware, itself included.
    pub siblings: Option<Vec<usize>>,
    pub node: Option<usize>,
    /// The highest clock, kHz.
    pub speed_max: Option<u64>,
    /// The scheduler leaves it alone.
    pub is_isolated: bool,
    pub governor: Option<String>,
    /// The deepest idle state that is enabled: its name, and how long it takes to wake up, microseconds.
    pub deepest_idle: Option<(String, u64)>,
}

#[derive(Clone, Debug)]
pub(super) struct Topology(pub Vec<Core>);

const CORES: &str = "sys/devices/system/cpu";

impl Topology {
    pub(super) fn read(tree: &Tree, allowed: &[usize]) -> Topology {
        let isolated = tree.line(&format!("{CORES}/isolated"));
        let isolated = isolated.and_then(|text| parse_cores(&text)).unwrap_or_default();
        Topology(allowed.iter().map(|number| read_core(tree, *number, &isolated)).collect())
    }

    pub(super) fn core(&self, number: usize) -> Option<&Core> {
        self.0.iter().find(|core| core.number == number)
    }

    /// Cores that share the hardware of one of these, themselves left out.
    pub(super) fn siblings(&self, of: &[usize]) -> Vec<usize> {
        let of_each = of.iter().filter_map(|number| self.core(*number)?.siblings.clone());
        let mut all: Vec<usize> = of_each.flatten().filter(|core| !of.contains(core)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn read_core(tree: &Tree, number: usize, isolated: &[usize]) -> Core {
    let folder = format!("{CORES}/cpu{number}");
    let node =
        tree.names(&folder).into_iter().find_map(|name| name.strip_prefix("node")?.parse().ok());
    let siblings = tree.line(&format!("{folder}/topology/thread_siblings_list"));
    Core {
        number,
        siblings: siblings.and_then(|text| parse_cores(&text)),
        node,
        speed_max: tree.number(&format!("{folder}/cpufreq/cpuinfo_max_freq")),
        is_isolated: isolated.contains(&number),
        governor: tree.line(&format!("{folder}/cpufreq/scaling_governor")),
        deepest_idle: deepest_idle(tree, &format!("{folder}/cpuidle")),
    }
}

fn deepest_idle(tree: &Tree, folder: &str) -> Option<(String, u64)> {
    let states = tree.names(folder).into_iter().filter(|name| name.starts_with("state"));
    let enabled = states.filter(|name| tree.number(&format!("{folder}/{name}/disable")) != Some(1));
    let described = enabled.filter_map(|name| {
        let latency_us = tree.number(&format!("{folder}/{name}/latency"))?;
        Some((tree.line(&format!("{folder}/{name}/name")).unwrap_or(name), latency_us))
    });
    described.max_by_key(|(_, latency_us)| *latency_us)
}
