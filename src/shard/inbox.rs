//! Mail from other shards.
//!
//! Mail leaves its lanes in any case, and waits here by sender, in order, when its sender has used its part of the
//! turn. Questions that other shards ask behind publishes wait until those publishes are used. A sender whose mail
//! would take many turns, or is above the mail mark, is told so (`Control::Busy`) and does not read its publishers: one
//! client's messages never stand in front of the messages of all others.

use super::incoming::Incoming;
use super::{Shard, ShardId, retained};
use crate::peers::ShardSet;
use crate::routing::mail::{Batch, Content, Control, Mail};
use crate::routing::retained::Setter;
use crate::time::Instant;
use std::collections::VecDeque;

/// So many turns of mail may be left before other shards hear that publishers are to wait.
const BUSY_TURNS: u64 = 8;

/// What one other shard sent and is not used yet.
#[derive(Debug, Default)]
struct Sender {
    /// Publishes, how many bytes of each batch were used, and the number of each among the batches of all.
    batches: VecDeque<(Batch, usize, u64)>,
    /// Bytes of them that were not used.
    left: usize,
    /// What its messages have cost in this turn, and their bytes, as far as that was counted.
    steps: u64,
    bytes: u64,
}

/// Mail of other shards that was taken out of the lanes and is not used yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    senders: Vec<Sender>,
    /// The senders with batches that wait, that have cost something in this turn, and that were told to wait.
    waiting: ShardSet,
    counted: ShardSet,
    busy: ShardSet,
    /// Batches of publishes that were taken out of the lanes.
    taken_count: u64,
    /// Questions that are answered with all that was sent before them: behind so many batches, once that is known.
    questions: VecDeque<(Option<u64>, ShardId, Control)>,
}

impl Inbox {
    pub(super) fn new(shard_count: u16) -> Inbox {
        let senders = (0..shard_count).map(|_| Sender::default()).collect();
        Inbox { senders, ..Inbox::default() }
    }

    fn sender(&mut self, shard: ShardId) -> &mut Sender {
        &mut self.senders[usize::from(shard)]
    }

    /// The memory in use, in bytes: an estimate.
    pub(super) fn bytes(&self) -> usize {
        let batches = self.senders.iter().flat_map(|sender| &sender.batches);
        let publishes = batches.map(|(batch, ..)| batch.bytes.capacity());
        publishes.chain(self.questions.iter().map(|(.., question)| question.size())).sum()
    }

    /// Nothing of it waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.busy.is_empty() && self.questions.is_empty()
    }

    /// The first batch that waits.
    fn oldest(&self) -> u64 {
        let waiting = self.waiting.into_iter().map(|shard| &self.senders[usize::from(shard)]);
        waiting.filter_map(|sender| Some(sender.batches.front()?.2)).min().unwrap_or(u64::MAX)
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
                let part = self.turn_part();
                self.flow.inbox.taken_count += 1;
                let number = self.flow.inbox.taken_count;
                let sender = self.flow.inbox.sender(from);
                sender.left += batch.bytes.len();
                if sender.batches.is_empty() && sender.steps < part {
                    return self.admit_batch(now, from, (batch, 0, number));
                }
                sender.batches.push_back((batch, 0, number));
                self.flow.inbox.waiting.insert(from);
                self.work.turns.is_pending = true;
            }
            Content::Members(batch) => {
                self.on_member_mail(now, from, &batch);
                self.flow.outbox.give_back(batch);
            }
        }
    }

    /// Takes the questions for which all was used that was sent before them.
    #[inline]
    pub(super) fn take_questions(&mut self) {
        if self.work.turns.is_pending && !self.flow.inbox.questions.is_empty() {
            self.take_due_questions();
        }
    }

    #[inline(never)]
    fn take_due_questions(&mut self) {
        // What was sent before a question has left the lanes by now.
        let taken_count = self.flow.inbox.taken_count;
        let new = self.flow.inbox.questions.iter_mut().rev();
        for (behind, ..) in new.take_while(|(behind, ..)| behind.is_none()) {
            *behind = Some(taken_count);
        }
        let oldest = self.flow.inbox.oldest();
        while let Some((Some(behind), ..)) = self.flow.inbox.questions.front()
            && *behind < oldest
            && let Some((_, from, question)) = self.flow.inbox.questions.pop_front()
        {
            self.on_question(from, question);
        }
    }

    /// Admits what other shards sent, of each as much as a turn allows: the rest waits, in its order.
    pub(super) fn admit_mail(&mut self, now: Instant) {
        let part = self.turn_part();
        for from in self.flow.inbox.waiting {
            while let sender = self.flow.inbox.sender(from)
                && sender.steps < part
                && let Some(batch) = sender.batches.pop_front()
            {
                self.admit_batch(now, from, batch);
            }
            if self.flow.inbox.sender(from).batches.is_empty() {
                self.flow.inbox.waiting.remove(from);
            }
        }
    }

    /// Tells shards that their publishers are to wait, where what they sent would take many turns, or much memory, and that
    /// they may go on. Else one client could fill the lanes in front of all others.
    pub(super) fn tell_busy(&mut self) {
        let (mark, turn) = (self.flow.outbox.mark(), self.limits.turn_steps_max);
        for to in self.flow.inbox.waiting | self.flow.inbox.busy {
            let is_busy = self.flow.inbox.busy.contains(to);
            let Sender { left, steps, bytes, .. } = *self.flow.inbox.sender(to);
            let steps_left = steps.saturating_mul(left as u64) / bytes.max(1);
            let wants = match is_busy {
                false => left > mark || steps_left > turn.saturating_mul(BUSY_TURNS),
                true => left > mark / 2 || steps_left > turn,
            };
            if wants != is_busy {
                self.flow.inbox.busy.set(to, wants);
                self.counters.mail_holds += u64::from(wants);
                self.flow.outbox.control(to, Control::Busy { is_on: wants });
            }
        }
    }

    /// The next turn's account begins.
    pub(super) fn end_mail_account(&mut self) {
        for shard in std::mem::take(&mut self.flow.inbox.counted) {
            let sender = self.flow.inbox.sender(shard);
            (sender.steps, sender.bytes) = (0, 0);
        }
    }

    /// Admits the messages of a batch. What is left goes on in the next turn.
    fn admit_batch(
        &mut self,
        now: Instant,
        from: ShardId,
        (batch, offset, number): (Batch, usize, u64),
    ) {
        let goes_on_at = self.admit_messages(now, from, &batch, offset);
        if goes_on_at.is_none() && self.flow.arena.used() >= self.work.turns.held_bytes_max {
            let (held, began) = (self.flow.arena.held(), self.steps());
            self.run_pipeline(now);
            self.charge_mail(from, self.steps() - began + held);
        }
        let used = goes_on_at.unwrap_or(batch.bytes.len()) - offset;
        let sender = self.flow.inbox.sender(from);
        sender.left -= used;
        if sender.steps > 0 {
            sender.bytes += used as u64;
        }
        match goes_on_at {
            Some(offset) => {
                sender.batches.push_front((batch, offset, number));
                self.flow.inbox.waiting.insert(from);
            }
            None => self.flow.outbox.give_back(batch),
        }
    }

    /// Holds steps against a shard; whether it has used its turn.
    fn charge_mail(&mut self, from: ShardId, steps: u64) -> bool {
        let part = self.turn_part();
        self.work.turns.is_pending = true;
        self.flow.inbox.counted.insert(from);
        let sender = self.flow.inbox.sender(from);
        sender.steps += steps;
        sender.steps >= part
    }

    /// The messages of a batch from `offset` on; `Some`: up to there the turn allowed it.
    fn admit_messages(
        &mut self,
        now: Instant,
        from: ShardId,
        batch: &Batch,
        offset: usize,
    ) -> Option<usize> {
        let mut reader = batch.reader();
        reader.take(offset);
        // Of a batch that goes on, others were admitted in between.
        let mut may_repeat = false;
        while let Some(message) = reader.next() {
            let (pieces, payload_size) = (&[message.bytes, &[]], message.payload.len());
            let is_repeat = may_repeat
                && reader.is_repeat
                && self.flow.admit(Incoming::Repeat { pieces, payload_size }).is_some();
            may_repeat = true;
            if is_repeat {
                continue;
            }
            if self.flow.admit(Incoming::Piece(&message)).is_some() {
                self.keep_setter(reader.setter);
                continue;
            }
            let (held, began) = (self.flow.arena.held(), self.steps());
            may_repeat = self.admit(now, &message.draft()).is_some();
            if may_repeat {
                self.keep_setter(reader.setter);
            }
            // What was held before has gone to the stages.
            let has_run = self.flow.arena.held() <= held;
            let is_used = has_run && self.charge_mail(from, self.steps() - began + held);
            if is_used && !reader.is_empty() {
                return Some(batch.bytes.len() - reader.left());
            }
        }
        None
    }

    /// The setter that came with the message that was admitted last.
    #[inline]
    fn keep_setter(&mut self, setter: Option<Setter>) {
        if let Some(setter) = setter {
            self.retained.setters.push(self.flow.arena.admitted(), setter);
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
                self.flow.inbox.questions.push_back((None, from, question));
                self.work.turns.is_pending = true;
            }
            Control::Block { is_on } => self.on_block_of(from, is_on),
            Control::Busy { is_on } => self.flow.outbox.wait_for(from, is_on),
            Control::RoomWord(word) => self.on_word(now, from, *word),
            Control::PromiseBack { topic } => self.retained.kept.end_promise(&topic),
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
                self.retained.queries.push_back(query)
            }
            Control::RetainedAnswer { session, request, messages, more } => self
                .retained
                .answers
                .push_back(retained::Answer { session, request, messages, more }),
            Control::RoomAsk(ask) => self.retained.claims.push(ask),
            Control::LeaseBack(room) => self.on_lease_back(room),
            _ => unreachable!("the others wait for nothing"),
        }
    }
}
