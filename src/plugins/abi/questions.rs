//! Numbers of questions as plugins have them, and where their answers go.
//!
//! A number is that of an instance, above that of its shard's question. So an answer finds the shard that asked from any
//! thread, and a number that was never given finds nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::refused::Refused;
use crate::plugin::{Answer, QuestionId, Reply};
use crate::plugins::Answers;

/// Where the answers of each instance go, at its number less one; `None`: there is no such instance, or it cannot answer
/// later.
static ANSWERS: Mutex<Vec<Option<Answers>>> = Mutex::new(Vec::new());

/// The answers of the instance with this number go there; `None`: nowhere any more.
pub(super) fn set(instance: usize, answers: Option<Answers>) {
    let mut all = lock();
    if all.len() < instance {
        all.resize(instance, None);
    }
    all[instance - 1] = answers;
}

pub(super) fn number_of(instance: usize, question: QuestionId) -> u64 {
    (instance as u64) << QuestionId::BITS | question.number()
}

/// Hands an answer to the shard whose question it is.
pub(super) fn answer(number: u64, reply: Reply) -> Result<(), Refused> {
    let instance = (number >> QuestionId::BITS) as usize;
    let question = QuestionId::from_number(number & ((1 << QuestionId::BITS) - 1));
    let question = question.ok_or(Refused::None)?;
    let index = instance.checked_sub(1).ok_or(Refused::None)?;
    // A copy: another thread's answer does not wait for this one.
    let answers = lock().get(index).and_then(Clone::clone).ok_or(Refused::None)?;
    answers.send(Answer { question, reply }).map_err(|_| Refused::Busy)
}

fn lock() -> MutexGuard<'static, Vec<Option<Answers>>> {
    ANSWERS.lock().unwrap_or_else(PoisonError::into_inner)
}
