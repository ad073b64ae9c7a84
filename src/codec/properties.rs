//! Properties of MQTT 5: identifiers, typed values, and the sections of packets that hold them.

mod diagnostics;
mod set;
mod views;

use super::QoS;
use super::error::{DecodeError, Result};
use super::property_id::PropertyId;
use super::reader::Reader;
use super::var_int;
use super::writer::{binary_size, put_binary, put_str, put_u16, put_u32, put_var_int, str_size};

pub(super) use diagnostics::Diagnostics;
pub use set::PropertySet;
pub(super) use views::Forwarding;
pub use views::{
    ForwardedProperties, SubscriptionIds, UserProperties, put_user_property,
    put_user_property_name, put_user_property_value, user_property_size,
};

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// The payload is UTF-8.
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthMethod(&'a str),
    AuthData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMax(u16),
    TopicAliasMax(u16),
    TopicAlias(u16),
    QosMax(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    PacketSizeMax(u32),
    WildcardAvailable(bool),
    SubscriptionIdsAvailable(bool),
    SharedAvailable(bool),
}

impl<'a> Property<'a> {
    #[inline]
    pub fn id(&self) -> PropertyId {
        match self {
            Property::PayloadFormat(_) => PropertyId::PayloadFormat,
            Property::MessageExpiry(_) => PropertyId::MessageExpiry,
            Property::ContentType(_) => PropertyId::ContentType,
            Property::ResponseTopic(_) => PropertyId::ResponseTopic,
            Property::CorrelationData(_) => PropertyId::CorrelationData,
            Property::SubscriptionId(_) => PropertyId::SubscriptionId,
            Property::SessionExpiry(_) => PropertyId::SessionExpiry,
            Property::AssignedClientId(_) => PropertyId::AssignedClientId,
            Property::ServerKeepAlive(_) => PropertyId::ServerKeepAlive,
            Property::AuthMethod(_) => PropertyId::AuthMethod,
            Property::AuthData(_) => PropertyId::AuthData,
            Property::RequestProblemInformation(_) => PropertyId::RequestProblemInformation,
            Property::WillDelay(_) => PropertyId::WillDelay,
            Property::RequestResponseInformation(_) => PropertyId::RequestResponseInformation,
            Property::ResponseInformation(_) => PropertyId::ResponseInformation,
            Property::ServerReference(_) => PropertyId::ServerReference,
            Property::ReasonString(_) => PropertyId::ReasonString,
            Property::ReceiveMax(_) => PropertyId::ReceiveMax,
            Property::TopicAliasMax(_) => PropertyId::TopicAliasMax,
            Property::TopicAlias(_) => PropertyId::TopicAlias,
            Property::QosMax(_) => PropertyId::QosMax,
            Property::RetainAvailable(_) => PropertyId::RetainAvailable,
            Property::UserProperty(..) => PropertyId::UserProperty,
            Property::PacketSizeMax(_) => PropertyId::PacketSizeMax,
            Property::WildcardAvailable(_) => PropertyId::WildcardAvailable,
            Property::SubscriptionIdsAvailable(_) => PropertyId::SubscriptionIdsAvailable,
            Property::SharedAvailable(_) => PropertyId::SharedAvailable,
        }
    }

    #[inline]
    fn read_id(reader: &mut Reader<'a>) -> Result<PropertyId> {
        let byte = reader.u8()?;
        PropertyId::from_u8(byte).ok_or(DecodeError::PropertyUnknown(byte))
    }

    /// The value of a property, checked.
    #[inline]
    fn read_value(id: PropertyId, reader: &mut Reader<'a>) -> Result<Property<'a>> {
        let out_of_range = DecodeError::PropertyValue(id);
        let above_zero = |value: u16| if value == 0 { Err(out_of_range) } else { Ok(value) };
        let bool = |value: u8| match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(out_of_range),
        };
        Ok(match id {
            PropertyId::PayloadFormat => Property::PayloadFormat(bool(reader.u8()?)?),
            PropertyId::MessageExpiry => Property::MessageExpiry(reader.u32()?),
            PropertyId::ContentType => Property::ContentType(reader.str()?),
            PropertyId::ResponseTopic => match reader.topic_name("") {
                // [MQTT-3.3.2-14] [MQTT-4.7.3-1]
                Ok("") | Err(DecodeError::TopicWildcard) => return Err(DecodeError::ResponseTopic),
                topic => Property::ResponseTopic(topic?),
            },
            PropertyId::CorrelationData => Property::CorrelationData(reader.binary()?),
            PropertyId::SubscriptionId => match reader.var_int()? {
                0 => return Err(out_of_range),
                value => Property::SubscriptionId(value),
            },
            PropertyId::SessionExpiry => Property::SessionExpiry(reader.u32()?),
            PropertyId::AssignedClientId => Property::AssignedClientId(reader.str()?),
            PropertyId::ServerKeepAlive => Property::ServerKeepAlive(reader.u16()?),
            PropertyId::AuthMethod => Property::AuthMethod(reader.str()?),
            PropertyId::AuthData => Property::AuthData(reader.binary()?),
            PropertyId::RequestProblemInformation => {
                Property::RequestProblemInformation(bool(reader.u8()?)?)
            }
            PropertyId::WillDelay => Property::WillDelay(reader.u32()?),
            PropertyId::RequestResponseInformation => {
                Property::RequestResponseInformation(bool(reader.u8()?)?)
            }
            PropertyId::ResponseInformation => Property::ResponseInformation(reader.str()?),
            PropertyId::ServerReference => Property::ServerReference(reader.str()?),
            PropertyId::ReasonString => Property::ReasonString(reader.str()?),
            PropertyId::ReceiveMax => Property::ReceiveMax(above_zero(reader.u16()?)?),
            PropertyId::TopicAliasMax => Property::TopicAliasMax(reader.u16()?),
            PropertyId::TopicAlias => match reader.u16()? {
                // [MQTT-3.3.2-8]
                0 => return Err(DecodeError::TopicAliasZero),
                alias => Property::TopicAlias(alias),
            },
            PropertyId::QosMax => match QoS::from_bits(reader.u8()?) {
                None | Some(QoS::ExactlyOnce) => return Err(out_of_range),
                Some(qos) => Property::QosMax(qos),
            },
            PropertyId::RetainAvailable => Property::RetainAvailable(bool(reader.u8()?)?),
            // [MQTT-1.5.7-1]
            PropertyId::UserProperty => Property::UserProperty(reader.str()?, reader.str()?),
            PropertyId::PacketSizeMax => match reader.u32()? {
                0 => return Err(out_of_range),
                size => Property::PacketSizeMax(size),
            },
            PropertyId::WildcardAvailable => Property::WildcardAvailable(bool(reader.u8()?)?),
            PropertyId::SubscriptionIdsAvailable => {
                Property::SubscriptionIdsAvailable(bool(reader.u8()?)?)
            }
            PropertyId::SharedAvailable => Property::SharedAvailable(bool(reader.u8()?)?),
        })
    }

    fn value(&self) -> Value<'a> {
        match *self {
            Property::PayloadFormat(value)
            | Property::RequestProblemInformation(value)
            | Property::RequestResponseInformation(value)
            | Property::RetainAvailable(value)
            | Property::WildcardAvailable(value)
            | Property::SubscriptionIdsAvailable(value)
            | Property::SharedAvailable(value) => Value::Byte(u8::from(value)),
            Property::QosMax(qos) => Value::Byte(qos as u8),
            Property::ServerKeepAlive(value)
            | Property::ReceiveMax(value)
            | Property::TopicAliasMax(value)
            | Property::TopicAlias(value) => Value::U16(value),
            Property::MessageExpiry(value)
            | Property::SessionExpiry(value)
            | Property::WillDelay(value)
            | Property::PacketSizeMax(value) => Value::U32(value),
            Property::SubscriptionId(value) => Value::VarInt(value),
            Property::ContentType(text)
            | Property::ResponseTopic(text)
            | Property::AssignedClientId(text)
            | Property::AuthMethod(text)
            | Property::ResponseInformation(text)
            | Property::ServerReference(text)
            | Property::ReasonString(text) => Value::Text(text),
            Property::CorrelationData(bytes) | Property::AuthData(bytes) => Value::Binary(bytes),
            Property::UserProperty(name, value) => Value::Pair(name, value),
        }
    }

    /// The encoded size, identifier included.
    pub fn size(&self) -> usize {
        1 + match self.value() {
            Value::Byte(_) => 1,
            Value::U16(_) => 2,
            Value::U32(_) => 4,
            Value::VarInt(value) => var_int::size(value as usize),
            Value::Text(text) => str_size(text),
            Value::Binary(bytes) => binary_size(bytes),
            Value::Pair(name, value) => str_size(name) + str_size(value),
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.id() as u8);
        match self.value() {
            Value::Byte(value) => out.push(value),
            Value::U16(value) => put_u16(out, value),
            Value::U32(value) => put_u32(out, value),
            Value::VarInt(value) => put_var_int(out, value as usize),
            Value::Text(text) => put_str(out, text),
            Value::Binary(bytes) => put_binary(out, bytes),
            Value::Pair(name, value) => {
                put_str(out, name);
                put_str(out, value);
            }
        }
    }
}

/// A property's value by the way it is encoded.
enum Value<'a> {
    Byte(u8),
    U16(u16),
    U32(u32),
    VarInt(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// The property section of a packet, read once from front to back.
#[derive(Debug)]
pub(super) struct Section<'a> {
    raw: &'a [u8],
    reader: Reader<'a>,
    allowed: PropertySet,
    repeatable: PropertySet,
    seen: u64,
}

impl<'a> Section<'a> {
    /// Takes the section, which begins with its length, off `reader`.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Section<'a>> {
        let size = reader.var_int()? as usize;
        let raw = reader.take(size)?;
        let reader = Reader::new(raw);
        Ok(Section { raw, reader, allowed, repeatable: PropertySet::REPEATABLE, seen: 0 })
    }

    /// As `read`, for a PUBLISH, which may have several subscription identifiers.
    #[inline]
    pub(super) fn read_publish(reader: &mut Reader<'a>) -> Result<Section<'a>> {
        let section = Section::read(reader, PropertySet::PUBLISH)?;
        Ok(Section { repeatable: PropertySet::REPEATABLE_IN_PUBLISH, ..section })
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = Property::read_id(&mut self.reader)?;
        // The identifier is checked before the value: an error of the value may have a reason code that the answer to
        // this packet cannot carry.
        if !self.allowed.contains(id) {
            return Err(DecodeError::PropertyNotAllowed(id));
        }
        let bit = 1 << id as u8;
        if self.seen & bit != 0 && !self.repeatable.contains(id) {
            return Err(DecodeError::PropertyDuplicate(id));
        }
        self.seen |= bit;
        Property::read_value(id, &mut self.reader).map(Some)
    }

    /// Whether the section is user properties of short ASCII and nothing else, as most sections are. One look at all
    /// bytes costs less than one at each text.
    pub(super) fn is_plain(&self) -> bool {
        let mut rest = self.raw;
        // Zero bytes of the lengths; any further one is U+0000 in a text.
        let mut zero_count = 0;
        while let [id, texts @ ..] = rest {
            if *id != PropertyId::UserProperty as u8 {
                return false;
            }
            rest = texts;
            for _ in 0..2 {
                let [0, size, text @ ..] = rest else { return false };
                let Some((_, behind)) = text.split_at_checked(usize::from(*size)) else {
                    return false;
                };
                zero_count += 1 + usize::from(*size == 0);
                rest = behind;
            }
        }
        self.raw.is_ascii() && memchr::memchr_iter(0, self.raw).count() == zero_count
    }

    /// Passes over user properties of plain text, of which there may be many. `next` reads all others.
    #[inline]
    pub(super) fn skip_user_properties(&mut self) {
        while let [id, after @ ..] = self.reader.rest()
            && *id == PropertyId::UserProperty as u8
        {
            let mut reader = Reader::new(after);
            if !reader.skip_plain() || !reader.skip_plain() {
                return;
            }
            self.reader = reader;
            self.seen |= 1 << PropertyId::UserProperty as u8;
        }
    }

    /// How many bytes of the section have been read.
    pub(super) fn position(&self) -> usize {
        self.raw.len() - self.reader.rest().len()
    }

    pub(super) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    fn has(&self, id: PropertyId) -> bool {
        self.seen & (1 << id as u8) != 0
    }

    /// The user properties, once the whole section has been read.
    pub(super) fn user_properties(&self) -> UserProperties<'a> {
        let raw = if self.has(PropertyId::UserProperty) { self.raw } else { &[] };
        UserProperties::from_raw(raw)
    }

    /// The subscription identifiers, once the whole section has been read.
    pub(super) fn subscription_ids(&self) -> SubscriptionIds<'a> {
        let raw = if self.has(PropertyId::SubscriptionId) { self.raw } else { &[] };
        SubscriptionIds::from_raw(raw)
    }
}

/// The properties of an encoded section, one after the other.
#[derive(Clone, Debug)]
pub struct PropertyIter<'a> {
    reader: Reader<'a>,
}

impl<'a> PropertyIter<'a> {
    /// The iterator ends early if `raw` is not a sequence of properties.
    pub fn new(raw: &'a [u8]) -> PropertyIter<'a> {
        PropertyIter { reader: Reader::new(raw) }
    }

    /// The bytes behind the properties that the iterator has given so far.
    pub fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let id = Property::read_id(&mut self.reader).ok()?;
        Property::read_value(id, &mut self.reader).ok()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Whether a section of PUBLISH, read one property after the other, is user properties of ASCII alone.
    fn is_plain_by_reading(raw: &[u8]) -> bool {
        let mut section = vec![raw.len() as u8];
        section.extend_from_slice(raw);
        let mut section = Section::read_publish(&mut Reader::new(&section)).unwrap();
        loop {
            match section.next() {
                Ok(None) => return true,
                Ok(Some(Property::UserProperty(a, b))) if a.is_ascii() && b.is_ascii() => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn a_section_is_plain_exactly_if_reading_it_says_so() {
        let mut random = Random::new(7);
        let mut plain_count = 0;
        for _ in 0..30_000 {
            let mut raw = Vec::new();
            for _ in 0..random.below(4) {
                let mut text = || "a\u{7f}bcdefghijkl".get(..random.below(13) as usize).unwrap();
                Property::UserProperty(text(), text()).encode(&mut raw);
            }
            if !raw.is_empty() && random.below(3) > 0 {
                let place = random.below(raw.len() as u64) as usize;
                raw[place] = [0, 1, 0x26, 0x80, 0xc3, b'z'][random.below(6) as usize];
            }
            if random.below(8) == 0 {
                raw.truncate(random.below(raw.len() as u64 + 1) as usize);
            }
            let section = Section::read_publish(&mut Reader::new(&[0])).unwrap();
            let is_plain = Section { raw: &raw, ..section }.is_plain();
            assert_eq!(is_plain, is_plain_by_reading(&raw), "{raw:?}");
            plain_count += usize::from(is_plain && !raw.is_empty());
        }
        assert!((1000..25_000).contains(&plain_count), "{plain_count}");
    }
}
