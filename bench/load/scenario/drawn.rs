//! What the scenarios say whose messages differ, whose rate rises, or whose clients come in a crowd; and whether it can be run.

use std::collections::HashSet;

use ringmq::topic;

use super::{Kind, Scenario};
use crate::message::PAYLOAD_SIZE_MIN;

/// Topics that a publisher may draw from.
const TOPICS_MAX: usize = 100_000;
/// Topics that a retained storm may set.
const RETAINED_MAX: usize = 1_000_000;
/// Each pair of a publisher's topic and a subscriber takes memory of the generator.
const PAIRS_MAX: usize = 50_000_000;
const QUEUED_MAX: usize = 10_000;

impl Scenario {
    /// The messages of a publisher differ in topic or size.
    pub(crate) fn is_mixed(&self) -> bool {
        self.kind == Kind::Traffic && self.topics > 0 || !self.payloads.is_empty()
    }

    pub(crate) fn payload_size_max(&self) -> usize {
        self.payloads.iter().map(|payload| payload.size).max().unwrap_or(self.payload)
    }

    /// The filters of a subscriber that messages match.
    pub(crate) fn filters_of(&self, subscriber: usize) -> Vec<String> {
        if !self.all_filters {
            return vec![self.filter_of(subscriber)];
        }
        (0..self.filters.len()).map(|index| self.filter(index, subscriber)).collect()
    }

    /// It has a run as fast as it goes.
    pub(crate) fn is_flat_out(&self) -> bool {
        self.flat_out && self.kind != Kind::ConnectRate
    }

    pub(super) fn check_drawn(&self) -> Result<(), String> {
        let drawn = self.topics > 0 || self.zipf != 0.0 || self.all_filters;
        let draws = self.kind == Kind::Traffic;
        if drawn && !draws && self.kind != Kind::RetainedStorm {
            return Err("topics, zipf and all_filters are for traffic".to_string());
        }
        if !self.payloads.is_empty() && !draws {
            return Err(
                "payloads are for traffic; elsewhere all have one size: payload".to_string()
            );
        }
        if (self.ramp_s != 0.0 || self.ramp_steps > 0) && (!draws || self.rate == 0.0) {
            return Err("ramp_s and ramp_steps are for traffic with a rate".to_string());
        }
        if !(0.0..=3600.0).contains(&self.ramp_s) || self.ramp_steps > 1000 {
            return Err("ramp_s must be 0 to 3600, and ramp_steps at most 1000".to_string());
        }
        if self.ramp_steps > 0 && self.ramp_s == 0.0 {
            return Err("ramp_steps need ramp_s: how long all of them take".to_string());
        }
        if !(10..=u16::MAX).contains(&self.keep_alive_s) {
            return Err("keep_alive_s must be 10 to 65535".to_string());
        }
        self.check_payloads()?;
        match self.kind {
            Kind::Traffic => self.check_topics(),
            Kind::RetainedStorm => self.check_retained(),
            Kind::ReconnectStorm => self.check_sessions(),
            Kind::ConnectRate if self.rate == 0.0 => {
                Err("connect-rate needs a rate: connections per second".to_string())
            }
            _ => Ok(()),
        }
    }

    fn check_payloads(&self) -> Result<(), String> {
        if self.payloads.iter().any(|payload| payload.size < PAYLOAD_SIZE_MIN) {
            return Err(format!("each size of payloads is at least {PAYLOAD_SIZE_MIN} bytes"));
        }
        if self.payload_size_max() > 64 << 20 {
            return Err("a payload has at most 64 MiB".to_string());
        }
        let weight: u64 = self.payloads.iter().map(|payload| u64::from(payload.weight)).sum();
        if !self.payloads.is_empty() && weight == 0 {
            return Err("payloads need a weight above 0: none would ever be sent".to_string());
        }
        Ok(())
    }

    fn check_topics(&self) -> Result<(), String> {
        if !(0.0..=10.0).contains(&self.zipf) {
            return Err(format!("zipf is {}; it must be 0 to 10", self.zipf));
        }
        if self.zipf > 0.0 && self.topics == 0 {
            return Err("zipf needs topics: how many there are to draw from".to_string());
        }
        if self.topics > TOPICS_MAX {
            return Err(format!("topics must be at most {TOPICS_MAX}"));
        }
        if self.topics > 1 && !self.topic.contains("{topic}") {
            return Err("topics are told apart by {topic}: name it in topic".to_string());
        }
        let topics = self.publishers.saturating_mul(self.topics.max(1));
        let pairs = topics.saturating_mul(self.subscribers);
        if pairs > PAIRS_MAX {
            return Err(format!(
                "publishers x topics x subscribers is {pairs}, and each takes memory of the generator: at most \
                 {PAIRS_MAX}; use a smaller --factor, or fewer of them"
            ));
        }
        if self.all_filters {
            self.check_all_filters()?;
        }
        Ok(())
    }

    /// Whether a broker delivers once or twice to overlapping subscriptions is its own choice.
    fn check_all_filters(&self) -> Result<(), String> {
        if self.filters.iter().any(|filter| filter.starts_with("$share/")) {
            return Err("all_filters does not go with shared subscriptions".to_string());
        }
        let filters = self.filters_of(0);
        let numbers = 0..self.publishers.max(self.topics).min(1000);
        let topics: HashSet<String> = numbers.map(|number| self.topic(number, number)).collect();
        let twice = topics.iter().find(|topic| {
            filters.iter().filter(|filter| topic::matches(filter, topic)).count() > 1
        });
        match twice {
            Some(topic) => Err(format!("with all_filters, topic {topic} is asked for twice")),
            None => Ok(()),
        }
    }

    fn check_retained(&self) -> Result<(), String> {
        if !(1..=RETAINED_MAX).contains(&self.topics) {
            return Err(format!("a retained storm needs topics: 1 to {RETAINED_MAX}"));
        }
        if self.topics > 1 && !self.topic.contains("{topic}") {
            return Err("topics are told apart by {topic}: name it in topic".to_string());
        }
        if self.filters.len() != 1 || self.filters[0].starts_with("$share/") {
            return Err("a retained storm needs one filter, which is not shared, for all topics"
                .to_string());
        }
        let topics = [self.topic(0, 0), self.topic(0, self.topics - 1)];
        if !topics.iter().all(|topic| topic::matches(&self.filter_of(0), topic)) {
            return Err(format!("filter {} does not match {}", self.filter_of(0), topics[0]));
        }
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), String> {
        if !(1..=QUEUED_MAX).contains(&self.queued) {
            return Err(format!("queued must be 1 to {QUEUED_MAX}"));
        }
        if self.qos == 0 {
            return Err("a session keeps nothing of QoS 0: qos must be 1 or 2".to_string());
        }
        let matches = |index| topic::matches(&self.filter_of(index), &self.topic_of(index));
        if !matches(0) || !matches(self.subscribers - 1) {
            return Err(
                "the filter of subscriber n must match the topic of publisher n".to_string()
            );
        }
        if self.subscribers > 1 && topic::matches(&self.filter_of(0), &self.topic_of(1)) {
            return Err(
                "each session needs a filter of its own: name {subscriber} in it".to_string()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    #[test]
    fn what_cannot_be_drawn_or_kept_is_refused_in_a_sentence() {
        let refused = [
            ("zipf = 1.0", "zipf needs topics"),
            ("zipf = -1.0\ntopics = 2\ntopic = \"a/{topic}\"", "must be 0 to 10"),
            ("topics = 5", "{topic}"),
            ("topics = 200000\ntopic = \"a/{topic}\"", "at most 100000"),
            ("topics = 50000\npublishers = 9000\ntopic = \"a/{topic}\"", "memory"),
            ("kind = \"idle\"\ntopics = 5", "for traffic"),
            ("payloads = [{ size = 15, weight = 1 }]", "at least 16"),
            ("payloads = [{ size = 64, weight = 0 }]", "none would ever be sent"),
            ("kind = \"idle\"\npayloads = [{ size = 64, weight = 1 }]", "for traffic"),
            ("ramp_s = 5.0", "with a rate"),
            ("ramp_steps = 5\nrate = 5.0", "need ramp_s"),
            ("ramp_s = -1.0\nrate = 5.0", "0 to 3600"),
            ("keep_alive_s = 0", "10 to 65535"),
            ("all_filters = true\nfilters = [\"bench/+\", \"bench/#\"]", "asked for twice"),
            ("all_filters = true\nfilters = [\"$share/a/b\"]", "shared"),
            ("kind = \"connect-rate\"", "needs a rate"),
            ("kind = \"retained-storm\"", "needs topics"),
            ("kind = \"retained-storm\"\ntopics = 3", "{topic}"),
            ("kind = \"retained-storm\"\ntopics = 3\ntopic = \"a/{topic}\"", "does not match"),
            ("kind = \"reconnect-storm\"", "keeps nothing of QoS 0"),
            ("kind = \"reconnect-storm\"\nqos = 1\nsubscribers = 2", "of its own"),
            ("kind = \"reconnect-storm\"\nqos = 1\nfilters = [\"a\"]", "must match"),
            ("kind = \"reconnect-storm\"\nqos = 1\nqueued = 0", "queued"),
        ];
        for (text, words) in refused {
            let scenario: Scenario = toml::from_str(text).expect(text);
            let said = scenario.check().expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
        for text in ["payloads = [{ size = 64 }]", "payloads = [{ size = 64, weight = -1 }]"] {
            assert!(toml::from_str::<Scenario>(text).is_err(), "{text}");
        }
    }
}
