//! A client that sends what no client should.

use crate::client::Env;
use crate::network::SocketId;
use ringmq::codec::{
    Connect, ForwardedProperties, Packet, PacketId, ProtocolVersion, Publish, QoS,
};

pub struct Hostile {
    index: usize,
    socket: Option<SocketId>,
}

impl Hostile {
    pub fn new(index: usize) -> Hostile {
        Hostile { index, socket: None }
    }

    pub fn leave(&mut self, env: &mut Env) {
        if let Some(socket) = self.socket.take() {
            env.network.lose(&mut env.dice, socket);
        }
    }

    pub fn act(&mut self, env: &mut Env) {
        let Some(socket) = self.socket else {
            return self.socket = Some(env.network.connect(&mut env.dice));
        };
        env.network.sockets[socket].to_client.clear();
        if env.network.sockets[socket].is_server_gone {
            self.socket = None;
            return;
        }
        env.coverage.hostile_packets += 1;
        let mut bytes = match env.dice.below(10) {
            0 => (0..env.dice.below(60)).map(|_| env.dice.below(256) as u8).collect(),
            1..=4 => self.connect(env),
            5..=7 => self.publish(env),
            // SUBSCRIBE to everything, QoS 2.
            8 => vec![0x82, 7, 0, 9, 0, 0, 1, b'#', 2],
            _ => return self.leave(env),
        };
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
        let client_id = format!("hostile-{}", self.index);
        let mut connect = Connect::new(version, &client_id);
        connect.clean_start = true;
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(version, &mut bytes);
        bytes
    }

    fn publish(&self, env: &mut Env) -> Vec<u8> {
        let qos = *env.dice.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let topic = *env.dice.pick(&["h/1", "h/2", "$SYS/x", "h/\u{1f980}"]);
        let publish = Publish {
            qos,
            topic,
            packet_id: (qos != QoS::AtMostOnce).then(|| PacketId::new(7)).flatten(),
            properties: ForwardedProperties::from_raw(&[]),
            payload: b"hostile",
            ..Publish::default()
        };
        let mut bytes = Vec::new();
        publish.encode(ProtocolVersion::V5, &mut bytes);
        bytes
    }
}
