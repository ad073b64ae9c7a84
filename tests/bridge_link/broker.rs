//! One shard in memory, with clients that acknowledge by themselves.

use std::collections::VecDeque;

use ringmq::codec::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, next_frame,
};
use ringmq::limits::Limits;
use ringmq::shard::{ConnectionId, Shard, ShardSettings};
use ringmq::time::Instant;

const V5: ProtocolVersion = ProtocolVersion::V5;

/// As a subscriber sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub topic: String,
    pub number: u64,
    pub qos: QoS,
}

/// What the broker sends to connections that are no clients of ours.
#[derive(Default)]
pub struct Pipe {
    pub bytes: VecDeque<u8>,
    pub is_closed: bool,
}

struct Client {
    id: ConnectionId,
    received: Vec<u8>,
    messages: Vec<Arrived>,
    next_id: u16,
}

pub struct Broker {
    pub now: Instant,
    pub shard: Shard,
    clients: Vec<Client>,
    pipes: Vec<(ConnectionId, Pipe)>,
    /// Everything that clients published, in order.
    pub published: Vec<Arrived>,
}

impl Broker {
    pub fn new(limits: Limits) -> Broker {
        let now = Instant(1_000);
        let settings = ShardSettings { id: 0, shard_count: 1, limits, seed: 7 };
        let shard = Shard::new(settings, now);
        Broker { now, shard, clients: Vec::new(), pipes: Vec::new(), published: Vec::new() }
    }

    pub fn connect(&mut self, client_id: &str) -> usize {
        let id = self.shard.handle_open(self.now, None, None).expect("room");
        self.clients.push(Client { id, received: Vec::new(), messages: Vec::new(), next_id: 0 });
        let mut bytes = Vec::new();
        Connect::new(V5, client_id).encode(&mut bytes);
        self.shard.handle_bytes(self.now, id, &bytes);
        self.turn();
        self.clients.len() - 1
    }

    pub fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list = [(filter, options)];
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        self.send(client, &Packet::Subscribe(subscribe));
        self.turn();
    }

    pub fn publish(&mut self, client: usize, topic: &str, qos: QoS, number: u64) {
        let next = &mut self.clients[client].next_id;
        *next = *next % 60_000 + 1;
        let packet_id = PacketId::new(*next).filter(|_| qos != QoS::AtMostOnce);
        let payload = number.to_le_bytes();
        let publish = Publish { qos, topic, packet_id, payload: &payload, ..Publish::default() };
        self.send(client, &Packet::Publish(publish));
        self.published.push(Arrived { topic: topic.to_owned(), number, qos });
        self.turn();
    }

    pub fn take_messages(&mut self, client: usize) -> Vec<Arrived> {
        std::mem::take(&mut self.clients[client].messages)
    }

    /// A connection whose bytes the caller moves.
    pub fn open_pipe(&mut self) -> ConnectionId {
        let id = self.shard.handle_open(self.now, None, None).expect("room");
        self.pipes.push((id, Pipe::default()));
        id
    }

    pub fn pipe(&mut self, id: ConnectionId) -> &mut Pipe {
        &mut self.pipes.iter_mut().find(|(other, _)| *other == id).expect("it was opened").1
    }

    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        if !self.pipe(id).is_closed && !bytes.is_empty() {
            self.shard.handle_bytes(self.now, id, bytes);
        }
    }

    pub fn close_pipe(&mut self, id: ConnectionId) {
        if !self.pipe(id).is_closed {
            self.shard.handle_close(self.now, id);
        }
        self.turn();
        self.pipes.retain(|(other, _)| *other != id);
    }

    fn send(&mut self, client: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes);
        self.shard.handle_bytes(self.now, self.clients[client].id, &bytes);
    }

    /// Everything that can happen now.
    pub fn turn(&mut self) {
        for _ in 0..1000 {
            let now = self.now;
            if self.shard.poll_timeout().is_some_and(|due| due <= now) {
                self.shard.handle_timeout(now);
            }
            self.shard.run_stages(now);
            while self.shard.poll_read_mode().is_some() {}
            let mut has_moved = false;
            while let Some((id, output)) = self.shard.poll_flush() {
                has_moved = true;
                match self.clients.iter_mut().find(|client| client.id == id) {
                    Some(client) => {
                        output.slices().for_each(|s| client.received.extend_from_slice(s))
                    }
                    None => {
                        let pipe = self.pipes.iter_mut().find(|(other, _)| *other == id);
                        let pipe = &mut pipe.expect("a pipe or a client").1;
                        output.slices().for_each(|slice| pipe.bytes.extend(slice));
                    }
                }
                self.shard.handle_sent(now, id, output);
            }
            while let Some(id) = self.shard.poll_close().map(|close| close.connection) {
                let pipe = self.pipes.iter_mut().find(|(other, _)| *other == id);
                pipe.expect("only pipes are closed").1.is_closed = true;
            }
            for client in 0..self.clients.len() {
                has_moved |= self.read_client(client);
            }
            if !has_moved && self.shard.is_idle() {
                return;
            }
        }
        panic!("the broker finds no rest");
    }

    fn read_client(&mut self, client: usize) -> bool {
        let bytes = std::mem::take(&mut self.clients[client].received);
        let mut rest = bytes.as_slice();
        while let Some(frame) = next_frame(rest, usize::MAX).unwrap() {
            rest = &rest[frame.size..];
            let answer = |id, reason| Ack::new(id, reason);
            match Packet::decode(&frame, V5).unwrap() {
                Packet::Publish(publish) => {
                    let number = publish.payload.first_chunk().expect("a number");
                    self.clients[client].messages.push(Arrived {
                        topic: publish.topic.to_owned(),
                        number: u64::from_le_bytes(*number),
                        qos: publish.qos,
                    });
                    let ack = publish.packet_id.map(|id| answer(id, ReasonCode::Success));
                    match (publish.qos, ack) {
                        (QoS::AtLeastOnce, Some(ack)) => self.send(client, &Packet::Puback(ack)),
                        (_, Some(ack)) => self.send(client, &Packet::Pubrec(ack)),
                        _ => {}
                    }
                }
                Packet::Pubrel(ack) => {
                    self.send(client, &Packet::Pubcomp(answer(ack.packet_id, ReasonCode::Success)));
                }
                Packet::Pubrec(ack) => {
                    self.send(client, &Packet::Pubrel(answer(ack.packet_id, ReasonCode::Success)));
                }
                Packet::Disconnect(disconnect) => panic!("{disconnect:?}"),
                _ => {}
            }
        }
        assert!(rest.is_empty());
        !bytes.is_empty()
    }
}
