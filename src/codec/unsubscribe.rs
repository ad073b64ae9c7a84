//! UNSUBSCRIBE: topic filters.

use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::var_int;
use super::writer::{put_header, put_str, put_u16, put_var_int, str_size};
use super::{PacketId, ProtocolVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub user_properties: UserProperties<'a>,
    pub filters: TopicFilters<'a>,
}

/// The payload of an UNSUBSCRIBE: at least one filter. Filters are not checked here.
#[derive(Clone, Copy)]
pub struct TopicFilters<'a> {
    raw: &'a [u8],
    list: &'a [&'a str],
}

impl<'a> TopicFilters<'a> {
    pub fn from_list(list: &'a [&'a str]) -> TopicFilters<'a> {
        TopicFilters { raw: &[], list }
    }

    fn decode(raw: &'a [u8]) -> Result<TopicFilters<'a>> {
        let mut reader = Reader::new(raw);
        // [MQTT-3.10.3-2]
        if reader.is_empty() {
            return Err(DecodeError::PayloadMissing);
        }
        while !reader.is_empty() {
            // [MQTT-3.10.3-1]
            reader.str()?;
        }
        Ok(TopicFilters { raw, list: &[] })
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let mut reader = Reader::new(self.raw);
        self.list.iter().copied().chain(core::iter::from_fn(move || reader.str().ok()))
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TopicFilters<'_> {}

impl core::fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Unsubscribe<'a>> {
        PacketType::Unsubscribe.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let mut user_properties = UserProperties::default();
        if version == ProtocolVersion::V5 {
            let mut section = Section::read(&mut reader, PropertySet::UNSUBSCRIBE)?;
            while section.next()?.is_some() {}
            user_properties = section.user_properties();
        }
        let filters = TopicFilters::decode(reader.rest())?;
        Ok(Unsubscribe { packet_id, user_properties, filters })
    }

    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let section = self.user_properties.size();
        let section_size =
            if version == ProtocolVersion::V5 { var_int::size(section) + section } else { 0 };
        let payload_size: usize = self.filters.iter().map(str_size).sum();

        put_header(out, PacketType::Unsubscribe.first_byte(), 2 + section_size + payload_size);
        put_u16(out, self.packet_id.get());
        if version == ProtocolVersion::V5 {
            put_var_int(out, section);
            self.user_properties.encode(out);
        }
        self.filters.iter().for_each(|filter| put_str(out, filter));
    }
}
