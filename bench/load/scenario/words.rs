//! A scenario in a few words, from what it does and not from what its file calls it: the command line may change it.

use ringmq::printable::counted;

use super::{Kind, Scenario};
use crate::figures::{duration, grouped, size};

impl Scenario {
    /// Clients, payload, QoS and batch.
    pub(crate) fn words(&self) -> String {
        let parts = match self.kind {
            Kind::Traffic => self.traffic_words(),
            Kind::ConnectStorm => {
                let subscribe = if self.filters.is_empty() { "" } else { " subscribe," };
                let open = grouped(self.connections as f64);
                vec![format!("connect,{subscribe} leave, {open} at a time")]
            }
            Kind::Replay => self.replay_words(),
            Kind::Idle => {
                let connections = grouped(self.connections as f64);
                let filters = if self.filters.is_empty() { "" } else { ", a filter each" };
                vec![format!("{connections} connections at rest{filters}")]
            }
            Kind::StalledSubscriber => {
                let mut parts = self.traffic_words();
                parts.push(format!("one more stalls for {}", duration(self.stall_s * 1e6)));
                parts
            }
            Kind::ConnectRate => {
                let subscribe = if self.filters.is_empty() { "" } else { " with a filter each" };
                let connections = grouped(self.connections as f64);
                vec![format!("{connections} connect and stay{subscribe}")]
            }
            Kind::ReconnectStorm => {
                let sessions = many(self.subscribers, "sessions");
                let queued = many(self.queued, "messages");
                let (size, qos) = (size(self.payload), self.qos);
                vec![format!("{sessions} come back to {queued} each"), size, format!("QoS {qos}")]
            }
            Kind::RetainedStorm => {
                let topics = grouped(self.topics as f64);
                let subscribers = many(self.subscribers, "subscribers");
                let (size, qos) = (size(self.payload), self.qos);
                vec![format!("{topics} retained to {subscribers}"), size, format!("QoS {qos}")]
            }
        };
        parts.join(", ")
    }

    fn traffic_words(&self) -> Vec<String> {
        let size = match self.payloads.iter().map(|payload| payload.size).min() {
            Some(least) => format!("{} to {}", size(least), size(self.payload_size_max())),
            None => size(self.payload),
        };
        let mut parts = vec![self.client_words(), size, format!("QoS {}", self.qos)];
        if self.topics > 0 {
            let law =
                if self.zipf > 0.0 { format!(" by Zipf {}", self.zipf) } else { String::new() };
            parts.push(format!("{} topics{law}", grouped(self.topics as f64)));
        }
        if self.flat_out {
            parts.push(format!("batch {}", self.batch()));
        }
        if self.ramp_s > 0.0 {
            parts.push(format!("ramp of {} s", self.ramp_s));
        }
        if self.mqtt == 5 {
            parts.push("MQTT 5".to_string());
        }
        if self.user_properties > 0 {
            parts.push(format!("{} user properties", self.user_properties));
        }
        if self.idle_filters > 0 {
            let filters = grouped((self.idle_filters * self.subscribers) as f64);
            parts.push(format!("{filters} idle filters"));
        }
        parts
    }

    fn replay_words(&self) -> Vec<String> {
        let (messages, topics) = self
            .recording
            .as_ref()
            .map_or((0, 0), |recording| (recording.messages, recording.topic_count()));
        let pace = match self.flat_out {
            true => "flat out".to_string(),
            false => format!("{} x its speed", self.speed),
        };
        let mut parts = vec![
            format!("replay of {} messages", grouped(messages as f64)),
            format!("{} topics", grouped(topics as f64)),
            format!("{} to {}", grouped(self.publishers as f64), grouped(self.subscribers as f64)),
            pace,
        ];
        if self.loops > 1 {
            parts.push(format!("{} times", grouped(self.loops as f64)));
        }
        if self.mqtt == 5 {
            parts.push("MQTT 5".to_string());
        }
        parts
    }

    fn client_words(&self) -> String {
        let (from, to) = (self.publishers, self.subscribers);
        let is_paired = |filter: &String| {
            filter.contains("{subscriber}") && !filter.contains(['+', '#']) && !is_shared(filter)
        };
        if from == to && self.filters.iter().all(is_paired) {
            return counted(from as u64, "pairs");
        }
        let sharing =
            if self.filters.iter().all(|filter| is_shared(filter)) { " that share" } else { "" };
        format!("{} to {}{sharing}", grouped(from as f64), grouped(to as f64))
    }
}

/// As `counted`, with thousands apart.
fn many(count: usize, noun: &str) -> String {
    if count == 1 { counted(1, noun) } else { format!("{} {noun}", grouped(count as f64)) }
}

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::options::Options;
    use crate::scenario::chosen;

    fn words(arguments: &str) -> String {
        let arguments = ["ringmq-bench", "--scenario"].into_iter().chain(arguments.split(' '));
        let options = Options::parse_from(arguments);
        chosen(&options).expect("it is built in")[0].words()
    }

    #[test]
    fn the_words_say_what_runs() {
        let cases = [
            ("p2p-qos0", "50 pairs, 64 B, QoS 0, batch 250"),
            ("p2p-qos1-one", "50 pairs, 64 B, QoS 1, batch 1"),
            ("p2p-qos0 --payload 4096 --window 20 --qos 2", "50 pairs, 4 KiB, QoS 2, batch 10"),
            ("p2p-qos0 --payload 4k", "50 pairs, 4 KiB, QoS 0, batch 31"),
            ("p2p-qos0 --window 20 --batch 20", "50 pairs, 64 B, QoS 0, batch 10"),
            ("p2p-qos0 --publishers 1 --subscribers 1", "1 pair, 64 B, QoS 0, batch 250"),
            ("p2p-qos0 --subscribers 100", "50 to 100, 64 B, QoS 0, batch 250"),
            ("fan-out-five", "1 to 50, 64 B, QoS 0, batch 5"),
            ("fan-out-rate", "1 to 50, 64 B, QoS 0"),
            ("shared", "10 to 10 that share, 64 B, QoS 1, batch 100"),
            ("wildcards", "20 to 20, 64 B, QoS 0, batch 50, 10,000 idle filters"),
            ("p2p-qos0-v5", "50 pairs, 64 B, QoS 0, batch 250, MQTT 5, 5 user properties"),
            ("connect-churn", "connect, subscribe, leave, 64 at a time"),
            ("connect-storm", "connect, leave, 64 at a time"),
            ("idle", "10,000 connections at rest"),
            ("zipf", "10 to 10, 64 B, QoS 1, 1,000 topics by Zipf 1, batch 5"),
            ("payload-mix", "50 pairs, 64 B to 64 KiB, QoS 1, batch 1"),
            ("payload-mix --payload 32", "50 pairs, 32 B, QoS 1, batch 1"),
            ("ramp-up", "50 pairs, 64 B, QoS 1, ramp of 10 s"),
            ("connect-rate", "2,000 connect and stay"),
            ("reconnect-storm", "1,000 sessions come back to 10 messages each, 256 B, QoS 1"),
            ("retained-storm", "10,000 retained to 20 subscribers, 64 B, QoS 0"),
        ];
        for (arguments, expected) in cases {
            assert_eq!(words(arguments), expected, "{arguments}");
        }
    }
}
