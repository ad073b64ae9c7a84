//! One core's broker, complete and deterministic: the world calls `handle_*`, then does what `poll_*` says.
//!
//! A `handle_*` runs to its end. Time is a parameter. Nothing here waits, reads a clock or does I/O, so many shards run
//! in one test thread from a seed. A shard's memory is its own: other shards get copies by mail.

mod acks;
mod begun;
pub mod bridge_mail;
mod bridges;
mod connect;
mod connecting;
mod counters;
mod discards;
mod encode;
mod events;
mod flapping;
mod groups;
mod hooks;
mod hops;
mod input;
mod interest;
mod known;
mod lag;
mod last_read;
mod lifetime;
mod mail;
mod metadata;
mod origin;
mod output;
mod post;
mod publish;
mod rates;
mod refusals;
mod repeats;
mod retained;
mod router;
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

pub use counters::Gauges;
pub use events::{About, Event, Notice};
pub use mail::{LANES, Lane, Mail};
pub use origin::Origin;
pub use refusals::Refusal;
pub use shutdown::Remainder;
pub use store::Loser;

pub use crate::counters::Counters;
pub use crate::session::{ConnectionId, Output, Part, ReadMode};

use crate::arena::{Arena, Draft, Gauge, Generation};
use crate::hash::KeyedHash;
use crate::limits::Limits;
use crate::pipeline::{Pipeline, Stage};
use crate::random::Random;
use crate::session::{BufferPool, Clients, DropLog, EncodedOnce, OutputTotal, SessionKey, Totals};
use crate::stages::plugin::{self, HookSet};
use crate::time::Instant;
use groups::Groups;
use hooks::Plugged;
use interest::Announcement;
use mail::Outbox;
use router::Router;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use timers::Timers;

/// A shard's number: 0 to `SHARD_COUNT_MAX - 1`.
pub type ShardId = u16;

/// What makes a shard.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub id: ShardId,
    pub shard_count: u16,
    pub limits: Limits,
    /// The same for all shards of a process.
    pub seed: u64,
}

/// A connection to move to the shard of its client: the file descriptor and all that was read.
#[derive(Debug)]
pub struct Handover {
    /// Gone here.
    pub connection: ConnectionId,
    pub shard: ShardId,
    /// Everything received, from CONNECT on.
    pub bytes: Vec<u8>,
    /// When CONNECT must have been processed.
    pub deadline: Instant,
}

/// A connection to close. Its id is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    pub connection: ConnectionId,
    /// Its client has said DISCONNECT, so nothing follows that would have to be read before the socket is closed.
    pub has_said_all: bool,
}

/// Borrows what a session needs of its shard.
macro_rules! context {
    ($shard:expr, $now:expr) => {
        $crate::session::Context {
            now: $now,
            limits: &$shard.limits,
            counters: &mut $shard.counters,
            stored: &$shard.stored,
            pool: &mut $shard.pool,
            encoded: &mut $shard.encoded,
            drops: &mut $shard.drops,
        }
    };
}
pub(crate) use context;

pub struct Shard {
    id: ShardId,
    shard_count: u16,
    limits: Limits,
    /// While the process is short of memory: the bounds that hold when it no longer is.
    limits_with_memory: Option<Box<Limits>>,
    hash: KeyedHash,
    random: Random,
    arena: Arena,
    pipeline: Pipeline,
    clients: Clients,
    router: Router,
    groups: Groups,
    retained: retained::Kept,
    claims: retained::Claims,
    setters: retained::SlotSetters,
    rates: rates::Rates,
    flapping: flapping::Flapping,
    lag: lag::Lag,
    outbox: Outbox,
    bridges: bridges::Bridges,
    announcements: HashMap<Box<str>, Announcement, ahash::RandomState>,
    announcement_version: u64,
    /// Questions for retained messages, answered when the mail of the turn is in.
    queries: VecDeque<retained::Query>,
    /// Answers of others, for when the mail of the turn is in; at most one for each session that asked.
    answers: VecDeque<retained::Answer>,
    /// Sessions whose pull goes on.
    pulls: VecDeque<SessionKey>,
    pull_request: u64,
    retained_sweep: Option<Box<str>>,
    timers: Timers,
    counters: Counters,
    sys: sys::Sys,
    events: events::Events,
    /// Bytes of messages in session queues and in flight; of wills; of all output buffers.
    stored: Gauge,
    store: store::Store,
    will_bytes: Gauge,
    metadata: metadata::Metadata,
    output_total: OutputTotal,
    /// Memory of clients' input that cannot be used yet; of CONNECTs of which a part has arrived.
    frame_bytes: Gauge,
    connect_bytes: Gauge,
    pool: BufferPool,
    /// For input, whose buffers are small.
    input_pool: BufferPool,
    encoded: EncodedOnce,
    /// The hooks that somebody has; empty without `plugged`.
    hook_set: HookSet,
    plugged: Option<Box<Plugged>>,
    drops: DropLog,
    discards: discards::Discards,
    call_steps_most: u64,
    turn_steps_most: u64,
    turns: steps::Turns,
    postponed_mail: post::Postponed,
    /// Who did not get a run in one go.
    left_of_run: Vec<SessionKey>,
    topic_scratch: Vec<u8>,
    /// A client that is a bridge has connected since the shard began.
    has_bridge_clients: bool,
    hops: hops::Hops,
    closes: VecDeque<ConnectionId>,
    handovers: VecDeque<Handover>,
    connecting: connecting::Connecting,
    begun: begun::Begun,
    read_changes: VecDeque<ConnectionId>,
    parked_on_mail: VecDeque<ConnectionId>,
    /// Of these, connections that are gone.
    gone_from_mail: usize,
    /// Connections that end when their sockets were read once more.
    last_reads: VecDeque<last_read::LastRead>,
    /// The same, in the next turn.
    postponed_reads: VecDeque<last_read::LastRead>,
    take_overs: take_over::TakeOvers,
    is_shutting_down: bool,
    shutdown: shutdown::Shutdown,
}

impl Shard {
    pub fn new(settings: ShardSettings, now: Instant) -> Shard {
        let ShardSettings { id, shard_count, limits, seed } = settings;
        assert!(shard_count >= 1 && usize::from(shard_count) <= crate::limits::SHARD_COUNT_MAX);
        assert!(id < shard_count);
        let hash = KeyedHash::new(seed);
        let totals = Totals::default();
        let Totals { connect_input: connect_bytes, output: output_total, stored, metadata } =
            totals.clone();
        let mut shard = Shard {
            id,
            shard_count,
            random: Random::new(seed ^ (u64::from(id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            arena: Arena::new(
                limits.arena_size,
                limits.arena_slots,
                limits.large_message_size,
                stored.clone(),
            ),
            pipeline: Pipeline::default(),
            clients: Clients::new(hash.clone(), totals),
            router: Router::new(&hash, limits.route_cache_max, limits.metadata_routes_max()),
            groups: Groups::new(hash.state(), stored.clone()),
            retained: retained::Kept::new(&hash),
            claims: retained::Claims::new(shard_count, &hash),
            setters: retained::SlotSetters::default(),
            rates: rates::Rates::new(&limits, &hash),
            flapping: flapping::Flapping::new(&hash),
            lag: lag::Lag::default(),
            outbox: Outbox::new(shard_count, limits.mail_bytes_mark),
            bridges: bridges::Bridges::new(&hash),
            announcements: HashMap::with_hasher(hash.state()),
            announcement_version: 0,
            queries: VecDeque::new(),
            answers: VecDeque::new(),
            pulls: VecDeque::new(),
            pull_request: 0,
            retained_sweep: None,
            timers: Timers::default(),
            counters: Counters::default(),
            sys: sys::Sys::new(id, shard_count, now),
            events: events::Events::default(),
            stored,
            store: store::Store::default(),
            will_bytes: Gauge::default(),
            metadata: metadata::Metadata::new(metadata),
            output_total,
            frame_bytes: Gauge::default(),
            connect_bytes,
            pool: BufferPool::default(),
            input_pool: BufferPool::default(),
            encoded: EncodedOnce::default(),
            hook_set: HookSet::EMPTY,
            plugged: None,
            drops: DropLog::default(),
            discards: discards::Discards::default(),
            call_steps_most: 0,
            turn_steps_most: 0,
            turns: steps::Turns::new(),
            postponed_mail: post::Postponed::new(shard_count),
            left_of_run: Vec::new(),
            topic_scratch: Vec::new(),
            has_bridge_clients: false,
            hops: hops::Hops::default(),
            closes: VecDeque::new(),
            handovers: VecDeque::new(),
            connecting: connecting::Connecting::new(&hash),
            begun: begun::Begun::default(),
            read_changes: VecDeque::new(),
            parked_on_mail: VecDeque::new(),
            gone_from_mail: 0,
            last_reads: VecDeque::new(),
            postponed_reads: VecDeque::new(),
            take_overs: take_over::TakeOvers::new(&hash),
            is_shutting_down: false,
            shutdown: shutdown::Shutdown::default(),
            hash,
            limits,
            limits_with_memory: None,
        };
        shard.begin_metadata();
        shard.bound_held();
        shard.start_sys(now);
        shard
    }

    /// Runs all stages over what was admitted, then what waited for it: answers to other shards, retained messages,
    /// credit, parked input.
    pub fn run_stages(&mut self, now: Instant) {
        self.run_pipeline(now);
        if self.has_chores() {
            self.do_chores(now);
        }
        self.end_measure();
    }

    /// Whether anything but the pipeline has work: a turn of few messages pays for each look.
    #[inline]
    fn has_chores(&self) -> bool {
        let waiting = self.queries.len()
            | self.answers.len()
            | self.pulls.len()
            | self.clients.credits.len()
            | self.bridges.query_count()
            | self.parked_on_mail.len()
            | self.discards.count()
            | self.drops.chore_count();
        waiting != 0
            || self.claims.has_begun() | self.outbox.is_held() | self.turns.is_pending
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
        // Parked input may have admitted more.
        self.run_pipeline(now);
        self.free_discards();
        self.tell_drops(now);
    }

    /// Copies a message into the arena. `None`: the message is larger than the arena; it is counted and goes nowhere.
    #[inline(always)]
    fn admit(&mut self, now: Instant, draft: &Draft<'_>) -> Option<Generation> {
        let generation = match self.arena.admit(draft) {
            Ok(generation) => generation,
            Err(_) => self.admit_after_stages(now, *draft)?,
        };
        self.counters.admitted += 1;
        Some(generation)
    }

    #[inline]
    fn run_pipeline(&mut self, now: Instant) {
        if self.arena.held() != 0 {
            self.run_all_held(now);
        }
    }

    #[inline(never)]
    fn run_all_held(&mut self, now: Instant) {
        self.pipeline.admit_to(self.arena.admitted());
        plugin::prepare(&mut self.pipeline);
        if let Some(batch) = self.pipeline.take(Stage::Encode) {
            if self.hook_set.contains(HookSet::DELIVER) {
                self.encode::<true>(now, batch);
            } else {
                self.encode::<false>(now, batch);
            }
            self.pipeline.ack(Stage::Encode, batch.through());
            plugin::finish(&mut self.pipeline, batch.through());
        }
        if let Some(batch) = self.pipeline.take(Stage::Bridge) {
            if self.bridges.is_any() {
                batch.for_each(|generation| self.bridge(generation));
            }
            self.pipeline.ack(Stage::Bridge, batch.through());
        }
        let released = self.pipeline.release();
        self.arena.release_to(released);
        self.check_store(now);
    }

    /// More waits for other shards, or for the bridges, than their lanes should hold.
    #[inline]
    fn is_mail_above_mark(&self) -> bool {
        self.outbox.is_above_mark() || self.bridges_above_mark()
    }

    pub fn poll_handover(&mut self) -> Option<Handover> {
        self.handovers.pop_front()
    }

    /// The shards that there is mail for.
    pub fn mail_receivers(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.outbox.receivers()
    }

    /// The next item for a lane that has room.
    pub fn poll_mail(&mut self, to: ShardId, lane: Lane) -> Option<Mail> {
        self.outbox.poll(to, lane, &mut self.counters)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// A connection whose address is to be told by `handle_peer`, before it is closed.
    pub fn poll_nameless(&mut self) -> Option<ConnectionId> {
        self.events.poll_nameless()
    }

    /// Where a connection comes from, which an event speaks of.
    pub fn handle_peer(&mut self, id: ConnectionId, peer: Option<SocketAddr>) {
        self.events.name(id, peer);
    }

    /// Whether connection events are kept for `poll_event`.
    pub fn set_events(&mut self, is_on: bool) {
        self.events.set(is_on);
    }

    pub fn counters(&mut self) -> &mut Counters {
        self.counters.stale_reads = self.arena.stale_reads();
        &mut self.counters
    }

    /// Nothing to do before the next input or deadline.
    pub fn is_idle(&self) -> bool {
        let waiting = self.clients.flush.len()
            | self.closes.len()
            | self.handovers.len()
            | self.read_changes.len()
            | self.queries.len()
            | self.answers.len()
            | self.pulls.len()
            | self.last_reads.len()
            | self.clients.credits.len()
            | self.drops.count()
            | self.discards.count();
        waiting == 0
            && self.arena.held() == 0
            && self.outbox.is_empty()
            && self.bridges.is_idle()
            && self.claims.is_idle()
            && !self.has_postponed()
            && (self.parked_on_mail.is_empty() || self.is_mail_above_mark())
            && !self.has_readers_to_look_at()
    }

    pub fn connection_count(&self) -> usize {
        self.clients.connection_count()
    }
}
