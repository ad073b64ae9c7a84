//! What stands between the socket of a connection and the shard: a link with its transport, for connections that are not plain.
//!
//! Plain connections have no link. A shard without links pays one comparison for each read and for each output.
//!
//! ```text
//!  handle_bytes -> Transport::open -> handle_plain      a part at a time; before CONNECT all parts of a read together
//!  poll_flush   <- Transport::seal <- OutputBuffer      one output at a time, as of any connection
//! ```
//! A transport sends nothing by itself before CONNECT was accepted: such a connection may still move to another shard, with
//! nothing in flight. The last thing that leaves on a link is the transport's goodbye.

use super::{ConnectionId, Output, Shard};
use crate::arena::allocated;
use crate::codec::ReasonCode;
use crate::session::connection::Connection;
use crate::time::Instant;
use crate::transport::{End, Transport};

/// The links of a shard, each in the place of its connection.
#[derive(Debug, Default)]
pub(super) struct Links {
    places: Vec<Option<Link>>,
    count: usize,
    /// The memory of all transports, in bytes.
    transport_bytes: usize,
    /// The sealed bytes that are in flight.
    sealed_bytes: usize,
}

#[derive(Debug)]
struct Link {
    /// The generation of the connection's id.
    generation: u32,
    /// `None` while what it has opened is worked on.
    transport: Option<Box<dyn Transport>>,
    /// The part of `Links::transport_bytes` that is the transport's.
    bytes: usize,
    /// The part of `Links::sealed_bytes` that is the connection's.
    sealed: usize,
    /// The transport was told to say goodbye.
    has_said_goodbye: bool,
}

impl Links {
    /// Whether there is any link.
    #[inline(always)]
    pub(super) fn is_any(&self) -> bool {
        self.count != 0
    }

    /// Memory of the links and their transports, in bytes.
    pub(super) fn bytes(&self) -> usize {
        allocated(self.places.capacity() * size_of::<Option<Link>>()) + self.transport_bytes
    }

    /// Sealed bytes in flight.
    pub(super) fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    /// The connection is reached through `transport` from now on.
    pub(super) fn insert(&mut self, connection: &mut Connection, transport: Box<dyn Transport>) {
        let index = connection.id.index as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        connection.output.set_room(transport.room());
        let bytes = transport.bytes();
        let link = Link {
            generation: connection.id.generation,
            transport: Some(transport),
            bytes,
            sealed: 0,
            has_said_goodbye: false,
        };
        let before = self.places[index].replace(link);
        assert!(
            before.is_none(),
            "the link of the connection before was removed with that connection"
        );
        self.count += 1;
        self.transport_bytes += bytes;
    }

    /// The link of a connection; `None`: the connection is plain, or gone.
    fn get(&mut self, id: ConnectionId) -> Option<&mut Link> {
        let link = self.places.get_mut(id.index as usize)?.as_mut()?;
        (link.generation == id.generation).then_some(link)
    }

    #[inline(always)]
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.is_any() && self.finds(id)
    }

    #[inline(never)]
    fn finds(&self, id: ConnectionId) -> bool {
        let link = self.places.get(id.index as usize).and_then(Option::as_ref);
        link.is_some_and(|link| link.generation == id.generation)
    }

    /// The connection is gone, or goes to another shard: its transport, unless that is in use.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<dyn Transport>> {
        self.get(id)?;
        let link = self.places[id.index as usize].take()?;
        self.count -= 1;
        if self.count == 0 {
            self.places = Vec::new();
        }
        self.transport_bytes -= link.bytes;
        self.sealed_bytes -= link.sealed;
        link.transport
    }

    /// Whether the transport of a connection waits for the connection's next output.
    fn has_own_bytes(&mut self, id: ConnectionId) -> bool {
        let transport = self.get(id).and_then(|link| link.transport.as_ref());
        transport.is_some_and(|transport| transport.has_own_bytes())
    }

    /// The memory of a transport has changed.
    fn count(&mut self, id: ConnectionId) {
        let Some(link) = self.get(id) else { return };
        let bytes = link.transport.as_ref().map_or(0, |transport| transport.bytes());
        let before = std::mem::replace(&mut link.bytes, bytes);
        self.transport_bytes = self.transport_bytes - before + bytes;
    }
}

impl Shard {
    /// Received bytes of a connection with a link, opened part by part.
    #[inline(never)]
    pub(super) fn open_bytes(&mut self, now: Instant, id: ConnectionId, bytes: &mut [u8]) {
        let Some(connection) = self.clients.connection(id) else { return };
        let is_connecting = connection.is_connecting();
        if connection.is_closing() {
            return self.use_plain(now, id, bytes);
        }
        let link = self.connections.links.get(id).expect("the caller has looked");
        let mut transport = link
            .transport
            .take()
            .expect("only this function takes it, and is not called by itself");
        let mut first = Vec::new();
        let mut used = 0;
        // What follows an end is thrown away.
        while used < bytes.len() && transport.end().is_none() {
            let opened = transport.open(&mut bytes[used..]);
            assert!(opened.used > 0, "a transport that is given bytes uses some");
            used += opened.used;
            if is_connecting {
                first.extend_from_slice(opened.plain);
            } else if !opened.plain.is_empty() {
                self.use_plain(now, id, opened.plain);
                if !self.clients.connection(id).is_some_and(|connection| connection.is_open()) {
                    break;
                }
            }
        }
        if !first.is_empty() {
            self.use_plain(now, id, &first);
        }
        self.put_back(id, transport);
        self.end_if_over(now, id);
        self.list_own_bytes(id);
    }

    /// Bytes of MQTT that a transport has opened.
    #[inline(never)]
    pub(super) fn use_plain(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        self.handle_plain(now, id, bytes);
    }

    /// The transport goes back to its link; if its connection is on its way to another shard, the transport goes, too.
    fn put_back(&mut self, id: ConnectionId, transport: Box<dyn Transport>) {
        if self.clients.connection(id).is_some() {
            let link = self.connections.links.get(id).expect("a link goes with its connection");
            link.transport = Some(transport);
            return self.connections.links.count(id);
        }
        let mut handovers = self.connections.handovers.iter_mut();
        if let Some(handover) = handovers.find(|handover| handover.connection == id) {
            handover.transport = Some(transport);
        }
    }

    /// Ends a connection whose peer has ended what it sends, as soon as the input before that was used.
    pub(super) fn end_if_over(&mut self, now: Instant, id: ConnectionId) {
        if !self.connections.links.is_any() {
            return;
        }
        let transport = self.connections.links.get(id).and_then(|link| link.transport.as_ref());
        match transport.and_then(|transport| transport.end()) {
            Some(End::Goodbye) => self.end_by_goodbye(now, id),
            Some(End::Broken(why)) => self.end_broken(now, id, why),
            None => {}
        }
    }

    /// The peer says that nothing follows. The shard uses what the peer sent before, and ends the connection unless that waits.
    fn end_by_goodbye(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.is_open() {
            self.use_last_input(now, id);
        }
        let is_used =
            self.clients.connection(id).is_some_and(|connection| connection.park.is_none());
        if is_used {
            self.close(now, id, "the transport was closed by its peer");
        }
    }

    fn end_broken(&mut self, now: Instant, id: ConnectionId, why: &str) {
        let Some(connection) = self.clients.connection(id) else { return };
        if connection.is_closing() {
            return;
        }
        if connection.is_connecting() {
            self.counters.protocol_errors += 1;
            self.notice_stranger(now, id, &[], why);
            return self.close(now, id, why);
        }
        self.use_last_input(now, id);
        self.refuse(now, id, ReasonCode::ProtocolError, why);
    }

    /// Lists a connection whose transport has something to send.
    pub(super) fn list_own_bytes(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connection(id) else { return };
        let waits = connection.is_closing() || self.connections.links.has_own_bytes(id);
        if waits && !connection.is_connecting() && !connection.is_flush_listed {
            connection.is_flush_listed = true;
            self.clients.flush.push_back(id);
        }
    }

    /// The next output of a connection with a link, sealed.
    #[inline(never)]
    pub(super) fn take_sealed(&mut self, id: ConnectionId) -> Option<Output> {
        let connection = self.clients.connection(id)?;
        let link = self.connections.links.get(id).expect("the caller has looked");
        let transport = link.transport.as_mut().expect("nothing is being opened");
        if connection.is_closing() && !std::mem::replace(&mut link.has_said_goodbye, true) {
            transport.say_goodbye();
        }
        let output = match connection.output.take() {
            Some(output) => output,
            None if transport.has_own_bytes() => connection.output.take_empty()?,
            None => {
                // The transport has no goodbye, or has said it.
                if connection.is_closing() && connection.output.size() == 0 {
                    self.list_close(id);
                }
                return None;
            }
        };
        if connection.has_ended {
            self.forget_output(id, output);
            return None;
        }
        let sealed = transport.seal(output, &mut self.delivery.pool);
        let size = sealed.size();
        assert!(size > 0, "a transport that seals makes bytes");
        connection.output.resize_in_flight(size);
        link.sealed = size;
        self.connections.links.sealed_bytes += size;
        self.connections.links.count(id);
        Some(sealed)
    }

    /// The sealed output of a connection has left. Returns whether the transport still has something to send.
    #[inline(never)]
    pub(super) fn end_sealed(&mut self, id: ConnectionId) -> bool {
        let links = &mut self.connections.links;
        let Some(link) = links.get(id) else { return false };
        let size = std::mem::take(&mut link.sealed);
        links.sealed_bytes -= size;
        links.has_own_bytes(id)
    }
}
