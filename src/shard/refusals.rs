//! Refusals: a client that breaks a rule or meets a limit gets an answer and is counted, and the operator hears of it.

use super::input::Outcome;
use super::{About, ConnectionId, Notice, Shard, stranger};
use crate::codec::{DecodeError, ReasonCode};
use crate::time::Instant;
use std::net::SocketAddr;

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process has as many connections as it may have.
    Full,
    /// The address has as many connections as it may have.
    AddressFull,
    /// The address connects more often than it may.
    AddressFast,
}

impl Shard {
    /// Notes a connection that was not accepted, by the bound of the process, of its address, or of this shard.
    pub fn refuse_accept(&mut self, now: Instant, refusal: Refusal, peer: Option<SocketAddr>) {
        if self.shutdown.has_begun {
            return;
        }
        let (what, key) = match refusal {
            Refusal::Full => {
                self.counters.accepts_refused += 1;
                ("there are as many as may be", "connections_max")
            }
            Refusal::AddressFull => {
                self.counters.refused_by_address += 1;
                ("its address has as many as it may have", "connections_per_address_max")
            }
            Refusal::AddressFast => {
                self.counters.refused_by_connect_rate += 1;
                ("its address connects faster than it may", "connect_rate_per_address_max")
            }
        };
        self.notice_unnamed(now, None, peer, what, key);
    }

    /// Ends a connection whose input begins with bytes that cannot be decoded. [MQTT-4.13.1-1]
    pub(super) fn fail_at(
        &mut self,
        now: Instant,
        id: ConnectionId,
        rest: &[u8],
        error: &DecodeError,
    ) -> Outcome {
        let connection = self.clients.connection(id);
        if connection.is_some_and(|one| one.is_connecting()) {
            self.notice_stranger(now, id, rest, &error.to_string());
        }
        self.fail(now, id, error)
    }

    /// Tells the operator of a connection whose first bytes are no CONNECT, and of the protocol that they look like.
    #[cold]
    pub(super) fn notice_stranger(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
        why: &str,
    ) {
        self.events.notice(now, (About::Stranger, ""), || {
            let looks_like = stranger::protocol_of(bytes);
            let told = looks_like.map(|protocol| format!("this looks like {protocol}"));
            Notice::new(About::Stranger, id, "", told.as_deref().unwrap_or(why))
        });
    }

    /// Tells the operator of a connection that met a limit before there was a client.
    #[cold]
    pub(super) fn notice_unnamed(
        &mut self,
        now: Instant,
        id: Option<ConnectionId>,
        peer: Option<SocketAddr>,
        what: &str,
        keys: &'static str,
    ) {
        self.events.notice(now, (About::Stranger, keys), || Notice {
            peer,
            ..Notice::new(About::Stranger, id, "", what)
        });
    }

    /// Ends a connection for bytes that cannot be decoded. [MQTT-4.13.1-1]
    #[cold]
    pub(super) fn fail(&mut self, now: Instant, id: ConnectionId, error: &DecodeError) -> Outcome {
        let is_connecting =
            self.clients.connection(id).is_some_and(|connection| connection.is_connecting());
        if is_connecting {
            self.counters.protocol_errors += 1;
            self.close(now, id, &error.to_string());
            return Outcome::Stop;
        }
        if *error == DecodeError::PacketTooLarge {
            self.counters.refused_by_size += 1;
            return self.refuse_at(now, id, error.reason(), &error.to_string(), "packet_size_max");
        }
        self.refuse(now, id, error.reason(), &error.to_string())
    }

    /// Ends an open connection because of its client's packet: by DISCONNECT with a reason, if the protocol has one.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: ReasonCode,
        why: &str,
    ) -> Outcome {
        self.refuse_at(now, id, reason, why, "")
    }

    /// As `refuse`, at the limit that `keys` set.
    #[cold]
    pub(super) fn refuse_at(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: ReasonCode,
        why: &str,
        keys: &'static str,
    ) -> Outcome {
        self.counters.protocol_errors += 1;
        self.notice_client(now, About::Client, id, why, keys);
        // Nothing is sent behind a DISCONNECT. [MQTT-3.14.4-1]
        self.give_up_claim(now, id);
        self.send_disconnect(id, reason, why);
        self.close(now, id, why);
        Outcome::Stop
    }

    /// Tells the operator about a connected client or its packet. `keys` set the limit that was met, if there was one.
    #[cold]
    pub(super) fn notice_client(
        &mut self,
        now: Instant,
        about: About,
        id: ConnectionId,
        what: &str,
        keys: &'static str,
    ) {
        let key = self.clients.connection(id).and_then(|connection| connection.session());
        // A connection that is closing has no session any more.
        let Some(session) = key.map(|key| self.clients.live_session(key)) else { return };
        let client_id = session.client_id();
        self.events.notice(now, (about, keys), || Notice::new(about, id, client_id, what));
    }
}
