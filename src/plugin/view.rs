//! The views that hooks get: each is valid for the length of a call.

use super::{QuestionId, Resumed};
use crate::arena::{Message, Meta};
use crate::codec::{Property, PropertyIter, ProtocolVersion, QoS, UserProperties};
use crate::session::{DropReason, Session};
use crate::time::Instant;
use std::net::SocketAddr;

/// Who did it, or who receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientView<'a> {
    /// Of a bridge: its name.
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
    pub peer: Option<SocketAddr>,
    /// The address it connected to.
    pub listener: Option<SocketAddr>,
    /// `None`: not an MQTT client, a bridge for instance.
    pub version: Option<ProtocolVersion>,
    pub shard: u16,
}

impl<'a> ClientView<'a> {
    /// The client of a session: as it connected last, with as much as the shard keeps.
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

/// What a CONNECT says beside who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectView<'a> {
    pub password: Option<&'a [u8]>,
    pub clean_start: bool,
    /// As asked for; 0: none.
    pub keep_alive_s: u16,
    /// As asked for; a 3.x client cannot ask.
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
    /// Seconds it is still wanted; `None`: for ever.
    pub message_expiry_s: Option<u32>,
    /// Encoded as in a PUBLISH, one behind the other: those that travel with the message, message expiry excluded.
    pub raw_properties: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// A message of the broker: its topic was validated when it was decoded.
    pub fn of(message: &Message<'a>, now: Instant) -> MessageView<'a> {
        let Message { topic, properties, payload, meta, .. } = message;
        MessageView::with(MessageView::text(topic), properties, payload, meta, now)
    }

    /// A topic that was validated when it was decoded.
    pub fn text(topic: &[u8]) -> &str {
        simdutf8::basic::from_utf8(topic).unwrap_or_default()
    }

    /// As `of`, where the message's topic is there as text.
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

/// Something that has happened.
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
    /// A message did not reach somebody.
    Dropped {
        /// Who did not get it, or whose it was when it was denied; `None`: no one client.
        client_id: Option<&'a str>,
        topic: &'a str,
        why: DropReason,
    },
}
