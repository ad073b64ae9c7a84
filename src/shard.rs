//! One core's broker, complete and deterministic: the world calls `handle_*`, then does what `poll_*` says.
//!
//! A `handle_*` runs to its end. Time is a parameter. Nothing here waits, reads a clock or does I/O, so many shards run
//! in one test thread from a seed. A shard's memory is its own: other shards get copies by mail.

mod acks;
mod admission;
mod begun;
pub mod bridges;
mod connect;
mod connecting;
mod connections;
mod discards;
mod events;
mod flapping;
mod flow;
mod gauges;
mod guards;
mod hooks;
mod hops;
mod inbox;
mod incoming;
mod input;
mod interest;
mod lag;
mod last_read;
mod lifetime;
mod link;
mod memory;
mod metadata;
mod new_limits;
mod origin;
mod output;
mod publish;
mod questions;
mod rates;
mod refusals;
mod repeats;
mod retained;
mod shares;
mod sharing;
mod shortage;
mod shutdown;
mod steps;
mod store;
mod stranger;
mod subscribe;
mod sys;
mod take_over;
mod timers;

pub use events::{About, Event, Notice};
pub use lifetime::Arrival;
pub use origin::Origin;
pub use refusals::Refusal;
pub use shutdown::Remainder;
pub use store::Loser;

pub use crate::counters::Counters;
pub use crate::session::{ConnectionId, ListenerId, Output, Part, ReadMode};

pub use crate::peers::ShardId;
pub use crate::routing::mail::{LANES, Lane, Mail};

use crate::hash::KeyedHash;
use crate::limits::{Limits, Sizes};
use crate::peers::Peers;
use crate::pipeline::{Batch, Stage};
use crate::plugin::{HookSet, Hosted};
use crate::random::Random;
use crate::routing::groups::Groups;
use crate::session::{Clients, Delivery, Totals};
use crate::stages::encode::Encode;
use crate::stages::plugin;
use crate::time::Instant;
use crate::transport::Transport;
use bridges::Bridges;
use connections::Connections;
use events::Events;
use flow::Flow;
use guards::Guards;
use interest::Interest;
use memory::Memory;
use retained::Retained;
use shutdown::Shutdown;
use std::net::SocketAddr;
use steps::Work;
use sys::Sys;
use timers::Timers;

/// The settings from which a shard is made.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub id: ShardId,
    pub shard_count: u16,
    pub sizes: Sizes,
    pub limits: Limits,
    /// The seed is the same for all shards of a process.
    pub seed: u64,
}

/// A connection that moves to the shard of its client: the file descriptor and all bytes that were read.
#[derive(Debug)]
pub struct Handover {
    /// The connection's id, which is not used here any more.
    pub connection: ConnectionId,
    pub shard: ShardId,
    pub listener: ListenerId,
    /// All bytes that were received, from CONNECT on.
    pub bytes: Vec<u8>,
    /// The time by which CONNECT must have been processed.
    pub deadline: Instant,
    /// `None`: the connection is plain.
    pub transport: Option<Box<dyn Transport>>,
}

/// A connection that the world is to close. Its id is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    pub connection: ConnectionId,
    /// Whether the client has sent DISCONNECT, so that no further bytes have to be read before the socket is closed.
    pub has_said_all: bool,
}

/// One core's broker. Each field owns what belongs together; work that needs several of them is a method of the shard.
pub struct Shard {
    peers: Peers,
    sizes: Sizes,
    limits: Limits,
    counters: Counters,
    random: Random,
    flow: Flow,
    clients: Clients,
    delivery: Delivery,
    connections: Connections,
    interest: Interest,
    groups: Groups,
    retained: Retained,
    hooks: Hosted,
    bridges: Bridges,
    memory: Memory,
    guards: Guards,
    work: Work,
    timers: Timers,
    sys: Sys,
    events: Events,
    shutdown: Shutdown,
}

impl Shard {
    pub fn new(settings: ShardSettings, now: Instant) -> Shard {
        let ShardSettings { id, shard_count, sizes, limits, seed } = settings;
        let peers = Peers::new(id, shard_count, KeyedHash::new(seed));
        let hash = peers.hash();
        let totals = Totals::default();
        let mut shard = Shard {
            random: Random::new(seed ^ (u64::from(id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            flow: Flow::new(&peers, &sizes, &limits, &totals.stored),
            clients: Clients::new(hash.clone(), totals.clone()),
            delivery: Delivery::new(&totals),
            connections: Connections::new(hash),
            interest: Interest::new(hash),
            groups: Groups::new(hash.state(), totals.stored.clone()),
            retained: Retained::new(&peers),
            hooks: Hosted::default(),
            bridges: Bridges::new(hash),
            memory: Memory::new(&totals),
            guards: Guards::new(&limits, hash),
            work: Work::new(),
            timers: Timers::default(),
            counters: Counters::default(),
            sys: Sys::new(id, shard_count, now),
            events: Events::default(),
            shutdown: Shutdown::default(),
            peers,
            sizes,
            limits,
        };
        shard.begin_metadata();
        shard.bound_held();
        shard.start_sys(now);
        shard
    }

    /// Runs all stages over the admitted messages, then does the work that waited for this: answers to other shards,
    /// retained messages, credit, parked input.
    pub fn run_stages(&mut self, now: Instant) {
        self.run_pipeline(now);
        if self.has_chores() {
            self.do_chores(now);
        }
        self.end_measure();
    }

    /// Whether anything but the pipeline has work: in a turn of few messages, each separate check would cost.
    #[inline]
    fn has_chores(&self) -> bool {
        let waiting = self.clients.credits.len()
            | self.bridges.query_count()
            | self.connections.parked_on_mail.len()
            | self.memory.discards.count()
            | self.delivery.drops.chore_count();
        waiting != 0
            || self.retained.has_chores()
            || self.flow.outbox.is_blocked() | self.work.turns.is_pending
            || self.wants_store_look()
    }

    #[inline(never)]
    fn do_chores(&mut self, now: Instant) {
        self.take_questions();
        self.answer_asks(now);
        self.answer_queries(now);
        self.take_answers(now);
        self.continue_pulls(now);
        self.give_back_credits(now);
        self.answer_bridges(now);
        self.check_store(now);
        self.unpark_mail(now);
        self.go_on(now);
        // Parked input may have admitted further messages.
        self.run_pipeline(now);
        self.free_discards();
        self.tell_drops(now);
    }

    #[inline]
    fn run_pipeline(&mut self, now: Instant) {
        if self.flow.arena.held() != 0 {
            self.run_all_held(now);
        }
    }

    #[inline(never)]
    fn run_all_held(&mut self, now: Instant) {
        self.flow.pipeline.admit_to(self.flow.arena.admitted());
        plugin::prepare(&mut self.flow.pipeline);
        if let Some(batch) = self.flow.pipeline.take(Stage::Encode) {
            self.encode(now, batch);
            self.flow.pipeline.ack(Stage::Encode, batch.through());
            plugin::finish(&mut self.flow.pipeline, batch.through());
        }
        if let Some(batch) = self.flow.pipeline.take(Stage::Bridge) {
            if self.bridges.is_any() {
                self.bridge(batch);
            }
            self.flow.pipeline.ack(Stage::Bridge, batch.through());
        }
        let released = self.flow.pipeline.release();
        self.flow.arena.release_to(released);
        self.check_store(now);
    }

    #[inline(always)]
    fn encode(&mut self, now: Instant, batch: Batch) {
        let Flow { arena, router, outbox, left_of_run, .. } = &mut self.flow;
        let Retained { kept, setters, .. } = &mut self.retained;
        let has_deliver_hook = self.hooks.set.contains(HookSet::DELIVER);
        let encode = Encode {
            peers: &self.peers,
            arena,
            router,
            clients: &mut self.clients,
            groups: &mut self.groups,
            kept,
            setters,
            outbox,
            hooks: &mut self.hooks,
            returns: self.bridges.returns(),
            left_of_run,
        };
        let mut context = self.delivery.context(now, &self.limits, &mut self.counters);
        match has_deliver_hook {
            true => encode.run::<true>(&mut context, batch),
            false => encode.run::<false>(&mut context, batch),
        }
    }

    fn bridge(&mut self, batch: Batch) {
        for generation in batch {
            if let Some(message) = self.flow.arena.get(generation) {
                self.bridges.stage.copy(generation, &message);
            }
        }
    }

    /// Whether more mail waits for other shards, or for the bridges, than their lanes should hold.
    #[inline]
    fn is_mail_above_mark(&self) -> bool {
        self.flow.outbox.is_above_mark() || self.bridges_above_mark()
    }

    pub fn poll_handover(&mut self) -> Option<Handover> {
        self.connections.handovers.pop_front()
    }

    /// The shards for which there is mail.
    pub fn mail_receivers(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.flow.outbox.receivers()
    }

    /// The next item for a lane that has room.
    pub fn poll_mail(&mut self, to: ShardId, lane: Lane) -> Option<Mail> {
        self.flow.outbox.poll(to, lane, &mut self.counters)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// A connection whose address `handle_peer` is to tell before the connection is closed.
    pub fn poll_nameless(&mut self) -> Option<ConnectionId> {
        self.events.poll_nameless()
    }

    /// Handles the address of a connection that an event is about.
    pub fn handle_peer(&mut self, id: ConnectionId, peer: Option<SocketAddr>) {
        self.events.name(id, peer);
    }

    /// Whether connection events are kept for `poll_event`.
    pub fn set_events(&mut self, is_on: bool) {
        self.events.set(is_on);
    }

    pub fn counters(&mut self) -> &mut Counters {
        self.counters.stale_reads = self.flow.arena.stale_reads();
        // Each message has a generation of its own.
        self.counters.admitted = self.flow.arena.admitted().number();
        &mut self.counters
    }

    /// Whether there is nothing to do before the next input or deadline.
    pub fn is_idle(&self) -> bool {
        let waiting = self.delivery.drops.count() | self.memory.discards.count();
        waiting == 0
            && self.clients.is_idle()
            && self.connections.is_idle()
            && self.flow.is_idle()
            && self.bridges.is_idle()
            && self.retained.is_idle()
            && !self.has_postponed()
            && (self.connections.parked_on_mail.is_empty() || self.is_mail_above_mark())
            && !self.has_readers_to_look_at()
    }

    pub fn connection_count(&self) -> usize {
        self.clients.connection_count()
    }
}
