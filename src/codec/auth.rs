//! AUTH: the steps of an extended authentication, MQTT 5 only.

use super::ProtocolVersion;
use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::var_int;
use super::writer::{put_header, put_var_int};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    /// `None` only in the two-byte form: success and no properties.
    pub method: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Auth<'a>> {
        if version != ProtocolVersion::V5 {
            return Err(DecodeError::PacketType);
        }
        PacketType::Auth.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let mut auth = Auth::default();
        if reader.is_empty() {
            return Ok(auth);
        }
        auth.reason = ReasonSet::AUTH.read(reader.u8()?)?;
        let mut section = Section::read(&mut reader, PropertySet::AUTH)?;
        while let Some(property) = section.next()? {
            match property {
                Property::AuthMethod(method) => auth.method = Some(method),
                Property::AuthData(data) => auth.data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                _ => {}
            }
        }
        auth.user_properties = section.user_properties();
        reader.finish()?;
        if auth.method.is_none() {
            return Err(DecodeError::AuthMethodMissing);
        }
        Ok(auth)
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`.
    pub fn encode(&self, packet_size_max: usize, out: &mut Vec<u8>) {
        debug_assert!(ReasonSet::AUTH.contains(self.reason));
        let first_byte = PacketType::Auth.first_byte();
        let properties = [self.method.map(Property::AuthMethod), self.data.map(Property::AuthData)];
        let size: usize = properties.iter().flatten().map(Property::size).sum();
        let Auth { reason_string, user_properties, .. } = *self;
        let diagnostics =
            Diagnostics { reason_string, user_properties }.fit(size, 1, packet_size_max);
        let section = size + diagnostics.size();
        if section == 0 && self.reason == ReasonCode::Success {
            return put_header(out, first_byte, 0);
        }
        put_header(out, first_byte, 1 + var_int::size(section) + section);
        out.push(self.reason.as_u8());
        put_var_int(out, section);
        properties.iter().flatten().for_each(|property| property.encode(out));
        diagnostics.encode(out);
    }
}
