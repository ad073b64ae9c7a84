//! A client of MQTT 3.1.1 that does as little as these tests need.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, next_frame,
};

const VERSION: ProtocolVersion = ProtocolVersion::V311;

pub(crate) struct Client {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, client_id: &str) -> Client {
        let socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time above 0");
        let mut client = Client { socket, input: Vec::new() };
        let mut bytes = Vec::new();
        Connect::new(VERSION, client_id).encode(&mut bytes);
        client.write(&bytes);
        client.read_until(|packet| matches!(packet, Packet::Connack(_)).then_some(()));
        client
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        let options = SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list = [(filter, options)];
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).expect("not 0"),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        }));
        self.read_until(|packet| matches!(packet, Packet::Suback(_)).then_some(()));
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&Packet::Publish(Publish { topic, payload, ..Publish::default() }));
    }

    /// At QoS 1; returns when the broker has it.
    pub(crate) fn publish_acked(&mut self, topic: &str, payload: &[u8], id: u16) {
        let (qos, packet_id) = (QoS::AtLeastOnce, PacketId::new(id));
        let publish = Publish { qos, packet_id, topic, payload, ..Publish::default() };
        self.send(&Packet::Publish(publish));
        self.read_until(|packet| match packet {
            Packet::Puback(ack) if ack.packet_id.get() == id => Some(()),
            _ => None,
        });
    }

    /// The next message, topic and payload.
    pub(crate) fn receive(&mut self) -> (String, Vec<u8>) {
        self.read_until(|packet| match packet {
            Packet::Publish(publish) => Some((publish.topic.to_owned(), publish.payload.to_vec())),
            _ => None,
        })
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(VERSION, &mut bytes);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    fn read_until<T>(&mut self, mut wanted: impl FnMut(&Packet<'_>) -> Option<T>) -> T {
        loop {
            while let Some(frame) = next_frame(&self.input, usize::MAX).expect("packets") {
                let size = frame.size;
                let found = wanted(&Packet::decode(&frame, VERSION).expect("a packet"));
                self.input.drain(..size);
                if let Some(found) = found {
                    return found;
                }
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).expect("an answer in time");
            assert!(count > 0, "the broker has closed the connection");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }
}
