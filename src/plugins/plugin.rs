//! What a plugin is in Rust.

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
    /// The hooks that it has; asked once. No other is called.
    fn hooks(&self) -> HookSet;

    /// Where the plugin's answers go, from whatever thread; called once, before its hooks.
    fn set_answers(&mut self, answers: Answers) {
        let _ = answers;
    }

    /// A client wants to connect; its session's bounds may be set. With `Verdict::Later` the answer to `connect.question`
    /// follows. Not called again then.
    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, connect, limits);
        Ok(Verdict::Allow)
    }

    /// One filter of a SUBSCRIBE, `$share/...` included; `qos` may be lowered.
    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, filter, qos);
        Ok(Verdict::Allow)
    }

    /// One filter of an UNSUBSCRIBE that the client was subscribed to.
    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) -> Result<(), PluginError> {
        let _ = (client, filter);
        Ok(())
    }

    /// A message at its origin, once, before authorization, retain and routing. What a failed call changed is undone
    /// if the message goes on.
    fn publish(
        &mut self,
        client: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, message);
        Ok(Verdict::Allow)
    }

    /// The message as all `publish` hooks left it.
    fn authorize_publish(
        &mut self,
        client: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<Verdict, PluginError> {
        let _ = (client, message);
        Ok(Verdict::Allow)
    }

    /// Whether the receiver gets the message.
    fn deliver(
        &mut self,
        receiver: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<bool, PluginError> {
        let _ = (receiver, message);
        Ok(true)
    }

    /// Something has happened: with `HookSet::EVENTS` connections and sessions, with `HookSet::DROPS` lost messages.
    fn event(&mut self, event: &HookEvent<'_>) -> Result<(), PluginError> {
        let _ = event;
        Ok(())
    }

    /// About once a second.
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
    /// Letters, digits, `-` and `_`: in the log and in `$SYS/broker/plugins/NAME`.
    fn name(&self) -> &str;

    /// Called once for each shard, on its thread, before it accepts a client.
    fn make(&self, shard: u16) -> Result<Box<dyn Plugin>, PluginError>;
}

/// What a plugin could not do: a sentence for the log.
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
