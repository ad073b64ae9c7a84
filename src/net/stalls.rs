//! Connections whose peers take nothing: what keeps the kernel from giving them up long before `tcp_user_timeout_ms`.
//!
//! A peer with a closed window is probed, and after `tcp_retries2` (15) probes without an answer the kernel ends the
//! connection, whatever the user timeout says. With probes at most `tcp_rto_max_ms` apart an outage of some 45 s is
//! enough. So a shard looks at connections that it has sent to and that are not confirmed: every 3 s, at busy ones
//! every 12 s. Probes that nobody answers then come up to two minutes apart, which makes some 15 minutes of them; once
//! the peer answers, the bound holds again. Links of bridges have the kernel's own bound from the start.
//!
//! The bound is there because retransmissions stop in another way: the kernel of a client with a small receive buffer
//! that stops reading drops bytes that it had offered to take. The sender backs off, nothing tells it that the client
//! reads again, and after a pause of 30 s the next try may be 50 s away (scenario `stalled-subscriber`).

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use tracing::debug;

use crate::net::Network;
use crate::net::socket::{SocketTable, Watch};
use crate::shard::ConnectionId;
use crate::system::calls::{RTO_MAX_MS, outstanding, set_tcp_rto_max, unanswered_probes};
use crate::time::Instant;

/// Between two looks. Six probes take some 9 s, and the other nine at 3 s another 27: it is looked in between.
const LOOK_MS: u64 = 3_000;
/// Every so many looks, also connections are looked at that something was sent to since.
const BUSY_LOOKS: u64 = 4;
/// Connections of a look in one turn, and when the next ones are looked at.
const LOOKS_MAX: usize = 256;
const LOOK_ON_MS: u64 = 10;
/// Probes without an answer, after which the next ones may take their time.
const PROBES_MAX: u8 = 6;

pub struct Stalls {
    rto_max_ms: u32,
    /// Each once. Who is closed since is skipped.
    watched: VecDeque<ConnectionId>,
    /// How many of `watched` this look still has to see.
    due: usize,
    looks: u64,
    look_at: Instant,
}

impl Stalls {
    pub fn new(rto_max_ms: u32, now: Instant) -> Stalls {
        Stalls {
            rto_max_ms,
            watched: VecDeque::new(),
            due: 0,
            looks: 0,
            look_at: now.plus_ms(LOOK_MS),
        }
    }

    /// Something is sent to `connection`, which is watched as `watch` from here on.
    pub fn note(&mut self, connection: ConnectionId, watch: &mut Watch) {
        match watch {
            Watch::None => {
                *watch = Watch::Busy;
                self.watched.push_back(connection);
            }
            Watch::Quiet => *watch = Watch::Busy,
            Watch::Busy | Watch::Patient => {}
        }
    }

    /// When a look that was begun goes on.
    pub fn deadline(&self) -> Option<Instant> {
        (self.due > 0).then_some(self.look_at)
    }

    /// Looks at some connections, if it is time to.
    pub fn look<N: Network>(&mut self, now: Instant, sockets: &mut SocketTable, net: &mut N) {
        if self.look_at > now {
            return;
        }
        if self.due == 0 {
            self.due = self.watched.len();
            self.looks += 1;
        }
        for _ in 0..self.due.min(LOOKS_MAX) {
            self.due -= 1;
            let Some(connection) = self.watched.pop_front() else { break };
            let Some((key, watch)) = sockets.get_watched(connection) else { continue };
            if *watch == Watch::Busy && !self.looks.is_multiple_of(BUSY_LOOKS) {
                *watch = Watch::Quiet;
            } else {
                *watch = net
                    .descriptor(key)
                    .map_or(Watch::None, |socket| next(socket, *watch, self.rto_max_ms));
            }
            if *watch != Watch::None {
                self.watched.push_back(connection);
            }
        }
        self.look_at = now.plus_ms(if self.due > 0 { LOOK_ON_MS } else { LOOK_MS });
        if self.watched.is_empty() {
            self.watched = VecDeque::new();
        }
    }
}

/// Looks at one connection, and sets what its kernel is to do.
fn next(socket: BorrowedFd<'_>, watch: Watch, rto_max_ms: u32) -> Watch {
    let is_patient = watch == Watch::Patient;
    let probes = match outstanding(&socket) {
        0 => None,
        _ => Some(unanswered_probes(&socket)),
    };
    match probes {
        Some(probes) if probes >= PROBES_MAX && !is_patient => {
            debug!("a peer answers no probe of its closed window: the next ones come ever later");
            // A kernel that does not know the bound does not shorten it either.
            let _ = set_tcp_rto_max(&socket, RTO_MAX_MS);
            Watch::Patient
        }
        Some(1..) if is_patient => Watch::Patient,
        _ => {
            if is_patient {
                debug!("a peer answers again");
                let _ = set_tcp_rto_max(&socket, rto_max_ms);
            }
            if probes.is_none() { Watch::None } else { Watch::Quiet }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    use crate::net::epoll::Epoll;
    use crate::net::socket::to_owner;

    #[test]
    fn who_was_sent_to_is_looked_at_once_it_is_quiet_and_at_times_while_it_is_busy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut net = Epoll::new(64).unwrap();
        let mut sockets = SocketTable::default();
        let mut stalls = Stalls::new(3_000, Instant(0));
        let mut connections = Vec::new();
        for index in 0..600 {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = listener.accept().unwrap().0;
            let connection = ConnectionId { index, generation: 1 };
            let key = net.adopt(stream.try_clone().unwrap().into(), to_owner(connection));
            sockets.insert(connection, key);
            connections.push((connection, stream, peer));
        }
        let mut send = |stalls: &mut Stalls, sockets: &mut SocketTable, count: usize| {
            for (connection, stream, _) in &mut connections[..count] {
                stream.write_all(b"x").unwrap();
                stalls.note(*connection, sockets.get_watched(*connection).unwrap().1);
            }
            stalls.watched.len()
        };
        assert_eq!(send(&mut stalls, &mut sockets, 600), 600);
        assert_eq!(send(&mut stalls, &mut sockets, 600), 600, "each once");
        let mut looks = |stalls: &mut Stalls, sockets: &mut SocketTable, at| {
            stalls.look(Instant(at), sockets, &mut net);
            stalls.watched.len()
        };
        // What was sent to since is not looked at, and what is quiet is confirmed.
        assert_eq!(looks(&mut stalls, &mut sockets, 2_999), 600);
        for at in [3_000, 3_010, 3_020, 3_030] {
            assert_eq!(looks(&mut stalls, &mut sockets, at), 600);
        }
        send(&mut stalls, &mut sockets, 10);
        for (at, left) in [(6_030, 600 - 246), (6_040, 600 - 246 - 256), (6_050, 10)] {
            assert_eq!(looks(&mut stalls, &mut sockets, at), left, "at {at} ms");
        }
        send(&mut stalls, &mut sockets, 10);
        assert_eq!(looks(&mut stalls, &mut sockets, 9_050), 10);
        send(&mut stalls, &mut sockets, 10);
        assert_eq!(looks(&mut stalls, &mut sockets, 12_050), 0, "the fourth look is at all");
        // Who is closed is forgotten.
        send(&mut stalls, &mut sockets, 3);
        sockets.remove(ConnectionId { index: 1, generation: 1 });
        assert_eq!(looks(&mut stalls, &mut sockets, 15_050), 2);
    }
}
