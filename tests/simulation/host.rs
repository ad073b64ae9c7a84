//! Does for one shard what the shell does: its turn, in steps between which other shards may run.

use crate::client::Env;
use crate::hooks::PlannedHooks;
use crate::network::SocketId;
use ringmq::shard::{
    ConnectionId, Handover, LANES, Lane, Mail, ReadMode, Shard, ShardId, ShardSettings,
};
use std::collections::{BTreeMap, VecDeque};

/// The bounded lanes between all pairs of shards, and sockets that move.
pub struct Mesh {
    lanes: Vec<VecDeque<Mail>>,
    shard_count: usize,
    capacity: usize,
    /// By receiving shard.
    handovers: Vec<VecDeque<(SocketId, Handover)>>,
    pub full_count: u64,
}

impl Mesh {
    pub fn new(shard_count: usize, capacity: usize) -> Mesh {
        Mesh {
            lanes: (0..shard_count * shard_count * LANES.len()).map(|_| VecDeque::new()).collect(),
            shard_count,
            capacity,
            handovers: (0..shard_count).map(|_| VecDeque::new()).collect(),
            full_count: 0,
        }
    }

    fn lane(&mut self, from: usize, to: usize, lane: Lane) -> &mut VecDeque<Mail> {
        let index = (from * self.shard_count + to) * LANES.len() + lane as usize;
        &mut self.lanes[index]
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty) && self.handovers.iter().all(VecDeque::is_empty)
    }
}

/// The steps of a turn, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Input,
    Mail(Lane),
    Timeout,
    Stages,
    Poll,
}

const TURN: [Phase; 7] = [
    Phase::Input,
    Phase::Mail(Lane::Control),
    Phase::Mail(Lane::Publish),
    Phase::Mail(Lane::Member),
    Phase::Timeout,
    Phase::Stages,
    Phase::Poll,
];

pub struct Host {
    id: usize,
    pub shard: Shard,
    phase: usize,
    sockets: BTreeMap<ConnectionId, SocketId>,
    pub handover_count: u64,
}

impl Host {
    pub fn new(id: usize, seed: u64, env: &Env) -> Host {
        let settings = ShardSettings {
            id: id as ShardId,
            shard_count: env.scenario.shard_count as u16,
            limits: env.scenario.limits.clone(),
            seed,
        };
        let mut shard = Shard::new(settings, env.now);
        shard.set_events(env.is_traced);
        let plan = env.ledger.plan;
        if plan.is_on {
            let hooks = PlannedHooks::new(plan, env.ledger.runs.clone());
            shard.set_hooks(env.now, Box::new(hooks));
        }
        Host { id, shard, phase: 0, sockets: BTreeMap::new(), handover_count: 0 }
    }

    pub fn is_between_turns(&self) -> bool {
        self.phase == 0
    }

    pub fn sockets(&self) -> &BTreeMap<ConnectionId, SocketId> {
        &self.sockets
    }

    pub fn has_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// One step of the turn.
    pub fn advance(&mut self, env: &mut Env, mesh: &mut Mesh) {
        match TURN[self.phase] {
            Phase::Input => self.input(env),
            Phase::Mail(lane) => self.take_mail(env, mesh, lane),
            Phase::Timeout => self.shard.handle_timeout(env.now),
            Phase::Stages => self.shard.run_stages(env.now),
            Phase::Poll => self.poll(env, mesh),
        }
        self.phase = (self.phase + 1) % TURN.len();
        while let Some(event) = self.shard.poll_event() {
            println!("{} {:?} shard {}: {event}", env.step, env.now, self.id);
        }
    }

    pub fn turn(&mut self, env: &mut Env, mesh: &mut Mesh) {
        loop {
            self.advance(env, mesh);
            if self.is_between_turns() {
                return;
            }
        }
    }

    fn input(&mut self, env: &mut Env) {
        while env.is_calm || env.dice.chance(80) {
            let Some(socket) = env.network.accepts[self.id].pop_front() else { break };
            self.open(env, socket, None);
        }
        for (id, socket) in self.sockets.clone() {
            if env.is_calm || env.dice.chance(70) {
                self.serve(env, id, socket);
            }
        }
    }

    fn open(&mut self, env: &mut Env, socket: SocketId, handover: Option<Handover>) {
        let deadline = handover.as_ref().map(|handover| handover.deadline);
        let Some(id) = self.shard.handle_open(env.now, None, deadline) else {
            assert!(!env.scenario.is_ample, "a connection was turned away");
            env.network.sockets[socket].drop_by_server();
            return;
        };
        env.network.sockets[socket].read_mode = ReadMode::Once;
        self.sockets.insert(id, socket);
        if let Some(handover) = handover {
            self.shard.handle_bytes(env.now, id, &handover.bytes);
        }
    }

    /// Completions of one socket.
    fn serve(&mut self, env: &mut Env, id: ConnectionId, socket_id: SocketId) {
        let socket = &mut env.network.sockets[socket_id];
        if let Some(flight) = socket.flight.take_if(|flight| flight.is_sent()) {
            assert_eq!(flight.connection, id);
            self.shard.handle_sent(env.now, id, flight.output);
        }
        let socket = &mut env.network.sockets[socket_id];
        if socket.is_client_gone && socket.flight.is_some() && env.dice.chance(30) {
            // The send fails.
            socket.is_cut |= !socket.to_server.is_empty();
            return self.close(env, id, socket_id);
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
            let bytes = env.network.sockets[socket_id].receive(count);
            if bytes.is_empty() {
                break;
            }
            has_received = true;
            self.shard.handle_bytes(env.now, id, &bytes);
        }
        let socket = &mut env.network.sockets[socket_id];
        let is_end = socket.is_client_gone && socket.to_server.is_empty();
        // A single receive brings bytes or the end, not both.
        let may_end = match socket.read_mode {
            ReadMode::Once => !has_received,
            ReadMode::Many => true,
            ReadMode::Stopped => receive_count > 0,
        };
        if is_end && may_end && (env.is_calm || env.dice.chance(50)) {
            self.close(env, id, socket_id);
        }
    }

    fn close(&mut self, env: &mut Env, id: ConnectionId, socket: SocketId) {
        self.shard.handle_close(env.now, id);
        self.release(env, id, socket);
    }

    fn release(&mut self, env: &mut Env, id: ConnectionId, socket: SocketId) {
        self.sockets.remove(&id);
        env.network.sockets[socket].drop_by_server();
        if env.dice.chance(10) {
            // What completes late finds nobody.
            self.shard.handle_bytes(env.now, id, b"late");
            self.shard.handle_close(env.now, id);
        }
    }

    fn take_mail(&mut self, env: &mut Env, mesh: &mut Mesh, lane: Lane) {
        if lane == Lane::Control {
            while let Some((socket, handover)) = mesh.handovers[self.id].pop_front() {
                self.open(env, socket, Some(handover));
            }
        }
        for from in 0..mesh.shard_count {
            while let Some(mail) = mesh.lane(from, self.id, lane).pop_front() {
                assert_eq!(mail.lane(), lane);
                self.shard.handle_mail(env.now, from as ShardId, mail);
            }
        }
    }

    fn poll(&mut self, env: &mut Env, mesh: &mut Mesh) {
        while let Some(handover) = self.shard.poll_handover() {
            let socket = self.sockets.remove(&handover.connection).expect("a known connection");
            assert_eq!(env.network.sockets[socket].read_mode, ReadMode::Once);
            assert!(env.network.sockets[socket].flight.is_none());
            self.handover_count += 1;
            mesh.handovers[usize::from(handover.shard)].push_back((socket, handover));
        }
        while let Some((id, mode)) = self.shard.poll_read_mode() {
            let socket = &mut env.network.sockets[self.sockets[&id]];
            socket.is_tail_due = mode == ReadMode::Stopped && env.dice.chance(50);
            socket.read_mode = mode;
        }
        let own = self.id;
        for to in (0..mesh.shard_count).filter(|to| *to != own) {
            for lane in LANES {
                self.post(mesh, to, lane);
            }
        }
        while let Some((id, output)) = self.shard.poll_flush() {
            env.network.send(self.sockets[&id], id, output);
        }
        while let Some(id) = self.shard.poll_close().map(|close| close.connection) {
            let socket = self.sockets[&id];
            self.release(env, id, socket);
        }
    }

    fn post(&mut self, mesh: &mut Mesh, to: usize, lane: Lane) {
        let capacity = mesh.capacity;
        loop {
            if mesh.lane(self.id, to, lane).len() >= capacity {
                mesh.full_count += 1;
                return;
            }
            let Some(mail) = self.shard.poll_mail(to as ShardId, lane) else { return };
            mesh.lane(self.id, to, lane).push_back(mail);
        }
    }
}
