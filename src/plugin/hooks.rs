//! The hooks that a shard calls, and the set of hooks that plugins have.

use super::{ClientView, ConnectView, HookEvent, HookFigures, MessageEdit, MessageView};
use crate::codec::{QoS, ReasonCode};
use crate::session::SessionLimits;

/// Which hooks somebody has. A shard asks once and keeps the answer: a hook nobody has costs a look at a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HookSet(u16);

impl HookSet {
    pub const EMPTY: HookSet = HookSet(0);
    /// A client wants to connect.
    pub const CONNECT: HookSet = HookSet(1 << 0);
    /// A client wants to subscribe.
    pub const SUBSCRIBE: HookSet = HookSet(1 << 1);
    /// A client has unsubscribed.
    pub const UNSUBSCRIBE: HookSet = HookSet(1 << 2);
    /// A message, as the publish hooks made it, wants to be published.
    pub const AUTHORIZE_PUBLISH: HookSet = HookSet(1 << 3);
    /// A message has arrived and may be changed.
    pub const PUBLISH: HookSet = HookSet(1 << 4);
    /// A message is about to be given to a subscriber.
    pub const DELIVER: HookSet = HookSet(1 << 5);
    /// Connections and sessions begin and end.
    pub const EVENTS: HookSet = HookSet(1 << 6);
    /// Messages that did not reach somebody.
    pub const DROPS: HookSet = HookSet(1 << 7);
    /// Once a second.
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

    /// Bits that mean nothing are dropped.
    pub const fn from_bits(bits: u16) -> HookSet {
        HookSet(bits & HookSet::ALL.0)
    }

    /// All hooks of `other` are in it.
    #[inline]
    pub const fn contains(self, other: HookSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Some hook of `other` is in it.
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

/// What a hook that may refuse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// What a 5.0 client is told. A code that the answer cannot carry is told as Not authorized.
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
/// Views are valid until a call returns; what a hook wants to keep it copies. `publish` changes a message through calls
/// that copy at once. A hook that `hooks` does not name is not called.
pub trait Hooks {
    /// Asked once, before anything else.
    fn hooks(&self) -> HookSet;

    /// A client wants to connect; its session's bounds may be set. Denied: CONNACK with the reason. Called again behind the
    /// answer to a question, which `ConnectView::resumed` then has: the hooks that have spoken are not asked again.
    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Verdict {
        let _ = (client, connect, limits);
        Verdict::Allow
    }

    /// One filter of a SUBSCRIBE, `$share/...` included; `qos` is what is asked for and may be lowered.
    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Verdict {
        let _ = (client, filter, qos);
        Verdict::Allow
    }

    /// One filter of an UNSUBSCRIBE that the client was subscribed to.
    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) {
        let _ = (client, filter);
    }

    /// A message at its origin, once, before authorization, retain and routing. Denied: it goes nowhere. Not called for
    /// messages that `MessageEdit::hold` is for.
    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        let _ = (client, message);
        Verdict::Allow
    }

    /// So many messages got what the last one that was given to `publish` got, as `MessageEdit::hold` allows.
    fn repeated(&mut self, count: u64) {
        let _ = count;
    }

    /// What the shard does until the next call is more than to reach for the next message: its time is nobody's hook's.
    /// Between two calls of `publish` or `authorize_publish` without it there is next to none.
    fn pause(&mut self) {}

    /// The message as `publish` left it.
    fn authorize_publish(&mut self, client: &ClientView<'_>, message: &MessageView<'_>) -> Verdict {
        let _ = (client, message);
        Verdict::Allow
    }

    /// Whether the receiver gets the message; called for each, with the QoS and retain flag as published.
    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> bool {
        let _ = (receiver, message);
        true
    }

    /// Something has happened: `EVENTS`, and with `DROPS` also `HookEvent::Dropped`.
    fn event(&mut self, event: &HookEvent<'_>) {
        let _ = event;
    }

    /// About once a second.
    fn tick(&mut self) {}

    /// The place of the hook that has said `Later` last, among several.
    fn asked(&self) -> u16 {
        0
    }

    /// Whose verdict the last denial was.
    fn denier(&self) -> Option<&str> {
        None
    }

    /// What the calls came to so far, by plugin and hook; asked for now and then.
    fn figures(&self) -> Vec<HookFigures> {
        Vec::new()
    }
}
