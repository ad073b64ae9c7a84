//! DISCONNECT: in MQTT 5 either side sends it with a reason, in 3.x only clients send it, without one.

use super::ProtocolVersion;
use super::error::Result;
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::var_int;
use super::writer::{put_header, put_var_int};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    /// Only clients may send it. [MQTT-3.14.2-2]
    pub session_expiry_s: Option<u32>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
    /// Only servers may send it.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    pub fn new(reason: ReasonCode) -> Disconnect<'a> {
        Disconnect { reason, ..Disconnect::default() }
    }

    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Disconnect<'a>> {
        PacketType::Disconnect.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let mut disconnect = Disconnect::default();
        if version != ProtocolVersion::V5 || reader.is_empty() {
            reader.finish()?;
            return Ok(disconnect);
        }
        disconnect.reason = ReasonSet::DISCONNECT.read(reader.u8()?)?;
        if reader.is_empty() {
            return Ok(disconnect);
        }
        let mut section = Section::read(&mut reader, PropertySet::DISCONNECT)?;
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiry(seconds) => disconnect.session_expiry_s = Some(seconds),
                Property::ReasonString(text) => disconnect.reason_string = Some(text),
                Property::ServerReference(text) => disconnect.server_reference = Some(text),
                _ => {}
            }
        }
        disconnect.user_properties = section.user_properties();
        reader.finish()?;
        Ok(disconnect)
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`.
    pub fn encode(&self, version: ProtocolVersion, packet_size_max: usize, out: &mut Vec<u8>) {
        let first_byte = PacketType::Disconnect.first_byte();
        if version != ProtocolVersion::V5 {
            return put_header(out, first_byte, 0);
        }
        debug_assert!(ReasonSet::DISCONNECT.contains(self.reason));
        let properties = [
            self.session_expiry_s.map(Property::SessionExpiry),
            self.server_reference.map(Property::ServerReference),
        ];
        let size: usize = properties.iter().flatten().map(Property::size).sum();
        let Disconnect { reason_string, user_properties, .. } = *self;
        let diagnostics =
            Diagnostics { reason_string, user_properties }.fit(size, 1, packet_size_max);
        let section = size + diagnostics.size();
        if section == 0 {
            if self.reason == ReasonCode::Success {
                return put_header(out, first_byte, 0);
            }
            put_header(out, first_byte, 1);
            return out.push(self.reason.as_u8());
        }
        put_header(out, first_byte, 1 + var_int::size(section) + section);
        out.push(self.reason.as_u8());
        put_var_int(out, section);
        properties.iter().flatten().for_each(|property| property.encode(out));
        diagnostics.encode(out);
    }
}
