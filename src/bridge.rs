//! Bridges to other brokers, as far as they need no socket and no file: which messages they take, under which topics.

mod index;
mod rule;

pub use index::{ForwardIndex, Wanted, WrongRule, connection_of};
pub use rule::{Direction, Rule, RuleError};
