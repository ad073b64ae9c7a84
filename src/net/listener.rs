//! Listening sockets: one for each shard and address, so that the kernel spreads the connections.
//!
//! A start binds every address first and listens last, when shards and bridges run, so a start that fails resets no
//! client. Two brokers that start together never share a port (`Bound::listen`), and no socket that listened is closed
//! again.

use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::TcpSettings;
use crate::system::calls::set_tcp_rto_max;

/// Connections that wait to be accepted, on each listener.
const BACKLOG: i32 = 4096;

const BIND_TRIES: u32 = 15;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// An address that is ours to listen on, or that of a rival that starts at the same time.
#[derive(Debug)]
pub struct Bound {
    /// With the port that port 0 has become.
    pub address: SocketAddr,
    first: Socket,
    tcp: TcpSettings,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct Listeners {
    pub address: SocketAddr,
    /// One for each shard.
    pub sockets: Vec<OwnedFd>,
}

/// Binds `address`, which a port that somebody listens on refuses. Nobody can connect yet.
pub fn bind(address: SocketAddr, tcp: TcpSettings) -> Result<Bound, ListenError> {
    let bound = patiently(|| bind_alone(address)).and_then(|first| {
        set_options(&first, tcp)?;
        let address = first.local_addr()?.as_socket();
        Ok(Bound { address: address.ok_or(io::ErrorKind::AddrNotAvailable)?, first, tcp })
    });
    bound.map_err(|error| ListenError { address, error })
}

impl Bound {
    /// Listens, once for each of `shard_count` shards. Who connects from here on is served.
    ///
    /// The first socket does not share its port until it listens: of two that are bound like that, the kernel lets one listen,
    /// and to one that listens it lets nobody bind. So two brokers that start together cannot divide connections in silence.
    /// It listens for good, so nobody who connects meanwhile is reset; then it lets the others of this process in.
    pub fn listen(self, shard_count: u16) -> Result<Listeners, ListenError> {
        let Bound { address, first, tcp } = self;
        let listen = || {
            first.listen(BACKLOG)?;
            first.set_reuse_port(true)?;
            let others = (1..shard_count).map(|_| bind_beside(address, tcp));
            let others: Vec<OwnedFd> = others.collect::<io::Result<_>>()?;
            Ok(others)
        };
        let others = listen().map_err(|error| ListenError { address, error })?;
        Ok(Listeners { address, sockets: iter::once(first.into()).chain(others).collect() })
    }
}

/// Tries again for a moment while the address is in use: of a process that was killed, the kernel closes the rings, and
/// with them the listeners, only after it is gone.
pub fn patiently<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..BIND_TRIES {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(BIND_PAUSE),
            settled => return settled,
        }
    }
    bind()
}

/// Binds without SO_REUSEPORT, which a port that anybody listens on refuses; with it, whoever else has set it as well
/// would silently get a share of our connections.
fn bind_alone(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    // A port where only old connections linger is free; but port 0 shall find one where none do.
    socket.set_reuse_address(address.port() != 0)?;
    socket.bind(&address.into())?;
    // As those have it that bind beside it, and accepted sockets, which linger when this process has gone.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// One more socket of a port that this process listens on.
fn bind_beside(address: SocketAddr, tcp: TcpSettings) -> io::Result<OwnedFd> {
    let socket = open(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    set_options(&socket, tcp)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What accepted sockets inherit.
fn set_options(socket: &Socket, tcp: TcpSettings) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let user_timeout = Duration::from_millis(tcp.user_timeout_ms.into());
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    set_tcp_rto_max(socket, tcp.rto_max_ms)?;
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // [::] and 0.0.0.0 are two addresses, whatever the system's default.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Why an address cannot be listened on: a sentence for the operator.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { address, error } = self;
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: another process uses port {}; stop it (`ss -ltnp` shows it) or \
                 choose another port",
                address.port()
            ),
            io::ErrorKind::AddrNotAvailable => write!(
                f,
                "cannot listen on {address}: no network interface has the address {}",
                address.ip()
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            ),
            _ => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const TCP: TcpSettings = TcpSettings { rto_max_ms: 1_500, user_timeout_ms: 20_000 };

    fn listen(
        address: SocketAddr,
        shard_count: u16,
        tcp: TcpSettings,
    ) -> Result<Listeners, ListenError> {
        bind(address, tcp)?.listen(shard_count)
    }

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn port_0_becomes_one_free_port_for_all_shards() {
        for address in [local(0), "[::1]:0".parse().unwrap()] {
            let listeners = listen(address, 3, TCP).unwrap();
            assert_ne!(listeners.address.port(), 0);
            assert_eq!(listeners.sockets.len(), 3);
            for socket in &listeners.sockets {
                let listener = TcpListener::from(socket.try_clone().unwrap());
                assert_eq!(listener.local_addr().unwrap(), listeners.address);
            }
            TcpStream::connect(listeners.address).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_refused_with_a_sentence() {
        let taken = TcpListener::bind(local(0)).unwrap();
        let error = listen(taken.local_addr().unwrap(), 2, TCP).unwrap_err().to_string();
        assert!(error.contains("another process uses port"), "{error}");
        // Also when the other would share it.
        let sharing = listen(local(0), 2, TCP).unwrap();
        let error = listen(sharing.address, 2, TCP).unwrap_err().to_string();
        assert!(error.contains("another process uses port"), "{error}");
        let everywhere = SocketAddr::from(([0, 0, 0, 0], sharing.address.port()));
        listen(everywhere, 1, TCP).unwrap_err();
    }

    #[test]
    fn of_two_that_start_together_one_listens() {
        for shards in [1, 3] {
            let ours = bind(local(0), TCP).unwrap();
            let port = ours.address.port();
            // Both have bound it, as neither listens.
            let rival = bind(local(port), TCP).unwrap();
            let ours = ours.listen(shards).unwrap();
            let error = rival.listen(shards).unwrap_err().to_string();
            assert!(error.contains("another process uses port"), "{error}");
            bind(local(port), TCP).unwrap_err();
            assert_eq!(ours.sockets.len(), usize::from(shards));
        }
    }

    #[test]
    fn nobody_who_connects_while_a_broker_starts_is_reset() {
        let bound = bind(local(0), TCP).unwrap();
        let address = bound.address;
        // Not a moment before all listen, or each that connects is kept.
        TcpStream::connect(address).unwrap_err();
        let connecting = thread::spawn(move || {
            let mut streams = Vec::new();
            while streams.len() < 200 {
                streams.extend(TcpStream::connect(address));
            }
            streams
        });
        let listeners = bound.listen(4).unwrap();
        let streams = connecting.join().unwrap();
        let mut accepted = Vec::new();
        for socket in listeners.sockets {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true).unwrap();
            accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
        }
        assert_eq!(accepted.len(), streams.len());
        for stream in streams {
            assert!(stream.take_error().unwrap().is_none());
        }
    }

    #[test]
    fn both_families_have_the_same_port() {
        let first = listen("[::1]:0".parse().unwrap(), 1, TCP).unwrap();
        let port = first.address.port();
        let everywhere: SocketAddr = format!("0.0.0.0:{port}").parse().unwrap();
        assert_eq!(listen(everywhere, 1, TCP).unwrap().address.port(), port);
    }

    #[test]
    fn an_address_that_nobody_has_is_named() {
        let error = listen("192.0.2.1:1883".parse().unwrap(), 1, TCP).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1"), "{error}");
    }

    #[test]
    fn accepted_sockets_have_the_times_of_tcp() {
        let listeners = listen(local(0), 1, TCP).unwrap();
        let listener = TcpListener::from(listeners.sockets.into_iter().next().unwrap());
        let _client = TcpStream::connect(listeners.address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = Socket::from(accepted);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
        assert!(socket.tcp_nodelay().unwrap());
        match crate::system::calls::tcp_rto_max(&socket) {
            Some(rto_max_ms) => assert_eq!(rto_max_ms, 1_500),
            None => eprintln!("SKIPPED: TCP_RTO_MAX_MS needs Linux 6.15"),
        }
    }
}
