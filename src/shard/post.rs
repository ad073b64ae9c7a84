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
                self.on_publishes(now, &batch);
                self.outbox.give_back(batch);
            }
            Content::Members(batch) => {
                self.on_member_mail(now, from, &batch);
                self.outbox.give_back(batch);
            }
        }
    }

    fn on_publishes(&mut self, now: Instant, batch: &Batch) {
        self.counters.mail_messages_received += batch.count as u64;
        let mut reader = batch.reader();
        while let Some(message) = reader.next() {
            let is_admitted = reader.is_repeat
                && self.arena.admit_repeat([message.bytes, &[]], message.payload.len());
            if is_admitted {
                self.counters.admitted += 1;
            } else {
                let before = self.arena.admitted();
                self.admit_piece(now, &message);
                if message.meta.from_bridge {
                    self.arena.trail_last();
                }
                if let Some(setter) = reader.setter.filter(|_| self.arena.admitted() != before) {
                    self.setters.push(self.arena.admitted(), setter);
                }
            }
        }
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
            Control::JoinRefused { filter, session, connection } => {
                self.on_join_refused(now, session, connection, &filter);
            }
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
            Control::Hold { is_on } => self.on_hold_of(from, is_on),
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
