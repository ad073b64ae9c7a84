//! Where connections come from, as limits count it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IPv4 address, or the 64 bits of an IPv6 address that name a network: whoever has one has all its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    pub fn of(address: SocketAddr) -> Origin {
        match address.ip().to_canonical() {
            IpAddr::V4(address) => Origin(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Origin(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        }
    }
}
