//! One shard in memory, with clients that acknowledge by themselves.

use ringmq::codec::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, next_frame,
};
use ringmq::limits::{Limits, Sizes};
use ringmq::shard::{Shard, ShardSettings};
use ringmq::time::Instant;
use ringmq::turn::memory::{Memory, SocketId};

const V5: ProtocolVersion = ProtocolVersion::V5;
const ROUNDS_MAX: usize = 1_000;

/// As a subscriber sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub topic: String,
    pub number: u64,
    pub qos: QoS,
}

struct Client {
    socket: SocketId,
    messages: Vec<Arrived>,
    next_id: u16,
}

pub(crate) struct Broker {
    pub now: Instant,
    shards: [Shard; 1],
    memory: Memory,
    clients: Vec<Client>,
    /// Everything that clients published, in order.
    pub published: Vec<Arrived>,
}

impl Broker {
    pub(crate) fn new(limits: Limits) -> Broker {
        let now = Instant(1_000);
        let settings =
            ShardSettings { id: 0, shard_count: 1, sizes: Sizes::default(), limits, seed: 7 };
        Broker {
            now,
            shards: [Shard::new(settings, now)],
            memory: Memory::new(1, 0, usize::MAX),
            clients: Vec::new(),
            published: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, client_id: &str) -> usize {
        let socket = self.memory.connect(0);
        self.clients.push(Client { socket, messages: Vec::new(), next_id: 0 });
        let mut bytes = Vec::new();
        Connect::new(V5, client_id).encode(&mut bytes);
        self.memory.write(socket, &bytes);
        self.turn();
        self.clients.len() - 1
    }

    pub(crate) fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) {
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

    pub(crate) fn publish(&mut self, client: usize, topic: &str, qos: QoS, number: u64) {
        let next = &mut self.clients[client].next_id;
        *next = *next % 60_000 + 1;
        let packet_id = PacketId::new(*next).filter(|_| qos != QoS::AtMostOnce);
        let payload = number.to_le_bytes();
        let publish = Publish { qos, topic, packet_id, payload: &payload, ..Publish::default() };
        self.send(client, &Packet::Publish(publish));
        self.published.push(Arrived { topic: topic.to_owned(), number, qos });
        self.turn();
    }

    pub(crate) fn take_messages(&mut self, client: usize) -> Vec<Arrived> {
        std::mem::take(&mut self.clients[client].messages)
    }

    /// A connection whose bytes the caller moves.
    pub(crate) fn open_pipe(&mut self) -> SocketId {
        self.memory.connect(0)
    }

    /// What the broker sent and the caller has not taken.
    pub(crate) fn sent(&mut self, pipe: SocketId) -> &mut Vec<u8> {
        &mut self.memory.sockets[pipe].to_client
    }

    pub(crate) fn is_closed(&self, pipe: SocketId) -> bool {
        self.memory.sockets[pipe].is_closed()
    }

    pub(crate) fn receive(&mut self, pipe: SocketId, bytes: &[u8]) {
        self.memory.write(pipe, bytes);
    }

    pub(crate) fn close_pipe(&mut self, pipe: SocketId) {
        self.memory.lose(pipe);
        self.turn();
    }

    fn send(&mut self, client: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes);
        self.memory.write(self.clients[client].socket, &bytes);
    }

    /// Everything that can happen now.
    pub(crate) fn turn(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let has_settled = self.memory.settle(&mut self.shards, self.now, ROUNDS_MAX);
            assert!(has_settled, "the broker finds no rest");
            let mut has_read = false;
            for client in 0..self.clients.len() {
                has_read |= self.read_client(client);
            }
            if !has_read {
                return;
            }
        }
        panic!("the clients find no rest");
    }

    fn read_client(&mut self, client: usize) -> bool {
        let socket = self.clients[client].socket;
        let bytes = std::mem::take(&mut self.memory.sockets[socket].to_client);
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
