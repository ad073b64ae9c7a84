//! What a recording holds, from a first reading: enough to plan its replay, and to know that nothing is wrong with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ringmq::printable::counted;
use ringmq::topic;

use super::format::Message;
use super::messages::{self, Proof};
use super::reader::Reader;

/// Topics of a recording, and all their text: they are in memory while it is played.
const TOPIC_COUNT_MAX: usize = 1_000_000;
const TOPIC_BYTES_MAX: usize = 256 << 20;

/// Of a topic, its streams by QoS.
pub(super) type StreamsOfTopic = [u32; 3];
pub(super) const NO_STREAM: u32 = u32::MAX;

/// Messages of one topic and one QoS: their order is the broker's to keep [MQTT-4.6.0-6].
#[derive(Debug)]
pub(crate) struct Stream {
    pub topic: Box<str>,
    pub qos: u8,
    /// Which topic of the recording it is.
    pub topic_index: u32,
    /// Some of its messages are verified by a stamp.
    pub has_stamped: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub path: PathBuf,
    /// The protocol that it was recorded with.
    pub mqtt: u8,
    pub streams: Vec<Stream>,
    pub streams_of_topic: HashMap<Box<str>, StreamsOfTopic>,
    pub messages: u64,
    pub retained: u64,
    /// How long was recorded, nanoseconds.
    pub span_ns: u64,
    /// Messages by how each is verified.
    pub proofs: [u64; Proof::COUNT],
    /// Of the largest packet, by protocol.
    pub packet_sizes_max: [usize; 2],
    pub has_properties: bool,
    /// What must be said of the recording.
    pub warnings: Vec<String>,
}

impl Summary {
    /// Reads a recording to its end.
    pub(crate) fn read(path: &Path) -> Result<Summary, String> {
        let mut reader = Reader::open(path)?;
        let mut summary =
            Summary { path: path.to_path_buf(), mqtt: reader.head.mqtt, ..Summary::default() };
        let (mut topic_bytes, mut own) = (0, 0);
        while let Some(message) = reader.next()? {
            if topic::is_system(&message.topic) {
                own += 1;
                continue;
            }
            summary.note_sizes(&message);
            if message.is_retained {
                summary.retained += 1;
                continue;
            }
            topic_bytes += summary.note_traffic(&message);
            if summary.streams_of_topic.len() > TOPIC_COUNT_MAX || topic_bytes > TOPIC_BYTES_MAX {
                return Err(format!(
                    "{}: it has more topics than a replay takes: {TOPIC_COUNT_MAX}, with {} MiB of text",
                    path.display(),
                    TOPIC_BYTES_MAX >> 20
                ));
            }
        }
        summary.span_ns = reader.span_ns();
        let name = path.display();
        if summary.messages == 0 {
            return Err(format!("{name}: it has no messages to play"));
        }
        if reader.is_cut() {
            let held = counted(summary.messages, "messages");
            summary.warnings.push(format!(
                "{name}: the recording was cut, or never ended: what it holds is played, {held}"
            ));
        }
        if own > 0 {
            let own = counted(own, "messages");
            summary
                .warnings
                .push(format!("{name}: {own} below $SYS are the broker's own: they are left out"));
        }
        Ok(summary)
    }

    fn note_sizes(&mut self, message: &Message) {
        for (at, mqtt) in [3, 5].into_iter().enumerate() {
            let size = messages::packet_size(message, mqtt);
            self.packet_sizes_max[at] = self.packet_sizes_max[at].max(size);
        }
        self.has_properties |= message.properties_size() > 0;
    }

    /// Returns how many bytes of topics are new.
    fn note_traffic(&mut self, message: &Message) -> usize {
        self.messages += 1;
        let proof = Proof::of(message);
        self.proofs[proof as usize] += 1;
        let topic = message.topic.as_str();
        let qos = usize::from(message.qos);
        let is_new = !self.streams_of_topic.contains_key(topic);
        if is_new {
            self.streams_of_topic.insert(topic.into(), [NO_STREAM; 3]);
        }
        let next = self.streams.len() as u32;
        let topic_count = self.streams_of_topic.len() as u32;
        let streams = self.streams_of_topic.get_mut(topic).expect("just inserted");
        if streams[qos] == NO_STREAM {
            streams[qos] = next;
            let other = streams.iter().find(|stream| ![NO_STREAM, next].contains(stream)).copied();
            let topic_index = match other {
                Some(other) => self.streams[other as usize].topic_index,
                None => topic_count - 1,
            };
            let (topic, qos) = (topic.into(), message.qos);
            self.streams.push(Stream { topic, qos, topic_index, has_stamped: false });
        }
        self.streams[streams[qos] as usize].has_stamped |= proof == Proof::Stamp;
        if is_new { topic.len() } else { 0 }
    }

    pub(crate) fn topic_count(&self) -> usize {
        self.streams_of_topic.len()
    }

    pub(crate) fn packet_size_max(&self, mqtt: u8) -> usize {
        self.packet_sizes_max[usize::from(mqtt == 5)]
    }

    /// A filter for each first level; where there are many, one for all.
    pub(crate) fn default_filters(&self) -> Vec<String> {
        const FILTER_COUNT_MAX: usize = 16;
        let first =
            |stream: &Stream| stream.topic.split('/').next().unwrap_or_default().to_string();
        let mut levels: Vec<String> = self.streams.iter().map(first).collect();
        levels.sort_unstable();
        levels.dedup();
        // What begins with $ is in no filter that begins with a wildcard [MQTT-4.7.2-1].
        let (own, mut plain): (Vec<String>, Vec<String>) =
            levels.into_iter().partition(|level| level.starts_with('$'));
        if plain.len() > FILTER_COUNT_MAX {
            plain = vec!["#".to_string()];
        } else {
            plain.iter_mut().for_each(|level| level.push_str("/#"));
        }
        plain.extend(own.into_iter().map(|level| level + "/#"));
        plain
    }
}
