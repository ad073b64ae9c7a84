//! Which agent has which clients, and the part of a plan that an agent has.
//!
//! Clients that talk to each other stay in one agent if that gives every agent its share: their messages are measured with
//! one clock. Else (a fan-in, a fan-out) publishers are dealt out in turn, and so are subscribers. The members
//! of a shared subscription stay together in any case: their messages are counted in one place.

use serde::{Deserialize, Serialize};

use crate::plan::{Away, NO_CELL, Plan};

/// The agent of each publisher and subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Split {
    pub publishers: Vec<u16>,
    pub subscribers: Vec<u16>,
}

/// The reports that an agent sends and gets.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Own publishers with subscribers elsewhere: the publisher, and the cell for how far these subscribers have got.
    pub credited: Vec<(u32, u32)>,
    /// Publishers elsewhere with subscribers here: the publisher, and the cells of these subscribers.
    pub reported: Vec<(u32, Vec<u32>)>,
}

/// The units of clients that stay together: subscribers of one group are one unit, any other client is a unit of its
/// own.
fn units(plan: &Plan) -> Vec<usize> {
    let mut of_group: Vec<Option<usize>> = vec![None; plan.groups.len()];
    let mut count = 0;
    let mut next = || {
        count += 1;
        count - 1
    };
    let unit_of = |group: Option<(usize, usize)>| match group {
        Some((group, _)) => *of_group[group].get_or_insert_with(&mut next),
        None => next(),
    };
    plan.subscribers.iter().map(|subscriber| subscriber.group).map(unit_of).collect()
}

impl Split {
    pub(super) fn new(plan: &Plan, agent_count: usize, apart: bool) -> Split {
        let units = units(plan);
        let publisher_count = plan.publishers.len();
        let round =
            |agents: usize, behind: usize| move |client: usize| (behind + client % agents) as u16;
        if apart && agent_count > 1 {
            let (publishing, subscribing) = (agent_count / 2, agent_count - agent_count / 2);
            return Split {
                publishers: (0..publisher_count).map(round(publishing, 0)).collect(),
                subscribers: units.into_iter().map(round(subscribing, publishing)).collect(),
            };
        }
        Split::together(plan, agent_count, &units).unwrap_or_else(|| Split {
            publishers: (0..publisher_count).map(round(agent_count, 0)).collect(),
            subscribers: units.iter().copied().map(round(agent_count, 0)).collect(),
        })
    }

    /// `None`: clients that talk to each other are more than an agent's share.
    fn together(plan: &Plan, agent_count: usize, units: &[usize]) -> Option<Split> {
        let publisher_count = plan.publishers.len();
        let unit_count = units.iter().max().map_or(0, |last| last + 1);
        let mut sets = Sets::new(publisher_count + unit_count);
        for (subscriber, unit) in plan.subscribers.iter().zip(units) {
            for (publisher, _) in
                subscriber.cells.iter().enumerate().filter(|(_, cell)| **cell != NO_CELL)
            {
                sets.join(publisher, publisher_count + unit);
            }
        }
        let of_publisher: Vec<usize> =
            (0..publisher_count).map(|publisher| sets.find(publisher)).collect();
        let of_subscriber: Vec<usize> =
            units.iter().map(|unit| sets.find(publisher_count + unit)).collect();
        let mut weights = vec![0_usize; publisher_count + unit_count];
        of_publisher.iter().chain(&of_subscriber).for_each(|set| weights[*set] += 1);
        let share = (publisher_count + plan.subscribers.len()).div_ceil(agent_count);
        if weights.iter().any(|weight| *weight > share) {
            return None;
        }
        let mut loads = vec![0; agent_count];
        let place = |weight: &usize| {
            let least =
                (0..agent_count).min_by_key(|agent| loads[*agent]).expect("there are agents");
            loads[least] += weight;
            least as u16
        };
        let agents: Vec<u16> = weights.iter().map(place).collect();
        let pick = |sets: Vec<usize>| sets.into_iter().map(|set| agents[set]).collect();
        Some(Split { publishers: pick(of_publisher), subscribers: pick(of_subscriber) })
    }

    /// Whether the split is of this plan and names no other agents.
    pub(super) fn fits(&self, plan: &Plan, agent_count: usize) -> bool {
        self.publishers.len() == plan.publishers.len()
            && self.subscribers.len() == plan.subscribers.len()
            && self
                .publishers
                .iter()
                .chain(&self.subscribers)
                .all(|agent| usize::from(*agent) < agent_count)
            && plan.groups.iter().enumerate().all(|(group, _)| {
                let members = plan.subscribers.iter().zip(&self.subscribers);
                let mut agents = members
                    .filter(|(member, _)| member.group.is_some_and(|(of, _)| of == group))
                    .map(|(_, agent)| agent);
                let first = agents.next();
                agents.all(|agent| Some(agent) == first)
            })
    }

    /// For each publisher the other agents in which it has subscribers.
    pub(super) fn audiences(&self, plan: &Plan) -> Vec<Vec<u16>> {
        let mut audiences = vec![Vec::new(); plan.publishers.len()];
        for (subscriber, agent) in plan.subscribers.iter().zip(&self.subscribers) {
            for (publisher, audience) in audiences.iter_mut().enumerate() {
                let talks =
                    subscriber.cells[publisher] != NO_CELL && self.publishers[publisher] != *agent;
                if talks && !audience.contains(agent) {
                    audience.push(*agent);
                }
            }
        }
        audiences
    }

    /// Makes `plan` that of one agent. The cells of subscribers elsewhere become one for each publisher.
    pub(super) fn localize(&self, plan: &mut Plan, agent: u16) -> Part {
        let is_away = |agents: &[u16]| agents.iter().map(|of| *of != agent).collect::<Vec<bool>>();
        let away =
            Away { publishers: is_away(&self.publishers), subscribers: is_away(&self.subscribers) };
        let mut is_here = vec![false; plan.cell_count];
        for (subscriber, is_away) in plan.subscribers.iter_mut().zip(&away.subscribers) {
            if *is_away {
                subscriber.cells = Box::default();
                subscriber.group = None;
            }
            for cell in subscriber.cells.iter().filter(|cell| **cell != NO_CELL) {
                is_here[*cell as usize] = true;
            }
        }
        let mut part = Part::default();
        for (index, (publisher, is_away)) in
            plan.publishers.iter_mut().zip(&away.publishers).enumerate()
        {
            let before = publisher.cells.len();
            publisher.cells.retain(|cell| is_here[*cell as usize]);
            if *is_away && !publisher.cells.is_empty() {
                part.reported.push((index as u32, publisher.cells.clone()));
            }
            if !is_away && publisher.cells.len() < before {
                publisher.cells.push(plan.cell_count as u32);
                part.credited.push((index as u32, plan.cell_count as u32));
                plan.cell_count += 1;
            }
        }
        plan.away = away;
        part
    }
}

/// Disjoint sets of numbers.
struct Sets(Vec<usize>);

impl Sets {
    fn new(count: usize) -> Sets {
        Sets((0..count).collect())
    }

    fn find(&mut self, mut of: usize) -> usize {
        while self.0[of] != of {
            self.0[of] = self.0[self.0[of]];
            of = self.0[of];
        }
        of
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.find(one), self.find(other));
        self.0[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn plan(publishers: usize, subscribers: usize, filter: &str) -> Plan {
        let filters = vec![filter.to_string()];
        Plan::new(&Scenario { publishers, subscribers, filters, ..Scenario::default() })
    }

    #[test]
    fn pairs_stay_together_and_crowds_are_parted() {
        let pairs = Split::new(&plan(4, 4, "bench/{subscriber}"), 2, false);
        assert_eq!(pairs.publishers, pairs.subscribers);
        assert_eq!(pairs.publishers, [0, 1, 0, 1]);
        let crowd = Split::new(&plan(3, 4, "bench/+"), 2, false);
        assert_eq!((crowd.publishers, crowd.subscribers), (vec![0, 1, 0], vec![0, 1, 0, 1]));
        let apart = Split::new(&plan(4, 4, "bench/{subscriber}"), 3, true);
        assert_eq!((apart.publishers, apart.subscribers), (vec![0; 4], vec![1, 2, 1, 2]));
        let alone = Split::new(&plan(2, 2, "bench/+"), 1, true);
        assert_eq!((alone.publishers, alone.subscribers), (vec![0, 0], vec![0, 0]));
    }

    #[test]
    fn the_members_of_a_group_stay_together() {
        let plan = plan(4, 4, "$share/g/bench/+");
        for apart in [false, true] {
            let split = Split::new(&plan, 2, apart);
            assert!(
                split.subscribers.iter().all(|agent| *agent == split.subscribers[0]),
                "{split:?}"
            );
            assert!(split.fits(&plan, 2) && !split.fits(&plan, 1));
        }
        let torn = Split { publishers: vec![0; 4], subscribers: vec![0, 1, 0, 0] };
        assert!(!torn.fits(&plan, 2));
    }

    #[test]
    fn a_part_counts_what_is_elsewhere_in_a_cell_of_its_own() {
        let whole = plan(2, 2, "bench/+");
        let split = Split { publishers: vec![0, 1], subscribers: vec![0, 1] };
        assert_eq!(split.audiences(&whole), [vec![1], vec![0]]);
        let mut local = plan(2, 2, "bench/+");
        let part = split.localize(&mut local, 0);
        // Cells 0 and 1 are those of the first subscriber, 2 and 3 of the other.
        assert_eq!(local.publishers[0].cells, [0, 4]);
        assert_eq!(local.publishers[1].cells, [1]);
        assert_eq!((part.credited, part.reported), (vec![(0, 4)], vec![(1, vec![1])]));
        assert_eq!(local.cell_count, 5);
        assert!(local.subscribers[1].cells.is_empty());
        let away = &local.away;
        assert_eq!([0, 1].map(|index| away.has_publisher(index)), [false, true]);
    }
}
