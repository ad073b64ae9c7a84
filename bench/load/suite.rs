//! Public suites by name: their scenarios as they were published, scaled by a factor, and their differences from the
//! published ones.

use serde::{Deserialize, Serialize};

use crate::figures::grouped;
use crate::options::Options;
use crate::scenario::{Kind, Scenario};
use crate::screen::fitted;
use crate::table::NOTE_WIDTH_MAX;

const SUITES: [(&str, &str); 2] = [
    ("ombs-basic", include_str!("../suites/ombs-basic.toml")),
    ("ombs-enterprise", include_str!("../suites/ombs-enterprise.toml")),
];

/// A suite, as its file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    title: String,
    source: String,
    machine: String,
    seconds: f64,
    scenario: Vec<Scenario>,
}

/// How a scenario was published, and how this one differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Published {
    pub suite: String,
    pub title: String,
    pub source: String,
    /// The machine of the published figures.
    pub machine: String,
    /// The length of the published runs.
    pub seconds: f64,
    /// Clients and rates are so many times the published ones.
    pub factor: f64,
    /// What was changed besides machine and length: options of the command line.
    pub changed: Vec<String>,
}

impl Published {
    /// The reasons for which these are not the published figures. `seconds` is the length of the runs here.
    pub(crate) fn words(&self, seconds: f64) -> String {
        let mut differs = vec![
            format!("{seconds} s instead of {} s", grouped(self.seconds)),
            format!("this machine instead of {}", self.machine),
        ];
        if self.factor != 1.0 {
            differs.push(format!("{} times the clients and rates", self.factor));
        }
        if !self.changed.is_empty() {
            differs.push(format!("and with {}", self.changed.join(", ")));
        }
        format!(
            "{}: the definitions of {} ({}), but {}: not to be compared with figures published for it",
            self.suite,
            self.title,
            self.source,
            differs.join(", ")
        )
    }
}

/// The notes below the table: once for each suite, the reasons for which these are not its published figures.
pub(crate) fn notes(scenarios: &[Scenario], seconds: f64, width: usize) -> String {
    let published = scenarios.iter().filter_map(|scenario| scenario.published.as_ref());
    let mut all: Vec<String> = published.map(|published| published.words(seconds)).collect();
    all.dedup();
    let lines = all.iter().flat_map(|words| fitted(words, width.min(NOTE_WIDTH_MAX), 2));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The names and descriptions of the suites.
pub(crate) fn list() -> impl Iterator<Item = (&'static str, String)> {
    SUITES.iter().map(|(name, text)| (*name, read(name, text).title))
}

/// The scenarios of the suites that the command line names.
pub(crate) fn chosen(options: &Options) -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    for name in &options.suite {
        let Some((name, text)) = SUITES.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
            return Err(format!("--suite {name}: no such suite; there are {}", names.join(", ")));
        };
        let factor = options.factor.unwrap_or(1.0);
        if !(0.0001..=10.0).contains(&factor) {
            return Err(format!("--factor {factor}: it must be 0.0001 to 10"));
        }
        let Suite { title, source, machine, seconds, scenario } = read(name, text);
        for mut scenario in scenario {
            if factor != 1.0 {
                scale(&mut scenario, factor);
            }
            scenario.published = Some(Published {
                suite: name.to_string(),
                title: title.clone(),
                source: source.clone(),
                machine: machine.clone(),
                seconds,
                factor,
                changed: changed(options),
            });
            scenarios.push(scenario);
        }
    }
    Ok(scenarios)
}

fn read(name: &str, text: &str) -> Suite {
    toml::from_str(text).unwrap_or_else(|error| panic!("suite {name}: {error}"))
}

/// Scales to fewer clients, each as busy as before: rates follow the clients. A small number of clients stays as it is.
fn scale(scenario: &mut Scenario, factor: f64) {
    let scaled = |count: usize| ((count as f64 * factor).round() as usize).max(1);
    let publishers = scenario.publishers;
    match scenario.kind {
        Kind::ConnectRate => {
            scenario.connections = scaled(scenario.connections);
            scenario.rate *= factor;
        }
        // A few publishers have topics of their own, and each of many subscribers has subscribed to them.
        _ if scenario.publishers < 10 => scenario.subscribers = scaled(scenario.subscribers),
        _ => {
            scenario.publishers = scaled(publishers);
            scenario.subscribers = scaled(scenario.subscribers);
            scenario.rate *= scenario.publishers as f64 / publishers as f64;
        }
    }
}

/// Options that change what the suite defines.
fn changed(options: &Options) -> Vec<String> {
    let mut changed = Vec::new();
    let mut note = |name: &str, value: Option<String>| {
        changed.extend(value.map(|value| format!("--{name} {value}")));
    };
    note("rate", options.rate.map(|value| value.to_string()));
    note("qos", options.qos.map(|value| value.to_string()));
    note("payload", options.payload.map(|value| value.to_string()));
    note("mqtt", options.mqtt.map(|value| value.to_string()));
    note("user-properties", options.user_properties.map(|value| value.to_string()));
    note("publishers", options.publishers.map(|value| value.to_string()));
    note("subscribers", options.subscribers.map(|value| value.to_string()));
    note("connections", options.connections.map(|value| value.to_string()));
    note("window", options.window.map(|value| value.to_string()));
    changed
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario;

    fn suite(arguments: &str) -> Vec<Scenario> {
        let arguments = ["ringmq-bench", "--suite"].into_iter().chain(arguments.split(' '));
        scenario::chosen(&Options::parse_from(arguments)).expect("it is built in")
    }

    /// Clients, rate and connections.
    fn numbers(scenarios: &[Scenario]) -> Vec<(&str, usize, usize, usize, f64)> {
        let of = |scenario: &Scenario| match scenario.kind {
            Kind::ConnectRate => scenario.connections,
            _ => 0,
        };
        let numbers = scenarios.iter().map(|scenario| {
            let Scenario { name, publishers, subscribers, rate, .. } = scenario;
            (name.as_str(), of(scenario), *publishers, *subscribers, *rate)
        });
        numbers.collect()
    }

    #[test]
    fn the_suites_say_what_was_published() {
        let basic = suite("ombs-basic");
        assert_eq!(
            numbers(&basic),
            [
                ("conn-tcp-10K-100", 10_000, 1, 1, 100.0),
                ("fanout-1-1K-1-1K", 0, 1, 1000, 1.0),
                ("p2p-1K-1K-1K-1K", 0, 1000, 1000, 1000.0),
                ("sharedsub-1K-5-1K-1K", 0, 1000, 5, 1000.0),
            ]
        );
        let enterprise = suite("ombs-enterprise --factor 0.02");
        assert_eq!(
            numbers(&enterprise),
            [
                ("conn-tcp-1M-5K", 20_000, 1, 1, 100.0),
                ("fanout-5-1000-5-250K", 0, 5, 20, 250.0),
                ("p2p-50K-50K-50K-50K", 0, 1000, 1000, 1000.0),
                ("sharedsub-50K-500-50K-50K", 0, 1000, 10, 1000.0),
            ]
        );
        for scenario in basic.iter().chain(&enterprise) {
            assert_eq!((scenario.payload, scenario.keep_alive_s), (16, 300), "{}", scenario.name);
            let is_traffic = scenario.kind == Kind::Traffic;
            assert_eq!(scenario.qos, u8::from(is_traffic), "{}", scenario.name);
            assert!(!is_traffic || !scenario.flat_out);
        }
        // Each of the fan-out's subscribers gets all topics.
        assert_eq!(enterprise[1].filters_of(3).len(), 5);
        assert_eq!(basic[3].filter_of(4), "$share/perf/test/#");
    }

    #[test]
    fn a_suite_says_what_is_not_as_published() {
        let words = |arguments: &str| {
            let published = suite(arguments)[2].published.clone();
            published.expect("of a suite").words(5.0)
        };
        let plain = words("ombs-basic");
        for part in ["ombs-basic: ", "5 s instead of 1,800 s", "instead of AWS c5.4xlarge"] {
            assert!(plain.contains(part), "{plain}");
        }
        assert!(!plain.contains("times") && !plain.contains("--"), "{plain}");
        let less = words("ombs-enterprise --factor 0.02 --payload 64");
        assert!(less.contains("0.02 times") && less.contains("--payload 64"), "{less}");
        let refused = |arguments: &str| {
            let arguments = ["ringmq-bench", "--suite"].into_iter().chain(arguments.split(' '));
            scenario::chosen(&Options::parse_from(arguments)).expect_err("it cannot be run")
        };
        assert!(refused("no-such").contains("ombs-basic, ombs-enterprise"));
        assert!(refused("ombs-basic --factor 0").contains("must be"));
        // 50,000 times 50,000 pairs.
        assert!(refused("ombs-enterprise").contains("--factor"));
    }
}
