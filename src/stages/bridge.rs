//! The bridge stage: copies messages of local origin into batches for the bridges whose rules want them.

use crate::arena::{Generation, Message};
use crate::bridge::{ForwardIndex, Wanted};
use crate::codec::QoS;
use crate::counters::Counters;
use crate::hash::KeyedHash;
use crate::routing::bridge_mail::{BridgeBatch, BridgeId, Target, ToBridges, publisher_of};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// A batch is closed at this size.
const BATCH_SIZE: usize = 256 << 10;
/// How many topics' targets are remembered, and how many bytes these may take.
const CACHE_MAX: usize = 65_536;
const CACHE_BYTES_MAX: usize = 16 << 20;

/// The rules of all bridges, and the copies for bridges that are not in their lane yet.
pub(crate) struct BridgeStage {
    rules: Option<Arc<ForwardIndex>>,
    /// The rules that want each topic.
    cache: HashMap<Box<[u8]>, Rc<[Wanted]>, ahash::RandomState>,
    cache_bytes: usize,
    /// Items for the lane, without the open batch.
    lane: VecDeque<ToBridges>,
    /// Bytes of the messages in these items.
    lane_bytes: usize,
    open: BridgeBatch,
}

impl BridgeStage {
    pub(crate) fn new(hash: &KeyedHash) -> BridgeStage {
        BridgeStage {
            rules: None,
            cache: HashMap::with_hasher(hash.state()),
            cache_bytes: 0,
            lane: VecDeque::new(),
            lane_bytes: 0,
            open: BridgeBatch::default(),
        }
    }

    /// Sets the rules: messages that they want are copied from now on.
    pub(crate) fn set_rules(&mut self, rules: Arc<ForwardIndex>) {
        self.rules = Some(rules);
    }

    /// Whether some rule may want a message.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.rules.is_some()
    }

    /// The name of a bridge in the configuration.
    pub(crate) fn name(&self, bridge: BridgeId) -> &str {
        self.rules.as_ref().map_or("", |rules| rules.name(bridge))
    }

    /// Whether no item waits for the lane.
    pub(crate) fn is_empty(&self) -> bool {
        self.lane.is_empty() && self.open.is_empty()
    }

    /// How many bytes wait for the lane.
    pub(crate) fn bytes(&self) -> usize {
        self.lane_bytes + self.open.size()
    }

    /// Whether messages that are given to clients that are bridges may come back over a bridge of ours.
    pub(crate) fn has_returns(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.has_returns())
    }

    /// Copies a message for the rules that want it.
    pub(crate) fn copy(&mut self, generation: Generation, message: &Message<'_>) {
        if !message.meta.is_origin {
            return;
        }
        let targets = self.targets(message);
        if !targets.is_empty() {
            self.push(&targets, generation, message);
        }
    }

    /// Notes that a client that is a bridge is given this message.
    pub(crate) fn note_given(&mut self, message: &Message<'_>) {
        self.push(&[], Generation::NONE, message);
    }

    fn push(&mut self, targets: &[Target], generation: Generation, message: &Message<'_>) {
        self.open.push(targets, generation, message.meta.from_bridge, message);
        if self.open.size() >= BATCH_SIZE {
            self.close_batch();
        }
    }

    /// The rules that want a message, without those of the bridge that brought it.
    pub(crate) fn targets(&mut self, message: &Message<'_>) -> SmallVec<[Target; 4]> {
        let Some(rules) = self.rules.clone() else { return SmallVec::new() };
        let from = message.meta.publisher;
        let qos = QoS::from_bits(message.meta.qos).unwrap_or_default();
        let wanted = self.wanted(&rules, message.topic);
        let others = wanted.iter().filter(|wanted| publisher_of(wanted.bridge) != from);
        let target = |wanted: &Wanted| Target {
            bridge: wanted.bridge,
            rule: wanted.rule,
            is_stored: rules.rule(*wanted).stores(qos),
        };
        others.map(target).collect()
    }

    fn wanted(&mut self, rules: &ForwardIndex, topic: &[u8]) -> Rc<[Wanted]> {
        if let Some(wanted) = self.cache.get(topic) {
            return Rc::clone(wanted);
        }
        let text = std::str::from_utf8(topic).expect("a topic was validated when it was decoded");
        let mut found = Vec::new();
        rules.find(text, &mut found);
        let wanted: Rc<[Wanted]> = found.into();
        let bytes = topic.len() + size_of_val(&*wanted) + size_of::<(Box<[u8]>, Rc<[Wanted]>)>();
        if self.cache.len() >= CACHE_MAX || self.cache_bytes + bytes > CACHE_BYTES_MAX {
            self.cache.clear();
            self.cache_bytes = 0;
        }
        self.cache_bytes += bytes;
        self.cache.insert(topic.into(), Rc::clone(&wanted));
        wanted
    }

    fn close_batch(&mut self) {
        if !self.open.is_empty() {
            let batch = std::mem::take(&mut self.open);
            self.lane_bytes += batch.size();
            self.lane.push_back(ToBridges::Messages(batch));
        }
    }

    /// Appends an item for the lane, behind all that was copied.
    pub(crate) fn push_item(&mut self, item: ToBridges) {
        self.close_batch();
        self.lane.push_back(item);
    }

    /// The next item for the lane.
    pub(crate) fn poll(&mut self, counters: &mut Counters) -> Option<ToBridges> {
        if self.lane.is_empty() {
            self.close_batch();
        }
        let mail = self.lane.pop_front()?;
        if let ToBridges::Messages(batch) = &mail {
            self.lane_bytes -= batch.size();
            counters.bridge_messages_sent += batch.message_count() as u64;
        }
        Some(mail)
    }
}
