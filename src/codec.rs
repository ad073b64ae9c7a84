//! Bytes to packets and back: MQTT 3.1, 3.1.1 and 5.0 in one packet model that borrows from the bytes and cannot panic.
//!
//! A stream is cut into frames (`next_frame`); a frame becomes a packet (`Packet::decode`, or the packet's own `decode`).
//! All packets are decoded and encoded in both directions. The session refuses packets that only the other side may send,
//! and checks the contents of topic filters and payloads.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acks;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod framer;
mod header;
mod ping;
mod properties;
mod property_id;
mod publish;
mod publish_start;
mod reader;
mod reason;
mod reason_set;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;
mod var_int;
mod writer;

use core::num::NonZeroU16;

pub use acks::{
    Ack, AckType, encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel, next_plain_ack,
};
pub use auth::Auth;
pub use connack::Connack;
pub use connect::{BRIDGE_PROPERTY, Connect, Will};
pub use disconnect::Disconnect;
pub use error::{DecodeError, Result};
pub use framer::{Frame, frame_size, next_frame};
pub use header::PacketType;
pub use ping::{encode_pingreq, encode_pingresp};
pub use properties::{
    ForwardedProperties, Property, PropertyIter, PropertySet, SubscriptionIds, UserProperties,
    put_user_property, put_user_property_name, put_user_property_value, user_property_size,
};
pub use property_id::PropertyId;
pub use publish::{
    AckedFront, Front, PreviousPublish, Publish, PublishHead, Repeat, encode_plain_acked_publish,
    encode_plain_publish,
};
pub use publish_start::{PublishStart, publish_start};
pub use reader::has_null;
pub use reason::ReasonCode;
pub use reason_set::ReasonSet;
pub use suback::{ReasonCodes, Suback, filters_answer_size};
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions};
pub use unsuback::Unsuback;
pub use unsubscribe::{TopicFilters, Unsubscribe};
pub use var_int::VAR_INT_MAX;

/// The protocol level of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ProtocolVersion {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// The name of an exchange of packets; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    pub const MIN: PacketId = PacketId(NonZeroU16::MIN);

    /// The ids from this one on, without end: the lowest follows the highest.
    #[inline]
    pub fn from_here(self) -> impl Iterator<Item = PacketId> {
        let next = |id: &PacketId| Some(id.0.checked_add(1).map_or(PacketId::MIN, PacketId));
        std::iter::successors(Some(self), next)
    }

    #[inline]
    pub const fn new(id: u16) -> Option<PacketId> {
        match NonZeroU16::new(id) {
            Some(id) => Some(PacketId(id)),
            None => None,
        }
    }

    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// Any packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes a frame of a connection that speaks `version`. A CONNECT brings its own version.
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Packet<'a>> {
        let ack = |ack_type| Ack::decode(frame, version, ack_type);
        Ok(match frame.packet_type().ok_or(DecodeError::PacketType)? {
            PacketType::Publish => Packet::Publish(Publish::decode(frame, version)?),
            PacketType::Puback => Packet::Puback(ack(AckType::Puback)?),
            PacketType::Pubrec => Packet::Pubrec(ack(AckType::Pubrec)?),
            PacketType::Pubrel => Packet::Pubrel(ack(AckType::Pubrel)?),
            PacketType::Pubcomp => Packet::Pubcomp(ack(AckType::Pubcomp)?),
            PacketType::Pingreq => {
                ping::decode(frame, version, PacketType::Pingreq)?;
                Packet::Pingreq
            }
            PacketType::Pingresp => {
                ping::decode(frame, version, PacketType::Pingresp)?;
                Packet::Pingresp
            }
            PacketType::Connect => Packet::Connect(Connect::decode(frame)?),
            PacketType::Connack => Packet::Connack(Connack::decode(frame, version)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(frame, version)?),
            PacketType::Suback => Packet::Suback(Suback::decode(frame, version)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(frame, version)?),
            PacketType::Unsuback => Packet::Unsuback(Unsuback::decode(frame, version)?),
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(frame, version)?),
            PacketType::Auth => Packet::Auth(Auth::decode(frame, version)?),
        })
    }

    /// Appends the packet to `out`, whatever its size. Fields that `version` does not have are left out; a CONNECT is
    /// encoded for its own version.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let any_size = usize::MAX;
        match self {
            Packet::Connect(connect) => connect.encode(out),
            Packet::Connack(connack) => connack.encode(version, any_size, out),
            Packet::Publish(publish) => publish.encode(version, out),
            Packet::Puback(ack) => ack.encode(AckType::Puback, version, any_size, out),
            Packet::Pubrec(ack) => ack.encode(AckType::Pubrec, version, any_size, out),
            Packet::Pubrel(ack) => ack.encode(AckType::Pubrel, version, any_size, out),
            Packet::Pubcomp(ack) => ack.encode(AckType::Pubcomp, version, any_size, out),
            Packet::Subscribe(subscribe) => subscribe.encode(version, out),
            Packet::Suback(suback) => suback.encode(version, any_size, out),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Packet::Unsuback(unsuback) => unsuback.encode(version, any_size, out),
            Packet::Pingreq => encode_pingreq(out),
            Packet::Pingresp => encode_pingresp(out),
            Packet::Disconnect(disconnect) => disconnect.encode(version, any_size, out),
            Packet::Auth(auth) => auth.encode(any_size, out),
        }
    }

    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::Connack(_) => PacketType::Connack,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Puback(_) => PacketType::Puback,
            Packet::Pubrec(_) => PacketType::Pubrec,
            Packet::Pubrel(_) => PacketType::Pubrel,
            Packet::Pubcomp(_) => PacketType::Pubcomp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::Suback(_) => PacketType::Suback,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::Unsuback(_) => PacketType::Unsuback,
            Packet::Pingreq => PacketType::Pingreq,
            Packet::Pingresp => PacketType::Pingresp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}
