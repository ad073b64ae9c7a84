//! CONNECTs whose answer comes later: asked, parked (`Park::Answer`), answered, decoded again, under their deadline.
//!
//! ```text
//!  on_connect -> hooks.connect: Later -- parked --> handle_answer -> on_connect -> hooks.connect, from the answer on
//!                                           |
//!                                           +-- connect_timeout_ms has passed --> CONNACK 0x88
//! ```
//! A CONNECT is asked about on the shard that owns its client, as it was handed over before. It touches nothing while
//! it waits: the client's old connection goes on, and is read to its end once the answer is a yes. So of several
//! CONNECTs of one client the one that is answered last has the client in the end. Packets behind the CONNECT wait with
//! it, also when its socket has ended meanwhile: they are used if the answer is a yes.
//!
//! An answer that comes too late, or a second one, finds no question: it is counted and changes nothing.

use super::{ConnectionId, Shard};
use crate::arena::tree_size;
use crate::codec::ReasonCode;
use crate::plugin::{Answer, QuestionId, Reply, Resumed, SessionLimits};
use crate::session::Park;
use crate::time::Instant;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Questions without an answer.
    waiting: BTreeMap<QuestionId, ConnectionId>,
    /// What is kept for each connection until its CONNECT goes on.
    kept: BTreeMap<ConnectionId, Question>,
    last: u64,
}

/// What is to be remembered of a CONNECT that waits.
#[derive(Debug)]
pub(super) struct Question {
    id: QuestionId,
    state: State,
    place: u16,
    /// As hooks have set them so far.
    limits: SessionLimits,
    /// The client identifier that the shard has drawn for the client.
    drawn: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Answered(Option<ReasonCode>),
    /// No answer came in time.
    Expired,
}

impl Questions {
    /// A number for a question, whether it is asked or not; `None`: as many wait as may.
    pub(super) fn next(&mut self, questions_max: usize) -> Option<QuestionId> {
        if self.waiting.len() >= questions_max {
            return None;
        }
        self.last += 1;
        QuestionId::from_number(self.last)
    }

    fn ask(&mut self, connection: ConnectionId, question: Question) {
        self.waiting.insert(question.id, connection);
        self.kept.insert(connection, question);
    }

    /// Whose question this was, if it is one.
    fn answer(&mut self, Answer { question, reply }: Answer) -> Option<ConnectionId> {
        let connection = self.waiting.remove(&question)?;
        let kept = self.kept.get_mut(&connection).expect("a question that waits is kept");
        kept.state = match reply {
            Reply::Allow(set) => {
                kept.limits = set.or(kept.limits);
                State::Answered(None)
            }
            Reply::Deny(reason) => State::Answered(Some(reason)),
        };
        Some(connection)
    }

    fn expire(&mut self, connection: ConnectionId) {
        if let Some(question) = self.kept.get_mut(&connection) {
            self.waiting.remove(&question.id);
            question.state = State::Expired;
        }
    }

    pub(super) fn is_expired(&self, connection: ConnectionId) -> bool {
        self.kept.get(&connection).is_some_and(|question| question.state == State::Expired)
    }

    /// The CONNECT was asked about before.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.kept.contains_key(&connection)
    }

    /// The identifier that the client was given when it was asked about.
    pub(super) fn drawn(&self, connection: ConnectionId) -> Option<Box<str>> {
        self.kept.get(&connection)?.drawn.clone()
    }

    /// The CONNECT goes on with its answer; `None`: it was not asked about.
    pub(super) fn resume(&mut self, connection: ConnectionId) -> Option<(Resumed, SessionLimits)> {
        let Question { state, place, limits, .. } = self.kept.remove(&connection)?;
        let State::Answered(denied) = state else {
            unreachable!(
                "a CONNECT is parked until it is answered, and refused when its time has passed"
            )
        };
        Some((Resumed { place, denied }, limits))
    }

    /// The memory held, in bytes: an estimate.
    pub(super) fn bytes(&self) -> usize {
        tree_size(self.waiting.len(), size_of::<(QuestionId, ConnectionId)>())
            + tree_size(self.kept.len(), size_of::<(ConnectionId, Question)>())
    }

    /// The connection is gone, or closing.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if let Some(question) = self.kept.remove(&connection) {
            self.waiting.remove(&question.id);
        }
    }

    /// The shard ends: nobody who has not connected does so any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.kept.clear();
    }
}

impl Shard {
    /// The answer to a question of a hook of this shard.
    pub fn handle_answer(&mut self, now: Instant, answer: Answer) {
        match self.connections.questions.answer(answer) {
            Some(id) => self.end_question(now, id),
            None => self.counters.answers_unasked += 1,
        }
    }

    /// Lets a CONNECT wait for its answer.
    pub(super) fn wait_for_answer(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        id: QuestionId,
        limits: SessionLimits,
        drawn: Option<&str>,
    ) {
        let place = self.hooks.plugged.as_ref().map_or(0, |plugged| plugged.hooks.asked());
        let drawn = drawn.map(Box::from);
        let question = Question { id, state: State::Open, place, limits, drawn };
        self.connections.questions.ask(connection, question);
        self.counters.questions += 1;
        let parked = self.clients.live_connection(connection);
        parked.park = Some(Park::Answer);
        if parked.timer.is_none() {
            // Its socket ended while it waited to take its client over, and with that its time for CONNECT.
            self.set_connection_timer(connection, Some(self.connect_deadline(now)));
        }
        self.update_read_mode(connection);
        self.count_tables();
    }

    /// No answer came before the CONNECT's deadline.
    pub(super) fn expire_question(&mut self, now: Instant, id: ConnectionId) {
        self.connections.questions.expire(id);
        self.end_question(now, id);
    }

    fn end_question(&mut self, now: Instant, id: ConnectionId) {
        self.counted(|shard| shard.unpark(now, id, Park::Answer));
        if self.clients.connection(id).is_some_and(|connection| connection.has_ended) {
            return self.handle_close(now, id);
        }
        self.end_if_over(now, id);
    }
}
