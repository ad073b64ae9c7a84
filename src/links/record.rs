//! A message as the log keeps it: mapped, with its expiry as a point in time that survives a restart.
//!
//! ```text
//! version 1 | qos, flags 1 | expires at 8 | topic size 2 | local topic size 2 | properties size 4 | topic | local topic |
//! properties | payload
//! ```
//! In version 2 the trail of a message that a bridge brought stands behind its properties, and is part of their size.
//!
//! Numbers are little endian; `expires at` is milliseconds since 1970, 0: never. An empty local topic is the same as the
//! topic.

use crate::arena::split_trail;
use crate::codec::QoS;

const VERSION: u8 = 1;
const VERSION_WITH_TRAIL: u8 = 2;
const RETAIN: u8 = 0x04;
const FROM_BRIDGE: u8 = 0x08;
const HEADER_SIZE: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub qos: QoS,
    pub retain: bool,
    /// A bridge brought it here.
    pub from_bridge: bool,
    /// Milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// On the remote.
    pub topic: &'a str,
    /// As it was published here.
    pub local_topic: &'a str,
    /// Encoded, as they travel on.
    pub properties: &'a [u8],
    /// Where the message has been, as `Message::trail`; empty: nowhere, or that was not written down.
    pub trail: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn size(&self) -> usize {
        let local_size = if self.is_same() { 0 } else { self.local_topic.len() };
        let properties_size = self.properties.len() + self.trail.len();
        HEADER_SIZE + self.topic.len() + local_size + properties_size + self.payload.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let local_topic = if self.is_same() { "" } else { self.local_topic };
        let retain = if self.retain { RETAIN } else { 0 };
        let from_bridge = if self.from_bridge { FROM_BRIDGE } else { 0 };
        let version = if self.trail.is_empty() { VERSION } else { VERSION_WITH_TRAIL };
        out.extend_from_slice(&[version, self.qos as u8 | retain | from_bridge]);
        out.extend_from_slice(&self.expires_at_ms.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&(self.topic.len() as u16).to_le_bytes());
        out.extend_from_slice(&(local_topic.len() as u16).to_le_bytes());
        let properties_size = self.properties.len() + self.trail.len();
        out.extend_from_slice(&(properties_size as u32).to_le_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(local_topic.as_bytes());
        out.extend_from_slice(self.properties);
        out.extend_from_slice(self.trail);
        out.extend_from_slice(self.payload);
    }

    /// `None`: not what `encode` writes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_SIZE>()?;
        let has_trail = header[0] == VERSION_WITH_TRAIL;
        if header[0] != VERSION && !has_trail {
            return None;
        }
        let expires_at_ms = u64::from_le_bytes(header[2..10].try_into().ok()?);
        let topic_size = u16::from_le_bytes(header[10..12].try_into().ok()?).into();
        let local_size = u16::from_le_bytes(header[12..14].try_into().ok()?).into();
        let properties_size = u32::from_le_bytes(header[14..18].try_into().ok()?) as usize;
        let (topic, rest) = rest.split_at_checked(topic_size)?;
        let (local_topic, rest) = rest.split_at_checked(local_size)?;
        let (properties, payload) = rest.split_at_checked(properties_size)?;
        let (properties, trail) = match has_trail {
            true => split_trail(properties),
            false => (properties, &[][..]),
        };
        let topic = std::str::from_utf8(topic).ok()?;
        let local_topic = std::str::from_utf8(local_topic).ok()?;
        Some(Record {
            qos: QoS::from_bits(header[1] & 3)?,
            retain: header[1] & RETAIN != 0,
            from_bridge: header[1] & FROM_BRIDGE != 0,
            expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
            topic,
            local_topic: if local_topic.is_empty() { topic } else { local_topic },
            properties,
            trail,
            payload,
        })
    }

    fn is_same(&self) -> bool {
        self.topic == self.local_topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_cut_one_does_not_panic() {
        let records = [
            Record {
                qos: QoS::ExactlyOnce,
                retain: true,
                from_bridge: false,
                expires_at_ms: Some(77),
                topic: "site/a",
                local_topic: "a",
                properties: b"props",
                trail: &[],
                payload: b"payload",
            },
            Record {
                qos: QoS::AtLeastOnce,
                retain: false,
                from_bridge: true,
                expires_at_ms: None,
                topic: "a",
                local_topic: "a",
                properties: b"",
                trail: &[],
                payload: b"",
            },
            Record {
                qos: QoS::AtLeastOnce,
                retain: false,
                from_bridge: true,
                expires_at_ms: None,
                topic: "a",
                local_topic: "b",
                properties: b"props",
                trail: &[1, 2, 3, 4, 5, 6, 7, 8, 1, 10],
                payload: b"payload",
            },
        ];
        for record in records {
            let mut bytes = vec![];
            record.encode(&mut bytes);
            assert_eq!(bytes.len(), record.size());
            assert_eq!(Record::decode(&bytes), Some(record));
            let body_size = bytes.len() - record.payload.len();
            for size in 0..body_size {
                assert_eq!(Record::decode(&bytes[..size]), None);
            }
        }
        assert_eq!(Record::decode(&[9; 40]), None);
    }
}
