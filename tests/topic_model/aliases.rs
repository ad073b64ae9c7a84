//! Aliases that we define against a receiver that applies them, and aliases that a client defines against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringmq::arena::Budget;
use ringmq::random::Random;
use ringmq::topic::{AliasError, InboundAliases, OutboundAlias, OutboundAliases};

/// A client that learns aliases.
struct Receiver {
    max: u16,
    topics: BTreeMap<u16, String>,
}

impl Receiver {
    fn new(max: u16) -> Receiver {
        Receiver { max, topics: BTreeMap::new() }
    }

    /// The topic of a message that was sent with `alias`, and with the topic if `alias` says so.
    fn receive(&mut self, alias: OutboundAlias, topic: &str) -> Option<String> {
        match alias {
            OutboundAlias::None => Some(topic.to_owned()),
            OutboundAlias::New(alias) => {
                assert!((1..=self.max).contains(&alias), "{alias}");
                self.topics.insert(alias, topic.to_owned());
                Some(topic.to_owned())
            }
            OutboundAlias::Known(alias) => self.topics.get(&alias).cloned(),
        }
    }
}

/// One of `count` topics, the lower numbers far more often.
fn skewed(random: &mut Random, count: u64) -> String {
    let bound = 1 + random.below(count);
    let bound = 1 + random.below(bound);
    format!("topic/{}", random.below(bound))
}

proptest! {
    #[test]
    fn a_receiver_always_learns_the_right_topic(
        seed in any::<u64>(),
        max in prop_oneof![0..4_u16, 4..40_u16, Just(u16::MAX)],
        topic_count in 1..400_u64,
    ) {
        let mut random = Random::new(seed);
        let mut aliases = OutboundAliases::new(max);
        let mut receiver = Receiver::new(max);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            let topic = skewed(&mut random, topic_count);
            let alias = aliases.alias(&topic);
            counts[match alias {
                OutboundAlias::None => 0,
                OutboundAlias::New(_) => 1,
                OutboundAlias::Known(_) => 2,
            }] += 1;
            prop_assert_eq!(receiver.receive(alias, &topic), Some(topic));
        }
        if max == 0 {
            prop_assert_eq!(counts, [3000, 0, 0]);
        } else if topic_count <= u64::from(max.min(256)) {
            // Room for all: each is defined once.
            prop_assert_eq!(counts[0], 0);
            prop_assert!(counts[1] <= topic_count);
        }
    }

    #[test]
    fn a_clients_aliases_stay_within_their_bound(
        max in 0..20_u16,
        acts in prop::collection::vec((0..24_u16, "[abc/]{1,3}"), 0..80),
    ) {
        let mut aliases = InboundAliases::new(max);
        let mut model = BTreeMap::new();
        for (alias, topic) in acts {
            let want = match alias {
                0 => Err(AliasError::Zero),
                _ if alias > max => Err(AliasError::AboveMax),
                _ => Ok(()),
            };
            prop_assert_eq!(aliases.set(alias, &topic), want);
            if want.is_ok() {
                model.insert(alias, topic);
            }
            for alias in 0..24 {
                prop_assert_eq!(aliases.get(alias), model.get(&alias).map(String::as_str));
            }
        }
    }
}

/// Of the messages with `hot` topics, those that name the topic by its alias alone.
fn known_share(aliases: &mut OutboundAliases, random: &mut Random, hot: &str, count: u32) -> f64 {
    let (mut hot_count, mut known_count) = (0, 0);
    for _ in 0..count {
        // Half of the messages have one of ten busy topics, the others one of 100,000.
        if random.below(2) == 0 {
            hot_count += 1;
            let topic = format!("{hot}/{}", random.below(10));
            known_count += u32::from(matches!(aliases.alias(&topic), OutboundAlias::Known(_)));
        } else {
            aliases.alias(&format!("cold/{}", random.below(100_000)));
        }
    }
    f64::from(known_count) / f64::from(hot_count)
}

#[test]
fn the_busiest_topics_have_the_aliases() {
    let mut random = Random::new(5);
    let mut aliases = OutboundAliases::new(16);
    for n in 0..100 {
        aliases.alias(&format!("first/{n}"));
    }
    // Before they can have aliases they must be seen, in the place of topics that were there first.
    known_share(&mut aliases, &mut random, "hot", 3000);
    let share = known_share(&mut aliases, &mut random, "hot", 20_000);
    assert!(share > 0.999, "{share}");

    // Fame fades: other topics that become busy get the aliases.
    known_share(&mut aliases, &mut random, "new", 10_000);
    let share = known_share(&mut aliases, &mut random, "new", 20_000);
    assert!(share > 0.999, "{share}");
}

#[test]
fn equally_busy_topics_do_not_take_aliases_from_each_other() {
    for topic_count in [20, 64, 200] {
        let mut random = Random::new(6);
        let mut aliases = OutboundAliases::new(16);
        let mut new_count = 0;
        for _ in 0..50_000 {
            let alias = aliases.alias(&format!("topic/{}", random.below(topic_count)));
            new_count += u32::from(matches!(alias, OutboundAlias::New(_)));
        }
        assert!(new_count < 500, "{new_count} of 50,000 messages, {topic_count} topics");
    }
}

#[test]
fn topics_that_come_once_cost_no_memory_once_all_aliases_are_defined() {
    let mut aliases = OutboundAliases::new(8);
    let topics: Vec<String> = (0..10_000).map(|n| format!("event/{n}")).collect();
    for topic in &topics[..8] {
        assert!(matches!(aliases.alias(topic), OutboundAlias::New(_)));
    }
    let mut unnamed_count = 0;
    let allocated = allocation_counter::measure(|| {
        for topic in &topics[8..] {
            unnamed_count += u32::from(aliases.alias(topic) == OutboundAlias::None);
        }
    });
    assert_eq!((unnamed_count, allocated.count_total), (9_992, 0));
}

#[test]
fn a_connection_without_aliases_allocates_nothing_for_them() {
    let mut held = None;
    let budget = Budget::new(1 << 20);
    let allocated = allocation_counter::measure(|| {
        let budget = || budget.clone();
        let mut none = OutboundAliases::within(budget(), 0);
        assert_eq!(none.alias("a"), OutboundAlias::None);
        held = Some((
            none,
            OutboundAliases::within(budget(), u16::MAX),
            InboundAliases::within(budget(), u16::MAX),
        ));
    });
    assert_eq!(allocated.count_total, 0);
}
