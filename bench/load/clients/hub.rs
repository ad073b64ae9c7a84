//! What the clients of a thread have in common.

use mio::Registry;

use super::check::Check;
use super::counts::{LocalTimes, Shared};
use super::settings::Settings;

/// What the clients of a thread work with.
pub(super) struct Hub<'a> {
    pub settings: &'a Settings,
    pub shared: &'a Shared,
    pub registry: &'a Registry,
    pub check: Check,
    pub connect: LocalTimes,
    pub acknowledge: LocalTimes,
    pub arrive: LocalTimes,
    pub now_ns: u64,
    /// Clients that are under way to be accepted.
    pub opening: usize,
}
