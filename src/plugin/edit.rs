//! The message under the publish hook: a read gives the current state, and every change is copied in at once.

mod saved;

pub use saved::Saved;

use super::MessageView;
use crate::arena::{Draft, Meta};
use crate::codec::{
    Property, PropertyId, PropertyIter, QoS, UserProperties, has_null, put_user_property,
    put_user_property_name, put_user_property_value, user_property_size,
};
use crate::limits::Limits;
use crate::time::Instant;
use crate::topic::{check_name, is_system};
use std::fmt;

/// Why a change was not made. The message is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// No client could publish to this topic.
    TopicInvalid,
    /// The message would not fit into the largest packet, or a text or binary value is longer than 65,535 bytes.
    TooLarge,
    /// U+0000 in a text.
    TextInvalid,
}

impl fmt::Display for EditError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            EditError::TopicInvalid => "the topic is not one that a client may publish to",
            EditError::TooLarge => "the message or a property would be too large",
            EditError::TextInvalid => "the text contains U+0000",
        })
    }
}

impl std::error::Error for EditError {}

/// The most bytes that a PUBLISH needs beside topic, properties and payload: header, sizes, packet identifier, expiry.
const HEAD_SIZE_MAX: usize = 5 + 2 + 2 + 4 + 5;

/// The memory of changes, which is used again for the next message.
#[derive(Debug, Default)]
pub struct EditBuffers {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
    spare: Vec<u8>,
}

/// A user property that is the same for every message. It is checked and encoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedProperty(Box<[u8]>);

impl FixedProperty {
    pub fn new(name: &str, value: &str) -> Result<FixedProperty, EditError> {
        check_text(name)?;
        check_text(value)?;
        let mut bytes = Vec::new();
        put_user_property(&mut bytes, name, value);
        Ok(FixedProperty(bytes.into()))
    }
}

/// The name of user properties whose values differ. It is checked and encoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyName(Box<[u8]>);

impl PropertyName {
    pub fn new(name: &str) -> Result<PropertyName, EditError> {
        check_text(name)?;
        let mut bytes = Vec::new();
        put_user_property_name(&mut bytes, name, 0);
        Ok(PropertyName(bytes.into()))
    }
}

/// What `EditBuffers::properties` contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Properties {
    Unchanged,
    /// The properties that stand behind the original ones.
    Appended,
    /// All properties of the message.
    Replaced,
}

/// A message and the changes to it.
#[derive(Debug)]
pub struct MessageEdit<'a> {
    original: MessageView<'a>,
    buffers: &'a mut EditBuffers,
    limits: &'a Limits,
    is_topic_changed: bool,
    is_payload_changed: bool,
    /// Whether the payload, or the format that the message declares for it, was changed.
    is_format_changed: bool,
    properties: Properties,
    /// The present size of topic, properties and payload together.
    size: usize,
    qos: QoS,
    retain: bool,
    message_expiry_s: Option<u32>,
    is_pledged: bool,
}

impl EditBuffers {
    /// The properties that were appended to the last message, if nothing else of it was changed.
    #[inline]
    pub fn appended(&self) -> &[u8] {
        &self.properties
    }

    /// Gives back the memory of a large message.
    pub fn trim(&mut self) {
        for buffer in [&mut self.payload, &mut self.properties, &mut self.spare] {
            if buffer.capacity() > KEPT_SIZE_MAX {
                *buffer = Vec::new();
            }
        }
    }
}

/// A buffer of more capacity is not kept.
const KEPT_SIZE_MAX: usize = 64 << 10;

impl<'a> MessageEdit<'a> {
    #[inline]
    pub fn new(
        original: MessageView<'a>,
        buffers: &'a mut EditBuffers,
        limits: &'a Limits,
    ) -> MessageEdit<'a> {
        MessageEdit {
            original,
            buffers,
            limits,
            is_topic_changed: false,
            is_payload_changed: false,
            is_format_changed: false,
            properties: Properties::Unchanged,
            size: original.size(),
            qos: original.qos,
            retain: original.retain,
            message_expiry_s: original.message_expiry_s,
            is_pledged: false,
        }
    }

    /// Promises that the hook makes the same change to the next messages of this client on this topic, whatever else
    /// these contain, and that it only appends user properties. The hook need not be called for them until other work
    /// comes between.
    pub fn pledge(&mut self) {
        self.is_pledged = true;
    }

    /// Whether `pledge` was called since the last call of this.
    #[inline]
    pub fn take_pledge(&mut self) -> bool {
        std::mem::take(&mut self.is_pledged)
    }

    /// How many bytes of properties are appended to the next messages; `None`: the hook has not promised that, or
    /// something else was changed.
    #[inline]
    pub fn pledged(&self) -> Option<usize> {
        let is_other = self.is_topic_changed
            || self.is_payload_changed
            || self.is_meta_changed()
            || self.properties == Properties::Replaced;
        if !self.is_pledged || is_other {
            return None;
        }
        let is_appended = self.properties == Properties::Appended;
        Some(if is_appended { self.buffers.properties.len() } else { 0 })
    }

    /// The limits that a changed message must meet.
    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// The most bytes that topic, properties and payload may have together, unless the message was larger already.
    pub fn size_max(&self) -> usize {
        MessageEdit::size_max_of(self.limits)
    }

    /// As `size_max`, under these limits.
    #[inline]
    pub fn size_max_of(limits: &Limits) -> usize {
        limits.packet_size_max.saturating_sub(HEAD_SIZE_MAX)
    }

    pub fn topic(&self) -> &str {
        if self.is_topic_changed { &self.buffers.topic } else { self.original.topic }
    }

    pub fn payload(&self) -> &[u8] {
        if self.is_payload_changed { &self.buffers.payload } else { self.original.payload }
    }

    pub fn qos(&self) -> QoS {
        self.qos
    }

    pub fn retain(&self) -> bool {
        self.retain
    }

    pub fn message_expiry_s(&self) -> Option<u32> {
        self.message_expiry_s
    }

    /// The properties that travel with the message, in order, without message expiry.
    pub fn properties(&self) -> impl Iterator<Item = Property<'_>> + Clone {
        let (first, second) = self.property_parts();
        PropertyIter::new(first).chain(PropertyIter::new(second))
    }

    pub fn user_properties(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let (first, second) = self.property_parts();
        UserProperties::from_raw(first).iter().chain(UserProperties::from_raw(second).iter())
    }

    pub fn content_type(&self) -> Option<&str> {
        self.properties().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    pub fn response_topic(&self) -> Option<&str> {
        self.properties().find_map(|property| match property {
            Property::ResponseTopic(text) => Some(text),
            _ => None,
        })
    }

    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.properties().find_map(|property| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// The payload format indicator; `None`: the message has none.
    pub fn payload_format_utf8(&self) -> Option<bool> {
        self.properties().find_map(|property| match property {
            Property::PayloadFormat(is_utf8) => Some(is_utf8),
            _ => None,
        })
    }

    pub fn set_topic(&mut self, topic: &str) -> Result<(), EditError> {
        let (size_max, levels_max) = (self.limits.filter_size_max, self.limits.filter_levels_max);
        if check_name(topic, size_max, levels_max).is_err() || is_system(topic) {
            return Err(EditError::TopicInvalid);
        }
        self.resize(self.topic().len(), topic.len())?;
        self.buffers.topic.clear();
        self.buffers.topic.push_str(topic);
        self.is_topic_changed = true;
        Ok(())
    }

    /// Sets the payload. If the message declares it to be UTF-8, it is checked when all hooks have run.
    pub fn set_payload(&mut self, payload: &[u8]) -> Result<(), EditError> {
        self.resize(self.payload().len(), payload.len())?;
        self.buffers.payload.clear();
        self.buffers.payload.extend_from_slice(payload);
        self.is_payload_changed = true;
        self.is_format_changed = true;
        Ok(())
    }

    /// Sets the highest QoS that subscribers get. The publisher is answered as it published.
    pub fn set_qos(&mut self, qos: QoS) {
        self.qos = qos;
    }

    pub fn set_retain(&mut self, retain: bool) {
        self.retain = retain;
    }

    /// Sets the message expiry, in seconds from now; `None`: the message never expires.
    pub fn set_message_expiry_s(&mut self, message_expiry_s: Option<u32>) {
        self.message_expiry_s = message_expiry_s;
    }

    /// Appends a user property behind all others.
    #[inline]
    pub fn add_user_property(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        check_text(name)?;
        check_text(value)?;
        self.grow(user_property_size(name, value))?;
        put_user_property(&mut self.buffers.properties, name, value);
        Ok(())
    }

    /// As `add_user_property`, with a name that was checked before.
    #[inline]
    pub fn add_named_property(
        &mut self,
        name: &PropertyName,
        value: &str,
    ) -> Result<(), EditError> {
        check_text(value)?;
        let added_size = name.0.len() + 2 + value.len();
        self.grow(added_size)?;
        let properties = &mut self.buffers.properties;
        properties.reserve(added_size);
        properties.extend_from_slice(&name.0);
        put_user_property_value(properties, value);
        Ok(())
    }

    /// As `add_user_property`, with a property that was checked before.
    #[inline]
    pub fn add_fixed_property(&mut self, property: &FixedProperty) -> Result<(), EditError> {
        self.grow(property.0.len())?;
        self.buffers.properties.extend_from_slice(&property.0);
        Ok(())
    }

    /// Replaces all user properties of that name by one, in the place of the first; it is appended if there is none.
    pub fn replace_user_property(&mut self, name: &str, value: &str) -> Result<(), EditError> {
        check_text(name)?;
        check_text(value)?;
        let is_named = |property: &Property<'_>| match property {
            Property::UserProperty(other, _) => *other == name,
            _ => false,
        };
        self.replace(is_named, Some(Property::UserProperty(name, value))).map(|_| ())
    }

    /// Removes all user properties of that name; returns how many there were.
    pub fn remove_user_property(&mut self, name: &str) -> usize {
        let is_named = |property: &Property<'_>| match property {
            Property::UserProperty(other, _) => *other == name,
            _ => false,
        };
        self.replace(is_named, None).expect("a message that gets smaller fits")
    }

    pub fn set_content_type(&mut self, content_type: Option<&str>) -> Result<(), EditError> {
        content_type.map_or(Ok(()), check_text)?;
        self.set(PropertyId::ContentType, content_type.map(Property::ContentType))
    }

    pub fn set_response_topic(&mut self, topic: Option<&str>) -> Result<(), EditError> {
        if let Some(topic) = topic {
            check_text(topic)?;
            // [MQTT-3.3.2-14]
            if check_name(topic, usize::from(u16::MAX), usize::MAX).is_err() {
                return Err(EditError::TopicInvalid);
            }
        }
        self.set(PropertyId::ResponseTopic, topic.map(Property::ResponseTopic))
    }

    pub fn set_correlation_data(&mut self, data: Option<&[u8]>) -> Result<(), EditError> {
        if data.is_some_and(|data| data.len() > usize::from(u16::MAX)) {
            return Err(EditError::TooLarge);
        }
        self.set(PropertyId::CorrelationData, data.map(Property::CorrelationData))
    }

    /// `Some(true)` declares the payload to be UTF-8.
    pub fn set_payload_format_utf8(&mut self, is_utf8: Option<bool>) -> Result<(), EditError> {
        self.set(PropertyId::PayloadFormat, is_utf8.map(Property::PayloadFormat))?;
        self.is_format_changed = true;
        Ok(())
    }

    /// Whether the payload has the format that the message declares, as far as either was changed.
    pub fn is_payload_format_right(&self) -> bool {
        !self.is_format_changed
            || self.payload_format_utf8() != Some(true)
            || simdutf8::basic::from_utf8(self.payload()).is_ok()
    }

    pub fn is_changed(&self) -> bool {
        self.is_topic_changed
            || self.is_payload_changed
            || self.properties != Properties::Unchanged
            || self.is_meta_changed()
    }

    #[inline]
    fn is_meta_changed(&self) -> bool {
        self.qos != self.original.qos
            || self.retain != self.original.retain
            || self.message_expiry_s != self.original.message_expiry_s
    }

    /// The message with its changes; `meta` is the original one.
    #[inline]
    pub fn finish(self, meta: Meta, now: Instant) -> Draft<'a> {
        let MessageEdit { original, buffers, .. } = self;
        let buffers: &'a EditBuffers = buffers;
        let topic = if self.is_topic_changed { &buffers.topic } else { original.topic };
        let payload = if self.is_payload_changed { &buffers.payload } else { original.payload };
        let properties: [&[u8]; 2] = match self.properties {
            Properties::Unchanged => [original.raw_properties, &[]],
            Properties::Appended => [original.raw_properties, &buffers.properties],
            Properties::Replaced => [&buffers.properties, &[]],
        };
        let expires_at = match self.message_expiry_s == original.message_expiry_s {
            true => meta.expires_at,
            false => self.message_expiry_s.map(|s| now.plus_s(u64::from(s))),
        };
        let meta = Meta { qos: self.qos as u8, retain: self.retain, expires_at, ..meta };
        Draft { topic: topic.as_bytes(), properties, payload, meta }
    }

    /// The encoded properties in two parts; the properties of the second stand behind those of the first.
    pub fn property_parts(&self) -> (&[u8], &[u8]) {
        match self.properties {
            Properties::Unchanged => (self.original.raw_properties, &[]),
            Properties::Appended => (self.original.raw_properties, &self.buffers.properties),
            Properties::Replaced => (&self.buffers.properties, &[]),
        }
    }

    fn properties_size(&self) -> usize {
        let (first, second) = self.property_parts();
        first.len() + second.len()
    }

    /// Changes the counted size when a part of `old_size` bytes becomes one of `new_size`. The message may be as large
    /// as a client's message may be, or as it was.
    fn resize(&mut self, old_size: usize, new_size: usize) -> Result<(), EditError> {
        let size = self.size - old_size + new_size;
        if size > self.size && size > self.size_max() {
            return Err(EditError::TooLarge);
        }
        self.size = size;
        Ok(())
    }

    fn append(&mut self, property: Property<'_>) -> Result<(), EditError> {
        self.grow(property.size())?;
        property.encode(&mut self.buffers.properties);
        Ok(())
    }

    /// Counts so many more bytes behind all properties.
    #[inline]
    fn grow(&mut self, added_size: usize) -> Result<(), EditError> {
        if self.size + added_size > self.size_max() {
            return Err(EditError::TooLarge);
        }
        self.size += added_size;
        if self.properties == Properties::Unchanged {
            self.buffers.properties.clear();
            self.properties = Properties::Appended;
        }
        Ok(())
    }

    /// Sets a property that a message has at most once: in its place, or behind all others.
    fn set(&mut self, id: PropertyId, new: Option<Property<'_>>) -> Result<(), EditError> {
        self.replace(|property| property.id() == id, new).map(|_| ())
    }

    /// Replaces all properties that match by `new`, in the place of the first; returns how many matched.
    fn replace(
        &mut self,
        matches: impl Fn(&Property<'_>) -> bool,
        new: Option<Property<'_>>,
    ) -> Result<usize, EditError> {
        let mut made = std::mem::take(&mut self.buffers.spare);
        made.clear();
        let mut match_count = 0;
        for property in self.properties() {
            if !matches(&property) {
                property.encode(&mut made);
                continue;
            }
            if match_count == 0
                && let Some(new) = &new
            {
                new.encode(&mut made);
            }
            match_count += 1;
        }
        let result = match (match_count, new) {
            (0, None) => Ok(0),
            (0, Some(new)) => self.append(new).map(|()| 0),
            _ => self.resize(self.properties_size(), made.len()).map(|()| {
                std::mem::swap(&mut self.buffers.properties, &mut made);
                self.properties = Properties::Replaced;
                match_count
            }),
        };
        self.buffers.spare = made;
        result
    }
}

#[inline]
fn check_text(text: &str) -> Result<(), EditError> {
    if text.len() > usize::from(u16::MAX) {
        return Err(EditError::TooLarge);
    }
    // [MQTT-1.5.4-2]
    if has_null(text) { Err(EditError::TextInvalid) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
