//! Messages of the remote on their way to the shards.

use super::{Line, ShardId};
use crate::bridge::{InMessage, connection_of};
use crate::codec::ReasonCode;
use crate::links::Hub;
use crate::links::returns::Judgement;
use crate::routing::bridge_mail::{InboundBatch, InboundMessage};

impl Line {
    /// A message of the remote has come, which asks for an answer by this number, unless it is 0.
    pub(crate) fn on_inbound(&self, hub: &Hub, number: u64, message: InMessage) {
        if hub.is_ending.get() {
            // Its subscribers are about to be sent away. Not acknowledged, it stays with the remote.
            return;
        }
        self.status.borrow_mut().received += 1;
        self.inbound_bytes.set(self.inbound_bytes.get() + message.size());
        self.arrivals.borrow_mut().push_back((number, message));
        self.take_arrivals(hub);
    }

    /// Hands on what has arrived, in order, as far as it is known whether it is new.
    pub(crate) fn take_arrivals(&self, hub: &Hub) {
        let bridge = &hub.bridges[usize::from(self.bridge)];
        loop {
            let Some((number, message)) = self.arrivals.borrow_mut().pop_front() else { return };
            let now = hub.clock.now();
            let ways = {
                let link = self.link.borrow();
                (link.keeping(), link.has_no_local())
            };
            let judgement = match hub.is_ending.get() {
                true => Judgement::Open,
                false => hub.judge(now, bridge, ways, &message),
            };
            let size = message.size();
            match judgement {
                Judgement::Open if !hub.is_ending.get() => {
                    return self.arrivals.borrow_mut().push_front((number, message));
                }
                // Not acknowledged.
                Judgement::Open => {}
                Judgement::Dropped => {
                    self.link.borrow_mut().acked_inbound(now, number, ReasonCode::Success);
                }
                Judgement::New { properties, trail } => {
                    let shard = connection_of(message.topic(), hub.shard_count());
                    let mut inbound = self.inbound.borrow_mut();
                    let batch = inbound.entry(shard).or_default();
                    let before = batch.size();
                    let number = if number == 0 { 0 } else { u64::from(self.index) << 48 | number };
                    let expires_at = message.message_expiry_s.map(|left| now.plus_s(left.into()));
                    let inbound = InboundMessage {
                        number,
                        topic: message.topic(),
                        properties: &properties,
                        payload: message.payload(),
                        qos: message.qos as u8,
                        retain: message.retain,
                        expires_at,
                    };
                    batch.push_with(&inbound, &trail);
                    self.inbound_bytes.set(self.inbound_bytes.get() + batch.size() - before);
                    hub.has_committed.raise();
                }
            }
            self.inbound_bytes.set(self.inbound_bytes.get() - size);
        }
    }

    /// Messages of the remote for a shard.
    pub(crate) fn take_inbound(&self, shard: ShardId) -> Option<InboundBatch> {
        let batch = self.inbound.borrow_mut().remove(&shard)?;
        self.inbound_bytes.set(self.inbound_bytes.get() - batch.size());
        Some(batch)
    }

    /// Whether messages of the remote wait for a shard's lane.
    pub(crate) fn has_inbound(&self) -> bool {
        !self.inbound.borrow().is_empty() || !self.arrivals.borrow().is_empty()
    }
}
