//! The views that hooks get: each is valid for the length of a call.

use super::{QuestionId, Resumed};
use crate::arena::{Message, Meta};
use crate::codec::{Property, PropertyIter, ProtocolVersion, QoS, UserProperties};
use crate::session::{DropReason, Session};
use crate::time::Instant;
use std::net::SocketAddr;

/// The client that caused a call, or the receiver of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientView<'a> {
    /// The client id; for a bridge, its name.
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
    pub peer: Option<SocketAddr>,
    /// The local address of the client's connection.
    pub listener: Option<SocketAddr>,
    /// `None`: this is not an MQTT client but, for instance, a bridge.
    pub version: Option<ProtocolVersion>,
    pub shard: u16,
}

impl<'a> ClientView<'a> {
    /// The client of a session as it connected last, with the facts that the shard keeps.
    pub fn of(session: &'a Session, shard: u16) -> ClientView<'a> {
        let client = ClientView { client_id: session.client_id(), shard, ..ClientView::default() };
        match session.profile() {
            Some(profile) => ClientView {
                user_name: profile.user_name.as_deref(),
                peer: profile.peer,
                listener: profile.listener,
                version: Some(profile.version),
                ..client
            },
            None => client,
        }
    }
}

/// The contents of a CONNECT beside the client's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectView<'a> {
    pub password: Option<&'a [u8]>,
    pub clean_start: bool,
    /// The requested keep alive; 0: none.
    pub keep_alive_s: u16,
    /// The requested session expiry; a 3.x client cannot request one.
    pub session_expiry_s: Option<u32>,
    pub will: Option<MessageView<'a>>,
    pub user_properties: UserProperties<'a>,
    /// What may be answered later; `None`: as many questions wait as may.
    pub question: Option<QuestionId>,
    /// Some of the hooks have spoken, the last of them by its answer.
    pub resumed: Option<Resumed>,
}

/// A message. User properties keep their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// For how many seconds the message is still wanted; `None`: for ever.
    pub message_expiry_s: Option<u32>,
    /// The properties that travel with the message, without message expiry, one behind the other, encoded as in a
    /// PUBLISH.
    pub raw_properties: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// A view of a message of the broker, whose topic was validated when it was decoded.
    pub fn of(message: &Message<'a>, now: Instant) -> MessageView<'a> {
        let Message { topic, properties, payload, meta, .. } = message;
        MessageView::with(MessageView::text(topic), properties, payload, meta, now)
    }

    /// A topic that was validated when it was decoded.
    pub fn text(topic: &[u8]) -> &str {
        simdutf8::basic::from_utf8(topic).unwrap_or_default()
    }

    /// As `of`, if the topic is at hand as text.
    #[inline]
    pub fn with(
        topic: &'a str,
        raw_properties: &'a [u8],
        payload: &'a [u8],
        meta: &Meta,
        now: Instant,
    ) -> MessageView<'a> {
        MessageView {
            topic,
            payload,
            qos: QoS::from_bits(meta.qos).unwrap_or_default(),
            retain: meta.retain,
            message_expiry_s: meta.expires_at.map(|at| at.seconds_left(now)),
            raw_properties,
        }
    }

    /// Bytes of topic, properties and payload.
    pub fn size(&self) -> usize {
        self.topic.len() + self.raw_properties.len() + self.payload.len()
    }

    pub fn properties(&self) -> PropertyIter<'a> {
        PropertyIter::new(self.raw_properties)
    }

    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        UserProperties::from_raw(self.raw_properties).iter()
    }

    pub fn content_type(&self) -> Option<&'a str> {
        self.properties().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    pub fn response_topic(&self) -> Option<&'a str> {
        self.properties().find_map(|property| match property {
            Property::ResponseTopic(text) => Some(text),
            _ => None,
        })
    }

    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.properties().find_map(|property| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// The payload format indicator; `None`: the message has none.
    pub fn payload_format_utf8(&self) -> Option<bool> {
        self.properties().find_map(|property| match property {
            Property::PayloadFormat(is_utf8) => Some(is_utf8),
            _ => None,
        })
    }
}

/// An event that hooks hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent<'a> {
    Connected {
        client: ClientView<'a>,
        is_resumed: bool,
    },
    Disconnected {
        client: ClientView<'a>,
        why: &'a str,
    },
    /// The client connected again elsewhere; `Disconnected` of the old connection follows.
    TakenOver {
        client: ClientView<'a>,
    },
    SessionEnded {
        client: ClientView<'a>,
    },
    /// A message did not reach a receiver.
    Dropped {
        /// The client that did not get the message, or whose message was denied; `None`: it is not one client.
        client_id: Option<&'a str>,
        topic: &'a str,
        why: DropReason,
    },
}
