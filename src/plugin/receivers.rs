//! Asks the deliver hook about each receiver of one message.

use super::{ClientView, Hooks, MessageView};
use crate::session::Session;

/// One message on its way to its receivers.
pub struct Receivers<'a> {
    hooks: &'a mut dyn Hooks,
    message: MessageView<'a>,
    shard: u16,
    skipped: u64,
}

impl<'a> Receivers<'a> {
    pub fn new(hooks: &'a mut dyn Hooks, message: MessageView<'a>, shard: u16) -> Receivers<'a> {
        Receivers { hooks, message, shard, skipped: 0 }
    }

    /// Whether this receiver gets the message.
    pub fn wants(&mut self, receiver: &Session) -> bool {
        let is_wanted = self.hooks.deliver(&ClientView::of(receiver, self.shard), &self.message);
        self.skipped += u64::from(!is_wanted);
        is_wanted
    }

    /// How many receivers did not get the message.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}
