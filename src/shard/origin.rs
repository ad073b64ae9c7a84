//! Where connections come from, as limits count it.

use crate::hash::KeyedHash;
use crate::session::HolderName;
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

    /// What it is called where shares are counted. Like it are those of the same IPv4 /24 or IPv6 /48.
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

    /// The name of all whose address is not known: they have gone before they were asked.
    pub(super) fn unknown(hash: &KeyedHash) -> HolderName {
        HolderName::new(hash.bytes(b"unknown"), 0)
    }
}
