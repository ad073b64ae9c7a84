//! Shards in memory, their lanes, and clients that speak packets.

use ringmq::codec::{
    Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions, TopicFilters, Unsubscribe,
    next_frame,
};
use ringmq::limits::{Limits, Sizes};
use ringmq::routing::bridge_mail::{FromBridges, ToBridges};
use ringmq::session::BufferPool;
use ringmq::shard::{ConnectionId, ListenerId, Output, Shard, ShardSettings};
use ringmq::time::Instant;
use ringmq::transport::{End, Transport};
use ringmq::turn::Step;
use ringmq::turn::memory::{Memory, Socket, SocketId};
use std::net::SocketAddr;

pub(crate) const V5: ProtocolVersion = ProtocolVersion::V5;

/// A connection as its client sees it.
struct Client {
    version: ProtocolVersion,
    socket: SocketId,
    /// The client's end of a transport; `None`: its connection is plain.
    end: Option<Box<dyn Transport>>,
}

pub(crate) struct World {
    pub now: Instant,
    pub shards: Vec<Shard>,
    memory: Memory,
    clients: Vec<Client>,
}

const ROUNDS_MAX: usize = 2_000;

/// Stands for a transport's goodbye among the packets that a client got: a packet that no broker sends to a client.
const GOODBYE: &[u8] = &[0xc0, 0];

impl World {
    pub(crate) fn new(shard_count: u16, limits: Limits) -> World {
        World::sized(shard_count, Sizes::default(), limits)
    }

    /// Of shards of these sizes.
    pub(crate) fn sized(shard_count: u16, sizes: Sizes, limits: Limits) -> World {
        World::made(usize::MAX, shard_count, sizes, limits)
    }

    /// With lanes that have room for so many items.
    pub(crate) fn with_lanes(lane_room: usize, shard_count: u16, limits: Limits) -> World {
        World::made(lane_room, shard_count, Sizes::default(), limits)
    }

    fn made(lane_room: usize, shard_count: u16, sizes: Sizes, limits: Limits) -> World {
        assert_eq!(limits.contradiction(&sizes), None);
        let now = Instant(1_000);
        let shard = |id| {
            let (sizes, limits) = (sizes.clone(), limits.clone());
            Shard::new(ShardSettings { id, shard_count, sizes, limits, seed: 7 }, now)
        };
        World {
            now,
            shards: (0..shard_count).map(shard).collect(),
            memory: Memory::new(usize::from(shard_count), lane_room, usize::MAX),
            clients: Vec::new(),
        }
    }

    /// Opens a connection and says CONNECT; answers are there after `settle`.
    pub(crate) fn connect(
        &mut self,
        client_id: &str,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> usize {
        self.connect_at(None, client_id, change)
    }

    /// The same from an address.
    #[allow(dead_code, reason = "only regressions tell addresses apart")]
    pub(crate) fn connect_from(
        &mut self,
        peer: &str,
        client_id: &str,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> usize {
        self.connect_at(Some(peer.parse().expect("an address")), client_id, change)
    }

    fn connect_at(
        &mut self,
        peer: Option<SocketAddr>,
        client_id: &str,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> usize {
        let mut connect = Connect::new(V5, client_id);
        change(&mut connect);
        let socket = self.memory.connect_from(0, peer);
        self.clients.push(Client { version: connect.version, socket, end: None });
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        let client = self.clients.len() - 1;
        self.send_bytes(client, &bytes);
        self.settle();
        client
    }

    /// Clients that connect from now on come from there.
    #[allow(dead_code, reason = "who asks where clients come from is tested with bridges")]
    pub(crate) fn set_peer(&mut self, peer: std::net::SocketAddr) {
        self.memory.peer = Some(peer);
    }

    /// Opens a connection that says nothing yet.
    #[allow(dead_code, reason = "only regressions say CONNECT as they like")]
    pub(crate) fn dial(&mut self, version: ProtocolVersion) -> usize {
        let socket = self.memory.connect(0);
        self.clients.push(Client { version, socket, end: None });
        self.clients.len() - 1
    }

    pub(crate) fn dial_from(&mut self, peer: &str) -> usize {
        let socket = self.memory.connect_from(0, Some(peer.parse().expect("an address")));
        self.clients.push(Client { version: V5, socket, end: None });
        self.clients.len() - 1
    }

    /// As `dial`, through a listener of many.
    #[allow(dead_code, reason = "only regressions tell listeners apart")]
    pub(crate) fn dial_to(&mut self, listener: ListenerId) -> usize {
        let socket = self.memory.connect_to(0, listener, None);
        self.clients.push(Client { version: V5, socket, end: None });
        self.clients.len() - 1
    }

    /// Opens a connection with a transport that says nothing yet.
    #[allow(dead_code, reason = "only regressions have transports")]
    pub(crate) fn dial_with(
        &mut self,
        shard: usize,
        (broker_end, end): (Box<dyn Transport>, Box<dyn Transport>),
    ) -> usize {
        let deadline = self.now.plus_s(10);
        let socket = self.memory.connect_with(shard, ListenerId(0), broker_end, deadline);
        self.clients.push(Client { version: V5, socket, end: Some(end) });
        self.clients.len() - 1
    }

    /// Where the client's connection came in, as the shard knows that has it.
    #[allow(dead_code, reason = "only regressions tell listeners apart")]
    pub(crate) fn listener_of(&mut self, client: usize) -> Option<ListenerId> {
        let (shard, connection) = self.socket(client).place()?;
        self.shards[usize::from(shard)].listener(connection)
    }

    /// Whether the client's connection is on its way to another shard.
    #[allow(dead_code, reason = "only regressions have transports")]
    pub(crate) fn is_between_shards(&mut self, client: usize) -> bool {
        let socket = self.socket(client);
        !socket.is_closed() && socket.shard().is_none()
    }

    /// How many bytes on the wire have arrived at the client since it last looked.
    #[allow(dead_code, reason = "only regressions have transports")]
    pub(crate) fn arrived(&mut self, client: usize) -> usize {
        self.socket(client).to_client.len()
    }

    /// What the client's connection is called on its shard.
    #[allow(dead_code, reason = "only regressions have ids that are stale")]
    pub(crate) fn connection_of(&mut self, client: usize) -> ConnectionId {
        self.socket(client).place().expect("a shard has it").1
    }

    /// A client id whose session is on `shard`.
    pub(crate) fn client_on(&mut self, shard: usize, prefix: &str) -> usize {
        self.client_with(shard, prefix, |_| ())
    }

    /// The same, with more in its CONNECT.
    pub(crate) fn client_with(
        &mut self,
        shard: usize,
        prefix: &str,
        change: impl Fn(&mut Connect<'_>),
    ) -> usize {
        for number in 0..1_000 {
            let client = self.connect(&format!("{prefix}{number}"), &change);
            if self.shard_of(client) == shard {
                return client;
            }
            self.send(client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
            self.settle();
        }
        panic!("no client id belongs to shard {shard}");
    }

    pub(crate) fn send(&mut self, client: usize, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.clients[client].version, &mut bytes);
        self.send_bytes(client, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, client: usize, bytes: &[u8]) {
        assert!(self.is_open(client));
        let sealed = self.sealed(client, bytes);
        self.memory.write(self.clients[client].socket, &sealed);
    }

    /// As the client's transport puts them on the wire.
    pub(crate) fn sealed(&mut self, client: usize, bytes: &[u8]) -> Vec<u8> {
        let Some(end) = &mut self.clients[client].end else { return bytes.to_vec() };
        let sealed = end.seal(Output::from(bytes.to_vec()), &mut BufferPool::default());
        sealed.slices().collect::<Vec<_>>().concat()
    }

    /// Bytes on the wire, whatever the client's transport would say.
    #[allow(dead_code, reason = "only regressions have transports")]
    pub(crate) fn send_raw(&mut self, client: usize, bytes: &[u8]) {
        self.memory.write(self.clients[client].socket, bytes);
    }

    /// The client's transport says goodbye.
    #[allow(dead_code, reason = "only regressions have transports")]
    pub(crate) fn say_goodbye(&mut self, client: usize) {
        self.clients[client].end.as_mut().expect("it has a transport").say_goodbye();
        self.send_bytes(client, &[]);
    }

    /// What has arrived at the client, opened; `GOODBYE` stands for a goodbye.
    fn opened(&mut self, client: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.socket(client).to_client);
        let Some(end) = &mut self.clients[client].end else { return bytes };
        let (mut used, mut plain) = (0, Vec::new());
        while used < bytes.len() {
            let opened = end.open(&mut bytes[used..]);
            used += opened.used;
            plain.extend_from_slice(opened.plain);
            if let Some(how) = end.end() {
                assert_eq!(how, End::Goodbye, "the broker keeps the rules");
                plain.extend_from_slice(GOODBYE);
                assert_eq!(used, bytes.len(), "something follows a goodbye");
            }
        }
        plain
    }

    pub(crate) fn is_open(&mut self, client: usize) -> bool {
        !self.socket(client).is_closed()
    }

    /// What a stuck client is sent stays on its way.
    pub(crate) fn set_stuck(&mut self, client: usize, is_stuck: bool) {
        self.socket(client).is_stuck = is_stuck;
    }

    /// The shard that has the client's session.
    pub(crate) fn shard_of(&mut self, client: usize) -> usize {
        usize::from(self.socket(client).shard().expect("a shard has it"))
    }

    pub(crate) fn client_count(&self) -> usize {
        self.clients.len()
    }

    fn socket(&mut self, client: usize) -> &mut Socket {
        &mut self.memory.sockets[self.clients[client].socket]
    }

    /// The bridges send to a shard.
    #[allow(dead_code, reason = "not all that have this world have bridges")]
    pub(crate) fn send_from_bridges(&mut self, shard: usize, mail: FromBridges) {
        self.memory.send_from_bridges(shard, mail);
    }

    /// What shards sent to the bridges since the last call, and which did.
    #[allow(dead_code, reason = "not all that have this world have bridges")]
    pub(crate) fn take_to_bridges(&mut self) -> Vec<(usize, ToBridges)> {
        let taken = std::mem::take(&mut self.memory.to_bridges);
        taken.into_iter().map(|(shard, mail)| (usize::from(shard), mail)).collect()
    }

    pub(crate) fn publish(
        &mut self,
        client: usize,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        id: u16,
    ) {
        let publish = Publish {
            qos,
            topic,
            packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
            payload,
            ..Publish::default()
        };
        self.send(client, &Packet::Publish(publish));
    }

    pub(crate) fn retain(&mut self, client: usize, topic: &str, payload: &[u8]) {
        let publish = Publish { retain: true, topic, payload, ..Publish::default() };
        self.send(client, &Packet::Publish(publish));
    }

    pub(crate) fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) {
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

    pub(crate) fn unsubscribe(&mut self, client: usize, filter: &str) {
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
    pub(crate) fn lose(&mut self, client: usize) {
        self.memory.lose(self.clients[client].socket);
        self.settle();
    }

    /// The same, which no shard has noticed yet.
    #[allow(dead_code, reason = "only regressions look at what happens meanwhile")]
    pub(crate) fn lose_later(&mut self, client: usize) {
        self.memory.lose(self.clients[client].socket);
    }

    /// What the client received since it last looked, as lines.
    pub(crate) fn received(&mut self, client: usize) -> Vec<String> {
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
    pub(crate) fn packets(&mut self, client: usize, mut each: impl FnMut(Packet<'_>)) {
        let version = self.clients[client].version;
        let bytes = self.opened(client);
        let mut rest = bytes.as_slice();
        while let Some(frame) = next_frame(rest, usize::MAX).expect("the broker sends frames") {
            rest = &rest[frame.size..];
            each(Packet::decode(&frame, version).expect("the broker sends packets"));
        }
        assert!(rest.is_empty(), "half a packet");
    }

    /// Only what was published.
    pub(crate) fn messages(&mut self, client: usize) -> Vec<String> {
        let mut lines = self.received(client);
        lines.retain(|line| line.contains('='));
        lines
    }

    /// Turns of all shards until nothing moves.
    pub(crate) fn settle(&mut self) {
        let has_settled = self.memory.settle(&mut self.shards, self.now, ROUNDS_MAX);
        assert!(has_settled, "the shards find no rest");
    }

    /// Shards that end say goodbye to whom nothing waits for; whether nobody is waited for any more.
    #[allow(dead_code, reason = "not all that have this world end it")]
    pub(crate) fn part(&mut self) -> bool {
        let now = self.now;
        let parted: Vec<bool> =
            self.shards.iter_mut().map(|shard| shard.part_from_clients(now)).collect();
        self.settle();
        parted.into_iter().all(|is_over| is_over)
    }

    /// One turn of one shard.
    pub(crate) fn turn(&mut self, shard: usize) {
        self.memory.turn(&mut self.shards, shard, self.now);
    }

    /// Some steps of a turn of one shard.
    #[allow(dead_code, reason = "only regressions look between two steps")]
    pub(crate) fn advance(&mut self, shard: usize, steps: &[Step]) {
        for step in steps {
            self.memory.advance(*step, &mut self.shards, shard, self.now);
        }
    }
}
