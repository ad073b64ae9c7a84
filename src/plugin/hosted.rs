//! The hooks of one shard, and what their calls need.

use super::pledge::Pledge;
use super::{ClientView, EditBuffers, HookSet, Hooks, MessageView, Receivers};
use crate::peers::ShardId;
use crate::session::{Clients, SessionKey};
use crate::time::Instant;

/// The hooks of a shard; none if no plugin has any.
#[derive(Default)]
pub(crate) struct Hosted {
    /// The hooks that plugins have; empty without `plugged`.
    pub set: HookSet,
    pub plugged: Option<Box<Plugged>>,
}

/// Hooks, and the buffers that their calls need.
pub(crate) struct Plugged {
    pub hooks: Box<dyn Hooks>,
    pub buffers: EditBuffers,
    /// The properties of a message, put together: properties that do not travel on stood between them.
    pub joined: Vec<u8>,
    pub pledge: Pledge,
    pub tick: Option<Instant>,
}

impl Hosted {
    /// Plugs in the hooks: they are called from now on.
    pub(crate) fn plug(&mut self, hooks: Box<dyn Hooks>) -> &mut Plugged {
        self.set = hooks.hooks();
        self.plugged.insert(Box::new(Plugged {
            hooks,
            buffers: EditBuffers::default(),
            joined: Vec::new(),
            pledge: Pledge::default(),
            tick: None,
        }))
    }

    /// The hooks, if there is one of `wanted`.
    #[inline]
    pub(crate) fn wanting(&mut self, wanted: HookSet) -> Option<&mut Plugged> {
        match self.set.intersects(wanted) {
            true => Some(self.plugged.as_mut().expect("the set is empty without hooks")),
            false => None,
        }
    }

    /// The hooks that hear of events, and the client of a session to tell them of. `None`: no hook hears of events, or
    /// the session is gone.
    #[inline]
    pub(crate) fn listener<'a>(
        &'a mut self,
        clients: &'a mut Clients,
        shard: ShardId,
        key: SessionKey,
    ) -> Option<(&'a mut dyn Hooks, ClientView<'a>)> {
        if !self.set.contains(HookSet::EVENTS) {
            return None;
        }
        let plugged = self.plugged.as_mut()?;
        Some((&mut *plugged.hooks, ClientView::of(clients.session(key)?, shard)))
    }

    /// The receivers of a message, if there is a deliver hook.
    pub(crate) fn receivers<'a>(
        &'a mut self,
        message: impl FnOnce() -> MessageView<'a>,
        shard: ShardId,
    ) -> Option<Receivers<'a>> {
        if !self.set.contains(HookSet::DELIVER) {
            return None;
        }
        let hooks = &mut *self.plugged.as_mut()?.hooks;
        Some(Receivers::new(hooks, message(), shard))
    }
}

impl Plugged {
    /// Ends the promise: the hooks are called again for every message. Returns whether messages passed without a call.
    #[inline]
    pub(crate) fn end_pledge(&mut self) -> bool {
        let count = self.pledge.end();
        if count > 0 {
            self.hooks.repeated(count);
        }
        count > 0
    }
}

/// Whether the session gets the message, as the deliver hook, if there is one, decides.
pub(crate) fn is_wanted(
    receivers: &mut Option<Receivers<'_>>,
    clients: &mut Clients,
    key: SessionKey,
) -> bool {
    match (receivers, clients.session(key)) {
        (Some(receivers), Some(session)) => receivers.wants(session),
        _ => true,
    }
}
