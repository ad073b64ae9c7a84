//! Mail from other shards.

use super::mail::{Batch, Content, Control, Mail};
use super::retained::Setter;
use super::{Shard, ShardId, retained};
use crate::arena::Message;
use crate::time::Instant;
use std::collections::VecDeque;

/// So many turns of mail may be left before other shards hear that publishers are to wait.
const BUSY_TURNS: u64 = 8;

/// Mail of other shards that was taken out of the lanes and is not used yet.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    /// Publishes, and how many bytes of each batch were used.
    publishes: VecDeque<(Batch, usize)>,
    /// Bytes of them that were not used.
    left: usize,
    /// How many batches of publishes were taken out of the lanes, and how many of them were used.
    taken_count: u64,
    used_count: u64,
    /// Questions that are answered with all that was sent before them: behind so many batches, once that is known.
    questions: VecDeque<(Option<u64>, ShardId, Control)>,
    /// Other shards were told that publishers are to wait.
    is_busy: bool,
}

impl Postponed {
    /// Bytes that it holds, about.
    pub fn bytes(&self) -> usize {
        let publishes = self.publishes.iter().map(|(batch, _)| batch.bytes.capacity());
        publishes.chain(self.questions.iter().map(|(.., question)| question.size())).sum()
    }

    /// Nothing of it waits.
    pub fn is_idle(&self) -> bool {
        self.publishes.is_empty() && self.questions.is_empty() && !self.is_busy
    }
}

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
                self.postponed_mail.taken_count += 1;
                self.postponed_mail.left += batch.bytes.len();
                if self.postponed_mail.publishes.is_empty() {
                    return self.admit_batch(now, batch, 0);
                }
                self.postponed_mail.publishes.push_back((batch, 0));
            }
            Content::Members(batch) => {
                self.on_member_mail(now, from, &batch);
                self.outbox.give_back(batch);
            }
        }
    }

    /// Takes the questions for which all was used that was sent before them.
    #[inline]
    pub(super) fn take_questions(&mut self) {
        if self.turns.is_pending && !self.postponed_mail.questions.is_empty() {
            self.take_due_questions();
        }
    }

    #[inline(never)]
    fn take_due_questions(&mut self) {
        let Postponed { taken_count, used_count, .. } = self.postponed_mail;
        // What was sent before a question has left the lanes by now.
        let new = self.postponed_mail.questions.iter_mut().rev();
        for (behind, ..) in new.take_while(|(behind, ..)| behind.is_none()) {
            *behind = Some(taken_count);
        }
        while let Some((Some(behind), ..)) = self.postponed_mail.questions.front()
            && *behind <= used_count
            && let Some((_, from, question)) = self.postponed_mail.questions.pop_front()
        {
            self.on_question(from, question);
        }
    }

    /// Admits what other shards sent, as much as a turn allows: the rest waits, in its order.
    pub(super) fn admit_mail(&mut self, now: Instant) {
        while self.turns.mail_steps < self.turn_part()
            && let Some((batch, offset)) = self.postponed_mail.publishes.pop_front()
        {
            self.admit_batch(now, batch, offset);
        }
    }

    /// Tells other shards that their publishers are to wait, where what they sent would take many turns, or much memory, and
    /// that they may go on. Else one client could fill the lanes in front of all others.
    pub(super) fn tell_busy(&mut self) {
        let Postponed { left, is_busy, .. } = self.postponed_mail;
        let steps_left = self.turns.mail_steps * left as u64 / self.turns.mail_bytes.max(1);
        let mark = self.limits.mail_bytes_mark;
        let turn = self.limits.turn_steps_max;
        let wants = match is_busy {
            false => left > mark || steps_left > turn.saturating_mul(BUSY_TURNS),
            true => left > mark / 2 || steps_left > turn,
        };
        if wants == is_busy {
            return;
        }
        self.postponed_mail.is_busy = wants;
        self.counters.mail_holds += u64::from(wants);
        for to in (0..self.shard_count).filter(|to| *to != self.id) {
            self.outbox.control(to, Control::Busy { is_on: wants });
        }
    }

    /// Admits the messages of a batch from `offset` on. What is left goes on in the next turn.
    fn admit_batch(&mut self, now: Instant, batch: Batch, offset: usize) {
        let goes_on_at = self.admit_messages(now, &batch, offset);
        let used = goes_on_at.unwrap_or(batch.bytes.len()) - offset;
        self.postponed_mail.left -= used;
        self.turns.mail_bytes += used as u64;
        match goes_on_at {
            Some(offset) => self.postponed_mail.publishes.push_front((batch, offset)),
            None => {
                self.postponed_mail.used_count += 1;
                self.outbox.give_back(batch);
            }
        }
    }

    /// The messages of a batch from `offset` on; `Some`: up to there the turn allowed it.
    fn admit_messages(&mut self, now: Instant, batch: &Batch, offset: usize) -> Option<usize> {
        let mut reader = batch.reader();
        reader.take(offset);
        // Of a batch that goes on, others were admitted in between.
        let mut may_repeat = false;
        while let Some(message) = reader.next() {
            let is_repeat = may_repeat
                && reader.is_repeat
                && self.arena.admit_repeat([message.bytes, &[]], message.payload.len());
            may_repeat = true;
            if is_repeat {
                self.counters.admitted += 1;
                continue;
            }
            if self.arena.admit_piece(&message).is_ok() {
                self.counters.admitted += 1;
                self.complete_last(&message, reader.setter);
                continue;
            }
            let (held, began) = (self.arena.held(), self.steps());
            may_repeat = self.admit(now, &message.draft()).is_some();
            if may_repeat {
                self.complete_last(&message, reader.setter);
            }
            self.turns.mail_steps += self.steps() - began + held;
            self.turns.is_pending = true;
            if self.turns.mail_steps >= self.turn_part() && !reader.is_empty() {
                return Some(batch.bytes.len() - reader.left());
            }
        }
        None
    }

    /// What came with the message that was admitted last.
    #[inline]
    fn complete_last(&mut self, message: &Message<'_>, setter: Option<Setter>) {
        if message.meta.from_bridge {
            self.arena.trail_last();
        }
        if let Some(setter) = setter {
            self.setters.push(self.arena.admitted(), setter);
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
            question @ (Control::RetainedQuery { .. }
            | Control::RetainedAnswer { .. }
            | Control::RoomAsk(_)
            | Control::LeaseBack(_)) => {
                self.postponed_mail.questions.push_back((None, from, question));
                self.turns.is_pending = true;
            }
            Control::Hold { is_on } => self.on_hold_of(from, is_on),
            Control::Busy { is_on } => self.outbox.wait_for(from, is_on),
            Control::RoomWord(word) => self.on_word(now, from, *word),
            Control::PromiseBack { topic } => self.retained.end_promise(&topic),
            Control::LeaseAsk => self.on_lease_ask(from),
            Control::Lease(room) => self.take_lease(from, room),
            Control::LeaseRecall => self.on_lease_recall(now, from),
            Control::Counters(report) => self.take_report(now, from, *report),
        }
    }

    /// What is worked on with all publishes used that were sent before it.
    fn on_question(&mut self, from: ShardId, question: Control) {
        match question {
            Control::RetainedQuery { session, request, filter, after, count_max } => {
                let query = retained::Query { from, session, request, filter, after, count_max };
                self.queries.push_back(query)
            }
            Control::RetainedAnswer { session, request, messages, more } => {
                self.answers.push_back(retained::Answer { session, request, messages, more })
            }
            Control::RoomAsk(ask) => self.claims.push(ask),
            Control::LeaseBack(room) => self.on_lease_back(room),
            _ => unreachable!("the others wait for nothing"),
        }
    }
}
