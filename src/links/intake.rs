//! The mail of the shards: messages go to the connections that want them, and news of the logs goes back.

use std::collections::HashMap;
use std::rc::Rc;

use tracing::warn;

use super::outbound::Origin;
use super::record::Record;
use super::{Bridge, Hub};
use crate::arena::Generation;
use crate::bridge::{self, Wanted, connection_of};
use crate::codec::QoS;
use crate::peers::ShardSet;
use crate::printable::Quoted;
use crate::routing::bridge_mail::{BridgeBatch, BridgeMessage, FromBridges, Target, ToBridges};
use crate::shard::ShardId;
use crate::time::Instant;

/// What is known of the logs, and what the shards have been told.
#[derive(Default)]
pub(super) struct Ledger {
    /// By bridge and shard: the last message that the bridge stores.
    seen: HashMap<(u16, ShardId), Generation>,
    told: HashMap<(u16, ShardId), Generation>,
    /// By bridge: whether the shards know that it holds publishers back.
    holding_told: HashMap<u16, ShardSet>,
}

impl Hub {
    /// Takes what the lanes hold; whether there was something.
    pub(crate) fn take_mail(&self) -> bool {
        if self.is_flooded() {
            return false;
        }
        let now = self.clock.now();
        let mut all: Vec<(ShardId, ToBridges)> = Vec::new();
        for mut lanes in self.end.borrow_mut().shards() {
            let shard = lanes.shard();
            lanes.receive(|mail| all.push((shard, mail)));
        }
        let has_mail = !all.is_empty();
        for (shard, mail) in all {
            match mail {
                ToBridges::Messages(batch) => self.take_messages(now, shard, &batch),
                ToBridges::Retained { request, messages, more } => {
                    self.take_retained(now, request, &messages, more);
                }
                ToBridges::Taken { bridge, reason, numbers } => {
                    if let Some(bridge) = self.bridges.get(usize::from(bridge)) {
                        bridge.acknowledge(now, &numbers, reason);
                    }
                }
            }
        }
        has_mail
    }

    /// Some log has no room for what was taken: nothing more is.
    pub(crate) fn is_flooded(&self) -> bool {
        let mut lines = self.bridges.iter().flat_map(|bridge| &bridge.lines);
        lines.any(|line| line.outbound.is_flooded())
    }

    fn take_messages(&self, now: Instant, shard: ShardId, batch: &BridgeBatch) {
        for message in batch.messages() {
            if message.targets.clone().next().is_none() {
                self.note_given(now, &message);
            }
            for target in message.targets.clone() {
                let Some(bridge) = self.bridges.get(usize::from(target.bridge)) else { continue };
                if target.is_stored {
                    let seen = (target.bridge, shard);
                    self.ledger.borrow_mut().seen.insert(seen, message.generation);
                }
                self.forward(now, shard, bridge, target, &message);
            }
        }
    }

    fn note_given(&self, now: Instant, given: &BridgeMessage<'_>) {
        let Ok(topic) = std::str::from_utf8(given.message.topic) else { return };
        let origin = if given.from_bridge { bridge::Origin::Bridge } else { bridge::Origin::Here };
        self.given.borrow_mut().note(now, origin, topic, given.message.payload);
    }

    /// Retained messages that a rule asked for; only those that no earlier rule of the bridge means.
    fn take_retained(
        &self,
        now: Instant,
        request: u64,
        messages: &BridgeBatch,
        more: Option<Box<str>>,
    ) {
        let Some(asked) = self.retained.borrow_mut().remove(&request) else { return };
        let Some(bridge) = self.bridges.get(usize::from(asked.wanted.bridge)) else { return };
        let mut found = Vec::new();
        for message in messages.messages() {
            let Ok(topic) = std::str::from_utf8(message.message.topic) else { continue };
            self.index.find(topic, &mut found);
            if !found.contains(&asked.wanted) {
                continue;
            }
            let qos = QoS::from_bits(message.message.meta.qos).unwrap_or_default();
            let target = Target {
                bridge: asked.wanted.bridge,
                rule: asked.wanted.rule,
                is_stored: self.index.rule(asked.wanted).stores(qos),
            };
            self.forward_on(now, 0, bridge, target, &message, Some(asked.line));
        }
        asked.answer.replace(Some(more));
        asked.answered.raise();
    }

    fn forward(
        &self,
        now: Instant,
        shard: ShardId,
        bridge: &Bridge,
        target: Target,
        message: &BridgeMessage<'_>,
    ) {
        self.forward_on(now, shard, bridge, target, message, None);
    }

    /// Maps a message and gives it to the connection that its topic goes to, if that is `only`.
    fn forward_on(
        &self,
        now: Instant,
        shard: ShardId,
        bridge: &Bridge,
        target: Target,
        message: &BridgeMessage<'_>,
        only: Option<u16>,
    ) {
        let rule = self.index.rule(Wanted { bridge: target.bridge, rule: target.rule });
        let body = &message.message;
        let Ok(local_topic) = std::str::from_utf8(body.topic) else { return };
        let mut scratch = self.scratch.borrow_mut();
        let topic = &mut *scratch;
        let is_mapped = rule.map_topic_into(local_topic, topic);
        let connections = bridge.settings.connections;
        let line_index = if is_mapped { connection_of(topic, connections) } else { 0 };
        if only.is_some_and(|only| only != line_index) {
            return;
        }
        let Some(line) = bridge.lines.get(usize::from(line_index)) else { return };
        let outbound = &line.outbound;
        if !is_mapped {
            warn!(
                "bridge {}: {} maps to no topic; dropped",
                bridge.settings.name,
                Quoted(local_topic)
            );
            return outbound.lose(|dropped| dropped.unfit += 1);
        }
        let left_ms = body.meta.expires_at.map(|at| at.ms_since(now));
        if left_ms == Some(0) {
            return outbound.lose(|dropped| dropped.expired += 1);
        }
        if message.from_bridge && bridge.is_echo(now, line.keeping(), topic, body) {
            return;
        }
        let record = Record {
            qos: rule.map_qos(QoS::from_bits(body.meta.qos).unwrap_or_default()),
            retain: rule.map_retain(body.meta.retain),
            from_bridge: message.from_bridge,
            expires_at_ms: left_ms.map(|left| super::unix_ms() + left),
            topic,
            local_topic,
            properties: body.properties,
            trail: body.trail(),
            payload: body.payload,
        };
        let mut bytes = Vec::with_capacity(record.size());
        record.encode(&mut bytes);
        match target.is_stored {
            true => outbound.store(Origin { shard, generation: message.generation }, bytes),
            false => outbound.keep(bytes),
        }
    }

    /// Tells the shards how far the logs have come and which bridges have no room, as far as their lanes have room.
    /// Whether everybody knows everything.
    pub(crate) fn tell_shards(&self) -> bool {
        let mut is_all_told = true;
        let mut end = self.end.borrow_mut();
        let mut ledger = self.ledger.borrow_mut();
        let Ledger { seen, told, holding_told } = &mut *ledger;
        for (&(bridge_id, shard), &last) in &*seen {
            let bridge = &self.bridges[usize::from(bridge_id)];
            let oldest =
                bridge.lines.iter().filter_map(|line| line.outbound.oldest_unwritten(shard)).min();
            let through = match oldest {
                Some(oldest) => Generation::from_number(oldest.number() - 1),
                None => last,
            };
            let known = told.entry((bridge_id, shard)).or_default();
            if through <= *known {
                continue;
            }
            let mut lanes = end.shard(shard);
            if lanes.has_news_room() {
                lanes.send(FromBridges::Written { bridge: bridge_id, through });
                *known = through;
            } else {
                is_all_told = false;
            }
        }
        for (bridge_id, bridge) in (0u16..).zip(&self.bridges) {
            let is_on = bridge.lines.iter().any(|line| line.outbound.is_blocking.get());
            let told = holding_told.entry(bridge_id).or_default();
            for mut lanes in end.shards() {
                if told.contains(lanes.shard()) == is_on {
                    continue;
                }
                if lanes.has_news_room() {
                    lanes.send(FromBridges::Block { bridge: bridge_id, is_on });
                    told.set(lanes.shard(), is_on);
                } else {
                    is_all_told = false;
                }
            }
        }
        is_all_told
    }

    /// Nothing of what shards handed over is anywhere but in a log, with the link, or in a queue in memory; and the shards have
    /// what came in.
    pub(crate) fn is_settled(&self) -> bool {
        let mut lines = self.bridges.iter().flat_map(|bridge| &bridge.lines);
        !self.end.borrow().has_mail()
            && lines.all(|line| line.outbound.is_settled() && !line.has_inbound())
    }
}

/// Kept with the question for retained messages that a connection asked.
pub(super) struct Asked {
    pub wanted: Wanted,
    pub line: u16,
    /// Where to go on, once it is answered.
    pub answer: Rc<std::cell::RefCell<Option<Option<Box<str>>>>>,
    pub answered: Rc<super::signal::Signal>,
}
