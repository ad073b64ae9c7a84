//! A plan: every publisher and subscriber of a run, and which messages each subscriber must get.

use std::collections::BTreeMap;

use ringmq::topic;

use crate::message::Layout;
use crate::mix::{Mix, Payload};
use crate::scenario::Scenario;

/// Publishers and subscribers of one kind.
#[derive(Debug)]
pub(crate) struct Flow {
    pub layout: Layout,
    /// Where messages differ in topic or size, what they are drawn from. Each topic of a publisher is one of the plan's then.
    pub mix: Option<Mix>,
    pub window: u64,
    /// Messages that a publisher sends at once, flat out.
    pub batch: u64,
    /// Work of the generator for each message besides, nanoseconds.
    pub burden_ns: u64,
    /// The broker may add user properties.
    pub allow_added_properties: bool,
    /// Its subscribers do not read while a stall is ordered.
    pub stalls: bool,
}

#[derive(Debug)]
pub(crate) struct PublisherPlan {
    pub flow: usize,
    pub topic: Box<[u8]>,
    /// The property section that its messages have.
    pub properties: Box<[u8]>,
    /// The cells that count how far its messages were delivered.
    pub cells: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct SubscriberPlan {
    pub flow: usize,
    /// Those that messages match, and behind them those that none matches.
    pub filters: Vec<String>,
    matched_count: usize,
    pub qos: u8,
    /// For each publisher the cell that counts its messages to this subscriber, or `NO_CELL`.
    pub cells: Box<[u32]>,
    /// With a shared subscription: the group, and which member of it this is.
    pub group: Option<(usize, usize)>,
}

/// The publisher's messages are not for this subscriber.
pub(crate) const NO_CELL: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Plan {
    pub mqtt: u8,
    pub keep_alive_s: u16,
    pub flows: Vec<Flow>,
    pub publishers: Vec<PublisherPlan>,
    pub subscribers: Vec<SubscriberPlan>,
    /// Members of each shared group.
    pub groups: Vec<usize>,
    pub cell_count: usize,
    pub away: Away,
}

/// Clients that are another agent's; nobody's, unless it is said.
#[derive(Debug, Default)]
pub(crate) struct Away {
    pub publishers: Vec<bool>,
    pub subscribers: Vec<bool>,
}

impl Away {
    pub(crate) fn has_publisher(&self, index: usize) -> bool {
        self.publishers.get(index).is_some_and(|is_away| *is_away)
    }

    pub(crate) fn has_subscriber(&self, index: usize) -> bool {
        self.subscribers.get(index).is_some_and(|is_away| *is_away)
    }
}

impl Plan {
    /// The plan of a traffic scenario.
    pub(crate) fn new(scenario: &Scenario) -> Plan {
        let mut plan = Plan {
            mqtt: scenario.mqtt,
            keep_alive_s: scenario.keep_alive_s,
            flows: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            groups: Vec::new(),
            cell_count: 0,
            away: Away::default(),
        };
        plan.add(scenario, false);
        plan
    }

    /// Adds a scenario's clients as a further flow.
    pub(crate) fn add(&mut self, scenario: &Scenario, stalls: bool) {
        let flow = self.flows.len();
        let drawn = scenario.topics.max(1);
        let topics: Vec<Box<[u8]>> = (0..scenario.publishers)
            .flat_map(|publisher| (0..drawn).map(move |number| (publisher, number)))
            .map(|(publisher, number)| scenario.topic(publisher, number).into_bytes().into())
            .collect();
        let one = [Payload { size: scenario.payload, weight: 1 }];
        let payloads: &[Payload] =
            if scenario.payloads.is_empty() { &one } else { &scenario.payloads };
        let mix = scenario.is_mixed().then(|| Mix::new(drawn, scenario.zipf, payloads));
        let properties: Box<[u8]> = scenario.properties().into();
        let cells = Vec::new();
        self.publishers.extend(topics.iter().map(|topic| PublisherPlan {
            flow,
            topic: topic.clone(),
            properties: properties.clone(),
            cells: cells.clone(),
        }));
        let payload_size = scenario.payload_size_max();
        let layout = Layout { topics, qos: scenario.qos, payload_size, properties };
        self.flows.push(Flow {
            layout,
            mix,
            window: scenario.window,
            batch: scenario.batch(),
            burden_ns: scenario.burden_ns(),
            allow_added_properties: scenario.allow_added_properties,
            stalls,
        });
        for index in 0..scenario.subscribers {
            let mut filters = scenario.filters_of(index);
            let matched_count = filters.len();
            filters.extend(scenario.idle_filters_of(index));
            let (qos, cells, group) = (scenario.qos, Box::default(), None);
            let subscriber = SubscriberPlan { flow, filters, matched_count, qos, cells, group };
            self.subscribers.push(subscriber);
        }
        self.lay_cells();
    }

    /// Gives a cell to every publisher and subscriber, or group, that a message goes between.
    fn lay_cells(&mut self) {
        self.cell_count = 0;
        self.groups.clear();
        self.publishers.iter_mut().for_each(|publisher| publisher.cells.clear());
        let mut group_of: BTreeMap<&str, (usize, Box<[u32]>)> = BTreeMap::new();
        for subscriber in &mut self.subscribers {
            let filter = subscriber.filters[0].as_str();
            let plain = plain_filter(filter);
            if let Some((group, cells)) = group_of.get(filter) {
                subscriber.cells = cells.clone();
                subscriber.group = Some((*group, self.groups[*group]));
                self.groups[*group] += 1;
                continue;
            }
            let mut cells = vec![NO_CELL; self.publishers.len()];
            for (publisher, cell) in self.publishers.iter_mut().zip(&mut cells) {
                let topic = std::str::from_utf8(&publisher.topic).expect("topics are made of text");
                let others = &subscriber.filters[1..subscriber.matched_count];
                if topic::matches(plain, topic)
                    || others.iter().any(|filter| topic::matches(filter, topic))
                {
                    *cell = self.cell_count as u32;
                    publisher.cells.push(*cell);
                    self.cell_count += 1;
                }
            }
            subscriber.cells = cells.into();
            if plain.len() < filter.len() {
                subscriber.group = Some((self.groups.len(), 0));
                group_of.insert(filter, (self.groups.len(), subscriber.cells.clone()));
                self.groups.push(1);
            }
        }
    }

    /// The publishers that connect, by the number of their first topic in the plan.
    pub(crate) fn connections(&self) -> impl Iterator<Item = usize> {
        let first = (!self.publishers.is_empty()).then_some(0);
        std::iter::successors(first, move |index| {
            let next = index + self.stream_count(*index);
            (next < self.publishers.len()).then_some(next)
        })
    }

    /// How many publishers there are of which one topic at least is `wanted`, by its number in the plan.
    pub(crate) fn publisher_count(&self, wanted: impl Fn(usize) -> bool) -> u64 {
        let has = |first: &usize| (*first..first + self.stream_count(*first)).any(&wanted);
        self.connections().filter(has).count() as u64
    }

    /// How many topics a publisher draws from: as many of the plan's publishers are one connection.
    fn stream_count(&self, index: usize) -> usize {
        self.flows[self.publishers[index].flow].mix.as_ref().map_or(1, Mix::topic_count)
    }

    /// The publishers of a flow take turns within an interval: the part of it after which it is this one's.
    pub(crate) fn turn(&self, index: usize) -> f64 {
        let streams = self.stream_count(index);
        let count = self.flows[self.publishers[index].flow].layout.topics.len() / streams;
        (index / streams % count) as f64 / count as f64
    }

    /// The largest publish, bytes.
    pub(crate) fn message_size_max(&self) -> usize {
        let size = |flow: &Flow| {
            let Layout { topics, properties, payload_size, .. } = &flow.layout;
            9 + topics[0].len() + properties.len() + payload_size
        };
        self.flows.iter().map(size).max().unwrap_or(0)
    }
}

/// The filter behind `$share/NAME/`.
fn plain_filter(filter: &str) -> &str {
    match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((_, plain)) => plain,
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_and_subscriber_share_a_cell_where_the_filter_matches() {
        let scenario = Scenario {
            publishers: 3,
            subscribers: 4,
            topic: "a/{publisher}".to_string(),
            filters: vec!["a/{subscriber}".to_string(), "a/+".to_string()],
            ..Scenario::default()
        };
        let plan = Plan::new(&scenario);
        let cells: Vec<&[u32]> =
            plan.subscribers.iter().map(|subscriber| &*subscriber.cells).collect();
        let none = NO_CELL;
        assert_eq!(cells, [[0, none, none], [1, 2, 3], [none, none, 4], [5, 6, 7]]);
        assert_eq!(plan.publishers[0].cells, [0, 1, 5]);
        assert_eq!(plan.cell_count, 8);
    }

    #[test]
    fn each_topic_that_a_publisher_draws_from_is_counted_for_itself() {
        let scenario = Scenario {
            publishers: 2,
            topics: 3,
            topic: "a/{topic}".to_string(),
            filters: vec!["a/000001".to_string(), "a/000002".to_string()],
            all_filters: true,
            ..Scenario::default()
        };
        let plan = Plan::new(&scenario);
        let topics: Vec<&str> =
            plan.publishers.iter().map(|stream| str::from_utf8(&stream.topic).unwrap()).collect();
        assert_eq!(topics, ["a/000000", "a/000001", "a/000002"].repeat(2));
        assert_eq!(plan.connections().collect::<Vec<_>>(), [0, 3]);
        assert_eq!([0, 3].map(|index| plan.turn(index)), [0.0, 0.5]);
        let none = NO_CELL;
        assert_eq!(*plan.subscribers[0].cells, [none, 0, 1, none, 2, 3]);
    }

    #[test]
    fn the_members_of_a_shared_subscription_count_together() {
        let scenario = Scenario {
            publishers: 2,
            subscribers: 3,
            topic: "a/{publisher}".to_string(),
            filters: vec!["$share/group/a/#".to_string()],
            ..Scenario::default()
        };
        let plan = Plan::new(&scenario);
        assert_eq!(plan.groups, [3]);
        for (index, subscriber) in plan.subscribers.iter().enumerate() {
            assert_eq!(*subscriber.cells, [0, 1]);
            assert_eq!(subscriber.group, Some((0, index)));
        }
    }
}
