//! Facts about a client beside its session (user name, addresses): kept only while hooks ask for them.

use super::SessionLimits;
use crate::arena::allocated;
use crate::codec::ProtocolVersion;
use std::net::SocketAddr;

#[derive(Clone, Debug)]
pub struct Profile {
    pub user_name: Option<Box<str>>,
    pub peer: Option<SocketAddr>,
    /// The local address of the client's connection.
    pub listener: Option<SocketAddr>,
    pub version: ProtocolVersion,
    /// Bounds that a hook has set.
    pub limits: SessionLimits,
}

impl Profile {
    /// The memory in use, in bytes.
    pub fn bytes(&self) -> usize {
        let user_name = self.user_name.as_ref().map_or(0, |name| allocated(name.len()));
        allocated(size_of::<Profile>()) + user_name
    }
}
