//! The relay: what a broker's sockets cost without a broker. A relay on RingMQ's own network moves the same bytes between
//! the same sockets: whole frames along fixed routes, QoS 0. Of MQTT it knows what clients need to get started.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ringmq::codec::{Packet, ProtocolVersion, next_frame};
use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::Written;
use ringmq::shard::{Output, ReadMode};
use ringmq::shell::check::Process;
use ringmq::shell::io::{self, Io};
use ringmq::shell::net::epoll::Epoll;
use ringmq::shell::net::uring::{Ring, RingSettings};
use ringmq::shell::net::{Event, Network, SocketKey};
use ringmq::time::Instant;
use ringmq::topic;
use signal_hook::consts::SIGTERM;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::broker::parse_cores;
use crate::engine::wire::body_range;
use crate::machine;

/// The hidden first argument with which this program is the relay. Behind it stand its cores, where it listens and how it asks for
/// input and output.
pub const SERVE: &str = "__relay";

/// Frames that one subscriber has not taken yet: the windows of the scenarios come nowhere near.
const WAITING_SIZE_MAX: usize = 256 << 20;

/// Empty buffers that are kept for the next sends.
const SPARE_COUNT_MAX: usize = 1024;
/// As the broker.
const SENDS_NOW_MAX: usize = 3;

const SLEEP_MAX: Duration = Duration::from_secs(1);
const BACKLOG: i32 = 4096;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const DISCONNECT: u8 = 14;

/// Is the relay, on the cores named first, until it is told to end.
pub fn serve(arguments: &[OsString]) -> ExitCode {
    let texts: Vec<&str> = arguments.iter().filter_map(|text| text.to_str()).collect();
    let [cores, address, way] = texts[..] else { return ExitCode::from(2) };
    let served = parse_cores(cores)
        .and_then(|cores| machine::pin(&cores).map_err(|error| format!("cores: {error}")))
        .and_then(|()| run(address, way));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("relay: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(address: &str, way: &str) -> Result<(), String> {
    let mut settings = Settings::default();
    let key = Key::find("io").expect("it is a key");
    key.set(&mut settings, key.kind.read(&Written::Argument(way))?);
    let choice =
        io::choose(settings.io, &Process::read()).map_err(|refusal| refusal.to_string())?;
    // As the broker has it by default.
    match choice.io {
        Io::Uring => {
            let ring = Ring::new(RingSettings::from(&settings));
            Relay::listen(address, choice.io, ring.map_err(|error| error.to_string())?)?.run()
        }
        Io::Epoll => {
            let epoll = Epoll::new(settings.receive_buffer_size as usize);
            Relay::listen(address, choice.io, epoll.map_err(|error| error.to_string())?)?.run()
        }
    }
}

struct Relay<N> {
    net: N,
    links: Slab<Link>,
    /// How often somebody has subscribed: a route that is older is looked for anew.
    subscriptions: u32,
    /// Links that got bytes in this turn.
    filled: Vec<usize>,
    spare: Vec<Vec<u8>>,
}

/// One connection.
struct Link {
    socket: SocketKey,
    version: ProtocolVersion,
    filters: Vec<String>,
    /// Where what it publishes goes, and how many subscriptions there were when that was found.
    route: Rc<[usize]>,
    route_of: u32,
    /// The part of a frame that has arrived.
    tail: Vec<u8>,
    /// What the next send takes.
    out: Vec<u8>,
    is_sending: bool,
    is_filled: bool,
}

impl<N: Network> Relay<N> {
    fn listen(address: &str, io: Io, mut net: N) -> Result<Relay<N>, String> {
        let failed = |error| format!("listening on {address}: {error}");
        let wanted: SocketAddr = address.parse().map_err(|_| format!("{address}: no address"))?;
        let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, Some(Protocol::TCP))
            .map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true).map_err(failed)?;
        socket.bind(&wanted.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?.as_socket().expect("it is TCP");
        net.listen(socket.into());
        eprintln!("relay: listening on {bound} ({io})");
        let (links, filled, spare) = (Slab::new(), Vec::new(), Vec::new());
        Ok(Relay { net, links, subscriptions: 0, filled, spare })
    }

    fn run(mut self) -> Result<(), String> {
        let ends = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, ends.clone()).map_err(|error| error.to_string())?;
        let mut now = Instant::ZERO;
        while !ends.load(Relaxed) {
            self.net.wait(now, SLEEP_MAX);
            now = Instant(machine::now_ns() / 1_000_000);
            self.take_events(now)?;
            self.flush();
        }
        Ok(())
    }

    fn take_events(&mut self, now: Instant) -> Result<(), String> {
        let Relay { net, links, subscriptions, filled, spare } = self;
        let mut accepted = Vec::new();
        let mut ended = Vec::new();
        while let Some(event) = net.next_event(now) {
            match event {
                Event::Received { owner, bytes } => {
                    let mut wires = Wires { links, subscriptions, filled };
                    if !wires.receive(owner as usize, bytes)? {
                        ended.push(owner as usize);
                    }
                }
                Event::Sent { owner, output } => {
                    let link = &mut links[owner as usize];
                    link.is_sending = false;
                    if !link.out.is_empty() && !std::mem::replace(&mut link.is_filled, true) {
                        filled.push(owner as usize);
                    }
                    give_back(spare, output);
                }
                Event::Accepted { socket } => accepted.push(socket),
                Event::AcceptFailed { .. } => {}
                Event::Ended { owner, .. } => ended.push(owner as usize),
            }
        }
        for socket in accepted {
            let place = links.vacant_entry();
            let socket = net.adopt(socket, place.key() as u64);
            net.read(socket, ReadMode::Many);
            place.insert(Link::new(socket));
        }
        for index in ended {
            // Routes that name it end with it.
            *subscriptions += 1;
            filled.retain(|filled| *filled != index);
            if let Some(link) = links.try_remove(index) {
                net.close(link.socket);
            }
        }
        Ok(())
    }

    /// One send for each connection that has bytes.
    fn flush(&mut self) {
        let Relay { net, links, filled, spare, .. } = self;
        let leaves_now = filled.len() <= SENDS_NOW_MAX;
        for index in filled.drain(..) {
            let link = &mut links[index];
            link.is_filled = false;
            if link.is_sending {
                continue;
            }
            let bytes = std::mem::replace(&mut link.out, spare.pop().unwrap_or_default());
            let output = Output { bytes, parts: Vec::new() };
            match net.send(link.socket, output, leaves_now) {
                Some(output) => give_back(spare, output),
                None => link.is_sending = true,
            }
        }
    }
}

fn give_back(spare: &mut Vec<Vec<u8>>, output: Output) {
    let mut buffer = output.bytes;
    buffer.clear();
    if spare.len() < SPARE_COUNT_MAX {
        spare.push(buffer);
    }
}

impl Link {
    fn new(socket: SocketKey) -> Link {
        Link {
            socket,
            version: ProtocolVersion::V311,
            filters: Vec::new(),
            route: Rc::default(),
            route_of: 0,
            tail: Vec::new(),
            out: Vec::new(),
            is_sending: false,
            is_filled: false,
        }
    }
}

/// The relay without its network, which lends the bytes.
struct Wires<'a> {
    links: &'a mut Slab<Link>,
    subscriptions: &'a mut u32,
    filled: &'a mut Vec<usize>,
}

impl Wires<'_> {
    /// `false`: the client leaves.
    fn receive(&mut self, from: usize, bytes: &[u8]) -> Result<bool, String> {
        let mut tail = std::mem::take(&mut self.links[from].tail);
        if tail.is_empty() {
            let used = self.take(from, bytes)?;
            tail.extend_from_slice(&bytes[used.unwrap_or(bytes.len())..]);
            self.links[from].tail = tail;
            return Ok(used.is_some());
        }
        tail.extend_from_slice(bytes);
        let used = self.take(from, &tail)?;
        tail.drain(..used.unwrap_or(0));
        self.links[from].tail = tail;
        Ok(used.is_some())
    }

    /// Passes whole frames on. Returns how many bytes they were; `None`: the client leaves.
    fn take(&mut self, from: usize, bytes: &[u8]) -> Result<Option<usize>, String> {
        let (mut begin, mut end) = (0, 0);
        while let Some((_, size)) = body_range(&bytes[end..])? {
            let kind = bytes[end] >> 4;
            if kind == PUBLISH {
                end += size;
                continue;
            }
            self.pass(from, &bytes[begin..end])?;
            if kind == DISCONNECT {
                return Ok(None);
            }
            self.answer(from, &bytes[end..end + size])?;
            end += size;
            begin = end;
        }
        self.pass(from, &bytes[begin..end])?;
        Ok(Some(end))
    }

    /// Appends publishes to the output of everyone they go to.
    fn pass(&mut self, from: usize, frames: &[u8]) -> Result<(), String> {
        if frames.is_empty() {
            return Ok(());
        }
        if self.links[from].route_of != *self.subscriptions {
            self.find_route(from, frames)?;
        }
        let route = self.links[from].route.clone();
        for to in route.iter() {
            self.append(*to, frames)?;
        }
        Ok(())
    }

    fn append(&mut self, to: usize, bytes: &[u8]) -> Result<(), String> {
        let link = &mut self.links[to];
        link.out.extend_from_slice(bytes);
        if link.out.len() > WAITING_SIZE_MAX {
            return Err(format!("a subscriber has {WAITING_SIZE_MAX} bytes waiting"));
        }
        if !link.is_sending && !std::mem::replace(&mut link.is_filled, true) {
            self.filled.push(to);
        }
        Ok(())
    }

    fn find_route(&mut self, from: usize, frames: &[u8]) -> Result<(), String> {
        let version = self.links[from].version;
        let Packet::Publish(publish) = decode(frames, version)? else {
            return Err("a publish was expected".to_string());
        };
        let takes =
            |link: &Link| link.filters.iter().any(|filter| topic::matches(filter, publish.topic));
        let takers = self.links.iter().filter(|(_, link)| takes(link));
        let route = takers.map(|(index, _)| index).collect();
        let link = &mut self.links[from];
        (link.route, link.route_of) = (route, *self.subscriptions);
        Ok(())
    }

    /// What clients wait for before they begin.
    fn answer(&mut self, from: usize, frame: &[u8]) -> Result<(), String> {
        let link = &mut self.links[from];
        let packet = decode(frame, link.version)?;
        let mut answer = Vec::new();
        match (frame[0] >> 4, packet) {
            (CONNECT, Packet::Connect(connect)) => {
                link.version = connect.version;
                let properties: &[u8] =
                    if connect.version == ProtocolVersion::V5 { &[0] } else { &[] };
                answer.extend([0x20, 2 + properties.len() as u8, 0, 0]);
                answer.extend_from_slice(properties);
            }
            (SUBSCRIBE, Packet::Subscribe(subscribe)) => {
                *self.subscriptions += 1;
                let known = link.filters.len();
                link.filters.extend(subscribe.filters.iter().map(|(filter, _)| filter.to_string()));
                let properties = usize::from(link.version == ProtocolVersion::V5);
                // QoS 0 is granted, whatever was asked for.
                let body_size = 2 + properties + link.filters.len() - known;
                answer.push(0x90);
                crate::message::write_size(&mut answer, body_size);
                answer.extend(subscribe.packet_id.get().to_be_bytes());
                answer.resize(answer.len() + body_size - 2, 0);
            }
            (kind, _) => return Err(format!("a client sent a packet of type {kind}: QoS 0 only")),
        }
        self.append(from, &answer)
    }
}

fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, String> {
    let frame = next_frame(bytes, usize::MAX).ok().flatten().ok_or("a frame is not whole")?;
    Packet::decode(&frame, version).map_err(|error| format!("a client sent no packet: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::encode_subscribe;

    #[test]
    fn whole_frames_go_to_those_who_asked_for_them_however_they_arrive() {
        let mut net = Epoll::new(64).expect("epoll");
        let mut links = Slab::new();
        for owner in 0..4 {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("it is free");
            links.insert(Link::new(net.adopt(socket.into(), owner)));
        }
        let (mut subscriptions, mut filled) = (0, Vec::new());
        let mut wires =
            Wires { links: &mut links, subscriptions: &mut subscriptions, filled: &mut filled };
        for (index, filter) in [(1, "a/+"), (2, "a/b"), (3, "a/c")] {
            let subscribe = encode_subscribe(&[filter.to_string()], 0, 3).expect("QoS 0");
            assert_eq!(wires.receive(index, &subscribe), Ok(true));
            assert_eq!(std::mem::take(&mut wires.links[index].out), [0x90, 3, 0, 1, 0]);
        }
        let frames = [&[0x30, 7, 0, 3][..], b"a/b12", &[0x30, 6, 0, 3], b"a/b3"].concat();
        for byte in &frames {
            assert_eq!(wires.receive(0, &[*byte]), Ok(true));
            let passed = &wires.links[1].out;
            assert!(passed.is_empty() || passed.len() == 9 || passed.len() == frames.len());
        }
        assert_eq!([1, 2, 3].map(|to| wires.links[to].out.clone()), [&frames[..], &frames, &[]]);
        assert_eq!(wires.receive(0, &[0xe0, 0]), Ok(false));
    }
}
