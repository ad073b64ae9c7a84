//! The places where clients connect: whether each can be bound, by us alone.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::Finding;
use crate::config::{Settings, overlap};
use crate::net::listener::patiently;

const SUBJECT: &str = "listen";

/// Binds each address for a moment, without sharing it: another process that does share its port would take half of the
/// connections in silence.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    // All are held until the last was tried.
    let mut held = Vec::new();
    let mut findings = Vec::new();
    for (index, address) in settings.listen.iter().enumerate() {
        // What is listed twice is in use by ourselves: the configuration's finding says so.
        if settings.listen[..index].iter().any(|other| overlap(address, other)) {
            continue;
        }
        match patiently(|| probe(address)) {
            Ok(socket) => {
                held.push(socket);
                findings.push(judge_free(address));
            }
            Err(error) => findings.push(explain(address, &error)),
        }
    }
    findings
}

fn probe(address: &SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that the kernel still remembers do no harm.
    socket.set_reuse_address(true)?;
    // It does not listen: who connected to it would be reset when it is dropped. What listens already is found so; a broker
    // that starts at the same time is met when the start listens itself.
    socket.bind(&(*address).into())?;
    Ok(socket)
}

fn judge_free(address: &SocketAddr) -> Finding {
    let free = match address.port() {
        0 => format!("{address}: a free port will be found"),
        _ => format!("{address} is free"),
    };
    if address.ip().is_loopback() {
        return Finding::ok(SUBJECT, free);
    }
    Finding::warn(
        SUBJECT,
        format!("{free}; whoever reaches it may publish and subscribe to everything"),
        "let only trusted networks reach it, or listen on loopback",
    )
}

fn explain(address: &SocketAddr, error: &io::Error) -> Finding {
    let port = address.port();
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => Finding::fail(
            SUBJECT,
            format!("{address} is in use"),
            format!(
                "end who has it (`ss -ltnp 'sport = :{port}'` shows it), or choose another port with --listen"
            ),
        ),
        Some(libc::EADDRNOTAVAIL) => Finding::fail(
            SUBJECT,
            format!("{address} is not an address of this machine"),
            "choose one that `ip address` shows, or 0.0.0.0 or [::] for all",
        ),
        Some(libc::EACCES | libc::EPERM) => Finding::fail(
            SUBJECT,
            format!("{address} is not allowed to this user"),
            "choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
        ),
        Some(libc::EAFNOSUPPORT) => Finding::fail(
            SUBJECT,
            format!(
                "{address}: this machine has no {}",
                if address.is_ipv6() { "IPv6" } else { "IPv4" }
            ),
            "leave it out, or switch the protocol on",
        ),
        _ => Finding::fail(
            SUBJECT,
            format!("{address} cannot be bound: {error}"),
            "choose another with --listen",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::Level;
    use super::*;

    fn check_one(address: &str) -> Finding {
        let settings = Settings { listen: vec![address.parse().unwrap()], ..Settings::default() };
        check(&settings).remove(0)
    }

    #[test]
    fn a_port_that_someone_shares_is_in_use() {
        let sharing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        sharing.set_reuse_port(true).unwrap();
        sharing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        sharing.listen(1).unwrap();
        let address = sharing.local_addr().unwrap().as_socket().unwrap().to_string();
        let finding = check_one(&address);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.what.contains("in use"), "{finding}");
        drop(sharing);
        assert_eq!(check_one(&address).level, Level::Ok);
    }

    #[test]
    fn a_port_that_someone_has_alone_is_in_use() {
        let owner = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(check_one(&owner.local_addr().unwrap().to_string()).level, Level::Fail);
    }

    #[test]
    fn nobody_connects_to_a_check() {
        let socket = probe(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        std::net::TcpStream::connect(address).unwrap_err();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let finding = check_one("192.0.2.1:1883");
        assert!(finding.what.contains("not an address of this machine"), "{finding}");
    }

    #[test]
    fn an_address_that_is_listed_twice_is_not_in_use() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let all = SocketAddr::from(([0, 0, 0, 0], free.port()));
        for listen in [vec![free, free], vec![free, all], vec![all, free]] {
            let found = check(&Settings { listen, ..Settings::default() });
            assert!(found.len() == 1 && found[0].level != Level::Fail, "{found:?}");
        }
    }

    #[test]
    fn an_open_listener_is_a_warning() {
        assert_eq!(check_one("0.0.0.0:0").level, Level::Warn);
    }
}
