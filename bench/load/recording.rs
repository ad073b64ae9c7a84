//! Recordings: a user's own traffic, written down by a subscriber, and played again as a scenario.

mod file;
mod format;
mod load;
mod messages;
mod player;
mod publisher;
mod reader;
pub(crate) mod record;
pub(crate) mod replay;
mod session;
mod source;
mod subscribers;
mod summary;
mod topics;
mod verifier;

pub(crate) use load::{load, set_defaults};
pub(crate) use summary::Summary;
