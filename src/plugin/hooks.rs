//! The hooks that a shard calls, and the set of hooks that plugins have.

use super::{ClientView, ConnectView, HookEvent, HookFigures, MessageEdit, MessageView};
use crate::codec::{QoS, ReasonCode};
use crate::session::SessionLimits;

/// A set of hooks. A shard asks for it once and keeps the answer: a hook that no plugin has costs one check of a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HookSet(u16);

impl HookSet {
    pub const EMPTY: HookSet = HookSet(0);
    /// Decides whether a client may connect.
    pub const CONNECT: HookSet = HookSet(1 << 0);
    /// Decides whether a client may subscribe.
    pub const SUBSCRIBE: HookSet = HookSet(1 << 1);
    /// Hears that a client has unsubscribed.
    pub const UNSUBSCRIBE: HookSet = HookSet(1 << 2);
    /// Decides whether a message, as the publish hooks made it, may be published.
    pub const AUTHORIZE_PUBLISH: HookSet = HookSet(1 << 3);
    /// May change or refuse a message that has arrived.
    pub const PUBLISH: HookSet = HookSet(1 << 4);
    /// Decides whether a subscriber is given a message.
    pub const DELIVER: HookSet = HookSet(1 << 5);
    /// Hears of connections and sessions that begin and end.
    pub const EVENTS: HookSet = HookSet(1 << 6);
    /// Hears of messages that did not reach a receiver.
    pub const DROPS: HookSet = HookSet(1 << 7);
    /// Is called once a second.
    pub const TICK: HookSet = HookSet(1 << 8);

    /// Each hook by itself, with its name.
    pub const NAMED: [(&'static str, HookSet); 9] = [
        ("connect", HookSet::CONNECT),
        ("subscribe", HookSet::SUBSCRIBE),
        ("unsubscribe", HookSet::UNSUBSCRIBE),
        ("authorize_publish", HookSet::AUTHORIZE_PUBLISH),
        ("publish", HookSet::PUBLISH),
        ("deliver", HookSet::DELIVER),
        ("events", HookSet::EVENTS),
        ("drops", HookSet::DROPS),
        ("tick", HookSet::TICK),
    ];

    pub const ALL: HookSet = HookSet((1 << HookSet::NAMED.len()) - 1);

    pub const fn bits(self) -> u16 {
        self.0
    }

    /// A set from its bits. Bits that mean nothing are dropped.
    pub const fn from_bits(bits: u16) -> HookSet {
        HookSet(bits & HookSet::ALL.0)
    }

    /// Whether all hooks of `other` are in the set.
    #[inline]
    pub const fn contains(self, other: HookSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether some hook of `other` is in the set.
    #[inline]
    pub const fn intersects(self, other: HookSet) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn union(self, other: HookSet) -> HookSet {
        HookSet(self.0 | other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for HookSet {
    type Output = HookSet;

    fn bitor(self, other: HookSet) -> HookSet {
        self.union(other)
    }
}

/// The answer of a hook that may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Refused: a 5.0 client is told this code, or Not authorized if the answer cannot carry it.
    Deny(ReasonCode),
    /// The answer to `ConnectView::question` comes later (`Shard::handle_answer`). Where there is no question this is a refusal.
    Later,
}

impl Verdict {
    pub fn is_denied(self) -> bool {
        matches!(self, Verdict::Deny(_))
    }

    /// Of a hook that must answer at once.
    #[must_use]
    pub fn at_once(self) -> Verdict {
        match self {
            Verdict::Later => Verdict::Deny(ReasonCode::ImplementationSpecificError),
            verdict => verdict,
        }
    }
}

/// The hooks of one shard, called on its thread within its turn: they must neither block nor panic.
///
/// Views are valid until a call returns; a hook copies what it wants to keep. `publish` changes a message through calls
/// that copy at once. A hook that `hooks` does not name is not called.
pub trait Hooks {
    /// The hooks to be called. The shard asks once, before anything else.
    fn hooks(&self) -> HookSet;

    /// Decides whether a client may connect, and may set bounds for its session. A denial is answered by a CONNACK with
    /// the reason. The hook is called again when a question was answered: `ConnectView::resumed` then has the answer, and the
    /// plugins that have given their verdict are not asked again.
    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Verdict {
        let _ = (client, connect, limits);
        Verdict::Allow
    }

    /// Decides about one filter of a SUBSCRIBE, `$share/...` included. `qos` is the requested one and may be lowered.
    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Verdict {
        let _ = (client, filter, qos);
        Verdict::Allow
    }

    /// Hears of one filter of an UNSUBSCRIBE, if the client was subscribed to it.
    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) {
        let _ = (client, filter);
    }

    /// May change or refuse a message at its origin, once, before authorization, retain and routing. A denied message
    /// goes nowhere. The hook is not called for messages for which `MessageEdit::pledge` promised a change.
    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        let _ = (client, message);
        Verdict::Allow
    }

    /// Hears that so many messages got the change of the last message that `publish` was called for, as
    /// `MessageEdit::pledge` allows.
    fn repeated(&mut self, count: u64) {
        let _ = count;
    }

    /// Tells that other work follows until the next call, so that its time is not counted as a hook's. Between two
    /// calls of `publish` or `authorize_publish` without this call, next to no time passes.
    fn pause(&mut self) {}

    /// Decides about the message as `publish` left it.
    fn authorize_publish(&mut self, client: &ClientView<'_>, message: &MessageView<'_>) -> Verdict {
        let _ = (client, message);
        Verdict::Allow
    }

    /// Decides whether a receiver gets the message. It is called for each receiver, with the QoS and retain flag as
    /// published.
    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> bool {
        let _ = (receiver, message);
        true
    }

    /// Hears of an event of `EVENTS`; with `DROPS` also of `HookEvent::Dropped`.
    fn event(&mut self, event: &HookEvent<'_>) {
        let _ = event;
    }

    /// Is called about once a second.
    fn tick(&mut self) {}

    /// The index of the plugin that said `Verdict::Later` last.
    fn asked(&self) -> u16 {
        0
    }

    /// The name of the plugin that gave the last denial.
    fn denier(&self) -> Option<&str> {
        None
    }

    /// The account of all calls so far, by plugin and hook. The shard asks for it now and then.
    fn figures(&self) -> Vec<HookFigures> {
        Vec::new()
    }
}
