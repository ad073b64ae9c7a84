//! The trail of a message that a bridge brought: the brokers that it has been at. The trail stands behind the message's
//! properties, and only callers that ask for it see it.
//!
//! ```text
//! brokers 8 each | flags 1 | size of all of it 1
//! ```
//! `bridge::hops` says what the brokers and the flags mean.

use super::Message;

/// The trail of a message that has been nowhere before.
pub const EMPTY_TRAIL: &[u8] = &[0, 2];

/// The properties of a message that a bridge brought, and its trail behind them.
pub fn split_trail(properties: &[u8]) -> (&[u8], &[u8]) {
    let size = properties.last().map_or(0, |size| usize::from(*size));
    debug_assert!(size >= EMPTY_TRAIL.len(), "what a bridge brought has a trail");
    properties.split_at(properties.len().saturating_sub(size))
}

impl<'a> Message<'a> {
    /// As `of`, for a message with a trail behind its properties: a bridge brought it.
    #[cold]
    #[inline(never)]
    pub fn with_trail(mut message: Message<'a>) -> Message<'a> {
        debug_assert!(message.meta.from_bridge);
        (message.properties, _) = split_trail(message.properties);
        message
    }

    /// The trail of a message that a bridge brought; empty for any other message.
    pub fn trail(&self) -> &'a [u8] {
        let start = self.topic.len() + self.properties.len();
        &self.bytes[start..self.bytes.len() - self.payload.len()]
    }
}
