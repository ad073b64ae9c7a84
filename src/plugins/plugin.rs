//! The traits of a plugin in Rust.

use std::fmt;
use std::sync::Arc;

use crate::codec::QoS;
use crate::plugin::{
    Answer, ClientView, ConnectView, EditError, HookEvent, HookSet, MessageEdit, MessageView,
    SessionLimits, Verdict,
};

/// A plugin's instance on one shard.
///
/// Its hooks are called on the shard's thread, within its turn: while one runs, the shard does nothing else. Views are
/// valid until a call returns. An error or a panic is contained, counted, and handled as configured.
pub trait Plugin {
    /// The hooks that the plugin has, asked for once. No other hook is called.
    fn hooks(&self) -> HookSet;

    /// Gives the plugin the way of its later answers, which any thread may use. It is called once, before the hooks.
    fn set_answers(&mut self, answers: Answers) {
        let _ = answers;
    }

    /// Decides whether a client may connect, and may set bounds for its session. With `Verdict::Later` the answer to
    /// `connect.question` follows, and the hook is not called again for that CONNECT.
    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, connect, limits);
        Ok(Verdict::Allow)
    }

    /// Decides about one filter of a SUBSCRIBE, `$share/...` included. `qos` may be lowered.
    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, filter, qos);
        Ok(Verdict::Allow)
    }

    /// Hears of one filter of an UNSUBSCRIBE, if the client was subscribed to it.
    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) -> Result<(), PluginError> {
        let _ = (client, filter);
        Ok(())
    }

    /// May change or refuse a message at its origin, once, before authorization, retain and routing. Changes of a
    /// failed call are undone if the message goes on.
    fn publish(
        &mut self,
        client: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, message);
        Ok(Verdict::Allow)
    }

    /// Decides about the message as all `publish` hooks left it.
    fn authorize_publish(
        &mut self,
        client: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, message);
        Ok(Verdict::Allow)
    }

    /// Decides whether the receiver gets the message.
    fn deliver(
        &mut self,
        receiver: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<bool, PluginError> {
        let _ = (receiver, message);
        Ok(true)
    }

    /// Hears of an event: with `HookSet::EVENTS` of connections and sessions, with `HookSet::DROPS` of lost messages.
    fn event(&mut self, event: &HookEvent<'_>) -> Result<(), PluginError> {
        let _ = event;
        Ok(())
    }

    /// Is called about once a second.
    fn tick(&mut self) -> Result<(), PluginError> {
        Ok(())
    }
}

/// Hands an answer to the shard that asked, from any thread; `Err`: there is no room for it yet.
#[derive(Clone)]
pub struct Answers(Arc<dyn Fn(Answer) -> Result<(), Answer> + Send + Sync>);

impl Answers {
    pub fn new(send: impl Fn(Answer) -> Result<(), Answer> + Send + Sync + 'static) -> Answers {
        Answers(Arc::new(send))
    }

    pub fn send(&self, answer: Answer) -> Result<(), Answer> {
        (self.0)(answer)
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Answers")
    }
}

/// Makes the instances of a plugin.
pub trait PluginFactory: Send + Sync {
    /// The plugin's name in the log and in `$SYS/broker/plugins/NAME`: letters, digits, `-` and `_`.
    fn name(&self) -> &str;

    /// Makes the instance of one shard, on its thread, before the shard accepts a client.
    fn make(&self, shard: u16) -> Result<Box<dyn Plugin>, PluginError>;
}

/// The reason for which a plugin failed: a sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginError(pub(super) String);

impl PluginError {
    pub fn new(sentence: impl Into<String>) -> PluginError {
        PluginError(sentence.into())
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for PluginError {}

impl From<EditError> for PluginError {
    fn from(error: EditError) -> PluginError {
        PluginError(error.to_string())
    }
}
