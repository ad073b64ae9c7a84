//! Messages that wait for one client: bounded in count and bytes, QoS 0 dropped first.

use super::Envelope;
use crate::arena::{Gauge, Stored};
use crate::codec::QoS;
use crate::limits::QueuePolicy;
use crate::time::Instant;
use std::collections::VecDeque;

/// A message with the envelope of its subscription.
#[derive(Clone, Debug)]
pub struct Queued {
    pub stored: Stored,
    pub envelope: Envelope,
}

/// The bounds of one queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    pub messages_max: usize,
    pub bytes_max: usize,
    pub policy: QueuePolicy,
}

/// First in, first out. Most clients keep up, and their queues hold no memory.
#[derive(Debug, Default)]
pub struct Queue {
    /// The count stands here, too, so that reading it needs no access to the box.
    message_count: usize,
    /// `None` until the first message waits.
    waiting: Option<Box<Waiting>>,
    /// Counts the entries of all queues. Messages count themselves, once for all queues that they are in.
    total: Gauge,
}

/// The messages that wait. A dropped message leaves an empty entry until that reaches the front.
#[derive(Debug)]
struct Waiting {
    /// The first entry is never empty.
    entries: VecDeque<Option<Queued>>,
    /// Entries from which QoS 0 messages can be dropped, each as the number of entries ever popped plus its index.
    qos0: VecDeque<u64>,
    popped: u64,
    /// How many messages were taken out to be sent.
    sent_count: u64,
    message_count: usize,
    bytes: usize,
    /// No message in the queue expires before this time; `None`: none expires.
    expires_from: Option<Instant>,
    total: Gauge,
}

/// The size of one entry, bytes.
pub const ENTRY_SIZE: usize = size_of::<Option<Queued>>();
/// An empty queue keeps room for so many entries.
const ENTRIES_KEPT: usize = 64;

impl Queue {
    /// `total` counts the entries of all queues of the shard.
    pub fn new(total: Gauge) -> Queue {
        Queue { message_count: 0, waiting: None, total }
    }

    pub fn len(&self) -> usize {
        self.message_count
    }

    pub fn is_empty(&self) -> bool {
        self.message_count == 0
    }

    pub fn bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Bytes of the messages and their entries.
    pub fn stored_bytes(&self) -> usize {
        self.bytes() + self.len() * ENTRY_SIZE
    }

    /// How many messages were taken out to be sent.
    pub fn sent_count(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.sent_count)
    }

    /// Puts the message at the end if there is room for it; `Err` hands it back.
    #[inline]
    pub fn push_if_room(&mut self, queued: Queued, limits: QueueLimits) -> Result<(), Queued> {
        self.change(|waiting| match waiting.is_full(queued.stored.size(), limits) {
            true => Err(queued),
            false => {
                waiting.push_back(queued);
                Ok(())
            }
        })
    }

    /// Puts the message at the end; `Err` hands it back when it must be dropped. `dropped` is called with each waiting
    /// message that made room for it.
    pub fn push(
        &mut self,
        queued: Queued,
        limits: QueueLimits,
        dropped: impl FnMut(Queued),
    ) -> Result<(), Queued> {
        self.change(|waiting| waiting.push(queued, limits, dropped))
    }

    /// Takes out expired messages if there is no room for `size` bytes: a message that is still wanted is dropped only
    /// after these.
    pub fn expire_if_full(
        &mut self,
        now: Instant,
        size: usize,
        limits: QueueLimits,
        expired: impl FnMut(Queued),
    ) {
        if !self.is_empty() {
            self.change(|waiting| waiting.expire_if_full(now, size, limits, expired));
        }
    }

    /// Puts a message in front of all others, whatever the limits: it was counted before.
    pub fn push_front(&mut self, queued: Queued) {
        self.change(|waiting| waiting.push_front(queued));
    }

    /// Drops messages above the limits after messages were put in front: QoS 0 first, then by policy.
    pub fn shed(&mut self, limits: QueueLimits, dropped: impl FnMut(Queued)) {
        if !self.is_empty() {
            self.change(|waiting| waiting.shed(limits, dropped));
        }
    }

    #[inline]
    pub fn front(&self) -> Option<&Queued> {
        if self.is_empty() { None } else { self.waiting.as_ref()?.front() }
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Queued> {
        if self.is_empty() { None } else { self.change(Waiting::take) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter().flat_map(|waiting| waiting.entries.iter().flatten())
    }

    /// Takes out every message for which `is_wanted`, in order.
    pub fn extract(&mut self, is_wanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        if self.is_empty() { Vec::new() } else { self.change(|waiting| waiting.extract(is_wanted)) }
    }

    #[inline(always)]
    fn change<T>(&mut self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let total = &self.total;
        let waiting = self.waiting.get_or_insert_with(|| Box::new(Waiting::new(total.clone())));
        let result = change(waiting);
        self.message_count = waiting.message_count;
        result
    }
}

impl Waiting {
    fn new(total: Gauge) -> Waiting {
        Waiting {
            entries: VecDeque::new(),
            qos0: VecDeque::new(),
            popped: 0,
            sent_count: 0,
            message_count: 0,
            bytes: 0,
            expires_from: None,
            total,
        }
    }

    fn push(
        &mut self,
        queued: Queued,
        limits: QueueLimits,
        mut dropped: impl FnMut(Queued),
    ) -> Result<(), Queued> {
        let size = queued.stored.size();
        if size > limits.bytes_max || limits.messages_max == 0 {
            return Err(queued);
        }
        while self.is_full(size, limits) {
            match self.make_room(queued.envelope.qos, limits.policy) {
                Some(victim) => dropped(victim),
                None => return Err(queued),
            }
        }
        self.push_back(queued);
        Ok(())
    }

    #[inline]
    fn push_back(&mut self, queued: Queued) {
        self.compact();
        if queued.envelope.qos == QoS::AtMostOnce {
            self.qos0.push_back(self.popped + self.entries.len() as u64);
        }
        self.remember(&queued);
        self.entries.push_back(Some(queued));
    }

    fn expire_if_full(
        &mut self,
        now: Instant,
        size: usize,
        limits: QueueLimits,
        mut expired: impl FnMut(Queued),
    ) {
        let is_any_due = self.expires_from.is_some_and(|at| at <= now);
        if !is_any_due || !self.is_full(size, limits) {
            return;
        }
        self.expires_from = None;
        let mut entries = std::mem::take(&mut self.entries);
        for entry in &mut entries {
            let expires_at = entry.as_ref().and_then(|queued| queued.stored.meta().expires_at);
            match expires_at {
                Some(at) if at <= now => {
                    if let Some(queued) = entry.take() {
                        self.forget(&queued);
                        expired(queued);
                    }
                }
                Some(at) => {
                    self.expires_from = Some(self.expires_from.map_or(at, |first| first.min(at)))
                }
                None => {}
            }
        }
        self.entries = entries;
        self.close_up();
    }

    fn is_full(&self, size: usize, limits: QueueLimits) -> bool {
        self.message_count >= limits.messages_max || self.bytes + size > limits.bytes_max
    }

    fn push_front(&mut self, queued: Queued) {
        self.remember(&queued);
        if self.popped == 0 {
            // Positions count from the first entry ever popped. The test begins far from zero.
            let shift = 1 << 32;
            self.popped = shift;
            self.qos0.iter_mut().for_each(|position| *position += shift);
        }
        self.popped -= 1;
        if queued.envelope.qos == QoS::AtMostOnce {
            self.qos0.push_front(self.popped);
        }
        self.entries.push_front(Some(queued));
    }

    fn shed(&mut self, limits: QueueLimits, mut dropped: impl FnMut(Queued)) {
        while self.message_count > limits.messages_max || self.bytes > limits.bytes_max {
            let victim = self.make_room(QoS::ExactlyOnce, limits.policy);
            match victim.or_else(|| self.pop_back()) {
                Some(victim) => dropped(victim),
                None => return,
            }
        }
    }

    fn pop_back(&mut self) -> Option<Queued> {
        while let Some(entry) = self.entries.pop_back() {
            if self.qos0.back() == Some(&(self.popped + self.entries.len() as u64)) {
                self.qos0.pop_back();
            }
            if let Some(queued) = entry {
                self.forget(&queued);
                return Some(queued);
            }
        }
        None
    }

    fn front(&self) -> Option<&Queued> {
        self.entries.front().and_then(|entry| entry.as_ref())
    }

    fn take(&mut self) -> Option<Queued> {
        self.sent_count += 1;
        self.pop()
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.entries.pop_front()??;
        if self.qos0.front() == Some(&self.popped) {
            self.qos0.pop_front();
        }
        self.popped += 1;
        self.forget(&queued);
        self.skip_empty();
        if self.message_count == 0 && self.entries.capacity() > ENTRIES_KEPT {
            self.entries = VecDeque::new();
            self.qos0 = VecDeque::new();
        }
        Some(queued)
    }

    fn extract(&mut self, mut is_wanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let mut extracted = Vec::new();
        let mut kept = Waiting::new(self.total.clone());
        kept.sent_count = self.sent_count;
        while let Some(queued) = self.pop() {
            if is_wanted(&queued) {
                extracted.push(queued);
            } else {
                kept.push_unbounded(queued);
            }
        }
        *self = kept;
        extracted
    }

    fn push_unbounded(&mut self, queued: Queued) {
        let limits = QueueLimits {
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            policy: QueuePolicy::DropNewest,
        };
        let pushed = self.push(queued, limits, |_| ());
        assert!(pushed.is_ok(), "an unbounded queue takes every message");
    }

    /// Drops one waiting message in favour of an arriving one of `qos`, where the policy allows it.
    fn make_room(&mut self, qos: QoS, policy: QueuePolicy) -> Option<Queued> {
        let arrives_at_qos0 = qos == QoS::AtMostOnce;
        if !self.qos0.is_empty() && (!arrives_at_qos0 || policy == QueuePolicy::DropOldest) {
            let position = match policy {
                QueuePolicy::DropOldest => self.qos0.pop_front()?,
                QueuePolicy::DropNewest => self.qos0.pop_back()?,
            };
            let queued = self.entries[(position - self.popped) as usize].take()?;
            self.forget(&queued);
            self.skip_empty();
            return Some(queued);
        }
        match policy {
            QueuePolicy::DropOldest if !arrives_at_qos0 => self.pop(),
            _ => None,
        }
    }

    fn remember(&mut self, queued: &Queued) {
        self.message_count += 1;
        self.bytes += queued.stored.size();
        self.total.add(ENTRY_SIZE);
        if let Some(at) = queued.stored.meta().expires_at {
            self.expires_from = Some(self.expires_from.map_or(at, |first| first.min(at)));
        }
    }

    fn forget(&mut self, queued: &Queued) {
        self.total.subtract(ENTRY_SIZE);
        self.message_count -= 1;
        self.bytes -= queued.stored.size();
    }

    #[inline]
    fn skip_empty(&mut self) {
        if self.entries.len() > self.message_count {
            self.skip_empty_entries();
        }
    }

    #[inline(never)]
    fn skip_empty_entries(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.popped += 1;
        }
    }

    /// Keeps the empty entries from outnumbering the messages for long.
    fn compact(&mut self) {
        if self.entries.len() < 32 || self.entries.len() < 2 * self.message_count {
            return;
        }
        self.close_up();
    }

    /// Removes the empty entries.
    fn close_up(&mut self) {
        self.entries.retain(|entry| entry.is_some());
        self.qos0.clear();
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.as_ref().is_some_and(|queued| queued.envelope.qos == QoS::AtMostOnce) {
                self.qos0.push_back(self.popped + index as u64);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.total.subtract(self.message_count * ENTRY_SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Claim, Draft, Meta};
    use crate::random::Random;

    fn queued(qos: u8, number: u32) -> Queued {
        let meta = Meta {
            qos,
            retain: false,
            is_origin: true,
            expires_at: None,
            publisher: 0,
            from_bridge: false,
            claim: Claim::None,
        };
        let payload = number.to_be_bytes();
        let draft = Draft { topic: b"t", properties: [&[], &[]], payload: &payload, meta };
        let envelope =
            Envelope { qos: QoS::from_bits(qos).unwrap(), retain: false, ids: None, membership: 0 };
        Queued { stored: Stored::from_draft(&draft, &Gauge::default()), envelope }
    }

    fn number(queued: &Queued) -> (u8, Vec<u8>) {
        (queued.envelope.qos as u8, queued.stored.message().payload.to_vec())
    }

    fn push_unbounded(queue: &mut Queue, queued: Queued) {
        queue.change(|waiting| waiting.push_unbounded(queued));
    }

    /// The expected behaviour of the queue, on a plain list.
    fn model_push(
        model: &mut Vec<(u8, Vec<u8>)>,
        new: (u8, Vec<u8>),
        max: usize,
        policy: QueuePolicy,
    ) -> bool {
        if model.len() < max {
            model.push(new);
            return true;
        }
        let mut qos0 = model.iter().enumerate().filter(|(_, m)| m.0 == 0).map(|(i, _)| i);
        let victim = match policy {
            QueuePolicy::DropOldest => qos0.next(),
            QueuePolicy::DropNewest => qos0.next_back(),
        };
        match (victim, policy, new.0) {
            (Some(index), QueuePolicy::DropOldest, _) => drop(model.remove(index)),
            (Some(index), _, 1..) => drop(model.remove(index)),
            (None, QueuePolicy::DropOldest, 1..) => drop(model.remove(0)),
            _ => return false,
        }
        model.push(new);
        true
    }

    #[test]
    fn the_queue_does_what_a_list_would_do() {
        for policy in [QueuePolicy::DropNewest, QueuePolicy::DropOldest] {
            let mut random = Random::new(5);
            let mut dropped_count = 0;
            for _ in 0..50 {
                let max = 1 + random.below(60) as usize;
                let limits = QueueLimits { messages_max: max, bytes_max: usize::MAX, policy };
                let total = Gauge::default();
                let mut queue = Queue::new(total.clone());
                let mut model = Vec::new();
                for step in 0..600 {
                    let choice = random.below(10);
                    if choice < 6 {
                        let new = queued(random.below(3) as u8, step);
                        let expected = model_push(&mut model, number(&new), max, policy);
                        let is_pushed = queue.push(new, limits, |_| dropped_count += 1).is_ok();
                        assert_eq!(is_pushed, expected);
                    } else if choice < 7 && model.len() < max {
                        let new = queued(random.below(3) as u8, step);
                        model.insert(0, number(&new));
                        queue.push_front(new);
                    } else {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        assert_eq!(queue.pop().as_ref().map(number), expected);
                    }
                    assert_eq!(queue.len(), model.len());
                    assert_eq!(queue.front().map(number), model.first().cloned());
                    let entries = queue.waiting.as_ref().map_or(0, |waiting| waiting.entries.len());
                    assert!(entries <= 2 * max + 32);
                    assert_eq!(total.bytes(), queue.len() * ENTRY_SIZE);
                }
                drop(queue);
                assert_eq!(total.bytes(), 0);
            }
            assert!(dropped_count > 100);
        }
    }

    #[test]
    fn what_has_expired_makes_room_before_anything_is_dropped() {
        let limits =
            QueueLimits { messages_max: 4, bytes_max: usize::MAX, policy: QueuePolicy::DropOldest };
        let expiring = |number, at| {
            let mut new = queued((number % 2) as u8, number);
            let message = new.stored.message();
            let meta = Meta { expires_at: Some(Instant(at)), ..message.meta };
            let draft =
                Draft { topic: b"t", properties: [&[], &[]], payload: message.payload, meta };
            new.stored = Stored::from_draft(&draft, &Gauge::default());
            new
        };
        let mut queue = Queue::default();
        let all = [queued(1, 0), expiring(1, 50), expiring(2, 20), expiring(3, 10)];
        for new in all {
            assert!(queue.push(new, limits, |_| panic!("there is room")).is_ok());
        }
        let mut expired = Vec::new();
        queue.expire_if_full(Instant(9), 1, limits, |queued| expired.push(number(&queued).1[3]));
        assert!(expired.is_empty(), "nothing is due");
        queue.expire_if_full(Instant(30), 1, limits, |queued| expired.push(number(&queued).1[3]));
        assert_eq!(expired, [2, 3]);
        assert_eq!(
            (queue.len(), queue.change(|waiting| waiting.expires_from)),
            (2, Some(Instant(50)))
        );
        queue.expire_if_full(Instant(60), 1, limits, |_| panic!("there is room again"));
        let rest: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|q| number(&q).1[3]).collect();
        assert_eq!((rest, queue.bytes()), (vec![0, 1], 0));
    }

    #[test]
    fn an_emptied_queue_keeps_little_memory() {
        let mut queue = Queue::default();
        (0..10_000).for_each(|step| push_unbounded(&mut queue, queued((step % 2) as u8, step)));
        while queue.pop().is_some() {}
        let waiting = queue.waiting.as_ref().expect("messages waited");
        assert!(
            waiting.entries.capacity() <= ENTRIES_KEPT && waiting.qos0.capacity() <= ENTRIES_KEPT
        );
    }

    #[test]
    fn what_came_back_makes_room_by_qos_and_policy() {
        for (policy, left) in
            [(QueuePolicy::DropNewest, [7, 6, 0]), (QueuePolicy::DropOldest, [2, 3, 4])]
        {
            let mut queue = Queue::default();
            for step in 0..6 {
                push_unbounded(&mut queue, queued(u8::from(step % 4 != 1), step));
            }
            // One entry among them is empty.
            queue.change(|waiting| waiting.make_room(QoS::ExactlyOnce, policy)).unwrap();
            queue.push_front(queued(1, 6));
            queue.push_front(queued(1, 7));
            let limits = QueueLimits { messages_max: 3, bytes_max: usize::MAX, policy };
            let mut qos_dropped = Vec::new();
            queue.shed(limits, |victim| qos_dropped.push(victim.envelope.qos as u8));
            assert_eq!(qos_dropped, [0, 1, 1, 1]);
            let rest: Vec<u8> =
                std::iter::from_fn(|| queue.pop()).map(|q| number(&q).1[3]).collect();
            assert_eq!(rest, left, "{policy:?}");
        }
    }

    #[test]
    fn extracting_keeps_both_orders() {
        let mut queue = Queue::default();
        for step in 0..10 {
            push_unbounded(&mut queue, queued((step % 2) as u8, step));
        }
        let extracted = queue.extract(|queued| queued.envelope.qos == QoS::AtMostOnce);
        assert_eq!(extracted.iter().map(|q| number(q).1[3]).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        let rest: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|q| number(&q).1[3]).collect();
        assert_eq!(rest, [1, 3, 5, 7, 9]);
        assert_eq!(queue.bytes(), 0);
    }
}
