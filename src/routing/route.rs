//! Where the messages of one topic go.

use crate::arena::Message;
use crate::codec::QoS;
use crate::peers::ShardSet;
use crate::session::{Envelope, SessionKey};
use std::rc::Rc;

/// Where messages of one topic go. A change of a subscription that means the topic makes the route invalid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    /// One entry for each session, whatever the number of its subscriptions that match.
    pub local: Vec<LocalDelivery>,
    /// Indices of the shared groups that this shard owns.
    pub groups: Vec<u32>,
    /// Other shards with a subscriber.
    pub remote: ShardSet,
}

/// The delivery that all matching subscriptions of one session come to.
#[derive(Clone, Debug)]
pub(crate) struct LocalDelivery {
    pub session: SessionKey,
    /// The highest QoS granted. [MQTT-3.3.4-2]
    pub qos: QoS,
    pub retain_as_published: bool,
    /// The identifiers of all matching subscriptions. [MQTT-3.3.4-4]
    pub ids: Option<Rc<[u32]>>,
    pub no_local: NoLocal,
}

/// The delivery of a session's own messages to it.
#[derive(Clone, Debug)]
pub(crate) enum NoLocal {
    /// The session gets its own messages like those of others.
    Same,
    Nothing,
    /// The session gets what its subscriptions without No Local ask for.
    Other(Box<LocalDelivery>),
}

impl Route {
    /// The memory in use, in bytes: an estimate.
    pub(crate) fn bytes(&self) -> usize {
        let local: usize = self.local.iter().map(LocalDelivery::bytes).sum();
        size_of::<Route>() + local + size_of_val(self.groups.as_slice())
    }
}

impl LocalDelivery {
    fn bytes(&self) -> usize {
        let other = match &self.no_local {
            NoLocal::Other(other) => other.bytes(),
            NoLocal::Same | NoLocal::Nothing => 0,
        };
        size_of::<LocalDelivery>() + self.ids.as_ref().map_or(0, |ids| 16 + 4 * ids.len()) + other
    }

    /// The delivery of a message to the session; `None`: the session published the message and has set No Local.
    #[inline(always)]
    pub(crate) fn of(&self, message: &Message<'_>) -> Option<&LocalDelivery> {
        if message.meta.publisher != self.session.as_u64() {
            return Some(self);
        }
        // [MQTT-3.8.3-3]
        match &self.no_local {
            NoLocal::Same => Some(self),
            NoLocal::Nothing => None,
            NoLocal::Other(other) => Some(other),
        }
    }

    #[inline]
    pub(crate) fn is_qos0(&self, message: &Message<'_>) -> bool {
        message.meta.qos == 0 || self.qos == QoS::AtMostOnce
    }

    #[inline]
    pub(crate) fn qos(&self, message: &Message<'_>) -> QoS {
        // [MQTT-3.8.4-8]
        QoS::from_bits(message.meta.qos).unwrap_or(QoS::AtMostOnce).min(self.qos)
    }

    #[inline]
    pub(crate) fn retains(&self, message: &Message<'_>) -> bool {
        // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        message.meta.retain && self.retain_as_published
    }

    pub(crate) fn envelope(&self, message: &Message<'_>) -> Envelope {
        Envelope {
            qos: self.qos(message),
            retain: self.retains(message),
            ids: self.ids.clone(),
            membership: 0,
        }
    }
}
