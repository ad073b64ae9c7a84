//! Queues that are not needed any more: their messages are freed some at a time, so that no single packet frees them
//! all.

use super::Shard;
use crate::session::DropReason;
use crate::session::queue::Queue;
use std::collections::VecDeque;

/// Their messages count as stored until they are freed.
#[derive(Debug, Default)]
pub(super) struct Discards {
    /// Queues, each with the reason that is told for its dropped messages; `None`: nothing is told.
    queues: VecDeque<(Queue, Option<DropReason>)>,
}

impl Discards {
    pub(super) fn push(&mut self, queue: Queue, why: Option<DropReason>) {
        if !queue.is_empty() {
            self.queues.push_back((queue, why));
        }
    }

    /// How many queues there are.
    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }
}

impl Shard {
    /// Frees as many messages as a turn allows.
    pub(super) fn free_discards(&mut self) {
        let mut left = self.limits.turn_steps_max;
        while left > 0
            && let Some((queue, why)) = self.memory.discards.queues.front_mut()
        {
            let Some(queued) = queue.pop() else {
                self.memory.discards.queues.pop_front();
                continue;
            };
            left -= 1;
            self.counters.add_steps(1);
            if let Some(why) = why {
                self.delivery.drops.push(None, queued.stored.message().topic, *why);
            }
        }
    }
}
