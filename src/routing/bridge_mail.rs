//! The mail between shards and the executor of the bridges.
//!
//! ```text
//! shard -> bridges   Messages, Retained, Taken
//! bridges -> shard   Publish, Written, Block, RetainedQuery, Status
//! ```

use super::mail::{Batch, BatchReader};
use crate::arena::{Claim, Generation, Message, Meta};
use crate::bridge::hops::{self, Trail};
use crate::codec::ReasonCode;
use crate::time::Instant;

/// The index of a bridge in the configuration.
pub type BridgeId = u16;

pub use crate::config::bridge::BRIDGE_COUNT_MAX;

/// The publisher of messages that a bridge brings in: the number belongs to no session, as generations begin at 1.
pub(crate) fn publisher_of(bridge: BridgeId) -> u64 {
    u64::from(bridge) + 1
}

/// A forward rule that wants a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub bridge: BridgeId,
    /// The index of the rule among the bridge's forward rules.
    pub rule: u16,
    /// Whether the message goes to the log, and its publisher is answered when the log has it.
    pub is_stored: bool,
}

/// From a shard to the bridges.
#[derive(Debug)]
pub enum ToBridges {
    Messages(BridgeBatch),
    /// An answer to `FromBridges::RetainedQuery`. `more` says where the next query goes on.
    Retained {
        request: u64,
        messages: BridgeBatch,
        more: Option<Box<str>>,
    },
    /// The shard has admitted the messages with these numbers, which a bridge brought in, or refuses them with an
    /// error.
    Taken {
        bridge: BridgeId,
        reason: ReasonCode,
        numbers: Vec<u64>,
    },
}

/// From the bridges to a shard.
#[derive(Debug)]
pub enum FromBridges {
    /// Messages of the remote broker, for this shard to publish.
    Publish {
        bridge: BridgeId,
        messages: InboundBatch,
    },
    /// The bridge has written all messages up to this generation that its rules store.
    Written {
        bridge: BridgeId,
        through: Generation,
    },
    /// While this is on, the shard does not read publishers whose messages the bridge stores.
    Block {
        bridge: BridgeId,
        is_on: bool,
    },
    RetainedQuery {
        request: u64,
        filter: Box<str>,
        after: Option<Box<str>>,
    },
    /// Topics below `$SYS/` and their payloads, for the shard that publishes them.
    Status(Vec<(String, String)>),
}

impl ToBridges {
    /// The memory in use, in bytes: an estimate.
    pub fn size(&self) -> usize {
        size_of::<ToBridges>()
            + match self {
                ToBridges::Messages(batch) => batch.0.bytes.len(),
                ToBridges::Retained { messages, more, .. } => {
                    messages.0.bytes.len() + more.as_ref().map_or(0, |more| more.len())
                }
                ToBridges::Taken { numbers, .. } => size_of_val(numbers.as_slice()),
            }
    }
}

impl FromBridges {
    /// The memory in use, in bytes: an estimate.
    pub fn size(&self) -> usize {
        size_of::<FromBridges>()
            + match self {
                FromBridges::Publish { messages, .. } => messages.0.bytes.len(),
                FromBridges::RetainedQuery { filter, after, .. } => {
                    filter.len() + after.as_ref().map_or(0, |after| after.len())
                }
                FromBridges::Status(lines) => {
                    lines.iter().map(|(topic, value)| topic.len() + value.len()).sum()
                }
                FromBridges::Written { .. } | FromBridges::Block { .. } => 0,
            }
    }
}

/// Messages of a shard, each with the rules that want it.
#[derive(Debug, Default)]
pub struct BridgeBatch(pub(super) Batch);

/// One message of a batch.
#[derive(Debug)]
pub struct BridgeMessage<'a> {
    /// The rules that want the message. None: the message was given to a client that is a bridge.
    pub targets: Targets<'a>,
    /// The generation on the origin; `NONE` for a retained message.
    pub generation: Generation,
    /// Whether a client that is a bridge published the message.
    pub from_bridge: bool,
    pub message: Message<'a>,
}

/// The rules that want a message, at most one of each bridge.
#[derive(Clone, Debug)]
pub struct Targets<'a>(&'a [u8]);

impl Iterator for Targets<'_> {
    type Item = Target;

    fn next(&mut self) -> Option<Target> {
        let (target, rest) = self.0.split_first_chunk::<TARGET_SIZE>()?;
        self.0 = rest;
        let [b0, b1, r0, r1, is_stored] = *target;
        Some(Target {
            bridge: u16::from_le_bytes([b0, b1]),
            rule: u16::from_le_bytes([r0, r1]),
            is_stored: is_stored != 0,
        })
    }
}

const TARGET_SIZE: usize = 5;

impl BridgeBatch {
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    pub fn message_count(&self) -> usize {
        self.0.count
    }

    pub fn size(&self) -> usize {
        self.0.bytes.len()
    }

    pub fn push(
        &mut self,
        targets: &[Target],
        generation: Generation,
        from_bridge: bool,
        message: &Message<'_>,
    ) {
        debug_assert!(targets.len() <= BRIDGE_COUNT_MAX);
        let bytes = &mut self.0.bytes;
        bytes.push(targets.len() as u8);
        for target in targets {
            bytes.extend_from_slice(&target.bridge.to_le_bytes());
            bytes.extend_from_slice(&target.rule.to_le_bytes());
            bytes.push(u8::from(target.is_stored));
        }
        bytes.extend_from_slice(&generation.number().to_le_bytes());
        bytes.push(u8::from(from_bridge));
        self.0.push(message);
    }

    /// The messages in the order in which they were pushed.
    pub fn messages(&self) -> impl Iterator<Item = BridgeMessage<'_>> {
        let mut reader = self.0.reader();
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let count = usize::from(reader.take(1)[0]);
            let targets = Targets(reader.take(count * TARGET_SIZE));
            let generation = Generation::from_number(reader.u64());
            let from_bridge = reader.take(1)[0] != 0;
            let message = reader.next()?;
            Some(BridgeMessage { targets, generation, from_bridge, message })
        })
    }
}

/// Messages from a remote broker.
#[derive(Debug, Default)]
pub struct InboundBatch(Batch);

/// A message from a remote broker. Topic and properties were decoded, so they are valid.
#[derive(Clone, Copy, Debug)]
pub struct InboundMessage<'a> {
    /// The number under which `ToBridges::Taken` answers; 0: no bridge waits for the answer.
    pub number: u64,
    pub topic: &'a str,
    /// Encoded properties that travel on.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub expires_at: Option<Instant>,
}

impl InboundBatch {
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    pub fn size(&self) -> usize {
        self.0.bytes.len()
    }

    pub fn push(&mut self, inbound: &InboundMessage<'_>) {
        self.push_with(inbound, &Trail::default());
    }

    /// As `push`, for a message that was at other brokers before.
    pub fn push_with(&mut self, inbound: &InboundMessage<'_>, trail: &Trail) {
        let meta = Meta {
            qos: inbound.qos,
            retain: inbound.retain,
            is_origin: true,
            expires_at: inbound.expires_at,
            publisher: 0,
            from_bridge: true,
            claim: Claim::None,
        };
        self.0.bytes.extend_from_slice(&inbound.number.to_le_bytes());
        let properties = hops::with_trail(inbound.properties, trail);
        let parts = [inbound.topic.as_bytes(), &properties, inbound.payload];
        self.0.push_parts(parts, &meta);
    }

    /// Each message with its number.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (u64, Message<'_>)> {
        let mut reader: BatchReader<'_> = self.0.reader();
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let number = reader.u64();
            Some((number, reader.next()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back_with_its_targets() {
        let targets = [
            Target { bridge: 3, rule: 700, is_stored: true },
            Target { bridge: 63, rule: 0, is_stored: false },
        ];
        let meta = Meta {
            qos: 1,
            retain: true,
            is_origin: true,
            expires_at: Some(Instant(9)),
            publisher: 5,
            from_bridge: false,
            claim: Claim::None,
        };
        let message = Message::of(b"a/bppxyz", 3, 2, meta, None);
        let mut batch = BridgeBatch::default();
        for count in 0..=2 {
            let generation = Generation::from_number(10 + count as u64);
            batch.push(&targets[..count], generation, count == 1, &message);
        }
        let read: Vec<_> = batch.messages().collect();
        assert_eq!(read.len(), 3);
        for (count, one) in read.iter().enumerate() {
            assert_eq!(one.targets.clone().collect::<Vec<_>>(), targets[..count]);
            assert_eq!(one.generation.number(), 10 + count as u64);
            assert_eq!(one.from_bridge, count == 1);
            let got = (one.message.topic, one.message.properties, one.message.payload);
            assert_eq!(got, (&b"a/b"[..], &b"pp"[..], &b"xyz"[..]));
            assert_eq!((one.message.meta.qos, one.message.meta.retain), (1, true));
            assert_eq!(one.message.meta.expires_at, Some(Instant(9)));
        }
    }

    #[test]
    fn inbound_messages_keep_their_numbers() {
        let mut batch = InboundBatch::default();
        for number in [0, 7, u64::MAX] {
            batch.push(&InboundMessage {
                number,
                topic: "t",
                properties: b"",
                payload: &number.to_le_bytes(),
                qos: 2,
                retain: false,
                expires_at: None,
            });
        }
        let read: Vec<_> = batch.messages().map(|(n, m)| (n, m.payload.to_vec())).collect();
        let expected = [0, 7, u64::MAX].map(|n: u64| (n, n.to_le_bytes().to_vec()));
        assert_eq!(read, expected);
    }
}
