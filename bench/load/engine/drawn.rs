//! The messages of a publisher whose messages differ. Each topic is a stream of its own, with sequences of its own, so
//! that losses and changes of order are known topic by topic.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use super::control::Shared;
use crate::message::{Layout, Stamp, packet_id};
use crate::mix::{self, Mix};

/// The streams of one publisher are publishers of the plan, one behind the other.
#[derive(Debug)]
pub(super) struct Drawn {
    random: fastrand::Rng,
    /// The first stream of the publisher.
    first: usize,
    /// The sequence of the next message of each stream.
    next: Vec<u64>,
    /// Streams of messages that the broker has not acknowledged, oldest first (QoS 1 and 2).
    unacked: VecDeque<u32>,
    /// Streams and sequences of messages that have not reached all their subscribers, as far as is known; oldest first.
    under_way: VecDeque<(u32, u64)>,
    /// Where the next search begins for a message that has arrived before the oldest one.
    probe: usize,
    bytes: Vec<u8>,
}

impl Drawn {
    pub(super) fn new(first: usize, mix: &Mix) -> Drawn {
        Drawn {
            // The seed is the same in every run.
            random: fastrand::Rng::with_seed(first as u64),
            first,
            next: vec![0; mix.topic_count()],
            unacked: VecDeque::new(),
            under_way: VecDeque::new(),
            probe: 0,
            bytes: Vec::new(),
        }
    }

    /// How many messages have not reached all subscribers. A message that a later one has overtaken is no longer under
    /// way, as if all had one topic: else a lost message of a rare topic would stop the publisher.
    pub(super) fn under_way(&mut self, shared: &Shared) -> u64 {
        let first = self.first;
        let has_come = |(stream, sequence): &(u32, u64)| {
            shared.delivered_to_all(first + *stream as usize) > *sequence
        };
        while self.under_way.front().is_some_and(has_come) {
            self.under_way.pop_front();
        }
        // One entry is looked at a time: where nothing is lost nothing is found.
        self.probe = if self.probe + 1 < self.under_way.len() { self.probe + 1 } else { 0 };
        if self.under_way.get(self.probe).is_some_and(has_come) {
            self.under_way.drain(..=self.probe);
        }
        self.under_way.len() as u64
    }

    /// Fills in the next `count` messages, the first of which has the number `number` among all of this publisher.
    pub(super) fn fill(
        &mut self,
        (mix, layout): (&Mix, &Layout),
        shared: &Shared,
        (number, count): (u64, u64),
        (due_ns, step_ns): (u64, u64),
    ) -> &[u8] {
        self.bytes.clear();
        for index in 0..count {
            let stream = mix.topic(&mut self.random);
            let payload_size = mix.payload_size(&mut self.random);
            let publisher = self.first + stream;
            let due_ns = due_ns + index * step_ns;
            let stamp = Stamp { publisher: publisher as u32, sequence: self.next[stream], due_ns };
            let id = (layout.qos > 0).then(|| packet_id(number + index));
            let topic = &shared.plan.publishers[publisher].topic;
            mix::encode(
                &mut self.bytes,
                layout,
                (&**topic, false),
                id,
                Some((payload_size, stamp)),
            );
            self.under_way.push_back((stream as u32, stamp.sequence));
            self.next[stream] += 1;
            shared.sent[publisher].store(self.next[stream], Relaxed);
            if layout.qos == 0 {
                shared.acked[publisher].store(self.next[stream], Relaxed);
            } else {
                self.unacked.push_back(stream as u32);
            }
        }
        &self.bytes
    }

    /// Notes that the broker has acknowledged `count` more messages.
    pub(super) fn acknowledge(&mut self, count: u64, shared: &Shared) {
        let count = (count as usize).min(self.unacked.len());
        for stream in self.unacked.drain(..count) {
            shared.acked[self.first + stream as usize].fetch_add(1, Relaxed);
        }
    }
}
