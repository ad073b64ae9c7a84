//! Questions that hooks answer later, and the answers.

use crate::codec::ReasonCode;
use crate::session::SessionLimits;

/// The number of a question: from 1, and not given twice by a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId(u64);

impl QuestionId {
    /// Numbers have so many bits, so that a plugin host can put a number of its own above them.
    pub const BITS: u32 = 48;

    /// `None`: it is not the number of a question.
    pub fn from_number(number: u64) -> Option<QuestionId> {
        (number > 0 && number >> QuestionId::BITS == 0).then_some(QuestionId(number))
    }

    pub fn number(self) -> u64 {
        self.0
    }
}

/// What a client that waits is to be told, and be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Bounds that are set win over those that hooks set before.
    Allow(SessionLimits),
    /// As `Verdict::Deny`.
    Deny(ReasonCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub question: QuestionId,
    pub reply: Reply,
}

/// A CONNECT whose question was answered: the hooks are asked from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What `Hooks::asked` said; the hooks up to this place have spoken.
    pub place: u16,
    /// The answer is a refusal, and this is its reason.
    pub denied: Option<ReasonCode>,
}
