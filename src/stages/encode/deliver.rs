//! A message, or a run of messages, to the local sessions of its route.

use crate::arena::{Message, Run};
use crate::routing::route::{LocalDelivery, Route};
use crate::session::{Clients, Context, SessionKey, encode};

/// How a message, or a run that begins with it, reaches a session, as far as message and subscription decide. The
/// session decides last: a message that `Clients::send_plain` and its like do not send at once is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// At QoS 0, and the receiver gets nothing of its own: the message is encoded, or copied from what another receiver
    /// got.
    Plain,
    /// As `Plain`, at QoS 1 or 2: only the packet id is the receiver's own.
    Acked,
    /// The message is offered: it has identifiers, an expiry or a trail, or its bytes are not in the arena.
    General,
}

impl Way {
    #[inline(always)]
    fn of(delivery: &LocalDelivery, message: &Message<'_>, is_plain: bool) -> Way {
        if !is_plain || delivery.ids.is_some() {
            return Way::General;
        }
        match delivery.is_qos0(message) {
            true => Way::Plain,
            false => Way::Acked,
        }
    }
}

/// Delivers a run, of which `first` is the first message, to every local subscriber. A subscriber that gets nothing
/// with it and has room for the whole run gets it in one go, as one check holds for all its messages. The others, which
/// are collected in `left`, get it message by message.
pub(super) fn deliver_run(
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
        let Some(delivery) = delivery.of(first) else { continue };
        let key = delivery.session;
        let is_sent = match Way::of(delivery, first, is_plain) {
            Way::Plain => clients.send_run(key, context, run),
            Way::Acked => clients.send_acked_run(key, context, run, delivery.qos(first)),
            Way::General => false,
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

/// Delivers a message to every local subscriber of its route for which it is `wanted`. `topic_hash` is called only for
/// a message with the retain flag.
#[inline]
pub(super) fn deliver(
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
        let Some(delivery) = delivery.of(message) else { continue };
        if !wanted(clients, delivery.session) {
            continue;
        }
        let (key, retain) = (delivery.session, delivery.retains(message));
        let is_sent = match Way::of(delivery, message, is_plain) {
            Way::Plain => clients.send_plain(key, context, message, retain),
            Way::Acked => {
                clients.send_plain_acked(key, context, message, (delivery.qos(message), retain))
            }
            Way::General => false,
        };
        if is_sent {
            continue;
        }
        clients.offer(delivery.session, context, message, delivery.envelope(message));
    }
    context.encoded.end();
}
