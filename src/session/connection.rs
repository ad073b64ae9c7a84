//! One network connection as the shard sees it: what it may still send, what waits to be read, what leaves.
//!
//! ```text
//! accept -> Connecting -- CONNECT accepted -> Open -- DISCONNECT, error, take-over -> Closing -- flushed -> gone
//!              |                                                                          ^
//!              +-- CONNECT refused (CONNACK with its reason) -----------------------------+
//!              +-- CONNECT of another shard's client -> handed over -> gone
//! ```
//! # Park and read mode
//!
//! A connection is parked when its next packet cannot be used yet. Its input stays in its own buffer, in order. `Park`
//! says what the connection waits for; `ReadMode` follows from state and park (`Shard::update_read_mode`) and tells the
//! world how to read.
//!
//! ```text
//!  not parked  -- park(why) -->  parked  -- unpark(why): the input is used, the read mode is told anew -->  not parked
//!
//!  why        its next packet waits for
//!  Mail       lanes or the store of some shard: they are above their marks
//!  Output     the client, which does not read its answers
//!  Bridge     room in the log of a bridge that stores its messages
//!  Acks       a bridge's log: as many acknowledgements wait as may
//!  Retained   the word of a topic's owner: is there room?
//!  Rate       time: the client has published faster than it may
//!  Subscribe  other shards: SUBACK is not complete
//!  TakeOver   the client's old connection, which is read to its end first
//!  Answer     the answer to its CONNECT, which a hook gives later
//!  Turn       the next turn: its reads have used this one
//!
//!  state and park                              read mode
//!  Connecting                                  Once      until 16 KiB wait while parked
//!  Open, not parked                            Many
//!  Open, parked on Subscribe or Turn           Many      until 16 KiB wait, or input is scarce
//!  Open, parked on anything else               Stopped
//!  Open, its end is near (is_peer_gone)        Stopped   its socket is read by shard::last_read
//!  Closing                                     Many      until 1 MiB was thrown away
//!  Closing behind a DISCONNECT                 Stopped   nothing may follow
//!  The shard shuts down                        Stopped   but for clients that may still acknowledge
//! ```
//! Time in which a connection is parked does not count against its keep alive.

use super::{BufferPool, InputBuffer, OutputBuffer, OutputTotal, SessionKey};
use crate::arena::Gauge;
use crate::bridge::BrokerId;
use crate::codec::{PacketId, ProtocolVersion, ReasonCode};
use crate::limits::Limits;
use crate::time::Instant;
use crate::topic::{InboundAliases, OutboundAliases};
use std::net::SocketAddr;

/// A connection of one shard: its place and the number that tells it from others that were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub index: u32,
    pub generation: u32,
}

/// A listener's place among those of the process, in the order of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// What a connection is, and what only such a connection has.
#[derive(Debug)]
pub enum ConnectionState {
    /// Its CONNECT was not accepted yet.
    Connecting(Connecting),
    /// It is the connection of a session.
    Open(Open),
    /// Its last bytes are on their way. Its input is read, so that its client comes to read them, and thrown away.
    Closing(Closing),
}

#[derive(Debug, Default)]
pub struct Connecting {
    /// Its time for CONNECT has passed once.
    pub had_grace: bool,
    /// Known only where somebody asks for them.
    pub addresses: Option<Box<Addresses>>,
}

/// What only an open connection has, as far as that costs nothing: see `Connection`.
#[derive(Debug)]
pub struct Open {
    pub key: SessionKey,
    pub keep_alive_ms: u32,
    /// It said that it is a bridge of another broker.
    pub is_bridge: bool,
    /// It published what a bridge without room stores.
    pub is_blocked_by_bridge: bool,
    /// Limits have fallen since it was opened, and what its CONNACK said of them is kept.
    pub is_older_than_limits: bool,
    pub aliases_in: Option<Box<InboundAliases>>,
    /// Of a bridge that is believed what it says: the broker that messages for it are marked by.
    pub marks: Option<Box<BrokerId>>,
    pub pending: Option<Box<PendingSubscribe>>,
}

impl Open {
    pub fn new(key: SessionKey) -> Open {
        Open {
            key,
            keep_alive_ms: 0,
            is_bridge: false,
            is_blocked_by_bridge: false,
            is_older_than_limits: false,
            aliases_in: None,
            marks: None,
            pending: None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Closing {
    /// Bytes thrown away.
    pub ignored: u32,
}

/// How the shell shall read a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// One receive at a time, so that no operation is in flight when the connection moves to another shard.
    Once,
    /// Receive as it comes.
    Many,
    /// Cancel the receive; what had completed is still handed in.
    Stopped,
}

/// Why a connection's input waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Park {
    /// A SUBSCRIBE waits for other shards.
    Subscribe,
    /// Mail to other shards is above its mark.
    Mail,
    /// Answers to this client are above the output limit: it does not read.
    Output,
    /// A bridge that stores its messages has no room.
    Bridge,
    /// As many of its messages as it may have unacknowledged wait for a bridge's log.
    Acks,
    /// Its client's old connection is read to its end first.
    TakeOver,
    /// A hook answers its CONNECT later.
    Answer,
    /// A retained message waits for the word of its topic's owner.
    Retained,
    /// Its client has published faster than it may.
    Rate,
    /// Its reads have used their turn.
    Turn,
}

/// A SUBACK that waits for other shards.
#[derive(Debug)]
pub struct PendingSuback {
    pub packet_id: PacketId,
    pub reasons: Vec<ReasonCode>,
    /// Shared filters whose groups are on other shards, with their places among the reasons.
    pub joins: Vec<(Box<str>, usize)>,
}

/// SUBACKs that wait for other shards.
#[derive(Debug, Default)]
pub struct PendingSubscribe {
    /// More than one only where no packet waits for the first: before a connection's end, which may then not come.
    pub answers: Vec<PendingSuback>,
    /// Filters whose announcement or group is not confirmed yet.
    pub waiting: usize,
}

/// What connections of all states have, and two fields of open connections alone: each message that is sent asks for `quota`
/// or `aliases_out`, and a look at the state in front of them costs instructions (bench/CHOICES.md). `packet_size_max` and
/// `wants_problem_information` shape a CONNACK that refuses, too.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub state: ConnectionState,
    /// Where it came in, on whichever shard.
    pub listener: ListenerId,
    pub version: ProtocolVersion,
    pub park: Option<Park>,
    pub read_mode: ReadMode,
    /// The mode the shell was told last.
    pub read_mode_told: ReadMode,
    /// QoS 1 and 2 messages it takes unacknowledged.
    pub quota: u16,
    /// It asked for reason strings and user properties.
    pub wants_problem_information: bool,
    /// Its end is near, and what its client has sent is used above all marks.
    pub is_peer_gone: bool,
    /// All that its client had sent was read, and it may be taken over.
    pub is_read_out: bool,
    /// It ended while its input waited, and is forgotten when that was used: nothing is sent to it any more.
    pub has_ended: bool,
    /// Its input goes on in the next turn.
    pub is_turn_listed: bool,
    /// It said DISCONNECT: nothing may follow. [MQTT-3.14.4-2]
    pub has_said_all: bool,
    pub is_flush_listed: bool,
    pub is_close_listed: bool,
    /// It stands among the connections that wait for mail, whether or not it does so now.
    pub is_mail_listed: bool,
    /// The same of the connections that wait for a bridge.
    pub is_bridge_listed: bool,
    /// Largest packet it takes, bytes.
    pub packet_size_max: u32,
    /// Steps that its reads have cost in this turn, as far as they were charged.
    pub turn_steps: u32,
    pub last_received: Instant,
    /// In two words, of which the slab marks an empty place in one: it is told by one comparison.
    pub timer: Option<Instant>,
    /// Input that cannot be used yet: the first part of a frame, or what came while parked.
    pub input: InputBuffer,
    /// The place of its packet of which a part has arrived, or of its input that waits, in the shard's list.
    pub begun: Option<u32>,
    pub output: OutputBuffer,
    /// Always some where there are `marks`: such a connection gets nothing that was encoded for others.
    pub aliases_out: Option<Box<OutboundAliases>>,
}

/// Between which addresses a connection came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub peer: Option<SocketAddr>,
    /// The address it came in at; known only where there are hooks.
    pub listener: Option<SocketAddr>,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        (peer, listener): (Option<SocketAddr>, ListenerId),
        now: Instant,
        input_total: Gauge,
        output_total: OutputTotal,
    ) -> Connection {
        Connection {
            id,
            state: ConnectionState::Connecting(Connecting {
                had_grace: false,
                addresses: peer
                    .map(|peer| Box::new(Addresses { peer: Some(peer), listener: None })),
            }),
            listener,
            version: ProtocolVersion::V311,
            park: None,
            read_mode: ReadMode::Once,
            read_mode_told: ReadMode::Once,
            quota: u16::MAX,
            wants_problem_information: true,
            is_peer_gone: false,
            is_read_out: false,
            has_ended: false,
            is_turn_listed: false,
            has_said_all: false,
            is_flush_listed: false,
            is_close_listed: false,
            is_mail_listed: false,
            is_bridge_listed: false,
            packet_size_max: u32::MAX,
            turn_steps: 0,
            last_received: now,
            timer: None,
            input: InputBuffer::new(input_total),
            begun: None,
            output: OutputBuffer::new(output_total),
            aliases_out: None,
        }
    }

    /// Between which addresses it came, as far as that is known: nothing, once its CONNECT was accepted.
    pub fn addresses(&self) -> Addresses {
        match &self.state {
            ConnectionState::Connecting(Connecting { addresses: Some(addresses), .. }) => {
                **addresses
            }
            _ => Addresses::default(),
        }
    }

    /// `None`: its CONNECT was accepted, or it is closing.
    pub fn connecting_mut(&mut self) -> Option<&mut Connecting> {
        match &mut self.state {
            ConnectionState::Connecting(connecting) => Some(connecting),
            _ => None,
        }
    }

    pub fn is_connecting(&self) -> bool {
        matches!(self.state, ConnectionState::Connecting(_))
    }

    pub fn is_open(&self) -> bool {
        self.open().is_some()
    }

    /// `None`: its CONNECT was not accepted yet, or it is closing.
    #[inline]
    pub fn open(&self) -> Option<&Open> {
        match &self.state {
            ConnectionState::Open(open) => Some(open),
            _ => None,
        }
    }

    #[inline]
    pub fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.state {
            ConnectionState::Open(open) => Some(open),
            _ => None,
        }
    }

    /// The client said that it bridges from another broker.
    pub fn is_bridge(&self) -> bool {
        self.open().is_some_and(|open| open.is_bridge)
    }

    /// When the keep alive of an open connection will have passed. Time in which its input is not used does not count.
    pub fn keep_alive_deadline(&self, now: Instant) -> Option<Instant> {
        let heard = if self.park.is_some() { now } else { self.last_received };
        Some(heard.plus_ms(u64::from(self.open()?.keep_alive_ms)))
    }

    /// Its keep alive has passed.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.keep_alive_deadline(now).is_some_and(|deadline| deadline <= now)
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.state, ConnectionState::Closing(_))
    }

    pub fn session(&self) -> Option<SessionKey> {
        self.open().map(|open| open.key)
    }

    /// Appends an answer to the output. `write` gets the size that it should have at most; an answer that cannot be made
    /// so small is not sent. [MQTT-3.1.2-24]
    #[inline]
    pub fn answer(
        &mut self,
        pool: &mut BufferPool,
        write: impl FnOnce(ProtocolVersion, usize, &mut Vec<u8>),
    ) {
        let (version, size_max) = (self.version, self.packet_size_max as usize);
        let mut is_cut = false;
        self.output.append(pool, |out| {
            let before = out.len();
            write(version, size_max, out);
            if out.len() - before > size_max {
                out.truncate(before);
                is_cut = true;
            }
        });
        if is_cut {
            self.output.give_back_empty(pool);
        }
    }

    /// Whether one more message may be added to the output; a message may pass the limit, the next one then waits.
    ///
    /// When the shard's bound is met, a connection still gets a message at a time: whoever reads goes on, and is
    /// never left with messages that nothing would send.
    #[inline]
    pub fn has_room(&self, limits: &Limits) -> bool {
        let size = self.output.size();
        size < limits.output_size_max
            && (size == 0 || self.output.total() < limits.shard_output_bytes_max)
    }
    /// Whether there is room for each of several messages of together `size` bytes, one after the other.
    #[inline]
    pub fn has_room_for(&self, size: usize, limits: &Limits) -> bool {
        self.output.size() + size <= limits.output_size_max
            && self.output.total() + size <= limits.shard_output_bytes_max
    }
}
