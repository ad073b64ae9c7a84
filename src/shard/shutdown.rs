//! The end of a shard: it takes nothing new, connected clients get and acknowledge what waits for them, and each is
//! told goodbye as soon as nothing does.
//!
//! A client that acknowledges nothing and takes no bytes of messages for `shutdown_stall_ms` is given up, so that it does
//! not hold up the others. Messages that are not acknowledged then are counted.

use super::{ConnectionId, Shard};
use crate::codec::{QoS, ReasonCode};
use crate::session::connection::{ConnectionState, Open};
use crate::session::inflight::FlowState;
use crate::session::{Envelope, Session, SessionKey};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many clients are named among those that have not acknowledged everything.
const NAMES_MAX: usize = 3;

/// How often, within the time after which a client is given up, its side's confirmed bytes are asked for.
const LOOKS_PER_STALL: u64 = 4;

/// The messages of QoS 1 and 2 that end with the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remainder {
    /// Messages that were sent to clients, or queued for them, and not acknowledged when their connections were closed.
    pub unacknowledged: u64,
    /// How many clients have such messages.
    pub clients: u64,
    /// The names of some of these clients.
    pub names: Vec<Box<str>>,
    /// Messages that were queued for sessions whose clients were not connected.
    pub away: u64,
    /// Messages in shared subscriptions of which no member was left.
    pub shared: u64,
}

/// The clients for which a shard that ends waits.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    pub has_begun: bool,
    waited_for: BTreeMap<SessionKey, Progress>,
    /// Connections whose confirmed bytes the world is to tell.
    looks: VecDeque<ConnectionId>,
    /// Sessions that are counted in the remainder.
    counted: BTreeSet<SessionKey>,
    remainder: Remainder,
}

/// The progress of a client.
#[derive(Clone, Copy, Debug)]
struct Progress {
    mark: Mark,
    /// When the client last made progress.
    since: Instant,
    looked_at: Instant,
    /// The most bytes that its side has confirmed, without those that answered pings.
    confirmed: Option<u64>,
    /// Bytes of answers to pings: a client that only pings makes no progress.
    ping_bytes: u64,
}

/// This changes when a client acknowledges a message or gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    queued: usize,
    steps: usize,
}

impl Shard {
    /// Takes nothing new from now on. Of the clients' packets only acknowledgements are used, so that clients get what
    /// waits for them.
    pub fn begin_shutdown(&mut self, now: Instant) {
        self.run_pipeline(now);
        self.use_postponed(now);
        self.shutdown.has_begun = true;
        self.connections.questions.clear();
        for id in self.clients.connection_ids() {
            self.forget_claim(id);
            // Publishes that were not used are ignored; acknowledgements may stand behind them.
            if let Some(park) = self.clients.connection(id).and_then(|connection| connection.park) {
                self.unpark(now, id, park);
            }
            self.update_read_mode(id);
        }
    }

    /// Says goodbye to every client for which nothing waits, and to those that have stood still for too long. Members
    /// of shared subscriptions stay, as they may get what others leave. `true`: no client is waited for any more.
    pub fn part_from_clients(&mut self, now: Instant) -> bool {
        self.run_pipeline(now);
        for id in self.clients.connection_ids() {
            match self.clients.live_connection(id).state {
                // None of its packets was used.
                ConnectionState::Connecting(_) => self.close(now, id, GOODBYE),
                ConnectionState::Open(Open { key, .. }) => self.part_if_done(now, id, key),
                ConnectionState::Closing(_) => {}
            }
        }
        // These clients have left by themselves meanwhile.
        let clients = &mut self.clients;
        self.shutdown.waited_for.retain(|key, _| {
            clients.session(*key).is_some_and(|session| session.connection().is_some())
        });
        self.shutdown.waited_for.is_empty()
    }

    fn part_if_done(&mut self, now: Instant, id: ConnectionId, key: SessionKey) {
        let stall_ms = self.limits.shutdown_stall_ms;
        let session = self.clients.live_session(key);
        if session.has_all() {
            let is_member = session.membership_count() > 0;
            self.shutdown.waited_for.remove(&key);
            if !is_member {
                self.say_goodbye(now, id, key);
            }
            return;
        }
        let mark = Mark { queued: session.queue().len(), steps: session.inflight().steps_left() };
        let new = Progress { mark, since: now, looked_at: now, confirmed: None, ping_bytes: 0 };
        let progress = self.shutdown.waited_for.entry(key).or_insert(new);
        if progress.mark != mark {
            (progress.mark, progress.since) = (mark, now);
        }
        if now.ms_since(progress.since) >= stall_ms {
            return self.say_goodbye(now, id, key);
        }
        // Mail may have brought the client messages when it was not read any more.
        self.update_read_mode(id);
        let progress = self.shutdown.waited_for.get_mut(&key).expect("it was just entered");
        let looked_at = progress.looked_at.max(progress.since);
        if now.ms_since(looked_at) >= stall_ms / LOOKS_PER_STALL {
            progress.looked_at = now;
            self.shutdown.looks.push_back(id);
        }
    }

    /// A connection that seems to stand still: `handle_confirmed` is to tell how many bytes its client's side has
    /// confirmed.
    pub fn poll_confirmed(&mut self) -> Option<ConnectionId> {
        self.shutdown.looks.pop_front()
    }

    /// Handles the number of bytes that the client's side has confirmed since the connection began. A large message on
    /// a slow link is no standstill.
    pub fn handle_confirmed(&mut self, now: Instant, id: ConnectionId, bytes: u64) {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        let progress = key.and_then(|key| self.shutdown.waited_for.get_mut(&key));
        // The client may have left, or have all by now.
        let Some(progress) = progress else { return };
        let bytes = bytes.saturating_sub(progress.ping_bytes);
        let before = *progress.confirmed.get_or_insert(bytes);
        if bytes > before {
            progress.confirmed = Some(bytes);
            progress.since = now;
        }
    }

    /// Counts an answer to a ping.
    pub(super) fn count_ping(&mut self, id: ConnectionId) {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        let progress = key.and_then(|key| self.shutdown.waited_for.get_mut(&key));
        if let Some(progress) = progress {
            progress.ping_bytes += PINGRESP_SIZE;
        }
    }

    /// Tells every client that the server goes, and closes. Wills are not published.
    pub fn disconnect_all(&mut self, now: Instant) {
        self.run_pipeline(now);
        for id in self.clients.connection_ids() {
            match self.clients.live_connection(id).session() {
                Some(key) => self.say_goodbye(now, id, key),
                None => self.close(now, id, GOODBYE),
            }
        }
    }

    fn say_goodbye(&mut self, now: Instant, id: ConnectionId, key: SessionKey) {
        self.shutdown.waited_for.remove(&key);
        let session = self.clients.live_session(key);
        session.take_will();
        let count = session
            .unacknowledged(|session, envelope, is_sent| !session.goes_back(envelope, is_sent));
        if count > 0 {
            let client_id = session.client_id().into();
            let remainder = &mut self.shutdown.remainder;
            remainder.unacknowledged += count;
            remainder.clients += 1;
            if remainder.names.len() < NAMES_MAX {
                remainder.names.push(client_id);
            }
            self.shutdown.counted.insert(key);
        }
        self.send_disconnect(id, ReasonCode::ServerShuttingDown, GOODBYE);
        self.close(now, id, GOODBYE);
    }

    /// Counts the messages of a group whose last member has gone.
    pub(super) fn count_left_in_group(&mut self, count: u64) {
        if self.shutdown.has_begun {
            self.shutdown.remainder.shared += count;
        }
    }

    /// The messages that end with the process. It is called when all connections are closed.
    pub fn remainder(&self) -> Remainder {
        let mut remainder = self.shutdown.remainder.clone();
        let away = |session: &&Session| !self.shutdown.counted.contains(&session.key());
        let counts = self.clients.sessions().filter(away);
        remainder.away += counts.map(|session| session.unacknowledged(|_, _, _| true)).sum::<u64>();
        remainder.shared += self.groups.acknowledged_backlog_count();
        remainder
    }
}

const PINGRESP_SIZE: u64 = 2;

const GOODBYE: &str = "the server is shutting down";

impl Session {
    /// Whether the client has been sent everything, and has acknowledged it.
    pub(super) fn has_all(&self) -> bool {
        self.queue().is_empty() && self.inflight().is_empty()
    }

    /// How many messages above QoS 0, sent or queued, are not acknowledged, of those that are `counted`.
    fn unacknowledged(&self, counted: impl Fn(&Session, &Envelope, bool) -> bool) -> u64 {
        let queued = self.queue().iter().map(|queued| (&queued.envelope, false));
        let flows = self.inflight().flows().filter(|flow| flow.state != FlowState::Done);
        let all = queued.chain(flows.map(|flow| (&flow.envelope, true)));
        all.filter(|(envelope, is_sent)| {
            envelope.qos != QoS::AtMostOnce && counted(self, envelope, *is_sent)
        })
        .count() as u64
    }

    /// Whether a message goes back to its shared subscription when the connection ends. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    fn goes_back(&self, envelope: &Envelope, is_sent: bool) -> bool {
        let is_shared = envelope.membership != 0;
        let is_kept = is_sent && (envelope.qos == QoS::ExactlyOnce || self.is_resumable());
        is_shared && !is_kept
    }
}
