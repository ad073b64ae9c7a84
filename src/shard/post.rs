//! Mail from other shards.

use super::mail::{Batch, Content, Control, Mail};
use super::{Shard, ShardId, retained};
use crate::time::Instant;

impl Shard {
    /// One item of a lane from another shard. Control mail of a turn is handed in before publishes, and both before
    /// the stages run: an answer then knows every message that was sent before its question.
    pub fn handle_mail(&mut self, now: Instant, from: ShardId, mail: Mail) {
        match mail.0 {
            Content::Control(items) => {
                for item in items {
                    self.counted(|shard| shard.on_control(now, from, item));
                }
            }
            Content::Publishes(batch) => {
                self.counters.mail_messages_received += batch.count as u64;
                self.waiting_mail.push_back((batch, 0));
                self.admit_mail(now);
            }
            Content::Members(batch) => {
                self.on_member_mail(now, from, &batch);
                self.outbox.give_back(batch);
            }
        }
    }

    /// Whether publishes that other shards sent are taken out of their lanes: not before those of an earlier turn were used.
    pub fn takes_publishes(&mut self) -> bool {
        self.has_drained_lanes = self.waiting_mail.is_empty();
        self.has_drained_lanes
    }

    /// Every publish that others sent before the mail of this turn has been admitted.
    pub(super) fn has_all_publishes(&self) -> bool {
        self.has_drained_lanes && self.waiting_mail.is_empty()
    }

    /// Admits what other shards sent, as much as a turn allows: the rest waits, in its order.
    pub(super) fn admit_mail(&mut self, now: Instant) {
        while self.mail_steps < self.limits.turn_steps_max
            && let Some((batch, offset)) = self.waiting_mail.pop_front()
        {
            let began = self.steps();
            let used = self.admit_batch(now, &batch, offset);
            self.mail_steps += self.steps() - began;
            match used {
                Some(offset) => self.waiting_mail.push_front((batch, offset)),
                None => self.outbox.give_back(batch),
            }
        }
    }

    /// Admits the messages of a batch from `offset` on; `Some`: from there it goes on in the next turn.
    fn admit_batch(&mut self, now: Instant, batch: &Batch, offset: usize) -> Option<usize> {
        let end = self.steps() + self.limits.turn_steps_max.saturating_sub(self.mail_steps);
        let unweighed_max = self.unweighed_max();
        let mut reader = batch.reader();
        reader.take(offset);
        // The message that it repeats is the last one that was admitted.
        let mut may_repeat = false;
        while let Some(message) = reader.next() {
            let is_admitted = may_repeat
                && reader.is_repeat
                && self.arena.admit_repeat([message.bytes, &[]], message.payload.len());
            if is_admitted {
                self.counters.admitted += 1;
            } else {
                self.admit_piece(now, &message);
            }
            may_repeat = true;
            if self.arena.held() > unweighed_max {
                self.weigh(now);
                may_repeat = self.arena.held() > 0;
                if self.steps() >= end && !reader.is_empty() {
                    return Some(batch.bytes.len() - reader.left());
                }
            }
        }
        None
    }

    fn on_control(&mut self, now: Instant, from: ShardId, item: Control) {
        match item {
            Control::Interest { filter, version, is_added } => {
                // What was admitted before is routed by what was known before.
                self.run_pipeline(now);
                self.on_interest(from, filter, version, is_added)
            }
            Control::InterestAck { filter, version } => {
                self.on_interest_ack(now, from, &filter, version)
            }
            Control::Join { filter, session, connection, options, credit } => {
                self.run_pipeline(now);
                self.on_join(now, &filter, (from, session), connection, options, credit)
            }
            Control::Joined { connection } => self.confirm_subscribe(now, connection),
            Control::Leave { filter, session, returned } => {
                let returned = self.stored_of(now, &returned);
                self.on_away(now, (from, session), &filter, returned, true)
            }
            Control::Away { filter, session, returned } => {
                let returned = self.stored_of(now, &returned);
                self.on_away(now, (from, session), &filter, returned, false)
            }
            Control::Stranded { group, returned } => self.on_stranded(now, group, &returned),
            Control::Credit { filter, session, count } => {
                self.on_credit(now, (from, session), &filter, count)
            }
            Control::RetainedQuery { session, request, filter, after, count_max } => {
                let query = retained::Query { from, session, request, filter, after, count_max };
                self.queries.push_back(query)
            }
            Control::RetainedAnswer { session, request, messages, more } => {
                self.answers.push_back(retained::Answer { session, request, messages, more })
            }
            Control::RoomAsk(ask) => self.claims.push(ask),
            Control::RoomWord(word) => self.on_word(now, from, *word),
            Control::PromiseBack { topic } => self.retained.end_promise(&topic),
            Control::LeaseAsk => self.on_lease_ask(from),
            Control::Lease(room) => self.take_lease(from, room),
            Control::LeaseRecall => self.on_lease_recall(now, from),
            Control::LeaseBack(room) => self.on_lease_back(room),
            Control::Counters(report) => self.take_report(now, from, *report),
        }
    }
}
