//! The encode stage: each message of a batch to all its receivers.

use super::hooks::{Plugged, is_wanted};
use super::{Shard, context, sharing, steps};
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
        let mut context = context!(self, now);
        let hash = &self.hash;
        // What comes from one publisher often goes to one topic.
        let mut topic: &[u8] = &[];
        let mut last_route: Option<Rc<Route>> = None;
        let has_returns = self.has_bridge_clients && self.bridges.has_returns();
        while let Some(generation) = batch.next() {
            let Some(message) = self.arena.get(generation) else { continue };
            let route = match &last_route {
                Some(route) if message.topic == topic => route,
                _ => {
                    topic = message.topic;
                    &*last_route.insert(self.router.route(topic, &mut context.counters.steps))
                }
            };
            let clients = &mut self.clients;
            let run_size_max = runs::size_max(message.meta.qos, route.local.len(), context.limits);
            if !HAS_DELIVER
                && !has_returns
                && let Some(run) = self.arena.run(generation, batch.through(), run_size_max)
                && route.groups.is_empty()
                && !(route.local.len() > 1 && encode::leaves_by_reference(&message))
            {
                batch.pass(run.last());
                let left = &mut self.left_of_run;
                deliver_run(route, &message, &run, clients, &mut context, left);
                // A run is one offer to whoever takes all of it.
                let offer_count = route.local.len() + left.len() * run.count();
                context.counters.add_delivery_steps(offer_count as u64);
                if message.meta.is_origin && route.remote != 0 {
                    self.outbox.publish_run(route.remote, &run);
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
                receivers = Plugged::receivers(&mut self.plugged, self.hook_set, view, self.id);
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
                    let outbox = &mut self.outbox;
                    sharing::offer(
                        group,
                        &message,
                        self.id,
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
            let mut remote = if message.meta.is_origin { route.remote } else { 0 };
            if message.meta.retain {
                let owner = hash.owner(message.topic, self.shard_count);
                let setter = self.setters.take(generation, &message, &mut self.clients, hash);
                if owner == self.id {
                    let (limits, counters) = (context.limits, &mut *context.counters);
                    let is_taken =
                        self.retained.store(limits, counters, context.drops, now, &message, setter);
                    if !is_taken
                        && message.meta.is_origin
                        && let Some(key) = SessionKey::from_u64(message.meta.publisher)
                        && let Some(session) = self.clients.session(key)
                    {
                        context.drops.name_last(DropReason::RetainedFull, &session.client_id);
                    }
                } else if message.meta.is_origin {
                    self.outbox.publish_to_owner(owner, &message, setter);
                    remote &= !(1 << owner);
                }
            }
            self.outbox.publish_to_all(remote, &message);
        }
    }
}
