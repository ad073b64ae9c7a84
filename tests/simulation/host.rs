//! One shard and its world: the turn of production, in steps between which other shards may run, with faults of the
//! network and the lanes.

use crate::client::Env;
use crate::hooks::PlannedHooks;
use crate::memory::{counted, given_back, uncounted};
use crate::network::SocketId;
use ringmq::limits::Limits;
use ringmq::shard::{
    ConnectionId, Lane, ListenerId, Mail, Output, ReadMode, Shard, ShardId, ShardSettings,
};
use ringmq::time::Instant;
use ringmq::turn::memory::Lanes as LanesOf;
use ringmq::turn::{Adoption, Event, STEPS, Step, World, advance};
use std::collections::{BTreeMap, VecDeque};

/// How often a shard's thread stands still, and how many of its chances to run it misses then at most: others do several
/// turns meanwhile.
const PAUSE_PERCENT: usize = 3;
const PAUSE_MAX: usize = 40;

pub(crate) type Lanes = LanesOf<SocketId>;

pub(crate) struct Host {
    pub shard: Shard,
    /// What the shard goes by now.
    pub limits: Limits,
    /// By name of a bound: what was held when the bound fell, or less, as far as that went since.
    pub above: BTreeMap<&'static str, usize>,
    net: Net,
    /// The place of the next step.
    step: usize,
    /// When the turn began.
    now: Instant,
    /// How often it is not its turn to run.
    pause: usize,
}

/// What a shard's turn finds outside, as far as it is this shard's own.
struct Net {
    id: ShardId,
    sockets: BTreeMap<ConnectionId, SocketId>,
    /// What had happened when the turn began.
    completions: VecDeque<Completion>,
    /// What completes in the next turn, for connections that are gone.
    late: VecDeque<Completion>,
    /// The bytes that the last event lends.
    lent: Vec<u8>,
    /// Posted, in this order; others see it from the front on while this shard does its next step.
    posted: VecDeque<(ShardId, Lane, Mail)>,
    /// Connections with a transport that were accepted.
    arriving: VecDeque<Adoption<SocketId>>,
    handover_count: u64,
    full_count: u64,
}

enum Completion {
    Accepted(SocketId),
    Received(ConnectionId, Vec<u8>),
    Sent(ConnectionId, Output),
    /// Whether nothing is left in the socket.
    Ended(ConnectionId, bool),
}

impl Host {
    pub(crate) fn new(id: usize, seed: u64, env: &Env) -> Host {
        let id = id as ShardId;
        let settings = ShardSettings {
            id,
            shard_count: env.scenario.shard_count as u16,
            sizes: env.scenario.sizes.clone(),
            limits: env.scenario.limits.clone(),
            seed,
        };
        let mut shard = counted(|| Shard::new(settings, env.now));
        shard.set_events(env.is_traced);
        let plan = env.ledger.plan;
        if plan.is_on {
            let hooks = PlannedHooks::new(plan, env.ledger.runs.clone());
            shard.set_hooks(env.now, Box::new(hooks));
        }
        let net = Net {
            id,
            sockets: BTreeMap::new(),
            completions: VecDeque::new(),
            late: VecDeque::new(),
            lent: Vec::new(),
            posted: VecDeque::new(),
            arriving: VecDeque::new(),
            handover_count: 0,
            full_count: 0,
        };
        let limits = env.scenario.limits.clone();
        Host { shard, limits, above: BTreeMap::new(), net, step: 0, now: env.now, pause: 0 }
    }

    /// Takes other limits, unless a turn is under way.
    pub(crate) fn set_limits(&mut self, env: &mut Env, limits: &Limits) {
        if self.step != 0 {
            return;
        }
        env.coverage.limits_set += 1;
        self.limits = limits.clone();
        let limits = limits.clone();
        counted(|| self.shard.set_limits(env.now, limits));
    }

    pub(crate) fn sockets(&self) -> &BTreeMap<ConnectionId, SocketId> {
        &self.net.sockets
    }

    /// What the shard gave away and no other has taken yet, about.
    pub(crate) fn posted_bytes(&self) -> usize {
        let outputs = self.net.completions.iter().map(|completion| match completion {
            Completion::Sent(_, output) => output.bytes.capacity(),
            _ => 0,
        });
        self.net.posted.iter().map(|(_, _, mail)| mail.size()).sum::<usize>()
            + outputs.sum::<usize>()
    }

    pub(crate) fn has_sockets(&self) -> bool {
        !self.net.sockets.is_empty()
    }

    /// Connections that were handed over, and how often a lane was full.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [self.net.handover_count, self.net.full_count]
    }

    /// Some steps of the turn, unless others run meanwhile.
    pub(crate) fn advance(&mut self, env: &mut Env, lanes: &mut Lanes) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        if env.dice.chance(PAUSE_PERCENT) {
            self.pause = env.dice.between(1, PAUSE_MAX);
        }
        for _ in 0..env.dice.between(1, 3) {
            self.step(env, lanes);
        }
    }

    /// The whole turn, or what is left of one that has begun.
    pub(crate) fn turn(&mut self, env: &mut Env, lanes: &mut Lanes) {
        loop {
            self.step(env, lanes);
            if self.step == 0 {
                return;
            }
        }
    }

    pub(crate) fn finish_turn(&mut self, env: &mut Env, lanes: &mut Lanes) {
        if self.step != 0 {
            self.turn(env, lanes);
        }
    }

    fn step(&mut self, env: &mut Env, lanes: &mut Lanes) {
        self.net.let_through(lanes, usize::MAX);
        if self.step == 0 {
            self.now = env.now;
            self.net.begin_turn(env);
        }
        let step = STEPS[self.step];
        let mut world = Outside { net: &mut self.net, env, lanes };
        let (shard, now) = (&mut self.shard, self.now);
        counted(|| advance(step, shard, &mut world, now));
        if step == Step::Mail && !env.is_calm {
            self.net.let_through(lanes, env.dice.below(self.net.posted.len() + 1));
        }
        self.step = (self.step + 1) % STEPS.len();
        while let Some(event) = counted(|| self.shard.poll_event()) {
            println!("{} {:?} shard {}: {event}", env.step, self.now, self.net.id);
            given_back(event);
        }
    }
}

impl Net {
    /// Takes what has happened from the sockets. Who wrote first is heard first.
    fn begin_turn(&mut self, env: &mut Env) {
        assert!(self.completions.is_empty(), "a turn takes all that has happened");
        self.completions.append(&mut self.late);
        while env.is_calm || env.dice.chance(80) {
            let Some(socket) = env.network.accepts[usize::from(self.id)].pop_front() else { break };
            let Some(transport) = env.network.sockets[socket].take_transport() else {
                self.completions.push_back(Completion::Accepted(socket));
                continue;
            };
            self.arriving.push_back(Adoption {
                socket,
                listener: ListenerId::default(),
                bytes: Vec::new(),
                deadline: env.now.plus_ms(env.scenario.limits.connect_timeout_ms),
                transport: Some(transport),
            });
        }
        let by_age: BTreeMap<_, _> =
            self.sockets.iter().map(|(id, socket)| (*socket, *id)).collect();
        for (socket, id) in by_age {
            if env.is_calm || env.dice.chance(70) {
                self.serve(env, id, socket);
            }
        }
    }

    /// Completions of one socket.
    fn serve(&mut self, env: &mut Env, id: ConnectionId, socket_id: SocketId) {
        let socket = &mut env.network.sockets[socket_id];
        if let Some(flight) = socket.flight.take_if(|flight| flight.is_sent()) {
            assert_eq!(flight.connection, id);
            self.completions.push_back(Completion::Sent(id, flight.output));
        }
        if socket.is_client_gone && socket.flight.is_some() && env.dice.chance(30) {
            // The send fails.
            return self.completions.push_back(Completion::Ended(id, false));
        }
        let receive_count = match socket.read_mode {
            ReadMode::Once => 1,
            ReadMode::Many => env.dice.between(1, 3),
            ReadMode::Stopped => usize::from(std::mem::take(&mut socket.is_tail_due)),
        };
        let mut has_received = false;
        for _ in 0..receive_count {
            let count = match env.dice.below(10) {
                0..=2 => 1 + env.dice.below(8),
                3..=6 => 1 + env.dice.below(200),
                _ => 1 << 16,
            };
            let bytes = socket.receive(count);
            if bytes.is_empty() {
                break;
            }
            has_received = true;
            self.completions.push_back(Completion::Received(id, bytes));
        }
        let is_end = socket.is_client_gone && socket.to_server.is_empty();
        // A single receive brings bytes or the end, not both.
        let may_end = match socket.read_mode {
            ReadMode::Once => !has_received,
            ReadMode::Many => true,
            ReadMode::Stopped => receive_count > 0,
        };
        if is_end && may_end && (env.is_calm || env.dice.chance(50)) {
            self.completions.push_back(Completion::Ended(id, true));
        }
    }

    /// Puts up to `count` posted items into their lanes.
    fn let_through(&mut self, lanes: &mut Lanes, count: usize) {
        let count = count.min(self.posted.len());
        for (to, lane, mail) in self.posted.drain(..count) {
            lanes.post(self.id, to, lane, mail);
        }
    }

    fn remove(&mut self, connection: ConnectionId) -> SocketId {
        self.sockets.remove(&connection).expect("a connection that is known")
    }
}

/// The world of one shard for one step.
struct Outside<'a> {
    net: &'a mut Net,
    env: &'a mut Env,
    lanes: &'a mut Lanes,
}

impl World for Outside<'_> {
    type Socket = SocketId;

    fn next_event(&mut self) -> Option<Event<'_, SocketId>> {
        Some(match self.net.completions.pop_front()? {
            Completion::Accepted(socket) => {
                Event::Accepted { socket, listener: ListenerId::default() }
            }
            Completion::Received(connection, bytes) => {
                uncounted(|| self.net.lent = bytes);
                Event::Received { connection, bytes: &mut self.net.lent }
            }
            Completion::Sent(connection, output) => Event::Sent { connection, output },
            Completion::Ended(connection, is_read_out) => Event::Ended { connection, is_read_out },
        })
    }

    fn next_mail(&mut self, lane: Lane) -> Option<(ShardId, Mail)> {
        uncounted(|| self.lanes.next_mail(self.net.id, lane))
    }

    fn next_adoption(&mut self) -> Option<Adoption<SocketId>> {
        uncounted(|| self.net.arriving.pop_front())
            .or_else(|| self.lanes.next_adoption(self.net.id))
    }

    fn adopt(&mut self, connection: ConnectionId, socket: SocketId, mode: ReadMode) {
        self.env.network.sockets[socket].read_mode = mode;
        let has_place = |other: &ConnectionId| other.index == connection.index;
        assert!(!self.net.sockets.keys().any(has_place), "a place is one connection's");
        uncounted(|| self.net.sockets.insert(connection, socket));
    }

    fn refuse(&mut self, socket: SocketId) {
        assert!(!self.env.scenario.is_ample, "a connection was turned away");
        let output = uncounted(|| self.env.network.sockets[socket].drop_by_server());
        assert!(output.is_none(), "nothing was sent");
    }

    fn release(&mut self, connection: ConnectionId) -> SocketId {
        let id = uncounted(|| self.net.remove(connection));
        let socket = &self.env.network.sockets[id];
        assert_eq!(socket.read_mode, ReadMode::Once);
        assert!(socket.flight.is_none());
        self.net.handover_count += 1;
        id
    }

    fn hand_over(&mut self, to: ShardId, adoption: Adoption<SocketId>) {
        self.env.coverage.transports_moved += u64::from(adoption.transport.is_some());
        uncounted(|| self.lanes.hand_over(self.net.id, to, adoption));
    }

    fn read_rest(&mut self, connection: ConnectionId, size_max: usize) -> Option<&mut [u8]> {
        let socket = &mut self.env.network.sockets[*self.net.sockets.get(&connection)?];
        let size = 1 + self.env.dice.below(1 << 12);
        uncounted(|| self.net.lent = socket.receive(size.min(size_max)));
        (!self.net.lent.is_empty()).then_some(&mut self.net.lent[..])
    }

    fn read(&mut self, connection: ConnectionId, mode: ReadMode) {
        let socket = &mut self.env.network.sockets[self.net.sockets[&connection]];
        socket.is_tail_due = mode == ReadMode::Stopped && self.env.dice.chance(50);
        socket.read_mode = mode;
    }

    fn has_room(&mut self, to: ShardId, lane: Lane) -> bool {
        let posted = self.net.posted.iter().filter(|item| (item.0, item.1) == (to, lane)).count();
        let has_room = self.lanes.room(self.net.id, to, lane) > posted;
        self.net.full_count += u64::from(!has_room);
        has_room
    }

    fn post(&mut self, to: ShardId, lane: Lane, mail: Mail) {
        uncounted(|| self.net.posted.push_back((to, lane, mail)));
    }

    fn deliver(&mut self) {
        uncounted(|| self.lanes.depart(self.net.id));
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        output: Output,
        may_leave_now: bool,
    ) -> Option<Output> {
        let env = &mut *self.env;
        let socket = self.net.sockets[&connection];
        uncounted(|| {
            env.network.send(socket, connection, output);
            let socket = &mut env.network.sockets[socket];
            if !may_leave_now || socket.is_client_gone || env.dice.chance(50) {
                return None;
            }
            socket.carry(&mut env.dice);
            let flight = socket.flight.take_if(|flight| flight.is_sent())?;
            env.coverage.left_now += 1;
            Some(flight.output)
        })
    }

    fn close(&mut self, connection: ConnectionId, _: bool) {
        // What completes late finds nobody.
        let Some(id) = uncounted(|| self.net.sockets.remove(&connection)) else { return };
        let socket = &mut self.env.network.sockets[id];
        // Freed within the shard's call.
        drop(uncounted(|| socket.drop_by_server()));
        if self.env.dice.chance(10) {
            uncounted(|| {
                let bytes = b"late".to_vec();
                self.net.late.push_back(Completion::Received(connection, bytes));
                self.net.late.push_back(Completion::Ended(connection, true));
            });
        }
    }
}
