//! Where a shard calls hooks: messages at their origin, connections, subscriptions, events, the tick.
//!
//! A message meets its publish hooks once, on the shard of its publisher, before it is admitted. Room for the largest
//! message that a hook may make is there before the hook runs. The shard's buffers take each change and check it at
//! once; then the message is admitted as the hooks left it, so its bytes are copied into the arena once. The hook that
//! authorizes reads the admitted message in its slot.
//!
//! A denied message keeps its slot until all stages have acked it; `Arena::get` finds nothing in it.
//!
//! A hook that only appends properties which follow from client and topic may promise to do the same again
//! (`MessageEdit::pledge`). Then the next messages of the same client and topic in the same receive get the properties
//! without a call, and count as calls. A message that would be too large with them goes to the hook. Without that
//! promise the messages of a publisher are no repeats (`shard::repeats`), and point to point QoS 0 costs the core four
//! times as much.

use super::admission::{Published, Publisher};
use super::incoming::Incoming;
use super::timers::Timer;
use super::{About, ConnectionId, Notice, Shard};
use crate::arena::{Draft, Generation, Message, split_trail};
use crate::codec::{Connect, ReasonCode, ReasonSet};
use crate::plugin::{
    ClientView, ConnectView, HookEvent, HookFigures, HookSet, Hooks, MessageEdit, MessageView,
    Plugged, SessionLimits, Verdict, is_wanted,
};
use crate::printable::Quoted;
use crate::session::connection::Addresses;
use crate::session::{DropReason, Dropped, Profile, Session, SessionKey, Will};
use crate::time::Instant;
use std::net::SocketAddr;

/// Time between two ticks.
const TICK_MS: u64 = 1000;

/// Hooks that a message meets at its origin.
pub(super) const AT_ORIGIN: HookSet = HookSet::PUBLISH.union(HookSet::AUTHORIZE_PUBLISH);

/// A larger message takes time to be copied, which is not a hook's.
const ROW_SIZE_MAX: usize = 64 << 10;

/// What hooks have said of a CONNECT.
pub(super) enum Asked {
    Allowed(SessionLimits),
    Denied(ReasonCode),
    /// The answer comes later.
    Waits,
    /// The answer would come later, and as many CONNECTs wait as may.
    TooMany,
}

impl Shard {
    /// Calls these hooks from now on; to be set before the first connection.
    pub fn set_hooks(&mut self, now: Instant, hooks: Box<dyn Hooks>) {
        assert_eq!(self.clients.connection_count(), 0, "hooks are set before the first connection");
        let wanted = hooks.hooks();
        let plugged = self.hooks.plug(hooks);
        self.delivery.drops.set(wanted.contains(HookSet::DROPS));
        if wanted.contains(HookSet::TICK) {
            self.timers.set(Timer::Tick, &mut plugged.tick, Some(now.plus_ms(TICK_MS)));
        }
    }

    /// The address a connection came in at; for hooks, and before its first bytes.
    pub fn set_listener(&mut self, id: ConnectionId, listener: SocketAddr) {
        if self.hooks.set.is_empty() {
            return;
        }
        if let Some(connection) = self.clients.connection(id)
            && let Some(connecting) = connection.connecting_mut()
        {
            connecting.addresses.get_or_insert_default().listener = Some(listener);
        }
    }

    /// Admits a message at its origin, where it meets its hooks.
    #[inline(always)]
    pub(super) fn publish(
        &mut self,
        now: Instant,
        draft: &Draft<'_>,
        publisher: Publisher<'_>,
    ) -> Published {
        if self.hooks.set.intersects(AT_ORIGIN) {
            return match draft.meta.from_bridge {
                true => self.publish_hooked::<true>(now, draft, publisher),
                false => self.publish_as_hooks_want(now, *draft, publisher),
            };
        }
        Published::of(self.admit(now, draft))
    }

    /// By value, as `admit_after_stages`.
    #[inline(never)]
    fn publish_as_hooks_want(
        &mut self,
        now: Instant,
        draft: Draft<'_>,
        publisher: Publisher<'_>,
    ) -> Published {
        if let Publisher::Client(key, topic) = publisher
            && let Some(generation) = self.publish_as_pledged(&draft, key, topic)
        {
            return Published { generation, denied: None };
        }
        self.publish_hooked::<false>(now, &draft, publisher)
    }

    /// Admits a message for which the hooks have said before what they do.
    #[inline]
    fn publish_as_pledged(
        &mut self,
        draft: &Draft<'_>,
        key: SessionKey,
        topic: &str,
    ) -> Option<Generation> {
        let Plugged { buffers, pledge, .. } = &mut **self.hooks.plugged.as_mut()?;
        let [own, more] = draft.properties;
        if !pledge.is_for(key, topic) || !more.is_empty() {
            return None;
        }
        let appended = &buffers.appended()[..pledge.appended_size];
        let is_changed = !appended.is_empty();
        if is_changed && draft.size() + appended.len() > MessageEdit::size_max_of(&self.limits) {
            return None;
        }
        let properties = [own, appended];
        // Without room the hooks are called like for the first.
        let generation = self.flow.admit(Incoming::Whole(&Draft { properties, ..*draft }))?;
        pledge.count(1);
        self.counters.publishes_changed += u64::from(is_changed);
        Some(generation)
    }

    /// Hooks are to be called for every message.
    #[inline]
    pub(super) fn has_hooks_to_ask(&self) -> bool {
        self.hooks.set.intersects(AT_ORIGIN)
            && self.hooks.plugged.as_ref().is_none_or(|plugged| !plugged.pledge.is_on())
    }

    /// How many bytes the client's next messages on the topic get appended without a call of the hooks; `None`: hooks are
    /// to be called.
    #[inline]
    pub(super) fn pledged_for(&self, key: SessionKey, topic: &str) -> Option<usize> {
        if !self.hooks.set.intersects(AT_ORIGIN) {
            return Some(0);
        }
        let pledge = &self.hooks.plugged.as_ref()?.pledge;
        pledge.is_for(key, topic).then_some(pledge.appended_size)
    }

    /// So many messages passed as `pledged_for` said.
    #[inline]
    pub(super) fn count_pledged(&mut self, count: u64, appended_size: usize) {
        if self.hooks.set.intersects(AT_ORIGIN)
            && let Some(plugged) = &mut self.hooks.plugged
        {
            plugged.pledge.count(count);
            self.counters.publishes_changed += if appended_size > 0 { count } else { 0 };
        }
    }

    #[inline(never)]
    fn publish_hooked<const FROM_BRIDGE: bool>(
        &mut self,
        now: Instant,
        draft: &Draft<'_>,
        publisher: Publisher<'_>,
    ) -> Published {
        let size = draft.size();
        let is_in_row = matches!(publisher, Publisher::Client(..)) && size <= ROW_SIZE_MAX;
        let is_too_large = size > self.flow.arena.size();
        let Some(plugged) = self.hooks.plugged.as_mut().filter(|_| !is_too_large) else {
            return Published::of(self.admit(now, draft));
        };
        if plugged.end_pledge() || !is_in_row {
            plugged.hooks.pause();
        }
        self.make_room(now, size, draft.meta.publisher);
        let plugged = self.hooks.plugged.as_mut().expect("hooks stay plugged");
        let session = match publisher {
            Publisher::Client(key, _) | Publisher::Session(key) => self.clients.session(key),
            Publisher::Ended(_) | Publisher::Bridge(_) => None,
        };
        let client = match (session, publisher) {
            (Some(session), _) => ClientView::of(session, self.peers.own()),
            (None, Publisher::Ended(session)) => ClientView::of(session, self.peers.own()),
            (None, Publisher::Bridge(bridge)) => ClientView {
                client_id: self.bridges.stage.name(bridge),
                shard: self.peers.own(),
                ..ClientView::default()
            },
            (None, _) => ClientView::default(),
        };
        let mut verdict = Verdict::Allow;
        let mut changed = None;
        let trailed;
        if self.hooks.set.contains(HookSet::PUBLISH) {
            let Plugged { hooks, buffers, joined, pledge, .. } = &mut **plugged;
            // Text is not checked twice.
            let topic = match publisher {
                Publisher::Client(_, topic) => topic,
                _ => MessageView::text(draft.topic),
            };
            let properties = join(draft.properties, joined);
            // Where the message has been is no hook's to see.
            let (properties, trail) = match FROM_BRIDGE {
                true => split_trail(properties),
                false => (properties, &[][..]),
            };
            let view = MessageView::with(topic, properties, draft.payload, &draft.meta, now);
            let mut edit = MessageEdit::new(view, buffers, &self.limits);
            verdict = hooks.publish(&client, &mut edit).at_once();
            let is_format_wrong =
                self.limits.payload_format_checked && !edit.is_payload_format_right();
            if is_format_wrong && verdict == Verdict::Allow {
                verdict = Verdict::Deny(ReasonCode::PayloadFormatInvalid);
            }
            if verdict == Verdict::Allow
                && !self.hooks.set.contains(HookSet::AUTHORIZE_PUBLISH)
                && !FROM_BRIDGE
                && let Publisher::Client(key, topic) = publisher
                && let Some(appended_size) = edit.pledged()
            {
                pledge.begin(key, topic, appended_size);
            }
            if verdict == Verdict::Allow && edit.is_changed() {
                let edited = edit.finish(draft.meta, now);
                changed = Some(match FROM_BRIDGE {
                    true => {
                        let [first, second] = edited.properties;
                        trailed = [first, second, trail].concat();
                        Draft { properties: [&trailed, &[]], ..edited }
                    }
                    false => edited,
                });
                self.counters.publishes_changed += 1;
            }
        }
        let draft = changed.as_ref().unwrap_or(draft);
        // The stages have run where the message needs that, and hooks are not asked twice.
        let admitted = match self.flow.admit(Incoming::Whole(draft)) {
            Some(generation) => Some(generation),
            None => {
                self.work.turns.admit_alone(draft, &self.limits, &mut self.flow, &mut self.counters)
            }
        };
        let Some(generation) = admitted else { return Published::REFUSED };
        let allowed = Published { generation, denied: None };
        if !is_in_row {
            plugged.hooks.pause();
        }
        if self.hooks.set.contains(HookSet::AUTHORIZE_PUBLISH) && verdict == Verdict::Allow {
            let message = self.flow.arena.last().expect("the message was just admitted");
            let view = MessageView::of(&message, now);
            verdict = plugged.hooks.authorize_publish(&client, &view).at_once();
        }
        let Verdict::Deny(reason) = verdict else { return allowed };
        if let Some(message) = self.flow.arena.last() {
            self.delivery.drops.push(Some(client.client_id), message.topic, DropReason::Denied);
        }
        self.flow.arena.deny_last();
        self.counters.publishes_denied += 1;
        Published { generation, denied: Some(told(ReasonSet::RECEIVED, reason)) }
    }

    /// A hook runs once for a message, so what it may make of it has room before it runs.
    #[inline]
    fn make_room(&mut self, now: Instant, size: usize, publisher: u64) {
        if !self.flow.arena.has_room(self.limits.packet_size_max.max(size)) {
            self.run_charged(now, publisher);
            self.pause_hooks();
        }
    }

    /// Other work stands between the last message and the next.
    #[inline]
    pub(super) fn pause_hooks(&mut self) {
        if self.hooks.set.intersects(AT_ORIGIN)
            && let Some(plugged) = &mut self.hooks.plugged
        {
            plugged.end_pledge();
            plugged.hooks.pause();
        }
    }

    /// The client's next messages are for the hooks again.
    #[inline]
    pub(super) fn end_pledge(&mut self) {
        if self.hooks.set.contains(HookSet::PUBLISH)
            && let Some(plugged) = &mut self.hooks.plugged
        {
            plugged.end_pledge();
        }
    }

    /// Whether the client may connect; hooks may set bounds of its session.
    pub(super) fn ask_connect(
        &mut self,
        now: Instant,
        id: ConnectionId,
        client_id: &str,
        connect: &Connect<'_>,
        will: Option<&Will>,
    ) -> Asked {
        let mut limits = SessionLimits::default();
        let Some(plugged) = self.hooks.wanting(HookSet::CONNECT) else {
            return Asked::Allowed(limits);
        };
        let questions = &mut self.connections.questions;
        let mut resumed = None;
        if let Some((answered, set)) = questions.resume(id) {
            (resumed, limits) = (Some(answered), set);
        }
        let question = questions.next(self.limits.questions_max);
        let addresses = self.clients.live_connection(id).addresses();
        let client = ClientView {
            client_id,
            user_name: connect.user_name,
            peer: addresses.peer,
            listener: addresses.listener,
            version: Some(connect.version),
            shard: self.peers.own(),
        };
        let will = will.map(|will| (will, will.stored.message()));
        let view = ConnectView {
            password: connect.password,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            session_expiry_s: connect.session_expiry_s,
            will: will.as_ref().map(|(will, message)| MessageView {
                message_expiry_s: will.message_expiry_s,
                ..MessageView::of(message, now)
            }),
            user_properties: connect.user_properties,
            question,
            resumed,
        };
        match (plugged.hooks.connect(&client, &view, &mut limits), question) {
            (Verdict::Allow, _) => Asked::Allowed(limits),
            (Verdict::Deny(reason), _) => {
                self.counters.connects_denied += 1;
                Asked::Denied(told(ReasonSet::CONNACK, reason))
            }
            (Verdict::Later, Some(question)) => {
                let drawn = connect.client_id.is_empty().then_some(client_id);
                self.wait_for_answer(now, id, question, limits, drawn);
                Asked::Waits
            }
            (Verdict::Later, None) => {
                self.counters.questions_refused += 1;
                Asked::TooMany
            }
        }
    }

    /// What hooks are to be told of the client of a connection that came between those addresses; `None`: there are none.
    pub(super) fn profile(
        &self,
        addresses: Addresses,
        connect: &Connect<'_>,
        limits: SessionLimits,
    ) -> Option<Box<Profile>> {
        if self.hooks.set.is_empty() {
            return None;
        }
        Some(Box::new(Profile {
            user_name: connect.user_name.map(Box::from),
            peer: addresses.peer,
            listener: addresses.listener,
            version: connect.version,
            limits,
        }))
    }

    /// Whether the client may subscribe, and the QoS it may be given.
    pub(super) fn ask_subscribe(
        &mut self,
        key: SessionKey,
        filter: &str,
        qos: crate::codec::QoS,
    ) -> Result<crate::codec::QoS, ReasonCode> {
        let Some(plugged) = self.hooks.wanting(HookSet::SUBSCRIBE) else { return Ok(qos) };
        let session = self.clients.live_session(key);
        let client = ClientView::of(session, self.peers.own());
        let mut granted = qos;
        let verdict = plugged.hooks.authorize_subscribe(&client, filter, &mut granted).at_once();
        let Verdict::Deny(reason) = verdict else { return Ok(granted.min(qos)) };
        self.counters.subscribes_denied += 1;
        Err(told(ReasonSet::SUBACK, reason))
    }

    /// The plugin that has just denied something.
    pub(super) fn denier(&self) -> Option<String> {
        Some(self.hooks.plugged.as_ref()?.hooks.denier()?.to_owned())
    }

    pub(super) fn tell_unsubscribed(&mut self, key: SessionKey, filter: &str) {
        if let Some(plugged) = self.hooks.wanting(HookSet::UNSUBSCRIBE) {
            let session = self.clients.live_session(key);
            plugged.hooks.unsubscribed(&ClientView::of(session, self.peers.own()), filter);
        }
    }

    /// Whether the deliver hook lets the session have the message; counted if not.
    pub(super) fn is_delivered(
        &mut self,
        now: Instant,
        key: SessionKey,
        message: &Message<'_>,
    ) -> bool {
        let view = || MessageView::of(message, now);
        let mut receivers = self.hooks.receivers(view, self.peers.own());
        let is_wanted = is_wanted(&mut receivers, &mut self.clients, key);
        self.counters.deliveries_skipped += u64::from(!is_wanted);
        is_wanted
    }

    /// Tells the end of a session that is gone.
    pub(super) fn tell_ended(&mut self, session: &Session) {
        if let Some(plugged) = self.hooks.wanting(HookSet::EVENTS) {
            let client = ClientView::of(session, self.peers.own());
            plugged.hooks.event(&HookEvent::SessionEnded { client });
        }
    }

    /// Tells of messages that were dropped since the last time.
    #[inline]
    pub(super) fn tell_drops(&mut self, now: Instant) {
        if self.delivery.drops.chore_count() != 0 {
            self.tell_some_drops(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_some_drops(&mut self, now: Instant) {
        let (dropped, examples) = self.delivery.drops.take(now);
        for Dropped { client_id, topic, why } in &examples {
            let Some((what, keys)) = why.told() else { continue };
            let about = match why {
                DropReason::RetainedFull => About::Retained,
                _ => About::Delivery,
            };
            let what = format!("topic {}, {what}", Quoted(topic));
            let client_id = client_id.as_deref().unwrap_or_default();
            self.events.notice(now, (about, keys), || Notice::new(about, None, client_id, &what));
        }
        let Some(plugged) = &mut self.hooks.plugged else { return };
        for drop in &dropped {
            plugged.hooks.event(&HookEvent::Dropped {
                client_id: drop.client_id.as_deref(),
                topic: &drop.topic,
                why: drop.why,
            });
        }
    }

    pub(super) fn hook_figures(&self) -> Vec<HookFigures> {
        self.hooks.plugged.as_ref().map_or_else(Vec::new, |plugged| plugged.hooks.figures())
    }

    /// Gives back what edits of large messages took.
    pub(super) fn trim_edits(&mut self) {
        if let Some(plugged) = &mut self.hooks.plugged {
            plugged.end_pledge();
            plugged.buffers.trim();
            plugged.joined = Vec::new();
        }
    }

    pub(super) fn on_tick(&mut self, now: Instant) {
        let plugged = self.hooks.wanting(HookSet::TICK).expect("the timer is set for that hook");
        plugged.tick = None;
        plugged.hooks.tick();
        self.timers.set(Timer::Tick, &mut plugged.tick, Some(now.plus_ms(TICK_MS)));
    }
}

/// Properties in one piece, as hooks read them. Nearly always they came in as one.
#[inline]
fn join<'a>([first, second]: [&'a [u8]; 2], joined: &'a mut Vec<u8>) -> &'a [u8] {
    if second.is_empty() {
        return first;
    }
    joined.clear();
    joined.extend_from_slice(first);
    joined.extend_from_slice(second);
    joined
}

/// What the client is told: the hook's reason if the answer can carry it.
fn told(allowed: ReasonSet, reason: ReasonCode) -> ReasonCode {
    if reason.is_error() && allowed.contains(reason) { reason } else { ReasonCode::NotAuthorized }
}
