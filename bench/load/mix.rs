//! Messages that differ: the publisher draws the topic of each by Zipf's law, and its size by weight.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::message::{self, Layout, Stamp};

/// One of the sizes of a scenario's payloads, and how many in all have it: its weight of the sum of all weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    /// Bytes.
    pub size: usize,
    pub weight: u32,
}

/// What the publishers of a flow draw from.
#[derive(Debug)]
pub(crate) struct Mix {
    topics: Table,
    payloads: Table,
    payload_sizes: Vec<usize>,
}

/// Numbers that are drawn as often as their weights say.
#[derive(Debug)]
struct Table {
    /// Up to each number, the weights of all.
    sums: Vec<f64>,
}

impl Table {
    fn new(weights: impl Iterator<Item = f64>) -> Table {
        let mut sum = 0.0;
        let add = |weight| {
            sum += weight;
            sum
        };
        Table { sums: weights.map(add).collect() }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let last = self.sums.len() - 1;
        if last == 0 {
            return 0;
        }
        let at = random.f64() * self.sums[last];
        self.sums.partition_point(|sum| *sum <= at).min(last)
    }
}

impl Mix {
    /// Topic number n, from 0 on, has a weight of 1 / (n + 1) ^ `exponent`: 0 draws all alike. `payloads` are not empty.
    pub(crate) fn new(topic_count: usize, exponent: f64, payloads: &[Payload]) -> Mix {
        Mix {
            topics: Table::new((1..=topic_count).map(|rank| (rank as f64).powf(-exponent))),
            payloads: Table::new(payloads.iter().map(|payload| payload.weight.into())),
            payload_sizes: payloads.iter().map(|payload| payload.size).collect(),
        }
    }

    pub(crate) fn topic_count(&self) -> usize {
        self.topics.sums.len()
    }

    /// The number of a topic.
    pub(crate) fn topic(&self, random: &mut fastrand::Rng) -> usize {
        self.topics.draw(random)
    }

    pub(crate) fn payload_size(&self, random: &mut fastrand::Rng) -> usize {
        self.payload_sizes[self.payloads.draw(random)]
    }
}

/// Writes a publish behind what `out` holds. `packet_id`: with QoS 1 and 2. Without a stamp the payload is empty.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    layout: &Layout,
    (topic, retain): (&[u8], bool),
    packet_id: Option<u16>,
    stamped: Option<(usize, Stamp)>,
) {
    let payload_size = stamped.map_or(0, |(size, _)| size);
    let id_size = packet_id.map_or(0, |_| 2);
    let body_size = 2 + topic.len() + id_size + layout.properties.len() + payload_size;
    out.push(0x30 | layout.qos << 1 | u8::from(retain));
    message::write_size(out, body_size);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic);
    out.extend(packet_id.iter().flat_map(|id| id.to_be_bytes()));
    out.extend_from_slice(&layout.properties);
    let payload_index = out.len();
    out.resize(payload_index + payload_size, 0);
    if let Some((_, stamp)) = stamped {
        message::seal(&mut out[payload_index..], stamp);
    }
}

/// Where the properties of a publish lie that begins with them; `None`: they are cut.
#[inline]
pub(crate) fn property_section(bytes: &[u8]) -> Option<Range<usize>> {
    let last = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let length = &bytes[..=last];
    let size = length.iter().rev().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
    let end = last + 1 + size;
    (end <= bytes.len()).then_some(0..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    /// How often each of `count` numbers comes.
    fn shares(count: usize, mut draw: impl FnMut(&mut fastrand::Rng) -> usize) -> Vec<f64> {
        let (mut random, mut found) = (fastrand::Rng::with_seed(7), vec![0u32; count]);
        (0..DRAWS).for_each(|_| found[draw(&mut random)] += 1);
        found.iter().map(|count| f64::from(*count) / DRAWS as f64).collect()
    }

    #[test]
    fn topics_come_as_often_as_zipf_says() {
        for exponent in [0.0, 0.8, 1.0, 1.5] {
            let mix = Mix::new(50, exponent, &[Payload { size: 64, weight: 1 }]);
            let found = shares(50, |random| mix.topic(random));
            let weights: Vec<f64> = (1..=50).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for (rank, (found, weight)) in found.iter().zip(weights).enumerate() {
                let wanted = weight / sum;
                let error = 5.0 * (wanted / DRAWS as f64).sqrt();
                assert!((found - wanted).abs() < error, "{exponent} {rank}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn payloads_come_as_often_as_their_weights_say() {
        let of = |size, weight| Payload { size, weight };
        let mix = Mix::new(1, 1.0, &[of(1, 90), of(2, 0), of(3, 10)]);
        let found = shares(4, |random| mix.payload_size(random));
        assert!((found[1] - 0.9).abs() < 0.005 && (found[3] - 0.1).abs() < 0.005, "{found:?}");
        assert_eq!((found[0], found[2]), (0.0, 0.0));
    }

    #[test]
    fn properties_end_where_their_length_says() {
        assert_eq!(property_section(&[0, 9]), Some(0..1));
        assert_eq!(property_section(&[2, 9, 9, 7]), Some(0..3));
        assert_eq!(property_section(&[2, 9]), None);
        let long = [&[0x80, 1][..], &[5; 130]].concat();
        assert_eq!(property_section(&long), Some(0..130));
        assert_eq!(property_section(&[0x80, 0x80, 0x80, 0x80]), None);
        assert_eq!(property_section(&[]), None);
    }
}
