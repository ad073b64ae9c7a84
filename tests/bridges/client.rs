//! A client that speaks packets over a blocking socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, next_frame,
};

pub(crate) struct Client {
    stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
    out: Vec<u8>,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Message(Message),
    Acked(u16),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    /// All that travel with a message, encoded.
    pub properties: Vec<u8>,
}

impl Client {
    /// Connects with a session that lasts, if that is asked for.
    pub(crate) fn connect(
        address: SocketAddr,
        id: &str,
        version: ProtocolVersion,
        is_lasting: bool,
    ) -> io::Result<Client> {
        let mut connect = Connect::new(version, id);
        connect.clean_start = !is_lasting;
        connect.keep_alive_s = 30;
        if version == ProtocolVersion::V5 && is_lasting {
            connect.session_expiry_s = Some(3600);
        }
        Client::connect_as(address, connect)
    }

    pub(crate) fn connect_as(address: SocketAddr, connect: Connect<'_>) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let version = connect.version;
        let mut client = Client { stream, version, received: Vec::new(), out: Vec::new() };
        client.queue(&Packet::Connect(connect));
        client.flush()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            match client.read(Duration::from_millis(100))?.as_slice() {
                [Got::Other, ..] => return Ok(client),
                _ => continue,
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) -> io::Result<()> {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        self.queue(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(1).unwrap(),
            subscription_id: None,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&[(filter, options)]),
        }));
        self.flush()
    }

    /// Queues a publish; `flush` sends.
    pub(crate) fn publish(&mut self, publish: Publish<'_>) {
        self.queue(&Packet::Publish(publish));
    }

    fn queue(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.out);
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// What comes within `patience`, acknowledged at once: nothing only if no packet has come whole.
    pub(crate) fn read(&mut self, patience: Duration) -> io::Result<Vec<Got>> {
        let deadline = Instant::now() + patience;
        let mut all = Vec::new();
        while all.is_empty() && self.receive(deadline)? {
            let received = std::mem::take(&mut self.received);
            let mut rest = received.as_slice();
            while let Some(frame) = next_frame(rest, usize::MAX).expect("a broker sends frames") {
                rest = &rest[frame.size..];
                let packet = Packet::decode(&frame, self.version).expect("a broker sends packets");
                all.push(self.take(packet));
            }
            self.received = rest.to_vec();
        }
        self.flush()?;
        Ok(all)
    }

    /// `false`: nothing came until `deadline`.
    fn receive(&mut self, deadline: Instant) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
                Ok(size) => {
                    self.received.extend_from_slice(&buffer[..size]);
                    return Ok(true);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(false),
                    // A kernel may interrupt a call without any signal.
                    ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn take(&mut self, packet: Packet<'_>) -> Got {
        use ringmq::codec::{ReasonCode::Success, encode_puback, encode_pubcomp, encode_pubrec};
        match packet {
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    let encode =
                        if publish.qos == QoS::AtLeastOnce { encode_puback } else { encode_pubrec };
                    encode(self.version, id, Success, &mut self.out);
                }
                Got::Message(Message {
                    topic: publish.topic.to_owned(),
                    payload: publish.payload.to_vec(),
                    qos: publish.qos,
                    retain: publish.retain,
                    dup: publish.dup,
                    properties: publish.properties.pieces().collect::<Vec<_>>().concat(),
                })
            }
            Packet::Pubrel(ack) => {
                encode_pubcomp(self.version, ack.packet_id, Success, &mut self.out);
                Got::Other
            }
            Packet::Pubrec(ack) => {
                let release = ringmq::codec::encode_pubrel;
                release(self.version, ack.packet_id, Success, &mut self.out);
                Got::Other
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                assert!(!ack.reason.is_error(), "{:?}", ack.reason);
                Got::Acked(ack.packet_id.get())
            }
            _ => Got::Other,
        }
    }
}
