//! The encode stage: one message to each local subscriber, encoded once for all that want the same bytes.

use crate::arena::{Message, Run};
use crate::codec::QoS;
use crate::session::{Clients, Context, Envelope, SessionKey, encode};
use std::rc::Rc;

/// Where messages of one topic go. A change of a subscription that means the topic makes the route invalid.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// One entry a session, whatever the number of its subscriptions that match.
    pub local: Vec<LocalDelivery>,
    /// Shared groups that this shard owns.
    pub groups: Vec<u32>,
    /// Other shards with a subscriber, as bits.
    pub remote: u128,
}

/// What one session's matching subscriptions come to.
#[derive(Clone, Debug)]
pub struct LocalDelivery {
    pub session: SessionKey,
    /// The highest QoS granted. [MQTT-3.3.4-2]
    pub qos: QoS,
    pub retain_as_published: bool,
    /// All identifiers. [MQTT-3.3.4-4]
    pub ids: Option<Rc<[u32]>>,
    pub no_local: NoLocal,
}

/// What the session gets of its own messages.
#[derive(Clone, Debug)]
pub enum NoLocal {
    /// The same as of others'.
    Same,
    Nothing,
    /// Only what its subscriptions without No Local ask for.
    Other(Box<LocalDelivery>),
}

impl Route {
    /// The memory it holds, about.
    pub fn bytes(&self) -> usize {
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

    #[inline]
    fn is_qos0(&self, message: &Message<'_>) -> bool {
        message.meta.qos == 0 || self.qos == QoS::AtMostOnce
    }

    #[inline]
    fn qos(&self, message: &Message<'_>) -> QoS {
        // [MQTT-3.8.4-8]
        QoS::from_bits(message.meta.qos).unwrap_or(QoS::AtMostOnce).min(self.qos)
    }

    #[inline]
    fn retains(&self, message: &Message<'_>) -> bool {
        // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        message.meta.retain && self.retain_as_published
    }

    fn envelope(&self, message: &Message<'_>) -> Envelope {
        Envelope {
            qos: self.qos(message),
            retain: self.retains(message),
            ids: self.ids.clone(),
            membership: 0,
        }
    }
}

/// Delivers a run, of which `first` is the first message, to every local subscriber: in one go to those who get nothing with it
/// and have room for all of it, as what is asked once holds for all messages of it; to the others, whom it collects in `left`,
/// message by message.
pub fn deliver_run(
    route: &Route,
    first: &Message<'_>,
    run: &Run<'_>,
    clients: &mut Clients,
    context: &mut Context<'_>,
    left: &mut Vec<SessionKey>,
) {
    debug_assert!(!first.meta.retain, "nothing that is repeated has the retain flag");
    left.clear();
    if route.local.len() > 1 {
        context.encoded.begin_run();
    }
    let is_plain = encode::is_plain(first);
    for delivery in &route.local {
        let key = delivery.session;
        let is_own = first.meta.publisher == key.as_u64();
        let is_sent = is_plain
            && delivery.ids.is_none()
            && (!is_own || matches!(delivery.no_local, NoLocal::Same))
            && match delivery.is_qos0(first) {
                true => clients.send_run(key, context, run),
                false => clients.send_acked_run(key, context, run, delivery.qos(first)),
            };
        if !is_sent {
            left.push(key);
        }
    }
    context.encoded.end_run();
    if !left.is_empty() {
        // Routes are sorted by session.
        let is_left = |_: &mut Clients, key: SessionKey| left.binary_search(&key).is_ok();
        run.for_each(|message| deliver(route, message, clients, context, || 0, is_left));
    }
}

/// Delivers a message to every local subscriber of its route that it is `wanted` for. `topic_hash` is asked for with
/// the retain flag only.
#[inline]
pub fn deliver(
    route: &Route,
    message: &Message<'_>,
    clients: &mut Clients,
    context: &mut Context<'_>,
    topic_hash: impl Fn() -> u64,
    mut wanted: impl FnMut(&mut Clients, SessionKey) -> bool,
) {
    if message.meta.retain {
        let hash = topic_hash();
        for delivery in &route.local {
            if let Some(session) = clients.session(delivery.session) {
                session.saw_retained(hash);
            }
        }
    }
    if route.local.len() > 1 {
        let has_room = context.may_store(message);
        context.encoded.begin(message, context.stored, has_room);
    }
    let is_plain = encode::is_plain(message);
    for delivery in &route.local {
        let mut delivery = delivery;
        if message.meta.publisher == delivery.session.as_u64() {
            // [MQTT-3.8.3-3]
            match &delivery.no_local {
                NoLocal::Same => {}
                NoLocal::Nothing => continue,
                NoLocal::Other(other) => delivery = other,
            }
        }
        if !wanted(clients, delivery.session) {
            continue;
        }
        if is_plain && delivery.ids.is_none() {
            let (key, retain) = (delivery.session, delivery.retains(message));
            let is_sent = match delivery.is_qos0(message) {
                true => clients.send_plain(key, context, message, retain),
                false => {
                    let asked = (delivery.qos(message), retain);
                    clients.send_plain_acked(key, context, message, asked)
                }
            };
            if is_sent {
                continue;
            }
        }
        clients.offer(delivery.session, context, message, delivery.envelope(message));
    }
    context.encoded.end();
}
