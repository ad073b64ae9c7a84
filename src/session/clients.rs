//! The sessions and connections of one shard, and which of them have something to send.

use super::{
    Absent, Connection, ConnectionId, Context, Envelope, HolderName, ListenerId, Offer,
    OutputTotal, Session, SessionKey, ShareId,
};
use crate::arena::{Budget, Gauge, Message, Run, allocated, tree_size};
use crate::codec::QoS;
use crate::hash::{KeyedHash, PartedTable};
use crate::time::Instant;
use slab::Slab;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// The sessions and connections of a shard. A key finds nothing once its session or connection has ended.
#[derive(Debug)]
pub struct Clients {
    sessions: Slab<Session>,
    connections: Slab<Connection>,
    /// Indices of sessions by their client ids. The sessions hold the texts.
    directory: PartedTable<u32>,
    hash: KeyedHash,
    generation: u32,
    /// Connections with output that is not in flight.
    pub flush: VecDeque<ConnectionId>,
    /// Sessions with credit to give back.
    pub credits: Vec<SessionKey>,
    /// Connected sessions.
    pub connected_count: usize,
    /// Subscriptions of all sessions, shared ones included.
    pub subscription_count: usize,
    totals: Totals,
    absent: Absent,
    /// Bytes that the client ids take.
    ids_size: usize,
}

/// Gauges of what all connections and sessions hold together.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Input of connections that have not said CONNECT.
    pub connect_input: Gauge,
    pub output: OutputTotal,
    /// Messages that wait for sessions or are in flight.
    pub stored: Gauge,
    /// Memory of sessions and connections beside messages, input and output, and the memory that the shard holds for
    /// them.
    pub metadata: Budget,
}

impl Clients {
    pub fn new(hash: KeyedHash, totals: Totals) -> Clients {
        Clients {
            sessions: Slab::new(),
            connections: Slab::new(),
            directory: PartedTable::default(),
            absent: Absent::new(&hash),
            hash,
            generation: 0,
            flush: VecDeque::new(),
            credits: Vec::new(),
            connected_count: 0,
            subscription_count: 0,
            totals,
            ids_size: 0,
        }
    }

    /// Whether no connection has output that is not in flight, and no session has credit to give back.
    pub fn is_idle(&self) -> bool {
        self.flush.is_empty() && self.credits.is_empty()
    }

    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Counts the messages that clients were sent and have not acknowledged, of the sessions at `count_max` indices
    /// from `place` on. Returns the index behind them; `None`: there are no more sessions.
    pub fn unacknowledged(&self, place: usize, count_max: usize) -> (usize, Option<usize>) {
        let end = place.saturating_add(count_max);
        let sessions =
            (place..end.min(self.sessions.capacity())).filter_map(|at| self.sessions.get(at));
        let count = sessions.map(|session| session.inflight.outstanding_count()).sum();
        (count, (end < self.sessions.capacity()).then_some(end))
    }

    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Bytes that sessions and connections take, apart from what their clients ask for.
    pub fn bytes(&self) -> usize {
        self.table_bytes() + self.ids_size
    }

    /// As `bytes`, without client ids, which sessions count.
    pub fn table_bytes(&self) -> usize {
        let absent_count = self.sessions.len().saturating_sub(self.connected_count);
        let timer_count = self.connections.len() + absent_count;
        allocated(self.sessions.capacity() * size_of::<Session>())
            + allocated(self.connections.capacity() * size_of::<Connection>())
            + tree_size(timer_count, 2 * size_of::<u64>())
            + self.directory.bytes()
            + self.absent.table_bytes()
    }

    /// Bytes by which one more session makes the tables grow, if they are full.
    pub fn session_growth(&self) -> usize {
        match self.sessions.len() < self.sessions.capacity() {
            true => 0,
            false => grown_by(self.sessions.capacity()) * size_of::<Session>(),
        }
    }

    pub fn open(
        &mut self,
        (peer, listener): (Option<SocketAddr>, ListenerId),
        now: Instant,
    ) -> ConnectionId {
        let generation = self.next_generation();
        make_place(&mut self.connections);
        let entry = self.connections.vacant_entry();
        let id = ConnectionId { index: entry.key() as u32, generation };
        entry.insert(Connection::new(
            id,
            (peer, listener),
            now,
            self.totals.connect_input.clone(),
            self.totals.output.clone(),
        ));
        id
    }

    /// The connection is there, and is no session's any more.
    pub fn remove_connection(&mut self, id: ConnectionId) -> Connection {
        self.live_connection(id);
        self.connections.remove(id.index as usize)
    }

    #[inline]
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.index as usize)?;
        (connection.id == id).then_some(connection)
    }

    #[inline]
    pub fn session(&mut self, key: SessionKey) -> Option<&mut Session> {
        let session = self.sessions.get_mut(key.index as usize)?;
        (session.key == key).then_some(session)
    }

    /// The connection that the caller works for: the caller has looked it up, or a packet came from it. Closing a connection
    /// does not remove it. `Shard::drop_connection` alone removes connections: at the end of a turn, at the end of the socket,
    /// for a newer connection, and in front of a hand-over, behind which no packet is used.
    #[inline]
    #[track_caller]
    pub fn live_connection(&mut self, id: ConnectionId) -> &mut Connection {
        self.connection(id).expect("a connection that is worked for is there")
    }

    /// The session of an open connection, or of a key that the caller has looked up. A session stays as long as its
    /// connection is open, and the end of one session is no other's.
    #[inline]
    #[track_caller]
    pub fn live_session(&mut self, key: SessionKey) -> &mut Session {
        self.session(key).expect("a session that is worked for is there")
    }

    /// As `live_session`, with the connection, which is open.
    #[inline]
    #[track_caller]
    pub fn live_pair(&mut self, key: SessionKey) -> (&mut Session, &mut Connection) {
        match self.pair(key) {
            Some((session, Some(connection))) => (session, connection),
            _ => panic!("an open connection has a session, and the session has it"),
        }
    }

    /// A session and its connection, when a client is connected. `None`: the session has ended.
    #[inline]
    pub fn pair(&mut self, key: SessionKey) -> Option<(&mut Session, Option<&mut Connection>)> {
        let session = self.sessions.get_mut(key.index as usize)?;
        if session.key != key {
            return None;
        }
        // A session lets go of its connection before that is removed.
        let connection = session.connection.map(|id| &mut self.connections[id.index as usize]);
        debug_assert!(connection.as_ref().is_none_or(|c| Some(c.id) == session.connection));
        Some((session, connection))
    }

    /// Whether the session's client is connected and is a bridge of another broker.
    pub fn is_bridge(&mut self, key: SessionKey) -> bool {
        matches!(self.pair(key), Some((_, Some(connection))) if connection.is_bridge())
    }

    pub fn find(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.hash.bytes(client_id.as_bytes());
        let is_it = |index: &u32| *self.sessions[*index as usize].client_id == *client_id;
        self.directory.find(hash, is_it).map(|index| self.sessions[*index as usize].key)
    }

    /// Creates a session for a client that has none.
    pub fn create(&mut self, client_id: &str) -> SessionKey {
        debug_assert!(self.find(client_id).is_none(), "a client id has one session");
        let generation = self.next_generation();
        make_place(&mut self.sessions);
        let entry = self.sessions.vacant_entry();
        let key = SessionKey { index: entry.key() as u32, generation };
        let mut session = Session::new(key, client_id, &self.totals.stored, &self.totals.metadata);
        session.recount();
        entry.insert(session);
        self.ids_size += allocated(client_id.len());
        let Clients { sessions, directory, hash, .. } = self;
        let hash_of = |index: &u32| hash.bytes(sessions[*index as usize].client_id.as_bytes());
        directory.insert(hash_of(&key.index), key.index, hash_of);
        key
    }

    /// The session is there, and has no connection any more.
    pub fn remove_session(&mut self, key: SessionKey) -> Session {
        debug_assert!(self.live_session(key).connection.is_none());
        self.live_session(key);
        let Clients { sessions, directory, hash, .. } = self;
        let hash_of = |index: &u32| hash.bytes(sessions[*index as usize].client_id.as_bytes());
        directory.remove(hash_of(&key.index), |index| *index == key.index, hash_of);
        let mut session = self.sessions.remove(key.index as usize);
        session.end_count();
        self.ids_size -= allocated(session.client_id.len());
        self.absent.set_bytes(session.address, key, session.absent_bytes, 0);
        if session.left_s > 0 {
            self.absent.unlist(session.address, key, session.left_s);
        }
        self.absent.leave(session.address);
        session
    }

    /// Notes the address from which the client of a session has connected.
    pub fn set_address(&mut self, key: SessionKey, address: Option<HolderName>) {
        let entered = self.absent.enter(address);
        let session = self.live_session(key);
        debug_assert!(session.absent_bytes == 0 && session.left_s == 0);
        let before = std::mem::replace(&mut session.address, entered);
        self.absent.leave(before);
    }

    /// The name of the address of a session's client; `None`: addresses are not told apart.
    pub fn address_name(&self, key: SessionKey) -> Option<HolderName> {
        let session = self.sessions.get(key.index as usize).filter(|session| session.key == key)?;
        self.absent.name(session.address)
    }

    /// The gauge of the wills of the address of a session's client; `None`: addresses are not told apart.
    pub fn wills_of(&mut self, key: SessionKey) -> Option<Gauge> {
        let address = self.session(key)?.address;
        (address != ShareId::ALL).then(|| self.absent.wills(address))
    }

    pub fn absent(&self) -> &Absent {
        &self.absent
    }

    /// Sends a message that is plain at QoS 0, if nothing else has to be done for it; `false`: it must be offered.
    #[inline(always)]
    pub fn send_plain(
        &mut self,
        key: SessionKey,
        context: &mut Context<'_>,
        message: &Message<'_>,
        retain: bool,
    ) -> bool {
        let Some(session) = self.sessions.get(key.index as usize) else { return false };
        let Some(id) = session.connection else { return false };
        let connection = &mut self.connections[id.index as usize];
        if session.key != key || !session.send_plain(connection, context, message, retain) {
            return false;
        }
        if !connection.is_flush_listed {
            connection.is_flush_listed = true;
            self.flush.push_back(id);
        }
        true
    }

    /// As `send_plain`, at QoS 1 or 2. It is not inlined, so that messages at QoS 0 pay nothing for it.
    #[inline(never)]
    pub fn send_plain_acked(
        &mut self,
        key: SessionKey,
        context: &mut Context<'_>,
        message: &Message<'_>,
        asked: (QoS, bool),
    ) -> bool {
        let Some((session, Some(connection))) = self.pair(key) else { return false };
        if !session.send_plain_acked(connection, context, message, asked) {
            return false;
        }
        if !connection.is_flush_listed {
            connection.is_flush_listed = true;
            let id = connection.id;
            self.flush.push_back(id);
        }
        true
    }

    /// Sends a run of messages that are plain at QoS 0, if nothing else has to be done for it; `false`: each message
    /// must be offered.
    #[inline]
    pub fn send_run(&mut self, key: SessionKey, context: &mut Context<'_>, run: &Run<'_>) -> bool {
        let Some((session, Some(connection))) = self.pair(key) else { return false };
        if !session.send_run(connection, context, run) {
            return false;
        }
        let id = connection.id;
        self.list_flush(id);
        true
    }

    /// As `send_run`, at QoS 1 or 2.
    #[inline(never)]
    pub fn send_acked_run(
        &mut self,
        key: SessionKey,
        context: &mut Context<'_>,
        run: &Run<'_>,
        qos: QoS,
    ) -> bool {
        let Some((session, Some(connection))) = self.pair(key) else { return false };
        if !session.send_acked_run(connection, context, run, qos) {
            return false;
        }
        let id = connection.id;
        self.list_flush(id);
        true
    }

    /// Offers a message to a session; `None` when the session is gone.
    #[inline]
    pub fn offer(
        &mut self,
        key: SessionKey,
        context: &mut Context<'_>,
        message: &Message<'_>,
        envelope: Envelope,
    ) -> Option<Offer> {
        let session = self.sessions.get_mut(key.index as usize)?;
        if session.key != key {
            return None;
        }
        let connection = session.connection.map(|id| &mut self.connections[id.index as usize]);
        let Some(connection) = connection else {
            return self.offer_to_absent(key, context, message, envelope);
        };
        let offer = session.offer(Some(&mut *connection), context, message, envelope);
        if !connection.is_flush_listed && connection.output.has_bytes() {
            connection.is_flush_listed = true;
            self.flush.push_back(connection.id);
        }
        Some(offer)
    }

    #[inline(never)]
    fn offer_to_absent(
        &mut self,
        key: SessionKey,
        context: &mut Context<'_>,
        message: &Message<'_>,
        envelope: Envelope,
    ) -> Option<Offer> {
        let session = self.sessions.get_mut(key.index as usize)?;
        let before = session.queue.stored_bytes();
        let offer = session.offer(None, context, message, envelope);
        let stored = session.absent_bytes + session.queue.stored_bytes() - before;
        self.absent.set_bytes(session.address, key, session.absent_bytes, stored);
        session.absent_bytes = stored;
        Some(offer)
    }

    /// Lists a session among the absent while its client is away, and takes it off the list when the client is back.
    pub fn list_absent(&mut self, key: SessionKey, now: Instant) {
        let session = self.sessions.get_mut(key.index as usize);
        let session = session.expect("a session is listed while it is there");
        debug_assert_eq!(session.key, key);
        let is_absent = session.connection.is_none();
        let stored = if is_absent { session.stored_bytes() } else { 0 };
        self.absent.set_bytes(session.address, key, session.absent_bytes, stored);
        session.absent_bytes = stored;
        if is_absent && session.left_s == 0 {
            session.left_s = u32::try_from(now.0 / 1000 + 1).unwrap_or(u32::MAX);
            self.absent.list(session.address, key, session.left_s);
        } else if !is_absent && session.left_s > 0 {
            self.absent.unlist(session.address, key, std::mem::take(&mut session.left_s));
        }
    }

    /// Drops a part of what is stored for a session; returns how many messages were dropped.
    pub fn shed(&mut self, key: SessionKey, context: &mut Context<'_>) -> u64 {
        let count = self.live_session(key).shed(context);
        self.list_absent(key, context.now);
        count
    }

    /// Sends what waits for a session, as far as there is room. Returns whether its retained messages are to be fetched
    /// now.
    #[inline]
    pub fn pump(&mut self, key: SessionKey, context: &mut Context<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(key.index as usize) else { return false };
        if session.key != key {
            return false;
        }
        let connection = session.connection.map(|id| &mut self.connections[id.index as usize]);
        let Some(connection) = connection else { return session.wants_pull() };
        if session.has_waiting() {
            session.pump(connection, context);
        }
        // An acknowledgement may have freed a place.
        session.is_credit_due |= session.is_short_of_places;
        if session.is_credit_due {
            self.credits.push(key);
        }
        let wants_pull = session.wants_pull();
        if !connection.is_flush_listed && connection.output.has_bytes() {
            connection.is_flush_listed = true;
            self.flush.push_back(connection.id);
        }
        wants_pull
    }

    /// Notes that a message of a shared subscription has used a place. The group's owner gets the place back when the
    /// client's window has one.
    pub fn use_place(&mut self, key: SessionKey, membership: u32) {
        if let Some(session) = self.session(key) {
            session.use_place(membership);
            self.credits.push(key);
        }
    }

    /// Whether the client may be sent so many more messages above QoS 0 now.
    pub fn has_free_places(&mut self, key: SessionKey, count: u16) -> bool {
        let Some((session, Some(connection))) = self.pair(key) else { return false };
        session.inflight.free_places(connection.quota) >= count
    }

    /// Lists the connection for a flush if it has bytes to send.
    #[inline]
    pub fn list_flush(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.index as usize)
            && !connection.is_flush_listed
            && connection.output.has_bytes()
        {
            connection.is_flush_listed = true;
            self.flush.push_back(connection.id);
        }
    }

    /// Ids of all connections, in the order of their indices.
    pub fn connection_ids(&self) -> Vec<ConnectionId> {
        self.connections.iter().map(|(_, connection)| connection.id).collect()
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, session)| session)
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }
}

/// By how many entries a slab of this capacity grows: by a quarter, so that little of it is empty.
fn grown_by(capacity: usize) -> usize {
    (capacity / 4).max(4)
}

fn make_place<T>(slab: &mut Slab<T>) {
    if slab.len() == slab.capacity() {
        slab.reserve_exact(grown_by(slab.capacity()));
    }
}
