//! The relay: what a broker's sockets cost without a broker. It stands on RingMQ's own network, in the same loop and with the
//! same buffers, and moves the same packets between the same sockets along fixed routes. Of MQTT it does what clients must have:
//! the exchanges that begin a connection, and those of QoS 1 and 2, with packet ids of each subscriber's own. It has no matching
//! after the first publish, no sessions, no retained messages and no queues; what it cannot do ends it with a sentence.
//!
//! A message is copied once, whatever the number of its receivers, which is the least that a ring whose sends own their bytes
//! allows. So nothing that carries MQTT on this ring is below the relay.

mod acks;
mod link;
mod route;
mod routes;
#[cfg(test)]
mod tests;
mod wires;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ringmq::config::Settings;
use ringmq::config::keys::Key;
use ringmq::config::kind::Written;
use ringmq::net::epoll::Epoll;
use ringmq::net::uring::{Ring, RingSettings};
use ringmq::net::{Event, Network};
use ringmq::shard::ReadMode;
use ringmq::system::calls::set_tcp_rto_max;
use ringmq::system::io::{self, Io};
use ringmq::system::process::Process;
use ringmq::time::Instant;
use signal_hook::consts::SIGTERM;
use socket2::{Domain, Protocol, Socket, Type};

use crate::broker::parse_cores;
use crate::machine;
use link::Link;
use wires::Wires;

/// The hidden first argument with which this program is the relay. Behind it stand its cores, where it listens and how it asks for
/// input and output.
pub(crate) const SERVE: &str = "__relay";

/// As the broker: where a turn has so few outputs, they leave by calls of their own, and no completion ends the next wait.
const SENDS_NOW_MAX: usize = 3;

const SLEEP_MAX: Duration = Duration::from_secs(1);
const BACKLOG: i32 = 4096;

/// Is the relay, on the cores named first, until it is told to end.
pub(crate) fn serve(arguments: &[OsString]) -> ExitCode {
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
            Relay::listen(address, &choice.io, &settings, ring.map_err(text_of)?)?.run()
        }
        Io::Epoll => {
            let epoll = Epoll::new(settings.receive_buffer_size as usize);
            Relay::listen(address, &choice.io, &settings, epoll.map_err(text_of)?)?.run()
        }
    }
}

fn text_of(error: impl ToString) -> String {
    error.to_string()
}

struct Relay<N> {
    net: N,
    wires: Wires,
}

impl<N: Network> Relay<N> {
    fn listen(address: &str, io: &Io, settings: &Settings, mut net: N) -> Result<Relay<N>, String> {
        let failed = |error| format!("listening on {address}: {error}");
        let wanted: SocketAddr = address.parse().map_err(|_| format!("{address}: no address"))?;
        let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, Some(Protocol::TCP))
            .map_err(failed)?;
        socket.set_reuse_address(true).map_err(failed)?;
        // Accepted sockets inherit these, as those of the broker do.
        socket.set_tcp_nodelay(true).map_err(failed)?;
        let user_timeout = Duration::from_millis(settings.tcp.user_timeout_ms.into());
        socket.set_tcp_user_timeout(Some(user_timeout)).map_err(failed)?;
        set_tcp_rto_max(&socket, settings.tcp.rto_max_ms).map_err(failed)?;
        socket.bind(&wanted.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?.as_socket().expect("it is TCP");
        net.listen(socket.into());
        eprintln!("relay: listening on {bound} ({io})");
        Ok(Relay { net, wires: Wires::default() })
    }

    fn run(mut self) -> Result<(), String> {
        let ends = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, ends.clone()).map_err(text_of)?;
        let mut now = Instant::ZERO;
        while !ends.load(Relaxed) {
            self.net.wait(now, SLEEP_MAX);
            now = Instant(machine::now_ns() / 1_000_000);
            self.take_events(now)?;
            self.flush();
            // Behind the sends: what they take at once may let a publisher go on.
            self.change_read_modes();
        }
        Ok(())
    }

    fn take_events(&mut self, now: Instant) -> Result<(), String> {
        let Relay { net, wires } = self;
        let (mut accepted, mut ended) = (Vec::new(), Vec::new());
        while let Some(event) = net.next_event(now) {
            match event {
                Event::Received { owner, bytes } => {
                    if !wires.receive(owner as usize, bytes)? {
                        ended.push(owner as usize);
                    }
                }
                Event::Sent { owner, output } => wires.sent(owner as usize, output),
                Event::Accepted { socket, .. } => accepted.push(socket),
                Event::AcceptFailed { .. } => {}
                Event::Ended { owner, .. } => ended.push(owner as usize),
            }
        }
        for socket in accepted {
            let place = wires.links.vacant_entry();
            let socket = net.adopt(socket, place.key() as u64);
            net.read(socket, ReadMode::Many);
            place.insert(Link::new(socket));
        }
        for index in ended {
            if let Some(socket) = wires.remove(index) {
                net.close(socket);
            }
        }
        Ok(())
    }

    /// One send for each connection that has bytes.
    fn flush(&mut self) {
        let Relay { net, wires } = self;
        let mut filled = std::mem::take(&mut wires.filled);
        let mut left_now = match filled.len() {
            count if count <= SENDS_NOW_MAX => SENDS_NOW_MAX,
            _ => 0,
        };
        for index in filled.drain(..) {
            let link = &mut wires.links[index];
            link.is_filled = false;
            let Some(output) = link.output.take() else { continue };
            let may_leave_now = left_now > 0;
            left_now = left_now.saturating_sub(1);
            if let Some(output) = net.send(link.socket, output, may_leave_now) {
                wires.sent(index, output);
            }
        }
        wires.filled = filled;
    }

    /// Publishers whose subscribers have much to take are not read until those have taken it.
    fn change_read_modes(&mut self) {
        for index in self.wires.changed.drain(..) {
            let Some(link) = self.wires.links.get(index) else { continue };
            let mode = if link.is_paused { ReadMode::Stopped } else { ReadMode::Many };
            self.net.read(link.socket, mode);
        }
    }
}
