//! Bridges to other brokers without socket and file: which messages they take, under which topics, and the MQTT client
//! that carries them.

mod check;
mod echo;
pub mod hops;
mod index;
pub mod link;
mod message;
mod rule;

pub use check::check;
pub use echo::{Echo, Origin, Return};
pub use hops::{Arrival, BrokerId, Keeping, Trail};
pub use index::{ForwardIndex, Wanted, WrongRule, connection_of};
pub use link::{Link, LinkEvent, Sent, UNLOGGED, Unwanted};
pub use message::{InMessage, OutMessage};
pub use rule::{Direction, Rule, RuleError};
