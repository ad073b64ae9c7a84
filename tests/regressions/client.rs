//! A client on a plain socket: bytes out as the test likes, whole frames in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::fields::{Kind, Packet};
use crate::message::Message;
use crate::wire::{self, Version};

/// How long an answer may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub socket: TcpStream,
    pub version: Version,
    input: Vec<u8>,
    /// Where in `input` the next frame begins.
    at: usize,
    /// Frames that came while an answer was awaited.
    waiting: std::collections::VecDeque<Vec<u8>>,
}

/// What came next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Frame(Vec<u8>),
    Nothing,
    Closed,
}

/// A PUBLISH that came, taken apart.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// 0 at QoS 0.
    pub id: u16,
    pub topic: &'a [u8],
    /// Without their length; empty before MQTT 5.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl Client {
    pub(crate) fn open(address: SocketAddr, version: Version) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { socket, version, input: Vec::new(), at: 0, waiting: Default::default() }
    }

    /// Connects; panics unless the broker takes it.
    pub(crate) fn join(
        address: SocketAddr,
        version: Version,
        id: &str,
        fields: &[(&str, &str)],
    ) -> Client {
        let mut client = Client::open(address, version);
        client.send(&connect(version, id, fields));
        let connack = client.answer(Kind::Connack);
        assert_eq!(connack.bytes("reason"), None, "{id}: {connack}");
        client
    }

    /// `filters`: `FILTER@QOS` and options. Returns when they are granted; what came before waits.
    pub(crate) fn subscribe(&mut self, filters: &[&str]) {
        self.send(&subscribe(self.version, 1, filters));
        let suback = self.answer(Kind::Suback);
        assert!(suback.all("reasons").iter().all(|code| code.len() == 1), "{suback}");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next frame of `kind`; what comes before it waits.
    pub(crate) fn answer(&mut self, kind: Kind) -> Packet {
        loop {
            match self.read(PATIENCE) {
                Received::Frame(frame) if frame[0] >> 4 == kind as u8 => {
                    return wire::decode(&frame, self.version).unwrap();
                }
                Received::Frame(frame) => self.waiting.push_back(frame),
                other => panic!("{other:?} for {}", kind.name()),
            }
        }
    }

    /// The next frame; panics when there is none.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        match self.receive(PATIENCE) {
            Received::Frame(frame) => frame,
            other => panic!("{other:?} where a packet was expected"),
        }
    }

    /// The next frame; malformed ones are found by those who read them.
    pub(crate) fn receive(&mut self, patience: Duration) -> Received {
        match self.waiting.pop_front() {
            Some(frame) => Received::Frame(frame),
            None => self.read(patience),
        }
    }

    /// The next PUBLISH, acknowledged as its QoS wants it; releases of QoS 2 are answered on the way.
    pub(crate) fn message(&mut self, patience: Duration) -> Received {
        loop {
            let frame = match self.receive(patience) {
                Received::Frame(frame) => frame,
                other => return other,
            };
            match Kind::from_number(frame[0] >> 4) {
                Some(Kind::Publish) => {
                    let delivery = self.delivery(&frame).unwrap();
                    self.acknowledge(&delivery);
                    return Received::Frame(frame);
                }
                Some(Kind::Pubrel) => {
                    let released = wire::decode(&frame, self.version).unwrap();
                    self.send(&ack(Kind::Pubcomp, released.number("id").unwrap() as u16));
                }
                _ => panic!("{:?} where messages are expected", wire::decode(&frame, self.version)),
            }
        }
    }

    fn read(&mut self, patience: Duration) -> Received {
        loop {
            let rest = &self.input[self.at..];
            if let Some(size) = wire::packet_size(rest).unwrap()
                && rest.len() >= size
            {
                let frame = rest[..size].to_vec();
                self.at += size;
                return Received::Frame(frame);
            }
            self.input.drain(..self.at);
            self.at = 0;
            self.socket.set_read_timeout(Some(patience)).unwrap();
            let mut buffer = [0; 32 << 10];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Received::Closed,
                Ok(size) => self.input.extend(&buffer[..size]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Received::Nothing;
                }
                // A kernel may interrupt a call without any signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::Closed,
            }
        }
    }

    /// `frame` as a message; `None` when it is another packet.
    pub(crate) fn delivery<'a>(&self, frame: &'a [u8]) -> Option<Delivery<'a>> {
        if frame[0] >> 4 != Kind::Publish as u8 {
            return None;
        }
        let mut rest = &frame[1..];
        while rest[0] & 0x80 != 0 {
            rest = &rest[1..];
        }
        rest = &rest[1..];
        let qos = frame[0] >> 1 & 3;
        let (size, after) = rest.split_at(2);
        let (topic, mut rest) = after.split_at(usize::from(u16::from_be_bytes([size[0], size[1]])));
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties: &[u8] = &[];
        if self.version == Version::V5 {
            let mut size = 0;
            let digits = 1 + rest.iter().take_while(|&&byte| byte & 0x80 != 0).count();
            for &byte in rest[..digits].iter().rev() {
                size = size << 7 | usize::from(byte & 0x7F);
            }
            (properties, rest) = rest[digits..].split_at(size);
        }
        let (dup, retain) = (frame[0] & 8 != 0, frame[0] & 1 != 0);
        Some(Delivery { dup, qos, retain, id, topic, properties, payload: rest })
    }

    /// Acknowledges a message as its QoS wants it: PUBACK, PUBREC or nothing.
    pub(crate) fn acknowledge(&mut self, delivery: &Delivery<'_>) {
        match delivery.qos {
            0 => {}
            1 => self.send(&ack(Kind::Puback, delivery.id)),
            _ => self.send(&ack(Kind::Pubrec, delivery.id)),
        }
    }

    /// Ends the session in order.
    pub(crate) fn leave(mut self) {
        self.send(&[0xE0, 0]);
        self.drain();
    }

    /// Reads to the end, which must come.
    pub(crate) fn drain(&mut self) {
        loop {
            match self.receive(PATIENCE) {
                Received::Frame(_) => {}
                Received::Closed => return,
                Received::Nothing => panic!("the broker does not close the connection"),
            }
        }
    }

    /// Ends the connection with a reset: what was not read yet is lost.
    pub(crate) fn reset(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A CONNECT with named fields, clean unless they say otherwise.
pub(crate) fn connect(version: Version, id: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = Packet::new(Kind::Connect);
    packet.push("client_id", id);
    packet.push_number("keep_alive", 0);
    for (name, value) in fields {
        packet.push(crate::fields::field(name).expect("a field's name").0, *value);
    }
    wire::encode(&packet, version).unwrap()
}

/// A CONNECT, clean, with a will of any bytes at QoS 1.
pub(crate) fn connect_with_will(version: Version, id: &str, will: &Message) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([version as u8, 0b0000_1110, 0, 60]);
    if version == Version::V5 {
        body.push(0);
    }
    wire::prefixed(id.as_bytes(), &mut body).unwrap();
    if version == Version::V5 {
        wire::var_int(will.properties.len(), &mut body);
        body.extend(&will.properties);
    }
    wire::prefixed(will.topic.as_bytes(), &mut body).unwrap();
    wire::prefixed(&will.payload, &mut body).unwrap();
    let mut packet = vec![0x10];
    wire::var_int(body.len(), &mut packet);
    packet.extend(body);
    packet
}

pub(crate) fn subscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut packet = Packet::new(Kind::Subscribe);
    packet.push_number("id", id.into());
    for filter in filters {
        packet.push("filter", *filter);
    }
    wire::encode(&packet, version).unwrap()
}

pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut packet = Packet::new(Kind::Unsubscribe);
    packet.push_number("id", id.into());
    for filter in filters {
        packet.push("filter", *filter);
    }
    wire::encode(&packet, version).unwrap()
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn ack(kind: Kind, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [(kind as u8) << 4 | if kind == Kind::Pubrel { 2 } else { 0 }, 2, high, low]
}
