//! Several clients on shards in memory do anything in any order: nothing panics, every bound holds, and when all have
//! gone and all time has passed nothing is left.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::limits::{Limits, Sizes};
use ringmq::shard::{Shard, ShardId, ShardSettings};
use ringmq::time::Instant;
use ringmq::turn::memory::{Memory, SocketId};

const SOCKET_COUNT: usize = 4;
/// Items a lane holds.
const LANE_CAPACITY: usize = 2;
/// Rounds of turns without new input after which the shards must be idle.
const ROUNDS_MAX: usize = 2000;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut world = World::new(&mut input);
    while !input.0.is_empty() {
        world.act(&mut input);
        world.check_bounds();
    }
    world.end();
});

/// The bytes that decide everything; zeros when there are no more.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// CONNECT of one of a few clients, with or without clean start, with some session expiry.
fn put_connect(first_byte: u8, detail: u8, body: &mut Vec<u8>) {
    let (clean_start, client) = (first_byte & 2, b'a' + detail % 5);
    let expiry_s = detail >> 5;
    body.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 5, clean_start, 0, 60]);
    body.extend_from_slice(&[8, 0x11, 0, 0, 0, expiry_s, 0x22, 0, first_byte & 4]);
    body.extend_from_slice(&[0, 1, client]);
}

/// PUBLISH without properties, but for its payload.
fn put_publish(first_byte: u8, detail: u8, body: &mut Vec<u8>) {
    body.extend_from_slice(&[0, 1, b'a' + detail % 3]);
    if first_byte & 6 != 0 {
        body.extend_from_slice(&[0, 1 + (detail >> 2) % 8]);
    }
    body.push(0);
}

/// SUBSCRIBE or UNSUBSCRIBE with one filter.
fn put_filter(detail: u8, has_options: bool, body: &mut Vec<u8>) {
    let filters = ["#", "+", "a", "b", "$share/g/a", "$share/g/#", "$share/h/b", "a/#"];
    let filter = filters[usize::from(detail) % filters.len()];
    body.extend_from_slice(&[0, 9, 0, 0, filter.len() as u8]);
    body.extend_from_slice(filter.as_bytes());
    if has_options {
        body.push(detail >> 3);
    }
}

struct World {
    now: Instant,
    sizes: Sizes,
    limits: Limits,
    shards: Vec<Shard>,
    memory: Memory,
    sockets: [Option<SocketId>; SOCKET_COUNT],
}

impl World {
    fn new(input: &mut Input<'_>) -> World {
        let shard_count = 1 + input.byte() % 3;
        let small = 1 << (input.byte() % 8);
        let sizes = Sizes {
            arena_size: 4096 * (1 + input.byte() % 4),
            arena_slots: 4,
            route_cache_max: small,
            mail_bytes_mark: 16 * small,
        };
        let limits = Limits {
            packet_size_max: 1024,
            receive_max: small as u16,
            inflight_max: small as u16,
            topic_alias_max: 4,
            topic_alias_out_max: 4,
            queue_messages_max: 2 * small,
            queue_bytes_max: 4096,
            output_size_max: 64 * small,
            retained_messages_max: small,
            retained_bytes_max: 4096,
            subscriptions_per_client_max: small,
            sessions_max: 6,
            connections_max: 6,
            large_message_size: 512,
            shard_stored_bytes_max: 16_384,
            shard_output_bytes_max: 64 * small + 2048,
            shard_frames_bytes_max: 2048,
            connect_size_max: 1024,
            shard_connects_bytes_max: 1024,
            shard_wills_bytes_max: 512,
            group_messages_max: small,
            group_bytes_max: 4096,
            group_credit_max: small as u16,
            session_expiry_max_s: 1000,
            session_expiry_v3_s: 1000,
            sys_interval_ms: 0,
            ..Limits::default()
        };
        assert_eq!(limits.contradiction(&sizes), None);
        let now = Instant(1);
        let shards = (0..shard_count)
            .map(|id| {
                let (id, shard_count) = (id as ShardId, shard_count as u16);
                let (sizes, limits) = (sizes.clone(), limits.clone());
                let settings = ShardSettings { id, shard_count, sizes, limits, seed: 1 };
                Shard::new(settings, now)
            })
            .collect();
        World {
            now,
            sizes,
            limits,
            shards,
            memory: Memory::new(shard_count, LANE_CAPACITY, usize::MAX),
            sockets: [None; SOCKET_COUNT],
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let socket = choice % SOCKET_COUNT;
        match choice / SOCKET_COUNT % 10 {
            0 => self.open(socket, input.byte() % self.shards.len()),
            1..=4 => self.send(socket, input),
            5 => self.sent(socket),
            6 => self.close(socket),
            7 => self.turn(input.byte() % self.shards.len()),
            8 => (0..self.shards.len()).for_each(|shard| self.turn(shard)),
            _ => self.now = self.now.plus_ms(1 << (input.byte() % 20)),
        }
    }

    /// What is sent to a socket stays on its way until the input says otherwise.
    fn open(&mut self, socket: usize, shard: usize) {
        if self.sockets[socket].is_none() {
            let id = self.memory.connect(shard);
            self.memory.sockets[id].is_stuck = true;
            self.sockets[socket] = Some(id);
        }
    }

    /// Writes a packet that a client may send, a packet with any body, or bytes as they are.
    fn send(&mut self, socket: usize, input: &mut Input<'_>) {
        let Some(id) = self.sockets[socket] else { return };
        let first_byte = input.byte() as u8;
        let detail = input.byte() as u8;
        let size = input.byte() % 100;
        let mut body = Vec::new();
        match first_byte {
            0x10..=0x1f => put_connect(first_byte, detail, &mut body),
            0x30..=0x37 => put_publish(first_byte, detail, &mut body),
            0x82 => put_filter(detail, true, &mut body),
            0xa2 => put_filter(detail, false, &mut body),
            // Acknowledgements of the first few packet ids.
            0x40 | 0x50 | 0x62 | 0x70 => body.extend_from_slice(&[0, 1 + detail % 8]),
            _ => {}
        }
        body.extend_from_slice(input.take(if body.is_empty() || size < 50 { size } else { 0 }));
        let mut bytes = match first_byte {
            0 => Vec::new(),
            _ => vec![first_byte & if first_byte < 0x20 { 0xf0 } else { 0xff }, body.len() as u8],
        };
        bytes.extend_from_slice(&body);
        self.memory.write(id, &bytes);
    }

    /// One output of the socket arrives.
    fn sent(&mut self, socket: usize) {
        if let Some(id) = self.sockets[socket] {
            self.memory.sockets[id].is_stuck = false;
        }
    }

    fn close(&mut self, socket: usize) {
        if let Some(id) = self.sockets[socket].take() {
            self.memory.lose(id);
        }
    }

    fn turn(&mut self, shard: usize) {
        self.memory.turn(&mut self.shards, shard, self.now);
        for place in &mut self.sockets {
            let Some(id) = *place else { continue };
            let socket = &mut self.memory.sockets[id];
            socket.is_stuck |= socket.shard() == Some(shard as ShardId);
            if socket.is_closed() {
                *place = None;
            }
        }
    }

    fn check_bounds(&mut self) {
        let (sizes, limits) = (&self.sizes, &self.limits);
        for shard in &mut self.shards {
            let gauges = shard.gauges();
            assert!(gauges.stored_bytes <= limits.shard_stored_bytes_max + sizes.arena_size);
            assert!(gauges.frame_bytes <= limits.shard_frames_bytes_max);
            assert!(gauges.connect_bytes <= limits.shard_connects_bytes_max);
            assert!(gauges.will_bytes <= limits.shard_wills_bytes_max);
            assert!(gauges.retained_messages <= limits.retained_messages_max);
            assert!(gauges.retained_bytes <= limits.retained_bytes_max);
            assert!(gauges.arena_used <= sizes.arena_size);
            assert!(gauges.sessions <= limits.sessions_max);
            assert!(gauges.connections <= limits.connections_max);
            assert_eq!(shard.counters().stale_reads, 0);
        }
    }

    /// Everybody goes, everything ends.
    fn end(&mut self) {
        for pass in 0..3 {
            for socket in 0..SOCKET_COUNT {
                match pass {
                    0 => self.sent(socket),
                    _ => self.close(socket),
                }
            }
            let is_idle = self.memory.settle(&mut self.shards, self.now, ROUNDS_MAX);
            assert!(is_idle, "the shards find no rest");
            if pass > 0 {
                self.now = self.now.plus_s(2000);
            }
        }
        for shard in &self.shards {
            let gauges = shard.gauges();
            assert_eq!(gauges.sessions + gauges.connections + gauges.subscriptions, 0);
            assert_eq!(gauges.stored_bytes + gauges.output_bytes + gauges.frame_bytes, 0);
            assert_eq!(gauges.connect_bytes, 0);
            assert_eq!(gauges.will_bytes + gauges.arena_used + gauges.interest_filters, 0);
            assert_eq!(gauges.held_by_stage, [0; 3]);
        }
    }
}
