//! Clients that are bridges of other brokers: which of them are believed, and where their messages have been.
//!
//! CONNACK tells a client that says it is a bridge whether it is believed (`ringmq-bridge`: `marks` or `client`). The
//! shard asks for the address of bridges alone, and reads their CONNECT again within the turn. A message's trail
//! stands behind its properties in the arena, in mail, in stored copies and in logs, and only bridges see it as part of
//! them: `Meta::from_bridge` says that there is one, and its slot is found by another way (`TRAILED`), so other
//! messages pay nothing.

use super::admission::{Published, Publisher};
use super::events::{About, Notice};
use super::input::Outcome;
use super::publish::meta_of;
use super::{ConnectionId, Shard};
use crate::arena::{Draft, Meta};
use crate::bridge::hops::{self, Arrival, BrokerId, Trail};
use crate::codec::{Connect, ProtocolVersion, Publish, QoS, ReasonCode};
use crate::session::SessionKey;
use crate::time::Instant;
use crate::topic::OutboundAliases;
use std::net::SocketAddr;

/// The answer of CONNACK to a bridge that asked: see `codec::BRIDGE_PROPERTY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// The client is no bridge, or its version has no marks.
    NotAsked,
    /// Marks are read and written.
    Believed,
    /// The bridge comes from an address that `bridges_from` does not name.
    Refused,
}

/// The shard's state about hop marks.
#[derive(Debug, Default)]
pub(super) struct Hops {
    /// The name of this broker in marks.
    own: BrokerId,
    has_told_return: bool,
    has_told_bound: bool,
}

impl Shard {
    /// Sets the name of this broker in marks, the same on all its shards, before the first connection.
    pub fn set_broker_id(&mut self, id: BrokerId) {
        self.bridges.hops.own = id;
    }

    /// Whether a client that says it is a bridge is believed. `None`: its address is not known yet; its CONNECT is read
    /// again when it is.
    pub(super) fn believe(&mut self, id: ConnectionId, connect: &Connect<'_>) -> Option<Belief> {
        if connect.version != ProtocolVersion::V5 || !connect.is_bridge() {
            return Some(Belief::NotAsked);
        }
        let addresses = self.clients.connection(id)?.connecting_mut()?.addresses.as_deref();
        let Some(addresses) = addresses else {
            self.ask_place(id);
            return None;
        };
        let is_named = addresses.peer.is_some_and(|peer| self.limits.bridges_from.has(peer.ip()));
        Some(if is_named { Belief::Believed } else { Belief::Refused })
    }

    /// Takes the address of a connection whose CONNECT waits for that.
    pub(super) fn take_place(&mut self, id: ConnectionId, peer: Option<SocketAddr>) {
        if let Some(connection) = self.clients.connection(id)
            && let Some(connecting) = connection.connecting_mut()
        {
            connecting.addresses.get_or_insert_default().peer = peer;
        }
    }

    /// Decides how messages for a bridge are marked.
    pub(super) fn mark_for(&mut self, id: ConnectionId, belief: Belief) {
        let own = self.bridges.hops.own;
        let connection = self.clients.live_connection(id);
        if belief == Belief::Believed
            && let Some(open) = connection.open_mut()
        {
            open.marks = Some(Box::new(own));
            connection.aliases_out.get_or_insert_with(|| Box::new(OutboundAliases::new(0)));
        }
    }

    /// Does the part of `accept` from the admission on, for a message of a client that is a bridge.
    #[cold]
    #[inline(never)]
    pub(super) fn accept_of_bridge(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        version: ProtocolVersion,
        publish: Publish<'_>,
        topic: &str,
    ) -> Outcome {
        match self.publish_of_bridge(now, id, key, &publish, topic) {
            Ok(published) => self.answer_published(now, id, key, version, &publish, published),
            Err(outcome) => outcome,
        }
    }

    /// Publishes a message of a client that is a bridge. `Err`: it goes nowhere, and its publisher was answered.
    fn publish_of_bridge(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Result<Published, Outcome> {
        let own = self.bridges.hops.own;
        let open = self.clients.live_connection(id).open();
        let has_marks = open.is_some_and(|open| open.marks.is_some());
        let mut joined = Vec::new();
        publish.properties.pieces().for_each(|piece| joined.extend_from_slice(piece));
        let arrival = match has_marks {
            true => hops::arrive(&joined, own, Trail::UNKNOWN),
            // The properties of this message are its own, whatever they say.
            false => Arrival::New { properties: joined.as_slice().into(), trail: Trail::UNKNOWN },
        };
        let (properties, trail) = match arrival {
            Arrival::New { properties, trail } => (properties, trail),
            Arrival::Returned => {
                self.counters.bridge_loops_ended += 1;
                let has_told = std::mem::replace(&mut self.bridges.hops.has_told_return, true);
                let what = "its message has been here before: a loop of bridges ends here. \
                            More such are counted in $SYS/broker/bridges/dropped/loops";
                return Err(self.drop_of_bridge(now, id, key, publish, (what, has_told)));
            }
            Arrival::TooFar => {
                self.counters.bridge_paths_too_long += 1;
                let has_told = std::mem::replace(&mut self.bridges.hops.has_told_bound, true);
                let what = "its message has come over as many bridges as may be, and is dropped. \
                            More such are counted in $SYS/broker/bridges/dropped/hops";
                return Err(self.drop_of_bridge(now, id, key, publish, (what, has_told)));
            }
        };
        let all = hops::with_trail(&properties, &trail);
        let draft = Draft {
            topic: topic.as_bytes(),
            properties: [&all, &[]],
            payload: publish.payload,
            meta: Meta { from_bridge: true, ..meta_of(now, key, publish) },
        };
        Ok(self.publish(now, &draft, Publisher::Client(key, topic)))
    }

    /// Drops a message of a bridge. Its publisher did nothing wrong.
    fn drop_of_bridge(
        &mut self,
        now: Instant,
        id: ConnectionId,
        key: SessionKey,
        publish: &Publish<'_>,
        (what, has_told): (&str, bool),
    ) -> Outcome {
        if !has_told {
            let session = self.clients.session(key);
            let client_id =
                session.map(|session| Box::from(session.client_id())).unwrap_or_default();
            let notice = || Notice::new(About::Bridge, id, &client_id, what);
            self.events.notice(now, (About::Bridge, ""), notice);
        }
        if let Some(packet_id) = publish.packet_id {
            let ack = (packet_id, publish.qos == QoS::ExactlyOnce);
            self.acknowledge_in_turn(id, key, ack, ReasonCode::Success);
        }
        Outcome::Done
    }

    /// Tells the operator of a bridge that is treated like any other client.
    pub(super) fn notice_unbelieved(
        &mut self,
        now: Instant,
        id: ConnectionId,
        client_id: &str,
        belief: Belief,
    ) {
        if belief != Belief::Refused {
            return;
        }
        self.counters.bridges_unbelieved += 1;
        let what = "it says that it is a bridge, and bridges_from does not name its address: what it says of where \
                    messages have been is not believed, and loops are recognised by content";
        let notice = || Notice::new(About::Bridge, id, client_id, what);
        self.events.notice(now, (About::Bridge, "bridges_from"), notice);
    }
}
