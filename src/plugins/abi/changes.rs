//! The changes that a hook asks for: copied in while it runs, applied when it has returned.

use std::ops::Range;

use crate::codec::{Property, QoS};
use crate::plugin::{EditError, MessageEdit, SessionLimits};

/// The weight of one change beside its bytes, against `Room::weight_max`.
const CHANGE_WEIGHT: usize = 32;

/// A buffer of more capacity is not kept for the next call.
const KEPT_SIZE_MAX: usize = 64 << 10;

/// Copies of the plugin's arguments. Ranges are in `text`, or in `data` where a field says so.
#[derive(Debug, Default)]
pub(super) struct Changes {
    topic: String,
    has_topic: bool,
    payload: Vec<u8>,
    has_payload: bool,
    qos: Option<QoS>,
    retain: Option<bool>,
    properties: Vec<Change>,
    text: String,
    data: Vec<u8>,
    /// How many more bytes the encoded properties may take than before; removed ones are not subtracted.
    properties_growth: usize,
    weight: usize,
    /// The bounds that a connect hook has set.
    pub session: SessionLimits,
}

#[derive(Debug)]
enum Change {
    AddUserProperty(Range<usize>, Range<usize>),
    ReplaceUserProperty(Range<usize>, Range<usize>),
    RemoveUserProperty(Range<usize>),
    ContentType(Option<Range<usize>>),
    ResponseTopic(Option<Range<usize>>),
    /// The range is in `data`.
    CorrelationData(Option<Range<usize>>),
    PayloadFormat(Option<bool>),
    MessageExpiry(Option<u32>),
}

/// A property that a message has at most once, and its new value; `None`: it is removed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Single<'a> {
    ContentType(Option<&'a str>),
    ResponseTopic(Option<&'a str>),
    CorrelationData(Option<&'a [u8]>),
    PayloadFormat(Option<bool>),
    MessageExpiry(Option<u32>),
}

/// The size of a message under its hook, and the size that it may reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub topic_size: usize,
    pub properties_size: usize,
    pub payload_size: usize,
    /// The bound on topic, properties and payload together.
    pub size_max: usize,
    /// The bound on the weight of all changes of one call.
    pub weight_max: usize,
}

impl Changes {
    pub(super) fn clear(&mut self) {
        self.has_topic = false;
        self.has_payload = false;
        self.qos = None;
        self.retain = None;
        self.properties.clear();
        self.properties_growth = 0;
        self.weight = 0;
        self.session = SessionLimits::default();
        for buffer in [&mut self.payload, &mut self.data] {
            buffer.clear();
            buffer.shrink_to(KEPT_SIZE_MAX);
        }
        self.text.clear();
        self.text.shrink_to(KEPT_SIZE_MAX);
        self.properties.shrink_to(KEPT_SIZE_MAX / CHANGE_WEIGHT);
    }

    pub(super) fn qos(&self) -> Option<QoS> {
        self.qos
    }

    pub(super) fn set_qos(&mut self, qos: QoS) {
        self.qos = Some(qos);
    }

    pub(super) fn set_retain(&mut self, retain: bool) {
        self.retain = Some(retain);
    }

    pub(super) fn set_topic(&mut self, topic: &str, room: &Room) -> Result<(), EditError> {
        self.check(room, topic.len(), self.properties_growth, self.payload_size(room))?;
        self.topic.clear();
        self.topic.push_str(topic);
        self.has_topic = true;
        Ok(())
    }

    pub(super) fn set_payload(&mut self, payload: &[u8], room: &Room) -> Result<(), EditError> {
        self.check(room, self.topic_size(room), self.properties_growth, payload.len())?;
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.has_payload = true;
        Ok(())
    }

    pub(super) fn add_user_property(
        &mut self,
        name: &str,
        value: &str,
        room: &Room,
    ) -> Result<(), EditError> {
        self.grow(room, Property::UserProperty(name, value).size(), name.len() + value.len())?;
        let change = Change::AddUserProperty(self.keep(name), self.keep(value));
        self.properties.push(change);
        Ok(())
    }

    pub(super) fn replace_user_property(
        &mut self,
        name: &str,
        value: &str,
        room: &Room,
    ) -> Result<(), EditError> {
        self.grow(room, Property::UserProperty(name, value).size(), name.len() + value.len())?;
        let change = Change::ReplaceUserProperty(self.keep(name), self.keep(value));
        self.properties.push(change);
        Ok(())
    }

    pub(super) fn remove_user_property(
        &mut self,
        name: &str,
        room: &Room,
    ) -> Result<(), EditError> {
        self.grow(room, 0, name.len())?;
        let change = Change::RemoveUserProperty(self.keep(name));
        self.properties.push(change);
        Ok(())
    }

    pub(super) fn set_single(&mut self, single: Single<'_>, room: &Room) -> Result<(), EditError> {
        let growth = single.property().map_or(0, |property| property.size());
        self.grow(room, growth, growth)?;
        let change = match single {
            Single::ContentType(text) => Change::ContentType(text.map(|text| self.keep(text))),
            Single::ResponseTopic(text) => Change::ResponseTopic(text.map(|text| self.keep(text))),
            Single::CorrelationData(data) => Change::CorrelationData(data.map(|data| {
                let start = self.data.len();
                self.data.extend_from_slice(data);
                start..self.data.len()
            })),
            Single::PayloadFormat(is_utf8) => Change::PayloadFormat(is_utf8),
            Single::MessageExpiry(seconds) => Change::MessageExpiry(seconds),
        };
        self.properties.push(change);
        Ok(())
    }

    /// Makes the changes in the order in which they were asked for. Each was checked to fit when it was asked for.
    pub(super) fn apply(&self, message: &mut MessageEdit<'_>) -> Result<(), EditError> {
        // The part that becomes smaller changes first, so no state in between is larger than the last one.
        let is_topic_first = self.topic.len() <= message.topic().len();
        if self.has_topic && is_topic_first {
            message.set_topic(&self.topic)?;
        }
        if self.has_payload {
            message.set_payload(&self.payload)?;
        }
        if self.has_topic && !is_topic_first {
            message.set_topic(&self.topic)?;
        }
        if let Some(qos) = self.qos {
            message.set_qos(qos);
        }
        if let Some(retain) = self.retain {
            message.set_retain(retain);
        }
        self.properties.iter().try_for_each(|change| self.apply_one(change, message))
    }

    fn apply_one(&self, change: &Change, message: &mut MessageEdit<'_>) -> Result<(), EditError> {
        let text = |range: &Range<usize>| &self.text[range.clone()];
        match change {
            Change::AddUserProperty(name, value) => {
                message.add_user_property(text(name), text(value))
            }
            Change::ReplaceUserProperty(name, value) => {
                message.replace_user_property(text(name), text(value))
            }
            Change::RemoveUserProperty(name) => {
                message.remove_user_property(text(name));
                Ok(())
            }
            Change::ContentType(new) => message.set_content_type(new.as_ref().map(text)),
            Change::ResponseTopic(new) => message.set_response_topic(new.as_ref().map(text)),
            Change::CorrelationData(new) => {
                message.set_correlation_data(new.as_ref().map(|range| &self.data[range.clone()]))
            }
            Change::PayloadFormat(new) => message.set_payload_format_utf8(*new),
            Change::MessageExpiry(new) => {
                message.set_message_expiry_s(*new);
                Ok(())
            }
        }
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    /// Counts one change of a property; an error if there is no room for it.
    fn grow(&mut self, room: &Room, growth: usize, size: usize) -> Result<(), EditError> {
        let weight = self.weight + CHANGE_WEIGHT + size;
        let properties_growth = self.properties_growth + growth;
        self.check(room, self.topic_size(room), properties_growth, self.payload_size(room))?;
        if weight > room.weight_max {
            return Err(EditError::TooLarge);
        }
        self.weight = weight;
        self.properties_growth = properties_growth;
        Ok(())
    }

    fn check(
        &self,
        room: &Room,
        topic_size: usize,
        properties_growth: usize,
        payload_size: usize,
    ) -> Result<(), EditError> {
        let was = room.topic_size + room.properties_size + room.payload_size;
        let size = topic_size + room.properties_size + properties_growth + payload_size;
        if size <= was || size <= room.size_max { Ok(()) } else { Err(EditError::TooLarge) }
    }

    fn topic_size(&self, room: &Room) -> usize {
        if self.has_topic { self.topic.len() } else { room.topic_size }
    }

    fn payload_size(&self, room: &Room) -> usize {
        if self.has_payload { self.payload.len() } else { room.payload_size }
    }
}

impl<'a> Single<'a> {
    fn property(&self) -> Option<Property<'a>> {
        match *self {
            Single::ContentType(text) => text.map(Property::ContentType),
            Single::ResponseTopic(text) => text.map(Property::ResponseTopic),
            Single::CorrelationData(data) => data.map(Property::CorrelationData),
            Single::PayloadFormat(is_utf8) => is_utf8.map(Property::PayloadFormat),
            // The message expiry is kept beside the properties, and HEAD_SIZE_MAX of the packet has room for it.
            Single::MessageExpiry(_) => None,
        }
    }
}
