//! One connection of a bridge: an MQTT client without a socket. Events go in, and the next actions come out.
//!
//! ```text
//! Waiting -- poll_attempt --> Connecting -- handle_connected --> Greeting -- CONNACK --> Up
//!    ^                            |                                 |                     |
//!    +------- pause, next address +---- failed, refused, too late --+-- lost, error ------+
//! ```
//!
//! The caller keeps the messages. After `LinkEvent::Up` it calls `resume` and then sends, in order, all messages for which it
//! has not seen `Done` or `Refused`.

mod attempts;
mod handshake;
mod inflow;
mod oversized;
mod postponed;
mod receive;
mod send;
mod suspect;
mod timeouts;
mod window;

use std::collections::VecDeque;

use super::hops::Keeping;
use super::index::{WrongRule, compile_rules};
use super::message::InMessage;
use super::rule::{Direction, Rule};
use crate::codec::{
    Disconnect, ProtocolVersion, QoS, ReasonCode, encode_puback, encode_pubrec, put_user_property,
};
use crate::config::bridge::{BridgeProtocol, BridgeSettings, RemoteAddress};
use crate::hash::KeyedHash;
use crate::time::Instant;
use crate::topic::{InboundAliases, OutboundAliases};

use attempts::{Attempts, Failure};
use inflow::Inflow;
use postponed::Postponed;
pub use send::Sent;
use suspect::Suspicion;
use timeouts::{Alive, Lateness};
use window::Window;

/// Sequences from here on belong to messages that no log holds. Such messages have packet identifiers of their own.
pub const UNLOGGED: u64 = 1 << 63;

/// Packet identifiers: the first ones are for logged messages, the next ones for other messages, and the rest for
/// SUBSCRIBE.
const LOGGED_ID_COUNT: u16 = 60_000;
const UNLOGGED_ID_COUNT: u16 = 5_000;
const SUBSCRIBE_ID_FIRST: u16 = LOGGED_ID_COUNT + UNLOGGED_ID_COUNT + 1;

/// From this many bytes of output on no message is sent; from this many bytes of events on the socket is not read.
const OUTPUT_MARK: usize = 256 << 10;
const EVENTS_MARK: usize = 1 << 20;

/// A connection may end this often before CONNACK until the link takes the bridge bit for the reason.
const SILENT_CLOSINGS_MAX: u32 = 2;

/// A link that was up for this long was taken over by chance, not again and again.
const TAKEN_OVER_WITHIN_MS: u64 = 3_600_000;

/// A link that was up for this long was of use.
const USEFUL_MS: u64 = 10_000;

/// A link's state; see the module.
pub struct Link {
    settings: BridgeSettings,
    version: ProtocolVersion,
    client_id: String,
    /// The subscribe rules of the whole bridge on its first connection; empty on the others.
    subscribe_rules: Box<[Rule]>,
    /// Encoded user properties for each message.
    message_properties: Vec<u8>,
    phase: Phase,
    /// The remote's time has passed, and its socket is read once more.
    late: Option<Lateness>,
    attempts: Attempts,
    /// 3.1.1: whether the remote takes the bit that says we are a bridge. `None`: it is not known.
    is_bridge_bit_taken: Option<bool>,
    /// The remote's last word on hop marks.
    keeping: Keeping,
    /// Connections with the bit that the remote has closed without a word.
    silent_closings: u32,
    /// How often in a row another client has taken the link over.
    taken_over_count: u32,
    /// The beginning of a frame that has not arrived whole.
    input: Vec<u8>,
    output: Vec<u8>,
    spare: Vec<u8>,
    events: VecDeque<LinkEvent>,
    event_bytes: usize,
    logged: Window,
    unlogged: Window,
    /// The remote's session may have messages up to these sequences.
    logged_through: u64,
    unlogged_through: u64,
    postponed: Postponed,
    suspicion: Suspicion,
    /// No other message is sent before this one.
    room_is_for: Option<u64>,
    /// How many `LinkEvent::Again` the owner has not heard. Until then no other message is sent.
    again_count: u32,
    /// The hash function of topics.
    hash: KeyedHash,
    inflow: Inflow,
    aliases_in: InboundAliases,
    aliases_out: OutboundAliases,
    /// What the remote allows on this connection.
    remote: Remote,
    /// Messages of topics that no rule means, or that cannot be mapped.
    unmatched_count: u64,
    /// Messages of the remote that were larger than `packet_size_max`.
    oversized_count: u64,
    /// Bytes still to come of a packet that is passed over.
    bytes_to_skip: usize,
    /// The remote has kept the session.
    session_present: bool,
    /// The link has subscribed in this process before.
    has_subscribed: bool,
    scratch: Vec<u8>,
    topic_scratch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// The socket is being connected.
    Connecting {
        deadline: Instant,
    },
    /// CONNECT was sent.
    Greeting {
        deadline: Instant,
    },
    Up(Alive),
    /// The link is closed for good.
    Closed,
}

/// The remote's limits and abilities from CONNACK.
#[derive(Clone, Copy, Debug)]
struct Remote {
    receive_max: u16,
    packet_size_max: usize,
    qos_max: QoS,
    takes_retain: bool,
}

/// The events that a link tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The owner is to call `resume`, then to send.
    Up {
        session_present: bool,
    },
    /// The owner may send what `poll_transmit` still has, and then closes the socket.
    Down {
        why: String,
    },
    /// A message for this broker. `number` is for `acked_inbound`; 0: the remote waits for no answer.
    Inbound {
        number: u64,
        message: InMessage,
    },
    /// PUBREC arrived. The owner calls `release` once that is recorded.
    Received {
        sequence: u64,
    },
    /// The remote has the message for good.
    Done {
        sequence: u64,
    },
    /// The remote does not want the message, whose exchange is over.
    Refused {
        sequence: u64,
        reason: ReasonCode,
    },
    SubscribeRefused {
        filter: String,
        reason: ReasonCode,
    },
    /// The remote cannot take the message now: the message will be sent again. The link reports this once a message,
    /// and once a topic at a time.
    Postponed {
        sequence: u64,
        reason: ReasonCode,
    },
    /// The owner is to send this message again now, or to `forget` it if it is gone.
    Due {
        sequence: u64,
    },
    /// Messages from this sequence on that are neither done nor under way were answered by `Sent::Waits`. The owner is
    /// to offer them again.
    Again {
        from: u64,
    },
    /// The owner is to set the message aside and then to `forget` it, or to `keep` it. Until then it sends no message.
    SetAside {
        sequence: u64,
        why: Unwanted,
    },
}

/// Why a message cannot be brought to the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// The remote refused the message for now, again and again.
    Refused { reason: ReasonCode, for_ms: u64 },
    /// The remote closed this many times in a row when it had got the message.
    Closed { times: u32 },
}

impl Link {
    /// Connection `index` of a bridge, counted from 0; only the first one subscribes.
    pub fn new(settings: &BridgeSettings, index: u16, seed: u64) -> Result<Link, WrongRule> {
        let rules = if index == 0 { settings.subscribe.as_slice() } else { &[] };
        let mut message_properties = Vec::new();
        for (name, value) in &settings.message_properties {
            put_user_property(&mut message_properties, name, value);
        }
        let hash = KeyedHash::new(seed);
        let pause_ms = (settings.reconnect_min_ms, settings.reconnect_max_ms);
        Ok(Link {
            version: match settings.protocol {
                BridgeProtocol::V311 => ProtocolVersion::V311,
                BridgeProtocol::V5 => ProtocolVersion::V5,
            },
            client_id: settings.client_id_of(index),
            subscribe_rules: compile_rules(0, rules, Direction::Subscribe)?,
            message_properties,
            phase: Phase::Waiting,
            late: None,
            attempts: Attempts::new(settings.addresses.len(), pause_ms, seed),
            is_bridge_bit_taken: None,
            keeping: match settings.protocol {
                BridgeProtocol::V311 => Keeping::Nothing,
                BridgeProtocol::V5 => Keeping::Properties,
            },
            silent_closings: 0,
            taken_over_count: 0,
            input: Vec::new(),
            output: Vec::new(),
            spare: Vec::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            logged: Window::new(1, LOGGED_ID_COUNT, 1),
            // A remote may remember identifiers of an earlier process, so this process begins elsewhere.
            unlogged: Window::new(
                1 + LOGGED_ID_COUNT,
                UNLOGGED_ID_COUNT,
                UNLOGGED - seed % u64::from(UNLOGGED_ID_COUNT),
            ),
            logged_through: 0,
            unlogged_through: UNLOGGED,
            postponed: Postponed::new(pause_ms, settings.refused_max_s * 1000, hash.state()),
            suspicion: Suspicion::new(settings.poison_closes_max),
            room_is_for: None,
            again_count: 0,
            inflow: Inflow::new(hash.state()),
            hash,
            aliases_in: InboundAliases::new(0),
            aliases_out: OutboundAliases::new(0),
            remote: Remote {
                receive_max: 1,
                packet_size_max: 0,
                qos_max: QoS::ExactlyOnce,
                takes_retain: true,
            },
            unmatched_count: 0,
            oversized_count: 0,
            bytes_to_skip: 0,
            session_present: false,
            has_subscribed: false,
            scratch: Vec::new(),
            topic_scratch: String::new(),
            settings: settings.clone(),
        })
    }

    /// Logged messages up to this sequence may have been sent by an earlier process.
    pub fn recovered(&mut self, through: u64) {
        self.logged_through = self.logged_through.max(through);
    }

    /// The address to open a connection to, when it is time. Then `handle_connected` or `handle_disconnected` follows.
    pub fn poll_attempt(&mut self, now: Instant) -> Option<&RemoteAddress> {
        let (address, at) = self.attempts.next();
        if self.phase != Phase::Waiting || at > now {
            return None;
        }
        let deadline = now.plus_ms(self.settings.connect_timeout_ms);
        self.phase = Phase::Connecting { deadline };
        self.settings.addresses.get(address)
    }

    /// The socket is connected.
    pub fn handle_connected(&mut self) {
        let Phase::Connecting { deadline } = self.phase else { return };
        self.phase = Phase::Greeting { deadline };
        self.late = None;
        self.input.clear();
        self.bytes_to_skip = 0;
        self.output.clear();
        self.send_connect();
    }

    /// Handles a socket that could not be connected, or is gone. Nothing happens if the link knows that it is down.
    pub fn handle_disconnected(&mut self, now: Instant, why: &str) {
        if !matches!(self.phase, Phase::Waiting | Phase::Closed) {
            self.output.clear();
            self.go_down(now, Failure::Passing, why.to_owned());
        }
    }

    /// All bytes for the remote; `recycle` takes the buffer back.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.output.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.output, std::mem::take(&mut self.spare)))
    }

    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() > self.spare.capacity() && buffer.capacity() <= 2 * OUTPUT_MARK {
            self.spare = buffer;
        }
    }

    /// Gives back memory that a busier time needed. The caller calls this now and then: a busy link makes new buffers.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
        self.scratch = Vec::new();
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        self.logged.trim();
        self.unlogged.trim();
    }

    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let event = self.events.pop_front()?;
        match &event {
            LinkEvent::Inbound { message, .. } => self.event_bytes -= message.size(),
            LinkEvent::Again { .. } => self.again_count -= 1,
            _ => {}
        }
        Some(event)
    }

    /// Whether the socket shall be read: earlier input has been taken, and answers find their way out.
    pub fn wants_bytes(&self) -> bool {
        self.event_bytes < EVENTS_MARK
            // Messages stop at the mark. Only answers go above it, and the socket is read for them.
            && self.output.len() < 2 * OUTPUT_MARK
            && self.inflow.pending_count() < usize::from(self.settings.receive_max)
    }

    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// Whether the remote keeps our own messages from us, by No Local or as it does for bridges.
    pub fn has_no_local(&self) -> bool {
        self.version == ProtocolVersion::V5 || self.is_bridge_bit_taken == Some(true)
    }

    /// Whether messages have properties on this link.
    pub fn has_properties(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    /// How the remote treats hop marks.
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// How many messages of the remote no rule took.
    pub fn unmatched_count(&self) -> u64 {
        self.unmatched_count
    }

    /// Notes that this broker has taken the inbound message `number`, or refuses it for good.
    pub fn acked_inbound(&mut self, now: Instant, number: u64, reason: ReasonCode) {
        self.inflow.take(number, reason);
        self.send_answers(now);
    }

    /// Sends DISCONNECT, and stays down.
    pub fn close(&mut self) {
        if self.is_up() {
            // 3.1.1 has this packet, too.
            let disconnect = Disconnect::new(ReasonCode::Success);
            disconnect.encode(self.version, usize::MAX, &mut self.output);
        }
        self.phase = Phase::Closed;
    }

    fn send_answers(&mut self, now: Instant) {
        while let Some(answer) = self.inflow.poll() {
            if !self.is_up() {
                continue;
            }
            self.touch(now);
            let encode = if answer.qos == QoS::AtLeastOnce { encode_puback } else { encode_pubrec };
            encode(self.version, answer.packet_id, answer.reason, &mut self.output);
        }
    }

    /// Handles an error of the remote or of this link. The link tells the remote if it can.
    fn fail(&mut self, now: Instant, reason: ReasonCode, why: &str) {
        if self.is_up() && self.version == ProtocolVersion::V5 {
            let disconnect = Disconnect::new(reason);
            disconnect.encode(self.version, self.remote.packet_size_max, &mut self.output);
        }
        self.go_down(now, Failure::Passing, why.to_owned());
    }

    fn go_down(&mut self, now: Instant, failure: Failure, why: String) {
        match self.phase {
            Phase::Up(alive) => {
                let was_of_use = alive.was_of_use || now.ms_since(alive.since) >= USEFUL_MS;
                self.attempts.lost(now, failure, was_of_use);
                if self.is_bridge_bit_taken == Some(false) {
                    // Perhaps the network refused, not the remote.
                    self.is_bridge_bit_taken = None;
                }
            }
            // A remote that does not know bridges refuses the bit, or closes each time. A remote that restarts closes
            // now and then.
            Phase::Greeting { .. }
                if self.is_bridge_bit_open()
                    && (failure == Failure::Refused
                        || self.silent_closings >= SILENT_CLOSINGS_MAX) =>
            {
                self.is_bridge_bit_taken = Some(false);
                self.silent_closings = 0;
                self.attempts.retry(now);
            }
            Phase::Greeting { .. } if self.is_bridge_bit_open() => {
                self.silent_closings += 1;
                self.attempts.failed(now, failure);
            }
            _ => {
                self.is_bridge_bit_taken = self.is_bridge_bit_taken.filter(|taken| *taken);
                self.attempts.failed(now, failure);
            }
        }
        self.phase = Phase::Waiting;
        self.late = None;
        self.input.clear();
        self.logged.clear();
        self.unlogged.clear();
        self.suspicion.lost();
        self.room_is_for = None;
        self.events.push_back(LinkEvent::Down { why });
    }
}
