//! What each stage does with a message. Every stage acks every message, whatever became of it.

pub mod bridge;
pub mod encode;
pub mod plugin;

pub use encode::{LocalDelivery, NoLocal, Route};
