//! From a topic to the bridges that want it: the forward rules of all bridges.

use super::rule::{Direction, Rule, RuleError};
use crate::config::bridge::{BridgeSettings, RuleSettings};
use crate::hash::KeyedHash;
use crate::topic::Index;

/// The forward rules of every bridge, found by topic.
pub struct ForwardIndex {
    /// The bridge in the upper half of the key, the rule in the lower.
    index: Index<u32, ()>,
    rules: Vec<Box<[Rule]>>,
    names: Vec<Box<str>>,
    /// Whether some bridge brings in messages that may have come from here, and looks for these.
    has_returns: bool,
}

/// One bridge takes a message by one of its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// The bridge's index in the configuration. The rule's index within its bridge is counted from 0, too.
    pub bridge: u16,
    pub rule: u16,
}

/// An invalid rule, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongRule {
    pub bridge: usize,
    pub direction: Direction,
    pub rule: usize,
    pub error: RuleError,
}

impl ForwardIndex {
    pub fn compile(bridges: &[BridgeSettings]) -> Result<ForwardIndex, WrongRule> {
        // The rules are the operator's: no client can choose them to collide.
        let mut index = Index::new(KeyedHash::new(0));
        let mut rules = Vec::new();
        for (bridge, settings) in bridges.iter().enumerate() {
            let compiled = compile_rules(bridge, &settings.forward, Direction::Forward)?;
            for (rule, one) in compiled.iter().enumerate() {
                index.insert(one.match_filter(), key(bridge, rule), ());
            }
            rules.push(compiled);
        }
        let names = bridges.iter().map(|settings| settings.name.as_str().into()).collect();
        let has_returns = bridges
            .iter()
            .any(|settings| settings.echo_detection && !settings.subscribe.is_empty());
        Ok(ForwardIndex { index, rules, names, has_returns })
    }

    /// Whether no bridge forwards anything.
    pub fn is_empty(&self) -> bool {
        self.index.filter_count() == 0
    }

    /// Whether the bridges want to know the messages that clients that are bridges were given.
    pub fn has_returns(&self) -> bool {
        self.has_returns
    }

    pub fn bridge_count(&self) -> usize {
        self.rules.len()
    }

    /// The name of a bridge in the configuration.
    pub fn name(&self, bridge: u16) -> &str {
        &self.names[usize::from(bridge)]
    }

    pub fn rules(&self, bridge: u16) -> &[Rule] {
        &self.rules[usize::from(bridge)]
    }

    pub fn rule(&self, wanted: Wanted) -> &Rule {
        &self.rules[usize::from(wanted.bridge)][usize::from(wanted.rule)]
    }

    /// Puts into `found` each bridge that wants `topic`, in the order of the configuration, with the first of its rules
    /// that wants it. The result depends on the topic alone.
    pub fn find(&self, topic: &str, found: &mut Vec<Wanted>) {
        found.clear();
        self.index.matches(topic, |&key, ()| {
            found.push(Wanted { bridge: (key >> 16) as u16, rule: key as u16 });
        });
        found.retain(|wanted| !self.rule(*wanted).excepts(topic));
        found.sort_unstable();
        found.dedup_by_key(|wanted| wanted.bridge);
    }
}

fn key(bridge: usize, rule: usize) -> u32 {
    let half = |index: usize| u16::try_from(index).expect("the configuration bounds both");
    u32::from(half(bridge)) << 16 | u32::from(half(rule))
}

/// The rules of one direction of a bridge.
pub(super) fn compile_rules(
    bridge: usize,
    settings: &[RuleSettings],
    direction: Direction,
) -> Result<Box<[Rule]>, WrongRule> {
    let compile = |(rule, settings)| {
        Rule::compile(settings, direction).map_err(|error| WrongRule {
            bridge,
            direction,
            rule,
            error,
        })
    };
    settings.iter().enumerate().map(compile).collect()
}

/// The index of the connection of a bridge that takes a topic, by its name on the remote. It is the same in every run
/// and build: messages that wait in a connection's log must not be overtaken over another connection.
pub fn connection_of(topic: &str, connections: u16) -> u16 {
    if connections <= 1 {
        return 0;
    }
    // The hash is FNV-1a. Its bits are mixed once more, because the low bits of similar names are similar.
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((mixed >> 32) % u64::from(connections)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn bridge(name: &str, rules: &[(&str, &[&str])]) -> BridgeSettings {
        let forward = rules.iter().map(|(filter, except)| RuleSettings {
            except: except.iter().map(|text| text.to_string()).collect(),
            ..RuleSettings::new(filter)
        });
        BridgeSettings { forward: forward.collect(), ..BridgeSettings::new(name) }
    }

    #[test]
    fn the_first_rule_of_each_bridge_holds() {
        let index = ForwardIndex::compile(&[
            bridge("a", &[("x/#", &["x/secret/#"]), ("x/y", &[]), ("#", &["x/secret/deep"])]),
            bridge("b", &[]),
            bridge("c", &[("x/y", &[]), ("x/y", &[])]),
        ])
        .unwrap();
        assert_eq!((index.is_empty(), index.bridge_count()), (false, 3));
        for (topic, expected) in [
            ("x/y", &[(0, 0), (2, 0)][..]),
            ("x/secret/1", &[(0, 2)]),
            ("x/secret/deep", &[]),
            ("z", &[(0, 2)]),
            ("$SYS/x", &[]),
        ] {
            let mut found = vec![Wanted { bridge: 9, rule: 9 }];
            index.find(topic, &mut found);
            let found: Vec<_> = found.iter().map(|one| (one.bridge, one.rule)).collect();
            assert_eq!(found, expected, "{topic}");
        }
        assert!(ForwardIndex::compile(&[bridge("b", &[])]).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_rule_is_named_by_its_place() {
        let bridges = [bridge("a", &[]), bridge("b", &[("ok", &[]), ("a+", &[])])];
        let wrong = ForwardIndex::compile(&bridges).err().unwrap();
        assert_eq!((wrong.bridge, wrong.rule, wrong.error.key), (1, 1, "filter"));
    }

    #[test]
    fn the_index_finds_what_trying_every_rule_in_turn_finds() {
        let mut random = Random::new(5);
        let levels = ["a", "b", "+", "#", ""];
        let mut found_count = 0;
        for _ in 0..300 {
            let mut filter = || {
                let mut text = String::new();
                for level in 0..=random.below(3) {
                    let last = levels[random.below(5) as usize];
                    text.push_str(if level > 0 { "/" } else { "" });
                    text.push_str(last);
                    if last == "#" {
                        break;
                    }
                }
                if text.is_empty() { "a".to_owned() } else { text }
            };
            let bridges: Vec<_> = (0..3)
                .map(|n| {
                    let rules: Vec<_> = (0..3).map(|_| (filter(), filter())).collect();
                    let rules: Vec<_> =
                        rules.iter().map(|(f, e)| (f.as_str(), [e.as_str()])).collect();
                    let rules: Vec<_> = rules.iter().map(|(f, e)| (*f, &e[..])).collect();
                    bridge(&n.to_string(), &rules)
                })
                .collect();
            let index = ForwardIndex::compile(&bridges).unwrap();
            for topic in ["a", "b", "a/b", "/a", "a/", "a/b/a", "b/b/b", "$a", "$a/b"] {
                let mut found = Vec::new();
                index.find(topic, &mut found);
                let mut expected = Vec::new();
                for bridge in 0..3u16 {
                    let rules = index.rules(bridge);
                    if let Some(rule) = rules.iter().position(|rule| rule.matches(topic)) {
                        expected.push(Wanted { bridge, rule: rule as u16 });
                    }
                }
                assert_eq!(found, expected, "{topic} {bridges:?}");
                found_count += found.len();
            }
        }
        assert!(found_count > 1000, "{found_count}");
    }

    #[test]
    fn topics_spread_over_the_connections_and_stay_where_they_are() {
        let mut counts = [0; 4];
        for n in 0..4000 {
            counts[usize::from(connection_of(&format!("sensors/{n}/temp"), 4))] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        // Logs depend on these numbers: a change here reorders the messages that wait in them.
        let places = ["a", "b", "sensors/1", "sensors/2"].map(|topic| connection_of(topic, 7));
        assert_eq!(places, [3, 6, 5, 5]);
        assert_eq!(connection_of("a", 1), 0);
    }
}
