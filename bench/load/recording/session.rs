//! A session that waits for what it gets: connects, perhaps with a password, subscribes with options, and answers.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringmq::codec::{
    Connect, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscriptionOptions, encode_pingreq, encode_puback, encode_pubcomp, encode_pubrec, next_frame,
};

use crate::client::version;
use crate::interrupt;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// A broker that has nothing to say is asked whether it is there, and is given up.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(60);

const READ_SIZE: usize = 256 << 10;
const STEP: Duration = Duration::from_millis(50);

/// Who connects.
#[derive(Clone, Default)]
pub(super) struct Identity {
    pub client_id: String,
    pub keep_alive_s: u16,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Takes a packet, and writes what must be answered.
type TakePacket<'a> = dyn FnMut(&Packet<'_>, &mut Vec<u8>) -> Result<bool, String> + 'a;

#[derive(Debug)]
pub(super) struct Session {
    pub stream: TcpStream,
    pub mqtt: u8,
    input: Vec<u8>,
    chunk: Box<[u8]>,
    out: Vec<u8>,
    /// QoS 1 and 2 messages that the broker lets this client have unacknowledged.
    pub receive_max: u16,
    /// Of the SUBSCRIBE that was answered last.
    granted: Option<Vec<u8>>,
    /// QoS 1 messages of this client that the broker has acknowledged.
    pub acked: u64,
    heard: Instant,
    spoke: Instant,
}

fn closed(reason: impl fmt::Display) -> String {
    format!("the broker closed the connection: {reason}")
}

impl Session {
    pub(super) fn connect(
        address: SocketAddr,
        mqtt: u8,
        identity: &Identity,
    ) -> Result<Session, String> {
        let failed = |error: std::io::Error| format!("connecting to {address}: {error}");
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIME_MAX).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(STEP)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX)).map_err(failed)?;
        let now = Instant::now();
        let mut session = Session {
            stream,
            mqtt,
            input: Vec::new(),
            chunk: vec![0; READ_SIZE].into(),
            out: Vec::new(),
            receive_max: u16::MAX,
            granted: None,
            acked: 0,
            heard: now,
            spoke: now,
        };
        let connect = Connect {
            keep_alive_s: identity.keep_alive_s,
            receive_max: (mqtt == 5).then_some(u16::MAX),
            user_name: identity.user.as_deref(),
            password: identity.password.as_deref().map(str::as_bytes),
            ..Connect::new(version(mqtt), &identity.client_id)
        };
        connect.encode(&mut session.out);
        session.flush()?;
        let mut answer = None;
        session.read_until(ANSWER_TIME_MAX, &mut |packet, _| {
            match packet {
                Packet::Connack(connack) => answer = Some((connack.reason, connack.receive_max)),
                other => return Err(format!("the broker answered CONNECT with {other:?}")),
            }
            Ok(true)
        })?;
        match answer.ok_or("the broker does not answer CONNECT")? {
            (ReasonCode::Success, receive_max) => {
                session.receive_max = receive_max.unwrap_or(u16::MAX);
                Ok(session)
            }
            (ReasonCode::UnsupportedProtocolVersion, _) if mqtt == 5 => {
                Err("the broker does not speak MQTT 5.0: --mqtt 3".to_string())
            }
            (reason, _) => Err(format!("the broker refused the connection: {reason:?}")),
        }
    }

    /// Subscribes, and hands on what comes meanwhile. Returns the QoS granted to each filter.
    pub(super) fn subscribe(
        &mut self,
        filters: &[String],
        options: SubscriptionOptions,
        take: &mut dyn FnMut(&Publish<'_>) -> Result<(), String>,
    ) -> Result<Vec<u8>, String> {
        let mut granted = Vec::new();
        // Few enough that a packet stays below any broker's limit.
        for some in filters.chunks(50) {
            let list: Vec<_> = some.iter().map(|filter| (filter.as_str(), options)).collect();
            let subscribe = Subscribe {
                packet_id: PacketId::new(1).expect("not 0"),
                subscription_id: None,
                user_properties: Default::default(),
                filters: SubscribeFilters::from_list(&list),
            };
            subscribe.encode(version(self.mqtt), &mut self.out);
            self.flush()?;
            self.granted = None;
            let begin = Instant::now();
            let codes = loop {
                if begin.elapsed() > ANSWER_TIME_MAX {
                    return Err("the broker does not answer SUBSCRIBE".to_string());
                }
                interrupt::check()?;
                self.turn(take)?;
                if let Some(codes) = self.granted.take() {
                    break codes;
                }
            };
            for (filter, code) in some.iter().zip(&codes) {
                if *code > 2 {
                    return Err(format!("the broker refuses the filter {filter}: 0x{code:02x}"));
                }
            }
            if codes.len() != some.len() {
                return Err("the broker answered SUBSCRIBE with too few codes".to_string());
            }
            granted.extend(codes);
        }
        Ok(granted)
    }

    /// Waits a little for the broker, and takes what has come. True if something has.
    pub(super) fn turn(
        &mut self,
        take: &mut dyn FnMut(&Publish<'_>) -> Result<(), String>,
    ) -> Result<bool, String> {
        let mut granted = None;
        let (mut has_come, mut acked) = (false, 0);
        let version = version(self.mqtt);
        self.read_until(Duration::ZERO, &mut |packet, out| {
            has_come = true;
            match packet {
                Packet::Publish(publish) => {
                    match (publish.qos, publish.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => {
                            encode_puback(version, id, ReasonCode::Success, out);
                        }
                        (QoS::ExactlyOnce, Some(id)) => {
                            encode_pubrec(version, id, ReasonCode::Success, out);
                        }
                        _ => {}
                    }
                    take(publish)?;
                }
                Packet::Pubrel(ack) => {
                    encode_pubcomp(version, ack.packet_id, ReasonCode::Success, out);
                }
                Packet::Suback(suback) => {
                    granted = Some(suback.reasons.iter().map(|reason| reason as u8).collect());
                }
                Packet::Puback(ack) if (ack.reason as u8) < 0x80 => acked += 1,
                Packet::Pingresp => {}
                Packet::Disconnect(disconnect) => {
                    return Err(closed(format!("{:?}", disconnect.reason)));
                }
                other => return Err(format!("the broker answered with {other:?}")),
            }
            Ok(false)
        })?;
        self.granted = granted.or(self.granted.take());
        self.acked += acked;
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(format!("the broker has said nothing for {} s", SILENCE_MAX.as_secs()));
        }
        if self.spoke.elapsed() > PING_INTERVAL {
            encode_pingreq(&mut self.out);
        }
        self.flush()?;
        Ok(has_come)
    }

    /// Reads once, and on while nothing whole has come and `patience` lasts. `take` says when it has enough.
    fn read_until(&mut self, patience: Duration, take: &mut TakePacket<'_>) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(closed("end of file")),
                Ok(size) => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(&self.chunk[..size]);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(closed(error)),
                },
            }
            if self.take_packets(take)? || begin.elapsed() >= patience {
                return Ok(());
            }
            interrupt::check()?;
        }
    }

    fn take_packets(&mut self, take: &mut TakePacket<'_>) -> Result<bool, String> {
        let wrong = |error| format!("the broker sent what is no packet: {error}");
        let (mut at, mut has_enough) = (0, false);
        while let Some(frame) = next_frame(&self.input[at..], usize::MAX).map_err(wrong)? {
            let packet = Packet::decode(&frame, version(self.mqtt)).map_err(wrong)?;
            has_enough |= take(&packet, &mut self.out)?;
            at += frame.size;
        }
        self.input.drain(..at);
        Ok(has_enough)
    }

    /// Sends bytes, with the answers that wait.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.out).map_err(closed)?;
        self.out.clear();
        self.spoke = Instant::now();
        Ok(())
    }

    /// How long a turn waits for something to come.
    pub(super) fn set_patience(&mut self, patience: Duration) -> Result<(), String> {
        self.stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())
    }

    /// Leaves as one should.
    pub(super) fn disconnect(mut self) {
        Disconnect::new(ReasonCode::Success).encode(version(self.mqtt), usize::MAX, &mut self.out);
        // Whether the broker reads it is its affair.
        let _ = self.flush();
    }

    /// The socket, for an event loop, and what has come by now.
    pub(super) fn into_stream(self) -> Result<(mio::net::TcpStream, Vec<u8>), String> {
        self.stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok((mio::net::TcpStream::from_std(self.stream), self.input))
    }
}
