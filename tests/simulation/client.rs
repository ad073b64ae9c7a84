//! A model client: does what the specification asks of clients, with its own flows, aliases and windows, and loses
//! its connection whenever the dice say so.

mod receive;
mod send;

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::ledger::{Fate, Ledger, Step};
use crate::network::{Network, SocketId};
use crate::scenario::Scenario;
use ringmq::codec::ProtocolVersion;
use ringmq::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What clients share.
pub(crate) struct Env {
    pub dice: Dice,
    pub now: Instant,
    pub step: Step,
    pub network: Network,
    pub ledger: Ledger,
    pub coverage: Coverage,
    pub scenario: Scenario,
    /// Every client is about to be told so.
    pub is_shutting_down: bool,
    /// No new work: come back, read, acknowledge.
    pub is_calm: bool,
    /// Connections that ended with DISCONNECT, with what is certain once the broker has read it all.
    pub goodbyes: Vec<Goodbye>,
    /// Tells what happens.
    pub is_traced: bool,
}

pub(crate) struct Goodbye {
    pub socket: SocketId,
    pub will: Option<u32>,
    pub qos0: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlowState {
    Publish,
    Release,
}

#[derive(Clone, Debug)]
struct Outbound {
    packet_id: u16,
    publication: u32,
    state: FlowState,
}

/// What outlives a connection.
#[derive(Debug)]
struct Session {
    incarnation: usize,
    outbound: VecDeque<Outbound>,
    inbound_qos2: BTreeSet<u16>,
    /// Answered with an error; the answer may not arrive.
    refused_qos2: BTreeSet<u16>,
}

/// An answer to a PUBLISH or PUBREL that the client sends when it likes, in order.
struct Answer {
    bytes: Vec<u8>,
    /// The packet id is free for the broker once this is sent.
    frees: Option<u16>,
}

struct Wire {
    socket: SocketId,
    is_open: bool,
    is_clean: bool,
    received: Vec<u8>,
    aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<String, u16>,
    alias_in_max: u16,
    alias_out_max: u16,
    /// QoS 1 and 2 messages in our direction, and theirs.
    receive_max: u16,
    send_max: u16,
    keep_alive_s: u16,
    asked_time: Instant,
    last_sent: Instant,
    answers: VecDeque<Answer>,
    unanswered: BTreeSet<u16>,
    subscribe: Option<PendingSubscribe>,
    unsubscribe: Option<(u16, Step, Vec<String>)>,
    qos0: Vec<u32>,
    will: Option<Will>,
    is_hung: bool,
    /// The broker said why it ends.
    is_told: bool,
    /// The broker ended it.
    is_over: bool,
}

struct PendingSubscribe {
    packet_id: u16,
    /// Places in the incarnation's list.
    places: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Will {
    publication: u32,
    delay_s: u32,
}

pub(crate) struct Client {
    index: usize,
    version: ProtocolVersion,
    client_id: String,
    is_member: bool,
    /// Comes at the end, to see what is retained.
    is_auditor: bool,
    packet_size_max: Option<u32>,
    wire: Option<Wire>,
    session: Option<Session>,
    /// What the broker keeps for us is not certain: begin anew.
    is_clean_needed: bool,
    /// A CONNECT was lost: the broker may have a session that is new to us.
    may_be_present: bool,
    expiry_s: u32,
    left_at: Instant,
    packet_id: u16,
    /// A will that waits, and until when it certainly does.
    delayed_will: Option<(u32, Instant)>,
    /// Refused at the end of a run, or gone for good.
    has_given_up: bool,
    /// Where DISCONNECT went last.
    goodbye: Option<SocketId>,
    /// Not to connect before the broker has let go of this one.
    after: Option<SocketId>,
}

impl Client {
    pub(crate) fn new(index: usize, dice: &mut Dice) -> Client {
        let version = match dice.below(10) {
            0 => ProtocolVersion::V31,
            1..=3 => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        let is_v5 = version == ProtocolVersion::V5;
        let is_assigned = is_v5 && dice.chance(10);
        Client {
            index,
            version,
            client_id: if is_assigned { String::new() } else { format!("client-{index}") },
            is_member: dice.chance(30),
            is_auditor: false,
            packet_size_max: (is_v5 && dice.chance(15)).then(|| *dice.pick(&[150, 600])),
            wire: None,
            session: None,
            is_clean_needed: false,
            may_be_present: false,
            expiry_s: 0,
            left_at: Instant::ZERO,
            packet_id: if dice.chance(30) { 65_500 } else { 0 },
            delayed_will: None,
            has_given_up: false,
            goodbye: None,
            after: None,
        }
    }

    pub(crate) fn auditor(index: usize, dice: &mut Dice) -> Client {
        Client {
            version: ProtocolVersion::V5,
            client_id: "auditor".into(),
            is_auditor: true,
            packet_size_max: None,
            ..Client::new(index, dice)
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.wire.is_none()
    }

    /// The broker will not publish it.
    pub(crate) fn withdraw_will(&mut self, env: &mut Env) {
        if let Some(will) = self.wire.as_mut().and_then(|wire| wire.will.take()) {
            env.ledger.publications[will.publication as usize].fate = Fate::Withdrawn;
        }
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    pub(crate) fn is_open(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.is_open)
    }

    pub(crate) fn incarnation(&self) -> Option<usize> {
        self.session.as_ref().map(|session| session.incarnation)
    }

    /// Nothing is to be read, sent or awaited.
    pub(crate) fn is_quiet(&self, env: &Env) -> bool {
        let Some(wire) = &self.wire else { return !self.wants_back(env) };
        wire.is_open
            && wire.answers.is_empty()
            && wire.subscribe.is_none()
            && wire.unsubscribe.is_none()
            && !wire.is_hung
            && env.network.sockets[wire.socket].to_client.is_empty()
            && !env.network.sockets[wire.socket].is_server_gone
            && self.session.as_ref().is_none_or(|session| session.outbound.is_empty())
    }

    pub(crate) fn describe(&self) -> String {
        let Some(wire) = &self.wire else { return format!("client {} away", self.index) };
        format!(
            "client {} {} open {} hung {} answers {} subscribe {} outbound {:?} unanswered {:?} \
             partial {} window {}",
            self.index,
            self.client_id,
            wire.is_open,
            wire.is_hung,
            wire.answers.len(),
            wire.subscribe.is_some(),
            self.session.as_ref().map(|s| &s.outbound),
            wire.unanswered,
            wire.received.len(),
            wire.send_max,
        )
    }

    /// Something that a client may do.
    pub(crate) fn act(&mut self, env: &mut Env) {
        self.read(env);
        if self.wire.is_none() {
            if env.dice.chance(if env.is_calm { 100 } else { 20 }) {
                self.connect(env);
            }
            return;
        }
        if !self.is_open() {
            if !env.is_calm && env.dice.chance(2) {
                self.lose(env);
            }
            return;
        }
        self.answer(env);
        self.keep_alive(env);
        if env.is_calm {
            return self.settle(env);
        }
        let eager = 7 * env.scenario.churn;
        match env.dice.below(200) {
            choice if choice < 70 - eager => self.publish(env),
            70..=109 => self.publish(env),
            choice if choice < 70 - eager / 2 => self.subscribe(env),
            choice if choice < 70 => self.unsubscribe(env),
            110..=129 => self.subscribe(env),
            130..=136 => self.unsubscribe(env),
            137..=140 => self.ping(env),
            141..=143 => self.say_goodbye(env),
            144..=147 => self.lose(env),
            148..=150 => self.take_over(env),
            151..=153 => self.hang(env),
            154..=160 => self.resize_window(env),
            161..=164 => self.leave_for_a_moment(env),
            _ => {}
        }
    }

    /// Time has passed: the keep alive may need a packet.
    pub(crate) fn tick(&mut self, env: &mut Env) {
        self.read(env);
        if self.is_open() {
            self.keep_alive(env);
        }
    }

    /// Whether it connects although nothing new is to be done.
    fn wants_back(&self, env: &Env) -> bool {
        let has_something = self.session.is_some() || self.is_clean_needed || self.is_auditor;
        has_something && !self.has_given_up && !env.is_shutting_down
    }

    /// Goes for good, with or without a word.
    pub(crate) fn leave(&mut self, env: &mut Env) {
        self.has_given_up = true;
        if self.is_open() && env.dice.chance(50) {
            self.say_goodbye(env);
        } else {
            self.lose(env);
        }
    }

    fn settle(&mut self, env: &mut Env) {
        let has_asked = self.session.as_ref().is_some_and(|session| {
            !env.ledger.incarnations[session.incarnation].subscriptions.is_empty()
        });
        if self.is_auditor && !has_asked {
            return self.subscribe_to_all(env);
        }
        let is_hung = self.wire.as_ref().is_some_and(|wire| wire.is_hung);
        if is_hung {
            return self.lose(env);
        }
        if let Some(wire) = &self.wire {
            env.network.sockets[wire.socket].window = 1 << 20;
        }
    }

    fn resize_window(&mut self, env: &mut Env) {
        let window = *env.dice.pick(&[0, 0, 10, 100, 1000, 1 << 20, 1 << 20, 1 << 20]);
        let Some(wire) = &self.wire else { return };
        if window < 1000 {
            env.coverage.slow_readers += 1;
        }
        env.network.sockets[wire.socket].window = window;
    }

    /// Falls silent; the keep alive will end it.
    fn hang(&mut self, env: &mut Env) {
        let Some(wire) = &mut self.wire else { return };
        if wire.keep_alive_s > 0 && env.dice.chance(30) {
            wire.is_hung = true;
            env.coverage.hung += 1;
        }
    }

    /// The network takes the connection away.
    pub(crate) fn lose(&mut self, env: &mut Env) {
        let Some(wire) = self.wire.take() else { return };
        env.network.lose(&mut env.dice, wire.socket);
        env.coverage.lost += 1;
        self.after_loss(env, &wire);
    }

    /// The connection is gone without DISCONNECT.
    fn after_loss(&mut self, env: &mut Env, wire: &Wire) {
        if !wire.is_open && env.is_calm && !env.scenario.is_ample {
            self.has_given_up = true;
            if let Some(session) = self.session.take() {
                env.ledger.end(session.incarnation, env.step);
            }
        }
        if !wire.is_open {
            // Whether CONNECT was processed is not known.
            self.after = Some(wire.socket);
            self.may_be_present = true;
            let gone_ms = env.now.ms_since(self.left_at);
            if wire.is_clean || gone_ms + 1000 > u64::from(self.expiry_s) * 1000 {
                self.is_clean_needed = true;
            }
            return;
        }
        if env.scenario.is_ample && !wire.is_over {
            self.left_at = env.now;
        } else {
            // When the broker ended it is not known; not before this.
            self.left_at = wire.last_sent;
        }
        if let Some(will) = wire.will
            && (will.delay_s == 0 || self.expiry_s == 0)
        {
            env.ledger.confirm(will.publication);
        }
        self.delayed_will = wire
            .will
            .filter(|will| will.delay_s > 0 && env.scenario.is_ample && !wire.is_hung)
            .map(|will| (will.publication, env.now.plus_s(u64::from(will.delay_s))));
        self.leave_session(env);
    }

    fn leave_session(&mut self, env: &mut Env) {
        let Some(session) = &self.session else { return };
        if self.expiry_s == 0 {
            env.ledger.end(session.incarnation, env.step);
            self.session = None;
        } else {
            env.ledger.close_link(session.incarnation, env.step);
        }
    }

    /// Connects anew while the old connection still stands.
    fn take_over(&mut self, env: &mut Env) {
        let Some(wire) = self.wire.take() else { return };
        // Its bytes still arrive, but nobody reads it any more.
        let socket = &mut env.network.sockets[wire.socket];
        socket.is_cut = true;
        socket.window = usize::MAX;
        env.coverage.take_overs += 1;
        self.after_loss(env, &wire);
        env.abandoned(wire.socket);
        self.connect(env);
    }

    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id.wrapping_add(1).max(1);
            let outbound = self.session.as_ref().map(|session| &session.outbound);
            if outbound.is_none_or(|flows| flows.iter().all(|f| f.packet_id != self.packet_id)) {
                return self.packet_id;
            }
        }
    }
}

impl Env {
    /// A socket that its client forgot: what comes is thrown away, and it ends when the broker ends it.
    fn abandoned(&mut self, socket: SocketId) {
        self.network.abandoned.push(socket);
    }
}
