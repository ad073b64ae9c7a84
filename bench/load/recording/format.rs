//! The lines of a recording: JSON, one object a line. `bench/results/RECORDINGS.md` says what each field means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmq::printable::Quoted;
use ringmq::topic;
use serde::{Deserialize, Serialize};

/// The only version there is.
pub(super) const VERSION: u32 = 1;

/// The largest payload of a message, and the most that its properties may have, bytes: what a scenario may have, too.
pub(super) const PAYLOAD_SIZE_MAX: usize = 64 << 20;

/// A payload of that size in base64, and room for the rest.
pub(super) const LINE_SIZE_MAX: usize = 96 << 20;

/// The largest text of MQTT, bytes [MQTT-1.5.4-1].
pub(super) const TEXT_SIZE_MAX: usize = 65_535;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// The version of the format.
    pub ringmq_recording: u32,
    /// When it was begun, UTC.
    pub begin: String,
    /// The protocol of the recorder: 3 is MQTT 3.1.1, 5 is MQTT 5.0.
    pub mqtt: u8,
    pub filters: Vec<String>,
    #[serde(default)]
    pub hashed_topics: bool,
    #[serde(default)]
    pub payloads: bool,
}

/// A message as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Since the recording began, nanoseconds.
    pub at_ns: u64,
    pub topic: String,
    pub payload_size: usize,
    pub qos: u8,
    /// The flag of a message that was published meanwhile.
    pub retain: bool,
    /// The broker had it before the recording began: it is no traffic.
    pub is_retained: bool,
    /// Bytes of name and value of each user property.
    pub user_properties: Vec<(u16, u16)>,
    pub payload: Option<Vec<u8>>,
    pub content_type: Option<String>,
}

/// The last line. A recording without it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Messages of the traffic.
    pub messages: u64,
    pub retained: u64,
    /// Messages that could not be written down.
    #[serde(default)]
    pub skipped: u64,
    /// How long was recorded, nanoseconds.
    pub ns: u64,
    /// Why it ended.
    #[serde(default)]
    pub why: String,
    /// The QoS that the broker granted to each filter.
    #[serde(default)]
    pub granted: Vec<u8>,
    /// What the broker's count of dropped messages grew by; `None`: it has not said.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// Of all bytes in front of this line, in eight hexadecimal digits.
    pub crc32: String,
}

/// What a line after the first may hold.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "is_false")]
    retain: bool,
    #[serde(skip_serializing_if = "is_false")]
    retained: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(u16, u16)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Message(Message),
    End(End),
}

impl Head {
    pub(super) fn parse(line: &[u8]) -> Result<Head, String> {
        #[derive(Deserialize)]
        struct Versioned {
            ringmq_recording: u32,
        }
        let other = |_| "its first line is not that of a recording by ringmq-bench".to_string();
        let version = serde_json::from_slice::<Versioned>(line).map_err(other)?.ringmq_recording;
        if version != VERSION {
            return Err(format!(
                "it is a recording of version {version}, and this ringmq-bench reads {VERSION}"
            ));
        }
        let head: Head = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if ![3, 5].contains(&head.mqtt) {
            return Err(format!("mqtt is {}; it must be 3 or 5", head.mqtt));
        }
        Ok(head)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_line(self, out);
    }
}

fn write_line(line: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, line).expect("plain data into memory");
    out.push(b'\n');
}

impl Entry {
    /// Takes a line apart, and refuses what no broker could have sent.
    pub(super) fn parse(line: &[u8]) -> Result<Entry, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if let Some(end) = line.end {
            return Ok(Entry::End(end));
        }
        let missing = |name: &str| format!("it has no {name}");
        let payload_size = line.size.ok_or_else(|| missing("size"))?;
        let payload_size = usize::try_from(payload_size)
            .ok()
            .filter(|size| *size <= PAYLOAD_SIZE_MAX)
            .ok_or_else(|| format!("size is {payload_size}; it must be at most 64 MiB"))?;
        let payload = line.payload.map(|text| STANDARD.decode(text)).transpose();
        let message = Message {
            at_ns: line.ns.ok_or_else(|| missing("ns"))?,
            topic: line.topic.ok_or_else(|| missing("topic"))?,
            payload_size,
            qos: line.qos.ok_or_else(|| missing("qos"))?,
            retain: line.retain,
            is_retained: line.retained,
            user_properties: line.user_properties,
            payload: payload.map_err(|error| format!("payload is no base64: {error}"))?,
            content_type: line.content_type,
        };
        message.check()?;
        Ok(Entry::Message(message))
    }
}

impl Message {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let line = Line {
            ns: Some(self.at_ns),
            topic: Some(self.topic),
            size: Some(self.payload_size as u64),
            qos: Some(self.qos),
            retain: self.retain,
            retained: self.is_retained,
            user_properties: self.user_properties,
            content_type: self.content_type,
            payload: self.payload.map(|payload| STANDARD.encode(payload)),
            end: None,
        };
        write_line(&line, out);
    }

    fn check(&self) -> Result<(), String> {
        topic::check_name(&self.topic, TEXT_SIZE_MAX, usize::MAX).map_err(|wrong| {
            format!("topic {} cannot be published to: {wrong}", Quoted(&self.topic))
        })?;
        if self.qos > 2 {
            return Err(format!("qos is {}; it must be 0, 1 or 2", self.qos));
        }
        if let Some(payload) = self.payload.as_ref().filter(|one| one.len() != self.payload_size) {
            return Err(format!(
                "size is {}, and payload has {}",
                self.payload_size,
                payload.len()
            ));
        }
        if self.content_type.as_ref().is_some_and(|text| text.len() > TEXT_SIZE_MAX) {
            return Err(format!("content_type has over {TEXT_SIZE_MAX} bytes"));
        }
        if self.properties_size() > PAYLOAD_SIZE_MAX {
            return Err("its properties have over 64 MiB".to_string());
        }
        Ok(())
    }

    /// Of the properties in MQTT 5, without their length.
    pub(super) fn properties_size(&self) -> usize {
        let pair = |(name, value): &(u16, u16)| 5 + usize::from(*name) + usize::from(*value);
        let content_type = self.content_type.as_ref().map_or(0, |text| 3 + text.len());
        content_type + self.user_properties.iter().map(pair).sum::<usize>()
    }
}

impl End {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        write_line(&Line { end: Some(self), ..Line::default() }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let message = Message {
            at_ns: 1 << 40,
            topic: "a/\"b\"/\u{e9}".to_string(),
            payload_size: 3,
            qos: 2,
            retain: true,
            user_properties: vec![(4, 65_535), (0, 0)],
            payload: Some(vec![0, 255, 10]),
            content_type: Some("text/plain".to_string()),
            ..Message::default()
        };
        let mut line = Vec::new();
        message.clone().write(&mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Entry::parse(&line), Ok(Entry::Message(message)));
    }

    #[test]
    fn what_no_broker_sends_is_refused_with_the_reason() {
        let cases = [
            (r#"{"ns":0,"size":1,"qos":0}"#, "no topic"),
            (r#"{"topic":"a","size":1,"qos":0}"#, "no ns"),
            (r#"{"ns":-1,"topic":"a","size":1,"qos":0}"#, "invalid value"),
            (r#"{"ns":0,"topic":"","size":1,"qos":0}"#, "empty"),
            (r#"{"ns":0,"topic":"a\u0000b","size":1,"qos":0}"#, "cannot be published to"),
            (r#"{"ns":0,"topic":"a/+","size":1,"qos":0}"#, "cannot be published to"),
            (r#"{"ns":0,"topic":"a/#","size":1,"qos":0}"#, "cannot be published to"),
            (r#"{"ns":0,"topic":"a","size":67108865,"qos":0}"#, "at most 64 MiB"),
            (r#"{"ns":0,"topic":"a","size":18446744073709551615,"qos":0}"#, "at most 64 MiB"),
            (r#"{"ns":0,"topic":"a","size":1,"qos":3}"#, "qos is 3"),
            (r#"{"ns":0,"topic":"a","size":1,"qos":0,"payload":"AAAA"}"#, "payload has 3"),
            (r#"{"ns":0,"topic":"a","size":1,"qos":0,"payload":"="}"#, "no base64"),
            (r#"{"ns":0,"topic":"a","size":1,"qos":0,"user_properties":[[1,65536]]}"#, "65536"),
            (r#"{"ns":0,"topic":"a","size":1,"qos":0,"password":"x"}"#, "unknown field"),
            ("[]", "no size"),
            ("", "EOF"),
        ];
        for (line, reason) in cases {
            let said = Entry::parse(line.as_bytes()).expect_err(line);
            assert!(said.contains(reason), "{line}: {said}");
        }
        let pairs = ["[65535,65535]"; 600].join(",");
        let large =
            format!(r#"{{"ns":0,"topic":"a","size":0,"qos":0,"user_properties":[{pairs}]}}"#);
        assert!(Entry::parse(large.as_bytes()).expect_err("79 MB").contains("over 64 MiB"));
        let long = |size: usize| {
            let topic = "t".repeat(size);
            Entry::parse(format!(r#"{{"ns":0,"topic":"{topic}","size":0,"qos":0}}"#).as_bytes())
        };
        assert!(long(65_535).is_ok());
        assert!(long(65_536).expect_err("too long").len() < 1000);
    }

    #[test]
    fn a_first_line_of_something_else_or_of_another_version_is_named_as_that() {
        for (line, reason) in [
            ("{}", "not that of a recording"),
            ("\u{7f}ELF", "not that of a recording"),
            (r#"{"ringmq_recording":2,"new":1}"#, "version 2, and this ringmq-bench reads 1"),
            (r#"{"ringmq_recording":1,"begin":"","mqtt":4,"filters":[]}"#, "mqtt is 4"),
        ] {
            let said = Head::parse(line.as_bytes()).expect_err(line);
            assert!(said.contains(reason), "{line}: {said}");
        }
    }
}
