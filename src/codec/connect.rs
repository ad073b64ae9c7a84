//! CONNECT: a client's name and wishes, and its will.

use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{
    ForwardedProperties, Forwarding, Property, PropertySet, Section, UserProperties,
};
use super::reader::Reader;
use super::var_int;
use super::writer::{binary_size, put_binary, put_header, put_str, put_u16, put_var_int, str_size};
use super::{ProtocolVersion, QoS};

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// The bit that a bridge sets beside the level of 3.1 or 3.1.1.
const BRIDGE: u8 = 0x80;
/// The user property by which a 5.0 client says that it is a bridge.
pub const BRIDGE_PROPERTY: &str = "ringmq-bridge";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: ProtocolVersion,
    /// Whether a bridge of 3.1 or 3.1.1 says so by the bit beside the level: a custom, not of the specification.
    pub bridge_bit: bool,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub session_expiry_s: Option<u32>,
    /// Not 0.
    pub receive_max: Option<u16>,
    /// Not 0.
    pub packet_size_max: Option<u32>,
    pub topic_alias_max: u16,
    pub request_response_information: bool,
    pub request_problem_information: bool,
    pub user_properties: UserProperties<'a>,
    pub auth_method: Option<&'a str>,
    pub auth_data: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub delay_s: u32,
    pub message_expiry_s: Option<u32>,
    /// Whether `properties` say that the payload is UTF-8. The payload is not checked.
    pub payload_format_utf8: bool,
    pub properties: ForwardedProperties<'a>,
}

impl<'a> Connect<'a> {
    /// A CONNECT with a clean start and without keep alive, will, credentials or properties.
    pub fn new(version: ProtocolVersion, client_id: &'a str) -> Connect<'a> {
        Connect {
            version,
            bridge_bit: false,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            session_expiry_s: None,
            receive_max: None,
            packet_size_max: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            auth_method: None,
            auth_data: None,
        }
    }

    /// Whether the client is a bridge of another broker.
    pub fn is_bridge(&self) -> bool {
        self.bridge_bit || self.user_properties.iter().any(|(name, _)| name == BRIDGE_PROPERTY)
    }

    // [MQTT-3.1.4-1]
    pub fn decode(frame: &Frame<'a>) -> Result<Connect<'a>> {
        PacketType::Connect.check(frame.first_byte, ProtocolVersion::V5)?;
        let mut reader = Reader::new(frame.body);
        let (version, bridge_bit) = read_protocol(&mut reader)?;
        let flags = read_flags(&mut reader, version)?;
        let mut connect = Connect::new(version, "");
        connect.bridge_bit = bridge_bit;
        connect.clean_start = flags & CLEAN_START != 0;
        connect.keep_alive_s = reader.u16()?;
        if version == ProtocolVersion::V5 {
            connect.decode_properties(Section::read(&mut reader, PropertySet::CONNECT)?)?;
        }
        // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4]
        connect.client_id = reader.str()?;
        // [MQTT-3.1.2-9]
        if flags & WILL != 0 {
            connect.will = Some(Will::decode(&mut reader, flags, version)?);
        }
        // 3.1 says that a missing user name or password is no error where the packet ends.
        let present = |reader: &Reader<'_>, flag: u8| {
            flags & flag != 0 && !(version == ProtocolVersion::V31 && reader.is_empty())
        };
        // [MQTT-3.1.2-17] [MQTT-3.1.3-12]
        if present(&reader, USER_NAME) {
            connect.user_name = Some(reader.str()?);
        }
        // [MQTT-3.1.2-19]
        if present(&reader, PASSWORD) {
            connect.password = Some(reader.binary()?);
        }
        // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
        reader.finish()?;
        Ok(connect)
    }

    fn decode_properties(&mut self, mut section: Section<'a>) -> Result<()> {
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiry(seconds) => self.session_expiry_s = Some(seconds),
                Property::ReceiveMax(count) => self.receive_max = Some(count),
                Property::PacketSizeMax(size) => self.packet_size_max = Some(size),
                Property::TopicAliasMax(count) => self.topic_alias_max = count,
                Property::RequestResponseInformation(wanted) => {
                    self.request_response_information = wanted;
                }
                Property::RequestProblemInformation(wanted) => {
                    self.request_problem_information = wanted;
                }
                Property::AuthMethod(text) => self.auth_method = Some(text),
                Property::AuthData(data) => self.auth_data = Some(data),
                _ => {}
            }
        }
        self.user_properties = section.user_properties();
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        Ok(())
    }

    /// Encodes the packet for its own version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let name = match self.version {
            ProtocolVersion::V31 => "MQIsdp",
            _ => "MQTT",
        };
        let v5 = self.version == ProtocolVersion::V5;
        let properties = self.properties();
        let section = properties.iter().flatten().map(Property::size).sum::<usize>()
            + self.user_properties.size();
        let size = str_size(name)
            + 4
            + if v5 { var_int::size(section) + section } else { 0 }
            + str_size(self.client_id)
            + self.will.map_or(0, |will| will.size(self.version))
            + self.user_name.map_or(0, str_size)
            + self.password.map_or(0, binary_size);

        put_header(out, PacketType::Connect.first_byte(), size);
        put_str(out, name);
        let bridge_bit = if self.bridge_bit && !v5 { BRIDGE } else { 0 };
        out.extend_from_slice(&[self.version as u8 | bridge_bit, self.flags()]);
        put_u16(out, self.keep_alive_s);
        if v5 {
            put_var_int(out, section);
            properties.iter().flatten().for_each(|property| property.encode(out));
            self.user_properties.encode(out);
        }
        put_str(out, self.client_id);
        if let Some(will) = self.will {
            will.encode(self.version, out);
        }
        if let Some(user_name) = self.user_name {
            put_str(out, user_name);
        }
        if let Some(password) = self.password {
            put_binary(out, password);
        }
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        flag(self.clean_start, CLEAN_START)
            | self
                .will
                .map_or(0, |will| WILL | (will.qos as u8) << 3 | flag(will.retain, WILL_RETAIN))
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
    }

    /// All properties but user properties, without those that have their default value.
    fn properties(&self) -> [Option<Property<'a>>; 8] {
        let response = self.request_response_information;
        let problem = self.request_problem_information;
        [
            self.session_expiry_s.map(Property::SessionExpiry),
            self.receive_max.map(Property::ReceiveMax),
            self.packet_size_max.map(Property::PacketSizeMax),
            (self.topic_alias_max != 0).then_some(Property::TopicAliasMax(self.topic_alias_max)),
            response.then_some(Property::RequestResponseInformation(true)),
            (!problem).then_some(Property::RequestProblemInformation(false)),
            self.auth_method.map(Property::AuthMethod),
            self.auth_data.map(Property::AuthData),
        ]
    }
}

/// The version, and whether the bridge bit is set.
fn read_protocol(reader: &mut Reader<'_>) -> Result<(ProtocolVersion, bool)> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
    match (name, level) {
        (b"MQIsdp", 3) => Ok((ProtocolVersion::V31, false)),
        (b"MQTT", 4) => Ok((ProtocolVersion::V311, false)),
        (b"MQTT", 5) => Ok((ProtocolVersion::V5, false)),
        (b"MQIsdp", 0x83) => Ok((ProtocolVersion::V31, true)),
        (b"MQTT", 0x84) => Ok((ProtocolVersion::V311, true)),
        (b"MQTT" | b"MQIsdp", level) => Err(DecodeError::ProtocolLevel(level)),
        _ => Err(DecodeError::ProtocolName),
    }
}

fn read_flags(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<u8> {
    let flags = reader.u8()?;
    // [MQTT-3.1.2-3]
    if flags & RESERVED != 0 {
        return Err(DecodeError::ConnectReservedFlag);
    }
    // [MQTT-3.1.2-12]
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::WillQos);
    }
    // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::WillFlagsWithoutWill);
    }
    // [MQTT-3.1.2-22] of 3.1.1
    if flags & (USER_NAME | PASSWORD) == PASSWORD && version != ProtocolVersion::V5 {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(flags)
}

impl<'a> Will<'a> {
    fn decode(reader: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Will<'a>> {
        let mut will = Will {
            qos: QoS::from_bits((flags & WILL_QOS) >> 3).ok_or(DecodeError::WillQos)?,
            retain: flags & WILL_RETAIN != 0,
            ..Will::default()
        };
        if version == ProtocolVersion::V5 {
            will.decode_properties(Section::read(reader, PropertySet::WILL)?)?;
        }
        // [MQTT-3.1.3-11] [MQTT-4.7.3-1]
        will.topic = reader.topic_name("")?;
        if will.topic.is_empty() {
            return Err(DecodeError::TopicEmpty);
        }
        will.payload = reader.binary()?;
        Ok(will)
    }

    fn decode_properties(&mut self, mut section: Section<'a>) -> Result<()> {
        let mut forwarding = Forwarding::default();
        let mut start = 0;
        while let Some(property) = section.next()? {
            match property {
                Property::WillDelay(seconds) => self.delay_s = seconds,
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
        self.properties = forwarding.of(section.raw());
        Ok(())
    }

    /// The two properties that do not travel with the message.
    fn own_properties(&self) -> [Option<Property<'a>>; 2] {
        [
            (self.delay_s != 0).then_some(Property::WillDelay(self.delay_s)),
            self.message_expiry_s.map(Property::MessageExpiry),
        ]
    }

    fn section_size(&self) -> usize {
        let own: usize = self.own_properties().iter().flatten().map(Property::size).sum();
        own + self.properties.size()
    }

    fn size(&self, version: ProtocolVersion) -> usize {
        let section = self.section_size();
        let section_size =
            if version == ProtocolVersion::V5 { var_int::size(section) + section } else { 0 };
        section_size + str_size(self.topic) + binary_size(self.payload)
    }

    fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        if version == ProtocolVersion::V5 {
            put_var_int(out, self.section_size());
            self.own_properties().iter().flatten().for_each(|property| property.encode(out));
            self.properties.pieces().for_each(|piece| out.extend_from_slice(piece));
        }
        put_str(out, self.topic);
        put_binary(out, self.payload);
    }
}
