//! Holders in the order of their holdings, to an eighth, because the largest holder loses first.

use super::queue::QueueLimits;
use super::{Context, DropReason, Session};
use crate::arena::{Stored, tree_size};
use crate::codec::PacketId;
use std::collections::BTreeSet;

/// The class of an amount, in steps of an eighth: a holder changes its rank only when it holds noticeably more or less.
pub(super) fn class_of(amount: usize) -> u32 {
    if amount < 8 {
        return amount as u32;
    }
    let log = amount.ilog2();
    log * 8 + (amount >> (log - 3) & 7) as u32
}

#[derive(Debug)]
pub struct Holders<K> {
    by_class: BTreeSet<(u32, K)>,
    bytes: usize,
}

impl<K> Default for Holders<K> {
    fn default() -> Holders<K> {
        Holders { by_class: BTreeSet::new(), bytes: 0 }
    }
}

impl<K: Copy + Ord> Holders<K> {
    /// What all holders hold together; a message that waits for several of them counts once for each.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that a holder has `now` bytes instead of `before`. A holder with 0 bytes is not listed.
    pub fn set(&mut self, key: K, before: usize, now: usize) {
        self.bytes = self.bytes - before + now;
        let (old, new) = (class_of(before), class_of(now));
        if before > 0 && (now == 0 || old != new) {
            self.by_class.remove(&(old, key));
        }
        if now > 0 && (before == 0 || old != new) {
            self.by_class.insert((new, key));
        }
    }

    /// Bytes that the order takes.
    pub fn tree_bytes(&self) -> usize {
        tree_size(self.by_class.len(), size_of::<(u32, K)>())
    }

    /// The holder that has most, to an eighth.
    pub fn largest(&self) -> Option<K> {
        self.by_class.last().map(|(_, key)| *key)
    }
}

impl Session {
    /// Bytes stored for the session; a message that waits for other sessions, too, counts fully.
    pub fn stored_bytes(&self) -> usize {
        self.queue.stored_bytes() + self.inflight.stored_bytes()
    }

    /// How many messages were taken from the session's queue, and the packet id of the first message that is not
    /// acknowledged. A session whose client reads makes progress in one of these.
    pub fn progress(&self) -> (u64, Option<PacketId>) {
        (self.queue.sent_count(), self.inflight.front_id())
    }

    /// Drops an eighth of what waits, by policy, or all that is unacknowledged where nothing waits; returns how many
    /// messages.
    pub fn shed(&mut self, context: &mut Context<'_>) -> u64 {
        let (client_id, drops) = (&*self.client_id, &mut *context.drops);
        let mut victims: Vec<u32> = Vec::new();
        let mut count = 0;
        let mut drop_one = |stored: &Stored| {
            count += 1;
            drops.push(Some(client_id), stored.message().topic, DropReason::StoreFull);
        };
        if self.queue.is_empty() {
            self.inflight.take_stored(|_| true, |_, stored| drop_one(&stored));
        } else {
            let bytes = self.queue.bytes();
            let limits = QueueLimits {
                messages_max: usize::MAX,
                bytes_max: bytes - bytes.div_ceil(8),
                policy: context.limits.queue_policy,
            };
            self.queue.shed(limits, |victim| {
                drop_one(&victim.stored);
                victims.push(victim.envelope.membership);
            });
        }
        victims.into_iter().for_each(|membership| self.use_place(membership));
        context.counters.dropped_stored_full += count;
        self.dropped += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::session::SessionKey;

    #[test]
    fn the_largest_is_found_to_an_eighth() {
        let mut random = Random::new(3);
        let mut holders = Holders::default();
        let mut model = [0usize; 20];
        for _ in 0..10_000 {
            let index = random.below(20) as usize;
            let key = SessionKey { index: index as u32, generation: 1 };
            let magnitude = random.below(30);
            let bytes = match random.below(4) {
                0 => 0,
                _ => random.below(1 << magnitude) as usize,
            };
            holders.set(key, model[index], bytes);
            model[index] = bytes;
            assert_eq!(holders.bytes(), model.iter().sum::<usize>());
            let most = *model.iter().max().unwrap();
            match holders.largest() {
                Some(key) => assert!(model[key.index as usize] * 9 / 8 >= most),
                None => assert_eq!(most, 0),
            }
            let listed_count = model.iter().filter(|bytes| **bytes > 0).count();
            assert_eq!(holders.by_class.len(), listed_count);
        }
    }
}
