//! The change that a publish hook has promised to repeat, until other work comes between two messages.

use crate::session::SessionKey;

/// Whose messages get the same without the hooks being called: until something else happens on the shard.
#[derive(Debug, Default)]
pub(crate) struct Held {
    key: Option<SessionKey>,
    topic: String,
    /// What is appended to the properties; the bytes are in the buffers of edits.
    pub appended_size: usize,
    /// Messages that the hooks have not been told of.
    untold: u64,
}

impl Held {
    pub(crate) fn begin(&mut self, key: SessionKey, topic: &str, appended_size: usize) {
        self.key = Some(key);
        self.topic.clear();
        self.topic.push_str(topic);
        self.appended_size = appended_size;
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.key.is_some()
    }

    #[inline]
    pub(crate) fn is_for(&self, key: SessionKey, topic: &str) -> bool {
        self.key == Some(key) && self.topic == topic
    }

    #[inline]
    pub(crate) fn count(&mut self, count: u64) {
        self.untold += count;
    }

    /// Ends the promise; returns how many messages passed without a call, of which the hooks have to be told.
    #[inline]
    pub(crate) fn end(&mut self) -> u64 {
        self.key = None;
        std::mem::take(&mut self.untold)
    }
}
