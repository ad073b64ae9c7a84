//! PUBLISH: the packet that everything is about.

use super::error::{DecodeError, Result};
use super::framer::{Frame, next_frame};
use super::header::PacketType;
use super::properties::{
    ForwardedProperties, Forwarding, Property, PropertySet, Section, SubscriptionIds,
};
use super::reader::Reader;
use super::var_int;
use super::writer::{FIELD_SIZE_MAX, put_binary, put_header, put_header_of, put_u16, put_var_int};
use super::{PacketId, ProtocolVersion, QoS};

const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only when an alias stands for it.
    pub topic: &'a str,
    /// `Some` exactly when the QoS is above 0.
    pub packet_id: Option<PacketId>,
    pub topic_alias: Option<u16>,
    pub message_expiry_s: Option<u32>,
    /// Whether `properties` say that the payload is UTF-8. The payload is not checked.
    pub payload_format_utf8: bool,
    /// Only servers may send them.
    pub subscription_ids: SubscriptionIds<'a>,
    pub properties: ForwardedProperties<'a>,
    pub payload: &'a [u8],
}

/// Topic and properties of a connection's last PUBLISH. The next one often has the same ones, which are not validated
/// again.
#[derive(Clone, Copy, Debug, Default)]
pub struct PreviousPublish<'a> {
    topic: &'a str,
    /// A property section that begins with its length, if all of its properties are forwarded and none sets a field of
    /// `Publish`; else empty.
    section: &'a [u8],
    /// The section without its length.
    properties: &'a [u8],
}

impl<'a> PreviousPublish<'a> {
    /// The topic of the last PUBLISH; empty if an alias stood for it.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The beginning that `frame`, the PUBLISH that was just read, has in common with messages that repeat it. `None`:
    /// it has more than topic and properties that any message may have.
    #[inline]
    pub fn front(&self, frame: &Frame<'a>, version: ProtocolVersion) -> Option<Front<'a>> {
        if !frame.is_plain_publish() || self.topic.is_empty() {
            return None;
        }
        let topic_end = 2 + self.topic.len();
        let behind = frame.body.get(topic_end..)?;
        let (section_size, properties_size) = self.section_sizes(behind, version)?;
        let bytes = frame.body.get(..topic_end + section_size)?;
        Some(Front { bytes, topic_end, properties_start: bytes.len() - properties_size })
    }

    /// As `front`, for a PUBLISH at QoS 1 or 2, whose packet id is not part of the front.
    #[inline]
    pub fn acked_front(
        &self,
        frame: &Frame<'a>,
        version: ProtocolVersion,
    ) -> Option<AckedFront<'a>> {
        if !frame.is_plain_acked_publish() || self.topic.is_empty() {
            return None;
        }
        let (topic, behind) = frame.body.split_at_checked(2 + self.topic.len())?;
        let behind = behind.get(2..)?;
        let (section_size, properties_size) = self.section_sizes(behind, version)?;
        let section = behind.get(..section_size)?;
        Some(AckedFront { first_byte: frame.first_byte, topic, section, properties_size })
    }

    /// The size of the property section at the start of `behind`, with its length and without. `None`: it has other
    /// properties than any message may have.
    #[inline(always)]
    fn section_sizes(&self, behind: &[u8], version: ProtocolVersion) -> Option<(usize, usize)> {
        match behind {
            _ if version != ProtocolVersion::V5 => Some((0, 0)),
            [0, ..] => Some((1, 0)),
            _ if self.section.is_empty() || !behind.starts_with(self.section) => None,
            _ => Some((self.section.len(), self.properties.len())),
        }
    }
}

/// All bytes between the fixed header and the payload of a PUBLISH at QoS 0 without flags. Messages with the same front
/// differ in their payloads alone.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    bytes: &'a [u8],
    topic_end: usize,
    /// Where the properties begin, behind their length.
    properties_start: usize,
}

/// A message that differs from another in its payload alone.
#[derive(Clone, Copy, Debug)]
pub struct Repeat<'a> {
    /// Topic, properties and payload, one behind the other, in one piece or two.
    pub pieces: [&'a [u8]; 2],
    pub payload: &'a [u8],
    /// The size of the whole packet.
    pub size: usize,
}

impl Front<'_> {
    /// The packet at the start of `bytes`, if it is complete, not too large, and has the same front. `None`: it is to
    /// be decoded like any other.
    #[inline(always)]
    pub fn repeat<'a>(&self, bytes: &'a [u8], packet_size_max: usize) -> Option<Repeat<'a>> {
        let Ok(Some(frame)) = next_frame(bytes, packet_size_max) else { return None };
        let Frame { body, size, .. } = frame;
        if !frame.is_plain_publish() || !body.starts_with(self.bytes) {
            return None;
        }
        let payload = body.get(self.bytes.len()..)?;
        let pieces = if self.properties_start == self.topic_end {
            [body.get(2..)?, &[]]
        } else {
            [body.get(2..self.topic_end)?, body.get(self.properties_start..)?]
        };
        Some(Repeat { pieces, payload, size })
    }
}

/// What messages at QoS 1 or 2 without flags have in common, if they differ in packet id and payload alone.
#[derive(Clone, Copy, Debug)]
pub struct AckedFront<'a> {
    first_byte: u8,
    /// The topic with its length.
    topic: &'a [u8],
    /// The properties with their length; empty before 5.0.
    section: &'a [u8],
    properties_size: usize,
}

impl<'a> AckedFront<'a> {
    /// As `Front::repeat`, with the packet id.
    #[inline(always)]
    pub fn repeat(
        &self,
        bytes: &'a [u8],
        packet_size_max: usize,
    ) -> Option<(PacketId, Repeat<'a>)> {
        let Ok(Some(frame)) = next_frame(bytes, packet_size_max) else { return None };
        if frame.first_byte != self.first_byte {
            return None;
        }
        let behind = frame.body.strip_prefix(self.topic)?;
        let (id, behind) = behind.split_first_chunk::<2>()?;
        let packet_id = PacketId::new(u16::from_be_bytes(*id))?;
        let payload = behind.strip_prefix(self.section)?;
        let properties_start = self.section.len() - self.properties_size;
        let pieces = [self.topic.get(2..)?, behind.get(properties_start..)?];
        Some((packet_id, Repeat { pieces, payload, size: frame.size }))
    }
}

impl<'a> Publish<'a> {
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Publish<'a>> {
        let mut publish = Publish::default();
        publish.read(frame, version, &mut PreviousPublish::default())?;
        Ok(publish)
    }

    /// Decodes into an empty `Publish`: the struct is large, and a result would be copied.
    #[inline(always)]
    pub fn read(
        &mut self,
        frame: &Frame<'a>,
        version: ProtocolVersion,
        previous: &mut PreviousPublish<'a>,
    ) -> Result<()> {
        if frame.first_byte >> 4 != PacketType::Publish as u8 {
            return Err(DecodeError::OtherPacket);
        }
        // [MQTT-3.3.1-4]
        let qos = QoS::from_bits(frame.first_byte >> 1 & 0x03).ok_or(DecodeError::QosInvalid)?;
        self.dup = frame.first_byte & DUP != 0;
        // [MQTT-3.3.1-2]
        if self.dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupAtQos0);
        }
        self.qos = qos;
        self.retain = frame.first_byte & RETAIN != 0;
        let mut reader = Reader::new(frame.body);
        // [MQTT-3.3.2-1]
        self.topic = reader.topic_name(previous.topic)?;
        previous.topic = self.topic;
        if qos != QoS::AtMostOnce {
            // [MQTT-2.2.1-2]
            self.packet_id = Some(reader.packet_id()?);
        }
        if version == ProtocolVersion::V5 {
            // Most messages have no properties.
            match reader.rest() {
                [0, payload @ ..] => reader = Reader::new(payload),
                _ => self.read_properties(&mut reader, previous)?,
            }
        }
        // [MQTT-4.7.3-1]
        if self.topic.is_empty() && self.topic_alias.is_none() {
            return Err(DecodeError::TopicEmpty);
        }
        self.payload = reader.rest();
        Ok(())
    }

    #[inline(always)]
    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        previous: &mut PreviousPublish<'a>,
    ) -> Result<()> {
        if !previous.section.is_empty()
            && let Some(payload) = reader.rest().strip_prefix(previous.section)
        {
            self.properties = ForwardedProperties::from_raw(previous.properties);
            *reader = Reader::new(payload);
            return Ok(());
        }
        let rest = reader.rest();
        let mut behind = *reader;
        *self = self.with_properties(&mut behind)?;
        *reader = behind;
        let section = rest.get(..rest.len() - reader.rest().len()).unwrap_or_default();
        let is_ours = self.topic_alias.is_some()
            || self.message_expiry_s.is_some()
            || self.payload_format_utf8
            || !self.subscription_ids.is_empty();
        previous.section = &[];
        if !is_ours && let Some(properties) = self.properties.whole() {
            (previous.section, previous.properties) = (section, properties);
        }
        Ok(())
    }

    /// `self` goes by value: a value that is given by reference has to be in memory, and most messages come without
    /// properties.
    #[inline(never)]
    fn with_properties(mut self, reader: &mut Reader<'a>) -> Result<Publish<'a>> {
        let mut section = Section::read_publish(reader)?;
        if section.is_plain() {
            self.properties = ForwardedProperties::from_raw(section.raw());
            return Ok(self);
        }
        let mut forwarding = Forwarding::default();
        let mut start = 0;
        loop {
            section.skip_user_properties();
            if section.position() > start {
                forwarding.add(start, section.position());
                start = section.position();
            }
            let Some(property) = section.next()? else { break };
            match property {
                Property::TopicAlias(alias) => self.topic_alias = Some(alias),
                Property::MessageExpiry(seconds) => self.message_expiry_s = Some(seconds),
                Property::PayloadFormat(utf8) => self.payload_format_utf8 = utf8,
                _ => {}
            }
            let end = section.position();
            if !PropertySet::NOT_FORWARDED.contains(property.id()) {
                forwarding.add(start, end);
            }
            start = end;
        }
        self.subscription_ids = section.subscription_ids();
        self.properties = forwarding.of(section.raw());
        Ok(self)
    }

    /// Encodes the whole packet. `payload_format_utf8` is not written, as `properties` contain it.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let head = Head {
            first_byte: first_byte(self.dup, self.qos, self.retain),
            topic: self.topic.as_bytes(),
            packet_id: packet_id_field(self.qos, self.packet_id),
            message_expiry_s: self.message_expiry_s,
            topic_alias: self.topic_alias,
            subscription_ids: self.subscription_ids.iter(),
            properties: self.properties.pieces(),
            payload_size: self.payload.len(),
        };
        head.encode(version, out);
        out.extend_from_slice(self.payload);
    }
}

/// Everything in front of the payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishHead<'a> {
    /// Ignored at QoS 0.
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Validated UTF-8; empty only when an alias stands for it.
    pub topic: &'a [u8],
    /// The packet id. It is ignored at QoS 0; above, `None` leaves two zero bytes that the caller fills in.
    pub packet_id: Option<PacketId>,
    pub message_expiry_s: Option<u32>,
    pub topic_alias: Option<u16>,
    /// Each 1..=268,435,455.
    pub subscription_ids: &'a [u32],
    /// Encoded properties that travel with the message.
    pub properties: &'a [u8],
    pub payload_size: usize,
}

impl PublishHead<'_> {
    /// The size of the whole packet, payload included.
    #[inline]
    pub fn size(&self, version: ProtocolVersion) -> usize {
        let (_, remaining_size) = self.head().sizes(version);
        1 + var_int::size(remaining_size) + remaining_size
    }

    /// Appends the packet up to the payload. Returns where in it the packet identifier stands, `None` at QoS 0.
    ///
    /// The caller has checked `size`: it must not be above what MQTT can express.
    #[inline]
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Option<usize> {
        self.head().encode(version, out)
    }

    #[inline]
    fn head(
        &self,
    ) -> Head<'_, impl Iterator<Item = u32> + Clone, impl Iterator<Item = &[u8]> + Clone> {
        Head {
            first_byte: first_byte(self.dup, self.qos, self.retain),
            topic: self.topic,
            packet_id: packet_id_field(self.qos, self.packet_id),
            message_expiry_s: self.message_expiry_s,
            topic_alias: self.topic_alias,
            subscription_ids: self.subscription_ids.iter().copied(),
            properties: core::iter::once(self.properties),
            payload_size: self.payload_size,
        }
    }
}

/// Encodes a whole PUBLISH at QoS 0 without alias, expiry and subscription identifiers, as most messages are. `message`
/// is its topic, properties and payload, one behind the other.
#[inline]
pub fn encode_plain_publish(
    version: ProtocolVersion,
    retain: bool,
    message: &[u8],
    topic_size: usize,
    properties_size: usize,
    out: &mut Vec<u8>,
) {
    let first_byte = first_byte(false, QoS::AtMostOnce, retain);
    if version == ProtocolVersion::V5 {
        let (topic, behind) = message.split_at_checked(topic_size).unwrap_or_default();
        put_start(out, first_byte, 2 + message.len() + var_int::size(properties_size), topic_size);
        out.extend_from_slice(topic);
        put_var_int(out, properties_size);
        out.extend_from_slice(behind);
        return;
    }
    put_start(out, first_byte, 2 + message.len() - properties_size, topic_size);
    if properties_size == 0 {
        out.extend_from_slice(message);
        return;
    }
    let (topic, behind) = message.split_at_checked(topic_size).unwrap_or_default();
    out.extend_from_slice(topic);
    out.extend_from_slice(behind.get(properties_size..).unwrap_or_default());
}

/// As `encode_plain_publish`, at QoS 1 or 2. Returns where in `out` the packet id stands.
#[inline]
pub fn encode_plain_acked_publish(
    version: ProtocolVersion,
    (qos, retain, packet_id): (QoS, bool, PacketId),
    topic: &[u8],
    properties: &[u8],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    let size = 4 + topic.len() + payload.len();
    let first_byte = first_byte(false, qos, retain);
    if version == ProtocolVersion::V5 {
        let properties_size = properties.len();
        let size = size + var_int::size(properties_size) + properties_size;
        put_start(out, first_byte, size, topic.len());
        out.extend_from_slice(topic);
        put_u16(out, packet_id.get());
        let behind_id = out.len();
        put_var_int(out, properties_size);
        // A copy of no bytes still costs a call.
        if properties_size > 0 {
            out.extend_from_slice(properties);
        }
        out.extend_from_slice(payload);
        return behind_id - 2;
    }
    put_start(out, first_byte, size, topic.len());
    out.extend_from_slice(topic);
    put_u16(out, packet_id.get());
    let behind_id = out.len();
    out.extend_from_slice(payload);
    behind_id - 2
}

/// Writes the fixed header and the size of the topic.
#[inline(always)]
fn put_start(out: &mut Vec<u8>, first_byte: u8, remaining_size: usize, topic_size: usize) {
    debug_assert!(topic_size <= FIELD_SIZE_MAX);
    if remaining_size < 0x80 {
        // One write of a constant size is cheaper than three writes.
        out.reserve(2 + remaining_size);
        let [high, low] = (topic_size as u16).to_be_bytes();
        out.extend_from_slice(&[first_byte, remaining_size as u8, high, low]);
    } else {
        put_header(out, first_byte, remaining_size);
        put_u16(out, topic_size as u16);
    }
}

#[inline]
fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    // [MQTT-3.3.1-2]
    let dup = if dup && qos != QoS::AtMostOnce { DUP } else { 0 };
    PacketType::Publish.first_byte() | dup | (qos as u8) << 1 | u8::from(retain)
}

#[inline]
fn packet_id_field(qos: QoS, packet_id: Option<PacketId>) -> Option<u16> {
    (qos != QoS::AtMostOnce).then(|| packet_id.map_or(0, PacketId::get))
}

/// The one encoder, for each form that identifiers and properties have.
struct Head<'a, Ids, Pieces> {
    first_byte: u8,
    topic: &'a [u8],
    packet_id: Option<u16>,
    message_expiry_s: Option<u32>,
    topic_alias: Option<u16>,
    subscription_ids: Ids,
    properties: Pieces,
    payload_size: usize,
}

impl<'p, Ids, Pieces> Head<'_, Ids, Pieces>
where
    Ids: Iterator<Item = u32> + Clone,
    Pieces: Iterator<Item = &'p [u8]> + Clone,
{
    /// The size of the properties, and the size of all bytes behind the fixed header.
    #[inline]
    fn sizes(&self, version: ProtocolVersion) -> (usize, usize) {
        let packet_id_size = if self.packet_id.is_some() { 2 } else { 0 };
        let size = 2 + self.topic.len() + packet_id_size + self.payload_size;
        if version != ProtocolVersion::V5 {
            return (0, size);
        }
        let ids = self.subscription_ids.clone();
        let section = if self.message_expiry_s.is_some() { 5 } else { 0 }
            + if self.topic_alias.is_some() { 3 } else { 0 }
            + ids.map(|id| 1 + var_int::size(id as usize)).sum::<usize>()
            + self.properties.clone().map(<[u8]>::len).sum::<usize>();
        (section, size + var_int::size(section) + section)
    }

    #[inline]
    fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Option<usize> {
        let (section_size, remaining_size) = self.sizes(version);
        let start = out.len();
        put_header_of(out, self.first_byte, remaining_size, remaining_size - self.payload_size);
        put_binary(out, self.topic);
        let packet_id_index = self.packet_id.map(|packet_id| {
            let index = out.len() - start;
            put_u16(out, packet_id);
            index
        });
        if version == ProtocolVersion::V5 {
            put_var_int(out, section_size);
            if section_size > 0 {
                self.encode_properties(out);
            }
        }
        packet_id_index
    }

    fn encode_properties(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).encode(out);
        }
        if let Some(seconds) = self.message_expiry_s {
            Property::MessageExpiry(seconds).encode(out);
        }
        self.subscription_ids.clone().for_each(|id| Property::SubscriptionId(id).encode(out));
        self.properties.clone().for_each(|piece| out.extend_from_slice(piece));
    }
}
