//! The addresses of clients, as limits count them.

use crate::hash::KeyedHash;
use crate::session::HolderName;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IPv4 address, or the 64 bits of an IPv6 address that name a network: a client that has one address of it has all.
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

    /// The name under which shares are counted. The same IPv4 /24 or IPv6 /48 is the crowd of the name.
    pub(super) fn name(&self, hash: &KeyedHash) -> HolderName {
        match self.0 {
            IpAddr::V4(address) => {
                let bytes = address.octets();
                HolderName::new(hash.bytes(&bytes), hash.bytes(&bytes[..3]))
            }
            IpAddr::V6(address) => {
                let bytes = address.octets();
                HolderName::new(hash.bytes(&bytes[..8]), hash.bytes(&bytes[..6]))
            }
        }
    }

    /// The name for all clients whose address is not known: their connection ended before it was asked for.
    pub(super) fn unknown(hash: &KeyedHash) -> HolderName {
        HolderName::new(hash.bytes(b"unknown"), 0)
    }
}
