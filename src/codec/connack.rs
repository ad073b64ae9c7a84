//! CONNACK: the answer to CONNECT, and what the server can do.

use super::error::{DecodeError, Result};
use super::framer::Frame;
use super::header::PacketType;
use super::properties::{Diagnostics, Property, PropertySet, Section, UserProperties};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::reason_set::ReasonSet;
use super::var_int;
use super::writer::{put_header, put_var_int};
use super::{ProtocolVersion, QoS};

/// The answer to CONNECT. In 3.1 and 3.1.1 it has only `session_present` (not in 3.1) and what `v3_code` makes of
/// `reason`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connack<'a> {
    pub session_present: bool,
    pub reason: ReasonCode,
    pub session_expiry_s: Option<u32>,
    /// Not 0.
    pub receive_max: Option<u16>,
    /// QoS 0 or 1.
    pub qos_max: Option<QoS>,
    pub retain_available: Option<bool>,
    /// Not 0.
    pub packet_size_max: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_max: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
    pub wildcard_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub server_keep_alive_s: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub auth_method: Option<&'a str>,
    pub auth_data: Option<&'a [u8]>,
}

impl<'a> Connack<'a> {
    /// A refusal that has nothing but its reason.
    pub fn refusal(reason: ReasonCode) -> Connack<'a> {
        Connack { reason, ..Connack::default() }
    }

    /// The return code of 3.1 and 3.1.1. `None`: no code fits, and the connection is closed without a CONNACK.
    pub fn v3_code(&self) -> Option<u8> {
        Some(match self.reason {
            ReasonCode::Success => 0,
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError => 3,
            ReasonCode::BadUserNameOrPassword => 4,
            ReasonCode::NotAuthorized
            | ReasonCode::Banned
            | ReasonCode::BadAuthenticationMethod
            | ReasonCode::TopicNameInvalid => 5,
            _ => return None,
        })
    }

    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Connack<'a>> {
        PacketType::Connack.check(frame.first_byte, version)?;
        let mut reader = Reader::new(frame.body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        let mut connack = Connack::default();
        // The first byte is reserved in 3.1.
        if version != ProtocolVersion::V31 {
            // [MQTT-3.2.2-1]
            if flags & 0xFE != 0 {
                return Err(DecodeError::ConnackFlags);
            }
            connack.session_present = flags != 0;
        }
        if version == ProtocolVersion::V5 {
            connack.reason = ReasonSet::CONNACK.read(code)?;
            connack.decode_properties(Section::read(&mut reader, PropertySet::CONNACK)?)?;
        } else {
            connack.reason = from_v3_code(code)?;
        }
        // [MQTT-3.2.2-6]
        if connack.session_present && connack.reason != ReasonCode::Success {
            return Err(DecodeError::SessionPresentWithError);
        }
        reader.finish()?;
        Ok(connack)
    }

    fn decode_properties(&mut self, mut section: Section<'a>) -> Result<()> {
        while let Some(property) = section.next()? {
            match property {
                Property::SessionExpiry(seconds) => self.session_expiry_s = Some(seconds),
                Property::ReceiveMax(count) => self.receive_max = Some(count),
                Property::QosMax(qos) => self.qos_max = Some(qos),
                Property::RetainAvailable(available) => self.retain_available = Some(available),
                Property::PacketSizeMax(size) => self.packet_size_max = Some(size),
                Property::AssignedClientId(text) => self.assigned_client_id = Some(text),
                Property::TopicAliasMax(count) => self.topic_alias_max = Some(count),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::WildcardAvailable(available) => self.wildcard_available = Some(available),
                Property::SubscriptionIdsAvailable(available) => {
                    self.subscription_ids_available = Some(available);
                }
                Property::SharedAvailable(available) => self.shared_available = Some(available),
                Property::ServerKeepAlive(seconds) => self.server_keep_alive_s = Some(seconds),
                Property::ResponseInformation(text) => self.response_information = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::AuthMethod(text) => self.auth_method = Some(text),
                Property::AuthData(data) => self.auth_data = Some(data),
                _ => {}
            }
        }
        self.user_properties = section.user_properties();
        Ok(())
    }

    /// Encodes the packet. Reason string and user properties are left out if they would make it larger than
    /// `packet_size_max`. Nothing is written if `version` is 3.x and has no code for the reason.
    pub fn encode(&self, version: ProtocolVersion, packet_size_max: usize, out: &mut Vec<u8>) {
        debug_assert!(ReasonSet::CONNACK.contains(self.reason));
        let first_byte = PacketType::Connack.first_byte();
        // [MQTT-3.2.2-6]
        let present = self.session_present && self.reason == ReasonCode::Success;
        if version != ProtocolVersion::V5 {
            let Some(code) = self.v3_code() else { return };
            let present = present && version == ProtocolVersion::V311;
            return out.extend_from_slice(&[first_byte, 2, u8::from(present), code]);
        }
        let properties = self.properties();
        let size: usize = properties.iter().flatten().map(Property::size).sum();
        let Connack { reason_string, user_properties, .. } = *self;
        let diagnostics =
            Diagnostics { reason_string, user_properties }.fit(size, 2, packet_size_max);
        let section = size + diagnostics.size();
        put_header(out, first_byte, 2 + var_int::size(section) + section);
        out.extend_from_slice(&[u8::from(present), self.reason.as_u8()]);
        put_var_int(out, section);
        properties.iter().flatten().for_each(|property| property.encode(out));
        diagnostics.encode(out);
    }

    /// All properties but reason string and user properties.
    fn properties(&self) -> [Option<Property<'a>>; 15] {
        [
            self.session_expiry_s.map(Property::SessionExpiry),
            self.receive_max.map(Property::ReceiveMax),
            self.qos_max.filter(|qos| *qos != QoS::ExactlyOnce).map(Property::QosMax),
            self.retain_available.map(Property::RetainAvailable),
            self.packet_size_max.map(Property::PacketSizeMax),
            self.assigned_client_id.map(Property::AssignedClientId),
            self.topic_alias_max.map(Property::TopicAliasMax),
            self.wildcard_available.map(Property::WildcardAvailable),
            self.subscription_ids_available.map(Property::SubscriptionIdsAvailable),
            self.shared_available.map(Property::SharedAvailable),
            self.server_keep_alive_s.map(Property::ServerKeepAlive),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.auth_method.map(Property::AuthMethod),
            self.auth_data.map(Property::AuthData),
        ]
    }
}

fn from_v3_code(code: u8) -> Result<ReasonCode> {
    Ok(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return Err(DecodeError::ConnackReturnCode(code)),
    })
}
