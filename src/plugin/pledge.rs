//! The change that a publish hook has promised to repeat, until other work comes between two messages.

use crate::session::SessionKey;

/// The client and topic whose messages get the same change without a call of the hooks, until other work happens on the
/// shard.
#[derive(Debug, Default)]
pub(crate) struct Pledge {
    key: Option<SessionKey>,
    topic: String,
    /// How many bytes are appended to the properties. The bytes are in the buffers of edits.
    pub appended_size: usize,
    /// How many messages the hooks have not been told of.
    untold: u64,
}

impl Pledge {
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

    /// Ends the promise; returns how many messages passed without a call. The hooks have to be told of these.
    #[inline]
    pub(crate) fn end(&mut self) -> u64 {
        self.key = None;
        std::mem::take(&mut self.untold)
    }
}
