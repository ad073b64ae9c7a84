//! The encode stage brings each message of a batch to all its receivers: local sessions, shared groups owned here,
//! other shards, and the store of retained messages, if the topic is owned here.
//!
//! ```text
//! batch -> route -> run?  --yes--> deliver_run: whole, to each session that takes all of it; the rest as below
//!                     \---no---> deliver: one message to each session, by the way that `Way` says
//!                                groups, retained store, mail to other shards
//! ```

mod deliver;
pub(crate) mod shared;

use crate::arena::{Arena, Generation, Message, Run};
use crate::peers::{Peers, ShardId, ShardSet};
use crate::pipeline::Batch;
use crate::plugin::{Hosted, MessageView, is_wanted};
use crate::routing::groups::Groups;
use crate::routing::mail::Outbox;
use crate::routing::retained::{Kept, SlotSetters};
use crate::routing::route::Route;
use crate::routing::router::Router;
use crate::session::{Clients, Context, DropReason, SessionKey, encode, runs};
use crate::stages::bridge::BridgeStage;
use crate::work::{COPY_SIZE, steps_of_bytes};
use deliver::{deliver, deliver_run};
use std::rc::Rc;

/// All that the stage reads and writes for one batch, without the context. No call that is not inlined gets a reference
/// to this struct, so its fields need no place in memory (`bench/CHOICES.md`).
pub(crate) struct Encode<'a> {
    pub peers: &'a Peers,
    pub arena: &'a Arena,
    pub router: &'a mut Router,
    pub clients: &'a mut Clients,
    pub groups: &'a mut Groups,
    pub kept: &'a mut Kept,
    pub setters: &'a mut SlotSetters,
    pub outbox: &'a mut Outbox,
    pub hooks: &'a mut Hosted,
    /// Where messages for clients that are bridges are noted; `None`: such messages cannot come back over a bridge of
    /// ours.
    pub returns: Option<&'a mut BridgeStage>,
    /// Sessions that did not get a run in one go. The memory is used again.
    pub left_of_run: &'a mut Vec<SessionKey>,
}

impl Encode<'_> {
    /// Brings each message of the batch to all its receivers. The compiler knows whether there is a deliver hook:
    /// without one its code costs nothing.
    #[inline(always)]
    pub(crate) fn run<const HAS_DELIVER: bool>(
        mut self,
        context: &mut Context<'_>,
        mut batch: Batch,
    ) {
        let arena = self.arena;
        // Messages of one publisher often go to one topic.
        let mut topic: &[u8] = &[];
        let mut last_route: Option<Rc<Route>> = None;
        while let Some(generation) = batch.next() {
            let Some(message) = arena.get(generation) else { continue };
            let route = match &last_route {
                Some(route) if message.topic == topic => route,
                _ => {
                    topic = message.topic;
                    let steps = &mut context.counters.steps;
                    &*last_route.insert(self.router.route(topic, steps))
                }
            };
            let run_size_max = runs::size_max(message.meta.qos, route.local.len(), context.limits);
            if !HAS_DELIVER
                && self.returns.is_none()
                && message.stored.is_none()
                && let Some(run) = arena.run(generation, batch.through(), run_size_max)
                && route.groups.is_empty()
                && !(route.local.len() > 1 && encode::leaves_by_reference(&message))
            {
                batch.pass(run.last());
                self.give_run(context, route, &message, &run);
                continue;
            }
            self.give::<HAS_DELIVER>(context, route, (generation, &message));
        }
    }

    /// Brings a run to the sessions and shards of its route.
    #[inline(always)]
    fn give_run(
        &mut self,
        context: &mut Context<'_>,
        route: &Route,
        first: &Message<'_>,
        run: &Run<'_>,
    ) {
        let left = &mut *self.left_of_run;
        deliver_run(route, first, run, self.clients, context, left);
        // A run counts as one offer to each session that takes all of it.
        let offer_count = route.local.len() + left.len() * run.count();
        context.counters.add_delivery_steps(offer_count as u64);
        if first.meta.is_origin && !route.remote.is_empty() {
            self.outbox.publish_run(route.remote, run);
        }
    }

    /// Brings one message to all receivers of its route.
    #[inline(always)]
    fn give<const HAS_DELIVER: bool>(
        &mut self,
        context: &mut Context<'_>,
        route: &Route,
        (generation, message): (Generation, &Message<'_>),
    ) {
        context.counters.add_delivery_steps(route.local.len() as u64);
        if message.size() >= COPY_SIZE {
            let receiver_count = (route.local.len() + route.groups.len()) as u64;
            let steps_each = steps_of_bytes(message.size());
            context.counters.add_delivery_steps(receiver_count * steps_each);
        }
        let hash = self.peers.hash();
        let topic_hash = || hash.bytes(message.topic);
        let mut receivers = None;
        if HAS_DELIVER {
            let view = || MessageView::of(message, context.now);
            receivers = self.hooks.receivers(view, self.peers.own());
            deliver(route, message, self.clients, context, topic_hash, |clients, key| {
                is_wanted(&mut receivers, clients, key)
            });
        } else {
            deliver(route, message, self.clients, context, topic_hash, |_, _| true);
        }
        if let Some(bridges) = &mut self.returns {
            let mut given = route.local.iter().map(|delivery| delivery.session);
            let publisher = message.meta.publisher;
            if given.any(|key| key.as_u64() != publisher && self.clients.is_bridge(key)) {
                bridges.note_given(message);
            }
        }
        for &index in &route.groups {
            context.counters.add_delivery_steps(1);
            if let Some(group) = self.groups.get(index) {
                let own = self.peers.own();
                let (clients, outbox) = (&mut *self.clients, &mut *self.outbox);
                shared::offer(group, message, own, clients, outbox, context, receivers.as_mut());
                self.groups.list_backlog(index);
            }
        }
        if let Some(receivers) = receivers {
            context.counters.deliveries_skipped += receivers.skipped();
        }
        let mut remote = if message.meta.is_origin { route.remote } else { ShardSet::EMPTY };
        if message.meta.retain
            && let Some(owner) = retain(
                (self.peers, self.kept, self.setters),
                (self.clients, self.outbox),
                context,
                (generation, message),
            )
        {
            remote.remove(owner);
        }
        self.outbox.publish_to_all(remote, message);
    }
}

/// Brings a message with the retain flag to the store of its topic's owner. Returns the owner if that is another shard,
/// to which the message was sent. This is a function, so that no call takes `Encode` by reference.
#[inline(never)]
fn retain(
    (peers, kept, setters): (&Peers, &mut Kept, &mut SlotSetters),
    (clients, outbox): (&mut Clients, &mut Outbox),
    context: &mut Context<'_>,
    (generation, message): (Generation, &Message<'_>),
) -> Option<ShardId> {
    let owner = peers.owner(message.topic);
    let setter = setters.take(generation, message, clients, peers.hash());
    if owner != peers.own() {
        if message.meta.is_origin {
            outbox.publish_to_owner(owner, message, setter);
        }
        return message.meta.is_origin.then_some(owner);
    }
    let Context { now, limits, counters, drops, .. } = context;
    let is_taken = kept.store(limits, counters, drops, *now, message, setter);
    if !is_taken
        && message.meta.is_origin
        && let Some(key) = SessionKey::from_u64(message.meta.publisher)
        && let Some(session) = clients.session(key)
    {
        drops.name_last(DropReason::RetainedFull, session.client_id());
    }
    None
}
