//! A client that sends what no client should.

use crate::client::Env;
use crate::network::SocketId;
use ringmq::codec::{
    Connect, ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling,
    Subscribe, SubscribeFilters, SubscriptionOptions, Will,
};

pub(crate) struct Hostile {
    index: usize,
    socket: Option<SocketId>,
}

impl Hostile {
    pub(crate) fn new(index: usize) -> Hostile {
        Hostile { index, socket: None }
    }

    pub(crate) fn leave(&mut self, env: &mut Env) {
        if let Some(socket) = self.socket.take() {
            env.network.lose(&mut env.dice, socket);
        }
    }

    pub(crate) fn act(&mut self, env: &mut Env) {
        let Some(socket) = self.socket else {
            return self.socket = Some(env.network.connect(&mut env.dice));
        };
        env.network.sockets[socket].to_client.clear();
        if env.network.sockets[socket].is_server_gone {
            self.socket = None;
            return;
        }
        env.coverage.hostile_packets += 1;
        let kind = env.dice.below(14);
        let mut bytes = match kind {
            0 => (0..env.dice.below(60)).map(|_| env.dice.below(256) as u8).collect(),
            1..=3 => self.connect(env),
            4 => half_connect(env),
            5..=7 => self.publish(env),
            // SUBSCRIBE to everything, QoS 2.
            8 => match env.dice.below(3) {
                0 => vec![0x82, 7, 0, 9, 0, 0, 1, b'#', 2],
                // Larger than any packet may be.
                1 => vec![0x30, 0xff, 0xff, 0xff, 0x7f],
                // Acknowledges what was never sent, or was.
                _ => vec![*env.dice.pick(&[0x40, 0x50, 0x62, 0x70]), 2, 0, env.dice.below(9) as u8],
            },
            9 => return self.leave(env),
            10 | 11 => (0..4).flat_map(|_| self.subscribe(env)).collect(),
            12 => aliased(env),
            _ => unfinished(env),
        };
        if kind > 9 {
            // These are to be heard.
            return env.network.write(socket, &bytes);
        }
        if env.network.sockets[socket].has_transport() && env.dice.chance(10) {
            env.coverage.raw_writes += 1;
            return env.network.write_raw(socket, &bytes);
        }
        if env.dice.chance(40) && !bytes.is_empty() {
            let at = env.dice.below(bytes.len());
            bytes[at] ^= 1 << env.dice.below(8);
        }
        if env.dice.chance(20) {
            let kept = env.dice.below(bytes.len() + 1);
            bytes.truncate(kept);
        }
        env.network.write(socket, &bytes);
    }

    fn connect(&self, env: &mut Env) -> Vec<u8> {
        let version = *env.dice.pick(&[ProtocolVersion::V5, ProtocolVersion::V311]);
        // Some come with many names, and long ones.
        let (number, width) = (env.dice.below(20), *env.dice.pick(&[0, 0, 100, 1500]));
        let client_id = format!("hostile-{}-{number:0>width$}", self.index);
        let mut connect = Connect::new(version, &client_id);
        connect.clean_start = env.dice.chance(50);
        if version == ProtocolVersion::V5 && env.dice.chance(50) {
            connect.session_expiry_s = Some(*env.dice.pick(&[1, 100, u32::MAX]));
            connect.receive_max = Some(1 + env.dice.below(3) as u16);
        }
        if env.dice.chance(30) {
            connect.will = Some(Will {
                topic: "h/will",
                payload: b"hostile",
                retain: env.dice.chance(50),
                qos: QoS::AtLeastOnce,
                delay_s: if version == ProtocolVersion::V5 { env.dice.below(9) as u32 } else { 0 },
                ..Will::default()
            });
        }
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(version, &mut bytes);
        bytes
    }

    /// Many filters, long ones, some for every shard to know, some of groups.
    fn subscribe(&self, env: &mut Env) -> Vec<u8> {
        env.coverage.hostile_filters += 1;
        let prefix = *env.dice.pick(&["h/", "h/+/", "$share/h/h/", "$share/h/h/+/"]);
        let width = *env.dice.pick(&[1, 30, 150]);
        let number = env.dice.below(1 << 20);
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let filters: Vec<String> =
            (0..8).map(|n| format!("{prefix}{number:0>width$}/{n}/{}", self.index)).collect();
        let list: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
        let subscribe = Subscribe {
            packet_id: PacketId::new(1).expect("an id"),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        };
        let mut bytes = Vec::new();
        Packet::Subscribe(subscribe).encode(ProtocolVersion::V5, &mut bytes);
        bytes
    }

    fn publish(&self, env: &mut Env) -> Vec<u8> {
        let qos = *env.dice.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let topic = *env.dice.pick(&["h/1", "h/2", "$SYS/x", "h/\u{1f980}"]);
        let publish = Publish {
            qos,
            topic,
            retain: env.dice.chance(30),
            packet_id: PacketId::new(1 + env.dice.below(40) as u16)
                .filter(|_| qos != QoS::AtMostOnce),
            properties: ForwardedProperties::from_raw(&[]),
            payload: b"hostile",
            ..Publish::default()
        };
        let mut bytes = Vec::new();
        publish.encode(ProtocolVersion::V5, &mut bytes);
        bytes
    }
}

/// Aliases with long topics.
fn aliased(env: &mut Env) -> Vec<u8> {
    let mut bytes = Vec::new();
    let alias_max = env.scenario.limits.topic_alias_max.max(1);
    for _ in 0..4 {
        let alias = 1 + env.dice.below(usize::from(alias_max)) as u16;
        let topic = format!("h/{:0>400}", env.dice.below(1_000));
        let publish = Publish { topic: &topic, topic_alias: Some(alias), ..Publish::default() };
        publish.encode(ProtocolVersion::V5, &mut bytes);
    }
    bytes
}

/// QoS 2 messages that are never released.
fn unfinished(env: &mut Env) -> Vec<u8> {
    let mut bytes = Vec::new();
    let first = 1 + env.dice.below(60_000) as u16;
    for id in first..first + 100 {
        let publish = Publish {
            qos: QoS::ExactlyOnce,
            topic: "h/1",
            packet_id: PacketId::new(id),
            ..Publish::default()
        };
        publish.encode(ProtocolVersion::V311, &mut bytes);
    }
    bytes
}

/// The first part of a CONNECT that is as large as it may be, or larger: a password without end.
fn half_connect(env: &mut Env) -> Vec<u8> {
    env.coverage.half_connects += 1;
    let size_max = env.scenario.limits.connect_packet_size_max();
    let size = if env.dice.chance(80) { size_max - 4 } else { size_max + 1 };
    let mut bytes = vec![0x10];
    let mut left = size;
    while left >= 128 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 5, 0x42, 0, 0, 0, 0, 1, b'h', 255, 0]);
    bytes.resize(size / 2 + env.dice.below(size / 3), b'p');
    bytes
}
