//! SUBSCRIBE: topic filters with their options.

use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::var_int;
use super::writer::{put_header, put_str, put_u16, put_var_int, str_size};
use super::{PacketId, ProtocolVersion, QoS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    /// 1..=268,435,455.
    pub subscription_id: Option<u32>,
    pub user_properties: UserProperties<'a>,
    pub filters: SubscribeFilters<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// Whether the server sends retained messages when a client subscribes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    SendAtSubscribe = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

impl SubscriptionOptions {
    fn read(byte: u8, version: ProtocolVersion) -> Result<SubscriptionOptions> {
        let reserved = if version == ProtocolVersion::V5 { 0xC0 } else { 0xFC };
        // [MQTT-3.8.3-5]
        if byte & reserved != 0 {
            return Err(DecodeError::OptionsReserved);
        }
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::OptionsRetainHandling),
        };
        Ok(SubscriptionOptions {
            qos: QoS::from_bits(byte & 0x03).ok_or(DecodeError::OptionsQos)?,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    fn as_u8(self, version: ProtocolVersion) -> u8 {
        if version != ProtocolVersion::V5 {
            return self.qos as u8;
        }
        self.qos as u8
            | if self.no_local { NO_LOCAL } else { 0 }
            | if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
            | (self.retain_handling as u8) << 4
    }
}

/// The payload of a SUBSCRIBE: at least one filter. Filters are not checked here, except that no local excludes a
/// shared subscription.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    raw: &'a [u8],
    list: &'a [(&'a str, SubscriptionOptions)],
}

impl<'a> SubscribeFilters<'a> {
    pub fn from_list(list: &'a [(&'a str, SubscriptionOptions)]) -> SubscribeFilters<'a> {
        SubscribeFilters { raw: &[], list }
    }

    fn decode(raw: &'a [u8], version: ProtocolVersion) -> Result<SubscribeFilters<'a>> {
        let mut reader = Reader::new(raw);
        // [MQTT-3.8.3-2]
        if reader.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        while !reader.is_empty() {
            let (filter, options) = read_filter(&mut reader, version)?;
            // [MQTT-3.8.3-4]
            if options.no_local && filter.starts_with("$share/") {
                return Err(DecodeError::OptionsNoLocalShared);
            }
        }
        Ok(SubscribeFilters { raw, list: &[] })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> + Clone + use<'a> {
        let mut reader = Reader::new(self.raw);
        // Checked options of 3.x read the same as options of 5.0.
        let encoded =
            core::iter::from_fn(move || read_filter(&mut reader, ProtocolVersion::V5).ok());
        self.list.iter().copied().chain(encoded)
    }
}

fn read_filter<'a>(
    reader: &mut Reader<'a>,
    version: ProtocolVersion,
) -> Result<(&'a str, SubscriptionOptions)> {
    // [MQTT-3.8.3-1]
    let filter = reader.str()?;
    Ok((filter, SubscriptionOptions::read(reader.u8()?, version)?))
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl core::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Subscribe<'a> {
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Subscribe<'a>> {
        PacketType::Subscribe.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let mut subscription_id = None;
        let mut user_properties = UserProperties::default();
        if version == ProtocolVersion::V5 {
            let mut section = Section::read(&mut reader, PropertySet::SUBSCRIBE)?;
            while let Some(property) = section.next()? {
                if let Property::SubscriptionId(id) = property {
                    subscription_id = Some(id);
                }
            }
            user_properties = section.user_properties();
        }
        let filters = SubscribeFilters::decode(reader.rest(), version)?;
        Ok(Subscribe { packet_id, subscription_id, user_properties, filters })
    }

    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let subscription_id = self.subscription_id.map(Property::SubscriptionId);
        let section =
            subscription_id.map_or(0, |property| property.size()) + self.user_properties.size();
        let section_size =
            if version == ProtocolVersion::V5 { var_int::size(section) + section } else { 0 };
        let filters = self.filters.iter();
        let payload_size: usize = filters.clone().map(|(filter, _)| str_size(filter) + 1).sum();

        put_header(out, PacketType::Subscribe.first_byte(), 2 + section_size + payload_size);
        put_u16(out, self.packet_id.get());
        if version == ProtocolVersion::V5 {
            put_var_int(out, section);
            if let Some(property) = subscription_id {
                property.encode(out);
            }
            self.user_properties.encode(out);
        }
        for (filter, options) in filters {
            put_str(out, filter);
            out.push(options.as_u8(version));
        }
    }
}
