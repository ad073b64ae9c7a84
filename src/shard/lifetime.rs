//! Beginnings and ends: connections opened and closed, sessions left and ended, deadlines, shutdown.

use super::admission::Published;
use super::admission::Publisher;
use super::timers::Timer;
use super::{Close, ConnectionId, Event, Shard};
use crate::arena::{Draft, Meta, Stored};
use crate::codec::ReasonCode;
use crate::plugin::HookEvent;
use crate::routing::retained::Setter;
use crate::session::ListenerId;
use crate::session::connection::{Closing, ConnectionState};
use crate::session::{Park, SessionKey, Will};
use crate::time::Instant;
use crate::transport::Transport;
use std::net::SocketAddr;

/// How much longer a connection may take whose time for CONNECT has passed: a process that stood still has its bytes by
/// then.
const CONNECT_GRACE_MS: u64 = 100;

/// A connection that comes to a shard.
#[derive(Debug, Default)]
pub struct Arrival {
    /// The address may be left out unless `Shard::wants_addresses`.
    pub peer: Option<SocketAddr>,
    pub listener: ListenerId,
    /// For a connection that was handed over: the time by which its CONNECT must have been processed.
    pub connect_deadline: Option<Instant>,
    /// `None`: the connection is plain.
    pub transport: Option<Box<dyn Transport>>,
}

impl Shard {
    /// Opens a network connection, new or handed over. `None`: there are too many, and the caller closes it.
    pub fn handle_open(&mut self, now: Instant, arrival: Arrival) -> Option<ConnectionId> {
        let Arrival { peer, listener, connect_deadline, transport } = arrival;
        if self.shutdown.has_begun || self.is_full() {
            self.counters.connections_refused += 1;
            return None;
        }
        let id = self.clients.open((peer, listener), now);
        if let Some(transport) = transport
            && let Some(connection) = self.clients.connection(id)
        {
            self.connections.links.insert(connection, transport);
        }
        self.connections.connecting.add(id, self.holder_name(peer));
        self.count_tables();
        let deadline = connect_deadline.unwrap_or(self.connect_deadline(now));
        self.set_connection_timer(id, Some(deadline));
        Some(id)
    }

    /// The listener that accepted a connection, on whichever shard; `None`: the connection is gone.
    pub fn listener(&mut self, id: ConnectionId) -> Option<ListenerId> {
        Some(self.clients.connection(id)?.listener)
    }

    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.has_begun
    }

    /// The time by which the CONNECT of a connection that is accepted now must have been processed.
    pub fn connect_deadline(&self, now: Instant) -> Instant {
        now.plus_ms(self.limits.connect_timeout_ms)
    }

    /// Whether hooks, a debug log or a limit need the addresses of clients.
    pub fn wants_addresses(&self) -> bool {
        self.wants_listeners()
            || self.limits.shares_by_address
            || self.limits.flapping_connects_max > 0
    }

    /// Whether hooks need the local addresses of connections.
    pub fn wants_listeners(&self) -> bool {
        !self.hooks.set.is_empty() || self.events.is_on()
    }

    /// Whether a connection goes to another shard if its client belongs there.
    pub fn may_hand_over(&self) -> bool {
        !self.peers.is_alone()
    }

    /// Handles a connection that the peer closed or reset, or that failed. Its id is not used any more.
    pub fn handle_close(&mut self, now: Instant, id: ConnectionId) {
        // The shard may have forgotten the connection before its socket ended.
        let Some(connection) = self.clients.connection(id) else { return };
        // The packets behind its CONNECT were sent in time, too: the connection ends when it has taken its client over, or
        // when its question was answered.
        if matches!(connection.park, Some(Park::TakeOver | Park::Answer)) {
            connection.has_ended = true;
            return;
        }
        self.use_last_input(now, id);
        if self.is_waiting_for_turn(id) {
            self.clients.live_connection(id).has_ended = true;
            return;
        }
        self.run_pipeline(now);
        self.counted(|shard| shard.leave(now, id, "the network connection was closed"));
        self.drop_connection(id);
    }

    /// Handles all deadlines that have passed, as far as a turn allows: many wills may be due at once. The rest stays
    /// due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let began = self.steps();
        while self.steps() - began < self.limits.turn_steps_max
            && let Some(timer) = self.timers.pop_due(now)
        {
            self.counters.add_steps(1);
            self.counted(|shard| match timer {
                Timer::Connection(id) => shard.on_connection_timer(now, id),
                Timer::Session(key) => shard.on_session_timer(now, key),
                Timer::Sys => shard.on_sys_timer(now),
                Timer::Tick => shard.on_tick(now),
                Timer::Store => shard.on_store_timer(now),
                Timer::Packets => shard.on_packet_timer(now),
            });
        }
    }

    /// Ends a connection from our side. Its output is sent first.
    pub(super) fn close(&mut self, now: Instant, id: ConnectionId, why: &str) {
        self.give_up_claim(now, id);
        self.leave(now, id, why);
        let linger_at = now.plus_ms(self.limits.linger_ms);
        let connection = self.clients.live_connection(id);
        if connection.is_closing() {
            return;
        }
        if connection.is_connecting() {
            self.connections.connecting.remove(id);
            self.connections.questions.forget(id);
        }
        connection.state = ConnectionState::Closing(Closing::default());
        connection.park = None;
        drop(connection.input.take());
        self.connections.begun.end(&mut connection.begun);
        let has_goodbye = self.connections.links.has(id);
        let is_flushed = (connection.output.size() == 0 && !has_goodbye) || connection.has_ended;
        if is_flushed {
            // The connection is gone at the end of this turn.
            return self.list_close(id);
        }
        self.set_connection_timer(id, Some(linger_at));
        self.update_read_mode(id);
        if has_goodbye {
            self.list_own_bytes(id);
        }
        self.clients.list_flush(id);
    }

    pub(super) fn list_close(&mut self, id: ConnectionId) {
        let connection = self.clients.live_connection(id);
        if !connection.is_close_listed {
            connection.is_close_listed = true;
            self.connections.closes.push_back(id);
        }
    }

    pub fn poll_close(&mut self) -> Option<Close> {
        while let Some(id) = self.connections.closes.pop_front() {
            // The socket of a connection that is listed may have ended since.
            if let Some(connection) = self.clients.connection(id) {
                let (has_said_all, has_ended) = (connection.has_said_all, connection.has_ended);
                self.drop_connection(id);
                if has_ended {
                    continue;
                }
                return Some(Close { connection: id, has_said_all });
            }
        }
        None
    }

    /// Forgets a connection without session.
    pub(super) fn drop_connection(&mut self, id: ConnectionId) {
        self.set_connection_timer(id, None);
        let mut connection = self.clients.remove_connection(id);
        self.connections.begun.end(&mut connection.begun);
        if self.connections.links.is_any() {
            self.connections.links.remove(id);
        }
        if connection.is_connecting() {
            self.connections.connecting.remove(id);
            self.connections.questions.forget(id);
        }
        let lists = [&mut self.connections.parked_on_mail, &mut self.connections.parked_on_bridges];
        for list in lists {
            let steps = list.note_gone(&mut connection, &mut self.clients);
            self.counters.add_steps(steps);
        }
    }

    /// Parts a connection from its session. The will becomes due, and the session's time begins to run.
    fn leave(&mut self, now: Instant, id: ConnectionId, why: &str) {
        let connection = self.clients.live_connection(id);
        let Some(key) = connection.session() else {
            if connection.is_connecting() {
                let peer = connection.addresses().peer;
                self.events.push(|| Event::Refused { peer, why: why.into() });
            }
            return;
        };
        // Messages that were admitted before are delivered before.
        self.run_pipeline(now);
        let (session, connection) = self.clients.live_pair(key);
        assert_eq!(connection.id, id, "a session has one open connection");
        let mut is_older = false;
        if let Some(open) = connection.open_mut() {
            // Its subscriptions need not be confirmed to it any more.
            open.pending = None;
            is_older = std::mem::take(&mut open.is_older_than_limits);
        }
        session.part(now);
        let client_id = session.client_id();
        self.events.push(|| Event::Disconnected { client_id: client_id.into(), why: why.into() });
        if is_older {
            self.end_older();
        }
        if let Some((hooks, client)) = self.hooks.listener(&mut self.clients, self.peers.own(), key)
        {
            hooks.event(&HookEvent::Disconnected { client, why });
        }
        let session = self.clients.live_session(key);
        let expiry_s = session.expiry_s();
        self.clients.connected_count -= 1;
        if expiry_s == 0 {
            return self.end_session(now, key);
        }
        self.leave_groups_for_now(now, key);
        self.clients.list_absent(key, now);
        self.check_store(now);
        self.publish_due_will(now, key);
        self.update_session_timer(key);
    }

    /// Ends the session and all that belongs to it. [MQTT-4.1.0-2]
    pub(super) fn end_session(&mut self, now: Instant, key: SessionKey) {
        self.run_pipeline(now);
        let setter = self.will_setter(key);
        let session = self.clients.live_session(key);
        let will = session.take_will();
        let filters = session.take_filters();
        self.counters.add_steps(filters.len() as u64);
        self.leave_all_groups(now, key);
        for filter in filters.iter().filter(|filter| !filter.starts_with("$share/")) {
            self.remove_subscription(now, key, filter);
        }
        self.clients.subscription_count -= filters.len();
        self.clients.live_session(key).stop_clocks();
        self.update_session_timer(key);
        let mut ended = self.clients.remove_session(key);
        self.guards.rates.forget(key);
        self.count_tables();
        self.forget_ahead(key);
        self.counters.add_steps(ended.inflight().len() as u64);
        self.memory.discards.push(ended.take_queue(), None);
        self.events.push(|| Event::SessionEnded { client_id: ended.client_id().into() });
        self.tell_ended(&ended);
        // The will is published at the end of the session at the latest. The session that ends does not get it.
        // [MQTT-3.1.2-8]
        if let Some(will) = will {
            let publisher = Publisher::Ended(&ended);
            let Published { generation, denied } = self.publish_will(now, key, publisher, &will);
            if let Some(setter) = setter.filter(|_| denied.is_none()) {
                self.retained.setters.push(generation, setter);
            }
        }
    }

    /// The setter of the will of a session that ends, if the will is to be retained.
    fn will_setter(&mut self, key: SessionKey) -> Option<Setter> {
        let will = self.clients.live_session(key).will()?;
        if !will.stored.meta().retain {
            return None;
        }
        Setter::of(&mut self.clients, self.peers.hash(), key)
    }

    fn publish_due_will(&mut self, now: Instant, key: SessionKey) {
        let session = self.clients.live_session(key);
        // [MQTT-3.1.2-10]
        if let Some(will) = session.take_due_will(now) {
            self.publish_will(now, key, Publisher::Session(key), &will);
        }
    }

    fn publish_will(
        &mut self,
        now: Instant,
        key: SessionKey,
        publisher: Publisher<'_>,
        will: &Will,
    ) -> Published {
        let message = will.stored.message();
        let meta = Meta {
            expires_at: will.message_expiry_s.map(|s| now.plus_s(u64::from(s))),
            publisher: key.as_u64(),
            ..message.meta
        };
        let draft = Draft { meta, ..message.draft() };
        // A denied will is counted, and goes nowhere.
        self.publish(now, &draft, publisher)
    }

    fn on_connection_timer(&mut self, now: Instant, id: ConnectionId) {
        // The timer goes with its connection.
        let connection = self.clients.live_connection(id);
        connection.timer = None;
        let is_silent = connection.is_silent(now);
        match &mut connection.state {
            ConnectionState::Closing(_) => self.list_close(id),
            ConnectionState::Open(_) if connection.park == Some(Park::Rate) => {
                self.end_rate_pause(now, id);
            }
            // The timer was that of a pause that ended otherwise.
            ConnectionState::Open(open) if open.keep_alive_ms == 0 => {}
            ConnectionState::Open(_) if !is_silent => {
                self.set_keep_alive_timer(now, id);
            }
            ConnectionState::Open(_) => self.read_before_end(id),
            // The CONNECT has arrived and waits.
            ConnectionState::Connecting(_) if connection.park == Some(Park::TakeOver) => {
                let again = (!connection.has_ended).then(|| self.connect_deadline(now));
                self.set_connection_timer(id, again);
            }
            ConnectionState::Connecting(_) if connection.park == Some(Park::Answer) => {
                self.expire_question(now, id);
            }
            // The connection may have to move with all bytes that it was sent, so the ring reads it, not the last read.
            // For that it gets some more time.
            ConnectionState::Connecting(connecting) if !connecting.had_grace => {
                connecting.had_grace = true;
                self.set_connection_timer(id, Some(now.plus_ms(CONNECT_GRACE_MS)));
            }
            ConnectionState::Connecting(_) => {
                self.counters.connects_timed_out += 1;
                let why = "no whole CONNECT arrived in time";
                self.notice_unnamed(now, Some(id), None, why, "connect_timeout_ms");
                self.close(now, id, "no CONNECT arrived in time");
            }
        }
    }

    /// [MQTT-3.1.2-22]
    pub(super) fn end_for_keep_alive(&mut self, now: Instant, id: ConnectionId) {
        self.counters.keep_alives_expired += 1;
        self.send_disconnect(id, ReasonCode::KeepAliveTimeout, "the keep alive has passed");
        self.close(now, id, "its keep alive has passed");
    }

    pub(super) fn set_keep_alive_timer(&mut self, now: Instant, id: ConnectionId) {
        let deadline = self.clients.live_connection(id).keep_alive_deadline(now);
        self.set_connection_timer(id, deadline);
    }

    fn on_session_timer(&mut self, now: Instant, key: SessionKey) {
        // The timer goes with its session.
        let session = self.clients.live_session(key);
        *session.timer_mut() = None;
        if session.is_over(now) {
            self.counters.sessions_expired += 1;
            return self.end_session(now, key);
        }
        self.publish_due_will(now, key);
        self.update_session_timer(key);
    }

    pub(super) fn set_connection_timer(&mut self, id: ConnectionId, deadline: Option<Instant>) {
        let connection = self.clients.live_connection(id);
        self.timers.set(Timer::Connection(id), &mut connection.timer, deadline);
    }

    pub(super) fn update_session_timer(&mut self, key: SessionKey) {
        let session = self.clients.live_session(key);
        let deadline = session.deadline();
        self.timers.set(Timer::Session(key), session.timer_mut(), deadline);
    }

    /// Offers a stored message to one session.
    pub(super) fn offer_stored(
        &mut self,
        now: Instant,
        key: SessionKey,
        stored: &Stored,
        envelope: crate::session::Envelope,
    ) -> Option<crate::session::Offer> {
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        self.clients.offer(key, &mut context, &stored.message(), envelope)
    }
}
