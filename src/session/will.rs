//! The message a client leaves behind.

use crate::arena::Stored;

/// A will with its properties; its message expiry begins when it is published.
#[derive(Clone, Debug)]
pub struct Will {
    pub stored: Stored,
    pub delay_s: u32,
    pub message_expiry_s: Option<u32>,
}
