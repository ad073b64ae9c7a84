//! What is known of a client beside its session: kept only while hooks ask for it.

use super::SessionLimits;
use crate::codec::ProtocolVersion;
use std::net::SocketAddr;

#[derive(Clone, Debug)]
pub struct Profile {
    pub user_name: Option<Box<str>>,
    pub peer: Option<SocketAddr>,
    /// The address it connected to.
    pub listener: Option<SocketAddr>,
    pub version: ProtocolVersion,
    /// Bounds that a hook has set.
    pub limits: SessionLimits,
}
