//! The encode stage: each message of a batch to all its receivers.

use super::hooks::{Plugged, is_wanted};
use super::{Shard, sharing, steps};
use crate::peers::ShardSet;
use crate::pipeline::Batch;
use crate::session::{DropReason, SessionKey, encode, runs};
use crate::stages::Route;
use crate::stages::encode::{deliver, deliver_run};
use crate::stages::plugin::MessageView;
use crate::time::Instant;
use std::rc::Rc;

impl Shard {
    /// Each message to local sessions, groups owned here, other shards, the retained store. Whether there is a deliver hook
    /// to ask is known to the compiler: without one nothing is paid.
    #[inline(always)]
    pub(super) fn encode<const HAS_DELIVER: bool>(&mut self, now: Instant, mut batch: Batch) {
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        let hash = self.peers.hash();
        // What comes from one publisher often goes to one topic.
        let mut topic: &[u8] = &[];
        let mut last_route: Option<Rc<Route>> = None;
        let has_returns = self.bridges.has_clients && self.bridges.has_returns();
        while let Some(generation) = batch.next() {
            let Some(message) = self.flow.arena.get(generation) else { continue };
            let route = match &last_route {
                Some(route) if message.topic == topic => route,
                _ => {
                    topic = message.topic;
                    &*last_route.insert(self.flow.router.route(topic, &mut context.counters.steps))
                }
            };
            let clients = &mut self.clients;
            let run_size_max = runs::size_max(message.meta.qos, route.local.len(), context.limits);
            if !HAS_DELIVER
                && !has_returns
                && let Some(run) = self.flow.arena.run(generation, batch.through(), run_size_max)
                && route.groups.is_empty()
                && !(route.local.len() > 1 && encode::leaves_by_reference(&message))
            {
                batch.pass(run.last());
                let left = &mut self.flow.left_of_run;
                deliver_run(route, &message, &run, clients, &mut context, left);
                // A run is one offer to whoever takes all of it.
                let offer_count = route.local.len() + left.len() * run.count();
                context.counters.add_delivery_steps(offer_count as u64);
                if message.meta.is_origin && !route.remote.is_empty() {
                    self.flow.outbox.publish_run(route.remote, &run);
                }
                continue;
            }
            context.counters.add_delivery_steps(route.local.len() as u64);
            if message.size() >= steps::COPY_SIZE {
                let receiver_count = (route.local.len() + route.groups.len()) as u64;
                let steps_each = steps::of_bytes(message.size());
                context.counters.add_delivery_steps(receiver_count * steps_each);
            }
            let topic_hash = || hash.bytes(message.topic);
            let mut receivers = None;
            if HAS_DELIVER {
                let view = || MessageView::of(&message, now);
                receivers = Plugged::receivers(
                    &mut self.hooks.plugged,
                    self.hooks.set,
                    view,
                    self.peers.own(),
                );
                deliver(route, &message, clients, &mut context, topic_hash, |clients, key| {
                    is_wanted(&mut receivers, clients, key)
                });
            } else {
                deliver(route, &message, clients, &mut context, topic_hash, |_, _| true);
            }
            if has_returns {
                let mut given = route.local.iter().map(|delivery| delivery.session);
                let publisher = message.meta.publisher;
                if given.any(|key| key.as_u64() != publisher && self.clients.is_bridge(key)) {
                    self.bridges.note_given(&message);
                }
            }
            for &index in &route.groups {
                context.counters.add_delivery_steps(1);
                if let Some(group) = self.groups.get(index) {
                    let clients = &mut self.clients;
                    let receivers = receivers.as_mut();
                    let outbox = &mut self.flow.outbox;
                    sharing::offer(
                        group,
                        &message,
                        self.peers.own(),
                        clients,
                        outbox,
                        &mut context,
                        receivers,
                    );
                    self.groups.list_backlog(index);
                }
            }
            if let Some(receivers) = receivers {
                context.counters.deliveries_skipped += receivers.skipped();
            }
            let mut remote = if message.meta.is_origin { route.remote } else { ShardSet::EMPTY };
            if message.meta.retain {
                let owner = self.peers.owner(message.topic);
                let setter =
                    self.retained.setters.take(generation, &message, &mut self.clients, hash);
                if owner == self.peers.own() {
                    let (limits, counters) = (context.limits, &mut *context.counters);
                    let is_taken = self.retained.kept.store(
                        limits,
                        counters,
                        context.drops,
                        now,
                        &message,
                        setter,
                    );
                    if !is_taken
                        && message.meta.is_origin
                        && let Some(key) = SessionKey::from_u64(message.meta.publisher)
                        && let Some(session) = self.clients.session(key)
                    {
                        context.drops.name_last(DropReason::RetainedFull, &session.client_id);
                    }
                } else if message.meta.is_origin {
                    self.flow.outbox.publish_to_owner(owner, &message, setter);
                    remote.remove(owner);
                }
            }
            self.flow.outbox.publish_to_all(remote, &message);
        }
    }
}
