//! One client of a crowd.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use ringmq::codec::{Connect, ReasonCode};

use super::{Expected, Findings, Orders, Shared};
use crate::client::{encode_subscribe, version};
use crate::engine::wire::{Opened, Wire, body_range, open_publish, unexpected};
use crate::machine::now_ns;
use crate::message;
use crate::mix;
use crate::tally::{Faults, Gaps};

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBREL: u8 = 6;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;

const PINGREQ: [u8; 2] = [0xc0, 0];
/// The packet is a normal disconnection in MQTT 3.1.1 and 5.0 alike.
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// How many seconds a session (MQTT 5) outlives its connection.
const SESSION_EXPIRY_S: u32 = 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Still,
    Connecting,
    /// CONNECT has been sent.
    Greeted,
    /// The connection is accepted; the client may not subscribe yet.
    Waiting,
    /// SUBSCRIBE has been sent.
    Subscribing,
    Ready,
    /// DISCONNECT has been sent.
    Leaving,
    Ended,
}

#[derive(Debug)]
pub(super) struct Member {
    pub number: usize,
    pub state: State,
    /// When the client was to connect, or to subscribe.
    pub due_ns: u64,
    /// When it began to connect or to subscribe, which may be long after it was due.
    pub begun_ns: u64,
    wire: Option<Wire>,
    ledger: Ledger,
}

/// The messages that have arrived, of the expected ones.
#[derive(Debug)]
enum Ledger {
    Nothing,
    InSequence { publisher: u32, first_count: u64, count: u64, next: AtomicU64, gaps: Gaps },
    Retained { seen: Vec<u64>, count: usize, wanted: usize },
}

impl Ledger {
    /// Notes a message. Returns whether it is new, and whether it completes the messages that are expected first.
    fn note(&mut self, publisher: u32, sequence: u64, faults: &mut Faults) -> Noted {
        match self {
            Ledger::InSequence { publisher: own, first_count, count, next, gaps }
                if *own == publisher =>
            {
                let is_new = if next.load(Relaxed) == sequence {
                    next.store(sequence + 1, Relaxed);
                    true
                } else {
                    gaps.note(publisher, next, sequence, faults)
                };
                *count += u64::from(is_new);
                Noted { is_new, is_complete: is_new && *count == *first_count }
            }
            Ledger::Retained { seen, count, wanted } if (publisher as usize) < *wanted => {
                let (word, bit) = (publisher as usize / 64, 1 << (publisher % 64));
                let is_new = seen[word] & bit == 0;
                seen[word] |= bit;
                *count += usize::from(is_new);
                faults.duplicated += u64::from(!is_new);
                Noted { is_new, is_complete: is_new && count == wanted }
            }
            _ => {
                faults.astray += 1;
                Noted { is_new: false, is_complete: false }
            }
        }
    }
}

struct Noted {
    is_new: bool,
    is_complete: bool,
}

impl Member {
    pub(super) fn new(number: usize, orders: &Orders) -> Member {
        let ledger = match orders.expected {
            Expected::Nothing => Ledger::Nothing,
            Expected::InSequence(first_count) => Ledger::InSequence {
                publisher: number as u32,
                first_count,
                count: 0,
                next: AtomicU64::new(0),
                gaps: Gaps::default(),
            },
            Expected::Retained(wanted) => {
                Ledger::Retained { seen: vec![0; wanted.div_ceil(64)], count: 0, wanted }
            }
        };
        Member { number, state: State::Still, due_ns: 0, begun_ns: 0, wire: None, ledger }
    }

    pub(super) fn begin(&mut self, wire: Wire, due_ns: u64) {
        (self.wire, self.due_ns, self.state) = (Some(wire), due_ns, State::Connecting);
        self.begun_ns = now_ns();
    }

    pub(super) fn end(&mut self) {
        (self.wire, self.state) = (None, State::Ended);
    }

    /// How many messages have not arrived; `fed` were sent to the client in sequence.
    pub(super) fn lost(&self, fed: u64) -> u64 {
        match &self.ledger {
            Ledger::Nothing => 0,
            Ledger::InSequence { next, gaps, .. } => {
                fed.saturating_sub(next.load(Relaxed)) + gaps.count()
            }
            Ledger::Retained { count, wanted, .. } => (wanted - count) as u64,
        }
    }

    pub(super) fn ping(&mut self) {
        if [State::Waiting, State::Ready].contains(&self.state)
            && let Some(wire) = &mut self.wire
        {
            // A connection that does not take it shows that when it is read.
            let _ = wire.write(&PINGREQ);
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(wire) = &mut self.wire {
            let _ = wire.write(&DISCONNECT);
            self.state = State::Leaving;
        }
    }

    /// Subscribes. The client was due to do so at `due_ns`.
    pub(super) fn subscribe_at(&mut self, due_ns: u64, shared: &Shared) {
        (self.due_ns, self.begun_ns) = (due_ns, now_ns());
        let orders = &shared.orders;
        let Some(wire) = &mut self.wire else { return };
        if let Ok(bytes) = subscribe(self.number, orders) {
            let _ = wire.write(&bytes);
            self.state = State::Subscribing;
        }
    }

    /// Takes the bytes that have arrived, and sends those that wait. `Err`: the reason for which the connection has
    /// ended.
    pub(super) fn serve(
        &mut self,
        writable: bool,
        buffer: &mut [u8],
        shared: &Shared,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        if self.state == State::Connecting {
            if !writable {
                return Ok(());
            }
            if let Ok(Some(error)) | Err(error) = wire.stream.take_error() {
                return Err(format!("connecting: {error}"));
            }
            wire.write(&connect(self.number, &shared.orders))?;
            self.state = State::Greeted;
        }
        wire.flush()?;
        let Member { number, state, due_ns, ledger, .. } = self;
        let (number, due_ns) = (*number, *due_ns);
        wire.read(buffer, |bytes, out| {
            let mut inbox = Inbox { number, due_ns, state, ledger, shared, findings, out };
            let mut at = 0;
            while let Some((from, to)) = body_range(&bytes[at..])? {
                inbox.take(bytes[at], &bytes[at + from..at + to], to)?;
                at += to;
            }
            Ok(at)
        })
    }
}

fn connect(number: usize, orders: &Orders) -> Vec<u8> {
    let client_id = format!("{}{number:06}", orders.name);
    let mut bytes = Vec::new();
    let receive_max = (orders.mqtt == 5).then_some(u16::MAX);
    let expiry = (orders.mqtt == 5 && orders.lasts).then_some(SESSION_EXPIRY_S);
    Connect {
        keep_alive_s: orders.target.keep_alive_s,
        clean_start: orders.clean_start,
        session_expiry_s: expiry,
        receive_max,
        ..Connect::new(version(orders.mqtt), &client_id)
    }
    .encode(&mut bytes);
    bytes
}

fn subscribe(number: usize, orders: &Orders) -> Result<Vec<u8>, String> {
    let filter = &orders.filters[number % orders.filters.len()];
    encode_subscribe(std::slice::from_ref(filter), orders.qos, orders.mqtt)
}

struct Inbox<'a> {
    number: usize,
    due_ns: u64,
    state: &'a mut State,
    ledger: &'a mut Ledger,
    shared: &'a Shared,
    findings: &'a mut Findings,
    out: &'a mut Vec<u8>,
}

impl Inbox<'_> {
    /// Takes a packet; `size` is the size of the whole packet.
    fn take(&mut self, first: u8, body: &[u8], size: usize) -> Result<(), String> {
        match (first >> 4, *self.state) {
            (CONNACK, State::Greeted) => self.accepted(body),
            (SUBACK, State::Subscribing) => {
                // [MQTT-3.9.3-1]: there is one code for each filter, behind all other fields.
                let code = *body.last().unwrap_or(&0xff);
                if code != self.shared.orders.qos {
                    return Err(format!("the broker did not grant a subscription: 0x{code:02x}"));
                }
                self.ready();
                Ok(())
            }
            (PUBLISH, State::Subscribing | State::Ready | State::Leaving) => {
                match self.publish(first, body) {
                    None => self.findings.faults.corrupt += 1,
                    Some(is_new) => {
                        self.shared.delivered.fetch_add(u64::from(is_new), Relaxed);
                        self.shared.delivered_size.fetch_add(size as u64, Relaxed);
                    }
                }
                Ok(())
            }
            (PUBREL, _) if body.len() >= 2 => {
                self.out.extend_from_slice(&[0x70, 2, body[0], body[1]]);
                Ok(())
            }
            (PINGRESP, _) => Ok(()),
            (kind, _) => Err(unexpected("client", kind, body)),
        }
    }

    fn accepted(&mut self, body: &[u8]) -> Result<(), String> {
        let (Some(flags), Some(code)) = (body.first(), body.get(1)) else {
            return Err("the broker sent a CONNACK that is cut".to_string());
        };
        if *code != 0 {
            let name = ReasonCode::from_u8(*code).filter(|_| self.shared.orders.mqtt == 5);
            let name = name.map(|reason| format!(" ({reason:?})")).unwrap_or_default();
            return Err(format!("the broker refused a connection: 0x{code:02x}{name}"));
        }
        let orders = &self.shared.orders;
        self.findings.wrong_sessions += u64::from((flags & 1 == 1) != orders.had_session);
        self.shared.accepted.fetch_add(1, Relaxed);
        if orders.filters.is_empty() {
            self.ready();
        } else if self.shared.subscribe_ns.load(Relaxed) == 0 {
            *self.state = State::Waiting;
        } else {
            self.out.extend(subscribe(self.number, orders)?);
            *self.state = State::Subscribing;
        }
        Ok(())
    }

    fn ready(&mut self) {
        *self.state = State::Ready;
        self.shared.ready.fetch_add(1, Relaxed);
        let latency_ns = now_ns().saturating_sub(self.due_ns).max(1);
        self.findings.ready.saturating_record(latency_ns);
    }

    /// Takes a message, and answers it. `None`: it is not, byte for byte, the message that was sent. True if it arrives
    /// for the first time.
    fn publish(&mut self, first: u8, body: &[u8]) -> Option<bool> {
        let orders = &self.shared.orders;
        let Opened { qos, topic, mut rest } = open_publish(first, body, self.out)?;
        if orders.mqtt == 5 {
            rest = &rest[mix::property_section(rest)?.end..];
        }
        let is_retained = matches!(orders.expected, Expected::Retained(_));
        let stamp = message::open(rest)?;
        let expected_topic = orders.topics.get(stamp.publisher as usize)?;
        if **expected_topic != *topic || qos != orders.qos || (first & 1 == 1) != is_retained {
            return None;
        }
        let next = match &*self.ledger {
            Ledger::InSequence { next, .. } => next.load(Relaxed),
            _ => 0,
        };
        let now = now_ns();
        let stamp = stamp.widen(rest.len(), next, now)?;
        if is_retained && stamp.sequence != 0 {
            return None;
        }
        let noted = self.ledger.note(stamp.publisher, stamp.sequence, &mut self.findings.faults);
        if noted.is_complete {
            self.shared.complete.fetch_add(1, Relaxed);
            self.findings.complete.saturating_record(now.saturating_sub(self.due_ns).max(1));
        }
        Some(noted.is_new)
    }
}
