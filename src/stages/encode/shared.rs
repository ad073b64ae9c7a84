//! Gives a message of a shared group to one of its members, or adds it to the group's backlog.

use crate::arena::{Message, Stored};
use crate::codec::QoS;
use crate::limits::Limits;
use crate::peers::ShardId;
use crate::plugin::Receivers;
use crate::routing::groups::Group;
use crate::routing::mail::{Address, Outbox};
use crate::session::queue::QueueLimits;
use crate::session::{Clients, Context, DropReason, Offer};

/// Gives a message to the next member that can take it, behind the messages that wait already.
pub(crate) fn offer(
    group: &mut Group,
    message: &Message<'_>,
    own: ShardId,
    clients: &mut Clients,
    outbox: &mut Outbox,
    context: &mut Context<'_>,
    receivers: Option<&mut Receivers<'_>>,
) {
    if group.backlog.is_empty() && give(group, message, own, clients, outbox, context, receivers) {
        return;
    }
    if !context.may_store_for_absent(message) {
        context.counters.dropped_stored_full += 1;
        context.drops.push(None, message.topic, DropReason::StoreFull);
        return;
    }
    let stored = Stored::from_message(message, context.stored);
    context.counters.dropped_group_full += group.wait(
        context.now,
        stored,
        backlog_limits(context.limits),
        &mut context.counters.expired,
        context.drops,
    );
}

/// Gives a message to a member; returns whether that took it. A message whose member a deliver hook leaves out counts
/// as taken.
pub(crate) fn give(
    group: &mut Group,
    message: &Message<'_>,
    own: ShardId,
    clients: &mut Clients,
    outbox: &mut Outbox,
    context: &mut Context<'_>,
    receivers: Option<&mut Receivers<'_>>,
) -> bool {
    let Some((member, options)) = group.members.pick() else { return false };
    let (shard, session) = member;
    if shard != own {
        let address = Address { session, options, group: group.key };
        outbox.member(shard, &address, message);
        return true;
    }
    if let Some(receivers) = receivers
        && clients.session(session).is_some_and(|session| !receivers.wants(session))
    {
        group.members.credit(&member, 1);
        return true;
    }
    let envelope = options.envelope(message.meta.qos, message.meta.retain);
    let is_acknowledged = envelope.qos != QoS::AtMostOnce;
    if clients.offer(session, context, message, envelope) == Some(Offer::Queued) {
        return true;
    }
    if is_acknowledged && !clients.has_free_places(session, context.limits.group_credit_max) {
        // The owner gets the place back when the client's window has one.
        clients.use_place(session, options.membership);
    } else {
        group.members.credit(&member, 1);
    }
    true
}

pub(crate) fn backlog_limits(limits: &Limits) -> QueueLimits {
    QueueLimits {
        messages_max: limits.group_messages_max,
        bytes_max: limits.group_bytes_max,
        policy: limits.queue_policy,
    }
}
