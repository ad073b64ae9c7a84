//! What each stage does with a message. Every stage acks every message, whatever became of it.

pub(crate) mod bridge;
pub(crate) mod encode;
pub(crate) mod plugin;
