//! One client: connects, subscribes or publishes, pings, and connects again if it may. It never waits.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use mio::net::TcpStream;
use mio::{Interest, Token};
use ringmq::codec::{
    Connack, Connect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscriptionOptions, encode_puback, encode_pubcomp, encode_pubrec, next_frame,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::check::Arrival;
use super::counts::add;
use super::hub::Hub;
use super::outgoing::Outgoing;
use super::settings::{Role, Settings};
use crate::client::{KEEP_ALIVE_S, Target};
use crate::machine::now_ns;

const S: u64 = 1_000_000_000;
/// A broker that answers CONNECT or SUBSCRIBE later has not answered.
const ANSWER_TIME_MAX_NS: u64 = 5 * S;
/// The least from one attempt of a client to its next.
const RETRY_TIME_NS: u64 = S / 2;
/// A client looks after its connection at least so often.
const LOOK_TIME_NS: u64 = S;
/// What a client has read at a time before others have their turn: `READS_MAX` buffers.
const READS_MAX: usize = 8;
/// A client with more to write reads nothing: its broker does not read.
const OUT_SIZE_MAX: usize = 256 << 10;
/// Nobody publishes to those that do not subscribe.
const PACKET_SIZE_MAX: usize = 64 << 10;
const PACKET_SIZE_MAX_OF_SUB: usize = 64 << 20;

/// MQTT 3.1, 3.1.1 and 5.0 alike.
const DISCONNECT: [u8; 2] = [0xe0, 0];
const PINGREQ: [u8; 2] = [0xc0, 0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has not begun, or waits to connect again.
    Idle,
    Connecting,
    /// CONNECT was sent.
    Greeting,
    Subscribing,
    Open,
    Ended,
}

pub(super) struct Client {
    /// Among those of all threads, from 0.
    index: usize,
    token: Token,
    stream: Option<TcpStream>,
    state: State,
    /// When the state began; when it ends, of one that is idle.
    since_ns: u64,
    /// What has arrived of a packet that is not whole.
    input: Vec<u8>,
    out: Vec<u8>,
    written_ns: u64,
    /// PINGREQ waits for its answer since then; 0: none does.
    pinged_ns: u64,
    /// How often it was accepted.
    connections: u32,
    attempts_left: u32,
    has_settled: bool,
    outgoing: Option<Box<Outgoing>>,
    /// It is in the worker's list of those that go on at once.
    pub is_eager: bool,
    /// Its earliest place in the worker's queue of times.
    pub scheduled_ns: u64,
}

impl Client {
    pub(super) fn new(index: usize, token: Token, settings: &Settings) -> Client {
        Client {
            index,
            token,
            stream: None,
            state: State::Idle,
            since_ns: u64::MAX,
            input: Vec::new(),
            out: Vec::new(),
            written_ns: 0,
            pinged_ns: 0,
            connections: 0,
            attempts_left: settings.connect_retries,
            has_settled: false,
            outgoing: None,
            is_eager: false,
            scheduled_ns: u64::MAX,
        }
    }

    /// As `%i` has it.
    fn number(&self, settings: &Settings) -> u64 {
        settings.start_number + self.index as u64 + 1
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Begins to connect.
    pub(super) fn open(&mut self, hub: &mut Hub<'_>) {
        hub.opening += 1;
        add(&hub.shared.counts.begun, 1);
        self.state = State::Connecting;
        self.since_ns = hub.now_ns;
        let opened = self.socket(hub.settings).and_then(|socket| {
            let mut stream = TcpStream::from_std(socket.into());
            let both = Interest::READABLE | Interest::WRITABLE;
            hub.registry.register(&mut stream, self.token, both)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.lose(hub, &format!("connect: {error}")),
        }
    }

    fn socket(&self, settings: &Settings) -> std::io::Result<Socket> {
        let address = settings.targets[self.index % settings.targets.len()];
        let socket = match settings.sources.len() {
            0 => Target { address, keep_alive_s: KEEP_ALIVE_S }.socket(self.index)?,
            count => {
                let domain = Domain::for_address(address);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                let source = SocketAddr::new(settings.sources[self.index % count], 0);
                socket.bind(&source.into())?;
                socket.set_tcp_nodelay(true)?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
                    && error.kind() != ErrorKind::WouldBlock =>
            {
                Err(error)
            }
            _ => Ok(socket),
        }
    }

    /// Something happened on the socket, or there was more to do. True: there is more at once.
    pub(super) fn serve(&mut self, hub: &mut Hub<'_>, buffer: &mut [u8]) -> bool {
        if self.stream.is_none() {
            return false;
        }
        self.try_serve(hub, buffer).unwrap_or_else(|reason| {
            self.lose(hub, &reason);
            false
        })
    }

    fn try_serve(&mut self, hub: &mut Hub<'_>, buffer: &mut [u8]) -> Result<bool, String> {
        if self.state == State::Connecting && !self.is_connected(hub)? {
            return Ok(false);
        }
        self.flush(hub.now_ns)?;
        let more_to_read = self.read(hub, buffer)?;
        let more_to_send = self.publish(hub)?;
        Ok(more_to_read || more_to_send)
    }

    /// The socket has connected; CONNECT goes out then.
    fn is_connected(&mut self, hub: &Hub<'_>) -> Result<bool, String> {
        let Some(stream) = &self.stream else { return Ok(false) };
        let failed = |error| format!("connect: {error}");
        if let Some(error) = stream.take_error().map_err(failed)? {
            return Err(failed(error));
        }
        match stream.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(failed(error)),
            Ok(_) => {}
        }
        let settings = hub.settings;
        let client_id = settings.client_id(self.number(settings));
        let is_v5 = settings.version == ringmq::codec::ProtocolVersion::V5;
        Connect {
            clean_start: settings.clean,
            keep_alive_s: settings.keep_alive_s,
            user_name: settings.user_name.as_deref(),
            password: settings.password.as_deref().map(str::as_bytes),
            session_expiry_s: Some(settings.session_expiry_s).filter(|s| is_v5 && *s > 0),
            receive_max: is_v5.then_some(u16::MAX),
            ..Connect::new(settings.version, &client_id)
        }
        .encode(&mut self.out);
        self.state = State::Greeting;
        Ok(true)
    }

    /// Its time has come. True: there is more to do at once.
    pub(super) fn look(&mut self, hub: &mut Hub<'_>) -> bool {
        let now = hub.now_ns;
        let is_due = now >= self.since_ns.saturating_add(ANSWER_TIME_MAX_NS);
        match self.state {
            State::Idle if now >= self.since_ns => self.open(hub),
            State::Connecting if is_due => self.lose(hub, "connect: no answer within 5 s"),
            State::Greeting if is_due => self.lose(hub, "no answer to CONNECT within 5 s"),
            State::Subscribing if is_due => self.lose(hub, "no answer to SUBSCRIBE within 5 s"),
            State::Open => {
                let worked = self.ping(hub).and_then(|()| self.publish(hub));
                return worked.unwrap_or_else(|reason| {
                    self.lose(hub, &reason);
                    false
                });
            }
            _ => {}
        }
        false
    }

    /// When it wants to be looked at.
    pub(super) fn wake_ns(&self, hub: &Hub<'_>) -> u64 {
        match self.state {
            State::Ended => u64::MAX,
            State::Idle => self.since_ns,
            State::Connecting | State::Greeting | State::Subscribing => {
                self.since_ns + ANSWER_TIME_MAX_NS
            }
            State::Open => {
                let publish = self.outgoing.as_ref().map_or(u64::MAX, |outgoing| outgoing.due_ns());
                // One that is due and cannot go waits for the socket.
                let publish = if publish > hub.now_ns { publish } else { u64::MAX };
                publish.min(hub.now_ns + LOOK_TIME_NS)
            }
        }
    }

    fn ping(&mut self, hub: &Hub<'_>) -> Result<(), String> {
        let keep_alive_ns = u64::from(hub.settings.keep_alive_s) * S;
        if keep_alive_ns == 0 {
            return Ok(());
        }
        if self.pinged_ns > 0 && hub.now_ns > self.pinged_ns + keep_alive_ns {
            return Err("no answer to PINGREQ within a keep alive".to_string());
        }
        if self.pinged_ns == 0 && hub.now_ns >= self.written_ns + keep_alive_ns / 4 * 3 {
            self.pinged_ns = hub.now_ns;
            self.out.extend_from_slice(&PINGREQ);
            return self.flush(hub.now_ns);
        }
        Ok(())
    }

    fn flush(&mut self, now_ns: u64) -> Result<(), String> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut written = 0;
        while written < self.out.len() {
            match stream.write(&self.out[written..]) {
                Ok(size) => written += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        if written > 0 {
            self.written_ns = now_ns;
            self.out.drain(..written);
        }
        Ok(())
    }

    /// Takes what has arrived. True: there may be more.
    fn read(&mut self, hub: &mut Hub<'_>, buffer: &mut [u8]) -> Result<bool, String> {
        for _ in 0..READS_MAX {
            if self.out.len() > OUT_SIZE_MAX {
                return Ok(false);
            }
            let Some(stream) = &mut self.stream else { return Ok(false) };
            match stream.read(buffer) {
                Ok(0) => return Err("the broker closed the connection".to_string()),
                Ok(size) => {
                    // What was read may be younger than the time that was looked at before.
                    hub.now_ns = now_ns();
                    self.take(&buffer[..size], hub)?;
                    self.flush(hub.now_ns)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("receive: {error}")),
            }
        }
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8], hub: &mut Hub<'_>) -> Result<(), String> {
        if self.input.is_empty() {
            let used = self.packets(bytes, hub)?;
            self.input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let used = self.packets(&input, hub)?;
        input.drain(..used);
        // What a large packet needed is not kept for the next small one.
        if !input.is_empty() {
            self.input = input;
        }
        Ok(())
    }

    /// Handles the whole packets. Returns their size.
    fn packets(&mut self, bytes: &[u8], hub: &mut Hub<'_>) -> Result<usize, String> {
        let size_max = match hub.settings.role {
            Role::Sub(_) => PACKET_SIZE_MAX_OF_SUB,
            Role::Conn | Role::Pub(_) => PACKET_SIZE_MAX,
        };
        let wrong = |error| format!("the broker sent what is no packet: {error}");
        let mut at = 0;
        while let Some(frame) = next_frame(&bytes[at..], size_max).map_err(wrong)? {
            at += frame.size;
            let packet = Packet::decode(&frame, hub.settings.version).map_err(wrong)?;
            self.handle(&packet, hub)?;
        }
        Ok(at)
    }

    fn handle(&mut self, packet: &Packet<'_>, hub: &mut Hub<'_>) -> Result<(), String> {
        let version = hub.settings.version;
        match (self.state, packet) {
            (State::Greeting, Packet::Connack(connack)) => self.accepted(connack, hub),
            (State::Subscribing, Packet::Suback(suback)) => {
                self.state = State::Open;
                let refused = suback.reasons.iter().find(|reason| *reason as u8 >= 0x80);
                match refused {
                    Some(reason) => {
                        let reason = format!("the broker refused a subscription: {reason:?}");
                        hub.shared.blame(&reason);
                    }
                    None => add(&hub.shared.counts.subscribed, 1),
                }
                Ok(())
            }
            (State::Subscribing | State::Open, Packet::Publish(publish)) => {
                self.received(publish, hub);
                Ok(())
            }
            (State::Subscribing | State::Open, Packet::Pubrel(release)) => {
                encode_pubcomp(version, release.packet_id, ReasonCode::Success, &mut self.out);
                Ok(())
            }
            (State::Open, Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubcomp(ack)) => {
                let kind = match packet {
                    Packet::Puback(_) => 4,
                    Packet::Pubrec(_) => 5,
                    _ => 7,
                };
                let outgoing = self.outgoing.as_mut();
                let outgoing = outgoing.ok_or("the broker acknowledged what was not sent")?;
                outgoing.acknowledged(kind, ack.packet_id, ack.reason, &mut self.out, hub)
            }
            (State::Subscribing | State::Open, Packet::Pingresp) => {
                self.pinged_ns = 0;
                Ok(())
            }
            (_, Packet::Disconnect(disconnect)) => {
                Err(format!("the broker closed the connection: {:?}", disconnect.reason))
            }
            _ => Err("the broker sent a packet that nobody asked for".to_string()),
        }
    }

    fn accepted(&mut self, connack: &Connack<'_>, hub: &mut Hub<'_>) -> Result<(), String> {
        if connack.reason != ReasonCode::Success {
            return Err(format!("the broker refused the client: {:?}", connack.reason));
        }
        hub.opening -= 1;
        hub.connect.record(hub.now_ns - self.since_ns);
        add(&hub.shared.counts.accepted, 1);
        add(&hub.shared.counts.open, 1);
        if self.connections == 0 {
            self.attempts_left = hub.settings.reconnects;
        }
        self.connections += 1;
        self.settle(hub);
        self.state = State::Open;
        self.since_ns = hub.now_ns;
        self.pinged_ns = 0;
        let number = self.number(hub.settings);
        match &hub.settings.role {
            Role::Conn => {}
            Role::Pub(publishing) => {
                if self.outgoing.is_none() {
                    let outgoing = Outgoing::new(publishing, hub.settings, number)?;
                    self.outgoing = Some(Box::new(outgoing));
                }
                if let Some(outgoing) = &mut self.outgoing {
                    outgoing.connected(connack.receive_max, hub.now_ns);
                }
            }
            Role::Sub(subscribing) => {
                let expand = |filter: &String| hub.settings.expand(filter, number, None);
                let filters: Result<Vec<String>, String> =
                    subscribing.filters.iter().map(expand).collect();
                let filters = filters?;
                let options =
                    SubscriptionOptions { qos: subscribing.qos, ..SubscriptionOptions::default() };
                let list: Vec<_> =
                    filters.iter().map(|filter| (filter.as_str(), options)).collect();
                Subscribe {
                    packet_id: PacketId::new(1).expect("not 0"),
                    subscription_id: None,
                    user_properties: Default::default(),
                    filters: SubscribeFilters::from_list(&list),
                }
                .encode(hub.settings.version, &mut self.out);
                self.state = State::Subscribing;
            }
        }
        Ok(())
    }

    /// It was accepted once, or never will be.
    fn settle(&mut self, hub: &Hub<'_>) {
        if !std::mem::replace(&mut self.has_settled, true) {
            add(&hub.shared.counts.settled, 1);
        }
    }

    fn received(&mut self, publish: &Publish<'_>, hub: &mut Hub<'_>) {
        let version = hub.settings.version;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => {
                encode_puback(version, id, ReasonCode::Success, &mut self.out);
            }
            (QoS::ExactlyOnce, Some(id)) => {
                encode_pubrec(version, id, ReasonCode::Success, &mut self.out);
            }
            _ => {}
        }
        let counts = &hub.shared.counts;
        add(&counts.received, 1);
        add(&counts.received_size, publish.payload.len() as u64);
        add(&counts.retained, u64::from(publish.retain));
        let shares = match &hub.settings.role {
            Role::Sub(subscribing) => {
                subscribing.filters.iter().any(|filter| filter.starts_with("$share/"))
            }
            Role::Conn | Role::Pub(_) => false,
        };
        let arrival = Arrival {
            client: self.index as u32,
            connection: self.connections,
            dup: publish.dup,
            retain: publish.retain,
            shares,
            payload: publish.payload,
            wall_ns: hub.settings.wall_ns(hub.now_ns),
        };
        hub.check.note(&arrival, counts, &mut hub.arrive);
    }

    /// Publishes what is due. True: more is due than fits a turn.
    fn publish(&mut self, hub: &mut Hub<'_>) -> Result<bool, String> {
        let Some(outgoing) = self.outgoing.as_mut().filter(|_| self.state == State::Open) else {
            return Ok(false);
        };
        let mut more = outgoing.publish(&mut self.out, hub)?;
        let is_done = outgoing.is_done();
        self.flush(hub.now_ns)?;
        if is_done && self.out.is_empty() {
            self.end(hub);
            return Ok(false);
        }
        // What the socket does not take now goes on when it takes more.
        more &= self.out.is_empty();
        Ok(more)
    }

    /// Nothing more is to be published: what is under way is waited for.
    pub(super) fn wind_up(&mut self, hub: &mut Hub<'_>) {
        match &mut self.outgoing {
            Some(outgoing) if self.state == State::Open => {
                outgoing.finish();
                if outgoing.is_done() && self.out.is_empty() {
                    self.end(hub);
                }
            }
            _ => self.end(hub),
        }
    }

    /// Ends the client in peace: its connection is closed with DISCONNECT.
    pub(super) fn end(&mut self, hub: &mut Hub<'_>) {
        match self.state {
            State::Ended => return,
            State::Subscribing | State::Open => {
                if self.outgoing.is_some() && !self.out.is_empty() {
                    hub.shared.blame("the broker did not take all that was published");
                }
                self.out.extend_from_slice(&DISCONNECT);
                // If it fails the broker has closed already.
                let _ = self.flush(hub.now_ns);
                hub.shared.counts.open.fetch_sub(1, Relaxed);
            }
            State::Connecting | State::Greeting => hub.opening -= 1,
            State::Idle => {}
        }
        self.close(hub);
        self.state = State::Ended;
        add(&hub.shared.counts.ended, 1);
        self.settle(hub);
    }

    fn close(&mut self, hub: &Hub<'_>) {
        if let Some(mut stream) = self.stream.take() {
            // Closing does it, too.
            let _ = hub.registry.deregister(&mut stream);
        }
        (self.input, self.out) = (Vec::new(), Vec::new());
        if let Some(outgoing) = &mut self.outgoing {
            add(&hub.shared.counts.unacked, outgoing.disconnected());
        }
    }

    /// The connection is lost, or did not come about.
    fn lose(&mut self, hub: &mut Hub<'_>, reason: &str) {
        let counts = &hub.shared.counts;
        match self.state {
            State::Connecting | State::Greeting => {
                hub.opening -= 1;
                add(&counts.refused, 1);
            }
            State::Subscribing | State::Open => {
                counts.open.fetch_sub(1, Relaxed);
                add(&counts.lost_connections, 1);
            }
            State::Idle | State::Ended => return,
        }
        hub.shared.blame(reason);
        self.close(hub);
        if self.attempts_left > 0 {
            self.attempts_left -= 1;
            self.state = State::Idle;
            // Those that a broker has closed together do not come back together.
            let spread = self.index as u64 % 100 * (RETRY_TIME_NS / 100);
            self.since_ns = hub.now_ns + RETRY_TIME_NS + spread;
            return;
        }
        self.state = State::Ended;
        add(&counts.ended, 1);
        self.settle(hub);
    }
}
