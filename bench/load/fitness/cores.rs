//! Which cores suit a measurement best.

use std::cmp::Reverse;

use super::activity::Activity;
use super::topology::{Core, Topology};

/// The broker's cores and the generator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub broker: Vec<usize>,
    pub generator: Vec<usize>,
}

/// Devices' interrupts per second that are left out of account.
pub(super) const INTERRUPTS_MAX: f64 = 200.0;
/// A share of a core's time that is left out of account.
pub(super) const BUSY_MAX: f64 = 0.03;

/// The broker gets the fastest cores of those that are left alone, the first of equals, on one node; the generator what
/// `beside` leaves it. At least one of all cores is the generator's, unless there is only one.
pub(super) fn choose(topology: &Topology, count: usize, activity: Option<&Activity>) -> Choice {
    let mut cores: Vec<&Core> = topology.0.iter().collect();
    cores.sort_by_key(|core| {
        let is_disturbed = activity.is_some_and(|activity| is_disturbed(activity, core.number));
        (!core.is_isolated, is_disturbed, Reverse(core.speed_max), core.number)
    });
    let count = count.min(cores.len().saturating_sub(1)).max(1);
    let mut broker: Vec<usize> = Vec::new();
    while broker.len() < count {
        let first_node = broker.first().and_then(|first| topology.core(*first)?.node);
        let siblings = topology.siblings(&broker);
        let free = cores.iter().filter(|core| !broker.contains(&core.number));
        // The order of the sorted ones decides between equals.
        let best = free.min_by_key(|core| {
            let is_far = first_node.is_some() && core.node != first_node;
            (is_far, siblings.contains(&core.number))
        });
        let Some(best) = best else { break };
        broker.push(best.number);
    }
    broker.sort_unstable();
    beside(topology, broker)
}

/// The generator gets what the broker leaves: without cores that share the broker's hardware, and without other nodes,
/// as long as any are left.
pub(super) fn beside(topology: &Topology, broker: Vec<usize>) -> Choice {
    let siblings = topology.siblings(&broker);
    let nodes: Vec<Option<usize>> =
        broker.iter().filter_map(|core| Some(topology.core(*core)?.node)).collect();
    let left: Vec<&Core> =
        topology.0.iter().filter(|core| !broker.contains(&core.number)).collect();
    let narrowed = |from: Vec<&Core>, suits: &dyn Fn(&Core) -> bool| -> Vec<usize> {
        let fit: Vec<usize> =
            from.iter().filter(|core| suits(core)).map(|core| core.number).collect();
        if fit.is_empty() { from.iter().map(|core| core.number).collect() } else { fit }
    };
    let apart = narrowed(left, &|core| !siblings.contains(&core.number));
    let apart = apart.iter().filter_map(|number| topology.core(*number)).collect();
    let generator = narrowed(apart, &|core| nodes.contains(&core.node));
    Choice { broker, generator }
}

fn is_disturbed(activity: &Activity, core: usize) -> bool {
    let interrupts = activity.interrupts.as_ref().and_then(|rates| rates.get(&core));
    let shares = activity.shares.as_ref().and_then(|shares| shares.get(&core));
    interrupts.is_some_and(|(rate, _)| *rate > INTERRUPTS_MAX)
        || shares.is_some_and(|shares| shares.busy > BUSY_MAX || shares.stolen > BUSY_MAX)
}
