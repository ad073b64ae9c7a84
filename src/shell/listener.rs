//! Listening sockets: one for each shard and address, so that the kernel spreads the connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::TcpSettings;
use crate::shell::net;

/// Connections that wait to be accepted, on each listener.
const BACKLOG: i32 = 4096;

const BIND_TRIES: u32 = 15;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// The sockets of one address.
#[derive(Debug)]
pub struct Listeners {
    /// With the port that port 0 has become.
    pub address: SocketAddr,
    /// One for each shard.
    pub sockets: Vec<OwnedFd>,
}

/// Binds `address` once for each of `shard_count` shards; their connections get what `tcp` says.
pub fn listen(
    address: SocketAddr,
    shard_count: u16,
    tcp: TcpSettings,
) -> Result<Listeners, ListenError> {
    let error = |error| ListenError { address, error };
    let address = patiently(|| probe(address)).map_err(error)?;
    let sockets: io::Result<Vec<OwnedFd>> = (0..shard_count).map(|_| bind(address, tcp)).collect();
    Ok(Listeners { address, sockets: sockets.map_err(error)? })
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

/// Binds without SO_REUSEPORT, which a port in use by anybody refuses; with it, whoever else has set it as well
/// would silently get a share of our connections. Returns the address with the port that port 0 stands for.
fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = open(address)?;
    // A port where only old connections linger is free; but port 0 shall find one where none do.
    socket.set_reuse_address(address.port() != 0)?;
    socket.bind(&address.into())?;
    // With SO_REUSEADDR, bind is content with another that is bound and does not listen; listen is not.
    socket.listen(1)?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn bind(address: SocketAddr, tcp: TcpSettings) -> io::Result<OwnedFd> {
    let socket = open(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit these.
    socket.set_tcp_nodelay(true)?;
    let user_timeout = Duration::from_millis(tcp.user_timeout_ms.into());
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    net::set_tcp_rto_max(&socket, tcp.rto_max_ms)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        match net::tcp_rto_max(&socket) {
            Some(rto_max_ms) => assert_eq!(rto_max_ms, 1_500),
            None => eprintln!("SKIPPED: TCP_RTO_MAX_MS needs Linux 6.15"),
        }
    }
}
