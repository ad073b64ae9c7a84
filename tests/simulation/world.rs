//! A whole broker with its clients, run step by step; what holds at every step and what holds at rest.

use crate::client::{Client, Env};
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::hooks::Plan;
use crate::host::{Host, Lanes};
use crate::hostile::Hostile;
use crate::ledger::{Fate, Ledger};
use crate::memory;
use crate::network::Network;
use crate::scenario::{Scenario, UNFILLED};
use ringmq::hash::KeyedHash;
use ringmq::limits::Limits;
use ringmq::peers::Partitions;
use ringmq::session::{OUTPUT_SLACK, SMALL_CAPACITY};
use ringmq::time::Instant;
use std::collections::BTreeSet;

/// Steps that a packet, a timer or a piece of mail takes at most in worlds as small as these: far below `CALL_STEPS_MAX`, which
/// none of them could reach.
const CALL_STEPS_MAX: u64 = 5_000;

/// Rounds of turns without time advancing, after which a run counts as never coming to rest.
pub(crate) const ROUNDS_MAX: usize = 20_000;

/// All that a shard's gauges tell, as memory: of output they tell what is used, and its buffers double.
fn told(host: &Host) -> usize {
    let gauges = host.shard.gauges();
    let messages =
        gauges.stored_bytes + gauges.retained_bytes + gauges.system_bytes + gauges.will_bytes;
    let input = gauges.frame_bytes + gauges.connect_bytes;
    let metadata = gauges.metadata_bytes + gauges.interest_bytes + gauges.route_bytes;
    let output = 2 * gauges.output_bytes
        + gauges.reused_output_bytes
        + 2 * gauges.connections * SMALL_CAPACITY;
    let moving = output + 2 * gauges.mail_bytes + gauges.spare_bytes;
    messages + input + metadata + moving + gauges.transport_bytes
}

pub(crate) struct World {
    pub env: Env,
    seed: u64,
    pub hosts: Vec<Host>,
    lanes: Lanes,
    pub clients: Vec<Client>,
    hostiles: Vec<Hostile>,
    /// What the allocator gave to all shards beyond what they told when they were made.
    memory_at_start: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::new(&mut dice);
        let clients = (0..scenario.client_count).map(|i| Client::new(i, &mut dice)).collect();
        let hostiles = (0..scenario.hostile_count).map(Hostile::new).collect::<Vec<_>>();
        let ledger = Ledger {
            has_hostiles: !hostiles.is_empty(),
            may_lose: !scenario.is_ample,
            may_fill: scenario.lane_capacity < UNFILLED,
            plan: Plan::new(seed),
            ..Ledger::default()
        };
        let env = Env {
            dice,
            now: Instant(5),
            step: 1,
            network: Network::new(scenario.shard_count, scenario.transport_percent),
            ledger,
            coverage: Coverage::default(),
            scenario,
            is_shutting_down: false,
            is_calm: false,
            goodbyes: Vec::new(),
            is_traced: std::env::var_os("SIM_TRACE").is_some(),
        };
        memory::begin();
        let hosts: Vec<Host> =
            (0..env.scenario.shard_count).map(|i| Host::new(i, seed, &env)).collect();
        let lanes = Lanes::new(env.scenario.shard_count, env.scenario.lane_capacity);
        let told: usize = hosts.iter().map(told).sum();
        let memory_at_start = memory::held().saturating_sub(told);
        World { env, seed, hosts, lanes, clients, hostiles, memory_at_start }
    }

    /// The run of a seed; panics when the broker does what it must not.
    pub(crate) fn run(seed: u64) -> Coverage {
        let mut world = World::new(seed);
        for _ in 0..world.env.scenario.step_count {
            world.step();
        }
        world.come_to_rest();
        world.check_verdicts();
        world.audit();
        if world.env.scenario.is_shut_down {
            world.shut_down();
        } else {
            world.leave();
            world.check_nothing_is_left();
        }
        world.into_coverage()
    }

    fn step(&mut self) {
        self.env.step += 1;
        let env = &mut self.env;
        match env.dice.below(100) {
            0..=54 => {
                let host = env.dice.below(self.hosts.len());
                self.hosts[host].advance(env, &mut self.lanes);
                self.check_bounds(host);
            }
            55..=69 => self.carry(),
            70..=94 => {
                let client = env.dice.below(self.clients.len());
                self.clients[client].act(env);
            }
            95..=96 if !self.hostiles.is_empty() => {
                let hostile = env.dice.below(self.hostiles.len());
                self.hostiles[hostile].act(env);
            }
            97 => {
                let ms = *env.dice.pick(&[1, 1, 10, 50, 200]);
                env.now = env.now.plus_ms(ms);
            }
            98 if env.dice.chance(15) => self.jump(),
            99 if !env.scenario.later_limits.is_empty() => self.change_limits(),
            _ => {}
        }
    }

    /// One shard takes other limits; the next one does so later.
    fn change_limits(&mut self) {
        let env = &mut self.env;
        let host = env.dice.below(self.hosts.len());
        let place = env.dice.below(env.scenario.later_limits.len() + 1);
        let later = env.scenario.later_limits.get(place);
        let limits = later.unwrap_or(&env.scenario.limits).clone();
        self.hosts[host].set_limits(env, &limits);
        self.note_above(host);
    }

    /// Sockets move bytes.
    fn carry(&mut self) {
        let env = &mut self.env;
        for socket in &mut env.network.sockets {
            if socket.flight.is_some() && (env.is_calm || env.dice.chance(60)) {
                socket.carry(&mut env.dice);
            }
        }
        for &id in &env.network.abandoned {
            env.network.sockets[id].to_client.clear();
        }
        env.network.abandoned.retain(|id| !env.network.sockets[*id].is_server_gone);
    }

    /// Time passes while everybody has a chance to be heard.
    fn jump(&mut self) {
        // No turn takes that long.
        for host in &mut self.hosts {
            host.finish_turn(&mut self.env, &mut self.lanes);
        }
        for _ in 0..self.env.dice.between(1, 20) {
            self.env.now = self.env.now.plus_ms(500);
            for client in &mut self.clients {
                client.tick(&mut self.env);
            }
            for _ in 0..4 {
                self.carry();
                for host in &mut self.hosts {
                    host.turn(&mut self.env, &mut self.lanes);
                }
            }
        }
    }

    /// What a shard holds by name, and how much it may hold by its limits.
    fn bounds(&self, host: usize) -> [(&'static str, usize, usize); 16] {
        let Scenario { sizes, .. } = &self.env.scenario;
        let Host { shard, limits, .. } = &self.hosts[host];
        let shard_count = self.hosts.len() as u16;
        let gauges = shard.gauges();
        // Of what others send, or may keep here, they learn later that it is less.
        let laxest = |of: fn(&Limits) -> usize| self.env.scenario.most(of);
        let packet_size_max = laxest(|limits| limits.packet_size_max);
        // A large message is counted from the moment it is admitted.
        let has_large =
            laxest(|limits| usize::from(limits.large_message_size < limits.packet_size_max)) > 0;
        let large = if has_large { sizes.arena_size } else { 0 };
        // A group that is above its new limit stays so while others grow up to theirs.
        let groups_most = gauges.shared_groups * laxest(|limits| limits.group_messages_max);
        let interest_max =
            self.env.scenario.most(|limits| limits.metadata_interest_max(shard_count));
        [
            ("group backlog", gauges.group_backlog, groups_most),
            ("stored", gauges.stored_bytes, limits.shard_stored_bytes_max + large),
            ("frames", gauges.frame_bytes, limits.shard_frames_bytes_max),
            ("connects", gauges.connect_bytes, limits.shard_connects_bytes_max),
            ("wills", gauges.will_bytes, limits.shard_wills_bytes_max),
            (
                "metadata",
                gauges.metadata_bytes,
                // A few places of windows, and a place for each connection, are there in any case.
                limits.metadata_own_max(shard_count)
                    + (gauges.connections + gauges.sessions + 8) * 1024,
            ),
            ("interest", gauges.interest_bytes, interest_max + (128 << 10)),
            ("routes", gauges.route_bytes, limits.metadata_routes_max()),
            ("retained", gauges.retained_messages, laxest(|limits| limits.retained_messages_max)),
            ("retained bytes", gauges.retained_bytes, laxest(|limits| limits.retained_bytes_max)),
            ("arena", gauges.arena_used, sizes.arena_size),
            ("arena slots", gauges.arena_held as usize, sizes.arena_slots),
            ("sessions", gauges.sessions, limits.sessions_max),
            ("connections", gauges.connections, limits.connections_max),
            (
                "output buffers",
                gauges.reused_output_bytes,
                2 * gauges.output_bytes + OUTPUT_SLACK + 2 * limits.output_size_max,
            ),
            (
                "output",
                gauges.output_bytes,
                // One message may pass the limit, and answers have twice a connection's share.
                limits.shard_output_bytes_max
                    + gauges.sealed_bytes
                    + gauges.connections * (2 * limits.output_size_max + packet_size_max),
            ),
        ]
    }

    /// The limits of a shard have changed: what it holds above them may stay, and becomes no more.
    fn note_above(&mut self, host: usize) {
        let above = self.bounds(host).into_iter().filter(|(_, held, most)| held > most);
        self.hosts[host].above = above.map(|(name, held, _)| (name, held)).collect();
    }

    /// What holds at every step.
    fn check_bounds(&mut self, host: usize) {
        for (name, held, most) in self.bounds(host) {
            let Host { shard, above, .. } = &mut self.hosts[host];
            let allowed = above.get(name).map_or(most, |above| most.max(*above));
            let gauges = shard.gauges();
            assert!(held <= allowed, "{name}: {held} are held, {allowed} allowed ({gauges:?})");
            if held <= most {
                above.remove(name);
            } else {
                self.env.coverage.held_above += 1;
                above.insert(name, held);
            }
        }
        let Host { shard, limits, .. } = &mut self.hosts[host];
        assert_eq!(shard.counters().stale_reads, 0);
        let (steps, turn) = (shard.take_call_steps_most(), shard.take_turn_steps_most());
        let turn_max = limits.turn_steps_max + CALL_STEPS_MAX;
        assert!(turn <= turn_max, "a connection's turn took {turn} steps, {turn_max} allowed");
        assert!(steps <= CALL_STEPS_MAX, "a call took {steps} steps");
        self.env.coverage.call_steps_most = self.env.coverage.call_steps_most.max(steps);
        self.check_memory();
    }

    /// What the allocator gave to all shards is what they tell, and what they may have beside that.
    fn check_memory(&mut self) {
        // Hooks are the world's, and allocate where they like.
        if self.env.ledger.plan.is_on {
            return;
        }
        let limits = &self.env.scenario.limits;
        let flights = self.env.network.sockets.iter().filter_map(|s| s.flight.as_ref());
        let flying: usize = flights.map(|flight| flight.output.bytes.capacity()).sum();
        let posted: usize = self.hosts.iter().map(Host::posted_bytes).sum();
        let moving = 2 * (self.lanes.bytes() + posted) + flying;
        let told = self.hosts.iter().map(told).sum::<usize>() + moving;
        // Buffers that a shard has once, and what it says of itself.
        let own = self.hosts.len() * ((256 << 10) + 16 * limits.packet_size_max);
        let most = self.memory_at_start + told + told / 5 + own;
        let held = memory::held();
        self.env.coverage.memory_checked += 1;
        let beyond = held.saturating_sub(self.memory_at_start + told) / self.hosts.len();
        let beyond_most = &mut self.env.coverage.memory_beyond;
        *beyond_most = (beyond as u64).max(*beyond_most);
        self.env.coverage.memory_most = self.env.coverage.memory_most.max(held as u64);
        assert!(
            held <= most,
            "{held} bytes are held, {told} told, {own} and {} allowed beside them:\n{}",
            self.memory_at_start,
            self.describe()
        );
    }

    /// Everybody comes back, reads and acknowledges, until nothing moves any more.
    pub(crate) fn come_to_rest(&mut self) {
        self.env.is_calm = true;
        for hostile in &mut self.hostiles {
            hostile.leave(&mut self.env);
        }
        self.lose_abandoned();
        self.settle();
        self.env.step += 1;
        for client in &mut self.clients {
            client.confirm_qos0(&mut self.env);
        }
        self.settle_goodbyes();
    }

    /// Turns and answers until nothing moves.
    pub(crate) fn settle(&mut self) {
        for round in 0.. {
            self.env.step += 1;
            for client in &mut self.clients {
                client.act(&mut self.env);
            }
            self.round();
            if self.is_at_rest() {
                return;
            }
            assert!(round < ROUNDS_MAX, "it does not come to rest:\n{}", self.describe());
        }
    }

    pub(crate) fn lose_abandoned(&mut self) {
        for socket in std::mem::take(&mut self.env.network.abandoned) {
            self.env.network.lose(&mut self.env.dice, socket);
        }
    }

    pub(crate) fn round(&mut self) {
        self.carry();
        for host in 0..self.hosts.len() {
            self.hosts[host].turn(&mut self.env, &mut self.lanes);
            self.check_bounds(host);
        }
    }

    fn settle_goodbyes(&mut self) {
        let env = &mut self.env;
        for goodbye in std::mem::take(&mut env.goodbyes) {
            let socket = &env.network.sockets[goodbye.socket];
            if socket.is_cut || !env.scenario.is_ample {
                continue;
            }
            for id in goodbye.qos0 {
                env.ledger.confirm(id);
            }
            if let Some(id) = goodbye.will {
                env.ledger.publications[id as usize].fate = Fate::Withdrawn;
                env.coverage.withdrawn_wills += 1;
            }
            env.coverage.overlapped += u64::from(env.network.sockets[goodbye.socket].is_overlapped);
        }
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.lanes.is_empty()
            && self.hosts.iter().all(|host| host.shard.is_idle())
            && self.clients.iter().all(|client| client.is_quiet(&self.env))
            && self.env.network.accepts.iter().all(|waiting| waiting.is_empty())
            && self.env.network.sockets.iter().all(|socket| {
                socket.is_server_gone
                    || (socket.flight.is_none()
                        && socket.to_server.is_empty()
                        && !socket.is_client_gone)
            })
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for client in &self.clients {
            text += &format!("{}\n", client.describe());
        }
        for (id, host) in self.hosts.iter().enumerate() {
            text +=
                &format!("shard {id} idle {} {:?}\n", host.shard.is_idle(), host.shard.gauges());
        }
        for (id, socket) in self.env.network.sockets.iter().enumerate() {
            if !socket.is_server_gone {
                text += &format!(
                    "socket {id} client gone {} to server {} to client {} flight {} {:?}\n",
                    socket.is_client_gone,
                    socket.to_server.len(),
                    socket.to_client.len(),
                    socket.flight.is_some(),
                    socket.read_mode
                );
            }
        }
        text
    }

    fn check_verdicts(&mut self) {
        let mut dropped = 0;
        for host in &mut self.hosts {
            let gauges = host.shard.gauges();
            assert_eq!((gauges.arena_held, gauges.held_by_stage), (0, [0; 3]), "{gauges:?}");
            assert_eq!((gauges.output_bytes, gauges.frame_bytes), (0, 0), "{gauges:?}");
            assert_eq!(gauges.connect_bytes, 0, "{gauges:?}");
            if self.env.is_traced {
                println!("{gauges:?}\n{:?}", host.shard.counters());
            }
            let counters = host.shard.counters();
            dropped += counters.dropped() + counters.dropped_offline_qos0;
            if self.env.scenario.is_ample {
                let lost = counters.dropped_queue_full
                    + counters.dropped_stored_full
                    + counters.frames_evicted
                    + counters.retained_refused;
                assert_eq!(lost, 0, "{counters:?}");
            }
        }
        let ledger = &self.env.ledger;
        ledger.check_counts();
        ledger.check_runs();
        let missing = ledger.missing();
        let allowed = if self.env.scenario.is_ample { 0 } else { dropped };
        assert!(
            missing.len() as u64 <= allowed,
            "{} are missing, {allowed} were dropped; the first:\n{}",
            missing.len(),
            missing[..missing.len().min(5)].join("\n")
        );
        self.env.coverage.lost_messages += missing.len() as u64;
        let (checked, given_again) = ledger.check_groups();
        self.env.coverage.group_messages += checked as u64;
        self.env.coverage.redistributed += given_again as u64;
        if self.env.scenario.is_ample {
            let stale = ledger.stale_retained();
            assert!(stale.is_empty(), "{}", stale.join("\n"));
            self.env.coverage.retained_found += ledger.retained().len() as u64;
        }
        self.check_interest();
    }

    /// Every shard knows the filters of all others, and no more.
    fn check_interest(&mut self) {
        let hash = KeyedHash::new(self.seed);
        let partitions = Partitions::even(self.hosts.len() as u16);
        let mut by_shard: Vec<BTreeSet<String>> = vec![BTreeSet::new(); self.hosts.len()];
        for client in &self.clients {
            if client.has_given_up() {
                return;
            }
            let Some(incarnation) = client.incarnation() else { continue };
            let Some(filters) = self.env.ledger.filters(incarnation) else { return };
            for text in filters {
                if text.starts_with("$share/") {
                    let owner = partitions.owner(&hash, text.as_bytes());
                    let filter = text.splitn(3, '/').nth(2).unwrap_or_default();
                    by_shard[usize::from(owner)].insert(filter.to_string());
                } else {
                    let owner = partitions.owner(&hash, client.client_id().as_bytes());
                    by_shard[usize::from(owner)].insert(text);
                }
            }
        }
        let has_strangers = self.env.ledger.has_hostiles || !self.env.network.abandoned.is_empty();
        if has_strangers {
            return;
        }
        for (id, host) in self.hosts.iter().enumerate() {
            let others = by_shard.iter().enumerate().filter(|(other, _)| *other != id);
            let expected: BTreeSet<_> = others.flat_map(|(_, filters)| filters).collect();
            let known = host.shard.gauges().interest_filters;
            assert_eq!(known, expected.len(), "shard {id} should know {expected:?}");
            self.env.coverage.interest_checked += 1;
        }
    }

    fn into_coverage(mut self) -> Coverage {
        let mut coverage = self.env.coverage;
        coverage.runs += 1;
        for socket in &self.env.network.sockets {
            coverage.transports += u64::from(socket.has_transport());
            coverage.updated += socket.updated_count();
        }
        coverage.ordered_in_groups += self.env.ledger.ordered_in_groups;
        for host in &mut self.hosts {
            let [handovers, full_lanes] = host.counts();
            coverage.handovers += handovers;
            coverage.full_lanes += full_lanes;
            coverage.count(host.shard.counters());
        }
        coverage
    }
}
