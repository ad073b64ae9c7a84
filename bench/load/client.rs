//! A client that waits: connects, subscribes, and hands its socket to the engine.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, Subscribe,
    SubscribeFilters, SubscriptionOptions, next_frame,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::interrupt;

/// Where the broker listens, and how long it may hear nothing of its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub keep_alive_s: u16,
}

/// Longer than most runs, so that clients need not ping, and not 0, so that the broker keeps its timer.
pub(crate) const KEEP_ALIVE_S: u16 = 3600;

/// Connections from one source address, at most.
const PORTS_USED_MAX: usize = 20_000;

/// The kernel's ports for connections from one address to another. `proc`: the file system of that name.
pub(crate) fn port_count(proc: &Path) -> Option<usize> {
    let range = std::fs::read_to_string(proc.join("sys/net/ipv4/ip_local_port_range")).ok()?;
    let mut ends = range.split_whitespace().map_while(|text| text.parse::<usize>().ok());
    let (low, high) = ends.next().zip(ends.next())?;
    Some((high + 1).saturating_sub(low))
}

/// How many of them are used: the others are left to who else connects, and to connections that have just ended.
fn ports_used() -> usize {
    static USED: OnceLock<usize> = OnceLock::new();
    *USED.get_or_init(|| {
        let ports = port_count(Path::new("/proc")).unwrap_or(PORTS_USED_MAX);
        (ports * 7 / 10).clamp(1, PORTS_USED_MAX)
    })
}

const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Retained messages that may come in front of the answer to a subscription.
const EARLY_COUNT_MAX: usize = 1000;

impl Target {
    /// A socket for connection number `index`, bound where ports would run short.
    pub(crate) fn socket(&self, index: usize) -> std::io::Result<Socket> {
        let socket =
            Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        let source = 1 + index / ports_used();
        if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) && source > 1 {
            let source = Ipv4Addr::new(127, 0, (source >> 8) as u8, source as u8);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: std::net::TcpStream,
    mqtt: u8,
    /// What has arrived and was not looked at.
    input: Vec<u8>,
    /// Publishes that came in front of the answer to a subscription, as topic and payload.
    early: VecDeque<(String, String)>,
    receive_max: u16,
    /// It waits for nothing any more once the bench is interrupted.
    heeds_interrupt: bool,
    /// The largest packet that the broker takes, if it says so.
    pub packet_size_max: Option<usize>,
}

pub(crate) fn version(mqtt: u8) -> ProtocolVersion {
    if mqtt == 5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 }
}

/// CONNECT of a client that starts clean.
pub(crate) fn encode_connect(client_id: &str, mqtt: u8, keep_alive_s: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let receive_max = (mqtt == 5).then_some(u16::MAX);
    Connect { keep_alive_s, receive_max, ..Connect::new(version(mqtt), client_id) }
        .encode(&mut bytes);
    bytes
}

/// SUBSCRIBE to `filters`.
pub(crate) fn encode_subscribe(filters: &[String], qos: u8, mqtt: u8) -> Result<Vec<u8>, String> {
    let qos = QoS::from_bits(qos).ok_or("no such QoS")?;
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let list: Vec<(&str, SubscriptionOptions)> =
        filters.iter().map(|filter| (filter.as_str(), options)).collect();
    let subscribe = Subscribe {
        packet_id: PacketId::new(1).expect("not 0"),
        subscription_id: None,
        user_properties: Default::default(),
        filters: SubscribeFilters::from_list(&list),
    };
    let mut bytes = Vec::new();
    subscribe.encode(version(mqtt), &mut bytes);
    Ok(bytes)
}

/// Topic and payload.
fn text_of(publish: &Publish<'_>) -> (String, String) {
    let payload = String::from_utf8_lossy(publish.payload);
    (publish.topic.to_string(), payload.into_owned())
}

impl Client {
    /// Connects as client number `index`. `receive_size`: of the socket's receive buffer, where the kernel's own
    /// choice would hold too much.
    pub(crate) fn connect(
        target: &Target,
        client_id: &str,
        mqtt: u8,
        index: usize,
        receive_size: Option<usize>,
    ) -> Result<Client, String> {
        interrupt::check()?;
        let client_id = (client_id, mqtt, index);
        let client = Client::connect_within(ANSWER_TIME_MAX, target, client_id, receive_size)?;
        Ok(Client { heeds_interrupt: true, ..client })
    }

    /// The same where the broker is not to take longer than `patience`, and the client works on once the bench is interrupted.
    pub(crate) fn connect_within(
        patience: Duration,
        target: &Target,
        (client_id, mqtt, index): (&str, u8, usize),
        receive_size: Option<usize>,
    ) -> Result<Client, String> {
        let failed = |error: std::io::Error| format!("connecting to {}: {error}", target.address);
        let socket = target.socket(index).map_err(failed)?;
        if let Some(size) = receive_size {
            socket.set_recv_buffer_size(size).map_err(failed)?;
        }
        socket.connect_timeout(&target.address.into(), patience).map_err(failed)?;
        let stream: std::net::TcpStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_millis(100))).map_err(failed)?;
        let mut client = Client {
            stream,
            mqtt,
            input: Vec::new(),
            early: VecDeque::new(),
            receive_max: u16::MAX,
            heeds_interrupt: false,
            packet_size_max: None,
        };
        client.send(&encode_connect(client_id, mqtt, target.keep_alive_s))?;
        let answer = |packet: &Packet<'_>| match packet {
            Packet::Connack(connack) if connack.reason == ReasonCode::Success => {
                Ok((connack.receive_max, connack.packet_size_max))
            }
            Packet::Connack(connack) => {
                Err(format!("the broker refused client {client_id}: {:?}", connack.reason))
            }
            other => Err(format!("the broker answered CONNECT with {other:?}")),
        };
        let answered = client.receive(patience, answer)?;
        let (receive_max, packet_size_max) = answered.ok_or("no answer to CONNECT")?;
        client.receive_max = receive_max.unwrap_or(u16::MAX);
        client.packet_size_max = packet_size_max.map(|size| size as usize);
        Ok(client)
    }

    pub(crate) fn subscribe(&mut self, filters: &[String], qos: u8) -> Result<(), String> {
        // Few enough that a packet stays far below any broker's limit.
        for some in filters.chunks(100) {
            self.send(&encode_subscribe(some, qos, self.mqtt)?)?;
            let granted = |packet: &Packet<'_>| match packet {
                Packet::Suback(suback)
                    if suback.reasons.iter().all(|reason| reason as u8 == qos) =>
                {
                    Ok(None)
                }
                // Retained messages may come first.
                Packet::Publish(publish) => Ok(Some(text_of(publish))),
                other => Err(format!("the broker did not grant {some:?} at QoS {qos}: {other:?}")),
            };
            while let Some(publish) =
                self.receive(ANSWER_TIME_MAX, granted)?.ok_or("no answer to SUBSCRIBE")?
            {
                if self.early.len() == EARLY_COUNT_MAX {
                    return Err(format!("{EARLY_COUNT_MAX} publishes and no answer to SUBSCRIBE"));
                }
                self.early.push_back(publish);
            }
        }
        Ok(())
    }

    /// Topic and payload of the next publish, as text, if one comes in time.
    pub(crate) fn next_publish(
        &mut self,
        patience: Duration,
    ) -> Result<Option<(String, String)>, String> {
        if let Some(publish) = self.early.pop_front() {
            return Ok(Some(publish));
        }
        self.receive(patience, |packet| match packet {
            Packet::Publish(publish) => Ok(text_of(publish)),
            other => Err(format!("expected a publish, got {other:?}")),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("send: {error}"))
    }

    /// The next packet as `read` sees it; `None` if none comes in time.
    fn receive<T>(
        &mut self,
        patience: Duration,
        read: impl Fn(&Packet<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let begin = Instant::now();
        loop {
            let wrong = |error| format!("the broker sent what is no packet: {error}");
            if let Some(frame) = next_frame(&self.input, usize::MAX).map_err(wrong)? {
                let found = read(&Packet::decode(&frame, version(self.mqtt)).map_err(wrong)?)?;
                let size = frame.size;
                self.input.drain(..size);
                return Ok(Some(found));
            }
            if begin.elapsed() > patience {
                return Ok(None);
            }
            if self.heeds_interrupt {
                interrupt::check()?;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the broker closed a connection".to_string()),
                Ok(size) => self.input.extend_from_slice(&chunk[..size]),
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted]
                        .contains(&error.kind()) => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
        }
    }

    /// The broker has not closed the connection.
    pub(crate) fn check_open(&self) -> Result<(), String> {
        self.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        match self.stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(format!("receive: {error}")),
            Ok(_) => Err("the broker ended an idle connection".to_string()),
        }
    }

    /// The socket, for an event loop, and how many publishes the broker lets this client have unacknowledged.
    pub(crate) fn into_stream(self) -> Result<(mio::net::TcpStream, u16), String> {
        if !self.input.is_empty() || !self.early.is_empty() {
            return Err("the broker sent more than the answers".to_string());
        }
        self.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok((mio::net::TcpStream::from_std(self.stream), self.receive_max))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
    const PUBLISH: [u8; 7] = [0x30, 5, 0, 1, b't', b'7', b'8'];
    const SUBACK: [u8; 6] = [0x90, 4, 0, 1, 0, 0];

    #[test]
    fn what_a_broker_publishes_in_front_of_its_suback_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let broker = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client comes");
            let mut read = || stream.read(&mut [0; 256]).expect("it speaks");
            assert!(read() > 0);
            stream.write_all(&CONNACK).expect("open");
            let mut read = || stream.read(&mut [0; 256]).expect("it speaks");
            assert!(read() > 0);
            stream.write_all(&[&PUBLISH[..], &SUBACK, &PUBLISH].concat()).expect("open");
            stream
        });
        let target = Target { address, keep_alive_s: KEEP_ALIVE_S };
        let mut client = Client::connect(&target, "c", 3, 0, None).expect("accepted");
        client.subscribe(&["t", "u"].map(str::to_string), 0).expect("granted");
        let _open = broker.join().expect("it did its part");
        for _ in 0..2 {
            let publish = client.next_publish(ANSWER_TIME_MAX).expect("open");
            assert_eq!(publish, Some(("t".to_string(), "78".to_string())));
        }
    }
}
