//! Messages on their way over a bridge.

use crate::codec::{Publish, QoS};

/// A message for the remote, with its topic on the remote.
#[derive(Clone, Copy, Debug)]
pub struct OutMessage<'a> {
    pub topic: &'a str,
    /// Encoded properties that travel on.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub message_expiry_s: Option<u32>,
}

/// A message of the remote, with its topic on this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InMessage {
    /// Local topic, remote topic, properties, payload.
    bytes: Box<[u8]>,
    topic_size: u32,
    remote_topic_size: u32,
    properties_size: u32,
    pub qos: QoS,
    pub retain: bool,
    pub message_expiry_s: Option<u32>,
}

impl InMessage {
    /// `publish` is the remote's packet, with its topic even if an alias stood for that. QoS and retain flag are those
    /// of the message on this broker.
    pub fn new(
        topic: &str,
        remote_topic: &str,
        publish: &Publish<'_>,
        qos: QoS,
        retain: bool,
    ) -> InMessage {
        let properties_size = publish.properties.size();
        let size = topic.len() + remote_topic.len() + properties_size + publish.payload.len();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(remote_topic.as_bytes());
        publish.properties.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.extend_from_slice(publish.payload);
        InMessage {
            bytes: bytes.into(),
            topic_size: topic.len() as u32,
            remote_topic_size: remote_topic.len() as u32,
            properties_size: properties_size as u32,
            qos,
            retain,
            message_expiry_s: publish.message_expiry_s,
        }
    }

    pub fn topic(&self) -> &str {
        self.text(0, self.topic_size as usize)
    }

    pub fn remote_topic(&self) -> &str {
        self.text(self.topic_size as usize, self.front_size())
    }

    /// Encoded properties that travel on.
    pub fn properties(&self) -> &[u8] {
        &self.bytes[self.front_size()..][..self.properties_size as usize]
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.front_size() + self.properties_size as usize..]
    }

    /// The memory in use, in bytes.
    pub fn size(&self) -> usize {
        size_of::<InMessage>() + self.bytes.len()
    }

    fn front_size(&self) -> usize {
        (self.topic_size + self.remote_topic_size) as usize
    }

    fn text(&self, start: usize, end: usize) -> &str {
        std::str::from_utf8(&self.bytes[start..end]).expect("both topics were texts")
    }
}
