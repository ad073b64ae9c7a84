//! Scenarios: what a TOML file says, the built-in ones, and what the command line changes in them.

mod drawn;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::client::KEEP_ALIVE_S;
use crate::limits;
use crate::message::{self, BLOCK_SIZE, PAYLOAD_SIZE_MIN};
use crate::mix::Payload;
use crate::options::{Options, Subject};
use crate::recording::{self, Summary};
use crate::suite::{self, Published};

/// What a scenario may ask for; an agent gets it from elsewhere.
const USER_PROPERTIES_MAX: usize = 10_000;
const TOPIC_SIZE_MAX: usize = 1024;
const FILTERS_MAX: usize = 100_000;
/// A string of the protocol is no longer [MQTT-1.5.4].
const FILTER_SIZE_MAX: usize = 65_535;

/// What kind of run a scenario asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Publishers and subscribers: flat out within a window, then at a fixed rate.
    #[default]
    Traffic,
    /// Clients that connect and leave again.
    ConnectStorm,
    /// Connections that do nothing.
    Idle,
    /// A subscriber that stops reading while the others run.
    StalledSubscriber,
    /// Clients that connect at a rate and stay.
    ConnectRate,
    /// Clients whose sessions have outlived their connections come back, all at once, and get what waited for them.
    ReconnectStorm,
    /// Topics are set, then subscribers ask for all of them at once.
    RetainedStorm,
    /// A recording of a user's own traffic.
    Replay,
}

/// One scenario. In `topic` and `filters`, `{publisher}` and `{subscriber}` stand for the client's number in five digits, and
/// `{topic}` for the number of a topic that is drawn, or retained, in six.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scenario {
    pub name: String,
    pub about: String,
    pub kind: Kind,
    /// 3 is MQTT 3.1.1, 5 is MQTT 5.0.
    pub mqtt: u8,
    pub publishers: usize,
    pub subscribers: usize,
    pub topic: String,
    /// Subscriber n subscribes to the filter number n, round robin.
    pub filters: Vec<String>,
    /// Every subscriber subscribes to all filters instead.
    pub all_filters: bool,
    /// How many topics a publisher draws from, message by message; 0: it has one of its own. In a retained storm, how many
    /// topics are set.
    pub topics: usize,
    /// The exponent of Zipf's law, by which topics are drawn: topic number n, from 1 on, comes 1 / n ^ `zipf` as often as the
    /// first. 0: all alike.
    pub zipf: f64,
    /// Filters that no message matches, for each subscriber: they make the broker's index larger.
    pub idle_filters: usize,
    pub qos: u8,
    /// Bytes of payload.
    pub payload: usize,
    /// Sizes that are drawn by weight, as `[{ size = 64, weight = 90 }, { size = 4096, weight = 10 }]`, instead of `payload`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payloads: Vec<Payload>,
    /// Of each publish, `name-0000` with `value-0000` and so on.
    pub user_properties: usize,
    /// The broker may add user properties behind them.
    pub allow_added_properties: bool,
    /// Messages that a publisher has outstanding: sent, and not yet delivered to every one of its subscribers.
    pub window: u64,
    /// Messages that a publisher sends at once, flat out: it waits until the window lets it. 0: half the window.
    pub batch: u64,
    /// Whether there is a run flat out, in front of that at a fixed rate.
    pub flat_out: bool,
    /// Messages per second of all publishers (connections per second of a storm) in the run that measures latency.
    /// 0: no such run.
    pub rate: f64,
    /// The rate rises from nothing for so long before that run, seconds; 0: it does not.
    pub ramp_s: f64,
    /// In so many equal steps; 0: linearly.
    pub ramp_steps: u32,
    /// Idle connections, or those that connect at a rate and stay; in a storm, connections under way at any time.
    pub connections: usize,
    /// Messages that wait for each session when its client comes back.
    pub queued: usize,
    /// Of all clients, seconds: one of which nothing is to be sent for half of it pings.
    pub keep_alive_s: u16,
    /// How long the subscriber does not read, seconds.
    pub stall_s: f64,
    /// How often that is repeated; the median counts.
    pub rounds: usize,
    /// Messages per second to the subscriber that does not read.
    pub stalled_rate: f64,
    pub stalled_payload: usize,
    /// The messages for the stalled subscriber are more than the broker may keep: what is missing must be what it says
    /// it dropped.
    pub beyond_limits: bool,
    /// The recording that is replayed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// How many times as fast as it was recorded.
    #[serde(skip_serializing_if = "is_one")]
    pub speed: f64,
    /// How often it is played.
    #[serde(skip_serializing_if = "is_once")]
    pub loops: u64,
    #[serde(skip)]
    pub recording: Option<Arc<Summary>>,
    /// Work that the generator does for each message or connection besides, microseconds: it is slower by that.
    #[serde(skip_serializing_if = "is_zero")]
    pub burden_us: u64,
    /// In a public suite: how it was published, and that this is not that.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Keys of the configuration, for a broker that the bench starts itself.
    pub broker: BTreeMap<String, toml::Value>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: String::new(),
            about: String::new(),
            kind: Kind::Traffic,
            mqtt: 3,
            publishers: 1,
            subscribers: 1,
            topic: "bench/{publisher}".to_string(),
            filters: vec!["bench/+".to_string()],
            all_filters: false,
            topics: 0,
            zipf: 0.0,
            idle_filters: 0,
            qos: 0,
            payload: 64,
            payloads: Vec::new(),
            user_properties: 0,
            allow_added_properties: false,
            window: 500,
            batch: 0,
            flat_out: true,
            rate: 0.0,
            ramp_s: 0.0,
            ramp_steps: 0,
            connections: 100,
            queued: 10,
            keep_alive_s: KEEP_ALIVE_S,
            stall_s: 30.0,
            rounds: 5,
            stalled_rate: 1000.0,
            stalled_payload: 256,
            beyond_limits: false,
            file: String::new(),
            speed: 1.0,
            loops: 1,
            recording: None,
            burden_us: 0,
            published: None,
            broker: BTreeMap::new(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_one(number: &f64) -> bool {
    *number == 1.0
}

fn is_once(number: &u64) -> bool {
    *number == 1
}

macro_rules! scenario_files {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*]
    };
}

const BUILT_IN: [(&str, &str); 38] = scenario_files! {
    "fan-out-one"
    "fan-out-five"
    "fan-out"
    "fan-in-one"
    "fan-in-five"
    "fan-in"
    "p2p-qos0-one"
    "p2p-qos0-five"
    "p2p-qos0"
    "p2p-qos1-one"
    "p2p-qos1-five"
    "p2p-qos1"
    "p2p-qos2-one"
    "p2p-qos2-five"
    "p2p-qos2"
    "wildcards"
    "shared"
    "connect-storm"
    "idle"
    "idle-subscribed"
    "fan-out-4k"
    "fan-out-rate"
    "fan-in-100"
    "fan-in-100-qos1"
    "p2p-qos0-4k"
    "p2p-qos0-v5"
    "p2p-rate"
    "connect-churn"
    "stalled-subscriber"
    "stalled-beyond-limits"
    "qos2-storm"
    "zipf"
    "payload-mix"
    "ramp-up"
    "reconnect-storm"
    "retained-storm"
    "connect-rate"
    "message-a-minute"
};

/// Those that run unless others are asked for: each with one message a write and with many.
const SHORT: [&str; 10] = [
    "fan-out-one",
    "fan-out",
    "fan-in-one",
    "fan-in",
    "p2p-qos0-one",
    "p2p-qos0",
    "p2p-qos1-one",
    "p2p-qos1",
    "p2p-qos2-one",
    "p2p-qos2",
];

/// A scenario as others read it, with what it is in words.
#[derive(Debug, Serialize)]
pub(crate) struct Listed<'a> {
    words: String,
    #[serde(flatten)]
    scenario: &'a Scenario,
}

impl Listed<'_> {
    pub(crate) fn new(scenario: &Scenario) -> Listed<'_> {
        Listed { words: scenario.words(), scenario }
    }
}

/// All built-in scenarios.
pub(crate) fn built_in() -> Vec<Scenario> {
    let parsed = BUILT_IN.iter().map(|(name, text)| parse(name, text));
    parsed.collect::<Result<_, _>>().expect("the built-in scenarios are tested")
}

/// What to run: the named scenarios and files, or the default ones, as the command line changes them.
pub(crate) fn chosen(options: &Options) -> Result<Vec<Scenario>, String> {
    let mut scenarios = suite::chosen(options)?;
    scenarios.extend(options.given.iter().cloned());
    for name in &options.scenario {
        scenarios.push(match BUILT_IN.iter().find(|(known, _)| known == name) {
            Some((name, text)) => parse(name, text)?,
            None => parse(name, &read(name)?)?,
        });
    }
    if scenarios.is_empty() {
        scenarios = built_in();
        scenarios.retain(|scenario| options.full || SHORT.contains(&&*scenario.name));
        if options.rates.is_asked() {
            scenarios.retain(|scenario| scenario.kind == Kind::Traffic && !scenario.is_batch_row());
        }
        if options.subject == Subject::Relay {
            scenarios.retain(Scenario::suits_relay);
        }
    }
    for scenario in &mut scenarios {
        scenario.change(options);
        let loaded = recording::load(options, scenario);
        loaded
            .and_then(|()| scenario.check())
            .map_err(|wrong| format!("scenario {}: {wrong}", scenario.name))?;
    }
    Ok(scenarios)
}

fn read(name: &str) -> Result<String, String> {
    fs::read_to_string(name).map_err(|error| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        format!(
            "{name}: neither a readable file ({error}) nor a built-in scenario ({})",
            names.join(", ")
        )
    })
}

fn parse(name: &str, text: &str) -> Result<Scenario, String> {
    let mut scenario: Scenario =
        toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    if scenario.name.is_empty() {
        scenario.name = name.to_string();
    }
    recording::set_defaults(&toml::from_str(text).unwrap_or_default(), &mut scenario);
    Ok(scenario)
}

impl Scenario {
    fn change(&mut self, options: &Options) {
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut self.mqtt, options.mqtt);
        set(&mut self.qos, options.qos);
        set(&mut self.payload, options.payload);
        if options.payload.is_some() {
            self.payloads.clear();
        }
        set(&mut self.user_properties, options.user_properties);
        set(&mut self.window, options.window);
        // A batch fits a window: that of another is no choice of anyone's.
        set(&mut self.batch, options.batch.or(options.window.map(|_| 0)));
        set(&mut self.rate, options.rate);
        set(&mut self.publishers, options.publishers);
        set(&mut self.subscribers, options.subscribers);
        set(&mut self.connections, options.connections);
        set(&mut self.rounds, options.rounds);
        set(&mut self.stall_s, options.stall);
        set(&mut self.burden_us, options.burden);
        // Its rates are the command line's.
        if options.rates.is_asked() && self.kind == Kind::Traffic {
            self.flat_out = false;
            self.rate = options.rates.first(options.rate);
        }
        self.allow_added_properties |= options.allow_added_properties;
        // User properties exist in MQTT 5 only: asking for them asks for it.
        if options.user_properties.is_some_and(|count| count > 0) && options.mqtt.is_none() {
            self.mqtt = 5;
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_sizes()?;
        self.check_drawn()?;
        let wrong = |text: String| Err(text);
        if ![3, 5].contains(&self.mqtt) {
            return wrong(format!("mqtt is {}; it must be 3 (3.1.1) or 5", self.mqtt));
        }
        if self.mqtt == 3 && self.user_properties > 0 {
            return wrong("user_properties need mqtt = 5".to_string());
        }
        if self.qos > 2 {
            return wrong(format!("qos is {}; it must be 0, 1 or 2", self.qos));
        }
        if self.payload < PAYLOAD_SIZE_MIN || self.stalled_payload < PAYLOAD_SIZE_MIN {
            return wrong(format!(
                "a payload has at least {PAYLOAD_SIZE_MIN} bytes: they carry what is verified"
            ));
        }
        if self.payload.max(self.stalled_payload) > 64 << 20 {
            return wrong("a payload has at most 64 MiB".to_string());
        }
        if !(1..=30_000).contains(&self.window) {
            return wrong(format!("window is {}; it must be 1 to 30000", self.window));
        }
        if self.batch > self.window {
            return wrong(format!("batch is {}; it must be at most the window", self.batch));
        }
        let is_at_rate = self.rate > 0.0 && self.kind == Kind::Traffic;
        if !self.flat_out && !is_at_rate && self.kind != Kind::Replay {
            return wrong("flat_out = false is for traffic with a rate".to_string());
        }
        if self.burden_us > 1_000_000 {
            return wrong("burden_us must be at most 1,000,000".to_string());
        }
        if !(0.0..=1e8).contains(&self.rate) || !(1.0..=1e6).contains(&self.stalled_rate) {
            return wrong(
                "rate must be 0 to 100,000,000 and stalled_rate 1 to 1,000,000".to_string(),
            );
        }
        if !(0.1..=3600.0).contains(&self.stall_s) {
            return wrong("stall_s must be 0.1 to 3600".to_string());
        }
        let topics: HashSet<String> = (0..self.publishers).map(|n| self.topic_of(n)).collect();
        if topics.len() < self.publishers && self.kind == Kind::Traffic && self.topics == 0 {
            return wrong(
                "each publisher needs a topic of its own: name {publisher} in it".to_string(),
            );
        }
        Ok(())
    }

    /// What all other checks, and all memory, go by.
    fn check_sizes(&self) -> Result<(), String> {
        let wrong = |text: String| Err(text);
        let counts = [self.publishers, self.subscribers, self.rounds];
        if counts.iter().any(|count| !(1..=99_999).contains(count)) {
            return wrong("publishers, subscribers and rounds must be 1 to 99999".to_string());
        }
        if !(1..=1_000_000).contains(&self.connections) {
            return wrong("connections must be 1 to 1,000,000".to_string());
        }
        if self.user_properties > USER_PROPERTIES_MAX {
            return wrong(format!("user_properties must be at most {USER_PROPERTIES_MAX}"));
        }
        // The numbers that stand for {publisher} and {topic} are shorter than these words.
        if self.topic.len() > TOPIC_SIZE_MAX {
            return wrong(format!("topic must have at most {TOPIC_SIZE_MAX} bytes"));
        }
        if self.filters.len() > FILTERS_MAX || self.idle_filters > FILTERS_MAX {
            return wrong(format!("filters and idle_filters must be at most {FILTERS_MAX}"));
        }
        if self.filters.iter().any(|filter| filter.len() > FILTER_SIZE_MAX) {
            return wrong(format!("each of filters must have at most {FILTER_SIZE_MAX} bytes"));
        }
        if self.filters.is_empty()
            && ![Kind::Idle, Kind::ConnectStorm, Kind::ConnectRate].contains(&self.kind)
        {
            return wrong("filters must not be empty".to_string());
        }
        Ok(())
    }

    /// It differs from another built-in one in its batch only, which is nothing at a fixed rate.
    fn is_batch_row(&self) -> bool {
        self.name.ends_with("-one") || self.name.ends_with("-five")
    }

    pub(crate) fn topic_of(&self, publisher: usize) -> String {
        self.topic(publisher, 0)
    }

    /// Topic number `number` of those that a publisher draws from.
    pub(crate) fn topic(&self, publisher: usize, number: usize) -> String {
        let topic = self.topic.replace("{publisher}", &format!("{publisher:05}"));
        topic.replace("{topic}", &format!("{number:06}"))
    }

    /// The filter of a subscriber that messages match.
    pub(crate) fn filter_of(&self, subscriber: usize) -> String {
        self.filter(subscriber % self.filters.len(), subscriber)
    }

    fn filter(&self, index: usize, subscriber: usize) -> String {
        self.filters[index].replace("{subscriber}", &format!("{subscriber:05}"))
    }

    /// The filters of a subscriber that nothing matches.
    pub(crate) fn idle_filters_of(&self, subscriber: usize) -> Vec<String> {
        (0..self.idle_filters).map(|index| format!("idle/{subscriber:05}/{index:05}/+/#")).collect()
    }

    /// How many messages a publisher sends at once, flat out: while half its window is under way it may send the other. A write
    /// is no larger than a block.
    pub(crate) fn batch(&self) -> u64 {
        let half = self.window.div_ceil(2);
        let asked = if self.batch > 0 { self.batch.min(half) } else { half };
        let in_block = limits::packet_size(self).map_or(1, |size| (BLOCK_SIZE / size).max(1));
        asked.min(in_block as u64)
    }

    /// The relay has no shared subscriptions, and is measured with traffic.
    fn suits_relay(&self) -> bool {
        let is_shared = |filter: &String| filter.starts_with("$share/");
        self.kind == Kind::Traffic && !self.filters.iter().any(is_shared)
    }

    pub(crate) fn burden_ns(&self) -> u64 {
        self.burden_us * 1000
    }

    /// The property section of each publish, with its length; nothing for 3.1.1.
    pub(crate) fn properties(&self) -> Vec<u8> {
        if self.mqtt < 5 {
            return Vec::new();
        }
        let mut pairs = Vec::new();
        for index in 0..self.user_properties {
            let (name, value) = (format!("name-{index:04}"), format!("value-{index:04}"));
            pairs.push(message::USER_PROPERTY);
            for text in [name, value] {
                pairs.extend_from_slice(&(text.len() as u16).to_be_bytes());
                pairs.extend_from_slice(text.as_bytes());
            }
        }
        let mut section = Vec::new();
        message::write_size(&mut section, pairs.len());
        section.extend(pairs);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Block;
    use crate::plan::Plan;

    #[test]
    fn every_built_in_scenario_is_sound_and_carries_its_files_name() {
        for (scenario, (name, _)) in built_in().iter().zip(BUILT_IN) {
            assert_eq!(scenario.name, name);
            assert_eq!(scenario.check(), Ok(()), "{name}");
            assert!(!scenario.about.is_empty());
        }
    }

    #[test]
    fn a_write_holds_the_batch_of_every_built_in_scenario() {
        let traffic = built_in().into_iter().filter(|scenario| scenario.kind == Kind::Traffic);
        for scenario in traffic {
            let flow = &Plan::new(&scenario).flows[0];
            let capacity = Block::new(&flow.layout).capacity() as u64;
            let name = &scenario.name;
            assert!(capacity >= scenario.batch(), "{name}: {capacity} messages a write");
        }
    }

    #[test]
    fn every_target_names_a_built_in_scenario() {
        for text in [include_str!("../peers/table.toml"), include_str!("../peers/stages.toml")] {
            let table: toml::Table = toml::from_str(text).expect("it is TOML");
            for row in table["row"].as_array().expect("it has rows") {
                let names = ["scenario", "base_scenario"].map(|key| row.get(key)?.as_str());
                for name in names.into_iter().flatten() {
                    assert!(BUILT_IN.iter().any(|(known, _)| *known == name), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_scenario_that_cannot_be_run_is_refused() {
        let refused = [
            "mqtt = 4",
            "qos = 3",
            "payload = 15",
            "user_properties = 1",
            "window = 0",
            "publishers = 2\ntopic = \"a\"",
            "filters = []",
            "batch = 501",
            "flat_out = false",
            "rate = -1.0",
            "kind = \"reconnect-storm\"\nqos = 1\nsubscribers = 0",
            "kind = \"reconnect-storm\"\nqos = 1\nfilters = []",
            "publishers = 9000000000000000000\ntopics = 9\ntopic = \"{publisher}/{topic}\"",
        ];
        for text in refused {
            assert!(parse("case", text).expect(text).check().is_err(), "{text}");
        }
        for (text, words) in [
            ("mqtt = 5\nuser_properties = 10001".to_string(), "user_properties must be"),
            (format!("topic = \"{{publisher}}{}\"", "t".repeat(1014)), "topic must have"),
            (format!("filters = [\"{}\"]", "f".repeat(65_536)), "each of filters"),
            (format!("filters = [{}]", "\"f\",".repeat(100_001)), "filters and idle_filters"),
            ("idle_filters = 100001".to_string(), "filters and idle_filters"),
        ] {
            let said = parse("case", &text).expect("TOML").check().expect_err(words);
            assert!(said.starts_with(words), "{words}: {said}");
        }
        assert!(parse("case", "no_such_key = 1").is_err());
    }
}
