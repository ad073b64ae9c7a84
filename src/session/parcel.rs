//! What is sent to a session in one go.

use super::Connection;
use crate::limits::Limits;

/// What is sent in one go: a message, or a run of them.
pub(super) trait Parcel {
    /// Whether there is room for all of it in an output, and for each message in a packet of the client's.
    fn fits(&self, connection: &Connection, limits: &Limits) -> bool;

    /// Whether a connection takes all of it at once and gets nothing of its own with it, if nothing is in front of it.
    #[inline(always)]
    fn is_taken(&self, connection: &Connection, limits: &Limits) -> bool {
        connection.aliases_out.is_none() && self.fits(connection, limits)
    }
}
