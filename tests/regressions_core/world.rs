//! Shards in memory, their lanes, and clients that speak packets.

use ringmq::codec::{
    Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions, TopicFilters, Unsubscribe,
    next_frame,
};
use ringmq::limits::Limits;
use ringmq::shard::bridge_mail::ToBridges;
use ringmq::shard::{ConnectionId, LANES, Lane, Mail, Output, Shard, ShardId, ShardSettings};
use ringmq::time::Instant;
use std::collections::{HashMap, VecDeque};

pub const V5: ProtocolVersion = ProtocolVersion::V5;

/// A connection as its client sees it.
pub struct Client {
    pub shard: usize,
    version: ProtocolVersion,
    id: ConnectionId,
    pub is_open: bool,
    /// What it is sent stays on its way.
    pub is_stuck: bool,
    on_the_way: Option<Output>,
    received: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub shards: Vec<Shard>,
    lanes: HashMap<(ShardId, ShardId, u8), VecDeque<Mail>>,
    pub clients: Vec<Client>,
    /// What shards sent to the bridges, and which did.
    pub to_bridges: Vec<(usize, ToBridges)>,
}

const TURNS_MAX: usize = 2_000;

impl World {
    pub fn new(shard_count: u16, limits: Limits) -> World {
        assert_eq!(limits.contradiction(), None);
        let now = Instant(1_000);
        let shard = |id| {
            Shard::new(ShardSettings { id, shard_count, limits: limits.clone(), seed: 7 }, now)
        };
        World {
            now,
            shards: (0..shard_count).map(shard).collect(),
            lanes: HashMap::new(),
            clients: Vec::new(),
            to_bridges: Vec::new(),
        }
    }

    /// Opens a connection and says CONNECT; answers are there after `settle`.
    pub fn connect(&mut self, client_id: &str, change: impl FnOnce(&mut Connect<'_>)) -> usize {
        let mut connect = Connect::new(V5, client_id);
        change(&mut connect);
        let id = self.shards[0].handle_open(self.now, None, None).expect("room");
        let client = Client {
            shard: 0,
            version: connect.version,
            id,
            is_open: true,
            is_stuck: false,
            on_the_way: None,
            received: Vec::new(),
        };
        self.clients.push(client);
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        let client = self.clients.len() - 1;
        self.send_bytes(client, &bytes);
        self.settle();
        client
    }

    /// A client id whose session is on `shard`.
    pub fn client_on(&mut self, shard: usize, prefix: &str) -> usize {
        for number in 0..1_000 {
            let client = self.connect(&format!("{prefix}{number}"), |_| ());
            if self.clients[client].shard == shard {
                return client;
            }
            self.send(client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
            self.settle();
        }
        panic!("no client id belongs to shard {shard}");
    }

    pub fn send(&mut self, client: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.clients[client].version, &mut bytes);
        self.send_bytes(client, &bytes);
    }

    pub fn send_bytes(&mut self, client: usize, bytes: &[u8]) {
        let Client { shard, id, is_open, .. } = self.clients[client];
        assert!(is_open);
        self.shards[shard].handle_bytes(self.now, id, bytes);
        self.take_handovers(shard);
    }

    pub fn publish(&mut self, client: usize, topic: &str, payload: &[u8], qos: QoS, id: u16) {
        let publish = Publish {
            qos,
            topic,
            packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            payload,
            ..Publish::default()
        };
        self.send(client, &Packet::Publish(publish));
    }

    pub fn retain(&mut self, client: usize, topic: &str, payload: &[u8]) {
        let publish = Publish { retain: true, topic, payload, ..Publish::default() };
        self.send(client, &Packet::Publish(publish));
    }

    pub fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list = [(filter, options)];
        self.send(
            client,
            &Packet::Subscribe(Subscribe {
                packet_id: PacketId::new(77).unwrap(),
                subscription_id: None,
                user_properties: Default::default(),
                filters: SubscribeFilters::from_list(&list),
            }),
        );
    }

    pub fn unsubscribe(&mut self, client: usize, filter: &str) {
        let list = [filter];
        self.send(
            client,
            &Packet::Unsubscribe(Unsubscribe {
                packet_id: PacketId::new(78).unwrap(),
                user_properties: Default::default(),
                filters: TopicFilters::from_list(&list),
            }),
        );
    }

    /// The client's network connection is gone.
    pub fn lose(&mut self, client: usize) {
        let Client { shard, id, .. } = self.clients[client];
        self.clients[client].is_open = false;
        self.shards[shard].handle_close(self.now, id);
    }

    /// What the client received since it last looked, as lines.
    pub fn received(&mut self, client: usize) -> Vec<String> {
        let mut lines = Vec::new();
        self.packets(client, |packet| {
            lines.push(match packet {
                Packet::Publish(p) => {
                    let retain = if p.retain { " retained" } else { "" };
                    let dup = if p.dup { " again" } else { "" };
                    format!("{}={}{retain}{dup}", p.topic, String::from_utf8_lossy(p.payload))
                }
                Packet::Connack(c) => format!("CONNACK {:?}", c.reason),
                Packet::Suback(_) => "SUBACK".into(),
                Packet::Unsuback(_) => "UNSUBACK".into(),
                Packet::Puback(a) => format!("PUBACK {:?}", a.reason),
                Packet::Pubrec(a) => format!("PUBREC {} {:?}", a.packet_id.get(), a.reason),
                Packet::Disconnect(d) => format!("DISCONNECT {:?}", d.reason),
                other => format!("{other:?}"),
            });
        });
        lines
    }

    /// Every packet that the client received since it last looked.
    pub fn packets(&mut self, client: usize, mut each: impl FnMut(Packet<'_>)) {
        let client = &mut self.clients[client];
        let bytes = std::mem::take(&mut client.received);
        let mut rest = bytes.as_slice();
        while let Some(frame) = next_frame(rest, usize::MAX).expect("the broker sends frames") {
            rest = &rest[frame.size..];
            each(Packet::decode(&frame, client.version).expect("the broker sends packets"));
        }
        assert!(rest.is_empty(), "half a packet");
    }

    /// Only what was published.
    pub fn messages(&mut self, client: usize) -> Vec<String> {
        let mut lines = self.received(client);
        lines.retain(|line| line.contains('='));
        lines
    }

    /// Turns of all shards until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut has_moved = false;
            for shard in 0..self.shards.len() {
                has_moved |= self.turn(shard);
            }
            if !has_moved && self.shards.iter().all(Shard::is_idle) {
                return;
            }
        }
        panic!("the shards find no rest");
    }

    pub fn turn(&mut self, shard: usize) -> bool {
        let mut has_moved = self.take_mail(shard);
        let now = self.now;
        if self.shards[shard].poll_timeout().is_some_and(|due| due <= now) {
            self.shards[shard].handle_timeout(now);
        }
        self.shards[shard].run_stages(now);
        self.take_handovers(shard);
        has_moved |= self.send_mail(shard);
        has_moved | self.flush(shard)
    }

    fn take_mail(&mut self, to: usize) -> bool {
        let mut has_moved = false;
        // The control lanes of all shards first, as the mesh does.
        for lane in [Lane::Control, Lane::Publish, Lane::Member] {
            for from in 0..self.shards.len() {
                let key = (from as ShardId, to as ShardId, lane as u8);
                for mail in self.lanes.remove(&key).unwrap_or_default() {
                    has_moved = true;
                    self.shards[to].handle_mail(self.now, from as ShardId, mail);
                }
            }
        }
        has_moved
    }

    fn send_mail(&mut self, from: usize) -> bool {
        let mut has_moved = false;
        while let Some(mail) = self.shards[from].poll_bridge_mail() {
            has_moved = true;
            self.to_bridges.push((from, mail));
        }
        for to in (0..self.shards.len()).filter(|to| *to != from) {
            for lane in LANES {
                while let Some(mail) = self.shards[from].poll_mail(to as ShardId, lane) {
                    has_moved = true;
                    let key = (from as ShardId, to as ShardId, lane as u8);
                    self.lanes.entry(key).or_default().push_back(mail);
                }
            }
        }
        has_moved
    }

    fn take_handovers(&mut self, from: usize) {
        while let Some(handover) = self.shards[from].poll_handover() {
            let to = usize::from(handover.shard);
            let now = self.now;
            let id = self.shards[to].handle_open(now, None, Some(handover.deadline)).expect("room");
            let client = self
                .clients
                .iter_mut()
                .find(|c| c.is_open && c.shard == from && c.id == handover.connection)
                .expect("a client is handed over");
            (client.shard, client.id) = (to, id);
            self.shards[to].handle_bytes(now, id, &handover.bytes);
        }
    }

    fn flush(&mut self, shard: usize) -> bool {
        let mut has_moved = false;
        while self.shards[shard].poll_read_mode().is_some() {}
        while let Some((id, output)) = self.shards[shard].poll_flush() {
            let client = self.client_of(shard, id);
            assert!(client.on_the_way.is_none(), "one output at a time");
            client.on_the_way = Some(output);
        }
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.shard != shard || client.is_stuck {
                continue;
            }
            if let Some(output) = client.on_the_way.take() {
                has_moved = true;
                output.slices().for_each(|slice| client.received.extend_from_slice(slice));
                let id = client.id;
                self.shards[shard].handle_sent(self.now, id, output);
            }
        }
        while let Some(id) = self.shards[shard].poll_close().map(|close| close.connection) {
            has_moved = true;
            self.client_of(shard, id).is_open = false;
        }
        has_moved
    }

    fn client_of(&mut self, shard: usize, id: ConnectionId) -> &mut Client {
        self.clients.iter_mut().rev().find(|c| c.shard == shard && c.id == id).expect("a client")
    }
}
